//! What happens at the source while it is copied: changes are noted, and at the end writes are refused.
//!
//! Triggers write the key of each changed row to `ntier_move.changes`, in the transaction that changes it: so a key is there if and only if
//! its change is. Whoever goes on with it reads the row as it is then, writes it at the target, and takes the note away; killed in between,
//! it is done once more. Writes are refused by a trigger too, which PostgreSQL makes only once nobody is writing to the table: what was
//! acknowledged before is there, and what comes later was never done.

use ntier_backing::database::{self, CLOSED};

use super::Error;
use super::place::{Place, literal};
use super::tables::{Key, Unit};

/// Notes that are taken at once.
const BATCH: usize = 500;
/// Who waits for a lock for longer may hold up others: it is tried again.
const LOCK_PATIENCE: &str = "800ms";
const ATTEMPTS: usize = 60;

/// What a source remembers of its move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    pub id: String,
    /// Where it goes, in words.
    pub target: String,
    pub is_closed: bool,
    /// When it was done, in words.
    pub finished: Option<String>,
}

/// What it remembers, if a move has ever begun.
pub async fn memory(place: &mut Place) -> Result<Option<Memory>, Error> {
    if place.ask("looking for a move", "select to_regclass('ntier_move.move')").await?.is_none() {
        return Ok(None);
    }
    let sql = "select id, target, closed_at is not null, to_char(finished_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI \"UTC\"') \
        from ntier_move.move";
    let answers = place.run("looking for a move", sql).await?;
    let row = answers.last().and_then(|rows| rows.rows.first());
    Ok(row.and_then(|row| {
        Some(Memory {
            id: row.text(0)?.to_owned(),
            target: row.text(1)?.to_owned(),
            is_closed: row.text(2)? == "t",
            finished: row.text(3).map(str::to_owned),
        })
    }))
}

/// Makes the notebook, and remembers the move; gives its id.
pub async fn begin(place: &mut Place, target: &str) -> Result<String, Error> {
    let sql = format!(
        "create schema if not exists ntier_move;
         create table if not exists ntier_move.move (
           id uuid primary key default gen_random_uuid(),
           target text not null,
           begun_at timestamptz not null default now(),
           closed_at timestamptz,
           finished_at timestamptz
         );
         insert into ntier_move.move (target) select {} where not exists (select from ntier_move.move);
         create table if not exists ntier_move.changes (
           id bigint generated always as identity primary key,
           relation text not null,
           -- Null for all rows of it.
           key text[]
         );
         create or replace function ntier_move.note_all() returns trigger language plpgsql security definer
           set search_path = pg_catalog, pg_temp as $note$
         begin
           insert into ntier_move.changes (relation) values (tg_argv[0]);
           return null;
         end
         $note$;
         create or replace function ntier_move.refuse() returns trigger language plpgsql as $refuse$
         begin
           raise exception using errcode = '{CLOSED}', message = 'the database is being moved: nothing is written for a moment';
         end
         $refuse$;
         revoke all on all functions in schema ntier_move from public",
        literal(target)
    );
    place.run("preparing the move", &sql).await?;
    Ok(memory(place).await?.map(|memory| memory.id).unwrap_or_default())
}

/// Lets changes of these tables be noted, of those whose are not yet.
pub async fn note(place: &mut Place, units: &[Unit]) -> Result<(), Error> {
    let noted = triggers(place, "ntier_move_note").await?;
    let open = units.iter().filter(|unit| unit.has_key() && !noted.contains(&unit.name));
    if place.is_embedded {
        // All at once, for there nobody else has a lock.
        let sql: Vec<String> = open.map(note_sql).collect();
        return patiently(place, "following the tables", &sql.join("\n")).await;
    }
    // One after the other: nobody waits for more than one.
    for unit in open {
        patiently(place, &format!("following {}", unit.name), &note_sql(unit)).await?;
    }
    Ok(())
}

/// The tables that have a trigger of this name.
async fn triggers(place: &mut Place, name: &str) -> Result<Vec<String>, Error> {
    let sql = format!(
        "select format('%I.%I', n.nspname, c.relname) from pg_trigger t join pg_class c on c.oid = t.tgrelid \
         join pg_namespace n on n.oid = c.relnamespace where t.tgname = {} and t.tgparentid = 0",
        literal(name)
    );
    let answers = place.run("looking for triggers", &sql).await?;
    let rows = answers.last().map(|rows| rows.rows.as_slice()).unwrap_or_default();
    Ok(rows.iter().filter_map(|row| row.text(0)).map(str::to_owned).collect())
}

