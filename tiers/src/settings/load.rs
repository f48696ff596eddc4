//! Reads all sources in order and gathers what is wrong with them.

use std::path::{Path, PathBuf};

use toml_edit::{Document, Item, TableLike, Value};

use ntier_auth::{Captcha, External, Hook, SmsService, Smtp, Use, WebAuthn};
use ntier_security::Secret;

use super::{Definition, Kind, Mode, Settings, mails};
use crate::fault::{Fault, Place};
use crate::project::config::Auth;
use crate::project::statements::line_of;
use crate::project::{Config, Project, Source};

/// Where settings come from; the caller has looked at its own process.
#[derive(Debug, Clone)]
pub struct Sources {
    pub mode: Mode,
    pub directory: PathBuf,
    /// All variables; those that begin with `NTIER_` are settings.
    pub environment: Vec<(String, String)>,
    /// Setting name and text.
    pub flags: Vec<(String, String)>,
}

/// What was assembled.
#[derive(Debug)]
pub struct Loaded {
    pub settings: Settings,
    pub project: Project,
    /// Warnings and notes; no errors.
    pub remarks: Vec<Fault>,
}

/// Assembles the settings, or tells all faults.
pub fn load(sources: &Sources) -> Result<Loaded, Vec<Fault>> {
    let mut loader = Loader { settings: Settings::new(sources.mode), faults: Vec::new() };
    let root = root(sources);
    let (project, faults) = Project::open(&root, sources.mode, &|name| lookup(&sources.environment, name));
    loader.faults.extend(faults);
    let base = project.root.clone().unwrap_or_else(|| sources.directory.clone());
    loader.settings.data = base.join(".ntier");
    loader.settings.public = Some(base.join("public")).filter(|folder| folder.is_dir());
    loader.project(&project.config);
    let named = project.config.auth.signing_keys_path.as_ref().filter(|path| !path.is_empty());
    if let (Some(path), Source::Folder(folder)) = (named, &project.source) {
        loader.settings.signing_keys = Some(folder.join(path));
    }
    loader.mails(&project);
    loader.file(&base.join("ntier.toml"));
    loader.environment(&sources.environment, &sources.directory);
    loader.flags(&sources.flags, &sources.directory);
    loader.settings.project.clone_from(&project.root);
    loader.buckets(&project.config);
    let Loader { settings, mut faults } = loader;
    faults.extend(settings.check());
    if faults.iter().any(Fault::is_error) {
        return Err(faults);
    }
    Ok(Loaded { settings, project, remarks: faults })
}

/// Settings that a file changes, such as those of another node; all its faults are told.
pub fn load_file(settings: Settings, path: &Path) -> Result<Settings, Vec<Fault>> {
    if !path.is_file() {
        return Err(vec![Fault::error(Place::Together, format!("there is no file {}", path.display()))]);
    }
    let mut loader = Loader { settings, faults: Vec::new() };
    loader.file(path);
    let Loader { settings, mut faults } = loader;
    faults.extend(settings.check());
    // A setting that nobody knows is probably a mistake, and this is not the time for one.
    if faults.is_empty() { Ok(settings) } else { Err(faults) }
}

/// The project's folder must be known before the rest can be read.
fn root(sources: &Sources) -> Root {
    let flag = sources.flags.iter().rev().find(|(name, _)| name == "project").map(|(_, text)| text.clone());
    match flag.or_else(|| lookup(&sources.environment, "NTIER_PROJECT")) {
        Some(folder) => Root::Named(sources.directory.join(folder)),
        None => Root::Current(sources.directory.clone()),
    }
}

/// Where the project is looked for.
#[derive(Debug, Clone)]
pub enum Root {
    /// It must be there.
    Named(PathBuf),
    /// It may be there.
    Current(PathBuf),
}

fn lookup(environment: &[(String, String)], name: &str) -> Option<String> {
    environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
}

struct Loader {
    settings: Settings,
    faults: Vec<Fault>,
}

