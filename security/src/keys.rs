//! The keys of a project: made once with a CSPRNG, kept by the caller in a private file.
//!
//! Tokens are signed with ES256 and published as a JWKS; the HS256 secret and the two legacy keys signed with it are there for
//! clients and tools that know nothing else. The opaque keys are for everybody else.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::token::{self, KeyIds, SigningKey, Verifier, VerifyingKey};
use crate::{Secret, UnixTime};

/// Ten years: the life of the legacy keys.
const LEGACY_LIFE: i64 = 10 * 365 * 24 * 3600;

/// Secrets printed in tutorials and example files. Whoever knows them is everybody.
const PUBLISHED: &[&str] = &[
    "super-secret-jwt-token-with-at-least-32-characters-long",
    "your-super-secret-jwt-token-with-at-least-32-characters-long",
    "your-super-secret-and-long-postgres-password",
    "reallyreallyreallyreallyverysafe",
];

/// All keys of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// ES256, PKCS#8, base64url.
    pub signing_key: Secret<String>,
    pub signing_key_id: String,
    /// HS256, for compatibility.
    pub jwt_secret: Secret<String>,
    /// For browsers and apps: the role `anon` until somebody signs in.
    pub publishable_key: String,
    /// For servers: the role `service_role`.
    pub secret_key: Secret<String>,
    /// Legacy JWT for `anon`.
    pub anon_key: String,
    /// Legacy JWT for `service_role`.
    pub service_role_key: Secret<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the system's random numbers are not available")]
    Random,
    #[error("the signing key cannot be used")]
    SigningKey,
    #[error("the JWT secret has {0} bytes; it needs 32 or more")]
    Short(usize),
    #[error("the JWT secret is a published example; everybody knows it")]
    Published,
}

impl Keys {
    /// Makes all keys.
    pub fn generate(now: UnixTime) -> Result<Self, Fault> {
        let random = SystemRandom::new();
        let pair =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(|_| Fault::Random)?;
        let jwt_secret = text(&random, 48)?;
        let (anon_key, service_role_key) = legacy(&jwt_secret, now)?;
        Ok(Self {
            signing_key: Secret::new(URL_SAFE_NO_PAD.encode(pair.as_ref())),
            signing_key_id: text(&random, 12)?,
            publishable_key: format!("sb_publishable_{}", text(&random, 24)?),
            secret_key: Secret::new(format!("sb_secret_{}", text(&random, 24)?)),
            anon_key,
            service_role_key: Secret::new(service_role_key),
            jwt_secret: Secret::new(jwt_secret),
        })
    }

    /// Takes an HS256 secret from elsewhere (a Supabase project that moves here); the legacy keys follow from it.
    pub fn with_jwt_secret(mut self, secret: &str, now: UnixTime) -> Result<Self, Fault> {
        let (anon_key, service_role_key) = legacy(secret, now)?;
        self.jwt_secret = Secret::new(secret.to_owned());
        self.anon_key = anon_key;
        self.service_role_key = Secret::new(service_role_key);
        Ok(self)
    }

    /// Refuses secrets that protect nobody (checklist S2).
    pub fn check(&self) -> Result<(), Fault> {
        let secret = self.jwt_secret.expose();
        if is_published(secret) {
            return Err(Fault::Published);
        }
        if secret.len() < 32 { Err(Fault::Short(secret.len())) } else { Ok(()) }
    }

    /// What verifies the tokens these keys sign; those that name audiences have to name this one.
    pub fn verifier(&self, audience: Option<&str>) -> Result<Verifier, Fault> {
        let (x, y) = self.coordinates()?;
        let elliptic =
            VerifyingKey::elliptic(Some(self.signing_key_id.clone()), &x, &y).map_err(|_| Fault::SigningKey)?;
        let hmac = VerifyingKey::hmac(self.jwt_secret.expose().as_bytes());
        Ok(Verifier::new(vec![elliptic, hmac], KeyIds::OrNone, audience.map(str::to_owned)))
    }

    /// The public keys (RFC 7517), for `/.well-known/jwks.json`.
    pub fn jwks(&self) -> Result<Value, Fault> {
        let (x, y) = self.coordinates()?;
        Ok(json!({ "keys": [{
            "alg": "ES256", "crv": "P-256", "ext": true, "key_ops": ["verify"], "kid": self.signing_key_id,
            "kty": "EC", "use": "sig", "x": x, "y": y,
        }] }))
    }

