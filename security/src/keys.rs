//! The keys of a project: made once with a CSPRNG, kept by the caller in a private file.
//!
//! Tokens are signed with a key pair, whose public half stands in a JWKS; the HS256 secret and the two legacy keys signed with it
//! are there for clients and tools that know nothing else. The opaque keys are for everybody else.
//!
//! A pair goes through three stages: it is published, it signs, it only verifies. So nobody who keeps the JWKS for a while meets
//! a token whose key is not in it, and no token is refused because its key signs no more.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::signing::{Algorithm, Pair};
use crate::token::{self, KeyIds, LEEWAY, SigningKey, Verifier, VerifyingKey};
use crate::{Secret, UnixTime};

/// Ten years: the life of the legacy keys.
const LEGACY_LIFE: i64 = 10 * 365 * 24 * 3600;

/// Seconds after a rotation in which a node may still sign with the key before.
const HANDOVER: i64 = 60;

/// Secrets printed in tutorials and example files. Whoever knows them is everybody.
const PUBLISHED: &[&str] = &[
    "super-secret-jwt-token-with-at-least-32-characters-long",
    "your-super-secret-jwt-token-with-at-least-32-characters-long",
    "your-super-secret-and-long-postgres-password",
    "reallyreallyreallyreallyverysafe",
    // Of S3's clients, as the Supabase CLI has it on every machine.
    "850181e4652dd023b7a98c58ae0d2d34bd487ee0cc3254aed6eda37307425907",
];

/// All keys of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Of the pair that signs: PKCS#8, base64url.
    pub signing_key: Secret<String>,
    pub signing_key_id: String,
    #[serde(default)]
    pub signing_algorithm: Algorithm,
    /// Published, and not signing yet.
    #[serde(default)]
    pub standby: Vec<Pair>,
    /// Verifying, and not signing any more; the latest first.
    #[serde(default)]
    pub previous: Vec<Retired>,
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
    /// `None` in a file from before there was such a key.
    #[serde(default)]
    pub s3: Option<S3Key>,
}

/// With what a client of S3's protocol signs: the role `service_role`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Key {
    /// Not secret: it stands in signed URLs.
    pub access_key_id: String,
    pub secret_access_key: Secret<String>,
}

impl S3Key {
    /// In hexadecimal digits, as long as Supabase's: some clients take nothing else.
    pub fn generate() -> Result<Self, Fault> {
        let random = SystemRandom::new();
        let secret_access_key = Secret::new(hex(&random, 32)?);
        Ok(Self { access_key_id: hex(&random, 16)?, secret_access_key })
    }
}

/// A pair that has signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retired {
    pub pair: Pair,
    /// When another took its place.
    pub retired_at: UnixTime,
}

impl Retired {
    /// Until then it verifies: its last token may have been signed at the end of the handover.
    pub fn ends(&self, token_life: i64) -> UnixTime {
        self.retired_at.saturating_add(token_life).saturating_add(HANDOVER + LEEWAY)
    }
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
    #[error("the secret access key for S3's clients has {0} bytes; it needs 32 or more")]
    ShortS3(usize),
    #[error("the secret access key for S3's clients is a published example; everybody knows it")]
    PublishedS3,
}