/// Of tables whose changes are noted for certain, what they are made of, which is another where rows may have changed without a note:
/// where their files were written anew, or where the trigger was switched off for a while. `None` where one cannot be certain.
pub async fn marks(place: &mut Place, units: &[Unit]) -> Result<Vec<Option<String>>, Error> {
    let mut marks = vec![None; units.len()];
    let keyed = || units.iter().enumerate().filter(|(_, unit)| unit.has_key());
    let bodies: Vec<String> = keyed().map(|(at, unit)| format!("({at}, {})", literal(&note_body(unit)))).collect();
    let tables = keyed().flat_map(|(at, unit)| unit.tables().map(move |name| format!("({at}, {})", literal(name))));
    let tables: Vec<String> = tables.collect();
    if tables.is_empty() {
        return Ok(marks);
    }
    let sql = format!(
        "with bodies (unit, body) as (values {}), tables (unit, name) as (values {})
         select unit, string_agg(concat_ws(' ', c.oid, pg_relation_filenode(c.oid), t.oid, t.xmin), ', ' order by c.oid)
         from tables join bodies using (unit)
         left join pg_class c on c.oid = to_regclass(name)
         left join pg_trigger t on t.tgrelid = c.oid and t.tgname = 'ntier_move_note' and t.tgenabled = 'A'
         left join pg_proc p on p.oid = t.tgfoid
         group by unit having bool_and(coalesce(p.prosrc = body, false))",
        bodies.join(", "),
        tables.join(", ")
    );
    let answers = place.run("looking whether changes are noted", &sql).await?;
    for row in answers.last().map(|rows| rows.rows.as_slice()).unwrap_or_default() {
        if let Some(mark) = row.text(0).and_then(|at| marks.get_mut(at.parse::<usize>().ok()?)) {
            *mark = row.text(1).map(str::to_owned);
        }
    }
    Ok(marks)
}

/// Values are written by PostgreSQL as our session reads them, whoever changes the row.
fn note_sql(unit: &Unit) -> String {
    let name = &unit.name;
    let (relation, body) = (literal(name), note_body(unit));
    let function = format!("ntier_move.note_{}", hash(name));
    let mut sql = format!(
        "create or replace function {function}() returns trigger language plpgsql security definer
           set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' set timezone = 'UTC' set extra_float_digits = 1
           set bytea_output = 'hex' set intervalstyle = 'postgres' set lc_monetary = 'C' as $note${body}$note$;
         revoke all on function {function}() from public;
         create trigger ntier_move_note after insert or update or delete on {name} for each row execute function {function}();
         alter table {name} enable always trigger ntier_move_note;"
    );
    for table in unit.tables() {
        sql.push_str(&format!(
            "create trigger ntier_move_note_all after truncate on {table} for each statement execute function \
             ntier_move.note_all({relation});
             alter table {table} enable always trigger ntier_move_note_all;"
        ));
    }
    sql
}

/// What is done for each row that changes. Keys that a collation takes for the same are two.
fn note_body(unit: &Unit) -> String {
    let key = |row: &str| {
        let texts = unit.key.iter().map(|(column, _)| format!("{row}.{column}::text collate \"C\""));
        format!("array[{}]", texts.collect::<Vec<_>>().join(", "))
    };
    let (relation, old, new) = (literal(&unit.name), key("old"), key("new"));
    format!(
        "
         begin
           if tg_op <> 'INSERT' then
             insert into ntier_move.changes (relation, key) values ({relation}, {old});
           end if;
           if tg_op = 'INSERT' or (tg_op = 'UPDATE' and {old} is distinct from {new}) then
             insert into ntier_move.changes (relation, key) values ({relation}, {new});
           end if;
           return null;
         end
         "
    )
}

/// From here on writes are refused.
pub async fn close(place: &mut Place, units: &[Unit]) -> Result<(), Error> {
    let closed = triggers(place, "ntier_move_closed").await?;
    let tables = units.iter().flat_map(Unit::tables);
    let mut sql = String::new();
    for table in tables.filter(|table| !closed.contains(table)) {
        sql.push_str(&format!(
            "create trigger ntier_move_closed before insert or update or delete or truncate on {table} for each statement \
             execute function ntier_move.refuse();"
        ));
    }
    sql.push_str("update ntier_move.move set closed_at = coalesce(closed_at, now())");
    patiently(place, "refusing writes", &sql).await
}

