//! `POST /oauth/token`: codes and refresh tokens of applications, each of which shows who it is; `/oauth/userinfo`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Response;
use ntier_backing::database::Row;
use ntier_protocol::auth::error::OAuthError;
use ntier_protocol::auth::user::{Session, User};
use ntier_security::one_time;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::error::Error;
use crate::issue::Beginning;
use crate::limits::Limit;
use crate::store::{self, Actor, By, sql};
use crate::visitor::{Visitor, pairs};
use crate::{Auth, now, respond};

/// An id token says that it is one: it opens nothing here (`security::caller` refuses it).
const ID_TOKEN: &str = ntier_security::token::USE;

/// How a session says that it is an application's.
const METHOD: &str = "oauth_provider/authorization_code";

/// The fields of a request, as a form or as JSON.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn read(visitor: &Visitor, body: &Bytes) -> Result<Self, OAuthError> {
        let is_json = visitor.content_type.as_deref().is_some_and(|kind| kind.starts_with("application/json"));
        if !is_json {
            return Ok(Self(pairs(&String::from_utf8_lossy(body))));
        }
        let map: Map<String, Value> =
            serde_json::from_slice(body).map_err(|_| OAuthError::new("invalid_request", "Invalid JSON body"))?;
        let text = |(name, value): (String, Value)| Some((name, value.as_str()?.replace('\0', "")));
        Ok(Self(map.into_iter().filter_map(text).collect()))
    }

    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// An application that has shown who it is.
struct Client {
    id: String,
    grants: String,
}

impl Auth {
    pub(super) async fn oauth_token(&self, visitor: &Visitor, body: &Bytes) -> Result<Response<Bytes>, Error> {
        self.limit(Limit::Token, visitor, None).await?;
        let fields = Fields::read(visitor, body)?;
        let client = self.client(visitor, &fields).await?;
        let grant = fields.get("grant_type");
        if grant.is_empty() {
            return Err(OAuthError::new("invalid_request", "grant_type is required").into());
        }
        if !client.grants.split(',').any(|own| own == grant) {
            let message = format!("Client is not allowed to use grant type: {grant}");
            return Err(OAuthError::new("unsupported_grant_type", message).into());
        }
        if grant == "authorization_code" {
            return self.by_authorization(visitor, &client, &fields).await;
        }
        let token = fields.get("refresh_token");
        if token.is_empty() {
            let message = "refresh_token is required for refresh_token grant";
            return Err(OAuthError::new("invalid_request", message).into());
        }
        let session = self.refresh_of(visitor, token, Some(&client.id)).await.map_err(as_grant)?;
        Ok(respond::json(200, &shown(&session, None)))
    }

    /// Basic, in the body, or by nothing but the name, as it was registered (RFC 6749, 2.3).
    async fn client(&self, visitor: &Visitor, fields: &Fields) -> Result<Client, Error> {
        let invalid =
            |message: &str| Error::from(OAuthError { status: 401, ..OAuthError::new("invalid_client", message) });
        let (id, secret, method) = if let Some(basic) = visitor.basic() {
            let decoded = STANDARD.decode(basic).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let decoded = decoded.ok_or_else(|| invalid("invalid basic auth encoding"))?;
            let (id, secret) = decoded.split_once(':').ok_or_else(|| invalid("invalid basic auth format"))?;
            (decoded_form(id), decoded_form(secret), "client_secret_basic")
        } else {
            let secret = fields.get("client_secret");
            let method = if secret.is_empty() { "none" } else { "client_secret_post" };
            (fields.get("client_id").to_owned(), secret.to_owned(), method)
        };
        let id = Uuid::try_parse(&id).map_err(|_| invalid("client_id is required"))?.to_string();
        let text = "select token_endpoint_auth_method, client_secret_hash, grant_types from auth.oauth_clients \
            where id = $1 and deleted_at is null";
        let answer = store::read(&self.database, vec![sql(text, &[Some(&id)])]).await?;
        let row = answer.results.first().and_then(|result| result.rows.first());
        let wrong = || invalid("invalid client credentials");
        let row = row.ok_or_else(wrong)?;
        let text = |column: usize| row.text(column).unwrap_or_default();
        if text(0) != method {
            let message = format!("client is registered for '{}' but '{method}' was used", text(0));
            return Err(invalid(&message));
        }
        if method != "none" && !one_time::is_same(&one_time::challenge(&secret), text(1)) {
            return Err(wrong());
        }
        Ok(Client { id, grants: text(2).to_owned() })
    }

