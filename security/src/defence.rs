//! The defence of one process, a node's or a balancer's: rules, bans, limits and scores, asked at each request.
//!
//! Everything that is decided here is decided at once, with what this process knows. What others know comes by
//! [`Defence::set_bans`] and [`Defence::hear`]; what they should know, and what is to be written down, waits for whoever fetches it
//! ([`Defence::take_records`], [`Defence::tell`]). So a database that is away takes nothing of it. The time is an argument.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use crate::bounded::Key;
use crate::firewall::{Facts, Reason, Rules, plain};
use crate::intrusion::{
    Event, Points, Policy, Scores, Standing, address_key, is_api, is_injection, is_scanner_path, short_hash,
};
use crate::network::Network;
use crate::networks::Networks;
use crate::rates::{Buckets, Rate, Used};

mod message;
mod refusal;

pub use refusal::Refusal;

/// What is done with what is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// It is heeded.
    #[default]
    On,
    /// It is only written down: a dry run.
    Watch,
}

/// What a process is told at its start; it may change later.
#[derive(Debug, Clone)]
pub struct Settings {
    pub mode: Mode,
    pub rules: Rules,
    pub policy: Policy,
    /// These are never banned, slowed down or counted.
    pub never: Vec<Network>,
    pub limits: Limits,
    /// Of one address at once.
    pub connections: Option<usize>,
}

/// How often one may ask; `None` for as often as they like.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    pub address: Option<Rate>,
    pub user: Option<Rate>,
    pub key: Option<Rate>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::On,
            rules: Rules::default(),
            policy: Policy::default(),
            never: Vec::new(),
            limits: Limits { address: Rate::per_second(1000), user: None, key: None },
            connections: Some(1000),
        }
    }
}

/// What the database says of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// Until then; `None` until it is lifted.
    Banned(Option<Instant>),
    /// It is never banned.
    Never,
}

/// A request that was answered by a refusal.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// What whoever refused it found out.
    pub event: Option<Event>,
    pub status: u16,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub account: Option<&'a str>,
}

/// Something that happened, to be written down.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub event: Event,
    pub address: IpAddr,
    /// The account that it names, as half of its hash: whoever reads the records need not know whose it is.
    pub account: Option<u128>,
    pub path: Option<String>,
    /// Of the address, then.
    pub score: f64,
    pub standing: Standing,
}

/// See the module.
#[derive(Debug)]
pub struct Defence {
    settings: RwLock<Settings>,
    networks: RwLock<Networks<Said>>,
    /// What this process decided and the database does not say yet.
    own: RwLock<HashMap<Network, Instant>>,
    buckets: Buckets,
    scores: Scores,
    records: Mutex<Records>,
    open: Mutex<HashMap<IpAddr, usize>>,
    begun: Instant,
    /// Until then somebody may be slowed down, in milliseconds since it began: at other times nobody need be looked up.
    watchful: AtomicU64,
}

/// What is known of an address before it does anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is never banned, slowed down or counted.
    Exempt,
    /// For so long; `None` until that is lifted.
    Banned(Option<Duration>),
    Open,
}

#[derive(Debug, Default)]
struct Records {
    waiting: VecDeque<Record>,
    lost: u64,
}

/// Addresses, users and keys whose requests are counted: about 3 MB.
const COUNTED: usize = 32_768;
/// Addresses and accounts that have a score: about 2.5 MB.
const SCORED: usize = 16_384;
/// Records that wait.
const MOST_RECORDS: usize = 4096;
/// Bans of this process that the database does not say.
const MOST_OWN: usize = 4096;
/// So long this process's own word counts, until the database's is there.
const PROVISIONAL: Duration = Duration::from_mins(1);
/// A path in a record.
const LONGEST_PATH: usize = 200;
/// Whoever is slowed down.
const THROTTLED: Rate = Rate { size: 10.0, refill: 2.0 };

const BY_ADDRESS: u8 = 1;
const BY_USER: u8 = 2;
const BY_KEY: u8 = 3;
const SLOWED: u8 = 4;

