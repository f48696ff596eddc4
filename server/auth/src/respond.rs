//! Answers, and what errors become on the wire.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use ntier_backing::database;
use ntier_protocol::auth::error::{Error as Refused, Version};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::external::named;
use crate::settings::Settings;
use crate::user;

/// JSON that nobody may keep: it has tokens, or somebody's data.
pub fn json(status: u16, body: &impl Serialize) -> Response<Bytes> {
    let mut response = Response::new(serde_json::to_vec(body).unwrap_or_default().into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub fn nothing() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

pub fn not_found() -> Response<Bytes> {
    json(404, &json!({ "code": 404, "msg": "requested path is invalid" }))
}

pub fn error(error: &Error, version: Version) -> Response<Bytes> {
    let (refused, retry) = match error {
        Error::Refused(refused) => (refused.clone(), None),
        Error::Database(database::Error::Unavailable(_) | database::Error::Overloaded) => {
            (Refused { status: 503, ..Refused::unexpected() }, Some("1"))
        }
        Error::Database(database::Error::Deadline) => (Refused { status: 504, ..Refused::unexpected() }, None),
        // Two asked for the same at once.
        Error::Taken(what) => (user::exists(what), None),
        Error::OAuth(refused) => return json(refused.status, &refused.body()),
        Error::Database(_)
        | Error::Changed(_)
        | Error::Incomplete
        | Error::Hashing
        | Error::Signing
        | Error::Random => (Refused::unexpected(), None),
    };
    let mut response = json(refused.status, &refused.body(version));
    let headers = response.headers_mut();
    headers.insert("x-sb-error-code", HeaderValue::from_static(refused.code.text()));
    if let Some(version) = version.echo() {
        headers.insert("x-supabase-api-version", HeaderValue::from_static(version));
    }
    if let Some(seconds) = retry {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(seconds));
    }
    response
}

/// `GET /settings`.
pub fn settings(settings: &Settings) -> Response<Bytes> {
    let is_on = |name: &str| settings.external.iter().any(|external| external.name == name);
    let known = named::ALL.iter().map(|named| named.name).chain(named::NOT_SERVED.iter().copied());
    let own = settings.external.iter().map(|external| external.name.as_str());
    let mut external: Map<String, Value> = known.chain(own).map(|name| (name.to_owned(), is_on(name).into())).collect();
    for (name, is_on) in [("anonymous_users", settings.anonymous), ("email", settings.email), ("phone", settings.phone)]
    {
        external.insert(name.to_owned(), is_on.into());
    }
    json(
        200,
        &json!({
            "external": external,
            "disable_signup": !settings.signup,
            "mailer_autoconfirm": settings.email_autoconfirm,
            "phone_autoconfirm": settings.phone_autoconfirm,
            "sms_provider": if settings.sms.service.is_some() { "twilio" } else { "" },
            "saml_enabled": false,
            "saml_private_key_next_configured": false,
            "passkeys_enabled": settings.passkeys,
        }),
    )
}
