//! A connection to a backend, with what was read ahead and what is to be written.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustix::io::Errno;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::io::poll_read_buf;

use crate::late::Late;
use crate::outbox::Outbox;

/// What is read at once: little at first, more where there is much.
const LEAST_READ: usize = 8 << 10;
const MOST_READ: usize = 64 << 10;

#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    /// Was read and not looked at yet.
    pub read: BytesMut,
    pub write: Outbox,
    room: usize,
    /// Since something was read or written.
    pub late: Late,
    /// It has answered a request before.
    pub is_reused: bool,
    /// When it was last used.
    pub rested: Instant,
}

/// Whether there was nothing left here for a connection, which says nothing about who was to be reached.
pub fn is_own(cause: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(cause),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL)
    )
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
            write: Outbox::default(),
            room: LEAST_READ,
            late: Late::new(within),
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
            self.late.restart();
            self.room = if length >= self.room { (self.room * 2).min(MOST_READ) } else { LEAST_READ };
        }
        read
    }

    /// Writes what is to be written, all of it.
    pub fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let late = &mut self.late;
        self.write.poll_write(context, &mut self.stream, || late.restart())
    }

    /// For a tunnel: the connection and what was read ahead of it.
    pub fn into_parts(self) -> (TcpStream, BytesMut) {
        (self.stream, self.read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_here_is_nobody_elses_fault() {
        for (errno, expected) in [(Errno::MFILE, true), (Errno::ADDRNOTAVAIL, true), (Errno::CONNREFUSED, false)] {
            assert_eq!(is_own(&errno.into()), expected, "{errno}");
        }
        assert!(!is_own(&io::ErrorKind::TimedOut.into()));
    }
}
