//! What the data API is told: assembled and checked elsewhere, except for what the database itself says
//! with `ALTER ROLE authenticator SET pgrst.…`.

use std::collections::HashMap;
use std::time::Duration;

use ntier_protocol::rest::request::TransactionEnd;

#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The exposed schemas; the first is the default.
    pub schemas: Vec<String>,
    /// Further schemas in the search path of every request.
    pub extra_search_path: Vec<String>,
    /// No answer has more rows.
    pub max_rows: Option<u64>,
    /// The role of callers without a token; an insufficient privilege is then a 401.
    pub anon_role: String,
    pub aggregates: bool,
    /// Whether execution plans may be asked for.
    pub plan: bool,
    /// Filters may call an embedded relation by its name although it has an alias.
    pub legacy_target_names: bool,
    pub description: Description,
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
            anon_role: "anon".into(),
            aggregates: false,
            plan: false,
            legacy_target_names: true,
            description: Description::FollowPrivileges,
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
        let flag = |key: &str| said.get(key).and_then(|value| parse_flag(value));
        self.aggregates = flag("db_aggregates_enabled").unwrap_or(self.aggregates);
        self.plan = flag("db_plan_enabled").unwrap_or(self.plan);
        if let Some(value) = said.get("db_max_rows") {
            self.max_rows = value.parse().ok().or(self.max_rows);
        }
        if let Some(value) = said.get("db_pre_request") {
            self.pre_request = Some(value.clone()).filter(|name| !name.is_empty());
        }
        if let Some(list) = said.get("db_schemas").map(|value| parse_list(value)).filter(|list| !list.is_empty()) {
            self.schemas = list;
        }
        if let Some(value) = said.get("db_extra_search_path") {
            self.extra_search_path = parse_list(value);
        }
        if let Some(policy) = said.get("db_tx_end").and_then(|value| TransactionPolicy::parse(value)) {
            self.transaction_end = policy;
        }
        self
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

fn parse_flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Some(true),
        "false" | "off" | "no" | "0" => Some(false),
        _ => None,
    }
}

fn parse_list(text: &str) -> Vec<String> {
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
}
