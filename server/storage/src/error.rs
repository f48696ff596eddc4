//! Why a request is not done.

use std::sync::Arc;

use ntier_backing::blobs;
use ntier_backing::database::{self, Refusal};
use ntier_protocol::storage::error::{Code, Error as Wire};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's fault, in the words of the dialect.
    #[error(transparent)]
    Refused(#[from] Wire),
    #[error("the database refused: {0}")]
    Database(#[from] database::Error),
    #[error("the blobs: {0}")]
    Blobs(#[from] blobs::Error),
    /// The client went away, or was too slow, before its request was whole.
    #[error("the request broke off: {0}")]
    Broken(String),
    #[error("the database's answer is incomplete")]
    Incomplete,
    #[error("a token could not be signed")]
    Signing,
    /// Of several requests that were done together.
    #[error(transparent)]
    Shared(#[from] Arc<Error>),
}

/// Why an answer is what it is, where that is no fault of the client: for the log alone. It travels with the response.
#[derive(Debug, Clone)]
pub struct Cause(pub String);

impl Error {
    /// What is not said of it.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Self::Refused(_) | Self::Broken(_) => None,
            Self::Shared(error) => error.cause(),
            // What the caller's statement came to has a code of its own.
            Self::Database(database::Error::Refused(refusal)) if refused(refusal).code.status() < 500 => None,
            Self::Database(_) | Self::Blobs(_) | Self::Incomplete | Self::Signing => Some(Cause(self.to_string())),
        }
    }

    /// What is said of it. The cause of what is not the caller's fault stays here.
    pub fn wire(&self) -> Wire {
        match self {
            Self::Refused(wire) => wire.clone(),
            Self::Shared(error) => error.wire(),
            Self::Database(database::Error::Refused(refusal)) => refused(refusal),
            Self::Database(database::Error::Deadline) => database_timeout(),
            Self::Database(
                database::Error::Lost(_) | database::Error::Unavailable(_) | database::Error::Overloaded,
            ) => Wire::new(Code::SlowDown, "The database cannot answer now"),
            Self::Blobs(blobs::Error::NoSpace(_)) => {
                Wire::new(Code::InsufficientStorage, "There is no space left for the object")
            }
            Self::Blobs(blobs::Error::Unreachable { .. }) => {
                Wire::new(Code::SlowDown, "The store of files cannot answer now")
            }
            // A row without a blob: somebody took it away outside of ntier.
            Self::Blobs(blobs::Error::Missing(_)) => Wire::no_such_key(),
            Self::Broken(cause) => Wire::new(Code::InvalidRequest, format!("The request broke off: {cause}")),
            Self::Blobs(_) | Self::Incomplete | Self::Signing => {
                Wire::new(Code::InternalError, "Internal Server Error")
            }
        }
    }
}

fn database_timeout() -> Wire {
    Wire::new(Code::DatabaseTimeout, "The connection to the database timed out")
}

/// Source: storage-api, `storage/database/errors.ts`.
fn refused(refusal: &Refusal) -> Wire {
    let message = &refusal.message;
    let detail = refusal.detail.as_deref().unwrap_or_default();
    match refusal.code.as_str() {
        "42501" if message.contains("row-level security") => {
            Wire::new(Code::AccessDenied, "new row violates row-level security policy")
        }
        "42501" => Wire::new(Code::AccessDenied, message.clone()),
        "23505" => Wire::already_exists(Code::ResourceAlreadyExists),
        "23503" if detail.contains("is still referenced from table \"objects\"") => {
            Wire::new(Code::ResourceNotEmpty, "The bucket you tried to delete is not empty")
        }
        "23503" if detail.contains("is still referenced from table") => Wire::new(
            Code::ResourceReferenced,
            "The bucket could not be updated because it is referenced by a pending multipart upload.",
        ),
        "23503" => Wire::new(Code::RelatedResourceNotFound, "The related resource does not exist"),
        "55P03" => Wire::new(Code::ResourceLocked, "The resource is locked"),
        "57014" => database_timeout(),
        "22P02" | "22001" | "22023" | "22021" | "22P05" => Wire::new(Code::InvalidParameter, message.clone()),
        // A trigger of the project has something to say.
        "P0001" => Wire::new(Code::InvalidRequest, message.clone()),
        "53400" => Wire::new(Code::EntityTooLarge, message.clone()),
        "53100" => Wire::new(Code::InsufficientStorage, "There is no space left for the object"),
        "53300" | "53200" | "40001" | "40P01" => Wire::new(Code::SlowDown, "The database cannot answer now"),
        code => Wire::new(Code::DatabaseError, format!("database error, code: {code}")),
    }
}
