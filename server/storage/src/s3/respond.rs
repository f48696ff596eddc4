//! Answers in S3's form.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use ntier_protocol::storage::error::Code as Wire;
use ntier_protocol::storage::s3::{self, Code};
use serde_json::Value;

use super::Fault;
use crate::body::{self, Body};
use crate::error::Error;
use crate::respond::{AGAIN, because};

pub(super) fn xml(document: String) -> Response<Body> {
    let mut response = Response::new(body::full(document));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml; charset=utf-8"));
    response
}

pub(super) fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = status;
    response
}

/// `resource` is what was asked for, as it stood in the path.
pub(super) fn fault(fault: &Fault, resource: &str, is_head: bool) -> Response<Body> {
    let error = error(fault);
    let mut response = if is_head { status(StatusCode::OK) } else { xml(error.body(resource)) };
    let code = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.status_mut() = code;
    if error.code == Code::SlowDown {
        response.headers_mut().insert(header::RETRY_AFTER, AGAIN);
    }
    if let Fault::Storage(error) = fault {
        response.extensions_mut().extend(because(error));
    }
    response
}

/// Headers of a caller's own metadata; what cannot be said in one is counted (Amazon: "Working with object metadata").
pub(super) fn metadata(headers: &mut HeaderMap, metadata: Option<&Value>) {
    let mut missing = 0;
    for (name, value) in metadata.and_then(Value::as_object).into_iter().flatten() {
        let name = HeaderName::try_from(format!("x-amz-meta-{}", name.to_ascii_lowercase()));
        let value = value.as_str().filter(|text| text.is_ascii()).and_then(|text| HeaderValue::from_str(text).ok());
        match (name, value) {
            (Ok(name), Some(value)) => {
                headers.insert(name, value);
            }
            _ => missing += 1,
        }
    }
    if missing > 0 {
        headers.insert("x-amz-missing-meta", HeaderValue::from(missing));
    }
}

fn error(fault: &Fault) -> s3::Error {
    let wire = match fault {
        Fault::S3(error) => return error.clone(),
        // By this code clients know that they may send it again.
        Fault::Storage(Error::Broken(_)) => return Code::RequestTimeout.into(),
        Fault::Storage(error) => error.wire(),
    };
    let code = match wire.code {
        Wire::NoSuchBucket | Wire::RelatedResourceNotFound => Code::NoSuchBucket,
        Wire::NoSuchKey => Code::NoSuchKey,
        Wire::NoSuchUpload | Wire::InvalidUploadId | Wire::InvalidUploadSignature => Code::NoSuchUpload,
        Wire::InvalidJWT => Code::InvalidJWT,
        Wire::InvalidRequest | Wire::TusError => Code::InvalidRequest,
        Wire::MissingParameter => Code::MissingParameter,
        Wire::InvalidParameter => Code::InvalidParameter,
        Wire::EntityTooLarge => Code::EntityTooLarge,
        Wire::ResourceAlreadyExists | Wire::KeyAlreadyExists => Code::KeyAlreadyExists,
        Wire::BucketAlreadyExists => Code::BucketAlreadyExists,
        Wire::ResourceNotEmpty => Code::ResourceNotEmpty,
        Wire::ResourceReferenced => Code::ResourceReferenced,
        Wire::InvalidBucketName => Code::InvalidBucketName,
        Wire::InvalidKey => Code::InvalidKey,
        Wire::InvalidRange => Code::InvalidRange,
        Wire::InvalidMimeType => Code::InvalidMimeType,
        Wire::InvalidSignature => Code::InvalidSignature,
        Wire::InvalidChecksum => Code::BadDigest,
        Wire::ExpiredToken => Code::ExpiredToken,
        Wire::SignatureDoesNotMatch => Code::SignatureDoesNotMatch,
        Wire::AccessDenied => Code::AccessDenied,
        Wire::ResourceLocked => Code::ResourceLocked,
        Wire::DatabaseTimeout => Code::DatabaseTimeout,
        Wire::DatabaseError | Wire::InternalError => Code::InternalError,
        Wire::SlowDown => Code::SlowDown,
        Wire::FeatureNotEnabled | Wire::NotSupported => Code::NotImplemented,
        Wire::MissingContentLength => Code::MissingContentLength,
        Wire::InsufficientStorage => Code::InsufficientStorage,
    };
    s3::Error::new(code, wire.message)
}
