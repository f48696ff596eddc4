//! The same statements for pgbench: what a request really sends is read from the server's log, so that it cannot go stale.

use ntier_tests::postgres::Postgres;
use ntier_tests::world::agent;

use crate::Case;
use crate::subject::Subject;

/// A key that no text of a request contains by chance.
const MARK: &str = "7919";

/// A script for pgbench with the statements of one request, in one pipeline and so in one transaction.
pub fn script(server: &Postgres, subject: &Subject, case: &Case) -> Result<String, String> {
    server.sql("postgres", "alter system set log_statement = 'all'");
    server.sql("postgres", "select pg_reload_conf()");
    let log = server.directory.join("log");
    let read = || std::fs::read_to_string(&log).map_err(|cause| cause.to_string());
    // A session takes new settings in when it is idle; so the first request that is logged may not be the first.
    let mut statements = Vec::new();
    for _ in 0..100 {
        let before = read()?.len();
        ask(subject, case)?;
        statements = logged(&read()?[before..]);
        if statements.len() == 2 {
            break;
        }
    }
    server.sql("postgres", "alter system reset log_statement");
    server.sql("postgres", "select pg_reload_conf()");
    if statements.len() != 2 {
        return Err(format!("{}: the log has {} statements instead of two", case.name, statements.len()));
    }
    let body = statements.join(";\n").replace(&format!("'{MARK}'"), ":id");
    Ok(format!("\\set id random(1, 10000)\n\\startpipeline\n{body};\n\\endpipeline\n"))
}

fn ask(subject: &Subject, case: &Case) -> Result<(), String> {
    let url = format!("{}/rest/v1{}", subject.node.url, case.path.replace("ID", MARK));
    let agent = agent();
    let asked = if case.method == "POST" {
        let mut request = agent.post(&url).header("content-type", "application/json");
        for (name, value) in &subject.headers {
            request = request.header(*name, value);
        }
        request.send(case.body)
    } else {
        let mut request = agent.get(&url);
        for (name, value) in &subject.headers {
            request = request.header(*name, value);
        }
        request.call()
    };
    let status = asked.map_err(|cause| cause.to_string())?.status();
    if status.is_success() { Ok(()) } else { Err(format!("{}: {status}", case.name)) }
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
