//! `supabase/config.toml`: the keys that have an effect here, read with their lines.
//!
//! A wrong value is an error, an unknown key a warning; a key that Supabase knows and we do not serve yet is a note, one
//! for each section. Values of the form `env(NAME)` are taken from the environment, as the Supabase CLI does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ntier_security::password::Letters;
use toml_edit::{Document, Item, TableLike, Value};

use super::known;
use super::statements::line_of;
use crate::fault::{Fault, Place};

/// What a project says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub project_id: Option<String>,
    pub api: Api,
    pub auth: Auth,
    pub storage: Storage,
    /// `[realtime] enabled`
    pub realtime: Option<bool>,
    pub migrations_enabled: bool,
    pub seed_enabled: bool,
    /// Relative to the folder `supabase`; `*` stands for any part of a name.
    pub seed_paths: Vec<String>,
}

/// `None` where the file says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Api {
    pub port: Option<u16>,
    pub schemas: Option<Vec<String>>,
    pub extra_search_path: Option<Vec<String>>,
    pub max_rows: Option<u64>,
    pub auto_expose_new_tables: Option<bool>,
}

/// Files, likewise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Storage {
    pub enabled: Option<bool>,
    /// Bytes.
    pub file_size_limit: Option<u64>,
    pub s3_protocol: Option<bool>,
    pub images: Option<bool>,
    /// By their names.
    pub buckets: BTreeMap<String, Bucket>,
}

/// A bucket that is there from the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bucket {
    pub public: Option<bool>,
    /// Bytes; as the Supabase CLI has it, 0 says nothing.
    pub file_size_limit: Option<u64>,
    pub allowed_mime_types: Option<Vec<String>>,
    /// Files that are put there when the database is seeded; relative to the folder `supabase`.
    pub objects_path: Option<String>,
}

/// Sign-in, likewise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Auth {
    pub enabled: Option<bool>,
    pub external_url: Option<String>,
    pub jwt_expiry: Option<i64>,
    /// Relative to the folder `supabase`.
    pub signing_keys_path: Option<String>,
    pub enable_signup: Option<bool>,
    pub enable_anonymous_sign_ins: Option<bool>,
    pub minimum_password_length: Option<usize>,
    pub password_requirements: Option<Letters>,
    /// Seconds.
    pub refresh_token_reuse_interval: Option<i64>,
    pub timebox: Option<i64>,
    pub inactivity_timeout: Option<i64>,
    pub email: Option<bool>,
    pub email_confirmations: Option<bool>,
    pub smtp: Smtp,
    /// E-mails in an hour.
    pub email_sent: Option<u32>,
    /// By their names: `auth.email.template` and `auth.email.notification`.
    pub mails: BTreeMap<String, Mail>,
    pub rates: Rates,
    pub site_url: Option<String>,
    pub additional_redirect_urls: Option<Vec<String>>,
    pub double_confirm_changes: Option<bool>,
    pub secure_password_change: Option<bool>,
    /// Seconds.
    pub max_frequency: Option<i64>,
    pub otp_length: Option<usize>,
    /// Seconds.
    pub otp_expiry: Option<i64>,
    pub phone: Option<bool>,
    pub phone_confirmations: Option<bool>,
    pub enable_manual_linking: Option<bool>,
    pub sms: Sms,
    pub mfa: Mfa,
    pub passkey: Option<bool>,
    pub rp_id: Option<String>,
    pub rp_display_name: Option<String>,
    pub rp_origins: Option<Vec<String>>,
    pub captcha: Captcha,
    pub oauth_server: Option<bool>,
    pub authorization_url_path: Option<String>,
    pub allow_dynamic_registration: Option<bool>,
    /// Likewise; what is asked, and the secrets.
    pub hooks: BTreeMap<String, (Option<String>, Option<String>)>,
    /// By their names; those that are switched on.
    pub external: BTreeMap<String, External>,
}

/// An e-mail in words of the project's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mail {
    /// Of a notification.
    pub enabled: Option<bool>,
    pub subject: Option<Said>,
    pub content: Option<Said>,
    /// Relative to the project, or to the folder `supabase`.
    pub content_path: Option<Said>,
}

/// A text that has lines of its own, and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub text: String,
    path: PathBuf,
    line: usize,
    /// Between `"""`: its lines are lines of the file.
    is_block: bool,
}

