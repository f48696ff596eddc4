//! Why a request is not done.

use ntier_backing::database;
use ntier_protocol::auth::error as wire;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's fault, in the words of the dialect.
    #[error(transparent)]
    Refused(#[from] wire::Error),
    /// Likewise in the words of OAuth.
    #[error(transparent)]
    OAuth(#[from] wire::OAuthError),
    #[error("the database refused: {0}")]
    Database(#[from] database::Error),
    /// Something of that name is there already; nothing was done.
    #[error("{0}")]
    Taken(String),
    /// What was decided upon has changed meanwhile; nothing was done.
    #[error("{0} has changed meanwhile")]
    Changed(String),
    #[error("the database's answer is incomplete")]
    Incomplete,
    #[error("a password could not be hashed")]
    Hashing,
    #[error("a token could not be signed")]
    Signing,
    #[error("the system's random numbers are not available")]
    Random,
}

impl Error {
    /// A refusal by `ntier.expect`, and one by a unique index, are told apart.
    pub fn of(error: database::Error) -> Self {
        match error {
            database::Error::Refused(refusal) if refusal.code == "NT001" => Self::Changed(refusal.message),
            database::Error::Refused(refusal) if refusal.code == "23505" => Self::Taken(refusal.message),
            other => Self::Database(other),
        }
    }
}