impl Loader {
    /// What `supabase/config.toml` says that is a setting of ours.
    fn project(&mut self, config: &Config) {
        let api = config.api.clone();
        let settings = &mut self.settings;
        if let Some(port) = api.port {
            settings.listen.set_port(port);
        }
        settings.api.schemas = api.schemas.map(exposed).unwrap_or(std::mem::take(&mut settings.api.schemas));
        settings.api.extra_search_path =
            api.extra_search_path.unwrap_or(std::mem::take(&mut settings.api.extra_search_path));
        settings.api.max_rows = api.max_rows.or(settings.api.max_rows);
        self.sign_in(&config.auth);
        let settings = &mut self.settings;
        let (said, storage) = (&config.storage, &mut settings.storage);
        storage.enabled = said.enabled.unwrap_or(storage.enabled);
        storage.service.file_size_limit = said.file_size_limit.unwrap_or(storage.service.file_size_limit);
        storage.service.images = said.images.unwrap_or(storage.service.images);
        storage.s3_protocol.enabled = said.s3_protocol.unwrap_or(storage.s3_protocol.enabled);
        settings.realtime.enabled = config.realtime.unwrap_or(settings.realtime.enabled);
        settings.api.auto_expose_new_tables = api.auto_expose_new_tables.unwrap_or(settings.api.auto_expose_new_tables);
    }

    /// A bucket that takes more than all of them would promise what is refused.
    fn buckets(&mut self, config: &Config) {
        let most = self.settings.storage.service.file_size_limit;
        let larger = config
            .storage
            .buckets
            .iter()
            .filter(|(_, bucket)| bucket.file_size_limit.is_some_and(|limit| limit > most));
        for (name, _) in larger {
            let message =
                format!("storage.buckets.{name}.file_size_limit is more than storage.file_size_limit, {most} bytes");
            self.faults.push(Fault::error(Place::Together, message));
        }
    }

    /// Likewise of sign-in.
    fn sign_in(&mut self, said: &Auth) {
        if said.enabled == Some(false) {
            self.settings.auth = None;
        }
        self.mail_server(said);
        self.providers(said);
        self.hooks(said);
        self.captcha(said);
        self.message_service(said);
        let auth = self.settings.auth.as_ref();
        let no_mail = said.email_confirmations == Some(true) && auth.is_some_and(|auth| auth.smtp.is_none());
        let no_sms = said.phone_confirmations == Some(true) && auth.is_some_and(|auth| auth.sms.service.is_none());
        if (no_mail || no_sms) && self.settings.mode != Mode::Dev {
            let message = "nobody sends the messages that confirm an address (auth.email.smtp, auth.sms.twilio); sign-ups that need one will be refused";
            self.faults.push(Fault::warning(Place::Together, message));
        }
        let Some(auth) = &mut self.settings.auth else { return };
        auth.url = said.external_url.clone().unwrap_or(std::mem::take(&mut auth.url));
        auth.token_life = said.jwt_expiry.unwrap_or(auth.token_life);
        auth.signup = said.enable_signup.unwrap_or(auth.signup);
        auth.anonymous = said.enable_anonymous_sign_ins.unwrap_or(auth.anonymous);
        auth.password.shortest = said.minimum_password_length.unwrap_or(auth.password.shortest);
        auth.password.letters = said.password_requirements.unwrap_or(auth.password.letters);
        auth.refresh.reuse_interval = said.refresh_token_reuse_interval.unwrap_or(auth.refresh.reuse_interval);
        auth.refresh.timebox = said.timebox.or(auth.refresh.timebox);
        auth.refresh.inactivity = said.inactivity_timeout.or(auth.refresh.inactivity);
        auth.email = said.email.unwrap_or(auth.email);
        auth.email_autoconfirm = said.email_confirmations.map_or(auth.email_autoconfirm, |needed| !needed);
        auth.site_url = said.site_url.clone().unwrap_or(std::mem::take(&mut auth.site_url));
        auth.redirects = said.additional_redirect_urls.clone().unwrap_or(std::mem::take(&mut auth.redirects));
        auth.double_confirm = said.double_confirm_changes.unwrap_or(auth.double_confirm);
        auth.reauthenticate = said.secure_password_change.unwrap_or(auth.reauthenticate);
        auth.mail_pause = said.max_frequency.unwrap_or(auth.mail_pause);
        auth.code_length = said.otp_length.unwrap_or(auth.code_length);
        auth.code_life = said.otp_expiry.unwrap_or(auth.code_life);
        auth.typed_code_life = said.otp_expiry.unwrap_or(auth.typed_code_life);
        auth.phone = said.phone.unwrap_or(auth.phone);
        auth.phone_autoconfirm = said.phone_confirmations.map_or(auth.phone_autoconfirm, |needed| !needed);
        auth.passkeys = said.passkey.unwrap_or(auth.passkeys);
        auth.webauthn = WebAuthn {
            rp_id: said.rp_id.clone(),
            rp_display_name: said.rp_display_name.clone(),
            rp_origins: said.rp_origins.clone().unwrap_or_default(),
        };
        let server = &mut auth.oauth_server;
        server.enabled = said.oauth_server.unwrap_or(server.enabled);
        server.consent_path = said.authorization_url_path.clone().unwrap_or(std::mem::take(&mut server.consent_path));
        server.registration = said.allow_dynamic_registration.unwrap_or(server.registration);
        let mfa = &mut auth.mfa;
        mfa.most = said.mfa.max_enrolled_factors.unwrap_or(mfa.most);
        for (factor, (enroll, verify)) in
            [(&mut mfa.totp, said.mfa.totp), (&mut mfa.phone, said.mfa.phone), (&mut mfa.webauthn, said.mfa.web_authn)]
        {
            *factor = Use { enroll: enroll.unwrap_or(factor.enroll), verify: verify.unwrap_or(factor.verify) };
        }
        auth.manual_linking = said.enable_manual_linking.unwrap_or(auth.manual_linking);
        let (said, rates) = (&said.rates, &mut auth.rates);
        rates.anonymous = said.anonymous_users.unwrap_or(rates.anonymous);
        rates.token = said.token_refresh.unwrap_or(rates.token);
        rates.sign_up = said.sign_in_sign_ups.unwrap_or(rates.sign_up);
        rates.verify = said.token_verifications.unwrap_or(rates.verify);
    }

