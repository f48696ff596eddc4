//! New sessions and the tokens of sessions.

use ntier_backing::database::Statement;
use ntier_protocol::auth::user::{Session, User};
use ntier_security::UnixTime;
use ntier_security::refresh::RefreshToken;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::Error;
use crate::mfa::level;
use crate::store::{self, Found, Way, sql};
use crate::visitor::Visitor;
use crate::{Auth, now};

/// A session that is about to begin.
#[derive(Debug)]
pub struct Beginning {
    id: Uuid,
    method: &'static str,
    begun: UnixTime,
    /// The application whose session it is, and what that one may know.
    client: Option<(String, String)>,
    /// Whoever begins it is signed out everywhere else; but applications have sessions of their own.
    alone: bool,
}

impl Beginning {
    fn new(method: &'static str) -> Self {
        Self { id: Uuid::new_v4(), method, begun: now(), client: None, alone: false }
    }

    /// An application's.
    pub fn of_client(method: &'static str, client: &str, scopes: &str) -> Self {
        Self { client: Some((client.to_owned(), scopes.to_owned())), ..Self::new(method) }
    }

    /// The statements that begin it; the last gives the user.
    pub fn statements(&self, user: &str, visitor: &Visitor) -> Vec<Statement> {
        let id = self.id.to_string();
        let mut all = Vec::new();
        if self.alone && self.client.is_none() {
            let others = "delete from auth.sessions where user_id = $1 and oauth_client_id is null";
            all.push(sql(others, &[Some(user)]));
        }
        all.extend([
            sql(
                "insert into auth.sessions (id, user_id, created_at, updated_at, aal, user_agent, ip, refresh_token_counter, \
                 oauth_client_id, scopes) values ($1, $2, now(), now(), 'aal1', $3, $4::inet, 0, $5, $6)",
                &[
                    Some(&id),
                    Some(user),
                    visitor.user_agent.as_deref(),
                    Some(&visitor.address),
                    self.client.as_ref().map(|(client, _)| client.as_str()),
                    self.client.as_ref().map(|(_, scopes)| scopes.as_str()),
                ],
            ),
            sql(
                "insert into auth.mfa_amr_claims (id, session_id, created_at, updated_at, authentication_method) \
                 values (gen_random_uuid(), $1, now(), now(), $2)",
                &[Some(&id), Some(self.method)],
            ),
            sql("update auth.users set last_sign_in_at = now(), updated_at = now() where id = $1", &[Some(user)]),
            store::select_user(user),
        ]);
        all
    }

    fn ways(&self) -> Vec<Way> {
        vec![Way { method: self.method.to_owned(), timestamp: self.begun }]
    }
}

/// Whom the tokens of a session are for.
#[derive(Debug)]
pub struct Subject {
    pub user: User,
    pub ways: Vec<Way>,
    /// The application whose session it is.
    pub client: Option<String>,
    /// How the tokens have come to be asked for.
    pub method: &'static str,
}

impl From<Found> for Subject {
    fn from(found: Found) -> Self {
        Self { user: found.account.user, ways: found.ways, client: found.client, method: "token_refresh" }
    }
}

impl Auth {
    /// A session of a user's own; `method` is how the user has shown who it is: `password`, `anonymous`, …
    pub(crate) fn begin(&self, method: &'static str) -> Beginning {
        Beginning { alone: self.settings.single_session, ..Beginning::new(method) }
    }

    /// The answer to a sign-in, once the session is there.
    pub(crate) async fn begun(
        &self,
        new: &Beginning,
        user: User,
        weak_password: Option<Value>,
    ) -> Result<Session, Error> {
        let client = new.client.as_ref().map(|(client, _)| client.clone());
        let subject = Subject { user, ways: new.ways(), client, method: new.method };
        match self.session(&new.id, 0, subject).await {
            Ok(session) => Ok(Session { weak_password, ..session }),
            Err(error) => {
                // Nobody has its tokens.
                let end = sql("delete from auth.sessions where id = $1", &[Some(&new.id.to_string())]);
                store::write(&self.database, vec![end]).await?;
                Err(error)
            }
        }
    }

    /// The tokens of a session.
    pub(crate) async fn session(&self, id: &Uuid, counter: i64, of: impl Into<Subject>) -> Result<Session, Error> {
        let subject = of.into();
        let (access_token, expires_at) = self.access_token(id, &subject).await?;
        Ok(Session {
            access_token,
            token_type: "bearer",
            expires_in: self.settings.token_life,
            expires_at,
            refresh_token: self.sealer.seal(RefreshToken { session: id.into_bytes(), counter }),
            user: subject.user,
            provider_token: None,
            provider_refresh_token: None,
            weak_password: None,
        })
    }

    /// An access token, and when it expires; of no session where the id is nil.
    pub(crate) async fn access_token(&self, id: &Uuid, of: &Subject) -> Result<(String, UnixTime), Error> {
        let Subject { user, ways, client, method } = of;
        let issued = now();
        let expires = issued + self.settings.token_life;
        let mut claims = json!({
            "iss": self.settings.url, "sub": user.id, "aud": user.aud, "exp": expires, "iat": issued, "email": user.email,
            "phone": user.phone, "app_metadata": user.app_metadata, "user_metadata": user.user_metadata, "role": user.role,
            "aal": level(ways), "amr": ways, "session_id": id.to_string(), "is_anonymous": user.is_anonymous,
        });
        if let Some(client) = client {
            claims["client_id"] = client.as_str().into();
        }
        let claims = self.customized(claims, method).await?;
        let token = self.keys().sign(&claims.to_string()).map_err(|_| Error::Signing)?;
        Ok((token, expires))
    }
}
