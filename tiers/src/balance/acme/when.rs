//! When a certificate is asked for: again after two thirds of its life, and after a while where it was refused. Nothing here looks at
//! the clock or at random numbers.

use std::time::Duration;

/// Seconds since 1970.
type Unix = i64;

/// After a refusal, by how many there were in a row: authorities count them (of Let's Encrypt five in an hour, for a name).
const PAUSES: [Duration; 6] = [
    Duration::from_mins(1),
    Duration::from_mins(10),
    Duration::from_mins(20),
    Duration::from_hours(1),
    Duration::from_hours(3),
    Duration::from_hours(6),
];
/// After the authority was not reached at all: it has counted nothing.
const UNREACHED: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(15), Duration::from_mins(1), Duration::from_mins(5)];

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Unreached,
    Refused,
}

/// When the next one is asked for. `chance`, from 0 to 1, spreads them over a twentieth of the life, so that not all that were issued
/// together are renewed together.
pub fn renewal(not_before: Unix, not_after: Unix, chance: f64) -> Unix {
    let life = Duration::from_secs(u64::try_from(not_after - not_before).unwrap_or(0));
    let after = life.mul_f64((2.0 / 3.0) - chance.clamp(0.0, 1.0) / 20.0);
    not_before.saturating_add(i64::try_from(after.as_secs()).unwrap_or(i64::MAX))
}

/// How long until it is asked for again, once it has failed so many times in a row (one at least). `chance` adds up to a tenth.
pub fn pause(failure: Failure, times: usize, chance: f64) -> Duration {
    let pauses = match failure {
        Failure::Unreached => UNREACHED.as_slice(),
        Failure::Refused => PAUSES.as_slice(),
    };
    let pause = pauses[times.saturating_sub(1).min(pauses.len() - 1)];
    pause.mul_f64(1.0 + chance.clamp(0.0, 1.0) / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life_or_a_little_before() {
        let day = 24 * 3600;
        for (life, chance, expected) in [
            (90 * day, 0.0, 60 * day),
            (90 * day, 1.0, 60 * day - 90 * day / 20),
            (30, 0.0, 20),
            (0, 0.5, 0),
            (-5, 0.5, 0),
        ] {
            let found = renewal(1000, 1000 + life, chance);
            assert!((found - 1000 - expected).abs() <= 1, "{life} {chance}: {found}");
        }
    }

    #[test]
    fn whoever_is_refused_waits_longer_each_time() {
        for failure in [Failure::Unreached, Failure::Refused] {
            let all: Vec<_> = (1..10).map(|times| pause(failure, times, 0.0)).collect();
            assert!(all.is_sorted() && all[0] < all[8], "{all:?}");
            assert_eq!(pause(failure, 0, 0.0), all[0]);
            assert_eq!(pause(failure, 1, 1.0), all[0].mul_f64(1.1));
        }
    }

    #[test]
    fn five_refusals_take_longer_than_an_hour() {
        let hour: Duration = (1..6).map(|times| pause(Failure::Refused, times, 0.0)).sum();
        assert!(hour > Duration::from_hours(1), "{hour:?}");
    }
}
