//! `cargo xtask bench auth`: sign-in on a PostgreSQL server and on the embedded database. Sign-ins by password stand beside what bcrypt
//! leaves, refreshes and `GET /user` beside the data API of the same node in the same run; then what others notice of sign-ins at full
//! load, and whether the time of an answer tells who has an account. README.md says how to read it.

mod people;
mod report;
mod timing;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ntier_security::password;
use ntier_tests::mail::take_everything;
use tempfile::TempDir;

use crate::auth::people::{PASSWORD, People};
use crate::auth::report::Report;
use crate::case::{BY_KEY, ONE_ROW};
use crate::load::{self, Answered};
use crate::measure;
use crate::subject::{self, Subject};

pub struct Options {
    pub binary: PathBuf,
    /// For each measurement, and before each.
    pub seconds: u32,
    pub warm_up: u32,
    pub rounds: u32,
    /// Requests of each of two kinds whose times are compared.
    pub requests: usize,
    pub only: String,
    pub json: Option<PathBuf>,
}

/// What is measured, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    SignIn,
    Refresh,
    User,
    Crowd,
    Timing,
}

const PARTS: [(&str, Part); 5] = [
    ("sign-in", Part::SignIn),
    ("refresh", Part::Refresh),
    ("GET /user", Part::User),
    ("crowd", Part::Crowd),
    ("timing", Part::Timing),
];

/// Requests a second of those who are served while others sign in: few, so that nobody waits for the clients themselves.
const CALM: f64 = 1000.0;

/// One thing on one subject, once for each round.
pub struct Line<T> {
    pub name: &'static str,
    pub subject: &'static str,
    pub rounds: Vec<T>,
}

/// Requests to sign-in, and what they are held against.
pub struct Beside {
    pub answered: Answered,
    /// By status.
    pub refused: BTreeMap<u16, u64>,
    pub other: Other,
}

pub enum Other {
    /// The time of one hash on one thread, and how many threads hash at once.
    Bcrypt { hash: Duration, threads: usize },
    /// The data API.
    Data(Answered),
}

/// Calm requests, alone and while as many as can sign in.
pub struct Crowd {
    pub alone: Answered,
    pub beside: Answered,
    pub sign_ins: Answered,
    pub refused: BTreeMap<u16, u64>,
}

impl Beside {
    pub fn ratio(&self) -> f64 {
        self.answered.rate / self.other.rate()
    }
}

impl Other {
    pub fn rate(&self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "few threads")]
            Self::Bcrypt { hash, threads } => *threads as f64 / hash.as_secs_f64(),
            Self::Data(answered) => answered.rate,
        }
    }
}

impl Crowd {
    pub fn ratio(&self) -> f64 {
        self.beside.p99_ms / self.alone.p99_ms
    }
}

impl<T> Line<T> {
    /// The round whose ratio is in the middle; the lower one where there are two.
    pub fn middle(&self, ratio: impl Fn(&T) -> f64) -> Option<&T> {
        let mut rounds: Vec<_> = self.rounds.iter().collect();
        rounds.sort_by(|one, other| ratio(one).total_cmp(&ratio(other)));
        rounds.get(rounds.len().saturating_sub(1) / 2).copied()
    }
}

/// A node, and who signs in there.
struct Place {
    subject: Subject,
    people: People,
}

pub fn auth(options: &Options) -> Result<(), String> {
    load::are_installed(&options.binary)?;
    let parts = chosen(&options.only)?;
    let busy = measure::busy()?;
    let project = project()?;
    let server = ntier_tests::postgres::start("");
    server.sql("postgres", "create database bench");
    let mut places = Vec::new();
    for (name, url) in [("server", Some(server.url("bench"))), ("embedded", None)] {
        println!("people sign up on {name} …");
        // The limits count addresses as a proxy tells them; all the load comes from one.
        let flags = ["--trusted-proxy", "127.0.0.1", "--auth-jwt-expiry", "86400s"];
        let subject = Subject::start_project(name, &options.binary, url, project.path(), &flags)?;
        let people = People::sign_up(&subject)?;
        places.push(Place { subject, people });
    }
    let mut report = Report {
        options,
        busy,
        server: server.sql("bench", "select version()"),
        rates: Vec::new(),
        crowds: Vec::new(),
        times: Vec::new(),
    };
    let mut faults = Vec::new();
    for (name, part) in parts {
        measure_part(options, name, part, &mut places, &mut report, &mut faults);
    }
    report::print(&report);
    if let Some(path) = &options.json {
        let raw = format!("{:#}\n", report::json(&report));
        std::fs::write(path, raw).map_err(|cause| format!("{}: {cause}", path.display()))?;
    }
    if faults.is_empty() { Ok(()) } else { Err(format!("\nFAILED\n{}", faults.join("\n"))) }
}

fn chosen(name: &str) -> Result<Vec<(&'static str, Part)>, String> {
    let wanted = name.to_lowercase();
    let found: Vec<_> = PARTS.into_iter().filter(|(name, _)| name.to_lowercase().contains(&wanted)).collect();
    if found.is_empty() {
        let names: Vec<_> = PARTS.iter().map(|(name, _)| *name).collect();
        return Err(format!("nothing is called {name:?}; there are: {}", names.join(", ")));
    }
    Ok(found)
}

