//! Rows as JSON, made here of the text that PostgreSQL gives for each value: byte for byte what `json_agg` would give.
//!
//! `json_agg` looks up the type of each column of each row; on a read by key that is a third of all the work
//! (docs/decisions/0005-rows-become-json-here.md). Only types whose JSON follows from their text are done
//! here; arrays, composites, enums and whatever an extension brings stay PostgreSQL's.

use bytes::Bytes;
use ntier_backing::database::{Column, Rows};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Boolean,
    /// A number, unless it is `NaN` or infinite.
    Number,
    /// JSON already.
    Json,
    Text,
    Date,
    Timestamp,
}

/// OID and name (without modifiers) of the types that are known here. Source: PostgreSQL, `pg_type.dat` and, for what
/// becomes what, `json_categorize_type` in `jsonfuncs.c`.
const TYPES: &[(u32, &str, Kind)] = &[
    (16, "boolean", Kind::Boolean),
    (21, "smallint", Kind::Number),
    (23, "integer", Kind::Number),
    (20, "bigint", Kind::Number),
    (700, "real", Kind::Number),
    (701, "double precision", Kind::Number),
    (1700, "numeric", Kind::Number),
    (114, "json", Kind::Json),
    (3802, "jsonb", Kind::Json),
    (25, "text", Kind::Text),
    (1043, "character varying", Kind::Text),
    (1042, "character", Kind::Text),
    (19, "name", Kind::Text),
    (18, "\"char\"", Kind::Text),
    (2950, "uuid", Kind::Text),
    (17, "bytea", Kind::Text),
    (26, "oid", Kind::Text),
    (790, "money", Kind::Text),
    (1082, "date", Kind::Date),
    (1114, "timestamp without time zone", Kind::Timestamp),
    (1184, "timestamp with time zone", Kind::Timestamp),
    (1083, "time without time zone", Kind::Text),
    (1266, "time with time zone", Kind::Text),
    (1186, "interval", Kind::Text),
    (3614, "tsvector", Kind::Text),
    (3615, "tsquery", Kind::Text),
    (869, "inet", Kind::Text),
    (650, "cidr", Kind::Text),
    (829, "macaddr", Kind::Text),
    (600, "point", Kind::Text),
    (3904, "int4range", Kind::Text),
    (3926, "int8range", Kind::Text),
    (3906, "numrange", Kind::Text),
    (3908, "tsrange", Kind::Text),
    (3910, "tstzrange", Kind::Text),
    (3912, "daterange", Kind::Text),
];

/// Whether values of the type become JSON here.
pub fn knows(type_name: &str) -> bool {
    TYPES.iter().any(|(_, name, _)| *name == type_name)
}

/// The rows as a JSON array; `None` where PostgreSQL has to do it.
pub fn array(rows: &Rows) -> Option<Bytes> {
    let writer = Writer::new(&rows.columns)?;
    let mut out = Vec::with_capacity(rows.rows.len() * 128 + 2);
    out.push(b'[');
    for (number, row) in rows.rows.iter().enumerate() {
        if number > 0 {
            out.extend_from_slice(b", \n ");
        }
        writer.object(row.values(), &mut out)?;
    }
    out.push(b']');
    Some(out.into())
}

/// The first row as a JSON object, or `null`.
pub fn object(rows: &Rows) -> Option<Bytes> {
    let writer = Writer::new(&rows.columns)?;
    let Some(row) = rows.rows.first() else { return Some(Bytes::from_static(b"null")) };
    let mut out = Vec::with_capacity(256);
    writer.object(row.values(), &mut out)?;
    Some(out.into())
}

/// Knows each column's name, as it is written, and kind.
struct Writer {
    columns: Vec<(Vec<u8>, Kind)>,
}

impl Writer {
    fn new(columns: &[Column]) -> Option<Self> {
        let column = |(number, column): (usize, &Column)| {
            let (_, _, kind) = TYPES.iter().find(|(oid, _, _)| *oid == column.type_oid)?;
            let mut name = if number == 0 { Vec::new() } else { vec![b','] };
            string(column.name.as_bytes(), &mut name);
            name.push(b':');
            Some((name, *kind))
        };
        Some(Self { columns: columns.iter().enumerate().map(column).collect::<Option<_>>()? })
    }

    fn object<'a>(&self, values: impl Iterator<Item = Option<&'a [u8]>>, out: &mut Vec<u8>) -> Option<()> {
        out.push(b'{');
        for ((name, kind), value) in self.columns.iter().zip(values) {
            out.extend_from_slice(name);
            match value {
                None => out.extend_from_slice(b"null"),
                Some(value) => kind.write(value, out)?,
            }
        }
        out.push(b'}');
        Some(())
    }
}

