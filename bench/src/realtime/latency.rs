//! How long it took: all times are kept, and looked at in the end.

use serde_json::{Value, json};

/// In milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
}

impl Latency {
    /// Of times in microseconds.
    pub fn of(mut times: Vec<u32>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let micros = times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
            f64::from(micros.copied().unwrap_or_default()) / 1000.0
        };
        Self { p50: at(50), p99: at(99) }
    }

    pub fn json(self) -> Value {
        json!({ "p50_ms": self.p50, "p99_ms": self.p99 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_are_not_longer() {
        assert_eq!(Latency::of((1..=1000).rev().collect()), Latency { p50: 0.501, p99: 0.991 });
        assert_eq!(Latency::of(vec![7]), Latency { p50: 0.007, p99: 0.007 });
        assert_eq!(Latency::of(Vec::new()), Latency::default());
    }
}
