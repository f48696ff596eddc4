//! `col=not.op.value`, `and=(…)`, `or=(…)`: operators and their values.

use super::cursor::{Cursor, MAX_DEPTH, Parsed};
use super::request::{Connective, Filter, FullText, IsValue, LogicTree, Operation, Operator, Quantifier};
use super::select;

const OPERATOR: &str = "operator (eq, gt, ...)";

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
    let negated = cursor.eat("not.");
    let start = *cursor;
    let word = cursor.take_while(|character| character.is_ascii_alphabetic());
    let operation = match word {
        "in" if cursor.eat(".") => Operation::In(list(cursor)?),
        "is" if cursor.eat(".") => Operation::Is(is_value(cursor)?),
        "isdistinct" if cursor.eat(".") => Operation::IsDistinctFrom(value(cursor, reach)?),
        _ => match (full_text(word), operator(word)) {
            (Some(kind), _) => {
                let language = language(cursor)?;
                cursor.expect(".", "delimiter (.)")?;
                Operation::FullText { kind, language, value: value(cursor, reach)? }
            }
            (None, Some((operator, quantifiable))) => {
                let quantifier = if quantifiable { quantifier(cursor) } else { None };
                cursor.expect(".", "delimiter (.)")?;
                Operation::Compare { operator, quantifier, value: value(cursor, reach)? }
            }
            (None, None) => {
                *cursor = start;
                return cursor.fault(if negated { OPERATOR } else { "\"not\" or operator (eq, gt, ...)" });
            }
        },
    };
    Ok((negated, operation))
}

fn operator(word: &str) -> Option<(Operator, bool)> {
    Some(match word {
        "eq" => (Operator::Eq, true),
        "gte" => (Operator::Gte, true),
        "gt" => (Operator::Gt, true),
        "lte" => (Operator::Lte, true),
        "lt" => (Operator::Lt, true),
        "like" => (Operator::Like, true),
        "ilike" => (Operator::ILike, true),
        "match" => (Operator::Match, true),
        "imatch" => (Operator::IMatch, true),
        "neq" => (Operator::Neq, false),
        "cs" => (Operator::Contains, false),
        "cd" => (Operator::Contained, false),
        "ov" => (Operator::Overlaps, false),
        "sl" => (Operator::StrictlyLeft, false),
        "sr" => (Operator::StrictlyRight, false),
        "nxr" => (Operator::NotExtendsRight, false),
        "nxl" => (Operator::NotExtendsLeft, false),
        "adj" => (Operator::Adjacent, false),
        _ => return None,
    })
}

fn full_text(word: &str) -> Option<FullText> {
    Some(match word {
        "fts" => FullText::Plain,
        "plfts" => FullText::PlainTo,
        "phfts" => FullText::Phrase,
        "wfts" => FullText::WebSearch,
        _ => return None,
    })
}

fn language(cursor: &mut Cursor<'_>) -> Parsed<Option<String>> {
    if !cursor.eat("(") {
        return Ok(None);
    }
    let language = cursor.identifier()?;
    cursor.expect(")", "\")\"")?;
    Ok(Some(language))
}

fn quantifier(cursor: &mut Cursor<'_>) -> Option<Quantifier> {
    if cursor.eat("(any)") {
        Some(Quantifier::Any)
    } else if cursor.eat("(all)") {
        Some(Quantifier::All)
    } else {
        None
    }
}

fn is_value(cursor: &mut Cursor<'_>) -> Parsed<IsValue> {
    let before = *cursor;
    let word = cursor.take_while(|character| character.is_ascii_alphabetic() || character == '_');
    Ok(match word.to_ascii_lowercase().as_str() {
        "null" => IsValue::Null,
        "not_null" => IsValue::NotNull,
        "true" => IsValue::True,
        "false" => IsValue::False,
        "unknown" => IsValue::Unknown,
        _ => return before.fault("isVal: (null, not_null, true, false, unknown)"),
    })
}

fn value(cursor: &mut Cursor<'_>, reach: Reach) -> Parsed<String> {
    if reach == Reach::All {
        return Ok(cursor.take_while(|_| true).to_owned());
    }
    let ends = |cursor: &Cursor<'_>| matches!(cursor.peek(), None | Some(',' | ')'));
    let quoted = cursor.attempt(|cursor| {
        let value = cursor.quoted()?;
        if ends(cursor) { Ok(value) } else { cursor.fault("\",\" or \")\"") }
    });
    if quoted.is_ok() {
        return quoted;
    }
    let array = cursor.attempt(|cursor| {
        cursor.expect("{", "{")?;
        let elements = cursor.take_while(|character| character != '{' && character != '}');
        cursor.expect("}", "}")?;
        Ok(format!("{{{elements}}}"))
    });
    if array.is_ok() {
        return array;
    }
    Ok(cursor.take_while(|character| character != ',' && character != ')').to_owned())
}

/// `(a,"b,c",d)`.
fn list(cursor: &mut Cursor<'_>) -> Parsed<Vec<String>> {
    cursor.blanks();
    cursor.expect("(", "\"(\"")?;
    cursor.blanks();
    let mut elements = Vec::new();
    loop {
        let quoted = cursor.attempt(|cursor| {
            let value = cursor.quoted()?;
            if matches!(cursor.peek(), None | Some(',' | ')')) { Ok(value) } else { cursor.fault("\",\" or \")\"") }
        });
        elements.push(match quoted {
            Ok(value) => value,
            Err(_) => cursor.take_while(|character| character != ',' && character != ')').to_owned(),
        });
        if !cursor.eat(",") {
            break;
        }
    }
    cursor.expect(")", "\",\" or \")\"")?;
    cursor.blanks();
    Ok(elements)
}

/// `and(a.eq.1,not.or(b.is.null,c.gt.2))`.
pub fn logic(cursor: &mut Cursor<'_>) -> Parsed<LogicTree> {
    let tree = tree(cursor, 0)?;
    cursor.end("end of input")?;
    Ok(tree)
}

fn tree(cursor: &mut Cursor<'_>, depth: usize) -> Parsed<LogicTree> {
    if depth > MAX_DEPTH {
        return cursor.fault("fewer levels of logic");
    }
    let branch = cursor.attempt(|cursor| {
        let negated = cursor.eat("not.");
        let connective = if cursor.eat("and") {
            Connective::And
        } else if cursor.eat("or") {
            Connective::Or
        } else {
            return cursor.fault("logic operator (and, or)");
        };
        cursor.blanks();
        cursor.expect("(", "\"(\"")?;
        Ok((negated, connective))
    });
    let Ok((negated, connective)) = branch else {
        let field = select::field(cursor)?;
        cursor.expect(".", "delimiter (.)")?;
        let (negated, operation) = operation_of(cursor, Reach::Element)?;
        return Ok(LogicTree::Filter(Filter { field, negated, operation }));
    };
    let mut children = Vec::new();
    loop {
        cursor.blanks();
        children.push(tree(cursor, depth + 1)?);
        cursor.blanks();
        if !cursor.eat(",") {
            break;
        }
    }
    cursor.expect(")", "\",\" or \")\"")?;
    cursor.blanks();
    Ok(LogicTree::Branch { negated, connective, children })
}
