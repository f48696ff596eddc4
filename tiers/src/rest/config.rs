//! What `ntier rest` is told, under PostgREST's names: a file, the environment (`PGRST_…`), and the database itself, each winning
//! over the one before.
//!
//! Source: PostgREST, "Configuration".

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use ntier_backing::database::{Address, parse_connection, usual_connections};
use ntier_node::{Front, Log};
use ntier_rest::{parse_flag, parse_list};
use ntier_security::RolePath;
use ntier_security::bearer::Bearers;
use ntier_security::keys::is_published;
use ntier_security::token::{KeyIds, Verifier, VerifyingKey};

use super::file;
use crate::fault::{Fault, Place, Severity};

/// Where the settings come from, but for the database.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    pub environment: HashMap<String, String>,
}

/// Everything, assembled.
#[derive(Debug)]
pub struct Config {
    pub rest: ntier_rest::Settings,
    pub front: Front,
    pub database: Address,
    pub connections: usize,
    pub prepared_statements: bool,
    /// `None` where nobody listens.
    pub channel: Option<String>,
    /// Whether the database is asked what it says of the settings, and the function that may say it.
    pub in_database: bool,
    pub pre_config: Option<String>,
    pub listen: Listen,
    pub admin: Option<Listen>,
    pub log: Log,
    /// What has no effect, or should be changed.
    pub remarks: Vec<Fault>,
    /// All that was said, as a file would say it, without secrets.
    pub text: String,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    Tcp(SocketAddr),
    Unix { path: PathBuf, mode: u32 },
}

/// All names, with underscores. Those after the first group are read, but change nothing here.
const NAMES: &[&str] = &[
    "admin_server_host",
    "admin_server_port",
    "admin_server_unix_socket",
    "admin_server_unix_socket_mode",
    "client_error_verbosity",
    "db_aggregates_enabled",
    "db_anon_role",
    "db_channel",
    "db_channel_enabled",
    "db_config",
    "db_extra_search_path",
    "db_hoisted_tx_settings",
    "db_max_rows",
    "max_rows",
    "db_plan_enabled",
    "db_pool",
    "db_pre_config",
    "db_pre_request",
    "pre_request",
    "db_prepared_statements",
    "db_root_spec",
    "root_spec",
    "db_schemas",
    "db_schema",
    "db_tx_end",
    "db_uri",
    "jwt_aud",
    "jwt_cache_max_entries",
    "jwt_role_claim_key",
    "role_claim_key",
    "jwt_secret",
    "jwt_secret_is_base64",
    "secret_is_base64",
    "log_level",
    "max_embedding_depth",
    "max_embeddings",
    "max_filters",
    "max_in_values",
    "openapi_mode",
    "openapi_security_active",
    "openapi_server_proxy_uri",
    "server_cors_allowed_origins",
    "server_host",
    "server_port",
    "server_timing_enabled",
    "server_trace_header",
    "server_unix_socket",
    "server_unix_socket_mode",
    "url_use_legacy_target_names",
];
const WITHOUT_EFFECT: &[&str] = &[
    "db_pool_acquisition_timeout",
    "db_pool_automatic_recovery",
    "db_pool_max_idletime",
    "db_pool_max_lifetime",
    "db_pool_timeout",
    "log_query",
    "server_reuseport",
];
const PREFIX: &str = "PGRST_";
const APP_SETTINGS: &str = "app.settings.";

/// Assembles the settings; `said` is what the database says. All faults are told together.
pub fn assemble(sources: &Sources, said: &HashMap<String, String>) -> Result<Config, Vec<Fault>> {
    let mut reader = Reader::new(sources, said);
    let config = reader.config();
    reader.faults.sort_by_key(|fault| fault.severity);
    let (faults, remarks) = reader.faults.into_iter().partition(|fault: &Fault| fault.severity == Severity::Error);
    match config {
        Some(config) if Vec::is_empty(&faults) => Ok(Config { remarks, ..config }),
        _ => Err(faults),
    }
}

