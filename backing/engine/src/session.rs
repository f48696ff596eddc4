//! The one session, lent to several clients: what each has `SET` is taken out after its turn and put
//! back before the next; nothing of one is seen by another.
//!
//! Each error leaves a piece of the engine's stack behind, about a kilobyte and as much as there is where it was deep: the engine leaves
//! PostgreSQL's main loop by an exception, and nobody tells the compiled code that its stack is free again. So whoever lends the session
//! looks whether it `is_worn` when something has failed, and opens it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use oliphaunt_wasix::Oliphaunt;

use crate::Error;
use crate::frame;

/// A client's session settings between its turns.
#[derive(Debug, Clone, Default)]
pub struct Saved {
    settings: Vec<(String, String)>,
}

impl Saved {
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty()
    }

    /// Of the application's own.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.settings.iter().map(|(name, _)| name.clone()).filter(|name| name.contains('.'))
    }
}

/// Statements that a client has prepared: the names by which the engine knows them, and the messages that made them. The last one without
/// a name is among them.
pub type Prepared = BTreeMap<Vec<u8>, Vec<u8>>;

/// Not `RESET SESSION AUTHORIZATION`: a backend that nobody logged in to has nothing to go back to, and would stay who it was.
const RESET: &str = "SET SESSION AUTHORIZATION postgres; RESET ALL; CLOSE ALL; \
    SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/// How much of its stack PostgreSQL may use, of eight megabytes that there are.
pub const STACK_DEPTH: &str = "6MB";
/// It is refused where so much is taken that a statement would have less than the two megabytes that are usual.
const PROBE: &str = "SET max_stack_depth = '4MB'; SELECT 1; RESET max_stack_depth";
/// Errors until it is worth a look.
const ERRORS: u32 = 16;
/// Errors that are borne where nobody can look: within a transaction. At the last look there was as much left as they take.
const MOST_ERRORS: u32 = 2000;
/// PostgreSQL's code for a stack that is used up.
const TOO_DEEP: &[u8] = b"C54001\0";

pub struct Session {
    engine: Oliphaunt,
    /// Since the last look; as many as are borne, if there was one that is a reason by itself.
    errors: u32,
    /// Whose turn ran last, if nothing of ours has run since: its statement without a name is still there.
    last: Option<u32>,
}

impl Session {
    pub fn new(engine: Oliphaunt) -> Self {
        Self { engine, errors: 0, last: None }
    }

    /// Runs bytes in the engine; an error here means that it trapped.
    pub fn run(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let answer = self.engine.exec_protocol_raw(bytes).map_err(|cause| Error::Trapped(cause.to_string()))?;
        for error in frame::all(&answer).filter(|frame| frame.kind == b'E') {
            let is_deep = error.body.windows(TOO_DEEP.len()).any(|field| field == TOO_DEEP);
            self.errors = if is_deep { MOST_ERRORS } else { self.errors + 1 };
        }
        Ok(answer)
    }

    /// Runs our own SQL.
    pub fn sql(&mut self, text: &str) -> Result<Vec<u8>, Error> {
        self.last = None;
        self.run(&frame::query(text))
    }

    /// The turn of this client has run.
    pub fn ran(&mut self, client: u32) {
        self.last = Some(client);
    }

    pub fn is_last(&self, client: u32) -> bool {
        self.last == Some(client)
    }

    /// Whether so much has failed that `is_worn` should be asked.
    pub fn has_failed(&self) -> bool {
        self.errors >= ERRORS
    }

    /// Whether so much has failed that a transaction cannot be waited for.
    pub fn has_failed_too_often(&self) -> bool {
        self.errors >= MOST_ERRORS
    }

    /// Whether errors have left so little of the stack that it should be opened anew. Nobody's settings may be in the session.
    pub fn is_worn(&mut self) -> Result<bool, Error> {
        let is_worn = frame::error(&self.sql(PROBE)?).is_some();
        self.errors = 0;
        Ok(is_worn)
    }

    /// Writes what is in memory to the disk, and ends the session.
    pub fn close(&mut self) -> Result<(), Error> {
        self.engine.close().map_err(|cause| Error::Trapped(cause.to_string()))
    }

    /// Takes the settings of the client whose turn ends, those of its application's own by their names, and makes the session as new.
    pub fn take(&mut self, named: &BTreeSet<String>) -> Result<Saved, Error> {
        let mut question = "SELECT name, setting || coalesce(unit_suffix, '') FROM (\
               SELECT name, setting, CASE WHEN unit IN ('ms', 's', 'min', 'kB', 'MB', 'B') THEN unit END AS unit_suffix \
               FROM pg_catalog.pg_settings WHERE source = 'session') AS changed \
             UNION ALL SELECT 'role', pg_catalog.current_setting('role') WHERE pg_catalog.current_setting('role') <> 'none' \
             UNION ALL SELECT 'session_authorization', session_user::text WHERE session_user <> 'postgres'"
            .to_owned();
        for name in named {
            let name = quoted(name, '\'');
            // Writing to a string cannot fail.
            let _ = write!(question, " UNION ALL SELECT {name}, pg_catalog.current_setting({name}, true)");
        }
        let found = self.sql(&question)?;
        // A role without rights to the catalog leaves nothing to save; the reset below still runs.
        let saved = Saved { settings: pairs(&found) };
        let sql_prepared = frame::rows(&self.sql("SELECT name FROM pg_catalog.pg_prepared_statements WHERE from_sql")?);
        let mut reset = RESET.to_owned();
        for name in sql_prepared.into_iter().flatten().flatten() {
            reset.push_str("; DEALLOCATE ");
            reset.push_str(&quoted(&name, '"'));
        }
        for statement in reset.split("; ") {
            self.sql(statement)?;
        }
        Ok(saved)
    }

