//! Rows on their way: in pieces, each written in one transaction with how far it went, so that whoever is killed goes on behind it.

use ntier_backing::database;

use super::compare::pages;
use super::look::Looks;
use super::place::{Place, literal, literals};
use super::tables::{Key, Unit};
use super::{Error, Event, Observe, follow};

/// Bytes of a piece, about: what is in memory, and for how long the embedded database does nothing else.
const PIECE_BYTES: u64 = 2 << 20;
const FIRST_ROWS: u64 = 200;
const MOST_ROWS: u64 = 20_000;
/// 2 MB of a file.
const PIECE_PAGES: u64 = 256;

/// Makes the target's own notebook; gives the id of the move that it belongs to.
pub async fn begin(target: &mut Place, id: &str) -> Result<String, Error> {
    let sql = format!(
        "create schema if not exists ntier_move;
         create table if not exists ntier_move.state (id uuid primary key);
         insert into ntier_move.state select {}::uuid where not exists (select from ntier_move.state);
         create table if not exists ntier_move.progress (
           relation text primary key,
           -- The key of the last row that is there.
           last text[],
           is_done boolean not null default false,
           rows bigint not null default 0
         );
         create table if not exists ntier_move.files (
           blob uuid primary key,
           size bigint not null,
           md5 text not null
         )",
        literal(id)
    );
    target.run("preparing the target", &sql).await?;
    Ok(target.ask("preparing the target", "select id from ntier_move.state").await?.unwrap_or_default())
}

/// The move that has begun to fill this database, if one has.
pub async fn belongs_to(target: &mut Place) -> Result<Option<String>, Error> {
    if target.ask("looking for a move", "select to_regclass('ntier_move.state')").await?.is_none() {
        return Ok(None);
    }
    target.ask("looking for a move", "select id from ntier_move.state").await
}

/// The tables of which every row was copied, by their names.
pub async fn done(target: &mut Place) -> Result<Vec<String>, Error> {
    let answers =
        target.run("reading how far it went", "select relation from ntier_move.progress where is_done").await?;
    let rows = answers.last().map(|rows| rows.rows.as_slice()).unwrap_or_default();
    Ok(rows.iter().filter_map(|row| row.text(0)).map(str::to_owned).collect())
}

#[derive(Debug, Default)]
struct Progress {
    has_begun: bool,
    last: Option<Key>,
    is_done: bool,
    rows: u64,
}

async fn progress(target: &mut Place, unit: &Unit) -> Result<Progress, Error> {
    let sql = format!(
        "select to_json(last), is_done, rows from ntier_move.progress where relation = {}",
        literal(&unit.name)
    );
    let answers = target.run("reading how far it went", &sql).await?;
    let Some(row) = answers.last().and_then(|rows| rows.rows.first()) else { return Ok(Progress::default()) };
    Ok(Progress {
        has_begun: true,
        last: row.text(0).and_then(|key| serde_json::from_str(key).ok()),
        is_done: row.text(1) == Some("t"),
        rows: row.text(2).and_then(|rows| rows.parse().ok()).unwrap_or_default(),
    })
}

/// Copies what is not there yet of a table with a key, while it is written to.
pub async fn rows(source: &mut Place, target: &mut Place, unit: &Unit, observe: Observe<'_>) -> Result<(), Error> {
    let what = format!("copying {}", unit.name);
    let mut at = progress(target, unit).await?;
    if !at.has_begun {
        reset(target, unit).await?;
    }
    let mut count = FIRST_ROWS;
    while !at.is_done {
        let boundary = source.run(&what, &unit.boundary(at.last.as_ref(), count)).await?;
        let until = boundary.last().and_then(|rows| rows.rows.first());
        let until: Option<Key> =
            until.map(|row| (0..unit.key.len()).filter_map(|column| row.text(column).map(str::to_owned)).collect());
        let piece = unit.piece(at.last.as_ref(), until.as_ref());
        let bytes = source.line.read(&piece).await.map_err(|cause| source.fault(&what, cause))?;
        let is_done = until.is_none();
        let last = until.or(at.last);
        let mut sql = format!("update ntier_move.progress set is_done = {is_done}, rows = rows + /*rows*/");
        if let Some(last) = &last {
            sql.push_str(&format!(", last = {}", literals(last.iter().map(String::as_str))));
        }
        sql.push_str(&format!(" where relation = {}", literal(&unit.name)));
        let written = put(target, &what, unit, "", &bytes, &sql).await?;
        count = next_count(count, written, bytes.len() as u64);
        at = Progress { has_begun: true, last, is_done, rows: at.rows + written };
        observe(Event::Rows { table: &unit.name, rows: at.rows });
    }
    Ok(())
}

/// How many rows the next piece has, after these have taken so many bytes.
fn next_count(count: u64, rows: u64, bytes: u64) -> u64 {
    if rows == 0 || bytes == 0 {
        return count;
    }
    let fitting = PIECE_BYTES.saturating_mul(rows) / bytes;
    fitting.clamp(1, count.saturating_mul(4)).min(MOST_ROWS)
}

