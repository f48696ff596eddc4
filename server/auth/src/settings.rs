//! What the service is told.

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
    /// Seconds that an access token lives.
    pub token_life: i64,
    pub refresh: refresh::Policy,
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
            password: Policy { shortest: 8, letters: Letters::Any },
            require_current_password: false,
            token_life: 3600,
            refresh: refresh::Policy { reuse_interval: 10, timebox: None, inactivity: None },
        }
    }
}
