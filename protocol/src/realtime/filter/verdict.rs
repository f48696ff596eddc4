//! Whether a row passes a filter, where that is certain without PostgreSQL.
//!
//! realtime compares `value::type operator literal::type` (`check_equality_op.sql`), so this holds: whole numbers, booleans, uuids,
//! plain decimals of `numeric` and of floating point, and texts for being the same or like a pattern. Everything else is PostgreSQL's
//! to say: the order of texts (collations), what `ilike` and regular expressions do with case, dates and times (settings of the
//! session), blanks after `char(n)`, arrays, composites, domains, types of extensions. Literals were cast to the type once, as the
//! client subscribed, so one that PostgreSQL refuses does not come here; what we cannot read is asked for.

use std::cmp::Ordering;

use super::{Filter, Operator, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Passes,
    Fails,
    /// PostgreSQL has to say.
    Ask,
}

/// Types whose values we can compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    /// `int2`, `int4`, `int8`
    Integer,
    Float4,
    Float8,
    Numeric,
    Uuid,
    /// `text`, `varchar`
    Text,
    /// Labels; their order is their type's, so they are only the same or not.
    Enum,
}

impl Kind {
    /// By the name in `pg_type`, of a type of `pg_catalog`.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "bool" => Some(Self::Boolean),
            "int2" | "int4" | "int8" => Some(Self::Integer),
            "float4" => Some(Self::Float4),
            "float8" => Some(Self::Float8),
            "numeric" => Some(Self::Numeric),
            "uuid" => Some(Self::Uuid),
            "text" | "varchar" => Some(Self::Text),
            _ => None,
        }
    }
}

/// Whether a row passes all filters, whose columns `column` knows: their kind, and their value as a text. A column that the row does not
/// have is no column of it, and nothing passes then; not even what is negated.
pub fn of<'a>(filters: &[Filter], column: impl Fn(&str) -> Option<(Option<Kind>, Option<&'a str>)>) -> Verdict {
    let mut verdict = Verdict::Passes;
    for filter in filters {
        match column(&filter.column).map_or(Verdict::Fails, |(kind, value)| filter.verdict(kind, value)) {
            Verdict::Passes => {}
            Verdict::Fails => return Verdict::Fails,
            Verdict::Ask => verdict = Verdict::Ask,
        }
    }
    verdict
}

/// True, false or null, as SQL has it.
type Truth = Option<bool>;

impl Filter {
    /// Of a value as a text; nothing is null.
    pub fn verdict(&self, kind: Option<Kind>, value: Option<&str>) -> Verdict {
        match self.truth(kind, value) {
            None => Verdict::Ask,
            Some(Some(truth)) if truth != self.negated => Verdict::Passes,
            Some(_) => Verdict::Fails,
        }
    }

    /// Without its negation; `None` if it is not certain.
    fn truth(&self, kind: Option<Kind>, value: Option<&str>) -> Option<Truth> {
        let literal = self.value.literal();
        let Some(value) = value else {
            return match (self.operator, &self.value) {
                (Operator::IsDistinct, _) => Some(Some(true)),
                (Operator::Is, _) if matches!(literal, "null" | "unknown") => Some(Some(true)),
                (Operator::Is, _) => matches!(literal, "true" | "false").then_some(Some(false)),
                // Null is not one of none.
                (_, Value::Many { items: Some(items), .. }) if items.is_empty() => Some(Some(false)),
                (_, Value::Many { items: None, .. }) => None,
                _ => Some(None),
            };
        };
        let kind = kind?;
        let order = |which: fn(Ordering) -> bool| Some(Some(which(order(kind, value, literal)?)));
        match self.operator {
            Operator::Eq => Some(Some(equal(kind, value, literal)?)),
            Operator::Neq | Operator::IsDistinct => Some(Some(!equal(kind, value, literal)?)),
            Operator::Lt => order(Ordering::is_lt),
            Operator::Lte => order(Ordering::is_le),
            Operator::Gt => order(Ordering::is_gt),
            Operator::Gte => order(Ordering::is_ge),
            Operator::In => match &self.value {
                Value::Many { items: Some(items), .. } => any(kind, value, items),
                _ => None,
            },
            Operator::Like if kind == Kind::Text => Some(Some(like(value, literal)?)),
            Operator::Is => match (kind, literal) {
                (_, "null") | (Kind::Boolean, "unknown") => Some(Some(false)),
                (Kind::Boolean, "true") => Some(Some(boolean(value)?)),
                (Kind::Boolean, "false") => Some(Some(!boolean(value)?)),
                _ => None,
            },
            Operator::Like | Operator::ILike | Operator::Match | Operator::IMatch => None,
        }
    }
}

