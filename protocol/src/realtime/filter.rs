//! Which rows of a table a client wants to hear of: `column=operator.value`, several between commas, all of which must hold.
//!
//! Source: realtime's `lib/extensions/postgres_cdc_rls/subscriptions.ex` and, for what is checked against the table,
//! `subscription_check_filters.sql`. Whether a row passes is PostgreSQL's to say; [`verdict`] knows where it can be said without it.

mod list;
pub mod verdict;

use crate::nesting;
use crate::realtime::inspect;
use crate::realtime::limits::IN_VALUES;

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    pub column: String,
    pub operator: Operator,
    /// `not.`
    pub negated: bool,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    One(String),
    /// Of `in`.
    Many {
        /// PostgreSQL's literal of an array: `{…}`.
        literal: String,
        /// What is in it, null being nothing; not there if only PostgreSQL can tell, or if it is no such literal.
        items: Option<Vec<Option<String>>>,
    },
}

impl Value {
    /// As the literal that PostgreSQL casts to the type of the column, or of its array.
    pub fn literal(&self) -> &str {
        match self {
            Self::One(literal) | Self::Many { literal, .. } => literal,
        }
    }
}

macro_rules! operators {
    ($($name:ident $text:literal $sql:literal,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Operator {
            $($name,)*
        }

        impl Operator {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Between the value of the row and the literal.
            pub fn sql(self) -> &'static str {
                match self {
                    $(Self::$name => $sql,)*
                }
            }
        }
    };
}

operators! {
    Eq "eq" "=",
    Neq "neq" "<>",
    Lt "lt" "<",
    Lte "lte" "<=",
    Gt "gt" ">",
    Gte "gte" ">=",
    In "in" "= any",
    Like "like" "like",
    ILike "ilike" "ilike",
    Is "is" "is",
    Match "match" "~",
    IMatch "imatch" "~*",
    IsDistinct "isdistinct" "is distinct from",
}

/// Why a text is no filter, as it follows ``Error parsing `filter` params: ``.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("filter must not contain empty segments (check for extra commas)")]
    Empty,
    #[error("`in` filter value must be wrapped by parentheses")]
    NoParentheses,
    #[error("filter must not be nested deeper than {}", nesting::MOST)]
    Nested,
    /// The parts that were there.
    #[error("{}", inspect::list(.0.iter().map(|part| inspect::string(part))))]
    Unreadable(Vec<String>),
}

/// Why a filter does not fit its table. PostgreSQL's own errors come beside these: of values that are not of the column's type, of
/// regular expressions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is not there, or the role may not read it.
    #[error("invalid column for filter {0}")]
    Column(String),
    #[error("invalid column for select {0}")]
    Selected(String),
    #[error("too many values for `in` filter. Maximum {IN_VALUES}")]
    TooMany,
    #[error("invalid value for is filter: must be null, true, false, or unknown")]
    Keyword,
    #[error("is {keyword} filter requires a boolean column, got {got}")]
    NotBoolean { keyword: String, got: String },
    #[error("operator {} requires a text-compatible column type, got {got}", operator.text())]
    NotText { operator: Operator, got: String },
    #[error("invalid regular expression for {} filter: {why}", operator.text())]
    Pattern { operator: Operator, why: String },
}

/// Reads a whole filter; blanks are none.
pub fn read(text: &str) -> Result<Vec<Filter>, Fault> {
    match text.trim() {
        "" => Ok(Vec::new()),
        text => segments(text).into_iter().map(segment).collect(),
    }
}

impl Filter {
    /// What can be told of a column's type without PostgreSQL; `None` for a column that is not there. Names of types are those of
    /// `regtype`.
    pub fn fits(&self, column_type: Option<&str>) -> Result<(), Unfit> {
        let Some(got) = column_type else { return Err(Unfit::Column(self.column.clone())) };
        match (self.operator, &self.value) {
            (Operator::In, Value::Many { items: Some(items), .. }) if items.len() > IN_VALUES => Err(Unfit::TooMany),
            (Operator::Is, value) => match value.literal() {
                "null" => Ok(()),
                "true" | "false" | "unknown" if got == "boolean" => Ok(()),
                keyword @ ("true" | "false" | "unknown") => {
                    Err(Unfit::NotBoolean { keyword: keyword.to_owned(), got: got.to_owned() })
                }
                _ => Err(Unfit::Keyword),
            },
            _ => Ok(()),
        }
    }

