//! Messages into frames. Sources: as of [`crate::realtime::read`].

use std::sync::OnceLock;

use bytes::Bytes;

use crate::realtime::frame::{Frame, Version, encoding, kind};
use crate::realtime::limits::NAME_BYTES;
use crate::realtime::message::{Broadcast, Content, Json, Message, Payload, Ref};

/// What a server says to a client; nothing if it cannot be said: bytes in version 1.0.0, or with names that are too long for a
/// binary frame. JSON with such names goes as text, where realtime loses it.
pub fn to_client(message: &Message, version: Version) -> Option<Frame> {
    match (version, &message.payload) {
        (Version::One, payload) => Some(Frame::Text(object(message, &text_of(payload)?, false))),
        (Version::Two, Payload::Json(json)) => Some(Frame::Text(array(message, json))),
        (Version::Two, Payload::Broadcast(broadcast)) => match binary(kind::BROADCAST, &[&message.topic], broadcast) {
            Some(bytes) => Some(Frame::Binary(bytes)),
            None => Some(Frame::Text(array(message, &text_of(&message.payload)?))),
        },
    }
}

/// What a client says to a server; for clients.
pub fn to_server(message: &Message, version: Version) -> Option<Frame> {
    match (version, &message.payload) {
        (Version::One, payload) => Some(Frame::Text(object(message, &text_of(payload)?, true))),
        (Version::Two, Payload::Json(json)) => Some(Frame::Text(array(message, json))),
        (Version::Two, Payload::Broadcast(broadcast)) => {
            let [join_ref, reference] =
                [&message.join_ref, &message.reference].map(|it| it.as_ref().map(Ref::text).unwrap_or_default());
            binary(kind::PUSH, &[&join_ref, &reference, &message.topic], broadcast).map(Frame::Binary)
        }
    }
}

/// One message for many receivers, some of whom speak version 1.0.0 and some 2.0.0. It is written once for each of them at most, by
/// whoever is the first to ask.
#[derive(Debug)]
pub struct Fanout {
    message: Message,
    one: OnceLock<Option<Frame>>,
    two: OnceLock<Option<Frame>>,
}

impl Fanout {
    pub fn new(message: Message) -> Self {
        Self { message, one: OnceLock::new(), two: OnceLock::new() }
    }

    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Its bytes are shared, not copied.
    pub fn frame(&self, version: Version) -> Option<Frame> {
        let written = match version {
            Version::One => &self.one,
            Version::Two => &self.two,
        };
        written.get_or_init(|| to_client(&self.message, version)).clone()
    }
}

fn object(message: &Message, payload: &Json, join_ref: bool) -> Bytes {
    let mut out = Vec::with_capacity(64 + message.topic.len() + message.event.len() + payload.len());
    out.extend_from_slice(b"{\"ref\":");
    reference(&mut out, message.reference.as_ref());
    if join_ref {
        out.extend_from_slice(b",\"join_ref\":");
        reference(&mut out, message.join_ref.as_ref());
    }
    out.extend_from_slice(b",\"topic\":");
    string(&mut out, &message.topic);
    out.extend_from_slice(b",\"event\":");
    string(&mut out, &message.event);
    out.extend_from_slice(b",\"payload\":");
    out.extend_from_slice(payload.bytes());
    out.push(b'}');
    out.into()
}

fn array(message: &Message, payload: &Json) -> Bytes {
    let mut out = Vec::with_capacity(32 + message.topic.len() + message.event.len() + payload.len());
    out.push(b'[');
    reference(&mut out, message.join_ref.as_ref());
    out.push(b',');
    reference(&mut out, message.reference.as_ref());
    out.push(b',');
    string(&mut out, &message.topic);
    out.push(b',');
    string(&mut out, &message.event);
    out.push(b',');
    out.extend_from_slice(payload.bytes());
    out.push(b']');
    out.into()
}

/// The kind, the lengths of the names, of the event and of the metadata, the encoding, and then all of them and the content.
fn binary(kind: u8, names: &[&str], broadcast: &Broadcast) -> Option<Bytes> {
    let meta = broadcast.meta.as_ref().map_or(&[][..], |meta| &meta.bytes()[..]);
    let names = || names.iter().map(|name| name.as_bytes()).chain([broadcast.event.as_bytes(), meta]);
    let (how, content) = match &broadcast.content {
        Content::Json(json) => (encoding::JSON, json.bytes()),
        Content::Binary(bytes) => (encoding::BINARY, bytes),
    };
    let mut out = Vec::with_capacity(8 + names().map(<[u8]>::len).sum::<usize>() + content.len());
    out.push(kind);
    for name in names() {
        out.push(u8::try_from(name.len()).ok()?);
    }
    const { assert!(NAME_BYTES == u8::MAX as usize) };
    out.push(how);
    names().for_each(|name| out.extend_from_slice(name));
    out.extend_from_slice(content);
    Some(out.into())
}

