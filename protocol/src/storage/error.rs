//! Errors as storage-api says them. Source: storage-api, `internal/errors/codes.ts` and `http/error-handler.ts`.

use serde_json::{Value, json};

macro_rules! codes {
    ($($name:ident => $status:literal $error:literal,)*) => {
        /// storage-api's error codes, as far as they are given.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $($name,)*
        }

        impl Code {
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// The status that the body names, and S3 and TUS answer with.
            pub fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)*
                }
            }

            /// What older clients read; empty where it is the code.
            fn error(self) -> &'static str {
                match self {
                    $(Self::$name => $error,)*
                }
            }
        }
    };
}

codes! {
    NoSuchBucket => 404 "Bucket not found",
    NoSuchKey => 404 "not_found",
    NoSuchUpload => 404 "",
    InvalidJWT => 400 "",
    InvalidRequest => 400 "",
    MissingParameter => 400 "",
    InvalidParameter => 400 "",
    EntityTooLarge => 413 "Payload too large",
    InternalError => 500 "Internal",
    ResourceAlreadyExists => 409 "Duplicate",
    KeyAlreadyExists => 409 "Duplicate",
    BucketAlreadyExists => 409 "Duplicate",
    ResourceNotEmpty => 409 "",
    ResourceReferenced => 409 "",
    RelatedResourceNotFound => 404 "InvalidRequest",
    InvalidBucketName => 400 "Invalid Input",
    InvalidKey => 400 "",
    InvalidRange => 416 "invalid_range",
    InvalidMimeType => 415 "invalid_mime_type",
    InvalidUploadId => 400 "",
    InvalidUploadSignature => 400 "",
    InvalidSignature => 400 "",
    InvalidChecksum => 400 "",
    ExpiredToken => 400 "",
    SignatureDoesNotMatch => 403 "",
    AccessDenied => 403 "Unauthorized",
    ResourceLocked => 423 "",
    DatabaseTimeout => 544 "",
    DatabaseError => 500 "",
    SlowDown => 503 "too_many_connections",
    FeatureNotEnabled => 409 "",
    NotSupported => 409 "",
    MissingContentLength => 400 "",
    TusError => 400 "",
    InsufficientStorage => 507 "",
}

/// A refusal in the words of the dialect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub code: Code,
    pub message: String,
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn no_such_bucket() -> Self {
        Self::new(Code::NoSuchBucket, "Bucket not found")
    }

    pub fn no_such_key() -> Self {
        Self::new(Code::NoSuchKey, "Object not found")
    }

    pub fn already_exists(code: Code) -> Self {
        Self::new(code, "The resource already exists")
    }

    pub fn too_large() -> Self {
        Self::new(Code::EntityTooLarge, "The object exceeded the maximum allowed size")
    }

    pub fn not_your_media_type(media_type: &str) -> Self {
        Self::new(Code::InvalidMimeType, format!("mime type {media_type} is not supported"))
    }

    /// The status of the answer: most of what a caller does wrong is 400, and the body says more. What is to be tried again, by
    /// whom it concerns, says so by its own.
    pub fn http_status(&self) -> u16 {
        match self.code.status() {
            status @ (416 | 500..) => status,
            _ => 400,
        }
    }

    pub fn body(&self) -> Value {
        let error = if self.code.error().is_empty() { self.code.text() } else { self.code.error() };
        // It has no code of its own.
        let code = if self.code == Code::RelatedResourceNotFound { "InvalidRequest" } else { self.code.text() };
        json!({
            "statusCode": self.code.status().to_string(),
            "error": error,
            "code": code,
            "message": self.message,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_said_as_clients_read_them() {
        for (error, status, expected) in [
            (
                Error::no_such_bucket(),
                400,
                r#"{"statusCode":"404","error":"Bucket not found","code":"NoSuchBucket","message":"Bucket not found"}"#,
            ),
            (
                Error::too_large(),
                400,
                r#"{"statusCode":"413","error":"Payload too large","code":"EntityTooLarge","message":"The object exceeded the maximum allowed size"}"#,
            ),
            (
                Error::new(Code::InvalidKey, "Invalid key: a"),
                400,
                r#"{"statusCode":"400","error":"InvalidKey","code":"InvalidKey","message":"Invalid key: a"}"#,
            ),
            (
                Error::new(Code::SlowDown, "later"),
                503,
                r#"{"statusCode":"503","error":"too_many_connections","code":"SlowDown","message":"later"}"#,
            ),
        ] {
            assert_eq!((error.http_status(), error.body().to_string().as_str()), (status, expected));
        }
    }
}
