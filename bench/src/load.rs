//! The load: wrk against a node, pgbench against the server.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use ntier_tests::postgres::newest;
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::case::Case;
use crate::subject::Subject;

/// Connections that ask at once.
pub const CONNECTIONS: u32 = 64;
/// Puts another number where the path says `{id}`.
pub const BY_ID: &str = include_str!("../by_id.lua");
/// Seconds; wrk's own default.
pub const PATIENCE: u32 = 2;
/// Seconds of the first try at a given rate.
pub const TRY: u32 = 2;
/// Clients that pgbench has; the better count is the ceiling.
pub const CLIENTS: [u32; 2] = [8, CONNECTIONS];

/// What wrk saw.
#[derive(Debug, Clone)]
pub struct Answered {
    pub requests: f64,
    /// Requests per second.
    pub rate: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// All that wrk said.
    pub raw: String,
}

/// What pgbench saw.
#[derive(Debug, Clone)]
pub struct Transacted {
    pub clients: u32,
    pub transactions: f64,
    /// Transactions per second.
    pub rate: f64,
    /// All that pgbench said.
    pub raw: String,
}

/// Asks for a case for so many seconds, as often as it is answered; any answer but a success is a fault.
pub fn wrk(subject: &Subject, case: &Case, seconds: u32) -> Result<Answered, String> {
    ask(subject, case, seconds, Duration::ZERO)
}

/// Likewise, about so many times a second.
pub fn paced(subject: &Subject, case: &Case, seconds: u32, rate: f64) -> Result<Answered, String> {
    pace(seconds, rate, |seconds, pause| ask(subject, case, seconds, pause))
}

fn ask(subject: &Subject, case: &Case, seconds: u32, pause: Duration) -> Result<Answered, String> {
    let request = request(subject, case.method, &format!("/rest/v1{}", case.path), case.body);
    let is_by_id = case.path.contains("{id}");
    let script = if is_by_id { BY_ID } else { "" };
    let load = Load { script, request: &request, connections: CONNECTIONS, seconds, pause, patience: PATIENCE };
    let asked = Wrk::start(&subject.node.url, &load).and_then(Wrk::end);
    asked.and_then(answered).map_err(|fault| format!("{} on {}: {fault}", case.name, subject.name))
}

/// What HTTP alone can do here: a request that needs no database.
pub fn health(subject: &Subject, seconds: u32) -> Result<Answered, String> {
    ask_health(subject, seconds, Duration::ZERO)
}

/// Likewise, about so many times a second.
pub fn paced_health(subject: &Subject, seconds: u32, rate: f64) -> Result<Answered, String> {
    pace(seconds, rate, |seconds, pause| ask_health(subject, seconds, pause))
}

fn ask_health(subject: &Subject, seconds: u32, pause: Duration) -> Result<Answered, String> {
    let request = ["GET", "/health", ""].map(str::to_owned);
    let load = Load { script: "", request: &request, connections: CONNECTIONS, seconds, pause, patience: PATIENCE };
    let asked = Wrk::start(&subject.node.url, &load).and_then(Wrk::end);
    asked.and_then(answered).map_err(|fault| format!("GET /health on {}: {fault}", subject.name))
}

/// Each connection pauses after an answer, the longer the faster it came: the first try says how long an answer takes.
fn pace(seconds: u32, rate: f64, ask: impl Fn(u32, Duration) -> Result<Answered, String>) -> Result<Answered, String> {
    let cycle = f64::from(CONNECTIONS) / rate;
    let pause = cycle / 2.0;
    let tried = ask(TRY, Duration::from_secs_f64(pause))?;
    let busy = f64::from(CONNECTIONS) / tried.rate - pause;
    ask(seconds, Duration::from_secs_f64((cycle - busy).max(0.0)))
}

/// What the scripts take: method, path, body, then names and values of headers.
pub fn request(subject: &Subject, method: &str, path: &str, body: &str) -> Vec<String> {
    let mut request = vec![method.to_owned(), path.to_owned(), body.to_owned()];
    let headers = subject.headers.iter().map(|(name, value)| (*name, value.as_str()));
    for (name, value) in headers.chain([("content-type", "application/json")]) {
        request.extend([name.to_owned(), value.to_owned()]);
    }
    request
}

