//! Filters, orders and ranges, sorted to the relations that they speak of.

use ntier_protocol::rest::request::{EmbedPath, Filter, LogicTree, OrderTerm, Query, Range, SelectItem};

use super::LegacyName;
use crate::error::Error;

/// What is said of one relation and, by name, of those in it.
#[derive(Debug, Default)]
pub(super) struct Directives {
    pub filters: Vec<Filter>,
    pub logic: Vec<LogicTree>,
    pub order: Option<Vec<OrderTerm>>,
    pub range: Option<Range>,
    children: Vec<(String, Directives)>,
}

/// Which of a query's parts apply to the rows that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// All of them.
    Read,
    /// The filters at the root chose the rows that were changed; they are not applied to the result, and
    /// ranges never are.
    Mutation,
}

impl Directives {
    pub fn of(query: &Query, scope: Scope) -> Self {
        let mut root = Self::default();
        let applies = |path: &EmbedPath| scope == Scope::Read || !path.is_empty();
        for (path, filter) in query.filters.iter().filter(|(path, _)| applies(path)) {
            root.at(path).filters.push(filter.clone());
        }
        for (path, tree) in query.logic.iter().filter(|(path, _)| applies(path)) {
            root.at(path).logic.push(tree.clone());
        }
        for (path, terms) in &query.order {
            root.at(path).order.get_or_insert_with(|| terms.clone());
        }
        if scope == Scope::Read {
            for (path, range) in &query.ranges {
                root.at(path).range = Some(*range);
            }
        }
        root
    }

    fn at(&mut self, path: &[String]) -> &mut Self {
        let Some((first, rest)) = path.split_first() else { return self };
        let index = self.children.iter().position(|(name, _)| name == first).unwrap_or_else(|| {
            self.children.push((first.clone(), Self::default()));
            self.children.len() - 1
        });
        self.children[index].1.at(rest)
    }

    /// Every name has to be that of an embedded relation: its alias, or where there is none or `legacy` says
    /// so, its own.
    pub fn check(&self, items: &[SelectItem], legacy: bool) -> Result<(), Error> {
        for (name, child) in &self.children {
            let embedded = items.iter().find_map(|item| Some((embedded_as(item, name)?, alias(item))));
            match embedded {
                None => return Err(Error::NotEmbedded { name: name.clone(), alias: None }),
                Some((_, Some(alias))) if alias != name && !legacy => {
                    return Err(Error::NotEmbedded { name: name.clone(), alias: Some(alias.clone()) });
                }
                Some((select, _)) => child.check(select, legacy)?,
            }
        }
        Ok(())
    }

    /// Names that are an item's own although it has an alias, in the order of the select list.
    pub fn legacy_names(&self, items: &[SelectItem]) -> Vec<LegacyName> {
        let mut found = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let first = |name: &str| items.iter().position(|item| embedded_as(item, name).is_some()) == Some(index);
            for (name, child) in self.children.iter().filter(|(name, _)| first(name)) {
                if let Some(alias) = alias(item).filter(|alias| *alias != name) {
                    found.push(LegacyName { name: name.clone(), alias: alias.clone() });
                }
                found.extend(child.legacy_names(embedded_as(item, name).unwrap_or_default()));
            }
        }
        found
    }

    /// What is said of the item: of its alias or of its name, if no item before it has that name.
    pub fn take(&mut self, items: &[SelectItem], index: usize) -> Self {
        let mut taken = Self::default();
        let children = std::mem::take(&mut self.children);
        for (name, child) in children {
            if items.iter().position(|item| embedded_as(item, &name).is_some()) == Some(index) {
                taken.merge(child);
            } else {
                self.children.push((name, child));
            }
        }
        taken
    }

    fn merge(&mut self, other: Self) {
        self.filters.extend(other.filters);
        self.logic.extend(other.logic);
        self.order = self.order.take().or(other.order);
        self.range = self.range.or(other.range);
        self.children.extend(other.children);
    }
}

fn alias(item: &SelectItem) -> Option<&String> {
    match item {
        SelectItem::Embed { alias, .. } => alias.as_ref(),
        _ => None,
    }
}

/// The select list of an embedded relation that answers to the name.
fn embedded_as<'a>(item: &'a SelectItem, wanted: &str) -> Option<&'a [SelectItem]> {
    match item {
        SelectItem::Embed { relation, alias, select, .. } => {
            (relation == wanted || alias.as_deref() == Some(wanted)).then_some(select)
        }
        SelectItem::Spread { relation, select, .. } => (relation == wanted).then_some(select),
        SelectItem::Field { .. } | SelectItem::Count { .. } => None,
    }
}
