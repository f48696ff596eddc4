//! `/admin/custom-providers`: providers that are added while the node runs. Source: GoTrue, `internal/api/custom_oauth_admin.go`.

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use ntier_backing::database::{self, Statement};
use ntier_backing::outbound::is_private;
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_protocol::auth::request::{self, CustomProvider};
use serde_json::{Value, json};

use crate::error::Error;
use crate::external::{RESERVED, discovery};
use crate::store::{self, sql};
use crate::visitor::Visitor;
use crate::{Auth, respond};

/// A provider as an administrator sees it: without its secret, and what is null is left out.
const SHOWN: &str = "json_strip_nulls(json_build_object('id', p.id, 'provider_type', p.provider_type, 'identifier', p.identifier, \
    'name', p.name, 'client_id', p.client_id, 'acceptable_client_ids', p.acceptable_client_ids, 'scopes', p.scopes, \
    'pkce_enabled', p.pkce_enabled, 'attribute_mapping', p.attribute_mapping, 'authorization_params', p.authorization_params, \
    'custom_claims_allowlist', p.custom_claims_allowlist, 'enabled', p.enabled, 'email_optional', p.email_optional, \
    'issuer', p.issuer, 'discovery_url', p.discovery_url, 'skip_nonce_check', p.skip_nonce_check, \
    'authorization_url', p.authorization_url, 'token_url', p.token_url, 'userinfo_url', p.userinfo_url, 'jwks_uri', p.jwks_uri, \
    'created_at', ntier.utc(p.created_at), 'updated_at', ntier.utc(p.updated_at)))";

impl Auth {
    pub(crate) async fn custom_providers(
        &self,
        method: &Method,
        path: &[&str],
        visitor: &Visitor,
        body: &Bytes,
    ) -> Result<Response<Bytes>, Error> {
        match (method, path) {
            (&Method::GET, []) => self.list_providers(visitor).await,
            (&Method::POST, []) => self.add_provider(&request::read(body)?).await,
            (&Method::GET, [name]) => self.show_provider(vec![select(&identifier(name)?)]).await,
            (&Method::PUT, [name]) => self.change_provider(&identifier(name)?, &request::read(body)?).await,
            (&Method::DELETE, [name]) => {
                let remove = "with gone as (delete from auth.custom_oauth_providers where identifier = $1 returning 1) \
                    select ntier.expect(exists (select from gone), 'the provider')";
                match store::write(&self.database, vec![sql(remove, &[Some(&identifier(name)?)])]).await {
                    Ok(_) => Ok(respond::nothing()),
                    Err(Error::Changed(_)) => Err(unknown().into()),
                    Err(error) => Err(error),
                }
            }
            _ => Ok(respond::not_found()),
        }
    }

    async fn list_providers(&self, visitor: &Visitor) -> Result<Response<Bytes>, Error> {
        let kind = visitor.parameter("type");
        if kind.is_some_and(|kind| !matches!(kind, "oauth2" | "oidc")) {
            return Err(Refused::invalid("type must be either 'oauth2' or 'oidc'").into());
        }
        let text = format!(
            "select coalesce(json_agg({SHOWN} order by p.created_at desc), '[]') from auth.custom_oauth_providers p \
             where $1::text is null or p.provider_type = $1"
        );
        let answer = store::read(&self.database, vec![sql(&text, &[kind])]).await?;
        let providers = shown(&answer).ok_or(Error::Incomplete)?;
        Ok(respond::json(200, &json!({ "providers": providers })))
    }

    async fn show_provider(&self, all: Vec<Statement>) -> Result<Response<Bytes>, Error> {
        let answer = store::write(&self.database, all).await?;
        Ok(respond::json(200, &shown(&answer).ok_or_else(unknown)?))
    }

