//! From the parts of an HTTP request to what was asked.

use percent_encoding::percent_decode_str;

use super::error::{Error, RangeFault};
use super::media;
use super::payload;
use super::prefer;
use super::query::{self, Kind};
use super::request::{Action, CallMethod, MediaType, Range, Request};

/// The parts of an HTTP request that the dialect looks at.
#[derive(Debug, Clone)]
pub struct Parts<'a> {
    pub method: &'a str,
    /// Behind the prefix of the API: `/films`, `/rpc/f`, `/`; still percent-encoded.
    pub path: &'a str,
    /// Behind the `?`, still encoded; empty when absent.
    pub query: &'a str,
    /// Names in lower case.
    pub headers: &'a [(&'a str, &'a str)],
    pub body: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

/// Reads a request.
pub fn request(parts: Parts<'_>) -> Result<Request, Error> {
    let action = action(parts.method, parts.path)?;
    let is_call = matches!(action, Action::Call { .. });
    let is_call_read = matches!(action, Action::Call { method: CallMethod::Get | CallMethod::Head, .. });
    let writes = matches!(parts.method, "POST" | "PUT" | "PATCH" | "DELETE");
    let profile = parts.header(if writes { "content-profile" } else { "accept-profile" }).map(str::to_owned);
    let kind = match action {
        _ if is_call_read => Kind::Call,
        Action::Update { .. } => Kind::Update,
        _ => Kind::Other,
    };
    let query = query::query(parts.query, kind)?;
    let top = query.ranges.get([].as_slice()).copied();
    if matches!(action, Action::SingleUpsert { .. }) && top.is_some_and(|range| range != Range::default()) {
        return Err(Error::PutLimit);
    }
    // The Range header is for GET alone (RFC 9110, 14.2).
    let range = match parts.header("range") {
        Some(range) if parts.method == "GET" => header_range(range)?,
        _ => Range::default(),
    };
    let content_type = parts.header("content-type").map_or(MediaType::Json, media::media_type);
    let takes_columns = matches!(action, Action::Insert { .. } | Action::Update { .. } | Action::Call { .. });
    let takes_body = matches!(
        action,
        Action::Insert { .. }
            | Action::Update { .. }
            | Action::SingleUpsert { .. }
            | Action::Call { method: CallMethod::Post, .. }
    );
    let preferences =
        prefer::preferences(parts.headers.iter().filter(|(key, _)| *key == "prefer").map(|(_, value)| *value));
    let accept = parts.header("accept").map_or_else(|| vec![MediaType::Any], media::accept);
    let payload = if takes_body {
        let columns = query.columns.as_deref().filter(|_| takes_columns);
        Some(payload::payload(parts.body, &content_type, columns, is_call)?)
    } else {
        None
    };
    Ok(Request { action, profile, query, preferences, accept, range, payload })
}

fn action(method: &str, path: &str) -> Result<Action, Error> {
    let mut segments = Vec::new();
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        let decoded = percent_decode_str(segment).decode_utf8().map_err(|_| Error::Encoding("path"))?;
        if decoded.contains('\0') {
            return Err(Error::Encoding("path"));
        }
        segments.push(decoded.into_owned());
    }
    let unsupported = || Error::Method(method.to_owned());
    match segments.as_slice() {
        [] => match method {
            "GET" => Ok(Action::Root { head: false }),
            "HEAD" => Ok(Action::Root { head: true }),
            "OPTIONS" => Ok(Action::RootInfo),
            _ => Err(unsupported()),
        },
        [rpc, function] if rpc == "rpc" => {
            let function = function.clone();
            match method {
                "GET" => Ok(Action::Call { function, method: CallMethod::Get }),
                "HEAD" => Ok(Action::Call { function, method: CallMethod::Head }),
                "POST" => Ok(Action::Call { function, method: CallMethod::Post }),
                "OPTIONS" => Ok(Action::FunctionInfo { function }),
                _ => Err(Error::FunctionMethod(method.to_owned())),
            }
        }
        [target] => {
            let target = target.clone();
            match method {
                "GET" => Ok(Action::Read { target, head: false }),
                "HEAD" => Ok(Action::Read { target, head: true }),
                "POST" => Ok(Action::Insert { target }),
                "PUT" => Ok(Action::SingleUpsert { target }),
                "PATCH" => Ok(Action::Update { target }),
                "DELETE" => Ok(Action::Delete { target }),
                "OPTIONS" => Ok(Action::RelationInfo { target }),
                _ => Err(unsupported()),
            }
        }
        _ => Err(Error::Path),
    }
}

/// `0-9` or `10-`; anything else asks for everything.
fn header_range(text: &str) -> Result<Range, Error> {
    let Some((lower, upper)) = text.split_once('-') else { return Ok(Range::default()) };
    let Ok(offset) = lower.parse::<u64>() else { return Ok(Range::default()) };
    if upper.is_empty() {
        return Ok(Range { offset, limit: None });
    }
    match upper.parse::<u64>() {
        Ok(upper) if upper >= offset => Ok(Range { offset, limit: Some((upper - offset).saturating_add(1)) }),
        Ok(_) => Err(Error::Range(RangeFault::LowerAboveUpper)),
        Err(_) => Ok(Range::default()),
    }
}
