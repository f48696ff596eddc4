//! What somebody may do on a private channel: the policies on `realtime.messages` are asked, as the role of the token, and nothing of the
//! question remains. Who asks the same within a moment shares the answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ntier_backing::database::{self, Batch, Database, End, Session, Statement};
use ntier_protocol::realtime::error::{Refusal, Shutdown};
use ntier_security::caller::Caller;
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use uuid::Uuid;

/// How long an answer holds: a policy that was changed is in effect after that.
const HOLDS: Duration = Duration::from_secs(1);
/// How long the policies may take.
const DEADLINE: Duration = Duration::from_secs(4);
/// How long all of it may take, with the waiting for a connection. Clients wait for ten seconds.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What may be heard. Of a public channel it is everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reads {
    pub broadcasts: bool,
    pub presence: bool,
}

impl Reads {
    pub const ALL: Self = Self { broadcasts: true, presence: true };
}

/// What is said, as policies have it in the column `extension`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extension {
    Broadcast,
    Presence,
}

impl Extension {
    fn text(self) -> &'static str {
        match self {
            Self::Broadcast => "broadcast",
            Self::Presence => "presence",
        }
    }
}

/// Why nothing is known of a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// A policy failed, or the role is none that could be asked as.
    Policy,
    /// The policies took too long.
    Cancelled,
    /// There was no connection in time.
    Busy,
    /// The database takes no more connections.
    NoConnections,
    /// The database is away.
    Unreachable,
    NoPartition,
}

impl Failure {
    /// What a join to this channel is answered with.
    pub fn refusal(self, name: &str) -> Refusal {
        match self {
            Self::Policy => Refusal::Unauthorized { name: name.to_owned() },
            Self::Cancelled => Refusal::Cancelled,
            Self::Busy => Refusal::Busy,
            Self::NoConnections => Refusal::NoConnections,
            Self::Unreachable => Refusal::Unreachable,
            Self::NoPartition => Refusal::NoPartition,
        }
    }

    /// Why this channel is closed when it happens later.
    pub fn shutdown(self, name: &str) -> Shutdown {
        match self {
            Self::Policy => Shutdown::Unauthorized { name: name.to_owned() },
            Self::Cancelled => Shutdown::Cancelled,
            Self::Busy | Self::NoConnections | Self::Unreachable | Self::NoPartition => Shutdown::Unreachable,
        }
    }
}

impl From<database::Error> for Failure {
    fn from(error: database::Error) -> Self {
        match error {
            database::Error::Refused(refusal) => match refusal.code.as_str() {
                "57014" => Self::Cancelled,
                "23514" => Self::NoPartition,
                "53300" => Self::NoConnections,
                code if code.starts_with("08") || code.starts_with("57P") => Self::Unreachable,
                _ => Self::Policy,
            },
            database::Error::Deadline => Self::Cancelled,
            database::Error::Overloaded => Self::Busy,
            database::Error::Lost(_) | database::Error::Unavailable(_) => Self::Unreachable,
        }
    }
}

/// Who asks, with what policies may want to know of the connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Asker {
    pub role: Arc<str>,
    /// A JSON object.
    pub claims: Arc<str>,
    /// Likewise.
    pub headers: Arc<str>,
}

