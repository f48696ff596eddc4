//! `/user/oauth/grants`: which applications a user lets in, and no more.

use bytes::Bytes;
use http::Response;
use ntier_protocol::auth::error::{Code, Error as Refused};
use serde_json::json;
use uuid::Uuid;

use super::last_json;
use crate::error::Error;
use crate::store::{self, Actor, sql};
use crate::visitor::Visitor;
use crate::{Auth, respond};

impl Auth {
    pub(crate) async fn grants(&self, visitor: &Visitor) -> Result<Response<Bytes>, Error> {
        let who = self.signed_in(visitor).await?;
        let text = "select coalesce(json_agg(json_build_object('client', json_strip_nulls(json_build_object('id', c.id, \
              'name', nullif(c.client_name, ''), 'uri', nullif(c.client_uri, ''), 'logo_uri', nullif(c.logo_uri, ''))), \
            'scopes', string_to_array(s.scopes, ' '), 'granted_at', ntier.utc(s.granted_at)) order by s.granted_at desc), '[]') \
            from auth.oauth_consents s join auth.oauth_clients c on c.id = s.client_id and c.deleted_at is null \
            where s.user_id = $1 and s.revoked_at is null";
        let answer = store::read(&self.database, vec![sql(text, &[Some(&who.account.user.id)])]).await?;
        Ok(respond::json(200, &last_json(&answer).ok_or(Error::Incomplete)?))
    }

    /// What the application had goes at once.
    pub(crate) async fn revoke_grant(&self, visitor: &Visitor) -> Result<Response<Bytes>, Error> {
        let who = self.signed_in(visitor).await?;
        let user = &who.account.user;
        let missing = || Refused::invalid("client_id query parameter is required");
        let client = visitor.parameter("client_id").ok_or_else(missing)?;
        let client = Uuid::try_parse(client).map_err(|_| Refused::invalid("invalid client_id format"))?.to_string();
        let revoke = "with revoked as (update auth.oauth_consents set revoked_at = now() where user_id = $1 and client_id = $2 \
            and revoked_at is null returning 1) select ntier.expect(exists (select from revoked), 'the grant')";
        let parameters = [Some(user.id.as_str()), Some(client.as_str())];
        let traits = json!({ "oauth_client_id": client, "action": "revoke_oauth_grant" });
        let all = vec![
            sql(revoke, &parameters),
            sql("delete from auth.sessions where user_id = $1 and oauth_client_id = $2", &parameters),
            sql("delete from auth.oauth_authorizations where user_id = $1 and client_id = $2", &parameters),
            store::audit("token_revoked", "token", &Actor::user(user), &visitor.address, &traits),
        ];
        match store::write(&self.database, all).await {
            Ok(_) => Ok(respond::nothing()),
            Err(Error::Changed(_)) => {
                let message = "No active grant found for this client";
                Err(Refused::new(404, Code::OAuthConsentNotFound, message).into())
            }
            Err(error) => Err(error),
        }
    }
}
