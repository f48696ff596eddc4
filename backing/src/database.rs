//! The database: PostgreSQL, embedded or external, behind one way of asking.
//!
//! A request is a [`Batch`]: who asks ([`Session`]), the statements, and how the transaction ends. It
//! is sent in one write, runs in one implicit transaction and is answered in one read; see
//! `connection.rs`. Nothing here knows HTTP.

pub mod catalog;
mod connection;
mod engine;
mod handshake;
mod line;
pub mod migrations;
mod progress;
mod referee;
mod slot;
mod statements;
mod stream;
mod tls;
mod url;
mod wire;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{broadcast, oneshot};

use connection::{Task, Work};
pub use engine::{Embedded, EngineCommand};
pub use line::Line;
use slot::Slot;
pub use url::{Address, Fault as UrlFault, Host, SslMode, parse as parse_url, parse_connection};

/// With this SQLSTATE triggers refuse writes while a database is moved elsewhere: nothing was run, and later it may be.
pub const CLOSED: &str = "NT503";

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
    pub company: Company,
}

impl Default for Batch {
    /// Nothing, to be committed within a minute.
    fn default() -> Self {
        Self {
            session: None,
            statements: Vec::new(),
            access: Access::ReadWrite,
            end: End::Commit,
            deadline: Duration::from_mins(1),
            company: Company::None,
        }
    }
}

/// What a batch may share with others that come at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    None,
    /// It only reads, and leaves nothing behind in its transaction: it may share one with others of the same session.
    Transaction,
    /// It writes, and is brief: its commit and those of others may go to the disk together. Each is answered after that, so its answer
    /// may have to wait for those others.
    Flush,
}

/// Who asks: applied with `set_config(…, true)`, so it ends with the transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Session {
    /// In order: `search_path`, `role`, `request.jwt.claims`, … What comes after `role` is set as that role.
    pub settings: Vec<(Cow<'static, str>, String)>,
    /// `None` for what the database has.
    pub isolation: Option<Isolation>,
}

/// How much of other transactions this one sees (PostgreSQL documentation, "Transaction Isolation").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

impl Isolation {
    /// As `default_transaction_isolation` names them.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "read committed" | "read uncommitted" => Self::ReadCommitted,
            "repeatable read" => Self::RepeatableRead,
            "serializable" => Self::Serializable,
            _ => return None,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Deterministic by the request's shape; it is prepared once per connection.
    pub text: Arc<str>,
    /// In text format; PostgreSQL infers the types.
    pub parameters: Vec<Option<Bytes>>,
}

impl Statement {
    /// One whose parameters are all there.
    pub fn new(text: &str, parameters: &[&str]) -> Self {
        let parameters = parameters.iter().map(|value| Some(Bytes::copy_from_slice(value.as_bytes()))).collect();
        Self { text: text.into(), parameters }
    }
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
    /// What the rows have; empty for a statement that gives none. Statements that were prepared once share it.
    pub columns: Arc<[Column]>,
    pub rows: Vec<Row>,
    /// The command tag, such as `SELECT 1` or `INSERT 0 3`.
    pub tag: String,
}

/// What PostgreSQL says of a column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// The OID of its type.
    pub type_oid: u32,
}

/// Values in text format, in the buffer that was read: looked at where they are, never copied.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// A DataRow's body, known to be whole.
    body: Bytes,
}

impl Row {
    /// The values, `None` for NULL.
    pub fn values(&self) -> impl Iterator<Item = Option<&[u8]>> {
        wire::values(&self.body)
    }

    /// The value of a column; `None` for NULL or a column that is not there.
    pub fn bytes(&self, column: usize) -> Option<Bytes> {
        self.values().nth(column)?.map(|value| self.body.slice_ref(value))
    }

    /// Likewise, as text.
    pub fn text(&self, column: usize) -> Option<&str> {
        self.values().nth(column)?.and_then(|value| std::str::from_utf8(value).ok())
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
    /// No connection can be had now; nothing was run.
    #[error("the database cannot be reached: {0}")]
    Unavailable(String),
    /// Too many requests wait already; nothing was run.
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
    /// Character position in the statement (in the whole text of a script), from 1.
    pub position: Option<u32>,
    /// How many statements of the script or the batch had succeeded before this one.
    pub after: usize,
}

/// What came on a channel that [`Options::listen`] names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    pub channel: String,
    pub payload: String,
}

/// Which PostgreSQL.
#[derive(Debug, Clone)]
pub enum Target {
    Embedded(Embedded),
    External(Address),
}

