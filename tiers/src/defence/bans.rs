//! Bans as rows, and what processes tell each other by rows that are gone after half a minute.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ntier_backing::database::{Answer, Batch, Database, Error, Row, Session, Statement};
use ntier_security::defence::{Defence, Said};
use ntier_security::network::Network;
use serde_json::json;

use super::Role;

/// On which a change of the bans is notified.
pub const CHANNEL: &str = "ntier_bans";

/// A ban that somebody deserves.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub network: Network,
    pub reason: &'static str,
    /// When it was found out.
    pub since: Instant,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Banned(Banned),
    /// It is banned already, or never is.
    Stands,
    /// A ban was lifted since then.
    Lifted,
}

/// A ban that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Banned {
    pub seconds: u64,
    pub times: u32,
}

/// What a process tells and hears.
#[derive(Debug)]
pub struct Shares {
    database: Database,
    process: String,
    role: Role,
    tick: u64,
    /// The last that was heard of each other process, and when.
    heard: HashMap<String, (u64, Instant)>,
    /// Of the bans that are in force here.
    version: Option<String>,
    /// The networks of these bans.
    banned: HashSet<Network>,
    /// Bans that were lifted lately, and when.
    lifted: HashSet<(Network, String)>,
    /// What the database has not taken yet.
    untold: String,
}

/// For so long after a ban was lifted what others had seen before may still come in.
const HEARSAY: Duration = Duration::from_secs(5);
/// Rows are taken away after half of this.
const FORGOTTEN: Duration = Duration::from_mins(1);
/// What waits for a database that is away; more is forgotten.
const MOST_UNTOLD: usize = 1 << 20;

impl Shares {
    pub fn new(database: Database, process: String, role: Role) -> Self {
        Self {
            database,
            process,
            role,
            tick: 0,
            heard: HashMap::new(),
            version: None,
            banned: HashSet::new(),
            lifted: HashSet::new(),
            untold: String::new(),
        }
    }

    /// Bans it, for longer than the last time.
    pub async fn ban(&self, wanted: &Wanted, ladder: &[Duration]) -> Result<Outcome, Error> {
        let seconds = json!(ladder.iter().map(Duration::as_secs).collect::<Vec<_>>()).to_string();
        let (network, reason) = (wanted.network.to_string(), Some(wanted.reason));
        let age = (wanted.since.elapsed() + HEARSAY).as_secs_f64().to_string();
        let insert = statement(
            "with ladder as (select array(select jsonb_array_elements_text($3::jsonb)::float8) as seconds) \
             insert into ntier.bans as ban (network, reason, source, expires_at) \
             select $1::text::cidr, $2, 'ntier', now() + make_interval(secs => seconds[1]) from ladder \
             on conflict (network) do update set times = ban.times + 1, reason = excluded.reason, source = 'ntier', created_at = now(), \
             lifted_at = null, \
             expires_at = now() + make_interval(secs => (select seconds[least(ban.times + 1, cardinality(seconds))] from ladder)) \
             where ban.verdict = 'ban' and ban.expires_at <= now() \
             and (ban.lifted_at is null or ban.lifted_at < now() - make_interval(secs => $4::float8)) \
             returning times, extract(epoch from expires_at - now())::bigint",
            &[Some(&network), reason, Some(&seconds), Some(&age)],
        );
        let is_lifted = statement(
            "select 1 from ntier.bans where network = $1::text::cidr and lifted_at is not null",
            &[Some(&network)],
        );
        let answer = run(&self.database, vec![insert, is_lifted]).await?;
        let row = |at: usize| answer.results.get(at).and_then(|result| result.rows.first());
        let number = |row: &Row, at| row.text(at).and_then(|text| text.parse::<u64>().ok());
        let banned = row(0)
            .and_then(|row| Some(Banned { times: u32::try_from(number(row, 0)?).ok()?, seconds: number(row, 1)? }));
        Ok(match banned {
            Some(banned) => Outcome::Banned(banned),
            None if row(1).is_some() => Outcome::Lifted,
            None => Outcome::Stands,
        })
    }

