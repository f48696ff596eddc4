//! Errors on the wire: `{code, details, hint, message}` with a status, as PostgREST has them.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, Response, StatusCode};
use ntier_backing::database::catalog::{Function, Link, Relationship};
use ntier_backing::database::{self, Refusal};
use ntier_security::intrusion::Event;
use serde_json::{Value, json};

use super::{respond, set};
use crate::error::{BodyKind, Error, WantedFunction};
use crate::plan::cost::Costly;
use crate::query::{DUPLICATE_MARK, LIMIT_MARK};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// An error as it is said.
#[derive(Debug, Clone, PartialEq)]
pub struct Wire {
    pub status: StatusCode,
    pub code: String,
    pub message: String,
    pub details: Value,
    pub hint: Value,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Wire {
    fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code: code.to_owned(),
            message: message.into(),
            details: Value::Null,
            hint: Value::Null,
            headers: Vec::new(),
        }
    }

    fn details(mut self, details: impl Into<Value>) -> Self {
        self.details = details.into();
        self
    }

    fn hint(mut self, hint: impl Into<Value>) -> Self {
        self.hint = hint.into();
        self
    }

    /// With `details` and `hint`, or without.
    pub fn body(&self, verbose: bool) -> Bytes {
        let body = if verbose {
            json!({ "code": self.code, "details": self.details, "hint": self.hint, "message": self.message })
        } else {
            json!({ "code": self.code, "message": self.message })
        };
        body.to_string().into()
    }

    pub fn into_response(self, verbose: bool) -> Response<Bytes> {
        let mut headers = HeaderMap::new();
        set(&mut headers, CONTENT_TYPE, "application/json; charset=utf-8");
        set(&mut headers, PROXY_STATUS, &format!("PostgREST; error={}", self.code));
        let body = self.body(verbose);
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        let mut response = respond(self.status, headers, body);
        if self.code == "42501" {
            response.extensions_mut().insert(Event::Denied);
        }
        response
    }
}

/// `is_anonymous`: what is refused may be allowed after signing in.
pub fn error(error: &Error, is_anonymous: bool, verbose: bool) -> Response<Bytes> {
    wire(error, is_anonymous).into_response(verbose)
}

/// Which operation of a batch failed, and why; the status is the operation's own.
pub fn failed_operation(index: usize, error: &Error, is_anonymous: bool) -> Response<Bytes> {
    let wire = wire(error, is_anonymous);
    let mut body: Value = serde_json::from_slice(&wire.body(true)).unwrap_or_default();
    body["operation"] = index.into();
    wire.into_response(true).map(|_| Bytes::from(body.to_string()))
}

