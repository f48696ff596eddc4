//! Applies a project's migrations and seeds, each in its own transaction, recorded where the Supabase CLI records them.
//!
//! Many nodes may start at once: each file's transaction takes the lock, looks whether another node was faster, and then
//! runs. A seed runs at the first start only, which is when no migration had been recorded before.

use std::collections::HashSet;
use std::fmt;

use ntier_backing::database::migrations::locked;
use ntier_backing::database::{self, Database};

use super::script::{ALREADY, Script, platform_extension};
use super::{File, Project, Unread, statements};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Migrated(String),
    Seeded(String),
    /// A bucket of the configuration.
    BucketMade(String),
    BucketChanged(String),
    /// Files of the project were put into a bucket.
    Uploaded {
        bucket: String,
        files: usize,
    },
    /// Worth knowing, but nothing stopped.
    Remark(String),
}

/// A file and whether it was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub version: String,
    /// `None` where it was applied and its file is gone.
    pub file: Option<String>,
    pub applied: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error("{0}")]
    Refused(Box<Failure>),
    #[error("{file}: {cause}")]
    Database { file: String, cause: database::Error },
}

/// Where a file's statement failed, and what PostgreSQL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub file: String,
    pub line: Option<usize>,
    pub column: Option<usize>,
    /// The line itself.
    pub excerpt: String,
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(out, ":{line}")?;
        }
        write!(out, ": {} (SQLSTATE {})", self.message, self.code)?;
        if !self.excerpt.is_empty() {
            write!(out, "\n  | {}", self.excerpt)?;
        }
        if let Some(column) = self.column {
            write!(out, "\n  | {:>column$}", "^")?;
        }
        for (name, text) in [("detail", &self.detail), ("hint", &self.hint)] {
            if let Some(text) = text {
                write!(out, "\n  {name}: {text}")?;
            }
        }
        Ok(())
    }
}

/// Applies what is pending and tells each step to `observe`. Gives whether anything was done.
pub async fn apply(database: &Database, project: &Project, observe: &dyn Fn(Outcome)) -> Result<bool, Error> {
    let (files, others) = project.migrations()?;
    let seeds = project.seeds()?;
    let state = State::read(database).await?;
    for other in others {
        observe(Outcome::Remark(format!("{other} is not applied: its name is not <timestamp>_<name>.sql")));
    }
    let known: HashSet<&str> = state.versions.iter().map(String::as_str).collect();
    let pending: Vec<&File> = files.iter().filter(|file| !known.contains(file.version.as_str())).collect();
    let first_start = !state.bookkept && state.versions.is_empty();
    let has_files = project.config.storage.buckets.values().any(|bucket| bucket.objects_path.is_some());
    if pending.is_empty() && (!first_start || (seeds.is_empty() && !has_files)) && !state.seed_pending {
        return Ok(false);
    }
    prepare(database, first_start && !seeds.is_empty(), first_start && has_files).await?;
    let mut done = false;
    for file in pending {
        let missing = missing_extensions(database, file).await?;
        if !missing.is_empty() {
            let names = missing.join(", ");
            observe(Outcome::Remark(format!("{}: this server has no extension {names}; left out", file.label)));
        }
        if run(database, &Script::migration(file, &missing), &file.label).await? {
            observe(Outcome::Migrated(file.label.clone()));
            done = true;
        }
    }
    if state.seed_pending || first_start {
        for file in &seeds {
            if run(database, &Script::seed(file), &file.label).await? {
                observe(Outcome::Seeded(file.label.clone()));
                done = true;
            }
        }
        let text = "delete from ntier.settings where name = 'seed'";
        database.simple(text).await.map_err(bookkeeping)?;
    }
    Ok(done)
}

/// Whether the files of the project's buckets are still to be put there.
pub async fn files_pending(database: &Database) -> Result<bool, Error> {
    let question = "select value from ntier.settings where name = 'files'";
    let answers = database.simple(question).await.map_err(bookkeeping)?;
    Ok(answers.first().is_some_and(|answer| !answer.rows.is_empty()))
}

