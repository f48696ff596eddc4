//! The load: wrk against a node, pgbench against the server.

use std::io::Write;
use std::process::Command;

use ntier_tests::postgres::{Postgres, newest};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::Case;
use crate::subject::Subject;

/// Connections that ask at once.
pub const CONNECTIONS: u32 = 64;

/// What wrk saw.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    /// Requests per second.
    pub rate: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Asks for so many seconds, after one to warm up; any answer but a success is a fault.
pub fn wrk(subject: &Subject, case: &Case, seconds: u32) -> Result<Answered, String> {
    let headers: Vec<String> = subject.headers.iter().map(|(name, value)| format!("[\"{name}\"]={value:?},")).collect();
    let headers = headers.concat();
    let path = case.path.replace("ID", "\" .. math.random(1, 10000) .. \"");
    let body = if case.body.is_empty() { "nil".to_owned() } else { format!("'{}'", case.body) };
    let script = format!(
        "local headers = {{{headers} [\"content-type\"]=\"application/json\"}}\n\
         request = function() return wrk.format(\"{}\", \"/rest/v1{path}\", headers, {body}) end\n\
         done = function(summary, latency) io.write(string.format('RESULT {{\"requests\":%d,\"microseconds\":%d,\
         \"p50\":%f,\"p99\":%f,\"faults\":%d}}\\n', summary.requests, summary.duration, latency:percentile(50), \
         latency:percentile(99), summary.errors.status + summary.errors.connect + summary.errors.read + \
         summary.errors.write + summary.errors.timeout)) end\n",
        case.method
    );
    let file = written(&script)?;
    run_wrk(subject, &["-s", &file.path().to_string_lossy()], 1)?;
    let said = run_wrk(subject, &["-s", &file.path().to_string_lossy()], seconds)?;
    let line = said.lines().find_map(|line| line.strip_prefix("RESULT ")).ok_or("wrk said nothing")?;
    let result: Value = serde_json::from_str(line).map_err(|cause| cause.to_string())?;
    let number = |name: &str| result[name].as_f64().unwrap_or_default();
    if number("faults") > 0.0 {
        return Err(format!("{} on {}: {} requests failed", case.name, subject.name, number("faults")));
    }
    Ok(Answered {
        rate: number("requests") / number("microseconds") * 1e6,
        p50_ms: number("p50") / 1000.0,
        p99_ms: number("p99") / 1000.0,
    })
}

/// What the HTTP server alone could answer: a request that needs no database.
pub fn health(subject: &Subject, seconds: u32) -> Result<f64, String> {
    let file = written("request = function() return wrk.format(\"GET\", \"/health\") end\n")?;
    let said = run_wrk(subject, &["-s", &file.path().to_string_lossy()], seconds)?;
    let rate = said.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    rate.and_then(|rate| rate.trim().parse().ok()).ok_or_else(|| "wrk said nothing".into())
}

fn run_wrk(subject: &Subject, more: &[&str], seconds: u32) -> Result<String, String> {
    let (connections, duration) = (CONNECTIONS.to_string(), format!("{seconds}s"));
    let mut command = Command::new("wrk");
    command.args(["-t", "2", "-c", &connections, "-d", &duration]).args(more).arg(&subject.node.url);
    output(&mut command)
}

/// Transactions per second of the script, the better of few clients and as many as wrk has.
pub fn pgbench(server: &Postgres, script: &str, seconds: u32) -> Result<f64, String> {
    let file = written(script)?;
    let bin = newest().ok_or("no PostgreSQL is installed")?;
    let mut best = 0.0_f64;
    for clients in [8, CONNECTIONS] {
        let mut command = Command::new(bin.join("pgbench"));
        command
            .args(["--no-vacuum", "--protocol", "prepared", "--jobs", "2", "--client", &clients.to_string()])
            .args(["--time", &seconds.to_string(), "--file"])
            .arg(file.path())
            .arg(server.url("bench"));
        let said = output(&mut command)?;
        let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse::<f64>().ok());
        best = best.max(rate.ok_or("pgbench said no rate")?);
    }
    Ok(best)
}

fn written(text: &str) -> Result<NamedTempFile, String> {
    let mut file = NamedTempFile::new().map_err(|cause| cause.to_string())?;
    file.write_all(text.as_bytes()).map_err(|cause| cause.to_string())?;
    Ok(file)
}

fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|cause| format!("{name}: {cause} (apt-get install wrk postgresql)"))?;
    if !output.status.success() {
        return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
