//! What is to be written on a connection of HTTP/1.1: heads and small pieces of bodies are gathered, large ones go as they are.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use crate::decode::concerns_one_connection;
use crate::head::{Framing, line};
use crate::upload::Part;

/// Pieces of a body up to this size are copied behind what is written already, so that they leave in one packet.
const COPIED: usize = 4 << 10;

#[derive(Debug, Default)]
pub struct Outbox {
    /// Is written first,
    pub gathered: BytesMut,
    /// then this,
    chunk: Bytes,
    /// then this.
    tail: &'static [u8],
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.gathered.is_empty() && self.chunk.is_empty() && self.tail.is_empty()
    }

    /// Another part may be put in.
    pub fn has_room(&self) -> bool {
        self.chunk.is_empty() && self.tail.is_empty() && self.gathered.len() < COPIED
    }

    /// Puts a part of a body in, or its end. True at the end.
    pub fn put(&mut self, part: Option<Part>, framing: Framing) -> bool {
        let gathered = &mut self.gathered;
        match (part, framing) {
            (Some(Part::Data(data)), _) if data.is_empty() => {}
            (Some(Part::Data(data)), Framing::Chunked) => {
                gathered.put_slice(format!("{:x}\r\n", data.len()).as_bytes());
                self.data(data, b"\r\n");
            }
            (Some(Part::Data(data)), _) => self.data(data, b""),
            (Some(Part::Trailers(trailers)), Framing::Chunked) => {
                gathered.put_slice(b"0\r\n");
                for (name, value) in &trailers {
                    if !concerns_one_connection(name.as_str()) {
                        line(gathered, name.as_str().as_bytes(), value.as_bytes());
                    }
                }
                gathered.put_slice(b"\r\n");
                return true;
            }
            (None, Framing::Chunked) => {
                gathered.put_slice(b"0\r\n\r\n");
                return true;
            }
            // Where a length was said there is no place for trailers.
            (Some(Part::Trailers(_)) | None, _) => return true,
        }
        false
    }

    fn data(&mut self, data: Bytes, tail: &'static [u8]) {
        if data.len() <= COPIED {
            self.gathered.put_slice(&data);
            self.gathered.put_slice(tail);
        } else {
            self.chunk = data;
            self.tail = tail;
        }
    }

    /// Writes all of it; `written` is told each time that some was.
    pub fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut S,
        mut written: impl FnMut(),
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let to = Pin::new(&mut *stream);
            let polled = if self.chunk.is_empty() && self.tail.is_empty() {
                // The kernel takes one piece for less than a list of one.
                to.poll_write(context, &self.gathered)
            } else {
                let parts = [IoSlice::new(&self.gathered), IoSlice::new(&self.chunk), IoSlice::new(self.tail)];
                to.poll_write_vectored(context, &parts)
            };
            let length = match ready!(polled)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                length => length,
            };
            written();
            let first = length.min(self.gathered.len());
            if first == self.gathered.len() {
                // The next one is gathered at the same place.
                self.gathered.clear();
            } else {
                self.gathered.advance(first);
            }
            let second = (length - first).min(self.chunk.len());
            self.chunk.advance(second);
            self.tail = &self.tail[length - first - second..];
        }
        Poll::Ready(Ok(()))
    }
}