/// `value = any(items)`: true if it is one of them, else null if one of them is null.
fn any(kind: Kind, value: &str, items: &[Option<String>]) -> Option<Truth> {
    let mut truth = Some(false);
    for item in items {
        match item {
            None => truth = None,
            // One that is not certain may be the one.
            Some(item) if equal(kind, value, item)? => return Some(Some(true)),
            Some(_) => {}
        }
    }
    Some(truth)
}

fn equal(kind: Kind, value: &str, literal: &str) -> Option<bool> {
    match kind {
        Kind::Text | Kind::Enum => Some(value == literal),
        _ => Some(order(kind, value, literal)?.is_eq()),
    }
}

fn order(kind: Kind, value: &str, literal: &str) -> Option<Ordering> {
    match kind {
        Kind::Boolean => Some(boolean(value)?.cmp(&boolean(literal)?)),
        Kind::Integer => Some(integer(value)?.cmp(&integer(literal)?)),
        Kind::Float4 => float::<f32>(value)?.partial_cmp(&float(literal)?),
        Kind::Float8 => float::<f64>(value)?.partial_cmp(&float(literal)?),
        Kind::Numeric => Some(decimal(value)?.cmp(&decimal(literal)?)),
        Kind::Uuid => Some(uuid(value)?.cmp(&uuid(literal)?)),
        Kind::Text | Kind::Enum => None,
    }
}

fn boolean(text: &str) -> Option<bool> {
    // Any beginning of these words that is not the beginning of both.
    let text = text.trim_matches(blank).to_ascii_lowercase();
    match &text[..] {
        "t" | "tr" | "tru" | "true" | "y" | "ye" | "yes" | "on" | "1" => Some(true),
        "f" | "fa" | "fal" | "fals" | "false" | "n" | "no" | "of" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// Plain digits; PostgreSQL 16 knows more.
fn integer(text: &str) -> Option<i64> {
    text.trim_matches(blank).parse().ok()
}

fn float<F: std::str::FromStr + Into<f64> + Copy>(text: &str) -> Option<F> {
    let text = text.trim_matches(blank);
    let plain = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    let value: F = text.parse().ok().filter(|_| plain)?;
    // What is too large or too small for the type is an error to PostgreSQL.
    let double: f64 = value.into();
    let vanished = double == 0.0
        && text.bytes().take_while(|byte| !matches!(byte, b'e' | b'E')).any(|byte| matches!(byte, b'1'..=b'9'));
    (double.is_finite() && !vanished).then_some(value)
}

fn uuid(text: &str) -> Option<u128> {
    let bytes = text.as_bytes();
    // As PostgreSQL writes them; it reads more.
    let hyphens = [8, 13, 18, 23];
    if bytes.len() != 36 || !hyphens.iter().all(|&at| bytes[at] == b'-') {
        return None;
    }
    let mut digits = bytes.iter().enumerate().filter(|(at, _)| !hyphens.contains(at));
    digits.try_fold(0, |number, (_, digit)| Some(number << 4 | u128::from(char::from(*digit).to_digit(16)?)))
}

/// A decimal of any length: its sign, its digits before the point without zeros in front, those after it without zeros at the end.
#[derive(Debug, PartialEq, Eq)]
struct Decimal<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
}

fn decimal(text: &str) -> Option<Decimal<'_>> {
    let text = text.trim_matches(blank);
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let numeric = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !numeric(whole) || !numeric(fraction) {
        return None;
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    Some(Decimal { negative: negative && !(whole.is_empty() && fraction.is_empty()), whole, fraction })
}

impl Ord for Decimal<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let size = |it: &Self| it.whole.len();
        let magnitude = size(self)
            .cmp(&size(other))
            .then_with(|| self.whole.cmp(other.whole))
            .then_with(|| self.fraction.cmp(other.fraction));
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => magnitude,
            (true, true) => magnitude.reverse(),
        }
    }
}

impl PartialOrd for Decimal<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

enum Piece {
    /// `_`
    One,
    /// `%`
    Any,
    Itself(char),
}