    async fn by_authorization(
        &self,
        visitor: &Visitor,
        client: &Client,
        fields: &Fields,
    ) -> Result<Response<Bytes>, Error> {
        let invalid = |message: &str| Error::from(OAuthError::new("invalid_grant", message));
        let code = fields.get("code");
        if code.is_empty() {
            let message = "code is required for authorization_code grant";
            return Err(OAuthError::new("invalid_request", message).into());
        }
        // Spent by whoever shows it, right or wrong: a code that was stolen is worth nothing to either.
        let text = "delete from auth.oauth_authorizations where authorization_code = $1 and status = 'approved' and client_id = $2 \
            returning user_id, redirect_uri, scope, code_challenge, nonce, resource, expires_at < now()";
        let find = sql(text, &[Some(&one_time::challenge(code)), Some(&client.id)]);
        let answer = store::write(&self.database, vec![find]).await?;
        let row = answer.results.first().and_then(|result| result.rows.first());
        let row: &Row = row.ok_or_else(|| invalid("Invalid authorization code"))?;
        let text = |column: usize| row.text(column).unwrap_or_default();
        if text(6) == "t" {
            return Err(invalid("Authorization code has expired"));
        }
        let (redirect, resource) = (fields.get("redirect_uri"), fields.get("resource"));
        if !redirect.is_empty() && redirect != text(1) {
            return Err(invalid("Invalid redirect_uri"));
        }
        if !resource.is_empty() && resource != text(5) {
            return Err(invalid("Authorization code resource does not match the resource parameter"));
        }
        if !one_time::is_verifier(fields.get("code_verifier"), text(3)) {
            return Err(invalid("PKCE verification failed"));
        }
        let account = store::find(&self.database, By::Id(text(0))).await?;
        let account = account.ok_or_else(|| invalid("User not found for authorization code"))?;
        if account.is_banned {
            return Err(OAuthError::new("access_denied", "User is banned").into());
        }
        let new = Beginning::of_client(METHOD, &client.id, text(2));
        let traits = json!({ "provider_type": "oauth_provider_authorization_code", "client_id": client.id });
        let mut all = vec![store::audit("login", "account", &Actor::user(&account.user), &visitor.address, &traits)];
        all.extend(new.statements(&account.user.id, visitor));
        let answer = store::write(&self.database, all).await?;
        let user = store::last_user(&answer)?;
        let scopes: Vec<&str> = text(2).split(' ').collect();
        let id_token = if scopes.contains(&"openid") {
            Some(self.id_token(&user, &client.id, &scopes, row.text(4))?)
        } else {
            None
        };
        let session = self.begun(&new, user, None).await?;
        Ok(respond::json(200, &shown(&session, id_token)))
    }

    /// OpenID Connect Core 1.0, 2.
    fn id_token(&self, user: &User, client: &str, scopes: &[&str], nonce: Option<&str>) -> Result<String, Error> {
        let issued = now();
        let mut claims = json!({
            ID_TOKEN: "id", "iss": self.settings.url, "sub": user.id, "aud": client, "exp": issued + self.settings.token_life, "iat": issued,
            "auth_time": issued,
        });
        if let (Some(nonce), Some(claims)) = (nonce, claims.as_object_mut()) {
            claims.insert("nonce".into(), nonce.into());
        }
        if let Some(claims) = claims.as_object_mut() {
            claims.extend(about(user, scopes));
        }
        self.keys().sign(&claims.to_string()).map_err(|_| Error::Signing)
    }

    /// `GET /oauth/userinfo`: as much as the session's scopes say.
    pub(super) async fn userinfo(&self, visitor: &Visitor) -> Result<Response<Bytes>, Error> {
        let who = self.signed_in_by_any(visitor).await?;
        let user = &who.account.user;
        let scopes = who.session.as_ref().and_then(|session| session.scopes.as_deref()).unwrap_or_default();
        let mut claims = about(user, &scopes.split(' ').collect::<Vec<_>>());
        claims.insert("sub".into(), user.id.clone().into());
        Ok(respond::json(200, &claims))
    }
}

/// Both parts are encoded as a form's are (RFC 6749, 2.3.1).
fn decoded_form(text: &str) -> String {
    pairs(text).into_iter().next().map_or(String::new(), |(name, _)| name)
}

/// What an application is told of a user (OpenID Connect Core 1.0, 5.4).
fn about(user: &User, scopes: &[&str]) -> Map<String, Value> {
    let mut claims = Map::new();
    let metadata =
        |names: &[&str]| names.iter().find_map(|name| user.user_metadata.get(*name)?.as_str()).unwrap_or_default();
    let mut set = |name: &str, value: Value| {
        if value != json!("") && !value.is_null() {
            claims.insert(name.to_owned(), value);
        }
    };
    for scope in scopes {
        match *scope {
            "email" if !user.email.is_empty() => {
                set("email", user.email.clone().into());
                set("email_verified", user.email_confirmed_at.is_some().into());
            }
            "phone" if !user.phone.is_empty() => {
                set("phone_number", format!("+{}", user.phone).into());
                set("phone_number_verified", user.phone_confirmed_at.is_some().into());
            }
            "profile" => {
                set("name", metadata(&["name", "full_name"]).into());
                set("picture", metadata(&["picture", "avatar_url"]).into());
                set("preferred_username", metadata(&["preferred_username", "username", "user_name"]).into());
                set("user_metadata", Value::Object(user.user_metadata.clone()));
            }
            _ => {}
        }
    }
    claims
}

/// RFC 6749, 5.1; who it is, is not said here.
fn shown(session: &Session, id_token: Option<String>) -> Value {
    let mut shown = json!({
        "access_token": session.access_token, "token_type": session.token_type, "expires_in": session.expires_in,
        "refresh_token": session.refresh_token,
    });
    if let Some(token) = id_token {
        shown["id_token"] = token.into();
    }
    shown
}

/// What a client of OAuth understands of a refresh that is refused (RFC 6749, 5.2).
fn as_grant(error: Error) -> Error {
    match error {
        Error::Refused(refused) if refused.status < 429 && refused.status != 409 => {
            OAuthError::new("invalid_grant", refused.message).into()
        }
        error => error,
    }
}
