//! Our own migrations: what every database needs before a node can serve it.
//!
//! Where all are applied already this is one quick query. Otherwise each pending file runs in its own transaction
//! under one advisory lock, so that many nodes may start at once; a file that another node has run in the meantime runs
//! twice, which each of them allows.

use super::{Database, Error as DatabaseError};

/// Held by whoever changes the schema, ours or the project's; the number is only a name.
pub const LOCK: &str = "select pg_catalog.pg_advisory_xact_lock(7236978912446)";

/// One file.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    pub version: u32,
    pub name: &'static str,
    pub sql: &'static str,
}

/// All of them, in order.
pub const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "roles", sql: include_str!("../../../migrations/0001_roles.sql") },
    Migration { version: 2, name: "schemas", sql: include_str!("../../../migrations/0002_schemas.sql") },
    Migration { version: 3, name: "claims", sql: include_str!("../../../migrations/0003_claims.sql") },
    Migration { version: 4, name: "schema_watch", sql: include_str!("../../../migrations/0004_schema_watch.sql") },
    Migration { version: 5, name: "idempotency", sql: include_str!("../../../migrations/0005_idempotency.sql") },
    Migration { version: 6, name: "auth", sql: include_str!("../../../migrations/0006_auth.sql") },
    Migration { version: 7, name: "mail", sql: include_str!("../../../migrations/0007_mail.sql") },
    Migration { version: 8, name: "flow_state", sql: include_str!("../../../migrations/0008_flow_state.sql") },
    Migration { version: 9, name: "mfa", sql: include_str!("../../../migrations/0009_mfa.sql") },
    Migration { version: 10, name: "auth_tables", sql: include_str!("../../../migrations/0010_auth_tables.sql") },
    Migration { version: 11, name: "messages", sql: include_str!("../../../migrations/0011_messages.sql") },
    Migration { version: 12, name: "auth_user", sql: include_str!("../../../migrations/0012_auth_user.sql") },
    Migration { version: 13, name: "rate_limits", sql: include_str!("../../../migrations/0013_rate_limits.sql") },
    Migration { version: 14, name: "storage", sql: include_str!("../../../migrations/0014_storage.sql") },
    Migration { version: 15, name: "dav", sql: include_str!("../../../migrations/0015_dav.sql") },
    Migration { version: 16, name: "storage_quota", sql: include_str!("../../../migrations/0016_storage_quota.sql") },
    Migration { version: 17, name: "realtime", sql: include_str!("../../../migrations/0017_realtime.sql") },
    Migration { version: 18, name: "changes", sql: include_str!("../../../migrations/0018_changes.sql") },
    Migration { version: 19, name: "bus", sql: include_str!("../../../migrations/0019_bus.sql") },
    Migration { version: 20, name: "nodes", sql: include_str!("../../../migrations/0020_nodes.sql") },
    Migration { version: 21, name: "defence", sql: include_str!("../../../migrations/0021_defence.sql") },
    Migration { version: 22, name: "logged", sql: include_str!("../../../migrations/0022_logged.sql") },
    Migration { version: 23, name: "lifted_bans", sql: include_str!("../../../migrations/0023_lifted_bans.sql") },
    Migration { version: 24, name: "certificates", sql: include_str!("../../../migrations/0024_certificates.sql") },
    Migration { version: 25, name: "find_changes", sql: include_str!("../../../migrations/0025_find_changes.sql") },
    Migration {
        version: 26,
        name: "record_by_operation",
        sql: include_str!("../../../migrations/0026_record_by_operation.sql"),
    },
];

