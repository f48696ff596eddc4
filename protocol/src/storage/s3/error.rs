//! Errors as S3 says them: a status, a code and words, in XML.
//!
//! Where storage-api has the error, its code, status and words are taken (`src/internal/errors/codes.ts`); the others are Amazon's
//! ("Error Responses" in the S3 API Reference).

use std::borrow::Cow;

use super::xml::Document;

macro_rules! codes {
    ($($name:ident => $status:literal $text:literal,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $($name,)*
        }

        impl Code {
            /// As it stands in the body.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// The HTTP status.
            pub fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)*
                }
            }

            /// The words where there is nothing to add.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

codes! {
    AccessDenied => 403 "Access denied",
    BadDigest => 400 "The checksum you specified did not match what we received.",
    BucketAlreadyExists => 409 "The resource already exists",
    DatabaseTimeout => 544 "The connection to the database timed out",
    EntityTooLarge => 413 "The object exceeded the maximum allowed size",
    EntityTooSmall => 400 "Your proposed upload is smaller than the minimum allowed object size.",
    ExpiredToken => 400 "The provided token has expired.",
    IncompleteBody => 400 "You did not provide the number of bytes specified by the Content-Length HTTP header.",
    InsufficientStorage => 507 "There is no space left for the object",
    InternalError => 500 "Internal server error",
    InvalidAccessKeyId => 403 "The Access Key Id you provided does not exist in our records.",
    InvalidBucketName => 400 "Bucket name invalid",
    InvalidDigest => 400 "The Content-MD5 or checksum value that you specified is not valid.",
    InvalidJWT => 400 "Invalid JWT",
    InvalidKey => 400 "Invalid key",
    InvalidMimeType => 415 "mime type is not supported",
    InvalidParameter => 400 "Invalid Parameter",
    InvalidPart => 400 "One or more of the specified parts could not be found.",
    InvalidPartOrder => 400 "The list of parts was not in ascending order.",
    InvalidRange => 416 "The requested range is not satisfiable",
    InvalidRequest => 400 "Invalid Request",
    InvalidSignature => 400 "Invalid signature",
    KeyAlreadyExists => 409 "The resource already exists",
    MalformedXML => 400 "The XML that you provided was not well formed or did not validate against our published schema.",
    MethodNotAllowed => 405 "The specified method is not allowed against this resource.",
    MissingContentLength => 400 "You must provide the Content-Length HTTP header.",
    MissingParameter => 400 "Missing Required Parameter",
    NoSuchBucket => 404 "Bucket not found",
    NoSuchKey => 404 "Object not found",
    NoSuchUpload => 404 "Upload not found",
    NotImplemented => 501 "A header or query you provided implies functionality that is not implemented.",
    PreconditionFailed => 412 "At least one of the preconditions that you specified did not hold.",
    RequestTimeTooSkewed => 403 "The difference between the request time and the server's time is too large.",
    RequestTimeout => 400 "Your socket connection to the server was not read from or written to within the timeout period.",
    ResourceLocked => 423 "The resource is locked",
    ResourceNotEmpty => 409 "The bucket you tried to delete is not empty",
    ResourceReferenced => 409 "The bucket is referenced by a pending multipart upload.",
    SignatureDoesNotMatch => 403 "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
    SlowDown => 503 "Please reduce your request rate.",
    XAmzContentSHA256Mismatch => 400 "The provided 'x-amz-content-sha256' header does not match what was computed.",
}

/// A refusal in S3's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub struct Error {
    pub code: Code,
    pub message: Cow<'static, str>,
}

impl Error {
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    /// The body. `resource` is what was asked for: the bucket, or the bucket and the key.
    pub fn body(&self, resource: &str) -> String {
        let mut document = Document::bare("Error");
        document.text("Resource", resource);
        document.text("Code", self.code.name());
        document.text("Message", &self.message);
        document.finish()
    }
}

impl From<Code> for Error {
    fn from(code: Code) -> Self {
        Self { code, message: Cow::Borrowed(code.text()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_document() {
        let error = Error::new(Code::NoSuchKey, "no <such> key");
        assert_eq!(error.code.status(), 404);
        assert_eq!(
            error.body("photos/a&b"),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <Error><Resource>photos/a&amp;b</Resource>\
             <Code>NoSuchKey</Code><Message>no &lt;such&gt; key</Message></Error>"
        );
    }
}
