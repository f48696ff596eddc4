//! Blobs as objects in a bucket of an S3, of Amazon or of anybody who speaks its protocol.
//!
//! `object_store` signs, asks again and reads what S3 says; the HTTP below it is ours (`transport`), and so are the two requests that
//! it does not know (`uploads`).

use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::Uri;
use ntier_security::Secret;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredential};
use object_store::client::HttpClient;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    BackoffConfig, Error as Cause, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig,
};
use std::io;

use super::{BlobId, Error, Listed};
use crate::outbound;

mod transport;
mod uploads;
mod write;

pub use write::Writer;

use transport::Transport;

/// S3 lists no more at once.
const PAGE: usize = 1000;

/// Which bucket, and who we are to it.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// Where the S3 is, such as `https://s3.example.com`; Amazon's when absent.
    pub endpoint: Option<String>,
    pub region: String,
    pub bucket: String,
    /// Of the names in the bucket; empty, or such as `files/`.
    pub prefix: String,
    pub access_key_id: String,
    pub secret_access_key: Secret<String>,
    /// The bucket's name is in the path, not in the host's name.
    pub path_style: bool,
    /// Blobs may travel without TLS also beyond this machine.
    pub allow_http: bool,
}

/// A bucket.
#[derive(Clone)]
pub struct S3(Arc<Bucket>);

struct Bucket {
    store: AmazonS3,
    http: HttpClient,
    credential: AwsCredential,
    region: String,
    name: String,
    /// Where the bucket is, without a slash at its end.
    url: String,
    prefix: String,
}

/// The key is not part of what can be printed.
impl fmt::Debug for S3 {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("S3").field(&self.0.url).field(&self.0.prefix).finish()
    }
}

impl S3 {
    /// Asks nobody yet.
    pub fn open(settings: &S3Settings) -> Result<Self, Error> {
        let url = bucket_url(settings)?;
        let transport = Transport::new(url.starts_with("https:")).map_err(Error::Io)?;
        let secret = settings.secret_access_key.expose().clone();
        let store = AmazonS3Builder::new()
            .with_bucket_name(&settings.bucket)
            .with_region(&settings.region)
            // For object_store this means that the bucket is part of the address already.
            .with_virtual_hosted_style_request(true)
            .with_endpoint(&url)
            .with_access_key_id(&settings.access_key_id)
            .with_secret_access_key(&secret)
            // TLS protects the bytes on their way; hashing them would keep the worker busy.
            .with_unsigned_payload(url.starts_with("https:"))
            .with_retry(RETRY)
            .with_http_connector(transport.clone())
            .build()
            .map_err(|cause| Error::Io(io::Error::other(cause)))?;
        Ok(Self(Arc::new(Bucket {
            store,
            http: HttpClient::new(transport),
            credential: AwsCredential { key_id: settings.access_key_id.clone(), secret_key: secret, token: None },
            region: settings.region.clone(),
            name: settings.bucket.clone(),
            url,
            prefix: prefix(settings)?,
        })))
    }

    pub(super) fn writer(&self, id: BlobId) -> Writer {
        Writer::new(self.0.clone(), id)
    }

    pub(super) async fn size(&self, id: &BlobId) -> Result<u64, Error> {
        Ok(self.0.head(id).await?.size)
    }

    pub(super) async fn read(&self, id: &BlobId, range: Range<u64>) -> Result<Reader, Error> {
        let beyond = |size_bytes| Err(Error::Beyond { id: *id, size_bytes, range: range.clone() });
        if range.is_empty() {
            let size_bytes = self.0.head(id).await?.size;
            let inside = range.start <= range.end && range.end <= size_bytes;
            return if inside { Ok(Reader::empty()) } else { beyond(size_bytes) };
        }
        let options = GetOptions::new().with_range(Some(GetRange::Bounded(range.clone())));
        match self.0.store.get_opts(&self.0.path(id), options).await {
            Ok(got) if got.range == range => {
                Ok(Reader { stream: got.into_stream(), remaining: range.end - range.start })
            }
            Ok(got) => beyond(got.meta.size),
            Err(cause @ Cause::NotFound { .. }) => Err(self.0.fault(cause, Some(id))),
            // It may have been asked for what is beyond the end, which only its size tells.
            Err(cause) => match self.0.head(id).await {
                Ok(meta) if range.end > meta.size => beyond(meta.size),
                _ => Err(self.0.fault(cause, Some(id))),
            },
        }
    }

    pub(super) async fn copy(&self, from: &BlobId) -> Result<BlobId, Error> {
        let id = BlobId::random();
        let size_bytes = self.0.head(from).await?.size;
        if size_bytes > uploads::COPIED_AT_ONCE {
            uploads::copy(&self.0, from, &id, size_bytes, uploads::COPIED_AT_ONCE).await?;
        } else {
            let copied = self.0.store.copy(&self.0.path(from), &self.0.path(&id)).await;
            copied.map_err(|cause| self.0.fault(cause, Some(from)))?;
        }
        Ok(id)
    }

    pub(super) async fn remove(&self, ids: &[BlobId]) -> Result<(), Error> {
        if let [id] = ids {
            return match self.0.store.delete(&self.0.path(id)).await {
                Ok(()) | Err(Cause::NotFound { .. }) => Ok(()),
                Err(cause) => Err(self.0.fault(cause, None)),
            };
        }
        let paths: Vec<_> = ids.iter().map(|id| Ok(self.0.path(id))).collect();
        let removed = self.0.store.delete_stream(stream::iter(paths).boxed());
        removed.try_for_each(async |_| Ok(())).await.map_err(|cause| self.0.fault(cause, None))
    }

