//! What a client wants. Sources: Phoenix's `lib/phoenix/socket.ex` (`handle_in`) and realtime's `realtime_channel.ex`.

use serde_json::Value;

use crate::realtime::join::{self, Join};
use crate::realtime::message::{Message, Payload};
use crate::realtime::presence;
use crate::realtime::topic::Topic;

#[derive(Debug, Clone, PartialEq)]
pub enum Inbound<'a> {
    /// Is answered with `ok`, whatever there is.
    Heartbeat,
    /// To the channel of the name.
    Join {
        name: &'a str,
        join: Box<Join>,
    },
    /// A join to a channel without a name, which is refused.
    Unnamed,
    /// Is answered with `ok`, whether one has joined or not.
    Leave,
    /// From here on everything is for a channel that was joined; where nobody has joined, it is
    /// [`crate::realtime::error::Declined::Unmatched`].
    ///
    /// A new token; it has no answer. Nothing, or a key of the project, changes nothing.
    Token(Option<String>),
    /// To be passed on as it is, whatever it says.
    Broadcast(&'a Payload),
    Presence(presence::Call),
    /// Nothing that we know, and without an answer.
    Unknown,
    /// For no channel of ours, whatever it wants.
    Unmatched,
}

/// Reads what a message wants.
pub fn read(message: &Message) -> Inbound<'_> {
    let name = match (Topic::read(&message.topic), &message.event[..]) {
        (Topic::Phoenix, "heartbeat") => return Inbound::Heartbeat,
        (Topic::Channel(name), _) => name,
        (Topic::Unnamed, "phx_join") => return Inbound::Unnamed,
        (_, "phx_leave") => return Inbound::Leave,
        (Topic::Phoenix | Topic::Unnamed | Topic::Unmatched, _) => return Inbound::Unmatched,
    };
    match (&message.event[..], &message.payload) {
        ("phx_join", payload) => Inbound::Join { name, join: Box::new(join::read(value(payload), name)) },
        ("phx_leave", _) => Inbound::Leave,
        ("broadcast", payload) => Inbound::Broadcast(payload),
        ("access_token", payload) => Inbound::Token(token(payload)),
        ("presence", Payload::Json(payload)) => Inbound::Presence(presence::call(payload)),
        _ => Inbound::Unknown,
    }
}

fn token(payload: &Payload) -> Option<String> {
    match value(payload)?.get_mut("access_token")?.take() {
        Value::String(token) if !join::is_key(&token) => Some(token),
        _ => None,
    }
}

fn value(payload: &Payload) -> Option<Value> {
    match payload {
        Payload::Json(json) => json.value(),
        Payload::Broadcast(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::realtime::message::{Broadcast, Content, Json};

    fn said(topic: &str, event: &str, payload: &str) -> String {
        let payload = Payload::Json(Json::read(&Bytes::copy_from_slice(payload.as_bytes())).unwrap());
        let message =
            Message { join_ref: None, reference: None, topic: topic.to_owned(), event: event.to_owned(), payload };
        match read(&message) {
            Inbound::Join { name, join } => format!("join {name} private={}", join.private),
            Inbound::Broadcast(Payload::Json(json)) => format!("broadcast {}", String::from_utf8_lossy(json.bytes())),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn messages_are_told_apart() {
        for (topic, event, payload, expected) in [
            ("phoenix", "heartbeat", "{}", "Heartbeat"),
            ("phoenix", "phx_leave", "{}", "Leave"),
            ("phoenix", "phx_join", "{}", "Unmatched"),
            ("realtime:room", "heartbeat", "{}", "Unknown"),
            ("realtime:room", "phx_join", r#"{"config":{"private":true}}"#, "join room private=true"),
            ("realtime:room", "phx_join", "7", "join room private=false"),
            ("realtime:", "phx_join", "{}", "Unnamed"),
            ("realtime:", "broadcast", "{}", "Unmatched"),
            ("other", "phx_join", "{}", "Unmatched"),
            ("other", "phx_leave", "{}", "Leave"),
            ("realtime:room", "phx_leave", "null", "Leave"),
            ("realtime:room", "broadcast", r#"{"event": 1}"#, r#"broadcast {"event": 1}"#),
            ("realtime:room", "broadcast", r#""x""#, r#"broadcast "x""#),
            ("realtime:room", "access_token", r#"{"access_token":"a.b.c"}"#, r#"Token(Some("a.b.c"))"#),
            ("realtime:room", "access_token", r#"{"access_token":""}"#, r#"Token(Some(""))"#),
            ("realtime:room", "access_token", r#"{"access_token":"sb_publishable_x"}"#, "Token(None)"),
            ("realtime:room", "access_token", r#"{"access_token":null}"#, "Token(None)"),
            ("realtime:room", "access_token", "[]", "Token(None)"),
            ("realtime:room", "presence", r#"{"event":"untrack"}"#, "Presence(Untrack)"),
            ("realtime:room", "phx_reply", "{}", "Unknown"),
        ] {
            assert_eq!(said(topic, event, payload), expected, "{topic} {event}");
        }
    }

    #[test]
    fn a_broadcast_of_bytes_is_a_broadcast() {
        let payload =
            Payload::Broadcast(Broadcast { event: "e".to_owned(), content: Content::Binary(Bytes::new()), meta: None });
        let message = Message {
            join_ref: None,
            reference: None,
            topic: "realtime:room".to_owned(),
            event: "broadcast".to_owned(),
            payload: payload.clone(),
        };
        assert_eq!(read(&message), Inbound::Broadcast(&payload));
    }
}
