//! What nodes say to each other, as bytes. A payload of a client stays as it came.
//!
//! `1`, what it is (1 byte), and its parts: numbers in big endian, texts and bytes with their length (4 bytes) before them. What another version of
//! ntier says is not understood, and not heeded.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ntier_protocol::realtime::message::{Broadcast, Content, Json, Payload};
use ntier_protocol::realtime::presence::Meta;

use crate::hub::Room;
use crate::presence::{News, Present};

const FORMAT: u8 = 1;

/// What another node says.
#[derive(Debug, PartialEq, Eq)]
pub enum Word {
    /// To all who are in a room.
    Said(Room, Unread),
    News(News),
}

/// A payload that nobody may want to hear.
#[derive(Debug, PartialEq, Eq)]
pub struct Unread(Bytes);

mod kind {
    pub const SAID: u8 = b's';
    pub const ALIVE: u8 = b'a';
    pub const TRACKED: u8 = b't';
    pub const UNTRACKED: u8 = b'u';
    pub const ASK: u8 = b'q';
    pub const ALL: u8 = b'p';
    pub const GOODBYE: u8 = b'g';
}

mod content {
    pub const TEXT: u8 = 0;
    pub const JSON: u8 = 1;
    pub const BINARY: u8 = 2;
}

/// A broadcast for all who are in a room.
pub fn said(room: &Room, payload: &Payload) -> Bytes {
    let mut out = open(kind::SAID);
    put_room(&mut out, room);
    match payload {
        Payload::Json(json) => {
            out.put_u8(content::TEXT);
            out.put_slice(json.bytes());
        }
        Payload::Broadcast(broadcast) => {
            let (kind, bytes) = match &broadcast.content {
                Content::Json(json) => (content::JSON, json.bytes()),
                Content::Binary(bytes) => (content::BINARY, bytes),
            };
            out.put_u8(kind);
            put(&mut out, broadcast.event.as_bytes());
            out.put_slice(bytes);
        }
    }
    out.freeze()
}

pub fn news(news: &News) -> Bytes {
    match news {
        News::Alive { count, wants_answer } => {
            let mut out = open(kind::ALIVE);
            out.put_u64(*count);
            out.put_u8(u8::from(*wants_answer));
            out
        }
        News::Tracked { count, member, present } => {
            let mut out = open(kind::TRACKED);
            out.put_u64(*count);
            out.put_u64(*member);
            put_present(&mut out, present);
            out
        }
        News::Untracked { count, member } => {
            let mut out = open(kind::UNTRACKED);
            out.put_u64(*count);
            out.put_u64(*member);
            out
        }
        News::Ask { of } => {
            let mut out = open(kind::ASK);
            out.put_u64(*of);
            out
        }
        News::All { count, part, is_last, members } => {
            let mut out = open(kind::ALL);
            out.put_u64(*count);
            out.put_u32(*part);
            out.put_u8(u8::from(*is_last));
            for (member, present) in members {
                out.put_u64(*member);
                put_present(&mut out, present);
            }
            out
        }
        News::Goodbye => open(kind::GOODBYE),
    }
    .freeze()
}

/// What it says; `None` if it is not understood.
pub fn read(mut word: Bytes) -> Option<Word> {
    let word = &mut word;
    if word.try_get_u8().ok()? != FORMAT {
        return None;
    }
    let news = match word.try_get_u8().ok()? {
        kind::SAID => {
            let room = room(word)?;
            return Some(Word::Said(room, Unread(word.split_off(0))));
        }
        kind::ALIVE => News::Alive { count: number(word)?, wants_answer: is(word)? },
        kind::TRACKED => News::Tracked { count: number(word)?, member: number(word)?, present: present(word)? },
        kind::UNTRACKED => News::Untracked { count: number(word)?, member: number(word)? },
        kind::ASK => News::Ask { of: number(word)? },
        kind::ALL => {
            let (count, part, is_last) = (number(word)?, word.try_get_u32().ok()?, is(word)?);
            let mut members = Vec::new();
            while !word.is_empty() {
                members.push((number(word)?, present(word)?));
            }
            News::All { count, part, is_last, members }
        }
        kind::GOODBYE => News::Goodbye,
        _ => return None,
    };
    Some(Word::News(news))
}

impl Unread {
    pub fn read(self) -> Option<Payload> {
        let mut rest = self.0;
        let kind = rest.try_get_u8().ok()?;
        if kind == content::TEXT {
            return Json::read(&rest).map(Payload::Json);
        }
        let event = text(&mut rest)?;
        let content = match kind {
            content::JSON => Content::Json(Json::read(&rest)?),
            content::BINARY => Content::Binary(rest),
            _ => return None,
        };
        Some(Payload::Broadcast(Broadcast { event, content, meta: None }))
    }
}

fn open(kind: u8) -> BytesMut {
    let mut out = BytesMut::with_capacity(64);
    out.put_u8(FORMAT);
    out.put_u8(kind);
    out
}

