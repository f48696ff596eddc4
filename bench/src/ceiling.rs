//! The same statements for pgbench: what a request really sends is read from the server's log, so that it cannot go stale.

use ntier_tests::postgres::Postgres;

use crate::case::Case;
use crate::subject::Subject;

/// A key that no text of a request contains by chance.
const MARK: &str = "7919";

/// A script for pgbench with the statements of one request, in one pipeline and so in one transaction.
pub fn script(server: &Postgres, subject: &Subject, case: &Case) -> Result<String, String> {
    server.sql("postgres", "alter system set log_statement = 'all'");
    server.sql("postgres", "select pg_reload_conf()");
    let statements = statements(server, subject, case);
    server.sql("postgres", "alter system reset log_statement");
    server.sql("postgres", "select pg_reload_conf()");
    let body = statements?.join(";\n").replace(&format!("'{MARK}'"), ":id");
    Ok(format!("\\set id random(1, 10000)\n\\startpipeline\n{body};\n\\endpipeline\n"))
}

fn statements(server: &Postgres, subject: &Subject, case: &Case) -> Result<Vec<String>, String> {
    let log = server.directory.join("log");
    let read = || std::fs::read_to_string(&log).map_err(|cause| format!("{}: {cause}", log.display()));
    // A session takes new settings in when it is idle; so the first request that is logged may not be the first.
    let mut seen = 0;
    for _ in 0..100 {
        let before = read()?.len();
        subject.ask(case, MARK)?;
        let statements = logged(&read()?[before..]);
        if statements.len() == 2 {
            return Ok(statements);
        }
        seen = statements.len();
    }
    Err(format!("{}: the server's log has {seen} statements of a request instead of two", case.name))
}

/// The statements in the log, with their parameters as literals.
fn logged(log: &str) -> Vec<String> {
    let mut statements: Vec<String> = Vec::new();
    for line in log.lines() {
        if let Some((_, text)) = line.split_once("LOG:  execute ").and_then(|(_, rest)| rest.split_once(": ")) {
            statements.push(text.to_owned());
        } else if let (Some((_, list)), Some(last)) = (line.split_once("DETAIL:  parameters: "), statements.last_mut())
        {
            *last = bound(last, list);
        }
    }
    statements
}

/// `$1 = 'a', $2 = NULL` put into the text, the last first so that `$1` is not found in `$10`.
fn bound(text: &str, list: &str) -> String {
    let mut values: Vec<&str> = Vec::new();
    let mut rest = list;
    for number in 1.. {
        let Some(after) = rest.strip_prefix(&format!("${number} = ")) else { break };
        let next = after.find(&format!(", ${} = ", number + 1));
        values.push(&after[..next.unwrap_or(after.len())]);
        rest = next.map_or("", |next| &after[next + 2..]);
    }
    let numbered = values.iter().enumerate().rev();
    numbered.fold(text.to_owned(), |text, (at, value)| text.replace(&format!("${}", at + 1), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_become_literals() {
        let log = "x LOG:  execute n1_s2: SELECT $1, $2::json, $1\nx DETAIL:  parameters: $1 = 'it''s, $', $2 = '{\"a\":1}'\n";
        assert_eq!(logged(log), ["SELECT 'it''s, $', '{\"a\":1}'::json, 'it''s, $'"]);
    }
}
