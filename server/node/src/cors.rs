//! Cross-origin requests: any page may ask, because it is the key and the token that count, and cookies never do.
//!
//! Source: the Fetch standard; PostgREST's own answers. There are no credentials with `*` (checklist H7).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};

/// Asked for by the clients of Supabase's libraries; more is reflected from the request.
const HEADERS: &str = "authorization, apikey, content-type, accept, accept-profile, content-profile, prefer, range, \
    range-unit, x-client-info, x-supabase-api-version, x-retry-count, x-region, x-upsert, x-metadata, traceparent, \
    tracestate, baggage";
const EXPOSED: &str = "Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Location, Server, \
    Transfer-Encoding, Range-Unit, Preference-Applied, Retry-After";

pub fn is_preflight<T>(request: &Request<T>) -> bool {
    let headers = request.headers();
    request.method() == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Answers a preflight.
pub fn preflight<T>(request: &Request<T>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::OK;
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    );
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.unwrap_or_else(|| HeaderValue::from_static(HEADERS)));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    headers.insert(header::VARY, HeaderValue::from_static("access-control-request-headers"));
    response
}

/// What every answer tells a browser.
pub fn expose(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
}
