//! How often somebody may ask, counted by several processes together.
//!
//! Each process has buckets of its own (a request takes one token, tokens come back with time), so that no request waits for another process. About
//! every second each tells the others what was taken ([`Buckets::used`]), and takes from its own what they tell
//! ([`Buckets::hear`]), into debt if need be. So over any longer time all processes together let through what one would, however many
//! they are; at first, until they have heard of each other, at most a full bucket each.
//!
//! The room is fixed (`bounded.rs`): the bucket that gives way is the one that has most in it, and so has least to remember.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::bounded::{Bounded, Key};

/// So many at once, and so many in a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    pub size: f64,
    pub refill: f64,
}

impl Rate {
    /// So many in a second, and those of five seconds at once. `None` for zero: as many as they like.
    pub fn per_second(refill: u32) -> Option<Self> {
        (refill > 0).then(|| Self { size: 5.0 * f64::from(refill), refill: f64::from(refill) })
    }
}

/// What a process tells the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Used {
    pub key: Key,
    pub amount: f64,
}

/// See the module.
#[derive(Debug)]
pub struct Buckets {
    buckets: Bounded<Bucket>,
    /// Those that have something to tell.
    telling: Mutex<Vec<Key>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    rate: Rate,
    /// Less than nothing where others took more than there was.
    tokens: f64,
    at: Instant,
    untold: f64,
    is_telling: bool,
}

/// What is told at a time; more waits for the next.
const MOST_TOLD: usize = 4096;
/// A debt is that many times what a bucket holds at most, so that nobody waits for long because of a wrong message.
const MOST_DEBT: f64 = 4.0;
/// What was taken is told once it is this part of a bucket: those who ask now and then are not worth a message.
const WORTH_TELLING: f64 = 1.0 / 64.0;

impl Buckets {
    /// Has room for about so many.
    pub fn new(entries: usize) -> Self {
        Self { buckets: Bounded::new(entries), telling: Mutex::default() }
    }

    /// Takes one; where there is none, says how long it takes until there is. Who is refused takes nothing.
    pub fn take(&self, key: Key, rate: Rate, now: Instant) -> Result<(), Duration> {
        let (taken, tells) = self.change(key, rate, now, |bucket| {
            if bucket.tokens < 1.0 {
                let seconds = (1.0 - bucket.tokens) / rate.refill;
                return (Err(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)), false);
            }
            bucket.tokens -= 1.0;
            bucket.untold += 1.0;
            let tells = !bucket.is_telling && bucket.untold >= rate.size * WORTH_TELLING;
            bucket.is_telling |= tells;
            (Ok(()), tells)
        });
        if tells {
            self.telling.lock().unwrap_or_else(PoisonError::into_inner).push(key);
        }
        taken
    }

    /// What was taken since it was asked last, of those who took much.
    pub fn used(&self) -> Vec<Used> {
        let mut telling = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        let later = telling.len().saturating_sub(MOST_TOLD);
        let keys = telling.split_off(later);
        drop(telling);
        let told = |key: Key| {
            let amount = self.buckets.look(key, |bucket| {
                bucket.is_telling = false;
                std::mem::take(&mut bucket.untold)
            });
            Some(Used { key, amount: amount.filter(|amount| *amount > 0.0)? })
        };
        keys.into_iter().filter_map(told).collect()
    }

    /// Takes what another process told it let through, so long ago: what was full all the while has filled again since.
    pub fn hear(&self, used: Used, rate: Rate, age: Duration, now: Instant) {
        if !(used.amount.is_finite() && used.amount > 0.0) {
            return;
        }
        self.change(used.key, rate, now, |bucket| {
            let refilled = if bucket.tokens < rate.size { 0.0 } else { rate.refill * age.as_secs_f64() };
            let left = (bucket.tokens - used.amount + refilled).min(rate.size);
            bucket.tokens = left.max(-MOST_DEBT * rate.size);
        });
    }

    fn change<R>(&self, key: Key, rate: Rate, now: Instant, change: impl FnOnce(&mut Bucket) -> R) -> R {
        let new = || Bucket { rate, tokens: rate.size, at: now, untold: 0.0, is_telling: false };
        let worth = |bucket: &Bucket| bucket.rate.size - bucket.filled(now);
        self.buckets.change(key, new, worth, |bucket| {
            bucket.rate = rate;
            bucket.tokens = bucket.filled(now);
            // Two threads may have looked at the clock in another order than they came here.
            bucket.at = bucket.at.max(now);
            change(bucket)
        })
    }
}

