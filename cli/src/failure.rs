//! Why a command failed, for a person: what is wrong, one line each.

use std::fmt::Display;

use ntier::Fault;

#[derive(Debug)]
pub struct Failure(Vec<String>);

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self(vec![message.into()])
    }

    /// The faults of a configuration, which say themselves what they are.
    pub fn faults(faults: &[Fault]) -> Self {
        Self(faults.iter().map(ToString::to_string).collect())
    }

    pub fn tell(&self) {
        for message in &self.0 {
            let marked = ["error: ", "warning: ", "note: "].iter().any(|mark| message.starts_with(mark));
            eprintln!("{}{message}", if marked { "" } else { "error: " });
        }
    }
}

impl<E: Display> From<E> for Failure {
    fn from(cause: E) -> Self {
        Self::new(cause.to_string())
    }
}
