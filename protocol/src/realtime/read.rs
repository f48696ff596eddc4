//! Frames into messages. Sources: Phoenix's `v1_json_serializer.ex` and `message.ex`, realtime's `socket/v2_serializer.ex`, realtime-js's
//! `serializer.ts`.
//!
//! What cannot be read is no answer's worth: realtime notes it and keeps the connection, and so should who calls this.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::realtime::frame::{Frame, Version, encoding, kind};
use crate::realtime::limits::NAME_BYTES;
use crate::realtime::message::{Broadcast, Content, Json, Message, Payload, Ref};

/// Why a frame is not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("{0}")]
    Json(String),
    #[error("a reference is longer than {NAME_BYTES} bytes")]
    Reference,
    #[error("a binary frame on a connection that speaks version 1.0.0")]
    Binary,
    #[error("a binary frame of kind {0:?}")]
    Kind(Option<u8>),
    #[error("a binary frame ends too early")]
    Short,
    #[error("a name in a binary frame is not UTF-8")]
    Name,
    #[error("the payload of a binary frame is not JSON")]
    Payload,
}

/// What a client said.
pub fn from_client(frame: &Frame, version: Version) -> Result<Message, Malformed> {
    let message = match (frame, version) {
        (Frame::Text(text), Version::One) => object(text)?,
        (Frame::Text(text), Version::Two) => array(text)?,
        (Frame::Binary(_), Version::One) => return Err(Malformed::Binary),
        (Frame::Binary(bytes), Version::Two) => push(bytes)?,
    };
    let long = |reference: &Option<Ref>| reference.as_ref().is_some_and(|it| it.text().len() > NAME_BYTES);
    if long(&message.join_ref) || long(&message.reference) {
        return Err(Malformed::Reference);
    }
    Ok(message)
}

/// What a server said; for clients.
pub fn from_server(frame: &Frame, version: Version) -> Result<Message, Malformed> {
    match (frame, version) {
        (Frame::Text(text), Version::One) => object(text),
        (Frame::Text(text), Version::Two) => array(text),
        (Frame::Binary(_), Version::One) => Err(Malformed::Binary),
        (Frame::Binary(bytes), Version::Two) => broadcast(bytes),
    }
}

fn object(text: &Bytes) -> Result<Message, Malformed> {
    #[derive(Deserialize)]
    struct Object<'a> {
        join_ref: Option<Ref>,
        /// It has to be there, and may be null.
        #[serde(rename = "ref", deserialize_with = "Option::deserialize")]
        reference: Option<Ref>,
        #[serde(borrow)]
        topic: Cow<'a, str>,
        #[serde(borrow)]
        event: Cow<'a, str>,
        #[serde(borrow)]
        payload: &'a RawValue,
    }
    let object: Object = serde_json::from_slice(text).map_err(|error| Malformed::Json(error.to_string()))?;
    Ok(Message {
        join_ref: object.join_ref,
        reference: object.reference,
        topic: object.topic.into_owned(),
        event: object.event.into_owned(),
        payload: Payload::Json(Json::part(text, object.payload)),
    })
}

fn array(text: &Bytes) -> Result<Message, Malformed> {
    let array: Array = serde_json::from_slice(text).map_err(|error| Malformed::Json(error.to_string()))?;
    Ok(Message {
        join_ref: array.join_ref,
        reference: array.reference,
        topic: array.topic.0.into_owned(),
        event: array.event.0.into_owned(),
        payload: Payload::Json(Json::part(text, array.payload)),
    })
}

struct Array<'a> {
    join_ref: Option<Ref>,
    reference: Option<Ref>,
    topic: Text<'a>,
    event: Text<'a>,
    payload: &'a RawValue,
}