impl Keys {
    /// Makes all keys.
    pub fn generate(now: UnixTime) -> Result<Self, Fault> {
        let random = SystemRandom::new();
        let signing = Pair::generate(Algorithm::default())?;
        let jwt_secret = text(&random, 48)?;
        let (anon_key, service_role_key) = legacy(&jwt_secret, now)?;
        Ok(Self {
            signing_key: signing.pkcs8,
            signing_key_id: signing.id,
            signing_algorithm: signing.algorithm,
            standby: vec![Pair::generate(Algorithm::default())?],
            previous: Vec::new(),
            publishable_key: format!("sb_publishable_{}", text(&random, 24)?),
            secret_key: Secret::new(format!("sb_secret_{}", text(&random, 24)?)),
            anon_key,
            service_role_key: Secret::new(service_role_key),
            jwt_secret: Secret::new(jwt_secret),
            s3: Some(S3Key::generate()?),
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

    /// Takes the pairs from elsewhere: the first signs, all verify. `None` where there are none.
    pub fn with_pairs(self, pairs: Vec<Pair>) -> Option<Self> {
        let mut pairs = pairs.into_iter();
        let first = pairs.next()?;
        Some(Self { standby: pairs.collect(), previous: Vec::new(), ..self.signing_with(first) })
    }

    /// Another pair signs from now on: the one in waiting, or a new one where none of this algorithm waits.
    pub fn rotate(mut self, algorithm: Algorithm, now: UnixTime, token_life: i64) -> Result<Self, Fault> {
        let waiting = self.standby.iter().position(|pair| pair.algorithm == algorithm);
        let next = waiting.map_or_else(|| Pair::generate(algorithm), |at| Ok(self.standby.swap_remove(at)))?;
        self.previous.insert(0, Retired { pair: self.signing(), retired_at: now });
        self.standby = vec![Pair::generate(algorithm)?];
        Ok(self.signing_with(next).living(now, token_life))
    }

    /// Without the previous pairs whose tokens are all expired.
    pub fn living(mut self, now: UnixTime, token_life: i64) -> Self {
        self.previous.retain(|retired| now <= retired.ends(token_life));
        self
    }

    /// The pair that signs.
    pub fn signing(&self) -> Pair {
        Pair { id: self.signing_key_id.clone(), algorithm: self.signing_algorithm, pkcs8: self.signing_key.clone() }
    }

    fn signing_with(self, pair: Pair) -> Self {
        Self { signing_key: pair.pkcs8, signing_key_id: pair.id, signing_algorithm: pair.algorithm, ..self }
    }

    /// The public halves of all pairs; the one that signs is the first.
    fn public(&self) -> Result<Vec<Value>, Fault> {
        let previous = self.previous.iter().map(|retired| &retired.pair);
        [&self.signing()].into_iter().chain(&self.standby).chain(previous).map(Pair::jwk).collect()
    }

    /// Refuses secrets that protect nobody (checklist S2).
    pub fn check(&self) -> Result<(), Fault> {
        let secret = self.jwt_secret.expose();
        if is_published(secret) {
            return Err(Fault::Published);
        }
        if secret.len() < 32 {
            return Err(Fault::Short(secret.len()));
        }
        match self.s3.as_ref().map(|key| key.secret_access_key.expose().as_str()) {
            Some(secret) if is_published(secret) => Err(Fault::PublishedS3),
            Some(secret) if secret.len() < 32 => Err(Fault::ShortS3(secret.len())),
            Some(_) | None => Ok(()),
        }
    }

    /// What verifies the tokens these keys sign; those that name audiences have to name this one.
    pub fn verifier(&self, audience: Option<&str>) -> Result<Verifier, Fault> {
        let mut keys = vec![VerifyingKey::hmac(self.jwt_secret.expose().as_bytes())];
        for jwk in self.public()? {
            keys.push(VerifyingKey::from_jwk(&jwk).ok_or(Fault::SigningKey)?);
        }
        Ok(Verifier::new(keys, KeyIds::OrNone, audience.map(str::to_owned)))
    }

    /// The public keys (RFC 7517), for `/.well-known/jwks.json`.
    pub fn jwks(&self) -> Result<Value, Fault> {
        Ok(json!({ "keys": self.public()? }))
    }

    /// Signs claims (JSON text).
    pub fn sign(&self, claims: &str) -> Result<String, Fault> {
        token::sign(claims, &SigningKey::Pair(&self.signing()))
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
        token::sign(&claims, &SigningKey::Hmac(secret.as_bytes()))
    };
    Ok((sign("anon")?, sign("service_role")?))
}

fn text(random: &SystemRandom, bytes: usize) -> Result<String, Fault> {
    let mut buffer = vec![0; bytes];
    random.fill(&mut buffer).map_err(|_| Fault::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(buffer))
}

fn hex(random: &SystemRandom, bytes: usize) -> Result<String, Fault> {
    let mut buffer = vec![0; bytes];
    random.fill(&mut buffer).map_err(|_| Fault::Random)?;
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    Ok(buffer.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect())
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

    /// A file from before there was more than one pair.
    const OLD: &str = r#"{
        "signing_key": "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgznPf-AsDJgD7PlkHNwfmsYkFqaLZwjSGImWIlb5glw2hRANCAAThpqJ0BlDELPXklaUm70VK8sN0OU7G0yFmzJftc5-O7Fv3_UxeJMaGSECJl1TOrctzV29wjny1kYRApxZQ-61f",
        "signing_key_id": "VBwsVTj_4Eku8Mh9",
        "jwt_secret": "NZgINNQYc6gJGtJzjcF9dPTnJz4WKHsPwJ09ihv0FBH7PAuTBairEQ043e4Z-cSi",
        "publishable_key": "sb_publishable_JZorvdV6SIU69-6mzzM8UDf_uWo5NVNB",
        "secret_key": "sb_secret_U6ORf9p8TKHxQA02H8_8pseQRUFkw_c5",
        "anon_key": "a.b.c",
        "service_role_key": "a.b.c"
    }"#;

    const LIFE: i64 = 3600;

    fn ids(keys: &Keys) -> Vec<String> {
        let jwks = keys.jwks().unwrap();
        jwks["keys"].as_array().unwrap().iter().map(|jwk| jwk["kid"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_published_keys_are_public_only() {
        let mut keys = Keys::generate(NOW).unwrap();
        for algorithm in Algorithm::ALL {
            keys = keys.rotate(algorithm, NOW, LIFE).unwrap();
        }
        let jwks = keys.jwks().unwrap();
        let jwks = jwks["keys"].as_array().unwrap();
        let names: Vec<&str> = jwks.iter().map(|jwk| jwk["alg"].as_str().unwrap()).collect();
        assert_eq!(names, ["RS256", "RS256", "EdDSA", "ES256", "ES256"], "what signs, what waits, what has signed");
        for jwk in jwks {
            for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
                assert!(jwk.get(private).is_none(), "{private} of {jwk}");
            }
        }
    }

    #[test]
    fn the_pair_in_waiting_signs_after_a_rotation() {
        let keys = Keys::generate(NOW).unwrap();
        let [signing, waiting] = &ids(&keys)[..] else { panic!("{keys:?}") };
        let rotated = keys.clone().rotate(Algorithm::Es256, NOW, LIFE).unwrap();
        assert_eq!((&rotated.signing_key_id, &rotated.previous[0].pair.id), (waiting, signing));
        assert!(rotated.standby.len() == 1 && !ids(&keys).contains(&rotated.standby[0].id));
        let other = keys.clone().rotate(Algorithm::EdDsa, NOW, LIFE).unwrap();
        assert!(!ids(&keys).contains(&other.signing_key_id), "none of this algorithm was waiting");
        assert!(!ids(&other).contains(waiting), "what has never signed is not kept");
        let unchanged = |keys: &Keys| (keys.jwt_secret.clone(), keys.publishable_key.clone(), keys.anon_key.clone());
        assert_eq!(unchanged(&keys), unchanged(&other));
    }

    #[test]
    fn a_token_is_good_until_the_time_of_its_key_is_over() {
        let end = NOW + LIFE + HANDOVER + LEEWAY;
        for algorithm in Algorithm::ALL {
            let keys = Keys::generate(NOW).unwrap().rotate(algorithm, NOW - 1000, LIFE).unwrap();
            let token = keys.sign(r#"{"role":"authenticated"}"#).unwrap();
            let rotated = keys.rotate(Algorithm::Es256, NOW, LIFE).unwrap();
            let fresh = rotated.sign(r#"{"role":"authenticated"}"#).unwrap();
            for (now, is_good) in [(NOW, true), (end, true), (end + 1, false)] {
                let living = rotated.clone().living(now, LIFE);
                let verifier = living.verifier(None).unwrap();
                assert_eq!(verifier.verify(&token, now).is_ok(), is_good, "{algorithm} {now}");
                assert!(verifier.verify(&fresh, now).is_ok() && verifier.verify(&living.anon_key, now).is_ok());
            }
            let later = rotated.rotate(Algorithm::Es256, end + 1, LIFE).unwrap();
            assert_eq!(later.previous.len(), 1, "{algorithm}: those whose time is over are dropped");
        }
    }

    #[test]
    fn pairs_from_elsewhere_take_the_place_of_ours() {
        let keys = Keys::generate(NOW).unwrap();
        let own = keys.sign("{}").unwrap();
        let pairs: Vec<Pair> = Algorithm::ALL.map(|algorithm| Pair::generate(algorithm).unwrap()).into();
        let wanted: Vec<String> = pairs.iter().map(|pair| pair.id.clone()).collect();
        assert_eq!(keys.clone().with_pairs(Vec::new()), None);
        let theirs = keys.with_pairs(pairs.clone()).unwrap();
        assert_eq!(ids(&theirs), wanted);
        let verifier = theirs.verifier(None).unwrap();
        assert!(verifier.verify(&own, NOW).is_err() && verifier.verify(&theirs.sign("{}").unwrap(), NOW).is_ok());
        for pair in &pairs {
            assert!(verifier.verify(&token::sign("{}", &SigningKey::Pair(pair)).unwrap(), NOW).is_ok());
        }
    }

    #[test]
    fn security_s2_published_and_short_secrets_are_refused() {
        let with = |secret| Keys::generate(NOW).unwrap().with_jwt_secret(secret, NOW).unwrap().check();
        assert_eq!(with("super-secret-jwt-token-with-at-least-32-characters-long"), Err(Fault::Published));
        assert_eq!(with("too short"), Err(Fault::Short(9)));
        let with = |secret: &str| {
            let key = S3Key { access_key_id: "x".into(), secret_access_key: Secret::new(secret.into()) };
            Keys { s3: Some(key), ..Keys::generate(NOW).unwrap() }.check()
        };
        let published = "850181e4652dd023b7a98c58ae0d2d34bd487ee0cc3254aed6eda37307425907";
        assert_eq!((with(published), with("too short")), (Err(Fault::PublishedS3), Err(Fault::ShortS3(9))));
    }

    #[test]
    fn keys_survive_their_file() {
        let keys = Keys::generate(NOW).unwrap().rotate(Algorithm::EdDsa, NOW, LIFE).unwrap();
        let text = serde_json::to_string(&keys).unwrap();
        assert_eq!(serde_json::from_str::<Keys>(&text).unwrap(), keys);
        let shown = format!("{keys:?}");
        let s3 = &keys.s3.as_ref().unwrap().secret_access_key;
        let secrets = [&keys.secret_key, &keys.signing_key, &keys.standby[0].pkcs8, &keys.previous[0].pair.pkcs8, s3];
        assert!(secrets.iter().all(|secret| !shown.contains(secret.expose())));
    }

    #[test]
    fn a_file_with_one_pair_is_read() {
        let keys: Keys = serde_json::from_str(OLD).unwrap();
        assert_eq!((ids(&keys), &keys.s3), (vec!["VBwsVTj_4Eku8Mh9".to_owned()], &None));
        let token = keys.sign("{}").unwrap();
        let rotated = keys.rotate(Algorithm::Es256, NOW, LIFE).unwrap();
        assert!(rotated.verifier(None).unwrap().verify(&token, NOW).is_ok());
    }
}
