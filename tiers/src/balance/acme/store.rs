//! What balancers share of certificates, in PostgreSQL. Who asks for one has a lease, which it renews; whatever it writes is written only
//! while that is so.

use std::time::Duration;

use instant_acme::AccountCredentials;
use ntier_backing::database::{self, Access, Batch, Database, Row, Statement};
use ntier_balancer::issued::Certificate;
use ntier_security::vault::Vault;
use tokio::time::{sleep, timeout};

use super::Error;
use super::order::Obtained;
use crate::keys;
use crate::settings::Settings;

/// How long a balancer that says nothing more is waited for.
const LEASE: Duration = Duration::from_secs(10);
/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Store {
    database: Database,
    settings: Settings,
    directory: String,
    /// This balancer.
    holder: String,
}

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    pub known: Vec<Known>,
    pub asked: Vec<Asked>,
}

/// A name's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub name: String,
    /// 0 for none yet.
    pub number: i64,
    /// It is time for another, and nobody asks for it.
    pub is_due: bool,
    pub until: String,
}

/// A challenge.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Asked {
    pub name: String,
    pub kind: String,
    pub token: String,
    pub answer: String,
}

impl Look {
    /// The first name that a certificate is to be asked for.
    pub fn due<'a>(&self, names: &'a [String]) -> Option<&'a str> {
        let is_due =
            |name: &&String| self.known.iter().find(|known| known.name == **name).is_none_or(|known| known.is_due);
        names.iter().find(is_due).map(String::as_str)
    }
}

impl Store {
    pub fn new(database: Database, settings: &Settings) -> Self {
        let holder = format!("{}-{:08x}", std::process::id(), fastrand::u32(..));
        let directory = settings.balance.acme.directory.clone();
        Self { database, settings: settings.clone(), directory, holder }
    }

    pub async fn close(&self) {
        self.database.clone().close().await;
    }

    pub async fn look(&self, names: &[String]) -> Result<Look, Error> {
        let known = "select name, number, next_at <= clock_timestamp() and coalesce(held_until < clock_timestamp(), true), \
                     to_char(not_after at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') \
                     from ntier.certificates where directory = $1 and name = any($2::text[])";
        let asked = "select name, kind, token, answer from ntier.acme_challenges \
                     where directory = $1 and at > clock_timestamp() - interval '1 hour' order by name, token";
        // Names have neither commas nor braces.
        let names = format!("{{{}}}", names.join(","));
        let batch = Batch {
            statements: vec![
                Statement::new(known, &[&self.directory, &names]),
                Statement::new(asked, &[&self.directory]),
            ],
            access: Access::ReadOnly,
            deadline: Duration::from_secs(5),
            ..Batch::default()
        };
        let mut results = self.database.run(batch).await?.results.into_iter();
        let mut rows = || results.next().map(|rows| rows.rows).unwrap_or_default();
        let known = |row: &Row| {
            Some(Known {
                name: text(row, 0)?,
                number: row.text(1)?.parse().ok()?,
                is_due: row.text(2)? == "t",
                until: text(row, 3).unwrap_or_default(),
            })
        };
        let asked = |row: &Row| {
            Some(Asked { name: text(row, 0)?, kind: text(row, 1)?, token: text(row, 2)?, answer: text(row, 3)? })
        };
        Ok(Look { known: rows().iter().filter_map(known).collect(), asked: rows().iter().filter_map(asked).collect() })
    }

    /// The certificate of a name, and its number.
    pub async fn certificate(&self, name: &str) -> Result<(i64, Certificate), Error> {
        let asked = "select number, chain, sealed from ntier.certificates where directory = $1 and name = $2";
        let rows = self.ask(Statement::new(asked, &[&self.directory, name])).await?;
        let read = |row: &Row| Some((row.text(0)?.parse().ok()?, text(row, 1)?, text(row, 2)?));
        let (number, chain, sealed): (i64, String, String) = rows.first().and_then(read).ok_or(Error::Lost)?;
        let key = self.vault()?.open(&sealed, &place(name)).ok_or_else(|| Error::Sealed(name.to_owned()))?;
        Ok((number, Certificate::read(&chain, &key)?))
    }

