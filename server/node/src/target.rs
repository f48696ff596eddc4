//! Request targets as people type them: `?select=data->>name` with its `>` and `<` as they are.
//!
//! RFC 3986 wants such characters percent-encoded, and hyper refuses them with an empty 400; but curl sends what it is given, and
//! PostgREST's documentation is full of it. So the first line of each request is looked at before hyper sees it, and what a URL
//! may not have is encoded there. What follows the line is passed on as it is.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Says that the next bytes begin a request. A client that does not wait for its answer before the next request has to encode by
/// itself.
#[derive(Debug, Clone)]
pub struct Boundary {
    in_line: Arc<AtomicBool>,
    /// The requests that have begun.
    count: Arc<AtomicUsize>,
    /// Of them, the one whose end this is.
    number: usize,
}

impl Boundary {
    /// A request's first line was read; gives its end.
    pub fn next(&self) -> Self {
        self.in_line.store(false, Ordering::Relaxed);
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        Self { number, ..self.clone() }
    }

    /// The request was read to its end. Whoever says so too late says nothing: bytes of the next one are no line any more.
    pub fn reached(&self) {
        if self.count.load(Ordering::Relaxed) == self.number {
            self.in_line.store(true, Ordering::Relaxed);
        }
    }
}

/// A stream whose request lines become valid.
#[derive(Debug)]
pub struct Encoded<S> {
    stream: S,
    in_line: Arc<AtomicBool>,
    /// Something of the line has come.
    begun: bool,
    /// Encoded bytes that did not fit.
    left: Vec<u8>,
}

impl<S> Encoded<S> {
    pub fn new(stream: S) -> (Self, Boundary) {
        let in_line = Arc::new(AtomicBool::new(true));
        let boundary = Boundary { in_line: in_line.clone(), count: Arc::default(), number: 0 };
        (Self { stream, in_line, begun: false, left: Vec::new() }, boundary)
    }

    /// Encodes what has come into the buffer, as far as it belongs to the line.
    fn encode(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        let come = &buffer.filled()[before..];
        // A line break may come before a request, and ends one only after something.
        let breaks = |byte: &u8| !self.begun && matches!(byte, b'\r' | b'\n');
        let begin = come.iter().position(|byte| !breaks(byte)).unwrap_or(come.len());
        let end = come[begin..].iter().position(|byte| *byte == b'\n').map(|at| begin + at);
        let line = &come[..end.unwrap_or(come.len())];
        self.begun = end.is_none() && (self.begun || begin < come.len());
        if end.is_some() {
            self.in_line.store(false, Ordering::Relaxed);
        }
        if !line.iter().copied().any(is_refused) {
            return;
        }
        let mut encoded = Vec::with_capacity(come.len() + 64);
        for &byte in line {
            if is_refused(byte) {
                encoded.extend_from_slice(format!("%{byte:02X}").as_bytes());
            } else {
                encoded.push(byte);
            }
        }
        encoded.extend_from_slice(&come[line.len()..]);
        buffer.set_filled(before);
        self.left = encoded;
        self.give(buffer);
    }

    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let fits = self.left.len().min(buffer.remaining());
        buffer.put_slice(&self.left[..fits]);
        self.left.drain(..fits);
    }
}

/// Printable, but not in a URL; or part of a letter. A fragment is never sent: what begins like one would be dropped, with all that
/// follows, and something else would be read or removed.
fn is_refused(byte: u8) -> bool {
    matches!(byte, b'"' | b'#' | b'<' | b'>' | b'`' | b'{' | b'}' | 0x80..)
}

impl<S: AsyncRead + Unpin> AsyncRead for Encoded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.left.is_empty() {
            self.give(buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if matches!(read, Poll::Ready(Ok(()))) && self.in_line.load(Ordering::Relaxed) {
            self.encode(buffer, before);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Encoded<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out when it is read in steps of so many bytes; a request ends where the pieces do.
    fn read(pieces: &[&str], step: usize) -> String {
        let mut out = Vec::new();
        let (mut stream, boundary) = Encoded::new(io::empty());
        for piece in pieces {
            for part in piece.as_bytes().chunks(step) {
                let mut bytes = [0; 64];
                let mut buffer = ReadBuf::new(&mut bytes);
                buffer.put_slice(part);
                if stream.in_line.load(Ordering::Relaxed) {
                    stream.encode(&mut buffer, 0);
                }
                out.extend_from_slice(buffer.filled());
                out.append(&mut stream.left);
            }
            boundary.reached();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_line_is_encoded_and_nothing_else() {
        let requests =
            ["\r\nGET /a?select=b->>\"é\" HTTP/1.1\r\nx: <\"é\">\r\n\r\n", "PATCH /{x}#y HTTP/1.1\r\n\r\n{\"a\":1}"];
        let expected = "\r\nGET /a?select=b-%3E%3E%22%C3%A9%22 HTTP/1.1\r\nx: <\"é\">\r\n\r\nPATCH /%7Bx%7D%23y HTTP/1.1\r\n\r\n{\"a\":1}";
        for step in [1, 3, 7, 64] {
            assert_eq!(read(&requests, step), expected, "in steps of {step}");
        }
    }

    #[test]
    fn what_follows_a_line_is_left_alone_however_late_its_predecessor_ends() {
        let (stream, boundary) = Encoded::new(io::empty());
        let first = boundary.next();
        let second = boundary.next();
        first.reached();
        assert!(!stream.in_line.load(Ordering::Relaxed), "the body of the second may come");
        second.reached();
        assert!(stream.in_line.load(Ordering::Relaxed));
        boundary.next();
        assert!(!stream.in_line.load(Ordering::Relaxed), "its line was read with what was before it");
    }
}
