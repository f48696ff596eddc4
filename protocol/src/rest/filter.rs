//! `col=not.op.value`, `and=(…)`, `or=(…)`: operators and their values.

use super::cursor::{Cursor, Failed, MAX_DEPTH, Parsed};
use super::request::{Connective, Filter, FullText, IsValue, LogicTree, Operation, Operator, Quantifier};
use super::select;

/// How far a value reaches: to the end of the parameter, or to the next `,` or `)` of a logic tree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    All,
    Element,
}

/// `not.eq.5` as the value of a filter.
pub fn operation(cursor: &mut Cursor<'_>) -> Parsed<(bool, Operation)> {
    operation_of(cursor, Reach::All)
}

fn operation_of(cursor: &mut Cursor<'_>, reach: Reach) -> Parsed<(bool, Operation)> {
    let negated = dotted(cursor, "\"not\"").is_ok();
    if let Some(operation) = usual(cursor, reach)? {
        return Ok((negated, operation));
    }
    let operation = cursor.labelled("operator (eq, gt, ...)", |cursor| {
        if dotted(cursor, "\"in\"").is_ok() {
            return list(cursor).map(Operation::In);
        }
        if dotted(cursor, "\"is\"").is_ok() {
            return is_value(cursor).map(Operation::Is);
        }
        if dotted(cursor, "\"isdistinct\"").is_ok() {
            return value(cursor, reach).map(Operation::IsDistinctFrom);
        }
        if let Some(operation) = cursor.optional(|cursor| cursor.attempt(|cursor| full_text(cursor, reach)))? {
            return Ok(operation);
        }
        if let Some(operation) = cursor.optional(|cursor| cursor.attempt(|cursor| simple(cursor, reach)))? {
            return Ok(operation);
        }
        cursor.attempt(|cursor| quantified(cursor, reach))
    })?;
    Ok((negated, operation))
}

/// The operators that almost every request has, found at once.
fn usual(cursor: &mut Cursor<'_>, reach: Reach) -> Parsed<Option<Operation>> {
    let rest = cursor.rest();
    let Some((word, _)) = rest.split_once('.').filter(|(word, _)| word.len() <= 6) else { return Ok(None) };
    let quoted = QUANTIFIED.iter().chain(&SIMPLE).find(|(quoted, _)| &quoted[1..quoted.len() - 1] == word);
    let Some((quoted, operator)) = quoted else { return Ok(None) };
    dotted(cursor, quoted)?;
    Ok(Some(Operation::Compare { operator: *operator, quantifier: None, value: value(cursor, reach)? }))
}

/// A word and its point, all or nothing.
fn dotted(cursor: &mut Cursor<'_>, quoted: &'static str) -> Parsed<()> {
    cursor.attempt(|cursor| {
        cursor.literal(quoted)?;
        delimiter(cursor)
    })
}

fn delimiter(cursor: &mut Cursor<'_>) -> Parsed<()> {
    cursor.satisfy(|character| character == '.', "delimiter (.)").map(drop)
}

/// The first of the words that is here.
fn one_of<T: Copy>(cursor: &mut Cursor<'_>, words: &[(&'static str, T)]) -> Parsed<T> {
    words.iter().find(|(word, _)| cursor.word(word).is_ok()).map(|(_, value)| *value).ok_or(Failed)
}

/// In the order in which they are tried: a longer word before its beginning.
const SIMPLE: [(&str, Operator); 9] = [
    ("\"neq\"", Operator::Neq),
    ("\"cs\"", Operator::Contains),
    ("\"cd\"", Operator::Contained),
    ("\"ov\"", Operator::Overlaps),
    ("\"sl\"", Operator::StrictlyLeft),
    ("\"sr\"", Operator::StrictlyRight),
    ("\"nxr\"", Operator::NotExtendsRight),
    ("\"nxl\"", Operator::NotExtendsLeft),
    ("\"adj\"", Operator::Adjacent),
];
const QUANTIFIED: [(&str, Operator); 9] = [
    ("\"eq\"", Operator::Eq),
    ("\"gte\"", Operator::Gte),
    ("\"gt\"", Operator::Gt),
    ("\"lte\"", Operator::Lte),
    ("\"lt\"", Operator::Lt),
    ("\"like\"", Operator::Like),
    ("\"ilike\"", Operator::ILike),
    ("\"match\"", Operator::Match),
    ("\"imatch\"", Operator::IMatch),
];

fn simple(cursor: &mut Cursor<'_>, reach: Reach) -> Parsed<Operation> {
    let operator = one_of(cursor, &SIMPLE)?;
    delimiter(cursor)?;
    Ok(Operation::Compare { operator, quantifier: None, value: value(cursor, reach)? })
}

fn quantified(cursor: &mut Cursor<'_>, reach: Reach) -> Parsed<Operation> {
    let operator = one_of(cursor, &QUANTIFIED)?;
    let quantifier = cursor.optional(|cursor| {
        cursor.attempt(|cursor| {
            cursor.literal("\"(\"")?;
            let quantifier = one_of(cursor, &[("\"any\"", Quantifier::Any), ("\"all\"", Quantifier::All)])?;
            cursor.literal("\")\"")?;
            Ok(quantifier)
        })
    })?;
    delimiter(cursor)?;
    Ok(Operation::Compare { operator, quantifier, value: value(cursor, reach)? })
}

