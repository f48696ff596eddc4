//! `ntier balance`: a balancer in this process, until somebody ends it; `ntier balance status` asks one how it does.
//!
//! On SIGHUP, and when ntier.toml changes, the settings are read again. On SIGUSR2 another process, of the binary that is there by now,
//! takes the listening sockets; when it serves it asks this one to end.

use std::future::pending;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::ArgMatches;
use ntier::balance::{self, Beside, Place, Running};
use ntier::settings::{Mode, Settings};
use serde_json::Value;
use tokio::process::Child;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::interval;

use crate::end::End;
use crate::failure::Failure;
use crate::{arguments, descriptors, succession, table};

/// How long a balancer may take to say how it does.
const PATIENCE: Duration = Duration::from_secs(5);

pub async fn run(flags: &ArgMatches) -> Result<(), Failure> {
    if let Some(("status", flags)) = flags.subcommand() {
        return status(flags);
    }
    descriptors::allow_all();
    // From the beginning: whoever sends them while it starts would end it.
    let mut signals = Signals { reload: signal(SignalKind::hangup())?, succeed: signal(SignalKind::user_defined2())? };
    let loaded = arguments::settings(flags, Mode::Serve)?;
    let service = balance::assemble(&loaded.settings).map_err(|faults| Failure::faults(&faults))?;
    if service.backends.is_empty() && loaded.settings.database.is_none() {
        return Err(Failure::new(
            "no nodes are named: --balance-backends 10.0.0.1:54321,10.0.0.2:54321, or --database-url where nodes say where they are",
        ));
    }
    let file = loaded.project.root.clone().unwrap_or(std::env::current_dir()?).join("ntier.toml");
    let mut end = End::new()?;
    let registered = balance::registered(&loaded.settings).await;
    let issued = balance::issued(&loaded.settings).await;
    let scheme = if service.tls.is_some() || issued.is_some() { "https" } else { "http" };
    let defence = balance::defence(&loaded.settings).map_err(|fault| Failure::new(fault.to_string()))?;
    let beside = Beside { registered, issued, defence, inherited: succession::inherited()? };
    let mut running = balance::start(service, beside).await?;
    succession::serves()?;
    println!("ntier balance serves {scheme}://{}", running.address);
    println!("for operators {} (ntier balance status)", running.admin);
    let failed = tokio::select! {
        () = end.asked() => None,
        failed = serve(&mut running, &mut signals, flags, &loaded.settings, file) => Some(failed?),
    };
    if failed.is_none() {
        eprintln!("stopping: requests under way are answered first; once more ends at once");
    }
    tokio::select! {
        stopped = running.stop() => stopped?,
        () = end.asked() => return Err(Failure::new("ended before all requests were answered")),
    }
    Ok(())
}

/// What it is told while it runs.
struct Signals {
    reload: Signal,
    succeed: Signal,
}

/// Serves, and does what signals say; comes back only when serving ends.
async fn serve(
    running: &mut Running,
    signals: &mut Signals,
    flags: &ArgMatches,
    began: &Settings,
    file: PathBuf,
) -> Result<(), Failure> {
    let mut tick = interval(Duration::from_secs(1));
    let mut seen = look(&file);
    let mut successor: Option<Child> = None;
    loop {
        tokio::select! {
            ended = running.failed() => return ended.map_err(|cause| Failure::new(format!("the balancer ended: {cause}"))),
            _ = signals.reload.recv() => {
                running.reopen_log();
                read_again(running, flags, began).await;
            }
            _ = signals.succeed.recv(), if successor.is_none() => match succession::begin(running) {
                Ok(child) => successor = Some(child),
                Err(cause) => eprintln!("error: no other process takes the place: {cause}"),
            },
            ended = gone(&mut successor) => {
                eprintln!("error: the process that was to take the place ended ({ended}); this one goes on");
                successor = None;
            }
            _ = tick.tick() => {
                let now = look(&file);
                if now != seen {
                    seen = now;
                    read_again(running, flags, began).await;
                }
            }
        }
    }
}