/// Copies a table of which nothing changes meanwhile, in the order of its files. It begins anew each time.
pub async fn frozen_rows(
    source: &mut Place,
    target: &mut Place,
    unit: &Unit,
    observe: Observe<'_>,
) -> Result<(), Error> {
    let what = format!("copying {}", unit.name);
    reset(target, unit).await?;
    let mut rows = 0;
    let pages = pages(source, unit.parts.iter().map(String::as_str)).await?;
    for (part, pages) in unit.parts.iter().zip(pages) {
        for from in (0..pages).step_by(usize::try_from(PIECE_PAGES).unwrap_or(usize::MAX)) {
            let copy = unit.pages(part, from, from + PIECE_PAGES);
            let bytes = source.line.read(&copy).await.map_err(|cause| source.fault(&what, cause))?;
            rows += put(target, &what, unit, "", &bytes, "select").await?;
            observe(Event::Rows { table: &unit.name, rows });
        }
    }
    let sql = format!(
        "update ntier_move.progress set is_done = true, rows = {rows} where relation = {}",
        literal(&unit.name)
    );
    target.run(&what, &sql).await?;
    Ok(())
}

/// Nothing of the table is there, and nothing was done.
async fn reset(target: &mut Place, unit: &Unit) -> Result<(), Error> {
    let sql = format!(
        "{}; insert into ntier_move.progress (relation) values ({}) \
         on conflict (relation) do update set last = null, is_done = false, rows = 0",
        unit.empty(),
        literal(&unit.name)
    );
    target.run(&format!("emptying {}", unit.name), &sql).await?;
    Ok(())
}

/// In one transaction: a statement before, rows, a statement after, in which `/*rows*/` is their number.
async fn put(
    target: &mut Place,
    what: &str,
    unit: &Unit,
    before: &str,
    rows: &[u8],
    after: &str,
) -> Result<u64, Error> {
    let put = async {
        target.line.run(&format!("begin; {before}")).await?;
        let written = if rows.is_empty() { 0 } else { target.line.write(&unit.write(), rows).await? };
        target.line.run(&format!("{}; commit", after.replace("/*rows*/", &written.to_string()))).await?;
        Ok(written)
    };
    match put.await {
        Ok(written) => Ok(written),
        Err(cause) => {
            if let database::Error::Refused(_) = &cause {
                target.run(what, "rollback").await?;
            }
            Err(target.fault(what, cause))
        }
    }
}

/// Does at the target what was noted at the source, as far as it goes; of what was noted, nothing is known any more. `frozen`: nothing
/// changes any more, so all of it goes.
pub async fn catch_up(
    source: &mut Place,
    target: &mut Place,
    units: &[Unit],
    looks: &mut Looks,
    frozen: bool,
    observe: Observe<'_>,
) -> Result<(), Error> {
    if frozen {
        // All that has changed goes first: then nothing that is left at the target is in the way of what comes.
        let mut after = 0;
        loop {
            let changed = follow::changed(source, after).await?;
            if changed.is_empty() {
                break;
            }
            for (unit, keys) in of(units, &changed) {
                target.run(&format!("catching up with {}", unit.name), &unit.delete(keys)).await?;
            }
            after = changed.last;
        }
    }
    // Whoever writes faster than this is not caught up with; the rest is done when nobody writes.
    let mut rounds = 0;
    loop {
        let changed = follow::changed(source, 0).await?;
        if changed.is_empty() || (!frozen && rounds == 1000) {
            return Ok(());
        }
        for name in &changed.emptied {
            looks.forget(name);
            if let Some(unit) = units.iter().find(|unit| unit.name == *name) {
                reset(target, unit).await?;
                rows(source, target, unit, observe).await?;
            }
        }
        for (unit, keys) in of(units, &changed) {
            looks.noted(target, unit, keys).await?;
            let what = format!("catching up with {}", unit.name);
            let bytes = source.line.read(&unit.chosen(keys)).await.map_err(|cause| source.fault(&what, cause))?;
            match put(target, &what, unit, &unit.delete(keys), &bytes, "select").await {
                // What is unique here and there was seen at different times: it goes when nobody writes.
                Err(Error::Database { cause: database::Error::Refused(refusal), .. })
                    if !frozen && matches!(refusal.code.as_str(), "23505" | "23P01") =>
                {
                    return Ok(());
                }
                put => put?,
            };
        }
        follow::settle(source, &changed).await?;
        rounds += 1;
    }
}

fn of<'a>(units: &'a [Unit], changed: &'a follow::Changed) -> impl Iterator<Item = (&'a Unit, &'a [Key])> {
    let found = |(name, keys): &'a (String, Vec<Key>)| {
        let unit = units.iter().find(|unit| unit.name == *name && unit.has_key())?;
        Some((unit, keys.as_slice()))
    };
    changed.tables.iter().filter_map(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_about_the_same_size() {
        for (count, rows, bytes, expected) in [
            (200, 200, 20_000, 800),
            (800, 800, 80_000, 3200),
            (20_000, 20_000, 20_000, 20_000),
            (200, 200, 200 << 20, 2),
            (1, 1, 100 << 20, 1),
            (200, 0, 0, 200),
        ] {
            assert_eq!(next_count(count, rows, bytes), expected, "{count} {rows} {bytes}");
        }
    }
}
