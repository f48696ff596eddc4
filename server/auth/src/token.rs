//! `POST /token`: sign-in by password, and refreshes.

use bytes::Bytes;
use http::Response;
use ntier_backing::database::{Answer, Statement};
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_protocol::auth::request::{self, IdTokenGrant, PasswordGrant, RefreshGrant};
use ntier_protocol::auth::user::Session;
use ntier_security::password::{self, Verdict};
use ntier_security::refresh::{self, Decision, Facts, Refusal};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::Error;
use crate::limits::Limit;
use crate::store::{self, Account, Actor, By, Found, sql};
use crate::visitor::Visitor;
use crate::{ATTEMPTS, Auth, now, respond};

impl Auth {
    pub(crate) async fn token(&self, visitor: &Visitor, body: &Bytes) -> Result<Response<Bytes>, Error> {
        match visitor.parameter("grant_type") {
            Some("password") => self.by_password(visitor, &request::read(body)?).await,
            Some("refresh_token") => {
                let grant: RefreshGrant = request::read(body)?;
                self.limit(Limit::Token, visitor, None).await?;
                Ok(respond::json(200, &self.refresh_of(visitor, &grant.refresh_token, None).await?))
            }
            Some("pkce") => self.by_code(visitor, &request::read(body)?).await,
            Some("id_token") => {
                let grant: IdTokenGrant = request::read(body)?;
                self.by_id_token(visitor, &grant).await
            }
            Some("web3") => Err(Refused::new(422, Code::Web3ProviderDisabled, "Web3 provider is disabled").into()),
            _ => Err(Refused::new(400, Code::InvalidCredentials, "unsupported_grant_type").into()),
        }
    }

    async fn by_password(&self, visitor: &Visitor, asked: &PasswordGrant) -> Result<Response<Bytes>, Error> {
        let right = self.right_password(visitor, asked).await?;
        let new = self.begin("password");
        let mut all = right.statements;
        all.extend(new.statements(&right.account.user.id, visitor));
        let answer = write(self, all).await?;
        let weak = match password::check(&asked.password, self.settings.password) {
            Err(password::Fault::Weak { message, reasons }) => Some(json!({ "message": message, "reasons": reasons })),
            _ => None,
        };
        Ok(respond::json(200, &self.begun(&new, store::last_user(&answer)?, weak).await?))
    }

    /// Whoever has this password, and may sign in with it.
    pub(crate) async fn right_password(&self, visitor: &Visitor, asked: &PasswordGrant) -> Result<Right, Error> {
        let phone = asked.phone.trim_start_matches('+').replace(' ', "");
        let email = asked.email.to_lowercase();
        let (provider, by) = match (asked.email.is_empty(), asked.phone.is_empty()) {
            (false, false) => {
                let message = "Only an email address or phone number should be provided on login.";
                return Err(Refused::invalid(message).into());
            }
            (true, true) => return Err(Refused::invalid("missing email or phone").into()),
            (false, true) if !self.settings.email => {
                return Err(Refused::new(422, Code::EmailProviderDisabled, "Email logins are disabled").into());
            }
            (true, false) if !self.settings.phone => {
                return Err(Refused::new(422, Code::PhoneProviderDisabled, "Phone logins are disabled").into());
            }
            (false, true) => ("email", By::Email(&email)),
            (true, false) => ("phone", By::Phone(&phone)),
        };
        let name = if provider == "email" { &email } else { &phone };
        if name.len() > 255 {
            return Err(wrong());
        }
        self.limit(Limit::Token, visitor, Some(name)).await?;
        let account = store::find(&self.database, by).await?;
        // Also where there is nobody: the time must not tell who has an account.
        let hash = account.as_ref().and_then(|account| account.password.as_deref());
        let verdict = self.hashing.verify(&asked.password, hash).await?;
        let account = account.ok_or_else(wrong)?;
        self.password_attempt(visitor, &account.user.id, verdict != Verdict::Wrong).await?;
        if verdict == Verdict::Wrong {
            return Err(wrong());
        }
        if account.is_banned {
            return Err(Refused::new(400, Code::UserBanned, "User is banned").into());
        }
        if provider == "email" && account.user.email_confirmed_at.is_none() {
            return Err(Refused::new(400, Code::EmailNotConfirmed, "Email not confirmed").into());
        }
        if provider == "phone" && account.user.phone_confirmed_at.is_none() {
            return Err(Refused::new(400, Code::PhoneNotConfirmed, "Phone not confirmed").into());
        }
        let id = &account.user.id;
        let mut statements = Vec::new();
        // What was decided upon: the password that was compared is still the user's.
        statements.push(sql(
            "select ntier.expect(exists (select from auth.users where id = $1 and encrypted_password = $2), 'the password')",
            &[Some(id), account.password.as_deref()],
        ));
        if verdict == Verdict::RightAndOld {
            let hash = self.hashing.hash(&asked.password).await?;
            statements
                .push(sql("update auth.users set encrypted_password = $2 where id = $1", &[Some(id), Some(&hash)]));
        }
        let actor = Actor::user(&account.user);
        statements.push(store::audit("login", "account", &actor, &visitor.address, &json!({ "provider": provider })));
        Ok(Right { account, statements })
    }

