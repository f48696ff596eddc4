//! The bodies that clients send. Source: GoTrue, the `…Params` of `internal/api`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::error::{Code, Error};

/// Reads a body; an empty one is an empty object.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    let bad = |cause: &str| Error::new(400, Code::BadJson, format!("Could not parse request body as JSON: {cause}"));
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    let value: Value = serde_json::from_slice(body).map_err(|cause| bad(&cause.to_string()))?;
    if !value.is_object() {
        return Err(bad("it is no object"));
    }
    if has_nul(&value) {
        return Err(bad("it has the character U+0000"));
    }
    serde_json::from_value(value).map_err(|cause| bad(&cause.to_string()))
}

/// PostgreSQL has no text with that character.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// `POST /signup`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SignUp {
    #[serde(deserialize_with = "or_default")]
    pub email: String,
    #[serde(deserialize_with = "or_default")]
    pub phone: String,
    #[serde(deserialize_with = "or_default")]
    pub password: String,
    pub data: Option<Map<String, Value>>,
    /// How a message to a phone goes: `sms` or `whatsapp`.
    #[serde(deserialize_with = "or_default")]
    pub channel: String,
    #[serde(flatten)]
    pub challenge: Challenge,
}

/// The half of a proof (PKCE) that comes with what begins a flow.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Challenge {
    #[serde(deserialize_with = "or_default")]
    pub code_challenge: String,
    #[serde(deserialize_with = "or_default")]
    pub code_challenge_method: String,
}

/// `POST /token?grant_type=pkce`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PkceGrant {
    #[serde(deserialize_with = "or_default")]
    pub auth_code: String,
    #[serde(deserialize_with = "or_default")]
    pub code_verifier: String,
}

/// `POST /token?grant_type=password`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PasswordGrant {
    #[serde(deserialize_with = "or_default")]
    pub email: String,
    #[serde(deserialize_with = "or_default")]
    pub phone: String,
    #[serde(deserialize_with = "or_default")]
    pub password: String,
}

/// `POST /token?grant_type=refresh_token`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RefreshGrant {
    #[serde(deserialize_with = "or_default")]
    pub refresh_token: String,
}

/// `POST /token?grant_type=id_token`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct IdTokenGrant {
    #[serde(deserialize_with = "or_default")]
    pub provider: String,
    #[serde(deserialize_with = "or_default")]
    pub id_token: String,
    #[serde(deserialize_with = "or_default")]
    pub access_token: String,
    #[serde(deserialize_with = "or_default")]
    pub nonce: String,
    #[serde(deserialize_with = "or_default")]
    pub client_id: String,
    #[serde(deserialize_with = "or_default")]
    pub issuer: String,
    #[serde(deserialize_with = "or_default")]
    pub link_identity: bool,
}

/// `PUT /user`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct UserUpdate {
    #[serde(deserialize_with = "or_default")]
    pub email: String,
    #[serde(deserialize_with = "or_default")]
    pub phone: String,
    pub password: Option<String>,
    pub current_password: Option<String>,
    /// The code of a reauthentication.
    #[serde(deserialize_with = "or_default")]
    pub nonce: String,
    pub data: Option<Map<String, Value>>,
    pub app_metadata: Option<Map<String, Value>>,
    #[serde(deserialize_with = "or_default")]
    pub channel: String,
    #[serde(flatten)]
    pub challenge: Challenge,
}

/// `POST /admin/users` and `PUT /admin/users/{id}`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct AdminUser {
    #[serde(deserialize_with = "or_default")]
    pub id: String,
    #[serde(deserialize_with = "or_default")]
    pub aud: String,
    #[serde(deserialize_with = "or_default")]
    pub role: String,
    #[serde(deserialize_with = "or_default")]
    pub email: String,
    #[serde(deserialize_with = "or_default")]
    pub phone: String,
    pub password: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub password_hash: String,
    #[serde(deserialize_with = "or_default")]
    pub email_confirm: bool,
    #[serde(deserialize_with = "or_default")]
    pub phone_confirm: bool,
    pub user_metadata: Option<Map<String, Value>>,
    pub app_metadata: Option<Map<String, Value>>,
    #[serde(deserialize_with = "or_default")]
    pub ban_duration: String,
}

