//! How often something happens: an average over a window, by which limits go.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Parts of the window, of which the oldest is left out at a time.
const PARTS: usize = 12;

#[derive(Debug)]
pub struct Rate {
    /// In a second, on average over the window.
    most: u64,
    window: Duration,
    since: Instant,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    /// The part that is being counted, from the beginning of all.
    part: u64,
    counts: [u64; PARTS],
    sum: u64,
}

impl Rate {
    pub fn new(most: u32, window: Duration) -> Self {
        Self { most: most.into(), window, since: Instant::now(), counted: Mutex::default() }
    }

    pub fn add(&self, count: u64) {
        self.add_at(count, self.since.elapsed());
    }

    /// Whether it happens as often as it may, or more often.
    pub fn is_reached(&self) -> bool {
        self.left() == 0
    }

    /// How many more there may be within the window.
    pub fn left(&self) -> u64 {
        self.left_at(self.since.elapsed())
    }

    fn add_at(&self, count: u64, at: Duration) {
        self.counted(at, |counted, part| {
            counted.counts[part] += count;
            counted.sum += count;
        });
    }

    fn left_at(&self, at: Duration) -> u64 {
        let most = self.most.saturating_mul(self.window.as_secs());
        self.counted(at, |counted, _| most.saturating_sub(counted.sum))
    }

    fn counted<T>(&self, at: Duration, with: impl FnOnce(&mut Counted, usize) -> T) -> T {
        const PARTS_AS: u64 = PARTS as u64;
        let part =
            u64::try_from(at.as_millis() * u128::from(PARTS_AS) / self.window.as_millis().max(1)).unwrap_or(u64::MAX);
        let index = |part: u64| usize::try_from(part % PARTS_AS).unwrap_or_default();
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        for over in 1..=part.saturating_sub(counted.part).min(PARTS_AS) {
            let index = index(counted.part + over);
            counted.sum -= std::mem::take(&mut counted.counts[index]);
        }
        counted.part = counted.part.max(part);
        let index = index(counted.part);
        with(&mut counted, index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_an_average_over_a_minute() {
        let rate = Rate::new(2, Duration::from_mins(1));
        let left = |seconds| rate.left_at(Duration::from_secs(seconds));
        let add = |count, seconds| rate.add_at(count, Duration::from_secs(seconds));
        assert_eq!(left(0), 120);
        add(100, 1);
        add(15, 7);
        assert_eq!((left(8), left(59)), (5, 5));
        add(10, 59);
        assert_eq!(left(59), 0);
        // What happened within the first five seconds is left out a minute after.
        assert_eq!((left(60), left(65), left(119)), (95, 110, 120));
        // Nothing comes back however long nobody asks.
        add(120, 120);
        assert_eq!((left(121), left(100_000)), (0, 120));
    }
}
