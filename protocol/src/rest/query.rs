//! The query string: which parameter is what, and each read by its grammar.
//!
//! Source: PostgREST, `ApiRequest.QueryParams`: keys ending in `order`, `limit`, `offset`, `and`, `or` are modifiers of an embed,
//! `select`, `columns` and `on_conflict` are reserved, everything else is a filter or a function's argument.

use std::collections::BTreeMap;

use percent_encoding::percent_decode;

use super::cursor::{Cursor, Failed, Parsed};
use super::error::{Error, RangeFault};
use super::filter;
use super::request::{EmbedPath, Filter, LogicTree, OrderTerm, Query, Range};
use super::select;
use crate::nesting;

/// What values without an operator are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Arguments of a function that is called by GET.
    Call,
    /// Under the name `by`, columns.
    Update,
    /// Nothing.
    Other,
}

/// Reads a raw query string.
///
/// The first fault is told in the order in which the reference looks: order, logic, columns, select, filters, conflicts.
pub fn query(raw: &str, kind: Kind) -> Result<Query, Error> {
    let pairs = pairs(raw)?;
    let mut query = Query { canonical: canonical(&pairs), ..Query::default() };
    let mut sorted = Sorted::default();
    for (key, value) in &pairs {
        let Some(value) = value else { continue };
        sorted.add(key, value);
    }
    let Sorted { select, columns, on_conflict, orders, limits, offsets, logics, filters } = sorted;
    for (key, value) in orders {
        query.order.push(order(key, value)?);
    }
    for (key, value) in logics {
        query.logic.push(logic(key, value)?);
    }
    query.columns = columns.map(|value| read("columns parameter", value, select::names)).transpose()?;
    if let Some(value) = select {
        query.select = read("select parameter", value, select::select)?;
    }
    for (key, value) in filters {
        match filter(key, value) {
            Ok(filter) => query.filters.push(filter),
            Err(_) if kind == Kind::Call => query.parameters.push((key.to_owned(), value.to_owned())),
            Err(_) if kind == Kind::Update && key == "by" => {
                query.by = Some(read("by parameter", value, select::names)?);
            }
            Err(error) => return Err(error),
        }
    }
    query.on_conflict = on_conflict.map(|value| read("on_conflict parameter", value, select::names)).transpose()?;
    let mut ranges = Ranges::default();
    for (key, value) in limits {
        ranges.limit(embed_path(key)?, value)?;
    }
    for (key, value) in offsets {
        ranges.offset(embed_path(key)?, value);
    }
    query.ranges = ranges.0;
    Ok(query)
}

type Pairs<'a> = Vec<(&'a str, &'a str)>;

/// The parameters by what they are. Of those that can be said once, the first counts.
#[derive(Default)]
struct Sorted<'a> {
    select: Option<&'a str>,
    columns: Option<&'a str>,
    on_conflict: Option<&'a str>,
    orders: Pairs<'a>,
    limits: Pairs<'a>,
    offsets: Pairs<'a>,
    logics: Pairs<'a>,
    filters: Pairs<'a>,
}

impl<'a> Sorted<'a> {
    fn add(&mut self, key: &'a str, value: &'a str) {
        match (key, key.rsplit('.').next().unwrap_or_default()) {
            ("select", _) => _ = self.select.get_or_insert(value),
            ("columns", _) => _ = self.columns.get_or_insert(value),
            ("on_conflict", _) => _ = self.on_conflict.get_or_insert(value),
            (_, "order") => self.orders.push((key, value)),
            (_, "limit") => self.limits.push((key, value)),
            (_, "offset") => self.offsets.push((key, value)),
            (_, "and" | "or") => self.logics.push((key, value)),
            _ => self.filters.push((key, value)),
        }
    }
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

/// Undoes percent encoding and `+`, for what PostgreSQL may read.
pub fn decode(text: &str) -> Result<String, Error> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes()).decode_utf8().map_err(|_| Error::Encoding("query string"))?;
    // PostgreSQL has no NUL in text.
    if decoded.contains('\0') {
        return Err(Error::Encoding("query string"));
    }
    if nesting::is_deep(&decoded) { Err(Error::Nesting) } else { Ok(decoded.into_owned()) }
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

/// Runs a grammar over a value and says where it failed.
fn read<'a, T>(
    what: &'static str,
    text: &'a str,
    grammar: impl FnOnce(&mut Cursor<'a>) -> Parsed<T>,
) -> Result<T, Error> {
    let mut cursor = Cursor::new(text);
    grammar(&mut cursor).map_err(|Failed| Error::Syntax { what, text: text.to_owned(), fault: cursor.fault() })
}

fn filter(key: &str, value: &str) -> Result<(EmbedPath, Filter), Error> {
    let (path, field) = read("tree path", key, select::tree_path)?;
    let (negated, operation) = read("filter", value, filter::operation)?;
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
    let mut path = read("logic path", key, select::logic_path)?;
    let last = path.pop().unwrap_or_default();
    let negated = path.iter().any(|name| name == "not");
    path.retain(|name| name != "not");
    let whole = format!("{}{last}{value}", if negated { "not." } else { "" });
    let tree = read("logic tree", &whole, filter::logic).map_err(|error| match error {
        Error::Syntax { what, fault, .. } => Error::Syntax { what, text: value.to_owned(), fault },
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