    /// The session of the user's own client, or of an application that has shown who it is.
    pub(crate) async fn refresh_of(
        &self,
        visitor: &Visitor,
        token: &str,
        client: Option<&str>,
    ) -> Result<Session, Error> {
        if token.is_empty() {
            return Err(Refused::invalid("refresh_token required").into());
        }
        let token = match self.sealer.open(token) {
            Some(token) => token,
            None => match self.moved(token).await? {
                Some(token) => token,
                None => return self.exchange(visitor, token).await,
            },
        };
        let id = Uuid::from_bytes(token.session);
        for _ in 0..ATTEMPTS {
            let found = store::session(&self.database, &id.to_string()).await?.ok_or_else(unknown)?;
            if found.client.as_deref() != client {
                return Err(unknown());
            }
            let counter = match refresh::decide(token.counter, &facts(&found), &self.settings.refresh, now()) {
                Decision::Repeat => found.counter,
                Decision::Rotate => match self.rotate(&id, &found, visitor, Vec::new()).await {
                    // Another request with the same token was a moment faster.
                    Err(Error::Changed(_)) => continue,
                    rotated => rotated?,
                },
                Decision::Revoke => return self.revoke(&id, &found, visitor).await,
                Decision::Refuse(refusal) => return Err(refused(refusal).into()),
            };
            return self.session(&id, counter, found).await;
        }
        Err(contended())
    }

    /// The next number counts, and more is done with it; fails where it is not the next any more.
    pub(crate) async fn rotate(
        &self,
        id: &Uuid,
        found: &Found,
        visitor: &Visitor,
        more: Vec<Statement>,
    ) -> Result<i64, Error> {
        let (id, before, next) = (id.to_string(), found.counter.to_string(), found.counter + 1);
        let update = sql(
            "with changed as (update auth.sessions set refresh_token_counter = $3, refreshed_at = now() at time zone 'UTC', \
             updated_at = now(), user_agent = $4, ip = $5::inet where id = $1 and coalesce(refresh_token_counter, 0) = $2 returning 1) \
             select ntier.expect(exists (select from changed), 'the session')",
            &[Some(&id), Some(&before), Some(&next.to_string()), visitor.user_agent.as_deref(), Some(&visitor.address)],
        );
        let actor = Actor::user(&found.account.user);
        let audit = store::audit("token_refreshed", "token", &actor, &visitor.address, &Value::Null);
        store::write(&self.database, [vec![update, audit], more].concat()).await?;
        Ok(next)
    }

    /// Somebody else has the token: its session ends.
    pub(crate) async fn revoke(&self, id: &Uuid, found: &Found, visitor: &Visitor) -> Result<Session, Error> {
        let actor = Actor::user(&found.account.user);
        let audit = store::audit("token_revoked", "token", &actor, &visitor.address, &Value::Null);
        let end = sql("delete from auth.sessions where id = $1", &[Some(&id.to_string())]);
        store::write(&self.database, vec![end, audit]).await?;
        let message = "Invalid Refresh Token: Already Used";
        Err(Refused::new(400, Code::RefreshTokenAlreadyUsed, message).into())
    }
}

/// Somebody who has shown a password.
pub(crate) struct Right {
    pub(crate) account: Account,
    /// What is to be written, with what follows from it.
    pub(crate) statements: Vec<Statement>,
}

/// Writes what follows from a password that was right.
pub(crate) async fn write(auth: &Auth, statements: Vec<Statement>) -> Result<Answer, Error> {
    match store::write(&auth.database, statements).await {
        Err(Error::Changed(_)) => Err(wrong()),
        answer => answer,
    }
}

fn wrong() -> Error {
    Refused::new(400, Code::InvalidCredentials, "Invalid login credentials").into()
}

/// What is decided upon.
pub fn facts(found: &Found) -> Facts {
    Facts {
        counter: found.counter,
        created_at: found.created_at,
        refreshed_at: found.refreshed_at,
        not_after: found.not_after,
        user_is_banned: found.account.is_banned,
    }
}

pub fn unknown() -> Error {
    Refused::new(400, Code::RefreshTokenNotFound, "Invalid Refresh Token: Refresh Token Not Found").into()
}

/// Others are always a moment faster.
pub fn contended() -> Error {
    let message = "Too many concurrent token refresh requests on the same session or refresh token";
    Refused::new(409, Code::OverRequestRateLimit, message).into()
}

pub fn refused(refusal: Refusal) -> Refused {
    let (code, message) = match refusal {
        Refusal::Banned => (Code::UserBanned, "Invalid Refresh Token: User Banned"),
        Refusal::Expired => (Code::SessionExpired, "Invalid Refresh Token: Session Expired"),
        Refusal::Inactive => (Code::SessionExpired, "Invalid Refresh Token: Session Expired (Inactivity)"),
        Refusal::NotOurs => (Code::ValidationFailed, "Invalid Refresh Token: Not Issued By This Server"),
    };
    Refused::new(400, code, message)
}
