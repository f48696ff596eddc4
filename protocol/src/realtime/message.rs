//! A message in either direction.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// What both sides say to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The reference of the join that the message belongs to. Version 1.0.0 says it to the server only.
    pub join_ref: Option<Ref>,
    /// By which an answer finds its question.
    pub reference: Option<Ref>,
    pub topic: String,
    pub event: String,
    pub payload: Payload,
}

/// A reference. Clients send texts, and it goes back as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ref {
    Text(Box<str>),
    Number(i64),
}

impl Ref {
    /// As a binary frame has it.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Number(number) => Cow::Owned(number.to_string()),
        }
    }
}

impl From<&str> for Ref {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl<'de> Deserialize<'de> for Ref {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Ref;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a reference")
            }
            fn visit_str<E>(self, text: &str) -> Result<Ref, E> {
                Ok(Ref::Text(text.into()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Ref, E> {
                Ok(Ref::Number(number))
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Ref, E> {
                i64::try_from(number).map(Ref::Number).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    Json(Json),
    /// A broadcast whose event and content stand beside each other, as binary frames have them.
    Broadcast(Broadcast),
}

impl Payload {
    /// Bytes, as limits count them.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(json) => json.len(),
            Self::Broadcast(broadcast) => broadcast.content.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A broadcast as version 2.0.0 puts it into a binary frame, and as the database's and HTTP's are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broadcast {
    /// The event of the application.
    pub event: String,
    pub content: Content,
    /// What the server says about it; see [`crate::realtime::outbound::Meta`].
    pub meta: Option<Json>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Json(Json),
    Binary(Bytes),
}

impl Content {
    /// Bytes, as limits count them.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(json) => json.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A valid JSON text, without blanks around it, that is passed on as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(Bytes);

impl Json {
    /// Takes bytes that must be JSON: they are looked through, not parsed into values.
    pub fn read(bytes: &Bytes) -> Option<Self> {
        let raw: &RawValue = serde_json::from_slice(bytes).ok()?;
        Some(Self::part(bytes, raw))
    }

    /// A value that was met in `whole`; no bytes are copied.
    pub(super) fn part(whole: &Bytes, raw: &RawValue) -> Self {
        Self(whole.slice_ref(raw.get().as_bytes()))
    }

    pub fn of(value: &Value) -> Self {
        Self(value.to_string().into())
    }

    /// Bytes that one of our writers made, which makes nothing but JSON.
    pub(super) fn written(bytes: Vec<u8>) -> Self {
        debug_assert!(serde_json::from_slice::<&RawValue>(&bytes).is_ok(), "{}", String::from_utf8_lossy(&bytes));
        Self(bytes.into())
    }

    /// `{}`
    pub fn empty() -> Self {
        Self(Bytes::from_static(b"{}"))
    }

    pub fn is_object(&self) -> bool {
        self.0.starts_with(b"{")
    }

    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As values; nothing if it is nested deeper than our parser goes.
    pub fn value(&self) -> Option<Value> {
        serde_json::from_slice(&self.0).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_kept_as_it_came() {
        for (text, expected) in [
            (r#" {"a" : 1.0e5, "a":[ ]} "#, Some(r#"{"a" : 1.0e5, "a":[ ]}"#)),
            ("\"a\\u0041\"", Some("\"a\\u0041\"")),
            ("null", Some("null")),
            ("", None),
            ("{", None),
            ("1 2", None),
            ("nope", None),
        ] {
            let read = Json::read(&Bytes::from_static(text.as_bytes()));
            assert_eq!(read.as_ref().map(|json| &**json.bytes()), expected.map(str::as_bytes), "{text}");
        }
        assert!(Json::read(&Bytes::from_static(b"\"\xff\"")).is_none());
        let deep = Bytes::from("[".repeat(100_000) + &"]".repeat(100_000));
        assert!(Json::read(&deep).is_some_and(|json| json.value().is_none()));
    }
}