impl Said {
    /// The place of one of its lines.
    pub fn place(&self, line: usize) -> Place {
        let more = if self.is_block { line.saturating_sub(1) } else { 0 };
        Place::File { path: self.path.clone(), line: self.line + more }
    }
}

/// How often people may ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rates {
    pub anonymous_users: Option<u32>,
    pub token_refresh: Option<u32>,
    pub sign_in_sign_ups: Option<u32>,
    pub token_verifications: Option<u32>,
}

/// Who tells people from programs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captcha {
    pub enabled: Option<bool>,
    pub provider: Option<String>,
    pub secret: Option<String>,
}

/// Messages to phones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sms {
    pub template: Option<String>,
    /// Seconds.
    pub max_frequency: Option<i64>,
    /// Messages in an hour.
    pub sent: Option<u32>,
    pub test_otp: BTreeMap<String, String>,
    pub twilio: Option<bool>,
    pub account_sid: Option<String>,
    pub message_service_sid: Option<String>,
    pub auth_token: Option<String>,
}

/// Second factors: whether they may be enrolled, and verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mfa {
    pub max_enrolled_factors: Option<usize>,
    pub totp: (Option<bool>, Option<bool>),
    pub phone: (Option<bool>, Option<bool>),
    pub web_authn: (Option<bool>, Option<bool>),
}

/// A provider at which people sign in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct External {
    /// Several are separated by commas.
    pub client_id: Option<String>,
    pub secret: Option<String>,
    pub url: Option<String>,
    pub redirect_uri: Option<String>,
    pub skip_nonce_check: Option<bool>,
    pub email_optional: Option<bool>,
}

/// A mail server, if it is enabled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Smtp {
    pub enabled: Option<bool>,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub pass: Option<String>,
    pub admin_email: Option<String>,
    pub sender_name: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            project_id: None,
            api: Api::default(),
            auth: Auth::default(),
            storage: Storage::default(),
            realtime: None,
            migrations_enabled: true,
            seed_enabled: true,
            seed_paths: vec!["./seed.sql".into()],
        }
    }
}

/// How a value is looked up that the file leaves to the environment.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads the text of the file at `path`.
pub fn parse(path: &Path, text: &str, environment: Lookup<'_>) -> (Config, Vec<Fault>) {
    let mut reader =
        Reader { path, text, environment, faults: Vec::new(), noted: Vec::new(), config: Config::default() };
    match Document::parse(text) {
        Ok(document) => reader.table(&[], document.as_table()),
        Err(cause) => {
            let place = reader.place(cause.span().map_or(0, |span| span.start));
            reader.faults.push(Fault::error(place, cause.message().trim().to_owned()));
        }
    }
    (reader.config, reader.faults)
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    environment: Lookup<'a>,
    faults: Vec<Fault>,
    /// Sections that were noted already.
    noted: Vec<String>,
    config: Config,
}

