//! What holds for all messages: what was written is read as it was, and nothing that comes breaks a parser.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;

use crate::realtime::frame::{Frame, Version};
use crate::realtime::limits::{Limits, NAME_BYTES};
use crate::realtime::message::{Broadcast, Content, Json, Message, Payload, Ref};
use crate::realtime::{filter, http, inbound, outbound, read, write};

const VERSIONS: [Version; 2] = [Version::One, Version::Two];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec(("[a-z_]{1,8}", inner), 0..4).prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn json() -> impl Strategy<Value = Json> {
    value().prop_map(|value| Json::of(&value))
}

fn reference() -> impl Strategy<Value = Option<Ref>> {
    option::of(prop_oneof!["\\PC{1,12}".prop_map(|text| Ref::Text(text.into())), any::<i64>().prop_map(Ref::Number),])
}

fn text(message: (Option<Ref>, Option<Ref>, String, String, Json)) -> Message {
    let (join_ref, reference, topic, event, payload) = message;
    Message { join_ref, reference, topic, event, payload: Payload::Json(payload) }
}

fn text_message() -> impl Strategy<Value = Message> {
    (reference(), reference(), any::<String>(), "\\PC{0,12}", json()).prop_map(text)
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![json().prop_map(Content::Json), vec(any::<u8>(), 0..64).prop_map(|bytes| Content::Binary(bytes.into()))]
}

/// With references as a binary frame has them.
fn binary_message() -> impl Strategy<Value = Message> {
    let reference = || option::of("[0-9]{1,6}".prop_map(|text| Ref::Text(text.into())));
    let meta = option::of(vec(("[a-z]{1,8}", any::<i32>()), 1..3)).prop_map(|entries| {
        entries.map(|entries| {
            Json::of(&Value::Object(entries.into_iter().map(|(key, value)| (key, value.into())).collect()))
        })
    });
    (reference(), reference(), "\\PC{0,60}", "\\PC{0,60}", content(), meta).prop_map(
        |(join_ref, reference, topic, event, content, meta)| Message {
            join_ref,
            reference,
            topic,
            event: "broadcast".to_owned(),
            payload: Payload::Broadcast(Broadcast { event, content, meta }),
        },
    )
}

