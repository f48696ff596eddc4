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
        Change::Update { columns, .. } if columns.is_empty() => {
            sql.push("SELECT ");
            returned(sql, &Name::new("", &plan.target.name), &plan.returning, "NULL");
            sql.push(" FROM ").name(&plan.target).push(" WHERE false");
            return;
        }
        Change::Update { columns, body, defaults, filters } => {
            sql.push("UPDATE ").name(&plan.target).push(" SET ");
            sql.list(", ", columns, |sql, column| {
                sql.ident(&column.name).push(" = ").push(BODY).push(".").ident(&column.name);
            });
            sql.push(" FROM ");
            payload(sql, columns, body, *defaults);
            conditions(sql, &plan.target, filters);
        }
        Change::Delete { filters } => {
            sql.push("DELETE FROM ").name(&plan.target);
            conditions(sql, &plan.target, filters);
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
    payload(sql, columns, body, defaults);
}

fn conditions(sql: &mut Sql, target: &Name, filters: &[Logic]) {
    let mut word = " WHERE ";
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
/// With defaults, each object is laid over one that holds the columns' defaults.
fn payload(sql: &mut Sql, columns: &[Target], body: &Body, defaults: bool) {
    let json = if defaults { "::jsonb" } else { "::json" };
    sql.push("(SELECT ").value(body.json.clone()).push(json).push(" AS json_data) pgrst_payload, ");
    let source = if defaults {
        with_defaults(sql, columns, body.is_array);
        "pgrst_json_defs.val"
    } else {
        "pgrst_payload.json_data"
    };
    records(sql, columns, body.is_array, source, if defaults { "jsonb" } else { "json" }, "");
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

/// `LATERAL (…) pgrst_body`: JSON as rows. Without columns there are still as many rows.
pub(super) fn records(sql: &mut Sql, columns: &[Target], is_array: bool, source: &str, json: &str, limit: &str) {
    sql.push("LATERAL (SELECT ");
    sql.list(", ", columns, |sql, column| {
        match &column.transform {
            Some(function) => sql.push(function).push("(").ident(&column.name).push(") AS ").ident(&column.name),
            None => sql.ident(&column.name),
        };
    });
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
