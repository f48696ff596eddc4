//! INSERT, UPDATE and DELETE.

use ntier_backing::database::catalog::Name;

use super::filter;
use super::sql::Sql;
use crate::plan::{Body, Change, Conflict, Logic, Mutate, Target};

/// The name of the payload's rows.
const BODY: &str = "pgrst_body";

pub(super) fn change(sql: &mut Sql, plan: &Mutate) {
    match &plan.change {
        Change::Insert { columns, body, defaults, conflict, key, count_inserted } => {
            insert(sql, &plan.target, columns, body, *defaults);
            let mut word = " WHERE ";
            if *count_inserted {
                sql.push(std::mem::replace(&mut word, " AND ")).push(&counted(true));
            }
            let body = Name::new("", BODY);
            for condition in key {
                sql.push(std::mem::replace(&mut word, " AND "));
                filter::logic(sql, &body, condition, &mut |_, _, _| {});
            }
            if let Some(conflict) = conflict.as_ref().filter(|conflict| !conflict.columns.is_empty()) {
                on_conflict(sql, conflict, columns, *count_inserted);
            }
        }
        // Without columns there is nothing to set. No rows, but with the columns that will be read.
        Change::Update { columns, by, .. } if columns.len() == by.len() => {
            sql.push("SELECT ");
            returned(sql, &Name::new("", &plan.target.name), &plan.returning, "NULL");
            sql.push(" FROM ").name(&plan.target).push(" WHERE false");
            return;
        }
        Change::Update { columns, body, defaults, filters, by } => {
            sql.push("UPDATE ").name(&plan.target).push(" SET ");
            sql.list(", ", columns.iter().filter(|column| !by.contains(&column.name)), |sql, column| {
                sql.ident(&column.name).push(" = ").push(BODY).push(".").ident(&column.name);
            });
            sql.push(" FROM ");
            payload(sql, columns, body, *defaults, by);
            let mut word = " WHERE ";
            if !by.is_empty() {
                each_once(sql, std::mem::replace(&mut word, " AND "));
                sql.list("", by, |sql, column| {
                    sql.push(" AND ").column(&plan.target, column).push(" = ").push(BODY).push(".").ident(column);
                });
            }
            conditions(sql, word, &plan.target, filters);
        }
        Change::Delete { filters } => {
            sql.push("DELETE FROM ").name(&plan.target);
            conditions(sql, " WHERE ", &plan.target, filters);
        }
    }
    sql.push(" RETURNING ");
    returned(sql, &plan.target, &plan.returning, "1");
}

fn insert(sql: &mut Sql, target: &Name, columns: &[Target], body: &Body, defaults: bool) {
    sql.push("INSERT INTO ").name(target);
    if !columns.is_empty() {
        sql.push("(").list(", ", columns, |sql, column| {
            sql.ident(&column.name);
        });
        sql.push(")");
    }
    sql.push(" SELECT ").list(", ", columns, |sql, column| {
        sql.push(BODY).push(".").ident(&column.name);
    });
    sql.push(" FROM ");
    payload(sql, columns, body, defaults, &[]);
}

/// What stands in the message where two rows of the body are for one row of the table.
pub const DUPLICATE_MARK: &str = "ntier:duplicate=";

/// No two rows of the body are for one row: which of them would win is not defined. A text is cast to what it is not, as
/// `query::rows` does with a number.
fn each_once(sql: &mut Sql, word: &str) {
    sql.push(word).push("CASE WHEN ").push(BODY).push(".pgrst_row = 1 THEN true ELSE ('");
    sql.push(DUPLICATE_MARK).push("' || ").push(BODY).push(".pgrst_row)::boolean END");
}

fn conditions(sql: &mut Sql, mut word: &'static str, target: &Name, filters: &[Logic]) {
    for condition in filters {
        sql.push(std::mem::replace(&mut word, " AND "));
        filter::logic(sql, target, condition, &mut |_, _, _| {});
    }
}

fn on_conflict(sql: &mut Sql, conflict: &Conflict, columns: &[Target], count_inserted: bool) {
    sql.push(" ON CONFLICT (").list(", ", &conflict.columns, |sql, column| {
        sql.ident(column);
    });
    sql.push(")");
    if !conflict.merge || columns.is_empty() {
        sql.push(" DO NOTHING");
        return;
    }
    sql.push(" DO UPDATE SET ").list(", ", columns, |sql, column| {
        sql.ident(&column.name).push(" = EXCLUDED.").ident(&column.name);
    });
    if count_inserted {
        sql.push(" WHERE ").push(&counted(false));
    }
}