/// Lets writes be done again; changes are still noted.
pub async fn open(place: &mut Place) -> Result<(), Error> {
    drop_triggers(place, &["ntier_move_closed"], "update ntier_move.move set closed_at = null").await
}

/// Forgets the move: what it has made at the source is gone.
pub async fn forget(place: &mut Place) -> Result<(), Error> {
    let all = ["ntier_move_closed", "ntier_move_note", "ntier_move_note_all"];
    drop_triggers(place, &all, "drop schema if exists ntier_move cascade").await
}

/// It is done: nothing is written here any more, and whoever tries is told where it went.
pub async fn finish(place: &mut Place, target: &str) -> Result<(), Error> {
    let message = literal(&format!("this database was moved to {target}: nothing is written here any more"));
    let sql = format!(
        "create or replace function ntier_move.refuse() returns trigger language plpgsql as $refuse$
         begin
           raise exception using errcode = '{CLOSED}', message = {message}, hint = '`ntier move --cancel` opens it again.';
         end
         $refuse$;
         update ntier_move.move set finished_at = now();
         truncate ntier_move.changes"
    );
    drop_triggers(place, &["ntier_move_note", "ntier_move_note_all"], &sql).await
}

async fn drop_triggers(place: &mut Place, names: &[&str], more: &str) -> Result<(), Error> {
    let mut sql = String::new();
    for name in names {
        for table in triggers(place, name).await? {
            sql.push_str(&format!("drop trigger if exists {name} on {table};"));
        }
    }
    sql.push_str(more);
    patiently(place, "letting go", &sql).await
}

/// In one transaction that waits for nobody long: those who wait behind it would wait too.
async fn patiently(place: &mut Place, what: &str, sql: &str) -> Result<(), Error> {
    let script = format!("set local lock_timeout = '{LOCK_PATIENCE}';\n{sql}");
    for attempt in 1.. {
        match place.line.run(&script).await {
            Ok(_) => break,
            Err(database::Error::Refused(refusal))
                if attempt < ATTEMPTS && matches!(refusal.code.as_str(), "55P03" | "40P01") => {}
            Err(cause) => return Err(place.fault(what, cause)),
        }
    }
    Ok(())
}

/// What has changed: of each table the keys, or all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Of the notes that were read, the last.
    pub last: i64,
    ids: Vec<i64>,
    pub tables: Vec<(String, Vec<Key>)>,
    /// Tables that were emptied.
    pub emptied: Vec<String>,
}

/// Reads some notes behind this one.
pub async fn changed(place: &mut Place, after: i64) -> Result<Changed, Error> {
    let sql = format!(
        "select id, relation, to_json(key) from ntier_move.changes where id > {after} order by id limit {BATCH}"
    );
    let answers = place.run("reading what has changed", &sql).await?;
    let mut found = Changed { last: after, ..Changed::default() };
    for row in answers.last().map(|rows| rows.rows.as_slice()).unwrap_or_default() {
        let (Some(id), Some(relation)) = (row.text(0).and_then(|id| id.parse().ok()), row.text(1)) else { continue };
        found.last = id;
        found.ids.push(id);
        let Some(key) = row.text(2).and_then(|key| serde_json::from_str::<Key>(key).ok()) else {
            found.emptied.push(relation.to_owned());
            continue;
        };
        match found.tables.iter_mut().find(|(name, _)| name == relation) {
            Some((_, keys)) if keys.contains(&key) => {}
            Some((_, keys)) => keys.push(key),
            None => found.tables.push((relation.to_owned(), vec![key])),
        }
    }
    Ok(found)
}

/// Takes notes away that have been dealt with.
pub async fn settle(place: &mut Place, changed: &Changed) -> Result<(), Error> {
    let ids: Vec<String> = changed.ids.iter().map(ToString::to_string).collect();
    if !ids.is_empty() {
        let sql = format!("delete from ntier_move.changes where id in ({})", ids.join(", "));
        place.run("taking notes away", &sql).await?;
    }
    Ok(())
}

impl Changed {
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// PostgreSQL cuts long names, and two might become the same.
fn hash(name: &str) -> String {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}
