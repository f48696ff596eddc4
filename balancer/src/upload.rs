//! A request's body on its way to a backend: piece by piece, as fast as the backend reads it and no slower than a pace.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use crate::head::Framing;

/// What the rest of a body may cost whose request is answered already: a client that is still sending reads no answer.
const LINGER_BYTES: usize = 32 << 20;
const LINGER: Duration = Duration::from_secs(10);

/// What is wrong with the client's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientFault {
    #[error("the client went away")]
    Gone,
    #[error("the client sends too slowly")]
    Slow,
    #[error("the client's body is too large")]
    TooLarge,
}

/// What may be asked of a body.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Kept until it is answered, so that it can be sent again.
    pub kept: usize,
    /// Larger ones are refused; `None` for any size.
    pub most: Option<u64>,
    /// Bytes in a second, once `pause` was waited for.
    pub rate: u64,
    pub pause: Duration,
}

/// One body.
#[derive(Debug)]
pub struct Upload {
    /// `None` at its end.
    body: Option<Incoming>,
    pub framing: Framing,
    bounds: Bounds,
    /// What was taken, as long as it can be kept.
    kept: Option<Vec<Part>>,
    kept_bytes: usize,
    /// Of what is kept, how much was given out in this attempt.
    given: usize,
    bytes: u64,
    waited: Duration,
    waiting_since: Option<Instant>,
    /// The client waits to be told to send it (RFC 9110, 10.1.1): it is asked for only when the backend asks.
    pub is_held: bool,
}

#[derive(Debug, Clone)]
pub enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Upload {
    pub fn new(body: Incoming, expects_continue: bool, bounds: Bounds) -> Self {
        let mut upload = Self::none(bounds);
        if !body.is_end_stream() {
            upload.framing = body.size_hint().exact().map_or(Framing::Chunked, Framing::Length);
            (upload.body, upload.is_held) = (Some(body), expects_continue);
        }
        upload
    }

    /// One that was read already.
    pub fn whole(data: Bytes, bounds: Bounds) -> Self {
        let mut upload = Self::none(bounds);
        if !data.is_empty() {
            (upload.kept_bytes, upload.bytes) = (data.len(), data.len() as u64);
            upload.framing = Framing::Length(upload.bytes);
            upload.kept = Some(vec![Part::Data(data)]);
        }
        upload
    }

    fn none(bounds: Bounds) -> Self {
        Self {
            body: None,
            framing: Framing::Empty,
            bounds,
            kept: Some(Vec::new()),
            kept_bytes: 0,
            given: 0,
            bytes: 0,
            waited: Duration::ZERO,
            waiting_since: None,
            is_held: false,
        }
    }

    /// What is said of its size is too much already.
    pub fn is_too_large(&self) -> bool {
        matches!(self.framing, Framing::Length(length) if self.bounds.most.is_some_and(|most| length > most))
    }

    /// Whether all that was taken can be given again.
    pub fn is_whole(&self) -> bool {
        self.kept.is_some()
    }

    /// It is given from its beginning.
    pub fn rewind(&mut self) {
        self.given = 0;
    }

    /// Waits for the client now.
    pub fn waits(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// The next part; `None` at its end.
    pub fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Part>, ClientFault>> {
        if let Some(part) = self.kept.as_ref().and_then(|kept| kept.get(self.given)) {
            self.given += 1;
            return Poll::Ready(Ok(Some(part.clone())));
        }
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(None)) };
        let frame = match Pin::new(&mut *body).poll_frame(context) {
            Poll::Pending => {
                self.waiting_since.get_or_insert_with(Instant::now);
                return Poll::Pending;
            }
            Poll::Ready(frame) => frame,
        };
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
        let part = match frame {
            None => {
                self.body = None;
                return Poll::Ready(Ok(None));
            }
            Some(Err(_)) => {
                self.body = None;
                return Poll::Ready(Err(ClientFault::Gone));
            }
            Some(Ok(frame)) => {
                if body.is_end_stream() {
                    self.body = None;
                }
                match frame.into_data() {
                    Ok(data) => Part::Data(data),
                    Err(frame) => Part::Trailers(frame.into_trailers().unwrap_or_default()),
                }
            }
        };
        Poll::Ready(self.count(&part).map(|()| Some(part)))
    }

    fn count(&mut self, part: &Part) -> Result<(), ClientFault> {
        let length = match part {
            Part::Data(data) => data.len(),
            Part::Trailers(_) => 0,
        };
        self.bytes += length as u64;
        if self.bounds.most.is_some_and(|most| self.bytes > most) {
            return Err(ClientFault::TooLarge);
        }
        // Only time that the client took counts: a backend may read slowly.
        if self.waited > self.bounds.pause && self.bytes < self.bounds.rate.saturating_mul(self.waited.as_secs()) {
            return Err(ClientFault::Slow);
        }
        self.kept_bytes += length;
        if self.kept_bytes > self.bounds.kept {
            self.kept = None;
        } else if let Some(kept) = &mut self.kept {
            kept.push(part.clone());
            self.given = kept.len();
        }
        Ok(())
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Upload {
    /// Whoever is answered early is read on for a while, so that the answer is seen; then the connection ends.
    fn drop(&mut self) {
        let Some(mut body) = self.body.take().filter(|_| !self.is_held) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(timeout(LINGER, async move {
            let mut left = LINGER_BYTES;
            while let Some(Ok(frame)) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
                match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        }));
    }
}
