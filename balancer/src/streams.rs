//! Answers on streams of HTTP/2. Their clients say how much they take, and hyper asks for a body only where there is room: of a client that
//! takes nothing it would never be heard again. So each worker knows its streams, and looks at them.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body as _, Frame};

use crate::outbound::Outbound;

/// Of one worker, whose thread alone takes them.
#[derive(Debug, Default)]
pub struct Streams(Mutex<Vec<Weak<Stream>>>);

#[derive(Debug)]
pub struct Stream(Mutex<Turn>);

#[derive(Debug)]
struct Turn {
    /// `None` once its client is given up.
    body: Option<Outbound>,
    /// Since then the client takes nothing; `None` where it is the backend that is waited for.
    since: Option<Instant>,
}

impl Streams {
    /// The same answer, which is given up where its client does not take it. One that is here whole holds no place at a backend, and goes
    /// as it is.
    pub fn watch(&self, body: Outbound) -> Outbound {
        if matches!(body, Outbound::Whole(_)) {
            return body;
        }
        let stream = Arc::new(Stream(Mutex::new(Turn { body: Some(body), since: Some(Instant::now()) })));
        let mut all = self.all();
        // Those that are gone are forgotten each time that there are twice as many.
        if all.len() == all.capacity() {
            all.retain(|stream| stream.strong_count() > 0);
            let room = all.len().max(64);
            all.reserve(room);
        }
        all.push(Arc::downgrade(&stream));
        Outbound::Watched(stream)
    }

    /// Gives up those whose client has taken nothing for so long: nothing is kept for them, and their backends have room for others.
    pub fn give_up(&self, now: Instant, stall: Duration) {
        let open: Vec<Arc<Stream>> = self.all().iter().filter_map(Weak::upgrade).collect();
        for stream in open {
            let mut turn = stream.turn();
            if turn.since.is_some_and(|since| now.saturating_duration_since(since) > stall) {
                turn.body = None;
            }
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Weak<Stream>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    pub fn poll_frame(&self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut turn = self.turn();
        let Some(body) = &mut turn.body else { return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into()))) };
        let frame = Pin::new(body).poll_frame(context);
        turn.since = frame.is_ready().then(Instant::now);
        frame
    }

    /// What is asked of the body; `None` once it is given up.
    pub fn ask<T>(&self, question: impl FnOnce(&Outbound) -> T) -> Option<T> {
        self.turn().body.as_ref().map(question)
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
