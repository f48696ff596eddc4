//! Several requests in one transaction: all of them happen, or none.
//!
//! `POST /` with the media type below, which nobody sends to PostgREST. Each operation is a request of its own, in order, by the
//! same caller and under the same policies; it sees what those before it have done. The first that fails undoes all, and its error
//! is the answer. With an `Idempotency-Key` the whole batch has one effect.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Response, Uri};
use ntier_backing::database::{self, Access, Statement};
use ntier_protocol::rest::request::{Count, MediaType, Request, TransactionEnd};
use ntier_security::caller::Caller;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::current::Current;
use crate::error::Error;
use crate::execute::{Outcome, Transaction};
use crate::idempotency::Key;
use crate::origin::Origin;
use crate::plan::{self, Media, Plan, RowLimit};
use crate::query::{self, Columns, sql};
use crate::{Rest, explains, limited, parse, respond, schema};

/// What makes a request a batch.
const MEDIA_TYPE: &str = "application/vnd.ntier.batch+json";
/// Operations in one batch, at most.
pub const MOST: usize = 100;
/// What an operation inherits from the request around it, unless it says otherwise.
const INHERITED: [&str; 2] = ["accept-profile", "content-profile"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    #[serde(borrow)]
    operations: Vec<Operation<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation<'a> {
    method: String,
    /// Behind the API's prefix, with its query: `/films?id=eq.1`.
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

/// An operation that is ready to run.
struct Prepared {
    origin: Origin,
    schema: String,
    request: Request,
    part: Part,
}

/// What an operation may be.
enum Part {
    Read(Box<plan::Read>),
    Mutate(Box<plan::Mutate>),
    Call(Box<plan::Call>),
}

pub fn is_one(head: &Parts) -> bool {
    let media_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    head.method == Method::POST && head.uri.path() == "/" && essence.eq_ignore_ascii_case(MEDIA_TYPE)
}

pub async fn answer(
    rest: &Rest,
    current: &Current,
    caller: &Caller,
    head: &Parts,
    body: &[u8],
) -> Result<Response<Bytes>, Error> {
    let settings = &current.settings;
    let key = if settings.idempotency { Key::of(head, body, caller)? } else { None };
    let batch: Body<'_> = serde_json::from_slice(body).map_err(|fault| Error::Batch(fault.to_string()))?;
    if batch.operations.len() > MOST {
        return Err(Error::BatchTooLong(batch.operations.len()));
    }
    let of = |index| move |error| Error::Operation { index, error: Box::new(error) };
    let mut prepared = Vec::with_capacity(batch.operations.len());
    for (index, operation) in batch.operations.iter().enumerate() {
        prepared.push(prepare(operation, head, current).map_err(of(index))?);
    }
    let preferred = head.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let preferences = ntier_protocol::rest::preferences(preferred);
    let transaction = Transaction {
        database: &rest.database,
        current,
        caller,
        origin: &Origin::of(head),
        schema: settings.schemas.first().map_or("public", String::as_str),
        timezone: preferences.timezone.as_deref(),
        end: Plan::transaction_end(preferences.transaction, settings),
    };
    let (outcomes, again) = run(&transaction, &prepared, key.as_ref()).await?;
    let mut results = Vec::with_capacity(prepared.len());
    for (index, (one, outcome)) in prepared.iter().zip(&outcomes).enumerate() {
        results.push(result(respond(one, outcome, current).map_err(of(index))?));
    }
    let mut response = Response::new(Bytes::from(json!({ "results": results }).to_string()));
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, json);
    if settings.transaction_end.overridable && transaction.end == TransactionEnd::Rollback {
        let applied = HeaderValue::from_static("tx=rollback");
        response.headers_mut().insert(HeaderName::from_static("preference-applied"), applied);
    }
    Ok(respond::replayed(response, again))
}

fn prepare(operation: &Operation<'_>, outer: &Parts, current: &Current) -> Result<Prepared, Error> {
    let not = |what: &str| Error::Batch(format!("{what} of an operation is not understood"));
    let uri: Uri = operation.path.parse().map_err(|_| not("the path"))?;
    if uri.authority().is_some() || !operation.path.starts_with('/') {
        return Err(not("the path"));
    }
    let method = Method::from_bytes(operation.method.as_bytes()).map_err(|_| not("the method"))?;
    let (mut head, ()) = http::Request::new(()).into_parts();
    head.method = method;
    head.uri = uri;
    head.headers = headers(operation, outer).ok_or_else(|| not("a header"))?;
    let body = operation.body.map(|body| Bytes::copy_from_slice(body.get().as_bytes())).unwrap_or_default();
    let request = parse(&head, body)?;
    let schema = schema(&request, &current.settings)?.to_owned();
    let part = match plan::request(&request, &schema, &current.catalog, &current.settings)? {
        Plan::Read(plan) => Part::Read(plan),
        Plan::Mutate(plan) => Part::Mutate(plan),
        Plan::Call(plan) => Part::Call(plan),
        Plan::Info(_) | Plan::Describe { .. } => return Err(Error::NotInBatch("OPTIONS and the description")),
    };
    if explains(part.media()) {
        return Err(Error::NotInBatch("an execution plan"));
    }
    if matches!(&part, Part::Read(plan) if matches!(plan.count, Some(Count::Planned | Count::Estimated))) {
        return Err(Error::NotInBatch("a count other than exact"));
    }
    Ok(Prepared { origin: Origin::of(&head), schema, request, part })
}

fn headers(operation: &Operation<'_>, outer: &Parts) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for name in INHERITED {
        headers.extend(outer.headers.get(name).map(|value| (HeaderName::from_static(name), value.clone())));
    }
    for (name, value) in &operation.headers {
        headers.insert(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
    }
    Some(headers)
}

