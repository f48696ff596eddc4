//! From the headers of a request to its caller, and the words for those who are not let in.
//!
//! The bodies without a PGRST code are those of Supabase's gateway; clients show them to their users.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use ntier_security::UnixTime;
use ntier_security::caller::{Caller, Credentials, Doorkeeper, Refusal};
use ntier_security::intrusion::Event;
use serde_json::json;

const APIKEY: HeaderName = HeaderName::from_static("apikey");

pub fn caller(doorkeeper: &Doorkeeper, headers: &HeaderMap) -> Result<Caller, Refusal> {
    doorkeeper.identify(credentials(headers), now())
}

/// Whether the application may ask, whoever is signed in.
pub fn admit(doorkeeper: &Doorkeeper, headers: &HeaderMap) -> Result<(), Refusal> {
    doorkeeper.admit(credentials(headers), now())
}

fn credentials(headers: &HeaderMap) -> Credentials<'_> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    Credentials {
        apikey: text(APIKEY),
        authorization: text(header::AUTHORIZATION),
        user_agent: text(header::USER_AGENT),
    }
}

fn now() -> UnixTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    i64::try_from(now).unwrap_or(UnixTime::MAX)
}

pub fn refuse(refusal: &Refusal) -> Response<Bytes> {
    let body = match refusal {
        Refusal::NoKey => json!({
            "message": "No API key found in request",
            "hint": "No `apikey` request header or url param was found.",
        }),
        Refusal::UnknownKey => json!({
            "message": "Invalid API key",
            "hint": "Double check your Supabase `anon` or `service_role` API key.",
        }),
        Refusal::SecretInBrowser => json!({
            "message": "Forbidden use of secret API key in browser",
            "hint": "Secret API keys can only be used in a protected environment and should never be used in a browser.",
        }),
        Refusal::Token(token) => {
            json!({ "code": token.code(), "details": token.details(), "hint": null, "message": token.to_string() })
        }
    };
    let mut response = super::json(StatusCode::UNAUTHORIZED, body.to_string());
    if is_forged(refusal) {
        response.extensions_mut().insert(Event::WrongKey);
    }
    let challenge = match refusal {
        Refusal::Token(token) => format!("Bearer error=\"invalid_token\", error_description=\"{token}\""),
        _ => "Bearer".into(),
    };
    if let Ok(challenge) = HeaderValue::from_str(&challenge) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// Whether it was shown something that never was ours; what is only too old is not.
fn is_forged(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::UnknownKey | Refusal::SecretInBrowser => true,
        Refusal::NoKey => false,
        Refusal::Token(token) => token.is_forged(),
    }
}

/// The description names every table and column: it is for those who hold a secret key (checklist Z6).
pub fn refuse_description() -> Response<Bytes> {
    let body = json!({
        "message": "Access to schema is forbidden",
        "hint": "Accessing the schema via the Data API is only allowed using a secret API key.",
    });
    super::json(StatusCode::FORBIDDEN, body.to_string())
}
