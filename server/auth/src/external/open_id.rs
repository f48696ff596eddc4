//! OpenID Connect: what an issuer says of itself, and id tokens that it has signed.
//!
//! Source: OpenID Connect Discovery 1.0, 3 and 4; OpenID Connect Core 1.0, 3.1.3.7.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use ntier_backing::outbound::{self, Outbound};
use ntier_security::UnixTime;
use ntier_security::one_time;
use ntier_security::token::{KeyIds, Refusal, Verifier, VerifyingKey};
use serde_json::Value;

use super::Fault;

/// How long it is believed what an issuer has said.
const LIFE: Duration = Duration::from_hours(1);
/// An issuer whose key is not known is asked again, but not more often.
const PAUSE: Duration = Duration::from_secs(10);

/// What an issuer says of itself.
#[derive(Debug)]
pub struct Issuer {
    /// Perhaps with `{tenantid}` in it, as Microsoft's has.
    name: String,
    pub authorize: String,
    pub token: String,
    pub userinfo: Option<String>,
    /// It takes the client's secret in a header alone.
    pub basic: bool,
    keys: Verifier,
    read: Instant,
}

/// The issuers that were asked.
#[derive(Debug, Default)]
pub struct Issuers {
    known: Mutex<HashMap<String, Arc<Issuer>>>,
}

/// Where an issuer says of itself.
pub fn discovery(issuer: &str) -> String {
    format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
}

impl Issuers {
    /// What the issuer says at this address, as it was said a while ago at most.
    pub async fn get(&self, outbound: &Outbound, issuer: &str, address: &str) -> Result<Arc<Issuer>, Fault> {
        self.not_older(outbound, issuer, address, LIFE).await
    }

    async fn not_older(
        &self,
        outbound: &Outbound,
        issuer: &str,
        address: &str,
        life: Duration,
    ) -> Result<Arc<Issuer>, Fault> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(address).cloned();
        if let Some(known) = known.filter(|known| known.read.elapsed() < life) {
            return Ok(known);
        }
        let document = json(outbound, address).await?;
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        let endpoint = |name: &'static str| {
            let address = text(name).ok_or(Fault::Incomplete(name))?;
            if outbound::is_private(address) { Ok(address.to_owned()) } else { Err(Fault::InTheClear(address.into())) }
        };
        let name = text("issuer").unwrap_or_default();
        let is_it = name.trim_end_matches('/') == issuer.trim_end_matches('/') || name.contains(TENANT);
        if !is_it {
            return Err(Fault::Issuer(name.into()));
        }
        let jwks = json(outbound, &endpoint("jwks_uri")?).await?;
        let keys = jwks.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        // A key that everybody can read is no secret, whatever it says of itself.
        let is_public = |key: &&Value| key.get("kty").and_then(Value::as_str) != Some("oct");
        let keys = keys.iter().filter(is_public).filter_map(VerifyingKey::from_jwk).collect();
        let methods = document.get("token_endpoint_auth_methods_supported").and_then(Value::as_array);
        let takes = |method: &str| methods.is_some_and(|methods| methods.iter().any(|known| known == method));
        let found = Arc::new(Issuer {
            name: name.to_owned(),
            authorize: endpoint("authorization_endpoint")?,
            token: endpoint("token_endpoint")?,
            userinfo: endpoint("userinfo_endpoint").ok(),
            basic: !takes("client_secret_post"),
            keys: Verifier::new(keys, KeyIds::OrNone, None),
            read: Instant::now(),
        });
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(address.to_owned(), found.clone());
        Ok(found)
    }

    /// The claims of an id token that this issuer has signed for one of these clients.
    pub async fn verify(
        &self,
        outbound: &Outbound,
        (issuer, address): (&str, &str),
        token: &str,
        clients: &[String],
        now: UnixTime,
    ) -> Result<Value, Fault> {
        let mut found = self.get(outbound, issuer, address).await?;
        let mut verified = found.keys.verify(token, now);
        if matches!(verified, Err(Refusal::NoKey | Refusal::Signature)) && found.read.elapsed() > PAUSE {
            // It may have taken another key meanwhile.
            found = self.not_older(outbound, issuer, address, PAUSE).await?;
            verified = found.keys.verify(token, now);
        }
        let verified = verified.map_err(Fault::Token)?;
        let claims: Value =
            serde_json::from_str(&verified.claims).map_err(|_| Fault::Claims("the token is no JSON"))?;
        check(&claims, &found.name, clients)?;
        Ok(claims)
    }
}

const TENANT: &str = "{tenantid}";
/// Apple has two names.
const APPLE: [&str; 2] = ["https://appleid.apple.com", "https://account.apple.com"];