/// `value like pattern`; nothing if the pattern ends with the escape, which PostgreSQL may refuse.
fn like(value: &str, pattern: &str) -> Option<bool> {
    let mut pieces = Vec::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        pieces.push(match character {
            '_' => Piece::One,
            '%' => Piece::Any,
            '\\' => Piece::Itself(characters.next()?),
            other => Piece::Itself(other),
        });
    }
    let value: Vec<char> = value.chars().collect();
    // The last `%`, and how much it has taken: the only place to come back to.
    let (mut at, mut piece, mut back) = (0, 0, None);
    while at < value.len() {
        match pieces.get(piece) {
            Some(Piece::Any) => {
                back = Some((piece, at));
                piece += 1;
            }
            Some(Piece::One) => (at, piece) = (at + 1, piece + 1),
            Some(Piece::Itself(character)) if *character == value[at] => (at, piece) = (at + 1, piece + 1),
            _ => {
                let Some((any, taken)) = back else { return Some(false) };
                back = Some((any, taken + 1));
                (at, piece) = (taken + 1, any + 1);
            }
        }
    }
    Some(pieces[piece..].iter().all(|piece| matches!(piece, Piece::Any)))
}

fn blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::realtime::filter::read;

    #[track_caller]
    fn check(kind: Option<Kind>, cases: &[(&str, Option<&str>, Verdict)]) {
        for (filter, value, expected) in cases {
            let filters = read(&format!("c={filter}")).unwrap();
            assert_eq!(filters[0].verdict(kind, *value), *expected, "{filter} of {value:?}");
        }
    }

    use Verdict::{Ask, Fails, Passes};

    #[test]
    fn whole_numbers() {
        check(
            Some(Kind::Integer),
            &[
                ("eq.5", Some("5"), Passes),
                ("eq. +5 ", Some("5"), Passes),
                ("eq.05", Some("5"), Passes),
                ("eq.6", Some("5"), Fails),
                ("not.eq.6", Some("5"), Passes),
                ("lt.10", Some("9"), Passes),
                ("lte.9", Some("9"), Passes),
                ("gt.-1", Some("-2"), Fails),
                ("gte.9223372036854775807", Some("9223372036854775807"), Passes),
                ("in.(1,2, 3)", Some("3"), Passes),
                ("in.(1,2)", Some("3"), Fails),
                ("not.in.(1,2)", Some("3"), Passes),
                ("not.in.(1,null)", Some("3"), Fails),
                ("in.(null,3)", Some("3"), Passes),
                ("in.()", Some("3"), Fails),
                ("in.({1})", Some("1"), Ask),
                ("eq.0x10", Some("16"), Ask),
                ("in.(0x1,3)", Some("3"), Ask),
                ("in.()", None, Fails),
                ("not.in.()", None, Passes),
                ("not.in.(1)", None, Fails),
                ("in.({1})", None, Ask),
                ("eq.5", None, Fails),
                ("not.eq.5", None, Fails),
                ("isdistinct.5", None, Passes),
                ("not.isdistinct.5", None, Fails),
                ("not.isdistinct.5", Some("5"), Passes),
                ("is.null", None, Passes),
                ("not.is.null", None, Fails),
                ("not.is.null", Some("5"), Passes),
                ("like.5%", Some("5"), Ask),
            ],
        );
    }

    #[test]
    fn other_numbers() {
        check(
            Some(Kind::Numeric),
            &[
                ("eq.1.50", Some("1.5"), Passes),
                ("eq.-0", Some("0.00"), Passes),
                ("gt.0.1", Some("0.09999999999999999999999999"), Fails),
                ("gt.99999999999999999999", Some("100000000000000000000"), Passes),
                ("lt.-2", Some("-10"), Passes),
                ("lt..5", Some("0.45"), Passes),
                ("eq.1e3", Some("1000"), Ask),
                ("eq.NaN", Some("NaN"), Ask),
                ("eq..", Some("1"), Ask),
            ],
        );
        check(
            Some(Kind::Float8),
            &[
                ("eq.0.1", Some("0.1"), Passes),
                ("eq.1e3", Some("1000"), Passes),
                ("gt.0.1", Some("0.10000000000000002"), Passes),
                ("eq.-0.0", Some("0"), Passes),
                ("eq.NaN", Some("NaN"), Ask),
                ("lt.Infinity", Some("1"), Ask),
                ("lt.1e999", Some("1"), Ask),
                ("lt.1e-999", Some("-1"), Ask),
            ],
        );
        check(Some(Kind::Float4), &[("eq.0.1", Some("0.1"), Passes), ("eq.16777217", Some("1.6777216e+07"), Passes)]);
    }

    #[test]
    fn booleans_and_uuids() {
        check(
            Some(Kind::Boolean),
            &[
                ("eq.true", Some("true"), Passes),
                ("eq.T", Some("true"), Passes),
                ("eq.off", Some("false"), Passes),
                ("eq.o", Some("false"), Ask),
                ("lt.true", Some("false"), Passes),
                ("is.true", Some("true"), Passes),
                ("not.is.true", Some("false"), Passes),
                ("not.is.true", None, Passes),
                ("is.false", None, Fails),
                ("is.unknown", None, Passes),
                ("is.unknown", Some("true"), Fails),
                ("is.null", Some("true"), Fails),
            ],
        );
        check(
            Some(Kind::Uuid),
            &[
                ("eq.A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", Some("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), Passes),
                ("gt.00000000-0000-0000-0000-000000000000", Some("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), Passes),
                ("eq.a0eebc999c0b4ef8bb6d6bb9bd380a11", Some("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), Ask),
                ("eq.g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", Some("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), Ask),
            ],
        );
    }

    #[test]
    fn texts() {
        check(
            Some(Kind::Text),
            &[
                ("eq.a", Some("a"), Passes),
                ("eq.a", Some("A"), Fails),
                ("neq.a", Some("a "), Passes),
                (r#"in.("a,b",c)"#, Some("a,b"), Passes),
                ("isdistinct.null", Some("null"), Fails),
                ("lt.b", Some("a"), Ask),
                ("like.%", Some(""), Passes),
                ("like.a%c", Some("abcbc"), Passes),
                ("like.a%c", Some("abcb"), Fails),
                ("like._b_", Some("äbö"), Passes),
                ("like.a__", Some("ab"), Fails),
                (r"like.100\%", Some("100%"), Passes),
                (r"like.100\%", Some("1000"), Fails),
                (r"like.a\", Some("a"), Ask),
                ("not.like.%x%", Some("abc"), Passes),
                ("ilike.A%", Some("abc"), Ask),
                ("match.^a", Some("abc"), Ask),
                ("is.true", Some("true"), Ask),
            ],
        );
        check(Some(Kind::Enum), &[("eq.open", Some("open"), Passes), ("gt.open", Some("shut"), Ask)]);
        check(None, &[("eq.a", Some("a"), Ask), ("eq.a", None, Fails), ("is.null", Some("(,)"), Ask)]);
    }

    #[test]
    fn all_filters_must_pass() {
        let row = |name: &str| match name {
            "id" => Some((Some(Kind::Integer), Some("5"))),
            "at" => Some((None, Some("2026-01-01"))),
            _ => None,
        };
        for (filter, expected) in [
            ("", Passes),
            ("id=gt.1,id=lt.9", Passes),
            ("id=gt.1,id=lt.2", Fails),
            ("at=gt.2025-01-01,id=lt.9", Ask),
            ("at=gt.2025-01-01,id=lt.2", Fails),
            ("gone=not.eq.1", Fails),
            ("gone=is.null", Fails),
        ] {
            assert_eq!(of(&read(filter).unwrap(), row), expected, "{filter}");
        }
    }

    proptest! {
        #[test]
        fn decimals_are_ordered_as_numbers(a in -10_000_i64..10_000, b in -10_000_i64..10_000, zeros in 0_usize..3) {
            let said = |number: i64| {
                let sign = if number < 0 { "-" } else { "" };
                format!("{sign}{}{}.{:02}{}", "0".repeat(zeros), number.abs() / 100, number.abs() % 100, "0".repeat(zeros))
            };
            let (left, right) = (said(a), said(b));
            prop_assert_eq!(decimal(&left).unwrap().cmp(&decimal(&right).unwrap()), a.cmp(&b));
        }

        #[test]
        fn a_text_is_like_itself(text in "\\PC{0,20}") {
            let escaped: String = text.chars().flat_map(|character| ['\\', character]).collect();
            prop_assert_eq!(like(&text, &escaped), Some(true));
            let within = format!("%{escaped}%");
            prop_assert_eq!(like(&text, &within), Some(true));
        }

        #[test]
        fn nothing_breaks_a_verdict(filter in "c=(not\\.)?(eq|lt|in|like|is|isdistinct)\\.\\PC{0,20}", value in "\\PC{0,20}") {
            for filter in read(&filter).unwrap_or_default() {
                for kind in [Kind::Boolean, Kind::Integer, Kind::Float4, Kind::Float8, Kind::Numeric, Kind::Uuid, Kind::Text, Kind::Enum] {
                    let verdict = filter.verdict(Some(kind), Some(&value));
                    let other = Filter { negated: !filter.negated, ..filter.clone() }.verdict(Some(kind), Some(&value));
                    prop_assert!(verdict == Ask || other == Ask || verdict != other || verdict == Fails);
                }
            }
        }
    }
}
