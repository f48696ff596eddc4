//! The only stage that asks the database: one batch, one round trip, one transaction.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use ntier_backing::database::{self, Access, Batch, Company, Database, End, Isolation, Rows, Session, Statement};
use ntier_protocol::rest::request::{Count, TransactionEnd};
use ntier_security::caller::Caller;

use crate::current::Current;
use crate::error::Error;
use crate::idempotency::{Key, is_taken};
use crate::openapi::Visible;
use crate::origin::Origin;
use crate::plan::{Read, Render, Source};
use crate::query::{self, Columns, sql};
use crate::rows;
use crate::settings::Settings;

/// What a main statement said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// All rows, where they were counted.
    pub total: Option<u64>,
    /// The rows of the answer.
    pub rows: u64,
    pub body: Bytes,
    /// What the transaction says of its own response.
    pub headers: Option<String>,
    pub status: Option<String>,
    /// `column=eq.value` of an inserted row.
    pub location: Vec<String>,
    pub inserted: Option<i64>,
    /// The planner's guess at all rows.
    pub planned: Option<u64>,
}

/// Everything about a transaction but its statements.
pub struct Transaction<'a> {
    pub database: &'a Database,
    pub current: &'a Current,
    pub caller: &'a Caller,
    pub origin: &'a Origin,
    pub schema: &'a str,
    pub timezone: Option<&'a str>,
    pub end: TransactionEnd,
}

/// What is to be done in it.
pub struct Task {
    pub access: Access,
    pub statement: Statement,
    /// The statement that has the planner's guess, if that is asked for.
    pub planned: Option<Statement>,
    /// Settings of the function that is called.
    pub function_settings: Vec<(String, String)>,
    /// The body is a `bytea`.
    pub is_binary: bool,
    /// It is done in a moment, so that others may wait for it.
    pub is_brief: bool,
    pub columns: Columns,
}

impl Task {
    pub fn new(access: Access, statement: Statement, columns: Columns) -> Self {
        Self {
            access,
            statement,
            planned: None,
            function_settings: Vec::new(),
            is_binary: false,
            is_brief: false,
            columns,
        }
    }
}

