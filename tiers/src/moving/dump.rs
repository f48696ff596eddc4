//! Out: what an application has as one script for psql, for a project at Supabase or a PostgreSQL without ntier.
//!
//! What every such place has by itself (the schemas `auth`, `storage`, `realtime`) is told from what the project has made by a database that
//! is new: what is there too is left out. Where nothing of it is there, the script makes it first. Files are no part of it, and nothing that
//! only our keys open: sessions, sealed second factors.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ntier_backing::database::migrations::script_of_all;

use super::compare::{pages, sequences};
use super::facts::{Facts, Kind, Roles, Stage, Step, plan};
use super::place::{Place, literal};
use super::tables::{self, Unit};
use super::{Error, Event, Observe};
use crate::settings::Settings;

/// 2 MB of a file.
const PIECE_PAGES: usize = 256;

/// Of the schemas that Supabase makes, the tables whose rows go along.
const TAKEN: [&str; 3] = ["auth.users", "auth.identities", "storage.buckets"];
const THEIRS: [&str; 4] = ["auth.", "storage.", "realtime.", "ntier."];

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dumped {
    pub tables: usize,
    pub rows: u64,
}

/// Writes the script: all of it as of one moment. Meanwhile the embedded database answers nobody else.
pub async fn dump(
    settings: &Settings,
    path: &Path,
    program: PathBuf,
    leave_out: bool,
    observe: Observe<'_>,
) -> Result<Dumped, Error> {
    let fault = |cause| Error::Dump { path: path.to_owned(), cause };
    if path.exists() {
        return Err(fault(io::ErrorKind::AlreadyExists.into()));
    }
    let mut source = Place::open(settings, program.clone(), observe).await?;
    let exposure = source.exposure().await?;
    source.migrate(exposure).await?;
    let usual = usual(settings, program, observe).await?;
    // It is secret, and whole under its name.
    let beside = path.with_added_extension("part");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside).map_err(fault)?;
    let mut out = Script { out: BufWriter::new(file), path };
    out.say(&format!("{HEAD}{};\n\\endif\n{SESSION}", script_of_all(exposure)))?;
    source.run("beginning", "begin isolation level repeatable read, read only").await?;
    let dumped = write(&mut source, &usual, leave_out, &mut out, observe).await;
    source.run("ending", "rollback").await?;
    source.close().await;
    let done = dumped.and_then(|dumped| {
        out.out.flush().and_then(|()| out.out.get_ref().sync_all()).map_err(fault)?;
        fs::rename(&beside, path).map_err(fault)?;
        Ok(dumped)
    });
    if done.is_err() {
        let _ = fs::remove_file(&beside);
    }
    done
}

const HEAD: &str = "\\set ON_ERROR_STOP on
-- Restore it with psql, as a superuser or as Supabase's role postgres: psql -X -d postgres://… -f this
select to_regclass('auth.users') is null as is_plain \\gset
\\if :is_plain
";

/// As they were read; nothing reacts to rows that come, and functions may name what comes later.
const SESSION: &str = "begin;
set search_path = '';
set check_function_bodies = off;
set client_min_messages = warning;
set row_security = off;
set statement_timeout = 0;
set datestyle = 'ISO, YMD';
set intervalstyle = 'postgres';
set timezone = 'UTC';
set session_replication_role = replica;
";

struct Script<'a> {
    out: BufWriter<File>,
    path: &'a Path,
}

impl Script<'_> {
    fn say(&mut self, text: &str) -> Result<(), Error> {
        self.bytes(text.as_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(|cause| Error::Dump { path: self.path.to_owned(), cause })
    }

    fn step(&mut self, step: &Step) -> Result<(), Error> {
        let Step { kind, name, sql } = step;
        let after = match kind {
            // What is usual there may be more than what is right here.
            Kind::Table | Kind::View | Kind::MaterializedView | Kind::Sequence => {
                format!("revoke all on table {name} from anon, authenticated, service_role;\n")
            }
            Kind::Function | Kind::Procedure => {
                format!("revoke all on {} {name} from public, anon, authenticated, service_role;\n", kind.text())
            }
            _ => String::new(),
        };
        match kind {
            Kind::Role => {
                self.say(&format!("do $role$ begin {sql}; exception when duplicate_object then null; end $role$;\n"))
            }
            _ => self.say(&format!("{sql};\n{after}")),
        }
    }
}

