//! Counts for operators. Each is written by one thread only, so that counting costs no more than an addition.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that grows. Only one thread may add to it.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    pub fn take(&self, fewer: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(fewer), Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of times in microseconds; longer ones come last.
pub const BOUNDS_US: [u64; 17] = [
    250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// How often something took how long.
#[derive(Debug, Default)]
pub struct Times {
    counts: [Count; BOUNDS_US.len() + 1],
    sum_us: Count,
}

impl Times {
    pub fn add(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts[BOUNDS_US.partition_point(|bound| *bound < took)].add(1);
        self.sum_us.add(took);
    }
}

/// Of one worker with one backend.
#[derive(Debug, Default)]
pub struct Figures {
    /// Answers by the first digit of their status; the first place is for none.
    pub answers: [Count; 6],
    /// From the request to the first byte of the answer.
    pub times: Times,
    /// Connections opened, and of those that could not be.
    pub connections: Count,
    pub refused: Count,
    /// Requests that ended without an answer.
    pub failures: Count,
    /// Bytes of bodies.
    pub sent: Count,
    pub received: Count,
}

/// Figures of all workers together.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Sum {
    pub answers: [u64; 6],
    /// Up to each bound, and in all: cumulative, as Prometheus wants them.
    pub times: [u64; BOUNDS_US.len() + 1],
    pub seconds: f64,
    pub connections: u64,
    pub refused: u64,
    pub failures: u64,
    pub sent: u64,
    pub received: u64,
}

/// Adds them up.
pub fn sum<'a>(all: impl Iterator<Item = &'a Figures>) -> Sum {
    let mut sum = Sum::default();
    let mut microseconds = 0;
    for one in all {
        for (sum, count) in sum.answers.iter_mut().zip(&one.answers) {
            *sum += count.get();
        }
        let mut below = 0;
        for (sum, count) in sum.times.iter_mut().zip(&one.times.counts) {
            below += count.get();
            *sum += below;
        }
        microseconds += one.times.sum_us.get();
        sum.connections += one.connections.get();
        sum.refused += one.refused.get();
        sum.failures += one.failures.get();
        sum.sent += one.sent.get();
        sum.received += one.received.get();
    }
    sum.seconds = Duration::from_micros(microseconds).as_secs_f64();
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_up_to_each_bound() {
        let (one, other) = (Figures::default(), Figures::default());
        for took in [100, 250, 251, 70_000_000] {
            one.times.add(Duration::from_micros(took));
        }
        other.times.add(Duration::from_millis(3));
        let sum = sum([&one, &other].into_iter());
        assert_eq!(sum.times[..5], [2, 3, 3, 3, 4]);
        assert_eq!(sum.times[BOUNDS_US.len() - 1..], [4, 5]);
        assert!((sum.seconds - 70.003_601).abs() < 1e-9, "{}", sum.seconds);
    }
}
