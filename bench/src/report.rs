//! The table, and all that was measured as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{Answered, CONNECTIONS, Transacted};
use crate::run::{Known, Line, Measured, Options};

pub struct Report<'a> {
    pub options: &'a Options,
    /// The share of the processors that others used before the run.
    pub busy: f64,
    /// PostgreSQL's version.
    pub server: String,
    pub lines: Vec<Line>,
    pub known: Vec<Known>,
}

pub fn print(report: &Report) {
    println!("\n{}", report.server);
    println!(
        "{} processors, {CONNECTIONS} connections, {} s for each; others used {:.0} % of the processors before the run",
        processors(),
        report.options.seconds,
        100.0 * report.busy,
    );
    println!(
        "\n{:<15} {:<9} {:>9} {:>7} {:>7} {:>9} {:>8} {:>6}   {:>7} {:>11} {:>10}   {:>6} {:>6}",
        "", "", "requests", "p50", "p99", "p99@80%", "pgbench", "of it", "node", "database", "(pgbench)", "PSS", "RSS"
    );
    println!(
        "{:<15} {:<9} {:>9} {:>7} {:>7} {:>9} {:>8} {:>6}   {:>7} {:>11} {:>10}   {:>6} {:>6}",
        "", "", "/s", "ms", "ms", "ms", "/s", "", "µs/req", "µs/req", "µs/tx", "MB", "MB"
    );
    for line in &report.lines {
        match line.middle() {
            Some(measured) => row(line, measured),
            None => println!("{:<15} {:<9}    FAILED", line.case, line.subject),
        }
    }
    println!();
    for known in &report.known {
        print_known(known);
    }
}

fn row(line: &Line, measured: &Measured) {
    let Answered { rate, p50_ms, p99_ms, .. } = &measured.answered;
    println!(
        "{:<15} {:<9} {rate:>9.0} {p50_ms:>7.2} {p99_ms:>7.2} {:>9.2} {:>8.0} {:>5.0}%   {:>7.1} {:>11.1} {:>10.1}   {:>6.0} {:>6.0}",
        line.case,
        line.subject,
        measured.paced.p99_ms,
        measured.ceiling.rate(),
        100.0 * measured.ratio(),
        microseconds(measured.node),
        microseconds(measured.database),
        microseconds(measured.ceiling.database),
        measured.memory.pss(),
        measured.memory.rss(),
    );
}

fn print_known(known: &Known) {
    let health = known.health.as_ref().map_or_else(
        || "GET /health FAILED".to_owned(),
        |health| format!("GET /health {:.0}/s, p99 {:.2} ms", health.rate, health.p99_ms),
    );
    println!(
        "{:<9} first answer after {:.2} s on what is there; idle PSS {:.0} MB (node {:.0}, engine {:.0}), RSS {:.0} MB; {health}",
        known.subject,
        known.start().as_secs_f64(),
        known.idle.pss(),
        known.idle.node.pss,
        known.idle.engine.pss,
        known.idle.rss(),
    );
}

pub fn json(report: &Report) -> Value {
    let lines = report.lines.iter().map(|line| {
        json!({ "case": line.case, "subject": line.subject, "rounds": line.rounds.iter().map(round).collect::<Vec<_>>() })
    });
    let known = report.known.iter().map(|known| {
        json!({
            "subject": known.subject, "idle": known.idle.json(), "health": known.health.as_ref().map(answered),
            "start_seconds": known.starts.iter().map(Duration::as_secs_f64).collect::<Vec<_>>(),
        })
    });
    json!({
        "server": report.server, "processors": processors(), "busy_before": report.busy, "connections": CONNECTIONS,
        "seconds": report.options.seconds, "warm_up_seconds": report.options.warm_up,
        "cases": lines.collect::<Vec<_>>(), "subjects": known.collect::<Vec<_>>(),
    })
}

fn round(measured: &Measured) -> Value {
    json!({
        "wrk": answered(&measured.answered), "paced": answered(&measured.paced), "ratio": measured.ratio(), "memory": measured.memory.json(),
        "node_us": microseconds(measured.node), "database_us": microseconds(measured.database),
        "pgbench": measured.ceiling.transacted.iter().map(transacted).collect::<Vec<_>>(),
        "pgbench_database_us": microseconds(measured.ceiling.database), "pgbench_script": measured.ceiling.script,
    })
}

pub fn answered(answered: &Answered) -> Value {
    let Answered { requests, rate, p50_ms, p99_ms, raw } = answered;
    json!({ "requests": requests, "requests_per_second": rate, "p50_ms": p50_ms, "p99_ms": p99_ms, "said": raw })
}

fn transacted(transacted: &Transacted) -> Value {
    let Transacted { clients, transactions, rate, raw } = transacted;
    json!({ "clients": clients, "transactions": transactions, "transactions_per_second": rate, "said": raw })
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(0, std::num::NonZero::get)
}
