//! What sends an e-mail because somebody asks for it: recovery, magic links and codes, repetitions; and the admin's invitations and links.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use ntier_backing::database::Statement;
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_protocol::auth::request::{self, GenerateLink, Mailing, Otp};
use ntier_protocol::auth::user::User;
use ntier_security::one_time::Sent;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::error::Error;
use crate::limits::Limit;
use crate::mail::{self, About, Kind};
use crate::one_time::set_token;
use crate::pkce;
use crate::signup::{self, Address, unconfirmed};
use crate::sms::{Channel, channel};
use crate::store::{self, Account, Actor, sql};
use crate::user::{EMAIL_EXISTS, forget_password, merge};
use crate::visitor::Visitor;
use crate::{Auth, respond};

/// Answers come at even times, so that theirs does not tell whether there was something to do (checklist A4).
const STEP: Duration = Duration::from_millis(25);

/// Takes a whole number of steps for some work, and one at least.
pub(crate) async fn level<T>(work: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let done = work.await;
    let steps = start.elapsed().as_nanos() / STEP.as_nanos() + 1;
    tokio::time::sleep_until(start + STEP * u32::try_from(steps).unwrap_or(1)).await;
    done
}

impl Auth {
    /// Nobody learns whether there is such a user.
    pub(crate) async fn recover(&self, visitor: &Visitor, body: &Bytes) -> Result<Response<Bytes>, Error> {
        let asked: Mailing = request::read(body)?;
        if asked.email.is_empty() {
            return Err(Refused::invalid("Password recovery requires an email").into());
        }
        let email = self.email(&asked.email)?;
        let challenge = pkce::challenge(&asked.challenge)?;
        self.limit(Limit::Mail, visitor, None).await?;
        self.may_mail(&Sent::default())?;
        self.pause("recovery", &email).await?;
        if let Some((account, tokens)) = store::by_email(&self.database, &email).await? {
            self.may_mail(&tokens.recovery)?;
            self.recovery(visitor, &account, Kind::Recovery, challenge).await?;
        }
        Ok(respond::json(200, &json!({})))
    }

    async fn recovery(
        &self,
        visitor: &Visitor,
        account: &Account,
        kind: Kind,
        challenge: Option<&str>,
    ) -> Result<(), Error> {
        let user = &account.user;
        let mut all = self.send(kind, &About::user(user), self.redirect(visitor), challenge)?;
        let audit = store::audit("user_recovery_requested", "user", &Actor::user(user), &visitor.address, &Value::Null);
        all.push(audit);
        store::write(&self.database, all).await.map(drop)
    }

    pub(crate) async fn otp(&self, visitor: &Visitor, body: &Bytes) -> Result<Response<Bytes>, Error> {
        let asked: Otp = request::read(body)?;
        match (asked.email.is_empty(), asked.phone.is_empty()) {
            (true, true) => return Err(Refused::invalid("One of email or phone must be set").into()),
            (false, false) => {
                let message = "Only an email address or phone number should be provided";
                return Err(Refused::invalid(message).into());
            }
            (true, false) => return self.otp_by_phone(visitor, asked).await,
            (false, true) => {}
        }
        let email = self.email(&asked.email)?;
        let challenge = pkce::challenge(&asked.challenge)?;
        self.limit(Limit::Mail, visitor, None).await?;
        match store::by_email(&self.database, &email).await? {
            Some((account, tokens)) if account.user.email_confirmed_at.is_some() => {
                self.may_mail(&tokens.recovery)?;
                self.recovery(visitor, &account, Kind::MagicLink, challenge).await?;
            }
            // Who signs up this way confirms the mailbox by it.
            Some((account, tokens)) => {
                self.may_mail(&tokens.confirmation)?;
                let mut all = vec![forget_password(&account.user.id)];
                let about = About::user(&account.user);
                all.extend(self.send(Kind::Confirmation, &about, self.redirect(visitor), challenge)?);
                store::write(&self.database, all).await?;
            }
            None if !asked.create_user || !self.settings.signup => {
                return Err(Refused::new(422, Code::OtpDisabled, "Signups not allowed for otp").into());
            }
            None => {
                self.may_mail(&Sent::default())?;
                let new = unconfirmed(Address::Email(&email), None, asked.data.unwrap_or_default());
                self.before_user(visitor, &new).await?;
                let mut all = new.statements();
                let about = About { id: &new.id, email: &email, data: &new.user_metadata };
                all.extend(self.send(Kind::Confirmation, &about, self.redirect(visitor), challenge)?);
                all.push(store::select_user(&new.id));
                let user = store::last_user(&store::write(&self.database, all).await?)?;
                self.after_user(visitor, &user).await?;
            }
        }
        Ok(respond::json(200, &json!({})))
    }

