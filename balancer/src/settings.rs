//! What a balancer is told. The defaults are what most want; `tiers` reads the rest from files, environment and flags.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::HeaderName;
use ntier_security::network::Network;

pub use crate::tls::Files;

/// Everything.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where clients connect to; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where operators ask; never for the network.
    pub admin: Place,
    /// TLS is spoken with it; without it HTTP is plain.
    pub tls: Option<Files>,
    /// Browsers are told to use nothing but TLS for so long; `None` tells nothing.
    pub hsts: Option<Duration>,
    /// Where plain HTTP is sent to TLS.
    pub redirect: Option<SocketAddr>,
    /// Trusted proxies begin each connection with the PROXY protocol.
    pub proxy_protocol: bool,
    /// Threads, each with its own listener and connections; `None` for one per processor.
    pub workers: Option<usize>,
    /// Backends that are always there, besides those that register themselves.
    pub backends: Vec<Origin>,
    pub choice: Choice,
    /// What [`Choice::Hash`] looks at.
    pub hash_by: HashBy,
    /// Proxies in front of this one, whose word about the client is believed.
    pub trusted_proxy: Vec<Network>,
    pub health: Health,
    pub ejection: Ejection,
    pub retries: Retries,
    pub times: Times,
    pub limits: Limits,
    /// One line of JSON for each request.
    pub access_log: AccessLog,
    /// A request's body; `None` for any size, as backends have limits of their own.
    pub body_bytes: Option<u64>,
    /// Bytes in a second that a client has to send of a body, once [`Times::body_pause`] was waited for.
    pub body_rate: u64,
    /// For so long a backend that has come gets less than its share.
    pub slow_start: Duration,
    /// Between two look-ups of the names of backends.
    pub resolve: Duration,
}

/// Where one listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(out, "http://{address}"),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

/// A backend as an operator names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub host: Host,
    pub port: u16,
    /// Its share, beside those of the others.
    pub weight: u32,
}

/// An address, or a name that has some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Address(IpAddr),
    Name(String),
}

/// The heaviest a backend may be: shares are dealt from a table.
pub const MOST_WEIGHT: u32 = 256;

impl FromStr for Origin {
    type Err = String;

    /// `10.0.0.1:54321`, `http://node:54321`, `[::1]:54321;weight=3`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected a backend such as http://10.0.0.1:54321;weight=2, found {text:?}");
        let (place, option) = text.trim().split_once(';').map_or((text.trim(), None), |(a, b)| (a, Some(b)));
        let weight = match option.map(|option| option.trim().strip_prefix("weight=").map(str::parse)) {
            None => 1,
            Some(Some(Ok(weight))) if (1..=MOST_WEIGHT).contains(&weight) => weight,
            Some(_) => return Err(wrong()),
        };
        let place = place.trim().strip_prefix("http://").unwrap_or(place.trim()).trim_end_matches('/');
        if let Ok(address) = place.parse::<SocketAddr>() {
            return Ok(Self { host: Host::Address(address.ip()), port: address.port(), weight });
        }
        let (name, port) = place.rsplit_once(':').ok_or_else(wrong)?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if name.is_empty() || !name.chars().all(is_name) {
            return Err(wrong());
        }
        Ok(Self { host: Host::Name(name.to_owned()), port: port.parse().map_err(|_| wrong())?, weight })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(address) => SocketAddr::new(*address, self.port).fmt(out)?,
            Host::Name(name) => write!(out, "{name}:{}", self.port)?,
        }
        if self.weight == 1 { Ok(()) } else { write!(out, ";weight={}", self.weight) }
    }
}

/// Which backend answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Each in turn, by weight.
    RoundRobin,
    /// The one with the fewest requests under way; websockets go to the one with the fewest of them.
    LeastPending,
    /// Of two at random the one that answers sooner: its recent times, peaks first, times its requests under way. Websockets go to the one
    /// with the fewest.
    PeakEwma,
    /// The same one for the same key, as long as it is there.
    Hash,
}

impl Choice {
    pub const ALL: [(&'static str, Self); 4] = [
        ("ewma", Self::PeakEwma),
        ("round-robin", Self::RoundRobin),
        ("least-pending", Self::LeastPending),
        ("hash", Self::Hash),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, choice)| *choice == self).map_or("", |(name, _)| name)
    }
}

/// What requests have in common that go to the same backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashBy {
    Address,
    Path,
    /// A header's value; requests without it are spread.
    Header(HeaderName),
}

