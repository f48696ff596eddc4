//! The data API alone, at the root, as PostgREST serves it: callers by their token, cross-origin rules as it has them.
//!
//! Source: PostgREST, "Authentication", "CORS" and "Observability".

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use ntier_rest::{Identified, Rest};
use ntier_security::bearer::{Bearers, Refusal};
use serde_json::{Value, json};

use crate::cors;

#[derive(Debug)]
pub struct DataApi {
    pub rest: Arc<Rest>,
    front: RwLock<Arc<Front>>,
}

/// What stands before the data; it is exchanged as a whole when the settings change.
#[derive(Debug)]
pub struct Front {
    pub bearers: Bearers,
    /// Pages of these origins may ask; empty for all.
    pub origins: Vec<String>,
    /// Answered as it came, so that both ends can find the request again.
    pub trace_header: Option<HeaderName>,
    /// Errors have `details` and `hint`.
    pub verbose_errors: bool,
}

impl DataApi {
    pub fn new(rest: Arc<Rest>, front: Front) -> Self {
        Self { rest, front: RwLock::new(Arc::new(front)) }
    }

    /// Puts another in force.
    pub fn set_front(&self, front: Front) {
        *self.front.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(front);
    }

    pub(crate) async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        let front = self.front.read().unwrap_or_else(PoisonError::into_inner).clone();
        let trace = front.trace_header.clone().map(|name| {
            let value = request.headers().get(&name).cloned();
            (name, value.unwrap_or(HeaderValue::from_static("")))
        });
        let origin = cors::origin(&front.origins, request.headers());
        let mut response = match &origin {
            Some(_) if cors::is_preflight(&request) => cors::listed_preflight(&request),
            _ => self.identified(&front, request).await,
        };
        let headers = response.headers_mut();
        if let Some(origin) = origin {
            cors::allow(headers, origin, !front.origins.is_empty());
        }
        headers.extend(trace);
        response
    }

    async fn identified(&self, front: &Front, request: Request<Bytes>) -> Response<Bytes> {
        let begun = Instant::now();
        let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        match front.bearers.identify(authorization, i64::try_from(now).unwrap_or(i64::MAX)) {
            Ok(caller) => {
                let who = Identified { caller: &caller, took: begun.elapsed() };
                ntier_rest::answer(&self.rest, who, request).await
            }
            Err(refusal) => refuse(&refusal, front.verbose_errors),
        }
    }
}

fn refuse(refusal: &Refusal, verbose: bool) -> Response<Bytes> {
    let (code, message) = (refusal.code(), refusal.to_string());
    let details = match refusal {
        Refusal::Token(token) => token.details().map_or(Value::Null, Value::from),
        Refusal::NoSecret | Refusal::TokenRequired => Value::Null,
    };
    let body = if verbose {
        json!({ "code": code, "details": details, "hint": null, "message": message })
    } else {
        json!({ "code": code, "message": message })
    };
    let (status, challenge) = match refusal {
        Refusal::NoSecret => (StatusCode::INTERNAL_SERVER_ERROR, None),
        Refusal::TokenRequired => (StatusCode::UNAUTHORIZED, Some("Bearer".to_owned())),
        Refusal::Token(_) => {
            let challenge = format!("Bearer error=\"invalid_token\", error_description={message:?}");
            (StatusCode::UNAUTHORIZED, Some(challenge))
        }
    };
    let mut response = crate::json(status, body.to_string());
    let mut set = |name: HeaderName, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            response.headers_mut().insert(name, value);
        }
    };
    if let Some(challenge) = challenge {
        set(header::WWW_AUTHENTICATE, &challenge);
    }
    set(HeaderName::from_static("proxy-status"), &format!("PostgREST; error={code}"));
    response
}
