//! What waits to be sent to one client. Bounded: a client that does not read is closed, not remembered.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use ntier_protocol::realtime::frame::Frame;
use tokio::sync::Notify;

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub frames: usize,
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { frames: 1024, bytes: 4 << 20 }
    }
}

/// Why a client is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// It reads more slowly than what is said to it.
    Slow,
    /// The node stops; it may come again at once.
    Restarting,
    /// It may not go on.
    Refused,
}

/// One client's. Whoever says something pushes; the client's own task takes.
#[derive(Debug)]
pub struct Outbox {
    bounds: Bounds,
    waiting: Mutex<Waiting>,
    reader: AtomicWaker,
    /// For whoever waits until there is room.
    drained: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Frame>,
    bytes: usize,
    closing: Option<Closing>,
}

/// What there is to do for the client's task.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    Frames,
    Close(Closing),
}

impl Outbox {
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, waiting: Mutex::default(), reader: AtomicWaker::new(), drained: Notify::new() }
    }

    /// Says whether the client takes it; it does not once it is being closed.
    pub fn push(&self, frame: Frame) -> bool {
        let is_first = {
            let mut waiting = self.waiting();
            if waiting.closing.is_some() {
                return false;
            }
            if waiting.frames.len() >= self.bounds.frames || waiting.bytes + frame.len() > self.bounds.bytes {
                // What was said is not heard: it is better to say so than to leave a gap.
                *waiting = Waiting { closing: Some(Closing::Slow), ..Waiting::default() };
                true
            } else {
                waiting.bytes += frame.len();
                waiting.frames.push_back(frame);
                waiting.frames.len() == 1
            }
        };
        if is_first {
            self.reader.wake();
        }
        true
    }

    /// Waits until half of it is free, or the client is closed: for what can be said at the client's pace.
    pub async fn room(&self) {
        loop {
            let mut drained = pin!(self.drained.notified());
            drained.as_mut().enable();
            {
                let waiting = self.waiting();
                let has_room = waiting.frames.len() < self.bounds.frames / 2 && waiting.bytes < self.bounds.bytes / 2;
                if has_room || waiting.closing.is_some() {
                    return;
                }
            }
            drained.await;
        }
    }

    /// Sends what waits, and then closes.
    pub fn close(&self, why: Closing) {
        self.waiting().closing.get_or_insert(why);
        self.reader.wake();
        self.drained.notify_waiters();
    }

    /// Moves at most `most` frames over, in their order. Frames come before the end.
    pub fn poll_take(&self, context: &mut Context<'_>, most: usize, into: &mut impl Extend<Frame>) -> Poll<Taken> {
        if let Some(taken) = self.take(most, into) {
            return Poll::Ready(taken);
        }
        self.reader.register(context.waker());
        self.take(most, into).map_or(Poll::Pending, Poll::Ready)
    }

    /// Whether the client is closed for what it has not read.
    pub fn poll_overflow(&self, context: &mut Context<'_>) -> Poll<Closing> {
        let slow = || self.waiting().closing.filter(|why| *why == Closing::Slow);
        if slow().is_none() {
            self.reader.register(context.waker());
        }
        slow().map_or(Poll::Pending, Poll::Ready)
    }

    fn take(&self, most: usize, into: &mut impl Extend<Frame>) -> Option<Taken> {
        let mut waiting = self.waiting();
        if waiting.frames.is_empty() {
            return waiting.closing.map(Taken::Close);
        }
        let count = waiting.frames.len().min(most);
        into.extend(waiting.frames.drain(..count));
        waiting.bytes = waiting.frames.iter().map(Frame::len).sum();
        if waiting.frames.is_empty() && waiting.frames.capacity() > 64 {
            waiting.frames = VecDeque::new();
        }
        drop(waiting);
        self.drained.notify_waiters();
        Some(Taken::Frames)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;

    use super::*;

    fn frame(bytes: usize) -> Frame {
        Frame::Text(Bytes::from(vec![b'x'; bytes]))
    }

    fn taken(outbox: &Outbox, most: usize) -> (Poll<Taken>, usize) {
        let mut into = VecDeque::new();
        let polled = outbox.poll_take(&mut Context::from_waker(Waker::noop()), most, &mut into);
        (polled, into.len())
    }

    #[test]
    fn frames_come_in_order_and_before_the_end() {
        let outbox = Outbox::new(Bounds { frames: 3, bytes: 100 });
        assert_eq!(taken(&outbox, 10), (Poll::Pending, 0));
        for bytes in [1, 2, 3] {
            assert!(outbox.push(frame(bytes)));
        }
        outbox.close(Closing::Restarting);
        assert!(!outbox.push(frame(1)));
        assert_eq!(taken(&outbox, 2), (Poll::Ready(Taken::Frames), 2));
        assert_eq!(taken(&outbox, 2), (Poll::Ready(Taken::Frames), 1));
        assert_eq!(taken(&outbox, 2), (Poll::Ready(Taken::Close(Closing::Restarting)), 0));
    }

    #[test]
    fn whoever_does_not_read_is_closed_and_holds_nothing() {
        for (frames, bytes) in [(2, 1000), (1000, 25)] {
            let outbox = Outbox::new(Bounds { frames, bytes });
            while outbox.push(frame(10)) {}
            assert_eq!(taken(&outbox, 10), (Poll::Ready(Taken::Close(Closing::Slow)), 0));
        }
    }
}