/// The tables of the bench, and people who have to confirm their addresses; their mail is taken and forgotten.
fn project() -> Result<TempDir, String> {
    let project = tempfile::tempdir().map_err(|cause| cause.to_string())?;
    ntier_tests::directory::copy(&subject::project(), project.path());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|cause| cause.to_string())?;
    let port = listener.local_addr().map_err(|cause| cause.to_string())?.port();
    drop(take_everything(listener));
    let config = format!(
        "[auth.email]\nenable_confirmations = true\n[auth.email.smtp]\nhost = \"127.0.0.1\"\nport = {port}\n\
         admin_email = \"no-reply@example.com\"\n[auth.rate_limit]\nemail_sent = 1000000\n"
    );
    let path = project.path().join("supabase/config.toml");
    std::fs::write(&path, config).map_err(|cause| format!("{}: {cause}", path.display()))?;
    Ok(project)
}

fn measure_part(
    options: &Options,
    name: &'static str,
    part: Part,
    places: &mut [Place],
    report: &mut Report,
    faults: &mut Vec<String>,
) {
    if part == Part::Timing {
        for place in places {
            println!("{name} on {} …", place.subject.name);
            match timing::all(&place.subject, options.requests) {
                Ok(compared) => report.times.extend(compared.into_iter().map(|one| (place.subject.name, one))),
                Err(fault) => faults.push(fault),
            }
        }
        return;
    }
    let (rates, crowds) = (report.rates.len(), report.crowds.len());
    for place in &*places {
        let subject = place.subject.name;
        if part == Part::Crowd {
            let names = ["GET /health", BY_KEY.name];
            report.crowds.extend(names.map(|name| Line { name, subject, rounds: Vec::new() }));
        } else {
            report.rates.push(Line { name, subject, rounds: Vec::new() });
        }
    }
    for round in 1..=options.rounds {
        println!("{name} … {round} of {}", options.rounds);
        for (at, place) in places.iter_mut().enumerate() {
            let measured = match part {
                Part::SignIn => sign_in(options, &place.subject).map(|one| report.rates[rates + at].rounds.push(one)),
                Part::Refresh => refresh(options, place).map(|one| report.rates[rates + at].rounds.push(one)),
                Part::User => user(options, place).map(|one| report.rates[rates + at].rounds.push(one)),
                Part::Crowd | Part::Timing => crowd(options, &place.subject).map(|both| {
                    for (line, one) in report.crowds[crowds + 2 * at..].iter_mut().zip(both) {
                        line.rounds.push(one);
                    }
                }),
            };
            if let Err(fault) = measured {
                faults.push(format!("{name} on {}: {fault}", place.subject.name));
            }
        }
    }
}

fn sign_in(options: &Options, subject: &Subject) -> Result<Beside, String> {
    let other = Other::Bcrypt { hash: hash_time(options.seconds)?, threads: hashing_threads() };
    People::sign_in(subject, options.warm_up)?.end()?;
    let (answered, refused) = load::counted(People::sign_in(subject, options.seconds)?.end()?)?;
    Ok(Beside { answered, refused, other })
}

/// As `server/auth/src/hashing.rs` has it: one for each processor but one.
fn hashing_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).saturating_sub(1).max(1)
}

/// The middle one of so many seconds, on one thread.
fn hash_time(seconds: u32) -> Result<Duration, String> {
    let hash = password::hash(PASSWORD).map_err(|cause| cause.to_string())?;
    let begun = Instant::now();
    let mut times = Vec::new();
    while times.len() < 5 || begun.elapsed() < Duration::from_secs(seconds.into()) {
        let begun = Instant::now();
        if password::verify(PASSWORD, Some(hash.expose())) != password::Verdict::Right {
            return Err("the password is not its own".into());
        }
        times.push(begun.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}

fn refresh(options: &Options, place: &mut Place) -> Result<Beside, String> {
    let Place { subject, people } = place;
    subject.ask(&ONE_ROW, "")?;
    load::wrk(subject, &ONE_ROW, options.warm_up)?;
    let other = Other::Data(load::wrk(subject, &ONE_ROW, options.seconds)?);
    people.refresh(subject, options.warm_up)?;
    let (answered, refused) = people.refresh(subject, options.seconds)?;
    Ok(Beside { answered, refused, other })
}

fn user(options: &Options, place: &Place) -> Result<Beside, String> {
    let Place { subject, people } = place;
    subject.ask(&BY_KEY, "17")?;
    load::wrk(subject, &BY_KEY, options.warm_up)?;
    let other = Other::Data(load::wrk(subject, &BY_KEY, options.seconds)?);
    people.user(subject, options.warm_up)?;
    Ok(Beside { answered: people.user(subject, options.seconds)?, refused: BTreeMap::new(), other })
}

/// `GET /health`, and a row by its key.
fn crowd(options: &Options, subject: &Subject) -> Result<[Crowd; 2], String> {
    let health = || load::paced_health(subject, options.seconds, CALM);
    let by_key = || load::paced(subject, &BY_KEY, options.seconds, CALM);
    let one = |calm: &dyn Fn() -> Result<Answered, String>| {
        let alone = calm()?;
        // Those who sign in begin before and end after.
        let sign_ins = People::sign_in(subject, options.warm_up + load::TRY + options.seconds + 2)?;
        std::thread::sleep(Duration::from_secs(options.warm_up.into()));
        let beside = calm();
        let (sign_ins, refused) = load::counted(sign_ins.end()?)?;
        Ok::<_, String>(Crowd { alone, beside: beside?, sign_ins, refused })
    };
    Ok([one(&health)?, one(&by_key)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_chosen_by_their_names() {
        assert_eq!(chosen("").unwrap().len(), PARTS.len());
        assert_eq!(chosen("get /U").unwrap()[0].1, Part::User);
        assert!(chosen("delete").unwrap_err().contains("crowd"));
    }

    #[test]
    fn what_bcrypt_leaves_is_the_threads_over_the_time() {
        let other = Other::Bcrypt { hash: Duration::from_millis(50), threads: 3 };
        assert!((other.rate() - 60.0).abs() < 1e-9);
    }
}
