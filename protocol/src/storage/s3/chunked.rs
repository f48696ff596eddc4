//! `aws-chunked`: a body in chunks of its own, each perhaps signed, and headers behind the last of them.
//!
//! What is decoded is given on before its chunk's signature is known to hold: whoever stores it must not let it count before
//! [`Decoder::finish`].

use aws_lc_rs::digest;
use bytes::{Buf, Bytes};

use super::signature::Chain;
use super::{Code, Error};

/// A chunk's head is a size and a signature: 100 bytes. Amazon's clients send nothing else.
const LONGEST_LINE: usize = 1024;

/// All headers behind the body.
const LONGEST_TRAILER: usize = 8 * 1024;

#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    /// Of a line that has not come whole yet.
    line: Vec<u8>,
    /// Bytes of the body that may still come.
    body_left: u64,
    has_trailer: bool,
    trailer: Vec<(String, String)>,
    trailer_length: usize,
    signing: Option<Signing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// Bytes of the chunk that are still to come; not zero.
    Data(u64),
    /// The line end behind a chunk; `last` is an empty one.
    DataEnd {
        last: bool,
    },
    Trailer,
    Done,
}

struct Signing {
    chain: Chain,
    hash: digest::Context,
    /// Of the chunk that is being read.
    signature: String,
}

impl std::fmt::Debug for Signing {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Signing").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl Decoder {
    /// `length` is what the chunks have to come to; `chain` is there where they are signed.
    pub(super) fn new(length: u64, has_trailer: bool, chain: Option<Chain>) -> Self {
        let signing =
            chain.map(|chain| Signing { chain, hash: digest::Context::new(&digest::SHA256), signature: String::new() });
        let (trailer, line) = (Vec::new(), Vec::new());
        Self { state: State::Head, line, body_left: length, has_trailer, trailer, trailer_length: 0, signing }
    }

    /// Takes from `input` until there is a piece of the body; `None` when the input is used up.
    pub(super) fn next(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, Error> {
        while !input.is_empty() {
            match self.state {
                State::Data(left) => return self.data(input, left).map(Some),
                State::Done => return Err(bad("there is something behind the last chunk")),
                State::Head | State::DataEnd { .. } | State::Trailer => {
                    if let Some(line) = self.take_line(input)? {
                        self.line(&line)?;
                    }
                }
            }
        }
        Ok(None)
    }

    /// Everything has come. Gives the headers behind the body, names in lower case.
    pub(super) fn finish(self) -> Result<Vec<(String, String)>, Error> {
        match self.state {
            State::Done if self.body_left == 0 => Ok(self.trailer),
            _ => Err(Code::IncompleteBody.into()),
        }
    }

    fn data(&mut self, input: &mut Bytes, left: u64) -> Result<Bytes, Error> {
        let take = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
        let piece = input.split_to(take);
        if let Some(signing) = &mut self.signing {
            signing.hash.update(&piece);
        }
        let left = left - take as u64;
        if left > 0 {
            self.state = State::Data(left);
        } else {
            self.state = State::DataEnd { last: false };
            self.end_of_chunk()?;
        }
        Ok(piece)
    }

    fn end_of_chunk(&mut self) -> Result<(), Error> {
        let Some(signing) = &mut self.signing else { return Ok(()) };
        let hash = std::mem::replace(&mut signing.hash, digest::Context::new(&digest::SHA256)).finish();
        signing.chain.chunk(hash.as_ref(), &signing.signature)
    }

    /// Up to the line feed, without the line's end.
    fn take_line(&mut self, input: &mut Bytes) -> Result<Option<String>, Error> {
        let end = input.iter().position(|byte| *byte == b'\n');
        let piece = input.split_to(end.unwrap_or(input.len()));
        if self.line.len() + piece.len() > LONGEST_LINE {
            return Err(bad("a line is too long"));
        }
        self.line.extend_from_slice(&piece);
        if end.is_none() {
            return Ok(None);
        }
        input.advance(1);
        let mut line = std::mem::take(&mut self.line);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        String::from_utf8(line).map(Some).map_err(|_| bad("a line is no text"))
    }

    fn line(&mut self, line: &str) -> Result<(), Error> {
        match self.state {
            State::Head => self.head(line),
            State::DataEnd { last } if line.is_empty() => {
                self.state = if last { State::Done } else { State::Head };
                Ok(())
            }
            State::DataEnd { .. } => Err(bad("a chunk is longer than its head says")),
            State::Trailer => self.trailer(line),
            // `next` does not come here with these.
            State::Data(_) | State::Done => Ok(()),
        }
    }

    fn head(&mut self, line: &str) -> Result<(), Error> {
        let (size, extension) = line.split_once(';').unwrap_or((line, ""));
        let digits = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = u64::from_str_radix(size, 16).ok().filter(|_| digits).ok_or_else(|| bad("a chunk has no size"))?;
        if let Some(signing) = &mut self.signing {
            let signature = extension.strip_prefix("chunk-signature=").map(str::trim);
            signature.ok_or_else(|| bad("a chunk has no signature"))?.clone_into(&mut signing.signature);
        }
        // More than was announced: nothing of it is taken.
        self.body_left = self.body_left.checked_sub(size).ok_or(Code::IncompleteBody)?;
        if size > 0 {
            self.state = State::Data(size);
            return Ok(());
        }
        self.end_of_chunk()?;
        self.state = if self.has_trailer { State::Trailer } else { State::DataEnd { last: true } };
        Ok(())
    }

    fn trailer(&mut self, line: &str) -> Result<(), Error> {
        self.trailer_length += line.len();
        if self.trailer_length > LONGEST_TRAILER {
            return Err(bad("the trailer is too long"));
        }
        if !line.is_empty() {
            let (name, value) = line.split_once(':').ok_or_else(|| bad("the trailer has a line that is no header"))?;
            self.trailer.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            return Ok(());
        }
        if self.signing.is_none() {
            self.state = State::Done;
            return Ok(());
        }
        // Amazon's own example has an empty line before the signature.
        match self.trailer.iter().position(|(name, _)| name == "x-amz-trailer-signature") {
            None if !self.trailer.is_empty() && self.trailer_length < LONGEST_TRAILER => {
                self.trailer_length += 1;
                Ok(())
            }
            at => self.signed_trailer(at),
        }
    }

    fn signed_trailer(&mut self, at: Option<usize>) -> Result<(), Error> {
        let signature = at.map(|at| self.trailer.remove(at).1).ok_or_else(|| bad("the trailer has no signature"))?;
        let lines = self.trailer.iter().fold(String::new(), |lines, (name, value)| lines + name + ":" + value + "\n");
        if let Some(signing) = &mut self.signing {
            signing.chain.trailer(&lines, &signature)?;
        }
        self.state = State::Done;
        Ok(())
    }
}

fn bad(message: &'static str) -> Error {
    Error::new(Code::InvalidRequest, message)
}

#[cfg(test)]
mod tests;
