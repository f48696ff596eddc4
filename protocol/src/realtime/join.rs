//! The payload of `phx_join`. Sources: realtime's `lib/realtime_web/channels/payloads` and `realtime_channel.ex`.
//!
//! A payload that is not right does not hinder a join: what can be read is heeded, and what cannot is for the log.

use std::fmt;

use serde_json::{Map, Value};

use crate::realtime::binding::{self, Binding};
use crate::realtime::limits::{BINDINGS, REPLAYED};
use crate::realtime::position::{Position, Unreadable};

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Join {
    /// Instead of the connection's. It may be a key and no JWT; see [`is_key`].
    pub access_token: Option<String>,
    pub private: bool,
    pub broadcast: Broadcast,
    pub presence: Presence,
    /// Our `since` for what has none of its own.
    pub since: Option<Result<Position, Unreadable>>,
    pub changes: Vec<Binding>,
    /// The payload had no `config`: its one entry is made of the channel's name, and changes go out as events of their own.
    pub old: bool,
    pub faults: Vec<Fault>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Broadcast {
    /// Each broadcast is to be answered.
    pub acknowledged: bool,
    /// The client wants to hear its own.
    pub own: bool,
    pub replay: Option<Replay>,
    /// Our `since`.
    pub since: Option<Result<Position, Unreadable>>,
    /// The client wants to be told when broadcasts from the database are listened to.
    pub tell_when_ready: bool,
}

/// Earlier broadcasts. Only private channels have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// Since that many milliseconds after 1970, the latest of them.
    Since {
        milliseconds: i64,
        limit: i64,
    },
    Invalid,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Presence {
    /// Under which the client is present; who names none is given one.
    pub key: Option<String>,
    /// The client wants to hear who is present.
    pub enabled: bool,
}

/// A part of the payload that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where: `config.broadcast.ack`
    pub at: &'static str,
    pub expected: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}: unable to parse, expected {}", self.at, self.expected)
    }
}

/// Whether a token is one of the project's keys, which says no more than the connection does.
pub fn is_key(token: &str) -> bool {
    token.starts_with("sb_")
}

/// Reads the payload of a join to the channel `name`.
pub fn read(payload: Option<Value>, name: &str) -> Join {
    let mut faults = Vec::new();
    let mut payload = object(payload, "payload", &mut faults).unwrap_or_default();
    let mut join = Join { access_token: token(&payload, &mut faults), ..Join::default() };
    if !payload.contains_key("config") {
        join.old = true;
        join.changes = binding::read(vec![binding::of_name(name)]);
        return Join { faults, ..join };
    }
    let mut config = object(payload.remove("config"), "config", &mut faults).unwrap_or_default();
    join.private = flag(&config, "private", "config.private", &mut faults);
    join.since = config.get("since").and_then(binding::since);
    if let Some(given) = object(config.remove("broadcast"), "config.broadcast", &mut faults) {
        join.broadcast = broadcast(given, &mut faults);
    }
    if let Some(given) = object(config.remove("presence"), "config.presence", &mut faults) {
        join.presence = Presence {
            key: key(given.get("key"), &mut faults),
            enabled: flag(&given, "enabled", "config.presence.enabled", &mut faults),
        };
    }
    join.changes = binding::read(entries(config.remove("postgres_changes"), &mut faults));
    Join { faults, ..join }
}

impl Join {
    /// From where the changes of an entry are wanted, if not from now.
    pub fn since_of(&self, binding: &Binding) -> Option<Result<Position, Unreadable>> {
        binding.since.or(self.since)
    }

    /// From where broadcasts are wanted, if not from now.
    pub fn broadcasts_since(&self) -> Option<Result<Position, Unreadable>> {
        self.broadcast.since.or(self.since)
    }
}

/// `user_token` is the older name and wins. A key in `access_token` counts before both, and a key is not heeded: the connection has its own.
fn token(payload: &Map<String, Value>, faults: &mut Vec<Fault>) -> Option<String> {
    let mut text = |key: &str, at| match payload.get(key) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => {
            faults.push(Fault { at, expected: "string" });
            None
        }
    };
    let (access, user) = (text("access_token", "access_token"), text("user_token", "user_token"));
    let user = user.filter(|_| !access.as_deref().is_some_and(is_key));
    user.or(access).filter(|token| !is_key(token))
}

