//! `DELETE /user/identities/{id}`: a way to sign in less. Source: GoTrue, `internal/api/identity.go`.

use bytes::Bytes;
use http::Response;
use ntier_protocol::auth::error::{Code, Error as Refused};
use serde_json::json;
use uuid::Uuid;

use crate::error::Error;
use crate::mail::Notice;
use crate::store::{self, Actor, sql};
use crate::user::set_providers;
use crate::visitor::Visitor;
use crate::{Auth, respond};

impl Auth {
    pub(crate) async fn unlink_identity(&self, visitor: &Visitor, id: &str) -> Result<Response<Bytes>, Error> {
        let who = self.signed_in(visitor).await?;
        if !self.settings.manual_linking {
            return Err(Refused::new(404, Code::ManualLinkingDisabled, "Manual linking is disabled").into());
        }
        let invalid = |_| Refused::new(404, Code::ValidationFailed, "identity_id must be an UUID");
        let id = Uuid::try_parse(id).map_err(invalid)?.to_string();
        let user = &who.account.user;
        if user.identities.len() <= 1 {
            let message = "User must have at least 1 identity after unlinking";
            return Err(Refused::new(422, Code::SingleIdentityNotDeletable, message).into());
        }
        let found = user.identities.iter().find(|identity| identity.identity_id == id);
        let gone = || Refused::new(422, Code::IdentityNotFound, "Identity doesn't exist");
        let identity = found.ok_or_else(gone)?;
        // Of two that go at once one stays.
        let alone = sql("select from auth.users where id = $1 for update", &[Some(&user.id)]);
        let remove = sql(
            "with gone as (delete from auth.identities where id = $1 and user_id = $2 \
             and exists (select from auth.identities where user_id = $2 and id <> $1) returning 1) \
             select ntier.expect(exists (select from gone), 'the identity')",
            &[Some(&id), Some(&user.id)],
        );
        let address = if identity.provider == "phone" {
            sql("update auth.users set phone = null, phone_confirmed_at = null where id = $1", &[Some(&user.id)])
        } else {
            // The address is one of those that are left; another than before only if somebody has made sure of it.
            sql(
                "update auth.users u set email = case when u.email = i.email or i.is_verified then i.email end, \
                 email_confirmed_at = case when u.email = i.email then u.email_confirmed_at when i.is_verified then now() end \
                 from (select i.email, coalesce(i.identity_data ->> 'email_verified' = 'true', false) as is_verified \
                   from auth.identities i join auth.users o on o.id = i.user_id where i.user_id = $1 and i.email is not null \
                   order by coalesce(i.email = o.email, false) desc, 2 desc, i.created_at limit 1) i where u.id = $1",
                &[Some(&user.id)],
            )
        };
        let traits = json!({ "identity_id": id, "provider": identity.provider, "provider_id": identity.id });
        let audit = store::audit("identity_unlinked", "user", &Actor::user(user), &visitor.address, &traits);
        let mut all = vec![alone, remove, address, set_providers(&user.id), audit];
        all.extend(self.notice(Notice::IdentityUnlinked, user, json!({ "Provider": identity.provider })));
        match store::write(&self.database, all).await {
            Ok(_) => Ok(respond::json(200, &json!({}))),
            Err(Error::Changed(_)) => Err(gone().into()),
            Err(Error::Taken(_)) => {
                let message = "Unable to unlink identity due to email conflict";
                Err(Refused::new(422, Code::EmailConflictIdentityNotDeletable, message).into())
            }
            Err(error) => Err(error),
        }
    }
}