fn put(out: &mut BytesMut, bytes: &[u8]) {
    // A frame of a client is far shorter.
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
}

fn put_room(out: &mut BytesMut, room: &Room) {
    out.put_u8(u8::from(room.is_private));
    put(out, room.name.as_bytes());
}

fn put_present(out: &mut BytesMut, Present { room, key, meta }: &Present) {
    put_room(out, room);
    put(out, key.as_bytes());
    put(out, meta.payload.bytes());
    put(out, meta.reference.as_bytes());
    // No reference is empty.
    put(out, meta.before.as_deref().unwrap_or_default().as_bytes());
}

fn number(word: &mut Bytes) -> Option<u64> {
    word.try_get_u64().ok()
}

fn is(word: &mut Bytes) -> Option<bool> {
    Some(word.try_get_u8().ok()? == 1)
}

fn bytes(word: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(word.try_get_u32().ok()?).ok()?;
    (length <= word.len()).then(|| word.split_to(length))
}

fn text(word: &mut Bytes) -> Option<String> {
    String::from_utf8(bytes(word)?.into()).ok()
}

fn room(word: &mut Bytes) -> Option<Room> {
    let is_private = is(word)?;
    let name = bytes(word)?;
    Some(Room { name: std::str::from_utf8(&name).ok()?.into(), is_private })
}

fn present(word: &mut Bytes) -> Option<Arc<Present>> {
    let (room, key) = (room(word)?, text(word)?);
    // It is kept for long, and the message it came in is not.
    let payload = Json::read(&Bytes::copy_from_slice(&bytes(word)?)).filter(Json::is_object)?;
    let (reference, before) = (text(word)?, text(word)?);
    let meta = Meta { payload, reference, before: Some(before).filter(|before| !before.is_empty()) };
    Some(Arc::new(Present { room, key, meta }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(text: &str) -> Json {
        Json::read(&Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    fn rooms() -> impl Strategy<Value = Room> {
        (".{0,20}", any::<bool>()).prop_map(|(name, is_private)| Room { name: name.into(), is_private })
    }

    fn payloads() -> impl Strategy<Value = Payload> {
        let text = prop_oneof![Just("null"), Just(r#"{"a" : 1.0e5, "a":[ ]}"#), Just("\"\\u0041\"")];
        let binary = proptest::collection::vec(any::<u8>(), 0..50).prop_map(|bytes| Content::Binary(bytes.into()));
        let content = prop_oneof![text.clone().prop_map(|text| Content::Json(json(text))), binary];
        let broadcast = (".{0,10}", content)
            .prop_map(|(event, content)| Payload::Broadcast(Broadcast { event, content, meta: None }));
        prop_oneof![text.prop_map(|text| Payload::Json(json(text))), broadcast]
    }

    fn presents() -> impl Strategy<Value = Arc<Present>> {
        (rooms(), ".{0,10}", 0..100u8, "[a-z]{1,9}", proptest::option::of("[a-z]{1,9}")).prop_map(
            |(room, key, number, reference, before)| {
                let meta = Meta { payload: json(&format!(r#"{{ "n":{number} }}"#)), reference, before };
                Arc::new(Present { room, key, meta })
            },
        )
    }

    fn all_news() -> impl Strategy<Value = News> {
        let number = any::<u64>;
        prop_oneof![
            (number(), any::<bool>()).prop_map(|(count, wants_answer)| News::Alive { count, wants_answer }),
            (number(), number(), presents()).prop_map(|(count, member, present)| News::Tracked {
                count,
                member,
                present
            }),
            (number(), number()).prop_map(|(count, member)| News::Untracked { count, member }),
            number().prop_map(|of| News::Ask { of }),
            (number(), any::<u32>(), any::<bool>(), proptest::collection::vec((number(), presents()), 0..5))
                .prop_map(|(count, part, is_last, members)| News::All { count, part, is_last, members }),
            Just(News::Goodbye),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn words_are_understood_as_they_were_meant(room in rooms(), payload in payloads(), told in all_news()) {
            let Some(Word::Said(read_room, unread)) = read(said(&room, &payload)) else { panic!("it was said") };
            prop_assert_eq!(read_room, room);
            prop_assert_eq!(unread.read(), Some(payload));
            prop_assert_eq!(read(news(&told)), Some(Word::News(told)));
        }

        #[test]
        fn whatever_comes_is_understood_or_not(
            mut word in proptest::collection::vec(any::<u8>(), 0..80),
            told in all_news(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            if let Some(Word::Said(_, unread)) = read(word.clone().into()) {
                let _ = unread.read();
            }
            if let Some(first) = word.first_mut() {
                *first = FORMAT;
            }
            if let Some(Word::Said(_, unread)) = read(word.into()) {
                let _ = unread.read();
            }
            // Almost right.
            let mut almost = news(&told).to_vec();
            let at = at.index(almost.len());
            almost[at] = byte;
            let _ = read(almost.into());
        }
    }
}