    /// Tells the others what is new here, hears them, and puts the bans in force where they are others.
    pub async fn exchange(&mut self, defence: &Defence) -> Result<(), Error> {
        if let Some(text) = defence.tell()
            && self.untold.len() + text.len() <= MOST_UNTOLD
        {
            self.untold.push_str(&text);
        }
        let heard: HashMap<&str, u64> =
            self.heard.iter().map(|(process, (tick, _))| (process.as_str(), *tick)).collect();
        let heard = json!(heard).to_string();
        let mut statements = vec![
            statement("select version from ntier.bans_version", &[]),
            statement(
                "select process, tick, role, body, extract(epoch from clock_timestamp() - at)::float8 from ntier.shares where at > now() - interval '15 seconds' and process <> $1 \
                 and tick > coalesce(($2::jsonb ->> process)::bigint, -1) order by process, tick",
                &[Some(&self.process), Some(&heard)],
            ),
        ];
        let tick = (self.tick + 1).to_string();
        if !self.untold.is_empty() {
            statements.push(statement(
                "insert into ntier.shares (process, tick, role, body) values ($1, $2, $3, $4)",
                &[Some(&self.process), Some(&tick), Some(self.role.name()), Some(&self.untold)],
            ));
            // Whoever writes also sweeps.
            statements.push(statement("delete from ntier.shares where at < now() - interval '30 seconds'", &[]));
        }
        let answer = run(&self.database, statements).await?;
        if !self.untold.is_empty() {
            (self.tick, self.untold) = (self.tick + 1, String::new());
        }
        let now = Instant::now();
        for row in answer.results.get(1).map(|result| result.rows.as_slice()).unwrap_or_default() {
            let (Some(process), Some(tick), Some(body)) = (row.text(0), row.text(1), row.text(3)) else { continue };
            let age =
                row.text(4).and_then(|age| Duration::try_from_secs_f64(age.parse().ok()?).ok()).unwrap_or_default();
            self.heard.insert(process.to_owned(), (tick.parse().unwrap_or(u64::MAX), now));
            defence.hear(body, row.text(2) == Some(self.role.name()), age, now);
        }
        // Nothing is left by then of what they said.
        self.heard.retain(|_, (_, at)| now.saturating_duration_since(*at) < FORGOTTEN);
        let version = answer.results.first().and_then(|result| result.rows.first()?.text(0)).map(str::to_owned);
        if version != self.version {
            let all = list(&self.database, false).await?;
            let lifted = lately_lifted(&self.database).await?;
            let now = Instant::now();
            defence.set_bans(all.iter().map(|ban| (ban.network, ban.said(now))), now);
            let banned = all.iter().map(|ban| ban.network).collect();
            // Whoever was pardoned, or has had their time, begins anew.
            for network in std::mem::replace(&mut self.banned, banned).difference(&self.banned) {
                defence.pardon(*network);
            }
            for (network, _) in lifted.difference(&self.lifted) {
                defence.pardon(*network);
            }
            self.lifted = lifted;
            self.version = version;
        }
        Ok(())
    }
}

/// What is said of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Banned,
    Never,
}

/// A row of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    pub network: Network,
    pub verdict: Verdict,
    pub reason: String,
    pub source: String,
    pub times: u32,
    /// Of PostgreSQL, in UTC.
    pub since: String,
    /// `None` until it is lifted; zero and less for one that is over.
    pub seconds_left: Option<i64>,
}

impl Ban {
    fn said(&self, now: Instant) -> Said {
        match (self.verdict, self.seconds_left) {
            (Verdict::Never, _) => Said::Never,
            (Verdict::Banned, None) => Said::Banned(None),
            (Verdict::Banned, Some(left)) => {
                Said::Banned(now.checked_add(Duration::from_secs(u64::try_from(left).unwrap_or(0))))
            }
        }
    }
}

