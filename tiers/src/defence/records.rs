//! Records of what happened, one JSON object in a line, for fail2ban, CrowdSec and people. The file is opened anew each time, so it may be
//! moved away or emptied while the process runs.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::SystemTime;

use ntier_security::defence::{Mode, Record};
use ntier_security::intrusion::Standing;
use serde_json::{Map, Value, json};

use super::bans::{Banned, Wanted};

/// Where they go; nowhere without a path.
#[derive(Debug)]
pub struct Records(Option<PathBuf>);

impl Records {
    pub fn new(path: Option<PathBuf>) -> Self {
        Self(path)
    }

    pub fn events(&self, records: &[Record], lost: u64, mode: Mode) -> io::Result<()> {
        let now = now();
        let mut lines: Vec<Value> = records.iter().map(|record| event(record, &now, mode)).collect();
        if lost > 0 {
            lines.push(json!({ "time": now, "program": "ntier", "event": "records_lost", "count": lost }));
        }
        self.write(&lines)
    }

    pub fn ban(&self, wanted: &Wanted, banned: &Banned) -> io::Result<()> {
        self.write(&[json!({
            "time": now(), "program": "ntier", "event": "ban", "address": wanted.network.range().0.to_string(),
            "network": wanted.network.to_string(), "reason": wanted.reason, "seconds": banned.seconds, "times": banned.times,
        })])
    }

    /// In one piece, so that lines of several processes do not mix.
    fn write(&self, lines: &[Value]) -> io::Result<()> {
        let Some(path) = self.0.as_ref().filter(|_| !lines.is_empty()) else { return Ok(()) };
        let text: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
        let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
        file.write_all(text.concat().as_bytes())
    }
}

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

fn event(record: &Record, now: &str, mode: Mode) -> Value {
    let standing = match record.standing {
        Standing::Clear => "clear",
        Standing::Throttled => "throttled",
        Standing::Banned => "banned",
    };
    let mut all = Map::new();
    let mut put = |name: &str, value: Value| drop(all.insert(name.to_owned(), value));
    put("time", now.into());
    put("program", "ntier".into());
    put("event", record.event.name().into());
    put("address", record.address.to_string().into());
    if let Some(account) = record.account {
        put("account", format!("{:016x}", account >> 64).into());
    }
    if let Some(path) = &record.path {
        put("path", path.as_str().into());
    }
    put("score", ((record.score * 10.0).round() / 10.0).into());
    put("standing", standing.into());
    if mode == Mode::Watch {
        put("dry_run", true.into());
    }
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ntier_security::intrusion::Event;

    #[test]
    fn records_are_lines_of_json() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("security.log");
        let records = Records::new(Some(path.clone()));
        let record = Record {
            event: Event::WrongPassword,
            address: "203.0.113.7".parse().unwrap(),
            account: Some(0xfedc_ba98_7654_3210 << 64),
            path: Some("/auth/v1/token\n\"".into()),
            score: 5.04,
            standing: Standing::Clear,
        };
        records.events(std::slice::from_ref(&record), 0, Mode::On).unwrap();
        records.events(&[], 3, Mode::On).unwrap();
        let banned = Banned { seconds: 600, times: 1 };
        let wanted = Wanted {
            network: "2001:db8::/64".parse().unwrap(),
            reason: "scanner_path",
            since: std::time::Instant::now(),
        };
        records.ban(&wanted, &banned).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let without_time: Vec<Value> = lines
            .into_iter()
            .map(|mut line| {
                assert!(line.as_object_mut().unwrap().shift_remove("time").unwrap().as_str().unwrap().ends_with('Z'));
                line
            })
            .collect();
        let expected = [
            json!({
                "program": "ntier", "event": "wrong_password", "address": "203.0.113.7", "account": "fedcba9876543210",
                "path": "/auth/v1/token\n\"", "score": 5.0, "standing": "clear",
            }),
            json!({ "program": "ntier", "event": "records_lost", "count": 3 }),
            json!({
                "program": "ntier", "event": "ban", "address": "2001:db8::", "network": "2001:db8::/64",
                "reason": "scanner_path", "seconds": 600, "times": 1,
            }),
        ];
        assert_eq!(without_time, expected);
        assert!(Records::new(None).events(&[record], 0, Mode::Watch).is_ok());
    }
}
