//! What `object_store` does not know of S3: copying by parts, and the uploads that somebody began and never finished.

use std::time::SystemTime;

use http::{Method, StatusCode};
use object_store::aws::AwsAuthorizer;
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use serde::Deserialize;

use super::Bucket;
use crate::blobs::{BlobId, Error};

/// Bytes that an S3 is asked to copy in one request. It may be 5 GB, but then the answer takes long.
pub const COPIED_AT_ONCE: u64 = 1 << 30;

/// Copies a blob by parts of this size.
pub async fn copy(bucket: &Bucket, from: &BlobId, to: &BlobId, size_bytes: u64, part: u64) -> Result<(), Error> {
    let path = bucket.path(to);
    let fault = |cause| bucket.fault(cause, None);
    let upload = bucket.store.create_multipart(&path).await.map_err(fault)?;
    let copied = async {
        let mut parts = Vec::new();
        for (number, start) in (0..size_bytes).step_by(usize::try_from(part).unwrap_or(usize::MAX)).enumerate() {
            let end = (start + part).min(size_bytes);
            parts.push(copy_part(bucket, from, to, &upload, number, start..end).await?);
        }
        bucket.store.complete_multipart(&path, &upload, parts).await.map_err(fault)
    };
    match copied.await {
        Ok(_) => Ok(()),
        Err(cause) => {
            let _ = bucket.store.abort_multipart(&path, &upload).await;
            Err(cause)
        }
    }
}

/// Removes the uploads that nobody has sent a part of since. An S3 that does not list them has to remove them itself, by a rule of the
/// bucket.
pub async fn clean(bucket: &Bucket, before: SystemTime) -> Result<usize, Error> {
    let mut removed = 0;
    let mut markers = Vec::new();
    loop {
        let mut query = vec![("prefix", bucket.prefix.clone()), ("uploads", String::new())];
        query.append(&mut markers);
        let Some(answer) = ask(bucket, Method::GET, &bucket.url, &query, &[]).await? else { return Ok(removed) };
        let page: Uploads = read(bucket, &answer)?;
        for upload in page.begun.iter().filter(|upload| upload.is_ours(bucket) && is_before(&upload.initiated, before))
        {
            if !is_idle(bucket, upload, before).await {
                continue;
            }
            let aborted = bucket.store.abort_multipart(&Path::from(upload.key.as_str()), &upload.id).await;
            match aborted {
                Ok(()) => removed += 1,
                // It was finished, or given up, meanwhile.
                Err(object_store::Error::NotFound { .. }) => {}
                Err(cause) => return Err(bucket.fault(cause, None)),
            }
        }
        let (true, Some(key), Some(id)) = (page.is_truncated, page.next_key, page.next_id) else { return Ok(removed) };
        markers = vec![("key-marker", key), ("upload-id-marker", id)];
    }
}

/// Whether no part has come since. What cannot be told now may be told the next time.
async fn is_idle(bucket: &Bucket, upload: &Upload, before: SystemTime) -> bool {
    let url = format!("{}/{}", bucket.url, encoded(&upload.key));
    let mut after = None;
    loop {
        let mut query = vec![("uploadId", upload.id.clone())];
        query.extend(after.map(|after| ("part-number-marker", after)));
        let Ok(Some(answer)) = ask(bucket, Method::GET, &url, &query, &[]).await else { return false };
        let Ok(page) = read::<Parts>(bucket, &answer) else { return false };
        if page.there.iter().any(|part| !is_before(&part.last_modified, before)) {
            return false;
        }
        after = page.next.filter(|_| page.is_truncated);
        if after.is_none() {
            return true;
        }
    }
}

