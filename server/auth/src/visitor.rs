//! What a request says of whoever sends it.

use std::net::IpAddr;
use std::sync::OnceLock;

use bytes::Bytes;
use http::{Request, Response};
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_security::caller::{Caller, Credentials, Refusal};
use ntier_security::intrusion;
use serde_json::Value;

use crate::error::Error;
use crate::store;
use crate::{Auth, now};

/// Roles that may do everything.
const ADMINS: [&str; 2] = ["service_role", "supabase_admin"];

#[derive(Debug)]
pub struct Visitor {
    pub address: String,
    pub user_agent: Option<String>,
    /// Of the page that asks.
    pub origin: Option<String>,
    pub content_type: Option<String>,
    authorization: Option<String>,
    apikey: Option<String>,
    query: Vec<(String, String)>,
    /// The account that the request names, once a flow has read it.
    pub account: OnceLock<String>,
}

impl Visitor {
    pub fn new(request: &Request<Bytes>, address: IpAddr) -> Self {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self {
            address: address.to_string(),
            user_agent: header("user-agent"),
            origin: header("origin"),
            content_type: header("content-type"),
            authorization: header("authorization"),
            apikey: header("apikey"),
            query: pairs(request.uri().query().unwrap_or_default()),
            account: OnceLock::new(),
        }
    }

    /// Says with the answer which account the request named, for whoever counts what was tried.
    pub fn tell_account(self, response: &mut Response<Bytes>) {
        if let Some(account) = self.account.into_inner() {
            response.extensions_mut().insert(intrusion::Account(account));
        }
    }

    /// What follows `Basic` in the header (RFC 7617).
    pub fn basic(&self) -> Option<&str> {
        let (scheme, credentials) = self.authorization.as_deref()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("basic").then_some(credentials.trim())
    }

    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.query.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A parameter of the query; `None` where it is not there or empty.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }
}

/// The pairs of a query or of a form.
pub fn pairs(text: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        // PostgreSQL has no text with that character.
        percent_encoding::percent_decode_str(&text).decode_utf8_lossy().replace('\0', "")
    };
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    };
    text.split('&').filter(|text| !text.is_empty()).map(pair).collect()
}

impl Auth {
    /// Whoever the bearer token says.
    fn bearer(&self, visitor: &Visitor) -> Result<Caller, Error> {
        self.holder(visitor.authorization.as_deref(), visitor)
    }

    fn holder(&self, authorization: Option<&str>, visitor: &Visitor) -> Result<Caller, Error> {
        let credentials = Credentials { apikey: None, authorization, user_agent: visitor.user_agent.as_deref() };
        self.doorkeeper.holder(credentials, now()).map_err(|refusal| match refusal {
            Refusal::NoKey => {
                Refused::new(401, Code::NoAuthorization, "This endpoint requires a valid Bearer token").into()
            }
            refusal => {
                let message = format!("invalid JWT: unable to parse or verify signature, {refusal}");
                Refused::new(403, Code::BadJwt, message).into()
            }
        })
    }

    pub(crate) fn require_admin(&self, visitor: &Visitor) -> Result<(), Error> {
        // Who shows a key and no token is whoever the key says.
        let by_key = visitor.apikey.as_ref().filter(|_| visitor.authorization.is_none());
        let caller = match by_key {
            Some(key) => self.holder(Some(&format!("Bearer {key}")), visitor)?,
            None => self.bearer(visitor)?,
        };
        if ADMINS.contains(&caller.role.as_str()) {
            return Ok(());
        }
        Err(Refused::new(403, Code::NotAdmin, "User not allowed").into())
    }

    /// The user who is signed in, with the session. An application that the user has let in is not the user: it changes nothing.
    pub(crate) async fn signed_in(&self, visitor: &Visitor) -> Result<SignedIn, Error> {
        let who = self.signed_in_by_any(visitor).await?;
        if who.session.as_ref().is_some_and(|session| session.client.is_some()) {
            let message = "This endpoint is not available to OAuth clients";
            return Err(Refused::new(403, Code::NoAuthorization, message).into());
        }
        Ok(who)
    }

    /// Likewise, also where it is an application that asks.
    pub(crate) async fn signed_in_by_any(&self, visitor: &Visitor) -> Result<SignedIn, Error> {
        let caller = self.bearer(visitor)?;
        let claims: Value = serde_json::from_str(&caller.claims).unwrap_or_default();
        let bad = |message: &str| Error::from(Refused::new(403, Code::BadJwt, message));
        let subject = claims["sub"].as_str().filter(|subject| !subject.is_empty());
        let subject = subject.ok_or_else(|| bad("invalid claim: missing sub claim"))?;
        let subject = uuid::Uuid::try_parse(subject)
            .map_err(|_| Refused::new(400, Code::BadJwt, "invalid claim: sub claim must be a UUID"))?;
        let session = match claims["session_id"].as_str().filter(|id| !id.is_empty()) {
            Some(id) => {
                Some(uuid::Uuid::try_parse(id).map_err(|_| bad("invalid claim: session_id claim must be a UUID"))?)
            }
            None => None,
        };
        let gone = || Refused::new(403, Code::UserNotFound, "User from sub claim in JWT does not exist");
        let (account, session) = if let Some(id) = session {
            let id = id.to_string();
            match store::session(&self.database, &id).await? {
                Some(found) if found.account.user.id == subject.to_string() => {
                    let store::Found { created_at, ways, client, scopes, .. } = found;
                    (found.account, Some(SessionOf { id, created_at, ways, client, scopes }))
                }
                _ => {
                    // A user that is gone is the better reason.
                    store::find(&self.database, store::By::Id(&subject.to_string())).await?.ok_or_else(gone)?;
                    let message = "Session from session_id claim in JWT does not exist";
                    return Err(Refused::new(403, Code::SessionNotFound, message).into());
                }
            }
        } else {
            let found = store::find(&self.database, store::By::Id(&subject.to_string())).await?;
            (found.ok_or_else(gone)?, None)
        };
        if account.is_banned {
            return Err(Refused::new(403, Code::UserBanned, "User is banned").into());
        }
        Ok(SignedIn { account, session })
    }
}

/// A user who is signed in.
#[derive(Debug)]
pub struct SignedIn {
    pub account: store::Account,
    /// `None` where the token names none: somebody else has signed it.
    pub session: Option<SessionOf>,
}

#[derive(Debug)]
pub struct SessionOf {
    pub id: String,
    /// Seconds since 1970.
    pub created_at: i64,
    pub ways: Vec<store::Way>,
    /// The application whose session it is.
    pub client: Option<String>,
    /// What that one may know.
    pub scopes: Option<String>,
}
