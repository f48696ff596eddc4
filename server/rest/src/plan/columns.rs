//! The columns that a mutation or a call has to give so that its result can be read.

use std::collections::BTreeSet;

use ntier_backing::database::catalog::Link;

use super::{Logic, Node};

/// The columns shown, those that embedded relations are joined by, and `always`. `*` covers all of them,
/// and a computed relationship may need any.
pub(super) fn needed(root: &Node, always: &[String]) -> Vec<String> {
    let mut names: BTreeSet<String> = root.select.iter().map(|select| select.field.name.clone()).collect();
    let computed = |embed: &super::Embed| matches!(embed.relationship.link, Link::Computed { .. });
    if names.contains("*") || root.embeds.iter().any(computed) {
        return vec!["*".into()];
    }
    for embed in &root.embeds {
        match &embed.relationship.link {
            Link::OneToMany { columns, .. } | Link::ManyToOne { columns, .. } | Link::OneToOne { columns, .. } => {
                names.extend(columns.iter().map(|(here, _)| here.clone()));
            }
            Link::ManyToMany(junction) => names.extend(junction.source.iter().map(|(here, _)| here.clone())),
            Link::Computed { .. } => {}
        }
    }
    names.extend(always.iter().cloned());
    names.extend(root.order.iter().filter(|order| order.relation.is_none()).map(|order| order.field.name.clone()));
    names.into_iter().collect()
}

/// The columns that filters speak of.
pub(super) fn filtered(filters: &[Logic]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for logic in filters {
        match logic {
            Logic::Branch { children, .. } => names.extend(filtered(children)),
            Logic::Filter { field, .. } => {
                names.insert(field.name.clone());
            }
            Logic::Embedded { .. } => {}
        }
    }
    names
}