impl Asker {
    pub fn new(caller: &Caller, headers: &Arc<str>) -> Self {
        Self { role: caller.role.as_str().into(), claims: caller.claims.clone(), headers: headers.clone() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    asker: Asker,
    name: Arc<str>,
    /// `None`: what may be read.
    writes: Option<Extension>,
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Reads(Reads),
    Writes(bool),
}

#[derive(Debug)]
struct Asked {
    since: Instant,
    answer: Arc<OnceCell<Result<Answer, Failure>>>,
}

/// What is asked now, and what was a moment ago.
#[derive(Debug)]
pub struct Rights {
    database: Database,
    asked: Mutex<HashMap<Question, Asked>>,
}

/// So many are kept before it is looked which of them hold no more.
const KEPT: usize = 1024;

impl Rights {
    pub fn new(database: Database) -> Self {
        Self { database, asked: Mutex::default() }
    }

    pub async fn reads(&self, asker: &Asker, name: &Arc<str>) -> Result<Reads, Failure> {
        match self.ask(asker, name, None).await? {
            Answer::Reads(reads) => Ok(reads),
            Answer::Writes(_) => Err(Failure::Policy),
        }
    }

    pub async fn writes(&self, asker: &Asker, name: &Arc<str>, extension: Extension) -> Result<bool, Failure> {
        match self.ask(asker, name, Some(extension)).await? {
            Answer::Writes(may) => Ok(may),
            Answer::Reads(_) => Err(Failure::Policy),
        }
    }

    async fn ask(&self, asker: &Asker, name: &Arc<str>, writes: Option<Extension>) -> Result<Answer, Failure> {
        let question = Question { asker: asker.clone(), name: name.clone(), writes };
        let answer = self.place(&question);
        // Whoever is the first asks; where that one goes away, the next does.
        *answer
            .get_or_init(|| async {
                let asking = async {
                    match question.writes {
                        None => self.ask_reads(&question).await.map(Answer::Reads),
                        Some(extension) => self.ask_writes(&question, extension).await.map(Answer::Writes),
                    }
                };
                timeout(PATIENCE, asking).await.unwrap_or(Err(Failure::Busy))
            })
            .await
    }

    fn place(&self, question: &Question) -> Arc<OnceCell<Result<Answer, Failure>>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = asked.get(question).filter(|before| before.since.elapsed() < HOLDS) {
            return before.answer.clone();
        }
        if asked.len() >= KEPT && asked.len() == asked.capacity() {
            asked.retain(|_, before| before.since.elapsed() < HOLDS);
        }
        let answer = Arc::default();
        asked.insert(question.clone(), Asked { since: Instant::now(), answer: Arc::clone(&answer) });
        answer
    }

    /// A row of each kind is put there and looked for.
    async fn ask_reads(&self, question: &Question) -> Result<Reads, Failure> {
        let ids = [Uuid::new_v4(), Uuid::new_v4()].map(|id| id.to_string());
        let insert = Statement::new(
            "insert into realtime.messages (id, topic, extension) values ($1::uuid, $3, 'broadcast'), ($2::uuid, $3, 'presence')",
            &[&ids[0], &ids[1], &question.name],
        );
        let become_caller = Statement::new("select pg_catalog.set_config('role', $1, true)", &[&question.asker.role]);
        // Which partition they are in is known by the time, so that the others are not looked into.
        let look = Statement::new(
            "select extension from realtime.messages where id in ($1::uuid, $2::uuid) and inserted_at > (now() at time zone 'utc') - interval '1 day'",
            &[&ids[0], &ids[1]],
        );
        let batch = batch(question.settings(), vec![insert, become_caller, look]);
        let found = self.database.run(batch).await?.results.pop().unwrap_or_default();
        let has = |extension: Extension| found.rows.iter().any(|row| row.text(0) == Some(extension.text()));
        Ok(Reads { broadcasts: has(Extension::Broadcast), presence: has(Extension::Presence) })
    }

    async fn ask_writes(&self, question: &Question, extension: Extension) -> Result<bool, Failure> {
        let mut settings = question.settings();
        settings.push(("role", question.asker.role.to_string()));
        let insert = Statement::new(
            "insert into realtime.messages (topic, extension) values ($1, $2)",
            &[&question.name, extension.text()],
        );
        match self.database.run(batch(settings, vec![insert])).await {
            Ok(_) => Ok(true),
            Err(database::Error::Refused(refusal)) if refusal.code == "42501" => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Question {
    fn settings(&self) -> Vec<(&'static str, String)> {
        let Asker { role, claims, headers } = &self.asker;
        let fields: Value = serde_json::from_str(claims).unwrap_or_default();
        vec![
            ("search_path", "public, extensions".to_owned()),
            ("realtime.topic", self.name.to_string()),
            ("request.jwt.claims", claims.to_string()),
            // Policies of before are written with them.
            ("request.jwt.claim.sub", fields["sub"].as_str().unwrap_or_default().to_owned()),
            ("request.jwt.claim.role", role.to_string()),
            ("request.headers", headers.to_string()),
        ]
    }
}

fn batch(settings: Vec<(&'static str, String)>, statements: Vec<Statement>) -> Batch {
    let settings = settings.into_iter().map(|(name, value)| (name.into(), value)).collect();
    let session = Some(Session { settings, isolation: None });
    Batch { session, statements, end: End::Rollback, deadline: DEADLINE, ..Batch::default() }
}
