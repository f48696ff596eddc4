//! A websocket: frames in, frames out, both at the pace of whoever is slower, and an end.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use ntier_protocol::realtime::error::Code;
use ntier_protocol::realtime::frame::Frame;
use ntier_protocol::realtime::limits;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_websockets::{CloseCode, Config, Limits, Message, ServerBuilder, WebSocketStream};

use crate::client::Client;
use crate::outbox::{Closing, Outbox, Taken};

/// Frames that are written before the socket is flushed.
const AT_ONCE: usize = 64;
/// How long a client may take to hear why it is closed.
const FAREWELL: Duration = Duration::from_secs(2);

struct Socket<S> {
    stream: WebSocketStream<S>,
    sending: VecDeque<Frame>,
    /// Something is written that is not flushed.
    is_dirty: bool,
    /// Came while the client was busy; none is read after it before it is taken.
    ahead: Option<Frame>,
}

enum Event {
    Came(Frame),
    Gone,
    Close(Closing),
}

/// What the client is busy with. It may wait for the database; what is for the client is written all the same.
enum Task {
    Take(Frame),
    Expire,
}

/// Serves a client until one of both ends it. `stop` becomes true when the node stops.
pub async fn serve<S>(stream: S, mut client: Client, silence: Duration, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = Limits::default().max_payload_len(Some(limits::FRAME_BYTES));
    let stream = ServerBuilder::new().limits(limits).config(Config::default()).serve(stream);
    let mut socket = Socket { stream, sending: VecDeque::new(), is_dirty: false, ahead: None };
    let outbox = client.outbox.clone();
    let mut silent = pin!(sleep(silence));
    let mut is_stopping = false;
    let why = loop {
        let expiry = client.next_expiry();
        let expired = async {
            match expiry {
                Some(until) => sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        let task = tokio::select! {
            event = poll_fn(|context| socket.poll(context, &outbox)) => match event {
                Event::Came(frame) => {
                    silent.as_mut().reset(Instant::now() + silence);
                    Task::Take(frame)
                }
                Event::Gone => break None,
                Event::Close(why) => break Some(why),
            },
            () = silent.as_mut() => break None,
            () = expired => Task::Expire,
            _ = stop.wait_for(|stop| *stop), if !is_stopping => {
                is_stopping = true;
                client.disconnect();
                continue;
            }
        };
        let work = async {
            match task {
                Task::Take(frame) => client.take(&frame).await,
                Task::Expire => client.expire(),
            }
        };
        tokio::select! {
            biased;
            () = work => {}
            end = poll_fn(|context| socket.poll_end(context, &outbox)) => break end,
        }
    };
    drop(client);
    if let Some(why) = why {
        let (code, reason) = farewell(why);
        let _ = timeout(FAREWELL, socket.stream.send(Message::close(Some(code), reason))).await;
    }
    let _ = timeout(FAREWELL, socket.stream.close()).await;
}

fn farewell(why: Closing) -> (CloseCode, &'static str) {
    match why {
        Closing::Slow => (CloseCode::POLICY_VIOLATION, Code::OutboxFull.text()),
        Closing::Restarting => (CloseCode::SERVICE_RESTART, Code::RealtimeRestarting.text()),
        Closing::Refused => (CloseCode::GOING_AWAY, ""),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Writes what there is, and reads.
    fn poll(&mut self, context: &mut Context<'_>, outbox: &Outbox) -> Poll<Event> {
        match self.poll_send(context, outbox) {
            Poll::Ready(Some(why)) => return Poll::Ready(Event::Close(why)),
            Poll::Ready(None) => return Poll::Ready(Event::Gone),
            Poll::Pending => {}
        }
        let read = match self.ahead.take() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => self.poll_read(context),
        };
        read.map(|frame| frame.map_or(Event::Gone, Event::Came))
    }

    /// Writes what there is, until the end: `None` where the client is gone. One frame is read ahead, else nobody would know of that.
    fn poll_end(&mut self, context: &mut Context<'_>, outbox: &Outbox) -> Poll<Option<Closing>> {
        let end = self.poll_send(context, outbox);
        if end.is_pending() && self.ahead.is_none() {
            match self.poll_read(context) {
                Poll::Ready(Some(frame)) => self.ahead = Some(frame),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
        }
        end
    }

    /// Writes until there is nothing more, or the end.
    fn poll_send(&mut self, context: &mut Context<'_>, outbox: &Outbox) -> Poll<Option<Closing>> {
        loop {
            if self.poll_write(context).is_err() {
                return Poll::Ready(None);
            }
            if self.is_dirty || !self.sending.is_empty() {
                // What waits is not taken yet, but an end is not put off by a client that does not read.
                return outbox.poll_overflow(context).map(Some);
            }
            match outbox.poll_take(context, AT_ONCE, &mut self.sending) {
                Poll::Ready(Taken::Frames) => {}
                Poll::Ready(Taken::Close(why)) => return Poll::Ready(Some(why)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// `None` at the end.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        loop {
            match self.stream.poll_next_unpin(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(message))) if message.is_close() => return Poll::Ready(None),
                Poll::Ready(Some(Ok(message))) if message.is_text() => {
                    return Poll::Ready(Some(Frame::Text(Bytes::from(message.into_payload()))));
                }
                Poll::Ready(Some(Ok(message))) if message.is_binary() => {
                    return Poll::Ready(Some(Frame::Binary(Bytes::from(message.into_payload()))));
                }
                // A ping is answered beneath.
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(None),
            }
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Result<(), tokio_websockets::Error> {
        while !self.sending.is_empty() {
            match self.stream.poll_ready_unpin(context)? {
                Poll::Pending => return Ok(()),
                Poll::Ready(()) => {}
            }
            let Some(frame) = self.sending.pop_front() else { break };
            self.stream.start_send_unpin(match frame {
                Frame::Text(bytes) => Message::text(bytes),
                Frame::Binary(bytes) => Message::binary(bytes),
            })?;
            self.is_dirty = true;
        }
        if self.is_dirty && self.stream.poll_flush_unpin(context)?.is_ready() {
            self.is_dirty = false;
        }
        Ok(())
    }
}