/// `DELETE /admin/users/{id}`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct AdminDelete {
    #[serde(deserialize_with = "or_default")]
    pub should_soft_delete: bool,
}

/// `POST /verify`; its links have the first two in the query.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Verify {
    /// It came by a link in a browser.
    #[serde(skip)]
    pub is_link: bool,
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    #[serde(deserialize_with = "or_default")]
    pub token_hash: String,
    #[serde(deserialize_with = "or_default")]
    pub token: String,
    #[serde(deserialize_with = "or_default")]
    pub email: String,
    #[serde(deserialize_with = "or_default")]
    pub phone: String,
}

/// `POST /otp` and `/magiclink`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Otp {
    #[serde(deserialize_with = "or_default")]
    pub email: String,
    #[serde(deserialize_with = "or_default")]
    pub phone: String,
    pub create_user: bool,
    pub data: Option<Map<String, Value>>,
    #[serde(deserialize_with = "or_default")]
    pub channel: String,
    #[serde(flatten)]
    pub challenge: Challenge,
}

impl Default for Otp {
    fn default() -> Self {
        Self {
            email: String::new(),
            phone: String::new(),
            create_user: true,
            data: None,
            channel: String::new(),
            challenge: Challenge::default(),
        }
    }
}

/// `POST /recover`, `/resend` (which has a type) and `/invite` (which has data).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Mailing {
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    #[serde(deserialize_with = "or_default")]
    pub email: String,
    #[serde(deserialize_with = "or_default")]
    pub phone: String,
    pub data: Option<Map<String, Value>>,
    #[serde(flatten)]
    pub challenge: Challenge,
}

/// `POST /factors`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Enroll {
    #[serde(deserialize_with = "or_default")]
    pub friendly_name: String,
    #[serde(deserialize_with = "or_default")]
    pub factor_type: String,
    #[serde(deserialize_with = "or_default")]
    pub issuer: String,
    #[serde(deserialize_with = "or_default")]
    pub phone: String,
}

/// `POST /factors/{id}/challenge`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Challenged {
    #[serde(deserialize_with = "or_default")]
    pub channel: String,
}

/// `POST /factors/{id}/verify`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct VerifyFactor {
    #[serde(deserialize_with = "or_default")]
    pub challenge_id: String,
    #[serde(deserialize_with = "or_default")]
    pub code: String,
    pub webauthn: Option<WebAuthnAnswer>,
}

/// What an authenticator has answered.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct WebAuthnAnswer {
    /// `create` or `request`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    pub credential_response: Value,
}

/// `POST /passkeys/registration/verify` and `/passkeys/authentication/verify`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PasskeyAnswer {
    #[serde(deserialize_with = "or_default")]
    pub challenge_id: String,
    pub credential: Value,
}

/// `PATCH /passkeys/{id}`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct FriendlyName {
    #[serde(deserialize_with = "or_default")]
    pub friendly_name: String,
}

/// `POST /admin/oauth/clients`, `PUT /admin/oauth/clients/{id}` and `POST /oauth/clients/register` (RFC 7591, 2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct OAuthClient {
    pub redirect_uris: Option<Vec<String>>,
    pub client_type: Option<String>,
    pub token_endpoint_auth_method: Option<String>,
    pub grant_types: Option<Vec<String>>,
    pub client_name: Option<String>,
    pub client_uri: Option<String>,
    pub logo_uri: Option<String>,
}

/// `POST /admin/custom-providers` and `PUT /admin/custom-providers/{identifier}`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct CustomProvider {
    /// `oauth2` or `oidc`.
    pub provider_type: Option<String>,
    pub identifier: Option<String>,
    pub name: Option<String>,
    pub client_id: Option<String>,
    pub client_secret: Option<String>,
    pub acceptable_client_ids: Option<Vec<String>>,
    pub scopes: Option<Vec<String>>,
    pub pkce_enabled: Option<bool>,
    pub attribute_mapping: Option<Value>,
    pub authorization_params: Option<Value>,
    pub custom_claims_allowlist: Option<Vec<String>>,
    pub enabled: Option<bool>,
    pub email_optional: Option<bool>,
    pub issuer: Option<String>,
    pub discovery_url: Option<String>,
    pub skip_nonce_check: Option<bool>,
    pub authorization_url: Option<String>,
    pub token_url: Option<String>,
    pub userinfo_url: Option<String>,
    pub jwks_uri: Option<String>,
}