/// Those in force, or those that are over too; the newest first.
pub async fn list(database: &Database, also_over: bool) -> Result<Vec<Ban>, Error> {
    let sql = statement(
        "select network::text, verdict, reason, source, times, to_char(created_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS'), \
         ceil(extract(epoch from expires_at - now()))::bigint from ntier.bans \
         where lifted_at is null and (expires_at is null or expires_at > now() or $1::boolean) order by created_at desc, network",
        &[Some(if also_over { "true" } else { "false" })],
    );
    let answer = run(database, vec![sql]).await?;
    let ban = |row: &Row| {
        let text = |at| row.text(at).map(str::to_owned);
        Some(Ban {
            network: row.text(0)?.parse().ok()?,
            verdict: if row.text(1)? == "never" { Verdict::Never } else { Verdict::Banned },
            reason: text(2)?,
            source: text(3)?,
            times: row.text(4)?.parse().ok()?,
            since: text(5)?,
            seconds_left: row.text(6).and_then(|left| left.parse().ok()),
        })
    };
    Ok(answer.results.first().map(|result| result.rows.iter().filter_map(ban).collect()).unwrap_or_default())
}

/// Bans that were lifted in the last minutes, whether or not they were ever in force here.
async fn lately_lifted(database: &Database) -> Result<HashSet<(Network, String)>, Error> {
    let sql = "select network::text, lifted_at from ntier.bans where lifted_at > now() - interval '10 minutes'";
    let answer = run(database, vec![statement(sql, &[])]).await?;
    let rows = answer.results.first().map(|result| result.rows.as_slice()).unwrap_or_default();
    Ok(rows.iter().filter_map(|row| Some((row.text(0)?.parse().ok()?, row.text(1)?.to_owned()))).collect())
}

/// Says it of a network, whatever was said before; for so long, or until it is lifted.
pub async fn add(
    database: &Database,
    network: Network,
    verdict: Verdict,
    reason: &str,
    time: Option<Duration>,
) -> Result<(), Error> {
    let verdict = match verdict {
        Verdict::Banned => "ban",
        Verdict::Never => "never",
    };
    let (network, seconds) = (network.to_string(), time.map(|time| time.as_secs().to_string()));
    let sql = statement(
        "insert into ntier.bans as ban (network, verdict, reason, source, expires_at) \
         values ($1::text::cidr, $2, $3, 'operator', now() + make_interval(secs => $4::float8)) \
         on conflict (network) do update set verdict = excluded.verdict, reason = excluded.reason, source = 'operator', \
         created_at = now(), expires_at = excluded.expires_at, lifted_at = null",
        &[Some(&network), Some(verdict), Some(reason), seconds.as_deref()],
    );
    run(database, vec![sql]).await.map(drop)
}

/// Takes back what is said of these networks, and what was; gives those of which something was said.
pub async fn lift(database: &Database, network: Option<Network>) -> Result<Vec<String>, Error> {
    let network = network.map(|network| network.to_string());
    let sql = statement(
        "update ntier.bans set verdict = 'ban', times = 0, expires_at = now(), lifted_at = now() \
         where lifted_at is null and (network = $1::text::cidr or ($1 is null and verdict = 'ban')) returning network::text",
        &[network.as_deref()],
    );
    let answer = run(database, vec![sql]).await?;
    let rows = answer.results.first().map(|result| result.rows.as_slice()).unwrap_or_default();
    Ok(rows.iter().filter_map(|row| row.text(0)).map(plain).collect())
}

/// Without the prefix of a single address, which PostgreSQL writes.
fn plain(network: &str) -> String {
    network.parse::<Network>().map_or_else(|()| network.to_owned(), |network| network.to_string())
}

pub fn statement(text: &str, parameters: &[Option<&str>]) -> Statement {
    let bytes = |value: Option<&str>| value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
    Statement { text: text.into(), parameters: parameters.iter().copied().map(bytes).collect() }
}

/// Nobody waits for the disk for this.
pub async fn run(database: &Database, statements: Vec<Statement>) -> Result<Answer, Error> {
    let settings = vec![("synchronous_commit".into(), "off".to_owned())];
    let session = Some(Session { settings, isolation: None });
    let deadline = Duration::from_secs(20);
    database.run(Batch { session, statements, deadline, ..Batch::default() }).await
}
