//! Who asks where there are no API keys: the bearer of a token, or the anonymous role, as PostgREST decides it.
//!
//! Source: PostgREST, "Authentication" and its error group 3.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::UnixTime;
use crate::caller::{self, Caller};
use crate::role_path::RolePath;
use crate::token::{self, Verifier};
use crate::verified::Memory;

/// Knows who may have signed a token, and where in it the role stands.
pub struct Bearers {
    /// `None` where no secret was configured.
    pub verifier: Option<Verifier>,
    pub role_path: RolePath,
    /// Who comes without a token, or with one that names no role.
    pub anonymous: Option<String>,
    verified: Memory,
}

/// Why nobody is let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("Server lacks JWT secret")]
    NoSecret,
    #[error("Anonymous access is disabled")]
    TokenRequired,
    #[error("{0}")]
    Token(#[from] token::Refusal),
}

impl Refusal {
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSecret => "PGRST300",
            Self::TokenRequired => "PGRST302",
            Self::Token(refusal) => refusal.code(),
        }
    }
}

impl std::fmt::Debug for Bearers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Bearers").field("anonymous", &self.anonymous).finish_non_exhaustive()
    }
}

impl Bearers {
    /// `remembered`: how many verified tokens are kept.
    pub fn new(verifier: Option<Verifier>, role_path: RolePath, anonymous: Option<String>, remembered: usize) -> Self {
        Self { verifier, role_path, anonymous, verified: Memory::new(remembered) }
    }

    /// Decides who asks, by the `Authorization` header.
    pub fn identify(&self, authorization: Option<&str>, now: UnixTime) -> Result<Caller, Refusal> {
        let Some(token) = authorization.and_then(caller::bearer) else {
            return self.caller(Map::new(), None);
        };
        if let Some(caller) = self.verified.get(token, now) {
            return Ok(caller);
        }
        let verifier = self.verifier.as_ref().ok_or(Refusal::NoSecret)?;
        let verified = verifier.verify(token, now)?;
        let claims = serde_json::from_str(&verified.claims).map_err(|_| token::Refusal::Claims)?;
        let caller = self.caller(claims, Some(verified.claims))?;
        self.verified.remember(token, caller.clone(), verified.expires, now);
        Ok(caller)
    }

    /// The role that the claims name; the database sees it among them, wherever it stood.
    fn caller(&self, claims: Map<String, Value>, text: Option<String>) -> Result<Caller, Refusal> {
        let claims = Value::Object(claims);
        let said = self.role_path.role(&claims);
        let role = said.or_else(|| self.anonymous.clone()).ok_or(Refusal::TokenRequired)?;
        let text = match text {
            Some(text) if claims["role"] == role.as_str() => text,
            _ => {
                let mut claims = claims;
                claims["role"] = role.as_str().into();
                claims.to_string()
            }
        };
        Ok(Caller { is_anonymous: Some(&role) == self.anonymous.as_ref(), role, claims: Arc::from(text) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{KeyIds, SigningKey, VerifyingKey, sign};

    const SECRET: &[u8] = b"a secret that is long enough for HS256";
    const NOW: UnixTime = 1_800_000_000;

    fn bearers(anonymous: Option<&str>, path: &str) -> Bearers {
        let verifier = Verifier::new(vec![VerifyingKey::hmac(SECRET)], KeyIds::Exact, None);
        Bearers::new(Some(verifier), RolePath::parse(path).unwrap(), anonymous.map(str::to_owned), 10)
    }

    fn header(claims: &str) -> String {
        format!("Bearer {}", sign(claims, &SigningKey::Hmac(SECRET)).unwrap())
    }

    #[test]
    fn the_role_comes_from_the_token_or_is_anonymous() {
        let bearers = bearers(Some("web_anon"), "$.role");
        let ask = |header: Option<&str>| bearers.identify(header, NOW);
        let nobody = ask(None).unwrap();
        assert_eq!((nobody.role.as_str(), nobody.is_anonymous), ("web_anon", true));
        assert_eq!(&*nobody.claims, r#"{"role":"web_anon"}"#);
        let user = ask(Some(&header(r#"{"role": "user"}"#))).unwrap();
        assert_eq!((user.role.as_str(), user.is_anonymous, &*user.claims), ("user", false, r#"{"role": "user"}"#));
        assert_eq!(ask(Some(&header("{}"))).unwrap().role, "web_anon");
        assert_eq!(ask(Some("Basic eDp5")).unwrap().role, "web_anon");
        assert_eq!(ask(Some("Bearer ")), Err(token::Refusal::Empty.into()));
    }

    #[test]
    fn the_role_may_stand_elsewhere() {
        let bearers = bearers(None, "$.app.roles[1]");
        let caller = bearers.identify(Some(&header(r#"{"app":{"roles":["a","b"]}}"#)), NOW).unwrap();
        assert_eq!((caller.role.as_str(), &*caller.claims), ("b", r#"{"app":{"roles":["a","b"]},"role":"b"}"#));
        assert_eq!(bearers.identify(Some(&header(r#"{"role":"x"}"#)), NOW), Err(Refusal::TokenRequired));
        assert_eq!(bearers.identify(None, NOW), Err(Refusal::TokenRequired));
    }

    #[test]
    fn without_a_secret_no_token_is_taken() {
        let bearers = Bearers::new(None, RolePath::default(), Some("anon".into()), 10);
        assert_eq!(bearers.identify(Some(&header("{}")), NOW), Err(Refusal::NoSecret));
        assert!(bearers.identify(None, NOW).is_ok());
    }
}
