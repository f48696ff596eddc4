//! One request on one connection to a backend: the request is written while the answer is read, in the task of the client's connection.
//! No other task is woken and nothing is queued between the two, so either side is as slow as the other makes it.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Method, StatusCode};

use crate::decode::{self, Decoder, Head, Piece};
use crate::link::Link;
use crate::settings::Times;
use crate::upload::{ClientFault, Upload};

/// How long a backend may think before it asks for a body that the client holds back. Some never ask.
const HELD: Duration = Duration::from_secs(1);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// There are no more file descriptors or ports here, which is not the backend's fault.
    #[error("no connection can be made from here: {0}")]
    Own(io::Error),
    /// Not a byte of an answer came.
    #[error("closed without an answer: {cause}")]
    Unanswered {
        cause: io::Error,
        /// The connection had answered before: it may have been closed while it was idle.
        was_reused: bool,
    },
    #[error("ended within the head of its answer: {0}")]
    Broken(io::Error),
    #[error("{0}")]
    Malformed(#[from] decode::Fault),
    #[error("no answer within the time")]
    Late,
    #[error("{0}")]
    Client(#[from] ClientFault),
}

/// A request on its way.
#[derive(Debug)]
pub struct Exchange {
    pub link: Box<Link>,
    /// The whole request is with the connection.
    is_gathered: bool,
    /// The backend reads no more: it may have answered already.
    is_deaf: bool,
}

impl Exchange {
    /// The head was written to the connection's buffer; the body follows.
    pub fn new(link: Box<Link>) -> Self {
        Self { link, is_gathered: false, is_deaf: false }
    }

    /// Sends all of the request that can be sent and waits for the head of the answer.
    pub async fn answer(&mut self, upload: &mut Upload, method: &Method, times: &Times) -> Result<Head, Failure> {
        poll_fn(|context| self.poll_answer(context, upload, method, times)).await
    }

    fn poll_answer(
        &mut self,
        context: &mut Context<'_>,
        upload: &mut Upload,
        method: &Method,
        times: &Times,
    ) -> Poll<Result<Head, Failure>> {
        loop {
            if let Poll::Ready(Err(fault)) = self.poll_send(context, upload) {
                return Poll::Ready(Err(fault.into()));
            }
            match self.link.poll_read(context) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.ended(io::ErrorKind::UnexpectedEof.into()))),
                Poll::Ready(Err(cause)) => return Poll::Ready(Err(self.ended(cause))),
                Poll::Ready(Ok(_)) => {
                    if let Some(head) = self.head(upload, method)? {
                        return Poll::Ready(Ok(head));
                    }
                    continue;
                }
                Poll::Pending => {}
            }
            let within = match (upload.is_held, upload.waits() && !self.is_gathered) {
                (true, _) => HELD,
                (false, true) => times.body_pause,
                (false, false) => times.answer,
            };
            ready!(self.link.late.poll(context, within));
            self.link.late.restart();
            if upload.is_held {
                upload.is_held = false;
            } else if upload.waits() && !self.is_gathered {
                return Poll::Ready(Err(ClientFault::Slow.into()));
            } else {
                return Poll::Ready(Err(Failure::Late));
            }
        }
    }

    /// The head, if it is whole. What a backend says before it, such as that it is at work, is for this connection only.
    fn head(&mut self, upload: &mut Upload, method: &Method) -> Result<Option<Head>, Failure> {
        while let Some(head) = decode::head(&mut self.link.read, method)? {
            match head.status {
                StatusCode::CONTINUE => upload.is_held = false,
                status if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS => {}
                _ => return Ok(Some(head)),
            }
        }
        Ok(None)
    }

    fn ended(&self, cause: io::Error) -> Failure {
        if self.link.read.is_empty() {
            Failure::Unanswered { cause, was_reused: self.link.is_reused }
        } else {
            Failure::Broken(cause)
        }
    }

    /// Writes what there is of the request. Ready when all of it is written, or when nothing more can be.
    pub fn poll_send(&mut self, context: &mut Context<'_>, upload: &mut Upload) -> Poll<Result<(), ClientFault>> {
        loop {
            if self.is_deaf || (self.is_gathered && self.link.write.is_empty()) {
                return Poll::Ready(Ok(()));
            }
            let gathered = self.poll_gather(context, upload)?;
            if self.link.write.is_empty() && gathered.is_pending() {
                return Poll::Pending;
            }
            if let Err(_cause) = ready!(self.link.poll_write(context)) {
                // It may have answered before it closed; what it says is read.
                self.is_deaf = true;
            }
        }
    }

    /// Takes of the body what can be written at once.
    fn poll_gather(&mut self, context: &mut Context<'_>, upload: &mut Upload) -> Poll<Result<(), ClientFault>> {
        while !self.is_gathered && self.link.write.has_room() {
            if upload.is_held {
                return Poll::Pending;
            }
            let part = ready!(upload.poll_part(context))?;
            self.link.late.restart();
            self.is_gathered = self.link.write.put(part, upload.framing);
        }
        Poll::Ready(Ok(()))
    }

    /// The whole request was written.
    pub fn is_sent(&self) -> bool {
        self.is_gathered && !self.is_deaf && self.link.write.is_empty()
    }

    /// The next piece of the answer's body; what is left of the request's is sent meanwhile.
    pub fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
        upload: Option<&mut Upload>,
        decoder: &mut Decoder,
        pause: Duration,
    ) -> Poll<io::Result<Piece>> {
        if let Some(upload) = upload
            && let Poll::Ready(Err(fault)) = self.poll_send(context, upload)
        {
            return Poll::Ready(Err(io::Error::other(fault)));
        }
        loop {
            match decoder.next(&mut self.link.read).map_err(io::Error::other)? {
                Piece::Nothing => {}
                piece => return Poll::Ready(Ok(piece)),
            }
            match self.link.poll_read(context) {
                Poll::Ready(Ok(0)) if *decoder == Decoder::UntilClose => {
                    *decoder = Decoder::Done;
                    return Poll::Ready(Ok(Piece::End));
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(read) => drop(read?),
                Poll::Pending => {
                    ready!(self.link.late.poll(context, pause));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
    }
}
