//! Where the time of a request went, as `Server-Timing` says it (W3C Server Timing; PostgREST, "Server-Timing Header").

use std::fmt;
use std::time::{Duration, Instant};

/// A part of answering, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Parse = 1,
    Plan = 2,
    Transaction = 3,
    Response = 4,
}

const NAMES: [&str; 5] = ["jwt", "parse", "plan", "transaction", "response"];

#[derive(Debug)]
pub struct Timing {
    took: [Duration; NAMES.len()],
    last: Instant,
}

impl Timing {
    /// `identified`: how long it took to know who asks.
    pub fn begin(identified: Duration) -> Self {
        let mut took = [Duration::ZERO; NAMES.len()];
        took[0] = identified;
        Self { took, last: Instant::now() }
    }

    /// What was done since the last stage ended belongs to this one.
    pub fn ends(&mut self, stage: Stage) {
        let now = Instant::now();
        self.took[stage as usize] = now - self.last;
        self.last = now;
    }
}

/// In milliseconds.
impl fmt::Display for Timing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, took)) in NAMES.iter().zip(self.took).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(out, "{comma}{name};dur={:.1}", took.as_secs_f64() * 1000.0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_in_milliseconds() {
        let mut timing = Timing::begin(Duration::from_micros(1260));
        timing.took[Stage::Transaction as usize] = Duration::from_millis(20);
        let expected = "jwt;dur=1.3, parse;dur=0.0, plan;dur=0.0, transaction;dur=20.0, response;dur=0.0";
        assert_eq!(timing.to_string(), expected);
    }
}
