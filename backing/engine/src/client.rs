//! One client of the socket: its buffers, and what its session needs when it gets its turn.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::session::{Prepared, Saved};
use crate::turn::{self, Fault, Named, Next};

/// A client that does not read its answers is let go at this many unread bytes.
const MAX_UNREAD: usize = 1 << 30;

/// The application name by which a node says that its requests leave no session state behind.
pub const NODE: &str = "ntier node";

pub struct Client {
    pub id: u32,
    pub stream: UnixStream,
    pub input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    pub phase: Phase,
    /// A node: its batches set everything for one transaction only, so nothing is taken out between turns.
    pub is_node: bool,
    /// What this client was given at its start and has `SET`, put back when its turn comes.
    pub saved: Saved,
    pub prepared: Prepared,
    pub channels: BTreeSet<String>,
    /// What its SQL has named so far.
    pub named: Named,
    /// LISTEN or UNLISTEN has run in a transaction that goes on.
    pub has_listened: bool,
    /// When it was last served, heard or written to.
    pub last_turn: Instant,
    pub gone: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before the startup packet.
    Startup,
    Ready,
    /// A `COPY … FROM STDIN` was announced; its rows are being collected.
    Copying,
}

impl Client {
    pub fn new(id: u32, stream: UnixStream) -> Self {
        Self {
            id,
            stream,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            phase: Phase::Startup,
            is_node: false,
            saved: Saved::default(),
            prepared: Prepared::new(),
            channels: BTreeSet::new(),
            named: Named::default(),
            has_listened: false,
            last_turn: Instant::now(),
            gone: false,
        }
    }

    /// Reads what is there without waiting.
    pub fn fill(&mut self) {
        let mut chunk = [0_u8; 16 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    self.gone = true;
                    return;
                }
                Ok(read) => {
                    self.last_turn = Instant::now();
                    self.input.extend_from_slice(&chunk[..read]);
                    if read < chunk.len() {
                        return;
                    }
                }
                Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
    }

    /// Queues an answer and writes as much as the socket takes; the rest goes when it is writable.
    pub fn send(&mut self, bytes: &[u8]) {
        if self.output.is_empty() {
            let sent = self.write(bytes);
            self.output.extend_from_slice(&bytes[sent..]);
        } else {
            self.output.extend_from_slice(bytes);
        }
        if self.output.len() - self.written > MAX_UNREAD {
            self.gone = true;
        }
    }

    /// The turn that its bytes begin with, once it is welcome; that of a COPY has the rows behind the statement.
    pub fn next(&self) -> Result<Next, Fault> {
        match (turn::next(&self.input)?, self.phase) {
            (Next::Turn(statement), Phase::Copying) => Ok(match turn::next_rows(&self.input[statement..])? {
                Next::Turn(rows) => Next::Turn(statement + rows),
                other => other,
            }),
            (next, _) => Ok(next),
        }
    }

    /// Whether it has asked for something that is not answered yet; a part of a question is none.
    pub fn waits(&self) -> bool {
        !self.gone && if self.phase == Phase::Startup { !self.input.is_empty() } else { self.next() != Ok(Next::Part) }
    }

    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    pub fn flush(&mut self) {
        let pending = std::mem::take(&mut self.output);
        let sent = self.write(&pending[self.written..]);
        self.written += sent;
        if sent > 0 {
            self.last_turn = Instant::now();
        }
        if self.written < pending.len() {
            self.output = pending;
        } else {
            self.written = 0;
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> usize {
        let mut sent = 0;
        while !bytes.is_empty() && !self.gone {
            match self.stream.write(bytes) {
                Ok(0) => self.gone = true,
                Ok(count) => {
                    sent += count;
                    bytes = &bytes[count..];
                }
                Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.gone = true,
            }
        }
        sent
    }
}