    /// As realtime shows it in messages.
    pub fn described(&self) -> String {
        let [column, operator, value] = [&self.column, self.operator.text(), self.value.literal()].map(inspect::string);
        format!("{{{column}, {operator}, {value}, {}}}", self.negated)
    }
}

/// Cuts at the commas that are neither within parentheses nor within quotes. A quote begins only where a value may.
fn segments(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let (mut found, mut from, mut depth, mut quoted, mut before, mut at) = (Vec::new(), 0, 0_usize, false, 0_u8, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' if quoted && at + 1 < bytes.len() => at += 1,
            b'"' if quoted => quoted = false,
            _ if quoted => {}
            b'"' if matches!(before, b'.' | b'(' | b',') => quoted = true,
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                found.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
        before = match byte {
            b',' if !quoted && depth == 0 => 0,
            _ => bytes[at],
        };
        at += 1;
    }
    found.push(&text[from..]);
    found
}

fn segment(text: &str) -> Result<Filter, Fault> {
    let unreadable = |parts: &[&str]| Fault::Unreadable(parts.iter().map(|part| (*part).to_owned()).collect());
    let text = text.trim();
    if text.is_empty() {
        return Err(Fault::Empty);
    }
    if nesting::is_deep(text) {
        return Err(Fault::Nested);
    }
    let (column, rest) = text.split_once('=').ok_or_else(|| unreadable(&[text]))?;
    let (negated, rest) = rest.strip_prefix("not.").map_or((false, rest), |rest| (true, rest));
    let (name, value) = rest.split_once('.').ok_or_else(|| unreadable(&[rest]))?;
    let operator = Operator::ALL.iter().copied().find(|operator| operator.text() == name);
    let operator = operator.ok_or_else(|| unreadable(&[name, value]))?;
    let value = match operator {
        Operator::In => {
            let inner = value.strip_prefix('(').and_then(|value| value.strip_suffix(')'));
            let inner = inner.ok_or(Fault::NoParentheses)?;
            Value::Many { literal: format!("{{{inner}}}"), items: list::read(inner) }
        }
        _ => Value::One(unquoted(value).unwrap_or_else(|| value.to_owned())),
    };
    Ok(Filter { column: column.to_owned(), operator, negated, value })
}

