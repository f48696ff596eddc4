//! `select=`, `order=`, `columns=`, `on_conflict=`: names, paths, casts, embeds.

use super::cursor::{Cursor, MAX_DEPTH, Parsed};
use super::request::{
    Aggregate, Direction, EmbedPath, Field, Join, JsonOperand, JsonStep, Nulls, OrderTerm, SelectItem,
};

/// `a,b::text,rel!inner(c)`; the empty text selects nothing.
pub fn select(cursor: &mut Cursor<'_>) -> Parsed<Vec<SelectItem>> {
    let items = forest(cursor, 0)?;
    cursor.end("\",\" or end of input")?;
    Ok(items)
}

fn forest(cursor: &mut Cursor<'_>, depth: usize) -> Parsed<Vec<SelectItem>> {
    if depth > MAX_DEPTH {
        return cursor.fault("fewer levels of embedding");
    }
    let mut items = Vec::new();
    cursor.blanks();
    if cursor.is_end() || cursor.peek() == Some(')') {
        return Ok(items);
    }
    loop {
        cursor.blanks();
        items.push(item(cursor, depth)?);
        cursor.blanks();
        if !cursor.eat(",") {
            return Ok(items);
        }
    }
}

fn item(cursor: &mut Cursor<'_>, depth: usize) -> Parsed<SelectItem> {
    if cursor.eat("...") {
        let relation = cursor.name()?;
        let (hint, join) = embed_parameters(cursor)?;
        let select = embedded(cursor, depth)?;
        return Ok(SelectItem::Spread { relation, hint, join, select });
    }
    let head = cursor.attempt(|cursor| {
        let alias = alias(cursor);
        let relation = cursor.name()?;
        if relation == "count" {
            return cursor.fault("a relation");
        }
        let (hint, join) = embed_parameters(cursor)?;
        if cursor.peek() == Some('(') { Ok((alias, relation, hint, join)) } else { cursor.fault("(") }
    });
    if let Ok((alias, relation, hint, join)) = head {
        let select = embedded(cursor, depth)?;
        return Ok(SelectItem::Embed { relation, alias, hint, join, select });
    }
    field_item(cursor)
}

fn embedded(cursor: &mut Cursor<'_>, depth: usize) -> Parsed<Vec<SelectItem>> {
    cursor.expect("(", "\"(\"")?;
    let select = forest(cursor, depth + 1)?;
    cursor.expect(")", "\",\" or \")\"")?;
    Ok(select)
}

/// `name:` before what it renames, but not `name::cast`.
fn alias(cursor: &mut Cursor<'_>) -> Option<String> {
    cursor
        .attempt(|cursor| {
            let name = cursor.name()?;
            if cursor.rest().starts_with("::") || !cursor.eat(":") { cursor.fault(":") } else { Ok(name) }
        })
        .ok()
}

fn embed_parameters(cursor: &mut Cursor<'_>) -> Parsed<(Option<String>, Option<Join>)> {
    let (mut hint, mut join) = (None, None);
    for _ in 0..2 {
        if !cursor.eat("!") {
            break;
        }
        let name = cursor.name()?;
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
    const END: &str = "\"->\", \"::\", \".\", \",\" or end of input";
    let ends = |cursor: &Cursor<'_>| matches!(cursor.peek(), None | Some(',' | ')'));
    let star = cursor.attempt(|cursor| {
        cursor.expect("*", "*")?;
        cursor.blanks();
        if ends(cursor) { Ok(()) } else { cursor.fault("\",\" or end of input") }
    });
    if star.is_ok() {
        let field = Field { name: "*".into(), path: Vec::new() };
        return Ok(SelectItem::Field { field, aggregate: None, aggregate_cast: None, cast: None, alias: None });
    }
    let count = cursor.attempt(|cursor| {
        let alias = alias(cursor);
        cursor.expect("count()", "count()")?;
        let cast = cast(cursor)?;
        if ends(cursor) { Ok(SelectItem::Count { cast, alias }) } else { cursor.fault("\",\" or end of input") }
    });
    if let Ok(count) = count {
        return Ok(count);
    }
    let alias = alias(cursor);
    let field = field(cursor)?;
    let cast_to = cast(cursor)?;
    let aggregate = aggregate(cursor);
    let aggregate_cast = cast(cursor)?;
    cursor.blanks();
    if !ends(cursor) {
        return cursor.fault(END);
    }
    Ok(SelectItem::Field { field, aggregate, aggregate_cast, cast: cast_to, alias })
}

