//! New sessions and the tokens of sessions.

use std::sync::PoisonError;

use ntier_backing::database::Statement;
use ntier_protocol::auth::user::{Session, User};
use ntier_security::UnixTime;
use ntier_security::refresh::RefreshToken;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::Error;
use crate::mfa::level;
use crate::store::{self, Way, sql};
use crate::visitor::Visitor;
use crate::{Auth, now};

/// A session that is about to begin.
#[derive(Debug)]
pub struct Beginning {
    id: Uuid,
    method: &'static str,
    begun: UnixTime,
}

impl Beginning {
    /// `method` is how the user has shown who it is: `password`, `anonymous`, …
    pub fn new(method: &'static str) -> Self {
        Self { id: Uuid::new_v4(), method, begun: now() }
    }

    /// The statements that begin it; the last gives the user.
    pub fn statements(&self, user: &str, visitor: &Visitor) -> Vec<Statement> {
        let id = self.id.to_string();
        vec![
            sql(
                "insert into auth.sessions (id, user_id, created_at, updated_at, aal, user_agent, ip, refresh_token_counter) \
                 values ($1, $2, now(), now(), 'aal1', $3, $4::inet, 0)",
                &[Some(&id), Some(user), visitor.user_agent.as_deref(), Some(&visitor.address)],
            ),
            sql(
                "insert into auth.mfa_amr_claims (id, session_id, created_at, updated_at, authentication_method) \
                 values (gen_random_uuid(), $1, now(), now(), $2)",
                &[Some(&id), Some(self.method)],
            ),
            sql("update auth.users set last_sign_in_at = now(), updated_at = now() where id = $1", &[Some(user)]),
            store::select_user(user),
        ]
    }

    fn ways(&self) -> Vec<Way> {
        vec![Way { method: self.method.to_owned(), timestamp: self.begun }]
    }
}

impl Auth {
    /// The answer to a sign-in, once the session is there.
    pub(crate) fn begun(&self, new: &Beginning, user: User, weak_password: Option<Value>) -> Result<Session, Error> {
        let session = self.session(&new.id, 0, user, &new.ways())?;
        Ok(Session { weak_password, ..session })
    }

    /// The tokens of a session.
    pub(crate) fn session(&self, id: &Uuid, counter: i64, user: User, ways: &[Way]) -> Result<Session, Error> {
        let issued = now();
        let expires = issued + self.settings.token_life;
        let claims = json!({
            "iss": self.settings.url, "sub": user.id, "aud": user.aud, "exp": expires, "iat": issued, "email": user.email,
            "phone": user.phone, "app_metadata": user.app_metadata, "user_metadata": user.user_metadata, "role": user.role,
            "aal": level(ways), "amr": ways, "session_id": id.to_string(), "is_anonymous": user.is_anonymous,
        });
        let token = self.keys.read().unwrap_or_else(PoisonError::into_inner).sign(&claims.to_string());
        Ok(Session {
            access_token: token.map_err(|_| Error::Signing)?,
            token_type: "bearer",
            expires_in: self.settings.token_life,
            expires_at: expires,
            refresh_token: self.sealer.seal(RefreshToken { session: id.into_bytes(), counter }),
            user,
            provider_token: None,
            provider_refresh_token: None,
            weak_password: None,
        })
    }
}
