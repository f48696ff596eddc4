//! What a backend says, read from a buffer: heads and bodies of HTTP/1.1 answers (RFC 9112). No IO.
//!
//! It is strict: what could be understood in two ways is refused, as the connection is used for somebody else's answer next.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use httparse::{ParserConfig, Status};

/// Of one answer.
const HEADERS: usize = 128;
/// The head of an answer, all of it.
pub const HEAD_BYTES: usize = 64 << 10;
/// A line that says how long a chunk is, with its extensions.
const CHUNK_LINE: usize = 4 << 10;
const TRAILER_BYTES: usize = 16 << 10;

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("its answer is not HTTP/1.1")]
    NotHttp,
    #[error("the head of its answer is too long")]
    HeadTooLong,
    #[error("it says in two ways how long its answer is")]
    Framing,
    #[error("a chunk of its answer is malformed")]
    Chunk,
}

/// An answer without its body.
#[derive(Debug)]
pub struct Head {
    pub status: StatusCode,
    /// The connection may be used again.
    pub keeps: bool,
    pub body: Decoder,
    text: Bytes,
    /// Headers without those that concern one connection only.
    spans: Vec<Span>,
    upgrade: Option<Span>,
}

impl Head {
    /// Names, as they were written, and values.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.spans.iter().map(|span| (&self.text[range(span.name)], &self.text[range(span.value)]))
    }

    pub fn headers(&self) -> Result<HeaderMap, Fault> {
        let mut headers = HeaderMap::with_capacity(self.spans.len() + 2);
        for span in &self.spans {
            let (name, value) = span.header(&self.text).ok_or(Fault::NotHttp)?;
            headers.append(name, value);
        }
        Ok(headers)
    }

    /// What the connection changes to, where the status is 101.
    pub fn upgrade(&self) -> Option<&[u8]> {
        self.upgrade.map(|span| &self.text[range(span.value)])
    }
}

/// Reads a head from the front of the buffer; `None` until it is whole. `method` is that of the request.
pub fn head(buffer: &mut BytesMut, method: &Method) -> Result<Option<Head>, Fault> {
    let mut places = [const { MaybeUninit::uninit() }; HEADERS];
    let mut answer = httparse::Response::new(&mut []);
    let parsed = ParserConfig::default().parse_response_with_uninit_headers(&mut answer, buffer, &mut places);
    let length = match parsed {
        Ok(Status::Complete(length)) if length <= HEAD_BYTES => length,
        Ok(Status::Partial) if buffer.len() < HEAD_BYTES => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Fault::HeadTooLong),
        Err(_) => return Err(Fault::NotHttp),
    };
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Fault::NotHttp)?;
    let is_new = answer.version == Some(1);
    let mut facts = Facts { keeps: is_new, ..Facts::default() };
    let mut upgrade = None;
    // Where each header is, while the text is borrowed.
    let base = buffer.as_ptr() as usize;
    let mut spans = Vec::with_capacity(answer.headers.len());
    for one in answer.headers.iter() {
        let span = Span::of(one, base);
        match facts.hear(one)? {
            Concern::Everyone => spans.push(span),
            Concern::Upgrade => upgrade = Some(span),
            Concern::Connection => {}
        }
    }
    if facts.chunked && (!is_new || facts.length.is_some()) {
        return Err(Fault::Framing);
    }
    let text = buffer.split_to(length).freeze();
    if !facts.named.is_empty() {
        spans.retain(|span| !facts.is_named(&text[range(span.name)]));
    }
    let body = facts.body(status, method);
    let keeps = facts.keeps && !matches!(body, Decoder::UntilClose);
    Ok(Some(Head { status, keeps, body, text, spans, upgrade }))
}

/// Where a header's name and value begin, and how long they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Span {
    name: (u32, u32),
    value: (u32, u32),
}

impl Span {
    /// Of a header in a text that begins at `base`.
    pub fn of(one: &httparse::Header<'_>, base: usize) -> Self {
        let place = |text: &[u8]| u32::try_from(text.as_ptr() as usize - base).unwrap_or_default();
        let size = |text: &[u8]| u32::try_from(text.len()).unwrap_or_default();
        let (name, value) = (one.name.as_bytes(), one.value);
        Self { name: (place(name), size(name)), value: (place(value), size(value)) }
    }

