//! `POST /logout`: this session, all others, or all.

use bytes::Bytes;
use http::Response;
use ntier_protocol::auth::error::Error as Refused;
use serde_json::Value;

use crate::error::Error;
use crate::store::{self, Actor, end_sessions, sql};
use crate::visitor::Visitor;
use crate::{Auth, respond};

impl Auth {
    pub(crate) async fn log_out(&self, visitor: &Visitor) -> Result<Response<Bytes>, Error> {
        let scope = visitor.parameter("scope").unwrap_or("global");
        if !matches!(scope, "global" | "local" | "others") {
            return Err(Refused::invalid(format!("Unsupported logout scope {scope:?}")).into());
        }
        let who = self.signed_in_by_any(visitor).await?;
        let user = &who.account.user;
        let is_client = who.session.as_ref().is_some_and(|session| session.client.is_some());
        let end = match (scope, &who.session) {
            // An application ends what is its own.
            (_, Some(session)) if is_client => sql("delete from auth.sessions where id = $1", &[Some(&session.id)]),
            ("local", Some(session)) => sql("delete from auth.sessions where id = $1", &[Some(&session.id)]),
            ("others", Some(session)) => end_sessions(&user.id, Some(&session.id)),
            _ => end_sessions(&user.id, None),
        };
        let audit = store::audit("logout", "account", &Actor::user(user), &visitor.address, &Value::Null);
        store::write(&self.database, vec![end, audit]).await?;
        Ok(respond::nothing())
    }
}
