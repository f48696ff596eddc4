//! PostgreSQL in a process: opens a data directory and serves the wire protocol on a unix socket.
//!
//! The engine (`oliphaunt-wasix`) is one PostgreSQL session without a network. This crate gives it a
//! socket that several clients share turn by turn at transaction boundaries, and a life: it starts
//! when its parent asks, says `ready` on standard output, and ends when standard input ends, so it can
//! never outlive the node that needs it. It is run as a child process because a statement can only
//! be ended from outside: the parent kills the process, and the next one recovers from the log.
//!
//! What is absent: passwords (the socket is in a private directory), TLS, and cancel requests
//! (nothing listens while a statement runs).

mod client;
mod frame;
mod lock;
mod maintenance;
mod parent;
mod serve;
mod session;
mod turn;

use std::path::{Path, PathBuf};

pub use serve::serve;

/// The socket's name inside the data directory, as libpq expects it (`psql -h DIR`).
pub const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// What the child needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Holds the lock, the socket and the cluster; created with mode 0700.
    pub data: PathBuf,
    /// PostgreSQL's `shared_buffers`. The engine keeps it as private memory, so it counts in full;
    /// docs/decisions/0002-embedded-engine.md has the measurement.
    pub shared_buffers: String,
}

impl Options {
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into(), shared_buffers: "16MB".into() }
    }
}

/// Where the socket of a data directory is.
pub fn socket_path(data: &Path) -> PathBuf {
    data.join(SOCKET_NAME)
}

/// Why the engine could not start or go on.
#[derive(Debug)]
pub enum Error {
    /// Another process holds the data directory.
    Taken {
        data: PathBuf,
        holder: Option<String>,
    },
    Io {
        what: &'static str,
        path: PathBuf,
        cause: std::io::Error,
    },
    /// The cluster could not be opened.
    Open(String),
    /// The engine trapped; only a new process can go on.
    Trapped(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Taken { data, holder } => {
                write!(out, "the data directory {} is in use", data.display())?;
                match holder {
                    Some(holder) => write!(out, " by process {holder}"),
                    None => write!(out, " by another process"),
                }
            }
            Self::Io { what, path, cause } => {
                write!(out, "cannot {what} {}: {cause}", path.display())
            }
            Self::Open(cause) => write!(out, "cannot open the database: {cause}"),
            Self::Trapped(cause) => write!(out, "the database engine stopped: {cause}"),
        }
    }
}

impl std::error::Error for Error {}