/// What is between the quotes, if the whole is between quotes; else it stands for itself.
fn unquoted(value: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = value.strip_prefix('"')?.chars();
    loop {
        match rest.next()? {
            '"' => return rest.as_str().is_empty().then_some(out),
            '\\' => out.push(rest.next()?),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        match read(text) {
            Ok(filters) => filters.iter().map(Filter::described).collect::<Vec<_>>().join(" "),
            Err(fault) => fault.to_string(),
        }
    }

    #[test]
    fn filters_that_are_nested_too_deeply_are_refused() {
        let nested = |depth: usize| format!("name=match.{}a{}", "(".repeat(depth), ")".repeat(depth));
        assert!(read(&nested(nesting::MOST)).is_ok());
        assert_eq!(said(&nested(nesting::MOST + 1)), "filter must not be nested deeper than 1000");
        assert_eq!(read(&format!("details=eq.{}", "[".repeat(100_000))), Err(Fault::Nested));
    }

    /// realtime's own cases, and some at the edges.
    #[test]
    fn filters_are_read() {
        for (text, expected) in [
            ("id=eq.5", r#"{"id", "eq", "5", false}"#),
            ("id=gt.0,id=lt.100", r#"{"id", "gt", "0", false} {"id", "lt", "100", false}"#),
            (" id=gt.0 , id=lt.100 ", r#"{"id", "gt", "0", false} {"id", "lt", "100", false}"#),
            ("", ""),
            ("   ", ""),
            ("id=in.(1,2,3),details=eq.active", r#"{"id", "in", "{1,2,3}", false} {"details", "eq", "active", false}"#),
            ("a=in.(r,b,g),b=not.in.(x,y)", r#"{"a", "in", "{r,b,g}", false} {"b", "in", "{x,y}", true}"#),
            ("a=eq.x),b=eq.y),c=eq.z", r#"{"a", "eq", "x)", false} {"b", "eq", "y)", false} {"c", "eq", "z", false}"#),
            (r#"name=eq.O'Brien "x""#, r#"{"name", "eq", "O'Brien \"x\"", false}"#),
            ("name=not.neq.a'b", r#"{"name", "neq", "a'b", true}"#),
            (r#"name=eq."a,b",id=gt.0"#, r#"{"name", "eq", "a,b", false} {"id", "gt", "0", false}"#),
            (r#"name=eq."a.b:c(d)""#, r#"{"name", "eq", "a.b:c(d)", false}"#),
            (r#"name=eq."she said \"hi\"""#, r#"{"name", "eq", "she said \"hi\"", false}"#),
            (r#"path=eq."C:\\tmp""#, r#"{"path", "eq", "C:\\tmp", false}"#),
            (r#"path=eq."C:\new""#, r#"{"path", "eq", "C:new", false}"#),
            (r#"name=not.neq."a,b""#, r#"{"name", "neq", "a,b", true}"#),
            (r#"name=eq."""#, r#"{"name", "eq", "", false}"#),
            (r#"name=eq." a ""#, r#"{"name", "eq", " a ", false}"#),
            (r#"tags=in.("a,b",c)"#, r#"{"tags", "in", "{\"a,b\",c}", false}"#),
            (
                r#"tags=in.("a)","c,d"),id=eq.1"#,
                r#"{"tags", "in", "{\"a)\",\"c,d\"}", false} {"id", "eq", "1", false}"#,
            ),
            (r#"name=eq."unterminated"#, r#"{"name", "eq", "\"unterminated", false}"#),
            (r#"name=eq."ab"cd"#, r#"{"name", "eq", "\"ab\"cd", false}"#),
            (r#"desc=eq.5" tall,id=gt.0"#, r#"{"desc", "eq", "5\" tall", false} {"id", "gt", "0", false}"#),
            (r#"name=eq."a\"#, r#"{"name", "eq", "\"a\\", false}"#),
            ("flag=is.true", r#"{"flag", "is", "true", false}"#),
            ("a=eq.", r#"{"a", "eq", "", false}"#),
            ("=eq.1", r#"{"", "eq", "1", false}"#),
            ("a=eq.b=c.d", r#"{"a", "eq", "b=c.d", false}"#),
            ("a=isdistinct.null", r#"{"a", "isdistinct", "null", false}"#),
            ("a=eq.é,ü=like.%ö_", r#"{"a", "eq", "é", false} {"ü", "like", "%ö_", false}"#),
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_filter_is_told_in_realtimes_words() {
        let empty = "filter must not contain empty segments (check for extra commas)";
        for (text, expected) in [
            ("wrong", r#"["wrong"]"#),
            ("undefined", r#"["undefined"]"#),
            ("subject=foo.hey", r#"["foo", "hey"]"#),
            ("id=gt.0,id=foo.100", r#"["foo", "100"]"#),
            ("id=eq", r#"["eq"]"#),
            ("id=not.eq", r#"["eq"]"#),
            ("id=not.not.eq.1", r#"["not", "eq.1"]"#),
            ("id=EQ.1", r#"["EQ", "1"]"#),
            ("id=in.1,2", "`in` filter value must be wrapped by parentheses"),
            ("id=in.(", "`in` filter value must be wrapped by parentheses"),
            ("id=gt.0,", empty),
            (",id=gt.0", empty),
            ("a=eq.1,,b=eq.2", empty),
            ("a=eq.1, ,b=eq.2", empty),
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
    }

    #[test]
    fn filters_fit_their_columns_or_not() {
        let many = format!("id=in.({})", ["1"; 101].join(","));
        for (text, column_type, expected) in [
            ("id=eq.5", Some("integer"), ""),
            ("subject=eq.hey", None, "invalid column for filter subject"),
            (&many[..], Some("integer"), "too many values for `in` filter. Maximum 100"),
            (&many.replacen(",1", "", 1), Some("integer"), ""),
            ("a=is.null", Some("integer"), ""),
            ("a=is.true", Some("boolean"), ""),
            ("a=is.true", Some("integer"), "is true filter requires a boolean column, got integer"),
            ("a=is.maybe", Some("boolean"), "invalid value for is filter: must be null, true, false, or unknown"),
        ] {
            let filters = read(text).unwrap();
            let fits = filters[0].fits(column_type).map_err(|unfit| unfit.to_string());
            assert_eq!(fits.err().unwrap_or_default(), expected, "{text}");
        }
    }
}
