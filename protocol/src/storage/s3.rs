//! Amazon's S3 protocol, as far as Supabase's storage speaks it: aws-cli, boto3, rclone and the SDKs.
//!
//! A request goes through four readers, none of which knows a database or a socket: [`request`] says what is asked, [`signature`]
//! who signed it, [`intake`] unpacks and checks its body piece by piece, [`body`] reads the few bodies that are XML. [`answer`]
//! and [`error`] write the answers.
//!
//! Sources: Amazon S3 API Reference, "Authenticating Requests (AWS Signature Version 4)" and the pages of the operations;
//! storage-api, `src/http/routes/s3`, for what of it is there and what the errors are.

pub mod answer;
pub mod body;
pub mod checksum;
mod chunked;
mod encoding;
pub mod error;
mod instant;
pub mod intake;
pub mod request;
pub mod signature;
mod xml;

#[cfg(test)]
mod properties;

pub use error::{Code, Error};

/// A request as it came: what its signature covers.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    pub method: &'a str,
    /// As sent, percent-encoded, from the root of the host: what was signed.
    pub path: &'a str,
    /// As sent, without `?`.
    pub query: &'a str,
    /// Names in lower case, in the order in which they came.
    pub headers: &'a [(&'a str, &'a str)],
}

impl<'a> Parts<'a> {
    /// The first header of that name.
    fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
    }

    /// A header that has to be a number of bytes.
    fn length(&self, name: &'static str) -> Result<Option<u64>, Error> {
        let Some(text) = self.header(name) else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let length = text.parse().ok().filter(|_| digits);
        length.map(Some).ok_or_else(|| Error::new(Code::InvalidRequest, format!("{name} is no number of bytes")))
    }
}