impl Reader<'_> {
    fn place(&self, offset: usize) -> Place {
        Place::File { path: self.path.to_owned(), line: line_of(self.text, offset) }
    }

    fn table(&mut self, section: &[&str], table: &dyn TableLike) {
        let is_off = is_off(section, table);
        // Its name alone says that it is to be there.
        if let ["storage", "buckets", name] = section {
            self.config.storage.buckets.entry((*name).to_owned()).or_default();
        }
        for (name, item) in table.iter() {
            let path: Vec<&str> = section.iter().copied().chain([name]).collect();
            let at = table.key(name).and_then(toml_edit::Key::span).map_or(0, |span| span.start);
            match (item.as_table_like(), item) {
                (Some(inner), _) if known::is_section(&path) => self.table(&path, inner),
                // What is switched off need not be right, but for its name.
                (None, Item::Value(_))
                    if is_off
                        && (name != "enabled" || matches!(section.get(1), Some(&("external" | "hook"))))
                        && known::is_known(&path) => {}
                (None, Item::Value(value)) => self.value(&path, value, at),
                _ => self.unknown(&path, at),
            }
        }
    }

    fn value(&mut self, path: &[&str], value: &Value, at: usize) {
        let key = path.join(".");
        if let (["auth", "sms", "test_otp", phone], Some(code)) = (path, value.as_str()) {
            self.config.auth.sms.test_otp.insert((*phone).to_owned(), code.to_owned());
            return;
        }
        if let (["auth", "email", "template" | "notification", name, key], true) = (path, known::is_known(path)) {
            if let Err(message) = self.mail(name, key, value, at) {
                let place = self.place(value.span().map_or(at, |span| span.start));
                self.faults.push(Fault::error(place, format!("{}: {message}", path.join("."))));
            }
            return;
        }
        let named = match path {
            ["auth", section @ ("external" | "hook"), name, key] if known::is_known(path) => {
                Some((*section, *name, *key))
            }
            ["storage", section @ "buckets", name, key] if known::is_known(path) => Some((*section, *name, *key)),
            _ => None,
        };
        let supported = SUPPORTED.iter().find(|(name, _)| *name == key).map(|(_, set)| set);
        if named.is_none() && supported.is_none() {
            if !known::is_known(path) {
                self.unknown(path, at);
            } else if !WITHOUT_MEANING.contains(&key.as_str()) {
                self.note(path, at);
            }
            return;
        }
        let set = |config: &mut Config, value: &Value| match (named, supported) {
            (Some(("hook", name, key)), _) => {
                set_hook(config.auth.hooks.entry(name.to_owned()).or_default(), key, value)
            }
            (Some(("buckets", name, key)), _) => {
                set_bucket(config.storage.buckets.entry(name.to_owned()).or_default(), key, value)
            }
            (Some((_, name, key)), _) => {
                set_external(config.auth.external.entry(name.to_owned()).or_default(), key, value)
            }
            (None, Some(set)) => set(config, value),
            (None, None) => Ok(()),
        };
        let substituted = value
            .as_str()
            .and_then(environment_name)
            .map(|name| (self.environment)(name).ok_or_else(|| format!("the environment variable {name} is not set")));
        let outcome = match substituted.transpose() {
            // A secret may look like a number.
            Ok(Some(text)) => {
                let as_text = Value::from(text.as_str());
                set(&mut self.config, &as_text).or_else(|_| set(&mut self.config, &reparse(&text)))
            }
            Ok(None) => set(&mut self.config, value),
            Err(message) => Err(message),
        };
        if let Err(message) = outcome {
            let place = self.place(value.span().map_or(at, |span| span.start));
            self.faults.push(Fault::error(place, format!("{key}: {message}")));
        }
    }

    /// A key of `auth.email.template.…` or `auth.email.notification.…`.
    fn mail(&mut self, name: &str, key: &str, value: &Value, at: usize) -> Result<(), String> {
        let mail = self.config.auth.mails.entry(name.to_owned()).or_default();
        if key == "enabled" {
            mail.enabled = Some(boolean(value)?);
            return Ok(());
        }
        let text = string(value)?;
        let text = match environment_name(&text) {
            Some(name) => {
                (self.environment)(name).ok_or_else(|| format!("the environment variable {name} is not set"))?
            }
            None => text,
        };
        let span = value.span().unwrap_or(at..at);
        let written = self.text.get(span.clone()).unwrap_or_default();
        let block = written.strip_prefix("\"\"\"").or_else(|| written.strip_prefix("'''"));
        // A line break right behind the quotation marks does not count.
        let is_below = block.is_some_and(|text| text.starts_with(['\n', '\r']));
        let said = Some(Said {
            text,
            path: self.path.to_owned(),
            line: line_of(self.text, span.start) + usize::from(is_below),
            is_block: block.is_some(),
        });
        match key {
            "subject" => mail.subject = said,
            "content" => mail.content = said,
            _ => mail.content_path = said,
        }
        Ok(())
    }

    fn unknown(&mut self, path: &[&str], at: usize) {
        let near = known::near(path).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        let message = format!("unknown key {}{near}", path.join("."));
        self.faults.push(Fault::warning(self.place(at), message));
    }

    /// One note for each part of the file, not one for each key.
    fn note(&mut self, path: &[&str], at: usize) {
        let part = if path.len() > 1 { path[0] } else { path[path.len() - 1] };
        let name = if SUPPORTED.iter().any(|(key, _)| key.split('.').next() == Some(part)) {
            path[..path.len().min(2)].join(".")
        } else {
            format!("[{part}]")
        };
        if !self.noted.contains(&name) {
            self.faults.push(Fault::note(self.place(at), format!("{name} has no effect yet")));
            self.noted.push(name);
        }
    }
}

/// A part of sign-in that is switched off; providers are until they are switched on.
fn is_off(section: &[&str], table: &dyn TableLike) -> bool {
    let enabled = table.get("enabled").and_then(Item::as_bool);
    match section {
        ["auth", "external" | "hook", _] => enabled == Some(false) || table.get("enabled").is_none(),
        ["auth", _, ..] => enabled == Some(false),
        _ => false,
    }
}

