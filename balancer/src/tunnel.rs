//! A websocket: what client and backend say passes through, both ways, until either has said its last.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::backend::Backend;
use crate::exchange::Exchange;
use crate::forward::Front;
use crate::frames::{Frames, RESTARTS};
use crate::late::Late;
use crate::outbound::{Account, Outbound, Ticket};
use crate::plan::Plan;
use crate::worker::Worker;

/// What is read at once; it is on the stack meanwhile.
const PIECE: usize = 16 << 10;

/// How long both sides may take to end once they were told to, or one side has said its last.
const ENDING: Duration = Duration::from_secs(5);
/// Clients are not told all at once: they come back at once.
const SPREAD: f64 = 0.5;

/// Between whom it is.
pub struct Whom<'a> {
    pub worker: &'a Arc<Worker>,
    pub plan: &'a Plan,
    pub front: &'a Arc<Front>,
    /// Its client has a stream of HTTP/2 for it, rather than a connection.
    pub is_http2: bool,
}

/// A tunnel among those that are open, until it is dropped.
struct Open {
    worker: Arc<Worker>,
    backend: Arc<Backend>,
}

impl Open {
    fn new(worker: &Arc<Worker>, backend: &Arc<Backend>) -> Self {
        worker.counts.tunnels.add(1);
        worker.counts.open_tunnels.add(1);
        backend.tunnels.fetch_add(1, Relaxed);
        Self { worker: worker.clone(), backend: backend.clone() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.backend.tunnels.fetch_sub(1, Relaxed);
        self.worker.counts.open_tunnels.take(1);
    }
}

/// Answers the client that its connection is a websocket now, and passes on what comes.
pub fn open(
    whom: &Whom<'_>,
    exchange: Exchange,
    headers: HeaderMap,
    ticket: Ticket,
    mut account: Account,
    upgrade: OnUpgrade,
) -> Response<Outbound> {
    let (stream, ahead) = exchange.link.into_parts();
    let (front, times) = (whom.front.clone(), whom.plan.settings.times);
    let tunnel = Open::new(whom.worker, ticket.backend());
    // It may stay for days: it is no request under way.
    drop(ticket);
    tokio::spawn(async move {
        let Ok(client) = upgrade.await else { return };
        let told = told(front.stop.clone(), times.drain);
        let (down, up) = pass(TokioIo::new(client), stream, ahead, times.tunnel, told).await;
        let figures = &tunnel.worker.lane(&tunnel.backend).figures;
        figures.sent.add(down);
        figures.received.add(up);
        account.sent(usize::try_from(down).unwrap_or(usize::MAX));
        account.received(up);
        account.end(true);
        drop(front);
    });
    let mut response = Response::new(Outbound::Whole(None));
    *response.headers_mut() = headers;
    if whom.is_http2 {
        response.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
        return response;
    }
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    response
}

/// Returns when this client is to be told that it should come back elsewhere.
async fn told(mut stop: watch::Receiver<bool>, drain: Duration) {
    if stop.wait_for(|stop| *stop).await.is_ok() {
        let spread = drain.saturating_sub(ENDING).mul_f64(SPREAD);
        tokio::time::sleep(spread.mul_f64(fastrand::f64())).await;
    }
}

/// What goes one way.
#[derive(Debug, Default)]
struct Way {
    /// Was read, and the other side has not taken it yet. Usually there is nothing, and then nothing is kept for it: there may be many
    /// tunnels in which nobody speaks.
    waiting: BytesMut,
    is_read: bool,
    is_done: bool,
    bytes: u64,
    frames: Frames,
    /// It ends with the frame that is under way.
    is_ending: bool,
}

/// How much went to the client and to the backend. Once `told` returns, the client is told to come back elsewhere.
async fn pass<C, B>(
    mut client: C,
    mut backend: B,
    ahead: BytesMut,
    idle: Duration,
    told: impl Future<Output = ()>,
) -> (u64, u64)
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut down = Way::default();
    down.frames.pass(&ahead);
    down.waiting = ahead;
    let mut up = Way::default();
    let mut late = Late::new(idle);
    let mut told = std::pin::pin!(told);
    poll_fn(|context| {
        if !down.is_ending && told.as_mut().poll(context).is_ready() {
            down.is_ending = true;
            late.restart();
        }
        let (moved, was_half) = (down.bytes + up.bytes, down.is_done || up.is_done);
        let ways = (down.poll(context, &mut backend, &mut client), up.poll(context, &mut client, &mut backend));
        match ways {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) | (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => {
                return Poll::Ready(());
            }
            _ => {}
        }
        let is_half = down.is_done || up.is_done;
        if is_half != was_half || (down.bytes + up.bytes > moved && !down.is_ending) {
            late.restart();
        }
        late.poll(context, if down.is_ending || is_half { ENDING } else { idle })
    })
    .await;
    (down.bytes, up.bytes)
}