    pub(super) async fn list(&self, after: Option<&BlobId>, limit: usize) -> Result<Vec<Listed>, Error> {
        let mut listed = Vec::new();
        let mut after = after.map(|id| self.0.key(id));
        while listed.len() < limit {
            let max_keys = Some((limit - listed.len()).min(PAGE));
            let options = PaginatedListOptions { offset: after, max_keys, ..PaginatedListOptions::default() };
            let page = self.0.store.list_paginated(Some(&self.0.prefix), options).await;
            let page = page.map_err(|cause| self.0.fault(cause, None))?;
            after = page.result.objects.last().map(|object| object.location.to_string());
            listed.extend(page.result.objects.iter().filter_map(|object| self.0.listed(object)));
            if page.page_token.is_none() || after.is_none() {
                break;
            }
        }
        listed.truncate(limit);
        Ok(listed)
    }

    pub(super) async fn clean(&self, older_than: Duration) -> Result<usize, Error> {
        uploads::clean(&self.0, SystemTime::now() - older_than).await
    }

    pub(super) async fn check(&self) -> Result<(), Error> {
        let mut writer = self.writer(BlobId::random());
        writer.write(Bytes::from_static(b"Can this be written?")).await?;
        let written = writer.finish().await?;
        self.read(&written.id, 0..written.size_bytes).await?;
        self.remove(&[written.id]).await
    }
}

/// An S3 that is not there is given up within about a quarter of a minute, and one that stumbles may recover.
const RETRY: RetryConfig = RetryConfig {
    backoff: BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(2), base: 2.0 },
    max_retries: 3,
    retry_timeout: Duration::from_secs(15),
};

impl Bucket {
    fn key(&self, id: &BlobId) -> String {
        format!("{}{id}", self.prefix)
    }

    fn path(&self, id: &BlobId) -> Path {
        Path::parse(self.key(id)).expect("the prefix is one, and the blob's name is plain")
    }

    async fn head(&self, id: &BlobId) -> Result<ObjectMeta, Error> {
        self.store.head(&self.path(id)).await.map_err(|cause| self.fault(cause, Some(id)))
    }

    /// `None` for what is not ours.
    fn listed(&self, object: &ObjectMeta) -> Option<Listed> {
        let id = BlobId::parse(object.location.as_ref().strip_prefix(&self.prefix)?)?;
        Some(Listed { id, modified: object.last_modified.into(), size_bytes: object.size })
    }

    /// What became of a request, which was about this blob if it was about one that should be there.
    fn fault(&self, cause: Cause, id: Option<&BlobId>) -> Error {
        let (bucket, text) = (self.url.clone(), cause.to_string());
        match (cause, id) {
            (Cause::NotFound { .. }, Some(id)) => Error::Missing(*id),
            (Cause::NotFound { .. } | Cause::PermissionDenied { .. } | Cause::Unauthenticated { .. }, _) => {
                Error::Refused { bucket, cause: text }
            }
            _ => Error::Unreachable { bucket, cause: text },
        }
    }
}

/// What is read from S3, as it comes.
pub struct Reader {
    stream: BoxStream<'static, Result<Bytes, Cause>>,
    remaining: u64,
}

impl fmt::Debug for Reader {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Reader").field("remaining", &self.remaining).finish_non_exhaustive()
    }
}

impl Reader {
    fn empty() -> Self {
        Self { stream: stream::empty().boxed(), remaining: 0 }
    }

    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    pub(in crate::blobs) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        let bytes = match ready!(Pin::new(&mut self.stream).poll_next(context)) {
            Some(Ok(bytes)) if bytes.len() as u64 <= self.remaining => Ok(bytes),
            Some(Ok(_)) => Err(io::Error::new(io::ErrorKind::InvalidData, "an S3 sends more than it was asked for")),
            Some(Err(cause)) => Err(io::Error::other(cause)),
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "an S3 sends less than it was asked for")),
        };
        // A body that has failed is over.
        self.remaining = bytes.as_ref().map_or(0, |bytes| self.remaining - bytes.len() as u64);
        Poll::Ready(Some(bytes))
    }
}

/// With a slash at its end, unless it is empty.
fn prefix(settings: &S3Settings) -> Result<String, Error> {
    let prefix = settings.prefix.trim_matches('/');
    Path::parse(prefix).map_err(|_| Error::Prefix(settings.prefix.clone()))?;
    Ok(if prefix.is_empty() { String::new() } else { format!("{prefix}/") })
}

fn bucket_url(settings: &S3Settings) -> Result<String, Error> {
    let amazon = format!("https://s3.{}.amazonaws.com", settings.region);
    let endpoint = settings.endpoint.as_deref().unwrap_or(&amazon).trim_end_matches('/');
    let wrong = || Error::Endpoint(endpoint.to_owned());
    let uri: Uri = endpoint.parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?;
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if settings.allow_http || outbound::is_this_machine(host) => {}
        _ => return Err(wrong()),
    }
    if settings.path_style {
        return Ok(format!("{endpoint}/{}", settings.bucket));
    }
    let (scheme, rest) = endpoint.split_once("://").ok_or_else(wrong)?;
    Ok(format!("{scheme}://{}.{rest}", settings.bucket))
}

#[cfg(test)]
mod tests;
