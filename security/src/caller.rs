//! Who asks: from the credentials of a request to a role and claims.
//!
//! As Supabase's gateway has it: the `apikey` header says which application asks, `Authorization: Bearer` who is signed in.
//! A client that has nobody signed in repeats the key as the bearer.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::keys::Keys;
use crate::secret::equal;
use crate::token::{self, Verified, Verifier};
use crate::verified::Memory;
use crate::{Secret, UnixTime};

/// Verified tokens remembered at most.
const CACHE: usize = 10_000;

/// What a request says of its caller.
#[derive(Debug, Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// The `apikey` header.
    pub apikey: Option<&'a str>,
    /// The `Authorization` header, whole.
    pub authorization: Option<&'a str>,
    pub user_agent: Option<&'a str>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The database role.
    pub role: String,
    /// A JSON object, as PostgreSQL gets it.
    pub claims: Arc<str>,
    /// Nobody is signed in, and no secret key was shown.
    pub is_anonymous: bool,
}

/// Why nobody is let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no API key")]
    NoKey,
    #[error("the API key is not known")]
    UnknownKey,
    /// S5: a secret key in a browser is no secret any more.
    #[error("a secret key in a browser")]
    SecretInBrowser,
    #[error("{0}")]
    Token(#[from] token::Refusal),
}

/// Knows the keys; decides who a caller is.
pub struct Doorkeeper {
    known: RwLock<Known>,
    require_key: bool,
    audience: Option<String>,
}

/// What follows from the keys; with them everything is exchanged, so that no token is remembered of a key that is gone.
struct Known {
    verifier: Verifier,
    publishable_key: String,
    secret_key: Secret<String>,
    verified: Memory,
}

impl Known {
    fn new(keys: &Keys, audience: Option<&str>) -> Result<Self, crate::keys::Fault> {
        Ok(Self {
            verifier: keys.verifier(audience)?,
            publishable_key: keys.publishable_key.clone(),
            secret_key: keys.secret_key.clone(),
            verified: Memory::new(CACHE),
        })
    }
}

impl std::fmt::Debug for Doorkeeper {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Doorkeeper").field("require_key", &self.require_key).finish_non_exhaustive()
    }
}

impl Doorkeeper {
    /// `require_key`: a request without a key is refused; else it acts as `anon`, never as more (S4).
    pub fn new(keys: &Keys, require_key: bool, audience: Option<&str>) -> Result<Self, crate::keys::Fault> {
        let known = RwLock::new(Known::new(keys, audience)?);
        Ok(Self { known, require_key, audience: audience.map(str::to_owned) })
    }

