//! The call of a function.

use ntier_backing::database::catalog::Argument;

use super::change::{Records, records};
use super::sql::{Sql, array_literal};
use crate::plan::{Arguments, Call, Target, Value};

pub(super) fn call(sql: &mut Sql, plan: &Call) {
    let scalar = !plan.function.returns.composite;
    sql.push("SELECT ");
    if scalar {
        sql.push("pgrst_call.pgrst_scalar");
    } else if plan.returning.is_empty() {
        sql.push("*");
    } else {
        sql.list(", ", &plan.returning, |sql, column| {
            sql.push("pgrst_call.").push(if column == "*" { "*" } else { "" });
            if column != "*" {
                sql.ident(column);
            }
        });
    }
    sql.push(" FROM ");
    if let Arguments::Json { arguments, body } = &plan.arguments {
        sql.push("(SELECT ").value(body.json.clone()).push("::json AS json_data) pgrst_payload, ");
        let columns: Vec<Target> = arguments.iter().map(target).collect();
        let source = "pgrst_payload.json_data";
        records(sql, &columns, &Records { source, json: "json", is_array: body.is_array, limit: " LIMIT 1", by: &[] });
        sql.push(", LATERAL ");
    }
    if scalar {
        sql.push("(SELECT ");
    }
    sql.name(&plan.function.name).push("(");
    arguments(sql, &plan.arguments);
    sql.push(if scalar { ") pgrst_scalar) pgrst_call" } else { ") pgrst_call" });
}

fn target(argument: &Argument) -> Target {
    Target { name: argument.name.clone(), data_type: argument.cast_type().to_owned(), transform: None, default: None }
}

fn arguments(sql: &mut Sql, given: &Arguments) {
    match given {
        Arguments::None => {}
        Arguments::Whole { argument, body } => {
            let value = if argument.data_type == "bytea" { hexadecimal(body) } else { body.clone() };
            sql.value(value).push("::").push(&argument.data_type);
        }
        Arguments::Direct(values) => {
            sql.list(", ", values, |sql, (argument, value)| {
                named(sql, argument);
                let text = match value {
                    Value::One(text) => text.clone(),
                    Value::Many(list) => array_literal(list.iter().map(String::as_str)),
                };
                sql.value(text).push("::").push(argument.cast_type());
            });
        }
        Arguments::Json { arguments, .. } => {
            sql.list(", ", arguments, |sql, argument| {
                named(sql, argument);
                sql.push("pgrst_body.").ident(&argument.name);
            });
        }
    }
}

fn named(sql: &mut Sql, argument: &Argument) {
    sql.push(if argument.variadic { "VARIADIC " } else { "" }).ident(&argument.name).push(" := ");
}

/// Bytes as PostgreSQL's text format takes them.
fn hexadecimal(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = b"\\x".to_vec();
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 15)]);
    }
    text
}
