//! Users and sessions under `/auth/v1`, as GoTrue has them.
//!
//! Each flow gathers facts in one read, decides, and applies in one batch that is done whole or not at all; a batch that
//! depends on what was read says so (`ntier.expect`), and the flow begins again where it has changed. Not here: keys of applications (the
//! node has looked at them), and what a user may see (row level security).

mod admin;
mod basic;
mod captcha;
mod ceremony;
mod custom_providers;
mod delivery;
mod error;
mod external;
mod hashing;
mod hooks;
mod identities;
mod inbox;
mod issue;
mod legacy;
mod limits;
mod logout;
mod mail;
mod mailing;
mod mfa;
mod oauth_server;
mod one_time;
mod passkeys;
mod pkce;
mod reauthenticate;
mod redirect;
mod respond;
mod settings;
mod signup;
mod sms;
mod store;
mod template;
mod token;
mod user;
mod visitor;

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::SystemTime;

use bytes::Bytes;
use http::{Method, Request, Response};
use ntier_backing::database::Database;
use ntier_protocol::auth::error::{Code, Error as Refused, Version};
use ntier_security::UnixTime;
use ntier_security::caller::Doorkeeper;
use ntier_security::keys::Keys;
use ntier_security::one_time::Hasher;
use ntier_security::refresh::Sealer;
use ntier_security::vault::Vault;

pub use captcha::Captcha;
pub use delivery::{Delivery, Fault, Smtp};
pub use external::External;
pub use external::named::{ALL as PROVIDERS, NOT_SERVED as PROVIDERS_NOT_SERVED};
pub use hooks::{Hook, Hooks};
pub use limits::Rates;
pub use mail::{Mails, NOTIFICATIONS, TEMPLATES};
pub use ntier_protocol::auth::request::duration;
pub use oauth_server::OAuthServer;
pub use settings::{Mfa, Settings, Use, WebAuthn};
pub use sms::{Service as SmsService, Sms};
pub use template::Fault as TemplateFault;

use error::Error;
use external::exchange::Exchange;
use hashing::Hashing;
use visitor::Visitor;

/// The service.
#[derive(Debug)]
pub struct Auth {
    database: Database,
    settings: Settings,
    doorkeeper: Arc<Doorkeeper>,
    keys: RwLock<Keys>,
    sealer: Sealer,
    codes: Hasher,
    vault: Vault,
    hashing: Hashing,
    exchange: Exchange,
    remembered: basic::Remembered,
}

/// Bytes of a body. Source: GoTrue, `limitRequestBody`.
const LARGEST: usize = 1 << 20;
/// How often a flow begins again where facts change under it.
const ATTEMPTS: usize = 5;

impl Auth {
    pub fn new(database: Database, settings: Settings, doorkeeper: Arc<Doorkeeper>, keys: Keys, vault: Vault) -> Self {
        let (sealer, codes) = (Sealer::new(keys.jwt_secret.expose()), Hasher::new(keys.jwt_secret.expose()));
        Self {
            database,
            settings,
            doorkeeper,
            keys: RwLock::new(keys),
            sealer,
            codes,
            vault,
            hashing: Hashing::new(),
            exchange: Exchange::default(),
            remembered: basic::Remembered::default(),
        }
    }

    fn keys(&self) -> RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts other signing keys in force. Refresh tokens stay sealed with the secret of the start.
    pub fn set_keys(&self, keys: Keys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Answers a request. `path` is what follows `/auth/v1`; `address` is the client's.
    pub async fn answer(&self, path: &str, address: IpAddr, request: Request<Bytes>) -> Response<Bytes> {
        let version = request.headers().get("x-supabase-api-version").and_then(|value| value.to_str().ok());
        let version = Version::of(version);
        let visitor = Visitor::new(&request, address);
        let mut response = match self.route(path, &visitor, &request).await {
            Ok(response) => response,
            Err(error) => respond::error(&error, version),
        };
        visitor.tell_account(&mut response);
        response
    }

    async fn route(&self, path: &str, visitor: &Visitor, request: &Request<Bytes>) -> Result<Response<Bytes>, Error> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let body = request.body();
        if body.len() > LARGEST {
            let message = "Request body too large";
            return Err(Refused::new(413, Code::RequestEntityTooLarge, message).into());
        }
        self.check_captcha(visitor, request.method(), &parts, body).await?;
        match (request.method(), parts.as_slice()) {
            (&Method::GET, ["settings"]) => Ok(respond::settings(&self.settings)),
            (&Method::POST, ["signup"]) => self.sign_up(visitor, body).await,
            (&Method::POST, ["token"]) => self.token(visitor, body).await,
            (&Method::POST, ["logout"]) => self.log_out(visitor).await,
            (&Method::GET, ["user"]) => self.user(visitor).await,
            (&Method::PUT, ["user"]) => self.update_user(visitor, body).await,
            (method @ (&Method::GET | &Method::POST), ["verify"]) => self.verify(method, visitor, body).await,
            (&Method::GET, ["reauthenticate"]) => self.reauthenticate(visitor).await,
            (&Method::GET, ["authorize"]) => self.authorize(visitor).await,
            (method @ (&Method::GET | &Method::POST), ["callback"]) => self.callback(method, visitor, body).await,
            (&Method::GET, ["user", "identities", "authorize"]) => self.link_identity(visitor).await,
            (&Method::DELETE, ["user", "identities", id]) => self.unlink_identity(visitor, id).await,
            (method, ["factors", rest @ ..]) => self.factors(method, rest, visitor, body).await,
            (method, ["oauth", rest @ ..]) => self.oauth_server(method, rest, visitor, body).await,
            (&Method::GET, ["user", "oauth", "grants"]) => self.grants(visitor).await,
            (&Method::DELETE, ["user", "oauth", "grants"]) => self.revoke_grant(visitor).await,
            (method, ["passkeys", rest @ ..]) => self.passkeys(method, rest, visitor, body).await,
            (&Method::POST, ["recover"]) => mailing::level(Box::pin(self.recover(visitor, body))).await,
            (&Method::POST, ["otp" | "magiclink"]) => mailing::level(Box::pin(self.otp(visitor, body))).await,
            (&Method::POST, ["resend"]) => mailing::level(Box::pin(self.resend(visitor, body))).await,
            (&Method::POST, ["invite"]) => {
                self.require_admin(visitor)?;
                self.invite(visitor, body).await
            }
            (method, ["admin", rest @ ..]) => {
                self.require_admin(visitor)?;
                self.admin(method, rest, visitor, body).await
            }
            (&Method::POST, ["sso"]) => {
                Err(Refused::new(404, Code::SamlProviderDisabled, "SAML 2.0 is disabled").into())
            }
            _ => Ok(respond::not_found()),
        }
    }
}

fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
