//! An upload in one request: checked while it comes, and a blob before it has a row.

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use md5::{Digest as _, Md5};
use ntier_backing::blobs::Written;
use ntier_protocol::storage::error::Error as Wire;
use ntier_protocol::storage::name::{BucketId, ObjectKey};
use ntier_protocol::storage::s3::checksum::Algorithm;
use ntier_protocol::storage::s3::request::{Described, Put};
use ntier_protocol::storage::s3::{Code, answer, body as s3_body};

use super::objects::user_metadata;
use super::{Fault, Inflow, respond};
use crate::Storage;
use crate::body::{self, Body};
use crate::session::Request;
use crate::upload::{Beginning, Description, Target, check};
use crate::visitor::{Visitor, owner};

/// What an upload has to be besides what its signature says.
pub(super) struct Expected {
    /// Bytes, at most.
    pub(super) limit: u64,
    pub(super) content_md5: Option<[u8; 16]>,
    /// A part that is not the first has none.
    pub(super) beginning: Option<Beginning>,
}

/// A blob without a row, and the checksum that the client sent with it.
pub(super) struct Received {
    pub(super) written: Written,
    pub(super) checksum: Option<(Algorithm, String)>,
}

impl Storage {
    pub(super) async fn s3_put(&self, visitor: &Visitor, put: &Put, inflow: Inflow) -> Result<Response<Body>, Fault> {
        let (bucket, key) = (BucketId::parse(&put.bucket)?, ObjectKey::parse(&put.key)?);
        let owner = owner(visitor.caller()?);
        let target = Target { bucket: &bucket, key: &key, owner: owner.as_deref(), upsert: !put.only_new };
        let description = describe(&put.headers, inflow.intake.length);
        let request = Request::of(visitor, "storage.s3.upload");
        let limits = self.may_upload(Some(visitor.caller()?), &request, &target, &description).await;
        let limits = limits.map_err(|error| unless_new(error.into(), put.only_new))?;
        let limit = self.limit(&limits, &key);
        check(&description, &limits, limit, &key)?;
        let beginning = Some(Beginning::new(&description.media_type, &limits));
        let received = self.s3_receive(inflow, Expected { limit, content_md5: put.content_md5, beginning }).await?;
        let committed = self.commit(&target, &description, &received.written, Vec::new()).await;
        let (_, metadata) = committed.map_err(|error| unless_new(error.into(), put.only_new))?;
        Ok(accepted(&metadata.etag, received.checksum.as_ref()))
    }

    /// Writes a body into a blob that nothing names yet.
    pub(super) async fn s3_receive(&self, inflow: Inflow, mut expected: Expected) -> Result<Received, Fault> {
        let Inflow { mut intake, mut body } = inflow;
        if intake.length.is_some_and(|length| length > expected.limit) {
            return Err(Wire::too_large().into());
        }
        let mut writer = self.blobs.writer().await.map_err(crate::Error::from)?;
        let mut size: u64 = 0;
        while let Some(mut bytes) = body::next(&mut body).await? {
            while let Some(piece) = intake.next(&mut bytes)? {
                if let Some(beginning) = &mut expected.beginning {
                    beginning.look(&piece)?;
                }
                size += piece.len() as u64;
                if size > expected.limit {
                    return Err(Wire::too_large().into());
                }
                writer.write(piece).await.map_err(crate::Error::from)?;
            }
        }
        let checksum = intake.finish()?;
        let written = writer.finish().await.map_err(crate::Error::from)?;
        if expected.content_md5.is_some_and(|expected| Some(expected) != written.md5) {
            self.forget(vec![written.id]);
            return Err(Code::BadDigest.into());
        }
        Ok(Received { written, checksum })
    }
}

/// A body that is read whole: XML.
pub(super) async fn whole(inflow: Inflow, content_md5: Option<[u8; 16]>) -> Result<Vec<u8>, Fault> {
    let Inflow { mut intake, mut body } = inflow;
    let mut whole = Vec::new();
    while let Some(mut bytes) = body::next(&mut body).await? {
        while let Some(piece) = intake.next(&mut bytes)? {
            if whole.len() + piece.len() > s3_body::LONGEST {
                return Err(Code::EntityTooLarge.into());
            }
            whole.extend_from_slice(&piece);
        }
    }
    intake.finish()?;
    if content_md5.is_some_and(|expected| expected != <[u8; 16]>::from(Md5::digest(&whole))) {
        return Err(Code::BadDigest.into());
    }
    Ok(whole)
}

/// What is taken says what it was taken for.
pub(super) fn accepted(etag: &str, checksum: Option<&(Algorithm, String)>) -> Response<Body> {
    let mut response = respond::status(StatusCode::OK);
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&answer::quoted(etag)) {
        headers.insert(header::ETAG, etag);
    }
    if let Some((algorithm, value)) = checksum
        && let Ok(value) = HeaderValue::from_str(value)
    {
        headers.insert(HeaderName::from_static(algorithm.header()), value);
    }
    response
}

pub(super) fn describe(headers: &Described, declared: Option<u64>) -> Description {
    Description {
        media_type: headers.content_type.clone().unwrap_or_else(|| "application/octet-stream".to_owned()),
        cache_control: headers.cache_control.clone().unwrap_or_else(|| "no-cache".to_owned()),
        robots: None,
        user_metadata: Some(user_metadata(headers)),
        declared,
    }
}

/// Whoever asked for nothing to be there has made a condition.
pub(super) fn unless_new(fault: Fault, only_new: bool) -> Fault {
    use ntier_protocol::storage::error::Code as Wire;
    match &fault {
        Fault::Storage(error) if only_new && error.wire().code == Wire::KeyAlreadyExists => {
            Code::PreconditionFailed.into()
        }
        _ => fault,
    }
}
