//! HTTP/1.1 with a client, for what nearly all requests are: the whole of it is there at once, and nothing is asked of the connection but
//! that it stays. Such a request is read, passed on and answered in one task, with one read and one write for each side.
//!
//! Whatever else comes (larger bodies, chunks, upgrades, HTTP/1.0, what is malformed) is left where it is, and hyper goes on with the
//! connection from that byte on ([`Heard::Else`]): it knows all of HTTP/1.1, and what is refused is refused in one place.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use httparse::{ParserConfig, Status};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::io::poll_read_buf;

use crate::decode::{Decoder, Span, concerns_one_connection};
use crate::forward::{Answered, Front, Passed, pass};
use crate::head::{Framing, decimal, line};
use crate::late::Late;
use crate::outbound::Outbound;
use crate::outbox::Outbox;
use crate::preface::Prefaced;
use crate::upload::{Part, Upload};
use crate::worker::Worker;

/// Headers of one request, together; hyper has the same limits.
pub const HEADER_BYTES: usize = 16 << 10;
pub const HEADERS: usize = 100;
/// The largest body that is waited for here.
const BODY_BYTES: usize = 16 << 10;
/// What is read at once, and no more than this is read ahead of requests that are not asked yet.
const ROOM: usize = 8 << 10;
const AHEAD: usize = 64 << 10;

/// Answers requests until the connection ends, or until one comes that hyper has to answer: then the stream is given back.
pub async fn serve<S>(
    worker: &Arc<Worker>,
    front: &Arc<Front>,
    stream: Box<Prefaced<S>>,
    stopping: impl Future<Output = ()>,
    header: Duration,
) -> io::Result<Option<Box<Prefaced<S>>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let settings = worker.plan().settings.clone();
    let most =
        settings.body_bytes.map_or(BODY_BYTES, |most| usize::try_from(most).unwrap_or(usize::MAX).min(BODY_BYTES));
    let patience = Patience { header, body: settings.times.body_pause, most };
    let mut client = Client { stream, read: BytesMut::new(), write: Outbox::default(), late: Late::new(header) };
    let mut stop = Stop { is_watched: false, front, future: pin!(stopping) };
    let mut parts = Request::new(()).into_parts().0;
    loop {
        let body = match client.hear(&mut parts, &mut stop, &patience).await? {
            Heard::Request(body) => body,
            Heard::Else => {
                client.stream.unread(client.read);
                return Ok(Some(client.stream));
            }
            Heard::End => return Ok(None),
        };
        let asked = pass(worker, front, &parts, |bounds| Upload::whole(body, bounds), None);
        let Some(answered) = client.beside(pin!(asked)).await else { return Ok(None) };
        let keeps = match answered {
            Answered::Passed(passed) => client.pass_on(passed, &stop).await?,
            Answered::Own(response) => client.say(response, &parts.method, &stop).await?,
        };
        if !keeps {
            return client.stream.shutdown().await.map(|()| None);
        }
        // What they were read into can be used again.
        parts.headers.clear();
        parts.uri = Uri::default();
    }
}

/// What a client has said.
enum Heard {
    /// A request, with its body.
    Request(Bytes),
    /// Something that is not for here.
    Else,
    /// Nothing more.
    End,
}

/// How long one waits.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// For a request's head, and between two requests.
    header: Duration,
    /// For its body, before hyper waits for it;
    body: Duration,
    /// for larger ones hyper waits from the beginning, or refuses them.
    most: usize,
}

/// Whether the balancer is to end.
struct Stop<'a, F> {
    /// It wakes this task.
    is_watched: bool,
    front: &'a Front,
    future: Pin<&'a mut F>,
}

impl<F: Future<Output = ()>> Stop<'_, F> {
    fn is_asked(&self) -> bool {
        *self.front.stop.borrow()
    }

    /// Likewise; and the task is woken when it is asked to. Polled once only: it costs more than a look.
    fn poll(&mut self, context: &mut Context<'_>) -> bool {
        if !self.is_watched {
            self.is_watched = true;
            return self.future.as_mut().poll(context).is_ready();
        }
        self.is_asked()
    }
}

