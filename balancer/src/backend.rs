//! A backend: where it is, how it does, and the connections to it that wait for a request.
//!
//! What all workers know of it is in atomic words; what one worker has of it (connections, figures) is in a lane of its own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::choose::{self, Seen};
use crate::clock::Clock;
use crate::ewma::Ewma;
use crate::figures::Figures;
use crate::link::Link;

/// One backend.
#[derive(Debug)]
pub struct Backend {
    pub address: SocketAddr,
    /// The address as text: what metrics and logs call it, and what hashing goes by.
    pub name: String,
    pub name_hash: u64,
    pub clock: Clock,
    health: AtomicU8,
    /// When it began to be usable, in milliseconds; it warms up from then on.
    pub up_since: AtomicU64,
    /// Failed requests in a row.
    pub failures: AtomicU32,
    /// In milliseconds; 0 where it is not ejected.
    pub ejected_until: AtomicU64,
    pub ejections: AtomicU32,
    pub pending: AtomicU32,
    /// Websockets that are open.
    pub tunnels: AtomicU32,
    ewma: AtomicU64,
    pub lanes: Box<[Lane]>,
}

/// What it says when it is asked how it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Not asked yet, or never asked: it is used.
    Unknown,
    Up,
    Down,
}

impl Health {
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// What one worker has of a backend. A cache line of its own, so that workers do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Lane {
    /// Never contended: only its worker takes it.
    #[expect(clippy::vec_box, reason = "a connection goes in and out with each request")]
    idle: Mutex<Vec<Box<Link>>>,
    pub figures: Figures,
}

impl Backend {
    pub fn new(address: SocketAddr, workers: usize, clock: Clock) -> Self {
        let name = address.to_string();
        Self {
            address,
            name_hash: choose::hash(name.as_bytes()),
            name,
            clock,
            health: AtomicU8::new(0),
            up_since: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            ejections: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            tunnels: AtomicU32::new(0),
            ewma: AtomicU64::new(Ewma::NONE.to_word()),
            lanes: (0..workers).map(|_| Lane::default()).collect(),
        }
    }

    pub fn health(&self) -> Health {
        match self.health.load(Relaxed) {
            1 => Health::Up,
            2 => Health::Down,
            _ => Health::Unknown,
        }
    }

    pub fn set_health(&self, health: Health) {
        let word = match health {
            Health::Unknown => 0,
            Health::Up => 1,
            Health::Down => 2,
        };
        self.health.store(word, Relaxed);
    }

    pub fn is_ejected(&self, now_ms: u64) -> bool {
        self.ejected_until.load(Relaxed) > now_ms
    }

    pub fn is_usable(&self, now_ms: u64) -> bool {
        self.health() != Health::Down && !self.is_ejected(now_ms)
    }

    /// What a choice goes by.
    pub fn seen(&self, weight: u32, now_ms: u64, slow_start: Duration) -> Seen {
        Seen {
            usable: self.is_usable(now_ms),
            weight,
            warmth: warmth(now_ms.saturating_sub(self.up_since.load(Relaxed)), slow_start),
            pending: self.pending.load(Relaxed),
            ewma: Ewma::from_word(self.ewma.load(Relaxed)),
        }
    }

    /// It has begun to answer, after so long.
    pub fn took(&self, took: Duration, now: Instant) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let ewma = Ewma::from_word(self.ewma.load(Relaxed));
        // Of two threads at once the later wins: an average forgives it.
        self.ewma.store(ewma.observe(took, self.clock.wrapped_millis(now)).to_word(), Relaxed);
    }

    /// It has answered as it should.
    pub fn did_well(&self) {
        // Written only where it changes: the word is shared.
        if self.failures.load(Relaxed) > 0 {
            self.failures.store(0, Relaxed);
            self.ejections.store(0, Relaxed);
        }
    }

    /// How long it takes of late.
    pub fn recent(&self, now: Instant) -> Option<Duration> {
        let cost = Ewma::from_word(self.ewma.load(Relaxed)).cost(self.clock.wrapped_millis(now))?;
        Some(Duration::from_secs_f32(cost / 1e6))
    }
}

/// How much of its weight counts for one that has been there so long: it grows from a tenth to all.
fn warmth(passed_ms: u64, slow_start: Duration) -> f32 {
    let slow_start = slow_start.as_millis();
    if u128::from(passed_ms) >= slow_start {
        return 1.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more")]
    let share = passed_ms as f32 / slow_start as f32;
    share.max(0.1)
}

impl Lane {
    /// A connection that is still open: the one that was used last.
    pub fn take(&self, now: Instant, kept: Duration) -> Option<Box<Link>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(mut link) = idle.pop() {
            if link.rests(now, kept) {
                return Some(link);
            }
        }
        None
    }

    /// It has answered in whole and may be used again.
    pub fn give(&self, link: Box<Link>) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(link);
    }

    /// Closes those that the backend has closed or that nobody needed for so long.
    pub fn sweep(&self, now: Instant, kept: Duration) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).retain_mut(|link| link.rests(now, kept));
    }

    pub fn idle(&self) -> usize {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_has_come_warms_up() {
        let slow_start = Duration::from_secs(10);
        for (passed, expected) in [(0, 0.1), (500, 0.1), (5000, 0.5), (10_000, 1.0), (99_000, 1.0)] {
            assert!((warmth(passed, slow_start) - expected).abs() < 1e-6, "{passed}");
        }
        assert!((warmth(0, Duration::ZERO) - 1.0).abs() < 1e-6);
    }
}