    async fn otp_by_phone(&self, visitor: &Visitor, asked: Otp) -> Result<Response<Bytes>, Error> {
        let phone = self.phone(&asked.phone)?;
        let channel = channel(&asked.channel)?;
        self.limit(Limit::Message, visitor, None).await?;
        let (id, mut all) = match store::by_phone(&self.database, &phone).await? {
            Some((account, tokens)) => {
                self.may_message(&phone, &tokens.confirmation)?;
                (account.user.id.clone(), vec![forget_password(&account.user.id)])
            }
            None if !asked.create_user || !self.settings.signup => {
                return Err(Refused::new(422, Code::OtpDisabled, "Signups not allowed for otp").into());
            }
            None => {
                self.may_message(&phone, &Sent::default())?;
                let new = unconfirmed(Address::Phone(&phone, channel), None, asked.data.unwrap_or_default());
                self.before_user(visitor, &new).await?;
                (new.id.clone(), new.statements())
            }
        };
        all.extend(self.send_code("confirmation", &id, &phone, channel)?);
        store::write(&self.database, all).await?;
        Ok(respond::json(200, &json!({})))
    }

    async fn resend_by_phone(&self, visitor: &Visitor, asked: &Mailing) -> Result<Response<Bytes>, Error> {
        let phone = self.phone(&asked.phone)?;
        self.limit(Limit::Message, visitor, None).await?;
        let is_change = asked.kind == "phone_change";
        let found = if is_change {
            store::by_next_phone(&self.database, &phone).await?
        } else {
            store::by_phone(&self.database, &phone).await?
        };
        if let Some((account, tokens)) =
            found.filter(|(account, _)| is_change || account.user.phone_confirmed_at.is_none())
        {
            let (column, before) =
                if is_change { ("phone_change", &tokens.phone_change) } else { ("confirmation", &tokens.confirmation) };
            self.may_message(&phone, before)?;
            store::write(&self.database, self.send_code(column, &account.user.id, &phone, Channel::Sms)?).await?;
        }
        Ok(respond::json(200, &json!({})))
    }

    /// Again what was sent before; nobody learns whether it was.
    pub(crate) async fn resend(&self, visitor: &Visitor, body: &Bytes) -> Result<Response<Bytes>, Error> {
        let asked: Mailing = request::read(body)?;
        match asked.kind.as_str() {
            "signup" | "email_change" if asked.email.is_empty() => {
                return Err(Refused::invalid("Type provided requires an email address").into());
            }
            "signup" | "email_change" => {}
            "sms" | "phone_change" if asked.phone.is_empty() => {
                return Err(Refused::invalid("Type provided requires a phone number").into());
            }
            "sms" | "phone_change" => return self.resend_by_phone(visitor, &asked).await,
            _ => {
                return Err(
                    Refused::invalid("Missing one of these types: signup, email_change, sms, phone_change").into()
                );
            }
        }
        let email = self.email(&asked.email)?;
        let challenge = pkce::challenge(&asked.challenge)?;
        self.limit(Limit::Mail, visitor, None).await?;
        self.may_mail(&Sent::default())?;
        self.pause(&asked.kind, &email).await?;
        if let Some((account, tokens)) = store::by_email(&self.database, &email).await? {
            let (user, redirect) = (&account.user, self.redirect(visitor));
            let all = match (asked.kind.as_str(), &user.new_email) {
                ("signup", _) if user.email_confirmed_at.is_none() => {
                    self.may_mail(&tokens.confirmation)?;
                    self.send(Kind::Confirmation, &About::user(user), redirect, challenge)?
                }
                ("email_change", Some(new)) => {
                    self.may_mail(&tokens.change_new)?;
                    self.send_change(&About::user(user), new, redirect, challenge)?
                }
                _ => Vec::new(),
            };
            store::write(&self.database, all).await?;
        }
        Ok(respond::json(200, &json!({})))
    }

    pub(crate) async fn invite(&self, visitor: &Visitor, body: &Bytes) -> Result<Response<Bytes>, Error> {
        let asked: Mailing = request::read(body)?;
        let email = address(&asked.email)?;
        self.may_mail(&Sent::default())?;
        let (id, data, mut all) = self.invited(&email, asked.data.unwrap_or_default()).await?;
        let about = About { id: &id, email: &email, data: &data };
        all.extend(self.send(Kind::Invite, &about, self.redirect(visitor), None)?);
        all.push(sql("update auth.users set invited_at = now() where id = $1", &[Some(&id)]));
        let traits = json!({ "user_id": id, "user_email": email });
        all.push(store::audit("user_invited", "team", &Actor::ADMIN, &visitor.address, &traits));
        all.push(store::select_user(&id));
        let answer = store::write(&self.database, all).await?;
        Ok(respond::json(200, &store::last_user(&answer)?))
    }