struct Said {
    text: String,
    place: Place,
}

struct Reader<'a> {
    sources: &'a Sources,
    /// By name, with underscores.
    said: HashMap<String, Said>,
    app_settings: BTreeMap<String, String>,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    fn new(sources: &'a Sources, database: &HashMap<String, String>) -> Self {
        let mut reader = Self { sources, said: HashMap::new(), app_settings: BTreeMap::new(), faults: Vec::new() };
        if let Some(path) = &sources.file {
            reader.file(path);
        }
        for (variable, text) in &sources.environment {
            let Some(name) = variable.strip_prefix(PREFIX) else { continue };
            if let Some(name) = name.strip_prefix("APP_SETTINGS_") {
                reader.app_settings.insert(format!("{APP_SETTINGS}{}", name.to_lowercase()), text.clone());
                continue;
            }
            reader.say(&name.to_lowercase(), text, Place::Environment(variable.clone()));
        }
        for (name, text) in database {
            reader.say(name, text, Place::Database(format!("pgrst.{name}")));
        }
        reader
    }

    fn file(&mut self, path: &Path) {
        let place = |line| Place::File { path: path.to_owned(), line };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(cause) => return self.faults.push(Fault::error(place(1), cause.to_string())),
        };
        let sources = self.sources;
        match file::parse(&text, &|name| sources.environment.get(name).cloned()) {
            Ok(values) => {
                for (name, value) in values {
                    if name.starts_with(APP_SETTINGS) {
                        self.app_settings.insert(name, value.text);
                    } else {
                        self.say(&name.replace('-', "_"), &value.text, place(value.line));
                    }
                }
            }
            Err(faults) => {
                self.faults.extend(faults.into_iter().map(|fault| Fault::error(place(fault.line), fault.message)));
            }
        }
    }

    fn say(&mut self, name: &str, text: &str, place: Place) {
        if WITHOUT_EFFECT.contains(&name) {
            self.faults.push(Fault::note(place, format!("{} has no effect here", dashed(name))));
        } else if NAMES.contains(&name) {
            self.said.insert(name.to_owned(), Said { text: text.to_owned(), place });
        } else {
            self.faults.push(Fault::warning(place, "there is no such setting"));
        }
    }

    /// What is said under the first of these names; an empty text says nothing.
    fn text(&self, names: &[&str]) -> Option<&str> {
        let found = names.iter().find_map(|name| self.said.get(*name).filter(|said| !said.text.is_empty()));
        found.map(|said| said.text.as_str())
    }

    fn fault(&mut self, name: &str, message: impl std::fmt::Display) {
        let place = self.said.get(name).map_or(Place::Together, |said| said.place.clone());
        self.faults.push(Fault::error(place, format!("{} {message}", dashed(name))));
    }

    fn parsed<T>(&mut self, name: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.text(&[name])?.to_owned();
        let value = parse(&text);
        if value.is_none() {
            self.fault(name, format_args!("is not {expected}"));
        }
        value
    }

    fn flag(&mut self, name: &str, default: bool) -> bool {
        self.parsed(name, "true or false", parse_flag).unwrap_or(default)
    }

    /// The file that a value beginning with `@` names.
    fn or_file(&mut self, name: &str, text: String) -> Option<String> {
        let Some(path) = text.strip_prefix('@') else { return Some(text) };
        match std::fs::read_to_string(path) {
            Ok(content) => Some(content.strip_suffix('\n').map(str::to_owned).unwrap_or(content)),
            Err(cause) => {
                self.fault(name, format_args!("names the file {path}: {cause}"));
                None
            }
        }
    }

    fn config(&mut self) -> Option<Config> {
        let rest = self.rest();
        let front = self.front(rest.verbose_errors);
        let database = self.database();
        let listen = self.listen("server_host", "server_port", "server_unix_socket", Some(3000));
        let admin_host = if self.text(&["admin_server_host"]).is_some() { "admin_server_host" } else { "server_host" };
        let admin = self.listen(admin_host, "admin_server_port", "admin_server_unix_socket", None);
        let channel = self.text(&["db_channel"]).unwrap_or("pgrst").to_owned();
        let log = match self.text(&["log_level"]) {
            None | Some("error") => Log::Faults,
            Some("crit") => Log::Nothing,
            Some("warn") => Log::Refusals,
            Some("info" | "debug") => Log::Requests,
            Some(_) => {
                self.fault("log_level", "is none of crit, error, warn, info, debug");
                Log::Faults
            }
        };
        Some(Config {
            connections: self
                .parsed("db_pool", "a number of connections", |text| text.parse().ok())
                .unwrap_or_else(usual_connections),
            prepared_statements: self.flag("db_prepared_statements", true),
            channel: self.flag("db_channel_enabled", true).then_some(channel),
            in_database: self.flag("db_config", true),
            pre_config: self.text(&["db_pre_config"]).map(str::to_owned),
            text: self.dump(),
            remarks: Vec::new(),
            database: database?,
            listen: listen?,
            front: front?,
            rest,
            admin,
            log,
        })
    }

    fn rest(&mut self) -> ntier_rest::Settings {
        let mut rest = ntier_rest::Settings {
            extra_search_path: vec!["public".into()],
            max_rows: None,
            session: self.app_settings.clone().into_iter().collect(),
            ..ntier_rest::Settings::default()
        };
        let faults = rest.apply(&|name| self.said.get(name).map(|said| said.text.clone()));
        for fault in faults {
            self.fault(fault.name, fault.message);
        }
        rest
    }

    fn front(&mut self, verbose_errors: bool) -> Option<Front> {
        let role_path = match self.text(&["jwt_role_claim_key", "role_claim_key"]).map(RolePath::parse) {
            None => RolePath::default(),
            Some(Ok(path)) => {
                if path.is_older() {
                    let message = "jwt-role-claim-key is written as before PostgREST 15; $.role is the standard's way";
                    self.faults.push(Fault::warning(Place::Together, message));
                }
                path
            }
            Some(Err(fault)) => {
                self.fault("jwt_role_claim_key", fault);
                return None;
            }
        };
        let anonymous = self.text(&["db_anon_role"]).map(str::to_owned);
        let remembered = self.parsed("jwt_cache_max_entries", "a number", |text| text.parse().ok()).unwrap_or(1000);
        let verifier = self.verifier()?;
        let trace_header =
            self.parsed("server_trace_header", "the name of a header", |text| HeaderName::try_from(text).ok());
        let origins = self.text(&["server_cors_allowed_origins"]).map(parse_list).unwrap_or_default();
        if anonymous.is_none() && verifier.is_none() {
            let message = "neither db-anon-role nor jwt-secret is set: every request will be refused";
            self.faults.push(Fault::warning(Place::Together, message));
        }
        let bearers = Bearers::new(verifier, role_path, anonymous, remembered);
        Some(Front { bearers, origins, trace_header, verbose_errors })
    }

    /// `Some(None)` where tokens are not taken, `None` after a fault.
    fn verifier(&mut self) -> Option<Option<Verifier>> {
        let audience = self.text(&["jwt_aud"]).map(str::to_owned);
        let Some(secret) = self.text(&["jwt_secret"]).map(str::to_owned) else { return Some(None) };
        let mut secret = self.or_file("jwt_secret", secret)?.into_bytes();
        let in_base64 = ["jwt_secret_is_base64", "secret_is_base64"].iter().any(|name| self.flag(name, false));
        if in_base64 {
            let text = String::from_utf8_lossy(&secret).trim().replace('_', "/").replace('-', "+").replace('.', "=");
            match STANDARD.decode(text) {
                Ok(bytes) => secret = bytes,
                Err(cause) => {
                    self.fault("jwt_secret", format_args!("is not base64: {cause}"));
                    return None;
                }
            }
        }
        let keys = match serde_json::from_slice::<serde_json::Value>(&secret) {
            Ok(json) if json.is_object() => {
                let list = json.get("keys").and_then(|keys| keys.as_array().cloned()).unwrap_or_else(|| vec![json]);
                let keys: Vec<VerifyingKey> = list.iter().filter_map(VerifyingKey::from_jwk).collect();
                if keys.is_empty() {
                    self.fault("jwt_secret", "has no key that can verify a token");
                    return None;
                }
                keys
            }
            _ if secret.len() < 32 => {
                self.fault("jwt_secret", "must be at least 32 characters long");
                return None;
            }
            _ => vec![VerifyingKey::hmac(&secret)],
        };
        if std::str::from_utf8(&secret).is_ok_and(is_published) {
            let place = self.said.get("jwt_secret").map_or(Place::Together, |said| said.place.clone());
            let message = "jwt-secret is an example that everybody knows: whoever reads it can be anybody";
            self.faults.push(Fault::warning(place, message));
        }
        Some(Some(Verifier::new(keys, KeyIds::Exact, audience)))
    }

    fn database(&mut self) -> Option<Address> {
        let text = self.text(&["db_uri"]).unwrap_or("postgresql://").to_owned();
        let text = self.or_file("db_uri", text)?;
        let sources = self.sources;
        match parse_connection(text.trim(), &|name| sources.environment.get(name).cloned()) {
            Ok(address) => Some(address),
            Err(fault) => {
                self.fault("db_uri", format_args!("cannot be used: {fault}"));
                None
            }
        }
    }

    /// `None` where nothing is said, or after a fault.
    fn listen(&mut self, host: &str, port: &str, socket: &str, default_port: Option<u16>) -> Option<Listen> {
        if let Some(path) = self.text(&[socket]).map(PathBuf::from) {
            let octal = |text: &str| u32::from_str_radix(text, 8).ok().filter(|mode| (0o600..=0o777).contains(mode));
            let mode = self.parsed(&format!("{socket}_mode"), "an octal mode from 600 to 777", octal);
            return Some(Listen::Unix { path, mode: mode.unwrap_or(0o660) });
        }
        let port = self.parsed(port, "a port", |text| text.parse().ok()).or(default_port)?;
        // The reference listens on all addresses; here nobody is served who was not meant.
        let name = match self.text(&[host]).unwrap_or("127.0.0.1") {
            "*" | "*4" | "!4" => "0.0.0.0".to_owned(),
            "*6" | "!6" => "::".to_owned(),
            name => name.to_owned(),
        };
        let found = (name.as_str(), port).to_socket_addrs().ok().and_then(|mut found| found.next());
        if found.is_none() {
            self.fault(host, format_args!("is {name:?}, which is no address"));
        }
        found.map(Listen::Tcp)
    }

    fn dump(&self) -> String {
        let sorted: BTreeMap<&String, &Said> = self.said.iter().collect();
        let mut text = String::new();
        for (name, said) in sorted {
            let secret = matches!(name.as_str(), "db_uri" | "jwt_secret");
            let value = if secret { "(secret)" } else { &said.text };
            text.push_str(&format!("{} = {value:?}\n", dashed(name)));
        }
        for name in self.app_settings.keys() {
            text.push_str(&format!("{name} = \"(secret)\"\n"));
        }
        text
    }
}

