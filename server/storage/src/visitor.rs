//! What a request says of itself and of whoever sends it, parsed once.

use std::time::{SystemTime, UNIX_EPOCH};

use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, header};
use ntier_protocol::storage::condition::Conditions;
use ntier_protocol::storage::error::{Code, Error as Wire};
use ntier_protocol::storage::name::{BucketId, ObjectKey};
use ntier_security::UnixTime;
use ntier_security::caller::{Caller, Credentials, Doorkeeper};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::error::Error;

/// A request without its body.
#[derive(Debug)]
pub struct Visitor {
    pub method: Method,
    pub headers: HeaderMap,
    /// Behind the API's prefix, decoded step by step.
    pub path: Vec<String>,
    /// As it came.
    pub raw_path: String,
    query: Vec<(String, String)>,
    who: Result<Option<Caller>, Wire>,
}

impl Visitor {
    /// `path` is what follows `/storage/v1`.
    pub fn new(parts: Parts, path: &str, doorkeeper: &Doorkeeper) -> Result<Self, Error> {
        let steps: Result<Vec<String>, Wire> = path.split('/').skip(1).map(step).collect();
        let query = pairs(parts.uri.query().unwrap_or_default());
        let who = who(doorkeeper, &parts.headers);
        Ok(Self { method: parts.method, headers: parts.headers, path: steps?, raw_path: path.to_owned(), query, who })
    }

    /// Somebody who is known already, by a signature over the request. The path is not taken apart.
    pub fn known(parts: Parts, path: &str, caller: Caller) -> Self {
        let query = pairs(parts.uri.query().unwrap_or_default());
        let (method, headers) = (parts.method, parts.headers);
        Self { method, headers, path: Vec::new(), raw_path: path.to_owned(), query, who: Ok(Some(caller)) }
    }

    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn text(&self, name: &'static str) -> Option<&str> {
        self.header(&HeaderName::from_static(name))
    }

    /// A parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Who is signed in, or whose key was shown.
    pub fn caller(&self) -> Result<&Caller, Error> {
        match &self.who {
            Ok(Some(caller)) => Ok(caller),
            // Supabase's gateway hands on an empty token, and storage-api says this of it.
            Ok(None) => Err(Wire::new(Code::AccessDenied, "Invalid Compact JWS").into()),
            Err(refusal) => Err(refusal.clone().into()),
        }
    }

    /// Likewise, where strangers may ask too, and whoever has a token that is not valid is one.
    pub fn caller_if_any(&self) -> Option<&Caller> {
        self.who.as_ref().ok().and_then(Option::as_ref)
    }

    pub fn upsert(&self) -> bool {
        self.text("x-upsert") == Some("true")
    }

    /// The length of the body, where it is said.
    pub fn content_length(&self) -> Option<u64> {
        self.header(&header::CONTENT_LENGTH)?.parse().ok()
    }

    pub fn conditions(&self) -> Conditions<'_> {
        Conditions {
            if_match: self.header(&header::IF_MATCH),
            if_none_match: self.header(&header::IF_NONE_MATCH),
            if_modified_since: self.header(&header::IF_MODIFIED_SINCE),
            if_unmodified_since: self.header(&header::IF_UNMODIFIED_SINCE),
            if_range: self.header(&header::IF_RANGE),
        }
    }
}

/// The bucket and the object that the steps of a path name.
pub fn place(bucket: &str, key: &[String]) -> Result<(BucketId, ObjectKey), Error> {
    Ok((BucketId::parse(bucket)?, ObjectKey::parse(&key.join("/"))?))
}

/// The user's id, who will own what is made.
pub fn owner(caller: &Caller) -> Option<String> {
    let claims: Value = serde_json::from_str(&caller.claims).ok()?;
    claims.get("sub")?.as_str().filter(|sub| !sub.is_empty()).map(str::to_owned)
}

pub fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// As storage-api has it: the bearer says who asks; without one the key does, and without that nobody.
fn who(doorkeeper: &Doorkeeper, headers: &HeaderMap) -> Result<Option<Caller>, Wire> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let authorization = text(header::AUTHORIZATION).filter(|value| is_bearer(value));
    let apikey = text(HeaderName::from_static("apikey"));
    let credentials = Credentials { apikey, authorization, user_agent: text(header::USER_AGENT) };
    let who = match (authorization, apikey) {
        (Some(_), _) => doorkeeper.holder(credentials, now()),
        (None, Some(_)) => doorkeeper.identify(credentials, now()),
        (None, None) => return Ok(None),
    };
    match who {
        Ok(caller) => Ok(Some(caller)),
        Err(ntier_security::caller::Refusal::NoKey) => Ok(None),
        Err(refusal) => Err(Wire::new(Code::AccessDenied, refusal.to_string())),
    }
}

fn is_bearer(value: &str) -> bool {
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()
}

/// A step of a path. What would be another path once it is decoded is none (checklist F2).
pub fn step(raw: &str) -> Result<String, Wire> {
    let refuse = || {
        let shown: String = raw.chars().take(200).collect();
        Wire::new(Code::InvalidKey, format!("Invalid key: {shown}"))
    };
    let decoded = percent_decode_str(raw).decode_utf8().map_err(|_| refuse())?;
    if decoded.contains('/') { Err(refuse()) } else { Ok(decoded.into_owned()) }
}

/// The pairs of a query.
fn pairs(text: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().replace('\0', "");
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    };
    text.split('&').filter(|text| !text.is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_f2_a_step_stays_one() {
        for (raw, expected) in [
            ("a%20b", Some("a b")),
            ("%C3%A9", Some("é")),
            ("a+b", Some("a+b")),
            ("a%2fb", None),
            ("..%2F..", None),
            ("%ff", None),
            ("a%252fb", Some("a%2fb")),
        ] {
            assert_eq!(step(raw).ok().as_deref(), expected, "{raw}");
        }
    }
}