    /// The header, once the text can be shared.
    pub fn header(&self, text: &Bytes) -> Option<(HeaderName, HeaderValue)> {
        let name = HeaderName::from_bytes(&text[range(self.name)]).ok()?;
        Some((name, HeaderValue::from_maybe_shared(text.slice(range(self.value))).ok()?))
    }
}

fn range((start, length): (u32, u32)) -> std::ops::Range<usize> {
    let start = start as usize;
    start..start + length as usize
}

/// What is said of one connection is not passed on (RFC 9110, 7.6.1); how long a body is, each side says anew.
pub fn concerns_one_connection(name: &str) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    // Most are not of this kind.
    match name.len() {
        2 => is("te"),
        7 => is("upgrade"),
        10 => is("connection") || is("keep-alive"),
        16 => is("proxy-connection"),
        17 => is("transfer-encoding"),
        _ => false,
    }
}

/// Whom a header is for.
enum Concern {
    Everyone,
    Connection,
    Upgrade,
}

/// What the headers say of the connection and of the body.
#[derive(Debug, Default)]
struct Facts {
    keeps: bool,
    chunked: bool,
    length: Option<u64>,
    /// Of the header Connection: names of further headers that are not passed on.
    named: Vec<Vec<u8>>,
}

impl Facts {
    fn hear(&mut self, one: &httparse::Header<'_>) -> Result<Concern, Fault> {
        let is = |name: &str| one.name.eq_ignore_ascii_case(name);
        match one.name.len() {
            10 if is("connection") => {
                for option in one.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    if option.eq_ignore_ascii_case(b"close") {
                        self.keeps = false;
                    } else if !option.eq_ignore_ascii_case(b"keep-alive") {
                        self.named.push(option.to_vec());
                    }
                }
            }
            14 if is("content-length") => {
                let length = number(one.value, 10).ok_or(Fault::Framing)?;
                match self.length.replace(length) {
                    None => return Ok(Concern::Everyone),
                    Some(before) if before != length => return Err(Fault::Framing),
                    // Said once is enough.
                    Some(_) => {}
                }
            }
            17 if is("transfer-encoding") => {
                if self.chunked || !one.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::Framing);
                }
                self.chunked = true;
            }
            7 if is("upgrade") => return Ok(Concern::Upgrade),
            _ if concerns_one_connection(one.name) => {}
            _ => return Ok(Concern::Everyone),
        }
        Ok(Concern::Connection)
    }

    fn is_named(&self, name: &[u8]) -> bool {
        // How long it is concerns everyone, whatever Connection says.
        !name.eq_ignore_ascii_case(b"content-length") && self.named.iter().any(|named| named.eq_ignore_ascii_case(name))
    }

    /// RFC 9112, 6.3.
    fn body(&self, status: StatusCode, method: &Method) -> Decoder {
        let has_none = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || method == Method::HEAD;
        match (has_none, self.chunked, self.length) {
            (true, _, _) | (false, false, Some(0)) => Decoder::Done,
            (false, true, _) => Decoder::Chunked(Chunked::Size),
            (false, false, Some(length)) => Decoder::Length(length),
            (false, false, None) => Decoder::UntilClose,
        }
    }
}

/// Digits and nothing else.
fn number(text: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let is_number = !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    is_number.then(|| u64::from_str_radix(text, radix).ok()).flatten()
}

/// Where in a body one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoder {
    Done,
    /// Bytes that are to come.
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunked {
    Size,
    Data(u64),
    /// The line's end after a chunk.
    End,
    Trailers,
}

/// What comes next.
#[derive(Debug, PartialEq)]
pub enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    /// That was all.
    End,
    /// More has to be read first.
    Nothing,
}

impl Decoder {
    pub fn is_done(&self) -> bool {
        *self == Self::Done
    }

