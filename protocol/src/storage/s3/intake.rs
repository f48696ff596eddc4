//! The body of an upload, unpacked and checked while it comes: its chunks, its length, its hash and its checksum.

use aws_lc_rs::digest;
use bytes::Bytes;

use super::checksum::{Algorithm, Running};
use super::chunked::Decoder;
use super::signature::{Chain, Payload, Signed};
use super::{Code, Error, Parts};

/// Takes a body in pieces, and gives what is to be stored.
pub struct Intake {
    /// What is to be stored will be as long, as the client says; `None` where it does not (and is not chunked).
    pub length: Option<u64>,
    taken: u64,
    chunks: Option<Decoder>,
    /// What the signature says of the whole.
    hash: Option<(digest::Context, [u8; 32])>,
    checksum: Option<Checksum>,
}

struct Checksum {
    algorithm: Algorithm,
    running: Running,
    /// `None` where it comes behind the body.
    expected: Option<String>,
}

impl Intake {
    /// From the headers of a request whose signature holds.
    pub fn new(parts: &Parts<'_>, signed: &Signed, chain: Chain) -> Result<Self, Error> {
        let (mut chunks, mut hash) = (None, None);
        let mut length = parts.length("content-length")?;
        match signed.payload {
            Payload::Unsigned => {}
            Payload::Whole(expected) => hash = Some((digest::Context::new(&digest::SHA256), expected)),
            Payload::Chunked { signed, trailer } => {
                let decoded = parts.length("x-amz-decoded-content-length")?.ok_or(Code::MissingContentLength)?;
                length = Some(decoded);
                chunks = Some(Decoder::new(decoded, trailer, signed.then_some(chain)));
            }
        }
        Ok(Self { length, taken: 0, chunks, hash, checksum: checksum(parts)? })
    }

    /// Leaves a checksum in the headers alone, where it is not that of this body.
    pub fn without_checksum(self) -> Self {
        Self { checksum: None, ..self }
    }

    /// Takes from `input`, and gives a piece of what is to be stored; `None` when the input is used up.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, Error> {
        let piece = match &mut self.chunks {
            Some(chunks) => chunks.next(input)?,
            None => (!input.is_empty()).then(|| input.split_to(input.len())),
        };
        if let Some(piece) = &piece {
            self.taken += piece.len() as u64;
            if let Some((context, _)) = &mut self.hash {
                context.update(piece);
            }
            if let Some(checksum) = &mut self.checksum {
                checksum.running.update(piece);
            }
        }
        Ok(piece)
    }

    /// Everything has come: whether it is what was announced. Gives the checksum that was checked.
    pub fn finish(self) -> Result<Option<(Algorithm, String)>, Error> {
        let trailer = self.chunks.map(Decoder::finish).transpose()?.unwrap_or_default();
        if self.length.is_some_and(|length| length != self.taken) {
            return Err(Code::IncompleteBody.into());
        }
        if self.hash.is_some_and(|(context, expected)| context.finish().as_ref() != expected) {
            return Err(Code::XAmzContentSHA256Mismatch.into());
        }
        self.checksum.map(|checksum| checksum.finish(&trailer)).transpose()
    }
}

impl Checksum {
    fn finish(self, trailer: &[(String, String)]) -> Result<(Algorithm, String), Error> {
        let Self { algorithm, running, expected } = self;
        let behind = || trailer.iter().find(|(name, _)| name == algorithm.header()).map(|(_, value)| value.clone());
        let expected = expected.or_else(behind).ok_or_else(|| invalid(algorithm))?;
        if !algorithm.fits(&expected) {
            return Err(invalid(algorithm));
        }
        let found = running.finish();
        if found == expected { Ok((algorithm, found)) } else { Err(Code::BadDigest.into()) }
    }
}

/// The one that the client sends, or says that it will.
fn checksum(parts: &Parts<'_>) -> Result<Option<Checksum>, Error> {
    let announced = parts.headers.iter().filter(|(name, _)| *name == "x-amz-trailer");
    let behind = announced.flat_map(|(_, value)| value.split(',')).filter_map(|name| Algorithm::of_header(name.trim()));
    let before = parts.headers.iter().filter_map(|(name, value)| Some((Algorithm::of_header(name)?, Some(*value))));
    let mut all = before.chain(behind.map(|algorithm| (algorithm, None)));
    let Some((algorithm, expected)) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(Error::new(Code::InvalidRequest, "Expecting a single x-amz-checksum- header"));
    }
    if expected.is_some_and(|expected| !algorithm.fits(expected)) {
        return Err(invalid(algorithm));
    }
    Ok(Some(Checksum { algorithm, running: Running::new(algorithm), expected: expected.map(str::to_owned) }))
}

fn invalid(algorithm: Algorithm) -> Error {
    Error::new(Code::InvalidRequest, format!("Value for {} header is invalid.", algorithm.header()))
}

#[cfg(test)]
mod tests;
