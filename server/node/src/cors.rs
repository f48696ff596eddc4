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
    Transfer-Encoding, Range-Unit, Preference-Applied, Retry-After, Idempotency-Replayed, ETag, Last-Modified, Accept-Ranges, \
    Content-Disposition, Content-Length, Upload-Offset, Upload-Length, Upload-Expires, Upload-Metadata, Upload-Defer-Length, \
    Tus-Version, Tus-Resumable, Tus-Max-Size, Tus-Extension, Tus-Checksum-Algorithm, X-Transformations";

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

/// Asked and answered as PostgREST has it.
const METHODS: &str = "GET, POST, PATCH, PUT, DELETE, OPTIONS, HEAD";
const LISTED_EXPOSED: &str = "Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Location, Server, \
    Transfer-Encoding, Range-Unit";

/// What to answer to the page's origin: `*` where all may ask, itself where it is among those that may. `None` for a request
/// that is not from another origin, or from one that may not.
pub fn origin(allowed: &[String], headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    if allowed.is_empty() {
        return Some(HeaderValue::from_static("*"));
    }
    allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
}

/// Answers a preflight from an origin that may ask.
pub fn listed_preflight<T>(request: &Request<T>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).and_then(|value| value.to_str().ok());
    let asked = asked.into_iter().flat_map(|list| list.split(',')).map(str::trim).filter(|name| !name.is_empty());
    let simple = ["Accept", "Accept-Language", "Content-Language"];
    let all: Vec<&str> = std::iter::once("Authorization").chain(asked).chain(simple).collect();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    if let Ok(list) = HeaderValue::from_str(&all.join(", ")) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, list);
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

/// Tells the browser that the page may see the answer; with credentials where its origin was listed by name.
pub fn allow(headers: &mut HeaderMap, origin: HeaderValue, listed: bool) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(LISTED_EXPOSED));
    if listed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        // Another origin gets another answer.
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}
