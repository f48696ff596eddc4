//! The move: an application goes from one database to another, with its schema, rows, users, files and keys, while it runs.
//!
//! First everything is copied while the source is written to, and what changes meanwhile is noted (`follow`). Then writes are refused, the
//! rest is done, both ends are compared, and the target is the application. Whoever is killed begins again where it was: what was done is
//! in the target, what is to be done is in the source (docs/decisions/0012-the-move.md).

mod compare;
mod copy;
mod dump;
mod facts;
mod files;
mod follow;
mod look;
mod place;
mod tables;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ntier_backing::database::migrations;
use ntier_backing::{blobs, database};

pub use compare::{Compared, Sum};
pub use dump::{Dumped, dump};
pub use files::Files;

use crate::server::files as store;
use crate::settings::Settings;
use crate::{directories, keys};
use facts::{Facts, Kind, Roles, Stage, Step, differences, plan};
use files::Stores;
use look::Looks;
use place::{Place, literal};
use tables::Unit;

/// What goes where.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    pub source: &'a Settings,
    pub target: &'a Settings,
    /// This executable.
    pub program: PathBuf,
    /// Goes without what cannot be taken along, instead of not going.
    pub leave_out: bool,
}

/// What is being done, for whoever waits.
#[derive(Debug)]
pub enum Event<'a> {
    Opened(&'a str),
    Doing(&'static str),
    Rows {
        table: &'a str,
        rows: u64,
    },
    Files {
        count: u64,
    },
    /// Compared ahead, while it is written to.
    Looking {
        table: &'a str,
    },
    Comparing {
        table: &'a str,
    },
    Note(String),
    /// Writes are refused at the source.
    Closed,
    /// They are done again: the move has failed.
    Reopened,
}

pub type Observe<'a> = &'a (dyn Fn(Event<'_>) + Sync);

/// How it ended.
#[derive(Debug)]
pub enum Outcome {
    Moved(Report),
    /// It had been done before.
    Finished {
        target: String,
        at: String,
    },
    /// Whoever waited for it does no longer.
    BrokenOff,
}

/// What was moved.
#[derive(Debug)]
pub struct Report {
    pub tables: Vec<Compared>,
    pub sequences: usize,
    /// What is not as it should be; then the source goes on.
    pub faults: Vec<String>,
    /// `None` where files stay where they are.
    pub files: Option<Files>,
    /// Whether keys were copied to another data directory.
    pub keys: bool,
    /// How long nobody could write.
    pub window: Duration,
    pub took: Duration,
    /// It went on with what an earlier one had begun.
    pub resumed: bool,
}

impl Report {
    pub fn is_equal(&self) -> bool {
        self.faults.is_empty() && self.tables.iter().all(Compared::is_equal)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what}: {cause}{}", advice(cause))]
    Database { what: String, cause: database::Error },
    #[error("cannot move there: {0}")]
    Target(String),
    #[error("cannot move from there: {0}")]
    Source(String),
    #[error("this cannot be taken along, `--leave-out` goes without it: {}", .0.join(", "))]
    Foreign(Vec<String>),
    #[error(transparent)]
    Migrations(#[from] migrations::Error),
    #[error(transparent)]
    Directory(#[from] directories::Error),
    #[error(transparent)]
    Keys(#[from] keys::Error),
    #[error("cannot write {}: {cause}", path.display())]
    Dump { path: PathBuf, cause: std::io::Error },
    #[error("files: {0}")]
    Blobs(#[from] blobs::Error),
    #[error(transparent)]
    Files(#[from] store::Error),
}

/// What helps.
fn advice(cause: &database::Error) -> String {
    match cause {
        database::Error::Lost(_) => ". Run the same command again: it goes on where it was".into(),
        database::Error::Refused(refusal) => {
            let mut text = format!(" (SQLSTATE {})", refusal.code);
            for (name, more) in [("detail", &refusal.detail), ("hint", &refusal.hint)] {
                if let Some(more) = more {
                    text.push_str(&format!("\n  {name}: {more}"));
                }
            }
            text
        }
        _ => String::new(),
    }
}

/// Moves, or goes on moving, until `end` comes.
pub async fn run(request: &Request<'_>, observe: Observe<'_>, end: impl Future<Output = ()>) -> Result<Outcome, Error> {
    let begun = Instant::now();
    check_ends(request)?;
    files::check_keys(request.source, request.target)?;
    let mut source = Place::open(request.source, request.program.clone(), observe).await?;
    let target = match Place::open(request.target, request.program.clone(), observe).await {
        Ok(target) => target,
        Err(cause) => {
            source.close().await;
            return Err(cause);
        }
    };
    let memory = follow::memory(&mut source).await?;
    let mut moving = Move { request, source, target, there: None, looks: Looks::default(), observe };
    let outcome = tokio::select! {
        outcome = moving.outcome(memory, begun) => outcome,
        () = end => Ok(Outcome::BrokenOff),
    };
    let is_over = matches!(&outcome, Ok(Outcome::Finished { .. })) || outcome.as_ref().is_ok_and(Outcome::is_moved);
    if !is_over {
        moving.let_go().await;
    }
    let Move { source, target, .. } = moving;
    source.close().await;
    target.close().await;
    outcome
}

impl Outcome {
    fn is_moved(&self) -> bool {
        matches!(self, Self::Moved(report) if report.is_equal())
    }
}

/// The source goes on as if nothing had been; true if there was a move to forget.
pub async fn cancel(source: &Settings, program: PathBuf, observe: Observe<'_>) -> Result<bool, Error> {
    let mut place = Place::open(source, program, observe).await?;
    let had = follow::memory(&mut place).await?.is_some();
    if had {
        follow::forget(&mut place).await?;
    }
    place.close().await;
    Ok(had)
}

fn check_ends(request: &Request<'_>) -> Result<(), Error> {
    let (source, target) = (request.source, request.target);
    let is_same = match (&source.database, &target.database) {
        (None, None) => source.data == target.data,
        (Some(source), Some(target)) => (&source.host, &source.database) == (&target.host, &target.database),
        _ => false,
    };
    if is_same {
        return Err(Error::Target("that is where it is".into()));
    }
    if source.database.is_none() && !source.data.join("cluster").is_dir() {
        return Err(Error::Source(format!("there is no database in {}", source.data.display())));
    }
    Ok(())
}

/// The materialized views that were filled.
const FILLED: &str = "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
    where c.relkind = 'm' and c.relispopulated";

/// How often both ends are compared ahead: each time there is less that has changed since the time before.
const LOOKS_AHEAD: usize = 3;

struct Move<'a> {
    request: &'a Request<'a>,
    source: Place,
    target: Place,
    /// What the target is made of, if nothing was made there since it was read.
    there: Option<Facts>,
    /// What is known of the rows at both ends.
    looks: Looks,
    observe: Observe<'a>,
}

impl Move<'_> {
    async fn outcome(&mut self, memory: Option<follow::Memory>, begun: Instant) -> Result<Outcome, Error> {
        let belongs = copy::belongs_to(&mut self.target).await?;
        if let Some(follow::Memory { id, target, finished: Some(at), .. }) = memory {
            if belongs.as_ref() == Some(&id) {
                self.tidy().await?;
            }
            return Ok(Outcome::Finished { target, at });
        }
        self.source.check(&self.target)?;
        match (&memory, &belongs) {
            (Some(memory), Some(id)) if memory.id == *id => {}
            (_, None) => self.check_empty().await?,
            _ => {
                let message = "another move has begun to fill it; make a new database for this one";
                return Err(Error::Target(message.into()));
            }
        }
        let exposure = self.source.exposure().await?;
        self.source.migrate(exposure).await?;
        let facts = self.facts_of_source().await?;
        self.check_facts(&facts).await?;
        for note in self.source.notes(&self.target) {
            (self.observe)(Event::Note(note));
        }
        self.target.migrate(exposure).await?;
        let id = follow::begin(&mut self.source, &self.target.name.clone()).await?;
        if copy::begin(&mut self.target, &id).await? != id {
            return Err(Error::Target("another move fills it at this moment".into()));
        }
        let stores = Stores::open(self.request.source, self.request.target).await?;
        self.ahead(&facts, stores.as_ref()).await?;
        (self.observe)(Event::Closed);
        let closed = Instant::now();
        let mut report = self.window(&facts, stores.as_ref()).await?;
        report.window = closed.elapsed();
        if report.is_equal() {
            self.tidy().await?;
            (self.observe)(Event::Doing("counting what is where, for the planner"));
            self.target.run("analyzing", "analyze").await?;
        }
        report.took = begun.elapsed();
        report.resumed = belongs.is_some();
        Ok(Outcome::Moved(report))
    }

    /// The move has not come to its end: writes are done again, if they are refused already. What was begun stays, to go on with.
    async fn let_go(&mut self) {
        let opened = async {
            self.source.again().await?;
            match follow::memory(&mut self.source).await? {
                Some(memory) if memory.finished.is_some() => Ok(None),
                Some(memory) if memory.is_closed => follow::open(&mut self.source).await.map(|()| Some(true)),
                memory => Ok(memory.map(|_| false)),
            }
        };
        match opened.await {
            Ok(Some(was_closed)) => {
                if was_closed {
                    (self.observe)(Event::Reopened);
                }
                let note =
                    "changes are still noted here, for the same command to go on; `ntier move --cancel` ends that";
                (self.observe)(Event::Note(note.into()));
            }
            Ok(None) => {}
            Err(cause) => {
                let note = format!("writes may still be refused here, `ntier move --cancel` opens it again: {cause}");
                (self.observe)(Event::Note(note));
            }
        }
    }

    /// Everything that may be done while the source is written to.
    async fn ahead(&mut self, facts: &Facts, stores: Option<&Stores>) -> Result<(), Error> {
        (self.observe)(Event::Doing("making tables"));
        self.quiet().await?;
        self.note_passwords(facts).await?;
        self.make(facts, Stage::Before).await?;
        let units = tables::units(&mut self.source).await?;
        follow::note(&mut self.source, &units).await?;
        for unit in &units {
            if unit.has_key() {
                copy::rows(&mut self.source, &mut self.target, unit, self.observe).await?;
            } else if !unit.name.starts_with("realtime.") {
                let name = &unit.name;
                (self.observe)(Event::Note(format!("{name} has no key: it is copied while nobody can write")));
            }
        }
        if let Some(stores) = stores {
            stores.copy(&mut self.source, &mut self.target, self.observe).await?;
        }
        (self.observe)(Event::Doing("making indexes and rights"));
        self.make(facts, Stage::After).await?;
        (self.observe)(Event::Doing("catching up"));
        copy::catch_up(&mut self.source, &mut self.target, &units, &mut self.looks, false, self.observe).await?;
        self.look_ahead(&units).await
    }

    /// Most of the comparison. What is written meanwhile is compared again, the last of it when nobody writes.
    async fn look_ahead(&mut self, units: &[Unit]) -> Result<(), Error> {
        (self.observe)(Event::Doing("looking at both ends"));
        for _ in 0..LOOKS_AHEAD {
            let now = tables::units(&mut self.source).await?;
            let Self { source, target, looks, observe, .. } = self;
            match compare::look(source, target, &now, looks, false, *observe).await {
                // Somebody changes a table at this moment: all is compared when nobody does.
                Err(Error::Database { cause: database::Error::Refused(_), .. }) => {
                    *looks = Looks::default();
                    return Ok(());
                }
                looked => looked?,
            }
            copy::catch_up(source, target, units, looks, false, *observe).await?;
            if looks.are_closed() {
                break;
            }
        }
        Ok(())
    }

    /// Everything that has to be done while nobody writes.
    async fn window(&mut self, before: &Facts, stores: Option<&Stores>) -> Result<Report, Error> {
        let units = tables::units(&mut self.source).await?;
        follow::close(&mut self.source, &units).await?;
        // What was made meanwhile goes along too.
        let facts = self.facts_of_source().await?;
        if !facts.of(Kind::Type).eq(before.of(Kind::Type)) {
            // Values may have another text, of which no row's trigger knows.
            self.looks = Looks::default();
        }
        self.make(&facts, Stage::Before).await?;
        let done = copy::done(&mut self.target).await?;
        for unit in &units {
            if !unit.has_key() {
                copy::frozen_rows(&mut self.source, &mut self.target, unit, self.observe).await?;
            } else if !done.contains(&unit.name) {
                copy::rows(&mut self.source, &mut self.target, unit, self.observe).await?;
            }
        }
        copy::catch_up(&mut self.source, &mut self.target, &units, &mut self.looks, true, self.observe).await?;
        let files = match stores {
            Some(stores) => Some(stores.copy(&mut self.source, &mut self.target, self.observe).await?),
            None => None,
        };
        (self.observe)(Event::Doing("making foreign keys and triggers"));
        self.set_sequences().await?;
        self.loud().await?;
        self.make(&facts, Stage::Last).await?;
        self.target.run("following changes", "select ntier.attach_changes()").await?;
        self.refresh(&facts).await?;
        let mut report = self.compare(&facts, &units).await?;
        report.files = files;
        if report.is_equal() {
            report.keys = files::copy_keys(self.request.source, self.request.target)?;
            follow::finish(&mut self.source, &self.target.name.clone()).await?;
        }
        Ok(report)
    }

    async fn facts_of_source(&mut self) -> Result<Facts, Error> {
        let roles = if self.source.is_embedded { Roles::All } else { Roles::Named };
        let facts = Facts::read(&mut self.source.line, roles, self.target.major).await;
        let facts = facts.map_err(|cause| self.source.fault("reading the schema", cause))?;
        Ok(self.known(facts))
    }

    async fn facts_of_target(&mut self) -> Result<Facts, Error> {
        let facts = Facts::read(&mut self.target.line, Roles::All, self.source.major).await;
        let facts = facts.map_err(|cause| self.target.fault("reading the schema", cause))?;
        Ok(self.known(facts))
    }

    /// Without what one of the ends does not know: the right MAINTAIN came with PostgreSQL 17.
    fn known(&self, facts: Facts) -> Facts {
        let older = self.source.major.min(self.target.major) < 17;
        let facts = if older { facts.without_maintain() } else { facts };
        if self.source.is_embedded || self.target.is_embedded { facts.without_unlogged() } else { facts }
    }

    async fn check_facts(&mut self, facts: &Facts) -> Result<(), Error> {
        if !facts.foreign.is_empty() && !self.request.leave_out {
            return Err(Error::Foreign(facts.foreign.clone()));
        }
        for what in &facts.foreign {
            (self.observe)(Event::Note(format!("{what} is left behind")));
        }
        let what = "looking for extensions";
        let answers = self.target.run(what, "select quote_ident(name) from pg_available_extensions").await?;
        let rows = answers.last().map(|rows| rows.rows.as_slice()).unwrap_or_default();
        let missing = facts.of(Kind::Extension).map(|fact| fact.name.as_str());
        let missing: Vec<&str> = missing.filter(|name| !rows.iter().any(|row| row.text(0) == Some(name))).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let list = missing.join(", ");
        Err(Error::Target(format!("it has no extension {list}: install it there, or drop it here if nothing needs it")))
    }

    /// Roles that sign in are made without their passwords, which only superusers may read.
    async fn note_passwords(&mut self, facts: &Facts) -> Result<(), Error> {
        let there = self.facts_of_target().await?;
        let missing = facts.of(Kind::Role).filter(|role| !there.of(Kind::Role).any(|other| other.name == role.name));
        for role in missing.filter(|role| role.make.contains(" login")) {
            (self.observe)(Event::Note(format!(
                "the role {} is made without a password: give it one there",
                role.name
            )));
        }
        Ok(())
    }

    /// Nothing of anybody's is in the target.
    async fn check_empty(&mut self) -> Result<(), Error> {
        let what = "looking whether the target is empty";
        let sql = "select string_agg(name, ', ') from (
               select format('%I.%I', n.nspname, c.relname) as name
               from pg_class c join pg_namespace n on n.oid = c.relnamespace
               where c.relkind in ('r', 'p', 'v', 'm', 'S', 'f') and n.nspname !~ '^pg_'
                 and n.nspname not in ('information_schema', 'ntier', 'auth', 'storage', 'realtime', 'extensions')
                 and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
               order by 1 limit 3) found";
        let mut found = self.target.ask(what, sql).await?;
        for table in ["auth.users", "storage.buckets", "storage.objects"] {
            if found.is_none()
                && self.target.ask(what, &format!("select to_regclass({})", literal(table))).await?.is_some()
            {
                let sql = format!("select {} where exists (select from {table})", literal(&format!("rows in {table}")));
                found = self.target.ask(what, &sql).await?;
            }
        }
        match found {
            Some(found) => Err(Error::Target(format!("it is not empty: there are {found}"))),
            None => Ok(()),
        }
    }

    /// Makes what is missing at the target, up to this stage. What was made has the rights that are usual there, so it is looked at once
    /// more.
    async fn make(&mut self, facts: &Facts, stage: Stage) -> Result<(), Error> {
        for _ in 0..2 {
            let there = match self.there.take() {
                Some(there) => there,
                None => self.facts_of_target().await?,
            };
            let steps = plan(facts, &there, stage);
            if steps.is_empty() {
                self.there = Some(there);
                break;
            }
            for step in &steps {
                self.step(step, stage).await?;
            }
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step, stage: Stage) -> Result<(), Error> {
        if let (Kind::Owner, false, Some((_, owner))) =
            (step.kind, self.target.is_superuser, step.sql.rsplit_once(" owner to "))
        {
            // Where this is not allowed, the next statement says so.
            let _ = self.target.line.run(&format!("grant {owner} to current_user")).await;
        }
        match self.target.line.run(&step.sql).await {
            // Rows were seen at different times; it is made when nobody writes.
            Err(database::Error::Refused(refusal))
                if stage == Stage::After
                    && matches!(step.kind, Kind::Constraint | Kind::Index)
                    && matches!(refusal.code.as_str(), "23505" | "23P01") =>
            {
                Ok(())
            }
            Err(cause) => Err(self.target.fault(&format!("making {} {}", step.kind.text(), step.name), cause)),
            Ok(_) => Ok(()),
        }
    }

    /// Nothing at the target reacts to rows: they come as they are, in any order.
    async fn quiet(&mut self) -> Result<(), Error> {
        let facts = self.facts_of_target().await?;
        let reacting = facts.list.iter().filter(|fact| matches!(fact.kind, Kind::ForeignKey | Kind::Rule));
        let mut sql: Vec<String> = reacting.filter_map(|fact| fact.unmake.clone()).collect();
        sql.extend(self.triggered().await?.iter().map(|table| format!("alter table {table} disable trigger user")));
        self.target.run("switching triggers off", &sql.join(";\n")).await?;
        self.there = None;
        Ok(())
    }

    /// And it does again.
    async fn loud(&mut self) -> Result<(), Error> {
        let tables = self.triggered().await?;
        let sql: Vec<String> = tables.iter().map(|table| format!("alter table {table} enable trigger user")).collect();
        self.target.run("switching triggers on", &sql.join(";\n")).await?;
        self.there = None;
        Ok(())
    }

    /// The target's tables that have triggers.
    async fn triggered(&mut self) -> Result<Vec<String>, Error> {
        let sql = "select distinct format('%I.%I', n.nspname, c.relname) from pg_trigger t join pg_class c on c.oid = t.tgrelid \
            join pg_namespace n on n.oid = c.relnamespace \
            where not t.tgisinternal and c.relkind in ('r', 'p') and n.nspname !~ '^pg_' order by 1";
        let answers = self.target.run("looking for triggers", sql).await?;
        let rows = answers.last().map(|rows| rows.rows.as_slice()).unwrap_or_default();
        Ok(rows.iter().filter_map(|row| row.text(0)).map(str::to_owned).collect())
    }

    async fn set_sequences(&mut self) -> Result<(), Error> {
        let sequences = compare::sequences(&mut self.source).await?;
        let set = |(name, last, is_called): &(String, String, bool)| {
            format!("select setval({}, {last}, {is_called})", literal(name))
        };
        let sql: Vec<String> = sequences.iter().map(set).collect();
        self.target.run("setting sequences", &sql.join(";\n")).await?;
        Ok(())
    }

    /// Fills the materialized views that were filled.
    async fn refresh(&mut self, facts: &Facts) -> Result<(), Error> {
        let answers = self.source.run("reading materialized views", FILLED).await?;
        let rows = answers.last().map(|rows| rows.rows.as_slice()).unwrap_or_default();
        let filled: Vec<&str> = rows.iter().filter_map(|row| row.text(0)).collect();
        for name in facts.in_order(Kind::MaterializedView).filter(|name| filled.contains(name)) {
            self.target.run(&format!("filling {name}"), &format!("refresh materialized view {name}")).await?;
        }
        Ok(())
    }

    async fn compare(&mut self, facts: &Facts, units: &[Unit]) -> Result<Report, Error> {
        (self.observe)(Event::Doing("comparing"));
        let there = match self.there.take() {
            Some(there) => there,
            None => self.facts_of_target().await?,
        };
        let found = differences(facts, &there, self.source.major == self.target.major);
        for note in found.notes {
            (self.observe)(Event::Note(note));
        }
        let Self { source, target, looks, observe, .. } = self;
        compare::look(source, target, units, looks, true, *observe).await?;
        let (ours, set) = (compare::sequences(&mut self.source).await?, compare::sequences(&mut self.target).await?);
        let mut faults = found.faults;
        let other = ours.iter().filter(|sequence| !set.contains(sequence));
        faults.extend(other.map(|(name, last, _)| format!("the sequence {name} does not stand at {last}")));
        Ok(Report {
            tables: self.looks.compared(),
            sequences: ours.len(),
            faults,
            files: None,
            keys: false,
            window: Duration::ZERO,
            took: Duration::ZERO,
            resumed: false,
        })
    }

    /// Takes the notebook away: the target is an application like any other.
    async fn tidy(&mut self) -> Result<(), Error> {
        self.target.run("tidying up", "drop schema if exists ntier_move cascade").await?;
        if self.target.is_embedded {
            // Else its engine would write all of it when it leaves, for which it has little time.
            self.target.run("tidying up", "checkpoint").await?;
        }
        Ok(())
    }
}
