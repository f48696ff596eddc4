//! E-mails: what they are about, and how they get into the queue.

mod words;

use ntier_backing::database::Statement;
use ntier_protocol::auth::user::User;
use serde_json::{Map, Value, json};

use crate::Auth;
use crate::redirect;
use crate::store::sql;
pub use words::{Mails, NOTIFICATIONS, TEMPLATES};

/// What an e-mail is about that somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Confirmation,
    Recovery,
    MagicLink,
    Invite,
    EmailChange,
    Reauthentication,
}

impl Kind {
    pub const ALL: [Self; 6] =
        [Self::Confirmation, Self::Recovery, Self::MagicLink, Self::Invite, Self::EmailChange, Self::Reauthentication];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Confirmation => "confirmation",
            Self::Recovery => "recovery",
            Self::MagicLink => "magic_link",
            Self::Invite => "invite",
            Self::EmailChange => "email_change",
            Self::Reauthentication => "reauthentication",
        }
    }

    /// As the link says it.
    pub fn verification(self) -> &'static str {
        match self {
            Self::Confirmation => "signup",
            Self::Recovery => "recovery",
            Self::MagicLink => "magiclink",
            Self::Invite => "invite",
            Self::EmailChange => "email_change",
            Self::Reauthentication => "reauthentication",
        }
    }
}

/// What was done with an account, of which its owner is told (checklist A10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    PasswordChanged,
    EmailChanged,
    PhoneChanged,
    IdentityLinked,
    IdentityUnlinked,
    FactorEnrolled,
    FactorUnenrolled,
}

impl Notice {
    pub const ALL: [Self; 7] = [
        Self::PasswordChanged,
        Self::EmailChanged,
        Self::PhoneChanged,
        Self::IdentityLinked,
        Self::IdentityUnlinked,
        Self::FactorEnrolled,
        Self::FactorUnenrolled,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::PasswordChanged => "password_changed",
            Self::EmailChanged => "email_changed",
            Self::PhoneChanged => "phone_changed",
            Self::IdentityLinked => "identity_linked",
            Self::IdentityUnlinked => "identity_unlinked",
            Self::FactorEnrolled => "mfa_factor_enrolled",
            Self::FactorUnenrolled => "mfa_factor_unenrolled",
        }
    }
}

/// Whom an e-mail is about.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    pub id: &'a str,
    pub email: &'a str,
    /// What the user says of itself.
    pub data: &'a Map<String, Value>,
}

impl<'a> About<'a> {
    pub fn user(user: &'a User) -> Self {
        Self { id: &user.id, email: &user.email, data: &user.user_metadata }
    }
}

/// An e-mail as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    pub subject: String,
    pub plain: String,
    pub html: String,
}

/// The link that an e-mail carries.
pub fn link(url: &str, hash: &str, verification: &str, redirect: &str) -> String {
    let redirect = redirect::escaped(redirect);
    format!("{url}/verify?token={hash}&type={verification}&redirect_to={redirect}")
}

impl Auth {
    /// An e-mail into the queue; `more` is what it says besides what all say.
    pub(crate) fn mail(&self, kind: Kind, recipient: &str, about: &About<'_>, more: Value) -> Statement {
        if self.settings.hooks.send_email.is_some() {
            let text = |name: &str| more[name].as_str().unwrap_or_default().to_owned();
            let data = json!({
                "token": text("Token"), "token_hash": text("TokenHash"), "redirect_to": text("RedirectTo"),
                "email_action_type": kind.verification(),
            });
            return self.mail_by_hook(about.id, recipient, data);
        }
        queue(kind.name(), recipient, &self.settings.mails.write(kind, &self.values(about, more)))
    }

    /// Tells a user what was done with the account, at the address that it has had. Nothing where that is not wanted, or nobody delivers:
    /// it is never a reason to refuse.
    pub(crate) fn notice(&self, notice: Notice, user: &User, more: Value) -> Option<Statement> {
        let mails = &self.settings.mails;
        if !self.settings.mail || !mails.is_sent(notice) || user.email.is_empty() {
            return None;
        }
        if self.settings.hooks.send_email.is_some() {
            let text = |name: &str| more[name].as_str().unwrap_or_default().to_owned();
            let data = json!({
                "email_action_type": format!("{}_notification", notice.name()), "old_email": user.email, "old_phone": text("OldPhone"),
                "provider": text("Provider"), "factor_type": text("FactorType"),
            });
            return Some(self.mail_by_hook(&user.id, &user.email, data));
        }
        let mail = mails.write_notice(notice, &self.values(&About::user(user), more));
        Some(queue(notice.name(), &user.email, &mail))
    }

    /// Likewise of a number that is another one, or the first one, from now on.
    pub(crate) fn phone_notice(&self, user: &User, phone: &str) -> Option<Statement> {
        if user.phone.is_empty() {
            return self.notice(Notice::IdentityLinked, user, json!({ "Provider": "phone" }));
        }
        let more = json!({ "Phone": phone, "OldPhone": user.phone });
        self.notice(Notice::PhoneChanged, user, more).filter(|_| user.phone != phone)
    }

    /// What the project's own sender is told, in the place of an e-mail. Source: GoTrue, `mailer.EmailData`.
    pub(crate) fn mail_by_hook(&self, user: &str, recipient: &str, data: Value) -> Statement {
        let mut all = json!({ "site_url": self.settings.site_url, "token_new": "", "token_hash_new": "" });
        if let (Some(all), Value::Object(data)) = (all.as_object_mut(), data) {
            all.extend(data);
        }
        sql(
            "insert into ntier.mail (channel, recipient, kind, subject, plain, html) \
             select 'hook', $2, 'send_email', '', json_build_object('user', ntier.auth_user(u), 'email_data', $3::json)::text, '' \
             from auth.users u where u.id = $1",
            &[Some(user), Some(recipient), Some(&all.to_string())],
        )
    }

    /// What a template may say.
    fn values(&self, about: &About<'_>, more: Value) -> Value {
        let mut values = json!({ "SiteURL": self.settings.site_url, "Email": about.email, "Data": about.data });
        if let (Some(values), Value::Object(more)) = (values.as_object_mut(), more) {
            values.extend(more);
        }
        values
    }
}

fn queue(name: &str, recipient: &str, mail: &Mail) -> Statement {
    sql(
        "insert into ntier.mail (recipient, kind, subject, plain, html) values ($1, $2, $3, $4, $5)",
        &[Some(recipient), Some(name), Some(&mail.subject), Some(&mail.plain), Some(&mail.html)],
    )
}

/// As text in HTML, or in an attribute between quotation marks.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
