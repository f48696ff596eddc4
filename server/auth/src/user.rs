//! `GET` and `PUT /user`: what users may see and change of themselves.

use bytes::Bytes;
use http::Response;
use ntier_backing::database::Statement;
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_protocol::auth::request::{self, UserUpdate};
use ntier_protocol::auth::user::Factor;
use ntier_security::password::Verdict;
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::limits::Limit;
use crate::mail::{About, Notice};
use crate::mfa::is_second;
use crate::pkce;
use crate::signup::{self, Confirmed};
use crate::sms::channel;
use crate::store::{self, Account, Actor, By, sql};
use crate::visitor::{SignedIn, Visitor};
use crate::{ATTEMPTS, Auth, respond};

pub const EMAIL_EXISTS: &str = "A user with this email address has already been registered";
pub const PHONE_EXISTS: &str = "A user with this phone number has already been registered";

impl Auth {
    pub(crate) async fn user(&self, visitor: &Visitor) -> Result<Response<Bytes>, Error> {
        Ok(respond::json(200, &self.signed_in_by_any(visitor).await?.account.user))
    }

    pub(crate) async fn update_user(&self, visitor: &Visitor, body: &Bytes) -> Result<Response<Bytes>, Error> {
        let asked: UserUpdate = request::read(body)?;
        self.limit(Limit::User, visitor, None).await?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.try_to_update(visitor, &asked).await {
                Err(Error::Changed(_)) if attempt < ATTEMPTS => {}
                done => return done,
            }
        }
    }

    async fn try_to_update(&self, visitor: &Visitor, asked: &UserUpdate) -> Result<Response<Bytes>, Error> {
        let who = self.signed_in(visitor).await?;
        let SignedIn { account, session } = &who;
        let user = &account.user;
        if asked.app_metadata.is_some() {
            let message = "Updating app_metadata requires admin privileges";
            return Err(Refused::new(403, Code::NotAdmin, message).into());
        }
        let email = if asked.email.is_empty() { None } else { Some(self.email(&asked.email)?) };
        let email = email.filter(|email| *email != user.email);
        let phone = if asked.phone.is_empty() { None } else { Some(self.phone(&asked.phone)?) };
        let phone = phone.filter(|phone| *phone != user.phone);
        let changes_access =
            asked.password.as_ref().is_some_and(|password| !password.is_empty()) || email.is_some() || phone.is_some();
        if changes_access && user.factors.iter().any(Factor::is_verified) && !is_second(&who) {
            let message = "AAL2 session is required to update email or password when MFA is enabled.";
            return Err(Refused::new(401, Code::InsufficientAal, message).into());
        }
        let mut all = Vec::new();
        if let Some(password) = &asked.password {
            let has_address = !asked.email.is_empty() || !asked.phone.is_empty();
            if user.is_anonymous && !password.is_empty() && !has_address {
                let message = "Updating password of an anonymous user without an email or phone is not allowed";
                return Err(Refused::new(422, Code::ValidationFailed, message).into());
            }
            if !asked.nonce.is_empty() || asked.current_password.is_some() {
                // Whoever found a session guesses neither of them, however many addresses ask.
                self.limit(Limit::User, visitor, Some(&user.id)).await?;
            }
            let proven = self.reauthenticated(&who, &asked.nonce).await?;
            let hash = self.new_password(asked, account, password).await?;
            all.extend(proven);
            all.push(unchanged(account));
            all.push(set_password(&user.id, &hash));
            // Whoever had the old password is out.
            all.push(store::end_sessions(&user.id, session.as_ref().map(|session| session.id.as_str())));
            let audit =
                store::audit("user_updated_password", "user", &Actor::user(user), &visitor.address, &Value::Null);
            all.push(audit);
            all.extend(self.notice(Notice::PasswordChanged, user, Value::Null));
        }
        if let Some(data) = &asked.data {
            all.push(merge("raw_user_meta_data", &user.id, data));
        }
        if let Some(email) = &email {
            if store::find(&self.database, By::Email(email)).await?.is_some() {
                return Err(Refused::new(422, Code::EmailExists, EMAIL_EXISTS).into());
            }
            if user.is_anonymous && self.settings.email_autoconfirm {
                all.extend(set_email(&user.id, email, Confirmed::Taken));
            } else {
                let sent = store::with_tokens(&self.database, "", Some(&user.email)).await?;
                self.may_mail(&sent.map(|(_, tokens)| tokens.change_new).unwrap_or_default())?;
                let challenge = pkce::challenge(&asked.challenge)?;
                self.limit(Limit::Mail, visitor, None).await?;
                all.extend(self.send_change(&About::user(user), email, self.redirect(visitor), challenge)?);
            }
        }
        if let Some(phone) = &phone {
            if store::find(&self.database, By::Phone(phone)).await?.is_some() {
                return Err(Refused::new(422, Code::PhoneExists, PHONE_EXISTS).into());
            }
            if self.settings.phone_autoconfirm {
                all.extend(set_phone(&user.id, phone, true));
                all.extend(self.phone_notice(user, phone));
            } else {
                let channel = channel(&asked.channel)?;
                let sent = store::by_next_phone(&self.database, phone).await?;
                let own = sent.filter(|(account, _)| account.user.id == user.id).map(|(_, tokens)| tokens.phone_change);
                self.may_message(phone, &own.unwrap_or_default())?;
                self.limit(Limit::Message, visitor, None).await?;
                all.push(sql("update auth.users set phone_change = $2 where id = $1", &[Some(&user.id), Some(phone)]));
                all.extend(self.send_code("phone_change", &user.id, phone, channel)?);
            }
        }
        if email.is_some() || phone.is_some() {
            all.push(set_providers(&user.id));
        }
        all.push(sql("update auth.users set updated_at = now() where id = $1", &[Some(&user.id)]));
        all.push(store::audit("user_modified", "user", &Actor::user(user), &visitor.address, &Value::Null));
        all.push(store::select_user(&user.id));
        let answer = store::write(&self.database, all).await?;
        Ok(respond::json(200, &store::last_user(&answer)?))
    }

    /// The hash of a password that may take the place of the user's.
    async fn new_password(&self, asked: &UserUpdate, account: &Account, password: &str) -> Result<String, Error> {
        self.check_password(password)?;
        if let Some(hash) = account.password.as_deref() {
            if self.settings.require_current_password {
                let message = "Current password required when setting new password.";
                let current = asked.current_password.as_deref().filter(|current| !current.is_empty());
                let current = current.ok_or_else(|| Refused::new(400, Code::CurrentPasswordRequired, message))?;
                if self.hashing.verify(current, Some(hash)).await? == Verdict::Wrong {
                    return Err(Refused::new(400, Code::CurrentPasswordMismatch, message).into());
                }
            }
            if self.hashing.verify(password, Some(hash)).await? != Verdict::Wrong {
                let message = "New password should be different from the old password.";
                return Err(Refused::new(422, Code::SamePassword, message).into());
            }
        }
        self.hashing.hash(password).await
    }
}

