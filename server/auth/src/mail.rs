//! E-mails: what they say, and how they get into the queue.

use ntier_backing::database::Statement;

use crate::redirect;
use crate::store::sql;

/// What an e-mail is about.
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
    fn name(self) -> &'static str {
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

    /// Subject, what to do, and the words of the link.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Confirmation => {
                ("Confirm Your Signup", "Follow this link to confirm your user:", "Confirm your mail")
            }
            Self::Recovery => {
                ("Reset Your Password", "Follow this link to reset the password for your user:", "Reset Password")
            }
            Self::MagicLink => ("Your Magic Link", "Follow this link to login:", "Log In"),
            Self::Invite => ("You have been invited", "Follow this link to accept the invite:", "Accept the invite"),
            Self::Reauthentication => ("Confirm reauthentication", "", ""),
            Self::EmailChange => (
                "Confirm Email Change",
                "Follow this link to confirm the change of your email address:",
                "Change Email",
            ),
        }
    }
}

/// The link that an e-mail carries.
pub fn link(url: &str, hash: &str, verification: &str, redirect: &str) -> String {
    let redirect = redirect::escaped(redirect);
    format!("{url}/verify?token={hash}&type={verification}&redirect_to={redirect}")
}

/// An e-mail into the queue.
pub fn send(kind: Kind, recipient: &str, link: &str, code: &str) -> Statement {
    let (subject, what, words) = kind.words();
    let plain = format!("{subject}\n\n{what}\n{link}\n\nAlternatively, enter the code: {code}\n");
    let html = format!(
        "<h2>{subject}</h2>\n<p>{what}</p>\n<p><a href=\"{}\">{words}</a></p>\n<p>Alternatively, enter the code: {code}</p>\n",
        escaped(link)
    );
    queue(kind, recipient, &plain, &html)
}

/// Likewise one without a link.
pub fn send_code(kind: Kind, recipient: &str, code: &str) -> Statement {
    let (subject, ..) = kind.words();
    let plain = format!("{subject}\n\nEnter the code: {code}\n");
    let html = format!("<h2>{subject}</h2>\n<p>Enter the code: {code}</p>\n");
    queue(kind, recipient, &plain, &html)
}

fn queue(kind: Kind, recipient: &str, plain: &str, html: &str) -> Statement {
    let (subject, ..) = kind.words();
    sql(
        "insert into ntier.mail (recipient, kind, subject, plain, html) values ($1, $2, $3, $4, $5)",
        &[Some(recipient), Some(kind.name()), Some(subject), Some(plain), Some(html)],
    )
}

/// As text in HTML, or in an attribute between double quotes.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
