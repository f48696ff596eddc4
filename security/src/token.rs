//! JSON Web Tokens: verified with an allow-list of algorithms bound to keys, signed for keys and sessions.
//!
//! The algorithm is the key's, never the token's choice: an HMAC secret verifies HS256 only, an elliptic key the algorithm of its
//! curve only (RFC 8725, 3.1). `jku`, `x5u` and `jwk` headers are not looked at. Times have the 30 seconds of leeway that
//! PostgREST gives. The messages are PostgREST's (its Errors page, group 3).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde_json::{Map, Value, json};

use crate::UnixTime;
use crate::keys::Fault;
use crate::signing::Pair;

/// The claim by which a token says that it is for something else than asking us: an id token has `id` there.
pub const USE: &str = "token_use";

/// Clocks may differ by this many seconds.
pub(crate) const LEEWAY: i64 = 30;

/// Keys that may have signed a token.
#[derive(Clone)]
pub struct Verifier {
    keys: Vec<VerifyingKey>,
    ids: KeyIds,
    /// A token that names audiences must name this one.
    pub audience: Option<String>,
}

/// Which keys are tried for a token that names its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyIds {
    /// Those of that name, and those without any.
    OrNone,
    /// Those of that name alone.
    Exact,
}

/// A key, and the algorithms it is for.
#[derive(Clone)]
pub struct VerifyingKey {
    pub id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl VerifyingKey {
    /// HS256.
    pub fn hmac(secret: &[u8]) -> Self {
        Self { id: None, algorithms: vec![Algorithm::HS256], key: DecodingKey::from_secret(secret) }
    }

    /// From a JSON Web Key (RFC 7517); `None` for one that cannot verify signatures, or of a kind that is not supported. Without
    /// `alg` it is for all algorithms of its kind.
    pub fn from_jwk(jwk: &Value) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        if text("use").is_some_and(|usage| usage == "enc") {
            return None;
        }
        let (key, kind): (DecodingKey, &[Algorithm]) = match (text("kty")?, text("crv")) {
            ("oct", _) => {
                let secret = URL_SAFE_NO_PAD.decode(text("k")?).ok()?;
                (DecodingKey::from_secret(&secret), &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512])
            }
            ("RSA", _) => {
                let key = DecodingKey::from_rsa_components(text("n")?, text("e")?).ok()?;
                (key, &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512])
            }
            ("EC", Some("P-256")) => {
                (DecodingKey::from_ec_components(text("x")?, text("y")?).ok()?, &[Algorithm::ES256])
            }
            ("EC", Some("P-384")) => {
                (DecodingKey::from_ec_components(text("x")?, text("y")?).ok()?, &[Algorithm::ES384])
            }
            ("OKP", Some("Ed25519")) => (DecodingKey::from_ed_components(text("x")?).ok()?, &[Algorithm::EdDSA]),
            _ => return None,
        };
        let named = text("alg").map(algorithm);
        let fits = |candidate: &&Algorithm| named.is_none_or(|named| named == Some(**candidate));
        let algorithms: Vec<Algorithm> = kind.iter().filter(fits).copied().collect();
        (!algorithms.is_empty()).then(|| Self { id: text("kid").map(str::to_owned), algorithms, key })
    }
}

fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "HS256" => Algorithm::HS256,
        "HS384" => Algorithm::HS384,
        "HS512" => Algorithm::HS512,
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" => Algorithm::EdDSA,
        _ => return None,
    })
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|key| (&key.id, &key.algorithms)).collect();
        out.debug_struct("Verifier").field("keys", &ids).field("audience", &self.audience).finish_non_exhaustive()
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
    /// Not base64, not JSON, or of an algorithm that nobody knows.
    #[error("JWT cryptographic operation failed")]
    Malformed,
    /// `alg` is `none`.
    #[error("Wrong or unsupported encoding algorithm")]
    Unsecured,
    /// No key is for this token.
    #[error("No suitable key or wrong key type")]
    NoKey,
    /// There are keys for it, but none has signed it.
    #[error("No suitable key or wrong key type")]
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
    /// Whether nobody of ours can have made the token. One that is too old, or for another audience, is no sign of anything.
    pub fn is_forged(&self) -> bool {
        match self {
            Self::Malformed | Self::Unsecured | Self::NoKey | Self::Signature => true,
            Self::Empty
            | Self::Parts(_)
            | Self::Claims
            | Self::Expired
            | Self::NotYetValid
            | Self::IssuedInFuture
            | Self::Audience
            | Self::NotANumber(_)
            | Self::AudienceType => false,
        }
    }

    /// PostgREST's code: 301 for what cannot be decoded, 303 for claims that do not hold.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty | Self::Parts(_) | Self::Malformed | Self::Unsecured | Self::NoKey | Self::Signature => {
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

    /// What more can be said.
    pub fn details(&self) -> Option<&'static str> {
        match self {
            Self::Unsecured => Some("JWT is unsecured but expected 'alg' was not 'none'"),
            Self::NoKey => Some("No suitable key was found to decode the JWT"),
            Self::Signature => Some("None of the keys was able to decode the JWT"),
            _ => None,
        }
    }
}

impl Verifier {
    pub fn new(keys: Vec<VerifyingKey>, ids: KeyIds, audience: Option<String>) -> Self {
        Self { keys, ids, audience }
    }

