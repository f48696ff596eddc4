//! Tokens that come by e-mail: how they are sent, and what those who have them may do.

use bytes::Bytes;
use http::{Method, Response};
use ntier_backing::database::Statement;
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_protocol::auth::request::{self, Verify};
use ntier_protocol::auth::user::Session;
use ntier_security::UnixTime;
use ntier_security::one_time::{self, Sent};
use serde_json::{Value, json};

use crate::error::Error;
use crate::limits::{Limit, too_soon};
use crate::mail::{self, About, Kind, Notice};
use crate::redirect::{self, Target, error_parameters, session_parameters};
use crate::signup::Confirmed;
use crate::store::{self, Account, Actor, sql};
use crate::user::{forget_password, set_email, set_phone, set_providers};
use crate::visitor::Visitor;
use crate::{Auth, now, pkce, respond};

/// Of an e-mail change of which one mailbox has confirmed its part.
const HALF: &str = "Confirmation link accepted. Please proceed to confirm link sent to the other email";

/// What is out for a user.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tokens {
    pub confirmation: Sent,
    pub recovery: Sent,
    pub change_current: Sent,
    pub change_new: Sent,
    pub phone_change: Sent,
    pub reauthentication: Sent,
    /// One mailbox has confirmed the change.
    pub half_changed: bool,
}

/// Which of them was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    Confirmation,
    Recovery,
    ChangeCurrent,
    ChangeNew,
    Sms,
    PhoneChange,
}

impl Shown {
    fn column(self) -> &'static str {
        match self {
            Self::Confirmation | Self::Sms => "confirmation_token",
            Self::PhoneChange => "phone_change_token",
            Self::Recovery => "recovery_token",
            Self::ChangeCurrent => "email_change_token_current",
            Self::ChangeNew => "email_change_token_new",
        }
    }
}

/// How long codes are good, in seconds.
#[derive(Debug, Clone, Copy)]
struct Lives {
    email: i64,
    phone: i64,
}

