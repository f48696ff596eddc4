//! A connection to a backend, with what was read ahead and what is to be written.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::{Sleep, timeout};
use tokio_util::io::poll_read_buf;

/// What is read at once: little at first, more where there is much.
const LEAST_READ: usize = 8 << 10;
const MOST_READ: usize = 64 << 10;

#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    /// Was read and not looked at yet.
    pub read: BytesMut,
    /// Is written first,
    pub write: BytesMut,
    /// then this,
    pub chunk: Bytes,
    /// then this.
    pub tail: &'static [u8],
    room: usize,
    timer: Pin<Box<Sleep>>,
    is_timed: bool,
    /// It has answered a request before.
    pub is_reused: bool,
    /// When it was last used.
    pub rested: Instant,
}

impl Link {
    /// Connects.
    pub async fn open(address: SocketAddr, within: Duration) -> io::Result<Box<Self>> {
        let stream = timeout(within, TcpStream::connect(address))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it does not take the connection"))??;
        stream.set_nodelay(true)?;
        Ok(Box::new(Self {
            stream,
            read: BytesMut::new(),
            write: BytesMut::new(),
            chunk: Bytes::new(),
            tail: &[],
            room: LEAST_READ,
            timer: Box::pin(tokio::time::sleep(within)),
            is_timed: false,
            is_reused: false,
            rested: Instant::now(),
        }))
    }

    /// Whether it can be used for another request: the backend has not closed it, said nothing unasked, and it did not rest too long.
    pub fn rests(&mut self, now: Instant, kept: Duration) -> bool {
        if now.saturating_duration_since(self.rested) > kept || !self.read.is_empty() {
            return false;
        }
        // Asks the kernel only where something has happened.
        self.poll_read(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Reads some more; 0 at the end.
    pub fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.reserve(self.room);
        let read = poll_read_buf(Pin::new(&mut self.stream), context, &mut self.read);
        if let Poll::Ready(Ok(length)) = read {
            self.is_timed = false;
            self.room = if length >= self.room { (self.room * 2).min(MOST_READ) } else { LEAST_READ };
        }
        read
    }

    pub fn is_written(&self) -> bool {
        self.write.is_empty() && self.chunk.is_empty() && self.tail.is_empty()
    }

    /// Writes what is to be written, all of it.
    pub fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_written() {
            let parts = [IoSlice::new(&self.write), IoSlice::new(&self.chunk), IoSlice::new(self.tail)];
            let written = match Pin::new(&mut self.stream).poll_write_vectored(context, &parts) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(written) => written?,
                Poll::Pending => return Poll::Pending,
            };
            self.is_timed = false;
            let head = written.min(self.write.len());
            self.write.advance(head);
            let chunk = (written - head).min(self.chunk.len());
            self.chunk.advance(chunk);
            self.tail = &self.tail[written - head - chunk..];
        }
        self.write.clear();
        Poll::Ready(Ok(()))
    }

    /// Ready when nothing was read or written for so long. Asked each time that there is nothing else to do.
    pub fn poll_late(&mut self, context: &mut Context<'_>, within: Duration) -> Poll<()> {
        if !self.is_timed {
            self.timer.as_mut().reset(tokio::time::Instant::now() + within);
            self.is_timed = true;
        }
        self.timer.as_mut().poll(context)
    }

    /// The time begins anew, as something has happened elsewhere.
    pub fn restart_time(&mut self) {
        self.is_timed = false;
    }

    /// For a tunnel: the connection and what was read ahead of it.
    pub fn into_parts(self) -> (TcpStream, BytesMut) {
        (self.stream, self.read)
    }
}