async fn copy_part(
    bucket: &Bucket,
    from: &BlobId,
    to: &BlobId,
    upload: &str,
    number: usize,
    range: std::ops::Range<u64>,
) -> Result<PartId, Error> {
    let url = format!("{}/{}", bucket.url, encoded(&bucket.key(to)));
    let query = [("partNumber", (number + 1).to_string()), ("uploadId", upload.to_owned())];
    let headers = [
        ("x-amz-copy-source", format!("{}/{}", bucket.name, encoded(&bucket.key(from)))),
        ("x-amz-copy-source-range", format!("bytes={}-{}", range.start, range.end - 1)),
    ];
    let answer = ask(bucket, Method::PUT, &url, &query, &headers).await?;
    let part: CopiedPart = read(bucket, &answer.unwrap_or_default())?;
    Ok(PartId { content_id: part.e_tag })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CopiedPart {
    #[serde(rename = "ETag")]
    e_tag: String,
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html>
#[derive(Debug, Deserialize)]
struct Uploads {
    #[serde(rename = "Upload", default)]
    begun: Vec<Upload>,
    #[serde(rename = "IsTruncated", default)]
    is_truncated: bool,
    #[serde(rename = "NextKeyMarker")]
    next_key: Option<String>,
    #[serde(rename = "NextUploadIdMarker")]
    next_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Upload {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "UploadId")]
    id: String,
    #[serde(rename = "Initiated")]
    initiated: String,
}

impl Upload {
    fn is_ours(&self, bucket: &Bucket) -> bool {
        self.key.strip_prefix(&bucket.prefix).and_then(BlobId::parse).is_some()
    }
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListParts.html>
#[derive(Debug, Deserialize)]
struct Parts {
    #[serde(rename = "Part", default)]
    there: Vec<Part>,
    #[serde(rename = "IsTruncated", default)]
    is_truncated: bool,
    #[serde(rename = "NextPartNumberMarker")]
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(rename = "LastModified")]
    last_modified: String,
}

fn is_before(text: &str, time: SystemTime) -> bool {
    humantime::parse_rfc3339(text).is_ok_and(|at| at < time)
}

/// Asks what `object_store` cannot; an answer that cannot be had now may be had the next time. `None` where the S3 does not know the
/// request.
async fn ask(
    bucket: &Bucket,
    method: Method,
    url: &str,
    query: &[(&str, String)],
    headers: &[(&str, String)],
) -> Result<Option<String>, Error> {
    let unreachable = |cause: String| Error::Unreachable { bucket: bucket.url.clone(), cause };
    let query: Vec<_> = query.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    let mut request = http::Request::builder().method(method).uri(format!("{url}?{}", query.join("&")));
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let mut request: HttpRequest =
        request.body(HttpRequestBody::empty()).map_err(|cause| unreachable(cause.to_string()))?;
    AwsAuthorizer::new(&bucket.credential, "s3", &bucket.region)
        .try_authorize(&mut request, None)
        .map_err(|cause| unreachable(cause.to_string()))?;
    let answer = bucket.http.execute(request).await.map_err(|cause| unreachable(cause.to_string()))?;
    let status = answer.status();
    let body = answer.into_body().bytes().await.map_err(|cause| unreachable(cause.to_string()))?;
    let text = String::from_utf8_lossy(&body).into_owned();
    match status {
        // A copy answers before it is done, and may still fail.
        StatusCode::OK if !text.contains("<Error>") => Ok(Some(text)),
        StatusCode::NOT_IMPLEMENTED => Ok(None),
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND => {
            Err(Error::Refused { bucket: bucket.url.clone(), cause: format!("{status}: {text}") })
        }
        _ => Err(unreachable(format!("{status}: {text}"))),
    }
}

fn read<T: serde::de::DeserializeOwned>(bucket: &Bucket, answer: &str) -> Result<T, Error> {
    let unreadable = |cause| Error::Unreachable { bucket: bucket.url.clone(), cause: format!("{cause}: {answer}") };
    quick_xml::de::from_str(answer).map_err(unreadable)
}

/// Everything but what is plain in a path and in a query.
fn encoded(text: &str) -> impl std::fmt::Display + '_ {
    const SAFE: percent_encoding::AsciiSet =
        percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
    percent_encoding::utf8_percent_encode(text, &SAFE)
}
