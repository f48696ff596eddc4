//! Downloads: public ones, those of a caller, and those by a signed URL; whole, in ranges, or not at all where the client has the file
//! already.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::BodyExt;
use ntier_backing::blobs::{self, BlobId};
use ntier_protocol::storage::condition::Verdict;
use ntier_protocol::storage::error::{Code, Error as Wire};
use ntier_protocol::storage::media_type;
use ntier_protocol::storage::name::{BucketId, ObjectKey};
use ntier_protocol::storage::range::{self, Wanted};
use ntier_security::signed_url::Scope;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use crate::Storage;
use crate::body::{self, Body, Segment};
use crate::error::Error;
use crate::hot;
use crate::respond;
use crate::session::{self, Mode, Request, Work};
use crate::store::{self, Bucket, Metadata, Object, Part};
use crate::visitor::{Visitor, place};

/// What `encodeURIComponent` leaves as it is.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// By which right somebody reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The bucket is public.
    Public,
    /// Whoever asks may, by the policies; or the bucket is public.
    Caller,
    /// Likewise, but strangers are not asked for a key.
    CallerIfAny,
}

impl Storage {
    /// `GET` and `HEAD /object/…`.
    pub(crate) async fn download(
        &self,
        visitor: &Visitor,
        access: Access,
        bucket: &str,
        key: &[String],
    ) -> Result<Response<Body>, Error> {
        let (bucket, key) = place(bucket, key)?;
        let mut is_again = false;
        loop {
            let object = self.find(visitor, access, &bucket, &key, "storage.object.get_authenticated").await?;
            match self.give(visitor, &object, None).await {
                Err(error) if is_replaced(&error) && !is_again => {
                    session::forget();
                    is_again = true;
                }
                answer => return answer,
            }
        }
    }

