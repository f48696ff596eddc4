//! An answer's body on its way to the client, and what is counted when it has come to its end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};

use crate::access::Line;
use crate::backend::Backend;
use crate::decode::{Decoder, Piece};
use crate::exchange::Exchange;
use crate::plan::{Plan, Seat};
use crate::streams;
use crate::upload::Upload;
use crate::worker::Worker;

/// A body.
#[derive(Debug)]
pub enum Outbound {
    Whole(Option<Bytes>),
    Stream(Box<Download>),
    Watched(Arc<streams::Stream>),
}

impl Outbound {
    pub fn whole(body: Bytes) -> Self {
        Self::Whole(Some(body).filter(|body| !body.is_empty()))
    }

    pub fn stream(mut download: Download) -> Self {
        if download.decoder.is_done() {
            // Nothing to come: the connection is free already.
            drop(download);
            return Self::Whole(None);
        }
        match download.at_hand() {
            Some(body) => Self::whole(body),
            None => Self::Stream(Box::new(download)),
        }
    }
}

impl http_body::Body for Outbound {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Stream(download) => download.poll_frame(context),
            Self::Watched(stream) => stream.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_none(),
            Self::Stream(download) => download.exchange.is_none(),
            Self::Watched(stream) => stream.ask(Self::is_end_stream).unwrap_or_default(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(download) => match download.decoder {
                Decoder::Done => SizeHint::with_exact(0),
                Decoder::Length(length) => SizeHint::with_exact(length),
                Decoder::Chunked(_) | Decoder::UntilClose => SizeHint::default(),
            },
            Self::Watched(stream) => stream.ask(Self::size_hint).unwrap_or_default(),
        }
    }
}

/// A request under way at a backend.
#[derive(Debug)]
pub struct Ticket {
    plan: Arc<Plan>,
    at: usize,
    worker: Arc<Worker>,
}

impl Ticket {
    /// `None` where the backend has as many as it takes: other workers send it requests too, since it was chosen.
    pub fn take(plan: &Arc<Plan>, at: usize, worker: &Arc<Worker>) -> Option<Self> {
        let pending = &plan.seats[at].backend.pending;
        if pending.fetch_add(1, Relaxed) >= plan.settings.limits.pending {
            pending.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Self { plan: plan.clone(), at, worker: worker.clone() })
    }

    /// Which seat of the plan.
    pub fn at(&self) -> usize {
        self.at
    }

    pub fn seat(&self) -> &Seat {
        &self.plan.seats[self.at]
    }

    pub fn backend(&self) -> &Arc<Backend> {
        &self.seat().backend
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.backend().pending.fetch_sub(1, Relaxed);
        if self.worker.counts.waiting.get() > 0 {
            self.worker.freed.notify_one();
        }
    }
}

/// What is told of a request at its end, where anybody wants to know.
#[derive(Debug)]
pub struct Account {
    worker: Arc<Worker>,
    begun: Instant,
    line: Option<Box<Line>>,
}

impl Account {
    pub fn new(worker: &Arc<Worker>, begun: Instant, line: impl FnOnce() -> Line) -> Self {
        let line = worker.access.is_on().then(|| Box::new(line()));
        Self { worker: worker.clone(), begun, line }
    }

    pub fn asks(&mut self, backend: &str) {
        if let Some(line) = &mut self.line {
            line.backend = Some(backend.to_owned());
            line.attempts += 1;
        }
    }

    /// The head is there since this moment; how long it took.
    pub fn answered(&mut self, status: StatusCode, code: Option<&'static str>, at: Instant) -> Duration {
        let took = at.saturating_duration_since(self.begun);
        if let Some(line) = &mut self.line {
            (line.status, line.code, line.first_byte) = (status.as_u16(), code, took);
        }
        took
    }

    pub fn sent(&mut self, bytes: usize) {
        if let Some(line) = &mut self.line {
            line.sent += bytes as u64;
        }
    }

    pub fn received(&mut self, bytes: u64) {
        if let Some(line) = &mut self.line {
            line.received = bytes;
        }
    }

    pub fn end(&mut self, whole: bool) {
        if let Some(mut line) = self.line.take() {
            (line.took, line.whole) = (self.begun.elapsed(), whole);
            self.worker.access.tell(*line);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.end(false);
    }
}

/// A body that passes through.
#[derive(Debug)]
pub struct Download {
    worker: Arc<Worker>,
    pause: Duration,
    /// `None` at the end.
    exchange: Option<Exchange>,
    /// The request's, where it is not sent yet.
    upload: Option<Upload>,
    decoder: Decoder,
    keeps: bool,
    ticket: Ticket,
    account: Account,
    bytes: u64,
    /// Of the request's body, before this.
    received: u64,
}

impl Download {
    #[expect(clippy::too_many_arguments, reason = "all that an answer has")]
    pub fn new(
        worker: &Arc<Worker>,
        plan: &Plan,
        exchange: Exchange,
        upload: Upload,
        decoder: Decoder,
        keeps: bool,
        ticket: Ticket,
        account: Account,
    ) -> Self {
        let pause = plan.settings.times.pause;
        let received = upload.bytes();
        let upload = (!exchange.is_sent()).then_some(upload);
        let worker = worker.clone();
        let mut download = Self {
            worker,
            pause,
            exchange: Some(exchange),
            upload,
            decoder,
            keeps,
            ticket,
            account,
            bytes: 0,
            received,
        };
        if decoder.is_done() {
            download.finish();
        }
        download
    }

    /// The whole body, where it was read with the head: its place at the backend is free before the client takes it.
    fn at_hand(&mut self) -> Option<Bytes> {
        let exchange = self.exchange.as_mut().filter(|exchange| exchange.is_sent())?;
        let Decoder::Length(length) = self.decoder else { return None };
        if (exchange.link.read.len() as u64) < length {
            return None;
        }
        let Ok(Piece::Data(data)) = self.decoder.next(&mut exchange.link.read) else { return None };
        self.bytes += data.len() as u64;
        self.account.sent(data.len());
        self.finish();
        Some(data)
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(None) };
        let piece = exchange.poll_piece(context, self.upload.as_mut(), &mut self.decoder, self.pause);
        match ready!(piece) {
            Ok(Piece::Data(data)) => {
                self.bytes += data.len() as u64;
                self.account.sent(data.len());
                if self.decoder.is_done() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Ok(Piece::Trailers(trailers)) => {
                self.finish();
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Ok(Piece::End | Piece::Nothing) => {
                self.finish();
                Poll::Ready(None)
            }
            Err(cause) => {
                self.exchange = None;
                self.worker.lane(self.ticket.backend()).figures.failures.add(1);
                Poll::Ready(Some(Err(cause)))
            }
        }
    }

    /// The answer is whole: its connection may take another request, if this one is whole too.
    fn finish(&mut self) {
        let Some(mut exchange) = self.exchange.take() else { return };
        let lane = self.worker.lane(self.ticket.backend());
        let received = self.upload.as_ref().map_or(self.received, Upload::bytes);
        self.account.received(received);
        self.account.end(true);
        lane.figures.sent.add(self.bytes);
        lane.figures.received.add(received);
        let is_clean = exchange.is_sent() && exchange.link.read.is_empty();
        self.upload = None;
        if self.keeps && is_clean {
            exchange.link.is_reused = true;
            exchange.link.rested = Instant::now();
            lane.give(exchange.link);
        }
    }
}