fn dashed(name: &str) -> String {
    name.replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(pairs: &[(&str, &str)]) -> Sources {
        let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Sources { file: None, environment }
    }

    #[test]
    fn the_database_wins_over_the_environment_and_that_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("postgrest.conf");
        let text = "db-schemas = \"one\"\ndb-max-rows = 5\ndb-anon-role = \"web\"\napp.settings.a = \"1\"\n";
        std::fs::write(&path, text).unwrap();
        let sources = Sources {
            file: Some(path),
            ..sources(&[("PGRST_DB_SCHEMAS", "two"), ("PGRST_DB_MAX_ROWS", "6"), ("PGRST_APP_SETTINGS_B", "2")])
        };
        let said = HashMap::from([("db_max_rows".to_owned(), "7".to_owned())]);
        let config = assemble(&sources, &said).unwrap();
        assert_eq!((config.rest.schemas, config.rest.max_rows), (vec!["two".to_owned()], Some(7)));
        assert_eq!(config.front.bearers.anonymous.as_deref(), Some("web"));
        let session: Vec<_> = config.rest.session.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(session, [("app.settings.a", "1"), ("app.settings.b", "2")]);
    }

    #[test]
    fn the_defaults_are_those_of_the_reference_but_the_address_is_private() {
        let config = assemble(&sources(&[]), &HashMap::new()).unwrap();
        assert_eq!(config.listen, Listen::Tcp("127.0.0.1:3000".parse().unwrap()));
        assert_eq!((config.admin, config.channel.as_deref()), (None, Some("pgrst")));
        assert_eq!((config.rest.max_rows, config.in_database, config.log), (None, true, Log::Faults));
        assert_eq!(config.remarks.len(), 1, "nobody can be let in");
    }

    #[test]
    fn all_faults_are_told_with_their_names() {
        let faults = assemble(
            &sources(&[
                ("PGRST_DB_TX_END", "never"),
                ("PGRST_JWT_SECRET", "short"),
                ("PGRST_SERVER_PORT", "high"),
                ("PGRST_LOG_LEVEL", "loud"),
                ("PGRST_DB_URI", "mysql://x"),
                ("PGRST_SERVER_UNIX_SOCKET_MODE", "660"),
                ("PGRST_ADMIN_SERVER_UNIX_SOCKET", "/tmp/x"),
                ("PGRST_ADMIN_SERVER_UNIX_SOCKET_MODE", "999"),
            ]),
            &HashMap::new(),
        )
        .unwrap_err();
        let text: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(text.len(), 6, "{text:#?}");
        assert!(text.iter().any(|line| line.contains("PGRST_DB_TX_END") && line.contains("db-tx-end")), "{text:#?}");
    }

    #[test]
    fn what_is_unknown_or_idle_is_remarked() {
        let config = assemble(
            &sources(&[
                ("PGRST_DB_ANON_ROLE", "anon"),
                ("PGRST_DB_POOL_MAX_LIFETIME", "10"),
                ("PGRST_DB_SCHEMES", "api"),
                ("PGRST_JWT_SECRET", "reallyreallyreallyreallyverysafe"),
            ]),
            &HashMap::new(),
        )
        .unwrap();
        let severities: Vec<Severity> = config.remarks.iter().map(|fault| fault.severity).collect();
        assert_eq!(severities, [Severity::Note, Severity::Warning, Severity::Warning]);
        assert!(!config.text.contains("really"), "{}", config.text);
    }

    #[test]
    fn keys_are_taken_in_all_forms() {
        let key = r#"{"kty":"oct","k":"cmVhbGx5cmVhbGx5cmVhbGx5cmVhbGx5dmVyeXNhZmU","kid":"a"}"#;
        let list = format!(r#"{{"keys":[{key}]}}"#);
        for secret in [key, list.as_str()] {
            let config = assemble(&sources(&[("PGRST_JWT_SECRET", secret)]), &HashMap::new()).unwrap();
            assert!(config.front.bearers.verifier.is_some());
        }
        let base64 =
            [("PGRST_JWT_SECRET", "cmVhbGx5cmVhbGx5cmVhbGx5cmVhbGx5dmVyeXNhZmU="), ("PGRST_JWT_SECRET_IS_BASE64", "1")];
        assert!(assemble(&sources(&base64), &HashMap::new()).is_ok());
        let nothing = [("PGRST_JWT_SECRET", r#"{"keys":[{"kty":"nothing"}]}"#)];
        assert!(assemble(&sources(&nothing), &HashMap::new()).is_err());
    }
}
