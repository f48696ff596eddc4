//! From keys to relationships: through views, in both directions, across junction tables, and those that
//! a function computes.

use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;

use super::views::{Origins, Place};
use super::{Columns, Junction, Link, Name, Relationship, Table};

/// A primary or a foreign key.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Key {
    pub constraint: String,
    pub primary: bool,
    /// A partition's copy of its parent's key.
    pub inherited: bool,
    /// The columns are also a primary key or unique.
    pub unique: bool,
    pub oid: i64,
    pub table: Name,
    pub columns: Vec<(i32, String)>,
    pub foreign_oid: Option<i64>,
    pub foreign: Option<Name>,
    pub foreign_columns: Vec<(i32, String)>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Computed {
    pub function: Name,
    pub table: Name,
    pub foreign: Name,
    pub to_one: bool,
}

/// A view that shows all columns of a key: one list of its columns per way to choose them.
struct Shown<'a> {
    view: &'a Name,
    choices: Vec<Vec<String>>,
}

/// The columns of the first way in which each view shows a primary key.
pub(super) fn view_primary_keys(keys: &[Key], origins: &[Origins]) -> HashMap<Name, Vec<String>> {
    let mut found: HashMap<Name, Vec<String>> = HashMap::new();
    for key in keys.iter().filter(|key| key.primary) {
        for shown in shown_by(key.oid, &key.columns, origins) {
            if let Some(first) = shown.choices.into_iter().next() {
                found.entry(shown.view.clone()).or_default().extend(first);
            }
        }
    }
    found
}

/// All relationships, by where they start and the schema in which the other side is looked for.
pub(super) fn relationships(
    keys: &[Key],
    origins: &[Origins],
    computed: &[Computed],
    tables: &HashMap<Name, Table>,
    exposed: &[String],
) -> HashMap<(Name, String), Vec<Relationship>> {
    let mut all = forward(keys, origins);
    let junctions = many_to_many(&all, tables);
    all.extend(junctions);
    let inverse: Vec<_> = all.iter().filter_map(inverted).collect();
    all.extend(inverse);

    let is_exposed = |name: &Name| exposed.contains(&name.schema);
    // A function named like the other table takes the place of what was found between the two.
    let overridden: BTreeSet<(&Name, &Name)> = computed.iter().map(|c| (&c.table, &c.function)).collect();
    let mut index: HashMap<(Name, String), Vec<Relationship>> = HashMap::new();
    for relationship in all {
        let hidden_junction = matches!(&relationship.link, Link::ManyToMany(j) if !is_exposed(&j.table));
        let replaced = overridden.contains(&(&relationship.table, &relationship.foreign));
        if is_exposed(&relationship.table) && is_exposed(&relationship.foreign) && !hidden_junction && !replaced {
            let place = (relationship.table.clone(), relationship.foreign.schema.clone());
            index.entry(place).or_default().push(relationship);
        }
    }
    for function in computed.iter().filter(|c| is_exposed(&c.table) && is_exposed(&c.foreign)) {
        let place = (function.table.clone(), function.function.schema.clone());
        index.entry(place).or_default().push(Relationship {
            table: function.table.clone(),
            foreign: function.foreign.clone(),
            is_self: function.table == function.foreign,
            link: Link::Computed { function: function.function.clone(), to_one: function.to_one },
            table_is_view: false,
            foreign_is_view: false,
        });
    }
    for list in index.values_mut() {
        list.sort();
    }
    index
}

/// From the side of the foreign key: table to table, view to table, table to view and view to view.
fn forward(keys: &[Key], origins: &[Origins]) -> Vec<Relationship> {
    let mut all = Vec::new();
    for key in keys.iter().filter(|key| !key.inherited) {
        let (Some(foreign_oid), Some(foreign)) = (key.foreign_oid, &key.foreign) else {
            continue;
        };
        let here = Side::all(&key.table, &key.columns, &shown_by(key.oid, &key.columns, origins));
        let there = Side::all(foreign, &key.foreign_columns, &shown_by(foreign_oid, &key.foreign_columns, origins));
        for from in &here {
            for to in &there {
                let columns: Columns = from.columns.iter().cloned().zip(to.columns.iter().cloned()).collect();
                let constraint = key.constraint.clone();
                let link = if key.unique {
                    Link::OneToOne { constraint, columns, is_parent: false }
                } else {
                    Link::ManyToOne { constraint, columns }
                };
                all.push(Relationship {
                    table: from.name.clone(),
                    foreign: to.name.clone(),
                    is_self: from.is_view == to.is_view && from.name == to.name,
                    link,
                    table_is_view: from.is_view,
                    foreign_is_view: to.is_view,
                });
            }
        }
    }
    all
}

/// One end of a relationship: the table itself or a view of it.
struct Side {
    name: Name,
    columns: Vec<String>,
    is_view: bool,
}

impl Side {
    fn all(table: &Name, columns: &[(i32, String)], shown: &[Shown<'_>]) -> Vec<Self> {
        let columns = columns.iter().map(|(_, name)| name.clone()).collect();
        let mut sides = vec![Self { name: table.clone(), columns, is_view: false }];
        for view in shown {
            for choice in &view.choices {
                sides.push(Self { name: view.view.clone(), columns: choice.clone(), is_view: true });
            }
        }
        sides
    }
}

fn shown_by<'a>(oid: i64, columns: &[(i32, String)], origins: &'a [Origins]) -> Vec<Shown<'a>> {
    let places: Vec<Place> = columns.iter().map(|(number, _)| (oid, *number)).collect();
    let mut list = Vec::new();
    for origin in origins {
        let lists: Option<Vec<&Vec<String>>> = places.iter().map(|place| origin.columns.get(place)).collect();
        if let Some(lists) = lists {
            list.push(Shown { view: &origin.view, choices: choices(&lists) });
        }
    }
    list
}

