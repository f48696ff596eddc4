//! PostgreSQL's wire protocol, as far as batches need it: writing frontend messages, cutting backend ones.
//!
//! Source: PostgreSQL documentation, "Message Formats". Values go and come in text format. Start-up and passwords
//! are in `handshake.rs`, on the crate `postgres-protocol`.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Column, Refusal, Row};

/// PostgreSQL's own limit is 1 GB; a longer length means that we have lost the stream.
const MAX_MESSAGE: usize = 1 << 30;

/// A message from the database: its type, and its body as a slice of the buffer that was read.
#[derive(Debug)]
pub struct Message {
    pub kind: u8,
    pub body: Bytes,
}

/// Cuts the next whole message off the buffer; an error when the stream makes no sense.
pub fn next(buffer: &mut BytesMut) -> Result<Option<Message>, Broken> {
    let Some((header, _)) = buffer.split_first_chunk::<5>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    let kind = header[0];
    if !(4..=MAX_MESSAGE).contains(&length) {
        return Err(Broken);
    }
    if buffer.len() <= length {
        buffer.reserve(length + 1 - buffer.len());
        return Ok(None);
    }
    let mut body = buffer.split_to(length + 1).freeze();
    body.advance(5);
    Ok(Some(Message { kind, body }))
}

/// The stream is not PostgreSQL's protocol.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

/// Writes one message whose body the closure appends.
fn message(out: &mut BytesMut, kind: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    let at = out.len();
    out.put_u32(0);
    body(out);
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

fn cstr(out: &mut BytesMut, text: &str) {
    out.put_slice(text.as_bytes());
    out.put_u8(0);
}

/// Parse, with all parameter types left to PostgreSQL.
pub fn parse(out: &mut BytesMut, name: &str, text: &str) {
    message(out, b'P', |out| {
        cstr(out, name);
        cstr(out, text);
        out.put_u16(0);
    });
}

/// Bind the unnamed portal, all in text format.
pub fn bind<'a>(out: &mut BytesMut, name: &str, parameters: impl ExactSizeIterator<Item = Option<&'a [u8]>>) {
    message(out, b'B', |out| {
        out.put_u8(0);
        cstr(out, name);
        out.put_u16(0);
        out.put_u16(u16::try_from(parameters.len()).unwrap_or(u16::MAX));
        for parameter in parameters {
            match parameter {
                Some(value) => {
                    out.put_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
                    out.put_slice(value);
                }
                None => out.put_i32(-1),
            }
        }
        out.put_u16(0);
    });
}

/// Execute the unnamed portal to its end.
pub fn execute(out: &mut BytesMut) {
    message(out, b'E', |out| out.put_slice(&[0; 5]));
}

/// Close a prepared statement.
pub fn close(out: &mut BytesMut, name: &str) {
    message(out, b'C', |out| {
        out.put_u8(b'S');
        cstr(out, name);
    });
}

pub fn sync(out: &mut BytesMut) {
    message(out, b'S', |_| {});
}

pub fn terminate(out: &mut BytesMut) {
    message(out, b'X', |_| {});
}

pub fn copy_fail(out: &mut BytesMut) {
    message(out, b'f', |out| cstr(out, "COPY FROM STDIN is not possible here"));
}

/// Rows for a COPY, cut anywhere.
pub fn copy_data(out: &mut BytesMut, rows: &[u8]) {
    message(out, b'd', |out| out.put_slice(rows));
}

/// No more rows come.
pub fn copy_done(out: &mut BytesMut) {
    message(out, b'c', |_| {});
}

/// A simple query: one or more statements in one text.
pub fn query(out: &mut BytesMut, text: &str) {
    message(out, b'Q', |out| cstr(out, text));
}

/// The values of a DataRow; what is not whole ends them.
pub fn values(body: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = body.get(2..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        // -1 is NULL.
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            rest = after;
            return Some(None);
        };
        let value;
        (value, rest) = after.split_at_checked(length)?;
        Some(Some(value))
    })
}

/// A DataRow that has as many values as it says.
pub fn row(body: Bytes) -> Option<Row> {
    let count = body.first_chunk::<2>().map(|count| u16::from_be_bytes(*count))?;
    (values(&body).count() == usize::from(count)).then_some(Row { body })
}

/// Describe a prepared statement.
pub fn describe(out: &mut BytesMut, name: &str) {
    message(out, b'D', |out| {
        out.put_u8(b'S');
        cstr(out, name);
    });
}

/// The columns of a RowDescription.
pub fn columns(mut body: &[u8]) -> Option<Vec<Column>> {
    let count = body.try_get_u16().ok()?;
    let mut columns = Vec::with_capacity(count.into());
    for _ in 0..count {
        let end = body.iter().position(|&byte| byte == 0)?;
        let name = String::from_utf8_lossy(&body[..end]).into_owned();
        // After the name: table (4), column (2), type (4), its size (2), modifier (4), format (2).
        let type_oid = body.get(end + 7..)?.try_get_u32().ok()?;
        columns.push(Column { name, type_oid });
        body = body.get(end + 1 + 18..)?;
    }
    Some(columns)
}