/// A key of `auth.hook.…`.
fn set_hook(hook: &mut (Option<String>, Option<String>), key: &str, value: &Value) -> Result<(), String> {
    match key {
        "uri" => hook.0 = Some(string(value)?),
        "secrets" => hook.1 = Some(string(value)?),
        _ => drop(boolean(value)?),
    }
    Ok(())
}

/// A key of `storage.buckets.…`.
fn set_bucket(bucket: &mut Bucket, key: &str, value: &Value) -> Result<(), String> {
    match key {
        "public" => bucket.public = Some(boolean(value)?),
        "file_size_limit" => bucket.file_size_limit = Some(size(value)?).filter(|limit| *limit > 0),
        "allowed_mime_types" => bucket.allowed_mime_types = Some(strings(value)?),
        _ => bucket.objects_path = Some(string(value)?).filter(|path| !path.is_empty()),
    }
    Ok(())
}

/// A key of `auth.external.…`.
fn set_external(external: &mut External, key: &str, value: &Value) -> Result<(), String> {
    let text = || string(value).map(|text| Some(text).filter(|text| !text.is_empty()));
    match key {
        "client_id" => external.client_id = text()?,
        "secret" => external.secret = text()?,
        "url" => external.url = text()?,
        "redirect_uri" => external.redirect_uri = text()?,
        "skip_nonce_check" => external.skip_nonce_check = Some(boolean(value)?),
        "email_optional" => external.email_optional = Some(boolean(value)?),
        // That it is there says so.
        _ => drop(boolean(value)?),
    }
    Ok(())
}

type Set = fn(&mut Config, &Value) -> Result<(), String>;

