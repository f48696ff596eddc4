//! The data API: PostgREST's dialect over the tables and functions of a PostgreSQL.
//!
//! A request goes through parse → plan → query → execute → respond. Who the caller is has been decided
//! before; what the caller may see is decided by PostgreSQL. Not here: tokens, CORS, limits.

mod batch;
mod current;
mod error;
mod execute;
mod idempotency;
mod media;
mod openapi;
mod origin;
mod plan;
mod query;
mod respond;
mod rows;
mod settings;
mod timing;

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use ntier_backing::database::{Access, Database};
use ntier_protocol::rest::parse;
use ntier_protocol::rest::request::{MediaType, Request};
use ntier_security::caller::Caller;

pub use current::{Current, CurrentHandle, install, reload};
pub use error::Error;
pub use execute::quoted_name;
pub use settings::{Description, Fault, Limits, PublicUrl, Settings, TransactionPolicy, parse_flag, parse_list};

use execute::{Task, Transaction};
use idempotency::Key;
use origin::Origin;
use plan::{Plan, RowLimit};
use query::Columns;
use timing::{Stage, Timing};

/// The service: a database and what is known of it.
#[derive(Debug)]
pub struct Rest {
    pub database: Database,
    /// The catalog and the settings in force; see [`reload`].
    pub current: CurrentHandle,
    /// The settings as they were given, before the database has its say.
    pub settings: Settings,
}

impl Rest {
    pub fn new(database: Database, settings: Settings) -> Self {
        Self { database, current: CurrentHandle::default(), settings }
    }
}

/// Who asks, and how long it took to find out.
#[derive(Debug, Clone, Copy)]
pub struct Identified<'a> {
    pub caller: &'a Caller,
    pub took: Duration,
}

/// Answers a request whose path begins behind the API's prefix. It never fails: errors are answers too.
pub async fn answer(rest: &Rest, who: Identified<'_>, http: http::Request<Bytes>) -> Response<Bytes> {
    let (head, body) = http.into_parts();
    let mut timing = Timing::begin(who.took);
    match pipeline(rest, who.caller, &head, body, &mut timing).await {
        Ok(response) => respond::varied(response),
        Err(Error::Operation { index, error }) => respond::failed_operation(index, &error, who.caller.is_anonymous),
        Err(error) => {
            let verbose = rest.current.get().is_none_or(|current| current.settings.verbose_errors);
            respond::error(&error, who.caller.is_anonymous, verbose)
        }
    }
}

async fn pipeline(
    rest: &Rest,
    caller: &Caller,
    head: &Parts,
    body: Bytes,
    timing: &mut Timing,
) -> Result<Response<Bytes>, Error> {
    let current = current::get(rest).await?;
    let settings = &current.settings;
    if batch::is_one(head) {
        return batch::answer(rest, &current, caller, head, &body).await;
    }
    let key =
        if settings.idempotency && head.method != http::Method::GET { Key::of(head, &body, caller)? } else { None };
    let request = &parse(head, body)?;
    timing.ends(Stage::Parse);
    let schema = schema(request, settings)?;
    let plan = plan::request(request, schema, &current.catalog, settings)?;
    timing.ends(Stage::Plan);
    let context = respond::Context { request, schema, settings, has_key: false };
    let transaction = Transaction {
        database: &rest.database,
        current: &current,
        caller,
        origin: &Origin::of(head),
        schema,
        timezone: request.preferences.timezone.as_deref(),
        end: Plan::transaction_end(request.preferences.transaction, settings),
    };
    let mut response = match &plan {
        Plan::Read(plan) => read(&transaction, context, plan, timing).await,
        Plan::Mutate(plan) => mutate(&transaction, context, plan, key, timing).await,
        Plan::Call(plan) => call(&transaction, context, plan, key, timing).await,
        Plan::Info(info) => Ok(respond::info(info)),
        Plan::Describe { head } => describe(&transaction, context, *head, timing).await,
    }?;
    respond::warn(&mut response, &plan::legacy_names(request, settings));
    if settings.server_timing {
        timing.ends(Stage::Response);
        respond::timing(&mut response, timing);
    }
    Ok(response)
}

/// What was asked.
fn parse(head: &Parts, body: Bytes) -> Result<Request, Error> {
    let headers: Vec<(&str, &str)> = head
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), std::str::from_utf8(value.as_bytes()).ok()?)))
        .collect();
    let parts = parse::Parts {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        headers: &headers,
        body: body.into(),
    };
    Ok(parse::request(parts)?)
}

async fn read(
    transaction: &Transaction<'_>,
    context: respond::Context<'_>,
    plan: &plan::Read,
    timing: &mut Timing,
) -> Result<Response<Bytes>, Error> {
    if explains(&plan.media) {
        let body = transaction.explain(Access::ReadOnly, query::read(plan, RowLimit::None, false)).await?;
        timing.ends(Stage::Transaction);
        return Ok(respond::explain(context, &plan.media, body));
    }
    let plain = match query::plain::read(plan, &transaction.current.catalog) {
        Some(statement) => transaction.rows(plan, statement).await?,
        None => None,
    };
    let outcome = if let Some(outcome) = plain {
        outcome
    } else {
        let planned = query::planned_count(plan);
        let task = Task::new(Access::ReadOnly, query::read(plan, RowLimit::None, false), Columns::READ);
        transaction.run(Task { planned, is_binary: plan.media.is_binary(), ..task }).await?
    };
    timing.ends(Stage::Transaction);
    // Nothing was written, so there is nothing to undo: looking at the number afterwards is enough.
    if matches!(plan.media.media_type, MediaType::Object { .. }) && outcome.rows != 1 {
        return Err(Error::NotSingular(outcome.rows));
    }
    respond::read(context, plan, &outcome)
}