/// What wrk is to do.
pub struct Load<'a> {
    /// Goes behind that which every request has.
    pub script: &'a str,
    pub request: &'a [String],
    pub connections: u32,
    pub seconds: u32,
    pub pause: Duration,
    /// An answer that takes more seconds spoils the measurement.
    pub patience: u32,
}

/// wrk while it runs; its script has to stay until then.
pub struct Wrk {
    process: Child,
    _script: NamedTempFile,
}

impl Wrk {
    pub fn start(url: &str, load: &Load<'_>) -> Result<Self, String> {
        let Load { script, request, connections, seconds, pause, patience } = *load;
        // wrk takes whole milliseconds, so they are drawn: shorter ones often, longer ones seldom, as independent clients would come.
        let pause = match pause.as_secs_f64() * 1000.0 {
            0.0 => String::new(),
            mean => format!(
                "function delay() return math.floor(-math.log(1 - math.random()) * {mean} + math.random()) end\n"
            ),
        };
        let file = written(&[include_str!("../load.lua"), script, &pause].concat())?;
        let (connections, duration, timeout) = (connections.to_string(), format!("{seconds}s"), format!("{patience}s"));
        let mut command = Command::new("wrk");
        command.args(["--threads", "2", "--connections", &connections, "--duration", &duration, "--timeout", &timeout]);
        command.args(["--latency", "--script"]).arg(file.path()).arg(url).arg("--").args(request);
        let process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Ok(Self { process: process.map_err(|cause| format!("wrk: {cause}"))?, _script: file })
    }

    /// Waits for its end; gives all that it said.
    pub fn end(self) -> Result<String, String> {
        ended("wrk", self.process.wait_with_output())
    }
}

/// What it saw; one request that fails spoils it.
pub fn answered(raw: String) -> Result<Answered, String> {
    let result = result(&raw)?;
    // `status` counts what is not 2xx or 3xx; the data API never redirects.
    if result.faults() + result.number("status") > 0.0 || result.number("requests") < 1.0 {
        return Err(format!("requests failed: {}", result.line));
    }
    Ok(result.answered(result.number("requests"), &raw))
}

/// Likewise where some may be refused: those are counted by status, and are no part of the rate.
pub fn counted(raw: String) -> Result<(Answered, BTreeMap<u16, u64>), String> {
    let result = result(&raw)?;
    let counts = raw.lines().filter_map(|line| {
        let (status, count) = line.strip_prefix("ANSWERS ")?.split_once(' ')?;
        Some((status.parse::<u16>().ok()?, count.parse::<u64>().ok()?))
    });
    let (taken, refused): (Vec<_>, Vec<_>) = counts.partition(|(status, _)| (200..300).contains(status));
    #[expect(clippy::cast_precision_loss, reason = "requests of some seconds")]
    let taken = taken.into_iter().map(|(_, count)| count as f64).sum();
    if result.faults() > 0.0 || taken < 1.0 {
        return Err(format!("requests failed: {} {refused:?}", result.line));
    }
    Ok((result.answered(taken, &raw), refused.into_iter().collect()))
}

/// What `load.lua` tells at the end.
struct Told<'a> {
    line: &'a str,
    values: Value,
}

fn result(raw: &str) -> Result<Told<'_>, String> {
    let line = raw.lines().find_map(|line| line.strip_prefix("RESULT ")).ok_or("wrk said no result")?;
    Ok(Told { line, values: serde_json::from_str(line).map_err(|cause| cause.to_string())? })
}

