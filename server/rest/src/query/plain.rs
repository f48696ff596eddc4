//! Reads whose rows come as they are and become JSON in `rows`, because all their types are known there; and inserts whose JSON
//! becomes parameters, because all their values are plain.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use ntier_backing::database::Statement;
use ntier_backing::database::catalog::{Catalog, Table};
use ntier_protocol::rest::request::{Count, JsonStep, Range};
use serde_json::value::RawValue;

use super::select;
use super::sql::Sql;
use crate::plan::{Change, Mutate, Node, Read, Render, RowLimit, Select, Shape, Source};
use crate::rows;

/// The statement; `None` where PostgreSQL has to make the body.
pub fn read(plan: &Read, catalog: &Catalog) -> Option<Statement> {
    let limited = plan.max_rows.is_some() || plan.window != Range::default();
    let counted = matches!(plan.count, Some(Count::Exact | Count::Estimated));
    let json =
        matches!(plan.media.render, Render::Array { nulls_stripped: false } | Render::Object { nulls_stripped: false });
    // Where a function may speak of the response, it has to be asked after the rows.
    if !json || (counted && limited) || catalog.sets_response || !is_plain(&plan.root, catalog) {
        return None;
    }
    let mut sql = Sql::default();
    select::node(&mut sql, &plan.root);
    Some(sql.into_statement())
}

fn is_plain(root: &Node, catalog: &Catalog) -> bool {
    let Source::Table { name, .. } = &root.source else { return false };
    let Some(table) = catalog.tables.get(name) else { return false };
    let mut embeds = root.embeds.iter().filter(|embed| !embed.hidden);
    root.select.iter().all(|item| is_known(item, table))
        && embeds.all(|embed| matches!(embed.shape, Shape::Object | Shape::Array))
}

fn is_known(item: &Select, table: &Table) -> bool {
    let field = &item.field;
    let known = |name: &str| table.column(name).is_some_and(|column| rows::knows(&column.base_type));
    if item.aggregate.is_some() || field.whole_row {
        return false;
    }
    if let Some(cast) = &item.cast {
        return rows::knows(cast);
    }
    // A path gives JSON or text, a representation JSON.
    match field.path.last() {
        Some(JsonStep { .. }) => true,
        None if field.transform.is_some() => true,
        None if item.is_star() => table.columns.iter().all(|column| known(&column.name)),
        None => known(&field.name),
    }
}

/// An insert of one object of which nothing is to be read back: its values become parameters, so that PostgreSQL does not take
/// JSON apart and makes no rows of it. `None` where it has to.
pub fn insert(plan: &Mutate, catalog: &Catalog) -> Option<Statement> {
    let Change::Insert { columns, body, defaults: false, conflict: None, key, .. } = &plan.change else { return None };
    let silent = plan.media.render == Render::Nothing && plan.returning.is_empty() && plan.location.is_none();
    if !silent || plan.limit != RowLimit::None || !key.is_empty() || columns.is_empty() || catalog.sets_response {
        return None;
    }
    let table = catalog.tables.get(&plan.target)?;
    let object = Object::parse(&body.json, body.is_array)?;
    let mut sql = Sql::default();
    sql.push("INSERT INTO ").name(&plan.target).push("(");
    sql.list(", ", columns, |sql, column| _ = sql.ident(&column.name)).push(") VALUES (");
    for (index, column) in columns.iter().enumerate() {
        let kind = &table.column(&column.name)?.base_type;
        if column.transform.is_some() {
            return None;
        }
        let value = match object.get(&column.name) {
            Some(value) => parameter(value, kind)?,
            None => None,
        };
        sql.push(if index > 0 { ", " } else { "" }).optional(value);
    }
    sql.push(")");
    Some(sql.into_statement())
}

/// The values of a JSON object as they were written. Of repeated keys the last counts, as in PostgreSQL.
struct Object<'a>(HashMap<Cow<'a, str>, &'a RawValue>);

impl<'a> Object<'a> {
    /// Of an object, or of an array of one object.
    fn parse(json: &'a [u8], is_array: bool) -> Option<Self> {
        let text = std::str::from_utf8(json).ok()?;
        let element = if is_array { serde_json::from_str::<[&RawValue; 1]>(text).ok()?[0].get() } else { text };
        serde_json::from_str(element).ok().map(Self)
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.get(name).copied()
    }
}

/// The text that `json_to_record` would give to the type's input function, `Some(None)` for null; `None` where it would do something else.
fn parameter(value: &RawValue, kind: &str) -> Option<Option<Bytes>> {
    let text = value.get();
    if text == "null" {
        return Some(None);
    }
    if matches!(kind, "json" | "jsonb") {
        return Some(Some(Bytes::copy_from_slice(text.as_bytes())));
    }
    let text = match text.as_bytes().first()? {
        b'"' => serde_json::from_str::<String>(text).ok().filter(|text| !text.contains('\0'))?,
        b'{' | b'[' => return None,
        // An array or a composite cannot be made of a number.
        _ if rows::knows(kind) => text.to_owned(),
        _ => return None,
    };
    Some(Some(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_the_input_functions_take() {
        let given = |json: &str, kind: &str| {
            let raw: &RawValue = serde_json::from_str(json).unwrap();
            parameter(raw, kind).map(|value| value.map(|text| String::from_utf8(text.to_vec()).unwrap()))
        };
        let text = |text: &str| Some(Some(text.to_owned()));
        for (json, kind, expected) in [
            ("null", "jsonb", Some(None)),
            ("1.50", "numeric", text("1.50")),
            ("true", "text", text("true")),
            (r#""a\u00e4\"\n""#, "text", text("aä\"\n")),
            (r#""{1,2}""#, "integer[]", text("{1,2}")),
            (r#"{"a": [1]}"#, "jsonb", text(r#"{"a": [1]}"#)),
            (r#""a""#, "json", text(r#""a""#)),
            ("[1,2]", "integer[]", None),
            ("1", "integer[]", None),
            (r#"{"a":1}"#, "text", None),
            (r#""\u0000""#, "text", None),
            (r#""\ud800""#, "text", None),
        ] {
            assert_eq!(given(json, kind), expected, "{json} {kind}");
        }
    }

    #[test]
    fn one_object_is_enough() {
        let object = |json: &'static str, is_array| Object::parse(json.as_bytes(), is_array);
        assert_eq!(object(r#"{"a": 1, "a": 2}"#, false).unwrap().get("a").unwrap().get(), "2");
        assert_eq!(object(r#" [ {"a\u0062": 1} ]"#, true).unwrap().get("ab").unwrap().get(), "1");
        assert!(object("[]", true).is_none() && object(r"[{},{}]", true).is_none());
    }
}
