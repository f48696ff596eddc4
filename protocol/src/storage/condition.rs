//! Conditional requests (RFC 9110, 13): whether what the client has is still what there is.

use std::time::{Duration, SystemTime};

/// What a request says of the copy that the client has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions<'a> {
    pub if_match: Option<&'a str>,
    pub if_none_match: Option<&'a str>,
    pub if_modified_since: Option<&'a str>,
    pub if_unmodified_since: Option<&'a str>,
    pub if_range: Option<&'a str>,
}

/// What is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Proceed,
    /// 304: the client has it.
    NotModified,
    /// 412: it is not what the client takes it for.
    Failed,
}

impl Conditions<'_> {
    /// In the order of RFC 9110, 13.2.2, for a read. `etag` with its quotes.
    pub fn decide(&self, etag: &str, modified: SystemTime) -> Verdict {
        let older = |text: &str| date(text).map(|date| modified_seconds(modified) <= modified_seconds(date));
        if let Some(tags) = self.if_match {
            if !lists(tags, etag, Compare::Strong) {
                return Verdict::Failed;
            }
        } else if self.if_unmodified_since.and_then(older) == Some(false) {
            return Verdict::Failed;
        }
        if let Some(tags) = self.if_none_match {
            return if lists(tags, etag, Compare::Weak) { Verdict::NotModified } else { Verdict::Proceed };
        }
        if self.if_modified_since.and_then(older) == Some(true) { Verdict::NotModified } else { Verdict::Proceed }
    }

    /// Whether a range may be given: the rest, which the client has, is of the same file (RFC 9110, 13.1.5).
    pub fn allow_range(&self, etag: &str, modified: SystemTime) -> bool {
        match self.if_range.map(str::trim) {
            None => true,
            Some(tag) if tag.starts_with('"') || tag.starts_with("W/") => tag == etag && !tag.starts_with("W/"),
            Some(text) => date(text).is_some_and(|date| modified_seconds(modified) == modified_seconds(date)),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compare {
    Strong,
    Weak,
}

fn lists(tags: &str, etag: &str, compare: Compare) -> bool {
    let opaque = |tag: &str| tag.strip_prefix("W/").map(str::to_owned);
    tags.split(',').map(str::trim).any(|tag| match (opaque(tag), compare) {
        _ if tag == "*" => true,
        (Some(weak), Compare::Weak) => weak == etag.strip_prefix("W/").unwrap_or(etag),
        (Some(_), Compare::Strong) => false,
        // Some clients leave the quotes away.
        (None, _) => tag == etag || (!tag.starts_with('"') && tag == etag.trim_matches('"')),
    })
}

fn date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text.trim()).ok()
}

/// HTTP's dates know no fractions.
fn modified_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "\"abc\"";
    /// 1994-11-06 08:49:37, and a little.
    const MODIFIED: Duration = Duration::from_millis(784_111_777_500);

    fn decide(conditions: Conditions<'_>) -> Verdict {
        conditions.decide(TAG, SystemTime::UNIX_EPOCH + MODIFIED)
    }

    #[test]
    fn conditions_are_decided_in_their_order() {
        use Verdict::{Failed, NotModified, Proceed};
        let none = Conditions::default();
        for (conditions, expected) in [
            (none, Proceed),
            (Conditions { if_none_match: Some(TAG), ..none }, NotModified),
            (Conditions { if_none_match: Some("\"x\", W/\"abc\""), ..none }, NotModified),
            (Conditions { if_none_match: Some("abc"), ..none }, NotModified),
            (Conditions { if_none_match: Some("*"), ..none }, NotModified),
            (Conditions { if_none_match: Some("\"x\""), ..none }, Proceed),
            (Conditions { if_modified_since: Some("Sun, 06 Nov 1994 08:49:37 GMT"), ..none }, NotModified),
            (Conditions { if_modified_since: Some("Sun, 06 Nov 1994 08:49:36 GMT"), ..none }, Proceed),
            (Conditions { if_modified_since: Some("yesterday"), ..none }, Proceed),
            (
                Conditions {
                    if_none_match: Some("\"x\""),
                    if_modified_since: Some("Sun, 06 Nov 1994 08:49:37 GMT"),
                    ..none
                },
                Proceed,
            ),
            (Conditions { if_match: Some(TAG), ..none }, Proceed),
            (Conditions { if_match: Some("W/\"abc\""), ..none }, Failed),
            (Conditions { if_match: Some("\"x\""), ..none }, Failed),
            (Conditions { if_unmodified_since: Some("Sun, 06 Nov 1994 08:49:36 GMT"), ..none }, Failed),
            (Conditions { if_unmodified_since: Some("Sun, 06 Nov 1994 08:49:37 GMT"), ..none }, Proceed),
        ] {
            assert_eq!(decide(conditions), expected, "{conditions:?}");
        }
    }

    #[test]
    fn a_range_is_of_the_file_that_the_client_has() {
        for (if_range, expected) in [
            (None, true),
            (Some(TAG), true),
            (Some("\"x\""), false),
            (Some("W/\"abc\""), false),
            (Some("Sun, 06 Nov 1994 08:49:37 GMT"), true),
            (Some("Sun, 06 Nov 1994 08:49:38 GMT"), false),
            (Some("soon"), false),
        ] {
            let conditions = Conditions { if_range, ..Conditions::default() };
            assert_eq!(conditions.allow_range(TAG, SystemTime::UNIX_EPOCH + MODIFIED), expected, "{if_range:?}");
        }
    }
}