impl Bucket {
    fn filled(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.rate.refill.mul_add(since, self.tokens).min(self.rate.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: Key = Key { kind: 1, id: 7 };
    const RATE: Rate = Rate { size: 10.0, refill: 2.0 };

    /// A process that begins hears at once what others have let through for a while.
    #[test]
    fn what_is_heard_late_has_filled_again() {
        let (buckets, now) = (Buckets::new(100), Instant::now());
        let used = Used { key: KEY, amount: 2.0 };
        for seconds in (1..=15).rev() {
            buckets.hear(used, RATE, Duration::from_secs(seconds), now);
        }
        assert!((0..10).all(|_| buckets.take(KEY, RATE, now).is_ok()), "it is full");
        assert!(buckets.take(KEY, RATE, now).is_err());
        buckets.hear(used, RATE, Duration::from_secs(15), now);
        let wait = buckets.take(KEY, RATE, now).unwrap_err();
        assert!(wait > Duration::from_secs(1), "what is not full counts all of it: {wait:?}");
    }

    #[test]
    fn a_bucket_empties_and_fills() {
        let (buckets, now) = (Buckets::new(100), Instant::now());
        let at = |seconds: f64| now + Duration::from_secs_f64(seconds);
        assert!((0..10).all(|_| buckets.take(KEY, RATE, now).is_ok()));
        assert_eq!(buckets.take(KEY, RATE, now), Err(Duration::from_millis(500)));
        assert_eq!(buckets.take(KEY, RATE, at(0.25)), Err(Duration::from_millis(250)));
        assert!(buckets.take(Key { id: 8, ..KEY }, RATE, now).is_ok(), "another's is another");
        assert!(buckets.take(KEY, RATE, at(0.5)).is_ok());
        assert!(buckets.take(KEY, RATE, at(0.5)).is_err());
        assert!((0..10).all(|_| buckets.take(KEY, RATE, at(60.0)).is_ok()));
        assert!(buckets.take(KEY, RATE, at(60.0)).is_err(), "it holds no more than it holds");
    }

    #[test]
    fn what_others_let_through_is_taken_too() {
        let (one, other, now) = (Buckets::new(100), Buckets::new(100), Instant::now());
        assert!((0..10).all(|_| one.take(KEY, RATE, now).is_ok()));
        let told = one.used();
        assert_eq!(told, [Used { key: KEY, amount: 10.0 }]);
        assert_eq!(one.used(), [], "it is told once");
        for used in told {
            other.hear(used, RATE, Duration::ZERO, now);
        }
        assert!(other.take(KEY, RATE, now).is_err());
        assert!(other.take(KEY, RATE, now + Duration::from_millis(500)).is_ok());
        for amount in [f64::NAN, f64::INFINITY, -5.0] {
            other.hear(Used { key: KEY, amount }, RATE, Duration::ZERO, now);
        }
        other.hear(Used { key: KEY, amount: 1e9 }, RATE, Duration::ZERO, now);
        assert!(other.take(KEY, RATE, now + Duration::from_secs(30)).is_ok(), "a debt has an end");
    }

    /// H10: the total is one process's, but for what each lets through before it hears of the others.
    #[test]
    fn security_h10_several_processes_let_through_what_one_would() {
        let now = Instant::now();
        for processes in [1, 2, 5] {
            let all: Vec<Buckets> = (0..processes).map(|_| Buckets::new(100)).collect();
            let mut let_through = 0.0;
            // Two minutes of 100 requests a second, told every second.
            for tick in 0..12_000_u32 {
                let at = now + Duration::from_millis(u64::from(tick) * 10);
                if all[tick as usize % all.len()].take(KEY, RATE, at).is_ok() {
                    let_through += 1.0;
                }
                if tick % 100 == 99 {
                    let told: Vec<Vec<Used>> = all.iter().map(Buckets::used).collect();
                    for (number, bucket) in all.iter().enumerate() {
                        let others = told.iter().enumerate().filter(|(other, _)| *other != number);
                        for used in others.flat_map(|(_, used)| used) {
                            bucket.hear(*used, RATE, Duration::ZERO, at);
                        }
                    }
                }
            }
            let fair = RATE.size + RATE.refill * 120.0;
            assert!(let_through <= fair * 1.1, "{processes}: {let_through} of {fair}");
            assert!(let_through >= fair * 0.5, "{processes}: {let_through} of {fair}");
        }
    }

    proptest! {
        #[test]
        fn no_bucket_gives_more_than_it_has(gaps in prop::collection::vec(0u64..2000, 1..200)) {
            let (buckets, mut now) = (Buckets::new(100), Instant::now());
            let (begun, mut taken) = (now, 0.0);
            for gap in gaps {
                now += Duration::from_millis(gap);
                taken += if buckets.take(KEY, RATE, now).is_ok() { 1.0 } else { 0.0 };
                prop_assert!(taken <= RATE.size + RATE.refill * (now - begun).as_secs_f64() + 1e-6);
            }
        }
    }

    #[test]
    #[ignore = "it measures"]
    fn rates_speed() {
        let (buckets, now) = (Buckets::new(32_768), Instant::now());
        let rate = Rate { size: 1e9, refill: 1.0 };
        let rounds: u32 = 2_000_000;
        for number in 0..rounds {
            let _ = buckets.take(Key { kind: 1, id: u128::from(number % 10_000) }, rate, now);
        }
        println!("{:.1} ns a request", now.elapsed().as_secs_f64() * 1e9 / f64::from(rounds));
    }
}