/// A text that borrows if it can; `Cow` by itself always copies.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Array<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Array<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("V2 array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Array<'de>, A::Error> {
                let short = || A::Error::custom("expected V2 array of five");
                let array = Array {
                    join_ref: items.next_element()?.ok_or_else(short)?,
                    reference: items.next_element()?.ok_or_else(short)?,
                    topic: items.next_element()?.ok_or_else(short)?,
                    event: items.next_element()?.ok_or_else(short)?,
                    payload: items.next_element()?.ok_or_else(short)?,
                };
                // Phoenix passes over what comes after.
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(array)
            }
        }
        deserializer.deserialize_seq(Reader)
    }
}

fn push(bytes: &Bytes) -> Result<Message, Malformed> {
    let (mut rest, [join_ref, reference, topic, event, meta, how]) = head(bytes, kind::PUSH)?;
    Ok(Message {
        join_ref: reference_of(name(&mut rest, join_ref)?),
        reference: reference_of(name(&mut rest, reference)?),
        topic: name(&mut rest, topic)?,
        event: "broadcast".to_owned(),
        payload: Payload::Broadcast(content(rest, event, meta, how)?),
    })
}

fn broadcast(bytes: &Bytes) -> Result<Message, Malformed> {
    let (mut rest, [topic, event, meta, how]) = head(bytes, kind::BROADCAST)?;
    Ok(Message {
        join_ref: None,
        reference: None,
        topic: name(&mut rest, topic)?,
        event: "broadcast".to_owned(),
        payload: Payload::Broadcast(content(rest, event, meta, how)?),
    })
}

/// The kind, and the `N` bytes after it.
fn head<const N: usize>(bytes: &Bytes, expected: u8) -> Result<(Bytes, [u8; N]), Malformed> {
    match bytes.first() {
        Some(kind) if *kind == expected => {}
        other => return Err(Malformed::Kind(other.copied())),
    }
    let lengths = bytes.get(1..=N).and_then(|lengths| lengths.try_into().ok()).ok_or(Malformed::Short)?;
    Ok((bytes.slice(1 + N..), lengths))
}

/// The event, the metadata and the payload, which follow each other in both kinds.
fn content(mut rest: Bytes, event: u8, meta: u8, how: u8) -> Result<Broadcast, Malformed> {
    let event = name(&mut rest, event)?;
    let meta = match take(&mut rest, meta)? {
        meta if meta.is_empty() => None,
        meta => Some(Json::read(&meta).ok_or(Malformed::Payload)?),
    };
    let content = match how {
        encoding::BINARY => Content::Binary(rest),
        _ => Content::Json(Json::read(&rest).ok_or(Malformed::Payload)?),
    };
    Ok(Broadcast { event, content, meta })
}

fn take(rest: &mut Bytes, length: u8) -> Result<Bytes, Malformed> {
    let length = usize::from(length);
    if rest.len() < length { Err(Malformed::Short) } else { Ok(rest.split_to(length)) }
}

fn name(rest: &mut Bytes, length: u8) -> Result<String, Malformed> {
    String::from_utf8(take(rest, length)?.into()).map_err(|_| Malformed::Name)
}