impl Defence {
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self {
            settings: RwLock::new(settings),
            networks: RwLock::default(),
            own: RwLock::default(),
            buckets: Buckets::new(COUNTED),
            scores: Scores::new(SCORED),
            records: Mutex::default(),
            open: Mutex::default(),
            begun: now,
            watchful: AtomicU64::new(0),
        }
    }

    /// Whether the request may come in. It is asked before anything of it is read but its head.
    pub fn admit(&self, facts: &Facts<'_>, now: Instant) -> Result<(), Refusal> {
        let settings = self.settings();
        if let Some(reason) = settings.rules.decide(facts) {
            if matches!(reason, Reason::Headers | Reason::Body) {
                self.note(Event::TooLarge, facts.address, None, Some(facts.path), now);
            }
            return Err(Refusal::Firewall(reason));
        }
        let is_on = settings.mode == Mode::On;
        match self.place(&settings, facts.address, now) {
            Place::Banned(left) if is_on => return Err(Refusal::Banned(left)),
            Place::Banned(_) | Place::Exempt => return Ok(()),
            Place::Open => {}
        }
        let id = address_key(facts.address).id;
        if self.is_throttled(&settings, facts.address, now)
            && let Err(wait) = self.buckets.take(Key { kind: SLOWED, id }, THROTTLED, now)
            && is_on
        {
            return Err(Refusal::Throttled(wait));
        }
        self.take(&settings, facts, Key { kind: BY_ADDRESS, id }, settings.limits.address, now)
    }

    /// Whether this user may ask once more; `user` has been made sure of.
    pub fn admit_user(&self, user: &str, facts: &Facts<'_>, now: Instant) -> Result<(), Refusal> {
        let settings = self.settings();
        let Some(rate) = settings.limits.user else { return Ok(()) };
        self.take(&settings, facts, Key { kind: BY_USER, id: short_hash(user.as_bytes()) }, Some(rate), now)
    }

    /// Whether an application with this API key may ask once more.
    pub fn admit_key(&self, key: &[u8], facts: &Facts<'_>, now: Instant) -> Result<(), Refusal> {
        let settings = self.settings();
        let Some(rate) = settings.limits.key else { return Ok(()) };
        self.take(&settings, facts, Key { kind: BY_KEY, id: short_hash(key) }, Some(rate), now)
    }

    fn take(
        &self,
        settings: &Settings,
        facts: &Facts<'_>,
        key: Key,
        rate: Option<Rate>,
        now: Instant,
    ) -> Result<(), Refusal> {
        let Some(Err(wait)) = rate.map(|rate| self.buckets.take(key, rate, now)) else { return Ok(()) };
        // What many do with one key or account is no address's fault.
        if key.kind == BY_ADDRESS {
            self.note_with(settings, Event::Limited, facts.address, None, Some(facts.path), now);
        }
        if settings.mode == Mode::On { Err(Refusal::Limited(wait)) } else { Ok(()) }
    }

    /// Something happened: it is scored and written down.
    pub fn note(&self, event: Event, address: IpAddr, account: Option<&str>, path: Option<&str>, now: Instant) {
        self.note_with(&self.settings(), event, address, account, path, now);
    }

    fn note_with(
        &self,
        settings: &Settings,
        event: Event,
        address: IpAddr,
        account: Option<&str>,
        path: Option<&str>,
        now: Instant,
    ) {
        let address = address.to_canonical();
        let (mut score, mut standing) = (0.0, Standing::Clear);
        if self.place(settings, address, now) == Place::Open {
            let scored = self.scores.note(event, address, account, &settings.policy, now);
            (score, standing) = (scored.score, scored.standing);
            self.follow(settings, Network::of_client(address), standing, now);
        }
        let account = account.map(|account| short_hash(account.as_bytes()));
        let path = path.map(|path| path[..path.floor_char_boundary(LONGEST_PATH)].to_owned());
        // A single refusal of an ordinary request is no news.
        if !matches!(event, Event::Refused | Event::NotFound | Event::Denied) || standing > Standing::Clear {
            self.record(Record { event, address, account, path, score, standing });
        }
    }

    /// Somebody got in with this account.
    pub fn forgive(&self, address: IpAddr, account: &str, now: Instant) {
        let settings = self.settings();
        self.scores.forgive(address, account, &settings.policy, now);
    }

    /// What an answer from 400 to 499 says of who asked; what is known of it already is in `event`.
    pub fn refused(&self, answer: &Answer<'_>, address: IpAddr, now: Instant) {
        let Answer { event, status, path, query, account } = *answer;
        let event = event.unwrap_or_else(|| match status {
            408 => Event::TooSlow,
            413 | 431 => Event::TooLarge,
            429 => Event::Limited,
            _ if is_scanner_path(&plain(path)) => Event::ScannerPath,
            _ if is_injection(path) || query.is_some_and(is_injection) => Event::Injection,
            404 if !is_api(path) => Event::NotFound,
            _ => Event::Refused,
        });
        self.note(event, address, account, Some(path), now);
    }

    /// One more connection; `false` where there are too many of its address. Whoever gets one gives it back by [`Self::disconnected`].
    pub fn connected(&self, address: IpAddr, now: Instant) -> bool {
        let settings = self.settings();
        let client = Network::of_client(address).range().0;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(client).or_default();
        let most = settings.connections.filter(|_| self.place(&settings, address, now) != Place::Exempt);
        if most.is_some_and(|most| *count >= most) {
            drop(open);
            self.note_with(&settings, Event::Crowded, address, None, None, now);
            return settings.mode == Mode::Watch && {
                *self.open.lock().unwrap_or_else(PoisonError::into_inner).entry(client).or_default() += 1;
                true
            };
        }
        *count += 1;
        true
    }

    pub fn disconnected(&self, address: IpAddr) {
        let client = Network::of_client(address).range().0;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&client);
            }
        }
    }

    /// Puts what the database says of networks in force.
    pub fn set_bans(&self, said: impl IntoIterator<Item = (Network, Said)>, now: Instant) {
        let networks = Networks::new(said);
        // A ban that the database has is the database's: who lifts it there lifts it here.
        self.own
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|network, until| *until > now && networks.get(network.range().0).is_none());
        *self.networks.write().unwrap_or_else(PoisonError::into_inner) = networks;
    }

    /// Forgets what this network did, as it was pardoned.
    pub fn pardon(&self, network: Network) {
        self.own.write().unwrap_or_else(PoisonError::into_inner).remove(&network);
        self.scores.forget(network);
    }

    /// Puts other rules in force.
    pub fn set_rules(&self, rules: Rules) {
        self.settings.write().unwrap_or_else(PoisonError::into_inner).rules = rules;
    }

    /// What happened since it was asked last, and how many records were lost because nobody asked.
    pub fn take_records(&self) -> (Vec<Record>, u64) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = std::mem::take(&mut records.lost);
        (records.waiting.drain(..).collect(), lost)
    }

    /// What the others should count too, as text; `None` for nothing. It is not told again.
    pub fn tell(&self) -> Option<String> {
        message::write(&self.buckets.used(), &self.scores.untold())
    }

    /// Counts what another process has told; its requests only if it is one of the same kind, as a request that passes a balancer and a
    /// node is one request. So long ago it was told. What cannot be read is passed over: it may be of another version.
    pub fn hear(&self, text: &str, is_alike: bool, age: Duration, now: Instant) {
        let settings = self.settings();
        let (used, points) = message::read(text);
        for used in used.into_iter().filter(|_| is_alike) {
            self.hear_used(&settings, used, age, now);
        }
        for points in points {
            self.hear_points(&settings, points, now);
        }
    }

    fn hear_used(&self, settings: &Settings, used: Used, age: Duration, now: Instant) {
        let rate = match used.key.kind {
            BY_ADDRESS => settings.limits.address,
            BY_USER => settings.limits.user,
            BY_KEY => settings.limits.key,
            SLOWED => Some(THROTTLED),
            _ => None,
        };
        if let Some(rate) = rate {
            self.buckets.hear(used, rate, age, now);
        }
    }

    fn hear_points(&self, settings: &Settings, points: Points, now: Instant) {
        let Some((network, scored)) = self.scores.hear(points, &settings.policy, now) else { return };
        let address = network.range().0;
        if scored.standing == Standing::Clear || self.place(settings, address, now) != Place::Open {
            return;
        }
        self.follow(settings, network, scored.standing, now);
        if scored.standing == Standing::Banned {
            let (score, standing) = (scored.score, scored.standing);
            self.record(Record { event: points.event, address, account: None, path: None, score, standing });
        }
    }

    fn place(&self, settings: &Settings, address: IpAddr, now: Instant) -> Place {
        if settings.never.iter().any(|network| network.contains(address)) {
            return Place::Exempt;
        }
        match self.networks.read().unwrap_or_else(PoisonError::into_inner).get(address) {
            Some(Said::Never) => return Place::Exempt,
            Some(Said::Banned(None)) => return Place::Banned(None),
            Some(Said::Banned(Some(until))) if until > now => return Place::Banned(Some(until - now)),
            Some(Said::Banned(Some(_))) | None => {}
        }
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        let until = if own.is_empty() { None } else { own.get(&Network::of_client(address)) };
        match until {
            Some(&until) if until > now => Place::Banned(Some(until - now)),
            _ => Place::Open,
        }
    }

    fn is_throttled(&self, settings: &Settings, address: IpAddr, now: Instant) -> bool {
        self.milliseconds(now) < self.watchful.load(Ordering::Relaxed)
            && self.scores.standing(address, &settings.policy, now).standing >= Standing::Throttled
    }

    /// Does what the score says.
    fn follow(&self, settings: &Settings, network: Network, standing: Standing, now: Instant) {
        if standing >= Standing::Throttled {
            // A score cannot hold itself above the threshold for longer than it takes from the highest down to it.
            let until = now + settings.policy.half_life.saturating_mul(2);
            self.watchful.fetch_max(self.milliseconds(until), Ordering::Relaxed);
        }
        if standing == Standing::Banned {
            self.scores.forget(network);
            let mut own = self.own.write().unwrap_or_else(PoisonError::into_inner);
            own.retain(|_, until| *until > now);
            if own.len() < MOST_OWN {
                own.insert(network, now + PROVISIONAL.min(settings.policy.ban_time));
            }
        }
    }

    fn record(&self, record: Record) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.waiting.len() < MOST_RECORDS {
            records.waiting.push_back(record);
        } else if record.standing == Standing::Banned {
            // A ban has to be written down, whatever else is not.
            records.waiting.pop_front();
            records.waiting.push_back(record);
            records.lost += 1;
        } else {
            records.lost += 1;
        }
    }

    /// Whether requests of users are counted, and of API keys.
    pub fn counts(&self) -> (bool, bool) {
        let limits = self.settings().limits;
        (limits.user.is_some(), limits.key.is_some())
    }

    pub fn mode(&self) -> Mode {
        self.settings().mode
    }

    pub fn policy(&self) -> Policy {
        self.settings().policy
    }

    fn settings(&self) -> RwLockReadGuard<'_, Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.begun).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
