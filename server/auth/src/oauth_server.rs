//! This node as the provider: applications of others sign our users in (OAuth 2.1, OpenID Connect).
//!
//! The application sends a browser to `/oauth/authorize`; the project's own page shows who asks for what and gives the user's answer
//! (`/oauth/authorizations/…`); the application exchanges the code for a session of its own at `/oauth/token`. Codes are kept as hashes
//! and are good once, for a minute. Source: GoTrue, `internal/api/oauthserver`; RFC 6749, 7636, 7591, 8414; OpenID Connect Core 1.0.

mod authorize;
mod clients;
mod grants;
mod token;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};
use ntier_backing::database::Answer;
use ntier_protocol::auth::error::{Code, Error as Refused};
use serde_json::{Value, json};

use crate::error::Error;
use crate::visitor::Visitor;
use crate::{Auth, respond};

/// What an application may ask for.
const SCOPES: &[&str] = &["openid", "profile", "email", "phone"];

/// What others may do here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthServer {
    pub enabled: bool,
    /// The page of the site that shows who asks for what.
    pub consent_path: String,
    /// Applications may register themselves.
    pub registration: bool,
}

impl Default for OAuthServer {
    fn default() -> Self {
        Self { enabled: false, consent_path: "/oauth/consent".into(), registration: false }
    }
}

impl Auth {
    pub(crate) async fn oauth_server(
        &self,
        method: &Method,
        path: &[&str],
        visitor: &Visitor,
        body: &Bytes,
    ) -> Result<Response<Bytes>, Error> {
        if !self.settings.oauth_server.enabled {
            return Err(Refused::new(404, Code::FeatureDisabled, "OAuth server is disabled").into());
        }
        match (method, path) {
            (&Method::GET, ["authorize"]) => self.begin_authorization(visitor).await,
            (&Method::GET, ["authorizations", id]) => self.authorization(visitor, id).await,
            (&Method::POST, ["authorizations", id, "consent"]) => self.consent(visitor, id, body).await,
            (&Method::POST, ["token"]) => self.oauth_token(visitor, body).await,
            (&Method::GET | &Method::POST, ["userinfo"]) => self.userinfo(visitor).await,
            (&Method::POST, ["clients", "register"]) => self.register_client(visitor, body).await,
            _ => Ok(respond::not_found()),
        }
    }

    /// `/.well-known/openid-configuration` and `/.well-known/oauth-authorization-server`: the same, as the one extends the other.
    pub fn configuration(&self) -> Response<Bytes> {
        let issuer = self.settings.url.as_str();
        let at = |path: &str| format!("{issuer}{path}");
        let mut configuration = json!({
            "issuer": issuer,
            "authorization_endpoint": at("/oauth/authorize"),
            "token_endpoint": at("/oauth/token"),
            "jwks_uri": at("/.well-known/jwks.json"),
            "userinfo_endpoint": at("/oauth/userinfo"),
            "scopes_supported": SCOPES,
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": self.algorithms(),
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
            "code_challenge_methods_supported": ["S256"],
            "claims_supported": [
                "sub", "aud", "iss", "exp", "iat", "auth_time", "nonce", "email", "email_verified", "phone_number",
                "phone_number_verified", "name", "picture", "preferred_username", "updated_at",
            ],
        });
        let server = &self.settings.oauth_server;
        if server.enabled && server.registration {
            configuration["registration_endpoint"] = at("/oauth/clients/register").into();
        }
        let mut response = respond::json(200, &configuration);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=600"));
        response
    }

    /// Of the keys that are published.
    fn algorithms(&self) -> Vec<Value> {
        let jwks = self.keys().jwks().unwrap_or_default();
        let keys = jwks["keys"].as_array().cloned().unwrap_or_default();
        let mut all: Vec<Value> = Vec::new();
        for algorithm in keys.iter().map(|key| key["alg"].clone()) {
            if !all.contains(&algorithm) {
                all.push(algorithm);
            }
        }
        all
    }
}

/// The JSON of the last statement that gave any.
fn last_json(answer: &Answer) -> Option<Value> {
    let text = answer.results.last().and_then(|result| result.rows.first()?.text(0))?;
    serde_json::from_str(text).ok()
}
