//! A node of the tree as a query, with what is embedded in it as lateral joins.

use ntier_backing::database::catalog::Name;
use ntier_protocol::rest::request::{Aggregate, Range};

use super::filter;
use super::sql::Sql;
use crate::plan::{Embed, Node, SOURCE, Select, Shape, Source, SpreadSelect};

pub(super) fn node(sql: &mut Sql, of: &Node) {
    embedded_node(sql, of, None);
}

/// The query of a node; `embed` is its place in its parent.
fn embedded_node(sql: &mut Sql, of: &Node, embed: Option<&Embed>) {
    let qualifier = of.source.qualifier();
    sql.push("SELECT ");
    let mut first = true;
    let mut next = |sql: &mut Sql| {
        sql.push(if first { "" } else { ", " });
        first = false;
    };
    for item in &of.select {
        next(sql);
        select(sql, &qualifier, item);
    }
    if embed.is_some() && of.select.is_empty() && of.embeds.is_empty() {
        // Nothing of it is shown, but the parent may be ordered by it.
        next(sql);
        star(sql, &qualifier);
    }
    if let Some(Embed { shape: Shape::SpreadMany { extra, .. }, .. }) = embed {
        for (relation, item) in extra {
            next(sql);
            let of_relation = relation.as_ref().map(|handle| Name::new("", handle));
            select(sql, of_relation.as_ref().unwrap_or(&qualifier), item);
        }
    }
    for inner in of.embeds.iter().filter(|inner| !inner.hidden) {
        match &inner.shape {
            Shape::Object | Shape::Array => {
                next(sql);
                embedded_value(sql, inner);
            }
            Shape::SpreadOne { select } | Shape::SpreadMany { select, .. } => {
                for item in select {
                    next(sql);
                    spread_value(sql, &inner.handle, item);
                }
            }
        }
    }
    from(sql, &of.source);
    for inner in &of.embeds {
        join(sql, inner);
    }
    conditions(sql, of, embed, &mut |sql, handle, exists| {
        sql.ident(handle).push(if exists { " IS DISTINCT FROM NULL" } else { " IS NOT DISTINCT FROM NULL" });
    });
    group(sql, &qualifier, of);
    filter::order(sql, &qualifier, &of.order);
    range(sql, of.range);
}

fn from(sql: &mut Sql, source: &Source) {
    sql.push(" FROM ");
    match source {
        Source::Table { name, alias } => {
            sql.name(name);
            if let Some(alias) = alias {
                sql.push(" AS ").ident(alias);
            }
        }
        Source::Result { alias } => {
            sql.push(SOURCE).push(" AS ").ident(alias);
        }
        Source::Computed { function, alias, parent, parent_type } => {
            // The cast chooses between functions of the same name.
            sql.name(function).push("(").ident(&parent.name).push("::").name(parent_type).push(") AS ").ident(alias);
        }
        Source::Junction { name, alias, junction, junction_alias } => {
            sql.name(name).push(" AS ").ident(alias).push(", ");
            sql.name(junction).push(" AS ").ident(junction_alias);
        }
    }
}

fn conditions(sql: &mut Sql, of: &Node, embed: Option<&Embed>, embedded: &mut dyn FnMut(&mut Sql, &str, bool)) {
    let qualifier = of.source.qualifier();
    let mut word = " WHERE ";
    for condition in &of.filters {
        sql.push(std::mem::replace(&mut word, " AND "));
        filter::logic(sql, &qualifier, condition, embedded);
    }
    for (left, right) in embed.into_iter().flat_map(|embed| &embed.conditions) {
        sql.push(std::mem::replace(&mut word, " AND "));
        sql.column(&left.qualifier, &left.column).push(" = ").column(&right.qualifier, &right.column);
    }
}

fn range(sql: &mut Sql, range: Range) {
    if range == Range::default() {
        return;
    }
    if let Some(limit) = range.limit {
        // A number in the text, not a parameter: PostgreSQL plans a statement anew each time when it does not know how few rows are
        // wanted (list of 20: 0.06 ms of planning instead of 0.001).
        sql.push(" LIMIT ").push(&limit.to_string());
    }
    if range.offset > 0 {
        sql.push(" OFFSET ").value(range.offset.to_string());
    }
}

fn select(sql: &mut Sql, qualifier: &Name, item: &Select) {
    aggregated(sql, item.aggregate, item.aggregate_cast.as_deref(), |sql| {
        if let Some(cast) = &item.cast {
            sql.push("CAST(");
            transformed(sql, qualifier, item);
            sql.push(" AS ").type_name(cast).push(")");
        } else {
            transformed(sql, qualifier, item);
        }
    });
    if let Some(alias) = &item.alias {
        sql.push(" AS ").ident(alias);
    }
}

fn transformed(sql: &mut Sql, qualifier: &Name, item: &Select) {
    if let Some(function) = &item.field.transform {
        sql.push(function).push("(");
        filter::field(sql, qualifier, &item.field);
        sql.push(")");
    } else if item.is_star() && !item.field.whole_row {
        star(sql, qualifier);
    } else {
        filter::field(sql, qualifier, &item.field);
    }
}

fn star(sql: &mut Sql, qualifier: &Name) {
    sql.name(qualifier).push(".*");
}

