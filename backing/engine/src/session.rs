//! The one session, lent to several clients: what each has `SET` is taken out after its turn and put
//! back before the next; nothing of one is seen by another.

use std::collections::BTreeSet;

use oliphaunt_wasix::Oliphaunt;

use crate::Error;
use crate::frame;

/// A client's session settings between its turns.
#[derive(Debug, Clone, Default)]
pub struct Saved {
    settings: Vec<(String, String)>,
}

/// Not `RESET SESSION AUTHORIZATION`: a backend that nobody logged in to has nothing to go back to, and would stay who it was.
const RESET: &str = "SET SESSION AUTHORIZATION postgres; RESET ALL; CLOSE ALL; \
    SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/// Runs bytes in the engine; an error here means that it trapped.
pub fn run(engine: &mut Oliphaunt, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    engine.exec_protocol_raw(bytes).map_err(|cause| Error::Trapped(cause.to_string()))
}

/// Runs our own SQL.
pub fn sql(engine: &mut Oliphaunt, text: &str) -> Result<Vec<u8>, Error> {
    run(engine, &frame::query(text))
}

/// Takes the settings of the client whose turn ends, and makes the session as new.
pub fn take(engine: &mut Oliphaunt, saved: &mut Saved) -> Result<(), Error> {
    let found = sql(
        engine,
        "SELECT name, setting || coalesce(unit_suffix, '') FROM (\
           SELECT name, setting, CASE WHEN unit IN ('ms', 's', 'min', 'kB', 'MB', 'B') THEN unit END AS unit_suffix \
           FROM pg_catalog.pg_settings WHERE source = 'session') AS changed \
         UNION ALL SELECT 'role', pg_catalog.current_setting('role') WHERE pg_catalog.current_setting('role') <> 'none' \
         UNION ALL SELECT 'session_authorization', session_user::text WHERE session_user <> 'postgres'",
    )?;
    // A role without rights to the catalog leaves nothing to save; the reset below still runs.
    saved.settings = frame::rows(&found)
        .into_iter()
        .filter_map(|row| match <[Option<String>; 2]>::try_from(row) {
            Ok([Some(name), Some(value)]) => Some((name, value)),
            _ => None,
        })
        .collect();
    let sql_prepared = frame::rows(&sql(engine, "SELECT name FROM pg_catalog.pg_prepared_statements WHERE from_sql")?);
    let mut reset = RESET.to_owned();
    for name in sql_prepared.into_iter().flatten().flatten() {
        reset.push_str("; DEALLOCATE ");
        reset.push_str(&quoted(&name, '"'));
    }
    for statement in reset.split("; ") {
        sql(engine, statement)?;
    }
    Ok(())
}

/// Puts a client's settings back.
pub fn give(engine: &mut Oliphaunt, saved: &Saved) -> Result<(), Error> {
    let (identity, plain): (Vec<_>, Vec<_>) =
        saved.settings.iter().partition(|(name, _)| name == "role" || name == "session_authorization");
    let authorization = identity.iter().filter(|(name, _)| name == "session_authorization");
    let role = identity.iter().filter(|(name, _)| name == "role");
    for (name, value) in plain.into_iter().chain(authorization.copied()).chain(role.copied()) {
        let text = format!("SELECT pg_catalog.set_config({}, {}, false)", quoted(name, '\''), quoted(value, '\''));
        sql(engine, &text)?;
    }
    Ok(())
}

/// Drops the prepared statements of a client that has left.
pub fn forget(engine: &mut Oliphaunt, prepared: &BTreeSet<Vec<u8>>) -> Result<(), Error> {
    for name in prepared {
        sql(engine, &format!("DEALLOCATE {}", quoted(&String::from_utf8_lossy(name), '"')))?;
    }
    Ok(())
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
