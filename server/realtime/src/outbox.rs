//! What waits to be sent to one client. Bounded: a client that does not read is closed, not remembered.
//!
//! There are two bounds. Beyond the first, whoever can wait does so for a moment; what cannot is kept all the same, up to the second.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use ntier_protocol::realtime::frame::Frame;
use tokio::sync::Notify;

/// How much may wait, before whoever says more waits for a moment.
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

/// So many times as much may wait for a client that does not keep up, before it is closed.
const BEYOND: usize = 8;
/// It is closed, too, when it has taken nothing for so long while more than its bounds waited.
const STILL: Duration = Duration::from_secs(10);
/// Bytes that are taken at once, and a frame more: by what it takes it is seen that a client reads.
const AT_ONCE: usize = 256 << 10;

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
    /// More than the bounds waits, and none of it was taken since then.
    full_since: Option<Instant>,
    closing: Option<Closing>,
}

/// What has become of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    Taken,
    /// Likewise, but more waits than should.
    Full,
    /// The client is being closed.
    Refused,
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

    /// Leaves a frame for the client's task.
    pub fn push(&self, frame: Frame) -> Pushed {
        let (is_first, is_full) = {
            let mut waiting = self.waiting();
            if waiting.closing.is_some() {
                return Pushed::Refused;
            }
            let (frames, bytes) = (waiting.frames.len() + 1, waiting.bytes + frame.len());
            let is_over = |times: usize| frames > self.bounds.frames * times || bytes > self.bounds.bytes * times;
            let is_full = is_over(1);
            if is_full && (is_over(BEYOND) || waiting.is_still()) {
                // What was said is not heard: it is better to say so than to leave a gap.
                *waiting = Waiting { closing: Some(Closing::Slow), ..Waiting::default() };
                drop(waiting);
                self.reader.wake();
                self.drained.notify_waiters();
                return Pushed::Refused;
            }
            waiting.bytes = bytes;
            waiting.frames.push_back(frame);
            (frames == 1, is_full)
        };
        if is_first {
            self.reader.wake();
        }
        if is_full { Pushed::Full } else { Pushed::Taken }
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
        let (mut count, mut bytes) = (0, 0);
        while let Some(frame) = waiting.frames.get(count).filter(|_| count < most && bytes < AT_ONCE) {
            bytes += frame.len();
            count += 1;
        }
        into.extend(waiting.frames.drain(..count));
        waiting.bytes -= bytes;
        waiting.full_since = None;
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

impl Waiting {
    /// Whether it is full, and has been for too long.
    fn is_still(&mut self) -> bool {
        self.full_since.get_or_insert_with(Instant::now).elapsed() >= STILL
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
            assert_eq!(outbox.push(frame(bytes)), Pushed::Taken);
        }
        outbox.close(Closing::Restarting);
        assert_eq!(outbox.push(frame(1)), Pushed::Refused);
        assert_eq!(taken(&outbox, 2), (Poll::Ready(Taken::Frames), 2));
        assert_eq!(taken(&outbox, 2), (Poll::Ready(Taken::Frames), 1));
        assert_eq!(taken(&outbox, 2), (Poll::Ready(Taken::Close(Closing::Restarting)), 0));
    }

    #[test]
    fn whoever_does_not_read_is_closed_and_holds_nothing() {
        for (frames, bytes) in [(2, 1000), (1000, 25)] {
            let outbox = Outbox::new(Bounds { frames, bytes });
            let pushed = || outbox.push(frame(10));
            assert_eq!([pushed(), pushed(), pushed()], [Pushed::Taken, Pushed::Taken, Pushed::Full]);
            while pushed() != Pushed::Refused {}
            assert_eq!(taken(&outbox, 10), (Poll::Ready(Taken::Close(Closing::Slow)), 0));
        }
    }

    #[test]
    fn whoever_takes_nothing_for_long_is_closed_before() {
        let outbox = Outbox::new(Bounds { frames: 1, bytes: 100 });
        let long_ago = Instant::now().checked_sub(STILL);
        for _ in 0..2 {
            outbox.push(frame(1));
            assert_eq!(outbox.push(frame(1)), Pushed::Full);
            outbox.waiting().full_since = long_ago;
            assert_eq!(taken(&outbox, 10), (Poll::Ready(Taken::Frames), 2));
        }
        outbox.push(frame(1));
        assert_eq!(outbox.push(frame(1)), Pushed::Full);
        outbox.waiting().full_since = long_ago;
        assert_eq!(outbox.push(frame(1)), Pushed::Refused);
        assert_eq!(taken(&outbox, 10), (Poll::Ready(Taken::Close(Closing::Slow)), 0));
    }

    #[test]
    fn little_of_what_is_large_is_taken_at_once() {
        let outbox = Outbox::new(Bounds::default());
        for _ in 0..3 {
            outbox.push(frame(AT_ONCE - 1));
        }
        assert_eq!(taken(&outbox, 10), (Poll::Ready(Taken::Frames), 2));
        assert_eq!(taken(&outbox, 10), (Poll::Ready(Taken::Frames), 1));
    }
}