fn aggregated(sql: &mut Sql, aggregate: Option<Aggregate>, cast: Option<&str>, inner: impl FnOnce(&mut Sql)) {
    let Some(aggregate) = aggregate else { return inner(sql) };
    sql.push(if cast.is_some() { "CAST(" } else { "" });
    sql.push(match aggregate {
        Aggregate::Sum => "sum(",
        Aggregate::Avg => "avg(",
        Aggregate::Max => "max(",
        Aggregate::Min => "min(",
        Aggregate::Count => "count(",
    });
    inner(sql);
    sql.push(")");
    if let Some(cast) = cast {
        sql.push(" AS ").type_name(cast).push(")");
    }
}

/// What is shown of an embedded relation. As `jsonb`, because grouping by it needs a type that can be compared, and because it is
/// written as PostgREST's clients have always seen it, to the blank.
fn embedded_value(sql: &mut Sql, embed: &Embed) {
    if matches!(embed.shape, Shape::Object) {
        sql.push("row_to_json(").ident(&embed.handle).push(".*)::jsonb");
    } else {
        sql.push("COALESCE(").ident(&embed.handle).push(".").ident(&embed.handle).push(", '[]')");
    }
    sql.push(" AS ").ident(embed.label());
}

fn spread_value(sql: &mut Sql, handle: &str, item: &SpreadSelect) {
    aggregated(sql, item.aggregate, item.aggregate_cast.as_deref(), |sql| {
        spread_column(sql, handle, &item.name);
    });
    if let Some(alias) = &item.alias {
        sql.push(" AS ").ident(alias);
    }
}

fn spread_column(sql: &mut Sql, handle: &str, name: &str) {
    if name == "*" {
        star(sql, &Name::new("", handle));
    } else {
        sql.column(&Name::new("", handle), name);
    }
}

fn join(sql: &mut Sql, embed: &Embed) {
    let handle = embed.handle.as_str();
    sql.push(if embed.is_inner() { " INNER" } else { " LEFT" }).push(" JOIN LATERAL (");
    let many = match &embed.shape {
        Shape::Object | Shape::SpreadOne { .. } => {
            embedded_node(sql, &embed.node, Some(embed));
            false
        }
        Shape::Array | Shape::SpreadMany { .. } => {
            sql.push("SELECT json_agg(").ident(handle).push(")::jsonb AS ").ident(handle);
            if let Shape::SpreadMany { select, order, .. } = &embed.shape {
                for item in select {
                    sql.push(", COALESCE(json_agg(");
                    spread_column(sql, handle, &item.name);
                    filter::order(sql, &Name::new("", handle), order);
                    sql.push("), '[]')::jsonb AS ");
                    sql.ident(item.alias.as_ref().unwrap_or(&item.name));
                }
            }
            sql.push(" FROM (");
            embedded_node(sql, &embed.node, Some(embed));
            sql.push(") AS ").ident(handle);
            true
        }
    };
    sql.push(") AS ").ident(handle).push(" ON ");
    if many && embed.is_inner() {
        sql.ident(handle).push(".").ident(handle).push(" IS NOT NULL");
    } else {
        sql.push("TRUE");
    }
}

fn is_grouped(of: &Node) -> bool {
    let spread = |embed: &Embed| embed.shape.spread().is_some_and(|list| list.iter().any(|s| s.aggregate.is_some()));
    of.select.iter().any(|item| item.aggregate.is_some()) || of.embeds.iter().any(spread)
}

/// Beside an aggregate, everything else is grouped by.
fn group(sql: &mut Sql, qualifier: &Name, of: &Node) {
    if !is_grouped(of) {
        return;
    }
    let mut word = " GROUP BY ";
    for item in of.select.iter().filter(|item| item.aggregate.is_none()) {
        sql.push(std::mem::replace(&mut word, ", "));
        match &item.alias {
            Some(alias) => {
                sql.ident(alias);
            }
            None => filter::field(sql, qualifier, &item.field),
        }
    }
    for embed in of.embeds.iter().filter(|embed| !embed.hidden) {
        match embed.shape.spread() {
            None => {
                sql.push(std::mem::replace(&mut word, ", ")).ident(embed.label());
            }
            Some(list) => {
                for item in list.iter().filter(|item| item.aggregate.is_none()) {
                    sql.push(std::mem::replace(&mut word, ", "));
                    spread_column(sql, &embed.handle, item.alias.as_ref().unwrap_or(&item.name));
                }
            }
        }
    }
}

/// One row of nothing for each row of the root. Ranges and what is shown do not matter; inner joins do.
pub(super) fn count(sql: &mut Sql, of: &Node) {
    embedded_count(sql, of, None);
}

fn embedded_count(sql: &mut Sql, of: &Node, embed: Option<&Embed>) {
    sql.push("SELECT 1");
    from(sql, &of.source);
    conditions(sql, of, embed, &mut |sql, handle, exists| {
        let found = of.embeds.iter().find(|inner| inner.handle == handle);
        sql.push(if exists { "EXISTS (" } else { "NOT EXISTS (" });
        if let Some(inner) = found {
            embedded_count(sql, &inner.node, Some(inner));
        }
        sql.push(")");
    });
    let mut word =
        if of.filters.is_empty() && embed.is_none_or(|e| e.conditions.is_empty()) { " WHERE " } else { " AND " };
    for inner in of.embeds.iter().filter(|inner| inner.is_inner()) {
        sql.push(std::mem::replace(&mut word, " AND ")).push("EXISTS (");
        embedded_count(sql, &inner.node, Some(inner));
        sql.push(")");
    }
}