/// The keys that have an effect.
#[expect(clippy::unit_arg, reason = "a row of the table reads best on one line")]
const SUPPORTED: &[(&str, Set)] = &[
    ("auth.enabled", |config, value| Ok(config.auth.enabled = Some(boolean(value)?))),
    ("auth.external_url", |config, value| Ok(config.auth.external_url = Some(string(value)?))),
    ("auth.jwt_expiry", |config, value| Ok(config.auth.jwt_expiry = Some(number(value, 1, 604_800)?))),
    ("auth.signing_keys_path", |config, value| Ok(config.auth.signing_keys_path = Some(string(value)?))),
    ("auth.enable_signup", |config, value| Ok(config.auth.enable_signup = Some(boolean(value)?))),
    ("auth.enable_manual_linking", |config, value| Ok(config.auth.enable_manual_linking = Some(boolean(value)?))),
    ("auth.enable_anonymous_sign_ins", |config, value| {
        Ok(config.auth.enable_anonymous_sign_ins = Some(boolean(value)?))
    }),
    ("auth.minimum_password_length", |config, value| {
        Ok(config.auth.minimum_password_length = Some(number(value, 6, 72)?))
    }),
    ("auth.password_requirements", |config, value| Ok(config.auth.password_requirements = Some(letters(value)?))),
    ("auth.refresh_token_reuse_interval", |config, value| {
        Ok(config.auth.refresh_token_reuse_interval = Some(number(value, 0, 3600)?))
    }),
    ("auth.sessions.timebox", |config, value| Ok(config.auth.timebox = Some(seconds(value)?))),
    ("auth.sessions.inactivity_timeout", |config, value| Ok(config.auth.inactivity_timeout = Some(seconds(value)?))),
    ("auth.email.enable_signup", |config, value| Ok(config.auth.email = Some(boolean(value)?))),
    ("auth.email.enable_confirmations", |config, value| Ok(config.auth.email_confirmations = Some(boolean(value)?))),
    ("auth.email.smtp.enabled", |config, value| Ok(config.auth.smtp.enabled = Some(boolean(value)?))),
    ("auth.email.smtp.host", |config, value| Ok(config.auth.smtp.host = Some(string(value)?))),
    ("auth.email.smtp.port", |config, value| Ok(config.auth.smtp.port = Some(number(value, 1, u16::MAX.into())?))),
    ("auth.email.smtp.user", |config, value| Ok(config.auth.smtp.user = Some(string(value)?))),
    ("auth.email.smtp.pass", |config, value| Ok(config.auth.smtp.pass = Some(string(value)?))),
    ("auth.email.smtp.admin_email", |config, value| Ok(config.auth.smtp.admin_email = Some(string(value)?))),
    ("auth.email.smtp.sender_name", |config, value| Ok(config.auth.smtp.sender_name = Some(string(value)?))),
    ("auth.rate_limit.email_sent", |config, value| Ok(config.auth.email_sent = Some(number(value, 1, 1_000_000)?))),
    ("auth.rate_limit.anonymous_users", |config, value| {
        Ok(config.auth.rates.anonymous_users = Some(number(value, 1, 1_000_000)?))
    }),
    ("auth.rate_limit.token_refresh", |config, value| {
        Ok(config.auth.rates.token_refresh = Some(number(value, 1, 1_000_000)?))
    }),
    ("auth.rate_limit.sign_in_sign_ups", |config, value| {
        Ok(config.auth.rates.sign_in_sign_ups = Some(number(value, 1, 1_000_000)?))
    }),
    ("auth.rate_limit.token_verifications", |config, value| {
        Ok(config.auth.rates.token_verifications = Some(number(value, 1, 1_000_000)?))
    }),
    ("auth.site_url", |config, value| Ok(config.auth.site_url = Some(string(value)?))),
    ("auth.additional_redirect_urls", |config, value| Ok(config.auth.additional_redirect_urls = Some(strings(value)?))),
    ("auth.email.double_confirm_changes", |config, value| {
        Ok(config.auth.double_confirm_changes = Some(boolean(value)?))
    }),
    ("auth.email.secure_password_change", |config, value| {
        Ok(config.auth.secure_password_change = Some(boolean(value)?))
    }),
    ("auth.email.max_frequency", |config, value| Ok(config.auth.max_frequency = Some(seconds(value)?))),
    ("auth.email.otp_length", |config, value| Ok(config.auth.otp_length = Some(number(value, 6, 10)?))),
    ("auth.email.otp_expiry", |config, value| Ok(config.auth.otp_expiry = Some(number(value, 60, 86_400)?))),
    ("auth.sms.template", |config, value| Ok(config.auth.sms.template = Some(string(value)?))),
    ("auth.sms.max_frequency", |config, value| Ok(config.auth.sms.max_frequency = Some(seconds(value)?))),
    ("auth.rate_limit.sms_sent", |config, value| Ok(config.auth.sms.sent = Some(number(value, 1, 1_000_000)?))),
    ("auth.sms.twilio.enabled", |config, value| Ok(config.auth.sms.twilio = Some(boolean(value)?))),
    ("auth.sms.twilio.account_sid", |config, value| Ok(config.auth.sms.account_sid = Some(string(value)?))),
    ("auth.sms.twilio.message_service_sid", |config, value| {
        Ok(config.auth.sms.message_service_sid = Some(string(value)?))
    }),
    ("auth.sms.twilio.auth_token", |config, value| Ok(config.auth.sms.auth_token = Some(string(value)?))),
    ("auth.mfa.max_enrolled_factors", |config, value| {
        Ok(config.auth.mfa.max_enrolled_factors = Some(number(value, 1, 100)?))
    }),
    ("auth.mfa.totp.enroll_enabled", |config, value| Ok(config.auth.mfa.totp.0 = Some(boolean(value)?))),
    ("auth.mfa.totp.verify_enabled", |config, value| Ok(config.auth.mfa.totp.1 = Some(boolean(value)?))),
    ("auth.mfa.phone.enroll_enabled", |config, value| Ok(config.auth.mfa.phone.0 = Some(boolean(value)?))),
    ("auth.mfa.phone.verify_enabled", |config, value| Ok(config.auth.mfa.phone.1 = Some(boolean(value)?))),
    ("auth.mfa.web_authn.enroll_enabled", |config, value| Ok(config.auth.mfa.web_authn.0 = Some(boolean(value)?))),
    ("auth.mfa.web_authn.verify_enabled", |config, value| Ok(config.auth.mfa.web_authn.1 = Some(boolean(value)?))),
    ("auth.passkey.enabled", |config, value| Ok(config.auth.passkey = Some(boolean(value)?))),
    ("auth.oauth_server.enabled", |config, value| Ok(config.auth.oauth_server = Some(boolean(value)?))),
    ("auth.oauth_server.authorization_url_path", |config, value| {
        Ok(config.auth.authorization_url_path = Some(string(value)?))
    }),
    ("auth.oauth_server.allow_dynamic_registration", |config, value| {
        Ok(config.auth.allow_dynamic_registration = Some(boolean(value)?))
    }),
    ("auth.captcha.enabled", |config, value| Ok(config.auth.captcha.enabled = Some(boolean(value)?))),
    ("auth.captcha.provider", |config, value| Ok(config.auth.captcha.provider = Some(string(value)?))),
    ("auth.captcha.secret", |config, value| Ok(config.auth.captcha.secret = Some(string(value)?))),
    ("auth.webauthn.rp_id", |config, value| Ok(config.auth.rp_id = Some(string(value)?))),
    ("auth.webauthn.rp_display_name", |config, value| Ok(config.auth.rp_display_name = Some(string(value)?))),
    ("auth.webauthn.rp_origins", |config, value| Ok(config.auth.rp_origins = Some(strings(value)?))),
    ("auth.sms.enable_signup", |config, value| Ok(config.auth.phone = Some(boolean(value)?))),
    ("auth.sms.enable_confirmations", |config, value| Ok(config.auth.phone_confirmations = Some(boolean(value)?))),
    ("storage.enabled", |config, value| Ok(config.storage.enabled = Some(boolean(value)?))),
    ("storage.file_size_limit", |config, value| Ok(config.storage.file_size_limit = Some(size(value)?))),
    ("storage.s3_protocol.enabled", |config, value| Ok(config.storage.s3_protocol = Some(boolean(value)?))),
    ("storage.image_transformation.enabled", |config, value| Ok(config.storage.images = Some(boolean(value)?))),
    ("realtime.enabled", |config, value| Ok(config.realtime = Some(boolean(value)?))),
    ("project_id", |config, value| Ok(config.project_id = Some(string(value)?))),
    ("api.port", |config, value| Ok(config.api.port = Some(number(value, 1, u16::MAX.into())?))),
    ("api.schemas", |config, value| Ok(config.api.schemas = Some(strings(value)?))),
    ("api.extra_search_path", |config, value| Ok(config.api.extra_search_path = Some(strings(value)?))),
    ("api.max_rows", |config, value| Ok(config.api.max_rows = Some(number(value, 1, i64::MAX)?))),
    ("api.auto_expose_new_tables", |config, value| Ok(config.api.auto_expose_new_tables = Some(boolean(value)?))),
    ("db.migrations.enabled", |config, value| Ok(config.migrations_enabled = boolean(value)?)),
    ("db.seed.enabled", |config, value| Ok(config.seed_enabled = boolean(value)?)),
    ("db.seed.sql_paths", |config, value| Ok(config.seed_paths = strings(value)?)),
];

