//! `cargo xtask bench realtime`: broadcasts to many clients, the memory of those that are quiet, changes of tables to a thousand
//! subscribers, and what the publication of a table costs whoever writes to it. README.md says how to read it.

mod broadcast;
mod changes;
mod idle;
mod latency;
mod swarm;
mod trigger;

use std::path::Path;

use ntier_tests::postgres::Postgres;
use serde_json::{Value, json};

use crate::load;
use crate::measure;
use crate::run::Options;
use crate::subject::Subject;
use broadcast::Talk;
use changes::Fed;
use idle::Idle;
use trigger::Cost;

/// Clients of one channel.
const CROWDS: [usize; 2] = [100, 1000];
/// Identities of the subscribers.
const IDENTITIES: [usize; 3] = [1, 100, 1000];

/// One thing on one subject, once for each round.
struct Line<T> {
    name: String,
    subject: &'static str,
    rounds: Vec<T>,
}

impl<T> Line<T> {
    /// The round whose rate is in the middle; the lower one where there are two.
    fn middle(&self, rate: impl Fn(&T) -> f64) -> Option<&T> {
        let mut rounds: Vec<_> = self.rounds.iter().collect();
        rounds.sort_by(|one, other| rate(one).total_cmp(&rate(other)));
        rounds.get(rounds.len().saturating_sub(1) / 2).copied()
    }
}

#[derive(Default)]
struct Measured {
    talks: Vec<Line<Talk>>,
    idle: Vec<Idle>,
    fed: Vec<Line<Fed>>,
    costs: Vec<Cost>,
    faults: Vec<String>,
}

pub fn realtime(options: &Options) -> Result<(), String> {
    load::are_installed(&options.binary)?;
    swarm::raise_limit()?;
    let busy = measure::busy()?;
    let server = ntier_tests::postgres::start("");
    server.sql("postgres", "create database bench");
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("realtime");
    let start = |name, url| Subject::start_project(name, &options.binary, url, &project, &[]);
    let mut subjects = [start("server", Some(server.url("bench")))?, start("embedded", None)?];
    let mut measured = Measured::default();
    for subject in &mut subjects {
        measure_subject(options, subject, &mut measured);
    }
    measure_costs(options, &subjects, &mut measured);
    print(options, &server, busy, &measured);
    if let Some(path) = &options.json {
        let raw = format!("{:#}\n", raw(options, busy, &measured));
        std::fs::write(path, raw).map_err(|cause| format!("{}: {cause}", path.display()))?;
    }
    if measured.faults.is_empty() { Ok(()) } else { Err(format!("\nFAILED\n{}", measured.faults.join("\n"))) }
}

fn measure_subject(options: &Options, subject: &mut Subject, measured: &mut Measured) {
    for clients in CROWDS {
        let name = format!("broadcast to {clients}");
        if name.contains(&options.only) {
            let line =
                in_rounds(options, name, subject, &mut measured.faults, || broadcast::talk(options, subject, clients));
            measured.talks.push(line);
        }
    }
    if "memory".contains(&options.only) {
        println!("memory of {} …", subject.name);
        match idle::idle(subject, options.is_quick) {
            Ok(idle) => measured.idle.push(idle),
            Err(fault) => measured.faults.push(format!("memory of {}: {fault}", subject.name)),
        }
    }
    for identities in IDENTITIES {
        let name = format!("changes to {identities}");
        if name.contains(&options.only) {
            let line =
                in_rounds(options, name, subject, &mut measured.faults, || changes::feed(options, subject, identities));
            measured.fed.push(line);
        }
    }
}

fn in_rounds<T>(
    options: &Options,
    name: String,
    subject: &Subject,
    faults: &mut Vec<String>,
    measure: impl Fn() -> Result<T, String>,
) -> Line<T> {
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        println!("{name} on {} … {round} of {}", subject.name, options.rounds);
        match measure() {
            Ok(one) => rounds.push(one),
            Err(fault) => faults.push(format!("{name} on {}: {fault}", subject.name)),
        }
    }
    Line { name, subject: subject.name, rounds }
}

fn measure_costs(options: &Options, subjects: &[Subject], measured: &mut Measured) {
    if !"trigger".contains(&options.only) {
        return;
    }
    println!("trigger …");
    let costs = subjects.iter().flat_map(|subject| {
        let by_pgbench = |clients| trigger::by_pgbench(options, subject, clients);
        [by_pgbench(1), by_pgbench(8), trigger::by_requests(options, subject)]
    });
    for cost in costs {
        match cost {
            Ok(cost) => measured.costs.push(cost),
            Err(fault) => measured.faults.push(format!("trigger: {fault}")),
        }
    }
}