/// A condition that is always true and counts: up for each row that is to be inserted, down again for
/// each that was there. Unlike `xmax` it needs no privilege and works on views.
fn counted(up: bool) -> String {
    let (sign, never) = if up { ('+', "0") } else { ('-', "-1") };
    format!(
        "set_config('pgrst.inserted', (coalesce(nullif(current_setting('pgrst.inserted', true), '')::int, 0) {sign} 1)::text, \
         true) <> '{never}'"
    )
}

fn returned(sql: &mut Sql, qualifier: &Name, columns: &[String], none: &str) {
    if columns.is_empty() {
        sql.push(none);
    }
    sql.list(", ", columns, |sql, column| {
        if column == "*" {
            sql.name(qualifier).push(".*");
        } else {
            sql.column(qualifier, column);
        }
    });
}

/// The payload's rows with the columns' types, as `pgrst_body`.
///
/// With defaults, each object is laid over one that holds the columns' defaults. Rows are numbered among those that are the same `by`
/// these columns.
fn payload(sql: &mut Sql, columns: &[Target], body: &Body, defaults: bool, by: &[String]) {
    let json = if defaults { "::jsonb" } else { "::json" };
    sql.push("(SELECT ").value(body.json.clone()).push(json).push(" AS json_data) pgrst_payload, ");
    let source = if defaults {
        with_defaults(sql, columns, body.is_array);
        "pgrst_json_defs.val"
    } else {
        "pgrst_payload.json_data"
    };
    let json = if defaults { "jsonb" } else { "json" };
    records(sql, columns, &Records { source, json, is_array: body.is_array, limit: "", by });
}

fn with_defaults(sql: &mut Sql, columns: &[Target], is_array: bool) {
    let object = |sql: &mut Sql| {
        let known = columns.iter().filter_map(|column| Some((column, column.default.as_ref()?)));
        sql.push("jsonb_build_object(").list(", ", known, |sql, (column, default)| {
            // Both are the catalog's: the name of a column, and an expression.
            sql.literal(&column.name).push(", ").push(default);
        });
        sql.push(")");
    };
    sql.push("LATERAL (SELECT ");
    if is_array {
        sql.push("jsonb_agg(");
        object(sql);
        sql.push(" || elem) AS val FROM jsonb_array_elements(pgrst_payload.json_data) elem");
    } else {
        object(sql);
        sql.push(" || pgrst_payload.json_data AS val");
    }
    sql.push(") pgrst_json_defs, ");
}

/// JSON that becomes rows.
pub(super) struct Records<'a> {
    pub source: &'a str,
    /// `json` or `jsonb`.
    pub json: &'a str,
    pub is_array: bool,
    pub limit: &'a str,
    /// Rows that are the same by these columns are numbered.
    pub by: &'a [String],
}

/// `LATERAL (…) pgrst_body`: JSON as rows. Without columns there are still as many rows.
pub(super) fn records(sql: &mut Sql, columns: &[Target], of: &Records<'_>) {
    let Records { source, json, is_array, limit, by } = *of;
    sql.push("LATERAL (SELECT ");
    sql.list(", ", columns, |sql, column| {
        match &column.transform {
            Some(function) => sql.push(function).push("(").ident(&column.name).push(") AS ").ident(&column.name),
            None => sql.ident(&column.name),
        };
    });
    if !by.is_empty() {
        sql.push(", row_number() OVER (PARTITION BY ").list(", ", by, |sql, column| _ = sql.ident(column));
        sql.push(") AS pgrst_row");
    }
    sql.push(" FROM ");
    match (columns.is_empty(), is_array) {
        (true, false) => sql.push("(VALUES (1)) _"),
        (true, true) => sql.push(json).push("_array_elements(").push(source).push(") _"),
        (false, _) => {
            sql.push(json).push(if is_array { "_to_recordset(" } else { "_to_record(" }).push(source).push(") AS _(");
            sql.list(", ", columns, |sql, column| {
                sql.ident(&column.name).push(" ").push(&column.data_type);
            });
            sql.push(")")
        }
    };
    sql.push(limit).push(") ").push(BODY);
}