    /// Puts a client's settings back.
    pub fn give(&mut self, saved: &Saved) -> Result<(), Error> {
        let (identity, plain): (Vec<_>, Vec<_>) =
            saved.settings.iter().partition(|(name, _)| name == "role" || name == "session_authorization");
        let authorization = identity.iter().filter(|(name, _)| name == "session_authorization");
        let role = identity.iter().filter(|(name, _)| name == "role");
        for (name, value) in plain.into_iter().chain(authorization.copied()).chain(role.copied()) {
            self.set(name, value)?;
        }
        Ok(())
    }

    /// Sets a parameter for the session; gives PostgreSQL's answer.
    pub fn set(&mut self, name: &str, value: &str) -> Result<Vec<u8>, Error> {
        self.sql(&format!("SELECT pg_catalog.set_config({}, {}, false)", quoted(name, '\''), quoted(value, '\'')))
    }

    /// What `ALTER DATABASE` and `ALTER ROLE` have set for a role that comes; what counts more comes later.
    pub fn given_to(&mut self, user: &str) -> Result<Saved, Error> {
        let found = self.sql(&format!(
            "SELECT pg_catalog.split_part(entry, '=', 1), pg_catalog.substr(entry, pg_catalog.strpos(entry, '=') + 1) FROM (\
               SELECT pg_catalog.unnest(setconfig) AS entry, setrole <> 0 AS is_of_role, setdatabase <> 0 AS is_of_database \
               FROM pg_catalog.pg_db_role_setting LEFT JOIN pg_catalog.pg_database AS d ON d.oid = setdatabase \
               WHERE (setdatabase = 0 OR datname = pg_catalog.current_database()) \
               AND (setrole = 0 OR setrole = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = {}))) AS given \
             ORDER BY is_of_role, is_of_database",
            quoted(user, '\'')
        ))?;
        Ok(Saved { settings: pairs(&found) })
    }

    pub fn listen(&mut self, channel: &str) -> Result<(), Error> {
        self.sql(&format!("LISTEN {}", quoted(channel, '"'))).map(drop)
    }

    /// Drops the prepared statements of a client that has left; those that were refused are not there.
    pub fn forget(&mut self, prepared: &Prepared) -> Result<(), Error> {
        if prepared.is_empty() {
            return Ok(());
        }
        let mut messages = Vec::new();
        for name in prepared.keys() {
            frame::push(&mut messages, b'C', &[b"S", name.as_slice(), b"\0"].concat());
        }
        self.synchronise(messages)
    }

    /// Prepares a client's statements again. What cannot be prepared any more its client is told when it comes with it.
    pub fn prepare(&mut self, prepared: &Prepared) -> Result<(), Error> {
        for message in prepared.values() {
            self.synchronise(message.clone())?;
        }
        Ok(())
    }

    /// Prepares the statement without a name of a client again, or takes away somebody else's.
    pub fn prepare_unnamed(&mut self, prepared: &Prepared) -> Result<(), Error> {
        let mut close = Vec::new();
        frame::push(&mut close, b'C', b"S\0");
        let parse = prepared.get(&b""[..]).cloned().unwrap_or_default();
        self.synchronise([close, parse].concat())
    }

    /// Ends a transaction whose client has gone, also between Flush and Sync, where a Sync would commit.
    pub fn roll_back(&mut self) -> Result<(), Error> {
        let mut messages = Vec::new();
        frame::push(&mut messages, b'P', b"\0ROLLBACK\0\0\0");
        frame::push(&mut messages, b'B', &[0; 8]);
        frame::push(&mut messages, b'E', &[0; 5]);
        self.synchronise(messages)?;
        // All that was skipped where something had failed before.
        self.sql("ROLLBACK").map(drop)
    }

    /// Runs messages up to a Sync.
    pub fn synchronise(&mut self, mut messages: Vec<u8>) -> Result<(), Error> {
        self.last = None;
        frame::push(&mut messages, b'S', b"");
        self.run(&messages).map(drop)
    }
}

/// Rows of two columns.
pub fn pairs(response: &[u8]) -> Vec<(String, String)> {
    let pair = |row| match <[Option<String>; 2]>::try_from(row) {
        Ok([Some(name), Some(value)]) => Some((name, value)),
        _ => None,
    };
    frame::rows(response).into_iter().filter_map(pair).collect()
}

/// An identifier (`"`) or a literal (`'`); the server has `standard_conforming_strings` on.
pub fn quoted(text: &str, quote: char) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for character in text.chars() {
        out.push(character);
        if character == quote {
            out.push(quote);
        }
    }
    out.push(quote);
    out
}
