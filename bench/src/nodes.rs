//! `cargo xtask bench nodes`: requests a second through the balancer, with one, two and three nodes behind it, each of which has a small part
//! of a processor, as small machines have. README.md says how to read it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ntier_tests::node::Node;
use serde_json::json;
use tempfile::TempDir;

use crate::case::BY_KEY;
use crate::load::{self, Answered, Load, Wrk};
use crate::measure;
use crate::run::Options;
use crate::share::Share;
use crate::subject::{Subject, project};

/// At most.
const NODES: usize = 3;
/// Of one processor, for each node.
const PERCENT: u32 = 10;
const CONNECTIONS: u32 = 64;

/// One more node on the database of the first.
struct Another {
    node: Node,
    _folder: TempDir,
}

pub fn nodes(options: &Options) -> Result<(), String> {
    load::are_installed(&options.binary)?;
    let busy = measure::busy()?;
    let server = ntier_tests::postgres::start("");
    server.sql("postgres", "create database bench");
    let shares = (0..NODES).map(|number| Share::make(&number.to_string(), PERCENT)).collect::<Result<Vec<_>, _>>()?;
    let proxy = ["--trusted-proxy", "127.0.0.1"];
    let first = Subject::start_project("first", &options.binary, Some(server.url("bench")), &project(), &proxy)?;
    let others = (1..NODES)
        .map(|_| another(&options.binary, &server.url("bench"), &first.vault()?))
        .collect::<Result<Vec<_>, _>>()?;
    let all: Vec<&Node> = std::iter::once(&first.node).chain(others.iter().map(|other| &other.node)).collect();
    for (node, share) in all.iter().zip(&shares) {
        share.hold(node.process())?;
    }
    println!("all nodes, to warm up …");
    measure(options, &first, &all)?;
    let mut measured = Vec::new();
    for count in 1..=NODES {
        let mut rounds = Vec::new();
        for round in 1..=options.rounds {
            println!("{count} of {NODES} nodes … {round} of {}", options.rounds);
            rounds.push(measure(options, &first, &all[..count])?);
        }
        rounds.sort_by(|one, other| one.rate.total_cmp(&other.rate));
        measured.push(rounds.swap_remove((rounds.len() - 1) / 2));
    }
    println!("\n{} s for each; others used {:.0} % of the processors before the run", options.seconds, 100.0 * busy);
    println!("GET by key through the balancer, each node has {PERCENT} % of a processor, {CONNECTIONS} connections\n");
    println!("{:>5} {:>10} {:>6} {:>8} {:>8}", "nodes", "requests/s", "ratio", "p50 ms", "p99 ms");
    for (at, Answered { rate, p50_ms, p99_ms, .. }) in measured.iter().enumerate() {
        println!("{:>5} {rate:>10.0} {:>6.2} {p50_ms:>8.2} {p99_ms:>8.2}", at + 1, rate / measured[0].rate);
    }
    if let Some(path) = &options.json {
        let line = |answered: &Answered| json!({ "rate": answered.rate, "p50_ms": answered.p50_ms, "p99_ms": answered.p99_ms });
        let raw = json!({ "percent": PERCENT, "busy_before": busy, "by_nodes": measured.iter().map(line).collect::<Vec<_>>() });
        std::fs::write(path, format!("{raw:#}\n")).map_err(|cause| format!("{}: {cause}", path.display()))?;
    }
    // They end before their control groups.
    drop((first, others));
    drop(shares);
    Ok(())
}

fn another(binary: &Path, url: &str, vault: &str) -> Result<Another, String> {
    let folder = tempfile::tempdir().map_err(|cause| cause.to_string())?;
    let environment = [("NTIER_VAULT_KEY".to_owned(), vault.to_owned())];
    let project = project().to_string_lossy().into_owned();
    let flags = ["--project", &project, "--database-url", url, "--trusted-proxy", "127.0.0.1"];
    let node = Node::start_program_in(&environment, binary, "serve", folder.path(), &flags);
    Ok(Another { node: node.map_err(|said| format!("a node ended: {said}"))?, _folder: folder })
}

fn measure(options: &Options, subject: &Subject, nodes: &[&Node]) -> Result<Answered, String> {
    let folder = tempfile::tempdir().map_err(|cause| cause.to_string())?;
    let backends: Vec<&str> = nodes.iter().map(|node| node.url.trim_start_matches("http://")).collect();
    let mut command = Command::new(&options.binary);
    command.args(["balance", "--balance-listen", "127.0.0.1:0", "--data"]).arg(folder.path());
    command.args(["--balance-backends", &backends.join(",")]);
    let balancer = Node::spawn(command, folder.path()).map_err(|said| format!("the balancer ended: {said}"))?;
    let request = load::request(subject, BY_KEY.method, &format!("/rest/v1{}", BY_KEY.path), "");
    let ask = |seconds| {
        let load = Load {
            script: load::BY_ID,
            request: &request,
            connections: CONNECTIONS,
            seconds,
            pause: Duration::ZERO,
            patience: load::PATIENCE,
        };
        Wrk::start(&balancer.url, &load).and_then(Wrk::end).and_then(load::answered)
    };
    ask(options.warm_up)?;
    ask(options.seconds)
}
