//! The first bytes of a connection, which say what is spoken on it: HTTP/2 begins with words of its own (RFC 9113, 3.4).

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::proxied;

const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client speaks.
pub enum Spoken<S> {
    Http1(S),
    Http2(S),
    /// It left without a word.
    Nothing,
}

/// Reads as much as it takes to know.
pub async fn hear<S: AsyncRead + Unpin>(mut stream: Prefaced<S>) -> io::Result<Spoken<Prefaced<S>>> {
    loop {
        let common = stream.ahead.len().min(HTTP2.len());
        if stream.ahead[..common] != HTTP2[..common] {
            return Ok(Spoken::Http1(stream));
        }
        if common == HTTP2.len() {
            return Ok(Spoken::Http2(stream));
        }
        if stream.read_ahead().await? == 0 {
            return Ok(Spoken::Nothing);
        }
    }
}

/// A client's stream, of which something was read already. Whoever does not read what it is sent is waited for no longer than a time.
#[derive(Debug)]
pub struct Prefaced<S> {
    ahead: BytesMut,
    stream: S,
    stall: Duration,
    /// There only while the client does not read.
    late: Option<Pin<Box<Sleep>>>,
}

impl<S> Prefaced<S> {
    pub fn new(stream: S, stall: Duration) -> Self {
        Self { ahead: BytesMut::new(), stream, stall, late: None }
    }

    /// Was read and is to be read again.
    pub fn unread(&mut self, mut ahead: BytesMut) {
        ahead.unsplit(std::mem::take(&mut self.ahead));
        self.ahead = ahead;
    }

    /// What becomes of a write.
    fn in_time<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.late = None;
            return written;
        }
        let stall = self.stall;
        let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        ready!(late.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<S: AsyncRead + Unpin> Prefaced<S> {
    async fn read_ahead(&mut self) -> io::Result<usize> {
        self.ahead.reserve(1024);
        self.stream.read_buf(&mut self.ahead).await
    }

    /// What a proxy says of its client before everything else; `None` where it speaks for itself.
    pub async fn source(&mut self) -> io::Result<Option<IpAddr>> {
        loop {
            if let Some(said) = proxied::parse(&self.ahead).map_err(io::Error::other)? {
                self.ahead.advance(said.length);
                return Ok(said.source);
            }
            if self.read_ahead().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefaced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let length = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..length]);
            self.ahead.advance(length);
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefaced<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, buffer);
        self.in_time(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.in_time(context, written)
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
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn the_first_bytes_say_what_is_spoken_however_they_come() {
        for (text, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], "1"),
            (b"PRI", "nothing"),
            (b"PROPFIND /x HTTP/1.1\r\n", "1"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", "2"),
            (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "1"),
            (b"", "nothing"),
        ] {
            let (mut client, server) = tokio::io::duplex(3);
            let writing = async {
                client.write_all(text).await.unwrap();
                drop(client);
            };
            let hearing = async {
                let (what, mut stream) = match hear(Prefaced::new(server, Duration::from_secs(20))).await.unwrap() {
                    Spoken::Http1(stream) => ("1", stream),
                    Spoken::Http2(stream) => ("2", stream),
                    Spoken::Nothing => return ("nothing", Vec::new()),
                };
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                (what, all)
            };
            let ((), (what, all)) = tokio::join!(writing, hearing);
            assert_eq!(what, expected, "{text:?}");
            assert!(what == "nothing" || all == text);
        }
    }
}
