//! `GET /reauthenticate`: a code by e-mail, for what a session that is not fresh may not do alone (checklist A10).

use bytes::Bytes;
use http::Response;
use ntier_backing::database::Statement;
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_security::one_time::Sent;
use serde_json::{Value, json};

use crate::error::Error;
use crate::limits::Limit;
use crate::mail::{About, Kind};
use crate::sms::Channel;
use crate::store::{self, Account, Actor, sql};
use crate::visitor::{SignedIn, Visitor};
use crate::{Auth, now, respond};

/// Seconds for which a session is fresh. Source: GoTrue, `UserUpdate`.
const FRESH: i64 = 86_400;

impl Auth {
    pub(crate) async fn reauthenticate(&self, visitor: &Visitor) -> Result<Response<Bytes>, Error> {
        let who = self.signed_in(visitor).await?;
        let user = &who.account.user;
        if user.email.is_empty() && user.phone.is_empty() {
            let message = "Reauthentication requires the user to have an email or a phone number";
            return Err(Refused::invalid(message).into());
        }
        let sent = self.reauthentication_of(&who.account).await?;
        let mut all = if user.email.is_empty() {
            if user.phone_confirmed_at.is_none() {
                return Err(Refused::new(422, Code::PhoneNotConfirmed, "Please verify your phone first.").into());
            }
            self.may_message(&user.phone, &sent)?;
            self.limit(Limit::Message, visitor, None).await?;
            self.send_code("reauthentication", &user.id, &user.phone, Channel::Sms)?
        } else {
            if user.email_confirmed_at.is_none() {
                return Err(Refused::new(422, Code::EmailNotConfirmed, "Please verify your email first.").into());
            }
            self.may_mail(&sent)?;
            self.limit(Limit::Mail, visitor, None).await?;
            let (code, hash) = self.new_token(&user.email)?;
            let set =
                "update auth.users set reauthentication_token = $2, reauthentication_sent_at = now() where id = $1";
            let mail = self.mail(Kind::Reauthentication, &user.email, &About::user(user), json!({ "Token": code }));
            vec![sql(set, &[Some(&user.id), Some(&hash)]), mail]
        };
        let actor = Actor::user(user);
        all.push(store::audit("user_reauthenticate_requested", "user", &actor, &visitor.address, &Value::Null));
        store::write(&self.database, all).await?;
        Ok(respond::json(200, &json!({})))
    }

    /// What was sent to the user before, by e-mail or else to the phone.
    async fn reauthentication_of(&self, account: &Account) -> Result<Sent, Error> {
        let user = &account.user;
        let found = if user.email.is_empty() {
            store::by_phone(&self.database, &user.phone).await?
        } else {
            store::by_email(&self.database, &user.email).await?
        };
        Ok(found.map(|(_, tokens)| tokens.reauthentication).unwrap_or_default())
    }

    /// What has to be so when a password changes: nothing in a fresh session; otherwise the code, which is spent.
    pub(crate) async fn reauthenticated(&self, who: &SignedIn, nonce: &str) -> Result<Vec<Statement>, Error> {
        let is_fresh = who.session.as_ref().is_some_and(|session| now() <= session.created_at + FRESH);
        if !self.settings.reauthenticate || is_fresh {
            return Ok(Vec::new());
        }
        if nonce.is_empty() {
            let message = "Password update requires reauthentication";
            return Err(Refused::new(400, Code::ReauthenticationNeeded, message).into());
        }
        let Account { user, .. } = &who.account;
        let invalid = || Refused::new(422, Code::ReauthenticationNotValid, "Nonce has expired or is invalid").into();
        let sent = self.reauthentication_of(&who.account).await?;
        let (address, life) = if user.email.is_empty() {
            (&user.phone, self.settings.sms.code_life)
        } else {
            (&user.email, self.settings.typed_code_life)
        };
        if !sent.is(&self.codes.hash(address, nonce), life, now()) {
            return Err(invalid());
        }
        let still = "select ntier.expect(exists (select from auth.users where id = $1 and reauthentication_token = $2), 'the nonce')";
        Ok(vec![sql(still, &[Some(&user.id), Some(&sent.hash)])])
    }
}