/// Which of a user's addresses belongs to another.
pub fn exists(message: &str) -> Refused {
    if message.contains("mfa_factors_user_friendly_name") {
        Refused::new(422, Code::MfaFactorNameConflict, "A factor with the friendly name for this user already exists")
    } else if message.contains("identities_") {
        Refused::new(422, Code::IdentityAlreadyExists, "Identity is already linked")
    } else if message.contains("last_challenged_at") || message.contains("_token_") {
        Refused::new(409, Code::Conflict, "Something else has changed it at the same time: try again")
    } else if message.contains("phone") {
        Refused::new(422, Code::PhoneExists, PHONE_EXISTS)
    } else {
        Refused::new(422, Code::EmailExists, EMAIL_EXISTS)
    }
}

/// The password is still the one that was looked at.
fn unchanged(account: &Account) -> Statement {
    sql(
        "select ntier.expect(exists (select from auth.users where id = $1 \
         and nullif(encrypted_password, '') is not distinct from $2), 'the password')",
        &[Some(&account.user.id), account.password.as_deref()],
    )
}

/// Whoever set the password of a user who is not confirmed may be somebody else: it goes before the owner of the mailbox comes in
/// without it, and with it the identities that others only said to have this address.
pub fn forget_password(id: &str) -> Statement {
    sql(
        "with forgotten as (update auth.users set encrypted_password = '' \
           where id = $1 and email_confirmed_at is null and phone_confirmed_at is null returning id) \
         delete from auth.identities i using forgotten where i.user_id = forgotten.id and i.provider not in ('email', 'phone') \
           and i.identity_data ->> 'email_verified' is distinct from 'true'",
        &[Some(id)],
    )
}

