//! A published table as a role sees it, and a row of it.

use std::borrow::Cow;
use std::collections::HashMap;

use ntier_protocol::realtime::filter::verdict::{self, Kind, Verdict};
use ntier_protocol::realtime::filter::{Filter, Operator, Unfit};
use ntier_protocol::realtime::message::Json;
use serde::Deserialize;
use serde_json::value::RawValue;

/// What `ntier.change_table` says.
#[derive(Debug, Clone, Deserialize)]
pub struct Table {
    pub schema: String,
    #[serde(rename = "table")]
    pub name: String,
    /// Row level security is on, for whomever.
    pub row_security: bool,
    /// Policies decide which rows this role sees.
    pub filtered: bool,
    /// The replica identity is the whole row.
    pub full: bool,
    pub columns: Vec<Column>,
}

#[derive(Debug, Clone, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "facts of PostgreSQL's catalog, each by itself")]
pub struct Column {
    pub name: String,
    /// In `pg_type`.
    #[serde(rename = "type")]
    pub type_name: String,
    /// A type of `pg_catalog`.
    pub is_usual: bool,
    pub is_enum: bool,
    /// It takes `like` and regular expressions.
    pub is_text: bool,
    /// As SQL names its type, with its modifiers.
    pub sql: String,
    /// As messages name it.
    pub said: String,
    /// Of the primary key.
    pub key: bool,
    pub readable: bool,
}

/// A row, by columns; values as they stand in the outbox.
pub type Record<'a> = HashMap<Cow<'a, str>, &'a RawValue>;

/// Reads a row of the outbox.
pub fn record(text: &[u8]) -> Option<Record<'_>> {
    serde_json::from_slice(text).ok()
}

/// A value as a text, as SQL would cast it from; null is nothing.
pub fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    match raw.get() {
        "null" => None,
        quoted if quoted.starts_with('"') => serde_json::from_str::<Cow<str>>(quoted).ok(),
        other => Some(Cow::Borrowed(other)),
    }
}

impl Column {
    fn kind(&self) -> Option<Kind> {
        match (self.is_enum, self.is_usual) {
            (true, _) => Some(Kind::Enum),
            (false, true) => Kind::of(&self.type_name),
            (false, false) => None,
        }
    }
}

impl Table {
    pub fn key(&self) -> impl Iterator<Item = &Column> + Clone {
        self.columns.iter().filter(|column| column.key)
    }

    pub fn readable(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name && column.readable)
    }

    /// Whether there is anything that the role may read.
    pub fn is_readable(&self) -> bool {
        self.columns.iter().any(|column| column.readable)
    }

    /// Whether a row passes the filters, as far as that can be said here. What the role may not read passes nothing.
    pub fn passes(&self, filters: &[Filter], record: &Record) -> Verdict {
        if filters.is_empty() {
            return Verdict::Passes;
        }
        let values: Vec<Option<Cow<str>>> =
            filters.iter().map(|filter| record.get(filter.column.as_str()).and_then(|raw| text(raw))).collect();
        verdict::of(filters, |name| {
            let column = self.readable(name)?;
            let at = filters.iter().position(|filter| filter.column == name)?;
            record.contains_key(name).then(|| (column.kind(), values[at].as_deref()))
        })
    }

    /// Whether filters and selected columns fit.
    pub fn fits(&self, filters: &[Filter], select: Option<&[String]>) -> Result<(), Unfit> {
        for filter in filters {
            let column = self.readable(&filter.column);
            filter.fits(column.map(|column| column.said.as_str()))?;
            let is_pattern =
                matches!(filter.operator, Operator::Like | Operator::ILike | Operator::Match | Operator::IMatch);
            if let Some(column) = column.filter(|column| is_pattern && !column.is_text) {
                return Err(Unfit::NotText { operator: filter.operator, got: column.said.clone() });
            }
        }
        for name in select.into_iter().flatten() {
            self.readable(name).ok_or_else(|| Unfit::Selected(name.clone()))?;
        }
        Ok(())
    }

    /// The columns of which a client is told: those it may read, and of these the selected ones and the key.
    pub fn told<'a>(&'a self, select: Option<&'a [String]>) -> impl Iterator<Item = &'a Column> {
        self.columns.iter().filter(move |column| {
            column.readable && (column.key || select.is_none_or(|names| names.contains(&column.name)))
        })
    }
}

/// An object of some columns of a row, in their order. What the row does not have is not there.
pub fn object<'a>(columns: impl Iterator<Item = &'a Column>, record: &Record) -> Json {
    let mut out = String::from("{");
    for column in columns {
        let Some(raw) = record.get(column.name.as_str()) else { continue };
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(&serde_json::Value::from(column.name.as_str()).to_string());
        out.push(':');
        match raw.get().strip_prefix("\"\\\\x") {
            // Bytes are told without what PostgreSQL writes before them.
            Some(digits) if column.is_usual && column.type_name == "bytea" => {
                out.push('"');
                out.push_str(digits);
            }
            _ => out.push_str(raw.get()),
        }
    }
    out.push('}');
    Json::read(&out.into_bytes().into()).unwrap_or_else(Json::empty)
}

#[cfg(test)]
mod tests {
    use ntier_protocol::realtime::filter::read;

    use super::*;

    fn table() -> Table {
        let column = |name: &str, type_name: &str, key, readable| Column {
            name: name.into(),
            type_name: type_name.into(),
            is_usual: true,
            is_enum: false,
            is_text: type_name == "text",
            sql: type_name.into(),
            said: type_name.into(),
            key,
            readable,
        };
        Table {
            schema: "public".into(),
            name: "todos".into(),
            row_security: false,
            filtered: false,
            full: false,
            columns: vec![
                column("id", "int8", true, true),
                column("title", "text", false, true),
                column("secret", "text", false, false),
                column("raw", "bytea", false, true),
            ],
        }
    }

    #[test]
    fn what_may_not_be_read_is_neither_told_nor_filtered_by() {
        let (table, text) = (table(), br#"{"id":7,"title":"a\"b","secret":"s","raw":"\\xdead","gone":1}"#);
        let row = record(text).unwrap();
        let told =
            |select: Option<&[String]>| String::from_utf8(object(table.told(select), &row).bytes().to_vec()).unwrap();
        assert_eq!(told(None), r#"{"id":7,"title":"a\"b","raw":"dead"}"#);
        assert_eq!(told(Some(&["title".to_owned(), "secret".to_owned()])), r#"{"id":7,"title":"a\"b"}"#);
        for (filter, expected) in [
            ("title=eq.a\"b", Verdict::Passes),
            ("id=gt.6", Verdict::Passes),
            ("secret=eq.s", Verdict::Fails),
            ("gone=eq.1", Verdict::Fails),
            ("title=gt.a", Verdict::Ask),
        ] {
            assert_eq!(table.passes(&read(filter).unwrap(), &row), expected, "{filter}");
        }
        for (filter, fault) in [
            ("secret=eq.s", "invalid column for filter secret"),
            ("id=like.7", "operator like requires a text-compatible column type, got int8"),
        ] {
            assert_eq!(table.fits(&read(filter).unwrap(), None).unwrap_err().to_string(), fault);
        }
        assert!(table.fits(&[], Some(&["secret".to_owned()])).is_err());
    }
}
