//! What is answered: status, headers and body, by what was asked and what came back.

mod error;
mod headers;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LOCATION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, Response, StatusCode};
use ntier_backing::database::catalog::Table;
use ntier_protocol::rest::request::{Action, Count, Preferences, Range, Request, Resolution, Return};

use crate::error::Error;
use crate::execute::Outcome;
use crate::media::content_type;
use crate::plan::{Call, Info, LegacyName, Media, Mutate, Read};
use crate::settings::Settings;
use crate::timing::Timing;

pub use error::{broken_limit, error, failed_operation, has_duplicates, wire};

/// The PostgREST whose dialect this is.
const VERSION: &str = "16.2";
const CONTENT_RANGE: HeaderName = http::header::CONTENT_RANGE;
const CONTENT_PROFILE: HeaderName = HeaderName::from_static("content-profile");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// What every answer is made with.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub request: &'a Request,
    pub schema: &'a str,
    pub settings: &'a Settings,
    /// Whether the table that is written to has a primary key.
    pub has_key: bool,
}

pub fn read(context: Context<'_>, plan: &Read, outcome: &Outcome) -> Result<Response<Bytes>, Error> {
    let total = total(plan.count, plan.max_rows, outcome);
    let (status, content_range) = window(plan.window, outcome.rows, total);
    let mut headers = HeaderMap::new();
    set(&mut headers, CONTENT_RANGE, &content_range);
    let query = &context.request.query.canonical;
    let mark = if query.is_empty() { "" } else { "?" };
    set(&mut headers, CONTENT_LOCATION, &format!("/{}{mark}{query}", plan.target.name));
    describe(&mut headers, context, &plan.media);
    set_preferences(&mut headers, context);
    let body = if status == StatusCode::RANGE_NOT_SATISFIABLE {
        out_of_bounds(context, plan.window, total)
    } else if plan.head {
        Bytes::new()
    } else {
        outcome.body.clone()
    };
    headers::finish(status, headers, body, outcome)
}

/// The planner's guess is taken when it is asked for, or when there are more rows than may be counted.
fn total(count: Option<Count>, max_rows: Option<u64>, outcome: &Outcome) -> Option<u64> {
    match count {
        Some(Count::Planned) => outcome.planned,
        Some(Count::Estimated) if max_rows.is_some_and(|most| outcome.total > Some(most)) => {
            outcome.total.max(outcome.planned)
        }
        _ => outcome.total,
    }
}

pub fn mutate(context: Context<'_>, plan: &Mutate, outcome: &Outcome) -> Result<Response<Bytes>, Error> {
    let preferences = &context.request.preferences;
    let counted = matches!(preferences.count, Some(Count::Exact | Count::Estimated)).then_some(outcome.rows);
    let represented = preferences.representation == Some(Return::Representation);
    let mut headers = HeaderMap::new();
    let nothing = content_range(None, counted);
    let status = match &context.request.action {
        Action::Insert { target } => {
            if !outcome.location.is_empty() {
                set(&mut headers, LOCATION, &format!("/{target}?{}", location(&outcome.location)));
            }
            set(&mut headers, CONTENT_RANGE, &nothing);
            let merged = preferences.resolution == Some(Resolution::MergeDuplicates);
            let none_new = merged && outcome.inserted.is_none_or(|number| number <= 0);
            if none_new { StatusCode::OK } else { StatusCode::CREATED }
        }
        Action::SingleUpsert { .. } if !represented => StatusCode::NO_CONTENT,
        Action::SingleUpsert { .. } if outcome.inserted.is_some_and(|number| number > 0) => StatusCode::CREATED,
        Action::SingleUpsert { .. } => StatusCode::OK,
        action => {
            let touched = outcome.rows.checked_sub(1).map(|last| (0, last));
            let is_update = matches!(action, Action::Update { .. });
            let range = if is_update { content_range(touched, counted) } else { nothing };
            set(&mut headers, CONTENT_RANGE, &range);
            if represented { StatusCode::OK } else { StatusCode::NO_CONTENT }
        }
    };
    set_preferences(&mut headers, context);
    let body = if represented {
        describe(&mut headers, context, &plan.media);
        outcome.body.clone()
    } else {
        Bytes::new()
    };
    headers::finish(status, headers, body, outcome)
}

