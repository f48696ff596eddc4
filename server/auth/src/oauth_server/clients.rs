//! Applications: registered by an administrator (`/admin/oauth/clients`), or by themselves (RFC 7591).

use bytes::Bytes;
use http::{HeaderValue, Method, Response, Uri, header};
use ntier_backing::database::Statement;
use ntier_backing::outbound::is_this_machine;
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_protocol::auth::request::{self, OAuthClient};
use ntier_security::{keys, one_time};
use serde_json::Value;
use uuid::Uuid;

use super::last_json;
use crate::admin::paging;
use crate::error::Error;
use crate::limits::Limit;
use crate::store::{self, sql};
use crate::visitor::Visitor;
use crate::{Auth, respond};

/// An application as clients see it; what is null is left out.
const SHOWN: &str = "json_strip_nulls(json_build_object('client_id', c.id, 'client_type', c.client_type, \
    'redirect_uris', string_to_array(c.redirect_uris, ','), 'token_endpoint_auth_method', c.token_endpoint_auth_method, \
    'grant_types', string_to_array(c.grant_types, ','), 'response_types', array['code'], 'client_name', nullif(c.client_name, ''), \
    'client_uri', nullif(c.client_uri, ''), 'logo_uri', nullif(c.logo_uri, ''), 'registration_type', c.registration_type, \
    'created_at', ntier.utc(c.created_at), 'updated_at', ntier.utc(c.updated_at)))";

const GRANTS: &[&str] = &["authorization_code", "refresh_token"];

/// An application that is about to be written: what was asked, made whole.
#[derive(Debug, PartialEq, Eq)]
struct Registration {
    public: bool,
    method: &'static str,
    redirects: String,
    grants: String,
}

impl Auth {
    /// `/admin/oauth/clients`.
    pub(crate) async fn oauth_clients(
        &self,
        method: &Method,
        path: &[&str],
        visitor: &Visitor,
        body: &Bytes,
    ) -> Result<Response<Bytes>, Error> {
        match (method, path) {
            (&Method::GET, []) => self.list_clients(visitor).await,
            (&Method::POST, []) => self.add_client(&request::read(body)?, "manual").await,
            (&Method::GET, [id]) => self.show_client(vec![select(&client(id)?)], None).await,
            (&Method::PUT, [id]) => self.change_client(&client(id)?, &request::read(body)?).await,
            (&Method::DELETE, [id]) => {
                let id = client(id)?;
                let text = "with gone as (update auth.oauth_clients set deleted_at = now() where id = $1 and deleted_at is null returning 1) \
                    select ntier.expect(exists (select from gone), 'the client')";
                // Whatever it had is void.
                let sessions = "delete from auth.sessions where oauth_client_id = $1";
                let codes = "delete from auth.oauth_authorizations where client_id = $1";
                let all = [text, sessions, codes].map(|text| sql(text, &[Some(&id)])).to_vec();
                match store::write(&self.database, all).await {
                    Ok(_) => Ok(respond::nothing()),
                    Err(Error::Changed(_)) => Err(gone().into()),
                    Err(error) => Err(error),
                }
            }
            (&Method::POST, [id, "regenerate_secret"]) => self.change_secret(&client(id)?).await,
            _ => Ok(respond::not_found()),
        }
    }

    /// `POST /oauth/clients/register`.
    pub(super) async fn register_client(&self, visitor: &Visitor, body: &Bytes) -> Result<Response<Bytes>, Error> {
        if !self.settings.oauth_server.registration {
            let message = "Dynamic client registration is not enabled";
            return Err(Refused::new(403, Code::OAuthRegistrationDisabled, message).into());
        }
        self.limit(Limit::Registration, visitor, None).await?;
        self.add_client(&request::read(body)?, "dynamic").await
    }

