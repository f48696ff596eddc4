//! A websocket: what client and backend say passes through, both ways, until either has said its last.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::decode::Head;
use crate::exchange::Exchange;
use crate::outbound::{Account, Outbound, Ticket};
use crate::plan::Plan;
use crate::worker::Worker;

/// What is read at once; it is on the stack meanwhile.
const PIECE: usize = 16 << 10;

/// Answers the client that its connection is a websocket now, and passes on what comes.
pub fn open(
    worker: &Arc<Worker>,
    plan: &Arc<Plan>,
    exchange: Exchange,
    head: Head,
    ticket: Ticket,
    mut account: Account,
    upgrade: OnUpgrade,
) -> Response<Outbound> {
    let (backend, ahead) = exchange.link.into_parts();
    let (worker, idle) = (worker.clone(), plan.settings.times.tunnel);
    tokio::spawn(async move {
        let Ok(client) = upgrade.await else { return };
        worker.counts.tunnels.add(1);
        worker.counts.open_tunnels.add(1);
        let (down, up) = pass(TokioIo::new(client), backend, ahead, idle).await;
        worker.counts.open_tunnels.take(1);
        let figures = &worker.lane(ticket.backend()).figures;
        figures.sent.add(down);
        figures.received.add(up);
        account.sent(usize::try_from(down).unwrap_or(usize::MAX));
        account.received(up);
        account.end(true);
    });
    let mut response = Response::new(Outbound::Whole(None));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = head.headers;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    response
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
}

/// How much went to the client and to the backend.
async fn pass<C, B>(mut client: C, mut backend: B, ahead: BytesMut, idle: Duration) -> (u64, u64)
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut down = Way { waiting: ahead, ..Way::default() };
    let mut up = Way::default();
    let mut late = Box::pin(tokio::time::sleep(idle));
    poll_fn(|context| {
        let moved = down.bytes + up.bytes;
        let ways = (down.poll(context, &mut backend, &mut client), up.poll(context, &mut client, &mut backend));
        match ways {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) | (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => {
                return Poll::Ready(());
            }
            _ => {}
        }
        if down.bytes + up.bytes > moved {
            late.as_mut().reset(Instant::now() + idle);
        }
        late.as_mut().poll(context)
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
            self.is_read = piece.filled().is_empty();
            match Pin::new(&mut *to).poll_write(context, piece.filled()) {
                _ if self.is_read => {}
                Poll::Ready(written) => {
                    let written = written?;
                    self.bytes += written as u64;
                    self.waiting.extend_from_slice(&piece.filled()[written..]);
                }
                Poll::Pending => self.waiting.extend_from_slice(piece.filled()),
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn both_ways_pass_at_once_though_neither_side_reads_first() {
        let (client, near) = duplex(64);
        let (backend, far) = duplex(64);
        let passing = tokio::spawn(pass(near, far, BytesMut::from("ahead "), Duration::from_secs(20)));
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
    async fn a_tunnel_in_which_nobody_speaks_ends() {
        let (_client, near) = duplex(64);
        let (_backend, far) = duplex(64);
        assert_eq!(pass(near, far, BytesMut::new(), Duration::from_millis(5)).await, (0, 0));
    }
}