    /// Takes the next piece from the front of the buffer.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Piece, Fault> {
        loop {
            match self {
                Self::Done => return Ok(Piece::End),
                Self::UntilClose if buffer.is_empty() => return Ok(Piece::Nothing),
                Self::UntilClose => return Ok(Piece::Data(buffer.split().freeze())),
                Self::Length(left) => {
                    let data = take(buffer, left);
                    let is_done = *left == 0;
                    if is_done {
                        *self = Self::Done;
                    }
                    return Ok(data.map_or(Piece::Nothing, Piece::Data));
                }
                Self::Chunked(Chunked::Data(left)) => {
                    let data = take(buffer, left);
                    if *left == 0 {
                        *self = Self::Chunked(Chunked::End);
                    }
                    return Ok(data.map_or(Piece::Nothing, Piece::Data));
                }
                Self::Chunked(Chunked::End) => match buffer.as_ref() {
                    [b'\r', b'\n', ..] => {
                        buffer.advance(2);
                        *self = Self::Chunked(Chunked::Size);
                    }
                    [] | [b'\r'] => return Ok(Piece::Nothing),
                    _ => return Err(Fault::Chunk),
                },
                Self::Chunked(Chunked::Size) => match size(buffer)? {
                    None => return Ok(Piece::Nothing),
                    Some(0) => *self = Self::Chunked(Chunked::Trailers),
                    Some(size) => *self = Self::Chunked(Chunked::Data(size)),
                },
                Self::Chunked(Chunked::Trailers) => {
                    let Some(trailers) = trailers(buffer)? else { return Ok(Piece::Nothing) };
                    *self = Self::Done;
                    return Ok(if trailers.is_empty() { Piece::End } else { Piece::Trailers(trailers) });
                }
            }
        }
    }
}

/// What there is of so many bytes, unless there is nothing.
fn take(buffer: &mut BytesMut, left: &mut u64) -> Option<Bytes> {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    *left -= length as u64;
    (length > 0).then(|| buffer.split_to(length).freeze())
}

/// The line before a chunk (RFC 9112, 7.1); extensions are not heeded.
fn size(buffer: &mut BytesMut) -> Result<Option<u64>, Fault> {
    let Some(end) = buffer.iter().take(CHUNK_LINE).position(|byte| *byte == b'\n') else {
        return if buffer.len() < CHUNK_LINE { Ok(None) } else { Err(Fault::Chunk) };
    };
    let line = buffer[..end].strip_suffix(b"\r").ok_or(Fault::Chunk)?;
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let has_control = line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
    // Blanks before an extension are allowed, before the line's end they are not.
    let digits = if digits.len() == line.len() { digits } else { digits.trim_ascii_end() };
    let size = number(digits, 16).filter(|_| digits.len() <= 15 && !has_control).ok_or(Fault::Chunk)?;
    buffer.advance(end + 1);
    Ok(Some(size))
}

