//! The request's body, as far as it must be understood here: its keys. The bytes go to PostgreSQL as they came.
//!
//! Source: PostgREST, `ApiRequest.Payload`.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::error::Error;
use super::query;
use super::request::{MediaType, Payload};
use crate::nesting;

/// Reads a body. `columns` says which keys count, so that the body need not be looked at.
pub fn payload(
    bytes: Vec<u8>,
    content_type: &MediaType,
    columns: Option<&[String]>,
    is_call: bool,
) -> Result<Payload, Error> {
    match content_type {
        MediaType::Json | MediaType::Any => json(bytes, columns, is_call),
        MediaType::Csv => csv(&bytes),
        MediaType::UrlEncoded => Ok(Payload::Form(form(&bytes)?)),
        MediaType::Text | MediaType::Xml | MediaType::OctetStream if is_call => {
            Ok(Payload::Raw { media_type: content_type.clone(), bytes })
        }
        other => Err(Error::Body(format!("Content-Type not acceptable: {}", super::media_name(other)))),
    }
}

fn json(bytes: Vec<u8>, columns: Option<&[String]>, is_call: bool) -> Result<Payload, Error> {
    if nesting::is_deep_json(&bytes) {
        return Err(Error::Body(format!("JSON is nested deeper than {}", nesting::MOST)));
    }
    if let Some(columns) = columns {
        let is_array = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
        return Ok(Payload::Json { bytes, keys: columns.to_vec(), is_array });
    }
    if bytes.is_empty() && is_call {
        return Ok(Payload::Json { bytes: b"{}".to_vec(), keys: Vec::new(), is_array: false });
    }
    let shape: Shape = serde_json::from_slice(&bytes).map_err(|_| Error::Body("Empty or invalid json".into()))?;
    match shape {
        Shape::Object(keys) => Ok(Payload::Json { bytes, keys: keys.into_iter().collect(), is_array: false }),
        Shape::Rows(keys) => Ok(Payload::Json { bytes, keys: keys.into_iter().collect(), is_array: true }),
        Shape::Uneven | Shape::Scalar if is_call => Ok(Payload::RawJson(bytes)),
        Shape::Uneven => Err(Error::Body("All object keys must match".into())),
        // Anything else inserts nothing, as the reference has it.
        Shape::Scalar => Ok(Payload::Json { bytes: b"[]".to_vec(), keys: Vec::new(), is_array: true }),
    }
}

/// What the body is, without keeping its values.
enum Shape {
    Object(BTreeSet<String>),
    /// Objects that all have the same keys.
    Rows(BTreeSet<String>),
    /// An array with other things, or with objects of different keys.
    Uneven,
    Scalar,
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut keys = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<IgnoredAny>()?;
            keys.insert(key);
        }
        Ok(Shape::Object(keys))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Shape, A::Error> {
        let mut keys: Option<BTreeSet<String>> = None;
        let mut even = true;
        while let Some(row) = rows.next_element::<Shape>()? {
            match (row, &keys) {
                (Shape::Object(found), None) if even => keys = Some(found),
                (Shape::Object(found), Some(first)) if found == *first => {}
                _ => even = false,
            }
        }
        Ok(if even { Shape::Rows(keys.unwrap_or_default()) } else { Shape::Uneven })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }
}

/// `a=1&b=2`.
fn form(bytes: &[u8]) -> Result<Vec<(String, String)>, Error> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::Encoding("body"))?;
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((query::decode(key)?, query::decode(value)?))
        })
        .collect()
}

/// RFC 4180 with a header line, turned into JSON rows of strings; the bare word `NULL` is null.
fn csv(bytes: &[u8]) -> Result<Payload, Error> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::Encoding("body"))?;
    let mut records = records(text)?.into_iter();
    let keys = records.next().ok_or_else(|| Error::Body("not enough input".into()))?;
    let mut rows = Vec::new();
    for record in records {
        if record.len() != keys.len() {
            return Err(Error::Body("All lines must have same number of fields".into()));
        }
        let value = |field: String| if field == "NULL" { serde_json::Value::Null } else { field.into() };
        let row: serde_json::Map<_, _> = keys.iter().cloned().zip(record.into_iter().map(value)).collect();
        rows.push(serde_json::Value::Object(row));
    }
    Ok(Payload::Csv { bytes: serde_json::Value::Array(rows).to_string().into_bytes(), keys })
}

fn records(text: &str) -> Result<Vec<Vec<String>>, Error> {
    let mut records = Vec::new();
    let mut record = Vec::new();
    let mut characters = text.chars().peekable();
    while characters.peek().is_some() {
        let mut field = String::new();
        if characters.next_if_eq(&'"').is_some() {
            loop {
                match characters.next() {
                    Some('"') if characters.next_if_eq(&'"').is_some() => field.push('"'),
                    Some('"') => break,
                    Some(character) => field.push(character),
                    None => return Err(Error::Body("a quoted CSV field does not end".into())),
                }
            }
        } else {
            while let Some(character) = characters.next_if(|character| !matches!(character, ',' | '\r' | '\n')) {
                field.push(character);
            }
        }
        record.push(field);
        match characters.next() {
            Some(',') if characters.peek().is_some() => {}
            Some(',') => {
                record.push(String::new());
                records.push(std::mem::take(&mut record));
            }
            Some('\r') => {
                characters.next_if_eq(&'\n');
                records.push(std::mem::take(&mut record));
            }
            Some('\n') | None => records.push(std::mem::take(&mut record)),
            Some(_) => return Err(Error::Body("text after a quoted CSV field".into())),
        }
    }
    // A blank line is no record.
    records.retain(|record| record.len() != 1 || !record[0].is_empty());
    Ok(records)
}