/// They are there.
pub async fn files_done(database: &Database) -> Result<(), Error> {
    database.simple("delete from ntier.settings where name = 'files'").await.map_err(bookkeeping)?;
    Ok(())
}

/// What is applied and what is not.
pub async fn status(database: &Database, project: &Project) -> Result<Vec<Status>, Error> {
    let (files, _) = project.migrations()?;
    let state = State::read(database).await?;
    let mut list: Vec<Status> = files
        .iter()
        .map(|file| Status {
            version: file.version.clone(),
            file: Some(file.label.clone()),
            applied: state.versions.contains(&file.version),
        })
        .collect();
    let gone = state.versions.iter().filter(|version| !files.iter().any(|file| file.version == **version));
    list.extend(gone.map(|version| Status { version: version.clone(), file: None, applied: true }));
    list.sort_by(|one, other| one.version.cmp(&other.version));
    Ok(list)
}

/// Runs a file; `false` when another node has run it in the meantime.
async fn run(database: &Database, script: &Script<'_>, label: &str) -> Result<bool, Error> {
    match database.simple(&script.text).await {
        Ok(_) => Ok(true),
        Err(database::Error::Refused(refusal)) if refusal.code == ALREADY => Ok(false),
        Err(database::Error::Refused(refusal)) => Err(Error::Refused(Box::new(script.failure(&refusal)))),
        Err(cause) => Err(Error::Database { file: label.to_owned(), cause }),
    }
}

/// The tables as the Supabase CLI creates them. Whether the seed is still to come is remembered with them, so that a start that
/// breaks off goes on at the next.
async fn prepare(database: &Database, seed: bool, files: bool) -> Result<(), Error> {
    let mut script = String::from(
        "create schema if not exists supabase_migrations;
         create table if not exists supabase_migrations.schema_migrations (version text not null primary key);
         alter table supabase_migrations.schema_migrations add column if not exists statements text[];
         alter table supabase_migrations.schema_migrations add column if not exists name text;
         create table if not exists supabase_migrations.seed_files (path text not null primary key, hash text not null);",
    );
    if seed {
        script.push_str("insert into ntier.settings values ('seed', 'pending') on conflict do nothing;");
    }
    if files {
        script.push_str("insert into ntier.settings values ('files', 'pending') on conflict do nothing");
    }
    locked(database, &script).await.map_err(bookkeeping)
}

fn bookkeeping(cause: database::Error) -> Error {
    Error::Database { file: "supabase_migrations".into(), cause }
}

/// Extensions of Supabase's platform that the file creates and this server does not have.
async fn missing_extensions(database: &Database, file: &File) -> Result<Vec<&'static str>, Error> {
    let mut wanted: Vec<&'static str> = statements::split(&file.text).iter().filter_map(platform_extension).collect();
    if wanted.is_empty() {
        return Ok(wanted);
    }
    let available = database.simple("select name from pg_available_extensions").await.map_err(bookkeeping)?;
    let names: HashSet<&str> = available.iter().flat_map(|answer| &answer.rows).filter_map(|row| row.text(0)).collect();
    wanted.retain(|name| !names.contains(name));
    Ok(wanted)
}

/// What the database remembers.
#[derive(Debug, Default)]
struct State {
    /// The tables are there.
    bookkept: bool,
    versions: Vec<String>,
    seed_pending: bool,
}

impl State {
    async fn read(database: &Database) -> Result<Self, Error> {
        let question = "select value from ntier.settings where name = 'seed';
                        select version from supabase_migrations.schema_migrations order by version";
        let answers = match database.simple(question).await {
            Ok(answers) => answers,
            Err(database::Error::Refused(refusal)) if matches!(refusal.code.as_str(), "42P01" | "3F000") => {
                return Ok(Self::default());
            }
            Err(cause) => return Err(bookkeeping(cause)),
        };
        let rows = |index: usize| answers.get(index).map(|answer| answer.rows.as_slice()).unwrap_or_default();
        let versions = rows(1).iter().filter_map(|row| row.text(0)).map(str::to_owned).collect();
        Ok(Self { bookkept: true, versions, seed_pending: !rows(0).is_empty() })
    }
}