impl Kind {
    fn write(self, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Boolean => out.extend_from_slice(if value == b"t" { b"true" } else { b"false" }),
            Self::Number if value.last().is_some_and(u8::is_ascii_digit) => out.extend_from_slice(value),
            Self::Json => out.extend_from_slice(value),
            Self::Number | Self::Text => string(value, out),
            Self::Date | Self::Timestamp => {
                if !is_iso(value) {
                    return None;
                }
                out.push(b'"');
                match self {
                    Self::Timestamp => timestamp(value, out),
                    _ => out.extend_from_slice(value),
                }
                out.push(b'"');
            }
        }
        Some(())
    }
}

/// Whether it was written with `DateStyle` ISO: a year of four digits or more comes first.
fn is_iso(value: &[u8]) -> bool {
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (digits >= 4 && value.get(digits) == Some(&b'-')) || value.ends_with(b"infinity")
}

/// `2026-11-21 03:04:05+00` is `2026-11-21T03:04:05+00:00` in JSON (ISO 8601).
fn timestamp(value: &[u8], out: &mut Vec<u8>) {
    let Some(space) = value.iter().position(|byte| *byte == b' ') else {
        out.extend_from_slice(value);
        return;
    };
    let (date, rest) = (&value[..space], &value[space + 1..]);
    let (time, era) = rest.split_at(rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len()));
    out.extend_from_slice(date);
    out.push(b'T');
    out.extend_from_slice(time);
    let zone = time.iter().position(|byte| matches!(byte, b'+' | b'-'));
    if zone.is_some_and(|zone| time.len() - zone == 3) {
        out.extend_from_slice(b":00");
    }
    out.extend_from_slice(era);
}

/// A JSON string, escaped as PostgreSQL's `escape_json` does.
fn string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut plain = 0;
    for (at, &byte) in text.iter().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&text[plain..at]);
        plain = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            control => out.extend_from_slice(format!("\\u{control:04x}").as_bytes()),
        }
    }
    out.extend_from_slice(&text[plain..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The JSON of one value of a type.
    fn written(type_name: &str, value: &str) -> Option<String> {
        let (_, _, kind) = TYPES.iter().find(|(_, name, _)| *name == type_name).unwrap();
        let mut out = Vec::new();
        kind.write(value.as_bytes(), &mut out)?;
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn values_are_written_as_postgresql_does() {
        for (type_name, value, expected) in [
            ("boolean", "t", "true"),
            ("boolean", "f", "false"),
            ("bigint", "-9223372036854775808", "-9223372036854775808"),
            ("double precision", "1e+20", "1e+20"),
            ("double precision", "NaN", "\"NaN\""),
            ("double precision", "-Infinity", "\"-Infinity\""),
            ("numeric", "12.50", "12.50"),
            ("jsonb", "{\"a\": [1]}", "{\"a\": [1]}"),
            ("text", "a\"b\\c\n\u{1}\u{7f}é", "\"a\\\"b\\\\c\\n\\u0001\u{7f}é\""),
            ("text", "", "\"\""),
            ("bytea", "\\x00ff", "\"\\\\x00ff\""),
            ("date", "2026-11-21", "\"2026-11-21\""),
            ("date", "0044-03-15 BC", "\"0044-03-15 BC\""),
            ("date", "-infinity", "\"-infinity\""),
            ("timestamp without time zone", "2026-11-21 03:04:05.67", "\"2026-11-21T03:04:05.67\""),
            ("timestamp with time zone", "2026-11-21 03:04:05+00", "\"2026-11-21T03:04:05+00:00\""),
            ("timestamp with time zone", "2026-11-21 03:04:05.1-03:30", "\"2026-11-21T03:04:05.1-03:30\""),
            ("timestamp with time zone", "0044-03-15 03:00:00+00 BC", "\"0044-03-15T03:00:00+00:00 BC\""),
            ("timestamp with time zone", "infinity", "\"infinity\""),
        ] {
            assert_eq!(written(type_name, value).as_deref(), Some(expected), "{type_name} {value}");
        }
    }

    #[test]
    fn other_date_styles_are_postgresqls() {
        for value in ["21.11.2026", "11/21/2026", "11-21-2026"] {
            assert_eq!(written("date", value), None, "{value}");
        }
        assert_eq!(written("timestamp with time zone", "Sat Nov 21 03:04:05 2026 UTC"), None);
    }
}
