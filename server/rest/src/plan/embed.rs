//! Which relationship an embedded relation means.

use ntier_backing::database::catalog::{Columns, Link, Name, Relationship};
use ntier_protocol::rest::request::SelectItem;

use super::directives::Directives;
use super::read::{Place, Spread, shows_nothing};
use super::{ColumnRef, Context, Embed, Shape, Source, hint};
use crate::error::Error;

impl Context<'_> {
    pub(super) fn embed(
        &self,
        parent: &Place,
        expand: bool,
        item: &SelectItem,
        directives: Directives,
    ) -> Result<Embed, Error> {
        let (relation, alias, wanted, join, select, is_spread) = match item {
            SelectItem::Embed { relation, alias, hint, join, select } => {
                (relation, alias.as_ref(), hint, join, select, false)
            }
            SelectItem::Spread { relation, hint, join, select } => (relation, None, hint, join, select, true),
            SelectItem::Field { .. } | SelectItem::Count { .. } => return Err(Error::Incomplete),
        };
        let relationship = self.relationship(&parent.origin, relation, wanted.as_deref())?;
        let depth = parent.depth + 1;
        let handle = identifier(&format!("{}_{}_{depth}", relationship.table.name, alias.unwrap_or(relation)));
        let (source, conditions) = join_parent(&relationship, &parent.source, depth);
        let spread = match (is_spread, relationship.is_to_one()) {
            (false, _) => Spread::No,
            (true, true) => Spread::One,
            (true, false) => Spread::Many,
        };
        let place = Place {
            source,
            table: relationship.foreign.clone(),
            origin: relationship.foreign.name.clone(),
            depth,
            spread,
            expand,
        };
        let node = self.node(place, select, directives)?;
        let shape = match spread {
            Spread::One => Shape::SpreadOne { select: Vec::new() },
            Spread::Many => Shape::SpreadMany { select: Vec::new(), extra: Vec::new(), order: Vec::new() },
            Spread::No if relationship.is_to_one() => Shape::Object,
            Spread::No => Shape::Array,
        };
        Ok(Embed {
            name: relation.clone(),
            alias: alias.cloned(),
            hidden: !is_spread && shows_nothing(&node),
            relationship,
            join: *join,
            handle,
            shape,
            conditions,
            node,
        })
    }

    /// The only relationship from the origin that answers to the target and the hint.
    fn relationship(&self, origin: &str, target: &str, wanted: Option<&str>) -> Result<Relationship, Error> {
        let key = (Name::new(self.schema, origin), self.schema.to_owned());
        let known = self.catalog.relationships.get(&key).map(Vec::as_slice).unwrap_or_default();
        let found: Vec<&Relationship> =
            known.iter().filter(|relationship| answers(relationship, target, wanted)).collect();
        match found.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(Error::NoRelationship {
                origin: origin.to_owned(),
                target: target.to_owned(),
                hint: wanted.map(str::to_owned),
                schema: self.schema.to_owned(),
                near: hint::near_relationship(self.catalog, self.schema, origin, target),
            }),
            many => Err(Error::AmbiguousRelationship {
                origin: origin.to_owned(),
                target: target.to_owned(),
                found: many.iter().map(|relationship| (*relationship).clone()).collect(),
            }),
        }
    }
}

/// The target is the other table, the constraint or a column of the origin; the hint a constraint, a
/// column on either side or the junction. Of views only the name counts: they have no constraints.
fn answers(relationship: &Relationship, target: &str, hint: Option<&str>) -> bool {
    let columns = |link: &Link| -> Option<(String, Columns)> {
        match link {
            Link::OneToMany { constraint, columns }
            | Link::ManyToOne { constraint, columns }
            | Link::OneToOne { constraint, columns, .. } => Some((constraint.clone(), columns.clone())),
            Link::ManyToMany(_) | Link::Computed { .. } => None,
        }
    };
    let is_table = target == relationship.foreign.name;
    let key = columns(&relationship.link);
    let is_constraint = |name: &str| key.as_ref().is_some_and(|(constraint, _)| constraint == name);
    let only = |pick: fn(&(String, String)) -> &String, name: &str| {
        key.as_ref().is_some_and(|(_, columns)| matches!(columns.as_slice(), [pair] if pick(pair) == name))
    };
    let is_column_here = |name: &str| only(|pair| &pair.0, name);
    let is_column_there = |name: &str| only(|pair| &pair.1, name);

    match (&relationship.link, hint) {
        (Link::Computed { function, .. }, _) => target == function.name,
        // One key of a table to itself gives two relationships. The table's name means the rows that
        // point here, the column's name the row pointed to.
        (Link::OneToMany { .. }, None) if relationship.is_self => is_table,
        (Link::ManyToOne { .. }, None) if relationship.is_self => is_column_here(target),
        (Link::OneToMany { .. }, Some(hint)) if relationship.is_self => is_table && is_column_there(hint),
        (_, _) if relationship.is_self => false,
        (_, None) => is_table || (!relationship.foreign_is_view && (is_constraint(target) || is_column_here(target))),
        (Link::ManyToMany(junction), Some(hint)) => is_table && hint == junction.table.name,
        (_, Some(hint)) => is_table && (is_constraint(hint) || is_column_here(hint) || is_column_there(hint)),
    }
}

/// What to read from so that only the rows of the parent's row remain.
fn join_parent(relationship: &Relationship, parent: &Source, depth: usize) -> (Source, Vec<(ColumnRef, ColumnRef)>) {
    let name = relationship.foreign.clone();
    let alias = identifier(&format!("{}_{depth}", name.name));
    let here = parent.qualifier();
    let there = Name::new("", &alias);
    let equal = |left: &Name, left_column: &str, right: &Name, right_column: &str| {
        let reference =
            |qualifier: &Name, column: &str| ColumnRef { qualifier: qualifier.clone(), column: column.to_owned() };
        (reference(left, left_column), reference(right, right_column))
    };
    match &relationship.link {
        Link::OneToMany { columns, .. } | Link::ManyToOne { columns, .. } | Link::OneToOne { columns, .. } => {
            let conditions = columns.iter().map(|(a, b)| equal(&there, b, &here, a)).collect();
            (Source::Table { name, alias: Some(alias) }, conditions)
        }
        Link::ManyToMany(junction) => {
            let junction_alias = identifier(&format!("{}_via_{depth}", junction.table.name));
            let via = Name::new("", &junction_alias);
            let far = junction.target.iter().map(|(a, b)| equal(&there, a, &via, b));
            let near = junction.source.iter().map(|(a, b)| equal(&via, b, &here, a));
            let conditions = far.chain(near).collect();
            (Source::Junction { name, alias, junction: junction.table.clone(), junction_alias }, conditions)
        }
        Link::Computed { function, .. } => {
            let source = Source::Computed {
                function: function.clone(),
                alias,
                parent: here,
                parent_type: relationship.table.clone(),
            };
            (source, Vec::new())
        }
    }
}

/// PostgreSQL cuts names at 63 bytes; cutting them here keeps the number at the end.
fn identifier(name: &str) -> String {
    const LONGEST: usize = 63;
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    let tail = name.rsplit('_').next().unwrap_or_default();
    let mut end = LONGEST.saturating_sub(tail.len() + 1);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_{tail}", &name[..end])
}
