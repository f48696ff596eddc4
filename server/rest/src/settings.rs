//! What the data API is told: by our own settings, or under PostgREST's names, as the database itself may say it with
//! `ALTER ROLE authenticator SET pgrst.…`.

use std::collections::HashMap;
use std::time::Duration;

use ntier_protocol::rest::request::TransactionEnd;

pub use crate::plan::cost::Limits;

#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "switches that are set one by one")]
pub struct Settings {
    /// The exposed schemas; the first is the default.
    pub schemas: Vec<String>,
    /// Further schemas in the search path of every request.
    pub extra_search_path: Vec<String>,
    /// No answer has more rows.
    pub max_rows: Option<u64>,
    /// What one request may ask of the database at most.
    pub limits: Limits,
    pub aggregates: bool,
    /// Whether execution plans may be asked for.
    pub plan: bool,
    /// Filters may call an embedded relation by its name although it has an alias.
    pub legacy_target_names: bool,
    pub description: Description,
    /// The description says that tokens are taken.
    pub describes_security: bool,
    /// The address that the description names, where a proxy stands in front.
    pub public_url: Option<PublicUrl>,
    /// A function that answers at the root instead of the description.
    pub root: Option<String>,
    /// Errors have `details` and `hint`.
    pub verbose_errors: bool,
    /// Answers say in `Server-Timing` where the time went.
    pub server_timing: bool,
    /// Settings of a function that are made before it is called.
    pub hoisted: Vec<String>,
    /// Writes with an `Idempotency-Key` are remembered, in a table of our own.
    pub idempotency: bool,
    pub transaction_end: TransactionPolicy,
    /// A function to call before each request, perhaps with its schema.
    pub pre_request: Option<String>,
    /// Settings for every transaction, such as `app.settings.name`.
    pub session: Vec<(String, String)>,
    pub deadline: Duration,
    /// The role whose memberships say which roles a token may name. `None` where the database's own connection is that role, and
    /// PostgreSQL refuses by itself.
    pub authenticator: Option<String>,
}

/// Whether and how the root describes the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Description {
    /// What the caller has privileges on.
    FollowPrivileges,
    Everything,
    Disabled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionPolicy {
    pub default: TransactionEnd,
    /// Whether `Prefer: tx=…` is heard.
    pub overridable: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            schemas: vec!["public".into()],
            extra_search_path: vec!["public".into(), "extensions".into()],
            max_rows: Some(1000),
            limits: Limits::default(),
            aggregates: false,
            plan: false,
            legacy_target_names: true,
            description: Description::FollowPrivileges,
            describes_security: false,
            public_url: None,
            root: None,
            verbose_errors: true,
            server_timing: false,
            hoisted: HOISTED.iter().map(|&name| name.into()).collect(),
            idempotency: false,
            transaction_end: TransactionPolicy { default: TransactionEnd::Commit, overridable: false },
            pre_request: None,
            session: Vec::new(),
            deadline: Duration::from_mins(1),
            authenticator: None,
        }
    }
}

impl Settings {
    /// With what the database says about itself. A value that cannot be understood changes nothing.
    #[must_use]
    pub fn with_database(mut self, said: &HashMap<String, String>) -> Self {
        self.apply(&|name| said.get(name).cloned());
        self
    }

    /// Takes what is said under PostgREST's names, written with underscores: `db_max_rows`. An empty text says nothing, except
    /// of lists that may be empty. Gives the faults; a faulty value changes nothing.
    pub fn apply(&mut self, said: &dyn Fn(&str) -> Option<String>) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |name: &'static str, message: &str| faults.push(Fault { name, message: message.to_owned() });
        let text = |name: &str| said(name).filter(|value| !value.is_empty());
        let mut flag = |name: &'static str, place: &mut bool| match text(name).map(|value| parse_flag(&value)) {
            Some(Some(value)) => *place = value,
            Some(None) => fault(name, "is not true or false"),
            None => {}
        };
        flag("db_aggregates_enabled", &mut self.aggregates);
        flag("db_plan_enabled", &mut self.plan);
        flag("url_use_legacy_target_names", &mut self.legacy_target_names);
        flag("openapi_security_active", &mut self.describes_security);
        flag("server_timing_enabled", &mut self.server_timing);
        if let Some(value) = text("db_max_rows").or_else(|| text("max_rows")) {
            match value.parse() {
                Ok(rows) => self.max_rows = Some(rows),
                Err(_) => fault("db_max_rows", "is not a number"),
            }
        }
        for (name, place) in [
            ("max_embedding_depth", &mut self.limits.depth),
            ("max_embeddings", &mut self.limits.embeds),
            ("max_filters", &mut self.limits.filters),
            ("max_in_values", &mut self.limits.values),
        ] {
            match text(name).map(|value| value.parse()) {
                Some(Ok(count)) => *place = count,
                Some(Err(_)) => fault(name, "is not a number"),
                None => {}
            }
        }
        if let Some(value) = text("db_pre_request").or_else(|| text("pre_request")) {
            self.pre_request = Some(value);
        }
        if let Some(value) = text("db_root_spec").or_else(|| text("root_spec")) {
            self.root = Some(value);
        }
        if let Some(value) = text("db_schemas").or_else(|| text("db_schema")) {
            let list = parse_list(&value);
            match list.iter().find(|name| matches!(name.as_str(), "pg_catalog" | "information_schema")) {
                Some(name) => fault("db_schemas", &format!("does not allow schema: '{name}'")),
                None => self.schemas = list,
            }
        }
        if let Some(value) = said("db_extra_search_path") {
            self.extra_search_path = parse_list(&value);
        }
        if let Some(value) = text("db_hoisted_tx_settings") {
            self.hoisted = parse_list(&value);
        }
        if let Some(value) = text("db_tx_end") {
            match TransactionPolicy::parse(&value) {
                Some(policy) => self.transaction_end = policy,
                None => {
                    fault("db_tx_end", "is none of commit, commit-allow-override, rollback, rollback-allow-override");
                }
            }
        }
        match text("openapi_mode").as_deref() {
            None => {}
            Some("follow-privileges") => self.description = Description::FollowPrivileges,
            Some("ignore-privileges") => self.description = Description::Everything,
            Some("disabled") => self.description = Description::Disabled,
            Some(_) => fault("openapi_mode", "is none of follow-privileges, ignore-privileges, disabled"),
        }
        if let Some(value) = text("openapi_server_proxy_uri") {
            match PublicUrl::parse(&value) {
                Some(url) => self.public_url = Some(url),
                None => fault("openapi_server_proxy_uri", "is not like https://example.com:8443/basePath"),
            }
        }
        match text("client_error_verbosity").as_deref() {
            None => {}
            Some("verbose") => self.verbose_errors = true,
            Some("minimal") => self.verbose_errors = false,
            Some(_) => fault("client_error_verbosity", "is neither verbose nor minimal"),
        }
        faults
    }
}