    /// What e-mails say, of the file and of those that it names.
    fn mails(&mut self, project: &Project) {
        let Some(auth) = &mut self.settings.auth else { return };
        self.faults.extend(mails::read(&mut auth.mails, project));
    }

    fn message_service(&mut self, said: &Auth) {
        let Some(auth) = &mut self.settings.auth else { return };
        let (said, sms) = (&said.sms, &mut auth.sms);
        sms.template = said.template.clone().unwrap_or(std::mem::take(&mut sms.template));
        sms.pause = said.max_frequency.unwrap_or(sms.pause);
        sms.test = said
            .test_otp
            .iter()
            .map(|(phone, code)| (phone.trim_start_matches('+').to_owned(), code.clone()))
            .collect();
        if said.twilio != Some(true) {
            return;
        }
        let parts = (said.account_sid.clone(), said.message_service_sid.clone(), said.auth_token.clone());
        let (Some(account), Some(from), Some(token)) = parts else {
            let message = "auth.sms.twilio needs account_sid, message_service_sid and auth_token";
            self.faults.push(Fault::error(Place::Together, message));
            return;
        };
        sms.service =
            Some(SmsService { url: "https://api.twilio.com".into(), account, token: Secret::new(token), from });
        // Source: GoTrue, RATE_LIMIT_SMS_SENT.
        sms.per_hour = Some(said.sent.unwrap_or(30));
    }

    fn captcha(&mut self, said: &Auth) {
        let Some(auth) = &mut self.settings.auth else { return };
        let said = &said.captcha;
        if said.enabled != Some(true) {
            return;
        }
        let provider = said.provider.as_deref().unwrap_or_default();
        match (Captcha::url_of(provider), said.secret.clone().filter(|secret| !secret.is_empty())) {
            (Some(url), Some(secret)) => {
                auth.captcha = Some(Captcha { url: url.into(), secret: Secret::new(secret) });
            }
            (None, _) => {
                let message = format!("auth.captcha.provider: expected hcaptcha or turnstile, found {provider:?}");
                self.faults.push(Fault::error(Place::Together, message));
            }
            (_, None) => self.faults.push(Fault::error(Place::Together, "auth.captcha needs a secret")),
        }
    }

    fn hooks(&mut self, said: &Auth) {
        let Some(auth) = &mut self.settings.auth else { return };
        for (name, (uri, secrets)) in &said.hooks {
            let fault = |why: &str| Fault::error(Place::Together, format!("auth.hook.{name}: {why}"));
            let Some(place) = auth.hooks.of(name) else {
                self.faults.push(fault("there is no such hook"));
                continue;
            };
            match Hook::parse(uri.as_deref().unwrap_or_default(), secrets.as_deref().unwrap_or_default()) {
                Ok(hook) => *place = Some(hook),
                Err(why) => self.faults.push(fault(&why)),
            }
        }
    }

    fn providers(&mut self, said: &Auth) {
        let Some(auth) = &mut self.settings.auth else { return };
        for (name, said) in &said.external {
            let ids = said.client_id.as_deref().unwrap_or_default().split(',').map(str::trim);
            let external = External {
                name: name.clone(),
                client_ids: ids.filter(|id| !id.is_empty()).map(str::to_owned).collect(),
                secret: Secret::new(said.secret.clone().unwrap_or_default()),
                url: said.url.clone(),
                redirect_uri: said.redirect_uri.clone(),
                skip_nonce_check: said.skip_nonce_check.unwrap_or(false),
                email_optional: said.email_optional.unwrap_or(false),
            };
            match external.fault() {
                None => auth.external.push(external),
                Some(fault) => {
                    self.faults.push(Fault::error(Place::Together, format!("auth.external.{name}: {fault}")));
                }
            }
        }
    }

