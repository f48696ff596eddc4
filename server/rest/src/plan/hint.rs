//! What may have been meant by a name that is not there.
//!
//! Names of tables and functions are suggested only when they are much alike, so that nobody finds out
//! what exists by guessing.

use std::collections::HashSet;

use ntier_backing::database::catalog::{Catalog, Function, Name};

use crate::error::Near;

const CLOSE: f64 = 0.75;
const LOOSE: f64 = 0.33;
/// Comparing with very many names takes too long for an error message.
const MOST: usize = 500;

pub(super) fn near_table(catalog: &Catalog, wanted: &Name) -> Option<String> {
    let names: Vec<&str> = in_schema(catalog.tables.keys(), &wanted.schema);
    (names.len() < MOST).then(|| best(&names, &wanted.name, CLOSE)).flatten()
}

pub(super) fn near_function(catalog: &Catalog, wanted: &Name, arguments: &[String]) -> Option<String> {
    match catalog.functions.get(wanted) {
        None => {
            let names = in_schema(catalog.functions.keys(), &wanted.schema);
            best(&names, &wanted.name, CLOSE)
        }
        Some(overloads) => {
            let described: Vec<String> = overloads.iter().map(describe).collect();
            let names: Vec<&str> = described.iter().map(String::as_str).collect();
            let found = best(&names, &list(arguments.iter().map(String::as_str).collect()), LOOSE)?;
            Some(format!("{}{found}", wanted.name))
        }
    }
}

/// The origin if it has no relationships, otherwise the target; nothing when both are right.
pub(super) fn near_relationship(catalog: &Catalog, schema: &str, origin: &str, target: &str) -> Option<Near> {
    let key = (Name::new(schema, origin), schema.to_owned());
    let near = |names: &[&str], wanted: &str| {
        let meant = best(names, wanted, LOOSE)?;
        (meant != wanted).then(|| Near { meant, instead_of: wanted.to_owned() })
    };
    if let Some(list) = catalog.relationships.get(&key) {
        let names: Vec<&str> = list.iter().map(|relationship| relationship.foreign.name.as_str()).collect();
        near(&names, target)
    } else {
        let keys = catalog.relationships.keys().filter(|(_, looked_in)| looked_in == schema);
        near(&keys.map(|(table, _)| table.name.as_str()).collect::<Vec<_>>(), origin)
    }
}

fn in_schema<'a>(names: impl Iterator<Item = &'a Name>, schema: &str) -> Vec<&'a str> {
    names.filter(|name| name.schema == schema).map(|name| name.name.as_str()).collect()
}

fn describe(function: &Function) -> String {
    list(function.arguments.iter().map(|argument| argument.name.as_str()).collect())
}

fn list(mut names: Vec<&str>) -> String {
    names.sort_unstable();
    format!("({})", names.join(", "))
}

/// The most similar name. Only names that share some letters in a row are compared at all.
fn best(names: &[&str], wanted: &str, least: f64) -> Option<String> {
    [3, 2].into_iter().find_map(|size| {
        let wanted_grams = grams(wanted, size);
        let candidates = names.iter().filter(|name| !grams(name, size).is_disjoint(&wanted_grams));
        let scored = candidates.map(|name| (similarity(name, wanted), *name)).filter(|(score, _)| *score >= least);
        scored.max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1))).map(|(_, name)| name.to_owned())
    })
}

fn grams(text: &str, size: usize) -> HashSet<String> {
    let letters: Vec<char> = format!("-{}-", text.to_lowercase()).chars().collect();
    letters.windows(size).map(|window| window.iter().collect()).collect()
}

#[expect(clippy::cast_precision_loss, reason = "names are short")]
fn similarity(a: &str, b: &str) -> f64 {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    let longest = a.chars().count().max(b.chars().count());
    if longest == 0 { 1.0 } else { 1.0 - distance(&a, &b) as f64 / longest as f64 }
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_much_alike_are_suggested() {
        for (names, wanted, least, expected) in [
            (&["films", "actors"][..], "film", CLOSE, Some("films")),
            (&["films"], "factories", CLOSE, None),
            (&["(name, param, val)", "(attr, id)"], "(id)", LOOSE, Some("(attr, id)")),
            (&["(name, param, val)", "(attr, id)"], "(noclosealternative)", LOOSE, None),
            (&["roles"], "role", LOOSE, Some("roles")),
        ] {
            assert_eq!(best(names, wanted, least).as_deref(), expected, "{wanted}");
        }
    }
}