/// Settings of functions that PostgREST makes before a call, unless it is told otherwise.
const HOISTED: [&str; 3] = ["statement_timeout", "plan_filter.statement_cost_limit", "default_transaction_isolation"];

/// A value that could not be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// As PostgREST names it, with underscores.
    pub name: &'static str,
    pub message: String,
}

/// Where clients find the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    /// `http` or `https`.
    pub scheme: String,
    pub host: String,
    pub port: u16,
    /// With its slash.
    pub path: String,
}

impl PublicUrl {
    /// An absolute URL without user and query.
    pub fn parse(text: &str) -> Option<Self> {
        let url: http::Uri = text.parse().ok()?;
        let scheme = url.scheme_str()?.to_ascii_lowercase();
        let authority = url.authority()?;
        if authority.as_str().contains('@') || url.query().is_some() || url.host()?.is_empty() {
            return None;
        }
        let port = match (authority.port(), scheme.as_str()) {
            (Some(port), "http" | "https") => port.as_str().parse().ok().filter(|port| *port > 0)?,
            (None, "http") => 80,
            (None, "https") => 443,
            _ => return None,
        };
        Some(Self { scheme, host: authority.host().to_owned(), port, path: url.path().to_owned() })
    }
}

impl TransactionPolicy {
    /// As PostgREST's `db-tx-end` names them.
    pub fn parse(text: &str) -> Option<Self> {
        let (default, overridable) = match text {
            "commit" => (TransactionEnd::Commit, false),
            "commit-allow-override" => (TransactionEnd::Commit, true),
            "rollback" => (TransactionEnd::Rollback, false),
            "rollback-allow-override" => (TransactionEnd::Rollback, true),
            _ => return None,
        };
        Some(Self { default, overridable })
    }
}

/// As PostgREST reads it: in any case, in quotes, or as a number.
pub fn parse_flag(text: &str) -> Option<bool> {
    let letters: String = text.chars().filter(|c| c.is_alphabetic()).flat_map(char::to_lowercase).collect();
    match letters.as_str() {
        "true" | "on" | "yes" => Some(true),
        "false" | "off" | "no" => Some(false),
        _ => text.trim().parse::<i64>().ok().map(|number| number > 0),
    }
}

/// Names between commas.
pub fn parse_list(text: &str) -> Vec<String> {
    text.split(',').map(|item| item.trim().trim_matches('"').to_owned()).filter(|item| !item.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_can_change_settings() {
        let said = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let changed = Settings::default().with_database(&said(&[
            ("db_aggregates_enabled", "true"),
            ("db_max_rows", "5"),
            ("db_schemas", "api, \"Other\""),
            ("db_tx_end", "commit-allow-override"),
            ("db_plan_enabled", "perhaps"),
        ]));
        assert!(changed.aggregates && !changed.plan && changed.transaction_end.overridable);
        assert_eq!(changed.max_rows, Some(5));
        assert_eq!(changed.schemas, ["api", "Other"]);
    }

    #[test]
    fn faults_are_named_and_change_nothing() {
        let said = |name: &str| match name {
            "db_max_rows" => Some("many".to_owned()),
            "db_schemas" => Some("api,pg_catalog".to_owned()),
            "openapi_mode" => Some("sometimes".to_owned()),
            "openapi_server_proxy_uri" => Some("https://user@example.com".to_owned()),
            "server_timing_enabled" => Some("1".to_owned()),
            _ => None,
        };
        let mut settings = Settings::default();
        let names: Vec<_> = settings.apply(&said).into_iter().map(|fault| fault.name).collect();
        assert_eq!(names, ["db_max_rows", "db_schemas", "openapi_mode", "openapi_server_proxy_uri"]);
        assert_eq!(settings, Settings { server_timing: true, ..Settings::default() });
    }

    #[test]
    fn public_urls_are_absolute() {
        let url = PublicUrl::parse("https://example.com/openapi.json").unwrap();
        assert_eq!((url.scheme.as_str(), url.host.as_str(), url.port), ("https", "example.com", 443));
        assert_eq!(url.path, "/openapi.json");
        assert_eq!(PublicUrl::parse("http://example.com").unwrap().path, "/");
        for text in
            ["example.com", "/a", "ftp://example.com", "http://u@example.com", "http://example.com?a", "http://h:0"]
        {
            assert_eq!(PublicUrl::parse(text), None, "{text}");
        }
    }
}