fn full_text(cursor: &mut Cursor<'_>, reach: Reach) -> Parsed<Operation> {
    const WORDS: [(&str, FullText); 4] = [
        ("\"fts\"", FullText::Plain),
        ("\"plfts\"", FullText::PlainTo),
        ("\"phfts\"", FullText::Phrase),
        ("\"wfts\"", FullText::WebSearch),
    ];
    let kind = one_of(cursor, &WORDS)?;
    let language = cursor.optional(|cursor| {
        cursor.attempt(|cursor| {
            cursor.literal("\"(\"")?;
            let language = cursor.identifier()?;
            cursor.literal("\")\"")?;
            Ok(language)
        })
    })?;
    delimiter(cursor)?;
    Ok(Operation::FullText { kind, language, value: value(cursor, reach)? })
}

fn is_value(cursor: &mut Cursor<'_>) -> Parsed<IsValue> {
    const WORDS: [(&str, IsValue); 5] = [
        ("null", IsValue::Null),
        ("not_null", IsValue::NotNull),
        ("true", IsValue::True),
        ("false", IsValue::False),
        ("unknown", IsValue::Unknown),
    ];
    cursor.labelled("isVal: (null, not_null, true, false, unknown)", |cursor| {
        let mut any_case = |word: &str| {
            cursor.attempt(|cursor| {
                word.chars().try_for_each(|letter| {
                    cursor
                        .satisfy(|character| character == letter || character == letter.to_ascii_uppercase(), "")
                        .map(drop)
                })
            })
        };
        WORDS.into_iter().find(|(word, _)| any_case(word).is_ok()).map(|(_, value)| value).ok_or(Failed)
    })
}

fn is_element(character: char) -> bool {
    character != ',' && character != ')'
}

/// A value in quotes that reaches to the next `,` or `)`.
fn quoted_element(cursor: &mut Cursor<'_>) -> Parsed<Option<String>> {
    cursor.optional(|cursor| {
        cursor.attempt(|cursor| {
            let value = cursor.quoted()?;
            cursor.not(is_element)?;
            Ok(value)
        })
    })
}

fn value(cursor: &mut Cursor<'_>, reach: Reach) -> Parsed<String> {
    if reach == Reach::All {
        return Ok(cursor.many(|_| true, &[]).to_owned());
    }
    if let Some(value) = quoted_element(cursor)? {
        return Ok(value);
    }
    let array = cursor.optional(|cursor| {
        cursor.attempt(|cursor| {
            cursor.literal("\"{\"")?;
            let elements = cursor.many(|character| character != '{' && character != '}', &[]);
            cursor.literal("\"}\"")?;
            Ok(format!("{{{elements}}}"))
        })
    })?;
    Ok(array.unwrap_or_else(|| cursor.many(is_element, &[]).to_owned()))
}

/// `(a,"b,c",d)`.
fn list(cursor: &mut Cursor<'_>) -> Parsed<Vec<String>> {
    cursor.spaced(|cursor| cursor.literal("\"(\""))?;
    let elements = cursor.separated(
        |cursor| match quoted_element(cursor)? {
            Some(value) => Ok(value),
            None => Ok(cursor.many(is_element, &[]).to_owned()),
        },
        |cursor| cursor.literal("\",\""),
    )?;
    cursor.spaced(|cursor| cursor.literal("\")\""))?;
    Ok(elements)
}

/// `and(a.eq.1,not.or(b.is.null,c.gt.2))`.
pub fn logic(cursor: &mut Cursor<'_>) -> Parsed<LogicTree> {
    tree(cursor, 0)
}

fn tree(cursor: &mut Cursor<'_>, depth: usize) -> Parsed<LogicTree> {
    if depth > MAX_DEPTH {
        return cursor.fail("fewer levels of logic");
    }
    let filter = cursor.optional(|cursor| {
        cursor.attempt(|cursor| {
            let field = select::field(cursor)?;
            delimiter(cursor)?;
            let (negated, operation) = operation_of(cursor, Reach::Element)?;
            Ok(Filter { field, negated, operation })
        })
    })?;
    if let Some(filter) = filter {
        return Ok(LogicTree::Filter(filter));
    }
    let negated = cursor.labelled("negation operator (not)", |cursor| Ok(dotted(cursor, "\"not\"").is_ok()))?;
    let connective = cursor.labelled("logic operator (and, or)", |cursor| {
        if cursor.word("\"and\"").is_ok() {
            return Ok(Connective::And);
        }
        cursor.literal("\"or\"")?;
        Ok(Connective::Or)
    })?;
    cursor.spaced(|cursor| cursor.literal("\"(\""))?;
    let children =
        cursor.separated(|cursor| tree(cursor, depth + 1), |cursor| cursor.spaced(|cursor| cursor.literal("\",\"")))?;
    cursor.spaced(|cursor| cursor.literal("\")\""))?;
    Ok(LogicTree::Branch { negated, connective, children })
}
