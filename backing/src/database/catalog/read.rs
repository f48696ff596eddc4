//! Asks the questions and puts the answers together.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::relationships::{Computed, Key, relationships, view_primary_keys};
use super::views::{View, origins};
use super::{Catalog, Function, MediaHandler, Name, Table, queries};
use crate::database::{self, Access, Answer, Batch, Database, Statement};

/// Reading the catalog of a very large database takes a while.
const DEADLINE: Duration = Duration::from_mins(1);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the catalog could not be read: {0}")]
    Database(#[from] database::Error),
    #[error("the catalog's answer could not be understood: {0}")]
    Answer(#[from] serde_json::Error),
}

/// What of the database is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Exposure<'a> {
    pub schemas: &'a [String],
    /// Views in these are looked through, not exposed.
    pub extra_search_path: &'a [String],
    /// A request may become what this role may become; `None` where PostgreSQL alone decides.
    pub authenticator: Option<&'a str>,
    /// Settings of functions that are made before a call.
    pub hoisted: &'a [String],
}

/// Reads the catalog of the exposed schemas.
pub async fn load(database: &Database, exposure: Exposure<'_>) -> Result<Catalog, Error> {
    let Exposure { schemas, extra_search_path, authenticator, hoisted } = exposure;
    let authenticator = authenticator.map(|name| Bytes::copy_from_slice(name.as_bytes()));
    let exposed = Some(Bytes::from(array_literal(schemas)));
    let extra = Some(Bytes::from(array_literal(extra_search_path)));
    let ask = |text: &str, parameters: Vec<Option<Bytes>>| Statement { text: text.into(), parameters };
    let answer = run(
        database,
        vec![
            ask(queries::EMPTY_SEARCH_PATH, vec![]),
            ask(queries::TABLES, vec![exposed.clone()]),
            ask(queries::KEYS, vec![]),
            ask(queries::VIEWS, vec![exposed.clone(), extra]),
            ask(queries::COMPUTED, vec![]),
            ask(queries::FUNCTIONS, vec![exposed.clone(), Some(Bytes::from(array_literal(hoisted)))]),
            ask(queries::REPRESENTATIONS, vec![]),
            ask(queries::MEDIA_HANDLERS, vec![exposed]),
            ask(queries::ROLE_SETTINGS, vec![]),
            ask(queries::ROLES, vec![authenticator]),
            ask(queries::SETS_RESPONSE, vec![]),
        ],
    )
    .await?;

    let keys: Vec<Key> = value(&answer, 2)?;
    let views: Vec<View> = value(&answer, 3)?;
    let computed: Vec<Computed> = value(&answer, 4)?;
    let origins = origins(&views);
    let tables = tables(value(&answer, 1)?, view_primary_keys(&keys, &origins));
    Ok(Catalog {
        relationships: relationships(&keys, &origins, &computed, &tables, schemas),
        tables,
        functions: functions(value(&answer, 5)?),
        representations: representations(value(&answer, 6)?),
        media_handlers: media_handlers(value(&answer, 7)?),
        role_settings: role_settings(value(&answer, 8)?),
        roles: value(&answer, 9)?,
        sets_response: value(&answer, 10)?,
    })
}

/// Names under which the database may configure the data API.
const NAMES: [&str; 25] = [
    "client_error_verbosity",
    "db_aggregates_enabled",
    "db_anon_role",
    "db_extra_search_path",
    "db_hoisted_tx_settings",
    "db_max_rows",
    "db_plan_enabled",
    "db_pre_config",
    "db_pre_request",
    "db_prepared_statements",
    "db_root_spec",
    "db_schemas",
    "db_tx_end",
    "jwt_aud",
    "jwt_cache_max_entries",
    "jwt_role_claim_key",
    "jwt_secret",
    "jwt_secret_is_base64",
    "openapi_mode",
    "openapi_security_active",
    "openapi_server_proxy_uri",
    "server_cors_allowed_origins",
    "server_timing_enabled",
    "server_trace_header",
    "url_use_legacy_target_names",
];