    /// Verifies signature and times of a compact token (RFC 7515, 7.1).
    pub fn verify(&self, token: &str, now: UnixTime) -> Result<Verified, Refusal> {
        if token.is_empty() {
            return Err(Refusal::Empty);
        }
        let parts: Vec<&str> = token.split('.').collect();
        let [header, payload, signature] = parts[..] else { return Err(Refusal::Parts(parts.len())) };
        let header: Map<String, Value> = json(header).ok_or(Refusal::Malformed)?;
        let claims = URL_SAFE_NO_PAD.decode(payload).map_err(|_| Refusal::Malformed)?;
        self.check_signature(&header, &token[..token.len() - signature.len() - 1], signature)?;
        let claims = String::from_utf8(claims).map_err(|_| Refusal::Claims)?;
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
        let algorithm = match header.get("alg").and_then(Value::as_str) {
            Some("none") => return Err(Refusal::Unsecured),
            // A critical extension that we do not know must be refused (RFC 7515, 4.1.11).
            Some(name) if !header.contains_key("crit") => algorithm(name).ok_or(Refusal::Malformed)?,
            _ => return Err(Refusal::Malformed),
        };
        let id = header.get("kid").and_then(Value::as_str);
        let fits = |key: &&VerifyingKey| {
            let named = id.is_none() || key.id.as_deref() == id || (self.ids == KeyIds::OrNone && key.id.is_none());
            named && key.algorithms.contains(&algorithm)
        };
        let fitting = self.keys.iter().filter(fits);
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
    /// As the pair does, under its id.
    Pair(&'a Pair),
}

/// Signs claims (JSON text) into a compact token.
pub fn sign(claims: &str, key: &SigningKey<'_>) -> Result<String, Fault> {
    let header = match key {
        SigningKey::Hmac(_) => r#"{"alg":"HS256","typ":"JWT"}"#.to_owned(),
        SigningKey::Pair(pair) => json!({ "alg": pair.algorithm.name(), "kid": pair.id, "typ": "JWT" }).to_string(),
    };
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = match key {
        SigningKey::Hmac(secret) => {
            let key = EncodingKey::from_secret(secret);
            jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).map_err(|_| Fault::SigningKey)?
        }
        SigningKey::Pair(pair) => URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes())?),
    };
    Ok(format!("{message}.{signature}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &[u8] = b"a secret that is long enough for HS256";
    const NOW: UnixTime = 1_800_000_000;

    fn verifier() -> Verifier {
        Verifier::new(vec![VerifyingKey::hmac(SECRET)], KeyIds::OrNone, Some("app".into()))
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
        assert_eq!(refused(&with(r#"{"alg":"none"}"#)), Refusal::Unsecured);
        assert_eq!(refused(&with(r#"{"alg":"HS512"}"#)), Refusal::NoKey);
        assert_eq!(refused(&with(r#"{"alg":"HS1"}"#)), Refusal::Malformed);
        assert_eq!(refused(&with(r#"{"alg":"ES256"}"#)), Refusal::NoKey);
        assert_eq!(refused(&with(r#"{"alg":"HS256"}"#)), Refusal::Signature);
        assert_eq!(refused(&with(r#"{"alg":"HS256","crit":["x"]}"#)), Refusal::Malformed);
        let foreign = sign(r#"{"role":"service_role"}"#, &SigningKey::Hmac(b"another secret, long enough for HS256"));
        assert_eq!(refused(&foreign.unwrap()), Refusal::Signature);
    }

    #[test]
    fn keys_are_chosen_by_id_and_algorithm() {
        let jwk = |kid: &str| {
            let key = URL_SAFE_NO_PAD.encode(SECRET);
            VerifyingKey::from_jwk(&serde_json::json!({ "kty": "oct", "k": key, "kid": kid, "alg": "HS256" })).unwrap()
        };
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"one"}"#);
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode("{}"));
        let key = EncodingKey::from_secret(SECRET);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        let token = format!("{message}.{signature}");
        let verify = |keys, ids| Verifier::new(keys, ids, None).verify(&token, NOW).map(|_| ());
        assert_eq!(verify(vec![jwk("two"), jwk("one")], KeyIds::Exact), Ok(()));
        assert_eq!(verify(vec![jwk("two")], KeyIds::OrNone), Err(Refusal::NoKey));
        assert_eq!(verify(vec![VerifyingKey::hmac(SECRET)], KeyIds::OrNone), Ok(()));
        assert_eq!(verify(vec![VerifyingKey::hmac(SECRET)], KeyIds::Exact), Err(Refusal::NoKey));
        let foreign = serde_json::json!({ "kty": "oct", "k": "AAAA", "alg": "RS256" });
        assert!(VerifyingKey::from_jwk(&foreign).is_none());
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

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Only what the key has signed is let in, whatever was changed and wherever.
        #[test]
        fn security_t2_a_changed_token_is_refused(at in any::<prop::sample::Index>(), with in any::<char>()) {
            let token = sign(r#"{"role":"authenticated"}"#, &SigningKey::Hmac(SECRET)).unwrap();
            let at = at.index(token.len());
            let changed = format!("{}{with}{}", &token[..at], &token[at + 1..]);
            // The last character of a signature has bits that say nothing.
            prop_assume!(changed != token && at + 1 < token.len());
            prop_assert!(verifier().verify(&changed, NOW).is_err(), "{changed}");
        }

        #[test]
        fn whatever_claims_say_is_taken_or_refused(
            name in prop::sample::select(vec!["exp", "nbf", "iat", "aud", "role", "x"]),
            value in prop::sample::select(vec!["1e400", "-1", "1.5", "99999999999999999999", "null", "[1]", "{}", "\"\\ud800\"", "\"\"", "tru"]),
            more in ".{0,20}",
        ) {
            let _ = verify(&format!("{{\"{name}\":{value}}}"));
            let _ = verify(&more);
            let _ = verifier().verify(&more, NOW);
        }
    }
}
