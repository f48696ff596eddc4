//! What e-mails say: in our words, or in those of a project.

use serde_json::Value;

use super::{Kind, Mail, Notice};
use crate::template::{Fault, Template, plain};

/// The names of those that somebody waits for, as `auth.email.template` has them.
pub const TEMPLATES: [&str; Kind::ALL.len()] = {
    let mut names = [""; Kind::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = Kind::ALL[at].name();
        at += 1;
    }
    names
};
/// Likewise of those that tell, as `auth.email.notification` has them.
pub const NOTIFICATIONS: [&str; Notice::ALL.len()] = {
    let mut names = [""; Notice::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = Notice::ALL[at].name();
        at += 1;
    }
    names
};

/// The words of all e-mails, and which notices are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mails {
    templates: [Words; Kind::ALL.len()],
    notifications: [(bool, Words); Notice::ALL.len()],
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Words {
    ours: Ours,
    /// The project's own.
    subject: Option<Template>,
    html: Option<Template>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Ours {
    subject: Template,
    plain: Template,
    html: Template,
}

/// Characters of a subject.
const LONGEST_SUBJECT: usize = 250;

impl Default for Mails {
    fn default() -> Self {
        // Whoever has taken an account over begins with these.
        let is_sent = |notice| matches!(notice, Notice::PasswordChanged | Notice::EmailChanged);
        Self {
            templates: Kind::ALL.map(|kind| Words::ours(awaited(kind))),
            notifications: Notice::ALL.map(|notice| (is_sent(notice), Words::ours(told(notice)))),
        }
    }
}

impl Mails {
    /// The subject of the e-mails of this name in the project's own words.
    pub fn set_subject(&mut self, name: &str, text: &str) -> Result<(), Fault> {
        let subject = Template::plain(text)?;
        self.named(name, |words| words.subject = Some(subject));
        Ok(())
    }

    /// Likewise their HTML.
    pub fn set_html(&mut self, name: &str, text: &str) -> Result<(), Fault> {
        let html = Template::html(text)?;
        self.named(name, |words| words.html = Some(html));
        Ok(())
    }

    /// Whether the notices of this name are sent.
    pub fn set_sent(&mut self, name: &str, is_sent: bool) {
        for ((sent, _), known) in self.notifications.iter_mut().zip(NOTIFICATIONS) {
            if known == name {
                *sent = is_sent;
            }
        }
    }

    fn named(&mut self, name: &str, change: impl FnOnce(&mut Words)) {
        let notifications = self.notifications.iter_mut().map(|(_, words)| words);
        let all = self.templates.iter_mut().chain(notifications).zip(TEMPLATES.into_iter().chain(NOTIFICATIONS));
        for (words, known) in all {
            if known == name {
                return change(words);
            }
        }
    }

    pub(crate) fn is_sent(&self, notice: Notice) -> bool {
        self.notifications[notice as usize].0
    }

    pub(crate) fn write(&self, kind: Kind, values: &Value) -> Mail {
        self.templates[kind as usize].write(values)
    }

    pub(crate) fn write_notice(&self, notice: Notice, values: &Value) -> Mail {
        self.notifications[notice as usize].1.write(values)
    }
}

impl Words {
    fn ours((subject, plain, html): (&str, String, String)) -> Self {
        const RIGHT: &str = "our own words are templates; a test writes them all";
        let ours = Ours {
            subject: Template::plain(subject).expect(RIGHT),
            plain: Template::plain(&plain).expect(RIGHT),
            html: Template::html(&html).expect(RIGHT),
        };
        Self { ours, subject: None, html: None }
    }

    /// Ours stand in for what would be too much.
    fn write(&self, values: &Value) -> Mail {
        let ours = |template: &Template| template.write(values).unwrap_or_default();
        let subject = self.subject.as_ref().and_then(|subject| subject.write(values)).map(|subject| one_line(&subject));
        let subject = subject.filter(|subject| !subject.is_empty());
        let (plain, html) = match self.html.as_ref().and_then(|html| html.write(values)) {
            Some(html) => (plain(&html), html),
            None => (ours(&self.ours.plain), ours(&self.ours.html)),
        };
        Mail { subject: subject.unwrap_or_else(|| one_line(&ours(&self.ours.subject))), plain, html }
    }
}

/// What a header can hold: a user's line break begins no other one.
fn one_line(text: &str) -> String {
    let text: String = text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().take(LONGEST_SUBJECT).collect()
}

/// Subject, text and HTML of what somebody waits for.
fn awaited(kind: Kind) -> (&'static str, String, String) {
    let (subject, what, link) = match kind {
        Kind::Confirmation => ("Confirm Your Signup", "Follow this link to confirm your user:", "Confirm your mail"),
        Kind::Recovery => {
            ("Reset Your Password", "Follow this link to reset the password for your user:", "Reset Password")
        }
        Kind::MagicLink => ("Your Magic Link", "Follow this link to login:", "Log In"),
        Kind::Invite => ("You have been invited", "Follow this link to accept the invite:", "Accept the invite"),
        Kind::EmailChange => {
            ("Confirm Email Change", "Follow this link to confirm the change of your email address:", "Change Email")
        }
        Kind::Reauthentication => {
            let subject = "Confirm reauthentication";
            let code = "Enter the code: {{ .Token }}";
            return (subject, format!("{subject}\n\n{code}\n"), format!("<h2>{subject}</h2>\n<p>{code}</p>\n"));
        }
    };
    let (url, code) = ("{{ .ConfirmationURL }}", "Alternatively, enter the code: {{ .Token }}");
    let plain = format!("{subject}\n\n{what}\n{url}\n\n{code}\n");
    let html = format!("<h2>{subject}</h2>\n<p>{what}</p>\n<p><a href=\"{url}\">{link}</a></p>\n<p>{code}</p>\n");
    (subject, plain, html)
}

/// Likewise of what tells.
fn told(notice: Notice) -> (&'static str, String, String) {
    let (subject, what) = match notice {
        Notice::PasswordChanged => {
            ("Your password has been changed", "The password of your account {{ .Email }} has been changed.")
        }
        Notice::EmailChanged => (
            "Your email address has been changed",
            "The email address of your account was {{ .OldEmail }} and is {{ .Email }} from now on.",
        ),
        Notice::PhoneChanged => (
            "Your phone number has been changed",
            "The phone number of your account {{ .Email }} was {{ .OldPhone }} and is {{ .Phone }} from now on.",
        ),
        Notice::IdentityLinked => (
            "A way to sign in was added",
            "Your account {{ .Email }} can be signed in to with {{ .Provider }} from now on.",
        ),
        Notice::IdentityUnlinked => (
            "A way to sign in was removed",
            "Your account {{ .Email }} cannot be signed in to with {{ .Provider }} any longer.",
        ),
        Notice::FactorEnrolled => (
            "A second factor was added",
            "To sign in to your account {{ .Email }} one more factor counts from now on: {{ .FactorType }}.",
        ),
        Notice::FactorUnenrolled => (
            "A second factor was removed",
            "To sign in to your account {{ .Email }} this factor does not count any longer: {{ .FactorType }}.",
        ),
    };
    let otherwise = match notice {
        Notice::PasswordChanged => "If that was not you, reset your password at once, and tell those who run the site.",
        _ => "If that was not you, tell those who run the site at once.",
    };
    let plain = format!("{subject}\n\n{what}\n\n{otherwise}\n");
    (subject, plain, format!("<h2>{subject}</h2>\n<p>{what}</p>\n<p>{otherwise}</p>\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn our_own_words_have_what_counts() {
        let mails = Mails::default();
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!((kind as usize, TEMPLATES[at]), (at, kind.name()));
            let url = "https://x/verify?token=t&type=y";
            let mail = mails.write(kind, &json!({ "ConfirmationURL": url, "Token": "123456" }));
            assert!(mail.plain.contains("nter the code: 123456\n") && mail.html.contains("123456"), "{mail:?}");
            let has_link = kind != Kind::Reauthentication;
            assert_eq!(mail.plain.lines().any(|line| line == url), has_link, "{mail:?}");
            assert_eq!(mail.html.contains("<a href=\"https://x/verify?token=t&amp;type=y\">"), has_link, "{mail:?}");
        }
        for (at, notice) in Notice::ALL.into_iter().enumerate() {
            assert_eq!((notice as usize, NOTIFICATIONS[at]), (at, notice.name()));
            let values = json!({ "Email": "<a@b.c", "OldEmail": "", "Provider": "", "FactorType": "" });
            let mail = mails.write_notice(notice, &values);
            assert!(mail.plain.contains("<a@b.c") && mail.html.contains("&lt;a@b.c"), "{mail:?}");
            assert_eq!(mails.is_sent(notice), at < 2);
        }
    }

    #[test]
    fn a_project_has_its_own_words() {
        let mut mails = Mails::default();
        mails.set_subject("invite", "For {{ .Data.name }}").unwrap();
        mails.set_html("invite", "<p>{{ .Data.name }}: <a href=\"{{ .ConfirmationURL }}\">come</a>").unwrap();
        mails.set_html("recovery", "{{ range .Data.list }}{{ . }}{{ end }}").unwrap();
        mails.set_subject("password_changed", "{{ .Data.nothing }}").unwrap();
        mails.set_sent("phone_changed", true);
        let name = "A\r\nBcc: <b@c.d>";
        let values = json!({ "ConfirmationURL": "https://x/?a&b", "Data": { "name": name, "list": vec!["x".repeat(1000); 2000] } });
        let mail = mails.write(Kind::Invite, &values);
        assert_eq!(mail.subject, "For A Bcc: <b@c.d>");
        assert_eq!(mail.html, "<p>A\r\nBcc: &lt;b@c.d&gt;: <a href=\"https://x/?a&amp;b\">come</a>");
        assert_eq!(mail.plain, "A Bcc: <b@c.d>: come (https://x/?a&b)");
        let recovery = mails.write(Kind::Recovery, &values);
        assert_eq!(recovery, Mails::default().write(Kind::Recovery, &values), "ours in the place of too much");
        let notice = mails.write_notice(Notice::PasswordChanged, &values);
        assert_eq!(notice.subject, "Your password has been changed", "no mail without a subject");
        assert!(mails.is_sent(Notice::PhoneChanged) && !mails.is_sent(Notice::IdentityLinked));
        assert_eq!(mails.set_html("invite", "a\n{{ if }}").unwrap_err().line, 2);
    }
}
