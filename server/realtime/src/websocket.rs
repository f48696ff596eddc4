//! A websocket on a stream: frames in, frames out. Where nothing is under way nothing is kept for it, and what waits is written at once.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use ntier_protocol::realtime::frame::Frame;
use ntier_protocol::realtime::limits::FRAME_BYTES;
use ntier_protocol::websocket::{self, Fault, Head, Heard, Kind, Reader};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

/// Bytes that are read at once; they are on the stack meanwhile.
const PIECE: usize = 16 << 10;
/// Frames that are written at once, where they are too long to be copied.
const AT_ONCE: usize = 32;
/// Bytes that are copied.
const COPIED: usize = 8 << 10;

pub struct Websocket<S> {
    stream: S,
    reader: Reader,
    /// Was read, and belongs to what comes next.
    ahead: Bytes,
    sending: VecDeque<Outgoing>,
    /// Bytes of the first that is being sent.
    written: usize,
    is_dirty: bool,
    /// A ping that is to be answered; of several the last.
    pinged: Option<Bytes>,
    /// The first that is being sent answers one.
    is_ponging: bool,
}

struct Outgoing {
    head: Head,
    payload: Bytes,
}

/// Why nothing more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Without a word.
    Gone,
    /// As it is done, perhaps with a reason.
    Closed(Option<u16>),
    Fault(Fault),
}

impl<S> Websocket<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            reader: Reader::new(FRAME_BYTES),
            ahead: Bytes::new(),
            sending: VecDeque::new(),
            written: 0,
            is_dirty: false,
            pinged: None,
            is_ponging: false,
        }
    }

    /// The next frame of these bytes; what is behind it is left.
    fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Frame>, End> {
        while let Some(heard) = self.reader.read(bytes).map_err(End::Fault)? {
            match heard {
                Heard::Text(text) => return Ok(Some(Frame::Text(text))),
                Heard::Binary(bytes) => return Ok(Some(Frame::Binary(bytes))),
                Heard::Ping(payload) => self.pinged = Some(payload),
                Heard::Close(code) => return Err(End::Closed(code)),
            }
        }
        Ok(None)
    }

    /// So many bytes have been written.
    fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        while let Some(Outgoing { head, payload }) = self.sending.front() {
            let length = head.bytes().len() + payload.len();
            if self.written < length {
                break;
            }
            self.written -= length;
            self.sending.pop_front();
            self.is_ponging = false;
        }
    }
}

impl<S> Extend<Frame> for Websocket<S> {
    /// What is to be sent.
    fn extend<I: IntoIterator<Item = Frame>>(&mut self, frames: I) {
        self.sending.extend(frames.into_iter().map(|frame| match frame {
            Frame::Text(payload) => Outgoing::new(Kind::Text, payload),
            Frame::Binary(payload) => Outgoing::new(Kind::Binary, payload),
        }));
    }
}

impl Outgoing {
    fn new(kind: Kind, payload: Bytes) -> Self {
        Self { head: Head::new(kind, payload.len()), payload }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Websocket<S> {
    pub fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<Frame, End>> {
        loop {
            if !self.ahead.is_empty() {
                let ahead = std::mem::take(&mut self.ahead);
                let mut rest = &ahead[..];
                let next = self.next(&mut rest)?;
                self.ahead = ahead.slice_ref(rest);
                if let Some(frame) = next {
                    return Poll::Ready(Ok(frame));
                }
            }
            let mut space = [const { MaybeUninit::uninit() }; PIECE];
            let mut piece = ReadBuf::uninit(&mut space);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece));
            let mut rest = piece.filled();
            if read.is_err() || rest.is_empty() {
                return Poll::Ready(Err(End::Gone));
            }
            let next = self.next(&mut rest)?;
            self.ahead = Bytes::copy_from_slice(rest);
            if let Some(frame) = next {
                return Poll::Ready(Ok(frame));
            }
        }
    }