fn cast(cursor: &mut Cursor<'_>) -> Parsed<Option<String>> {
    if cursor.eat("::") { cursor.identifier().map(Some) } else { Ok(None) }
}

fn aggregate(cursor: &mut Cursor<'_>) -> Option<Aggregate> {
    let all = [
        (".sum()", Aggregate::Sum),
        (".avg()", Aggregate::Avg),
        (".max()", Aggregate::Max),
        (".min()", Aggregate::Min),
        (".count()", Aggregate::Count),
    ];
    all.into_iter().find(|(text, _)| cursor.eat(text)).map(|(_, aggregate)| aggregate)
}

/// A column with an optional JSON path, blanks around it allowed.
pub fn field(cursor: &mut Cursor<'_>) -> Parsed<Field> {
    cursor.blanks();
    let name = cursor.name()?;
    let path = json_path(cursor)?;
    cursor.blanks();
    Ok(Field { name, path })
}

fn json_path(cursor: &mut Cursor<'_>) -> Parsed<Vec<JsonStep>> {
    let mut path = Vec::new();
    loop {
        let as_text = if cursor.eat("->>") {
            true
        } else if cursor.eat("->") {
            false
        } else {
            return Ok(path);
        };
        path.push(JsonStep { operand: json_operand(cursor)?, as_text });
    }
}

fn json_operand(cursor: &mut Cursor<'_>) -> Parsed<JsonOperand> {
    let index = cursor.attempt(|cursor| {
        let sign = if cursor.eat("-") { "-" } else { "" };
        let digits = cursor.take_while(|character| character.is_ascii_digit());
        let rest = cursor.rest();
        let ends = rest.is_empty() || ["->", "::", ".", ",", ")"].iter().any(|end| rest.starts_with(end));
        if digits.is_empty() || !ends {
            return cursor.fault("digit, \"->\", \"::\", \".\", \",\" or end of input");
        }
        Ok(JsonOperand::Index(format!("{sign}{digits}")))
    });
    match index {
        // `->-78xy` is neither an index nor a key.
        Err(fault) if cursor.rest().starts_with('-') => Err(fault),
        Err(_) => cursor.json_key().map(JsonOperand::Key),
        found => found,
    }
}

/// `rel.rel.column->path` as the key of a filter.
pub fn tree_path(cursor: &mut Cursor<'_>) -> Parsed<(EmbedPath, Field)> {
    let mut names = vec![cursor.name()?];
    while cursor.eat(".") {
        names.push(cursor.name()?);
    }
    let path = json_path(cursor)?;
    cursor.end("end of input")?;
    let name = names.pop().unwrap_or_default();
    Ok((names, Field { name, path }))
}

/// `a.desc.nullslast,rel(b)`.
pub fn order(cursor: &mut Cursor<'_>) -> Parsed<Vec<OrderTerm>> {
    let mut terms = Vec::new();
    loop {
        cursor.blanks();
        terms.push(order_term(cursor)?);
        cursor.blanks();
        if !cursor.eat(",") {
            cursor.end("\",\" or end of input")?;
            return Ok(terms);
        }
    }
}

fn order_term(cursor: &mut Cursor<'_>) -> Parsed<OrderTerm> {
    let related = cursor.attempt(|cursor| {
        let relation = cursor.name()?;
        cursor.expect("(", "\"(\"")?;
        let field = field(cursor)?;
        cursor.expect(")", "\")\"")?;
        Ok((relation, field))
    });
    let (relation, field) = match related {
        Ok((relation, field)) => (Some(relation), field),
        Err(_) => (None, field(cursor)?),
    };
    let direction = if cursor.eat(".asc") {
        Some(Direction::Asc)
    } else if cursor.eat(".desc") {
        Some(Direction::Desc)
    } else {
        None
    };
    let nulls = if cursor.eat(".nullsfirst") {
        Some(Nulls::First)
    } else if cursor.eat(".nullslast") {
        Some(Nulls::Last)
    } else {
        None
    };
    if matches!(cursor.peek(), None | Some(',' | ' ' | '\t')) {
        return Ok(OrderTerm { relation, field, direction, nulls });
    }
    cursor.fault("\",\" or end of input")
}

/// `a,"b c"`.
pub fn names(cursor: &mut Cursor<'_>) -> Parsed<Vec<String>> {
    let mut names = Vec::new();
    loop {
        cursor.blanks();
        names.push(cursor.name()?);
        cursor.blanks();
        if !cursor.eat(",") {
            cursor.end("\",\" or end of input")?;
            return Ok(names);
        }
    }
}