    async fn add_client(&self, asked: &OAuthClient, registration: &str) -> Result<Response<Bytes>, Error> {
        let new = check(asked)?;
        let id = Uuid::new_v4().to_string();
        let secret = if new.public { None } else { Some(keys::random(32).map_err(|_| Error::Random)?) };
        let hash = secret.as_deref().map(one_time::challenge);
        let insert = sql(
            "insert into auth.oauth_clients (id, client_secret_hash, registration_type, redirect_uris, grant_types, client_name, \
             client_uri, logo_uri, client_type, token_endpoint_auth_method) \
             values ($1, $2, $3::auth.oauth_registration_type, $4, $5, $6, $7, $8, $9::auth.oauth_client_type, $10)",
            &[
                Some(&id),
                hash.as_deref(),
                Some(registration),
                Some(&new.redirects),
                Some(&new.grants),
                asked.client_name.as_deref(),
                asked.client_uri.as_deref(),
                asked.logo_uri.as_deref(),
                Some(if new.public { "public" } else { "confidential" }),
                Some(new.method),
            ],
        );
        let mut response = self.show_client(vec![insert, select(&id)], secret).await?;
        *response.status_mut() = http::StatusCode::CREATED;
        Ok(response)
    }

    async fn change_client(&self, id: &str, asked: &OAuthClient) -> Result<Response<Bytes>, Error> {
        if *asked == OAuthClient::default() {
            return Err(Refused::invalid("No fields provided for update").into());
        }
        check_texts(asked)?;
        let redirects = asked.redirect_uris.as_deref().map(redirects).transpose()?;
        let grants = asked.grant_types.as_deref().map(grants).transpose()?;
        let kind = asked.token_endpoint_auth_method.as_deref().map(auth_method).transpose()?;
        let update = sql(
            "with changed as (update auth.oauth_clients set redirect_uris = coalesce($2, redirect_uris), \
             grant_types = coalesce($3, grant_types), client_name = coalesce($4, client_name), client_uri = coalesce($5, client_uri), \
             logo_uri = coalesce($6, logo_uri), token_endpoint_auth_method = coalesce($7, token_endpoint_auth_method), updated_at = now() \
             where id = $1 and deleted_at is null and ($7::text is null or (client_type = 'public') = ($7::text = 'none')) returning 1) \
             select ntier.expect(exists (select from changed), 'the client')",
            &[
                Some(id),
                redirects.as_deref(),
                grants.as_deref(),
                asked.client_name.as_deref(),
                asked.client_uri.as_deref(),
                asked.logo_uri.as_deref(),
                kind,
            ],
        );
        let known = self.show_client(vec![select(id)], None).await;
        known?;
        match self.show_client(vec![update, select(id)], None).await {
            Err(Error::Changed(_)) => {
                let message = "token_endpoint_auth_method is not valid for the client_type";
                Err(Refused::invalid(message).into())
            }
            shown => shown,
        }
    }

    async fn change_secret(&self, id: &str) -> Result<Response<Bytes>, Error> {
        let secret = keys::random(32).map_err(|_| Error::Random)?;
        let update = sql(
            "with changed as (update auth.oauth_clients set client_secret_hash = $2, updated_at = now() \
             where id = $1 and deleted_at is null and client_type = 'confidential' returning 1) \
             select ntier.expect(exists (select from changed), 'the client')",
            &[Some(id), Some(&one_time::challenge(&secret))],
        );
        self.show_client(vec![select(id)], None).await?;
        match self.show_client(vec![update, select(id)], Some(secret)).await {
            Err(Error::Changed(_)) => Err(Refused::invalid("Cannot regenerate secret for public client").into()),
            shown => shown,
        }
    }

    /// Runs what ends with a look at an application; the secret is shown this once.
    async fn show_client(&self, all: Vec<Statement>, secret: Option<String>) -> Result<Response<Bytes>, Error> {
        let answer = store::write(&self.database, all).await?;
        let mut shown = last_json(&answer).ok_or_else(gone)?;
        if let Some(secret) = secret {
            shown["client_secret"] = secret.into();
        }
        Ok(respond::json(200, &shown))
    }

