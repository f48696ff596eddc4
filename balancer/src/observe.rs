//! What happened, as values; how it is shown is decided here. Headers, bodies and query strings are never part of it.

use std::net::SocketAddr;
use std::time::Duration;

/// Something worth telling an operator.
#[derive(Debug)]
pub enum Observation<'a> {
    Up {
        backend: &'a str,
    },
    Down {
        backend: &'a str,
        cause: &'a str,
    },
    Ejected {
        backend: &'a str,
        time: Duration,
        cause: &'a str,
    },
    Came {
        backend: &'a str,
    },
    Went {
        backend: &'a str,
    },
    /// A name of a backend cannot be resolved; what was known of it stays.
    Unresolved {
        name: &'a str,
        cause: &'a str,
    },
    /// A request got no answer from its backend.
    Failed {
        backend: &'a str,
        cause: &'a str,
        again: bool,
    },
    ConnectionFailed {
        cause: &'a str,
    },
    /// The balancer itself cannot make another connection.
    Exhausted {
        cause: &'a str,
    },
    /// A socket was handed down of which the settings say nothing.
    Unused {
        place: SocketAddr,
    },
    Reloaded,
    CertificateRead,
    /// The one before stays in use.
    CertificateNotRead {
        cause: &'a str,
    },
    /// Lines of the access log that could not be written.
    LinesLost {
        count: u64,
    },
}

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Observe {
    Nothing,
    /// What changes, and what someone should act on.
    #[default]
    Changes,
    /// Connections that fail too.
    Everything,
}

impl Observe {
    /// Writes one line to standard error, if it is to be shown.
    pub fn tell(self, observation: &Observation<'_>) {
        if self == Self::Nothing {
            return;
        }
        match observation {
            Observation::Up { backend } => eprintln!("backend is up backend={backend}"),
            Observation::Down { backend, cause } => eprintln!("backend is down backend={backend}: {cause}"),
            Observation::Ejected { backend, time, cause } => {
                eprintln!("backend left alone for {} s backend={backend}: {cause}", time.as_secs());
            }
            Observation::Came { backend } => eprintln!("backend has come backend={backend}"),
            Observation::Went { backend } => eprintln!("backend has gone backend={backend}"),
            Observation::Unresolved { name, cause } => eprintln!("backends not looked up host={name}: {cause}"),
            Observation::Failed { backend, cause, again } => {
                let again = if *again { ", goes again" } else { "" };
                eprintln!("request not answered{again} backend={backend}: {cause}");
            }
            Observation::Exhausted { cause } => eprintln!("no more connections can be made: {cause}"),
            Observation::Unused { place } => {
                eprintln!(
                    "a socket that was handed down is closed, as neither listen nor redirect is there address={place}"
                );
            }
            Observation::CertificateRead => eprintln!("certificate read"),
            Observation::CertificateNotRead { cause } => eprintln!("certificate not read: {cause}"),
            Observation::Reloaded => eprintln!("settings reloaded"),
            Observation::LinesLost { count } => eprintln!("access log: lines lost log.lost={count}"),
            Observation::ConnectionFailed { cause } => {
                if self >= Self::Everything {
                    eprintln!("connection ended: {cause}");
                }
            }
        }
    }
}