impl Way {
    /// Ready when the last was read, written, and said to be the last.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while !self.is_done {
            if !self.waiting.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(context, &self.waiting))?;
                self.waiting.advance(written);
                self.bytes += written as u64;
                if self.waiting.is_empty() {
                    self.waiting = BytesMut::new();
                }
                continue;
            }
            if self.is_ending && !self.is_read && self.frames.is_between() {
                self.waiting.extend_from_slice(RESTARTS);
                self.is_read = true;
                continue;
            }
            if self.is_read {
                ready!(Pin::new(&mut *to).poll_shutdown(context))?;
                self.is_done = true;
                break;
            }
            let mut piece = [MaybeUninit::uninit(); PIECE];
            let mut piece = ReadBuf::uninit(&mut piece);
            match Pin::new(&mut *from).poll_read(context, &mut piece) {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    ready!(Pin::new(&mut *to).poll_flush(context))?;
                    return Poll::Pending;
                }
            }
            let mut piece = piece.filled();
            if piece.is_empty() {
                self.is_read = true;
                continue;
            }
            if self.is_ending {
                piece = &piece[..self.frames.until_border(piece)];
            } else {
                self.frames.pass(piece);
            }
            match Pin::new(&mut *to).poll_write(context, piece) {
                Poll::Ready(written) => {
                    let written = written?;
                    self.bytes += written as u64;
                    self.waiting.extend_from_slice(&piece[written..]);
                }
                Poll::Pending => self.waiting.extend_from_slice(piece),
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn both_ways_pass_at_once_though_neither_side_reads_first() {
        let (client, near) = duplex(64);
        let (backend, far) = duplex(64);
        let passing = tokio::spawn(pass(near, far, BytesMut::from("ahead "), Duration::from_secs(20), pending()));
        // Either end writes much more than anybody keeps before it reads.
        let talk = |stream: tokio::io::DuplexStream, text: &'static [u8]| async move {
            let (mut reads, mut writes) = tokio::io::split(stream);
            let mut heard = Vec::new();
            let said = async {
                writes.write_all(&text.repeat(10_000)).await.unwrap();
                writes.shutdown().await.unwrap();
            };
            let ((), read) = tokio::join!(said, reads.read_to_end(&mut heard));
            read.unwrap();
            heard
        };
        let (at_client, at_backend) =
            tokio::join!(talk(client, b"from the client "), talk(backend, b"from the backend "));
        assert!(at_client.starts_with(b"ahead from the backend ") && at_client.len() == 6 + 17 * 10_000);
        assert_eq!(at_backend, b"from the client ".repeat(10_000));
        assert_eq!(passing.await.unwrap(), (6 + 170_000, 160_000));
    }

    #[tokio::test]
    async fn a_client_is_told_to_come_back_between_two_frames() {
        let (mut client, near) = duplex(1024);
        let (mut backend, far) = duplex(1024);
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let told = async { told.await.unwrap() };
        let passing = tokio::spawn(pass(near, far, BytesMut::new(), Duration::from_secs(20), told));
        // A frame of five bytes, of which three have come.
        backend.write_all(b"\x81\x05hel").await.unwrap();
        let mut heard = vec![0; 5];
        client.read_exact(&mut heard).await.unwrap();
        tell.send(()).unwrap();
        client.write_all(b"still heard").await.unwrap();
        backend.write_all(b"lo\x81\x01!").await.unwrap();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, [b"\x81\x05hello", RESTARTS].concat());
        drop(client);
        let mut heard = Vec::new();
        backend.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"still heard");
        drop(backend);
        passing.await.unwrap();
    }

    #[tokio::test]
    async fn a_tunnel_whose_backend_is_gone_ends_though_its_client_stays() {
        let (mut client, near) = duplex(64);
        let (backend, far) = duplex(64);
        let passing = tokio::spawn(pass(near, far, BytesMut::new(), Duration::from_hours(1), pending()));
        drop(backend);
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        let ended = tokio::time::timeout(10 * ENDING, passing).await;
        assert_eq!(ended.expect("it is not waited for an hour").unwrap(), (0, 0));
        drop(client);
    }

    #[tokio::test]
    async fn a_tunnel_in_which_nobody_speaks_ends() {
        let (_client, near) = duplex(64);
        let (_backend, far) = duplex(64);
        assert_eq!(pass(near, far, BytesMut::new(), Duration::from_millis(5), pending()).await, (0, 0));
    }
}