    /// Puts other keys in force.
    pub fn set_keys(&self, keys: &Keys) -> Result<(), crate::keys::Fault> {
        let known = Known::new(keys, self.audience.as_deref())?;
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides who asks.
    pub fn identify(&self, credentials: Credentials<'_>, now: UnixTime) -> Result<Caller, Refusal> {
        let bearer = credentials.authorization.and_then(bearer);
        let application = match credentials.apikey {
            Some(key) => Some(self.by_key(key, credentials, now).map_err(|refusal| match refusal {
                Refusal::Token(token::Refusal::Expired) | Refusal::SecretInBrowser => refusal,
                _ => Refusal::UnknownKey,
            })?),
            None => None,
        };
        match (application, bearer) {
            // Signed in, or the key said twice.
            (Some(application), Some(bearer)) if credentials.apikey == Some(bearer) => Ok(application),
            (Some(_), Some(bearer)) => self.by_key(bearer, credentials, now),
            (Some(application), None) => Ok(application),
            // An opaque key as the bearer alone is a key; a user's token alone is not.
            (None, Some(bearer)) if !self.require_key || is_opaque(bearer) => self.by_key(bearer, credentials, now),
            (None, None) if !self.require_key => Ok(anonymous()),
            (None, _) => Err(Refusal::NoKey),
        }
    }

    /// Whether the application that asks may: it has shown a key of ours, or none is needed. Nothing is said of users.
    pub fn admit(&self, credentials: Credentials<'_>, now: UnixTime) -> Result<(), Refusal> {
        let opaque = credentials.authorization.and_then(bearer).filter(|bearer| is_opaque(bearer));
        match credentials.apikey.or(opaque) {
            Some(key) => self.by_key(key, credentials, now).map(drop),
            None if self.require_key => Err(Refusal::NoKey),
            None => Ok(()),
        }
    }

    /// Whoever the bearer token alone says.
    pub fn holder(&self, credentials: Credentials<'_>, now: UnixTime) -> Result<Caller, Refusal> {
        let token = credentials.authorization.and_then(bearer).filter(|token| !token.is_empty());
        self.by_key(token.ok_or(Refusal::NoKey)?, credentials, now)
    }

    fn by_key(&self, key: &str, credentials: Credentials<'_>, now: UnixTime) -> Result<Caller, Refusal> {
        if !is_opaque(key) {
            let caller = self.by_token(key, now)?;
            return if caller.role == "service_role" && is_browser(credentials) {
                Err(Refusal::SecretInBrowser)
            } else {
                Ok(caller)
            };
        }
        let known = self.known();
        if equal(key, &known.publishable_key) {
            return Ok(anonymous());
        }
        if equal(key, known.secret_key.expose()) {
            return if is_browser(credentials) { Err(Refusal::SecretInBrowser) } else { Ok(service()) };
        }
        Err(Refusal::UnknownKey)
    }

    fn by_token(&self, token: &str, now: UnixTime) -> Result<Caller, Refusal> {
        let known = self.known();
        if let Some(caller) = known.verified.get(token, now) {
            return Ok(caller);
        }
        let Verified { claims, role, expires } = known.verifier.verify(token, now)?;
        // What was signed for an application to read opens nothing here (RFC 9700, 2.6).
        let fields: serde_json::Value = serde_json::from_str(&claims).unwrap_or_default();
        if fields.get(token::USE).is_some_and(|used| *used != "access") {
            return Err(Refusal::Token(token::Refusal::Claims));
        }
        let role = role.unwrap_or_else(|| "anon".into());
        let caller = Caller { is_anonymous: role == "anon", role, claims: claims.into() };
        known.verified.remember(token, caller.clone(), expires, now);
        Ok(caller)
    }
}

fn anonymous() -> Caller {
    Caller { role: "anon".into(), claims: r#"{"role":"anon"}"#.into(), is_anonymous: true }
}

fn service() -> Caller {
    Caller { role: "service_role".into(), claims: r#"{"role":"service_role"}"#.into(), is_anonymous: false }
}

fn is_opaque(key: &str) -> bool {
    key.starts_with("sb_")
}

/// Browsers all call themselves Mozilla.
fn is_browser(credentials: Credentials<'_>) -> bool {
    credentials.user_agent.is_some_and(|agent| agent.starts_with("Mozilla/"))
}

/// The token of an `Authorization: Bearer …` header; the scheme's case does not matter (RFC 9110, 11.1).
pub(crate) fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ').unwrap_or((header, ""));
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::Algorithm;

    const NOW: UnixTime = 1_800_000_000;

    struct House {
        keys: Keys,
        door: Doorkeeper,
    }

    fn house(require_key: bool) -> House {
        let keys = Keys::generate(NOW).unwrap();
        let door = Doorkeeper::new(&keys, require_key, None).unwrap();
        House { keys, door }
    }

    impl House {
        fn role(&self, apikey: Option<&str>, bearer: Option<&str>, agent: Option<&str>) -> Result<String, Refusal> {
            let authorization = bearer.map(|token| format!("Bearer {token}"));
            let credentials = Credentials { apikey, authorization: authorization.as_deref(), user_agent: agent };
            self.door.identify(credentials, NOW).map(|caller| caller.role)
        }
    }

    #[test]
    fn keys_and_tokens_say_who_asks() {
        let house = house(true);
        let keys = &house.keys;
        let user = keys.sign(r#"{"role":"authenticated","sub":"u"}"#).unwrap();
        let (public, secret) = (keys.publishable_key.as_str(), keys.secret_key.expose().as_str());
        let legacy = (keys.anon_key.as_str(), keys.service_role_key.expose().as_str());
        let cases = [
            (Some(public), None, Ok("anon")),
            (Some(public), Some(public), Ok("anon")),
            (Some(public), Some(user.as_str()), Ok("authenticated")),
            (Some(secret), None, Ok("service_role")),
            (Some(secret), Some(secret), Ok("service_role")),
            (Some(secret), Some(user.as_str()), Ok("authenticated")),
            (Some(legacy.0), Some(legacy.0), Ok("anon")),
            (Some(legacy.1), Some(legacy.1), Ok("service_role")),
            (None, Some(secret), Ok("service_role")),
            (None, None, Err(Refusal::NoKey)),
            (None, Some(user.as_str()), Err(Refusal::NoKey)),
            (Some("sb_secret_wrong"), None, Err(Refusal::UnknownKey)),
            (Some("nonsense"), None, Err(Refusal::UnknownKey)),
            (Some(public), Some("a.b"), Err(Refusal::Token(token::Refusal::Parts(2)))),
        ];
        for (apikey, bearer, expected) in cases {
            assert_eq!(house.role(apikey, bearer, None), expected.map(str::to_owned), "{apikey:?} {bearer:?}");
        }
    }

    #[test]
    fn security_s4_without_a_key_nobody_is_more_than_anon() {
        let house = house(false);
        assert_eq!(house.role(None, None, None).unwrap(), "anon");
        let user = house.keys.sign(r#"{"role":"authenticated"}"#).unwrap();
        assert_eq!(house.role(None, Some(&user), None).unwrap(), "authenticated");
    }

    #[test]
    fn security_s5_secret_keys_are_refused_from_browsers() {
        let house = house(true);
        let agent = Some("Mozilla/5.0 (X11; Linux x86_64)");
        let secret = house.keys.secret_key.expose().as_str();
        assert_eq!(house.role(Some(secret), None, agent), Err(Refusal::SecretInBrowser));
        let legacy = house.keys.service_role_key.expose().as_str();
        assert_eq!(house.role(Some(legacy), Some(legacy), agent), Err(Refusal::SecretInBrowser));
        assert_eq!(house.role(Some(&house.keys.publishable_key), None, agent).unwrap(), "anon");
    }

    #[test]
    fn security_t2_an_id_token_opens_nothing() {
        let house = house(false);
        let token = house.keys.sign(r#"{"role":"authenticated","sub":"u","token_use":"id"}"#).unwrap();
        assert_eq!(house.role(None, Some(&token), None), Err(Refusal::Token(token::Refusal::Claims)));
        let token = house.keys.sign(r#"{"role":"authenticated","sub":"u","token_use":"access"}"#).unwrap();
        assert_eq!(house.role(None, Some(&token), None).unwrap(), "authenticated");
    }

    #[test]
    fn a_cached_token_still_expires() {
        let house = house(false);
        let token = house.keys.sign(&format!(r#"{{"role":"authenticated","exp":{NOW}}}"#)).unwrap();
        let header = format!("bearer {token}");
        let credentials = Credentials { authorization: Some(&header), ..Credentials::default() };
        assert!(house.door.identify(credentials, NOW).is_ok());
        let late = house.door.identify(credentials, NOW + 31);
        assert_eq!(late, Err(Refusal::Token(token::Refusal::Expired)));
    }

    #[test]
    fn keys_are_exchanged_with_all_that_follows_from_them() {
        let house = house(false);
        let old = house.keys.sign(r#"{"role":"authenticated"}"#).unwrap();
        assert_eq!(house.role(None, Some(&old), None).unwrap(), "authenticated");
        let rotated = house.keys.clone().rotate(Algorithm::EdDsa, NOW, 60).unwrap();
        house.door.set_keys(&rotated).unwrap();
        let new = rotated.sign(r#"{"role":"authenticated"}"#).unwrap();
        for token in [&old, &new] {
            assert_eq!(house.role(None, Some(token), None).unwrap(), "authenticated");
        }
        house.door.set_keys(&rotated.living(NOW + 600, 60)).unwrap();
        assert_eq!(house.role(None, Some(&new), None).unwrap(), "authenticated");
        let gone = house.role(None, Some(&old), None);
        assert_eq!(gone, Err(Refusal::Token(token::Refusal::NoKey)), "though it was remembered");
        let other = Keys::generate(NOW).unwrap();
        house.door.set_keys(&other).unwrap();
        assert_eq!(house.role(Some(&house.keys.publishable_key), None, None), Err(Refusal::UnknownKey));
        assert_eq!(house.role(Some(&other.publishable_key), None, None).unwrap(), "anon");
    }
}
