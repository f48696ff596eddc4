//! How far a connection is, for whoever chooses one: how much it has to do, and since when its head is running.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A head that runs longer keeps those behind it waiting: others should go elsewhere.
const SLOW: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub struct Progress {
    load: AtomicUsize,
    base: Instant,
    /// Microseconds after the base; 0 when nothing runs.
    head: AtomicU64,
}

impl Progress {
    pub fn new() -> Self {
        Self { load: AtomicUsize::new(0), base: Instant::now(), head: AtomicU64::new(0) }
    }

    /// Batches that were given to the connection and not answered.
    pub fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    pub fn add(&self) {
        self.load.fetch_add(1, Ordering::Relaxed);
    }

    pub fn remove(&self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }

    /// A batch came to the head of the line now.
    pub fn head(&self) -> Instant {
        let now = Instant::now();
        self.head.store(self.micros(now).max(1), Ordering::Relaxed);
        now
    }

    /// Nothing runs.
    pub fn idle(&self) {
        self.head.store(0, Ordering::Relaxed);
    }

    /// Whether more work should go elsewhere: the head runs long, or there is work and no connection yet.
    pub fn is_slow(&self, now: Instant) -> bool {
        match self.head.load(Ordering::Relaxed) {
            0 => self.load() > 0,
            since => self.micros(now).saturating_sub(since) > u64::try_from(SLOW.as_micros()).unwrap_or(u64::MAX),
        }
    }

    fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.base).as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_slow_when_its_head_runs_long_or_when_it_is_not_connected() {
        let progress = Progress::new();
        assert!(!progress.is_slow(Instant::now()), "idle");
        progress.add();
        assert!(progress.is_slow(Instant::now()), "there is work and nothing runs");
        let begun = progress.head();
        assert!(!progress.is_slow(begun + SLOW / 2));
        assert!(progress.is_slow(begun + SLOW * 2));
        progress.remove();
        progress.idle();
        assert!(!progress.is_slow(begun + SLOW * 2));
    }
}