    /// Another is due in place of this one.
    pub async fn wanted(&self, name: &str, number: i64) -> Result<(), Error> {
        let wanted = "update ntier.certificates set next_at = clock_timestamp() \
                      where directory = $1 and name = $2 and number = $3 and failures = 0 and next_at > clock_timestamp()";
        self.run(vec![Statement::new(wanted, &[&self.directory, name, &number.to_string()])]).await?;
        Ok(())
    }

    /// This balancer is to ask for one, which has failed so many times in a row; `None` where another does, or nobody has to.
    pub async fn claim(&self, name: &str) -> Result<Option<usize>, Error> {
        self.vault()?;
        let asked = "insert into ntier.certificates as c (directory, name, holder, held_until) \
                     values ($1, $2, $3, clock_timestamp() + make_interval(secs => $4::float8)) \
                     on conflict (directory, name) do update set holder = excluded.holder, held_until = excluded.held_until \
                     where c.next_at <= clock_timestamp() and (c.held_until is null or c.held_until < clock_timestamp()) \
                     returning failures";
        let lease = LEASE.as_secs().to_string();
        let rows = self.ask(Statement::new(asked, &[&self.directory, name, &self.holder, &lease])).await?;
        Ok(rows.first().and_then(|row| row.text(0)?.parse().ok()))
    }

    /// Gives signs of life; returns when another balancer may ask.
    pub async fn hold(&self, name: &str) {
        let held = "update ntier.certificates set held_until = clock_timestamp() + make_interval(secs => $4::float8) \
                    where directory = $1 and name = $2 and holder = $3 and held_until > clock_timestamp() returning name";
        let lease = LEASE.as_secs().to_string();
        loop {
            sleep(BEAT).await;
            let told = self.ask(Statement::new(held, &[&self.directory, name, &self.holder, &lease]));
            let is_mine = timeout(LEASE, told).await;
            // A database that is away is away for the others too.
            if matches!(is_mine, Ok(Ok(rows)) if rows.is_empty()) {
                return;
            }
        }
    }

    /// It has failed: nobody asks again before so long.
    pub async fn put_off(&self, name: &str, pause: Duration, fault: &str) -> Result<(), Error> {
        let put = "update ntier.certificates set failures = failures + 1, fault = $5, holder = null, held_until = null, \
                   next_at = clock_timestamp() + make_interval(secs => $4::float8) \
                   where directory = $1 and name = $2 and holder = $3";
        let pause = pause.as_secs_f64().to_string();
        let fault = fault.replace('\0', "");
        let put = Statement::new(put, &[&self.directory, name, &self.holder, &pause, &fault]);
        self.run(vec![self.forgotten(name), put]).await?;
        Ok(())
    }

    /// It is there: all balancers take it.
    pub async fn keep(&self, name: &str, got: &Obtained) -> Result<(), Error> {
        // What cannot be shown is not kept.
        Certificate::read(&got.chain, &got.key)?;
        let sealed = self.vault()?.seal(&got.key, &place(name)).map_err(|_| Error::Unsealed)?;
        let kept = "update ntier.certificates set number = number + 1, chain = $4, sealed = $5, not_after = to_timestamp($6::float8), \
                    next_at = to_timestamp($7::float8), failures = 0, fault = null, holder = null, held_until = null \
                    where directory = $1 and name = $2 and holder = $3 returning number";
        let (until, next) = (got.not_after.to_string(), got.next.to_string());
        let values: [&str; 7] = [&self.directory, name, &self.holder, &got.chain, &sealed, &until, &next];
        let rows = self.run(vec![self.forgotten(name), Statement::new(kept, &values)]).await?;
        if rows.is_empty() { Err(Error::Lost) } else { Ok(()) }
    }

