//! Proof that a person asks, as hCaptcha and Turnstile give it. Source: GoTrue, `internal/security/captcha.go`.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_security::Secret;
use serde_json::Value;

use crate::Auth;
use crate::error::Error;
use crate::redirect::form;
use crate::visitor::Visitor;

/// A service that knows whether a token was given to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captcha {
    pub url: String,
    pub secret: Secret<String>,
}

impl Captcha {
    /// Where the provider of this name is asked.
    pub fn url_of(provider: &str) -> Option<&'static str> {
        match provider {
            "hcaptcha" => Some("https://hcaptcha.com/siteverify"),
            "turnstile" => Some("https://challenges.cloudflare.com/turnstile/v0/siteverify"),
            _ => None,
        }
    }
}

/// Whether a person has to ask for this: whatever begins something by a password or sends a message.
fn is_guarded(method: &Method, path: &[&str], grant: Option<&str>) -> bool {
    match (method, path) {
        (&Method::POST, ["token"]) => matches!(grant, Some("password" | "web3")),
        (
            &Method::POST,
            ["signup" | "recover" | "resend" | "magiclink" | "otp" | "sso"] | ["passkeys", "authentication", "options"],
        ) => true,
        _ => false,
    }
}

impl Auth {
    /// Refuses what no person has asked for; whoever has the secret key need not be one.
    pub(crate) async fn check_captcha(
        &self,
        visitor: &Visitor,
        method: &Method,
        path: &[&str],
        body: &Bytes,
    ) -> Result<(), Error> {
        let Some(captcha) = &self.settings.captcha else { return Ok(()) };
        if !is_guarded(method, path, visitor.parameter("grant_type")) || self.require_admin(visitor).is_ok() {
            return Ok(());
        }
        let refused = |why: &str| {
            let message = format!("captcha protection: request disallowed ({why})");
            Error::from(Refused::new(400, Code::CaptchaFailed, message))
        };
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let token = sent["gotrue_meta_security"]["captcha_token"].as_str().unwrap_or_default().trim();
        if token.is_empty() {
            return Err(refused("no captcha_token found"));
        }
        let failed = || Error::from(Refused::new(500, Code::UnexpectedFailure, "captcha verification process failed"));
        let asked = form([
            ("secret", captcha.secret.expose().trim()),
            ("response", token),
            ("remoteip", visitor.address.as_str()),
        ]);
        let request = Request::post(&captcha.url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(asked.into())
            .map_err(|_| failed())?;
        let response = self.exchange.outbound.send(request).await.map_err(|_| failed())?;
        let answer: Value = serde_json::from_slice(response.body()).map_err(|_| failed())?;
        if answer["success"] == Value::Bool(true) {
            return Ok(());
        }
        let codes = answer["error-codes"].as_array().cloned().unwrap_or_default();
        let codes: Vec<&str> = codes.iter().filter_map(Value::as_str).collect();
        Err(refused(&codes.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_something_is_guarded() {
        for (method, path, grant, expected) in [
            (Method::POST, vec!["signup"], None, true),
            (Method::POST, vec!["token"], Some("password"), true),
            (Method::POST, vec!["token"], Some("refresh_token"), false),
            (Method::POST, vec!["token"], Some("pkce"), false),
            (Method::POST, vec!["token"], Some("id_token"), false),
            (Method::POST, vec!["otp"], None, true),
            (Method::POST, vec!["passkeys", "authentication", "options"], None, true),
            (Method::POST, vec!["verify"], None, false),
            (Method::GET, vec!["user"], None, false),
        ] {
            assert_eq!(is_guarded(&method, &path, grant), expected, "{method} {path:?} {grant:?}");
        }
    }
}