    fn mail_server(&mut self, said: &Auth) {
        let Some(auth) = &mut self.settings.auth else { return };
        let smtp = &said.smtp;
        let Some(host) = smtp.host.clone().filter(|_| smtp.enabled != Some(false)) else { return };
        let Some(address) = smtp.admin_email.clone() else {
            let message = "auth.email.smtp needs admin_email, the address that the e-mails come from";
            self.faults.push(Fault::error(Place::Together, message));
            return;
        };
        auth.smtp = Some(Smtp {
            host,
            port: smtp.port.unwrap_or(587),
            user: smtp.user.clone().unwrap_or_default(),
            password: Secret::new(smtp.pass.clone().unwrap_or_default()),
            from: smtp
                .sender_name
                .as_ref()
                .map_or(address.clone(), |name| format!("\"{}\" <{address}>", name.replace('"', ""))),
        });
        // Source: GoTrue, RATE_LIMIT_EMAIL_SENT.
        auth.mails_per_hour = Some(said.email_sent.unwrap_or(30));
    }

    fn file(&mut self, path: &Path) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return,
            Err(cause) => {
                let place = Place::File { path: path.to_owned(), line: 1 };
                self.faults.push(Fault::error(place, cause.to_string()));
                return;
            }
        };
        let place = |offset| Place::File { path: path.to_owned(), line: line_of(&text, offset) };
        match Document::parse(text.as_str()) {
            Ok(document) => self.table("", document.as_table(), path, &place),
            Err(cause) => {
                let place = place(cause.span().map_or(0, |span| span.start));
                self.faults.push(Fault::error(place, cause.message().trim().to_owned()));
            }
        }
    }

    fn table(&mut self, section: &str, table: &dyn TableLike, path: &Path, place: &dyn Fn(usize) -> Place) {
        for (key, item) in table.iter() {
            let name = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
            let at = table.key(key).and_then(toml_edit::Key::span).map_or(0, |span| span.start);
            match item {
                Item::Value(value) if value.as_inline_table().is_none() => {
                    let directory = path.parent().unwrap_or(Path::new("."));
                    self.set(&name, &as_text(value), place(at), directory);
                }
                _ => match item.as_table_like() {
                    Some(inner) => self.table(&name, inner, path, place),
                    None => self.faults.push(Fault::warning(place(at), format!("unknown setting {name}"))),
                },
            }
        }
    }

    fn environment(&mut self, environment: &[(String, String)], directory: &Path) {
        for (key, value) in environment.iter().filter(|(key, _)| key.starts_with("NTIER_")) {
            let place = Place::Environment(key.clone());
            match super::definitions().find(|definition| definition.environment() == *key) {
                Some(definition) => self.set(definition.name, value, place, directory),
                None => self.faults.push(Fault::warning(place, "there is no such setting")),
            }
        }
    }

    fn flags(&mut self, flags: &[(String, String)], directory: &Path) {
        for (name, value) in flags {
            let flag = Definition::find(name).map_or_else(|| name.clone(), Definition::flag);
            self.set(name, value, Place::Flag(flag), directory);
        }
    }

    fn set(&mut self, name: &str, text: &str, place: Place, directory: &Path) {
        let Some(definition) = Definition::find(name) else {
            self.faults.push(Fault::warning(place, format!("unknown setting {name}")));
            return;
        };
        let outcome = match definition.kind {
            Kind::Path(_) => (definition.set)(&mut self.settings, &directory.join(text).to_string_lossy()),
            Kind::Boolean | Kind::Value(_) => (definition.set)(&mut self.settings, text),
        };
        if let Err(message) = outcome {
            self.faults.push(Fault::error(place, format!("{name}: {message}")));
        }
    }
}

/// `graphql_public` stands in every project's list and is served by an extension that is not here.
fn exposed(schemas: Vec<String>) -> Vec<String> {
    schemas.into_iter().filter(|schema| schema != "graphql_public").collect()
}

