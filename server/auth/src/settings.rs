//! What the service is told.

use crate::captcha::Captcha;
use crate::delivery::Smtp;
use crate::external::External;
use crate::hooks::Hooks;
use crate::limits::Rates;
use crate::mail::Mails;
use crate::oauth_server::OAuthServer;
use crate::sms::Sms;
use ntier_security::password::{Letters, Policy};
use ntier_security::refresh;

#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "switches that are set one by one, as Supabase has them")]
pub struct Settings {
    /// The address under which clients reach `/auth/v1`; tokens name it as their issuer.
    pub url: String,
    /// Whether people may sign up by themselves.
    pub signup: bool,
    pub email: bool,
    pub phone: bool,
    pub anonymous: bool,
    /// New addresses are taken as confirmed.
    pub email_autoconfirm: bool,
    pub phone_autoconfirm: bool,
    pub password: Policy,
    /// Whoever changes a password has to know the old one.
    pub require_current_password: bool,
    /// Whoever changes a password in a session older than a day has to show a code from the mailbox.
    pub reauthenticate: bool,
    /// Seconds that an access token lives.
    pub token_life: i64,
    pub refresh: refresh::Policy,
    /// Where links of e-mails lead, unless the request says otherwise.
    pub site_url: String,
    /// Where else they may lead: addresses, with `*`, `**` and `?`.
    pub redirects: Vec<String>,
    /// Somebody delivers e-mails.
    pub mail: bool,
    /// The server that takes them.
    pub smtp: Option<Smtp>,
    /// E-mails in an hour, of the whole project; `None` where they go nowhere.
    pub mails_per_hour: Option<u32>,
    /// What they say.
    pub mails: Mails,
    /// How often people may ask.
    pub rates: Rates,
    /// Seconds between two e-mails to one user about one thing.
    pub mail_pause: i64,
    /// Digits of a code.
    pub code_length: usize,
    /// Seconds for which a link is good.
    pub code_life: i64,
    /// Likewise a code that is typed: there are few enough to guess.
    pub typed_code_life: i64,
    /// A new e-mail address is confirmed by the old mailbox too.
    pub double_confirm: bool,
    /// Messages to phones.
    pub sms: Sms,
    /// Second factors.
    pub mfa: Mfa,
    /// People may sign in by credentials that their authenticators keep.
    pub passkeys: bool,
    pub webauthn: WebAuthn,
    /// Who tells people from programs.
    pub captcha: Option<Captcha>,
    /// Whoever signs in is signed out everywhere else.
    pub single_session: bool,
    /// What the project adds.
    pub hooks: Hooks,
    /// Applications of others may sign our users in.
    pub oauth_server: OAuthServer,
    /// Providers at which people may sign in.
    pub external: Vec<External>,
    /// People may add and remove ways to sign in.
    pub manual_linking: bool,
}

/// Which second factors there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mfa {
    pub totp: Use,
    pub phone: Use,
    pub webauthn: Use,
    /// Of one user, verified or not. Source: GoTrue, `MAX_ENROLLED_FACTORS`.
    pub most: usize,
}

/// What may be done with a kind of factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    pub enroll: bool,
    pub verify: bool,
}

impl Default for Mfa {
    fn default() -> Self {
        let on = Use { enroll: true, verify: true };
        Self { totp: on, phone: Use { enroll: false, verify: false }, webauthn: on, most: 10 }
    }
}

/// To whom credentials of authenticators are bound; the site unless it is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebAuthn {
    pub rp_id: Option<String>,
    pub rp_display_name: Option<String>,
    pub rp_origins: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: String::new(),
            signup: true,
            email: true,
            phone: false,
            anonymous: false,
            email_autoconfirm: true,
            phone_autoconfirm: false,
            password: Policy { shortest: 8, letters: Letters::Any, takes_common: false },
            require_current_password: false,
            reauthenticate: false,
            token_life: 3600,
            refresh: refresh::Policy { reuse_interval: 10, timebox: None, inactivity: None },
            site_url: String::new(),
            redirects: Vec::new(),
            mail: false,
            smtp: None,
            mails_per_hour: None,
            mails: Mails::default(),
            rates: Rates::default(),
            mail_pause: 60,
            code_length: 6,
            code_life: 3600,
            typed_code_life: 600,
            double_confirm: true,
            sms: Sms::default(),
            mfa: Mfa::default(),
            passkeys: true,
            webauthn: WebAuthn::default(),
            captcha: None,
            single_session: false,
            hooks: Hooks::default(),
            oauth_server: OAuthServer::default(),
            external: Vec::new(),
            manual_linking: false,
        }
    }
}