/// What `ALTER ROLE … SET pgrst.…` says of the connection's own role, or else of the role `besides`, without the prefix. The
/// function `pre_config` (quoted) is called first; what it sets counts where the roles say nothing.
pub async fn configuration(
    database: &Database,
    besides: Option<&str>,
    pre_config: Option<&str>,
) -> Result<HashMap<String, String>, Error> {
    let besides = besides.map(|name| Bytes::copy_from_slice(name.as_bytes()));
    let question = Statement { text: queries::CONFIGURATION.into(), parameters: vec![besides] };
    let Some(function) = pre_config else {
        let answer = run(database, vec![question]).await?;
        return value(&answer, 0);
    };
    let call = Statement { text: format!("select {function}()").into(), parameters: vec![] };
    let names = NAMES.map(str::to_owned);
    let set = Some(Bytes::from(array_literal(&names)));
    let set = Statement { text: queries::PRE_CONFIGURATION.into(), parameters: vec![set] };
    let answer = run(database, vec![question, call, set]).await?;
    let mut said: HashMap<String, String> = value(&answer, 2)?;
    said.extend(value::<HashMap<String, String>>(&answer, 0)?);
    Ok(said)
}

async fn run(database: &Database, statements: Vec<Statement>) -> Result<Answer, database::Error> {
    let batch = Batch { statements, access: Access::ReadOnly, deadline: DEADLINE, ..Batch::default() };
    database.run(batch).await
}

fn value<T: DeserializeOwned>(answer: &Answer, statement: usize) -> Result<T, Error> {
    let row = answer.results.get(statement).and_then(|result| result.rows.first());
    let text = row.and_then(|row| row.text(0)).unwrap_or("null");
    Ok(serde_json::from_str(text)?)
}

fn tables(list: Vec<Table>, mut view_keys: HashMap<Name, Vec<String>>) -> HashMap<Name, Table> {
    let with_key = |mut table: Table| {
        if table.is_view {
            table.primary_key = view_keys.remove(&table.name).unwrap_or_default();
        }
        (table.name.clone(), table)
    };
    list.into_iter().map(with_key).collect()
}

fn functions(list: Vec<Function>) -> HashMap<Name, Vec<Function>> {
    let mut map: HashMap<Name, Vec<Function>> = HashMap::new();
    for function in list {
        map.entry(function.name.clone()).or_default().push(function);
    }
    for overloads in map.values_mut() {
        overloads.sort_by(|a, b| {
            let order = |f: &Function| (f.arguments.len(), f.description.clone());
            order(a).cmp(&order(b)).then_with(|| a.arguments.cmp(&b.arguments))
        });
    }
    map
}

fn representations(list: Vec<(String, String, String)>) -> HashMap<(String, String), String> {
    list.into_iter().map(|(source, target, function)| ((source, target), function)).collect()
}

#[derive(Deserialize)]
struct Handler {
    function: Name,
    target: Option<Name>,
    media_type: String,
    is_binary: bool,
}

fn media_handlers(list: Vec<Handler>) -> HashMap<(Option<Name>, String), MediaHandler> {
    let entry = |handler: Handler| {
        let resolved = if handler.media_type == "*/*" { "application/octet-stream" } else { &handler.media_type };
        let media_type = resolved.to_owned();
        let renderer = MediaHandler { function: handler.function, media_type, is_binary: handler.is_binary };
        ((handler.target, handler.media_type), renderer)
    };
    list.into_iter().map(entry).collect()
}

fn role_settings(list: Vec<(String, String, String)>) -> HashMap<String, Vec<(String, String)>> {
    let mut map: HashMap<String, Vec<(String, String)>> = HashMap::new();
    for (role, key, value) in list {
        map.entry(role).or_default().push((key, value));
    }
    map
}

/// `{"a","b"}` with quotes and backslashes escaped.
fn array_literal(items: &[String]) -> String {
    let quoted = |item: &String| format!("\"{}\"", item.replace('\\', "\\\\").replace('"', "\\\""));
    format!("{{{}}}", items.iter().map(quoted).collect::<Vec<_>>().join(","))
}
