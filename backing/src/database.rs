//! The database: PostgreSQL, embedded or external, behind one way of asking.
//!
//! A request is a [`Batch`]: who asks ([`Session`]), the statements, and how the transaction ends. It
//! is sent in one write, runs in one implicit transaction and is answered in one read; see
//! `connection.rs`. Nothing here knows HTTP.

pub mod catalog;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// Statements that run in one transaction, in one round trip.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `None` runs as the connection's own role (catalog, migrations).
    pub session: Option<Session>,
    pub statements: Vec<Statement>,
    pub access: Access,
    pub end: End,
    /// How long the batch may run once the database has begun it.
    pub deadline: Duration,
}

/// Who asks: applied with `set_config(…, true)`, so it ends with the transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Session {
    pub role: String,
    /// Further settings in order: `request.jwt.claims`, `search_path`, …
    pub settings: Vec<(Cow<'static, str>, String)>,
}

#[derive(Debug, Clone)]
pub struct Statement {
    /// Deterministic by the request's shape; it is prepared once per connection.
    pub text: Arc<str>,
    /// In text format; PostgreSQL infers the types.
    pub parameters: Vec<Option<Bytes>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    ReadWrite,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Commit,
    Rollback,
}

/// One result per statement of the batch (the session's own statement is not among them).
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub results: Vec<Rows>,
}

#[derive(Debug, Clone, Default)]
pub struct Rows {
    pub rows: Vec<Row>,
    /// The command tag, such as `SELECT 1` or `INSERT 0 3`.
    pub tag: String,
}

/// Values in text format, `None` for NULL; they share the buffer that was read.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub values: Vec<Option<Bytes>>,
}

impl Row {
    /// The value of a column as text; `None` for NULL or a column that is not there.
    pub fn text(&self, column: usize) -> Option<&str> {
        self.values.get(column)?.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// PostgreSQL refused: its own error, whole.
    #[error("{}", .0.message)]
    Refused(Box<Refusal>),
    /// The statement ran longer than its deadline and was ended (57014).
    #[error("canceling statement due to statement timeout")]
    Deadline,
    /// The connection or the engine went away while the batch was under way. Whether a write happened is unknown.
    #[error("the database connection was lost: {0}")]
    Lost(String),
    /// No connection can be had now.
    #[error("the database cannot be reached: {0}")]
    Unavailable(String),
    /// Too many requests wait already.
    #[error("too many requests wait for the database")]
    Overloaded,
}

/// The fields of PostgreSQL's ErrorResponse that matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// SQLSTATE.
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    pub severity: String,
    /// Character position in the statement, from 1.
    pub position: Option<u32>,
}

/// A way to a PostgreSQL; cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {}

impl Database {
    /// Runs the batch. The answer comes after the commit, never before.
    pub async fn run(&self, _batch: Batch) -> Result<Answer, Error> {
        Err(Error::Unavailable("not written yet".into()))
    }
}
