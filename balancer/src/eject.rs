//! When a backend that fails requests is left alone, and for how long.

use std::time::Duration;

use crate::settings::Ejection;

/// What is known when a request has failed.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// In a row, with this one.
    pub failures: u32,
    /// Times that it was ejected before, without having done well since.
    pub times: u32,
    /// Backends that are ejected now.
    pub ejected: usize,
    /// Others that may be asked: neither ejected nor down.
    pub others: usize,
    pub all: usize,
}

/// How long it is left alone; `None` where it goes on.
pub fn decide(facts: &Facts, policy: &Ejection) -> Option<Duration> {
    // The last one is better than none.
    if policy.failures == 0 || facts.failures < policy.failures || facts.others == 0 {
        return None;
    }
    let share = usize::try_from(policy.share).unwrap_or(100);
    if (facts.ejected + 1) * 100 > facts.all * share {
        return None;
    }
    let doubled = policy.first.saturating_mul(1 << facts.times.min(16));
    Some(doubled.min(policy.longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_failures_in_a_row_and_never_too_many_backends() {
        let policy =
            Ejection { failures: 3, first: Duration::from_secs(5), longest: Duration::from_secs(30), share: 50 };
        for (failures, times, ejected, others, all, expected) in [
            (2, 0, 0, 3, 4, None),
            (3, 0, 0, 3, 4, Some(5)),
            (3, 1, 0, 3, 4, Some(10)),
            (3, 2, 1, 2, 4, Some(20)),
            (9, 3, 1, 2, 4, Some(30)),
            (9, 99, 1, 2, 4, Some(30)),
            (3, 0, 2, 1, 4, None),
            (3, 0, 0, 1, 2, Some(5)),
            (3, 0, 1, 0, 2, None),
            (3, 0, 0, 0, 1, None),
            // Others are down.
            (3, 0, 0, 1, 4, Some(5)),
            (3, 0, 0, 0, 4, None),
            (3, 0, 1, 0, 4, None),
        ] {
            let facts = Facts { failures, times, ejected, others, all };
            assert_eq!(decide(&facts, &policy).map(|time| time.as_secs()), expected, "{facts:?}");
        }
        let off = Ejection { failures: 0, ..policy };
        assert_eq!(decide(&Facts { failures: 99, times: 0, ejected: 0, others: 8, all: 9 }, &off), None);
    }
}
