//! Settings of the balancer: a part of the table, for it is long.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ntier_balancer::settings::{AccessLog, Choice, HashBy, Place};

use super::definitions::Definition;
use super::definitions::Kind::{Boolean, Path, Value};
use super::value::{self, Read, expected};

/// The balancer's part.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Balance {
    /// Without the place for operators, which may depend on the data directory.
    pub service: ntier_balancer::Settings,
    /// `None` for a socket in the data directory.
    pub admin: Option<Place>,
    /// Both, or neither.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub acme: Acme,
}

/// Certificates of an authority (RFC 8555).
#[derive(Debug, Clone, PartialEq)]
pub struct Acme {
    /// In lower case; none asks for none.
    pub domains: Vec<String>,
    pub directory: String,
    pub contact: Option<String>,
    pub terms_agreed: bool,
    pub challenge: Challenge,
    /// Who is believed to be the authority, instead of whom this machine believes.
    pub ca: Option<PathBuf>,
}

/// How it is shown whose a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// RFC 8555, 8.3: over plain HTTP, at port 80.
    Http,
    /// RFC 8737: in a handshake, at port 443.
    TlsAlpn,
}

impl Challenge {
    /// As the RFCs call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http-01",
            Self::TlsAlpn => "tls-alpn-01",
        }
    }
}

impl Default for Acme {
    fn default() -> Self {
        Self {
            domains: Vec::new(),
            directory: LETS_ENCRYPT.into(),
            contact: None,
            terms_agreed: false,
            challenge: Challenge::TlsAlpn,
            ca: None,
        }
    }
}

const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

macro_rules! duration {
    ($name:literal, $default:literal, $doc:literal, $($field:ident).+) => {
        Definition {
            name: $name,
            kind: Value("TIME"),
            default: $default,
            doc: $doc,
            set: |settings, text| {
                let _: () = settings.balance.service.$($field).+ = value::duration(text)?;
                Ok(())
            },
        }
    };
}

macro_rules! count {
    ($name:literal, $default:literal, $least:literal, $doc:literal, $($field:ident).+) => {
        Definition {
            name: $name,
            kind: Value("COUNT"),
            default: $default,
            doc: $doc,
            set: |settings, text| {
                let _: () = settings.balance.service.$($field).+ = value::count(text, $least)?;
                Ok(())
            },
        }
    };
}

