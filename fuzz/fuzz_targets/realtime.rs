//! A message to realtime: a byte for the version and the kind of frame, then the frame. What is understood is said again, by a server
//! and by a client, and has to be understood as the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ntier_protocol::realtime::filter::verdict::{self, Kind};
use ntier_protocol::realtime::frame::{Frame, Version};
use ntier_protocol::realtime::inbound::{self, Inbound};
use ntier_protocol::realtime::limits::Limits;
use ntier_protocol::realtime::message::{Content, Message, Payload};
use ntier_protocol::realtime::outbound::{self, Address, Answer};
use ntier_protocol::realtime::presence::{self, Call, Meta};
use ntier_protocol::realtime::{filter, http, read, write};

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let body = Bytes::copy_from_slice(rest);
    let _ = http::many(&body, &Limits::default());
    let version = if first & 1 == 0 { Version::One } else { Version::Two };
    let frame = if first & 2 == 0 { Frame::Text(body) } else { Frame::Binary(body) };
    let _ = read::from_server(&frame, version);
    let Ok(message) = read::from_client(&frame, version) else { return };
    said_again(&message, version);
    match inbound::read(&message) {
        Inbound::Join { join, .. } => {
            let reply = Address::of(&message).reply(&message, Answer::joined(&join));
            assert!(write::to_client(&reply, version).is_some());
            for binding in &join.changes {
                assert!(binding.id > 0);
                let Ok(wanted) = &binding.wanted else { continue };
                for kind in [Kind::Boolean, Kind::Integer, Kind::Float8, Kind::Numeric, Kind::Uuid, Kind::Text] {
                    let _ = verdict::of(&wanted.filters, |_| Some((Some(kind), Some("1"))));
                }
            }
        }
        Inbound::Presence(Call::Track(payload)) => {
            let meta = Meta { payload, reference: "r".to_owned(), before: None };
            assert!(presence::state([("key", [&meta])]).value().is_none_or(|state| state["key"]["metas"][0]["phx_ref"] == "r"));
        }
        Inbound::Broadcast(payload) => {
            let relayed = outbound::relayed(&message.topic, payload);
            let one = write::to_client(&relayed, Version::One);
            let bytes = matches!(payload, Payload::Broadcast(broadcast) if matches!(broadcast.content, Content::Binary(_)));
            assert_eq!(one.is_none(), bytes);
        }
        _ => {}
    }
    if let Ok(text) = std::str::from_utf8(rest) {
        let _ = filter::read(text);
    }
});

fn said_again(message: &Message, version: Version) {
    let Some(frame) = write::to_server(message, version) else { return };
    let again = read::from_client(&frame, version).expect("what we write is read");
    // A binary frame has no numbers as references, and none that are empty.
    assert_eq!((&again.topic, &again.event, &again.payload), (&message.topic, &message.event, &message.payload));
    if let Some(frame) = write::to_client(message, version) {
        let heard = read::from_server(&frame, version).expect("what we write is read");
        assert_eq!((&heard.topic, &heard.event), (&message.topic, &message.event));
    }
}