/// Keys about Supabase's own containers: nothing is missed where they have no effect.
const WITHOUT_MEANING: &[&str] = &[
    "api.enabled",
    "realtime.ip_version",
    "realtime.max_header_length",
    "db.port",
    "db.shadow_port",
    "db.health_timeout",
    "db.major_version",
    "db.migrations.schema_paths",
    "db.pooler.enabled",
    "db.pooler.port",
    "db.pooler.pool_mode",
    "db.pooler.default_pool_size",
    "db.pooler.max_client_conn",
    "db.network_restrictions.enabled",
    "db.network_restrictions.allowed_cidrs",
    "db.network_restrictions.allowed_cidrs_v6",
];

fn string(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| expected("a string", value))
}

fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| expected("true or false", value))
}

fn number<T: TryFrom<i64>>(value: &Value, least: i64, most: i64) -> Result<T, String> {
    let wanted =
        if most == i64::MAX { format!("a number from {least}") } else { format!("a number from {least} to {most}") };
    let number = value.as_integer().filter(|number| (least..=most).contains(number));
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| expected(&wanted, value))
}

/// Bytes: a number, or a text such as `50MiB`.
fn size(value: &Value) -> Result<u64, String> {
    let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
    let wrong = || expected("a size such as \"50MiB\"", value);
    number.or_else(|| crate::settings::value::bytes(value.as_str()?).ok()).ok_or_else(wrong)
}

/// A duration such as `24h`, in seconds.
fn seconds(value: &Value) -> Result<i64, String> {
    let wrong = || expected("a duration such as \"24h\"", value);
    let seconds = value.as_str().and_then(ntier_auth::duration).ok_or_else(wrong)?;
    #[expect(clippy::cast_possible_truncation, reason = "a fraction of a second does not count")]
    let seconds = seconds as i64;
    if seconds >= 0 { Ok(seconds) } else { Err(wrong()) }
}

