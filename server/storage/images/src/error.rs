//! Why a picture cannot be made. All but [`Error::Encode`] are the file's or the caller's fault, and trying again does not help.

use image::ImageError;

use crate::format::Source;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this is no picture that is known here")]
    Unknown,
    #[error("{0:?} is not read here")]
    Unsupported(Source),
    /// The format is read, but not this way of it.
    #[error("this kind of {format:?} is not read here: {what}")]
    UnsupportedKind { format: Source, what: String },
    #[error("the file has {bytes} bytes, more than {limit_bytes}")]
    TooManyBytes { bytes: u64, limit_bytes: u64 },
    #[error("the picture has {width} × {height} pixels, more than {limit}")]
    TooManyPixels { width: u32, height: u32, limit: u64 },
    #[error("the picture needs {needed_bytes} bytes of memory, more than {limit_bytes}")]
    TooMuchMemory { needed_bytes: u64, limit_bytes: u64 },
    #[error("the picture is broken")]
    Broken(#[source] Option<ImageError>),
    /// Ours.
    #[error("the picture cannot be written")]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    pub(crate) fn encode(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Encode(cause.into())
    }
}
