//! How long a backend takes: an average in which what is recent weighs more, and a peak counts at once (Finagle's peak EWMA).

/// How fast what was is forgotten: after this time it weighs a third.
const DECAY_MS: f32 = 10_000.0;

/// The average and when it was made, in one word, so that threads share it without a lock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ewma {
    /// Microseconds; 0 where nothing was measured yet.
    cost: f32,
    /// Milliseconds since the process began; it wraps.
    stamp: u32,
}

impl Ewma {
    pub const NONE: Self = Self { cost: 0.0, stamp: 0 };

    pub fn to_word(self) -> u64 {
        u64::from(self.cost.to_bits()) << 32 | u64::from(self.stamp)
    }

    pub fn from_word(word: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of a word")]
        let (high, low) = ((word >> 32) as u32, word as u32);
        Self { cost: f32::from_bits(high), stamp: low }
    }

    /// What it is after a request that took so long.
    pub fn observe(self, took_us: u32, now_ms: u32) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "an average needs no more")]
        let took = took_us.max(1) as f32;
        let cost = if took > self.cost {
            took
        } else {
            let kept = self.kept(now_ms);
            self.cost * kept + took * (1.0 - kept)
        };
        Self { cost, stamp: now_ms }
    }

    /// The average by now, in microseconds; `None` where nothing was measured. What is not used is forgiven.
    pub fn cost(self, now_ms: u32) -> Option<f32> {
        (self.cost > 0.0).then(|| self.cost * self.kept(now_ms))
    }

    fn kept(self, now_ms: u32) -> f32 {
        let passed = now_ms.wrapping_sub(self.stamp);
        // Another thread may have been a little later than this one.
        if passed > u32::MAX / 2 {
            return 1.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "likewise")]
        let passed = passed as f32;
        (-passed / DECAY_MS).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let steady = (0..100u32).fold(Ewma::NONE, |ewma, at| ewma.observe(1000, at * 10));
        assert_eq!(steady.cost(990), Some(1000.0));
        let peak = steady.observe(50_000, 1000);
        assert_eq!(peak.cost(1000), Some(50_000.0));
        let later = peak.observe(1000, 1010).cost(1010).unwrap();
        assert!((49_000.0..50_000.0).contains(&later), "{later}");
        let forgiven = peak.cost(1000 + 60_000).unwrap();
        assert!(forgiven < 1000.0, "{forgiven}");
    }

    #[test]
    fn it_goes_through_a_word_and_around_the_clock() {
        let ewma = Ewma::NONE.observe(1234, u32::MAX - 5);
        assert_eq!(Ewma::from_word(ewma.to_word()), ewma);
        assert!(ewma.cost(5).unwrap() > 1230.0);
        assert_eq!(ewma.cost(u32::MAX - 6), Some(1234.0));
        assert_eq!(Ewma::from_word(0).cost(7), None);
    }
}