/// What each error is called. Codes are never used twice.
pub fn wire(error: &Error, is_anonymous: bool) -> Wire {
    match error {
        Error::Request(refused) => Wire {
            status: StatusCode::from_u16(refused.status()).unwrap_or(StatusCode::BAD_REQUEST),
            code: refused.code().to_owned(),
            message: refused.message(),
            details: refused.details().map_or(Value::Null, Value::from),
            hint: Value::Null,
            headers: Vec::new(),
        },
        Error::ContentType(name) => Wire::new(400, "PGRST102", format!("Content-Type not acceptable: {name}")),
        Error::RangeOutOfBounds { offset, total } => Wire::new(416, "PGRST103", "Requested range not satisfiable")
            .details(format!("An offset of {offset} was requested, but there are only {total} rows.")),
        Error::EmptyRange => Wire::new(416, "PGRST103", "Requested range not satisfiable")
            .details("Limit should be greater than or equal to zero."),
        Error::ByColumnMissing(name) => {
            Wire::new(400, "NTIER101", format!("Each row of the body needs the column '{name}', which it is found by"))
        }
        Error::DuplicateRows => Wire::new(400, "NTIER102", "Two rows of the body are for the same row of the table")
            .hint("Each row of the table can be changed once only."),
        Error::TooCostly { what, asked, limit } => too_costly(*what, *asked, *limit),
        Error::Batch(reason) => Wire::new(400, "NTIER105", "The batch is not understood").details(reason.as_str()),
        Error::BatchTooLong(length) => Wire::new(413, "NTIER106", "The batch has too many operations")
            .details(format!("It has {length}; at most {} are allowed.", crate::batch::MOST)),
        Error::NotInBatch(what) => Wire::new(400, "NTIER107", "This cannot be part of a batch").details(*what),
        Error::Operation { error, .. } => wire(error, is_anonymous),
        Error::IdempotencyKey => {
            Wire::new(400, "NTIER103", "The Idempotency-Key has to be 1 to 255 characters, such as a UUID")
        }
        Error::IdempotencyMismatch => Wire::new(422, "NTIER104", "This Idempotency-Key was used for another request")
            .hint("Send exactly the same request again, or take a new key for a new one."),
        Error::InvalidPutFilters => {
            let message = "Filters must include all and only primary key columns with 'eq' operators";
            Wire::new(405, "PGRST105", message)
        }
        Error::SchemaNotExposed { asked, exposed } => Wire::new(406, "PGRST106", format!("Invalid schema: {asked}"))
            .hint(format!("Only the following schemas are exposed: {}", exposed.join(", "))),
        Error::NotAcceptable(types) => {
            let message = format!("None of these media types are available: {}", types.join(", "));
            Wire::new(406, "PGRST107", message)
        }
        Error::NotEmbedded { name, alias } => {
            let wire = Wire::new(400, "PGRST108", format!("'{name}' is not an embedded resource in this request"));
            match alias {
                None => wire.hint(format!("Verify that '{name}' is included in the 'select' query parameter.")),
                Some(alias) => wire
                    .details("Target names are not allowed in filters if they have an alias")
                    .hint(format!("Change '{name}' to '{alias}' in filters, orders or limits.")),
            }
        }
        Error::ResponseHeaders => {
            let message =
                "response.headers guc must be a JSON array composed of objects with a single key and a string value";
            Wire::new(500, "PGRST111", message)
        }
        Error::ResponseStatus => Wire::new(500, "PGRST112", "response.status guc must be a valid status code"),
        Error::PutMismatch => Wire::new(400, "PGRST115", "Payload values do not match URL in primary key column(s)"),
        Error::NotSingular(rows) => Wire::new(406, "PGRST116", "Cannot coerce the result to a single JSON object")
            .details(format!("The result contains {rows} rows")),
        Error::RelatedOrderNotToOne { origin, target } => {
            Wire::new(400, "PGRST118", format!("A related order on '{target}' is not possible"))
                .details(format!("'{origin}' and '{target}' do not form a many-to-one or one-to-one relationship"))
        }
        Error::InvalidPreferences(list) => Wire::new(400, "PGRST122", "Invalid preferences given with handling=strict")
            .details(format!("Invalid preferences: {}", list.join(", "))),
        Error::AggregatesNotAllowed => Wire::new(400, "PGRST123", "Use of aggregate functions is not allowed"),
        Error::TooManyAffected(rows) => {
            let message = "Query result exceeds max-affected preference constraint";
            Wire::new(400, "PGRST124", message).details(format!("The query affects {rows} rows"))
        }
        Error::DescriptionDisabled => Wire::new(404, "PGRST126", "Root endpoint metadata is disabled"),
        Error::NotImplemented(what) => Wire::new(400, "PGRST127", "Feature not implemented").details(*what),
        Error::MaxAffectedOnSingle => {
            let message =
                "Function must return SETOF or TABLE when max-affected preference is used with handling=strict";
            Wire::new(400, "PGRST128", message)
        }
        Error::NoRelationship { origin, target, hint, schema, near } => {
            let by_hint = hint.as_ref().map(|hint| format!("' using the hint '{hint}")).unwrap_or_default();
            let message =
                format!("Could not find a relationship between '{origin}' and '{target}' in the schema cache");
            let details = format!(
                "Searched for a foreign key relationship between '{origin}' and '{target}{by_hint}' in the schema \
                 '{schema}', but no matches were found."
            );
            let near = near.as_ref().map(|near| {
                Value::from(format!("Perhaps you meant '{}' instead of '{}'.", near.meant, near.instead_of))
            });
            Wire::new(400, "PGRST200", message).details(details).hint(near.unwrap_or_default())
        }
        Error::AmbiguousRelationship { origin, target, found } => ambiguous_relationship(origin, target, found),
        Error::FunctionNotFound { wanted, near } => function_not_found(wanted, near.as_deref()),
        Error::AmbiguousFunction(found) => {
            let list: Vec<String> = found.iter().map(signature).collect();
            let message = format!("Could not choose the best candidate function between: {}", list.join(", "));
            Wire::new(300, "PGRST203", message).hint(
                "Try renaming the parameters or the function itself in the database so function overloading can be resolved",
            )
        }
        Error::ColumnNotFound { table, column } => {
            Wire::new(400, "PGRST204", format!("Could not find the '{column}' column of '{table}' in the schema cache"))
        }
        Error::TableNotFound { table, near } => {
            let name = format!("{}.{}", table.schema, table.name);
            let near =
                near.as_ref().map(|near| Value::from(format!("Perhaps you meant the table '{}.{near}'", table.schema)));
            Wire::new(404, "PGRST205", format!("Could not find the table '{name}' in the schema cache"))
                .hint(near.unwrap_or_default())
        }
        // As PostgreSQL says it where it decides.
        Error::ForbiddenRole(role) => Wire::new(
            if is_anonymous { 401 } else { 403 },
            "42501",
            format!("permission denied to set role \"{role}\""),
        ),
        Error::CatalogUnknown => {
            Wire::new(503, "PGRST002", "Could not query the database for the schema cache. Retrying.")
        }
        Error::Incomplete => Wire::new(500, "PGRSTX00", "The database's answer is incomplete"),
        Error::Database(error) => database(error, is_anonymous),
    }
}

