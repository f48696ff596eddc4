//! Headers and the status as a transaction may override them, and preferences as they are written.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use ntier_protocol::rest::request::{Count, Handling, Missing, Resolution, Return, TransactionEnd};
use serde_json::Value;

use crate::error::Error;
use crate::execute::Outcome;

/// `response.status` and `response.headers` win over ours.
pub(super) fn finish(
    status: StatusCode,
    mut headers: HeaderMap,
    body: Bytes,
    outcome: &Outcome,
) -> Result<Response<Bytes>, Error> {
    let status = match &outcome.status {
        Some(text) => parse_status(text).ok_or(Error::ResponseStatus)?,
        None => status,
    };
    if let Some(text) = &outcome.headers {
        let said = parse_headers(text).ok_or(Error::ResponseHeaders)?;
        for (name, _) in &said {
            headers.remove(name);
        }
        for (name, value) in said {
            headers.append(name, value);
        }
    }
    Ok(super::respond(status, headers, body))
}

fn parse_status(text: &str) -> Option<StatusCode> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    StatusCode::from_u16(text[..digits].parse().ok()?).ok()
}

/// An array of objects with one key and a string each.
fn parse_headers(text: &str) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let Value::Array(items) = serde_json::from_str(text).ok()? else { return None };
    let header = |item: &Value| {
        let object = item.as_object().filter(|object| object.len() == 1)?;
        let (name, value) = object.iter().next()?;
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(value.as_str()?.as_bytes()).ok()?))
    };
    items.iter().map(header).collect()
}

pub(super) fn resolution(value: Resolution) -> String {
    let name = match value {
        Resolution::MergeDuplicates => "merge-duplicates",
        Resolution::IgnoreDuplicates => "ignore-duplicates",
    };
    format!("resolution={name}")
}

pub(super) fn missing(value: Missing) -> String {
    let name = match value {
        Missing::Default => "default",
        Missing::Null => "null",
    };
    format!("missing={name}")
}

pub(super) fn representation(value: Return) -> String {
    let name = match value {
        Return::Representation => "representation",
        Return::HeadersOnly => "headers-only",
        Return::Minimal => "minimal",
    };
    format!("return={name}")
}

pub(super) fn count(value: Count) -> String {
    let name = match value {
        Count::Exact => "exact",
        Count::Planned => "planned",
        Count::Estimated => "estimated",
    };
    format!("count={name}")
}

pub(super) fn transaction(value: TransactionEnd) -> String {
    let name = match value {
        TransactionEnd::Commit => "commit",
        TransactionEnd::Rollback => "rollback",
    };
    format!("tx={name}")
}

pub(super) fn handling(value: Handling) -> String {
    let name = match value {
        Handling::Strict => "strict",
        Handling::Lenient => "lenient",
    };
    format!("handling={name}")
}

/// Everything but unreserved characters.
pub(super) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_says_headers_in_one_form_only() {
        assert_eq!(parse_headers(r#"[{"X-A": "1"}, {"Set-Cookie": "b"}]"#).unwrap().len(), 2);
        for text in ["", "{}", r#"[{"a": 1}]"#, r#"[{"a": "1", "b": "2"}]"#, r#"[{"a b": "1"}]"#, r#"["a"]"#] {
            assert!(parse_headers(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_status_is_a_number() {
        assert_eq!(parse_status("204"), Some(StatusCode::NO_CONTENT));
        for text in ["", "abc", "99", "20000"] {
            assert_eq!(parse_status(text), None, "{text}");
        }
    }
}
