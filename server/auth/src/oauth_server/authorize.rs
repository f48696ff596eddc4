//! `GET /oauth/authorize`, and the answer of the user to it.

use bytes::Bytes;
use http::Response;
use ntier_backing::database::Row;
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_protocol::auth::request::{self, Challenge, Consent};
use ntier_security::{keys, one_time};
use serde_json::{Value, json};
use uuid::Uuid;

use super::SCOPES;
use crate::error::Error;
use crate::limits::Limit;
use crate::redirect::Target;
use crate::store::{self, Actor, sql};
use crate::visitor::{SignedIn, Visitor};
use crate::{Auth, pkce, respond};

/// What is asked for where nothing is said.
const DEFAULT_SCOPE: &str = "email";

/// An authorization that waits for its user.
#[derive(Debug)]
struct Pending {
    id: String,
    client: Value,
    client_id: String,
    redirect: String,
    scope: String,
    state: String,
    user: Option<String>,
    waits: bool,
    /// The user has agreed to as much before.
    is_covered: bool,
}

impl Auth {
    pub(super) async fn begin_authorization(&self, visitor: &Visitor) -> Result<Response<Bytes>, Error> {
        let parameter = |name: &str| visitor.parameter(name).unwrap_or_default();
        let (client, redirect, state) = (parameter("client_id"), parameter("redirect_uri"), parameter("state"));
        for (name, value) in [("client_id", client), ("redirect_uri", redirect)] {
            if value.is_empty() {
                return Err(Refused::invalid(format!("{name} is required")).into());
            }
        }
        self.limit(Limit::Token, visitor, None).await?;
        let unknown = |message: &str| Error::from(Refused::new(400, Code::OAuthClientNotFound, message));
        let client = Uuid::try_parse(client).map_err(|_| unknown("invalid client_id format"))?.to_string();
        let text = "select $2::text = any(string_to_array(redirect_uris, ',')) from auth.oauth_clients where id = $1 and deleted_at is null";
        let answer = store::read(&self.database, vec![sql(text, &[Some(&client), Some(redirect)])]).await?;
        let row = answer.results.first().and_then(|result| result.rows.first());
        let is_own = row.ok_or_else(|| unknown("invalid client_id"))?.text(0) == Some("t");
        if !is_own {
            // Nobody is sent to where nobody said.
            return Err(Refused::invalid("invalid redirect_uri").into());
        }
        let scope = if parameter("scope").is_empty() { DEFAULT_SCOPE } else { parameter("scope") };
        let asked = Challenge {
            code_challenge: parameter("code_challenge").to_owned(),
            code_challenge_method: parameter("code_challenge_method").to_owned(),
        };
        let checked = check(parameter("response_type"), scope, parameter("resource"), state, parameter("nonce"))
            .and_then(|()| match pkce::challenge(&asked) {
                Ok(Some(challenge)) => Ok(challenge),
                Ok(None) => Err("PKCE flow requires both code_challenge and code_challenge_method".to_owned()),
                Err(error) => Err(error.to_string()),
            });
        let challenge = match checked {
            Ok(challenge) => challenge,
            Err(why) => return Ok(refusal(redirect, "invalid_request", &why, state).found()),
        };
        let id = keys::random(24).map_err(|_| Error::Random)?;
        let optional = |name: &str| Some(parameter(name)).filter(|value| !value.is_empty());
        let insert = sql(
            "insert into auth.oauth_authorizations (id, authorization_id, client_id, redirect_uri, scope, state, resource, code_challenge, \
             code_challenge_method, nonce, expires_at) \
             values (gen_random_uuid(), $1, $2, $3, $4, $5, $6, $7, 's256', $8, now() + interval '10 minutes')",
            &[
                Some(&id),
                Some(&client),
                Some(redirect),
                Some(scope),
                optional("state"),
                optional("resource"),
                Some(challenge),
                optional("nonce"),
            ],
        );
        store::write(&self.database, vec![insert]).await?;
        let site = self.settings.site_url.trim_end_matches('/');
        let path = self.settings.oauth_server.consent_path.trim_start_matches('/');
        Ok(Target::new(&format!("{site}/{path}")).query(&[("authorization_id", id)]).found())
    }