fn ambiguous_relationship(origin: &str, target: &str, found: &[Relationship]) -> Wire {
    let hints: Vec<String> = found.iter().filter_map(hint_for).collect();
    let message = format!("Could not embed because more than one relationship was found for '{origin}' and '{target}'");
    Wire::new(300, "PGRST201", message).details(found.iter().map(describe).collect::<Vec<_>>()).hint(format!(
        "Try changing '{target}' to one of the following: {}. Find the desired relationship in the 'details' key.",
        hints.join(", ")
    ))
}

fn hint_for(relationship: &Relationship) -> Option<String> {
    let by = match &relationship.link {
        Link::OneToMany { constraint, .. } | Link::ManyToOne { constraint, .. } | Link::OneToOne { constraint, .. } => {
            constraint
        }
        Link::ManyToMany(junction) => &junction.table.name,
        Link::Computed { .. } => return None,
    };
    Some(format!("'{}!{by}'", relationship.foreign.name))
}

fn describe(relationship: &Relationship) -> Value {
    let (table, foreign) = (&relationship.table.name, &relationship.foreign.name);
    let list = |names: Vec<&String>| format!("({})", names.into_iter().cloned().collect::<Vec<_>>().join(", "));
    let (cardinality, constraint, columns) = match &relationship.link {
        Link::OneToMany { constraint, columns } => ("one-to-many", constraint, columns),
        Link::ManyToOne { constraint, columns } => ("many-to-one", constraint, columns),
        Link::OneToOne { constraint, columns, .. } => ("one-to-one", constraint, columns),
        Link::ManyToMany(junction) => {
            let source = list(junction.source.iter().map(|(_, column)| column).collect());
            let target = list(junction.target.iter().map(|(_, column)| column).collect());
            let text = format!(
                "{} using {}{source} and {}{target}",
                junction.table.name, junction.source_constraint, junction.target_constraint
            );
            return json!({
                "cardinality": "many-to-many", "embedding": format!("{table} with {foreign}"), "relationship": text,
            });
        }
        Link::Computed { .. } => return json!({}),
    };
    let here = list(columns.iter().map(|(column, _)| column).collect());
    let there = list(columns.iter().map(|(_, column)| column).collect());
    json!({
        "cardinality": cardinality,
        "embedding": format!("{table} with {foreign}"),
        "relationship": format!("{constraint} using {table}{here} and {foreign}{there}"),
    })
}

fn signature(function: &Function) -> String {
    let arguments: Vec<String> =
        function.arguments.iter().map(|argument| format!("{} => {}", argument.name, argument.data_type)).collect();
    format!("{}.{}({})", function.name.schema, function.name.name, arguments.join(", "))
}

