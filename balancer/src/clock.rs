//! Time as a number, for atomic words: milliseconds since the balancer began.

use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// A little before now, so that no moment is 0.
    pub fn start(now: Instant) -> Self {
        Self(now.checked_sub(Duration::from_secs(1)).unwrap_or(now))
    }

    pub fn millis(self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.0).as_millis()).unwrap_or(u64::MAX)
    }

    /// The same in half a word; it wraps after seven weeks.
    pub fn wrapped_millis(self, at: Instant) -> u32 {
        u32::try_from(self.millis(at) & u64::from(u32::MAX)).unwrap_or_default()
    }
}
