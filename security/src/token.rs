//! JSON Web Tokens: verified with an allow-list of algorithms bound to keys, signed for keys and sessions.
//!
//! The algorithm is the key's, never the token's choice: an HMAC secret verifies HS256 only, an elliptic key ES256 only
//! (RFC 8725, 3.1). `jku`, `x5u` and `jwk` headers are not looked at. Times have the 30 seconds of leeway that
//! PostgREST gives. The messages are PostgREST's (its Errors page, group 3).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde_json::{Map, Value};

use crate::UnixTime;

/// Clocks may differ by this many seconds.
const LEEWAY: i64 = 30;

/// Keys that may have signed a token.
#[derive(Clone)]
pub struct Verifier {
    keys: Vec<VerifyingKey>,
    /// A token that names audiences must name this one.
    pub audience: Option<String>,
}

/// A key, and the one algorithm it is for.
#[derive(Clone)]
pub struct VerifyingKey {
    pub id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl VerifyingKey {
    /// HS256.
    pub fn hmac(secret: &[u8]) -> Self {
        Self { id: None, algorithm: Algorithm::HS256, key: DecodingKey::from_secret(secret) }
    }

    /// ES256, from the base64url coordinates of a JWK.
    pub fn elliptic(id: Option<String>, x: &str, y: &str) -> Result<Self, Refusal> {
        let key = DecodingKey::from_ec_components(x, y).map_err(|_| Refusal::NoKey)?;
        Ok(Self { id, algorithm: Algorithm::ES256, key })
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|key| (&key.id, key.algorithm)).collect();
        out.debug_struct("Verifier").field("keys", &ids).field("audience", &self.audience).finish()
    }
}

/// A token whose signature and times hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The claims as the token has them, JSON text.
    pub claims: String,
    pub role: Option<String>,
    /// From then on it is refused; `None` never.
    pub expires: Option<UnixTime>,
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("Empty JWT is sent in Authorization header")]
    Empty,
    #[error("Expected 3 parts in JWT; got {0}")]
    Parts(usize),
    #[error("JWT couldn't be decoded")]
    Malformed,
    #[error("Wrong or unsupported encoding algorithm")]
    Algorithm(String),
    #[error("No suitable key or wrong key type")]
    NoKey,
    #[error("JWT cryptographic operation failed")]
    Signature,
    #[error("Parsing claims failed")]
    Claims,
    #[error("JWT expired")]
    Expired,
    #[error("JWT not yet valid")]
    NotYetValid,
    #[error("JWT issued at future")]
    IssuedInFuture,
    #[error("JWT not in audience")]
    Audience,
    #[error("The JWT '{0}' claim must be a number")]
    NotANumber(&'static str),
    #[error("The JWT 'aud' claim must be a string or an array of strings")]
    AudienceType,
}

impl Refusal {
    /// PostgREST's code: 301 for what cannot be decoded, 303 for claims that do not hold.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty | Self::Parts(_) | Self::Malformed | Self::Algorithm(_) | Self::NoKey | Self::Signature => {
                "PGRST301"
            }
            Self::Claims
            | Self::Expired
            | Self::NotYetValid
            | Self::IssuedInFuture
            | Self::Audience
            | Self::NotANumber(_)
            | Self::AudienceType => "PGRST303",
        }
    }
}

impl Verifier {
    pub fn new(keys: Vec<VerifyingKey>, audience: Option<String>) -> Self {
        Self { keys, audience }
    }

    /// Verifies signature and times of a compact token (RFC 7515, 7.1).
    pub fn verify(&self, token: &str, now: UnixTime) -> Result<Verified, Refusal> {
        if token.is_empty() {
            return Err(Refusal::Empty);
        }
        let parts: Vec<&str> = token.split('.').collect();
        let [header, payload, signature] = parts[..] else { return Err(Refusal::Parts(parts.len())) };
        let header: Map<String, Value> = json(header).ok_or(Refusal::Malformed)?;
        self.check_signature(&header, &token[..token.len() - signature.len() - 1], signature)?;
        let claims = URL_SAFE_NO_PAD.decode(payload).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let claims = claims.ok_or(Refusal::Claims)?;
        let fields: Map<String, Value> = serde_json::from_str(&claims).map_err(|_| Refusal::Claims)?;
        self.check_claims(&fields, now)?;
        let role = match fields.get("role") {
            Some(Value::String(role)) => Some(role.clone()),
            Some(Value::Null) | None => None,
            Some(other) => Some(other.to_string()),
        };
        // PostgreSQL has no NUL in text; such a claim could not even be passed on.
        if claims.contains("\\u0000") {
            return Err(Refusal::Claims);
        }
        Ok(Verified { claims, role, expires: time(&fields, "exp")?.map(|expiry| expiry.saturating_add(LEEWAY)) })
    }

