//! A websocket: frames in, frames out, both at the pace of whoever is slower, and an end.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ntier_protocol::realtime::error::Code;
use ntier_protocol::realtime::frame::Frame;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::outbox::{Closing, Outbox, Taken};
use crate::websocket::{End, Websocket};

/// Frames that are taken from the outbox at once.
const AT_ONCE: usize = 64;
/// How long a client may take to hear why it is closed.
const FAREWELL: Duration = Duration::from_secs(2);
/// Codes of RFC 6455, and of the registry that it began.
const GOING_AWAY: u16 = 1001;
const POLICY_VIOLATION: u16 = 1008;
const SERVICE_RESTART: u16 = 1012;

struct Socket<S> {
    stream: Websocket<S>,
    /// Came while the client was busy; none is read after it before it is taken.
    ahead: Option<Frame>,
}

enum Event {
    Came(Frame),
    Over(Over),
}

/// Who ends it.
enum Over {
    Client(End),
    Us(Closing),
}

/// What the client is busy with. It may wait for the database; what is for the client is written all the same.
enum Task {
    Take(Frame),
    Look,
}

/// Serves a client until one of both ends it. `stop` becomes true when the node stops.
pub async fn serve<S>(stream: S, mut client: Client, silence: Duration, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut socket = Socket { stream: Websocket::new(stream), ahead: None };
    let outbox = client.outbox.clone();
    let mut silent = pin!(sleep(silence));
    let mut is_stopping = false;
    let over = loop {
        let task = tokio::select! {
            event = poll_fn(|context| socket.poll(context, &outbox)) => match event {
                Event::Came(frame) => {
                    silent.as_mut().reset(Instant::now() + silence);
                    Task::Take(frame)
                }
                Event::Over(over) => break over,
            },
            () = silent.as_mut() => break Over::Client(End::Closed(None)),
            () = client.due() => Task::Look,
            _ = stop.wait_for(|stop| *stop), if !is_stopping => {
                is_stopping = true;
                client.disconnect();
                continue;
            }
        };
        let work = async {
            match task {
                // What may wait for the database is large, and most clients are quiet most of the time.
                Task::Take(frame) => Box::pin(client.take(&frame)).await,
                Task::Look => client.look(),
            }
        };
        tokio::select! {
            biased;
            () = work => {}
            over = poll_fn(|context| socket.poll_over(context, &outbox)) => break over,
        }
    };
    if matches!(over, Over::Us(Closing::Slow)) {
        client.was_slow();
    }
    drop(client);
    let (code, reason) = match over {
        Over::Client(End::Gone) => return,
        Over::Client(End::Closed(code)) => (code, ""),
        Over::Client(End::Fault(fault)) => (Some(fault.code()), ""),
        Over::Us(Closing::Slow) => (Some(POLICY_VIOLATION), Code::OutboxFull.text()),
        Over::Us(Closing::Restarting) => (Some(SERVICE_RESTART), Code::RealtimeRestarting.text()),
        Over::Us(Closing::Refused) => (Some(GOING_AWAY), ""),
    };
    socket.stream.close(code, reason, FAREWELL).await;
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Writes what there is, and reads.
    fn poll(&mut self, context: &mut Context<'_>, outbox: &Outbox) -> Poll<Event> {
        if let Poll::Ready(over) = self.poll_send(context, outbox) {
            return Poll::Ready(Event::Over(over));
        }
        if let Some(frame) = self.ahead.take() {
            return Poll::Ready(Event::Came(frame));
        }
        let read = self.stream.poll_read(context);
        if read.is_pending()
            && let Poll::Ready(over) = self.poll_pong(context)
        {
            return Poll::Ready(Event::Over(over));
        }
        read.map(|read| read.map_or_else(|end| Event::Over(Over::Client(end)), Event::Came))
    }

    /// Writes what there is, until the end. One frame is read ahead, else nobody would know of that.
    fn poll_over(&mut self, context: &mut Context<'_>, outbox: &Outbox) -> Poll<Over> {
        let over = self.poll_send(context, outbox);
        if over.is_pending() && self.ahead.is_none() {
            match self.stream.poll_read(context) {
                Poll::Ready(Ok(frame)) => self.ahead = Some(frame),
                Poll::Ready(Err(end)) => return Poll::Ready(Over::Client(end)),
                Poll::Pending => return self.poll_pong(context),
            }
        }
        over
    }

    /// Writes until there is nothing more, or the end.
    fn poll_send(&mut self, context: &mut Context<'_>, outbox: &Outbox) -> Poll<Over> {
        loop {
            match self.stream.poll_write(context) {
                // What waits is not taken yet, but an end is not put off by a client that does not read.
                Poll::Pending => return outbox.poll_overflow(context).map(Over::Us),
                Poll::Ready(Err(_)) => return Poll::Ready(Over::Client(End::Gone)),
                Poll::Ready(Ok(())) => {}
            }
            match outbox.poll_take(context, AT_ONCE, &mut self.stream) {
                Poll::Ready(Taken::Frames) => {}
                Poll::Ready(Taken::Close(why)) => return Poll::Ready(Over::Us(why)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// What was read may have been a ping, and nothing else wakes whoever answers it.
    fn poll_pong(&mut self, context: &mut Context<'_>) -> Poll<Over> {
        match self.stream.poll_write(context) {
            Poll::Ready(Err(_)) => Poll::Ready(Over::Client(End::Gone)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }
}
