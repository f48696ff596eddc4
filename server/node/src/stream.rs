//! Bodies that pass through instead of being held: in with a limit on their pace, out as fast as the client reads.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use ntier_storage::Body;
use tokio::time::{Instant, Sleep};

use crate::sendfile::{Blob, Spans};
use crate::target::Boundary;

/// What the rest of a request may cost whose answer is decided already: a client that is still sending reads no answer.
const LINGER_BYTES: usize = 32 << 20;
const LINGER: Duration = Duration::from_secs(10);

/// How slow a body may be (checklist H1).
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two pieces.
    pub pause: Duration,
    /// Bytes in a second, over the whole of it, once a pause has passed.
    pub rate: u64,
}

/// Whether a client still waits to be told to send its body (RFC 9110, 10.1.1). One that is answered instead sends none: what comes next
/// on its connection would be taken for it. Where there is no body it is answered at once too, and botocore then misreads the next
/// answer. So such a connection ends.
#[derive(Debug, Clone)]
pub struct Expectation(Arc<AtomicBool>);

impl Expectation {
    pub fn of(headers: &HeaderMap) -> Self {
        Self(Arc::new(AtomicBool::new(headers.contains_key(header::EXPECT))))
    }

    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The body is asked for, and so the client told.
    fn met(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A request's body on its way in.
pub struct Inbound {
    /// `None` once it is at its end.
    incoming: Option<Incoming>,
    boundary: Boundary,
    expectation: Expectation,
    pace: Pace,
    begun: Instant,
    bytes: u64,
    late: Pin<Box<Sleep>>,
}

impl Inbound {
    pub fn new(incoming: Incoming, boundary: Boundary, expectation: Expectation, pace: Pace) -> Self {
        let late = Box::pin(tokio::time::sleep(pace.pause));
        let incoming = if incoming.is_end_stream() {
            boundary.reached();
            None
        } else {
            Some(incoming)
        };
        Self { incoming, boundary, expectation, pace, begun: Instant::now(), bytes: 0, late }
    }

    fn is_slow(&self) -> bool {
        let took = self.begun.elapsed();
        took > self.pace.pause && self.bytes < self.pace.rate.saturating_mul(took.as_secs())
    }
}

impl http_body::Body for Inbound {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        this.expectation.met();
        let frame = match Pin::new(incoming).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(this.late.as_mut().poll(context));
                let late = io::Error::new(io::ErrorKind::TimedOut, "its body took too long");
                return Poll::Ready(Some(Err(late)));
            }
        };
        match frame {
            None => {
                this.incoming = None;
                this.boundary.reached();
                Poll::Ready(None)
            }
            Some(Err(cause)) => Poll::Ready(Some(Err(io::Error::other(cause)))),
            Some(Ok(frame)) => {
                this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if this.is_slow() {
                    return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, "its body is too slow"))));
                }
                this.late.as_mut().reset(Instant::now() + this.pace.pause);
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

impl Drop for Inbound {
    /// Whoever is refused early is read on for a while, so that the refusal is seen; then the connection ends. Where the next request
    /// begins is not said: it may have come with the rest of this one.
    fn drop(&mut self) {
        let Some(mut incoming) = self.incoming.take() else { return };
        if self.expectation.is_open() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(tokio::time::timeout(LINGER, async move {
            let mut left = LINGER_BYTES;
            while let Some(Ok(frame)) = incoming.frame().await {
                let length = frame.data_ref().map_or(0, Bytes::len);
                match left.checked_sub(length) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        }));
    }
}

/// A response's body.
pub enum Outbound {
    Whole(Full<Bytes>),
    Stream(Body),
    Blob(Blob),
}

impl Outbound {
    /// A body that passes through, on a connection that sends files.
    pub fn new(body: Body, spans: Spans) -> Self {
        match body {
            Body::Blob(reader) => Self::Blob(Blob { reader: *reader, spans }),
            body => Self::Stream(body),
        }
    }
}

impl http_body::Body for Outbound {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Self::Stream(body) => Pin::new(body).poll_frame(context),
            Self::Blob(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Stream(body) => body.is_end_stream(),
            Self::Blob(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Stream(body) => body.size_hint(),
            Self::Blob(body) => body.size_hint(),
        }
    }
}