/// `POST /oauth/authorizations/{id}/consent`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Consent {
    /// `approve` or `deny`.
    #[serde(deserialize_with = "or_default")]
    pub action: String,
}

/// `POST /admin/generate_link`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct GenerateLink {
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    #[serde(deserialize_with = "or_default")]
    pub email: String,
    #[serde(deserialize_with = "or_default")]
    pub new_email: String,
    #[serde(deserialize_with = "or_default")]
    pub password: String,
    #[serde(deserialize_with = "or_default")]
    pub redirect_to: String,
    pub data: Option<Map<String, Value>>,
}

/// Go reads `null` as what a field has by itself.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A duration as Go writes it, in seconds: `300ms`, `1.5h`, `2h45m`; `none` is none.
pub fn duration(text: &str) -> Option<f64> {
    if matches!(text, "none" | "0") {
        return Some(0.0);
    }
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|character: char| character.is_ascii_digit() || character == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..end] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[end..];
    }
    Some(sign * seconds)
}

/// An e-mail address in the form in which it is kept; `None` where it cannot be one.
///
/// GoTrue asks for one `@`, a domain with a name, and no more than 255 bytes; whether the mailbox is there shows when it confirms.
pub fn email(text: &str) -> Option<String> {
    let (local, domain) = text.rsplit_once('@')?;
    let plain = |part: &str| !part.is_empty() && part.chars().all(|c| !c.is_whitespace() && !c.is_control());
    let local_is_fine = plain(local) && !local.contains(['@', '<', '>', ',', ';', ':', '\\', '"', '(', ')', '[', ']']);
    let labels_are_fine = domain.split('.').all(|label| {
        let inside = |c: char| c.is_alphanumeric() || c == '-';
        !label.is_empty() && label.chars().all(inside) && !label.starts_with('-') && !label.ends_with('-')
    });
    (text.len() <= 255 && local_is_fine && labels_are_fine).then(|| text.to_lowercase())
}

/// A phone number in E.164 without its plus; `None` where it cannot be one.
pub fn phone(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| !matches!(c, '+' | ' ')).collect();
    let fits = (2..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    (fits && !digits.starts_with('0')).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_in_lower_case() {
        assert_eq!(email("Ada.Lovelace@Example.COM").as_deref(), Some("ada.lovelace@example.com"));
        assert_eq!(email("a+b@localhost").as_deref(), Some("a+b@localhost"));
        for text in [
            "",
            "a",
            "@b.c",
            "a@",
            "a@b..c",
            "a b@c.d",
            "a@b@c.d",
            "a@-b.c",
            "<a@b.c>",
            &format!("{}@b.c", "a".repeat(300)),
        ] {
            assert_eq!(email(text), None, "{text}");
        }
    }

    #[test]
    fn phones_are_kept_without_their_plus() {
        assert_eq!(phone("+49 30 123456").as_deref(), Some("4930123456"));
        for text in ["", "0301234", "+1x", "+12345678901234567"] {
            assert_eq!(phone(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_gos() {
        for (text, seconds) in
            [("none", 0.0), ("24h", 86_400.0), ("1.5h", 5400.0), ("2h45m", 9900.0), ("-1s", -1.0), ("300ms", 0.3)]
        {
            assert_eq!(duration(text), Some(seconds), "{text}");
        }
        for text in ["", "h", "24", "1d", "1h 2m", "x"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn null_is_what_is_not_said() {
        let body: SignUp = read(br#"{"email": null, "data": null, "unknown": 1}"#).unwrap();
        assert_eq!((body.email.as_str(), body.data), ("", None));
        assert_eq!(read::<SignUp>(b"").unwrap().password, "");
        for body in [&b"["[..], b"[]", b"7", b"{\"email\": \"\\u0000\"}"] {
            assert_eq!(read::<SignUp>(body).unwrap_err().code, Code::BadJson);
        }
        assert_eq!(read::<SignUp>(br#"{"email": 1}"#).unwrap_err().status, 400);
    }
}
