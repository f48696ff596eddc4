//! What waits to be carried. Bounded: what does not fit is dropped and counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

const MESSAGES: usize = 16 << 10;
const BYTES: usize = 16 << 20;

#[derive(Debug)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    changed: Notify,
    is_closed: watch::Sender<bool>,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Bytes>,
    bytes: usize,
}

impl Default for Queue {
    fn default() -> Self {
        let (is_closed, _) = watch::channel(false);
        Self { waiting: Mutex::default(), changed: Notify::new(), is_closed, lost: AtomicU64::new(0) }
    }
}

impl Queue {
    /// Anybody may; it does not wait.
    pub fn push(&self, message: Bytes) {
        if *self.is_closed.borrow() {
            return;
        }
        let mut waiting = self.waiting();
        if waiting.messages.len() >= MESSAGES || waiting.bytes + message.len() > BYTES {
            drop(waiting);
            return self.lose(1);
        }
        waiting.bytes += message.len();
        waiting.messages.push_back(message);
        let is_first = waiting.messages.len() == 1;
        drop(waiting);
        if is_first {
            self.changed.notify_one();
        }
    }

    pub fn close(&self) {
        self.is_closed.send_replace(true);
        self.changed.notify_one();
    }

    /// Returns once it is closed.
    pub async fn closed(&self) {
        let mut is_closed = self.is_closed.subscribe();
        // The sender is ours, so there is no other end.
        let _ = is_closed.wait_for(|is_closed| *is_closed).await;
    }

    /// Waits for messages and takes the first of them, up to so many bytes but at least one. None are there once it is closed. One may
    /// ask at a time.
    pub async fn take(&self, most: usize) -> Vec<Bytes> {
        loop {
            // Asked before: what was said before it was closed is taken.
            let is_closed = *self.is_closed.borrow();
            let taken = self.taken(most);
            if !taken.is_empty() || is_closed {
                return taken;
            }
            self.changed.notified().await;
        }
    }

    fn taken(&self, most: usize) -> Vec<Bytes> {
        let mut waiting = self.waiting();
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(next) = waiting.messages.front() {
            if !taken.is_empty() && bytes + next.len() > most {
                break;
            }
            bytes += next.len();
            taken.extend(waiting.messages.pop_front());
        }
        waiting.bytes -= bytes;
        if waiting.messages.is_empty() && waiting.messages.capacity() > 1024 {
            waiting.messages = VecDeque::new();
        }
        taken
    }

    /// So many messages will not be heard.
    pub fn lose(&self, count: usize) {
        self.lost.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// How many were lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn take(queue: &Queue, most: usize) -> Option<Vec<usize>> {
        let taken = queue.take(most).now_or_never()?;
        Some(taken.iter().map(Bytes::len).collect())
    }

    #[test]
    fn messages_are_taken_together_in_their_order() {
        let queue = Queue::default();
        assert_eq!(take(&queue, 10), None);
        for length in [4, 5, 6, 70] {
            queue.push(Bytes::from(vec![0; length]));
        }
        assert_eq!(take(&queue, 10), Some(vec![4, 5]));
        assert_eq!(take(&queue, 10), Some(vec![6]));
        assert_eq!(take(&queue, 10), Some(vec![70]));
        assert_eq!(take(&queue, 10), None);
        queue.push(Bytes::from_static(b"last"));
        queue.close();
        queue.push(Bytes::from_static(b"too late"));
        assert_eq!(take(&queue, 10), Some(vec![4]));
        assert_eq!(take(&queue, 10), Some(vec![]));
        assert!(queue.closed().now_or_never().is_some());
        assert_eq!(queue.lost(), 0);
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        for (length, fit) in [(0, MESSAGES), (BYTES / 4, 4)] {
            let queue = Queue::default();
            let message = Bytes::from(vec![0; length]);
            for _ in 0..fit + 3 {
                queue.push(message.clone());
            }
            assert_eq!(queue.lost(), 3);
            assert_eq!(take(&queue, usize::MAX).unwrap().len(), fit);
            queue.push(message);
            assert_eq!((queue.lost(), take(&queue, 1).unwrap().len()), (3, 1));
        }
    }
}