/// What a database has in which nobody has done anything yet.
async fn usual(settings: &Settings, program: PathBuf, observe: Observe<'_>) -> Result<Facts, Error> {
    let data = settings.data.join(format!("new.{}", std::process::id()));
    let fresh = Settings { data: data.clone(), database: None, ..settings.clone() };
    let mut place = Place::open(&fresh, program, observe).await?;
    let exposure = place.exposure().await?;
    let facts = async {
        place.migrate(exposure).await?;
        Facts::read(&mut place.line, Roles::All, 0).await.map_err(|cause| place.fault("reading the schema", cause))
    };
    let facts = facts.await;
    place.close().await;
    let _ = fs::remove_dir_all(&data);
    facts
}

async fn write(
    source: &mut Place,
    usual: &Facts,
    leave_out: bool,
    out: &mut Script<'_>,
    observe: Observe<'_>,
) -> Result<Dumped, Error> {
    let roles = if source.is_embedded { Roles::All } else { Roles::Named };
    let facts = Facts::read(&mut source.line, roles, source.major).await;
    let facts = facts.map_err(|cause| source.fault("reading the schema", cause))?.without_maintain();
    if !facts.foreign.is_empty() && !leave_out {
        return Err(Error::Foreign(facts.foreign));
    }
    let usual = facts.shared_with(usual);
    let before = plan(&facts, &usual, Stage::Before);
    for step in &before {
        out.step(step)?;
    }
    let units = tables::units(source).await?;
    let mut dumped = Dumped { tables: 0, rows: 0 };
    for unit in units.iter().filter(|unit| is_taken(&unit.name)) {
        dumped.tables += 1;
        dumped.rows += rows(source, unit, out).await?;
        observe(Event::Rows { table: &unit.name, rows: dumped.rows });
    }
    for (name, last, is_called) in sequences(source).await? {
        if is_taken(&name) {
            out.say(&format!("select setval({}, {last}, {is_called});\n", literal(&name)))?;
        }
    }
    for step in plan(&facts, &usual, Stage::Last).iter().filter(|step| !before.contains(step)) {
        out.step(step)?;
    }
    let filled = source.run("reading materialized views", super::FILLED).await?;
    let filled: Vec<&str> = filled
        .last()
        .map(|rows| rows.rows.as_slice())
        .unwrap_or_default()
        .iter()
        .filter_map(|row| row.text(0))
        .collect();
    for name in facts.in_order(Kind::MaterializedView).filter(|name| filled.contains(name)) {
        out.say(&format!("refresh materialized view {name};\n"))?;
    }
    out.say("commit;\n")?;
    Ok(dumped)
}

fn is_taken(name: &str) -> bool {
    TAKEN.contains(&name) || !THEIRS.iter().any(|schema| name.starts_with(schema))
}

async fn rows(source: &mut Place, unit: &Unit, out: &mut Script<'_>) -> Result<u64, Error> {
    out.say(&format!("{};\n", unit.write()))?;
    let mut count = 0;
    let pages = pages(source, unit.parts.iter().map(String::as_str)).await?;
    for (part, pages) in unit.parts.iter().zip(pages) {
        for from in (0..pages).step_by(PIECE_PAGES) {
            let copy = unit.pages(part, from, from + PIECE_PAGES as u64);
            let bytes = source
                .line
                .read(&copy)
                .await
                .map_err(|cause| source.fault(&format!("copying {}", unit.name), cause))?;
            // A line of COPY is a row.
            count += bytes.split(|&byte| byte == b'\n').count() as u64 - 1;
            out.bytes(&bytes)?;
        }
    }
    out.say("\\.\n")?;
    Ok(count)
}
