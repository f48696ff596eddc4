//! `/storage/v1/s3`: the same files by Amazon's protocol.
//!
//! A request is read and its signature checked (`ntier_protocol::storage::s3`), then done as whoever signed it: with the access key
//! the service, with a session token its user. Row level security decides as everywhere; that a bucket is public opens nothing here.
//! Source of what each operation does: storage-api, `src/storage/protocols/s3/s3-handler.ts`.

mod buckets;
mod identify;
mod list;
mod multipart;
mod objects;
mod parts;
mod put;
mod respond;
mod uploads;

use std::borrow::Cow;

use http::{HeaderMap, Method, Request, Response};
use ntier_protocol::storage::s3::intake::Intake;
use ntier_protocol::storage::s3::request::{self, Operation};
use ntier_protocol::storage::s3::{self, Parts, signature};
use ntier_security::Secret;

use crate::Storage;
use crate::body::Body;
use crate::error::Error;
use crate::visitor::Visitor;

/// With what S3's clients sign.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Whoever signs with these is the service.
    pub access_key_id: String,
    pub secret_access_key: Secret<String>,
    /// Whoever has a session token signs with one of these, the anon key or the publishable key. Everybody knows them: they say
    /// nothing of who asks, the token does.
    pub session_secrets: Vec<String>,
}

/// Why a request is not done.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    S3(#[from] s3::Error),
    #[error(transparent)]
    Storage(#[from] Error),
}

impl From<s3::Code> for Fault {
    fn from(code: s3::Code) -> Self {
        Self::S3(code.into())
    }
}

impl From<ntier_protocol::storage::error::Error> for Fault {
    fn from(wire: ntier_protocol::storage::error::Error) -> Self {
        Self::Storage(wire.into())
    }
}

/// A body that has not been read, and what it has to be.
struct Inflow {
    intake: Intake,
    body: Body,
}

impl Storage {
    /// Answers a request. `root` is where S3 begins in its path, without a slash at the end.
    pub(crate) async fn answer_s3(&self, root: &str, request: Request<Body>) -> Response<Body> {
        let is_head = request.method() == Method::HEAD;
        let resource = request.uri().path().strip_prefix(root).unwrap_or_default().trim_matches('/').to_owned();
        let answer = self.answer_signed(root, request).await;
        answer.unwrap_or_else(|fault| respond::fault(&fault, &resource, is_head))
    }

    async fn answer_signed(&self, root: &str, request: Request<Body>) -> Result<Response<Body>, Fault> {
        let (parts, body) = request.into_parts();
        let headers = headers(&parts.headers);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_ref())).collect();
        let said = Parts {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or_default(),
            headers: &headers,
        };
        let signed = signature::read(&said)?;
        let (caller, chain) = self.identify(&said, &signed)?;
        let operation = request::read(&said, root)?;
        let inflow = Inflow { intake: Intake::new(&said, &signed, chain)?, body };
        let path = format!("/s3{}", parts.uri.path().strip_prefix(root).unwrap_or_default());
        let visitor = Visitor::known(parts, &path, caller);
        self.operate(&visitor, operation, inflow).await
    }

    async fn operate(&self, visitor: &Visitor, operation: Operation, inflow: Inflow) -> Result<Response<Body>, Fault> {
        match operation {
            Operation::ListBuckets => self.s3_buckets(visitor).await,
            Operation::CreateBucket { bucket, public } => self.s3_create_bucket(visitor, &bucket, public).await,
            Operation::DeleteBucket { bucket } => self.s3_delete_bucket(visitor, &bucket).await,
            Operation::HeadBucket { bucket } => self.s3_head_bucket(visitor, &bucket).await,
            Operation::GetBucketLocation { bucket } => self.s3_location(visitor, &bucket).await,
            Operation::GetBucketVersioning { bucket } => self.s3_versioning(visitor, &bucket).await,
            Operation::ListObjects(list) => self.s3_list(visitor, &list).await,
            Operation::HeadObject(read) => self.s3_head(visitor, &read).await,
            Operation::GetObject(read) => self.s3_get(visitor, &read).await,
            Operation::GetObjectTagging(object) => self.s3_tags(visitor, &object).await,
            Operation::PutObject(put) => self.s3_put(visitor, &put, inflow).await,
            Operation::CopyObject(copy) => self.s3_copy(visitor, &copy).await,
            Operation::DeleteObject(object) => self.s3_delete(visitor, &object).await,
            Operation::DeleteObjects { bucket, content_md5 } => {
                self.s3_delete_many(visitor, &bucket, content_md5, inflow).await
            }
            Operation::CreateMultipartUpload(put) => self.s3_create_upload(visitor, &put).await,
            Operation::UploadPart { part, content_md5 } => self.s3_put_part(visitor, &part, content_md5, inflow).await,
            Operation::UploadPartCopy { part, source, range } => {
                self.s3_copy_part(visitor, &part, &source, range).await
            }
            Operation::CompleteMultipartUpload { upload, only_new } => {
                self.s3_complete(visitor, &upload, only_new, inflow).await
            }
            Operation::AbortMultipartUpload(upload) => self.s3_abort(visitor, &upload).await,
            Operation::ListMultipartUploads(list) => self.s3_list_uploads(visitor, &list).await,
            Operation::ListParts { upload, after, limit } => self.s3_list_parts(visitor, &upload, after, limit).await,
        }
    }
}

/// Names, in lower case as they are, and values.
fn headers(headers: &HeaderMap) -> Vec<(&str, Cow<'_, str>)> {
    headers.iter().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()))).collect()
}