/// Runs all in one transaction, in one round trip.
async fn run(
    transaction: &Transaction<'_>,
    prepared: &[Prepared],
    key: Option<&Key>,
) -> Result<(Vec<Outcome>, bool), Error> {
    let mut statements = Vec::new();
    // Where the statements of each begin, and which is the main one.
    let mut places = Vec::with_capacity(prepared.len());
    for one in prepared {
        let begin = statements.len();
        statements.push(transaction_settings(one, transaction));
        statements.extend(transaction.before());
        places.push((begin, statements.len()));
        statements.push(one.part.statement(key.is_some()));
        if key.is_some() {
            statements.push(plain(REMEMBER));
        }
    }
    let reads = prepared.iter().all(|one| matches!(one.part, Part::Read(_))) && key.is_none();
    let access = if reads { Access::ReadOnly } else { Access::ReadWrite };
    let columns: Vec<Columns> = prepared.iter().map(|one| one.part.columns(key.is_some())).collect();
    let mains: Vec<usize> = places.iter().map(|(_, main)| *main).collect();
    let ran = transaction.run_all(access, statements, key, &mains, &columns).await;
    ran.map_err(|(error, after)| match (&error, after) {
        (Error::Database(database::Error::Refused(_)), Some(after)) => {
            let index = places.iter().rposition(|(begin, _)| *begin <= after).unwrap_or_default();
            let limit = prepared.get(index).map_or(RowLimit::None, |one| one.part.limit());
            Error::Operation { index, error: Box::new(limited(error, limit)) }
        }
        _ => error,
    })
    .map(|(mut outcomes, again)| {
        for (outcome, one) in outcomes.iter_mut().zip(prepared) {
            if one.part.media().is_binary() {
                outcome.make_binary();
            }
        }
        (outcomes, again)
    })
}

/// Puts the row that the main statement left beside those of the operations before it.
const REMEMBER: &str = "SELECT set_config('ntier.answers', concat_ws(',', nullif(current_setting('ntier.answers', true), ''), \
    current_setting('ntier.answer')), true)";

fn plain(text: &str) -> Statement {
    Statement { text: text.into(), parameters: Vec::new() }
}

/// What the operation may know of itself, and nothing of what those before it said of their responses.
fn transaction_settings(one: &Prepared, transaction: &Transaction<'_>) -> Statement {
    let path = std::iter::once(one.schema.as_str())
        .chain(transaction.current.settings.extra_search_path.iter().map(String::as_str));
    let mut settings = vec![
        ("search_path".to_owned(), sql::identifier_list(path)),
        ("request.method".to_owned(), one.origin.method.clone()),
        ("request.path".to_owned(), one.origin.path.clone()),
        ("response.headers".to_owned(), String::new()),
        ("response.status".to_owned(), String::new()),
        ("pgrst.inserted".to_owned(), String::new()),
    ];
    if let Part::Call(call) = &one.part {
        let own = call.function.settings.iter().filter(|(name, _)| *name != "default_transaction_isolation");
        settings.extend(own.map(|(name, value)| (name.clone(), value.clone())));
    }
    let calls: Vec<String> =
        (0..settings.len()).map(|index| format!("set_config(${}, ${}, true)", 2 * index + 1, 2 * index + 2)).collect();
    let parameters = settings.into_iter().flat_map(|(name, value)| [Some(name.into()), Some(value.into())]);
    Statement { text: format!("SELECT {}", calls.join(", ")).into(), parameters: parameters.collect() }
}

impl Part {
    fn media(&self) -> &Media {
        match self {
            Self::Read(plan) => &plan.media,
            Self::Mutate(plan) => &plan.media,
            Self::Call(plan) => &plan.media,
        }
    }

    fn statement(&self, remember: bool) -> Statement {
        match self {
            Self::Read(plan) => query::read(plan, self.limit(), remember),
            Self::Mutate(plan) => query::mutate(plan, remember),
            Self::Call(plan) => query::call(plan, remember),
        }
    }

    fn columns(&self, remember: bool) -> Columns {
        if remember || matches!(self, Self::Mutate(_)) { Columns::CHANGE } else { Columns::READ }
    }

    /// A read of one row has to fail before the others are kept.
    fn limit(&self) -> RowLimit {
        match self {
            Self::Read(plan) if matches!(plan.media.media_type, MediaType::Object { .. }) => RowLimit::ExactlyOne,
            Self::Read(_) => RowLimit::None,
            Self::Mutate(plan) => plan.limit,
            Self::Call(plan) => plan.limit,
        }
    }
}

fn respond(one: &Prepared, outcome: &Outcome, current: &Current) -> Result<Response<Bytes>, Error> {
    let settings = &current.settings;
    let context = respond::Context { request: &one.request, schema: &one.schema, settings, has_key: false };
    match &one.part {
        Part::Read(plan) => respond::read(context, plan, outcome),
        Part::Mutate(plan) => respond::mutate(respond::Context { has_key: plan.has_key, ..context }, plan, outcome),
        Part::Call(plan) => respond::call(context, plan, outcome),
    }
}

/// Status, headers and body; a body that is JSON stands as it is, another as a text.
fn result(response: Response<Bytes>) -> Value {
    let (head, body) = response.into_parts();
    let headers: Map<String, Value> = head
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.into())))
        .collect();
    let text = String::from_utf8_lossy(&body);
    let is_json = headers.get("content-type").and_then(Value::as_str).is_some_and(|kind| kind.contains("json"));
    let body = match serde_json::from_str(&text) {
        _ if text.is_empty() => Value::Null,
        Ok(json) if is_json => json,
        _ => text.into_owned().into(),
    };
    json!({ "status": head.status.as_u16(), "headers": headers, "body": body })
}
