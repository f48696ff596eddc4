//! `select=`, `order=`, `columns=`, `on_conflict=`: names, paths, casts, embeds.
//!
//! As in the reference, what follows a whole list is not looked at.

use super::cursor::{Cursor, Failed, MAX_DEPTH, Parsed};
use super::request::{
    Aggregate, Direction, EmbedPath, Field, Join, JsonOperand, JsonStep, Nulls, OrderTerm, SelectItem,
};

/// `a,b::text,rel!inner(c)`; the empty text selects nothing.
pub fn select(cursor: &mut Cursor<'_>) -> Parsed<Vec<SelectItem>> {
    forest(cursor, 0)
}

fn forest(cursor: &mut Cursor<'_>, depth: usize) -> Parsed<Vec<SelectItem>> {
    if depth > MAX_DEPTH {
        return cursor.fail("fewer levels of embedding");
    }
    let items = cursor.optional(|cursor| cursor.separated(|cursor| item(cursor, depth), comma))?;
    Ok(items.unwrap_or_default())
}

fn comma(cursor: &mut Cursor<'_>) -> Parsed<()> {
    cursor.spaced(|cursor| cursor.literal("\",\""))
}

fn item(cursor: &mut Cursor<'_>, depth: usize) -> Parsed<SelectItem> {
    let spread = cursor.optional(|cursor| cursor.attempt(|cursor| cursor.spaced(spread_head)))?;
    if let Some((relation, hint, join)) = spread {
        let select = embedded(cursor, depth)?;
        return Ok(SelectItem::Spread { relation, hint, join, select });
    }
    let embed = cursor.optional(|cursor| cursor.attempt(|cursor| cursor.spaced(embed_head)))?;
    if let Some((alias, relation, hint, join)) = embed {
        let select = embedded(cursor, depth)?;
        return Ok(SelectItem::Embed { relation, alias, hint, join, select });
    }
    field_item(cursor)
}

type Hint = Option<String>;

fn spread_head(cursor: &mut Cursor<'_>) -> Parsed<(String, Hint, Option<Join>)> {
    cursor.literal("\"...\"")?;
    let relation = cursor.name()?;
    let (hint, join) = embed_parameters(cursor)?;
    cursor.sees("\"(\"")?;
    Ok((relation, hint, join))
}

fn embed_head(cursor: &mut Cursor<'_>) -> Parsed<(Option<String>, String, Hint, Option<Join>)> {
    let alias = alias(cursor)?;
    let relation = cursor.name()?;
    if relation == "count" {
        return Err(Failed);
    }
    let (hint, join) = embed_parameters(cursor)?;
    cursor.sees("\"(\"")?;
    Ok((alias, relation, hint, join))
}

fn embedded(cursor: &mut Cursor<'_>, depth: usize) -> Parsed<Vec<SelectItem>> {
    cursor.literal("\"(\"")?;
    let select = forest(cursor, depth + 1)?;
    cursor.literal("\")\"")?;
    Ok(select)
}

/// `name:` before what it renames, but not `name::cast`.
fn alias(cursor: &mut Cursor<'_>) -> Parsed<Option<String>> {
    cursor.optional(|cursor| {
        cursor.attempt(|cursor| {
            let name = cursor.name()?;
            cursor.literal("\":\"")?;
            cursor.not(|character| character == ':')?;
            Ok(name)
        })
    })
}

fn embed_parameters(cursor: &mut Cursor<'_>) -> Parsed<(Hint, Option<Join>)> {
    let (mut hint, mut join) = (None, None);
    for _ in 0..2 {
        if cursor.optional(|cursor| cursor.literal("\"!\""))?.is_none() {
            break;
        }
        let name = cursor.attempt(Cursor::name)?;
        match name.as_str() {
            "left" if join.is_none() => join = Some(Join::Left),
            "inner" if join.is_none() => join = Some(Join::Inner),
            _ if hint.is_none() => hint = Some(name),
            _ => {}
        }
    }
    Ok((hint, join))
}

fn field_item(cursor: &mut Cursor<'_>) -> Parsed<SelectItem> {
    cursor.spaced(|cursor| {
        if let Some(item) = cursor.optional(|cursor| cursor.attempt(star))? {
            return Ok(item);
        }
        if let Some(item) = cursor.optional(|cursor| cursor.attempt(count))? {
            return Ok(item);
        }
        let alias = alias(cursor)?;
        let field = field(cursor)?;
        let cast_to = cast(cursor)?;
        let aggregate = cursor.optional(|cursor| cursor.attempt(aggregate))?;
        let aggregate_cast = cast(cursor)?;
        item_end(cursor)?;
        Ok(SelectItem::Field { field, aggregate, aggregate_cast, cast: cast_to, alias })
    })
}

fn star(cursor: &mut Cursor<'_>) -> Parsed<SelectItem> {
    cursor.literal("\"*\"")?;
    item_end(cursor)?;
    let field = Field { name: "*".into(), path: Vec::new() };
    Ok(SelectItem::Field { field, aggregate: None, aggregate_cast: None, cast: None, alias: None })
}

fn count(cursor: &mut Cursor<'_>) -> Parsed<SelectItem> {
    let alias = alias(cursor)?;
    cursor.literal("\"count()\"")?;
    let cast = cast(cursor)?;
    item_end(cursor)?;
    Ok(SelectItem::Count { cast, alias })
}