/// In the order of the reference.
pub(super) const DEFINITIONS: &[Definition] = &[
    Definition {
        name: "balance.listen",
        kind: Value("ADDR:PORT"),
        default: "127.0.0.1:8000",
        doc: "Where `ntier balance` answers HTTP/1.1 and HTTP/2; port 0 picks a free one",
        set: |settings, text| {
            let _: () = settings.balance.service.listen = address(text)?;
            Ok(())
        },
    },
    Definition {
        name: "balance.admin",
        kind: Value("PLACE"),
        default: "balance.sock in the data directory",
        doc: "Where operators ask it for /status, /metrics, /live and /ready: an address and a port, or unix:PATH; never for the network",
        set: |settings, text| {
            let _: () = settings.balance.admin = Some(place(text)?);
            Ok(())
        },
    },
    Definition {
        name: "balance.tls_certificate",
        kind: Path("FILE"),
        default: "none",
        doc: "TLS: the certificate and those that vouch for it, as PEM; read again when it changes",
        set: |settings, text| {
            let _: () = settings.balance.certificate = Some(text.into());
            Ok(())
        },
    },
    Definition {
        name: "balance.tls_key",
        kind: Path("FILE"),
        default: "none",
        doc: "Its private key, as PEM",
        set: |settings, text| {
            let _: () = settings.balance.key = Some(text.into());
            Ok(())
        },
    },
    Definition {
        name: "balance.acme.domains",
        kind: Value("NAME,…"),
        default: "none",
        doc: "TLS: names for which certificates are obtained from an authority (ACME), one for each, and renewed; all balancers of a database share them",
        set: |settings, text| {
            let domains: Result<Vec<_>, String> = value::names(text)?.iter().map(|name| domain(name)).collect();
            let _: () = settings.balance.acme.domains = domains?;
            Ok(())
        },
    },
    Definition {
        name: "balance.acme.terms_agreed",
        kind: Boolean,
        default: "false",
        doc: "You agree to the authority's terms of service; without that it issues nothing",
        set: |settings, text| {
            let _: () = settings.balance.acme.terms_agreed = value::boolean(text)?;
            Ok(())
        },
    },
    Definition {
        name: "balance.acme.contact",
        kind: Value("ADDRESS"),
        default: "none",
        doc: "An e-mail address that the authority may write to",
        set: |settings, text| {
            let is_address = text.split_once('@').is_some_and(|(name, host)| !name.is_empty() && domain(host).is_ok());
            if !is_address || text.contains(char::is_whitespace) {
                return Err(expected("an e-mail address", text));
            }
            settings.balance.acme.contact = Some(text.to_owned());
            Ok(())
        },
    },
    Definition {
        name: "balance.acme.challenge",
        kind: Value("WAY"),
        default: "tls-alpn-01",
        doc: "How it is shown whose the names are: tls-alpn-01 (at port 443), or http-01 (at port 80, where balance.redirect listens)",
        set: |settings, text| {
            let all = [Challenge::TlsAlpn, Challenge::Http];
            let challenge = all.into_iter().find(|challenge| challenge.name() == text);
            let _: () =
                settings.balance.acme.challenge = challenge.ok_or_else(|| expected("tls-alpn-01 or http-01", text))?;
            Ok(())
        },
    },
    Definition {
        name: "balance.acme.directory",
        kind: Value("URL"),
        default: LETS_ENCRYPT,
        doc: "The authority's directory",
        set: |settings, text| {
            if !text.starts_with("https://") || text.parse::<http::Uri>().is_err() {
                return Err(expected("a URL that begins with https://", text));
            }
            text.clone_into(&mut settings.balance.acme.directory);
            Ok(())
        },
    },
    Definition {
        name: "balance.acme.ca",
        kind: Path("FILE"),
        default: "those that this machine believes",
        doc: "Who vouches for the authority's own address, as PEM: for one of your own",
        set: |settings, text| {
            let _: () = settings.balance.acme.ca = Some(text.into());
            Ok(())
        },
    },
    Definition {
        name: "balance.hsts",
        kind: Value("TIME"),
        default: "8760h",
        doc: "For so long browsers use nothing but TLS, once they came by it; none does not say so",
        set: |settings, text| {
            let time = if text == "none" { None } else { Some(value::duration(text)?) };
            let _: () = settings.balance.service.hsts = time;
            Ok(())
        },
    },
    Definition {
        name: "balance.redirect",
        kind: Value("ADDR:PORT"),
        default: "none",
        doc: "Where plain HTTP is answered with a redirect to TLS, such as 0.0.0.0:80",
        set: |settings, text| {
            let _: () = settings.balance.service.redirect = Some(address(text)?);
            Ok(())
        },
    },
    Definition {
        name: "balance.proxy_protocol",
        kind: Boolean,
        default: "false",
        doc: "Trusted proxies begin each connection with the PROXY protocol, version 1 or 2",
        set: |settings, text| {
            let _: () = settings.balance.service.proxy_protocol = value::boolean(text)?;
            Ok(())
        },
    },
    Definition {
        name: "balance.backends",
        kind: Value("ADDR:PORT,…"),
        default: "none",
        doc: "Nodes it asks: addresses, or names, of which each address is a node; 10.0.0.1:54321;weight=2 gets twice as much",
        set: |settings, text| {
            let backends: Result<Vec<_>, String> = value::names(text)?.iter().map(|name| name.parse()).collect();
            let _: () = settings.balance.service.backends = backends?;
            Ok(())
        },
    },
    Definition {
        name: "balance.choice",
        kind: Value("WAY"),
        default: "ewma",
        doc: "Which node is asked: ewma (of two at random the one that answers sooner), least-pending, round-robin, hash (the same for the same key)",
        set: |settings, text| {
            let choice = Choice::ALL.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
            let choice = choice.ok_or_else(|| expected("ewma, least-pending, round-robin or hash", text))?;
            let _: () = settings.balance.service.choice = choice;
            Ok(())
        },
    },
    Definition {
        name: "balance.hash_by",
        kind: Value("KEY"),
        default: "address",
        doc: "The key of hash: address (the client's), path, or header:NAME",
        set: |settings, text| {
            let _: () = settings.balance.service.hash_by = hash_by(text)?;
            Ok(())
        },
    },
    Definition {
        name: "balance.trusted_proxy",
        kind: Value("ADDR,…"),
        default: "none",
        doc: "Proxies in front of the balancer, whose word about the client is believed",
        set: |settings, text| {
            let _: () = settings.balance.service.trusted_proxy = value::networks(text)?;
            Ok(())
        },
    },
    Definition {
        name: "balance.workers",
        kind: Value("COUNT"),
        default: "one for each processor",
        doc: "Threads, each with connections of its own",
        set: |settings, text| {
            let _: () = settings.balance.service.workers = Some(value::count(text, 1)?);
            Ok(())
        },
    },
    Definition {
        name: "balance.health_path",
        kind: Value("PATH"),
        default: "/ready",
        doc: "What each node is asked to know whether it is up; none asks nothing",
        set: |settings, text| {
            let path = Some(text.to_owned()).filter(|path| path != "none");
            if path.as_ref().is_some_and(|path| !path.starts_with('/') || path.contains(|c: char| c <= ' ')) {
                return Err(expected("a path such as /ready, or none", text));
            }
            settings.balance.service.health.path = path;
            Ok(())
        },
    },
    duration!("balance.health_interval", "2s", "Between two such questions", health.interval),
    duration!("balance.health_timeout", "2s", "How long a node may take to answer one", health.timeout),
    count!(
        "balance.health_rise",
        "2",
        1,
        "Good answers in a row until a node that was down is asked again",
        health.rise
    ),
    count!("balance.health_fall", "2", 1, "Bad ones in a row until a node is not asked any more", health.fall),
    count!(
        "balance.eject_after",
        "5",
        0,
        "Requests in a row that a node fails until it is left alone for a while; 0 for never",
        ejection.failures
    ),
    duration!("balance.eject_time", "5s", "How long at first; twice as long each further time", ejection.first),
    duration!("balance.eject_longest", "5min", "How long at most", ejection.longest),
    count!("balance.eject_share", "50", 0, "Of all nodes, in percent: no more are left alone at once", ejection.share),
    duration!("balance.slow_start", "10s", "For so long a node that has come gets less than its share", slow_start),
    duration!("balance.resolve_interval", "10s", "How often names of nodes are looked up again", resolve),
    count!(
        "balance.retries",
        "2",
        0,
        "How often a request may go to another node: one that is safe to repeat, and not answered yet",
        retries.most
    ),
    count!("balance.retry_budget", "20", 0, "Of all requests, in percent: no more go again", retries.budget),
    Definition {
        name: "balance.retry_body",
        kind: Value("SIZE"),
        default: "64kB",
        doc: "A larger body is not sent again",
        set: |settings, text| {
            let size = usize::try_from(value::bytes(text)?).map_err(|_| expected("a smaller size", text))?;
            let _: () = settings.balance.service.retries.body_bytes = size;
            Ok(())
        },
    },
    duration!("balance.connect_timeout", "2s", "How long a node may take to take a connection", times.connect),
    duration!("balance.timeout", "65s", "How long a node may take to begin its answer", times.answer),
    duration!("balance.pause", "1min", "Between two pieces of an answer", times.pause),
    duration!(
        "balance.keep",
        "5s",
        "How long a connection to a node is kept for the next request; shorter than the node keeps it (10s)",
        times.kept
    ),
    duration!("balance.header_timeout", "10s", "How long a client may take for the head of a request", times.header),
    duration!("balance.body_pause", "30s", "Between two pieces of a client's body", times.body_pause),
    Definition {
        name: "balance.body_rate",
        kind: Value("SIZE"),
        default: "1000",
        doc: "What a client has to send of a body in a second, once it was waited for",
        set: |settings, text| {
            let _: () = settings.balance.service.body_rate = value::bytes(text)?;
            Ok(())
        },
    },
    Definition {
        name: "balance.max_body",
        kind: Value("SIZE"),
        default: "as the nodes say",
        doc: "A larger body is refused at once",
        set: |settings, text| {
            let _: () = settings.balance.service.body_bytes = Some(value::bytes(text)?);
            Ok(())
        },
    },
    duration!("balance.stall", "30s", "Until a client reads some of what it is sent", times.stall),
    count!(
        "balance.max_connections",
        "20000",
        1,
        "Connections of clients; more are closed at once",
        limits.connections
    ),
    count!(
        "balance.max_connections_per_address",
        "2000",
        1,
        "Of them from one address, of IPv6 from one /64; proxies that are trusted may have more",
        limits.per_address
    ),
    count!(
        "balance.max_pending",
        "1000",
        1,
        "Requests under way at one node; further ones go to others, or wait",
        limits.pending
    ),
    count!(
        "balance.max_waiting",
        "1000",
        0,
        "Requests of a worker that wait; one more is answered with 503",
        limits.waiting
    ),
    duration!("balance.queue", "1s", "How long they wait", limits.queue),
    duration!("balance.tunnel", "1h", "How long a websocket may be silent", times.tunnel),
    Definition {
        name: "balance.grace",
        kind: Value("TIME"),
        default: "none",
        doc: "For so long it still takes new connections once it is asked to end, while /ready says that it ends",
        set: |settings, text| {
            let grace = if text == "none" { Duration::ZERO } else { value::duration(text)? };
            let _: () = settings.balance.service.times.grace = grace;
            Ok(())
        },
    },
    duration!(
        "balance.drain",
        "30s",
        "How long requests under way may take once the balancer is asked to end",
        times.drain
    ),
    Definition {
        name: "balance.access_log",
        kind: Value("WHERE"),
        default: "off",
        doc: "One line of JSON for each request: off, stderr, or a file, which SIGHUP opens again",
        set: |settings, text| {
            let log = match text {
                "off" => AccessLog::Off,
                "stderr" => AccessLog::StandardError,
                path => AccessLog::File(path.into()),
            };
            let _: () = settings.balance.service.access_log = log;
            Ok(())
        },
    },
];