proptest! {
    #[test]
    fn a_client_is_understood(message in text_message()) {
        for version in VERSIONS {
            let frame = write::to_server(&message, version).unwrap();
            prop_assert_eq!(&read::from_client(&frame, version), &Ok(message.clone()));
        }
    }

    #[test]
    fn a_server_is_understood(message in text_message()) {
        let frame = |version| write::to_client(&message, version).unwrap();
        prop_assert_eq!(&read::from_server(&frame(Version::Two), Version::Two), &Ok(message.clone()));
        let one = Message { join_ref: None, ..message.clone() };
        prop_assert_eq!(read::from_server(&frame(Version::One), Version::One), Ok(one));
    }

    #[test]
    fn binary_frames_are_understood(message in binary_message()) {
        prop_assume!(message.topic.len() <= NAME_BYTES);
        let Payload::Broadcast(broadcast) = &message.payload else { unreachable!() };
        prop_assume!(broadcast.event.len() <= NAME_BYTES);
        let frame = write::to_server(&message, Version::Two).unwrap();
        prop_assert_eq!(read::from_client(&frame, Version::Two), Ok(message.clone()));
        let frame = write::to_client(&message, Version::Two).unwrap();
        let expected = Message { join_ref: None, reference: None, ..message.clone() };
        prop_assert_eq!(read::from_server(&frame, Version::Two), Ok(expected));
        // Version 1.0.0 says the same in a text, if it is one.
        let frame = write::to_client(&message, Version::One);
        prop_assert_eq!(frame.is_some(), matches!(broadcast.content, Content::Json(_)));
        if let (Some(frame), Content::Json(content)) = (frame, &broadcast.content) {
            let Ok(Message { payload: Payload::Json(payload), .. }) = read::from_server(&frame, Version::One) else {
                panic!("it is a text");
            };
            let payload = payload.value().unwrap();
            prop_assert_eq!(&payload["payload"], &content.value().unwrap());
            prop_assert_eq!(payload["event"].as_str(), Some(&broadcast.event[..]));
            prop_assert_eq!(payload.get("meta").cloned(), broadcast.meta.as_ref().map(|meta| meta.value().unwrap()));
        }
    }

    #[test]
    fn nothing_breaks_the_readers(bytes in vec(any::<u8>(), 0..80), kind in 0_u8..5) {
        let mut binary = bytes.clone();
        binary.insert(0, kind);
        for bytes in [Bytes::from(bytes), Bytes::from(binary)] {
            for version in VERSIONS {
                for frame in [Frame::Text(bytes.clone()), Frame::Binary(bytes.clone())] {
                    let _ = read::from_server(&frame, version);
                    if let Ok(message) = read::from_client(&frame, version) {
                        let _ = inbound::read(&message);
                    }
                }
            }
            let _ = http::many(&bytes, &Limits::default());
        }
    }

    #[test]
    fn any_payload_is_some_wish(payload in value(), event in "phx_join|phx_leave|presence|access_token|broadcast|\\PC{0,5}", name in "\\PC{0,5}") {
        let topic = format!("realtime:{name}");
        let message = text((None, None, topic, event, Json::of(&payload)));
        if let inbound::Inbound::Join { join, .. } = inbound::read(&message) {
            let reply = outbound::answer(&message, outbound::Answer::joined(&join));
            prop_assert!(VERSIONS.iter().all(|version| write::to_client(&reply, *version).is_some()));
        }
    }

    #[test]
    fn joins_are_answered_whatever_they_ask(entries in vec(vec(("event|schema|table|filter|select|since|id", value()), 0..5), 0..4)) {
        let entries: Vec<Value> = entries.into_iter().map(|entry| Value::Object(entry.into_iter().collect())).collect();
        let payload = serde_json::json!({ "config": { "postgres_changes": entries } });
        let message = text((None, None, "realtime:room".to_owned(), "phx_join".to_owned(), Json::of(&payload)));
        let inbound::Inbound::Join { join, .. } = inbound::read(&message) else { panic!("it is a join") };
        prop_assert_eq!(join.changes.len(), entries.len());
        for (binding, entry) in join.changes.iter().zip(&entries) {
            let mut echo = binding.echo();
            prop_assert_eq!(&echo["id"], &Value::from(binding.id));
            echo.as_object_mut().unwrap().insert("id".to_owned(), entry.get("id").cloned().unwrap_or_default());
            let mut entry = entry.clone();
            entry.as_object_mut().unwrap().entry("id").or_insert(Value::Null);
            prop_assert_eq!(echo, entry);
        }
    }

    #[test]
    fn a_filter_is_read_as_realtime_js_writes_it(column in "[a-z_]{1,8}", values in vec("\\PC{0,12}", 1..4), negated in any::<bool>()) {
        // RealtimePostgresFilterBuilder.ts
        let said = |value: &str| {
            if value.contains([',', '(', ')', '"', '\\']) || value != value.trim() {
                format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
            } else {
                value.to_owned()
            }
        };
        let not = if negated { "not." } else { "" };
        let written: Vec<_> = values.iter().map(|value| format!("{column}={not}eq.{}", said(value))).collect();
        let read: Vec<_> = filter::read(&written.join(",")).unwrap();
        prop_assert_eq!(read.len(), values.len());
        for (filter, value) in read.iter().zip(&values) {
            prop_assert_eq!((&filter.column, filter.negated, filter.value.literal()), (&column, negated, &value[..]));
        }
    }

    #[test]
    fn nothing_breaks_a_filter(text in "(\\PC|[a-z=.,()\"\\\\]){0,40}") {
        let _ = filter::read(&text);
    }
}