async fn mutate(
    transaction: &Transaction<'_>,
    context: respond::Context<'_>,
    plan: &plan::Mutate,
    key: Option<Key>,
    timing: &mut Timing,
) -> Result<Response<Bytes>, Error> {
    if explains(&plan.media) {
        let body = transaction.explain(Access::ReadWrite, query::mutate(plan, false)).await?;
        timing.ends(Stage::Transaction);
        return Ok(respond::explain(context, &plan.media, body));
    }
    let plain = if key.is_none() { query::plain::insert(plan, &transaction.current.catalog) } else { None };
    let (outcome, again) = if let Some(statement) = plain {
        (transaction.insert(statement, plan.is_brief).await?, false)
    } else {
        let task = Task::new(Access::ReadWrite, query::mutate(plan, key.is_some()), Columns::CHANGE);
        let task = Task { is_binary: plan.media.is_binary(), is_brief: plan.is_brief, ..task };
        run(transaction, task, key.as_ref()).await.map_err(|error| limited(error, plan.limit))?
    };
    timing.ends(Stage::Transaction);
    let context = respond::Context { has_key: plan.has_key, ..context };
    respond::mutate(context, plan, &outcome).map(|response| respond::replayed(response, again))
}

async fn call(
    transaction: &Transaction<'_>,
    context: respond::Context<'_>,
    plan: &plan::Call,
    key: Option<Key>,
    timing: &mut Timing,
) -> Result<Response<Bytes>, Error> {
    let access = if plan.read_only { Access::ReadOnly } else { Access::ReadWrite };
    if explains(&plan.media) {
        let body = transaction.explain(access, query::call(plan, false)).await?;
        timing.ends(Stage::Transaction);
        return Ok(respond::explain(context, &plan.media, body));
    }
    // What only reads may be asked twice.
    let key = key.filter(|_| !plan.read_only);
    let settings = plan.function.settings.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let columns = if key.is_some() { Columns::CHANGE } else { Columns::READ };
    let task = Task::new(access, query::call(plan, key.is_some()), columns);
    let task = Task { function_settings: settings, is_binary: plan.media.is_binary(), ..task };
    let (outcome, again) = run(transaction, task, key.as_ref()).await.map_err(|error| limited(error, plan.limit))?;
    timing.ends(Stage::Transaction);
    respond::call(context, plan, &outcome).map(|response| respond::replayed(response, again))
}

/// The outcome of a write, and whether it is that of an earlier request with the same key.
async fn run(transaction: &Transaction<'_>, task: Task, key: Option<&Key>) -> Result<(execute::Outcome, bool), Error> {
    match key {
        Some(key) => transaction.run_once(task, key).await,
        None => Ok((transaction.run(task).await?, false)),
    }
}

async fn describe(
    transaction: &Transaction<'_>,
    context: respond::Context<'_>,
    head: bool,
    timing: &mut Timing,
) -> Result<Response<Bytes>, Error> {
    let follow_privileges = match context.settings.description {
        Description::Disabled => return Err(Error::DescriptionDisabled),
        Description::FollowPrivileges => true,
        Description::Everything => false,
    };
    let visible = transaction.visible(query::visible(context.schema), follow_privileges).await?;
    timing.ends(Stage::Transaction);
    let document = openapi::document(transaction.current, context.schema, &visible);
    Ok(respond::description(context, head, document))
}

/// The schema that the request speaks to: the one it names, or the first.
fn schema<'a>(request: &'a Request, settings: &'a Settings) -> Result<&'a str, Error> {
    match &request.profile {
        Some(asked) if settings.schemas.contains(asked) => Ok(asked),
        None if !settings.schemas.is_empty() => Ok(&settings.schemas[0]),
        asked => {
            Err(Error::SchemaNotExposed { asked: asked.clone().unwrap_or_default(), exposed: settings.schemas.clone() })
        }
    }
}

fn explains(media: &plan::Media) -> bool {
    matches!(media.media_type, MediaType::Plan { .. })
}

/// The transaction was undone because too many or too few rows were touched.
fn limited(error: Error, limit: RowLimit) -> Error {
    let Error::Database(refused) = &error else { return error };
    if respond::has_duplicates(refused) {
        return Error::DuplicateRows;
    }
    let Some(rows) = respond::broken_limit(refused) else { return error };
    match limit {
        RowLimit::MatchingKey => Error::PutMismatch,
        RowLimit::ExactlyOne | RowLimit::ExactlyOneAndAtMost(_) if rows != 1 => Error::NotSingular(rows),
        RowLimit::AtMost(_) | RowLimit::ExactlyOneAndAtMost(_) => Error::TooManyAffected(rows),
        RowLimit::ExactlyOne | RowLimit::None => error,
    }
}
