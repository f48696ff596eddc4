//! One run: both nodes are started, and each case is measured beside its ceiling, one after the other. A case that fails is told at
//! the end, and the run has failed; the others are measured all the same.

use std::path::PathBuf;
use std::time::Duration;

use ntier_tests::postgres::Postgres;

use crate::case::{self, Case};
use crate::ceiling;
use crate::load::{self, Answered, CLIENTS, Transacted};
use crate::measure::{self, GroupMemory};
use crate::report::{self, Report};
use crate::subject::Subject;

pub struct Options {
    pub binary: PathBuf,
    /// For each measurement, and before each.
    pub seconds: u32,
    pub warm_up: u32,
    pub rounds: u32,
    pub only: String,
    pub json: Option<PathBuf>,
    /// To see whether it works.
    pub is_quick: bool,
}

/// One case on one subject, once for each round.
pub struct Line {
    pub case: &'static str,
    pub subject: &'static str,
    pub rounds: Vec<Measured>,
}

#[derive(Debug, Clone)]
pub struct Measured {
    pub answered: Answered,
    /// At four fifths of that rate.
    pub paced: Answered,
    /// Processor time for each request.
    pub node: Duration,
    pub database: Duration,
    /// At the end.
    pub memory: GroupMemory,
    pub ceiling: Ceiling,
}

/// pgbench with the statements of the case, measured just before it.
#[derive(Debug, Clone)]
pub struct Ceiling {
    /// The fastest first.
    pub transacted: Vec<Transacted>,
    /// Processor time for each transaction of the fastest.
    pub database: Duration,
    pub script: String,
}

impl Measured {
    pub fn ratio(&self) -> f64 {
        self.answered.rate / self.ceiling.rate()
    }
}

impl Ceiling {
    pub fn rate(&self) -> f64 {
        self.transacted.first().map_or(f64::NAN, |best| best.rate)
    }
}

impl Line {
    /// The round whose ratio is in the middle; the lower one where there are two.
    pub fn middle(&self) -> Option<&Measured> {
        let mut rounds: Vec<_> = self.rounds.iter().collect();
        rounds.sort_by(|one, other| one.ratio().total_cmp(&other.ratio()));
        rounds.get(rounds.len().saturating_sub(1) / 2).copied()
    }
}

/// What is known of a subject beside its cases.
pub struct Known {
    pub subject: &'static str,
    /// Shortest first.
    pub starts: Vec<Duration>,
    pub idle: GroupMemory,
    pub health: Option<Answered>,
}

impl Known {
    /// The middle one.
    pub fn start(&self) -> Duration {
        self.starts.get(self.starts.len() / 2).copied().unwrap_or_default()
    }
}

pub fn rest(options: &Options) -> Result<(), String> {
    load::are_installed(&options.binary)?;
    let cases = case::chosen(&options.only)?;
    let busy = measure::busy()?;
    let server = ntier_tests::postgres::start("");
    server.sql("postgres", "create database bench");
    let mut subjects = [
        Subject::start("server", &options.binary, Some(server.url("bench")))?,
        Subject::start("embedded", &options.binary, None)?,
    ];
    let mut known = Vec::new();
    for subject in &mut subjects {
        known.push(Known {
            subject: subject.name,
            starts: measure::starts(subject, &case::BY_KEY, 5)?,
            idle: GroupMemory::of(&subject.node)?,
            health: None,
        });
    }
    let (mut lines, mut faults) = (Vec::new(), Vec::new());
    for case in cases {
        measure_case(options, &server, &subjects, case, &mut lines, &mut faults);
    }
    for (subject, known) in subjects.iter().zip(&mut known) {
        known.health = load::health(subject, options.seconds).map_err(|fault| faults.push(fault)).ok();
    }
    let report = Report { options, busy, server: server.sql("bench", "select version()"), lines, known };
    report::print(&report);
    if let Some(path) = &options.json {
        let raw = format!("{:#}\n", report::json(&report));
        std::fs::write(path, raw).map_err(|cause| format!("{}: {cause}", path.display()))?;
    }
    if faults.is_empty() { Ok(()) } else { Err(format!("\nFAILED\n{}", faults.join("\n"))) }
}

fn measure_case(
    options: &Options,
    server: &Postgres,
    subjects: &[Subject],
    case: &Case,
    lines: &mut Vec<Line>,
    faults: &mut Vec<String>,
) {
    let first = lines.len();
    lines.extend(subjects.iter().map(|subject| Line { case: case.name, subject: subject.name, rounds: Vec::new() }));
    for round in 1..=options.rounds {
        println!("{} … {round} of {}", case.name, options.rounds);
        let ceiling = match measure_ceiling(options, server, &subjects[0], case) {
            Ok(ceiling) => ceiling,
            Err(fault) => {
                faults.push(fault);
                continue;
            }
        };
        for (line, subject) in lines[first..].iter_mut().zip(subjects) {
            match measure(options, server, subject, case, &ceiling) {
                Ok(measured) => line.rounds.push(measured),
                Err(fault) => faults.push(fault),
            }
        }
    }
}

fn measure_ceiling(options: &Options, server: &Postgres, subject: &Subject, case: &Case) -> Result<Ceiling, String> {
    let script = ceiling::script(server, subject, case)?;
    let database = postmaster(server)?;
    let mut all = Vec::new();
    let url = server.url("bench");
    load::pgbench(&url, &script, CLIENTS[0], options.warm_up)?;
    for clients in CLIENTS {
        let before = measure::processor_time(database);
        let transacted = load::pgbench(&url, &script, clients, options.seconds)?;
        let time = measure::processor_time(database).saturating_sub(before);
        all.push((per(time, transacted.transactions), transacted));
    }
    all.sort_by(|(_, one), (_, other)| other.rate.total_cmp(&one.rate));
    let database = all.first().map_or(Duration::ZERO, |(database, _)| *database);
    Ok(Ceiling { transacted: all.into_iter().map(|(_, transacted)| transacted).collect(), database, script })
}

fn measure(
    options: &Options,
    server: &Postgres,
    subject: &Subject,
    case: &Case,
    ceiling: &Ceiling,
) -> Result<Measured, String> {
    subject.ask(case, "17")?;
    load::wrk(subject, case, options.warm_up)?;
    let node = subject.node.process();
    let engine = subject.node.engine();
    let database = engine.map_or_else(|| postmaster(server), Ok)?;
    let times = || {
        let below = engine.map_or(Duration::ZERO, measure::processor_time);
        (measure::processor_time(node).saturating_sub(below), measure::processor_time(database))
    };
    let before = times();
    let answered = load::wrk(subject, case, options.seconds)?;
    let after = times();
    let paced = load::paced(subject, case, options.seconds, answered.rate * 0.8)?;
    Ok(Measured {
        node: per(after.0.saturating_sub(before.0), answered.requests),
        database: per(after.1.saturating_sub(before.1), answered.requests),
        memory: GroupMemory::of(&subject.node)?,
        answered,
        paced,
        ceiling: ceiling.clone(),
    })
}

fn per(time: Duration, count: f64) -> Duration {
    if count < 1.0 { Duration::ZERO } else { time.div_f64(count) }
}

fn postmaster(server: &Postgres) -> Result<u32, String> {
    let path = server.directory.join("data/postmaster.pid");
    let text = std::fs::read_to_string(&path).map_err(|cause| format!("{}: {cause}", path.display()))?;
    let first = text.lines().next().and_then(|line| line.trim().parse().ok());
    first.ok_or_else(|| format!("{} names no process", path.display()))
}