/// The text up to the NUL, as in CommandComplete.
pub fn text(body: &[u8]) -> String {
    let end = body.iter().position(|&byte| byte == 0).unwrap_or(body.len());
    String::from_utf8_lossy(&body[..end]).into_owned()
}

/// The fields of an ErrorResponse.
pub fn refusal(mut body: &[u8]) -> Refusal {
    let mut refusal = Refusal::default();
    while let Some((&field, rest)) = body.split_first() {
        if field == 0 {
            break;
        }
        let value = text(rest);
        body =
            rest.get(rest.iter().position(|&byte| byte == 0).map_or(rest.len(), |end| end + 1)..).unwrap_or_default();
        match field {
            b'V' => refusal.severity = value,
            b'C' => refusal.code = value,
            b'M' => refusal.message = value,
            b'D' => refusal.detail = Some(value),
            b'H' => refusal.hint = Some(value),
            b'P' => refusal.position = value.parse().ok(),
            _ => {}
        }
    }
    refusal
}

/// Channel and payload of a NotificationResponse.
pub fn notification(body: &[u8]) -> Option<(String, String)> {
    let rest = body.get(4..)?;
    let channel = text(rest);
    let payload = text(rest.get(channel.len() + 1..)?);
    Some((channel, payload))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_cut_once_it_is_whole() {
        let mut bytes = BytesMut::new();
        query(&mut bytes, "select 1");
        let whole = bytes.clone();
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..cut]);
            assert!(next(&mut part).unwrap().is_none());
        }
        let message = next(&mut bytes).unwrap().unwrap();
        assert_eq!((message.kind, &message.body[..]), (b'Q', &b"select 1\0"[..]));
        assert!(bytes.is_empty());
    }

    #[test]
    fn an_impossible_length_is_told() {
        assert_eq!(next(&mut BytesMut::from(&b"D\0\0\0\x01rest"[..])).unwrap_err(), Broken);
    }

    #[test]
    fn a_row_has_its_values_and_nulls() {
        let body = Bytes::from_static(b"\0\x03\0\0\0\x01a\xff\xff\xff\xff\0\0\0\0");
        let row = row(body).unwrap();
        assert_eq!((row.text(0), row.text(1), row.text(2)), (Some("a"), None, Some("")));
        assert!(super::row(Bytes::from_static(b"\0\x01\0\0\0\x09a")).is_none());
    }

    #[test]
    fn a_column_has_a_name_and_a_type() {
        let body = b"\0\x01id\0\0\0\0\0\0\0\0\0\0\x14\0\x08\xff\xff\xff\xff\0\0";
        assert_eq!(columns(body), Some(vec![Column { name: "id".into(), type_oid: 20 }]));
        assert_eq!(columns(&body[..body.len() - 1]), None);
    }

    #[test]
    fn an_error_keeps_its_fields() {
        let refusal = refusal(b"SFEHLER\0VERROR\0C42P01\0Mno table\0Hlook\0P15\0\0");
        assert_eq!(refusal.code, "42P01");
        assert_eq!(refusal.severity, "ERROR");
        assert_eq!((refusal.hint.as_deref(), refusal.position), (Some("look"), Some(15)));
    }

    #[test]
    fn whatever_the_database_sends_is_understood_or_refused() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut byte = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Small numbers are lengths that may fit.
            if state & 256 == 0 { u8::try_from(state & 7).unwrap() } else { u8::try_from(state >> 8 & 255).unwrap() }
        };
        for _ in 0..100_000 {
            let bytes: Vec<u8> = (0..byte() / 4).map(|_| byte()).collect();
            let _ = next(&mut BytesMut::from(&bytes[..]));
            let _ = (columns(&bytes), refusal(&bytes), text(&bytes), notification(&bytes));
            if let Some(row) = row(bytes.into()) {
                assert!(row.values().count() < 1 << 16);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        /// A server that is not PostgreSQL, or a broken stream: an error at worst.
        #[test]
        fn whatever_arrives_is_a_message_or_broken(stream in prop::collection::vec(any::<u8>(), 0..200), kind in any::<u8>()) {
            let mut framed = BytesMut::new();
            message(&mut framed, kind, |out| out.put_slice(&stream));
            for mut buffer in [framed, BytesMut::from(&stream[..])] {
                while let Ok(Some(Message { body, .. })) = next(&mut buffer) {
                    let _ = (columns(&body), refusal(&body), notification(&body), text(&body));
                    let _ = values(&body).count();
                    if let Some(row) = row(body) {
                        let _ = row.text(0);
                    }
                }
            }
        }
    }
}
