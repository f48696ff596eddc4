//! The keys of several nodes: one row of the database that they share, sealed with the vault's key.
//!
//! The first node leaves its keys there, and whoever comes later takes them, if it has the vault's key: that is all that has to be brought to a
//! new machine. The file in a data directory is a copy then, which a node follows as it always does. Where the file is changed (a rotation),
//! its node changes the row, and the others follow that. A number in the data directory tells which row the file was last the same as: so it is known
//! which of both is newer, also after a while in which the node did not run.

use std::fs;
use std::io;
use std::path::PathBuf;

use ntier_backing::database::{self, Batch, Database, Row, Statement};
use ntier_security::keys::Keys;

use crate::keys::{self, Follower};
use crate::settings::Settings;

/// Where the seal opens.
const PLACE: &str = "ntier.keyring";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Keys(#[from] keys::Error),
    #[error("{0}")]
    Database(#[from] database::Error),
    #[error(
        "the keys of this database are sealed with a key that this node does not have: copy vault.key from the data directory of a \
         node that has it, or set vault_key to what is in it (if all are lost, delete the row of ntier.keyring: what is sealed in \
         the database stays unreadable)"
    )]
    Sealed,
    #[error("the row of ntier.keyring is damaged: {0}")]
    Damaged(serde_json::Error),
    #[error("the keys cannot be sealed")]
    Unsealed,
}

/// The keys that a node shares with the others.
#[derive(Debug)]
pub struct Keyring {
    database: Database,
    settings: Settings,
    /// Those of the row of this number.
    keys: Keys,
    number: i64,
}

/// A row.
struct Kept {
    number: i64,
    sealed: String,
}

impl Keyring {
    /// Makes the keys of the data directory those of the database, or leaves them there where there are none yet.
    pub async fn join(database: Database, settings: Settings) -> Result<Self, Error> {
        loop {
            if let Some(kept) = kept(&database, 0).await? {
                let row = open(&settings, &kept)?;
                let mut keyring = Self { database, keys: row, number: kept.number, settings };
                if seen(&keyring.settings) != Some(kept.number) || keys::kept(&keyring.settings).is_err() {
                    keyring.take()?;
                }
                keyring.follow().await?;
                return Ok(keyring);
            }
            // Makes those that are missing.
            Follower::start(&settings)?;
            let sealed = seal(&settings, &keys::kept(&settings)?)?;
            // Where another node was faster, its keys are taken in the next turn.
            let text = "insert into ntier.keyring (sealed) values ($1) on conflict (is_only) do nothing";
            ask(&database, Statement::new(text, &[&sealed])).await?;
        }
    }

    /// Takes the keys of the row if it is another one, or leaves there those of the file if they are others.
    pub async fn follow(&mut self) -> Result<(), Error> {
        if let Some(kept) = kept(&self.database, self.number).await? {
            self.keys = open(&self.settings, &kept)?;
            self.number = kept.number;
            return self.take();
        }
        let own = keys::kept(&self.settings)?;
        if own == self.keys {
            return Ok(());
        }
        let text =
            "update ntier.keyring set sealed = $1, number = number + 1, at = now() where number = $2 returning number";
        let sealed = seal(&self.settings, &own)?;
        let changed = ask(&self.database, Statement::new(text, &[&sealed, &self.number.to_string()])).await?;
        // Where another node was faster, its keys are taken the next time.
        if !changed.is_empty() {
            (self.keys, self.number) = (own, self.number + 1);
            remember(&self.settings, self.number)?;
        }
        Ok(())
    }

    fn take(&self) -> Result<(), Error> {
        keys::keep(&self.settings, &self.keys)?;
        Ok(remember(&self.settings, self.number)?)
    }
}

/// Which row the file was last the same as.
fn seen(settings: &Settings) -> Option<i64> {
    fs::read_to_string(path(settings)).ok()?.trim().parse().ok()
}

fn remember(settings: &Settings, number: i64) -> Result<(), keys::Error> {
    let path = path(settings);
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let written = fs::write(&beside, format!("{number}\n")).and_then(|()| fs::rename(&beside, &path));
    written.map_err(|cause: io::Error| keys::Error::File { path, cause })
}

fn path(settings: &Settings) -> PathBuf {
    settings.data.join("keyring")
}

async fn kept(database: &Database, but: i64) -> Result<Option<Kept>, Error> {
    let text = "select number, sealed from ntier.keyring where number <> $1";
    let rows = ask(database, Statement::new(text, &[&but.to_string()])).await?;
    let read = |row: &Row| Some(Kept { number: row.text(0)?.parse().ok()?, sealed: row.text(1)?.to_owned() });
    Ok(rows.first().and_then(read))
}

async fn ask(database: &Database, statement: Statement) -> Result<Vec<Row>, Error> {
    let answer = database.run(Batch { statements: vec![statement], ..Batch::default() }).await?;
    Ok(answer.results.into_iter().next().map(|rows| rows.rows).unwrap_or_default())
}

fn seal(settings: &Settings, keys: &Keys) -> Result<String, Error> {
    let text = serde_json::to_string(keys).map_err(Error::Damaged)?;
    keys::vault(settings)?.seal(&text, PLACE).map_err(|_| Error::Unsealed)
}

fn open(settings: &Settings, kept: &Kept) -> Result<Keys, Error> {
    // A vault that is made now would open nothing, and be in the way of the right one.
    let vault = keys::existing_vault(settings)?.ok_or(Error::Sealed)?;
    let text = vault.open(&kept.sealed, PLACE).ok_or(Error::Sealed)?;
    serde_json::from_str(&text).map_err(Error::Damaged)
}
