//! Signed URLs: whoever has one may do one thing with one object until it expires (checklist F4).
//!
//! A token is a JWT as storage-api makes them, so that what reads its `exp` goes on working. It is signed with a key of its own, which
//! follows from the project's secret: such a token opens nothing else, no access token passes for one, and with another secret all
//! of them end.

use aws_lc_rs::hmac;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};

use crate::UnixTime;

/// What a token allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The object: bucket and name, with a slash between.
    pub url: String,
    pub scope: Scope,
    /// What an image is made into; only that is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transformations: Option<String>,
    /// Of an upload: who will own the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Of an upload: it may replace what is there.
    #[serde(default)]
    pub upsert: bool,
    pub iat: UnixTime,
    pub exp: UnixTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    Download,
    Upload,
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is none of ours, or was changed.
    #[error("invalid signature")]
    Invalid,
    #[error("\"exp\" claim timestamp check failed")]
    Expired,
    /// It is for something else.
    #[error("the token is not for this")]
    Other,
}

/// Signs and checks.
#[derive(Clone)]
pub struct Signer {
    signing: EncodingKey,
    checking: DecodingKey,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Signer")
    }
}

impl Signer {
    /// All nodes of a project have its secret.
    pub fn new(jwt_secret: &str) -> Self {
        let project = hmac::Key::new(hmac::HMAC_SHA256, jwt_secret.as_bytes());
        let key = hmac::sign(&project, b"signed URLs");
        Self { signing: EncodingKey::from_secret(key.as_ref()), checking: DecodingKey::from_secret(key.as_ref()) }
    }

    /// A token for the grant; `None` where signing fails, which it does not with a key of the right kind.
    pub fn sign(&self, grant: &Grant) -> Option<String> {
        encode(&Header::new(Algorithm::HS256), grant, &self.signing).ok()
    }

    /// What the token allows, if it is for this object and this use.
    pub fn check(&self, token: &str, url: &str, scope: Scope, now: UnixTime) -> Result<Grant, Refusal> {
        let mut validation = Validation::new(Algorithm::HS256);
        // The time is an argument.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let grant = decode::<Grant>(token, &self.checking, &validation).map_err(|_| Refusal::Invalid)?.claims;
        if grant.exp <= now {
            return Err(Refusal::Expired);
        }
        if grant.url != url || grant.scope != scope {
            return Err(Refusal::Other);
        }
        Ok(grant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = 1_800_000_000;
    const SECRET: &str = "a secret that is long enough for this";

    fn grant() -> Grant {
        Grant {
            url: "avatars/a.png".into(),
            scope: Scope::Download,
            transformations: None,
            owner: None,
            upsert: false,
            iat: NOW,
            exp: NOW + 60,
        }
    }

    #[test]
    fn security_f4_a_token_is_for_one_object_one_use_and_a_while() {
        let signer = Signer::new(SECRET);
        let token = signer.sign(&grant()).unwrap();
        let check = |url: &str, scope, now| signer.check(&token, url, scope, now).map(|_| ());
        assert_eq!(check("avatars/a.png", Scope::Download, NOW), Ok(()));
        assert_eq!(check("avatars/a.png", Scope::Upload, NOW), Err(Refusal::Other));
        assert_eq!(check("avatars/b.png", Scope::Download, NOW), Err(Refusal::Other));
        assert_eq!(check("avatars/a.png", Scope::Download, NOW + 60), Err(Refusal::Expired));
        let other =
            Signer::new("another secret that is long enough").check(&token, "avatars/a.png", Scope::Download, NOW);
        assert_eq!(other, Err(Refusal::Invalid));
        let forged = format!("{}x", &token[..token.len() - 1]);
        assert_eq!(signer.check(&forged, "avatars/a.png", Scope::Download, NOW), Err(Refusal::Invalid));
    }

    #[test]
    fn security_t2_access_tokens_and_signed_urls_are_not_each_other() {
        let keys = crate::keys::Keys::generate(NOW).unwrap();
        let signer = Signer::new(keys.jwt_secret.expose());
        let token = signer.sign(&grant()).unwrap();
        assert!(keys.verifier(None).unwrap().verify(&token, NOW).is_err());
        let access = keys.sign(&serde_json::to_string(&grant()).unwrap()).unwrap();
        assert_eq!(signer.check(&access, "avatars/a.png", Scope::Download, NOW), Err(Refusal::Invalid));
    }
}
