//! Bodies that stream, in and out: what is not asked for is neither read nor sent.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use ntier_backing::blobs::{self, BlobId, Blobs, Reader};
use ntier_protocol::storage::error::{Code, Error as Wire};

use crate::error::Error;
use crate::store::Part;

/// A body of a request or of a response.
#[derive(Debug)]
pub enum Body {
    Whole(Full<Bytes>),
    /// A range of one blob: whoever writes it to a socket may know a shorter way than these bytes.
    Blob(Box<Reader>),
    Other(UnsyncBoxBody<Bytes, io::Error>),
}

impl Body {
    pub fn new(body: impl http_body::Body<Data = Bytes, Error = io::Error> + Send + 'static) -> Self {
        Self::Other(body.boxed_unsync())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Self::Blob(body) => Pin::new(body).poll_frame(context),
            Self::Other(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Blob(body) => body.is_end_stream(),
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Blob(body) => body.size_hint(),
            Self::Other(body) => body.size_hint(),
        }
    }
}

/// Bytes of a body that is read whole: JSON.
const LARGEST: usize = 1 << 20;

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Body::Whole(Full::new(bytes.into()))
}

pub fn empty() -> Body {
    full(Bytes::new())
}

/// Reads a small body.
pub async fn whole(body: Body) -> Result<Bytes, Error> {
    let read = Limited::new(body, LARGEST).collect().await;
    read.map(http_body_util::Collected::to_bytes).map_err(|cause| match cause.downcast::<io::Error>() {
        Ok(cause) => Error::Broken(cause.to_string()),
        Err(_) => Wire::new(Code::EntityTooLarge, "The request body exceeded the maximum allowed size").into(),
    })
}

/// The next bytes of a body; `None` at its end.
pub async fn next(body: &mut Body) -> Result<Option<Bytes>, Error> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(cause)) => return Err(Error::Broken(cause.to_string())),
            // Trailers are nothing to us.
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

/// Likewise of what is ours: if it cannot be read, that is no fault of a client.
pub async fn own(body: &mut Body) -> Result<Option<Bytes>, Error> {
    next(body).await.map_err(|error| match error {
        Error::Broken(cause) => blobs::Error::Io(io::Error::other(cause)).into(),
        other => other,
    })
}

/// A piece of an answer.
#[derive(Debug)]
pub enum Segment {
    Text(Bytes),
    /// Bytes of a blob, which has so many in all.
    Blob {
        id: BlobId,
        range: Range<u64>,
        size_bytes: u64,
    },
}

impl Segment {
    fn len(&self) -> u64 {
        match self {
            Self::Text(bytes) => bytes.len() as u64,
            Self::Blob { range, .. } => range.end - range.start,
        }
    }
}

/// The segments of a range of an object, which is this one blob where it has no parts.
pub fn segments(whole: Part, parts: &[Part], range: Range<u64>) -> Vec<Segment> {
    if parts.is_empty() {
        return vec![Segment::Blob { id: whole.blob, range, size_bytes: whole.size_bytes }];
    }
    let mut begin = 0;
    let mut segments = Vec::new();
    for part in parts {
        let end = begin + part.size_bytes;
        let (from, to) = (range.start.max(begin), range.end.min(end));
        if from < to {
            let range = from - begin..to - begin;
            segments.push(Segment::Blob { id: part.blob, range, size_bytes: part.size_bytes });
        }
        begin = end;
    }
    segments
}

/// Segments, one after the other; the first blob is open already, so that one that is missing is found before the answer begins.
pub async fn stream(blobs: &Blobs, segments: Vec<Segment>) -> Result<Body, Error> {
    let mut rest: VecDeque<Segment> = segments.into();
    let left = rest.iter().map(Segment::len).sum();
    let mut current = None;
    if let Some(Segment::Blob { id, range, .. }) = rest.front() {
        let reader = blobs.read(id, range.clone()).await?;
        if rest.len() == 1 {
            return Ok(Body::Blob(Box::new(reader)));
        }
        rest.pop_front();
        current = Some(reader);
    }
    Ok(Body::new(Chain { blobs: blobs.clone(), rest, opening: None, current, left }))
}

type Opening = Pin<Box<dyn Future<Output = Result<Reader, blobs::Error>> + Send>>;

struct Chain {
    blobs: Blobs,
    rest: VecDeque<Segment>,
    opening: Option<Opening>,
    current: Option<Reader>,
    /// Bytes that are not given yet.
    left: u64,
}

impl http_body::Body for Chain {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            if let Some(reader) = &mut self.current {
                match ready!(Pin::new(reader).poll_frame(context)) {
                    Some(Ok(frame)) => {
                        self.left -= frame.data_ref().map_or(0, |data| data.len() as u64);
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    Some(Err(cause)) => return Poll::Ready(Some(Err(cause))),
                    None => self.current = None,
                }
            }
            if let Some(opening) = &mut self.opening {
                let opened = ready!(opening.as_mut().poll(context));
                self.opening = None;
                match opened {
                    Ok(reader) => self.current = Some(reader),
                    Err(cause) => return Poll::Ready(Some(Err(io::Error::other(cause.to_string())))),
                }
                continue;
            }
            match self.rest.pop_front() {
                None => return Poll::Ready(None),
                Some(Segment::Text(bytes)) => {
                    self.left -= bytes.len() as u64;
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Segment::Blob { id, range, .. }) => {
                    let blobs = self.blobs.clone();
                    self.opening = Some(Box::pin(async move { blobs.read(&id, range).await }));
                }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_takes_of_each_part_what_it_covers() {
        let ids: Vec<BlobId> = (0..3).map(|_| BlobId::random()).collect();
        let parts: Vec<Part> =
            ids.iter().zip([10, 5, 20]).map(|(blob, size_bytes)| Part { blob: *blob, size_bytes }).collect();
        for (range, expected) in [
            (0..35, vec![(0, 0..10), (1, 0..5), (2, 0..20)]),
            (0..10, vec![(0, 0..10)]),
            (9..11, vec![(0, 9..10), (1, 0..1)]),
            (12..13, vec![(1, 2..3)]),
            (34..35, vec![(2, 19..20)]),
        ] {
            let found: Vec<(usize, Range<u64>)> =
                segments(Part { blob: ids[0], size_bytes: 35 }, &parts, range.clone())
                    .into_iter()
                    .map(|segment| match segment {
                        Segment::Blob { id, range, .. } => (ids.iter().position(|other| *other == id).unwrap(), range),
                        Segment::Text(_) => unreachable!("only blobs"),
                    })
                    .collect();
            assert_eq!(found, expected, "{range:?}");
        }
    }
}