fn function_not_found(wanted: &WantedFunction, near: Option<&str>) -> Wire {
    let function = format!("{}.{}", wanted.function.schema, wanted.function.name);
    let names = wanted.arguments.join(", ");
    let whole_only = matches!(wanted.body, BodyKind::Text | BodyKind::Xml | BodyKind::Binary);
    let message_arguments = match (whole_only, wanted.arguments.is_empty()) {
        (true, _) => String::new(),
        (false, true) => " without parameters".to_owned(),
        (false, false) => format!("({names})"),
    };
    let named = match wanted.arguments.len() {
        0 => " without parameters".to_owned(),
        1 => format!(" with parameter {names}"),
        _ => format!(" with parameters {names}"),
    };
    let searched = match wanted.body {
        BodyKind::Text => " with a single unnamed text parameter".to_owned(),
        BodyKind::Xml => " with a single unnamed xml parameter".to_owned(),
        BodyKind::Binary => " with a single unnamed bytea parameter".to_owned(),
        BodyKind::Json => format!("{named} or with a single unnamed json/jsonb parameter"),
        BodyKind::None | BodyKind::Form | BodyKind::Other => named,
    };
    let hint = near
        .filter(|_| !whole_only)
        .map(|near| Value::from(format!("Perhaps you meant to call the function {}.{near}", wanted.function.schema)));
    let message = format!("Could not find the function {function}{message_arguments} in the schema cache");
    let details =
        format!("Searched for the function {function}{searched}, but no matches were found in the schema cache.");
    Wire::new(404, "PGRST202", message).details(details).hint(hint.unwrap_or_default())
}

fn database(error: &database::Error, is_anonymous: bool) -> Wire {
    match error {
        database::Error::Refused(refusal) => refused(refusal, is_anonymous),
        database::Error::Deadline => Wire::new(504, "57014", "canceling statement due to statement timeout"),
        database::Error::Lost(_) => {
            retry(Wire::new(503, "PGRST001", "Database client error. Retrying the connection."))
        }
        database::Error::Unavailable(_) => retry(Wire::new(503, "PGRST000", "Database connection error.")),
        database::Error::Overloaded => {
            retry(Wire::new(503, "PGRST003", "Timed out acquiring connection from connection pool."))
        }
    }
}

fn retry(mut wire: Wire) -> Wire {
    wire.headers.push((RETRY_AFTER, HeaderValue::from_static("1")));
    wire
}

