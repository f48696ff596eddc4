//! The sessions that channels were joined with, to end those channels when their session is over: by signing out, by an administrator, or
//! because the user is banned or deleted. All sessions of a node's clients are asked for in one question, again and again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use ntier_backing::database::{self, Access, Batch, Database, Statement};
use serde_json::Value;
use tokio::sync::watch;
use uuid::Uuid;

/// One session, as long as a channel goes by it.
#[derive(Debug)]
pub struct Session {
    id: Uuid,
    user: Option<Uuid>,
    was_there: AtomicBool,
    is_over: AtomicBool,
}

impl Session {
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub struct Sessions {
    known: Mutex<HashMap<Uuid, Weak<Session>>>,
    /// Counts up whenever sessions are over.
    ended: watch::Sender<u64>,
}

impl Sessions {
    /// That of a token with these claims, if it names one.
    pub fn of(&self, claims: &Value) -> Option<Arc<Session>> {
        let id = |claim: &str| claims[claim].as_str().and_then(|id| Uuid::try_parse(id).ok());
        let (session, user) = (id("session_id")?, id("sub"));
        let mut known = self.known();
        if let Some(session) = known.get(&session).and_then(Weak::upgrade) {
            return Some(session);
        }
        let new = Session { id: session, user, was_there: AtomicBool::default(), is_over: AtomicBool::default() };
        let new = Arc::new(new);
        known.insert(session, Arc::downgrade(&new));
        Some(new)
    }

    /// Changes whenever some are over.
    pub fn ended(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    /// Asks which are over. Where the database is away, nobody knows, and all go on.
    pub async fn look(&self, database: &Database) {
        let live: Vec<Arc<Session>> = {
            let mut known = self.known();
            known.retain(|_, session| session.strong_count() > 0);
            known.values().filter_map(Weak::upgrade).filter(|session| !session.is_over()).collect()
        };
        if live.is_empty() {
            return;
        }
        let Ok(stands) = ask(database, &live).await else { return };
        let mut is_any_over = false;
        for session in live {
            match stands.get(&session.id) {
                Some(Stands::Lives) => session.was_there.store(true, Ordering::Relaxed),
                // Of a user whom we do not know it may be somebody else's, unless it was seen here.
                Some(Stands::Gone) => {
                    session.is_over.store(true, Ordering::Relaxed);
                    is_any_over = true;
                }
                Some(Stands::Unknown) | None if session.was_there.load(Ordering::Relaxed) => {
                    session.is_over.store(true, Ordering::Relaxed);
                    is_any_over = true;
                }
                Some(Stands::Unknown) | None => {}
            }
        }
        if is_any_over {
            self.ended.send_modify(|count| *count += 1);
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Uuid, Weak<Session>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Stands {
    Lives,
    /// The user is known, and has no such session or may not have one.
    Gone,
    /// Nothing is known of the user.
    Unknown,
}

async fn ask(database: &Database, sessions: &[Arc<Session>]) -> Result<HashMap<Uuid, Stands>, database::Error> {
    let array = |ids: &mut dyn Iterator<Item = Option<Uuid>>| {
        let ids: Vec<String> = ids.map(|id| id.map_or_else(|| "null".to_owned(), |id| id.to_string())).collect();
        Some(Bytes::from(format!("{{{}}}", ids.join(","))))
    };
    // By both primary keys.
    let select = Statement {
        text: "select asked.session, \
             s.id is not null and (s.not_after is null or s.not_after > pg_catalog.now()) \
               and (u.banned_until is null or u.banned_until <= pg_catalog.now()), u.id is not null \
             from unnest($1::uuid[], $2::uuid[]) as asked (session, owner) \
             left join auth.sessions s on s.id = asked.session and s.user_id = asked.owner \
             left join auth.users u on u.id = asked.owner"
            .into(),
        parameters: vec![
            array(&mut sessions.iter().map(|session| Some(session.id))),
            array(&mut sessions.iter().map(|session| session.user)),
        ],
    };
    let batch = Batch { statements: vec![select], access: Access::ReadOnly, ..Batch::default() };
    let answer = database.run(batch).await?;
    let rows = answer.results.into_iter().next().unwrap_or_default().rows;
    let stands = rows.iter().filter_map(|row| {
        let stands = match (row.text(1)?, row.text(2)?) {
            ("t", _) => Stands::Lives,
            (_, "t") => Stands::Gone,
            _ => Stands::Unknown,
        };
        Some((Uuid::try_parse(row.text(0)?).ok()?, stands))
    });
    Ok(stands.collect())
}
