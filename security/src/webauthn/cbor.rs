//! As much of CBOR (RFC 8949) as authenticators write.

use ciborium::Value;

/// CTAP 2 nests four deep; what is nested without end would take the stack.
const DEPTH: usize = 16;

pub type Map = Vec<(Value, Value)>;

/// The map with which the bytes begin, and what comes after it.
pub fn map(bytes: &[u8]) -> Option<(Map, &[u8])> {
    let mut rest = bytes;
    let value: Value = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH).ok()?;
    Some((value.into_map().ok()?, rest))
}

/// The value of a key; `None` also for one that is there twice, since readers would differ on which counts.
pub fn find(map: &Map, key: impl Into<Value>) -> Option<&Value> {
    let key = key.into();
    let mut found = map.iter().filter(|(name, _)| *name == key);
    match (found.next(), found.next()) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}

/// A number that is of use to us.
pub fn number(map: &Map, key: impl Into<Value>) -> Option<i64> {
    i64::try_from(find(map, key)?.as_integer()?).ok()
}

pub fn bytes(map: &Map, key: impl Into<Value>) -> Option<&[u8]> {
    find(map, key)?.as_bytes().map(Vec::as_slice)
}
