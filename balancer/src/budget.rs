//! How many requests may go again: a share of all, so that backends in trouble do not get more to do (Finagle's retry budget).

use std::time::{Duration, Instant};

/// What is deposited is kept so long.
const KEPT: Duration = Duration::from_secs(10);
/// Retries in a second that are always allowed: where there are few requests, a share of them is nothing.
const LEAST: f64 = 3.0;

/// Retries before there was a request.
const FIRST: f64 = 10.0;

/// What is left for retries.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// For each request, in retries.
    share: f64,
    left: f64,
    at: Instant,
}

impl Budget {
    /// `percent` of all requests may go again.
    pub fn new(percent: u32, now: Instant) -> Self {
        Self { share: f64::from(percent) / 100.0, left: FIRST, at: now }
    }

    /// From now on another share.
    pub fn set_share(&mut self, percent: u32) {
        self.share = f64::from(percent) / 100.0;
    }

    /// A request has come.
    pub fn deposit(&mut self) {
        self.left += self.share;
    }

    /// Takes one retry, if there is one.
    pub fn withdraw(&mut self, now: Instant) -> bool {
        self.pass(now);
        if self.share == 0.0 || self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }

    /// What is old is forgotten, what is always allowed is added.
    fn pass(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left *= (-passed / KEPT.as_secs_f64()).exp();
        self.left += LEAST * passed.min(KEPT.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retries(budget: &mut Budget, now: Instant) -> u32 {
        (0..10_000).take_while(|_| budget.withdraw(now)).fold(0, |count, _| count + 1)
    }

    #[test]
    fn a_share_of_the_requests_may_go_again() {
        let start = Instant::now();
        let mut budget = Budget::new(20, start);
        assert_eq!(retries(&mut budget, start), 10);
        for _ in 0..1000 {
            budget.deposit();
        }
        assert!((199..=200).contains(&retries(&mut budget, start)));
        assert!(!budget.withdraw(start));
    }

    #[test]
    fn a_few_are_always_allowed_and_a_long_pause_allows_no_flood() {
        let start = Instant::now();
        let mut budget = Budget::new(20, start);
        assert_eq!(retries(&mut budget, start), 10);
        assert_eq!(retries(&mut budget, start + Duration::from_secs(1)), 3);
        assert!(retries(&mut budget, start + Duration::from_hours(1)) <= 30);
    }

    #[test]
    fn what_was_deposited_long_ago_is_forgotten() {
        let start = Instant::now();
        let mut budget = Budget::new(20, start);
        for _ in 0..100_000 {
            budget.deposit();
        }
        assert!(retries(&mut budget, start + Duration::from_mins(2)) <= 31);
    }

    #[test]
    fn without_a_budget_nothing_goes_again() {
        let start = Instant::now();
        let mut budget = Budget::new(0, start);
        assert_eq!(retries(&mut budget, start + Duration::from_hours(1)), 0);
    }
}