/// A name of the DNS, in lower case (RFC 1035, 2.3.1), without a wildcard: that would have to be shown in the DNS itself.
fn domain(text: &str) -> Read<String> {
    let is_label = |label: &str| {
        let is_inside = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        is_inside && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    if text.len() > 253 || is_address || !text.split('.').all(is_label) {
        return Err(expected("a name such as shop.example, without a wildcard", text));
    }
    Ok(text.to_ascii_lowercase())
}

fn address(text: &str) -> Read<SocketAddr> {
    text.parse().map_err(|_| expected("an address and a port such as 127.0.0.1:8000", text))
}

fn place(text: &str) -> Read<Place> {
    match text.strip_prefix("unix:") {
        Some("") => Err(expected("a path after unix:", text)),
        Some(path) => Ok(Place::Unix(path.into())),
        None => Ok(Place::Tcp(address(text)?)),
    }
}

fn hash_by(text: &str) -> Read<HashBy> {
    let wrong = || expected("address, path or header:NAME", text);
    match text {
        "address" => Ok(HashBy::Address),
        "path" => Ok(HashBy::Path),
        _ => {
            let name = text.strip_prefix("header:").ok_or_else(wrong)?;
            Ok(HashBy::Header(name.parse().map_err(|_| wrong())?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Mode, Settings};

    #[test]
    fn what_is_said_of_the_balancer_is_read_or_refused() {
        for (name, text, is_good) in [
            ("balance.backends", "10.0.0.1:80;weight=2, node:80", true),
            ("balance.backends", "https://10.0.0.1", false),
            ("balance.choice", "hash", true),
            ("balance.choice", "random", false),
            ("balance.hash_by", "header:apikey", true),
            ("balance.hash_by", "header:", false),
            ("balance.hash_by", "cookie", false),
            ("balance.admin", "unix:/run/ntier/balance.sock", true),
            ("balance.admin", "unix:", false),
            ("balance.admin", "9901", false),
            ("balance.acme.domains", "shop.example, WWW.shop.example", true),
            ("balance.acme.domains", "*.shop.example", false),
            ("balance.acme.domains", "10.0.0.1", false),
            ("balance.acme.domains", "shop..example", false),
            ("balance.acme.directory", "https://ca.internal:14000/dir", true),
            ("balance.acme.directory", "http://ca.internal/dir", false),
            ("balance.acme.challenge", "http-01", true),
            ("balance.acme.challenge", "dns-01", false),
            ("balance.acme.contact", "ops@shop.example", true),
            ("balance.acme.contact", "mailto:", false),
            ("balance.health_path", "none", true),
            ("balance.health_path", "/a b", false),
            ("balance.health_path", "ready", false),
            ("balance.health_rise", "0", false),
        ] {
            let definition = Definition::find(name).unwrap();
            let mut settings = Settings::new(Mode::Serve);
            assert_eq!((definition.set)(&mut settings, text).is_ok(), is_good, "{name} = {text}");
        }
    }
}