    fn check_signature(&self, header: &Map<String, Value>, message: &str, signature: &str) -> Result<(), Refusal> {
        let name = header.get("alg").and_then(Value::as_str).unwrap_or_default();
        // A critical extension that we do not know must be refused (RFC 7515, 4.1.11).
        if header.contains_key("crit") {
            return Err(Refusal::Algorithm(name.to_owned()));
        }
        let algorithm = match name {
            "HS256" => Algorithm::HS256,
            "ES256" => Algorithm::ES256,
            other => return Err(Refusal::Algorithm(other.to_owned())),
        };
        let id = header.get("kid").and_then(Value::as_str);
        // A key with an id answers to it alone; the HMAC secret has none and is found by its algorithm.
        let fitting = self
            .keys
            .iter()
            .filter(|key| key.algorithm == algorithm && (key.id.is_none() || id.is_none() || key.id.as_deref() == id));
        let mut found = false;
        for key in fitting {
            found = true;
            if jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.key, algorithm).unwrap_or(false) {
                return Ok(());
            }
        }
        Err(if found { Refusal::Signature } else { Refusal::NoKey })
    }

    fn check_claims(&self, claims: &Map<String, Value>, now: UnixTime) -> Result<(), Refusal> {
        if time(claims, "exp")?.is_some_and(|expiry| now - LEEWAY > expiry) {
            return Err(Refusal::Expired);
        }
        if time(claims, "nbf")?.is_some_and(|begin| begin > now + LEEWAY) {
            return Err(Refusal::NotYetValid);
        }
        if time(claims, "iat")?.is_some_and(|issued| issued > now + LEEWAY) {
            return Err(Refusal::IssuedInFuture);
        }
        let fits = |audience: &str| self.audience.as_deref().is_none_or(|wanted| wanted == audience);
        match claims.get("aud") {
            None | Some(Value::Null) => Ok(()),
            Some(Value::String(audience)) if fits(audience) => Ok(()),
            Some(Value::String(_)) => Err(Refusal::Audience),
            Some(Value::Array(all)) => {
                let names: Option<Vec<&str>> = all.iter().map(Value::as_str).collect();
                let names = names.ok_or(Refusal::AudienceType)?;
                if names.is_empty() || names.into_iter().any(fits) { Ok(()) } else { Err(Refusal::Audience) }
            }
            Some(_) => Err(Refusal::AudienceType),
        }
    }
}

fn json(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// A `NumericDate`; a fraction is cut off, and what does not fit is 0, as the reference has it.
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<UnixTime>, Refusal> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => {
            #[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
            let fraction = || number.as_f64().map_or(0, |number| number as i64);
            Ok(Some(number.as_i64().unwrap_or_else(fraction)))
        }
        Some(_) => Err(Refusal::NotANumber(name)),
    }
}

/// A key that signs.
pub enum SigningKey<'a> {
    /// HS256.
    Hmac(&'a [u8]),
    /// ES256 with a PKCS#8 key.
    Elliptic { id: &'a str, pkcs8: &'a [u8] },
}