fn refused(refusal: &Refusal, is_anonymous: bool) -> Wire {
    if refusal.code == "PGRST" {
        return raised(refusal);
    }
    let status = status(refusal, is_anonymous);
    let mut wire = Wire::new(status, &refusal.code, refusal.message.clone());
    wire.details = refusal.detail.clone().map_or(Value::Null, Value::from);
    wire.hint = refusal.hint.clone().map_or(Value::Null, Value::from);
    if wire.status == StatusCode::UNAUTHORIZED {
        wire.headers.push((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
    }
    wire
}

/// The status that goes with a SQLSTATE; what is not listed is the caller's fault.
fn status(refusal: &Refusal, is_anonymous: bool) -> u16 {
    let message = refusal.message.as_str();
    let code = refusal.code.as_str();
    match code {
        "23503" | "23505" => 409,
        "25006" => 405,
        "21000" if message.ends_with("requires a WHERE clause") => 400,
        "22023" if message.starts_with("role") && message.ends_with("does not exist") => 401,
        "21000" | "42P17" | "53400" => 500,
        "57P01" => 503,
        "P0001" => 400,
        "42883" if message.starts_with("function xmlagg(") => 406,
        "42883" | "42P01" => 404,
        "42501" if is_anonymous => 401,
        "42501" => 403,
        _ => match code.get(..2).unwrap_or_default() {
            "08" | "53" => 503,
            "0L" | "0P" | "28" => 403,
            "09" | "25" | "2D" | "38" | "39" | "3B" | "40" | "54" | "55" | "57" | "58" | "F0" | "HV" | "P0" | "XX" => {
                500
            }
            // `RAISE … USING ERRCODE = 'PT402'` chooses the status.
            "PT" => code.get(2..).and_then(|number| number.parse().ok()).unwrap_or(500),
            _ => 400,
        },
    }
}

/// `RAISE … USING ERRCODE = 'PGRST'`: message and detail are JSON and say everything.
fn raised(refusal: &Refusal) -> Wire {
    const DETAIL_HINT: &str =
        "DETAIL must be a JSON object with obligatory keys: 'status', 'headers' and optional key: 'status_text'.";
    let unreadable = |details: String, hint: &str| {
        let message = "Could not parse JSON in the \"RAISE SQLSTATE 'PGRST'\" error";
        Wire::new(500, "PGRST121", message).details(details).hint(hint)
    };
    let Some(wire) = raised_message(&refusal.message) else {
        return unreadable(
            format!("Invalid JSON value for MESSAGE: '{}'", refusal.message),
            "MESSAGE must be a JSON object with obligatory keys: 'code', 'message' and optional keys: 'details', 'hint'.",
        );
    };
    let Some(detail) = &refusal.detail else {
        return unreadable("DETAIL is missing in the RAISE statement".to_owned(), DETAIL_HINT);
    };
    match raised_detail(wire, detail) {
        Some(wire) => wire,
        None => unreadable(format!("Invalid JSON value for DETAIL: '{detail}'"), DETAIL_HINT),
    }
}

fn raised_message(text: &str) -> Option<Wire> {
    let value: Value = serde_json::from_str(text).ok()?;
    let optional = |key: &str| match value.get(key) {
        None | Some(Value::Null) => Some(Value::Null),
        Some(Value::String(text)) => Some(Value::from(text.as_str())),
        Some(_) => None,
    };
    let mut wire = Wire::new(500, value.get("code")?.as_str()?, value.get("message")?.as_str()?);
    wire.details = optional("details")?;
    wire.hint = optional("hint")?;
    Some(wire)
}

fn raised_detail(mut wire: Wire, text: &str) -> Option<Wire> {
    let value: Value = serde_json::from_str(text).ok()?;
    let status = u16::try_from(value.get("status")?.as_u64()?).ok()?;
    wire.status = StatusCode::from_u16(status).ok()?;
    for (name, value) in value.get("headers")?.as_object()? {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        wire.headers.push((name, HeaderValue::from_bytes(value.as_str()?.as_bytes()).ok()?));
    }
    Some(wire)
}

/// Whether two rows of an update's body were for one row.
pub fn has_duplicates(error: &database::Error) -> bool {
    matches!(error, database::Error::Refused(refusal) if refusal.code == "22P02" && refusal.message.contains(DUPLICATE_MARK))
}

/// The number of rows in the error that a broken limit raises, if it is that error.
pub fn broken_limit(error: &database::Error) -> Option<u64> {
    let database::Error::Refused(refusal) = error else { return None };
    let (_, after) = refusal.message.split_once(LIMIT_MARK).filter(|_| refusal.code == "22P02")?;
    after.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()
}

fn too_costly(what: Costly, asked: u64, limit: u64) -> Wire {
    let (things, setting) = match what {
        Costly::Depth => ("levels of embedding", "max_embedding_depth"),
        Costly::Embeds => ("embedded relations", "max_embeddings"),
        Costly::Filters => ("filters", "max_filters"),
        Costly::Values => ("values in lists", "max_in_values"),
    };
    Wire::new(400, "NTIER108", format!("The request has too many {things}"))
        .details(format!("It has {asked}; at most {limit} are allowed."))
        .hint(format!("Ask for less at a time; the server's setting is {setting}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: &str, message: &str, detail: Option<&str>) -> Error {
        let refusal = Refusal {
            code: code.into(),
            message: message.into(),
            detail: detail.map(str::to_owned),
            ..Refusal::default()
        };
        Error::Database(database::Error::Refused(Box::new(refusal)))
    }

    #[test]
    fn sqlstates_have_their_status() {
        for (code, message, anonymous, expected) in [
            ("23505", "", false, 409),
            ("42501", "", true, 401),
            ("42501", "", false, 403),
            ("42P01", "", false, 404),
            ("22P02", "", false, 400),
            ("57014", "", false, 500),
            ("22023", "role \"x\" does not exist", false, 401),
            ("PT402", "pay", false, 402),
            ("PTxyz", "", false, 500),
            ("P0001", "", false, 400),
            ("", "", false, 400),
        ] {
            assert_eq!(wire(&refusal(code, message, None), anonymous).status.as_u16(), expected, "{code}");
        }
    }

    #[test]
    fn a_function_may_raise_a_whole_response() {
        let message = r#"{"code": "123", "message": "ABC", "hint": "H"}"#;
        let raised = wire(&refusal("PGRST", message, Some(r#"{"status": 332, "headers": {"X-Header": "v"}}"#)), false);
        assert_eq!((raised.status.as_u16(), raised.code.as_str(), raised.headers.len()), (332, "123", 1));
        for (message, detail) in [("{", Some("{}")), (message, None), (message, Some("{}")), ("{}", Some("{}"))] {
            assert_eq!(wire(&refusal("PGRST", message, detail), false).code, "PGRST121");
        }
    }

    #[test]
    fn a_broken_limit_is_known_by_its_mark() {
        let text = |message: &str| match refusal("22P02", message, None) {
            Error::Database(error) => broken_limit(&error),
            _ => None,
        };
        assert_eq!(text(r#"invalid input syntax for type bigint: "ntier:rows=12""#), Some(12));
        assert_eq!(text(r#"invalid input syntax for type bigint: "x""#), None);
    }
}