/// Asking backends how they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// `None`: nobody is asked.
    pub path: Option<String>,
    pub interval: Duration,
    pub timeout: Duration,
    /// Good answers in a row until one that was down is used again.
    pub rise: u32,
    /// Bad ones in a row until one is not used any more.
    pub fall: u32,
}

/// Leaving backends alone that fail requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// Failed requests in a row; 0 never ejects.
    pub failures: u32,
    /// The first time; doubled each time, up to the longest.
    pub first: Duration,
    pub longest: Duration,
    /// Of all backends, in percent: no more are ejected.
    pub share: u32,
}

/// Asking another backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// For one request.
    pub most: u32,
    /// Of all requests, in percent.
    pub budget: u32,
    /// A body up to this size is kept until it is answered, and may be sent again.
    pub body_bytes: usize,
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Until a backend takes a connection.
    pub connect: Duration,
    /// From the last byte of a request to the first of its answer.
    pub answer: Duration,
    /// Between two pieces of an answer's body.
    pub pause: Duration,
    /// A connection to a backend is kept so long for the next request. Shorter than the backend keeps it, so that it is not closed
    /// while a request is on its way.
    pub kept: Duration,
    /// From the first byte of a request to the last of its headers, and between two requests.
    pub header: Duration,
    /// Between two pieces of a request's body.
    pub body_pause: Duration,
    /// Until a client reads some of what it is sent.
    pub stall: Duration,
    /// New connections are taken for so long once the balancer is asked to end: whoever sends them has to notice that it is not ready.
    pub grace: Duration,
    /// Requests under way when the balancer is asked to end.
    pub drain: Duration,
    /// A tunnel (a websocket) in which nobody says anything.
    pub tunnel: Duration,
}

/// How many there may be at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of clients.
    pub connections: usize,
    /// Of them, from one address: of IPv6 from one /64.
    pub per_address: usize,
    /// Requests under way at one backend. Further ones go to others, or wait.
    pub pending: u32,
    /// Requests of one worker that wait for a place, and how long they do.
    pub waiting: u64,
    pub queue: Duration,
}

/// Where requests are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    Off,
    StandardError,
    File(PathBuf),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            admin: Place::Tcp(SocketAddr::from(([127, 0, 0, 1], 8001))),
            tls: None,
            hsts: Some(Duration::from_hours(24 * 365)),
            redirect: None,
            proxy_protocol: false,
            workers: None,
            backends: Vec::new(),
            choice: Choice::PeakEwma,
            hash_by: HashBy::Address,
            trusted_proxy: Vec::new(),
            health: Health {
                path: Some("/ready".into()),
                interval: Duration::from_secs(2),
                timeout: Duration::from_secs(2),
                rise: 2,
                fall: 2,
            },
            ejection: Ejection {
                failures: 5,
                first: Duration::from_secs(5),
                longest: Duration::from_mins(5),
                share: 50,
            },
            retries: Retries { most: 2, budget: 20, body_bytes: 64 << 10 },
            times: Times {
                connect: Duration::from_secs(2),
                answer: Duration::from_secs(65),
                pause: Duration::from_mins(1),
                kept: Duration::from_secs(5),
                header: Duration::from_secs(10),
                body_pause: Duration::from_secs(30),
                stall: Duration::from_secs(30),
                grace: Duration::ZERO,
                drain: Duration::from_secs(30),
                tunnel: Duration::from_hours(1),
            },
            limits: Limits {
                connections: 20_000,
                per_address: 2000,
                pending: 1000,
                waiting: 1000,
                queue: Duration::from_secs(1),
            },
            access_log: AccessLog::Off,
            body_bytes: None,
            body_rate: 1000,
            slow_start: Duration::from_secs(10),
            resolve: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_named_by_address_or_name() {
        for (text, expected) in [
            ("10.0.0.1:54321", Some("10.0.0.1:54321")),
            (" http://10.0.0.1:54321/ ", Some("10.0.0.1:54321")),
            ("http://node-1.internal:80;weight=3", Some("node-1.internal:80;weight=3")),
            ("[::1]:80", Some("[::1]:80")),
            ("https://10.0.0.1:443", None),
            ("10.0.0.1", None),
            ("10.0.0.1:99999", None),
            ("node:80;weight=0", None),
            ("node:80;weight=257", None),
            ("node:80;heavy", None),
            ("no de:80", None),
            ("", None),
        ] {
            let found = text.parse::<Origin>().ok().map(|origin| origin.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }
}