    async fn list_clients(&self, visitor: &Visitor) -> Result<Response<Bytes>, Error> {
        let page = paging(visitor)?;
        let count = sql("select count(*) from auth.oauth_clients c where c.deleted_at is null", &[]);
        let text = format!(
            "select coalesce(json_agg(shown order by created_at desc, id), '[]') from (select {SHOWN} as shown, c.created_at, c.id \
             from auth.oauth_clients c where c.deleted_at is null order by c.created_at desc, c.id limit $1::bigint offset $2::bigint) c"
        );
        let rows = sql(&text, &[Some(&page.limit()), Some(&page.offset())]);
        let answer = store::read(&self.database, vec![count, rows]).await?;
        let total = answer.results.first().and_then(|result| result.rows.first()?.text(0)?.parse().ok());
        let clients: Value = last_json(&answer).ok_or(Error::Incomplete)?;
        let total: u64 = total.ok_or(Error::Incomplete)?;
        let mut response = respond::json(200, &serde_json::json!({ "clients": clients, "aud": store::AUDIENCE }));
        let links = HeaderValue::from_str(&page.links("/admin/oauth/clients", total)).map_err(|_| Error::Incomplete)?;
        response.headers_mut().insert(header::LINK, links);
        response.headers_mut().insert("x-total-count", total.into());
        Ok(response)
    }
}

fn select(id: &str) -> Statement {
    sql(&format!("select {SHOWN} from auth.oauth_clients c where c.id = $1 and c.deleted_at is null"), &[Some(id)])
}

fn client(id: &str) -> Result<String, Error> {
    let invalid = |_| Refused::invalid("invalid client_id format");
    Ok(Uuid::try_parse(id).map_err(invalid)?.to_string())
}

fn gone() -> Refused {
    Refused::new(404, Code::OAuthClientNotFound, "OAuth client not found")
}

fn check(asked: &OAuthClient) -> Result<Registration, Refused> {
    check_texts(asked)?;
    let redirects = redirects(asked.redirect_uris.as_deref().unwrap_or_default())?;
    let grants = match asked.grant_types.as_deref() {
        None | Some([]) => GRANTS.join(","),
        Some(list) => grants(list)?,
    };
    let method = asked.token_endpoint_auth_method.as_deref().filter(|method| !method.is_empty());
    let method = method.map(auth_method).transpose()?;
    let public = match (asked.client_type.as_deref(), method) {
        (None | Some(""), method) => method == Some("none"),
        (Some("public"), None | Some("none")) => true,
        (Some("confidential"), method) if method != Some("none") => false,
        (Some("public" | "confidential"), Some(method)) => {
            let message = format!("client_type is inconsistent with token_endpoint_auth_method '{method}'");
            return Err(Refused::invalid(message));
        }
        _ => return Err(Refused::invalid("client_type must be 'public' or 'confidential'")),
    };
    let method = method.unwrap_or(if public { "none" } else { "client_secret_basic" });
    Ok(Registration { public, method, redirects, grants })
}

fn check_texts(asked: &OAuthClient) -> Result<(), Refused> {
    if asked.client_name.as_ref().is_some_and(|name| name.chars().count() > 1024) {
        return Err(Refused::invalid("client_name cannot exceed 1024 characters"));
    }
    for (name, uri) in [("client_uri", &asked.client_uri), ("logo_uri", &asked.logo_uri)] {
        let Some(uri) = uri.as_deref().filter(|uri| !uri.is_empty()) else { continue };
        let parsed = uri.parse::<Uri>().ok();
        let is_web = parsed.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
        if uri.len() > 2048 || !is_web {
            return Err(Refused::invalid(format!("{name} must be a valid URL of at most 2048 characters")));
        }
    }
    Ok(())
}

fn auth_method(method: &str) -> Result<&'static str, Refused> {
    let known = ["none", "client_secret_basic", "client_secret_post"];
    let found = known.into_iter().find(|known| *known == method);
    found.ok_or_else(|| Refused::invalid(format!("token_endpoint_auth_method must be one of: {known:?}")))
}