    /// Every balancer answers it from its next look on.
    pub async fn challenge(&self, asked: &Asked) -> Result<(), Error> {
        let text = "insert into ntier.acme_challenges (directory, name, kind, token, answer) \
                    select $1, $2, $4, $5, $6 from ntier.certificates where directory = $1 and name = $2 and holder = $3 \
                    on conflict (directory, name, token) do update set kind = excluded.kind, answer = excluded.answer, at = excluded.at \
                    returning token";
        let values = [&self.directory, &asked.name, &self.holder, &asked.kind, &asked.token, &asked.answer];
        let values: Vec<&str> = values.into_iter().map(String::as_str).collect();
        let rows = self.run(vec![self.forgotten(&asked.name), Statement::new(text, &values)]).await?;
        if rows.is_empty() { Err(Error::Lost) } else { Ok(()) }
    }

    /// Challenges of a name are decided, or were a killed balancer's. It comes first: only whoever asks may say so.
    fn forgotten(&self, name: &str) -> Statement {
        let text = "delete from ntier.acme_challenges where directory = $1 and name = $2 and exists \
                    (select from ntier.certificates where directory = $1 and name = $2 and holder = $3)";
        Statement::new(text, &[&self.directory, name, &self.holder])
    }

    pub async fn account(&self) -> Result<Option<AccountCredentials>, Error> {
        let asked = "select sealed from ntier.acme_accounts where directory = $1";
        let rows = self.ask(Statement::new(asked, &[&self.directory])).await?;
        let Some(sealed) = rows.first().and_then(|row| text(row, 0)) else { return Ok(None) };
        let opened = self.vault()?.open(&sealed, ACCOUNT).ok_or_else(|| Error::Sealed("the account".into()))?;
        serde_json::from_str(&opened).map(Some).map_err(Error::Account)
    }

    /// Whether it is ours from now on; otherwise there is one already.
    pub async fn keep_account(&self, made: &AccountCredentials) -> Result<bool, Error> {
        let made = serde_json::to_string(made).map_err(Error::Account)?;
        let sealed = self.vault()?.seal(&made, ACCOUNT).map_err(|_| Error::Unsealed)?;
        let text = "insert into ntier.acme_accounts (directory, sealed) values ($1, $2) on conflict do nothing returning directory";
        Ok(!self.ask(Statement::new(text, &[&self.directory, &sealed])).await?.is_empty())
    }

    /// The authority does not know it any more.
    pub async fn forget_account(&self) -> Result<(), Error> {
        let text = "delete from ntier.acme_accounts where directory = $1";
        self.ask(Statement::new(text, &[&self.directory])).await.map(drop)
    }

    /// A key that is made now would open nothing, and be in the way of the right one.
    fn vault(&self) -> Result<Vault, Error> {
        keys::existing_vault(&self.settings)?.ok_or(Error::NoVault)
    }

    async fn ask(&self, statement: Statement) -> Result<Vec<Row>, Error> {
        Ok(self.run(vec![statement]).await?)
    }

    /// What the last one gives.
    async fn run(&self, statements: Vec<Statement>) -> Result<Vec<Row>, database::Error> {
        let batch = Batch { statements, deadline: Duration::from_secs(5), ..Batch::default() };
        let answer = self.database.run(batch).await?;
        Ok(answer.results.into_iter().last().map(|rows| rows.rows).unwrap_or_default())
    }
}

/// Where an account's seal opens.
const ACCOUNT: &str = "ntier.acme_accounts";

/// Where a key's seal opens.
fn place(name: &str) -> String {
    format!("ntier.certificates {name}")
}

fn text(row: &Row, column: usize) -> Option<String> {
    row.text(column).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nobody_has_asked_for_are_due() {
        let known = |name: &str, is_due| Known { name: name.into(), number: 1, is_due, until: String::new() };
        let names = ["a.example".to_owned(), "b.example".to_owned()];
        for (rows, expected) in [
            (vec![], Some("a.example")),
            (vec![known("a.example", false)], Some("b.example")),
            (vec![known("a.example", false), known("b.example", true)], Some("b.example")),
            (vec![known("a.example", false), known("b.example", false)], None),
        ] {
            let look = Look { known: rows, asked: Vec::new() };
            assert_eq!(look.due(&names), expected);
        }
    }
}