    /// A user who is not confirmed: who is there already, or a new one; with what it says of itself.
    async fn invited(
        &self,
        email: &str,
        data: Map<String, Value>,
    ) -> Result<(String, Map<String, Value>, Vec<Statement>), Error> {
        match store::by_email(&self.database, email).await? {
            Some((account, _)) if account.user.email_confirmed_at.is_some() => {
                Err(Refused::new(422, Code::EmailExists, EMAIL_EXISTS).into())
            }
            Some((account, _)) => {
                let forget = forget_password(&account.user.id);
                Ok((account.user.id, account.user.user_metadata, vec![forget]))
            }
            None => {
                let new = unconfirmed(Address::Email(email), None, data);
                let all = new.statements();
                Ok((new.id, new.user_metadata, all))
            }
        }
    }

    /// What an e-mail would have carried, for the admin's own e-mails.
    pub(crate) async fn generate_link(
        &self,
        visitor: &Visitor,
        asked: &GenerateLink,
    ) -> Result<Response<Bytes>, Error> {
        let email = address(&asked.email)?;
        let data = asked.data.clone().unwrap_or_default();
        let found = store::by_email(&self.database, &email).await?.map(|(account, _)| account);
        let known =
            || found.as_ref().ok_or_else(|| Refused::new(404, Code::UserNotFound, "User with this email not found"));
        let mut kind = asked.kind.as_str();
        if kind == "magiclink" && found.is_none() {
            kind = "signup";
        }
        let (code, mut hash) = self.new_token(&email)?;
        let (id, all) = match kind {
            "magiclink" | "recovery" => {
                let id = known()?.user.id.clone();
                let set = set_token("recovery", &id, &hash);
                (id, vec![set])
            }
            "invite" => {
                let (id, _, mut all) = self.invited(&email, data).await?;
                all.push(set_token("confirmation", &id, &hash));
                all.push(sql("update auth.users set invited_at = now() where id = $1", &[Some(&id)]));
                (id, all)
            }
            "signup" => {
                let (id, _, mut all) = self.invited(&email, data.clone()).await?;
                if found.is_some() {
                    all.push(merge("raw_user_meta_data", &id, &data));
                }
                if asked.kind == "signup" && (found.is_none() || !asked.password.is_empty()) {
                    if asked.password.is_empty() {
                        return Err(Refused::invalid("Signup requires a valid password").into());
                    }
                    self.check_password(&asked.password)?;
                    all.push(crate::user::set_password(&id, &self.hashing.hash(&asked.password).await?));
                }
                all.push(set_token("confirmation", &id, &hash));
                (id, all)
            }
            "email_change_current" | "email_change_new" => {
                let id = known()?.user.id.clone();
                let new = address(&asked.new_email)?;
                if new != email && store::by_email(&self.database, &new).await?.is_some() {
                    return Err(Refused::new(422, Code::EmailExists, EMAIL_EXISTS).into());
                }
                let column = if kind == "email_change_new" {
                    hash = self.codes.hash(&new, &code);
                    "email_change_token_new"
                } else if self.settings.double_confirm {
                    "email_change_token_current"
                } else {
                    let message = "Enable secure email change to generate link for current email";
                    return Err(Refused::invalid(message).into());
                };
                let text = format!(
                    "update auth.users set {column} = $2, email_change = $3, email_change_sent_at = now(), email_change_confirm_status = 0 \
                     where id = $1"
                );
                let change = sql(&text, &[Some(&id), Some(&hash), Some(&new)]);
                (id, vec![change])
            }
            other => return Err(Refused::invalid(format!("Invalid email action link type requested: {other}")).into()),
        };
        let mut all = all;
        let traits = json!({ "user_id": id, "user_email": email });
        all.push(store::audit("user_invited", "team", &Actor::ADMIN, &visitor.address, &traits));
        all.push(store::select_user(&id));
        let answer = store::write(&self.database, all).await?;
        let user: User = store::last_user(&answer)?;
        let redirect = self.allowed(Some(asked.redirect_to.as_str()).filter(|asked| !asked.is_empty()));
        let verification = if kind.starts_with("email_change") { "email_change" } else { kind };
        let mut body = serde_json::to_value(&user).map_err(|_| Error::Incomplete)?;
        body["action_link"] = mail::link(&self.settings.url, &hash, verification, redirect).into();
        body["email_otp"] = code.into();
        body["hashed_token"] = hash.into();
        body["verification_type"] = kind.into();
        body["redirect_to"] = redirect.into();
        Ok(respond::json(200, &body))
    }
}

fn address(text: &str) -> Result<String, Error> {
    if text.is_empty() {
        return Err(Refused::invalid("An email address is required").into());
    }
    signup::email(text)
}
