//! HTTP/2: h2load, which keeps several requests under way on each connection.

use std::process::{Command, Stdio};

use crate::load::Answered;

/// Requests at once on each connection.
const STREAMS: u32 = 10;

/// Asks for so many seconds; one request that fails spoils it.
pub fn ask(url: &str, connections: u32, seconds: u32) -> Result<Answered, String> {
    let log = tempfile::NamedTempFile::new().map_err(|cause| cause.to_string())?;
    let mut command = Command::new("h2load");
    command.args(["--threads", "2", "--clients", &connections.to_string(), "--duration", &seconds.to_string()]);
    command.args(["--max-concurrent-streams", &STREAMS.to_string(), "--log-file"]).arg(log.path()).arg(url);
    let output = command.stdin(Stdio::null()).output().map_err(|cause| format!("h2load: {cause}"))?;
    let raw = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = std::fs::read_to_string(log.path()).map_err(|cause| cause.to_string())?;
    answered(&raw, &lines).ok_or_else(|| format!("h2load said no result, or requests failed: {raw}"))
}

/// `log` has a line for each request: when it began, its status, and how long it took, in microseconds.
fn answered(raw: &str, log: &str) -> Option<Answered> {
    let counts = raw.lines().find(|line| line.starts_with("requests: "))?;
    let count = |what: &str| -> Option<u64> {
        counts.split([',', ':']).find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
    };
    if count("failed")? + count("errored")? + count("timeout")? > 0 {
        return None;
    }
    let rate = raw.lines().find_map(|line| line.strip_prefix("finished in ")?.split(' ').nth(1)?.parse().ok())?;
    let mut times: Vec<f64> = log.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok()).collect();
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or(f64::NAN) / 1000.0;
    #[expect(clippy::cast_precision_loss, reason = "requests of some seconds")]
    let requests = count("succeeded")? as f64;
    Some(Answered { requests, rate, p50_ms: at(50), p99_ms: at(99), raw: raw.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_is_read() {
        let raw = "\nfinished in 1.00s, 1234.50 req/s, 1.00MB/s\n\
                   requests: 3 total, 3 started, 3 done, 3 succeeded, 0 failed, 0 errored, 0 timeout\n";
        let log = "1790000000000\t200\t1000\n1790000000000\t200\t3000\n1790000000000\t200\t2000\n";
        let answered = answered(raw, log).unwrap();
        let read = [answered.requests, answered.rate, answered.p50_ms, answered.p99_ms];
        assert!(read.iter().zip([3.0, 1234.5, 2.0, 3.0]).all(|(one, other)| (one - other).abs() < 1e-9), "{read:?}");
        assert!(super::answered(&raw.replace("0 failed", "1 failed"), log).is_none());
    }
}
