//! What happened, as values; how it is shown is decided here. Headers, bodies and query strings are never part of it.

use std::time::Duration;

/// Something worth telling an operator.
#[derive(Debug)]
pub enum Observation<'a> {
    Answered {
        method: &'a str,
        path: &'a str,
        status: u16,
        /// Why, where that is no fault of whoever asked and not said to them.
        cause: Option<&'a str>,
        took: Duration,
    },
    SchemaReloaded {
        took: Duration,
    },
    SchemaNotReloaded {
        cause: &'a str,
    },
    KeysExchanged {
        signing: &'a str,
    },
    KeysNotRead {
        cause: &'a str,
    },
    ConnectionFailed {
        cause: &'a str,
    },
    MailNotSent {
        cause: &'a str,
    },
    /// Blobs that no row named, and uploads that had not come to their end.
    BlobsSwept {
        removed: usize,
        unfinished: usize,
    },
    BlobsNotSwept {
        cause: &'a str,
    },
    /// Other nodes cannot be reached: their clients do not hear ours.
    BusAway {
        cause: &'a str,
    },
    /// So many messages to them were lost since the start.
    BusBack {
        lost: u64,
    },
    Banned {
        network: &'a str,
        reason: &'a str,
        seconds: u64,
    },
    /// A dry run.
    WouldBan {
        network: &'a str,
        reason: &'a str,
    },
    DefenceFailed {
        cause: &'a str,
    },
}

impl Observation<'_> {
    /// All is well; it is only told.
    fn is_news(&self) -> bool {
        use Observation::{Banned, BlobsSwept, BusBack, KeysExchanged, SchemaReloaded, WouldBan};
        matches!(
            self,
            SchemaReloaded { .. }
                | KeysExchanged { .. }
                | BlobsSwept { .. }
                | BusBack { .. }
                | Banned { .. }
                | WouldBan { .. }
        )
    }
}

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Log {
    /// Only that it starts and ends, and what it cannot do by itself.
    Nothing,
    /// Answers of 500 and above, and news.
    #[default]
    Faults,
    /// Requests that were refused too.
    Refusals,
    /// Each request too.
    Requests,
}

impl Log {
    /// Writes one line to standard error, if it is to be shown.
    pub fn observe(self, observation: &Observation<'_>) {
        if self == Self::Nothing && observation.is_news() {
            return;
        }
        match observation {
            Observation::Answered { method, path, status, cause, took } => {
                let shown = match status {
                    500.. => Self::Faults,
                    400.. => Self::Refusals,
                    _ => Self::Requests,
                };
                if self >= shown {
                    let (took, colon) = (took.as_secs_f64() * 1000.0, if cause.is_some() { ": " } else { "" });
                    let cause = cause.unwrap_or_default();
                    eprintln!(
                        "{method} {path} answered {status} http.status={status} duration_ms={took:.2}{colon}{cause}"
                    );
                }
            }
            Observation::SchemaReloaded { took } => {
                eprintln!("schema reloaded duration_ms={:.1}", took.as_secs_f64() * 1000.0);
            }
            Observation::MailNotSent { cause } => eprintln!("an e-mail was not sent, and goes again later: {cause}"),
            Observation::BlobsSwept { removed, unfinished } => {
                eprintln!("blobs without a name removed blobs.removed={removed} blobs.unfinished={unfinished}");
            }
            Observation::BlobsNotSwept { cause } => eprintln!("blobs not swept: {cause}"),
            Observation::BusAway { cause } => eprintln!("other nodes cannot be reached: {cause}"),
            Observation::BusBack { lost } => eprintln!("other nodes can be reached again bus.lost={lost}"),
            Observation::Banned { network, reason, seconds } => {
                eprintln!("banned {network} for {seconds} s: ban.reason={reason}");
            }
            Observation::WouldBan { network, reason } => eprintln!("would ban {network}: ban.reason={reason}"),
            Observation::DefenceFailed { cause } => eprintln!("{cause}"),
            Observation::SchemaNotReloaded { cause } => eprintln!("schema not reloaded: {cause}"),
            Observation::KeysExchanged { signing } => eprintln!("keys exchanged key.id={signing}"),
            Observation::KeysNotRead { cause } => eprintln!("keys not exchanged: {cause}"),
            Observation::ConnectionFailed { cause } => {
                if self >= Self::Requests {
                    eprintln!("connection ended: {cause}");
                }
            }
        }
    }
}
