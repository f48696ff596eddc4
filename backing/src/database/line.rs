//! A connection of one's own, for what a request never does: one script after the other in a session that keeps its settings, and rows
//! in bulk by COPY.
//!
//! Nothing is repeated here and nothing connects again: whoever moves data knows what was done and begins again by himself. A piece of
//! rows is whole in memory, so whoever asks says how large it may be.

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stream::Stream;
use super::url::Address;
use super::{Error, Rows, handshake, wire};

/// A session. After [`Error::Lost`] it is of no more use; after [`Error::Refused`] it goes on.
#[derive(Debug)]
pub struct Line {
    stream: Stream,
    input: BytesMut,
}

/// Bytes of one CopyData message, at most.
const PIECE: usize = 64 << 10;

impl Line {
    pub async fn connect(address: &Address) -> Result<Self, Error> {
        let ready = handshake::connect(address).await?;
        Ok(Self { stream: ready.stream, input: ready.buffer })
    }

    /// Runs a script by the simple protocol; a result for each statement.
    pub async fn run(&mut self, sql: &str) -> Result<Vec<Rows>, Error> {
        self.ask(sql).await?;
        let mut answer = Answer::default();
        while !self.answered(&mut answer).await? {}
        answer.end().map(|answer| answer.results)
    }

    /// What a `COPY … TO STDOUT` gives, in COPY's own text format.
    pub async fn read(&mut self, copy: &str) -> Result<Bytes, Error> {
        self.ask(copy).await?;
        let mut answer = Answer::default();
        while !self.answered(&mut answer).await? {}
        answer.end().map(|answer| answer.copied.freeze())
    }

    /// Gives these rows to a `COPY … FROM STDIN`; how many they are.
    pub async fn write(&mut self, copy: &str, rows: &[u8]) -> Result<u64, Error> {
        self.ask(copy).await?;
        let mut answer = Answer::default();
        loop {
            if self.answered(&mut answer).await? {
                // Refused before a row was wanted.
                return answer.end().map(|answer| answer.rows());
            }
            if std::mem::take(&mut answer.wants_rows) {
                break;
            }
        }
        let mut out = BytesMut::with_capacity(PIECE + 16);
        for piece in rows.chunks(PIECE) {
            wire::copy_data(&mut out, piece);
            self.send(&mut out).await?;
        }
        wire::copy_done(&mut out);
        self.send(&mut out).await?;
        while !self.answered(&mut answer).await? {}
        answer.end().map(|answer| answer.rows())
    }

    /// Says goodbye.
    pub async fn close(mut self) {
        let mut out = BytesMut::new();
        wire::terminate(&mut out);
        let _ = self.send(&mut out).await;
    }

    async fn ask(&mut self, sql: &str) -> Result<(), Error> {
        let mut out = BytesMut::with_capacity(sql.len() + 8);
        wire::query(&mut out, sql);
        self.send(&mut out).await
    }

    async fn send(&mut self, out: &mut BytesMut) -> Result<(), Error> {
        self.stream.write_all(out).await.map_err(|cause| lost(&cause))?;
        self.stream.flush().await.map_err(|cause| lost(&cause))?;
        out.clear();
        Ok(())
    }

    /// Takes the next message; true once the server is ready for the next question.
    async fn answered(&mut self, answer: &mut Answer) -> Result<bool, Error> {
        let message = loop {
            if let Some(message) = wire::next(&mut self.input).map_err(|_| lost(&"the stream is broken"))? {
                break message;
            }
            if self.stream.read_buf(&mut self.input).await.map_err(|cause| lost(&cause))? == 0 {
                return Err(match answer.refusal.take() {
                    // Its last words.
                    Some(refusal) => lost(&refusal.message),
                    None => lost(&"the database closed the connection"),
                });
            }
        };
        answer.take(&message)
    }
}

/// What has come of an answer.
#[derive(Debug, Default)]
struct Answer {
    results: Vec<Rows>,
    rows: Rows,
    copied: BytesMut,
    wants_rows: bool,
    refusal: Option<super::Refusal>,
}

impl Answer {
    fn take(&mut self, message: &wire::Message) -> Result<bool, Error> {
        match message.kind {
            b'T' => self.rows.columns = wire::columns(&message.body).ok_or_else(|| lost(&"unreadable columns"))?.into(),
            b'D' => {
                let row = wire::row(message.body.clone()).ok_or_else(|| lost(&"an unreadable row"))?;
                self.rows.rows.push(row);
            }
            b'd' => self.copied.put_slice(&message.body),
            b'G' => self.wants_rows = true,
            b'C' => {
                self.rows.tag = wire::text(&message.body);
                self.results.push(std::mem::take(&mut self.rows));
            }
            b'I' => self.results.push(std::mem::take(&mut self.rows)),
            b'E' => {
                let after = self.results.len();
                self.refusal = Some(super::Refusal { after, ..wire::refusal(&message.body) });
            }
            b'Z' => return Ok(true),
            _ => {}
        }
        Ok(false)
    }

    fn end(self) -> Result<Self, Error> {
        match self.refusal {
            Some(refusal) => Err(Error::Refused(Box::new(refusal))),
            None => Ok(self),
        }
    }

    /// As the tag says it: `COPY 3`.
    fn rows(&self) -> u64 {
        let tag = self.results.last().map(|rows| rows.tag.as_str()).unwrap_or_default();
        tag.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or_default()
    }
}

fn lost(cause: &dyn std::fmt::Display) -> Error {
    Error::Lost(cause.to_string())
}