/// Who sees new tables of `public` through the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// Nobody, until a migration grants it.
    Granted,
    /// All API roles at once: default privileges.
    Automatic,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub applied: Vec<&'static str>,
    /// Applied before, by a binary that had another text for them.
    pub differing: Vec<&'static str>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("the migration {name} failed: {cause}{}", hint(cause))]
    Refused { name: &'static str, cause: DatabaseError },
    #[error("the migrations cannot be read: {0}")]
    Unread(#[source] DatabaseError),
}

/// All of it as one script, for a database where none is applied.
pub fn script_of_all(exposure: Exposure) -> String {
    let scripts = MIGRATIONS.iter().map(script);
    [BOOKKEEPING.to_owned()].into_iter().chain(scripts).chain([exposure.script()]).collect::<Vec<_>>().join(";\n")
}

/// Applies what is pending.
pub async fn apply(database: &Database, exposure: Exposure) -> Result<Report, Error> {
    let state = State::read(database).await.map_err(Error::Unread)?;
    let mut report = Report::default();
    if !state.exists {
        run(database, "bookkeeping", BOOKKEEPING).await?;
    }
    for migration in MIGRATIONS {
        match state.checksum(migration.version) {
            None => {
                run(database, migration.name, &script(migration)).await?;
                report.applied.push(migration.name);
            }
            Some(checksum) if checksum != checksum_of(migration.sql) => report.differing.push(migration.name),
            Some(_) => {}
        }
    }
    if state.exposure != Some(exposure) {
        run(database, "exposure", &exposure.script()).await?;
    }
    Ok(report)
}

const BOOKKEEPING: &str = "
    create schema if not exists ntier;
    create table if not exists ntier.migrations (
      version integer primary key,
      name text not null,
      checksum text not null,
      applied_at timestamptz not null default now()
    );
    create table if not exists ntier.settings (
      name text primary key,
      value text not null
    );";

fn script(migration: &Migration) -> String {
    let Migration { version, name, sql } = migration;
    let checksum = checksum_of(sql);
    format!(
        "{sql};\ninsert into ntier.migrations (version, name, checksum) values ({version}, '{name}', '{checksum}') \
         on conflict do nothing"
    )
}

async fn run(database: &Database, name: &'static str, sql: &str) -> Result<(), Error> {
    locked(database, sql).await.map_err(|cause| Error::Refused { name, cause })
}

/// Runs a script that may be run twice, under the lock. Tries again when somebody else made the same thing at the same moment: the
/// lock is the database's own while roles are the server's, and what a session believed before it waited for the lock may be old.
pub async fn locked(database: &Database, sql: &str) -> Result<(), DatabaseError> {
    let script = format!("{LOCK};\n{sql}");
    let mut attempts = 0;
    loop {
        match database.simple(&script).await {
            Ok(_) => return Ok(()),
            Err(cause) if attempts < 5 && is_race(&cause) => attempts += 1,
            Err(cause) => return Err(cause),
        }
    }
}

fn is_race(cause: &DatabaseError) -> bool {
    let DatabaseError::Refused(refusal) = cause else { return false };
    matches!(refusal.code.as_str(), "23505" | "40001" | "40P01" | "42710" | "42P06" | "42P07")
        || refusal.code == "XX000" && refusal.message.contains("concurrently")
}

fn hint(cause: &DatabaseError) -> String {
    match cause {
        DatabaseError::Refused(refusal) => refusal.hint.as_ref().map(|hint| format!(". {hint}")).unwrap_or_default(),
        _ => String::new(),
    }
}

impl Exposure {
    fn script(self) -> String {
        let (sql, value) = match self {
            Self::Granted => (include_str!("../../../migrations/exposure/off.sql"), OFF),
            Self::Automatic => (include_str!("../../../migrations/exposure/on.sql"), ON),
        };
        format!(
            "{sql};\ninsert into ntier.settings values ('auto_expose_new_tables', '{value}') \
             on conflict (name) do update set value = excluded.value"
        )
    }
}

const ON: &str = "on";
const OFF: &str = "off";

/// What the database remembers.
#[derive(Debug, Default)]
struct State {
    exists: bool,
    applied: Vec<(u32, String)>,
    exposure: Option<Exposure>,
}

impl State {
    async fn read(database: &Database) -> Result<Self, DatabaseError> {
        let question = "select version, checksum from ntier.migrations;
                        select value from ntier.settings where name = 'auto_expose_new_tables'";
        let answers = match database.simple(question).await {
            Ok(answers) => answers,
            Err(DatabaseError::Refused(refusal)) if matches!(refusal.code.as_str(), "42P01" | "3F000") => {
                return Ok(Self::default());
            }
            Err(cause) => return Err(cause),
        };
        let rows = |index: usize| answers.get(index).map(|answer| answer.rows.as_slice()).unwrap_or_default();
        let applied =
            rows(0).iter().filter_map(|row| Some((row.text(0)?.parse().ok()?, row.text(1)?.to_owned()))).collect();
        let exposure = rows(1).first().and_then(|row| row.text(0)).and_then(|value| match value {
            ON => Some(Exposure::Automatic),
            OFF => Some(Exposure::Granted),
            _ => None,
        });
        Ok(Self { exists: true, applied, exposure })
    }

    fn checksum(&self, version: u32) -> Option<&str> {
        self.applied.iter().find(|(applied, _)| *applied == version).map(|(_, checksum)| checksum.as_str())
    }
}

/// FNV-1a: it only has to notice an edit, not resist anybody.
fn checksum_of(sql: &str) -> String {
    let hash = sql
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_count_from_one_without_a_gap() {
        let versions: Vec<u32> = MIGRATIONS.iter().map(|migration| migration.version).collect();
        assert_eq!(versions, (1..=u32::try_from(MIGRATIONS.len()).unwrap()).collect::<Vec<_>>());
    }

    #[test]
    fn the_checksum_is_fnv() {
        assert_eq!(checksum_of(""), "cbf29ce484222325");
        assert_eq!(checksum_of("a"), "af63dc4c8601ec8c");
    }
}
