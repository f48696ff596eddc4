//! Relations whose columns become their parent's.
//!
//! An aggregate inside a relation of one row says little there: it is moved up to where the rows are
//! grouped. Relations of many rows become arrays, whose order has to be kept beside them.

use ntier_protocol::rest::request::Aggregate;

use super::{Embed, Field, Node, Order, Select, Shape, SpreadSelect};
use crate::error::Error;

pub(super) fn arrange(root: &mut Node) -> Result<(), Error> {
    list_columns(root);
    for (index, lifted) in lift_children(root).into_iter().enumerate() {
        apply(&mut root.embeds[index], &lifted);
    }
    order_arrays(root)
}

/// What each spread relation gives to its parent: its columns, the names of what is embedded in it, and
/// what is spread into it.
fn list_columns(node: &mut Node) {
    for embed in &mut node.embeds {
        list_columns(&mut embed.node);
        let own = embed.node.select.iter().map(|select| select.alias.as_ref().unwrap_or(&select.field.name).clone());
        let mut list: Vec<SpreadSelect> = own.map(plain).collect();
        for inner in &embed.node.embeds {
            match inner.shape.spread() {
                Some(columns) => list.extend(columns.iter().cloned()),
                None if inner.hidden => {}
                None => list.push(plain(inner.label().to_owned())),
            }
        }
        if let Some(select) = embed.shape.spread_mut() {
            *select = list;
        }
    }
}

fn plain(name: String) -> SpreadSelect {
    SpreadSelect { name, aggregate: None, aggregate_cast: None, alias: None }
}

/// An aggregate on its way up, with the column it is of.
#[derive(Clone)]
struct Lifted {
    name: String,
    aggregate: Aggregate,
    cast: Option<String>,
    alias: Option<String>,
}

/// For each embedded relation, the aggregates that it leaves to its parent.
fn lift_children(node: &mut Node) -> Vec<Vec<Lifted>> {
    node.embeds.iter_mut().map(lift).collect()
}

fn lift(embed: &mut Embed) -> Vec<Lifted> {
    let below = lift_children(&mut embed.node);
    if !matches!(embed.shape, Shape::SpreadOne { .. }) {
        for (inner, lifted) in embed.node.embeds.iter_mut().zip(&below) {
            apply(inner, lifted);
        }
        return Vec::new();
    }
    let mut lifted = Vec::new();
    for select in &mut embed.node.select {
        if let Some(aggregate) = select.aggregate.take() {
            lifted.push(Lifted {
                name: select.alias.as_ref().unwrap_or(&select.field.name).clone(),
                aggregate,
                cast: select.aggregate_cast.take(),
                alias: select.alias.clone(),
            });
        }
    }
    lifted.extend(below.into_iter().flatten());
    lifted
}

fn apply(embed: &mut Embed, lifted: &[Lifted]) {
    for select in embed.shape.spread_mut().into_iter().flatten() {
        if let Some(found) = lifted.iter().find(|lifted| lifted.name == select.name) {
            select.aggregate = Some(found.aggregate);
            select.aggregate_cast.clone_from(&found.cast);
            select.alias.clone_from(&found.alias);
        }
    }
}

/// The order of the rows is that of the arrays: the columns it needs come along under names of their own.
fn order_arrays(node: &mut Node) -> Result<(), Error> {
    for embed in &mut node.embeds {
        let handle = embed.handle.clone();
        if let Shape::SpreadMany { extra, order, .. } = &mut embed.shape {
            if has_aggregates(&embed.node) {
                return Err(Error::NotImplemented(
                    "Aggregates are not implemented for one-to-many or many-to-many spreads.",
                ));
            }
            for (index, term) in embed.node.order.drain(..).enumerate() {
                let alias = format!("{handle}_{}_{}", term.field.name, index + 1);
                order.push(Order { field: Field::plain(&alias), relation: None, ..term.clone() });
                extra.push((term.relation, Select { alias: Some(alias), ..Select::plain(term.field) }));
            }
        }
        order_arrays(&mut embed.node)?;
    }
    Ok(())
}

fn has_aggregates(node: &Node) -> bool {
    let spread = |embed: &Embed| embed.shape.spread().is_some_and(|list| list.iter().any(|s| s.aggregate.is_some()));
    node.select.iter().any(|select| select.aggregate.is_some()) || node.embeds.iter().any(spread)
}
