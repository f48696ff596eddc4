//! What PostgreSQL's background processes would do: checkpoints and vacuum, when the session is idle.
//!
//! The engine is one session without a postmaster, so nobody else bounds the log or removes dead rows.

use std::time::{Duration, Instant};

use crate::session::Session;
use crate::{Error, frame};

/// How often to look, at most.
const EVERY: Duration = Duration::from_secs(15);
/// A checkpoint is due after this much log; recovery after a kill replays at most about as much.
const LOG_BYTES: u64 = 32 << 20;

pub struct Maintenance {
    last: Instant,
    turns_seen: u64,
}

impl Maintenance {
    pub fn new() -> Self {
        Self { last: Instant::now(), turns_seen: 0 }
    }

    /// When to wake up for it; `None` when nothing has happened since the last look.
    pub fn due(&self, turns: u64) -> Option<Instant> {
        (turns != self.turns_seen).then(|| self.last + EVERY)
    }

    /// Looks, and does at most one table, so that a caller never waits for more than that.
    pub fn run(&mut self, session: &mut Session, turns: u64) -> Result<(), Error> {
        let written = "SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), redo_lsn) \
             FROM pg_catalog.pg_control_checkpoint()";
        if number(&session.sql(written)?) > LOG_BYTES {
            session.sql("CHECKPOINT")?;
        }
        session.sql("SELECT pg_catalog.pg_stat_force_next_flush()")?;
        // Autovacuum's own rule with its default settings.
        let table = session.sql(
            "SELECT pg_catalog.format('%I.%I', schemaname, relname) FROM pg_catalog.pg_stat_all_tables \
             WHERE schemaname !~ '^pg_temp' AND (n_dead_tup > 50 + 0.2 * n_live_tup OR \
             n_mod_since_analyze > 50 + 0.1 * n_live_tup) ORDER BY n_dead_tup DESC LIMIT 1",
        )?;
        let table = frame::rows(&table).into_iter().flatten().flatten().next();
        if let Some(table) = &table {
            session.sql(&format!("VACUUM (ANALYZE) {table}"))?;
        }
        self.last = Instant::now();
        // With a table done there may be a next one: look again although nothing else happened.
        self.turns_seen = if table.is_some() { turns.wrapping_sub(1) } else { turns };
        Ok(())
    }
}

fn number(response: &[u8]) -> u64 {
    frame::rows(response).into_iter().flatten().flatten().next().and_then(|text| text.parse().ok()).unwrap_or(0)
}