/// Every way to take one of each.
fn choices(lists: &[&Vec<String>]) -> Vec<Vec<String>> {
    lists.iter().fold(vec![Vec::new()], |ways, list| {
        ways.iter().flat_map(|way| list.iter().map(move |next| way.iter().chain([next]).cloned().collect())).collect()
    })
}

fn inverted(relationship: &Relationship) -> Option<Relationship> {
    let link = match &relationship.link {
        Link::ManyToOne { constraint, columns } => {
            Link::OneToMany { constraint: constraint.clone(), columns: swapped(columns) }
        }
        Link::OneToOne { constraint, columns, is_parent } => {
            Link::OneToOne { constraint: constraint.clone(), columns: swapped(columns), is_parent: !is_parent }
        }
        _ => return None,
    };
    Some(Relationship {
        table: relationship.foreign.clone(),
        foreign: relationship.table.clone(),
        is_self: relationship.is_self,
        link,
        table_is_view: relationship.foreign_is_view,
        foreign_is_view: relationship.table_is_view,
    })
}

fn swapped(columns: &Columns) -> Columns {
    columns.iter().map(|(here, there)| (there.clone(), here.clone())).collect()
}

/// A table with two foreign keys whose columns are all part of its primary key joins the two others.
fn many_to_many(all: &[Relationship], tables: &HashMap<Name, Table>) -> Vec<Relationship> {
    let mut by_table: HashMap<&Name, Vec<(&Relationship, &String, &Columns)>> = HashMap::new();
    for relationship in all {
        if let Link::ManyToOne { constraint, columns } = &relationship.link {
            by_table.entry(&relationship.table).or_default().push((relationship, constraint, columns));
        }
    }
    let mut found = Vec::new();
    for (junction, links) in by_table {
        let Some(table) = tables.get(junction) else {
            continue;
        };
        let in_key = |columns: &Columns| columns.iter().all(|(here, _)| table.primary_key.contains(here));
        for (source, source_constraint, source_columns) in &links {
            for (target, target_constraint, target_columns) in &links {
                if source_constraint == target_constraint || !in_key(source_columns) || !in_key(target_columns) {
                    continue;
                }
                found.push(Relationship {
                    table: source.foreign.clone(),
                    foreign: target.foreign.clone(),
                    is_self: source.foreign == target.foreign,
                    link: Link::ManyToMany(Junction {
                        table: junction.clone(),
                        source_constraint: (*source_constraint).clone(),
                        target_constraint: (*target_constraint).clone(),
                        source: swapped(source_columns),
                        target: swapped(target_columns),
                    }),
                    table_is_view: source.foreign_is_view,
                    foreign_is_view: target.foreign_is_view,
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(constraint: &str, oid: i64, table: &str, columns: &[(i32, &str)], foreign: Option<(i64, &str)>) -> Key {
        Key {
            constraint: constraint.into(),
            primary: foreign.is_none(),
            inherited: false,
            unique: false,
            oid,
            table: Name::new("public", table),
            columns: columns.iter().map(|(number, name)| (*number, (*name).to_owned())).collect(),
            foreign_oid: foreign.map(|f| f.0),
            foreign: foreign.map(|f| Name::new("public", f.1)),
            foreign_columns: foreign.map(|_| (1, "id".to_owned())).into_iter().collect(),
        }
    }

    fn found(computed: &[Computed]) -> HashMap<(Name, String), Vec<Relationship>> {
        let keys = [
            key("roles_film", 3, "roles", &[(1, "film_id")], Some((1, "films"))),
            key("roles_actor", 3, "roles", &[(2, "actor_id")], Some((2, "actors"))),
        ];
        let roles = Table {
            name: Name::new("public", "roles"),
            primary_key: vec!["film_id".into(), "actor_id".into()],
            ..Table::default()
        };
        let shown = Origins {
            view: Name::new("public", "roles_view"),
            columns: HashMap::from([((3, 1), vec!["f1".to_owned(), "f2".to_owned()])]),
        };
        let tables = HashMap::from([(roles.name.clone(), roles)]);
        relationships(&keys, &[shown], computed, &tables, &["public".to_owned()])
    }

    fn foreign(found: &HashMap<(Name, String), Vec<Relationship>>, table: &str) -> Vec<String> {
        let list = &found[&(Name::new("public", table), "public".to_owned())];
        list.iter().map(|r| r.foreign.name.clone()).collect()
    }

    #[test]
    fn keys_give_both_directions_and_junctions_give_many_to_many() {
        let found = found(&[]);
        assert_eq!(foreign(&found, "roles"), ["actors", "films"]);
        assert_eq!(foreign(&found, "actors"), ["films", "roles"]);
    }

    #[test]
    fn a_view_that_shows_a_key_twice_has_two_relationships() {
        assert_eq!(foreign(&found(&[]), "roles_view"), ["films", "films"]);
        assert_eq!(foreign(&found(&[]), "films"), ["actors", "roles", "roles_view", "roles_view"]);
    }

    #[test]
    fn a_function_named_like_the_table_takes_its_place() {
        let computed = Computed {
            function: Name::new("public", "films"),
            table: Name::new("public", "roles"),
            foreign: Name::new("public", "films"),
            to_one: true,
        };
        let found = found(&[computed]);
        let list = &found[&(Name::new("public", "roles"), "public".to_owned())];
        assert_eq!(list.iter().filter(|r| matches!(r.link, Link::Computed { .. })).count(), 1);
        assert_eq!(list.iter().filter(|r| r.foreign.name == "films").count(), 1);
    }
}