impl Transaction<'_> {
    pub async fn run(&self, task: Task) -> Result<Outcome, Error> {
        let planned = task.planned.is_some();
        let statements = std::iter::once(task.statement).chain(task.planned).collect();
        let shape = if task.is_brief { Shape::Brief } else { Shape::Alone };
        let answer = self.run_batch(task.access, statements, &task.function_settings, shape).await?;
        let mut outcome = outcome(answer.first().ok_or(Error::Incomplete)?, task.columns)?;
        if task.is_binary {
            outcome.make_binary();
        }
        outcome.planned = answer.get(1).filter(|_| planned).and_then(planned_rows);
        Ok(outcome)
    }

    /// Runs the task if its key is new; else gives what it gave, and true.
    pub async fn run_once(&self, task: Task, key: &Key) -> Result<(Outcome, bool), Error> {
        let Task { access, statement, function_settings, is_binary, columns, .. } = task;
        let kept = key.keep_answer();
        for attempt in 0.. {
            let (statements, begin) = self.with_key(key, vec![statement.clone()], kept.clone());
            let taken = match self.batch(access, statements, &function_settings).await {
                Ok(answer) => {
                    let mut outcome = outcome(answer.get(begin).ok_or(Error::Incomplete)?, columns)?;
                    if is_binary {
                        outcome.make_binary();
                    }
                    return Ok((outcome, false));
                }
                Err(Error::Database(database::Error::Refused(refusal))) if is_taken(&refusal) => refusal,
                Err(error) => return Err(error),
            };
            if let Some(kept) = self.recall::<Kept>(key).await? {
                let mut outcome = kept.outcome();
                if is_binary {
                    outcome.make_binary();
                }
                return Ok((outcome, true));
            }
            // It was taken by somebody who then failed, or it has expired this moment.
            if attempt > 0 {
                return Err(Error::Database(database::Error::Refused(taken)));
            }
        }
        Err(Error::Incomplete)
    }

    /// Runs the statements of a batch, once if there is a key. `mains` are the places of those whose outcomes count. With an error
    /// comes the number of statements before the one that failed.
    pub async fn run_all(
        &self,
        access: Access,
        statements: Vec<Statement>,
        key: Option<&Key>,
        mains: &[usize],
        columns: &[Columns],
    ) -> Result<(Vec<Outcome>, bool), (Error, Option<usize>)> {
        let alone = |error| (error, None);
        for attempt in 0.. {
            let (all, begin) = match key {
                Some(key) => self.with_key(key, statements.clone(), key.keep_answers()),
                None => (statements.clone(), 0),
            };
            let taken = match self.run_batch(access, all, &[], Shape::Batch).await {
                Ok(answer) => {
                    let one = |(main, columns): (&usize, &Columns)| {
                        outcome(answer.get(begin + main).ok_or(Error::Incomplete)?, *columns)
                    };
                    let outcomes: Result<Vec<Outcome>, Error> = mains.iter().zip(columns).map(one).collect();
                    return Ok((outcomes.map_err(alone)?, false));
                }
                Err(Error::Database(database::Error::Refused(refusal))) if key.is_some() && is_taken(&refusal) => {
                    refusal
                }
                Err(error) => {
                    let after = match &error {
                        Error::Database(database::Error::Refused(refusal)) => refusal.after.checked_sub(begin),
                        _ => None,
                    };
                    return Err((error, after));
                }
            };
            let kept = match key {
                Some(key) => self.recall::<Vec<Kept>>(key).await.map_err(alone)?,
                None => None,
            };
            if let Some(kept) = kept {
                return Ok((kept.into_iter().map(Kept::outcome).collect(), true));
            }
            if attempt > 0 {
                return Err(alone(Error::Database(database::Error::Refused(taken))));
            }
        }
        Err(alone(Error::Incomplete))
    }

    /// The statements between those that keep the key and its answer, which are the node's own to run; and where they begin.
    fn with_key(&self, key: &Key, statements: Vec<Statement>, keep_answer: Statement) -> (Vec<Statement>, usize) {
        let role = |name: &str| Statement {
            text: "SELECT set_config('role', $1, true)".into(),
            parameters: vec![Some(name.to_owned().into())],
        };
        let [expired, keep] = key.keep();
        let mut all = vec![role("none"), expired, keep, role(&self.caller.role)];
        let begin = all.len();
        all.extend(statements);
        all.extend([role("none"), keep_answer]);
        (all, begin)
    }

    async fn recall<T: serde::de::DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, Error> {
        let batch = Batch { statements: vec![key.recall()], access: Access::ReadOnly, ..Batch::default() };
        let answer = self.database.run(batch).await?;
        let Some(row) = answer.results.first().and_then(|result| result.rows.first()) else { return Ok(None) };
        if row.text(0) != Some(&key.fingerprint) {
            return Err(Error::IdempotencyMismatch);
        }
        row.text(1).and_then(|json| serde_json::from_str(json).ok()).map(Some).ok_or(Error::Incomplete)
    }

    /// Rows that become the body here; `None` where their types are others than the catalog had them.
    pub async fn rows(&self, plan: &Read, statement: Statement) -> Result<Option<Outcome>, Error> {
        let statements = std::iter::once(statement).chain(query::planned_count(plan)).collect();
        let answer = self
            .run_batch(
                Access::ReadOnly,
                statements,
                &[],
                if self.may_share(plan) { Shape::Shareable } else { Shape::Alone },
            )
            .await?;
        let result = answer.first().ok_or(Error::Incomplete)?;
        let body = match plan.media.render {
            Render::Object { .. } => rows::object(result),
            _ => rows::array(result),
        };
        let count = u64::try_from(result.rows.len()).ok();
        Ok(body.map(|body| Outcome {
            total: count.filter(|_| matches!(plan.count, Some(Count::Exact | Count::Estimated))),
            rows: count.unwrap_or(u64::MAX),
            body,
            planned: answer.get(1).and_then(planned_rows),
            ..Outcome::default()
        }))
    }

    /// An insert that gives nothing back but the number of its rows.
    pub async fn insert(&self, statement: Statement, is_brief: bool) -> Result<Outcome, Error> {
        let shape = if is_brief { Shape::Brief } else { Shape::Alone };
        let answer = self.run_batch(Access::ReadWrite, vec![statement], &[], shape).await?;
        // `INSERT 0 1`; the number in the middle means nothing any more.
        let tag = &answer.first().ok_or(Error::Incomplete)?.tag;
        let rows = tag.rsplit(' ').next().and_then(|rows| rows.parse().ok()).ok_or(Error::Incomplete)?;
        Ok(Outcome { rows, ..Outcome::default() })
    }

    /// The statement is an `EXPLAIN`: its rows are the body.
    pub async fn explain(&self, access: Access, statement: Statement) -> Result<Bytes, Error> {
        let answer = self.batch(access, vec![statement], &[]).await?;
        Ok(lines(answer.first().ok_or(Error::Incomplete)?))
    }

    /// What of the schema is to be described.
    pub async fn visible(&self, statement: Statement, follow_privileges: bool) -> Result<Visible, Error> {
        let answer = self.batch(Access::ReadOnly, vec![statement], &[]).await?;
        let row = answer.first().and_then(|result| result.rows.first()).cloned().unwrap_or_default();
        let comment = row.text(2).map(str::to_owned);
        if !follow_privileges {
            return Ok(Visible { comment, ..Visible::default() });
        }
        let names = row.text(0).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        let oids = row.text(1).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        Ok(Visible { tables: Some(names), functions: Some(oids), comment })
    }

    /// Runs the statements after those that belong to every transaction, and gives their results.
    async fn batch(
        &self,
        access: Access,
        statements: Vec<Statement>,
        function_settings: &[(String, String)],
    ) -> Result<Vec<Rows>, Error> {
        self.run_batch(access, statements, function_settings, Shape::Alone).await
    }

    /// Whether the read may run in one transaction with others of the same caller: a table's rows leave nothing behind, where a
    /// view or a function before the request might.
    fn may_share(&self, plan: &Read) -> bool {
        let Current { catalog, settings } = self.current;
        let table = catalog.tables.get(&plan.target);
        settings.pre_request.is_none()
            && self.end == TransactionEnd::Commit
            && table.is_some_and(|table| !table.is_view)
            && plan.root.embeds.iter().all(|embed| matches!(embed.node.source, Source::Table { .. }))
    }

    async fn run_batch(
        &self,
        access: Access,
        statements: Vec<Statement>,
        function_settings: &[(String, String)],
        shape: Shape,
    ) -> Result<Vec<Rows>, Error> {
        let plain = |text: String| Statement { text: text.into(), parameters: Vec::new() };
        let settings = &self.current.settings;
        let role = &self.caller.role;
        if self.current.catalog.roles.as_ref().is_some_and(|roles| !roles.contains(role)) {
            return Err(Error::ForbiddenRole(role.clone()));
        }
        let session = self.session(function_settings);
        let deadline = deadline(settings, &session);
        let before: Vec<Statement> = self.before().filter(|_| shape != Shape::Batch).collect();
        let skipped = before.len();
        let mut all: Vec<Statement> = before.into_iter().chain(statements).collect();
        let end = match self.end {
            TransactionEnd::Commit => End::Commit,
            TransactionEnd::Rollback => {
                // What would only be found out at the commit has to be found out before.
                all.push(plain("SET CONSTRAINTS ALL IMMEDIATE".to_owned()));
                End::Rollback
            }
        };
        let company = match shape {
            Shape::Shareable if session.isolation.is_none() => Company::Transaction,
            Shape::Brief => Company::Flush,
            _ => Company::None,
        };
        let batch = Batch { session: Some(session), statements: all, access, end, deadline, company };
        let mut results = self.database.run(batch).await?.results;
        results.drain(..skipped.min(results.len()));
        Ok(results)
    }

    /// The function that is called before each request, if there is one.
    pub fn before(&self) -> impl Iterator<Item = Statement> {
        let name = self.current.settings.pre_request.as_deref();
        let text = name.map(|name| format!("SELECT {}()", quoted_name(name)));
        text.map(|text| Statement { text: text.into(), parameters: Vec::new() }).into_iter()
    }

    /// Who asks, and everything a policy or a function may want to know of the request.
    fn session(&self, function_settings: &[(String, String)]) -> Session {
        let Current { catalog, settings } = self.current;
        let origin = self.origin;
        let path = std::iter::once(self.schema).chain(settings.extra_search_path.iter().map(String::as_str));
        let role = &self.caller.role;
        let of_role = catalog.role_settings.get(role).map(Vec::as_slice).unwrap_or_default();
        let isolation = |list: &[(String, String)]| {
            let value = list.iter().find(|(key, _)| key == ISOLATION).map(|(_, value)| value)?;
            Isolation::parse(value)
        };
        let mut list: Vec<(Cow<'static, str>, String)> = vec![("search_path".into(), sql::identifier_list(path))];
        let owned = |(key, value): &(String, String)| (Cow::Owned(key.clone()), value.clone());
        let usual = |(key, _): &&(String, String)| key != ISOLATION;
        // Before the role: the connection's own role may set what the caller's may not.
        list.extend(of_role.iter().filter(usual).map(owned));
        list.push(("role".into(), role.clone()));
        list.push(("request.jwt.claims".into(), self.caller.claims.to_string()));
        list.push(("request.method".into(), origin.method.clone()));
        list.push(("request.path".into(), origin.path.clone()));
        list.push(("request.headers".into(), origin.headers.clone()));
        list.push(("request.cookies".into(), origin.cookies.clone()));
        list.extend(self.timezone.map(|zone| ("timezone".into(), zone.to_owned())));
        list.extend(function_settings.iter().filter(usual).map(owned));
        list.extend(settings.session.iter().map(owned));
        Session { settings: list, isolation: isolation(function_settings).or_else(|| isolation(of_role)) }
    }
}

