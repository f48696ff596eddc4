//! `cargo xtask bench balance`: the balancer beside `HAProxy` and nginx, before the same two origins, by HTTP/1.1 with connections that
//! stay, plain and over TLS, and by HTTP/2. README.md says how to read it.

mod h2load;
mod proxies;

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{self, Answered, Load, Wrk};
use crate::measure;
use crate::run::Options;
use proxies::{Certificate, Kind, Origins, Proxy, Transport};

/// How it is asked, on so many connections at once.
const WAYS: [(Transport, u32); 5] = [
    (Transport::Plain, 64),
    (Transport::Plain, 512),
    (Transport::Tls, 64),
    (Transport::Tls, 512),
    (Transport::Http2, 64),
];
/// What an origin answers.
const ANSWER: &str = r#"[{"id":1,"name":"hello","price":"12.50","details":{"colour":"red"}}]"#;

/// One proxy with so many connections, in each round.
struct Line {
    kind: Kind,
    transport: Transport,
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
    let (origins, certificate) = (Origins::start(ANSWER)?, Certificate::make()?);
    let mut lines = Vec::new();
    for (transport, connections) in WAYS.into_iter().filter(|(transport, _)| transport.name().contains(&options.only)) {
        let mut these: Vec<Line> =
            Kind::ALL.map(|kind| Line { kind, transport, connections, rounds: Vec::new() }).into_iter().collect();
        for round in 1..=options.rounds {
            // One after the other in each round, so that whatever else the machine does meets all of them.
            for line in &mut these {
                let (name, way) = (line.kind.name(), transport.name());
                println!("{name}, {way}, {connections} connections … {round} of {}", options.rounds);
                line.rounds.push(measure(options, line, &origins, &certificate)?);
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

fn measure(options: &Options, line: &Line, origins: &Origins, certificate: &Certificate) -> Result<Measured, String> {
    let Line { kind, transport, connections, .. } = *line;
    let proxy = Proxy::start(kind, &options.binary, origins, transport, certificate)?;
    let found = Command::new("curl").args(["-sSk", &proxy.url]).output().map_err(|cause| format!("curl: {cause}"))?;
    if found.stdout != ANSWER.as_bytes() {
        let said = String::from_utf8_lossy(&found.stderr).into_owned();
        return Err(format!("{} does not pass on what the origin answers: {said}", kind.name()));
    }
    let request = ["GET".to_owned(), "/".to_owned(), String::new()];
    let ask = |seconds| {
        if transport == Transport::Http2 {
            return h2load::ask(&proxy.url, connections, seconds).map_err(|fault| format!("{}: {fault}", kind.name()));
        }
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

/// The better of the others, asked likewise.
fn best<'a>(lines: &'a [Line], like: &Line) -> Option<&'a Measured> {
    let is_alike = |line: &&Line| line.transport == like.transport && line.connections == like.connections;
    let others = lines.iter().filter(|line| line.kind != Kind::Ours).filter(is_alike);
    others.filter_map(Line::middle).max_by(|one, other| one.answered.rate.total_cmp(&other.answered.rate))
}

fn print(options: &Options, busy: f64, lines: &[Line]) {
    println!("\n{} s for each; others used {:.0} % of the processors before the run", options.seconds, 100.0 * busy);
    println!(
        "\n{:<9} {:<9} {:>11} {:>10} {:>6} {:>8} {:>8} {:>8} {:>10}   ratio: beside the better of HAProxy and nginx",
        "", "", "connections", "requests/s", "ratio", "p50 ms", "p99 ms", "MB", "µs/request"
    );
    for line in lines {
        let Some(middle) = line.middle() else { continue };
        let ratio = best(lines, line)
            .map_or_else(String::new, |best| format!("{:.0}%", 100.0 * middle.answered.rate / best.answered.rate));
        let Answered { rate, p50_ms, p99_ms, .. } = middle.answered;
        println!(
            "{:<9} {:<9} {:>11} {rate:>10.0} {ratio:>6} {p50_ms:>8.2} {p99_ms:>8.2} {:>8.1} {:>10.1}",
            line.kind.name(),
            line.transport.name(),
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
            "proxy": line.kind.name(), "transport": line.transport.name(), "connections": line.connections,
            "rounds": line.rounds.iter().map(round).collect::<Vec<_>>(),
        })
    });
    json!({
        "busy_before": busy, "seconds": options.seconds, "warm_up_seconds": options.warm_up,
        "lines": lines.collect::<Vec<_>>(),
    })
}