fn broadcast(mut given: Map<String, Value>, faults: &mut Vec<Fault>) -> Broadcast {
    Broadcast {
        acknowledged: flag(&given, "ack", "config.broadcast.ack", faults),
        own: flag(&given, "self", "config.broadcast.self", faults),
        since: given.get("since").and_then(binding::since),
        tell_when_ready: flag(&given, "replication_ready", "config.broadcast.replication_ready", faults),
        replay: object(given.remove("replay"), "config.broadcast.replay", faults).map(|asked| replay(&asked)),
    }
}

fn replay(asked: &Map<String, Value>) -> Replay {
    // The first and the last millisecond of the years that realtime knows.
    const YEARS: std::ops::RangeInclusive<i64> = -377_705_116_800_000..=253_402_300_799_999;
    let since = asked.get("since").and_then(Value::as_i64).filter(|since| YEARS.contains(since));
    let limit = match asked.get("limit") {
        None | Some(Value::Null | Value::Bool(false)) => Some(REPLAYED),
        Some(limit) => limit.as_i64(),
    };
    match (since, limit) {
        (Some(milliseconds), Some(limit)) => Replay::Since { milliseconds, limit: limit.clamp(1, REPLAYED) },
        _ => Replay::Invalid,
    }
}

fn key(value: Option<&Value>, faults: &mut Vec<Fault>) -> Option<String> {
    match value {
        None | Some(Value::Null) => None,
        Some(Value::String(key)) => Some(key.clone()).filter(|key| !key.is_empty()),
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(_) => {
            faults.push(Fault { at: "config.presence.key", expected: "string" });
            None
        }
    }
}

fn entries(value: Option<Value>, faults: &mut Vec<Fault>) -> Vec<Map<String, Value>> {
    let mut wrong = false;
    let entries = match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(entries)) => {
            wrong = entries.len() > BINDINGS || entries.iter().any(|entry| !entry.is_object() && !entry.is_null());
            let objects = entries.into_iter().filter_map(|entry| match entry {
                Value::Object(entry) => Some(entry),
                _ => None,
            });
            objects.take(BINDINGS).collect()
        }
        Some(_) => {
            wrong = true;
            Vec::new()
        }
    };
    if wrong {
        faults.push(Fault { at: "config.postgres_changes", expected: "an array of maps" });
    }
    entries
}

fn object(value: Option<Value>, at: &'static str, faults: &mut Vec<Fault>) -> Option<Map<String, Value>> {
    match value {
        Some(Value::Object(entries)) => Some(entries),
        None | Some(Value::Null) => None,
        Some(_) => {
            faults.push(Fault { at, expected: "a map" });
            None
        }
    }
}

