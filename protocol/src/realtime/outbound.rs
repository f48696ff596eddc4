//! What a server says. Sources: Phoenix's `lib/phoenix/socket.ex` and `channel/server.ex`, realtime's `realtime_channel.ex`.
//!
//! After the reply to a join come, in this order: earlier broadcasts, `system` about the database, `system` when broadcasts from it
//! are listened to (if asked for), `presence_state`. Only then it is told of what happens; broadcasts may come before.

use serde_json::{Map, Value, json};

use crate::realtime::binding::{Binding, Operation};
use crate::realtime::change;
use crate::realtime::error::{Code, Declined, Refusal, Shutdown};
use crate::realtime::join::Join;
use crate::realtime::message::{Broadcast, Content, Json, Message, Payload, Ref};
use crate::realtime::position::Position;
use crate::realtime::{topic, write};

/// What a channel is to its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// With its prefix, as the client joined it.
    pub topic: String,
    /// Of the join; where a client gave none, the join's own reference stands for it.
    pub join_ref: Option<Ref>,
    /// What the client gave: by it, it knows that the channel is closed.
    pub given: Option<Ref>,
}

impl Address {
    /// Of a channel that is joined by this message.
    pub fn of(join: &Message) -> Self {
        let given = join.join_ref.clone();
        Self { topic: join.topic.clone(), join_ref: given.clone().or_else(|| join.reference.clone()), given }
    }

    /// Whether a `phx_leave` means this join. One that comes late means an earlier one, and is passed over without an answer.
    pub fn is_left_by(&self, leave: &Message) -> bool {
        leave.join_ref.is_none() || leave.join_ref == self.given
    }

    /// The name of the channel, which `system` says.
    pub fn name(&self) -> &str {
        match topic::Topic::read(&self.topic) {
            topic::Topic::Channel(name) => name,
            _ => &self.topic,
        }
    }

    /// An answer to a message.
    pub fn reply(&self, to: &Message, answer: Answer) -> Message {
        reply(to, self.join_ref.clone(), answer)
    }

    /// Something for this client alone.
    pub fn push(&self, event: &str, payload: Json) -> Message {
        Message {
            join_ref: self.join_ref.clone(),
            reference: None,
            topic: self.topic.clone(),
            event: event.to_owned(),
            payload: Payload::Json(payload),
        }
    }

    pub fn system(&self, system: &System) -> Message {
        self.push("system", system.payload(self.name()))
    }

    /// Why the channel is closed; [`Address::close`] follows.
    pub fn shutdown(&self, why: &Shutdown) -> Message {
        self.system(&System::Shutdown(why))
    }

    /// A state that [`crate::realtime::presence::state`] wrote.
    pub fn presence_state(&self, state: Json) -> Message {
        self.push("presence_state", state)
    }

    /// The channel is closed, and its client does not come back by itself.
    pub fn close(&self) -> Message {
        self.end("phx_close", Json::empty())
    }

    /// The channel failed, and its client joins again.
    pub fn error(&self) -> Message {
        self.end("phx_error", Json::of(&json!({ "reason": "channel_crash" })))
    }

    fn end(&self, event: &str, payload: Json) -> Message {
        Message {
            join_ref: self.given.clone(),
            reference: self.given.clone(),
            topic: self.topic.clone(),
            event: event.to_owned(),
            payload: Payload::Json(payload),
        }
    }

    /// An earlier broadcast for this client alone. JSON goes as text, whatever the client speaks.
    pub fn replayed(&self, event: &str, content: Content, meta: &Meta) -> Message {
        let message = broadcast(&self.topic, event, content, Some(meta));
        let payload = write::text_of(&message.payload).map_or(message.payload, Payload::Json);
        Message { join_ref: self.join_ref.clone(), payload, ..message }
    }
}

/// What a reply says.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Ok,
    Joined(Json),
    Refused(Refusal),
    Declined(Declined),
}

impl Answer {
    /// A join that succeeded: its entries with their ids.
    pub fn joined(join: &Join) -> Self {
        let entries: Vec<Value> = join.changes.iter().map(Binding::echo).collect();
        Self::Joined(Json::of(&json!({ "postgres_changes": entries })))
    }
}

/// An answer where nobody has joined: to a heartbeat, to a join that is refused, to what is for no channel.
pub fn answer(to: &Message, answer: Answer) -> Message {
    let join_ref = match (&to.event[..], &answer) {
        // Phoenix leaves it out.
        ("heartbeat", _) | (_, Answer::Declined(Declined::Unmatched)) => None,
        _ => to.join_ref.clone(),
    };
    reply(to, join_ref, answer)
}

