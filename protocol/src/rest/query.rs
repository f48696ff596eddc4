//! The query string: which parameter is what, and each read by its grammar.
//!
//! Source: PostgREST, `ApiRequest.QueryParams`: keys ending in `order`, `limit`, `offset`, `and`, `or` are modifiers of an embed,
//! `select`, `columns` and `on_conflict` are reserved, everything else is a filter or a function's argument.

use std::collections::BTreeMap;

use percent_encoding::percent_decode;

use super::cursor::{Cursor, Parsed};
use super::error::{Error, RangeFault};
use super::filter;
use super::request::{EmbedPath, Filter, LogicTree, OrderTerm, Query, Range};
use super::select;

/// Reads a raw query string. `is_call` is a function called by GET: values without an operator are then its arguments.
pub fn query(raw: &str, is_call: bool) -> Result<Query, Error> {
    let pairs = pairs(raw)?;
    let mut query = Query { canonical: canonical(&pairs), ..Query::default() };
    let mut ranges = Ranges::default();
    for (key, value) in &pairs {
        let Some(value) = value else { continue };
        match (key.as_str(), key.rsplit('.').next().unwrap_or_default()) {
            ("select", _) => query.select = read("select parameter", value, select::select)?,
            ("columns", _) => query.columns = Some(read("columns parameter", value, select::names)?),
            ("on_conflict", _) => query.on_conflict = Some(read("on_conflict parameter", value, select::names)?),
            (_, "order") => query.order.push(order(key, value)?),
            (_, "limit") => ranges.limit(embed_path(key)?, value)?,
            (_, "offset") => ranges.offset(embed_path(key)?, value),
            (_, "and" | "or") => query.logic.push(logic(key, value)?),
            _ => match filter(key, value) {
                Ok(filter) => query.filters.push(filter),
                Err(_) if is_call => query.parameters.push((key.clone(), value.clone())),
                Err(error) => return Err(error),
            },
        }
    }
    query.ranges = ranges.0;
    Ok(query)
}

/// The parameters, decoded; `+` is a blank. A key without `=` has no value.
fn pairs(raw: &str) -> Result<Vec<(String, Option<String>)>, Error> {
    raw.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) => Ok((decode(key)?, Some(decode(value)?))),
            None => Ok((decode(pair)?, None)),
        })
        .collect()
}

/// Undoes percent encoding and `+`.
pub fn decode(text: &str) -> Result<String, Error> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes()).decode_utf8().map_err(|_| Error::Encoding("query string"))?;
    // PostgreSQL has no NUL in text.
    if decoded.contains('\0') { Err(Error::Encoding("query string")) } else { Ok(decoded.into_owned()) }
}

/// Parameters sorted by key and encoded, for `Content-Location`.
fn canonical(pairs: &[(String, Option<String>)]) -> String {
    let mut sorted: Vec<_> = pairs.iter().collect();
    sorted.sort_by(|one, other| one.0.cmp(&other.0));
    let encoded: Vec<String> = sorted
        .into_iter()
        .map(|(key, value)| format!("{}={}", encode(key), encode(value.as_deref().unwrap_or_default())))
        .collect();
    encoded.join("&")
}

fn encode(text: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    // What RFC 3986 leaves unreserved, and `*`, `(`, `)`, `!`, `'` as URL-encoded variables have them.
    const KEEP: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~')
        .remove(b'*')
        .remove(b'(')
        .remove(b')')
        .remove(b'!')
        .remove(b'\'')
        .add(b' ');
    utf8_percent_encode(text, KEEP).to_string().replace("%20", "+")
}

/// Runs a grammar over a whole value and says where it failed.
fn read<'a, T>(
    what: &'static str,
    text: &'a str,
    grammar: impl FnOnce(&mut Cursor<'a>) -> Parsed<T>,
) -> Result<T, Error> {
    grammar(&mut Cursor::new(text)).map_err(|fault| {
        let before = text.get(..fault.at).unwrap_or(text);
        Error::Syntax {
            what,
            text: text.to_owned(),
            column: before.chars().count() + 1,
            unexpected: text.get(fault.at..).and_then(|rest| rest.chars().next()),
            expecting: fault.expecting,
        }
    })
}

fn filter(key: &str, value: &str) -> Result<(EmbedPath, Filter), Error> {
    let (path, field) = read("tree path", key, select::tree_path)?;
    let (negated, operation) = read("filter", value, |cursor| {
        let operation = filter::operation(cursor)?;
        cursor.end("end of input")?;
        Ok(operation)
    })?;
    Ok((path, Filter { field, negated, operation }))
}

fn order(key: &str, value: &str) -> Result<(EmbedPath, Vec<OrderTerm>), Error> {
    Ok((embed_path(key)?, read("order", value, select::order)?))
}

/// The names before the last one.
fn embed_path(key: &str) -> Result<EmbedPath, Error> {
    read("tree path", key, select::tree_path).map(|(path, _)| path)
}

/// `rel.not.or=(…)`: the negation is part of the key.
fn logic(key: &str, value: &str) -> Result<(EmbedPath, LogicTree), Error> {
    let (path, last) = read("logic path", key, select::tree_path)?;
    let negated = path.iter().any(|name| name == "not");
    let path = path.into_iter().filter(|name| name != "not").collect();
    let whole = format!("{}{}{value}", if negated { "not." } else { "" }, last.name);
    let tree = read("logic tree", &whole, filter::logic).map_err(|error| match error {
        Error::Syntax { what, column, unexpected, expecting, .. } => {
            Error::Syntax { what, text: value.to_owned(), column, unexpected, expecting }
        }
        other => other,
    })?;
    Ok((path, tree))
}

#[derive(Default)]
struct Ranges(BTreeMap<EmbedPath, Range>);

impl Ranges {
    /// A limit that is no number is none; a negative one is refused.
    fn limit(&mut self, path: EmbedPath, value: &str) -> Result<(), Error> {
        let range = self.0.entry(path).or_default();
        match value.parse::<i64>() {
            Ok(limit) => {
                range.limit = Some(u64::try_from(limit).map_err(|_| Error::Range(RangeFault::NegativeLimit))?);
            }
            Err(_) => range.limit = None,
        }
        Ok(())
    }

    /// An offset that is no number, or negative, is none.
    fn offset(&mut self, path: EmbedPath, value: &str) {
        self.0.entry(path).or_default().offset = value.parse().unwrap_or(0);
    }
}