/// When the file was changed, and how long it is.
fn look(file: &Path) -> Option<(SystemTime, u64)> {
    let metadata = file.metadata().ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Returns when the successor has ended, though it was to ask this process to end.
async fn gone(successor: &mut Option<Child>) -> String {
    match successor {
        Some(child) => child.wait().await.map_or_else(|cause| cause.to_string(), |status| status.to_string()),
        None => pending().await,
    }
}

/// What cannot be used leaves everything as it was.
async fn read_again(running: &Running, flags: &ArgMatches, began: &Settings) {
    let assemble = |settings: &Settings| balance::assemble_again(settings, began, running.address);
    let service = arguments::settings(flags, Mode::Serve)
        .and_then(|loaded| assemble(&loaded.settings).map_err(|faults| Failure::faults(&faults)));
    match service {
        Ok(service) => running.reload(service).await,
        Err(failure) => {
            failure.tell();
            eprintln!("the settings stay as they were");
        }
    }
}

fn status(flags: &ArgMatches) -> Result<(), Failure> {
    let loaded = arguments::settings(flags, Mode::Serve)?;
    let place = balance::admin(&loaded.settings);
    let text = ask(&place).map_err(|cause| Failure::new(format!("no balancer answers at {place}: {cause}")))?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    let status: Value = serde_json::from_str(body)?;
    if flags.get_flag("json") {
        println!("{status:#}");
    } else {
        print!("{}", shown(&status));
    }
    Ok(())
}

/// HTTP/1.0 needs no more than a line there, and the answer ends with the connection.
fn ask(place: &Place) -> std::io::Result<String> {
    let question = b"GET /status HTTP/1.0\r\nhost: localhost\r\n\r\n";
    let mut text = String::new();
    match place {
        Place::Tcp(address) => {
            let mut stream = TcpStream::connect_timeout(address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(question)?;
            stream.read_to_string(&mut text)?;
        }
        Place::Unix(path) => {
            let mut stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(question)?;
            stream.read_to_string(&mut text)?;
        }
    }
    Ok(text)
}

fn shown(status: &Value) -> String {
    let backends = status["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
    let columns = ["address", "state", "weight", "pending", "answers", "server_errors", "failures", "recent_ms"];
    let cell = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let rows: Vec<Vec<Option<String>>> =
        backends.iter().map(|one| columns.iter().map(|name| cell(&one[name])).collect()).collect();
    let head = format!(
        "process {}, up {} s{}, {} workers, choice {}\n{} requests, {} went again, {} answered here\n\
         {} connections open, {} websockets\n\n",
        status["process"],
        status["uptime_s"],
        if status["stopping"] == true { " and stopping" } else { "" },
        status["workers"],
        status["choice"].as_str().unwrap_or_default(),
        status["requests"],
        status["retries"],
        status["answered_itself"],
        status["connections"]["open"],
        status["tunnels"]["open"],
    );
    head + &table::render(&columns.map(|name| name.trim_end_matches("_ms")), &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn how_it_does_is_a_table() {
        let status = json!({
            "process": 7, "uptime_s": 60, "stopping": false, "workers": 2, "choice": "ewma", "requests": 10, "retries": 1,
            "answered_itself": 0, "connections": { "open": 3 }, "tunnels": { "open": 0 },
            "backends": [
                { "address": "10.0.0.1:54321", "state": "up", "weight": 1, "pending": 0, "answers": 9, "server_errors": 0,
                  "failures": 0, "recent_ms": 1.25 },
                { "address": "10.0.0.2:54321", "state": "down", "weight": 1, "pending": 0, "answers": 1, "server_errors": 1,
                  "failures": 2, "recent_ms": null },
            ],
        });
        let expected = "process 7, up 60 s, 2 workers, choice ewma\n10 requests, 1 went again, 0 answered here\n\
            3 connections open, 0 websockets\n\n \
            address        | state | weight | pending | answers | server_errors | failures | recent\n\
            ----------------+-------+--------+---------+---------+---------------+----------+--------\n \
            10.0.0.1:54321 | up    |      1 |       0 |       9 |             0 |        0 |   1.25\n \
            10.0.0.2:54321 | down  |      1 |       0 |       1 |             1 |        2 |\n";
        assert_eq!(shown(&status), expected);
    }
}