/// Decides whether a hash proves what its type says.
fn decide<'a>(kind: &str, hash: &str, tokens: &'a Tokens, lives: Lives, now: UnixTime) -> Option<(Shown, &'a str)> {
    let candidates: &[(Shown, &'a Sent)] = match kind {
        "signup" | "invite" => &[(Shown::Confirmation, &tokens.confirmation)],
        "recovery" | "magiclink" => &[(Shown::Recovery, &tokens.recovery)],
        "email" => &[(Shown::Confirmation, &tokens.confirmation), (Shown::Recovery, &tokens.recovery)],
        "sms" => &[(Shown::Sms, &tokens.confirmation)],
        "phone_change" => &[(Shown::PhoneChange, &tokens.phone_change)],
        "email_change" => &[(Shown::ChangeCurrent, &tokens.change_current), (Shown::ChangeNew, &tokens.change_new)],
        _ => &[],
    };
    let life = if matches!(kind, "sms" | "phone_change") { lives.phone } else { lives.email };
    candidates.iter().find(|(_, sent)| sent.is(hash, life, now)).map(|(shown, sent)| (*shown, sent.hash.as_str()))
}

/// What a verified token led to.
enum Verified {
    Session(Box<Session>),
    /// A code, of which the browser that has begun makes a session.
    Code(String),
    /// The other mailbox has to confirm too.
    Half,
}

impl Auth {
    /// The statements that send a token to a user's mailbox.
    pub(crate) fn send(
        &self,
        kind: Kind,
        about: &About<'_>,
        redirect: &str,
        challenge: Option<&str>,
    ) -> Result<Vec<Statement>, Error> {
        let About { id, email, .. } = *about;
        let column = if matches!(kind, Kind::Recovery | Kind::MagicLink) { "recovery" } else { "confirmation" };
        let (code, hash) = self.new_token(email)?;
        let hash = prefixed(hash, challenge);
        let link = mail::link(&self.settings.url, &hash, kind.verification(), redirect);
        let more = json!({ "ConfirmationURL": link, "Token": code, "TokenHash": hash, "RedirectTo": redirect });
        let mut all = vec![set_token(column, id, &hash), self.mail(kind, email, about, more)];
        all.extend(challenge.map(|challenge| pkce::remember(id, kind, challenge)));
        Ok(all)
    }

    /// Likewise to both mailboxes of a user whose address is to change; to the new one alone where there is no old one.
    pub(crate) fn send_change(
        &self,
        about: &About<'_>,
        new: &str,
        redirect: &str,
        challenge: Option<&str>,
    ) -> Result<Vec<Statement>, Error> {
        let About { id, email: old, .. } = *about;
        let by_hook = self.settings.hooks.send_email.is_some();
        let mut all = Vec::new();
        let (mut codes, mut hashes) = ([String::new(), String::new()], [String::new(), String::new()]);
        let addresses = [if self.settings.double_confirm { old } else { "" }, new];
        for (at, address) in addresses.into_iter().enumerate().filter(|(_, address)| !address.is_empty()) {
            let (code, token) = self.new_token(address)?;
            let token = prefixed(token, challenge);
            (codes[at], hashes[at]) = (code.clone(), token.clone());
            if by_hook {
                continue;
            }
            let link = mail::link(&self.settings.url, &token, Kind::EmailChange.verification(), redirect);
            let more = json!({
                "ConfirmationURL": link, "Token": code, "TokenHash": token, "RedirectTo": redirect, "NewEmail": new, "SendingTo": address,
            });
            all.push(self.mail(Kind::EmailChange, address, about, more));
        }
        all.push(sql(
            "update auth.users set email_change = $2, email_change_token_current = $3, email_change_token_new = $4, \
             email_change_sent_at = now(), email_change_confirm_status = 0 where id = $1",
            &[Some(id), Some(new), Some(&hashes[0]), Some(&hashes[1])],
        ));
        if by_hook {
            let ([old_code, new_code], [old_hash, new_hash]) = (codes, hashes);
            // Both in one, under GoTrue's names: the old mailbox gets `token` and `token_hash_new`, the new one `token_new` and
            // `token_hash`; where the new one alone confirms, it gets `token` and `token_hash`.
            let (token, token_new) = if old_code.is_empty() { (new_code, old_code) } else { (old_code, new_code) };
            let data = json!({
                "token": token, "token_hash": new_hash, "token_new": token_new, "token_hash_new": old_hash, "redirect_to": redirect,
                "email_action_type": Kind::EmailChange.verification(), "old_email": old,
            });
            all.push(self.mail_by_hook(id, new, data));
        }
        all.extend(challenge.map(|challenge| pkce::remember(id, Kind::EmailChange, challenge)));
        Ok(all)
    }

    /// A code and its hash.
    pub(crate) fn new_token(&self, address: &str) -> Result<(String, String), Error> {
        let code = one_time::code(self.settings.code_length).map_err(|_| Error::Random)?;
        let hash = self.codes.hash(address, &code);
        Ok((code, hash))
    }

    /// Mail can be sent at all, and was not sent to this address a moment ago.
    pub(crate) fn may_mail(&self, before: &Sent) -> Result<(), Error> {
        if !self.settings.mail {
            return Err(Refused::new(500, Code::UnexpectedFailure, "Error sending confirmation email").into());
        }
        before.pause(self.settings.mail_pause, now()).map_or(Ok(()), |left| Err(too_soon(left)))
    }

    /// Where the link of an e-mail leads in the end.
    pub(crate) fn redirect<'a>(&'a self, visitor: &'a Visitor) -> &'a str {
        self.allowed(visitor.parameter("redirect_to"))
    }

    pub(crate) fn is_allowed(&self, asked: &str) -> bool {
        redirect::is_allowed(asked, &self.settings.site_url, &self.settings.redirects)
    }

    pub(crate) fn allowed<'a>(&'a self, asked: Option<&'a str>) -> &'a str {
        redirect::target(asked, &self.settings.site_url, &self.settings.redirects)
    }

    pub(crate) async fn verify(
        &self,
        method: &Method,
        visitor: &Visitor,
        body: &Bytes,
    ) -> Result<Response<Bytes>, Error> {
        if method == Method::GET {
            let text = |name: &str| visitor.parameter(name).unwrap_or_default().to_owned();
            let asked = Verify { kind: text("type"), token_hash: text("token"), is_link: true, ..Verify::default() };
            if asked.kind.is_empty() || asked.token_hash.is_empty() {
                return Err(Refused::invalid("Verify requires a token or a token hash").into());
            }
            let target = Target::new(self.redirect(visitor));
            let target = match self.prove(visitor, &asked).await {
                Ok(Verified::Session(session)) => {
                    let mut parameters = session_parameters(&session);
                    parameters.push(("type", asked.kind));
                    target.fragment(&parameters)
                }
                Ok(Verified::Code(code)) => target.query(&[("code", code)]),
                Ok(Verified::Half) => target.fragment(&[("message", HALF.to_owned())]),
                Err(Error::Refused(refused)) => {
                    let parameters = error_parameters(&refused);
                    // A browser that ends a flow by a code looks at the query alone.
                    let by_code = asked.token_hash.starts_with(pkce::PREFIX);
                    let target = if by_code { target.query(&parameters) } else { target };
                    target.fragment(&parameters)
                }
                Err(error) => return Err(error),
            };
            return Ok(target.see_other());
        }
        let mut asked: Verify = request::read(body)?;
        if asked.kind.is_empty() {
            return Err(Refused::invalid("Verify requires a verification type").into());
        }
        if asked.token.is_empty() == asked.token_hash.is_empty() {
            return Err(Refused::invalid("Verify requires either a token or a token hash").into());
        }
        if !asked.token.is_empty() {
            match (asked.email.as_str(), asked.phone.as_str()) {
                (email, "") if !email.is_empty() => {
                    let invalid = || Refused::new(422, Code::ValidationFailed, "Invalid email format");
                    asked.email = request::email(email).ok_or_else(invalid)?;
                    asked.token_hash = self.codes.hash(&asked.email, &asked.token);
                }
                ("", phone) if !phone.is_empty() => {
                    asked.phone = crate::signup::phone(phone)?;
                    asked.token_hash = self.codes.hash(&asked.phone, &asked.token);
                }
                _ => {
                    let message = "Only an email address or phone number should be provided on verify";
                    return Err(Refused::invalid(message).into());
                }
            }
        } else if !asked.email.is_empty() || !asked.phone.is_empty() {
            return Err(Refused::invalid("Only the token_hash and type should be provided").into());
        }
        match self.prove(visitor, &asked).await? {
            Verified::Session(session) => Ok(respond::json(200, &session)),
            Verified::Code(code) => Ok(respond::json(200, &json!({ "auth_code": code }))),
            Verified::Half => Ok(respond::json(200, &json!({ "msg": HALF, "code": "200" }))),
        }
    }

    /// Whoever has the token is the user: once.
    async fn prove(&self, visitor: &Visitor, asked: &Verify) -> Result<Verified, Error> {
        let by_link = asked.email.is_empty() && asked.phone.is_empty();
        let words = if by_link { "Email link is invalid or has expired" } else { "Token has expired or is invalid" };
        let expired = || Error::from(Refused::new(403, Code::OtpExpired, words));
        let address = if asked.phone.is_empty() { &asked.email } else { &asked.phone };
        self.limit(Limit::Verify, visitor, Some(address.as_str()).filter(|address| !address.is_empty())).await?;
        let found = match (asked.email.as_str(), asked.phone.as_str()) {
            ("", "") => store::with_tokens(&self.database, &asked.token_hash, None).await?,
            ("", phone) if asked.kind == "phone_change" => store::by_next_phone(&self.database, phone).await?,
            ("", phone) => store::by_phone(&self.database, phone).await?,
            (email, _) => store::with_tokens(&self.database, &asked.token_hash, Some(email)).await?,
        };
        // A phone proves no mailbox, and the other way round.
        let is_by_phone = matches!(asked.kind.as_str(), "sms" | "phone_change");
        let found = found.filter(|_| by_link || is_by_phone != asked.phone.is_empty());
        let (account, tokens) = found.ok_or_else(expired)?;
        if account.is_banned {
            return Err(Refused::new(403, Code::UserBanned, "User is banned").into());
        }
        let email = if by_link { self.settings.code_life } else { self.settings.typed_code_life };
        let lives = Lives { email, phone: self.settings.sms.code_life };
        let shown = decide(&asked.kind, &asked.token_hash, &tokens, lives, now());
        let (shown, stored) = shown.ok_or_else(expired)?;
        let id = &account.user.id;
        let column = shown.column();
        let still = format!(
            "select ntier.expect(exists (select from auth.users where id = $1 and {column} = $2), 'the token')"
        );
        let spend = format!("update auth.users set {column} = '' where id = $1");
        let mut all = vec![sql(&still, &[Some(id), Some(stored)]), sql(&spend, &[Some(id)])];
        let is_change = matches!(shown, Shown::ChangeCurrent | Shown::ChangeNew);
        let other_is_out = match shown {
            Shown::ChangeCurrent => !tokens.change_new.hash.is_empty(),
            _ => !tokens.change_current.hash.is_empty(),
        };
        if is_change && other_is_out && !tokens.half_changed {
            all.push(sql("update auth.users set email_change_confirm_status = 1 where id = $1", &[Some(id)]));
            self.apply_proof(all).await?.ok_or_else(expired)?;
            return Ok(Verified::Half);
        }
        all.extend(consequences(shown, &account, visitor));
        all.extend(self.notice_of(shown, &account));
        if by_link && asked.token_hash.starts_with(pkce::PREFIX) && asked.is_link {
            all.push(pkce::issue(id, if asked.kind == "email" { "magiclink" } else { &asked.kind }));
            let answer = self.apply_proof(all).await?.ok_or_else(expired)?;
            let code = answer.results.last().and_then(|result| result.rows.first()?.text(0).map(str::to_owned));
            return code.map(Verified::Code).ok_or_else(|| {
                let message = "No associated flow state found.";
                Refused::new(400, Code::FlowStateNotFound, message).into()
            });
        }
        let new = self.begin("otp");
        all.extend(new.statements(id, visitor));
        let answer = self.apply_proof(all).await?.ok_or_else(expired)?;
        Ok(Verified::Session(Box::new(self.begun(&new, store::last_user(&answer)?, None).await?)))
    }

    /// What the user is told of it.
    fn notice_of(&self, shown: Shown, account: &Account) -> Option<Statement> {
        let user = &account.user;
        match (shown, &user.new_email, &user.new_phone) {
            (Shown::ChangeCurrent | Shown::ChangeNew, Some(new), _) => {
                self.notice(Notice::EmailChanged, user, json!({ "Email": new, "OldEmail": user.email }))
            }
            (Shown::PhoneChange, _, Some(new)) => self.phone_notice(user, new),
            _ => None,
        }
    }

    /// `None` where somebody else has used the token a moment before.
    async fn apply_proof(&self, all: Vec<Statement>) -> Result<Option<ntier_backing::database::Answer>, Error> {
        match store::write(&self.database, all).await {
            Ok(answer) => Ok(Some(answer)),
            Err(Error::Changed(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What follows from a token that was shown, besides a session.
fn consequences(shown: Shown, account: &Account, visitor: &Visitor) -> Vec<Statement> {
    let user = &account.user;
    let (id, actor) = (user.id.as_str(), Actor::user(user));
    let audit = |action: &str, kind: &str| store::audit(action, kind, &actor, &visitor.address, &Value::Null);
    match shown {
        Shown::Confirmation | Shown::Recovery if user.email_confirmed_at.is_none() => {
            let mut all = Vec::new();
            if shown == Shown::Recovery {
                all.push(forget_password(id));
            }
            all.extend(set_email(id, &user.email, Confirmed::Proven));
            all.extend([set_providers(id), audit("user_signedup", "team")]);
            all
        }
        Shown::Sms if user.phone_confirmed_at.is_none() => {
            let mut all = set_phone(id, &user.phone, true);
            all.extend([set_providers(id), audit("user_signedup", "team")]);
            all
        }
        Shown::Confirmation | Shown::Recovery | Shown::Sms => vec![audit("login", "account")],
        Shown::PhoneChange => {
            let mut all = set_phone(id, user.new_phone.as_deref().unwrap_or_default(), true);
            all.push(sql(
                "update auth.users set phone_change = '', phone_change_token = '' where id = $1",
                &[Some(id)],
            ));
            all.extend([set_providers(id), audit("user_modified", "user")]);
            all
        }
        Shown::ChangeCurrent | Shown::ChangeNew => {
            let new = user.new_email.as_deref().unwrap_or_default();
            let mut all = set_email(id, new, Confirmed::Proven);
            all.push(sql(
                "update auth.users set email_change = '', email_change_token_current = '', email_change_token_new = '', \
                 email_change_confirm_status = 0 where id = $1",
                &[Some(id)],
            ));
            all.extend([set_providers(id), audit("user_modified", "user")]);
            all
        }
    }
}

/// `column` is `confirmation` or `recovery`.
pub fn set_token(column: &str, id: &str, hash: &str) -> Statement {
    let text = format!("update auth.users set {column}_token = $2, {column}_sent_at = now() where id = $1");
    sql(&text, &[Some(id), Some(hash)])
}

/// The hash of a link that leads to a code.
fn prefixed(hash: String, challenge: Option<&str>) -> String {
    if challenge.is_some() { format!("{}{hash}", pkce::PREFIX) } else { hash }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_a8_a_token_proves_what_its_type_says() {
        let sent = |hash: &str| Sent { hash: hash.into(), at: Some(1000) };
        let tokens = Tokens {
            confirmation: sent("c"),
            recovery: sent("r"),
            change_current: sent("o"),
            change_new: sent("n"),
            phone_change: sent("p"),
            reauthentication: sent("a"),
            half_changed: false,
        };
        let lives = Lives { email: 3600, phone: 60 };
        for (kind, hash, at, expected) in [
            ("signup", "c", 1000, Some(Shown::Confirmation)),
            ("invite", "c", 1000, Some(Shown::Confirmation)),
            ("signup", "r", 1000, None),
            ("recovery", "r", 1000, Some(Shown::Recovery)),
            ("magiclink", "r", 4600, Some(Shown::Recovery)),
            ("magiclink", "r", 4601, None),
            ("email", "c", 1000, Some(Shown::Confirmation)),
            ("email", "r", 1000, Some(Shown::Recovery)),
            ("email", "n", 1000, None),
            ("email_change", "o", 1000, Some(Shown::ChangeCurrent)),
            ("email_change", "n", 1000, Some(Shown::ChangeNew)),
            ("email_change", "c", 1000, None),
            ("sms", "c", 1060, Some(Shown::Sms)),
            ("sms", "c", 1061, None),
            ("phone_change", "p", 1000, Some(Shown::PhoneChange)),
            ("phone_change", "c", 1000, None),
            ("email", "p", 1000, None),
        ] {
            assert_eq!(decide(kind, hash, &tokens, lives, at).map(|(shown, _)| shown), expected, "{kind} {hash} {at}");
        }
        assert_eq!(decide("signup", "", &Tokens::default(), lives, 0), None);
    }
}