    /// Signs claims (JSON text) with the ES256 key.
    pub fn sign(&self, claims: &str) -> Result<String, Fault> {
        let pkcs8 = self.pkcs8()?;
        let key = SigningKey::Elliptic { id: &self.signing_key_id, pkcs8: &pkcs8 };
        token::sign(claims, &key).map_err(|_| Fault::SigningKey)
    }

    fn pkcs8(&self) -> Result<Vec<u8>, Fault> {
        URL_SAFE_NO_PAD.decode(self.signing_key.expose()).map_err(|_| Fault::SigningKey)
    }

    fn coordinates(&self) -> Result<(String, String), Fault> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.pkcs8()?)
            .map_err(|_| Fault::SigningKey)?;
        // An uncompressed point: 4, x, y.
        let point = pair.public_key().as_ref();
        let (x, y) = point.get(1..65).ok_or(Fault::SigningKey)?.split_at(32);
        Ok((URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y)))
    }
}

/// So many random bytes, in base64url.
pub fn random(bytes: usize) -> Result<String, Fault> {
    text(&SystemRandom::new(), bytes)
}

/// Whether a secret stands in a tutorial or an example file.
pub fn is_published(secret: &str) -> bool {
    PUBLISHED.contains(&secret)
}

fn legacy(secret: &str, now: UnixTime) -> Result<(String, String), Fault> {
    let sign = |role: &str| {
        let claims = format!(r#"{{"iss":"supabase","role":"{role}","iat":{now},"exp":{}}}"#, now + LEGACY_LIFE);
        token::sign(&claims, &SigningKey::Hmac(secret.as_bytes())).map_err(|_| Fault::SigningKey)
    };
    Ok((sign("anon")?, sign("service_role")?))
}

fn text(random: &SystemRandom, bytes: usize) -> Result<String, Fault> {
    let mut buffer = vec![0; bytes];
    random.fill(&mut buffer).map_err(|_| Fault::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(buffer))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = 1_800_000_000;

    #[test]
    fn generated_keys_differ_and_pass_their_own_check() {
        let (one, other) = (Keys::generate(NOW).unwrap(), Keys::generate(NOW).unwrap());
        assert_eq!(one.check(), Ok(()));
        assert_ne!(one.secret_key, other.secret_key);
        assert!(one.publishable_key.starts_with("sb_publishable_"));
        assert!(one.secret_key.expose().starts_with("sb_secret_"));
    }

    #[test]
    fn what_the_keys_sign_they_verify() {
        let keys = Keys::generate(NOW).unwrap();
        let verifier = keys.verifier(None).unwrap();
        let token = keys.sign(r#"{"role":"authenticated","sub":"x"}"#).unwrap();
        assert_eq!(verifier.verify(&token, NOW).unwrap().role.as_deref(), Some("authenticated"));
        assert_eq!(verifier.verify(&keys.anon_key, NOW).unwrap().role.as_deref(), Some("anon"));
        assert_eq!(verifier.verify(keys.service_role_key.expose(), NOW).unwrap().role.as_deref(), Some("service_role"));
        let foreign = Keys::generate(NOW).unwrap().sign("{}").unwrap();
        assert!(verifier.verify(&foreign, NOW).is_err());
    }

    #[test]
    fn the_published_keys_are_public_only() {
        let jwks = Keys::generate(NOW).unwrap().jwks().unwrap();
        assert_eq!(jwks["keys"][0]["kty"], "EC");
        assert!(jwks["keys"][0].get("d").is_none());
    }

    #[test]
    fn security_s2_published_and_short_secrets_are_refused() {
        let with = |secret| Keys::generate(NOW).unwrap().with_jwt_secret(secret, NOW).unwrap().check();
        assert_eq!(with("super-secret-jwt-token-with-at-least-32-characters-long"), Err(Fault::Published));
        assert_eq!(with("too short"), Err(Fault::Short(9)));
    }

    #[test]
    fn keys_survive_their_file() {
        let keys = Keys::generate(NOW).unwrap();
        let text = serde_json::to_string(&keys).unwrap();
        assert_eq!(serde_json::from_str::<Keys>(&text).unwrap(), keys);
        assert!(!format!("{keys:?}").contains(keys.secret_key.expose()));
    }
}