    /// `GET /oauth/authorizations/{id}`: who asks for what. Whoever looks at it first is the user that it is about.
    pub(super) async fn authorization(&self, visitor: &Visitor, id: &str) -> Result<Response<Bytes>, Error> {
        self.check_origin(visitor)?;
        let who = self.signed_in(visitor).await?;
        let user = &who.account.user;
        let claim = sql(
            "update auth.oauth_authorizations set user_id = $2 where authorization_id = $1 and user_id is null and status = 'pending' \
             and expires_at > now()",
            &[Some(id), Some(&user.id)],
        );
        store::write(&self.database, vec![claim]).await?;
        let pending = self.pending(&who, id).await?;
        if pending.is_covered {
            let url = self.approve(visitor, &who, &pending).await?;
            return Ok(respond::json(200, &json!({ "redirect_url": url })));
        }
        Ok(respond::json(
            200,
            &json!({
                "authorization_id": pending.id, "redirect_uri": pending.redirect, "client": pending.client,
                "user": { "id": user.id, "email": user.email }, "scope": pending.scope,
            }),
        ))
    }

    /// `POST /oauth/authorizations/{id}/consent`.
    pub(super) async fn consent(&self, visitor: &Visitor, id: &str, body: &Bytes) -> Result<Response<Bytes>, Error> {
        self.check_origin(visitor)?;
        let who = self.signed_in(visitor).await?;
        let asked: Consent = request::read(body)?;
        if !matches!(asked.action.as_str(), "approve" | "deny") {
            return Err(Refused::invalid("action must be 'approve' or 'deny'").into());
        }
        let pending = self.pending(&who, id).await?;
        let url = if asked.action == "approve" {
            self.approve(visitor, &who, &pending).await?
        } else {
            let deny = "with denied as (update auth.oauth_authorizations set status = 'denied' where authorization_id = $1 \
                and status = 'pending' returning 1) select ntier.expect(exists (select from denied), 'the authorization')";
            store::write(&self.database, vec![sql(deny, &[Some(id)])]).await.map_err(decided)?;
            refusal(&pending.redirect, "access_denied", "User denied the request", &pending.state).address()
        };
        Ok(respond::json(200, &json!({ "redirect_url": url })))
    }

    async fn pending(&self, who: &SignedIn, id: &str) -> Result<Pending, Error> {
        let text = "select a.authorization_id, json_strip_nulls(json_build_object('id', c.id, 'name', nullif(c.client_name, ''), \
            'uri', nullif(c.client_uri, ''), 'logo_uri', nullif(c.logo_uri, ''))), c.id, a.redirect_uri, a.scope, a.state, a.user_id, \
            a.status = 'pending', coalesce(string_to_array(a.scope, ' ') <@ string_to_array(s.scopes, ' '), false) \
            from auth.oauth_authorizations a join auth.oauth_clients c on c.id = a.client_id and c.deleted_at is null \
            left join auth.oauth_consents s on s.client_id = c.id and s.user_id = $2 and s.revoked_at is null \
            where a.authorization_id = $1 and a.expires_at > now()";
        let user = &who.account.user.id;
        let answer = store::read(&self.database, vec![sql(text, &[Some(id), Some(user)])]).await?;
        let row = answer.results.first().and_then(|result| result.rows.first());
        let unknown = || Refused::new(404, Code::OAuthAuthorizationNotFound, "authorization not found");
        let pending = row.and_then(read).ok_or_else(unknown)?;
        if pending.user.as_ref() != Some(user) {
            return Err(unknown().into());
        }
        if !pending.waits {
            return Err(Refused::invalid("authorization request cannot be processed").into());
        }
        Ok(pending)
    }

