//! Files that the kernel sends from its page cache to the socket (sendfile(2)), beneath hyper, which knows bytes alone.
//!
//! The body of such a response gives hyper a piece of [`BLANK`], as long as the span of the file, which waits in the connection's
//! [`Spans`]. hyper does not touch the bytes of a body: it hands them to the stream's vectored write, and there their address tells
//! that the next span is meant. Bodies are written in the order in which they gave their pieces, so the spans are a queue.
//! Measured in `bench/README.md` ("Files"): without it each byte is copied twice more.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use ntier_backing::blobs::{Piece, Reader};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Bytes of a span, at most.
const LONGEST: usize = 1 << 20;
/// Stands for bytes that are elsewhere; never read, so it takes no memory.
static BLANK: [u8; LONGEST] = [0; LONGEST];

/// What is to be sent of files, next first, by one connection.
#[derive(Debug, Clone, Default)]
pub struct Spans(Arc<Mutex<VecDeque<Span>>>);

#[derive(Debug)]
struct Span {
    file: Arc<File>,
    offset: u64,
    left: usize,
}

impl Spans {
    fn queue(&self) -> MutexGuard<'_, VecDeque<Span>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A blob as the body of a response, on a connection that can send files.
pub struct Blob {
    pub reader: Reader,
    pub spans: Spans,
}

impl Body for Blob {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let bytes = match ready!(self.reader.poll_piece(context, LONGEST)) {
            Some(Ok(Piece::Bytes(bytes))) => bytes,
            Some(Ok(Piece::File { file, offset, length })) => {
                self.spans.queue().push_back(Span { file, offset, left: length });
                Bytes::from_static(&BLANK[..length])
            }
            Some(Err(cause)) => return Poll::Ready(Some(Err(cause))),
            None => return Poll::Ready(None),
        };
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.reader.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.reader.size_hint()
    }
}

/// A socket that can send a file.
pub trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// Bytes that were sent; none at the file's end.
    fn poll_send(&self, context: &mut Context<'_>, file: &File, offset: u64, length: usize) -> Poll<io::Result<usize>>;
}

macro_rules! socket {
    ($stream:ty) => {
        impl Socket for $stream {
            fn poll_send(
                &self,
                context: &mut Context<'_>,
                file: &File,
                offset: u64,
                length: usize,
            ) -> Poll<io::Result<usize>> {
                loop {
                    ready!(self.poll_write_ready(context))?;
                    match self.try_io(Interest::WRITABLE, || send(self, file, offset, length)) {
                        Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {}
                        sent => return Poll::Ready(sent),
                    }
                }
            }
        }
    };
}

socket!(TcpStream);
socket!(UnixStream);

#[cfg(target_os = "linux")]
fn send(socket: impl std::os::fd::AsFd, file: &File, mut offset: u64, length: usize) -> io::Result<usize> {
    Ok(rustix::fs::sendfile(socket, file, Some(&mut offset), length)?)
}

#[cfg(not(target_os = "linux"))]
fn send<S>(_: &S, _: &File, _: u64, _: usize) -> io::Result<usize> {
    // Nothing is known to be in the page cache here, so no span is ever given.
    Err(io::ErrorKind::Unsupported.into())
}

/// A stream that sends spans where it is given what stands for them.
#[derive(Debug)]
pub struct Sending<S> {
    stream: S,
    spans: Spans,
}

impl<S: Socket> Sending<S> {
    pub fn new(stream: S) -> (Self, Spans) {
        let spans = Spans::default();
        (Self { stream, spans: spans.clone() }, spans)
    }

    fn poll_send(&self, context: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        let mut spans = self.spans.queue();
        let span = spans.front_mut().ok_or_else(|| io::Error::other("a span that is to be sent is missing"))?;
        let sent = ready!(self.stream.poll_send(context, &span.file, span.offset, span.left.min(length)))?;
        if sent == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a blob is shorter than it was")));
        }
        span.offset += sent as u64;
        span.left -= sent;
        if span.left == 0 {
            spans.pop_front();
        }
        Poll::Ready(Ok(sent))
    }
}

/// Whether these bytes stand for others.
fn is_blank(bytes: &[u8]) -> bool {
    !bytes.is_empty() && BLANK.as_ptr_range().contains(&bytes.as_ptr())
}

impl<S: Socket> AsyncRead for Sending<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: Socket> AsyncWrite for Sending<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if is_blank(bytes) {
            return self.poll_send(context, bytes.len());
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let begin = slices.iter().position(|slice| !slice.is_empty()).unwrap_or(slices.len());
        let slices = &slices[begin..];
        match slices.iter().position(|slice| is_blank(slice)) {
            Some(0) => self.poll_send(context, slices[0].len()),
            end => Pin::new(&mut self.stream).poll_write_vectored(context, &slices[..end.unwrap_or(slices.len())]),
        }
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn spans_stand_where_their_blanks_do() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..3 * LONGEST).map(|at| u8::try_from(at % 251).unwrap()).collect();
        io::Write::write_all(&mut file, &content).unwrap();
        let file = Arc::new(file);
        let (one, mut other) = UnixStream::pair().unwrap();
        let (mut sending, spans) = Sending::new(one);
        for (offset, left) in [(5, LONGEST), (2 * LONGEST, 10)] {
            spans.queue().push_back(Span { file: file.clone(), offset: offset as u64, left });
        }
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            other.read_to_end(&mut all).await.unwrap();
            all
        });
        let write = async {
            let mut pieces: Vec<&[u8]> = vec![b"head", b"", &BLANK, b"between", &BLANK[..10], b"end"];
            while !pieces.is_empty() {
                let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
                let mut written = sending.write_vectored(&slices).await.unwrap();
                while let Some(first) = pieces.first_mut() {
                    let part = written.min(first.len());
                    *first = &first[part..];
                    written -= part;
                    if !first.is_empty() {
                        break;
                    }
                    pieces.remove(0);
                }
            }
            sending.shutdown().await.unwrap();
        };
        write.await;
        let expected =
            [b"head", &content[5..5 + LONGEST], b"between", &content[2 * LONGEST..2 * LONGEST + 10], b"end"].concat();
        assert!(reading.await.unwrap() == expected);
        assert!(spans.queue().is_empty());
    }
}
