//! The access log: one line of JSON for each request, written by a thread of its own. A disk that is slow costs lines, not requests.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::observe::{Observation, Observe};
use crate::settings;

/// Lines that wait to be written.
const WAITING: usize = 16 << 10;

/// Where workers leave their lines. Cheap to copy; without a log there is nothing behind it.
#[derive(Debug, Clone)]
pub struct AccessLog(Option<Arc<Way>>);

#[derive(Debug)]
struct Way {
    lines: SyncSender<Message>,
    lost: AtomicU64,
}

#[derive(Debug)]
enum Message {
    Line(Box<Line>),
    /// The file was renamed by whoever rotates logs: another one is begun.
    Reopen,
}

/// What is told of a request.
#[derive(Debug)]
pub struct Line {
    pub at: SystemTime,
    pub id: String,
    pub client: String,
    pub method: http::Method,
    pub host: Option<String>,
    /// Without the query, which may hold secrets.
    pub path: String,
    pub version: http::Version,
    pub status: u16,
    /// Why the balancer answered itself.
    pub code: Option<&'static str>,
    pub backend: Option<String>,
    pub attempts: u32,
    pub sent: u64,
    pub received: u64,
    pub first_byte: Duration,
    pub took: Duration,
    /// The answer went to its end.
    pub whole: bool,
}

impl AccessLog {
    /// Starts the thread, where there is a log.
    pub fn open(settings: &settings::AccessLog, observe: Observe) -> io::Result<Self> {
        let (output, path) = match settings {
            settings::AccessLog::Off => return Ok(Self(None)),
            settings::AccessLog::StandardError => (Output::StandardError, None),
            settings::AccessLog::File(path) => (Output::File(append(path)?), Some(path.clone())),
        };
        let (lines, waiting) = sync_channel(WAITING);
        let way = Arc::new(Way { lines, lost: AtomicU64::new(0) });
        let lost = Arc::downgrade(&way);
        std::thread::Builder::new().name("access-log".into()).spawn(move || {
            let lost = || lost.upgrade().map_or(0, |way| way.lost.swap(0, Relaxed));
            write(&waiting, output, path, observe, lost);
        })?;
        Ok(Self(Some(way)))
    }

    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub fn tell(&self, line: Line) {
        let Some(way) = &self.0 else { return };
        if let Err(TrySendError::Full(_)) = way.lines.try_send(Message::Line(Box::new(line))) {
            way.lost.fetch_add(1, Relaxed);
        }
    }

    pub fn reopen(&self) {
        if let Some(way) = &self.0 {
            let _ = way.lines.try_send(Message::Reopen);
        }
    }
}

enum Output {
    StandardError,
    File(File),
}

fn append(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Writes what waits, many lines at once where there are many; ends when nobody can send any more.
fn write(
    waiting: &Receiver<Message>,
    mut output: Output,
    path: Option<PathBuf>,
    observe: Observe,
    lost: impl Fn() -> u64,
) {
    let mut text = Vec::new();
    while let Ok(first) = waiting.recv() {
        text.clear();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => render(&line, &mut text),
                Message::Reopen => {
                    if let Some(Ok(file)) = path.as_ref().map(append) {
                        output = Output::File(file);
                    }
                }
            }
            next = (text.len() < 256 << 10).then(|| waiting.try_recv().ok()).flatten();
        }
        let _ = match &mut output {
            Output::StandardError => io::stderr().write_all(&text),
            Output::File(file) => file.write_all(&text),
        };
        match lost() {
            0 => {}
            count => observe.tell(&Observation::LinesLost { count }),
        }
    }
}

fn render(line: &Line, text: &mut Vec<u8>) {
    let milliseconds = |time: Duration| (time.as_secs_f64() * 1e5).round() / 100.0;
    let line = json!({
        "at": humantime::format_rfc3339_millis(line.at).to_string(),
        "request_id": line.id,
        "client": line.client,
        "method": line.method.as_str(),
        "host": line.host,
        "path": line.path,
        "protocol": format!("{:?}", line.version),
        "status": line.status,
        "code": line.code,
        "backend": line.backend,
        "attempts": line.attempts,
        "bytes_received": line.received,
        "bytes_sent": line.sent,
        "first_byte_ms": milliseconds(line.first_byte),
        "duration_ms": milliseconds(line.took),
        "whole": line.whole,
    });
    let _ = serde_json::to_writer(&mut *text, &line);
    text.push(b'\n');
}