/// As the environment would say it.
fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.value().clone(),
        Value::Array(items) => items.iter().map(as_text).collect::<Vec<_>>().join(","),
        other => other.to_string().trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(directory: &Path, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Sources {
        let own = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        Sources { mode: Mode::Serve, directory: directory.into(), environment: own(environment), flags: own(flags) }
    }

    fn project() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("supabase")).unwrap();
        let config = "[api]\nport = 1111\nmax_rows = 11\nschemas = [\"public\", \"graphql_public\", \"api\"]\n";
        std::fs::write(folder.path().join("supabase/config.toml"), config).unwrap();
        std::fs::write(folder.path().join("ntier.toml"), "data = \"kept\"\n[api]\nmax_rows = 22\ntimeout = \"5s\"\n")
            .unwrap();
        folder
    }

    #[test]
    fn a_later_source_wins() {
        let folder = project();
        let environment = [("NTIER_API_MAX_ROWS", "33"), ("NTIER_LOG", "requests"), ("HOME", "/")];
        let loaded = load(&sources(folder.path(), &environment, &[("api.max_rows", "44")])).unwrap();
        let settings = loaded.settings;
        assert_eq!(settings.api.max_rows, Some(44));
        assert_eq!(settings.api.timeout.as_secs(), 5);
        assert_eq!(settings.listen.port(), 1111);
        assert_eq!(settings.api.schemas, ["public", "api"]);
        assert_eq!(settings.data, folder.path().join("kept"));
        assert!(loaded.remarks.is_empty(), "{:?}", loaded.remarks);
    }

    #[test]
    fn what_the_project_says_of_files_are_defaults() {
        let folder = project();
        let config = "[realtime]\nenabled = false\n[storage]\nenabled = false\nfile_size_limit = \"5MiB\"\n[storage.image_transformation]\nenabled = false\n\
                      [storage.s3_protocol]\nenabled = false\n[storage.buckets.films]\nfile_size_limit = \"6MiB\"\n";
        std::fs::write(folder.path().join("supabase/config.toml"), config).unwrap();
        let faults = load(&sources(folder.path(), &[], &[])).unwrap_err();
        let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let expected =
            "error: storage.buckets.films.file_size_limit is more than storage.file_size_limit, 5242880 bytes";
        assert_eq!(told, [expected]);
        let flags =
            [("storage.enabled", "true"), ("storage.file_size_limit", "7MB"), ("storage.upload_url_time", "2min")];
        let settings =
            load(&sources(folder.path(), &[("NTIER_STORAGE_SWEEP_AFTER", "10min")], &flags)).unwrap().settings;
        assert!(!settings.realtime.enabled);
        let storage = settings.storage;
        assert!(storage.enabled && !storage.service.images && !storage.s3_protocol.enabled);
        assert_eq!((storage.service.file_size_limit, storage.service.upload_url_seconds), (7 << 20, 120));
        assert_eq!(storage.sweep_after.as_secs(), 600);
    }

    #[test]
    fn signing_keys_are_found_from_the_folder_supabase() {
        let folder = project();
        let config = folder.path().join("supabase/config.toml");
        for (path, expected) in
            [("./keys.json", Some("supabase/./keys.json")), ("/keys.json", Some("/keys.json")), ("", None)]
        {
            std::fs::write(&config, format!("[auth]\nsigning_keys_path = \"{path}\"\n")).unwrap();
            let settings = load(&sources(folder.path(), &[], &[])).unwrap().settings;
            assert_eq!(settings.signing_keys, expected.map(|path| folder.path().join(path)), "{path}");
        }
    }

    #[test]
    fn all_faults_are_told_together() {
        let folder = project();
        std::fs::write(folder.path().join("ntier.toml"), "x = 1\n[api]\ntimeout = \"soon\"\n").unwrap();
        let environment = [("NTIER_API_MAX_ROWS", "many"), ("NTIER_COLOUR", "red")];
        let faults = load(&sources(folder.path(), &environment, &[("listen", "0.0.0.0:80")])).unwrap_err();
        let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let file = folder.path().join("ntier.toml").display().to_string();
        assert_eq!(told[0], format!("warning: {file}:1: unknown setting x"));
        assert!(told[1].starts_with(&format!("error: {file}:3: api.timeout: expected a duration")), "{told:?}");
        assert!(told[2].starts_with("error: environment NTIER_API_MAX_ROWS: api.max_rows: expected a number"));
        assert_eq!(told[3], "warning: environment NTIER_COLOUR: there is no such setting");
        assert!(told[4].starts_with("error: listening on 0.0.0.0:80"), "{told:?}");
        assert_eq!(told.len(), 5);
    }

    #[test]
    fn a_named_project_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load(&sources(folder.path(), &[], &[("project", "nowhere")])).is_err());
        assert!(load(&sources(folder.path(), &[], &[])).is_ok());
    }
}