/// Not a setting like others: the transaction has to begin with it.
const ISOLATION: &str = "default_transaction_isolation";

/// What the statements of a transaction are together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Alone,
    /// Others may run in the same transaction.
    Shareable,
    /// The change of a table, which seldom takes long.
    Brief,
    /// Several requests, each with what belongs before it.
    Batch,
}

impl Outcome {
    /// The body was a `bytea`.
    pub fn make_binary(&mut self) {
        self.body = binary(&self.body);
    }
}

impl Kept {
    fn outcome(self) -> Outcome {
        Outcome {
            total: self.total.and_then(|number| number.parse().ok()),
            rows: self.rows,
            body: self.body.unwrap_or_default().into(),
            headers: self.headers,
            status: self.status,
            location: self.location.unwrap_or_default(),
            inserted: self.inserted,
            planned: None,
        }
    }
}

/// What `query` leaves in `ntier.answer`.
#[derive(serde::Deserialize)]
struct Kept {
    #[serde(deserialize_with = "text_or_number")]
    total: Option<String>,
    rows: u64,
    location: Option<Vec<String>>,
    body: Option<String>,
    headers: Option<String>,
    status: Option<String>,
    inserted: Option<i64>,
}

/// A change has an empty text where a call has a number.
fn text_or_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match <serde_json::Value as serde::Deserialize>::deserialize(deserializer)? {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text),
        other => Some(other.to_string()),
    })
}

