//! The table, and the same as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use crate::load::Answered;
use crate::measure::Memory;

/// One case on one subject.
pub struct Line {
    pub case: &'static str,
    pub subject: &'static str,
    pub answered: Answered,
    /// Transactions per second of pgbench with the same statements on the server.
    pub ceiling: f64,
    /// At the end of the case.
    pub memory: Memory,
}

impl Line {
    pub fn json(&self) -> Value {
        json!({
            "case": self.case, "subject": self.subject, "requests_per_second": self.answered.rate,
            "p50_ms": self.answered.p50_ms, "p99_ms": self.answered.p99_ms, "pgbench_per_second": self.ceiling,
            "ratio": self.answered.rate / self.ceiling, "node_mb": self.memory.node, "engine_mb": self.memory.engine,
        })
    }
}

/// Name, start time, idle memory, and the rate of requests that need no database.
pub type Round = (((&'static str, Duration), Memory), f64);

pub fn subject_json(round: &Round) -> Value {
    let (((name, start), idle), http) = round;
    json!({
        "subject": name, "start_seconds": start.as_secs_f64(), "idle_node_mb": idle.node, "idle_engine_mb": idle.engine,
        "health_per_second": http,
    })
}

pub fn print(lines: &[Line], rounds: &[Round]) {
    println!(
        "\n{:<16} {:<9} {:>10} {:>8} {:>8} {:>11} {:>6} {:>8}",
        "", "", "requests/s", "p50 ms", "p99 ms", "pgbench tps", "ratio", "MB"
    );
    for line in lines {
        let Answered { rate, p50_ms, p99_ms } = line.answered;
        println!(
            "{:<16} {:<9} {rate:>10.0} {p50_ms:>8.2} {p99_ms:>8.2} {:>11.0} {:>5.0}% {:>8.0}",
            line.case,
            line.subject,
            line.ceiling,
            100.0 * rate / line.ceiling,
            line.memory.node + line.memory.engine,
        );
    }
    println!();
    for (((name, start), idle), http) in rounds {
        println!(
            "{name:<9} first answer after {:.2} s on what is there; idle {:.0} MB (node {:.0}, engine {:.0}); GET /health {http:.0}/s",
            start.as_secs_f64(),
            idle.node + idle.engine,
            idle.node,
            idle.engine,
        );
    }
}