/// As the Supabase CLI names them; nothing is anything.
fn letters(value: &Value) -> Result<Letters, String> {
    Ok(match value.as_str() {
        Some("") => Letters::Any,
        Some("letters_digits") => Letters::LettersDigits,
        Some("lower_upper_letters_digits") => Letters::LowerUpperLettersDigits,
        Some("lower_upper_letters_digits_symbols") => Letters::LowerUpperLettersDigitsSymbols,
        _ => {
            return Err(expected(
                "one of letters_digits, lower_upper_letters_digits, lower_upper_letters_digits_symbols",
                value,
            ));
        }
    })
}

fn strings(value: &Value) -> Result<Vec<String>, String> {
    let wrong = || expected("a list of strings", value);
    value.as_array().ok_or_else(wrong)?.iter().map(|item| string(item).map_err(|_| wrong())).collect()
}

fn expected(what: &str, value: &Value) -> String {
    format!("expected {what}, found {}", value.to_string().trim())
}

fn environment_name(text: &str) -> Option<&str> {
    text.strip_prefix("env(")?.strip_suffix(')')
}

/// What the environment says, as the type that it looks like.
fn reparse(text: &str) -> Value {
    match text.parse::<Value>() {
        Ok(value @ (Value::Integer(_) | Value::Boolean(_) | Value::Array(_))) => value,
        _ => Value::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Config, Vec<String>) {
        let environment = |name: &str| (name == "PORT").then(|| "6000".to_owned());
        let (config, faults) = parse(Path::new("config.toml"), text, &environment);
        (config, faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn supported_keys_have_their_types() {
        let (config, faults) = read(
            "project_id = \"films\"\n[api]\nport = 5000\nschemas = [\"public\", \"api\"]\nmax_rows = 10\n\
             auto_expose_new_tables = true\n[db.seed]\nsql_paths = [\"./seeds/*.sql\"]\n[db.migrations]\nenabled = false\n",
        );
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(config.project_id.as_deref(), Some("films"));
        assert_eq!((config.api.port, config.api.max_rows), (Some(5000), Some(10)));
        assert_eq!(config.api.schemas.unwrap(), ["public", "api"]);
        assert_eq!(config.seed_paths, ["./seeds/*.sql"]);
        assert!(!config.migrations_enabled && config.seed_enabled);
    }

    #[test]
    fn all_faults_are_told_with_their_lines() {
        let (config, faults) = read(
            "[api]\nport = \"x\"\nschemas = [1]\nmax_row = 3\nmax_rows = 7\n\n[auht]\nx = 1\n[analytics]\nenabled = true\n\
             port = 54327\n",
        );
        assert_eq!(config.api.max_rows, Some(7));
        assert_eq!(
            faults,
            [
                "error: config.toml:2: api.port: expected a number from 1 to 65535, found \"x\"",
                "error: config.toml:3: api.schemas: expected a list of strings, found [1]",
                "warning: config.toml:4: unknown key api.max_row; did you mean max_rows?",
                "warning: config.toml:7: unknown key auht; did you mean auth?",
                "note: config.toml:10: [analytics] has no effect yet",
            ]
        );
    }

    #[test]
    fn files_and_buckets_are_read() {
        let (config, faults) = read(
            "[storage]\nenabled = true\nfile_size_limit = \"5MiB\"\n[storage.s3_protocol]\nenabled = false\n\
             [storage.image_transformation]\nenabled = true\n[storage.buckets.empty]\n[storage.buckets.\"old.films\"]\n\
             public = true\nfile_size_limit = \"1GB\"\nallowed_mime_types = [\"video/mp4\"]\nobjects_path = \"./films\"\n\
             [storage.buckets]\ninline = { public = false, file_size_limit = \"large\" }\n\
             [storage.analytics]\nenabled = false\n[storage.vector]\nenabled = false\n[storage.buckets.x]\npubic = true\n",
        );
        let storage = config.storage;
        assert_eq!((storage.enabled, storage.file_size_limit), (Some(true), Some(5 << 20)));
        assert_eq!((storage.s3_protocol, storage.images), (Some(false), Some(true)));
        let names: Vec<&str> = storage.buckets.keys().map(String::as_str).collect();
        assert_eq!(names, ["empty", "inline", "old.films", "x"]);
        assert_eq!(storage.buckets["empty"], Bucket::default());
        let films = Bucket {
            public: Some(true),
            file_size_limit: Some(1 << 30),
            allowed_mime_types: Some(vec!["video/mp4".into()]),
            objects_path: Some("./films".into()),
        };
        assert_eq!(storage.buckets["old.films"], films);
        let mut faults = faults;
        faults.sort();
        assert_eq!(
            faults,
            [
                "error: config.toml:15: storage.buckets.inline.file_size_limit: expected a size such as \"50MiB\", found \"large\"",
                "note: config.toml:17: storage.analytics has no effect yet",
                "note: config.toml:19: storage.vector has no effect yet",
                "warning: config.toml:21: unknown key storage.buckets.x.pubic; did you mean public?",
            ]
        );
    }

    #[test]
    fn rates_are_read() {
        let (config, faults) = read(
            "[auth.rate_limit]\nanonymous_users = 1\ntoken_refresh = 2\nsign_in_sign_ups = 3\ntoken_verifications = 0\n",
        );
        let rates = config.auth.rates;
        assert_eq!((rates.anonymous_users, rates.token_refresh, rates.sign_in_sign_ups), (Some(1), Some(2), Some(3)));
        let expected =
            "error: config.toml:5: auth.rate_limit.token_verifications: expected a number from 1 to 1000000, found 0";
        assert_eq!(faults, [expected]);
    }

    #[test]
    fn a_file_that_is_no_toml_has_a_line() {
        let (_, faults) = read("[api]\nport = \n");
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("error: config.toml:2: "), "{faults:?}");
    }

    #[test]
    fn providers_are_read_where_they_are_switched_on() {
        let (config, faults) = read(
            "[auth.external.google]\nenabled = true\nclient_id = \"a,b\"\nsecret = \"env(PORT)\"\nskip_nonce_check = true\n\
             [auth.external.apple]\nenabled = false\nsecret = \"env(NONE)\"\n[auth.external.github]\nclient_id = \"x\"\n\
             [auth.external.gitlab]\nenabled = false\nclient_ids = \"x\"\n",
        );
        assert_eq!(
            faults,
            ["warning: config.toml:13: unknown key auth.external.gitlab.client_ids; did you mean client_id?"]
        );
        let [(name, google)] = &config.auth.external.into_iter().collect::<Vec<_>>()[..] else {
            panic!("google alone")
        };
        assert_eq!(
            (name.as_str(), google.client_id.as_deref(), google.skip_nonce_check),
            ("google", Some("a,b"), Some(true))
        );
    }

    #[test]
    fn mails_know_their_lines() {
        let (config, faults) = read(
            "[auth.email.template.invite]\nsubject = \"a\"\ncontent = \"\"\"\n<p>\n\"\"\"\n[auth.email.template.recovery]\n\
             content_path = \"./x.html\"\n[auth.email.notification.password_changed]\nenabled = false\nsubject = 7\n\
             [auth.email.notification.email_changed]\nenabled = true\nsubject = 7\n[auth.email.template.invitation]\nsubject = \"a\"\n",
        );
        let mails = &config.auth.mails;
        let invite = &mails["invite"];
        let place = |line: usize| Place::File { path: "config.toml".into(), line };
        assert_eq!(invite.subject.as_ref().unwrap().place(1), place(2));
        let content = invite.content.as_ref().unwrap();
        assert_eq!((content.text.as_str(), content.place(2)), ("<p>\n", place(5)));
        assert_eq!(mails["recovery"].content_path.as_ref().unwrap().text, "./x.html");
        assert_eq!(mails["password_changed"].enabled, Some(false));
        assert_eq!(
            faults,
            [
                "warning: config.toml:14: unknown key auth.email.template.invitation",
                "error: config.toml:13: auth.email.notification.email_changed.subject: expected a string, found 7",
            ]
        );
    }

    #[test]
    fn the_environment_may_have_the_value() {
        assert_eq!(read("[api]\nport = \"env(PORT)\"").0.api.port, Some(6000));
        let (_, faults) = read("[api]\nport = \"env(NONE)\"");
        assert_eq!(faults, ["error: config.toml:2: api.port: the environment variable NONE is not set"]);
    }

    #[test]
    fn the_supported_keys_are_known() {
        let templates = ntier_auth::TEMPLATES.map(|name| ["auth", "email", "template", name, "content_path"]);
        let notifications = ntier_auth::NOTIFICATIONS.map(|name| ["auth", "email", "notification", name, "enabled"]);
        for path in templates.iter().chain(&notifications) {
            assert!(known::is_known(path), "{path:?}");
        }
        for (key, _) in SUPPORTED {
            assert!(known::is_known(&key.split('.').collect::<Vec<_>>()), "{key}");
        }
    }
}