/// Signs claims (JSON text) into a compact token.
pub fn sign(claims: &str, key: &SigningKey<'_>) -> Result<String, jsonwebtoken::errors::Error> {
    let (algorithm, header, key) = match key {
        SigningKey::Hmac(secret) => {
            (Algorithm::HS256, r#"{"alg":"HS256","typ":"JWT"}"#.to_owned(), EncodingKey::from_secret(secret))
        }
        SigningKey::Elliptic { id, pkcs8 } => {
            let header = serde_json::json!({ "alg": "ES256", "kid": id, "typ": "JWT" }).to_string();
            (Algorithm::ES256, header, EncodingKey::from_ec_der(pkcs8))
        }
    };
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm)?;
    Ok(format!("{message}.{signature}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"a secret that is long enough for HS256";
    const NOW: UnixTime = 1_800_000_000;

    fn verifier() -> Verifier {
        Verifier::new(vec![VerifyingKey::hmac(SECRET)], Some("app".into()))
    }

    fn verify(claims: &str) -> Result<Verified, Refusal> {
        verifier().verify(&sign(claims, &SigningKey::Hmac(SECRET)).unwrap(), NOW)
    }

    #[test]
    fn claims_are_kept_as_they_are() {
        let claims = format!(r#"{{"role": "authenticated", "exp":{},  "x":[1, 2]}}"#, NOW + 10);
        let verified = verify(&claims).unwrap();
        assert_eq!(verified.claims, claims);
        assert_eq!(verified.role.as_deref(), Some("authenticated"));
        assert_eq!(verified.expires, Some(NOW + 40));
    }

    #[test]
    fn times_and_audience_are_checked_with_leeway() {
        let cases = [
            (format!(r#"{{"exp":{}}}"#, NOW - 30), Ok(())),
            (format!(r#"{{"exp":{}}}"#, NOW - 31), Err(Refusal::Expired)),
            (format!(r#"{{"nbf":{}}}"#, NOW + 30), Ok(())),
            (format!(r#"{{"nbf":{}}}"#, NOW + 31), Err(Refusal::NotYetValid)),
            (format!(r#"{{"iat":{}}}"#, NOW + 31), Err(Refusal::IssuedInFuture)),
            (r#"{"exp":"soon"}"#.into(), Err(Refusal::NotANumber("exp"))),
            (r#"{"aud":"app"}"#.into(), Ok(())),
            (r#"{"aud":["x","app"]}"#.into(), Ok(())),
            (r#"{"aud":[]}"#.into(), Ok(())),
            (r#"{"aud":"other"}"#.into(), Err(Refusal::Audience)),
            (r#"{"aud":7}"#.into(), Err(Refusal::AudienceType)),
            ("[]".into(), Err(Refusal::Claims)),
            (r#"{"role":"a\u0000"}"#.into(), Err(Refusal::Claims)),
        ];
        for (claims, expected) in cases {
            assert_eq!(verify(&claims).map(|_| ()), expected, "{claims}");
        }
    }

    #[test]
    fn security_t2_other_algorithms_and_keys_are_refused() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"role":"service_role"}"#);
        let with = |header: &str| format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(header));
        let refused = |token: &str| verifier().verify(token, NOW).unwrap_err();
        assert_eq!(refused(&with(r#"{"alg":"none"}"#)), Refusal::Algorithm("none".into()));
        assert_eq!(refused(&with(r#"{"alg":"HS512"}"#)), Refusal::Algorithm("HS512".into()));
        assert_eq!(refused(&with(r#"{"alg":"ES256"}"#)), Refusal::NoKey);
        assert_eq!(refused(&with(r#"{"alg":"HS256"}"#)), Refusal::Signature);
        assert_eq!(refused(&with(r#"{"alg":"HS256","crit":["x"]}"#)), Refusal::Algorithm("HS256".into()));
        let foreign = sign(r#"{"role":"service_role"}"#, &SigningKey::Hmac(b"another secret, long enough for HS256"));
        assert_eq!(refused(&foreign.unwrap()), Refusal::Signature);
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        let refused = |token: &str| verifier().verify(token, NOW).unwrap_err();
        assert_eq!(refused(""), Refusal::Empty);
        assert_eq!(refused("a.b"), Refusal::Parts(2));
        assert_eq!(refused("a.b.c.d"), Refusal::Parts(4));
        assert_eq!(refused("a.b.c"), Refusal::Malformed);
        assert_eq!(refused("..."), Refusal::Parts(4));
        assert_eq!(refused(".."), Refusal::Malformed);
    }
}
