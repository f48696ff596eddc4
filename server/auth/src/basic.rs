//! E-mail and password with each request, for programs that know nothing else, such as file managers. A password is checked as at
//! sign-in, with its limits, and then not again for some minutes: each check is meant to cost.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::Auth;

/// How long a token is given out again.
const LONGEST: Duration = Duration::from_mins(5);
/// Users who are remembered.
const MOST: usize = 1000;

/// Tokens of those whose password was right a moment ago, by an HMAC of what they showed. On this node alone.
#[derive(Debug, Default)]
pub struct Remembered(Mutex<HashMap<String, Known>>);

struct Known {
    token: String,
    until: Instant,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Known").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Remembered {
    fn get(&self, key: &str, now: Instant) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).filter(|known| known.until > now).map(|known| known.token.clone())
    }

    fn put(&self, key: String, token: String, now: Instant, until: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.retain(|_, known| known.until > now);
        }
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, Known { token, until });
    }
}

impl Auth {
    /// The access token of the user who has this e-mail and password, or the refusal of `POST /token?grant_type=password`.
    /// `address` is the client's.
    pub async fn token_of(
        &self,
        address: IpAddr,
        user_agent: Option<&http::HeaderValue>,
        email: &str,
        password: &str,
    ) -> Result<String, Response<Bytes>> {
        let (now, key) = (Instant::now(), self.codes.hash("basic", &json!([email, password]).to_string()));
        if let Some(token) = self.remembered.get(&key, now) {
            return Ok(token);
        }
        let body = json!({ "email": email, "password": password }).to_string();
        let mut request = Request::new(Bytes::from(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = http::Uri::from_static("/token?grant_type=password");
        if let Some(user_agent) = user_agent {
            request.headers_mut().insert(http::header::USER_AGENT, user_agent.clone());
        }
        let response = self.answer("/token", address, request).await;
        let session: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        match session["access_token"].as_str() {
            Some(token) if response.status().is_success() => {
                let lasts = Duration::from_secs(session["expires_in"].as_u64().unwrap_or_default() / 2);
                self.remembered.put(key, token.to_owned(), now, now + lasts.min(LONGEST));
                Ok(token.to_owned())
            }
            _ => Err(response),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_remembered_for_a_while_and_not_by_all() {
        let (remembered, now) = (Remembered::default(), Instant::now());
        let later = now + LONGEST;
        remembered.put("a".into(), "token".into(), now, later);
        assert_eq!(remembered.get("a", now).as_deref(), Some("token"));
        assert_eq!(remembered.get("a", later), None);
        assert_eq!(remembered.get("b", now), None);
        for number in 0..2 * MOST {
            remembered.put(number.to_string(), "token".into(), now, later);
        }
        assert!(remembered.0.lock().unwrap().len() <= MOST);
    }
}