pub fn call(context: Context<'_>, plan: &Call, outcome: &Outcome) -> Result<Response<Bytes>, Error> {
    let (status, content_range) = window(plan.window, outcome.rows, outcome.total);
    let mut headers = HeaderMap::new();
    set(&mut headers, CONTENT_RANGE, &content_range);
    set_preferences(&mut headers, context);
    if plan.function.returns.is_void() {
        return headers::finish(StatusCode::NO_CONTENT, headers, Bytes::new(), outcome);
    }
    describe(&mut headers, context, &plan.media);
    let body = match status {
        _ if plan.head => Bytes::new(),
        StatusCode::RANGE_NOT_SATISFIABLE => out_of_bounds(context, plan.window, outcome.total),
        _ => outcome.body.clone(),
    };
    headers::finish(status, headers, body, outcome)
}

/// What the answer depends on, for caches on the way.
pub fn varied(mut response: Response<Bytes>) -> Response<Bytes> {
    let vary = HeaderValue::from_static("Accept, Prefer, Range");
    response.headers_mut().entry(http::header::VARY).or_insert(vary);
    response
}

/// An execution plan.
pub fn explain(context: Context<'_>, media: &Media, body: Bytes) -> Response<Bytes> {
    let mut headers = HeaderMap::new();
    describe(&mut headers, context, media);
    respond(StatusCode::OK, headers, body)
}

pub fn info(info: &Info) -> Response<Bytes> {
    let allow = match info {
        Info::Relation { table } => allowed(table),
        Info::Function { read_only: true } => "OPTIONS,GET,HEAD,POST".to_owned(),
        Info::Function { read_only: false } => "OPTIONS,POST".to_owned(),
        Info::Root => "OPTIONS,GET,HEAD".to_owned(),
    };
    let mut headers = HeaderMap::new();
    set(&mut headers, ALLOW, &allow);
    set(&mut headers, http::header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    respond(StatusCode::OK, headers, Bytes::new())
}

fn allowed(table: &Table) -> String {
    let mut methods = vec!["OPTIONS", "GET", "HEAD"];
    let has_key = !table.primary_key.is_empty();
    methods.extend(table.insertable.then_some("POST"));
    methods.extend((table.insertable && table.updatable && has_key).then_some("PUT"));
    methods.extend(table.updatable.then_some("PATCH"));
    methods.extend(table.deletable.then_some("DELETE"));
    methods.join(",")
}

pub fn description(context: Context<'_>, head: bool, json: String) -> Response<Bytes> {
    let mut headers = HeaderMap::new();
    set(&mut headers, CONTENT_TYPE, "application/openapi+json; charset=utf-8");
    set_profile(&mut headers, context);
    respond(StatusCode::OK, headers, if head { Bytes::new() } else { json.into() })
}

fn respond(status: StatusCode, headers: HeaderMap, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Marks the answer of an earlier request with the same key.
pub fn replayed(mut response: Response<Bytes>, again: bool) -> Response<Bytes> {
    if again {
        set(response.headers_mut(), HeaderName::from_static("idempotency-replayed"), "true");
    }
    response
}

/// Says which embedded relations were called by names that they will not answer to for ever.
pub fn warn(response: &mut Response<Bytes>, legacy: &[LegacyName]) {
    if legacy.is_empty() {
        return;
    }
    let renamed = legacy.iter().map(|LegacyName { name, alias }| format!("`{name}` to `{alias}`"));
    let text = format!(
        "299 PostgRESTv{VERSION} \"Embedded resource was referenced by relation name even though it has an alias. This is \
         deprecated and will stop working in a future release. Update {} in query string filters, orders or limits.\"",
        renamed.collect::<Vec<_>>().join(", ")
    );
    set(response.headers_mut(), http::header::WARNING, &text);
}

/// Says where the time went.
pub fn timing(response: &mut Response<Bytes>, timing: &Timing) {
    set(response.headers_mut(), HeaderName::from_static("server-timing"), &timing.to_string());
}

/// A header whose value cannot be one is left out.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(name, value);
    }
}

fn describe(headers: &mut HeaderMap, context: Context<'_>, media: &Media) {
    set(headers, CONTENT_TYPE, &content_type(&media.media_type));
    set_profile(headers, context);
}