/// Clients say booleans as texts, too.
fn flag(entries: &Map<String, Value>, key: &str, at: &'static str, faults: &mut Vec<Fault>) -> bool {
    match entries.get(key) {
        None | Some(Value::Null) => false,
        Some(Value::Bool(flag)) => *flag,
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => true,
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => false,
        Some(_) => {
            faults.push(Fault { at, expected: "boolean" });
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_whole_join_is_read() {
        let join = read(
            Some(json!({
                "config": {
                    "private": true,
                    "broadcast": {"ack": "True", "self": true, "replay": {"since": 1, "limit": 10}, "since": "4.5"},
                    "presence": {"enabled": "TRUE", "key": "me"},
                    "postgres_changes": [{"event": "INSERT", "schema": "public", "table": "users"}, null],
                    "since": "1.2",
                },
                "access_token": "a.b.c",
                "version": "realtime-js/2",
            })),
            "room",
        );
        let position = |batch, id| Some(Ok(Position { batch, id }));
        assert_eq!(join.access_token.as_deref(), Some("a.b.c"));
        assert!(join.private && !join.old && join.faults.is_empty());
        let expected = Broadcast {
            acknowledged: true,
            own: true,
            replay: Some(Replay::Since { milliseconds: 1, limit: 10 }),
            since: position(4, 5),
            tell_when_ready: false,
        };
        assert_eq!(join.broadcast, expected);
        assert_eq!(join.presence, Presence { key: Some("me".to_owned()), enabled: true });
        assert_eq!(join.changes.len(), 1);
        assert_eq!((join.since_of(&join.changes[0]), join.broadcasts_since()), (position(1, 2), position(4, 5)));
    }

    #[test]
    fn what_is_not_given_is_off() {
        for payload in [
            json!({"config": {}}),
            json!({"config": null}),
            json!({"config": {"broadcast": null, "presence": {}, "postgres_changes": null, "private": null}}),
            json!({"config": {"presence": {"key": ""}, "broadcast": {"replay": null}, "postgres_changes": [null]}}),
        ] {
            assert_eq!(read(Some(payload.clone()), "room"), Join::default(), "{payload}");
        }
    }

    #[test]
    fn what_is_wrong_is_passed_over() {
        let join = read(
            Some(json!({
                "config": {
                    "private": "yes",
                    "broadcast": {"ack": "test", "self": true, "replay": 123},
                    "presence": {"enabled": 1, "key": []},
                    "postgres_changes": {"event": "test"},
                },
                "access_token": true,
                "user_token": true,
            })),
            "room",
        );
        let faults: Vec<_> = join.faults.iter().map(ToString::to_string).collect();
        assert_eq!(
            faults,
            [
                "access_token: unable to parse, expected string",
                "user_token: unable to parse, expected string",
                "config.private: unable to parse, expected boolean",
                "config.broadcast.ack: unable to parse, expected boolean",
                "config.broadcast.replay: unable to parse, expected a map",
                "config.presence.key: unable to parse, expected string",
                "config.presence.enabled: unable to parse, expected boolean",
                "config.postgres_changes: unable to parse, expected an array of maps",
            ]
        );
        assert!(join.broadcast.own && !join.private && join.changes.is_empty());
        for (payload, fault) in [
            (json!({"config": ["x"]}), "config: unable to parse, expected a map"),
            (
                json!({"config": {"postgres_changes": ["x"]}}),
                "config.postgres_changes: unable to parse, expected an array of maps",
            ),
            (json!("x"), "payload: unable to parse, expected a map"),
        ] {
            assert_eq!(read(Some(payload), "room").faults.iter().map(ToString::to_string).collect::<Vec<_>>(), [fault]);
        }
    }

    #[test]
    fn replays_need_numbers() {
        let last = Replay::Since { milliseconds: 5, limit: 25 };
        for (asked, expected) in [
            (json!({"since": 5}), last),
            (json!({"since": 5, "limit": null}), last),
            (json!({"since": 5, "limit": 1000}), last),
            (json!({"since": -5, "limit": -1}), Replay::Since { milliseconds: -5, limit: 1 }),
            (json!({"since": 5, "limit": "not a number"}), Replay::Invalid),
            (json!({"since": "5"}), Replay::Invalid),
            (json!({"since": 5.5}), Replay::Invalid),
            (json!({"since": 253_402_300_800_000_i64}), Replay::Invalid),
            (json!({}), Replay::Invalid),
        ] {
            let join = read(Some(json!({"config": {"broadcast": {"replay": asked.clone()}}})), "room");
            assert_eq!(join.broadcast.replay, Some(expected), "{asked}");
        }
    }

    #[test]
    fn the_token_is_the_one_realtime_takes() {
        for (payload, expected) in [
            (json!({"access_token": "a"}), Some("a")),
            (json!({"user_token": "u"}), Some("u")),
            (json!({"access_token": "a", "user_token": "u"}), Some("u")),
            (json!({"access_token": "sb_x"}), None),
            (json!({"access_token": "sb_x", "user_token": "u"}), None),
            (json!({"access_token": null, "user_token": "sb_x"}), None),
            (json!({"access_token": ""}), Some("")),
            (json!({}), None),
        ] {
            assert_eq!(read(Some(payload.clone()), "room").access_token.as_deref(), expected, "{payload}");
        }
    }

    #[test]
    fn keys_may_be_numbers() {
        let key = |key: Value| read(Some(json!({"config": {"presence": {"key": key}}})), "room").presence.key;
        assert_eq!((key(json!(123)), key(json!("a"))), (Some("123".to_owned()), Some("a".to_owned())));
    }

    #[test]
    fn without_a_config_the_name_says_the_table() {
        let join = read(Some(json!({"user_token": "t"})), "public:a:id=eq.1");
        assert!(join.old);
        let wanted = join.changes[0].wanted.as_ref().unwrap();
        assert_eq!((&wanted.schema[..], &wanted.table[..], wanted.filters.len()), ("public", "a", 1));
    }

    #[test]
    fn entries_have_an_end() {
        let many = vec![json!({"schema": "public"}); BINDINGS + 1];
        let join = read(Some(json!({"config": {"postgres_changes": many}})), "room");
        assert_eq!((join.changes.len(), join.faults.len()), (BINDINGS, 1));
    }
}