    async fn add_provider(&self, asked: &CustomProvider) -> Result<Response<Bytes>, Error> {
        let name = identifier(asked.identifier.as_deref().unwrap_or_default())?;
        let kind = asked.provider_type.as_deref().unwrap_or_default();
        let needed: &[(&str, &Option<String>)] = match kind {
            "oidc" => &[("issuer", &asked.issuer)],
            "oauth2" => &[
                ("authorization_url", &asked.authorization_url),
                ("token_url", &asked.token_url),
                ("userinfo_url", &asked.userinfo_url),
            ],
            _ => return Err(Refused::invalid("provider_type must be either 'oauth2' or 'oidc'").into()),
        };
        let always = [("name", &asked.name), ("client_id", &asked.client_id), ("client_secret", &asked.client_secret)];
        for (field, value) in always.iter().chain(needed) {
            if value.as_deref().unwrap_or_default().is_empty() {
                return Err(Refused::invalid(format!("{field} is required")).into());
            }
        }
        check(asked)?;
        self.check_issuer(asked.issuer.as_deref().filter(|_| kind == "oidc"), asked.discovery_url.as_deref()).await?;
        let secret = asked.client_secret.as_deref().unwrap_or_default();
        let secret = self.vault.seal(secret, &name).map_err(|_| Error::Random)?;
        let insert = sql(
            "insert into auth.custom_oauth_providers (identifier, provider_type, name, client_id, client_secret, issuer, \
             authorization_url, token_url, userinfo_url) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            &[
                Some(&name),
                Some(kind),
                asked.name.as_deref(),
                asked.client_id.as_deref(),
                Some(&secret),
                asked.issuer.as_deref(),
                asked.authorization_url.as_deref(),
                asked.token_url.as_deref(),
                asked.userinfo_url.as_deref(),
            ],
        );
        match self.show_provider(vec![insert, update(&name, asked, None), select(&name)]).await {
            Ok(mut response) => {
                *response.status_mut() = StatusCode::CREATED;
                Ok(response)
            }
            Err(Error::Taken(_)) => {
                let message = "A custom OAuth provider with this identifier already exists";
                Err(Refused::new(400, Code::Conflict, message).into())
            }
            Err(error) => Err(invalid(error)),
        }
    }

    async fn change_provider(&self, name: &str, asked: &CustomProvider) -> Result<Response<Bytes>, Error> {
        check(asked)?;
        let known = store::read(&self.database, vec![select(name)]).await?;
        let known = shown(&known).ok_or_else(unknown)?;
        if known["provider_type"] == "oidc" && (asked.issuer.is_some() || asked.discovery_url.is_some()) {
            let issuer = asked.issuer.as_deref().or(known["issuer"].as_str());
            self.check_issuer(issuer, asked.discovery_url.as_deref().or(known["discovery_url"].as_str())).await?;
        }
        let secret = asked.client_secret.as_deref().filter(|secret| !secret.is_empty());
        let secret = secret.map(|secret| self.vault.seal(secret, name)).transpose().map_err(|_| Error::Random)?;
        let all = vec![update(name, asked, secret.as_deref()), select(name)];
        self.show_provider(all).await.map_err(invalid)
    }

    /// An issuer has to answer before anybody is sent to it.
    async fn check_issuer(&self, issuer: Option<&str>, document: Option<&str>) -> Result<(), Error> {
        let Some(issuer) = issuer else { return Ok(()) };
        let address = document.filter(|url| !url.is_empty()).map_or_else(|| discovery(issuer), str::to_owned);
        let found = self.exchange.issuers.get(&self.exchange.outbound, issuer, &address).await;
        let failed = |fault| Refused::invalid(format!("the issuer's discovery document cannot be used: {fault}"));
        found.map(drop).map_err(|fault| failed(fault).into())
    }
}

/// What was said takes the place of what was there.
fn update(name: &str, asked: &CustomProvider, secret: Option<&str>) -> Statement {
    let text = |value: &Option<Value>| value.as_ref().map(Value::to_string);
    let list = |value: &Option<Vec<String>>| value.as_ref().map(|list| json!(list).to_string());
    let flag = |value: Option<bool>| value.map(|is_so| if is_so { "true" } else { "false" });
    let array = |column: &str, number: usize| {
        format!(
            "{column} = case when ${number}::jsonb is null then {column} else array(select jsonb_array_elements_text(${number}::jsonb)) end"
        )
    };
    let same = |column: &str, number: usize| format!("{column} = coalesce(${number}, {column})");
    let sets = [
        same("name", 2),
        same("client_id", 3),
        same("client_secret", 4),
        array("acceptable_client_ids", 5),
        array("scopes", 6),
        same("pkce_enabled", 7),
        same("attribute_mapping", 8),
        same("authorization_params", 9),
        array("custom_claims_allowlist", 10),
        same("enabled", 11),
        same("email_optional", 12),
        same("issuer", 13),
        same("discovery_url", 14),
        same("skip_nonce_check", 15),
        same("authorization_url", 16),
        same("token_url", 17),
        same("userinfo_url", 18),
        same("jwks_uri", 19),
    ];
    sql(
        &format!(
            "update auth.custom_oauth_providers set {}, updated_at = now() where identifier = $1",
            sets.join(", ")
        ),
        &[
            Some(name),
            asked.name.as_deref(),
            asked.client_id.as_deref(),
            secret,
            list(&asked.acceptable_client_ids).as_deref(),
            list(&asked.scopes).as_deref(),
            flag(asked.pkce_enabled),
            text(&asked.attribute_mapping).as_deref(),
            text(&asked.authorization_params).as_deref(),
            list(&asked.custom_claims_allowlist).as_deref(),
            flag(asked.enabled),
            flag(asked.email_optional),
            asked.issuer.as_deref(),
            asked.discovery_url.as_deref(),
            flag(asked.skip_nonce_check),
            asked.authorization_url.as_deref(),
            asked.token_url.as_deref(),
            asked.userinfo_url.as_deref(),
            asked.jwks_uri.as_deref(),
        ],
    )
}