/// A payload as text has it: what stands beside each other in a binary frame is within each other there. Source: `user_broadcast.ex`.
pub(super) fn text_of(payload: &Payload) -> Option<Json> {
    let Broadcast { event, content, meta } = match payload {
        Payload::Json(json) => return Some(json.clone()),
        Payload::Broadcast(broadcast) => broadcast,
    };
    let Content::Json(content) = content else { return None };
    let mut out = Vec::with_capacity(64 + event.len() + content.len());
    out.extend_from_slice(b"{\"type\":\"broadcast\",\"event\":");
    string(&mut out, event);
    out.extend_from_slice(b",\"payload\":");
    out.extend_from_slice(content.bytes());
    if let Some(meta) = meta {
        out.extend_from_slice(b",\"meta\":");
        out.extend_from_slice(meta.bytes());
    }
    out.push(b'}');
    Some(Json::written(out))
}

fn reference(out: &mut Vec<u8>, reference: Option<&Ref>) {
    match reference {
        None => out.extend_from_slice(b"null"),
        Some(Ref::Text(text)) => string(out, text),
        Some(Ref::Number(number)) => out.extend_from_slice(number.to_string().as_bytes()),
    }
}

/// A text, quoted.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("texts are JSON, and a Vec takes all bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &'static str) -> Json {
        Json::read(&Bytes::from_static(text.as_bytes())).unwrap()
    }

    fn message(topic: &str, payload: Payload) -> Message {
        Message {
            join_ref: Some("1".into()),
            reference: None,
            topic: topic.to_owned(),
            event: "broadcast".to_owned(),
            payload,
        }
    }

    fn broadcast(content: Content, meta: Option<Json>) -> Payload {
        Payload::Broadcast(Broadcast { event: "e\"".to_owned(), content, meta })
    }

    /// Version 1.0.0, then 2.0.0.
    #[track_caller]
    fn check(message: &Message, one: Option<&str>, two: Option<&[u8]>) {
        let bytes = |frame: Frame| match frame {
            Frame::Text(bytes) | Frame::Binary(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        };
        let fanout = Fanout::new(message.clone());
        assert_eq!(fanout.frame(Version::One).map(bytes).as_deref(), one);
        assert_eq!(fanout.frame(Version::Two).map(bytes), two.map(|two| String::from_utf8_lossy(two).into_owned()));
    }

    #[test]
    fn each_version_is_written_as_its_clients_read_it() {
        check(
            &message("t\n", Payload::Json(json(r#"{"a": 1}"#))),
            Some(r#"{"ref":null,"topic":"t\n","event":"broadcast","payload":{"a": 1}}"#),
            Some(br#"["1",null,"t\n","broadcast",{"a": 1}]"#),
        );
        check(
            &message("t", broadcast(Content::Json(json("[1]")), Some(json(r#"{"id":"x"}"#)))),
            Some(
                r#"{"ref":null,"topic":"t","event":"broadcast","payload":{"type":"broadcast","event":"e\"","payload":[1],"meta":{"id":"x"}}}"#,
            ),
            Some(b"\x04\x01\x02\x0a\x01te\"{\"id\":\"x\"}[1]"),
        );
        check(
            &message("t", broadcast(Content::Binary(Bytes::from_static(b"\x00\x01")), None)),
            None,
            Some(b"\x04\x01\x02\x00\x00te\"\x00\x01"),
        );
    }

    #[test]
    fn names_that_are_too_long_for_a_binary_frame_go_as_text() {
        let long = "t".repeat(256);
        let two = format!(r#"["1",null,"{long}","broadcast",{{"type":"broadcast","event":"e\"","payload":[1]}}]"#);
        let sent = to_client(&message(&long, broadcast(Content::Json(json("[1]")), None)), Version::Two);
        assert_eq!(sent, Some(Frame::Text(two.into())));
        assert_eq!(to_client(&message(&long, broadcast(Content::Binary(Bytes::new()), None)), Version::Two), None);
        assert_eq!(to_server(&message(&long, broadcast(Content::Json(json("1")), None)), Version::Two), None);
    }

    #[test]
    fn a_message_for_many_is_written_once() {
        let fanout = Fanout::new(message("t", Payload::Json(json("{}"))));
        let (Some(Frame::Text(one)), Some(Frame::Text(other))) =
            (fanout.frame(Version::Two), fanout.frame(Version::Two))
        else {
            panic!("it is text");
        };
        assert_eq!(one.as_ptr(), other.as_ptr());
    }
}
