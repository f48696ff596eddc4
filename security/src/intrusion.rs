//! Who does what strangers do who look for a way in: events, what each weighs, and what follows.
//!
//! Each event adds points to the score of the address it came from; a score halves in a while by itself. Above one threshold an address
//! is slowed down, above the next it is banned, each time for longer. What each event weighs, and how much of its kind can count at
//! most, decides whether honest people are hit: docs/decisions/0013-who-is-banned.md has the reasons.
//!
//! Where an event names an account, the points are kept for the address and the account together as well: whoever gets in after all has
//! mistyped, and is forgiven for that account. An account that many fail at counts double for those who fail next.

mod injection;
mod scanner;

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};

use crate::bounded::{Bounded, Key};
use crate::network::Network;

pub use injection::is_injection;
pub use scanner::{is_api, is_scanner_path};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A password was wrong, or nobody has this account.
    WrongPassword,
    /// A one-time code, a link or a second factor was wrong.
    WrongCode,
    /// A refresh token came again after its time: two have it.
    ReusedToken,
    /// An API key, or a token's signature, that is not ours.
    WrongKey,
    /// Row level security or a grant refused (42501).
    Denied,
    /// Nothing is at this path, outside the APIs.
    NotFound,
    /// Any other answer from 400 to 499.
    Refused,
    /// A limit was reached.
    Limited,
    /// A path that only scanners ask for.
    ScannerPath,
    /// An injection was tried, and refused.
    Injection,
    /// No HTTP.
    Malformed,
    /// Headers or a body beyond the limits.
    TooLarge,
    /// Headers or a body that came too slowly.
    TooSlow,
    /// More connections than one address may have.
    Crowded,
}

impl Event {
    pub const ALL: [Self; 14] = [
        Self::WrongPassword,
        Self::WrongCode,
        Self::ReusedToken,
        Self::WrongKey,
        Self::Denied,
        Self::NotFound,
        Self::Refused,
        Self::Limited,
        Self::ScannerPath,
        Self::Injection,
        Self::Malformed,
        Self::TooLarge,
        Self::TooSlow,
        Self::Crowded,
    ];

    /// As it stands in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::WrongPassword => "wrong_password",
            Self::WrongCode => "wrong_code",
            Self::ReusedToken => "reused_token",
            Self::WrongKey => "wrong_key",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Refused => "refused",
            Self::Limited => "limited",
            Self::ScannerPath => "scanner_path",
            Self::Injection => "injection",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::Crowded => "crowded",
        }
    }

    /// The event with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.name() == name)
    }

    /// Points for one of it, and what all of its kind together can count at most.
    pub fn weight(self) -> (f64, f64) {
        const NO_END: f64 = f64::INFINITY;
        match self {
            Self::ScannerPath => (15.0, NO_END),
            Self::Injection | Self::Malformed => (10.0, NO_END),
            Self::WrongPassword | Self::WrongCode => (5.0, NO_END),
            // Somebody tries a large file again and again; a browser with too many cookies does nothing else.
            Self::TooLarge => (5.0, 90.0),
            // Lists of names are tried out fast; a page with a missing picture asks for it once.
            Self::NotFound => (0.5, 90.0),
            // What a client with a fault does at everybody's of a house: these alone do not even slow it down.
            Self::ReusedToken => (10.0, 50.0),
            Self::WrongKey => (2.0, 20.0),
            Self::Denied => (0.2, 20.0),
            Self::Refused => (0.1, 30.0),
            // Also somebody on a train.
            Self::TooSlow => (1.0, 20.0),
            // These are kept out by the limits themselves.
            Self::Limited => (0.2, 50.0),
            Self::Crowded => (0.5, 50.0),
        }
    }

    /// Whether getting in afterwards shows that it was a mistake.
    fn is_forgiven(self) -> bool {
        matches!(self, Self::WrongPassword | Self::WrongCode)
    }
}

/// When what follows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// A score is half of what it was after this time.
    pub half_life: Duration,
    pub throttle_at: f64,
    pub ban_at: f64,
    /// The first ban; each further one takes four times as long,
    pub ban_time: Duration,
    /// but no longer than this.
    pub longest_ban: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            half_life: Duration::from_mins(10),
            throttle_at: 60.0,
            ban_at: 100.0,
            ban_time: Duration::from_mins(10),
            longest_ban: Duration::from_hours(7 * 24),
        }
    }
}

impl Policy {
    /// How long the first ban takes, the second, and so on; the last stands for all that follow.
    pub fn ladder(&self) -> Vec<Duration> {
        let mut all = vec![self.ban_time.min(self.longest_ban)];
        while let Some(&last) = all.last().filter(|last| **last < self.longest_ban && !last.is_zero()) {
            all.push(last.saturating_mul(4).min(self.longest_ban));
        }
        all
    }
}

/// What follows of a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Clear,
    Throttled,
    Banned,
}

/// An address and how it stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    pub score: f64,
    pub standing: Standing,
}

/// The account that a request names, whether or not it is one: an e-mail, a number, a factor. Services say it of their answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account(pub String);

/// Points that another process is told of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Points {
    pub key: Key,
    pub event: Event,
    /// Less than nothing where they are taken back.
    pub points: f64,
}

/// The scores of addresses and accounts; see the module. Their room is fixed.
#[derive(Debug)]
pub struct Scores {
    scores: Bounded<Score>,
    untold: Mutex<Vec<Points>>,
}

#[derive(Debug, Clone, Copy)]
struct Score {
    points: [f64; Event::ALL.len()],
    at: Instant,
}