/// What has to be so besides signature and times.
fn check(claims: &Value, issuer: &str, clients: &[String]) -> Result<(), Fault> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    let tenant = Some(text("tid")).filter(|tenant| tenant.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'));
    let expected = issuer.replace(TENANT, tenant.filter(|tenant| !tenant.is_empty()).unwrap_or(TENANT));
    let from = text("iss");
    let is_from = from.trim_end_matches('/') == expected.trim_end_matches('/')
        || (APPLE.contains(&from) && APPLE.contains(&expected.as_str()));
    if !is_from || from.is_empty() {
        return Err(Fault::Issuer(from.into()));
    }
    if claims.get("exp").and_then(Value::as_f64).is_none() {
        return Err(Fault::Claims("it never expires"));
    }
    let audiences: Vec<&str> = match claims.get("aud") {
        Some(Value::String(audience)) => vec![audience],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is_ours = |name: &str| !name.is_empty() && clients.iter().any(|client| client == name);
    if !audiences.iter().any(|audience| is_ours(audience)) {
        return Err(Fault::Audience(audiences.join(" ")));
    }
    if audiences.len() > 1 && claims.get("azp").is_some() && !is_ours(text("azp")) {
        return Err(Fault::Audience(text("azp").into()));
    }
    if text("sub").is_empty() {
        return Err(Fault::Claims("Missing sub claim in id_token"));
    }
    Ok(())
}

/// The nonce of an id token that a client brings: the token has the hash of what the client shows (as GoTrue has it).
pub fn check_nonce(claims: &Value, shown: &str) -> Result<(), Fault> {
    let in_token = claims.get("nonce").and_then(Value::as_str).unwrap_or_default();
    match (in_token.is_empty(), shown.is_empty()) {
        (true, true) => Ok(()),
        (false, false) if one_time::sha256_hex(shown) == in_token => Ok(()),
        (false, false) => Err(Fault::Nonce),
        _ => Err(Fault::Claims("Passed nonce and nonce in id_token should either both exist or not.")),
    }
}

async fn json(outbound: &Outbound, address: &str) -> Result<Value, Fault> {
    let request = Request::get(address).header("accept", "application/json").body(Bytes::new());
    super::exchange::json(outbound, request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_id_token_is_from_the_issuer_and_for_us() {
        let clients = ["ours".to_owned(), "app".to_owned()];
        let tenant = "https://login.microsoftonline.com/{tenantid}/v2.0";
        for (issuer, claims, is_fine) in [
            ("https://a", json!({ "iss": "https://a", "aud": "ours", "exp": 1, "sub": "x" }), true),
            ("https://a/", json!({ "iss": "https://a", "aud": ["app"], "exp": 1, "sub": "x" }), true),
            ("https://a", json!({ "iss": "https://b", "aud": "ours", "exp": 1, "sub": "x" }), false),
            ("https://a", json!({ "aud": "ours", "exp": 1, "sub": "x" }), false),
            ("https://a", json!({ "iss": "https://a", "aud": "theirs", "exp": 1, "sub": "x" }), false),
            ("https://a", json!({ "iss": "https://a", "aud": [], "exp": 1, "sub": "x" }), false),
            ("https://a", json!({ "iss": "https://a", "aud": "", "exp": 1, "sub": "x" }), false),
            ("https://a", json!({ "iss": "https://a", "aud": "ours", "sub": "x" }), false),
            ("https://a", json!({ "iss": "https://a", "aud": "ours", "exp": 1 }), false),
            (
                "https://a",
                json!({ "iss": "https://a", "aud": ["ours", "theirs"], "azp": "theirs", "exp": 1, "sub": "x" }),
                false,
            ),
            (
                "https://a",
                json!({ "iss": "https://a", "aud": ["ours", "b"], "azp": "ours", "exp": 1, "sub": "x" }),
                true,
            ),
            (
                tenant,
                json!({ "iss": "https://login.microsoftonline.com/ab-1/v2.0", "tid": "ab-1", "aud": "ours", "exp": 1, "sub": "x" }),
                true,
            ),
            (
                tenant,
                json!({ "iss": "https://login.microsoftonline.com/ab-1/v2.0", "tid": "ab-2", "aud": "ours", "exp": 1, "sub": "x" }),
                false,
            ),
            (
                tenant,
                json!({ "iss": "https://login.microsoftonline.com/x/y/v2.0", "tid": "x/y", "aud": "ours", "exp": 1, "sub": "x" }),
                false,
            ),
            (APPLE[0], json!({ "iss": APPLE[1], "aud": "ours", "exp": 1, "sub": "x" }), true),
        ] {
            assert_eq!(check(&claims, issuer, &clients).is_ok(), is_fine, "{issuer} {claims}");
        }
    }

    #[test]
    fn a_nonce_is_in_both_or_in_none() {
        let hash = one_time::sha256_hex("secret");
        for (claims, shown, is_fine) in [
            (json!({}), "", true),
            (json!({ "nonce": hash }), "secret", true),
            (json!({ "nonce": hash }), "other", false),
            (json!({ "nonce": hash }), "", false),
            (json!({}), "secret", false),
        ] {
            assert_eq!(check_nonce(&claims, shown).is_ok(), is_fine, "{claims} {shown}");
        }
    }
}
