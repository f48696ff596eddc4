//! `cargo xtask bench balance`: the balancer beside `HAProxy` and nginx, before the same two origins, by HTTP/1.1 with connections that
//! stay. README.md says how to read it.

mod proxies;

use std::time::Duration;

use ntier_tests::world::agent;
use serde_json::{Value, json};

use crate::load::{self, Answered, Load, Wrk};
use crate::measure;
use crate::run::Options;
use proxies::{Kind, Origins, Proxy};

/// Connections that ask at once.
const CONNECTIONS: [u32; 2] = [64, 512];
/// What an origin answers.
const ANSWER: &str = r#"[{"id":1,"name":"hello","price":"12.50","details":{"colour":"red"}}]"#;

/// One proxy with so many connections, in each round.
struct Line {
    kind: Kind,
    connections: u32,
    rounds: Vec<Measured>,
}

#[derive(Debug, Clone)]
struct Measured {
    answered: Answered,
    /// Resident, of all its processes, at the end.
    memory_mb: f64,
    /// Processor time for each request.
    processor: Duration,
}

impl Line {
    /// The round whose rate is in the middle; the lower one where there are two.
    fn middle(&self) -> Option<&Measured> {
        let mut rounds: Vec<_> = self.rounds.iter().collect();
        rounds.sort_by(|one, other| one.answered.rate.total_cmp(&other.answered.rate));
        rounds.get(rounds.len().saturating_sub(1) / 2).copied()
    }
}

pub fn balance(options: &Options) -> Result<(), String> {
    proxies::are_installed(&options.binary)?;
    let busy = measure::busy()?;
    let origins = Origins::start(ANSWER)?;
    let mut lines = Vec::new();
    for connections in CONNECTIONS {
        let mut these: Vec<Line> =
            Kind::ALL.map(|kind| Line { kind, connections, rounds: Vec::new() }).into_iter().collect();
        for round in 1..=options.rounds {
            // One after the other in each round, so that whatever else the machine does meets all of them.
            for line in &mut these {
                if !line.kind.name().contains(&options.only) {
                    continue;
                }
                println!("{}, {connections} connections … {round} of {}", line.kind.name(), options.rounds);
                line.rounds.push(measure(options, line.kind, &origins, connections)?);
            }
        }
        lines.extend(these);
    }
    print(options, busy, &lines);
    if let Some(path) = &options.json {
        let raw = format!("{:#}\n", raw(options, busy, &lines));
        std::fs::write(path, raw).map_err(|cause| format!("{}: {cause}", path.display()))?;
    }
    Ok(())
}

fn measure(options: &Options, kind: Kind, origins: &Origins, connections: u32) -> Result<Measured, String> {
    let proxy = Proxy::start(kind, &options.binary, origins)?;
    let mut found = agent().get(&proxy.url).call().map_err(|cause| format!("{}: {cause}", kind.name()))?;
    if found.body_mut().read_to_string().map_err(|cause| cause.to_string())? != ANSWER {
        return Err(format!("{} does not pass on what the origin answers", kind.name()));
    }
    let request = ["GET".to_owned(), "/".to_owned(), String::new()];
    let ask = |seconds| {
        let load = Load {
            script: "",
            request: &request,
            connections,
            seconds,
            pause: Duration::ZERO,
            patience: load::PATIENCE,
        };
        let asked = Wrk::start(&proxy.url, &load).and_then(Wrk::end);
        asked.and_then(load::answered).map_err(|fault| format!("{}: {fault}", kind.name()))
    };
    ask(options.warm_up)?;
    let before = proxy.processor_time();
    let answered = ask(options.seconds)?;
    let processor = (proxy.processor_time().saturating_sub(before)).div_f64(answered.requests.max(1.0));
    Ok(Measured { answered, memory_mb: proxy.memory_mb()?, processor })
}

/// The better of the others, with so many connections.
fn best(lines: &[Line], connections: u32) -> Option<&Measured> {
    let others = lines.iter().filter(|line| line.kind != Kind::Ours && line.connections == connections);
    others.filter_map(Line::middle).max_by(|one, other| one.answered.rate.total_cmp(&other.answered.rate))
}

fn print(options: &Options, busy: f64, lines: &[Line]) {
    println!("\n{} s for each; others used {:.0} % of the processors before the run", options.seconds, 100.0 * busy);
    println!(
        "\n{:<9} {:>11} {:>10} {:>6} {:>8} {:>8} {:>8} {:>10}   ratio: beside the better of HAProxy and nginx",
        "", "connections", "requests/s", "ratio", "p50 ms", "p99 ms", "MB", "µs/request"
    );
    for line in lines {
        let Some(middle) = line.middle() else { continue };
        let ratio = best(lines, line.connections)
            .map_or_else(String::new, |best| format!("{:.0}%", 100.0 * middle.answered.rate / best.answered.rate));
        let Answered { rate, p50_ms, p99_ms, .. } = middle.answered;
        println!(
            "{:<9} {:>11} {rate:>10.0} {ratio:>6} {p50_ms:>8.2} {p99_ms:>8.2} {:>8.1} {:>10.1}",
            line.kind.name(),
            line.connections,
            middle.memory_mb,
            middle.processor.as_secs_f64() * 1e6,
        );
    }
}

fn raw(options: &Options, busy: f64, lines: &[Line]) -> Value {
    let round = |measured: &Measured| {
        json!({
            "rate": measured.answered.rate, "p50_ms": measured.answered.p50_ms, "p99_ms": measured.answered.p99_ms,
            "memory_mb": measured.memory_mb, "processor_us": measured.processor.as_secs_f64() * 1e6,
        })
    };
    let lines = lines.iter().map(|line| {
        json!({
            "proxy": line.kind.name(), "connections": line.connections,
            "rounds": line.rounds.iter().map(round).collect::<Vec<_>>(),
        })
    });
    json!({
        "busy_before": busy, "seconds": options.seconds, "warm_up_seconds": options.warm_up,
        "lines": lines.collect::<Vec<_>>(),
    })
}