/// Where there is a choice of schemas, the answer says which one it was.
fn set_profile(headers: &mut HeaderMap, context: Context<'_>) {
    if context.request.profile.is_some() || context.settings.schemas.len() > 1 {
        set(headers, CONTENT_PROFILE, context.schema);
    }
}

fn set_preferences(headers: &mut HeaderMap, context: Context<'_>) {
    let applied = applied_preferences(context);
    if !applied.is_empty() {
        set(headers, PREFERENCE_APPLIED, &applied.join(", "));
    }
}

/// The preferences that make sense for the action, as they were applied.
fn applied_preferences(context: Context<'_>) -> Vec<String> {
    let Preferences {
        resolution, representation, count, transaction, missing, handling, timezone, max_affected, ..
    } = &context.request.preferences;
    let action = &context.request.action;
    let inserts = matches!(action, Action::Insert { .. });
    let updates = matches!(action, Action::Update { .. });
    let mutates = inserts || updates || matches!(action, Action::SingleUpsert { .. } | Action::Delete { .. });
    let limits = updates || matches!(action, Action::Delete { .. } | Action::Call { .. });
    let strict = *handling == Some(ntier_protocol::rest::request::Handling::Strict);
    let overridable = context.settings.transaction_end.overridable;
    [
        resolution.filter(|_| inserts && context.resolves()).map(headers::resolution),
        missing.filter(|_| inserts || updates).map(headers::missing),
        representation.filter(|_| mutates).map(headers::representation),
        count.map(headers::count),
        transaction.filter(|_| overridable).map(headers::transaction),
        handling.map(headers::handling),
        timezone.as_ref().map(|zone| format!("timezone={zone}")),
        max_affected.filter(|_| limits && strict).map(|most| format!("max-affected={most}")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl Context<'_> {
    /// Whether there is anything by which duplicates could be known.
    fn resolves(&self) -> bool {
        self.request.query.on_conflict.is_some() || self.has_key
    }
}

/// `0-9/100`, `*/0`: which rows, of how many.
fn content_range(rows: Option<(u64, u64)>, total: Option<u64>) -> String {
    let total_text = total.map_or_else(|| "*".to_owned(), |total| total.to_string());
    match rows.filter(|_| total != Some(0)) {
        Some((first, last)) => format!("{first}-{last}/{total_text}"),
        None => format!("*/{total_text}"),
    }
}

fn window(asked: Range, rows: u64, total: Option<u64>) -> (StatusCode, String) {
    let offset = if asked.limit == Some(0) { 0 } else { asked.offset };
    let shown = rows.checked_sub(1).map(|last| (offset, offset.saturating_add(last)));
    let status = match total {
        Some(total) if offset > total => StatusCode::RANGE_NOT_SATISFIABLE,
        Some(total) if rows < total => StatusCode::PARTIAL_CONTENT,
        _ => StatusCode::OK,
    };
    (status, content_range(shown, total))
}

fn out_of_bounds(context: Context<'_>, asked: Range, total: Option<u64>) -> Bytes {
    let error = Error::RangeOutOfBounds { offset: asked.offset, total: total.unwrap_or_default() };
    wire(&error, false).body(context.settings.verbose_errors)
}

/// `column=eq.value` pairs as a query string.
fn location(pairs: &[String]) -> String {
    let encoded = pairs.iter().map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        format!("{}={}", headers::percent_encode(key), headers::percent_encode(value))
    });
    encoded.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows() {
        let range = |offset, limit| Range { offset, limit };
        for (asked, rows, total, status, text) in [
            (range(0, None), 3, None, 200, "0-2/*"),
            (range(0, None), 0, None, 200, "*/*"),
            (range(0, Some(2)), 2, Some(5), 206, "0-1/5"),
            (range(3, Some(5)), 2, Some(5), 206, "3-4/5"),
            (range(0, None), 0, Some(0), 200, "*/0"),
            (range(9, None), 0, Some(5), 416, "*/5"),
            (range(0, None), 5, Some(5), 200, "0-4/5"),
        ] {
            assert_eq!(window(asked, rows, total), (StatusCode::from_u16(status).unwrap(), text.to_owned()));
        }
    }
}