    /// `GET /object/sign/{bucket}/{key}?token=`.
    pub(crate) async fn download_signed(
        &self,
        visitor: &Visitor,
        bucket: &str,
        key: &[String],
    ) -> Result<Response<Body>, Error> {
        let (bucket, key) = place(bucket, key)?;
        let grant = self.check_signature(visitor, &bucket, &key, Scope::Download)?;
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(grant.exp).unwrap_or_default());
        let mut is_again = false;
        loop {
            let object = self.find_any(&bucket, &key).await?.ok_or_else(Wire::no_such_key)?;
            match self.give(visitor, &object, Some(expires)).await {
                Err(error) if is_replaced(&error) && !is_again => {
                    session::forget();
                    is_again = true;
                }
                answer => return answer,
            }
        }
    }

    /// `GET /object/info/…`.
    pub(crate) async fn info(
        &self,
        visitor: &Visitor,
        access: Access,
        bucket: &str,
        key: &[String],
    ) -> Result<Response<Body>, Error> {
        let (bucket, key) = place(bucket, key)?;
        let object = self.find(visitor, access, &bucket, &key, "storage.object.info").await?;
        let metadata = &object.metadata;
        let mut response = respond::json(&json!({
            "id": object.id,
            "name": object.name,
            "version": object.version,
            "bucket_id": bucket.as_str(),
            "size": metadata.size_bytes,
            "content_type": metadata.media_type,
            "cache_control": metadata.cache_control,
            "etag": metadata.etag,
            "metadata": object.user_metadata.clone().unwrap_or_else(|| json!({})),
            "last_modified": object.updated_at,
            "created_at": object.created_at,
        }));
        describe(response.headers_mut(), metadata);
        Ok(response)
    }

    /// The object, if it may be read.
    pub(crate) async fn find(
        &self,
        visitor: &Visitor,
        access: Access,
        bucket: &BucketId,
        key: &ObjectKey,
        operation: &'static str,
    ) -> Result<Arc<Object>, Error> {
        let caller = match access {
            Access::Public => None,
            Access::Caller => Some(visitor.caller()?),
            Access::CallerIfAny => visitor.caller_if_any(),
        };
        let Some(caller) = caller else {
            let found = self.lookups.find(&self.database, bucket, key).await?;
            if found.is_public != Some(true) {
                return Err(Wire::no_such_bucket().into());
            }
            return found.object.ok_or_else(|| Wire::no_such_key().into());
        };
        let service = vec![Bucket::select(bucket), Object::select(bucket, key), store::select_parts(bucket, key)];
        let work = Work { service, caller: vec![Object::select(bucket, key)] };
        let request = Request::of(visitor, operation);
        let answer = session::as_caller(&self.database, caller, &request, Mode::Read, work).await?;
        let found = Bucket::of(&answer, 0).ok_or_else(Wire::no_such_bucket)?;
        let index = if found.public { 1 } else { 3 };
        let mut object = Object::found(&answer, index)?.ok_or_else(Wire::no_such_key)?;
        object.parts = store::parts(&answer, 2, &object.version)?;
        Ok(Arc::new(object))
    }

    /// The object, whoever may read it.
    pub(crate) async fn find_any(&self, bucket: &BucketId, key: &ObjectKey) -> Result<Option<Arc<Object>>, Error> {
        Ok(self.lookups.find(&self.database, bucket, key).await?.object)
    }

    /// An object of a public bucket, for a web site; `None` where there is none, or the bucket is not public.
    pub async fn public_object(&self, bucket: &str, key: &str) -> Result<Option<Arc<Object>>, Error> {
        let (Ok(bucket), Ok(key)) = (BucketId::parse(bucket), ObjectKey::parse(key)) else { return Ok(None) };
        let found = self.lookups.find(&self.database, &bucket, &key).await?;
        Ok(found.object.filter(|_| found.is_public == Some(true)))
    }

    /// Bytes of an object, as they are asked for.
    pub async fn stream(&self, object: &Object, range: Range<u64>) -> Result<Body, Error> {
        body::stream(&self.blobs, segments(object, range)?).await
    }

    /// The answer to who may read the object.
    pub(crate) async fn give(
        &self,
        visitor: &Visitor,
        object: &Object,
        expires: Option<SystemTime>,
    ) -> Result<Response<Body>, Error> {
        let metadata = &object.metadata;
        let mut response = respond::status(StatusCode::OK);
        response.headers_mut().clone_from(object.headers.get_or_init(|| headers(metadata)));
        if let Some(expires) = expires {
            set(response.headers_mut(), header::EXPIRES, &httpdate::fmt_http_date(expires));
            response.headers_mut().remove(header::CACHE_CONTROL);
        }
        if let Some(name) = visitor.parameter("download") {
            set(response.headers_mut(), header::CONTENT_DISPOSITION, &attachment(name));
        }
        let modified = metadata.modified.unwrap_or(SystemTime::UNIX_EPOCH);
        let conditions = visitor.conditions();
        match conditions.decide(&metadata.etag, modified) {
            Verdict::Proceed => {}
            Verdict::NotModified => {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                return Ok(response);
            }
            Verdict::Failed => {
                *response.status_mut() = StatusCode::PRECONDITION_FAILED;
                return Ok(response);
            }
        }
        let size = metadata.size_bytes;
        let asked = visitor.header(&header::RANGE).filter(|_| conditions.allow_range(&metadata.etag, modified));
        let wanted = if visitor.method == Method::GET { range::parse(asked, size) } else { Wanted::Whole };
        let is_head = visitor.method == Method::HEAD;
        let (length, segments) = match wanted {
            Wanted::Whole => (size, segments(object, 0..size)?),
            Wanted::Unsatisfiable => {
                let mut response = respond::error(&Wire::new(Code::InvalidRange, "invalid range provided").into());
                set(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{size}"));
                return Ok(response);
            }
            Wanted::Parts(ranges) => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                if let [range] = ranges.as_slice() {
                    set(response.headers_mut(), header::CONTENT_RANGE, &content_range(range, size));
                    (range.end - range.start, segments(object, range.clone())?)
                } else {
                    let boundary = BlobId::random();
                    let kind = format!("multipart/byteranges; boundary={boundary}");
                    set(response.headers_mut(), header::CONTENT_TYPE, &kind);
                    multipart(object, &ranges, boundary.as_str())?
                }
            }
        };
        set(response.headers_mut(), header::CONTENT_LENGTH, &length.to_string());
        if !is_head && length > 0 {
            *response.body_mut() = self.body(segments).await?;
        }
        Ok(response)
    }

    /// A piece of a small blob comes from memory.
    async fn body(&self, segments: Vec<Segment>) -> Result<Body, Error> {
        let [Segment::Blob { id, range, size_bytes }] = segments.as_slice() else {
            return body::stream(&self.blobs, segments).await;
        };
        if *size_bytes > hot::LARGEST {
            return body::stream(&self.blobs, segments).await;
        }
        let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let range = within(range.start)..within(range.end);
        if let Some(bytes) = self.hot.get(id) {
            return Ok(body::full(bytes.slice(range)));
        }
        let bytes = self.blobs.read(id, 0..*size_bytes).await?.collect().await;
        let bytes = bytes.map_err(blobs::Error::from)?.to_bytes();
        self.hot.put(*id, bytes.clone());
        Ok(body::full(bytes.slice(range)))
    }
}