struct Client<S> {
    stream: Box<Prefaced<S>>,
    /// Was read and not looked at yet.
    read: BytesMut,
    write: Outbox,
    late: Late,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// The next request, its head in `parts`.
    async fn hear(
        &mut self,
        parts: &mut Parts,
        stop: &mut Stop<'_, impl Future<Output = ()>>,
        patience: &Patience,
    ) -> io::Result<Heard> {
        self.late.restart();
        let mut within = patience.header;
        let mut seen = Seen::Nothing;
        let mut looked = 0;
        poll_fn(|context| {
            loop {
                if self.read.len() > looked {
                    looked = self.read.len();
                    let now = match look(&mut self.read, parts, patience.most) {
                        Seen::Request(body) => return Poll::Ready(Ok(Heard::Request(body))),
                        Seen::Else => return Poll::Ready(Ok(Heard::Else)),
                        now => now,
                    };
                    // The time is for all of it, not for each piece.
                    if now != seen {
                        within = if now == Seen::Body { patience.body } else { patience.header };
                        self.late.restart();
                    }
                    seen = now;
                }
                match self.poll_read(context) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Ok(Heard::End)),
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Ready(Err(cause)) => return Poll::Ready(Err(cause)),
                    Poll::Pending => {}
                }
                // Whoever has begun to say something is heard.
                if stop.poll(context) && seen == Seen::Nothing {
                    return Poll::Ready(Ok(Heard::End));
                }
                ready!(self.late.poll(context, within));
                return Poll::Ready(Ok(if seen == Seen::Body { Heard::Else } else { Heard::End }));
            }
        })
        .await
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.reserve(ROOM);
        poll_read_buf(Pin::new(&mut self.stream), context, &mut self.read)
    }

    /// What becomes of it, unless the client leaves before: then nobody waits for it any more.
    async fn beside<T>(&mut self, mut asked: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        poll_fn(|context| {
            if let Poll::Ready(answered) = asked.as_mut().poll(context) {
                return Poll::Ready(Some(answered));
            }
            if self.has_left(context) { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }

    /// Whether the client is gone. What it says meanwhile is kept, up to an amount.
    fn has_left(&mut self, context: &mut Context<'_>) -> bool {
        while self.read.len() < AHEAD {
            match self.poll_read(context) {
                Poll::Ready(Ok(0) | Err(_)) => return true,
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return false,
            }
        }
        false
    }

    /// A backend's answer. Whether the connection stays.
    async fn pass_on(&mut self, passed: Passed, stop: &Stop<'_, impl Future<Output = ()>>) -> io::Result<bool> {
        let Passed { head, hsts, id, body } = passed;
        let out = &mut self.write.gathered;
        status_line(out, head.status);
        let is = |name: &[u8], other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        let mut has_date = false;
        for (name, value) in head.fields() {
            let is_ours = match name.len() {
                4 => {
                    has_date |= is(name, "date");
                    false
                }
                12 => id.is_some() && is(name, "x-request-id"),
                14 => head.status == StatusCode::NO_CONTENT && is(name, "content-length"),
                25 => hsts.is_some() && is(name, "strict-transport-security"),
                _ => false,
            };
            if !is_ours {
                line(out, name, value);
            }
        }
        if !has_date {
            date(out);
        }
        if let Some(hsts) = hsts {
            line(out, b"strict-transport-security", hsts.as_bytes());
        }
        if let Some(id) = id {
            line(out, b"x-request-id", &id);
        }
        let framing = match head.body {
            Decoder::Done => Framing::Empty,
            Decoder::Length(length) => Framing::Length(length),
            Decoder::Chunked(_) | Decoder::UntilClose => {
                line(out, b"transfer-encoding", b"chunked");
                Framing::Chunked
            }
        };
        self.send(body, framing, !stop.is_asked()).await
    }

    /// The balancer's own answer.
    async fn say(
        &mut self,
        response: Response<Outbound>,
        method: &Method,
        stop: &Stop<'_, impl Future<Output = ()>>,
    ) -> io::Result<bool> {
        let (head, body) = response.into_parts();
        let out = &mut self.write.gathered;
        status_line(out, head.status);
        let mut keeps = !stop.is_asked();
        for (name, value) in &head.headers {
            if concerns_one_connection(name.as_str()) {
                keeps = false;
            } else if name != CONTENT_LENGTH {
                line(out, name.as_str().as_bytes(), value.as_bytes());
            }
        }
        let length = body.size_hint().exact().unwrap_or_default();
        let mut digits = [0; 20];
        line(out, b"content-length", decimal(length, &mut digits));
        date(out);
        let body = if *method == Method::HEAD { Outbound::Whole(None) } else { body };
        self.send(body, Framing::Length(length), keeps).await
    }

    /// Ends the head, and sends the body as fast as the client reads it and no faster than it comes.
    async fn send(&mut self, mut body: Outbound, framing: Framing, keeps: bool) -> io::Result<bool> {
        if !keeps {
            line(&mut self.write.gathered, b"connection", b"close");
        }
        self.write.gathered.put_slice(b"\r\n");
        let mut is_gathered = framing == Framing::Empty;
        poll_fn(|context| {
            loop {
                while !is_gathered && self.write.has_room() {
                    match Pin::new(&mut body).poll_frame(context) {
                        Poll::Pending => break,
                        Poll::Ready(None) => is_gathered = self.write.put(None, framing),
                        // There is no way to say it but to end.
                        Poll::Ready(Some(Err(cause))) => return Poll::Ready(Err(cause)),
                        // Trailers are for those who ask for them (RFC 9110, 6.5.1), which nobody does here.
                        Poll::Ready(Some(Ok(frame))) => {
                            is_gathered = self.write.put(frame.into_data().ok().map(Part::Data), framing);
                        }
                    }
                }
                let has_more = !self.write.is_empty();
                ready!(self.write.poll_write(context, &mut self.stream, || {}))?;
                ready!(Pin::new(&mut self.stream).poll_flush(context))?;
                if is_gathered {
                    return Poll::Ready(Ok(keeps));
                }
                if !has_more {
                    return if self.has_left(context) {
                        Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
                    } else {
                        Poll::Pending
                    };
                }
            }
        })
        .await
    }
}

fn status_line(out: &mut BytesMut, status: StatusCode) {
    out.reserve(1024);
    if status == StatusCode::OK {
        out.put_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
}

/// One who passes an answer on says when it came, where its author does not (RFC 9110, 6.6.1).
fn date(out: &mut BytesMut) {
    line(out, b"date", httpdate::fmt_http_date(SystemTime::now()).as_bytes());
}

/// What is at the front of what was read.
#[derive(Debug, PartialEq)]
enum Seen {
    Nothing,
    /// A head that is not whole.
    Head,
    /// A head, and a body that is not whole.
    Body,
    /// A request, which was taken, with its body.
    Request(Bytes),
    /// What is not for here.
    Else,
}

/// Takes a request from the front of the buffer, if it is whole and of the plain kind; otherwise the buffer stays as it is.
fn look(buffer: &mut BytesMut, parts: &mut Parts, most: usize) -> Seen {
    let mut places = [const { MaybeUninit::uninit() }; HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let length = match ParserConfig::default().parse_request_with_uninit_headers(&mut request, buffer, &mut places) {
        Ok(Status::Complete(length)) if length <= HEADER_BYTES => length,
        Ok(Status::Partial) if buffer.len() < HEADER_BYTES => return Seen::Head,
        Ok(_) | Err(_) => return Seen::Else,
    };
    let (Some(1), Some(path), Some(method)) = (request.version, request.path, request.method) else {
        return Seen::Else;
    };
    let Some(body) = body_length(request.headers).filter(|length| *length <= most) else { return Seen::Else };
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return Seen::Else };
    if !path.starts_with('/') || method == Method::CONNECT {
        return Seen::Else;
    }
    if buffer.len() < length + body {
        return Seen::Body;
    }
    let base = buffer.as_ptr() as usize;
    let begin = path.as_ptr() as usize - base;
    let path = begin..begin + path.len();
    let mut spans = [Span::default(); HEADERS];
    let count = request.headers.len();
    for (span, one) in spans.iter_mut().zip(request.headers.iter()) {
        *span = Span::of(one, base);
    }
    let text = buffer.split_to(length).freeze();
    parts.method = method;
    if fill(parts, &text, path, &spans[..count]).is_none() {
        // Once in a while, and then it may be copied.
        let rest = buffer.split();
        buffer.extend_from_slice(&text);
        buffer.extend_from_slice(&rest);
        return Seen::Else;
    }
    Seen::Request(buffer.split_to(body).freeze())
}

fn fill(parts: &mut Parts, text: &Bytes, path: Range<usize>, spans: &[Span]) -> Option<()> {
    parts.uri = Uri::from_maybe_shared(text.slice(path)).ok()?;
    parts.headers.clear();
    for span in spans {
        let (name, value) = span.header(text)?;
        parts.headers.append(name, value);
    }
    Some(())
}

/// How long the body is; `None` where the request is not of the plain kind.
fn body_length(headers: &[httparse::Header<'_>]) -> Option<usize> {
    let mut length = None;
    for one in headers {
        let is = |name: &str| one.name.eq_ignore_ascii_case(name);
        match one.name.len() {
            14 if is("content-length") => {
                let is_number = (1..=5).contains(&one.value.len()) && one.value.iter().all(u8::is_ascii_digit);
                let number = std::str::from_utf8(one.value).ok().filter(|_| is_number)?.parse().ok()?;
                if length.replace(number).is_some() {
                    return None;
                }
            }
            10 if is("connection") && !one.value.eq_ignore_ascii_case(b"keep-alive") => return None,
            17 if is("transfer-encoding") => return None,
            7 if is("upgrade") => return None,
            6 if is("expect") => return None,
            // Who wants trailers is given them.
            2 if is("te") => return None,
            _ => {}
        }
    }
    Some(length.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(text: &[u8]) -> (Seen, Parts, BytesMut) {
        let mut buffer = BytesMut::from(text);
        let mut parts = Request::new(()).into_parts().0;
        let seen = look(&mut buffer, &mut parts, BODY_BYTES);
        (seen, parts, buffer)
    }

    #[test]
    fn a_plain_request_is_taken_and_what_follows_it_stays() {
        let text = b"POST /rest/v1/films?select=id HTTP/1.1\r\nHost: shop.example\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 4\r\n\r\nbodyGET /";
        let (seen, parts, rest) = seen(text);
        assert_eq!(seen, Seen::Request(Bytes::from_static(b"body")));
        assert_eq!((parts.method, parts.uri.to_string()), (Method::POST, "/rest/v1/films?select=id".to_owned()));
        assert_eq!(parts.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!((parts.headers["host"].to_str().unwrap(), &rest[..]), ("shop.example", &b"GET /"[..]));
    }

    #[test]
    fn what_is_not_whole_is_waited_for() {
        let text = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nbody";
        for cut in 1..text.len() {
            let (seen, _, rest) = seen(&text[..cut]);
            let expected = if cut < text.len() - 4 { Seen::Head } else { Seen::Body };
            assert_eq!((seen, &rest[..]), (expected, &text[..cut]), "{cut}");
        }
    }

    #[test]
    fn whatever_else_comes_is_left_to_hyper_as_it_is() {
        let long = format!("GET / HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "a".repeat(HEADER_BYTES));
        let many = format!("GET / HTTP/1.1\r\nhost: h\r\n{}\r\n", "x: 1\r\n".repeat(HEADERS));
        for text in [
            "GET / HTTP/1.0\r\nhost: h\r\n\r\n",
            "GET / HTTP/2.0\r\nhost: h\r\n\r\n",
            "GET http://other/ HTTP/1.1\r\nhost: h\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nhost: h\r\n\r\n",
            "CONNECT h:443 HTTP/1.1\r\nhost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: h\r\nconnection: keep-alive, x\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: +1\r\n\r\nx",
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1, 1\r\n\r\nx",
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length:\r\n\r\nx",
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 16385\r\n\r\nx",
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\nexpect: 100-continue\r\n\r\nx",
            "GET / HTTP/1.1\r\nhost: h\r\nTE: trailers\r\n\r\n",
            "GET / HTTP/1.1\r\nhost : h\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: h\r\n folded\r\n\r\n",
            "GET /\u{7f} HTTP/1.1\r\nhost: h\r\n\r\n",
            "GET /\\\"<> HTTP/1.1\r\nhost: h\u{1}\r\n\r\n",
            "\x16\x03\x01\x02\x00\x01\x00\x01\r\n",
            &long,
            &many,
        ] {
            let (seen, _, rest) = seen(text.as_bytes());
            assert_eq!((seen, &rest[..]), (Seen::Else, text.as_bytes()), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_of_what_is_left_to_hyper(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let (seen, _, rest) = seen(&text);
            prop_assert!(matches!(seen, Seen::Request(_)) || rest == text);
        }

        #[test]
        fn a_path_of_any_bytes_is_taken_or_left_whole(path in prop::collection::vec(any::<u8>(), 0..20)) {
            let text = [&b"GET /"[..], &path, b" HTTP/1.1\r\nhost: h\r\n\r\n"].concat();
            let (seen, _, rest) = seen(&text);
            prop_assert!(rest.is_empty() == matches!(seen, Seen::Request(_)) || !matches!(seen, Seen::Else) || rest == text);
        }
    }
}