const ADDRESS: u8 = 1;
const ACCOUNT: u8 = 2;
const BOTH: u8 = 3;
/// What is told at a time; what is more is not told, and counts here.
const MOST_TOLD: usize = 8192;

impl Scores {
    /// Has room for about so many addresses and accounts.
    pub fn new(entries: usize) -> Self {
        Self { scores: Bounded::new(entries), untold: Mutex::default() }
    }

    /// Adds the event, and says how its address stands now.
    pub fn note(&self, event: Event, address: IpAddr, account: Option<&str>, policy: &Policy, now: Instant) -> Scored {
        let mut points = event.weight().0;
        if let Some(account) = account {
            let key = account_key(account);
            if self.total(key, policy, now) >= policy.throttle_at {
                points *= 2.0;
            }
            for key in [key, both_key(address, account)] {
                self.add(Points { key, event, points }, policy, now);
                self.tell(Points { key, event, points });
            }
        }
        let told = Points { key: address_key(address), event, points };
        self.tell(told);
        standing(self.add(told, policy, now), policy)
    }

    /// Somebody got in: what they failed at before is forgiven, for this account.
    pub fn forgive(&self, address: IpAddr, account: &str, policy: &Policy, now: Instant) {
        let both = both_key(address, account);
        for event in Event::ALL.into_iter().filter(|event| event.is_forgiven()) {
            let points = self.scores.look(both, |score| {
                score.decay(policy, now);
                std::mem::take(&mut score.points[event as usize])
            });
            let Some(points) = points.filter(|points| *points > 0.01) else { continue };
            self.tell(Points { key: both, event, points: -points });
            for key in [address_key(address), account_key(account)] {
                let back = Points { key, event, points: -points };
                self.add(back, policy, now);
                self.tell(back);
            }
        }
    }

    /// How an address stands.
    pub fn standing(&self, address: IpAddr, policy: &Policy, now: Instant) -> Scored {
        standing(self.total(address_key(address), policy, now), policy)
    }

    /// Forgets what an address did: it is banned for it now, or was pardoned.
    pub fn forget(&self, network: Network) {
        self.scores.forget(address_key(network.range().0));
    }

    /// What was added since it was asked last; what belongs together is added up.
    pub fn untold(&self) -> Vec<Points> {
        let mut all = std::mem::take(&mut *self.untold.lock().unwrap_or_else(PoisonError::into_inner));
        all.sort_by_key(|told| (told.key, told.event as usize));
        all.dedup_by(|next, first| {
            let same = (next.key, next.event) == (first.key, first.event);
            if same {
                first.points += next.points;
            }
            same
        });
        all
    }

    /// Adds what another process has told; says how the address stands, where it is one.
    pub fn hear(&self, told: Points, policy: &Policy, now: Instant) -> Option<(Network, Scored)> {
        if !told.points.is_finite() {
            return None;
        }
        let score = self.add(told, policy, now);
        Some((network_of(told.key)?, standing(score, policy)))
    }

    fn tell(&self, points: Points) {
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        if untold.len() < MOST_TOLD {
            untold.push(points);
        }
    }

    fn add(&self, told: Points, policy: &Policy, now: Instant) -> f64 {
        let new = || Score { points: [0.0; Event::ALL.len()], at: now };
        let worth = |score: &Score| score.total() * score.left(policy, now);
        self.scores.change(told.key, new, worth, |score| {
            score.decay(policy, now);
            let own = &mut score.points[told.event as usize];
            *own = (*own + told.points).clamp(0.0, told.event.weight().1.min(1e6));
            score.total()
        })
    }

    fn total(&self, key: Key, policy: &Policy, now: Instant) -> f64 {
        let total = self.scores.look(key, |score| {
            score.decay(policy, now);
            score.total()
        });
        total.unwrap_or(0.0)
    }
}

impl Score {
    fn total(&self) -> f64 {
        self.points.iter().sum()
    }

    /// What part is left of it now.
    fn left(&self, policy: &Policy, now: Instant) -> f64 {
        let halves = now.saturating_duration_since(self.at).as_secs_f64() / policy.half_life.as_secs_f64().max(1e-3);
        (-halves).exp2()
    }

    fn decay(&mut self, policy: &Policy, now: Instant) {
        let left = self.left(policy, now);
        self.points = self.points.map(|points| points * left);
        self.at = self.at.max(now);
    }
}

fn standing(score: f64, policy: &Policy) -> Scored {
    let standing = if score >= policy.ban_at {
        Standing::Banned
    } else if score >= policy.throttle_at {
        Standing::Throttled
    } else {
        Standing::Clear
    };
    Scored { score, standing }
}

/// Of an address, or of the /64 that it is in.
pub(crate) fn address_key(address: IpAddr) -> Key {
    let id = match Network::of_client(address).range().0 {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    Key { kind: ADDRESS, id }
}

fn network_of(key: Key) -> Option<Network> {
    (key.kind == ADDRESS).then(|| Network::of_client(std::net::Ipv6Addr::from_bits(key.id).into()))
}

fn account_key(account: &str) -> Key {
    Key { kind: ACCOUNT, id: short_hash(account.as_bytes()) }
}

fn both_key(address: IpAddr, account: &str) -> Key {
    Key { kind: BOTH, id: short_hash(account.as_bytes()) ^ address_key(address).id }
}

/// Half of a SHA-256: names of any length, as what is counted.
pub(crate) fn short_hash(text: &[u8]) -> u128 {
    let mut half = [0; 16];
    half.copy_from_slice(&digest(&SHA256, text).as_ref()[..16]);
    u128::from_be_bytes(half)
}

#[cfg(test)]
mod tests;
