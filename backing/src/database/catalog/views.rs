//! Which column of which table a view's column is, as PostgreSQL's rewrite rules know it.
//!
//! A rule is a `pg_node_tree`: `{NODE :field value …}`, `(…)` for lists, white space between, a backslash
//! before anything special inside a name. Of it only the outermost query's target list matters.

use std::collections::HashMap;

use serde::Deserialize;

use super::Name;

/// A column by its table's oid and its number.
pub(super) type Place = (i64, i32);

#[derive(Debug, Clone, Deserialize)]
pub(super) struct View {
    pub oid: i64,
    /// In a schema that is exposed; others only carry origins further up.
    pub exposed: bool,
    pub name: Name,
    pub rule: String,
    pub columns: Option<Vec<(i32, String)>>,
}

/// For each exposed view: its name and, per column of a table below, the view's columns that show it.
pub(super) struct Origins {
    pub view: Name,
    pub columns: HashMap<Place, Vec<String>>,
}

/// Follows views through views down to tables. The steps between count as well: a key may be on any.
pub(super) fn origins(views: &[View]) -> Vec<Origins> {
    let direct: HashMap<i64, Vec<Target>> = views.iter().map(|view| (view.oid, targets(&view.rule))).collect();
    views.iter().filter(|view| view.exposed).map(|view| view_origins(view, &direct)).collect()
}

fn view_origins(view: &View, direct: &HashMap<i64, Vec<Target>>) -> Origins {
    let names: HashMap<i32, &String> = view.columns.iter().flatten().map(|(number, name)| (*number, name)).collect();
    let mut columns: HashMap<Place, Vec<String>> = HashMap::new();
    for target in direct.get(&view.oid).into_iter().flatten() {
        let Some(name) = names.get(&target.number) else {
            continue;
        };
        let mut seen = vec![view.oid];
        let mut next = Some(target.origin);
        while let Some(place) = next.filter(|place| place.0 != 0 && !seen.contains(&place.0)) {
            columns.entry(place).or_default().push((*name).clone());
            seen.push(place.0);
            next = direct
                .get(&place.0)
                .and_then(|targets| targets.iter().find(|target| target.number == place.1))
                .map(|target| target.origin);
        }
    }
    Origins { view: view.name.clone(), columns }
}

/// An entry of a target list: the view's column number and where it comes from, 0 for nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    number: i32,
    origin: Place,
}

/// The target list of the rule's outermost query.
fn targets(rule: &str) -> Vec<Target> {
    let mut tokens = Tokens { rest: rule };
    // `({QUERY` and then its fields.
    for opening in ["(", "{", "QUERY"] {
        if tokens.next() != Some(opening) {
            return Vec::new();
        }
    }
    while let Some(token) = tokens.next() {
        match token {
            ":targetList" => return target_list(&mut tokens),
            "{" | "(" => tokens.skip_to_close(),
            _ => {}
        }
    }
    Vec::new()
}

fn target_list(tokens: &mut Tokens<'_>) -> Vec<Target> {
    let mut list = Vec::new();
    if tokens.next() != Some("(") {
        return list;
    }
    while tokens.next() == Some("{") {
        list.extend(target(tokens));
    }
    list
}

/// One `TARGETENTRY`, up to and with its closing brace.
fn target(tokens: &mut Tokens<'_>) -> Option<Target> {
    let mut fields: HashMap<&str, &str> = HashMap::new();
    let mut key = "";
    while let Some(token) = tokens.next() {
        match token {
            "}" => break,
            "{" | "(" => tokens.skip_to_close(),
            _ if token.starts_with(':') => key = token,
            _ => {
                fields.insert(key, token);
            }
        }
    }
    let number = |key: &str| fields.get(key)?.parse::<i64>().ok();
    let narrow = |key: &str| i32::try_from(number(key)?).ok();
    Some(Target { number: narrow(":resno")?, origin: (number(":resorigtbl")?, narrow(":resorigcol")?) })
}

struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    /// A bracket, or a word up to white space or a bracket that is not escaped.
    fn next(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_start();
        let bytes = self.rest.as_bytes();
        let first = *bytes.first()?;
        let length = if is_bracket(first) { 1 } else { word_length(bytes) };
        let (token, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(token)
    }

    /// Goes past the bracket that closes the one just read.
    fn skip_to_close(&mut self) {
        let mut depth = 1;
        while depth > 0 {
            match self.next() {
                Some("{" | "(") => depth += 1,
                Some("}" | ")") => depth -= 1,
                Some(_) => {}
                None => return,
            }
        }
    }
}

fn is_bracket(byte: u8) -> bool {
    matches!(byte, b'{' | b'}' | b'(' | b')')
}

fn word_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'\\' {
            // What is escaped may be longer than a byte, but none of its other bytes is special.
            at += 2;
        } else if byte.is_ascii_whitespace() || is_bracket(byte) {
            break;
        } else {
            at += 1;
        }
    }
    at.min(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = r#"({QUERY :commandType 1 :utilityStmt <> :rtable ({RANGETBLENTRY :eref {ALIAS :aliasname a\{b\ c :colnames
        ("id" "x\)y")}} {RANGETBLENTRY :subquery {QUERY :targetList ({TARGETENTRY :resno 1 :resorigtbl 9 :resorigcol 9})}})
        :targetList ({TARGETENTRY :expr {VAR :varno 1 :location 7} :resno 1 :resname id :ressortgroupref 0 :resorigtbl 100
        :resorigcol 3 :resjunk false} {TARGETENTRY :expr {CONST :constvalue 4 [ 1 0 0 0 ]} :resno 2 :resname \<\> :resorigtbl 0
        :resorigcol 0 :resjunk false}) :override 0})"#;

    #[test]
    fn only_the_outermost_target_list_counts() {
        assert_eq!(targets(RULE), [Target { number: 1, origin: (100, 3) }, Target { number: 2, origin: (0, 0) }]);
    }

    #[test]
    fn a_broken_rule_has_no_targets() {
        for rule in ["", "(", "({QUERY", "({QUERY :targetList", "({QUERY :targetList ({TARGETENTRY :resno 1", "\\"] {
            assert!(targets(rule).is_empty(), "{rule}");
        }
    }

    #[test]
    fn a_view_over_a_view_reaches_the_table() {
        let view = |oid: i64, origin: i64, column: &str| View {
            oid,
            exposed: true,
            name: Name::new("public", format!("v{oid}")),
            rule: format!("({{QUERY :targetList ({{TARGETENTRY :resno 1 :resorigtbl {origin} :resorigcol 1}})}})"),
            columns: Some(vec![(1, column.to_owned())]),
        };
        let found = origins(&[view(1, 50, "a"), view(2, 1, "b"), view(3, 3, "c")]);
        assert_eq!(found[1].columns.get(&(50, 1)), Some(&vec!["b".to_owned()]));
        assert_eq!(found[1].columns.get(&(1, 1)), Some(&vec!["b".to_owned()]));
        assert!(found[2].columns.is_empty(), "a view over itself ends");
    }
}