    /// Ready when everything is written.
    pub fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.written == 0
                && !self.is_ponging
                && let Some(payload) = self.pinged.take()
            {
                self.sending.push_front(Outgoing::new(Kind::Pong, payload));
                self.is_ponging = true;
            }
            if self.sending.is_empty() {
                if self.is_dirty {
                    ready!(Pin::new(&mut self.stream).poll_flush(context))?;
                    self.is_dirty = false;
                }
                return Poll::Ready(Ok(()));
            }
            let written = ready!(self.poll_write_some(context))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.is_dirty = true;
            self.wrote(written);
        }
    }

    /// What is short is copied together: one piece goes through the kernel more quickly than several.
    fn poll_write_some(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        let mut space = [const { MaybeUninit::uninit() }; COPIED];
        let mut whole = ReadBuf::uninit(&mut space);
        let fits = self.sending.iter().all(|Outgoing { head, payload }| {
            let fits = head.bytes().len() + payload.len() <= whole.remaining();
            if fits {
                whole.put_slice(head.bytes());
                whole.put_slice(payload);
            }
            fits
        });
        if fits {
            return stream.poll_write(context, &whole.filled()[self.written..]);
        }
        let mut slices = [IoSlice::new(&[]); 2 * AT_ONCE];
        for (pair, Outgoing { head, payload }) in slices.chunks_exact_mut(2).zip(&self.sending) {
            pair.copy_from_slice(&[IoSlice::new(head.bytes()), IoSlice::new(payload)]);
        }
        let count = 2 * self.sending.len().min(AT_ONCE);
        let mut slices = &mut slices[..count];
        IoSlice::advance_slices(&mut slices, self.written);
        stream.poll_write_vectored(context, slices)
    }

    /// Says goodbye, and waits until the client has gone, but not for longer than this.
    pub async fn close(mut self, code: Option<u16>, reason: &str, patience: Duration) {
        // What was begun is ended; what waits is not heard any more.
        self.sending.truncate(usize::from(self.written > 0));
        self.pinged = None;
        let goodbye = code.map_or_else(Bytes::new, |code| websocket::close(code, reason));
        self.sending.push_back(Outgoing::new(Kind::Close, goodbye));
        let gone = async {
            std::future::poll_fn(|context| self.poll_write(context)).await?;
            self.stream.shutdown().await?;
            let mut space = [MaybeUninit::uninit(); 512];
            loop {
                let mut piece = ReadBuf::uninit(&mut space);
                std::future::poll_fn(|context| Pin::new(&mut self.stream).poll_read(context, &mut piece)).await?;
                if piece.filled().is_empty() {
                    return io::Result::Ok(());
                }
            }
        };
        // Whoever does not listen does not hear it.
        let _ = timeout(patience, gone).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, DuplexStream};

    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test)
    }

    async fn read(socket: &mut Websocket<DuplexStream>) -> Result<Frame, End> {
        poll_fn(|context| socket.poll_read(context)).await
    }

    /// As a client sends it, masked by zeros.
    fn sent(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
    }

    #[test]
    fn frames_come_one_by_one_and_pings_are_answered() {
        run(async {
            let (mut client, server) = tokio::io::duplex(1 << 10);
            let mut socket = Websocket::new(server);
            let bytes = [sent(0x81, b"one"), sent(0x89, b"?"), sent(0x82, b"two"), sent(0x81, b"three")].concat();
            client.write_all(&bytes[..bytes.len() - 2]).await.unwrap();
            assert_eq!(read(&mut socket).await, Ok(Frame::Text(Bytes::from_static(b"one"))));
            assert_eq!(read(&mut socket).await, Ok(Frame::Binary(Bytes::from_static(b"two"))));
            assert!(poll_fn(|context| Poll::Ready(socket.poll_read(context))).await.is_pending());
            client.write_all(&bytes[bytes.len() - 2..]).await.unwrap();
            assert_eq!(read(&mut socket).await, Ok(Frame::Text(Bytes::from_static(b"three"))));
            poll_fn(|context| socket.poll_write(context)).await.unwrap();
            let mut pong = [0; 3];
            client.read_exact(&mut pong).await.unwrap();
            assert_eq!(&pong, b"\x8a\x01?");
            client.write_all(&sent(0x88, b"\x03\xe8")).await.unwrap();
            assert_eq!(read(&mut socket).await, Err(End::Closed(Some(1000))));
        });
    }

    #[test]
    fn everything_is_written_in_its_order_however_little_fits() {
        run(async {
            let (mut client, server) = tokio::io::duplex(7);
            let mut socket = Websocket::new(server);
            // Together they are too long to be copied, and after some they are not.
            let payloads: Vec<_> = (0..200_u8).map(|number| Bytes::from(vec![number; usize::from(number)])).collect();
            socket.extend(payloads.iter().cloned().map(Frame::Binary));
            let expected: Vec<u8> = payloads
                .iter()
                .flat_map(|payload| [Head::new(Kind::Binary, payload.len()).bytes(), payload].concat())
                .chain(*b"\x88\x05\x03\xe9bye")
                .collect();
            let mut heard = Vec::new();
            let write = async {
                poll_fn(|context| socket.poll_write(context)).await.unwrap();
                socket.close(Some(1001), "bye", Duration::from_mins(1)).await;
            };
            let hear = async {
                client.read_to_end(&mut heard).await.unwrap();
                drop(client);
            };
            tokio::join!(write, hear);
            assert_eq!(heard, expected);
        });
    }

    #[test]
    fn whoever_pings_and_does_not_listen_is_answered_once() {
        run(async {
            let (mut client, server) = tokio::io::duplex(64);
            let mut socket = Websocket::new(server);
            socket.extend([Frame::Binary(vec![0; 100].into())]);
            for number in 0..50 {
                client.write_all(&sent(0x89, &[number; 4])).await.unwrap();
                poll_fn(|context| Poll::Ready(socket.poll_read(context))).await.is_pending();
                poll_fn(|context| Poll::Ready(socket.poll_write(context).is_pending())).await;
            }
            assert!(socket.sending.len() <= 2, "{}", socket.sending.len());
        });
    }
}