/// realtime-js writes nothing where it has none.
fn reference_of(text: String) -> Option<Ref> {
    Some(text).filter(|text| !text.is_empty()).map(|text| Ref::Text(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Frame {
        Frame::Text(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn said(frame: &Frame, version: Version) -> String {
        match from_client(frame, version) {
            Ok(message) => {
                let refs = [&message.join_ref, &message.reference].map(|it| match it {
                    None => "-".to_owned(),
                    Some(Ref::Text(text)) => text.to_string(),
                    Some(Ref::Number(number)) => format!("#{number}"),
                });
                let payload = match &message.payload {
                    Payload::Json(json) => String::from_utf8_lossy(json.bytes()).into_owned(),
                    Payload::Broadcast(Broadcast { event, content, meta }) => format!("{event} {content:?} {meta:?}"),
                };
                format!("{} {} {} {} {payload}", refs[0], refs[1], message.topic, message.event)
            }
            Err(malformed) => format!("{malformed:?}"),
        }
    }

    #[test]
    fn objects_are_read() {
        for (frame, expected) in [
            (r#"{"topic":"t","event":"e","payload":{"a": 1},"ref":"1","join_ref":"2"}"#, r#"2 1 t e {"a": 1}"#),
            (r#" {"ref":null,"payload":"x","event":"e\n","topic":"é\u0041"} "#, "- - éA e\n \"x\""),
            (r#"{"topic":"t","event":"e","payload":null,"ref":7,"more":[1]}"#, "- #7 t e null"),
        ] {
            assert_eq!(said(&text(frame), Version::One), expected);
        }
        for wrong in [
            "",
            "[]",
            "nope",
            r#"{"topic":"t","event":"e","payload":{}}"#,
            r#"{"topic":"t","event":"e","ref":"1"}"#,
            r#"{"topic":null,"event":"e","payload":{},"ref":"1"}"#,
            r#"{"topic":"t","event":"e","payload":{},"ref":{}}"#,
            r#"{"topic":"t","event":"e","payload":{},"ref":"1"} x"#,
        ] {
            assert!(from_client(&text(wrong), Version::One).is_err(), "{wrong}");
        }
        assert_eq!(from_client(&Frame::Binary(Bytes::new()), Version::One), Err(Malformed::Binary));
    }

    #[test]
    fn arrays_are_read() {
        for (frame, expected) in [
            (r#"["1","2","t","e",{"a":[1,2]}]"#, r#"1 2 t e {"a":[1,2]}"#),
            (r#"[null,null,"phoenix","heartbeat",{}]"#, "- - phoenix heartbeat {}"),
            (r#"[1, -2,"t","e", 3 ,{"more":true},4]"#, "#1 #-2 t e 3"),
        ] {
            assert_eq!(said(&text(frame), Version::Two), expected);
        }
        let long = format!(r#"["{}",null,"t","e",{{}}]"#, "1".repeat(256));
        for wrong in
            ["", "{}", "[]", r#"["1","2","t","e"]"#, r#"[[],null,"t","e",{}]"#, r#"[1e300,null,"t","e",{}]"#, &long]
        {
            assert!(from_client(&text(wrong), Version::Two).is_err(), "{wrong}");
        }
    }

    #[test]
    fn binary_frames_are_read() {
        for (bytes, expected) in [
            (
                &b"\x03\x01\x01\x01\x05\x00\x0112tevent{\"a\":1}"[..],
                "1 2 t broadcast event Json(Json(b\"{\\\"a\\\":1}\")) None",
            ),
            (b"\x03\x00\x00\x01\x01\x00\x00te\xff\x00", "- - t broadcast e Binary(b\"\\xff\\0\") None"),
            (b"\x03\x00\x00\x01\x01\x02\x00te{}", "- - t broadcast e Binary(b\"\") Some(Json(b\"{}\"))"),
            (b"\x03\x00\x00\x01\x01\x00\x01te{", "Payload"),
            (b"\x03\x00\x00\x01\x01\x01\x00te{", "Payload"),
            (b"\x03\x00\x00\x01\x01\x00\x01te", "Payload"),
            (b"\x03\x00\x00\x01\x01\x00\x00t", "Short"),
            (b"\x03\x00\x00\x01\x01\x00", "Short"),
            (b"\x03\x00\x00\x01\x01\x00\x00\xffe", "Name"),
            (b"\x00\x00\x00\x01\x01te", "Kind(Some(0))"),
            (b"\x04\x01\x01\x00\x00te", "Kind(Some(4))"),
            (b"", "Kind(None)"),
        ] {
            assert_eq!(said(&Frame::Binary(Bytes::from_static(bytes)), Version::Two), expected);
        }
    }

    #[test]
    fn a_payload_is_not_copied() {
        let Frame::Text(bytes) = text(r#"[null,null,"t","broadcast",{"a":1}]"#) else { unreachable!() };
        let Ok(Message { payload: Payload::Json(json), .. }) = array(&bytes) else { panic!("it is an array") };
        assert_eq!(json.bytes().as_ptr(), bytes[bytes.len() - 8..].as_ptr());
    }
}