fn print(options: &Options, server: &Postgres, busy: f64, measured: &Measured) {
    println!("\n{}", server.sql("bench", "select version()"));
    println!("{} s for each; others used {:.0} % of the processors before the run", options.seconds, 100.0 * busy);
    if !measured.talks.is_empty() {
        println!(
            "\n{:<20} {:<9} {:>10} {:>7} {:>7} {:>6} {:>10} {:>7} {:>7} {:>6} {:>10} {:>7} {:>7} {:>6}   deliveries/s, ms, processor time of the node for each in µs",
            "", "", "most", "p50", "p99", "node", "half", "p50", "p99", "node", "calm", "p50", "p99", "node"
        );
    }
    for line in &measured.talks {
        let Some(Talk { full, half, calm }) = line.middle(|talk| talk.full.rate) else { continue };
        print!("{:<20} {:<9}", line.name, line.subject);
        for seen in [full, half, calm] {
            let latency = seen.latency;
            print!(" {:>10.0} {:>7.2} {:>7.2} {:>6.2}", seen.rate, latency.p50, latency.p99, seen.processor);
        }
        println!();
    }
    for idle in &measured.idle {
        println!(
            "\n{} quiet clients on {}: node {:.1} MB PSS ({:.1} RSS), before {:.1} ({:.1}): {:.1} kB for each",
            idle.clients,
            idle.subject,
            idle.after.node.pss,
            idle.after.node.rss,
            idle.before.node.pss,
            idle.before.node.rss,
            idle.each_kilobytes()
        );
    }
    print_changes(&measured.fed);
    print_costs(&measured.costs);
}

fn print_changes(fed: &[Line<Fed>]) {
    if !fed.is_empty() {
        println!(
            "\n{:<20} {:<9} {:>8} {:>8} {:>8} {:>8} {:>10} {:>8} {:>8}   {} subscribers; ms from insert to each and to all, calm; deliveries/s at most",
            "",
            "",
            "each p50",
            "p99",
            "all p50",
            "p99",
            "most",
            "p50",
            "p99",
            changes::SUBSCRIBERS
        );
    }
    for line in fed {
        let Some(Fed { each, all, rate, full }) = line.middle(|fed| fed.rate) else { continue };
        println!(
            "{:<20} {:<9} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {rate:>10.0} {:>8.1} {:>8.1}",
            line.name, line.subject, each.p50, each.p99, all.p50, all.p99, full.p50, full.p99
        );
    }
}

fn print_costs(costs: &[Cost]) {
    if !costs.is_empty() {
        println!(
            "\n{:<20} {:<9} {:>10} {:>10} {:>8}   inserts/s into a table that is not published and one that is",
            "", "", "without", "with", "costs"
        );
    }
    for cost in costs {
        let Some([(low, _), (more, [without, with]), (high, _)]) = cost.quartiles() else { continue };
        let [low, more, high] = [low, more, high].map(|more| 100.0 * more);
        println!(
            "{:<20} {:<9} {without:>10.0} {with:>10.0} {more:>+7.1}% ({low:+.1} to {high:+.1})",
            cost.name, cost.subject
        );
    }
}

fn raw(options: &Options, busy: f64, measured: &Measured) -> Value {
    let talks = measured.talks.iter().map(|line| {
        let rounds: Vec<_> = line.rounds.iter().map(Talk::json).collect();
        json!({ "case": line.name, "subject": line.subject, "rounds": rounds })
    });
    let fed = measured.fed.iter().map(|line| {
        let rounds: Vec<_> = line.rounds.iter().map(Fed::json).collect();
        json!({ "case": line.name, "subject": line.subject, "rounds": rounds })
    });
    json!({
        "busy_before": busy, "seconds": options.seconds, "warm_up_seconds": options.warm_up,
        "broadcasts": talks.collect::<Vec<_>>(), "changes": fed.collect::<Vec<_>>(),
        "memory": measured.idle.iter().map(Idle::json).collect::<Vec<_>>(),
        "trigger": measured.costs.iter().map(Cost::json).collect::<Vec<_>>(),
        "faults": measured.faults,
    })
}

#[expect(clippy::cast_precision_loss, reason = "what some seconds hold")]
fn count(number: u64) -> f64 {
    number as f64
}
