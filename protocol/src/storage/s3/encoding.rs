//! Percent-encoding as Amazon has it: everything but letters, digits and `-._~` (RFC 3986, "unreserved").

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

/// In names and values of a query.
const STRICT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// In paths, and in keys of an answer.
const PATH: &AsciiSet = &STRICT.remove(b'/');

pub(super) fn query(bytes: &[u8]) -> String {
    percent_encode(bytes, STRICT).to_string()
}

pub(super) fn path(bytes: &[u8]) -> String {
    percent_encode(bytes, PATH).to_string()
}

pub(super) fn decoded(text: &str) -> Vec<u8> {
    percent_decode(text.as_bytes()).collect()
}

/// Names and values of a query, decoded. A plus is a space, as in forms.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(&name.replace('+', " ")), decoded(&value.replace('+', " ")))
    })
}