#[derive(Debug, Clone)]
pub struct Options {
    /// Connections to an external server; the embedded engine always has one.
    pub connections: usize,
    /// Batches that may wait or run; one more is [`Error::Overloaded`].
    pub max_waiting: usize,
    /// Channels to listen on.
    pub listen: Vec<String>,
    /// Notifications that each listener may leave unheard before it misses some.
    pub notifications: usize,
    /// Whether statements are prepared once for a connection. A pooler that gives each transaction another connection may need
    /// them not to be.
    pub prepared_statements: bool,
    /// How long a script may run (migrations).
    pub script_deadline: Duration,
    /// How long another client of the embedded engine (psql, a dump) may keep requests waiting before it is ended.
    pub guest_deadline: Duration,
}

/// How many connections serve a machine of this size well, where the server has about as many processors: more only make its
/// processes wait for each other (`cargo xtask bench rest`, GET by key on two processors: 34,000/s with 8 connections and a p99 of
/// 285 ms, 38,000/s with 4 and a p99 of 7 ms).
pub fn usual_connections() -> usize {
    std::thread::available_parallelism().map_or(4, |processors| (2 * processors.get()).max(4))
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: usual_connections(),
            max_waiting: 1000,
            listen: Vec::new(),
            notifications: 256,
            prepared_statements: true,
            script_deadline: Duration::from_hours(1),
            guest_deadline: Duration::from_mins(5),
        }
    }
}

/// A way to a PostgreSQL; cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    slots: Vec<Slot>,
    waiting: AtomicUsize,
    options: Options,
    notifications: broadcast::Sender<Notification>,
}

impl Database {
    /// Starts the engine or connects, and returns once a connection works.
    pub async fn open(target: Target, options: Options) -> Result<Self, Error> {
        let (notifications, _) = broadcast::channel(options.notifications);
        let count = match target {
            Target::Embedded(_) => 1,
            Target::External(_) => options.connections.max(1),
        };
        let mut slots = vec![Slot::connect(target.clone(), &options, notifications.clone()).await?];
        let silent = Options { listen: Vec::new(), ..options.clone() };
        slots.extend((1..count).map(|_| Slot::lazy(target.clone(), &silent, notifications.clone())));
        Ok(Self { inner: Arc::new(Inner { slots, waiting: AtomicUsize::new(0), options, notifications }) })
    }

    /// Runs the batch. The answer comes after the commit, never before.
    pub async fn run(&self, batch: Batch) -> Result<Answer, Error> {
        let deadline = batch.deadline;
        self.submit(Task::Batch(batch), deadline).await
    }

    /// Runs several statements in one text by the simple protocol: one implicit transaction, unless the text says otherwise.
    pub async fn simple(&self, sql: &str) -> Result<Vec<Rows>, Error> {
        let answer = self.submit(Task::Script(sql.to_owned()), self.inner.options.script_deadline).await?;
        Ok(answer.results)
    }

    /// Notifications on the channels of [`Options::listen`].
    pub fn notifications(&self) -> broadcast::Receiver<Notification> {
        self.inner.notifications.subscribe()
    }

    /// Lets what runs finish, then ends the connections and the engine.
    pub async fn close(self) {
        for slot in &self.inner.slots {
            slot.close().await;
        }
    }

    async fn submit(&self, task: Task, deadline: Duration) -> Result<Answer, Error> {
        let _place = Place::take(&self.inner).ok_or(Error::Overloaded)?;
        let (reply, answer) = oneshot::channel();
        let slot = self.choose();
        let _load = slot.submit(Work { task, deadline, reply, others: Vec::new(), attempts: 0 })?;
        match answer.await.unwrap_or_else(|_| Err(Error::Unavailable("the database is closed".into()))) {
            Err(Error::Refused(refusal)) if refusal.code == CLOSED => Err(Error::Unavailable(refusal.message)),
            answer => answer,
        }
    }

    /// The first idle connection, so that few are opened; else the one with the least to do of those that get on. What is written
    /// behind a slow statement waits for it, so as few as possible go there.
    fn choose(&self) -> &Slot {
        let slots = &self.inner.slots;
        if let Some(idle) = slots.iter().find(|slot| slot.progress.load() == 0) {
            return idle;
        }
        let now = Instant::now();
        let cost = |slot: &&Slot| (slot.progress.is_slow(now), slot.progress.load());
        slots.iter().min_by_key(cost).unwrap_or(&slots[0])
    }
}

/// A place in the bounded queue, given back when the caller has its answer or leaves.
struct Place<'a>(&'a Inner);

impl<'a> Place<'a> {
    fn take(inner: &'a Inner) -> Option<Self> {
        let before = inner.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Self(inner);
        (before < inner.options.max_waiting).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
