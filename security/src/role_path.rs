//! Where in a token's claims the role stands: a `JSONPath` (RFC 9535), or the older notation that PostgREST had until version 15.

use serde_json::Value;
use serde_json_path::JsonPath;

#[derive(Debug, Clone)]
pub struct RolePath(Notation);

#[derive(Debug, Clone)]
enum Notation {
    Standard(JsonPath),
    /// `.a."b c"[0][?(@ == "x")]`.
    Older(Vec<Step>),
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Key(String),
    Index(usize),
    /// Only at the end: the first string of an array for which this holds.
    Find(Condition, String),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Condition {
    Equal,
    NotEqual,
    StartsWith,
    EndsWith,
    Contains,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a JSONPath such as $.role")]
pub struct Fault(String);

impl Default for RolePath {
    /// `$.role`.
    fn default() -> Self {
        Self(Notation::Older(vec![Step::Key("role".into())]))
    }
}

impl RolePath {
    pub fn parse(text: &str) -> Result<Self, Fault> {
        if let Ok(path) = JsonPath::parse(text) {
            return Ok(Self(Notation::Standard(path)));
        }
        older(text).map(|steps| Self(Notation::Older(steps))).ok_or_else(|| Fault(text.to_owned()))
    }

    /// Whether it is written in the notation that PostgREST will no longer read.
    pub fn is_older(&self) -> bool {
        matches!(self.0, Notation::Older(_))
    }

    /// The role that the claims name, if they do. What is not a string is taken as JSON.
    pub fn role(&self, claims: &Value) -> Option<String> {
        let found = match &self.0 {
            Notation::Standard(path) => path.query(claims).first(),
            Notation::Older(steps) => steps.iter().try_fold(claims, |value, step| step.of(value)),
        };
        match found? {
            Value::String(role) => Some(role.clone()),
            other => Some(other.to_string()),
        }
    }
}

impl Step {
    fn of<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        match self {
            Self::Key(key) => value.as_object()?.get(key),
            Self::Index(index) => value.as_array()?.get(*index),
            Self::Find(condition, text) => {
                let holds = |item: &str| match condition {
                    Condition::Equal => item == text,
                    Condition::NotEqual => item != text,
                    Condition::StartsWith => item.starts_with(text),
                    Condition::EndsWith => item.ends_with(text),
                    Condition::Contains => item.contains(text),
                };
                value.as_array()?.iter().find(|item| item.as_str().is_some_and(holds))
            }
        }
    }
}

fn older(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (step, after) = step(rest)?;
        let last = matches!(step, Step::Find(..));
        steps.push(step);
        if last && !after.is_empty() {
            return None;
        }
        rest = after;
    }
    (!steps.is_empty()).then_some(steps)
}

fn step(text: &str) -> Option<(Step, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        if rest.starts_with('"') {
            let (key, rest) = quoted(rest)?;
            return Some((Step::Key(key), rest));
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && !"_$@".contains(c)).unwrap_or(rest.len());
        return (end > 0).then(|| (Step::Key(rest[..end].to_owned()), &rest[end..]));
    }
    if let Some(rest) = text.strip_prefix("[?(@") {
        let rest = rest.trim_start();
        let operators = [
            ("==^", Condition::EndsWith),
            ("==", Condition::Equal),
            ("!=", Condition::NotEqual),
            ("^==", Condition::StartsWith),
            ("*==", Condition::Contains),
        ];
        let (condition, rest) =
            operators.iter().find_map(|(sign, condition)| Some((*condition, rest.strip_prefix(sign)?)))?;
        let (wanted, rest) = quoted(rest.trim_start())?;
        return Some((Step::Find(condition, wanted), rest.strip_prefix(")]")?));
    }
    let (index, rest) = text.strip_prefix('[')?.split_once(']')?;
    let digits = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
    Some((Step::Index(index.parse().ok().filter(|_| digits)?), rest))
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let (inside, rest) = text.strip_prefix('"')?.split_once('"')?;
    Some((inside.to_owned(), rest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_notations_find_the_role() {
        let claims = json!({
            "role": "user", "app": { "roles": ["other", "author"], "the key": 7 }, "https://x.example/role": "far",
        });
        for (path, expected) in [
            ("$.role", Some("user")),
            (".role", Some("user")),
            ("$.app.roles[1]", Some("author")),
            (".app.roles[1]", Some("author")),
            ("$['https://x.example/role']", Some("far")),
            (r#"."https://x.example/role""#, Some("far")),
            ("$.app.roles[?(@ == 'author')]", Some("author")),
            ("$.app.roles[?search(@, '^au')]", Some("author")),
            (r#".app.roles[?(@ ^== "au")]"#, Some("author")),
            (r#".app.roles[?(@ ==^ "er")]"#, Some("other")),
            (r#".app.roles[?(@ != "other")]"#, Some("author")),
            (r#".app.roles[?(@ *== "uth")]"#, Some("author")),
            (r#".app."the key""#, Some("7")),
            (".app.roles[9]", None),
            ("$.nothing", None),
        ] {
            assert_eq!(RolePath::parse(path).unwrap().role(&claims).as_deref(), expected, "{path}");
        }
        assert_eq!(RolePath::default().role(&claims).as_deref(), Some("user"));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for path in ["", "role", ".", ".a[", ".a[x]", r#".a[?(@ == "x")].b"#, "$.["] {
            assert!(RolePath::parse(path).is_err(), "{path}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_path_is_understood_or_refused(path in r#"[$.\[\]'"*?@=^!()0-9a-z\\ -]{0,20}"#) {
            if let Ok(path) = RolePath::parse(&path) {
                let _ = path.role(&serde_json::json!({ "a": ["b", { "c": "d" }], "role": "r" }));
            }
        }
    }
}
