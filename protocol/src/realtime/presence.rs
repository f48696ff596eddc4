//! Who is present. Sources: realtime's `presence_handler.ex`, Phoenix's `lib/phoenix/presence.ex` and `assets/js/phoenix/presence.js`.
//!
//! A channel has one presence at most, its meta, under a key that several channels may share. A meta has a reference of its own; one
//! that took the place of another names that, too, and a diff says both: the new one joins, the old one leaves.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::realtime::message::Json;
use crate::realtime::write::string;

/// What a client does about its presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// With an object, in a form that is the same for the same entries; to say it again changes nothing.
    Track(Json),
    Untrack,
    /// [`crate::realtime::error::Declined::NotAnObject`]
    NotAnObject,
    /// Neither of them: [`crate::realtime::error::Declined::Presence`].
    Unknown,
    /// It names no event, and is answered with `ok`.
    Nothing,
}

/// The keys of a meta that are the server's.
const REFERENCE: &str = "phx_ref";
const BEFORE: &str = "phx_ref_prev";

/// Reads the payload of `presence`.
pub fn call(payload: &Json) -> Call {
    let said: Option<BTreeMap<String, &RawValue>> = serde_json::from_slice(payload.bytes()).ok();
    let of = |key| said.as_ref().and_then(|said| said.get(key));
    let Some(event) = of("event") else { return Call::Nothing };
    let event: String = serde_json::from_str(event.get()).unwrap_or_default();
    if event.eq_ignore_ascii_case("untrack") {
        return Call::Untrack;
    }
    if !event.eq_ignore_ascii_case("track") {
        return Call::Unknown;
    }
    match of("payload") {
        None => Call::Track(Json::empty()),
        Some(payload) => tracked(payload).map_or(Call::NotAnObject, Call::Track),
    }
}

fn tracked(payload: &RawValue) -> Option<Json> {
    let mut entries: BTreeMap<String, &RawValue> = serde_json::from_str(payload.get()).ok()?;
    entries.remove(REFERENCE);
    entries.remove(BEFORE);
    Some(Json::written(serde_json::to_vec(&entries).expect("texts as keys of raw values are JSON")))
}

/// A presence of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Of [`Call::Track`].
    pub payload: Json,
    /// Its own; opaque to clients.
    pub reference: String,
    /// Of the one that it took the place of.
    pub before: Option<String>,
}

/// The payload of `presence_state`: all metas, by their keys. A key comes once.
pub fn state<'a, M>(keys: impl IntoIterator<Item = (&'a str, M)>) -> Json
where
    M: IntoIterator<Item = &'a Meta>,
{
    let mut out = Vec::new();
    write(&mut out, keys);
    Json::written(out)
}

/// The payload of `presence_diff`.
pub fn diff<'a, M>(
    joins: impl IntoIterator<Item = (&'a str, M)>,
    leaves: impl IntoIterator<Item = (&'a str, M)>,
) -> Json
where
    M: IntoIterator<Item = &'a Meta>,
{
    let mut out = b"{\"joins\":".to_vec();
    write(&mut out, joins);
    out.extend_from_slice(b",\"leaves\":");
    write(&mut out, leaves);
    out.push(b'}');
    Json::written(out)
}

fn write<'a, M>(out: &mut Vec<u8>, keys: impl IntoIterator<Item = (&'a str, M)>)
where
    M: IntoIterator<Item = &'a Meta>,
{
    let mut before = b'{';
    for (key, metas) in keys {
        out.push(before);
        before = b',';
        string(out, key);
        out.extend_from_slice(b":{\"metas\":");
        let mut before = b'[';
        for meta in metas {
            out.push(before);
            before = b',';
            write_meta(out, meta);
        }
        if before == b'[' {
            out.push(b'[');
        }
        out.extend_from_slice(b"]}");
    }
    if before == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
}

fn write_meta(out: &mut Vec<u8>, meta: &Meta) {
    // A tracked payload is an object without blanks at its ends, so what is before its end may go on.
    let payload = meta.payload.bytes();
    let open = payload.strip_suffix(b"}").unwrap_or(b"{");
    out.extend_from_slice(open);
    for (key, value) in [(REFERENCE, Some(&meta.reference)), (BEFORE, meta.before.as_ref())] {
        let Some(value) = value else { continue };
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        string(out, key);
        out.push(b':');
        string(out, value);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn json(text: &str) -> Json {
        Json::read(&Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    fn text(json: &Json) -> &str {
        std::str::from_utf8(json.bytes()).unwrap()
    }

    #[test]
    fn calls_are_read() {
        for (payload, expected) in [
            (
                r#"{"type":"presence","event":"TRACK","payload":{"t": 1814.7000000029802, "a":[ ], "phx_ref":"mine"}}"#,
                Call::Track(json(r#"{"a":[ ],"t":1814.7000000029802}"#)),
            ),
            (r#"{"event":"track"}"#, Call::Track(Json::empty())),
            (r#"{"event":"tr\u0061ck","payload":null}"#, Call::NotAnObject),
            (r#"{"event":"track","payload":"x"}"#, Call::NotAnObject),
            (r#"{"event":"track","payload":[]}"#, Call::NotAnObject),
            (r#"{"event":"Untrack","payload":"x"}"#, Call::Untrack),
            (r#"{"event":"leave"}"#, Call::Unknown),
            (r#"{"event":7}"#, Call::Unknown),
            (r#"{"payload":{}}"#, Call::Nothing),
            ("[]", Call::Nothing),
            ("null", Call::Nothing),
        ] {
            assert_eq!(call(&json(payload)), expected, "{payload}");
        }
    }

    #[test]
    fn states_and_diffs_are_said_as_phoenix_says_them() {
        let meta = |payload: &str, reference: &str, before: Option<&str>| Meta {
            payload: json(payload),
            reference: reference.to_owned(),
            before: before.map(str::to_owned),
        };
        let (one, two, three) =
            (meta("{}", "r1", None), meta(r#"{"n":1}"#, "r2", Some("r1")), meta(r#"{"n":[{}]}"#, "r3", None));
        let nobody: [(&str, [&Meta; 1]); 0] = [];
        assert_eq!(text(&state(nobody)), "{}");
        assert_eq!(
            text(&state([("a\"", vec![&one, &three]), ("b", vec![&two]), ("c", vec![])])),
            r#"{"a\"":{"metas":[{"phx_ref":"r1"},{"n":[{}],"phx_ref":"r3"}]},"b":{"metas":[{"n":1,"phx_ref":"r2","phx_ref_prev":"r1"}]},"c":{"metas":[]}}"#
        );
        assert_eq!(
            text(&diff([("b", [&two])], [("b", [&one])])),
            r#"{"joins":{"b":{"metas":[{"n":1,"phx_ref":"r2","phx_ref_prev":"r1"}]}},"leaves":{"b":{"metas":[{"phx_ref":"r1"}]}}}"#
        );
        assert_eq!(text(&diff(nobody, nobody)), r#"{"joins":{},"leaves":{}}"#);
    }
}