/// Whatever was sent to change the account by the old password is void.
pub fn set_password(id: &str, hash: &str) -> Statement {
    sql(
        "update auth.users set encrypted_password = $2, confirmation_token = '', confirmation_sent_at = null, recovery_token = '', \
         recovery_sent_at = null, email_change_token_current = '', email_change_token_new = '', email_change_sent_at = null, \
         phone_change_token = '', phone_change_sent_at = null, reauthentication_token = '', reauthentication_sent_at = null \
         where id = $1",
        &[Some(id), Some(hash)],
    )
}

/// Lays these keys over those that are there; null takes one away.
pub fn merge(column: &str, id: &str, with: &Map<String, Value>) -> Statement {
    let (gone, kept): (Vec<_>, Vec<_>) = with.iter().partition(|(_, value)| value.is_null());
    let kept: Map<String, Value> = kept.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let gone: Vec<&String> = gone.into_iter().map(|(key, _)| key).collect();
    sql(
        &format!(
            "update auth.users set {column} = (coalesce({column}, '{{}}') || $2::jsonb) \
             - array(select jsonb_array_elements_text($3::jsonb)) where id = $1"
        ),
        &[Some(id), Some(&Value::Object(kept).to_string()), Some(&json!(gone).to_string())],
    )
}

/// The user's e-mail address, and the identity that goes with it.
pub fn set_email(id: &str, email: &str, confirmed: Confirmed) -> Vec<Statement> {
    let is_proven = confirmed == Confirmed::Proven;
    let confirmed = confirmed != Confirmed::No;
    let data = json!({ "sub": id, "email": email, "email_verified": is_proven, "phone_verified": false });
    vec![
        sql(
            "update auth.users set email = $2::text, recovery_token = case when email = $2::text then recovery_token else '' end, \
             confirmation_token = case when email = $2::text then confirmation_token else '' end, \
             reauthentication_token = case when email = $2::text then reauthentication_token else '' end, is_anonymous = is_anonymous and not $3::boolean, \
             email_confirmed_at = case when $3::boolean then now() else email_confirmed_at end, \
             raw_user_meta_data = case when $3::boolean then coalesce(raw_user_meta_data, '{}') || '{\"email_verified\": true}' \
             else raw_user_meta_data end where id = $1",
            &[Some(id), Some(email), Some(if confirmed { "true" } else { "false" })],
        ),
        set_identity(id, "email", &data),
    ]
}

/// Likewise the phone number. What was sent to the one before is void.
pub fn set_phone(id: &str, phone: &str, confirmed: bool) -> Vec<Statement> {
    let data = json!({ "sub": id, "phone": phone, "email_verified": false, "phone_verified": confirmed });
    vec![
        sql(
            "update auth.users set phone = $2::text, confirmation_token = case when phone = $2::text then confirmation_token else '' end, \
             reauthentication_token = case when phone = $2::text then reauthentication_token else '' end, is_anonymous = is_anonymous and not $3::boolean, \
             phone_confirmed_at = case when $3::boolean then now() else phone_confirmed_at end where id = $1",
            &[Some(id), Some(phone), Some(if confirmed { "true" } else { "false" })],
        ),
        set_identity(id, "phone", &data),
    ]
}

fn set_identity(id: &str, provider: &str, data: &Value) -> Statement {
    let insert = signup::identity(id, provider, id, data);
    let text = format!(
        "{} on conflict (provider_id, provider) do update set identity_data = identities.identity_data || excluded.identity_data, \
         updated_at = now()",
        insert.text
    );
    Statement { text: text.into(), ..insert }
}

/// `provider` and `providers` say how the user may sign in.
pub fn set_providers(id: &str) -> Statement {
    sql(
        "update auth.users u set raw_app_meta_data = coalesce(raw_app_meta_data, '{}') || (\
           select jsonb_build_object('provider', (array_agg(i.provider order by i.created_at, i.provider))[1], \
             'providers', jsonb_agg(i.provider order by i.created_at, i.provider)) \
           from auth.identities i where i.user_id = u.id) \
         where u.id = $1 and exists (select from auth.identities i where i.user_id = u.id)",
        &[Some(id)],
    )
}