fn reply(to: &Message, join_ref: Option<Ref>, answer: Answer) -> Message {
    let (status, response) = match answer {
        Answer::Ok => ("ok", Json::empty()),
        Answer::Joined(response) => ("ok", response),
        Answer::Refused(refusal) => ("error", Json::of(&json!({ "reason": refusal.reason() }))),
        Answer::Declined(declined) => ("error", declined.response()),
    };
    let mut out = format!("{{\"status\":\"{status}\",\"response\":").into_bytes();
    out.extend_from_slice(response.bytes());
    out.push(b'}');
    Message {
        join_ref,
        reference: to.reference.clone(),
        topic: to.topic.clone(),
        event: "phx_reply".to_owned(),
        payload: Payload::Json(Json::written(out)),
    }
}

/// What `system` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum System<'a> {
    /// Changes are listened to; ours: from this position on.
    Subscribed {
        position: Option<Position>,
    },
    /// Changes are not listened to; the words of [`crate::realtime::binding`].
    NotSubscribed(&'a str),
    /// Broadcasts from the database are listened to.
    Ready,
    /// The node closes all its connections.
    Disconnect,
    Shutdown(&'a Shutdown),
    /// Ours: what came after the position is not kept any more, so the client fetches again. It hears what comes from here on.
    TooOld {
        since: Position,
        position: Option<Position>,
    },
    /// Ours: a `since` that is no position. The client hears what comes from here on.
    Unreadable {
        position: Option<Position>,
    },
}

impl System<'_> {
    fn payload(&self, name: &str) -> Json {
        let (extension, status, message, position) = match self {
            Self::Subscribed { position } => {
                ("postgres_changes", "ok", "Subscribed to PostgreSQL".to_owned(), *position)
            }
            Self::NotSubscribed(why) => ("postgres_changes", "error", (*why).to_owned(), None),
            Self::Ready => ("system", "ok", "Replication connection established".to_owned(), None),
            Self::Disconnect => ("system", "ok", "Server requested disconnect".to_owned(), None),
            Self::Shutdown(why) => ("system", "error", why.to_string(), None),
            Self::TooOld { since, position } => {
                let message = format!(
                    "{}: What came after {since} is not kept any more, please fetch again",
                    Code::PositionTooOld.text()
                );
                ("since", "error", message, *position)
            }
            Self::Unreadable { position } => {
                let message = format!("{}: `since` is not a position", Code::PositionUnreadable.text());
                ("since", "error", message, *position)
            }
        };
        let mut payload = Map::new();
        payload.insert("extension".to_owned(), extension.into());
        payload.insert("status".to_owned(), status.into());
        payload.insert("message".to_owned(), message.into());
        payload.insert("channel".to_owned(), name.into());
        if let Some(position) = position {
            payload.insert("position".to_owned(), position.to_string().into());
        }
        Json::of(&Value::Object(payload))
    }
}

/// What the server says about a broadcast that is in the database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Of its row; who has had it replayed is not sent it again.
    pub id: Option<String>,
    pub replayed: bool,
    /// Ours: where it stands.
    pub position: Option<Position>,
}

impl Meta {
    pub fn json(&self) -> Json {
        let mut meta = Map::new();
        if self.replayed {
            meta.insert("replayed".to_owned(), true.into());
        }
        if let Some(id) = &self.id {
            meta.insert("id".to_owned(), id.as_str().into());
        }
        if let Some(position) = self.position {
            meta.insert("position".to_owned(), position.to_string().into());
        }
        Json::of(&Value::Object(meta))
    }
}

/// A broadcast for all of a channel, from the database or by HTTP.
pub fn broadcast(topic: &str, event: &str, content: Content, meta: Option<&Meta>) -> Message {
    let meta = meta.map(Meta::json);
    for_all(topic, "broadcast", Payload::Broadcast(Broadcast { event: event.to_owned(), content, meta }))
}

/// A client's broadcast for all of its channel: what it sent, without what only the server may say of it.
pub fn relayed(topic: &str, payload: &Payload) -> Message {
    let payload = match payload {
        Payload::Json(json) => Payload::Json(json.clone()),
        Payload::Broadcast(broadcast) => Payload::Broadcast(Broadcast { meta: None, ..broadcast.clone() }),
    };
    for_all(topic, "broadcast", payload)
}