fn grants(list: &[String]) -> Result<String, Refused> {
    if list.is_empty() || list.iter().any(|grant| !GRANTS.contains(&grant.as_str())) {
        let message = "grant_types must only contain 'authorization_code' and/or 'refresh_token'";
        return Err(Refused::invalid(message));
    }
    Ok(list.join(","))
}

fn redirects(list: &[String]) -> Result<String, Refused> {
    if list.is_empty() {
        return Err(Refused::invalid("redirect_uris is required"));
    }
    if list.len() > 10 {
        return Err(Refused::invalid("redirect_uris cannot exceed 10 items"));
    }
    for uri in list {
        redirect(uri).map_err(|why| Refused::invalid(format!("invalid redirect_uri '{uri}': {why}")))?;
    }
    Ok(list.join(","))
}

/// Where a code may be sent (RFC 6749, 3.1.2; RFC 8252, 7).
fn redirect(uri: &str) -> Result<(), &'static str> {
    let Some((scheme, behind)) = uri.split_once("://") else { return Err("must have scheme and host") };
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    if uri.len() > 2048 || scheme.is_empty() || behind.is_empty() || !scheme.chars().all(is_scheme) {
        return Err("must have scheme and host");
    }
    if uri.contains([',', ' ', '\\', '"', '<', '>']) || uri.chars().any(char::is_control) {
        return Err("has a character that has to be encoded");
    }
    if uri.contains('#') {
        return Err("fragment not allowed in redirect URI");
    }
    match scheme.to_ascii_lowercase().as_str() {
        "javascript" | "data" | "file" | "vbscript" | "about" | "blob" => Err("the scheme is not allowed"),
        "http" | "https" => {
            let parsed = uri.parse::<Uri>().map_err(|_| "invalid URL format")?;
            let host = parsed.host().ok_or("must have scheme and host")?;
            if scheme.eq_ignore_ascii_case("http") && !is_this_machine(host) {
                return Err("HTTP scheme only allowed for localhost");
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_a11_codes_are_sent_to_safe_places() {
        for (uri, is_fine) in [
            ("https://app.example.com/callback?x=1", true),
            ("http://localhost:3000/cb", true),
            ("http://127.0.0.1/cb", true),
            ("myapp://callback", true),
            ("com.example.app://x", true),
            ("http://app.example.com/cb", false),
            ("https://app.example.com/#x", false),
            ("https://", false),
            ("javascript://x%0aalert(1)", false),
            ("JavaScript://x", false),
            ("/relative", false),
            ("https://a.example.com,https://b.example.com", false),
            ("https://a.example.com\\@b.example.com", false),
        ] {
            assert_eq!(redirect(uri).is_ok(), is_fine, "{uri}");
        }
    }

    #[test]
    fn kinds_of_clients_and_their_proofs_agree() {
        for (kind, method, expected) in [
            (None, None, Some((false, "client_secret_basic"))),
            (None, Some("none"), Some((true, "none"))),
            (None, Some("client_secret_post"), Some((false, "client_secret_post"))),
            (Some("public"), None, Some((true, "none"))),
            (Some("confidential"), Some("client_secret_basic"), Some((false, "client_secret_basic"))),
            (Some("public"), Some("client_secret_basic"), None),
            (Some("confidential"), Some("none"), None),
            (Some("secret"), None, None),
            (None, Some("magic"), None),
        ] {
            let asked = OAuthClient {
                redirect_uris: Some(vec!["https://a.example.com".into()]),
                client_type: kind.map(str::to_owned),
                token_endpoint_auth_method: method.map(str::to_owned),
                ..OAuthClient::default()
            };
            let found = check(&asked).ok().map(|new| (new.public, new.method));
            assert_eq!(found, expected, "{kind:?} {method:?}");
        }
    }
}
