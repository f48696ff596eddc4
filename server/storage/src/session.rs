//! As whom a batch runs: as the caller, so that row level security decides, or as the service, for what it has to know or to
//! finish by itself. Nothing is decided here.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ntier_backing::database;
use ntier_backing::database::{Access, Answer, Batch, Company, Database, End, Session, Statement};
use ntier_security::caller::Caller;
use serde_json::{Map, Value};

use crate::error::Error;
use crate::visitor::Visitor;

/// No statement of a request takes longer.
const DEADLINE: Duration = Duration::from_secs(30);

/// How often something was changed here; counted before anybody is told of it.
static WRITES: AtomicU64 = AtomicU64::new(0);

pub fn writes() -> u64 {
    WRITES.load(Ordering::SeqCst)
}

/// Something was changed elsewhere: what is known of rows does not hold any more.
pub fn forget() {
    WRITES.fetch_add(1, Ordering::SeqCst);
}

/// A statement; `None` is null.
pub fn sql(text: &str, parameters: &[Option<&str>]) -> Statement {
    let parameters = parameters.iter().map(|value| value.map(|text| Bytes::copy_from_slice(text.as_bytes()))).collect();
    Statement { text: text.into(), parameters }
}

/// What PostgreSQL is told of a request, as policies may ask for it.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    path: String,
    headers: String,
    /// `storage.operation()`, such as `storage.object.upload`.
    operation: &'static str,
}

impl Request {
    pub fn of(visitor: &Visitor, operation: &'static str) -> Self {
        let mut headers = Map::new();
        for (name, value) in &visitor.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            headers.entry(name.as_str()).or_insert_with(|| value.into_owned().into());
        }
        Self {
            method: visitor.method.to_string(),
            path: format!("/storage/v1{}", visitor.raw_path),
            headers: Value::Object(headers).to_string(),
            operation,
        }
    }

    /// For what is done on somebody's behalf after their request.
    pub fn of_job(operation: &'static str) -> Self {
        Self { method: String::new(), path: String::new(), headers: "{}".into(), operation }
    }
}

/// How a batch of a caller is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Read,
    Write,
    /// Whether it may be done; nothing is.
    Try,
}

/// Statements of the service and then of a caller, in one transaction.
#[derive(Debug, Clone, Default)]
pub struct Work {
    /// Run first, as the service.
    pub service: Vec<Statement>,
    pub caller: Vec<Statement>,
}

/// Runs statements as the caller.
pub async fn as_caller(
    database: &Database,
    caller: &Caller,
    request: &Request,
    mode: Mode,
    work: Work,
) -> Result<Answer, Error> {
    let mut settings: Vec<(Cow<'static, str>, String)> = vec![
        ("search_path".into(), "storage, public, extensions".into()),
        ("request.jwt.claims".into(), caller.claims.to_string()),
        ("request.method".into(), request.method.clone()),
        ("request.path".into(), request.path.clone()),
        ("request.headers".into(), request.headers.clone()),
        ("storage.operation".into(), request.operation.into()),
        ("storage.allow_delete_query".into(), "true".into()),
    ];
    let service = work.service.len();
    let mut statements = work.service;
    // Of two steps, the service's are first; else the role can be said with the rest.
    if statements.is_empty() {
        settings.push(("role".into(), caller.role.clone()));
    } else {
        statements.push(sql("select set_config('role', $1, true)", &[Some(&caller.role)]));
    }
    let become_caller = statements.len() - service;
    statements.extend(work.caller);
    let batch = Batch {
        session: Some(Session { settings, isolation: None }),
        statements,
        access: if mode == Mode::Read { Access::ReadOnly } else { Access::ReadWrite },
        end: if mode == Mode::Try { End::Rollback } else { End::Commit },
        deadline: DEADLINE,
        company: if mode == Mode::Write { Company::Flush } else { Company::None },
    };
    let answer = database.run(batch).await;
    if mode == Mode::Write {
        forget();
    }
    let mut answer = answer?;
    // What becomes the caller says nothing.
    answer.results.drain(service..service + become_caller);
    Ok(answer)
}

/// Reads as the service, for what everybody may have, or whoever has a signed URL.
pub async fn look(database: &Database, statements: Vec<Statement>) -> Result<Answer, Error> {
    let batch = Batch {
        statements,
        access: Access::ReadOnly,
        deadline: DEADLINE,
        company: Company::Transaction,
        // What runs in one transaction with others has a session in common with them.
        session: Some(Session::default()),
        ..Batch::default()
    };
    Ok(database.run(batch).await?)
}

/// Whether a batch was undone because something that it was decided upon (`ntier.expect`) is not so any more.
pub fn is_changed(error: &Error) -> bool {
    matches!(error, Error::Database(database::Error::Refused(refusal)) if refusal.code == "NT001")
}

/// Changes as the service, whole or not at all.
pub async fn finish(database: &Database, statements: Vec<Statement>) -> Result<Answer, Error> {
    let settings = vec![("storage.allow_delete_query".into(), "true".to_owned())];
    let batch = Batch {
        session: Some(Session { settings, isolation: None }),
        statements,
        company: Company::Flush,
        deadline: DEADLINE,
        ..Batch::default()
    };
    let answer = database.run(batch).await;
    forget();
    Ok(answer?)
}