/// A little later than PostgreSQL's own `statement_timeout`, so that its message comes first where it has
/// one; never later than the settings allow.
fn deadline(settings: &Settings, session: &Session) -> Duration {
    const GRACE: Duration = Duration::from_millis(500);
    let timeouts = session.settings.iter().filter(|(key, _)| key == "statement_timeout");
    let timeout = timeouts.filter_map(|(_, value)| parse_timeout(value)).next_back();
    timeout.map_or(settings.deadline, |timeout| settings.deadline.min(timeout + GRACE))
}

/// As PostgreSQL writes durations; without a unit they are milliseconds, and 0 is none.
fn parse_timeout(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok().filter(|number| *number > 0)?;
    let milliseconds = match text[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.saturating_mul(milliseconds)))
}

/// The name of a function, perhaps with its schema, as SQL has it.
pub fn quoted_name(function: &str) -> String {
    let parts: Vec<String> = function.split('.').map(|part| sql::identifier_list([part])).collect();
    parts.join(".")
}

fn lines(result: &Rows) -> Bytes {
    let mut text = Vec::new();
    for row in &result.rows {
        text.extend_from_slice(row.values().next().flatten().unwrap_or_default());
        text.push(b'\n');
    }
    text.into()
}

fn outcome(result: &Rows, columns: Columns) -> Result<Outcome, Error> {
    let row = result.rows.first().ok_or(Error::Incomplete)?;
    let text = |index: usize| row.text(index);
    let location = columns.location.and_then(text).and_then(|json| serde_json::from_str(json).ok());
    Ok(Outcome {
        total: text(Columns::TOTAL).and_then(|number| number.parse().ok()),
        rows: text(Columns::ROWS).and_then(|number| number.parse().ok()).ok_or(Error::Incomplete)?,
        body: row.bytes(columns.body).unwrap_or_default(),
        headers: text(columns.headers()).map(str::to_owned),
        status: text(columns.status()).map(str::to_owned),
        location: location.unwrap_or_default(),
        inserted: columns.inserted.and_then(text).and_then(|number| number.parse().ok()),
        planned: None,
    })
}

/// PostgreSQL writes bytes as `\x` and two digits for each.
fn binary(text: &[u8]) -> Bytes {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let Some(digits) = text.strip_prefix(b"\\x") else { return Bytes::copy_from_slice(text) };
    let bytes = digits.chunks_exact(2).filter_map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?));
    bytes.collect()
}

fn planned_rows(result: &Rows) -> Option<u64> {
    let text = result.rows.first()?.text(0)?;
    let plan: serde_json::Value = serde_json::from_str(text).ok()?;
    plan.get(0)?.get("Plan")?.get("Plan Rows")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_postgresql_writes_them() {
        for (text, expected) in
            [("3s", Some(3000)), ("250", Some(250)), (" 2 min", Some(120_000)), ("0", None), ("soon", None), ("", None)]
        {
            assert_eq!(parse_timeout(text), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn bytes_are_read_as_postgresql_writes_them() {
        for (text, expected) in [(&b"\\x00ff41"[..], &b"\x00\xffA"[..]), (b"\\x", b""), (b"plain", b"plain")] {
            assert_eq!(binary(text), expected);
        }
    }

    #[test]
    fn names_of_functions_are_quoted() {
        assert_eq!(quoted_name("test.switch_role"), r#""test"."switch_role""#);
    }
}