    /// The address with a code, which is good for a minute.
    async fn approve(&self, visitor: &Visitor, who: &SignedIn, pending: &Pending) -> Result<String, Error> {
        let code = keys::random(32).map_err(|_| Error::Random)?;
        let user = &who.account.user;
        let approve = "with approved as (update auth.oauth_authorizations set status = 'approved', approved_at = now(), \
            authorization_code = $3, expires_at = now() + interval '1 minute' \
            where authorization_id = $1 and user_id = $2 and status = 'pending' returning 1) \
            select ntier.expect(exists (select from approved), 'the authorization')";
        let consent = "insert into auth.oauth_consents (id, user_id, client_id, scopes) values (gen_random_uuid(), $1, $2, $3) \
            on conflict (user_id, client_id) do update set granted_at = now(), revoked_at = null, scopes = case \
              when oauth_consents.revoked_at is null then (select string_agg(distinct scope, ' ' order by scope) \
                from unnest(string_to_array(oauth_consents.scopes, ' ') || string_to_array(excluded.scopes, ' ')) as scope) \
              else excluded.scopes end";
        let traits = json!({ "oauth_client_id": pending.client_id, "scope": pending.scope });
        let all = vec![
            sql(approve, &[Some(&pending.id), Some(&user.id), Some(&one_time::challenge(&code))]),
            sql(consent, &[Some(&user.id), Some(&pending.client_id), Some(&pending.scope)]),
            store::audit("oauth_authorization_approved", "account", &Actor::user(user), &visitor.address, &traits),
        ];
        store::write(&self.database, all).await.map_err(decided)?;
        let mut parameters = vec![("code", code)];
        if !pending.state.is_empty() {
            parameters.push(("state", pending.state.clone()));
        }
        Ok(Target::new(&pending.redirect).query(&parameters).address())
    }

    /// A page of another site does not speak for the user.
    fn check_origin(&self, visitor: &Visitor) -> Result<(), Error> {
        let Some(origin) = visitor.origin.as_deref() else { return Ok(()) };
        if self.is_allowed(origin) {
            return Ok(());
        }
        Err(Refused::invalid("unauthorized request origin").into())
    }
}

fn read(row: &Row) -> Option<Pending> {
    let text = |column: usize| row.text(column).unwrap_or_default().to_owned();
    Some(Pending {
        id: text(0),
        client: serde_json::from_str(row.text(1)?).ok()?,
        client_id: text(2),
        redirect: text(3),
        scope: text(4),
        state: text(5),
        user: row.text(6).map(str::to_owned),
        waits: row.text(7) == Some("t"),
        is_covered: row.text(8) == Some("t"),
    })
}

fn decided(error: Error) -> Error {
    match error {
        Error::Changed(_) => Refused::invalid("authorization request is no longer pending").into(),
        error => error,
    }
}

fn refusal(redirect: &str, error: &str, why: &str, state: &str) -> Target {
    let mut parameters = vec![("error", error.to_owned()), ("error_description", why.to_owned())];
    if !state.is_empty() {
        parameters.push(("state", state.to_owned()));
    }
    Target::new(redirect).query(&parameters)
}

fn check(response_type: &str, scope: &str, resource: &str, state: &str, nonce: &str) -> Result<(), String> {
    if !matches!(response_type, "" | "code") {
        return Err("only response_type=code is supported".into());
    }
    if let Some(unknown) = scope.split(' ').find(|scope| !SCOPES.contains(scope)) {
        return Err(format!("unsupported scope: {unknown}"));
    }
    // RFC 8707, 2.
    let is_absolute = resource.split_once(':').is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
    if !resource.is_empty() && (!is_absolute || resource.contains(['#', '?']) || resource.len() > 2048) {
        return Err("resource must be an absolute URI without query and fragment".into());
    }
    if state.len() > 4096 || nonce.len() > 255 {
        return Err("state or nonce is too long".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_checked() {
        for (response_type, scope, resource, is_fine) in [
            ("code", "openid email", "", true),
            ("", "phone", "https://mcp.example.com/x", true),
            ("token", "email", "", false),
            ("code", "email admin", "", false),
            ("code", "email  openid", "", false),
            ("code", "email", "/relative", false),
            ("code", "email", "https://a/#x", false),
        ] {
            assert_eq!(
                check(response_type, scope, resource, "", "").is_ok(),
                is_fine,
                "{response_type} {scope} {resource}"
            );
        }
    }
}
