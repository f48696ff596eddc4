//! An end of a move: a database that is reached, in a session that says the same thing in the same words wherever it is.

use std::path::PathBuf;

use ntier_backing::database::migrations::{self, Exposure};
use ntier_backing::database::{self, Address, Database, Line, Rows, Target};

use super::{Error, Event, Observe};
use crate::database::{visit, visitor};
use crate::directories;
use crate::settings::Settings;

/// By which servers list our connections.
const NAME: &str = "ntier move";

/// Nothing that PostgreSQL writes as text depends on who asks where, and nothing that is made is looked at before all of it is there.
const SESSION: &str = "
    set search_path = '';
    set check_function_bodies = off;
    set client_min_messages = warning;
    set row_security = off;
    set statement_timeout = 0;
    set lock_timeout = 0;
    set idle_in_transaction_session_timeout = 0;
    set default_transaction_isolation = 'read committed';
    set default_transaction_read_only = off;
    set datestyle = 'ISO, YMD';
    set intervalstyle = 'postgres';
    set timezone = 'UTC';
    set extra_float_digits = 1;
    set bytea_output = 'hex';
    set xmloption = 'content';
    set lc_monetary = 'C';
    set quote_all_identifiers = off;";

/// One of the two.
#[derive(Debug)]
pub struct Place {
    pub line: Line,
    address: Address,
    /// Holds the embedded engine, where nobody else does.
    database: Database,
    /// `15` for PostgreSQL 15.
    pub major: u32,
    pub is_embedded: bool,
    pub is_superuser: bool,
    /// In words, without secrets.
    pub name: String,
    encoding: String,
    collation: String,
}

impl Place {
    /// Opens the database and brings it to our newest migration.
    pub async fn open(settings: &Settings, program: PathBuf, observe: Observe<'_>) -> Result<Self, Error> {
        let is_embedded = settings.database.is_none();
        directories::create_private(&settings.data)?;
        let target = visit(settings, program).await;
        let address = match &target {
            Target::Embedded(embedded) => embedded.address(NAME),
            Target::External(address) => Address { application_name: NAME.into(), ..address.clone() },
        };
        let name = match &settings.database {
            Some(address) => format!("the server's database {}", address.database),
            None => format!("the embedded database in {}", settings.data.display()),
        };
        let unreachable = |cause| Error::Database { what: format!("cannot reach {name}"), cause };
        let database = Database::open(target, visitor()).await.map_err(unreachable)?;
        let mut line = session(&address, is_embedded).await.map_err(unreachable)?;
        let asked = "select current_setting('server_version_num')::int / 10000, current_setting('server_encoding'), \
            (select datcollate from pg_database where datname = current_database()), \
            (select rolsuper from pg_roles where rolname = current_user)";
        let answers = line.run(asked).await.map_err(unreachable)?;
        let text = |column| text(&answers, column).unwrap_or_default();
        let major = text(0).parse().unwrap_or_default();
        let (encoding, collation, is_superuser) = (text(1), text(2), text(3) == "t");
        Ok(Self { line, address, database, major, is_embedded, is_superuser, name, encoding, collation })
            .inspect(|place| observe(Event::Opened(&place.name)))
    }

    /// Another session, in the place of one that was left in the middle of something.
    pub async fn again(&mut self) -> Result<(), Error> {
        let line = session(&self.address, self.is_embedded).await;
        self.line = line.map_err(|cause| self.fault("connecting again", cause))?;
        Ok(())
    }

    /// Applies our own migrations.
    pub async fn migrate(&self, exposure: Exposure) -> Result<(), Error> {
        migrations::apply(&self.database, exposure).await?;
        Ok(())
    }

    /// Who sees new tables through the API here.
    pub async fn exposure(&mut self) -> Result<Exposure, Error> {
        let what = "reading settings";
        if self.ask(what, "select to_regclass('ntier.settings')").await?.is_none() {
            return Ok(Exposure::Granted);
        }
        let sql = "select value from ntier.settings where name = 'auto_expose_new_tables'";
        let is_on = self.ask(what, sql).await?.as_deref() == Some("on");
        Ok(if is_on { Exposure::Automatic } else { Exposure::Granted })
    }

    /// Runs a script; an error says what for.
    pub async fn run(&mut self, what: &str, sql: &str) -> Result<Vec<Rows>, Error> {
        self.line.run(sql).await.map_err(|cause| self.fault(what, cause))
    }

    pub fn fault(&self, what: &str, cause: database::Error) -> Error {
        Error::Database { what: format!("{what}, {}", self.name), cause }
    }

    /// The only value of a question.
    pub async fn ask(&mut self, what: &str, sql: &str) -> Result<Option<String>, Error> {
        Ok(text(&self.run(what, sql).await?, 0))
    }

    /// What may surprise somebody who moves from one to the other.
    pub fn notes(&self, target: &Self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.collation != target.collation {
            notes.push(format!(
                "text is sorted by {} instead of {}: lists in the order of a text may be in another order",
                target.collation, self.collation
            ));
        }
        if self.major > target.major {
            notes.push(format!(
                "from PostgreSQL {} to the older {}: what only the newer one knows is refused there",
                self.major, target.major
            ));
        }
        notes
    }

    /// Whether text can be the same there.
    pub fn check(&self, target: &Self) -> Result<(), Error> {
        if target.major < 15 {
            return Err(Error::Target(format!(
                "PostgreSQL {} is too old: 15 is the oldest that ntier runs on",
                target.major
            )));
        }
        if self.encoding != target.encoding {
            return Err(Error::Target(format!(
                "its encoding is {}, and {} here: make the database with `encoding '{}' template template0`",
                target.encoding, self.encoding, self.encoding
            )));
        }
        Ok(())
    }

    pub async fn close(self) {
        self.line.close().await;
        self.database.close().await;
    }
}

async fn session(address: &Address, is_embedded: bool) -> Result<Line, database::Error> {
    let mut line = Line::connect(address).await?;
    line.run(SESSION).await?;
    if is_embedded {
        // What watches the schema would look at it again for each trigger that is made. Older servers cannot.
        line.run("set event_triggers = off").await?;
    }
    Ok(line)
}

/// The first row's value.
pub fn text(answers: &[Rows], column: usize) -> Option<String> {
    answers.last()?.rows.first()?.text(column).map(str::to_owned)
}

/// A literal.
pub fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    // Also where somebody has switched off standard strings.
    if doubled.contains('\\') { format!("E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

/// A list of literals as an array of text.
pub fn literals<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let list: Vec<String> = texts.into_iter().map(literal).collect();
    format!("array[{}]::text[]", list.join(", "))
}
