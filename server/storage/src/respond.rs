//! Answers in storage-api's form.

use http::{Extensions, HeaderValue, Response, StatusCode, header};
use ntier_protocol::storage::error::Code;
use serde_json::{Value, json};

use crate::body::{self, Body};
use crate::error::Error;

/// When to come again, in seconds, where the fault is ours and passes.
pub const AGAIN: HeaderValue = HeaderValue::from_static("1");

pub fn json(value: &Value) -> Response<Body> {
    text(value.to_string())
}

/// Text that is JSON already.
pub fn text(json: String) -> Response<Body> {
    let mut response = Response::new(body::full(json));
    let media_type = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

pub fn message(message: &str) -> Response<Body> {
    json(&json!({ "message": message }))
}

pub fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = status;
    response
}

/// What the log is told beside the answer.
pub fn because(error: &Error) -> Extensions {
    let mut extensions = Extensions::new();
    if let Some(cause) = error.cause() {
        extensions.insert(cause);
    }
    extensions
}

pub fn error(error: &Error) -> Response<Body> {
    let wire = error.wire();
    let mut response = json(&wire.body());
    *response.status_mut() = StatusCode::from_u16(wire.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    // What is not there now may be there soon.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if wire.code == Code::SlowDown {
        headers.insert(header::RETRY_AFTER, AGAIN);
    }
    response.extensions_mut().extend(because(error));
    response
}

pub fn not_found() -> Response<Body> {
    let mut response =
        json(&json!({ "statusCode": "404", "error": "Not Found", "code": "NotFound", "message": "Route not found" }));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}