fn trailers(buffer: &mut BytesMut) -> Result<Option<HeaderMap>, Fault> {
    let mut places = [httparse::EMPTY_HEADER; 32];
    let mut trailers = HeaderMap::new();
    let length = match httparse::parse_headers(buffer, &mut places) {
        Ok(Status::Complete((length, fields))) => {
            for one in fields {
                let name = HeaderName::from_bytes(one.name.as_bytes()).map_err(|_| Fault::Chunk)?;
                let value = HeaderValue::from_bytes(one.value).map_err(|_| Fault::Chunk)?;
                // What decides about framing, routing or who asks has no place here (RFC 9110, 6.5.1).
                if !concerns_one_connection(name.as_str()) && name != header::CONTENT_LENGTH && name != header::HOST {
                    trailers.append(name, value);
                }
            }
            length
        }
        Ok(Status::Partial) if buffer.len() < TRAILER_BYTES => return Ok(None),
        Ok(Status::Partial) | Err(_) => return Err(Fault::Chunk),
    };
    buffer.advance(length);
    Ok(Some(trailers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str, method: &Method) -> Result<Option<Head>, Fault> {
        head(&mut BytesMut::from(text), method)
    }

    #[test]
    fn a_head_says_how_its_body_ends() {
        let chunked = Decoder::Chunked(Chunked::Size);
        for (method, text, expected) in [
            (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Ok((Decoder::Length(5), true))),
            (
                Method::GET,
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n",
                Ok((Decoder::Length(5), true)),
            ),
            (Method::GET, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Ok((chunked, true))),
            (Method::GET, "HTTP/1.1 200 OK\r\n\r\n", Ok((Decoder::UntilClose, false))),
            (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n", Ok((Decoder::Done, true))),
            (Method::GET, "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", Ok((Decoder::Done, true))),
            (Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Ok((Decoder::Done, true))),
            (Method::GET, "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\n", Ok((Decoder::Length(5), false))),
            (
                Method::GET,
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                Ok((Decoder::Done, false)),
            ),
            (
                Method::GET,
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
                Err(Fault::Framing),
            ),
            (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n", Err(Fault::Framing)),
            (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n", Err(Fault::Framing)),
            (Method::GET, "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", Err(Fault::Framing)),
            (
                Method::GET,
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
                Err(Fault::Framing),
            ),
            (Method::GET, "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Err(Fault::Framing)),
            (Method::GET, "SSH-2.0-OpenSSH_9.2\r\n", Err(Fault::NotHttp)),
        ] {
            let found = read(text, &method).map(|head| head.map(|head| (head.body, head.keeps)).unwrap());
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn what_concerns_one_connection_is_not_passed_on() {
        let text = "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nX-End: 2\r\n\
            X-End: 3\r\nTrailer: x-sum\r\ncontent-length: 0\r\n\r\n";
        let head = read(text, &Method::GET).unwrap().unwrap();
        let names: Vec<_> =
            head.headers().unwrap().iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        assert_eq!(names, ["x-end=2", "x-end=3", "trailer=x-sum", "content-length=0"]);
    }

    #[test]
    fn a_head_may_come_in_pieces_and_has_an_end() {
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        for cut in 0..text.len() {
            assert!(read(&text[..cut], &Method::GET).unwrap().is_none(), "{cut}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(HEAD_BYTES));
        assert_eq!(read(&long, &Method::GET).unwrap_err(), Fault::HeadTooLong);
    }

    /// All of a body that comes in pieces of this size: data, trailers, and what is left behind it.
    fn body(mut decoder: Decoder, text: &[u8], piece: usize) -> Result<(Vec<u8>, usize, Vec<u8>), Fault> {
        let (mut buffer, mut data, mut trailers) = (BytesMut::new(), Vec::new(), 0);
        let mut pieces = text.chunks(piece);
        loop {
            match decoder.next(&mut buffer)? {
                Piece::Data(bytes) => data.extend_from_slice(&bytes),
                Piece::Trailers(map) => trailers += map.len(),
                Piece::End => break,
                Piece::Nothing => match pieces.next() {
                    Some(more) => buffer.extend_from_slice(more),
                    None => break,
                },
            }
            if decoder.is_done() {
                break;
            }
        }
        let rest = buffer.iter().copied().chain(pieces.flatten().copied()).collect();
        Ok((data, trailers, rest))
    }

    #[test]
    fn chunks_are_read_strictly() {
        let chunked = Decoder::Chunked(Chunked::Size);
        for (text, expected) in [
            ("5\r\nhello\r\n0\r\n\r\nHTTP", Ok(("hello", 0, "HTTP"))),
            ("5;name=value\r\nhello\r\n1 ;x\r\n!\r\n0\r\nx-sum: 1\r\n\r\n", Ok(("hello!", 1, ""))),
            ("A\r\n0123456789\r\n0\r\ncontent-length: 5\r\n\r\n", Ok(("0123456789", 0, ""))),
            ("5\nhello\r\n0\r\n\r\n", Err(Fault::Chunk)),
            ("5 \r\nhello\r\n0\r\n\r\n", Err(Fault::Chunk)),
            ("-5\r\nhello\r\n0\r\n\r\n", Err(Fault::Chunk)),
            ("0x5\r\nhello\r\n0\r\n\r\n", Err(Fault::Chunk)),
            ("5\r\nhello!\r\n0\r\n\r\n", Err(Fault::Chunk)),
            ("\r\nhello\r\n", Err(Fault::Chunk)),
            ("10000000000000000\r\nhello\r\n", Err(Fault::Chunk)),
            ("5;a\rb\r\nhello\r\n0\r\n\r\n", Err(Fault::Chunk)),
        ] {
            for piece in [1, 3, 1000] {
                let expected = expected
                    .map(|(data, trailers, rest)| (data.as_bytes().to_vec(), trailers, rest.as_bytes().to_vec()));
                assert_eq!(body(chunked, text.as_bytes(), piece), expected, "{text:?} by {piece}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_chunked_is_read_again(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8), size in 1usize..50) {
            let mut text = Vec::new();
            for piece in &pieces {
                text.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                text.extend_from_slice(piece);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\nnext");
            let (data, _, rest) = body(Decoder::Chunked(Chunked::Size), &text, size).unwrap();
            prop_assert_eq!(data, pieces.concat());
            prop_assert_eq!(rest, b"next");
        }

        #[test]
        fn nothing_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..200), size in 1usize..50) {
            let _ = head(&mut BytesMut::from(text.as_slice()), &Method::GET);
            let _ = body(Decoder::Chunked(Chunked::Size), &text, size);
        }
    }
}
