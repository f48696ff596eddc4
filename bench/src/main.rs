//! `cargo xtask bench rest`: the data API on a PostgreSQL server and on the embedded database, beside pgbench with the same
//! statements in the same transactions on the same server, in one run. README.md says how to read it.

mod ceiling;
mod load;
mod measure;
mod report;
mod subject;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command, value_parser};
use serde_json::json;

use report::Line;
use subject::Subject;

/// One kind of request.
pub struct Case {
    pub name: &'static str,
    pub method: &'static str,
    /// `ID` stands for a number from 1 to 10,000 that differs each time.
    pub path: &'static str,
    pub body: &'static str,
}

const CASES: &[Case] = &[
    Case { name: "GET by key", method: "GET", path: "/items?id=eq.ID", body: "" },
    Case { name: "GET list of 20", method: "GET", path: "/items?select=id,name,price&order=id&limit=20", body: "" },
    Case { name: "GET embedding", method: "GET", path: "/items?select=id,name,parts(id,name)&id=eq.ID", body: "" },
    Case { name: "POST one row", method: "POST", path: "/events", body: r#"{"body":"hello"}"# },
];

fn main() -> ExitCode {
    let matches = Command::new("bench")
        .about("Measures the data API")
        .subcommand_required(true)
        .subcommand(
            Command::new("rest")
                .arg(Arg::new("binary").long("binary").required(true).value_parser(value_parser!(PathBuf)))
                .arg(Arg::new("seconds").long("seconds").default_value("8").value_parser(value_parser!(u32)))
                .arg(Arg::new("only").long("only").help("Only cases whose name contains this"))
                .arg(Arg::new("json").long("json").value_name("FILE").value_parser(value_parser!(PathBuf)))
                .arg(Arg::new("quick").long("quick").action(ArgAction::SetTrue).help("One second per case")),
        )
        .get_matches();
    let Some(("rest", flags)) = matches.subcommand() else { return ExitCode::from(2) };
    let (Some(binary), Some(&seconds)) = (flags.get_one::<PathBuf>("binary"), flags.get_one::<u32>("seconds")) else {
        return ExitCode::from(2);
    };
    let seconds = if flags.get_flag("quick") { 1 } else { seconds };
    let only = flags.get_one::<String>("only").map(String::as_str).unwrap_or_default();
    match rest(binary, seconds, only, flags.get_one::<PathBuf>("json")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("{fault}");
            ExitCode::FAILURE
        }
    }
}

fn rest(binary: &std::path::Path, seconds: u32, only: &str, json: Option<&PathBuf>) -> Result<(), String> {
    let server = ntier_tests::postgres::start("");
    server.sql("postgres", "create database bench");
    let mut subjects =
        [Subject::start("server", binary, Some(server.url("bench")))?, Subject::start("embedded", binary, None)?];
    let starts = subjects.iter_mut().map(|subject| measure::starts(subject, 5)).collect::<Result<Vec<_>, _>>()?;
    let idle = subjects.iter().map(|subject| measure::memory(&subject.node)).collect::<Result<Vec<_>, _>>()?;
    let mut lines = Vec::new();
    for case in CASES.iter().filter(|case| case.name.contains(only)) {
        println!("{} …", case.name);
        let script = ceiling::script(&server, &subjects[0], case)?;
        let ceiling = load::pgbench(&server, &script, seconds)?;
        for subject in &subjects {
            let answered = load::wrk(subject, case, seconds)?;
            lines.push(Line {
                case: case.name,
                subject: subject.name,
                answered,
                ceiling,
                memory: measure::memory(&subject.node)?,
            });
        }
    }
    let http = subjects.iter().map(|subject| load::health(subject, seconds.min(4))).collect::<Result<Vec<_>, _>>()?;
    let rounds: Vec<_> = subjects.iter().map(|subject| subject.name).zip(starts).zip(idle).zip(http).collect();
    report::print(&lines, &rounds);
    if let Some(path) = json {
        let raw = json!({ "seconds": seconds, "cases": lines.iter().map(Line::json).collect::<Vec<_>>(),
            "subjects": rounds.iter().map(report::subject_json).collect::<Vec<_>>() });
        std::fs::write(path, format!("{raw:#}\n")).map_err(|cause| format!("{}: {cause}", path.display()))?;
    }
    Ok(())
}