/// Several ranges as one body (RFC 9110, 14.6), and its length.
fn multipart(object: &Object, ranges: &[Range<u64>], boundary: &str) -> Result<(u64, Vec<Segment>), Error> {
    let size = object.metadata.size_bytes;
    let mut length = 0;
    let mut segments = Vec::new();
    for range in ranges {
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: {}\r\nContent-Range: {}\r\n\r\n",
            printable(&object.metadata.media_type),
            content_range(range, size)
        );
        length += head.len() as u64 + range.end - range.start;
        segments.push(Segment::Text(Bytes::from(head)));
        segments.extend(self::segments(object, range.clone())?);
    }
    let end = format!("\r\n--{boundary}--\r\n");
    length += end.len() as u64;
    segments.push(Segment::Text(Bytes::from(end)));
    Ok((length, segments))
}

/// The pieces of a range of the object.
pub(crate) fn segments(object: &Object, range: Range<u64>) -> Result<Vec<Segment>, Error> {
    let version = BlobId::parse(&object.version).ok_or_else(Wire::no_such_key)?;
    Ok(body::segments(Part { blob: version, size_bytes: object.metadata.size_bytes }, &object.parts, range))
}

/// A blob may be replaced between its row and its reading: then the row is read again.
fn is_replaced(error: &Error) -> bool {
    matches!(error, Error::Blobs(blobs::Error::Missing(_)))
}

fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end - 1)
}

/// What each response says of the file.
fn headers(metadata: &Metadata) -> HeaderMap {
    let mut headers = HeaderMap::new();
    describe(&mut headers, metadata);
    guard(&mut headers, &metadata.media_type);
    headers
}

/// What a response says of the file.
pub fn describe(headers: &mut HeaderMap, metadata: &Metadata) {
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    set(headers, header::CONTENT_TYPE, &metadata.media_type);
    set(headers, header::ETAG, &metadata.etag);
    set(headers, header::CACHE_CONTROL, &metadata.cache_control);
    let robots = metadata.robots.as_deref().unwrap_or("none");
    set(headers, HeaderName::from_static("x-robots-tag"), robots);
    if let Some(modified) = metadata.modified {
        set(headers, header::LAST_MODIFIED, &httpdate::fmt_http_date(modified));
    }
}

/// Files come from anybody, and share their origin with whatever else this server gives: none may run here (checklist F3).
pub fn guard(headers: &mut HeaderMap, said: &str) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if media_type::is_active(said) {
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; sandbox"),
        );
    }
}

/// Source: storage-api, `handleDownload`.
pub fn attachment(name: &str) -> String {
    if name.is_empty() {
        return "attachment;".into();
    }
    let name = utf8_percent_encode(name, COMPONENT);
    format!("attachment; filename={name}; filename*=UTF-8''{name}")
}

/// Sets a header to what a caller has said, if that may stand there.
pub fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    } else {
        headers.remove(name);
    }
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_downloads_are_encoded() {
        for (name, expected) in [
            ("", "attachment;"),
            ("a.png", "attachment; filename=a.png; filename*=UTF-8''a.png"),
            (
                "a\r\nx: \"é\"",
                "attachment; filename=a%0D%0Ax%3A%20%22%C3%A9%22; filename*=UTF-8''a%0D%0Ax%3A%20%22%C3%A9%22",
            ),
        ] {
            assert_eq!(attachment(name), expected);
        }
    }

    #[test]
    fn security_f3_what_may_run_runs_nowhere() {
        for (said, sandboxed) in
            [("text/html", true), ("image/svg+xml", true), ("image/png", false), ("text/plain", false)]
        {
            let mut headers = HeaderMap::new();
            guard(&mut headers, said);
            let policy = headers.get(header::CONTENT_SECURITY_POLICY);
            assert_eq!(policy.is_some_and(|policy| policy.to_str().unwrap().contains("sandbox")), sandboxed, "{said}");
            assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        }
    }
}
