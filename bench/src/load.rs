//! The load: wrk against a node, pgbench against the server.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ntier_tests::postgres::{Postgres, newest};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::case::Case;
use crate::subject::Subject;

/// Connections that ask at once.
pub const CONNECTIONS: u32 = 64;
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

/// Likewise, about so many times a second. Each connection pauses after an answer, the longer the faster it came: the first try says
/// how long an answer takes.
pub fn paced(subject: &Subject, case: &Case, seconds: u32, rate: f64) -> Result<Answered, String> {
    let cycle = f64::from(CONNECTIONS) / rate;
    let pause = cycle / 2.0;
    let tried = ask(subject, case, 2, Duration::from_secs_f64(pause))?;
    let busy = f64::from(CONNECTIONS) / tried.rate - pause;
    ask(subject, case, seconds, Duration::from_secs_f64((cycle - busy).max(0.0)))
}

fn ask(subject: &Subject, case: &Case, seconds: u32, pause: Duration) -> Result<Answered, String> {
    let mut request = vec![case.method.to_owned(), format!("/rest/v1{}", case.path), case.body.to_owned()];
    let headers = subject.headers.iter().map(|(name, value)| (*name, value.as_str()));
    for (name, value) in headers.chain([("content-type", "application/json")]) {
        request.extend([name.to_owned(), value.to_owned()]);
    }
    run_wrk(subject, &request, seconds, pause).map_err(|fault| format!("{} on {}: {fault}", case.name, subject.name))
}

/// What HTTP alone can do here: a request that needs no database.
pub fn health(subject: &Subject, seconds: u32) -> Result<Answered, String> {
    let request = ["GET", "/health", ""].map(str::to_owned);
    run_wrk(subject, &request, seconds, Duration::ZERO)
        .map_err(|fault| format!("GET /health on {}: {fault}", subject.name))
}

fn run_wrk(subject: &Subject, request: &[String], seconds: u32, pause: Duration) -> Result<Answered, String> {
    let is_by_id = request.iter().any(|part| part.contains("{id}"));
    let by_id = if is_by_id { include_str!("../by_id.lua") } else { "" };
    // wrk takes whole milliseconds, so they are drawn: shorter ones often, longer ones seldom, as independent clients would come.
    let pause = match pause.as_secs_f64() * 1000.0 {
        0.0 => String::new(),
        mean => {
            format!("function delay() return math.floor(-math.log(1 - math.random()) * {mean} + math.random()) end\n")
        }
    };
    let script = [include_str!("../load.lua"), by_id, &pause].concat();
    let file = written(&script)?;
    let (connections, duration) = (CONNECTIONS.to_string(), format!("{seconds}s"));
    let mut command = Command::new("wrk");
    command.args(["--threads", "2", "--connections", &connections, "--duration", &duration, "--latency", "--script"]);
    answered(output(command.arg(file.path()).arg(&subject.node.url).arg("--").args(request))?)
}

fn answered(raw: String) -> Result<Answered, String> {
    let line = raw.lines().find_map(|line| line.strip_prefix("RESULT ")).ok_or("wrk said no result")?;
    let result: Value = serde_json::from_str(line).map_err(|cause| cause.to_string())?;
    let number = |name: &str| result[name].as_f64().unwrap_or_default();
    // `status` counts what is not 2xx or 3xx; the data API never redirects.
    let faults: f64 = ["status", "connect", "read", "write", "timeout"].into_iter().map(number).sum();
    if faults > 0.0 || number("requests") < 1.0 {
        return Err(format!("requests failed: {line}"));
    }
    Ok(Answered {
        requests: number("requests"),
        rate: number("requests") / number("microseconds") * 1e6,
        p50_ms: number("p50") / 1000.0,
        p99_ms: number("p99") / 1000.0,
        raw,
    })
}

/// Runs the script as fast as so many clients can.
pub fn pgbench(server: &Postgres, script: &str, clients: u32, seconds: u32) -> Result<Transacted, String> {
    let file = written(script)?;
    let mut command = Command::new(newest().ok_or("no PostgreSQL is installed")?.join("pgbench"));
    command
        .args(["--no-vacuum", "--protocol", "prepared", "--jobs", "2", "--client", &clients.to_string()])
        .args(["--time", &seconds.to_string(), "--file"])
        .arg(file.path())
        .arg(server.url("bench"));
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
    let output = command.output().map_err(|cause| format!("{name}: {cause}"))?;
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
}