impl Told<'_> {
    fn number(&self, name: &str) -> f64 {
        self.values[name].as_f64().unwrap_or_default()
    }

    /// Requests without any answer.
    fn faults(&self) -> f64 {
        ["connect", "read", "write", "timeout"].into_iter().map(|name| self.number(name)).sum()
    }

    fn answered(&self, requests: f64, raw: &str) -> Answered {
        Answered {
            requests,
            rate: requests / self.number("microseconds") * 1e6,
            p50_ms: self.number("p50") / 1000.0,
            p99_ms: self.number("p99") / 1000.0,
            raw: raw.to_owned(),
        }
    }
}

/// Runs the script as fast as so many clients can, on the database that this URL names.
pub fn pgbench(url: &str, script: &str, clients: u32, seconds: u32) -> Result<Transacted, String> {
    let file = written(script)?;
    let mut command = Command::new(newest().ok_or("no PostgreSQL is installed")?.join("pgbench"));
    command
        .args(["--no-vacuum", "--protocol", "prepared", "--jobs", "2", "--client", &clients.to_string()])
        .args(["--time", &seconds.to_string(), "--file"])
        .arg(file.path())
        .arg(url);
    let raw = output(&mut command)?;
    let after = |start: &str| -> Result<f64, String> {
        let number = raw.lines().find_map(|line| line.strip_prefix(start)?.split(' ').next()?.parse().ok());
        number.ok_or_else(|| format!("pgbench said no {start:?}: {raw}"))
    };
    let (transactions, rate) = (after("number of transactions actually processed: ")?, after("tps = ")?);
    if raw.lines().any(|line| line.starts_with("number of failed transactions: ") && !line.contains(": 0 ")) {
        return Err(format!("transactions of pgbench failed: {raw}"));
    }
    Ok(Transacted { clients, transactions, rate, raw })
}

fn written(text: &str) -> Result<NamedTempFile, String> {
    let mut file = NamedTempFile::new().map_err(|cause| cause.to_string())?;
    file.write_all(text.as_bytes()).map_err(|cause| cause.to_string())?;
    Ok(file)
}

fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    ended(&name, command.output())
}

fn ended(name: &str, output: std::io::Result<Output>) -> Result<String, String> {
    let output = output.map_err(|cause| format!("{name}: {cause}"))?;
    if !output.status.success() {
        return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Says what is missing before anything is started.
pub fn are_installed(binary: &Path) -> Result<(), String> {
    if !binary.is_file() {
        return Err(format!("{} is not there: cargo build --release -p ntier-cli", binary.display()));
    }
    let bin = newest().ok_or("no PostgreSQL server in /usr/lib/postgresql: apt-get install postgresql")?;
    let programs = [("psql", "postgresql-client"), ("openssl", "openssl"), ("wrk", "wrk")];
    let is_there = |name: &str| Command::new(name).arg("--version").output().is_ok();
    let missing = programs.iter().find(|(name, _)| !is_there(name));
    if let Some((name, package)) = missing {
        return Err(format!("{name} is not there: apt-get install {package}"));
    }
    if bin.join("pgbench").is_file() { Ok(()) } else { Err(format!("{} has no pgbench", bin.display())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str =
        r#"RESULT {"requests":10,"microseconds":2000000,"p50":1500,"p99":3000,"status":STATUS,"connect":0}"#;

    #[test]
    fn one_refused_request_spoils_a_measurement() {
        let seen = answered(RESULT.replace("STATUS", "0")).unwrap();
        assert!((seen.rate - 5.0).abs() < 1e-9 && (seen.p50_ms - 1.5).abs() < 1e-9);
        assert!(answered(RESULT.replace("STATUS", "1")).is_err());
        assert!(answered(String::new()).is_err());
    }

    #[test]
    fn refused_requests_are_no_part_of_a_rate() {
        let said = RESULT.replace("STATUS", "4") + "\nANSWERS 200 6\nANSWERS 429 4\n";
        let (seen, refused) = counted(said.clone()).unwrap();
        assert!((seen.rate - 3.0).abs() < 1e-9, "{seen:?}");
        assert_eq!(refused.into_iter().collect::<Vec<_>>(), [(429, 4)]);
        assert!(counted(said.replace("\"connect\":0", "\"timeout\":1")).is_err());
    }
}