fn select(name: &str) -> Statement {
    sql(&format!("select {SHOWN} from auth.custom_oauth_providers p where p.identifier = $1"), &[Some(name)])
}

fn shown(answer: &database::Answer) -> Option<Value> {
    let text = answer.results.last().and_then(|result| result.rows.first()?.text(0))?;
    serde_json::from_str(text).ok()
}

/// What clients call it: `custom:` and a name.
fn identifier(name: &str) -> Result<String, Error> {
    let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned();
    if name.is_empty() {
        return Err(Refused::invalid("identifier is required").into());
    }
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == ':';
    let is_name = name.strip_prefix("custom:").is_some_and(|own| !own.is_empty() && !own.ends_with(['-', ':']));
    if !is_name || name.len() > 50 || !name.chars().all(plain) {
        let message = "identifier must start with 'custom:' prefix, followed by lower case letters, digits and hyphens, e.g. 'custom:shop'";
        return Err(Refused::invalid(message).into());
    }
    Ok(name)
}

fn check(asked: &CustomProvider) -> Result<(), Refused> {
    for (name, url) in [
        ("issuer", &asked.issuer),
        ("discovery_url", &asked.discovery_url),
        ("authorization_url", &asked.authorization_url),
        ("token_url", &asked.token_url),
        ("userinfo_url", &asked.userinfo_url),
        ("jwks_uri", &asked.jwks_uri),
    ] {
        let url = url.as_deref().filter(|url| !url.is_empty());
        if url.is_some_and(|url| !is_private(url) || url.len() > 2048) {
            return Err(Refused::invalid(format!("{name} must be an https URL of at most 2048 characters")));
        }
    }
    for (name, value) in
        [("attribute_mapping", &asked.attribute_mapping), ("authorization_params", &asked.authorization_params)]
    {
        if value.as_ref().is_some_and(|value| !value.is_object()) {
            return Err(Refused::invalid(format!("{name} must be an object")));
        }
    }
    for (name, value) in asked.authorization_params.iter().filter_map(Value::as_object).flatten() {
        if RESERVED.contains(&name.as_str()) || name == "nonce" {
            return Err(Refused::invalid(format!("Cannot override reserved OAuth parameter: {name}")));
        }
        if !value.is_string() {
            return Err(Refused::invalid(format!("authorization_params.{name} must be a string")));
        }
    }
    Ok(())
}

fn unknown() -> Refused {
    Refused::new(404, Code::CustomProviderNotFound, "Custom OAuth provider not found")
}

/// What a check of the table refuses is the caller's to know.
fn invalid(error: Error) -> Error {
    match error {
        Error::Database(database::Error::Refused(refusal)) if refusal.code == "23514" => {
            Refused::invalid(refusal.message).into()
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_names_behind_custom() {
        for (name, is_fine) in [
            ("custom:shop", true),
            ("custom%3Ashop-2", true),
            ("custom:", false),
            ("custom:shop-", false),
            ("shop", false),
            ("custom:Shop", false),
            ("custom:sh op", false),
            ("", false),
        ] {
            assert_eq!(identifier(name).is_ok(), is_fine, "{name}");
        }
    }

    #[test]
    fn what_we_say_is_not_overridden() {
        for (params, is_fine) in [
            (json!({ "prompt": "login" }), true),
            (json!({ "state": "x" }), false),
            (json!({ "redirect_uri": "x" }), false),
            (json!({ "prompt": 1 }), false),
            (json!([]), false),
        ] {
            let asked = CustomProvider { authorization_params: Some(params.clone()), ..CustomProvider::default() };
            assert_eq!(check(&asked).is_ok(), is_fine, "{params}");
        }
        let asked = CustomProvider { token_url: Some("http://example.com".into()), ..CustomProvider::default() };
        assert!(check(&asked).is_err());
    }
}