fn item_end(cursor: &mut Cursor<'_>) -> Parsed<()> {
    if cursor.sees("\")\"").is_ok() || cursor.sees("\",\"").is_ok() { Ok(()) } else { cursor.end() }
}

fn cast(cursor: &mut Cursor<'_>) -> Parsed<Option<String>> {
    cursor.optional(|cursor| {
        cursor.literal("\"::\"")?;
        cursor.identifier()
    })
}

fn aggregate(cursor: &mut Cursor<'_>) -> Parsed<Aggregate> {
    const ALL: [(&str, Aggregate); 5] = [
        ("\"sum\"", Aggregate::Sum),
        ("\"avg\"", Aggregate::Avg),
        ("\"count\"", Aggregate::Count),
        ("\"max\"", Aggregate::Max),
        ("\"min\"", Aggregate::Min),
    ];
    cursor.literal("\".\"")?;
    let found = ALL.into_iter().find(|(word, _)| cursor.word(word).is_ok());
    let (_, aggregate) = found.ok_or(Failed)?;
    cursor.literal("\"()\"")?;
    Ok(aggregate)
}

/// A column with an optional JSON path, blanks around it allowed.
pub fn field(cursor: &mut Cursor<'_>) -> Parsed<Field> {
    cursor.spaced(|cursor| {
        let name = cursor.name()?;
        Ok(Field { name, path: json_path(cursor)? })
    })
}

fn json_path(cursor: &mut Cursor<'_>) -> Parsed<Vec<JsonStep>> {
    let mut path = Vec::new();
    loop {
        let as_text = if cursor.word("\"->>\"").is_ok() {
            true
        } else if cursor.word("\"->\"").is_ok() {
            false
        } else {
            return Ok(path);
        };
        path.push(JsonStep { operand: json_operand(cursor)?, as_text });
    }
}

fn json_operand(cursor: &mut Cursor<'_>) -> Parsed<JsonOperand> {
    let index = cursor.optional(|cursor| cursor.attempt(json_index))?;
    match index {
        Some(index) => Ok(JsonOperand::Index(index)),
        None => cursor.attempt(Cursor::json_key).map(JsonOperand::Key),
    }
}

fn json_index(cursor: &mut Cursor<'_>) -> Parsed<String> {
    let sign = if cursor.optional(|cursor| cursor.literal("\"-\""))?.is_some() { "-" } else { "" };
    let digits = cursor.digits()?;
    // Beyond the reference: inside an embed a parenthesis ends an index too.
    if cursor.peek() != Some(')') {
        let ends = ["\"->\"", "\"::\"", "\".\"", "\",\""];
        if !ends.into_iter().any(|end| cursor.sees(end).is_ok()) {
            cursor.end()?;
        }
    }
    Ok(format!("{sign}{digits}"))
}

fn delimiter(cursor: &mut Cursor<'_>) -> Parsed<()> {
    cursor.satisfy(|character| character == '.', "delimiter (.)").map(drop)
}

/// `rel.rel.column->path` as the key of a filter.
pub fn tree_path(cursor: &mut Cursor<'_>) -> Parsed<(EmbedPath, Field)> {
    let mut names = cursor.separated(Cursor::name, delimiter)?;
    let path = json_path(cursor)?;
    let name = names.pop().unwrap_or_default();
    Ok((names, Field { name, path }))
}

/// `rel.not.or` as the key of a logic tree.
pub fn logic_path(cursor: &mut Cursor<'_>) -> Parsed<Vec<String>> {
    cursor.separated(Cursor::name, delimiter)
}

/// `a.desc.nullslast,rel(b)`.
pub fn order(cursor: &mut Cursor<'_>) -> Parsed<Vec<OrderTerm>> {
    cursor.separated(
        |cursor| {
            cursor.spaced(|cursor| {
                let related = cursor.optional(|cursor| cursor.attempt(related_term))?;
                if let Some(term) = related {
                    Ok(term)
                } else {
                    let field = field(cursor)?;
                    order_term(cursor, None, field)
                }
            })
        },
        |cursor| cursor.literal("\",\""),
    )
}

fn related_term(cursor: &mut Cursor<'_>) -> Parsed<OrderTerm> {
    let relation = cursor.name()?;
    cursor.literal("\"(\"")?;
    let field = field(cursor)?;
    cursor.literal("\")\"")?;
    order_term(cursor, Some(relation), field)
}

/// What follows the field: direction and place of nulls.
fn order_term(cursor: &mut Cursor<'_>, relation: Option<String>, field: Field) -> Parsed<OrderTerm> {
    let direction = dotted(cursor, [("\"asc\"", Direction::Asc), ("\"desc\"", Direction::Desc)]);
    let nulls = dotted(cursor, [("\"nullsfirst\"", Nulls::First), ("\"nullslast\"", Nulls::Last)]);
    if cursor.sees("\",\"").is_err() {
        cursor.end()?;
    }
    Ok(OrderTerm { relation, field, direction, nulls })
}

fn dotted<T>(cursor: &mut Cursor<'_>, words: [(&'static str, T); 2]) -> Option<T> {
    let found = |cursor: &mut Cursor<'_>, word| {
        cursor.attempt(|cursor| {
            delimiter(cursor)?;
            cursor.literal(word)
        })
    };
    words.into_iter().find(|(word, _)| found(cursor, word).is_ok()).map(|(_, value)| value)
}

/// `a,"b c"`.
pub fn names(cursor: &mut Cursor<'_>) -> Parsed<Vec<String>> {
    cursor.separated(Cursor::name, comma)
}
