//! `ntier sql`: runs a script as the owner, and shows its rows as a table or as JSON.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use clap::ArgMatches;
use ntier::server;
use ntier::settings::Mode;
use ntier_backing::database::{Column, Error, Refusal, Row, Rows};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::progress::Progress;
use crate::{arguments, table};

pub async fn run(flags: &ArgMatches) -> Result<(), Failure> {
    let loaded = arguments::settings(flags, Mode::Serve)?;
    let text = script(flags)?;
    let progress = Progress::new();
    let database = server::visit(&loaded.settings, std::env::current_exe()?, &|step| progress.observe(step)).await?;
    drop(progress);
    let answer = database.simple(&text).await;
    database.close().await;
    let results = answer.map_err(|cause| match cause {
        Error::Refused(refusal) => Failure::new(refused(&text, &refusal)),
        other => Failure::from(other),
    })?;
    let json = flags.get_flag("json");
    for rows in &results {
        match (json, rows.columns.is_empty()) {
            (true, true) => {}
            (true, false) => println!("{}", Value::Array(objects(rows))),
            (false, true) => println!("{}", rows.tag),
            (false, false) => print!("{}", as_table(rows)),
        }
    }
    Ok(())
}

fn script(flags: &ArgMatches) -> Result<String, Failure> {
    if let Some(file) = flags.get_one::<PathBuf>("file") {
        return std::fs::read_to_string(file).map_err(|cause| Failure::new(format!("{}: {cause}", file.display())));
    }
    match flags.get_one::<String>("sql").map(String::as_str) {
        Some(sql) if sql != "-" => Ok(sql.to_owned()),
        _ => {
            if std::io::stdin().is_terminal() {
                eprintln!("reading SQL from standard input; end it with Ctrl-D");
            }
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            Ok(text)
        }
    }
}

fn as_table(rows: &Rows) -> String {
    let columns: Vec<&str> = rows.columns.iter().map(|column| column.name.as_str()).collect();
    let cells: Vec<Vec<Option<String>>> =
        rows.rows.iter().map(|row| (0..columns.len()).map(|at| row.text(at).map(str::to_owned)).collect()).collect();
    let count = rows.rows.len();
    format!("{}({count} row{})\n", table::render(&columns, &cells), if count == 1 { "" } else { "s" })
}

fn objects(rows: &Rows) -> Vec<Value> {
    let row = |row: &Row| {
        let columns = rows.columns.iter().enumerate();
        let pair = |(at, column): (usize, &Column)| {
            (column.name.clone(), row.text(at).map_or(Value::Null, |text| value(column.type_oid, text)))
        };
        let object: Map<String, Value> = columns.map(pair).collect();
        Value::Object(object)
    };
    rows.rows.iter().map(row).collect()
}

/// Numbers, booleans and JSON as such, everything else as PostgreSQL writes it.
fn value(oid: u32, text: &str) -> Value {
    const BOOL: u32 = 16;
    match oid {
        BOOL => Value::Bool(text == "t"),
        // int8, int2, int4, oid, json, float4, float8, numeric, jsonb; NaN and infinities are no JSON.
        20 | 21 | 23 | 26 | 114 | 700 | 701 | 1700 | 3802 => {
            serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
        }
        _ => Value::String(text.to_owned()),
    }
}

/// The message as psql shows it, with the line.
fn refused(script: &str, refusal: &Refusal) -> String {
    let mut text = format!("{} (SQLSTATE {})", refusal.message, refusal.code);
    if let Some(position) = refusal.position.and_then(|position| usize::try_from(position).ok()) {
        let before: String = script.chars().take(position.saturating_sub(1)).collect();
        let line = before.matches('\n').count();
        let column = before.chars().rev().take_while(|&c| c != '\n').count();
        if let Some(shown) = script.lines().nth(line) {
            text.push_str(&format!(
                "\n  line {}: {shown}\n{:>width$}",
                line + 1,
                "^",
                width = column + 10 + digits(line + 1)
            ));
        }
    }
    for (name, more) in [("detail", &refusal.detail), ("hint", &refusal.hint)] {
        if let Some(more) = more {
            text.push_str(&format!("\n  {name}: {more}"));
        }
    }
    text
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_keep_their_kind() {
        for (oid, text, expected) in [
            (16, "t", json!(true)),
            (23, "-7", json!(-7)),
            (3802, r#"{"a": [1]}"#, json!({"a": [1]})),
            (701, "NaN", json!("NaN")),
            (25, "12", json!("12")),
        ] {
            assert_eq!(value(oid, text), expected, "{oid} {text}");
        }
    }

    #[test]
    fn a_refusal_points_at_its_place() {
        let refusal = Refusal {
            code: "42703".into(),
            message: "column \"b\" does not exist".into(),
            position: Some(18),
            ..Refusal::default()
        };
        let told = refused("select 1;\nselect b", &refusal);
        assert_eq!(told, "column \"b\" does not exist (SQLSTATE 42703)\n  line 2: select b\n                 ^");
    }
}