/// A diff that [`crate::realtime::presence::diff`] wrote, for all of a channel.
pub fn presence_diff(topic: &str, diff: Json) -> Message {
    for_all(topic, "presence_diff", Payload::Json(diff))
}

/// A change that [`crate::realtime::change::data`] wrote, for all who joined with the same entries.
pub fn changed(topic: &str, ids: &[u32], data: &Json) -> Message {
    for_all(topic, "postgres_changes", Payload::Json(change::payload(ids, data)))
}

/// A change for who joined in the old manner.
pub fn changed_old(topic: &str, operation: Operation, data: &Json) -> Message {
    for_all(topic, operation.text(), Payload::Json(data.clone()))
}

fn for_all(topic: &str, event: &str, payload: Payload) -> Message {
    Message { join_ref: None, reference: None, topic: topic.to_owned(), event: event.to_owned(), payload }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::realtime::frame::{Frame, Version};
    use crate::realtime::{inbound, read};

    fn from_client(text: &str) -> Message {
        read::from_client(&Frame::Text(Bytes::copy_from_slice(text.as_bytes())), Version::Two).unwrap()
    }

    fn said(message: &Message) -> String {
        let Some(Frame::Text(bytes) | Frame::Binary(bytes)) = write::to_client(message, Version::Two) else {
            panic!("it can be said");
        };
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn joined() -> (Message, Address) {
        let join = from_client(r#"["1","2","realtime:room","phx_join",{}]"#);
        let address = Address::of(&join);
        (join, address)
    }

    #[test]
    fn replies_are_those_of_phoenix() {
        let (join, address) = joined();
        let heartbeat = from_client(r#"["7","3","phoenix","heartbeat",{}]"#);
        let stale = from_client(r#"["0","9","realtime:room","presence",{}]"#);
        for (message, expected) in [
            (answer(&heartbeat, Answer::Ok), r#"[null,"3","phoenix","phx_reply",{"status":"ok","response":{}}]"#),
            (
                answer(&join, Answer::Refused(Refusal::NoName)),
                r#"["1","2","realtime:room","phx_reply",{"status":"error","response":{"reason":"TopicNameRequired: You must provide a topic name"}}]"#,
            ),
            (
                answer(&join, Answer::Declined(Declined::Unmatched)),
                r#"[null,"2","realtime:room","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#,
            ),
            (
                address.reply(&stale, Answer::Ok),
                r#"["1","9","realtime:room","phx_reply",{"status":"ok","response":{}}]"#,
            ),
            (
                address.reply(&stale, Answer::Declined(Declined::TooLarge)),
                r#"["1","9","realtime:room","phx_reply",{"status":"error","response":"payload_size_exceeded"}]"#,
            ),
            (
                address.reply(&stale, Answer::Declined(Declined::NotAnObject)),
                r#"["1","9","realtime:room","phx_reply",{"status":"error","response":{"reason":"Presence track payload must be a map"}}]"#,
            ),
            (
                address.reply(&stale, Answer::Declined(Declined::Presence)),
                r#"["1","9","realtime:room","phx_reply",{"status":"error","response":{}}]"#,
            ),
            (address.close(), r#"["1","1","realtime:room","phx_close",{}]"#),
            (address.error(), r#"["1","1","realtime:room","phx_error",{"reason":"channel_crash"}]"#),
        ] {
            assert_eq!(said(&message), expected);
        }
    }

    #[test]
    fn a_join_is_answered_with_its_entries() {
        let join = from_client(
            r#"["1","1","realtime:room","phx_join",{"config":{"postgres_changes":[{"event":"*","schema":"public","table":"a","filter":"id=eq.1"}]}}]"#,
        );
        let inbound::Inbound::Join { join: config, .. } = inbound::read(&join) else { panic!("it is a join") };
        let id = config.changes[0].id;
        assert_eq!(
            said(&Address::of(&join).reply(&join, Answer::joined(&config))),
            format!(
                r#"["1","1","realtime:room","phx_reply",{{"status":"ok","response":{{"postgres_changes":[{{"event":"*","schema":"public","table":"a","filter":"id=eq.1","id":{id}}}]}}}}]"#
            )
        );
        assert_eq!(
            said(&answer(&join, Answer::joined(&Join::default()))),
            r#"["1","1","realtime:room","phx_reply",{"status":"ok","response":{"postgres_changes":[]}}]"#
        );
    }

    #[test]
    fn a_join_without_a_join_reference_has_its_own() {
        let join = from_client(r#"[null,"2","realtime:room","phx_join",{}]"#);
        let address = Address::of(&join);
        assert_eq!(said(&address.push("e", Json::empty())), r#"["2",null,"realtime:room","e",{}]"#);
        assert_eq!(said(&address.close()), r#"[null,null,"realtime:room","phx_close",{}]"#);
        let leave = |reference: &str| from_client(&format!(r#"[{reference},"5","realtime:room","phx_leave",{{}}]"#));
        assert!(address.is_left_by(&leave("null")) && !address.is_left_by(&leave("\"1\"")));
        let (_, address) = joined();
        assert!(address.is_left_by(&leave("null")) && address.is_left_by(&leave("\"1\"")));
        assert!(!address.is_left_by(&leave("\"0\"")));
    }

    #[test]
    fn system_says_how_it_stands() {
        let (_, address) = joined();
        let position = Position { batch: 3, id: 4 };
        let (token, wrong) = (Shutdown::Token(crate::realtime::error::Token::Expired { ago: 0 }), "Error parsing");
        for (system, expected) in [
            (
                System::Subscribed { position: None },
                r#"{"extension":"postgres_changes","status":"ok","message":"Subscribed to PostgreSQL","channel":"room"}"#,
            ),
            (
                System::Subscribed { position: Some(position) },
                r#"{"extension":"postgres_changes","status":"ok","message":"Subscribed to PostgreSQL","channel":"room","position":"3.4"}"#,
            ),
            (
                System::NotSubscribed(wrong),
                r#"{"extension":"postgres_changes","status":"error","message":"Error parsing","channel":"room"}"#,
            ),
            (
                System::Ready,
                r#"{"extension":"system","status":"ok","message":"Replication connection established","channel":"room"}"#,
            ),
            (
                System::Shutdown(&token),
                r#"{"extension":"system","status":"error","message":"Token has expired 0 seconds ago","channel":"room"}"#,
            ),
            (
                System::TooOld { since: Position { batch: 1, id: 2 }, position: Some(position) },
                r#"{"extension":"since","status":"error","message":"PositionTooOld: What came after 1.2 is not kept any more, please fetch again","channel":"room","position":"3.4"}"#,
            ),
            (
                System::Unreadable { position: None },
                r#"{"extension":"since","status":"error","message":"PositionUnreadable: `since` is not a position","channel":"room"}"#,
            ),
        ] {
            assert_eq!(said(&address.system(&system)), format!(r#"["1",null,"realtime:room","system",{expected}]"#));
        }
    }

    #[test]
    fn broadcasts_are_for_all() {
        let (_, address) = joined();
        let content = || Content::Json(Json::of(&json!({ "a": 1 })));
        let meta = Meta { id: Some("x".to_owned()), replayed: true, position: Some(Position { batch: 1, id: 2 }) };
        assert_eq!(
            said(&broadcast("realtime:room", "e", content(), None)),
            "\u{4}\u{d}\u{1}\u{0}\u{1}realtime:roome{\"a\":1}"
        );
        assert_eq!(
            said(&address.replayed("e", content(), &meta)),
            r#"["1",null,"realtime:room","broadcast",{"type":"broadcast","event":"e","payload":{"a":1},"meta":{"replayed":true,"id":"x","position":"1.2"}}]"#
        );
        assert_eq!(
            said(&address.replayed("e", Content::Binary(Bytes::from_static(b"b")), &meta)),
            "\u{4}\u{d}\u{1}\u{2b}\u{0}realtime:roome{\"replayed\":true,\"id\":\"x\",\"position\":\"1.2\"}b"
        );
        let forged =
            Payload::Broadcast(Broadcast { event: "e".to_owned(), content: content(), meta: Some(meta.json()) });
        assert_eq!(relayed("realtime:room", &forged), broadcast("realtime:room", "e", content(), None));
        let data = Json::empty();
        assert_eq!(
            said(&changed("realtime:room", &[1], &data)),
            r#"[null,null,"realtime:room","postgres_changes",{"ids":[1],"data":{}}]"#
        );
        assert_eq!(
            said(&changed_old("realtime:room", Operation::Insert, &data)),
            r#"[null,null,"realtime:room","INSERT",{}]"#
        );
    }
}
