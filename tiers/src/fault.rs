//! What is wrong in a configuration: where it was read, and what to do. All faults of a start are told together.

use std::fmt;
use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub severity: Severity,
    pub place: Place,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works, but not everything that is written there has an effect yet.
    Note,
    /// Probably a mistake; it has no effect.
    Warning,
    /// Nothing starts with it.
    Error,
}

/// Where something was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    File {
        path: PathBuf,
        line: usize,
    },
    Environment(String),
    Flag(String),
    /// A setting that the database holds.
    Database(String),
    /// The settings as a whole.
    Together,
}

impl Fault {
    pub fn error(place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, place, message: message.into() }
    }

    pub fn warning(place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, place, message: message.into() }
    }

    pub fn note(place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Note, place, message: message.into() }
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        match &self.place {
            Place::File { path, line } => write!(out, "{severity}: {}:{line}: ", path.display())?,
            Place::Environment(name) => write!(out, "{severity}: environment {name}: ")?,
            Place::Database(name) => write!(out, "{severity}: {name} in the database: ")?,
            Place::Flag(name) => write!(out, "{severity}: --{name}: ")?,
            Place::Together => write!(out, "{severity}: ")?,
        }
        out.write_str(&self.message)
    }
}
