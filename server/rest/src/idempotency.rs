//! Writes that may be sent again: the same key has one effect, and gives the same answer, on any node.
//!
//! The key and what the write gave are kept in the transaction of the write itself. Whoever comes with the same key meanwhile waits
//! for that transaction, as PostgreSQL makes inserts of the same primary key wait; afterwards the answer is made again of what was
//! kept. A write that failed has kept nothing, and may be tried again.
//!
//! Source: draft-ietf-httpapi-idempotency-key-header.

use std::fmt::Write;

use aws_lc_rs::digest::{Context, SHA256};
use http::request::Parts;
use ntier_backing::database::{Refusal, Statement};
use ntier_security::caller::Caller;

use crate::error::Error;

/// A key as its request gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Role and subject: nobody sees what another has kept.
    pub caller: String,
    /// As the client chose it.
    pub name: String,
    /// Of everything in the request that decides its effect and its answer.
    pub fingerprint: String,
}

/// Longer ones are refused; a UUID has 36 characters.
const LONGEST: usize = 255;
/// Parts of a request, besides target and body, that decide what it does.
const HEADERS: [&str; 6] = ["accept", "accept-profile", "content-profile", "content-type", "prefer", "range"];

impl Key {
    /// The key of a request, if it has one. With the quotes of a structured field or without.
    pub fn of(head: &Parts, body: &[u8], caller: &Caller) -> Result<Option<Self>, Error> {
        let Some(value) = head.headers.get("idempotency-key") else { return Ok(None) };
        let text = value.to_str().map_err(|_| Error::IdempotencyKey)?.trim();
        let key = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        if key.is_empty() || key.len() > LONGEST || key.contains('"') {
            return Err(Error::IdempotencyKey);
        }
        let claims: serde_json::Value = serde_json::from_str(&caller.claims).unwrap_or_default();
        let subject = claims["sub"].as_str().unwrap_or_default();
        Ok(Some(Self {
            caller: format!("{}|{subject}", caller.role),
            name: key.to_owned(),
            fingerprint: fingerprint(head, body),
        }))
    }

    /// In order: what is expired goes, and the key is kept, which waits for and fails with whoever has it already.
    pub fn keep(&self) -> [Statement; 2] {
        let expired = "DELETE FROM ntier.idempotency_keys WHERE caller = $1 AND key = $2 AND created_at < now() - interval '1 day'";
        let insert = "INSERT INTO ntier.idempotency_keys (caller, key, fingerprint) VALUES ($1, $2, $3)";
        [
            statement(expired, &[&self.caller, &self.name]),
            statement(insert, &[&self.caller, &self.name, &self.fingerprint]),
        ]
    }

    /// Keeps what the main statement has left in `ntier.answer`.
    pub fn keep_answer(&self) -> Statement {
        let update = "UPDATE ntier.idempotency_keys SET answer = current_setting('ntier.answer')::json WHERE caller = $1 AND key = $2";
        statement(update, &[&self.caller, &self.name])
    }

    /// Keeps what a batch has left in `ntier.answers`.
    pub fn keep_answers(&self) -> Statement {
        let update = "UPDATE ntier.idempotency_keys SET answer = ('[' || current_setting('ntier.answers', true) || ']')::json \
            WHERE caller = $1 AND key = $2";
        statement(update, &[&self.caller, &self.name])
    }

    /// What was kept: fingerprint and answer.
    pub fn recall(&self) -> Statement {
        let select = "SELECT fingerprint, answer FROM ntier.idempotency_keys WHERE caller = $1 AND key = $2";
        statement(select, &[&self.caller, &self.name])
    }
}

/// Whether somebody has the key already.
pub fn is_taken(refusal: &Refusal) -> bool {
    refusal.code == "23505" && refusal.message.contains("\"idempotency_keys_pkey\"")
}

fn statement(text: &str, values: &[&String]) -> Statement {
    Statement { text: text.into(), parameters: values.iter().map(|value| Some((*value).clone().into())).collect() }
}

fn fingerprint(head: &Parts, body: &[u8]) -> String {
    let mut context = Context::new(&SHA256);
    let mut part = |bytes: &[u8]| {
        // With its length, so that no two requests look alike.
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    part(head.method.as_str().as_bytes());
    part(head.uri.to_string().as_bytes());
    for name in HEADERS {
        part(head.headers.get(name).map(http::HeaderValue::as_bytes).unwrap_or_default());
    }
    part(body);
    context.finish().as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(header: &str, path: &str, body: &str) -> Result<Option<Key>, Error> {
        let request = http::Request::post(path).header("idempotency-key", header).body(()).unwrap();
        let claims = r#"{"role":"authenticated","sub":"u1","exp":9}"#.into();
        let caller = Caller { role: "authenticated".into(), claims, is_anonymous: false };
        Key::of(&request.into_parts().0, body.as_bytes(), &caller)
    }

    #[test]
    fn a_key_is_its_callers_and_its_requests() {
        let one = key("\"k1\"", "/a?b=1", "x").unwrap().unwrap();
        assert_eq!((one.caller.as_str(), one.name.as_str()), ("authenticated|u1", "k1"));
        assert_eq!(key("k1", "/a?b=1", "x").unwrap().unwrap(), one);
        for (path, body) in [("/a?b=2", "x"), ("/a?b=1", "y")] {
            assert_ne!(key("k1", path, body).unwrap().unwrap().fingerprint, one.fingerprint);
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for header in ["", "\"\"", "a\"b", &"k".repeat(256)] {
            assert!(matches!(key(header, "/a", ""), Err(Error::IdempotencyKey)), "{header}");
        }
    }
}
