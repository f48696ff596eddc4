//! What one request may ask of the database at most: embedding multiplies rows at each level, and a statement is planned before any
//! timeout begins to matter. Counted on the request alone, before anything is looked up.

use ntier_protocol::rest::request::{Filter, LogicTree, Operation, Query, SelectItem};

use crate::error::Error;

/// The bounds. Those of a query that a person wrote are far below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Levels of embedding: `a(b(c))` has two.
    pub depth: u64,
    /// Embedded relations, on all levels together.
    pub embeds: u64,
    /// Filters, those inside `and` and `or` among them.
    pub filters: u64,
    /// Values in the lists of `in`, together.
    pub values: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 10, embeds: 50, filters: 200, values: 5000 }
    }
}

/// What was counted too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Costly {
    Depth,
    Embeds,
    Filters,
    Values,
}

/// Refuses a query that is over one of the limits.
pub fn check(query: &Query, limits: Limits) -> Result<(), Error> {
    let mut cost = Cost::default();
    cost.select(&query.select, 0);
    query.filters.iter().for_each(|(_, filter)| cost.filter(filter));
    query.logic.iter().for_each(|(_, tree)| cost.logic(tree));
    let counted = [
        (Costly::Depth, cost.depth, limits.depth),
        (Costly::Embeds, cost.embeds, limits.embeds),
        (Costly::Filters, cost.filters, limits.filters),
        (Costly::Values, cost.values, limits.values),
    ];
    match counted.into_iter().find(|(_, asked, limit)| asked > limit) {
        Some((what, asked, limit)) => Err(Error::TooCostly { what, asked, limit }),
        None => Ok(()),
    }
}

#[derive(Default)]
struct Cost {
    depth: u64,
    embeds: u64,
    filters: u64,
    values: u64,
}

impl Cost {
    /// The parser bounds how deep this goes.
    fn select(&mut self, items: &[SelectItem], depth: u64) {
        self.depth = self.depth.max(depth);
        for item in items {
            if let SelectItem::Embed { select, .. } | SelectItem::Spread { select, .. } = item {
                self.embeds += 1;
                self.select(select, depth + 1);
            }
        }
    }

    fn filter(&mut self, filter: &Filter) {
        self.filters += 1;
        if let Operation::In(values) = &filter.operation {
            self.values += values.len() as u64;
        }
    }

    fn logic(&mut self, tree: &LogicTree) {
        match tree {
            LogicTree::Branch { children, .. } => children.iter().for_each(|child| self.logic(child)),
            LogicTree::Filter(filter) => self.filter(filter),
        }
    }
}

#[cfg(test)]
mod tests {
    use ntier_protocol::rest::parse;

    use super::*;

    #[test]
    fn each_limit_is_a_limit() {
        let limits = Limits { depth: 2, embeds: 3, filters: 2, values: 3 };
        for (query, expected) in [
            ("select=*,a(b(id)),c(id)&id=in.(1,2,3)&or=(x.is.null)", None),
            ("select=a(b(c(id)))", Some((Costly::Depth, 3))),
            ("select=a(*),b(*),...c(*),d(*)", Some((Costly::Embeds, 4))),
            ("a=eq.1&or=(b.eq.1,and(c.eq.1,d.eq.2))", Some((Costly::Filters, 4))),
            ("a=in.(1,2)&b=not.in.(1,2)", Some((Costly::Values, 4))),
        ] {
            let parts = parse::Parts { method: "GET", path: "/t", query, headers: &[], body: Vec::new() };
            let found = match check(&parse::request(parts).unwrap().query, limits) {
                Err(Error::TooCostly { what, asked, .. }) => Some((what, asked)),
                _ => None,
            };
            assert_eq!(found, expected, "{query}");
        }
    }
}
