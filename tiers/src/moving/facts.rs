//! What a database is made of, as facts that can be made again elsewhere: read from the catalog of either end, compared, and put in an
//! order in which each finds what it needs.
//!
//! The catalog's own functions say how most things are made (`pg_get_…def`); `facts.sql` says the rest. What is in a database and is no
//! fact is named (`foreign`), so that nothing is left behind unsaid.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use ntier_backing::database::{self, Line, Row, Rows};

/// One thing: a table, a column, a right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    pub kind: Kind,
    /// By which it is the same thing at both ends.
    pub name: String,
    /// The statement that makes it.
    pub make: String,
    /// What is equal where it is the same.
    pub same: String,
    /// The statement that takes it away, of what may be taken away.
    pub unmake: Option<String>,
    object: Object,
    /// The OID of what it belongs to; 0 for nothing.
    parent: u32,
}

/// Class and OID, as in `pg_depend`; (0, 0) for what has none.
type Object = (u32, u32);

macro_rules! kinds {
    ($($kind:ident $text:literal $stage:ident),* $(,)?) => {
        /// In the order in which they are made where nothing else decides.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $($kind),* }

        impl Kind {
            fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$kind),)* _ => None }
            }

            pub fn text(self) -> &'static str {
                match self { $(Self::$kind => $text),* }
            }

            /// When it is made, unless something that comes earlier needs it.
            fn stage(self) -> Stage {
                match self { $(Self::$kind => Stage::$stage),* }
            }
        }
    };
}

/// When a fact is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// What rows need to be put somewhere.
    Before,
    /// What takes long, or is not in the way of rows that come later.
    After,
    /// What would act on rows that come later.
    Last,
}

kinds! {
    Role "role" Before,
    Schema "schema" Before,
    Extension "extension" Before,
    Type "type" After,
    Function "function" After,
    Procedure "procedure" After,
    Aggregate "aggregate" After,
    Sequence "sequence" Before,
    Table "table" Before,
    Column "column" Before,
    OwnedSequence "owned sequence" Before,
    Partition "partition" Before,
    Cast "cast" After,
    Default "default" After,
    Options "options" Before,
    ColumnOption "column option" Before,
    View "view" After,
    MaterializedView "materialized view" After,
    Constraint "constraint" After,
    Index "index" After,
    PartitionIndex "index of a partition" After,
    Statistics "statistics" After,
    Member "member" After,
    Setting "setting" After,
    RowSecurity "row security" After,
    Policy "policy" After,
    DefaultGrant "default grant" After,
    Grant "grant" After,
    // Whoever is no superuser gives things only to those who may make such things there.
    Owner "owner" After,
    ReplicaIdentity "replica identity" After,
    Rule "rule" Last,
    ForeignKey "foreign key" Last,
    Trigger "trigger" Last,
    TriggerState "trigger state" Last,
    Publication "publication" Last,
    Published "published" Last,
    EventTrigger "event trigger" Last,
    Comment "comment" Last,
}

impl Kind {
    /// Whether what only the target has of it is taken away there: what others have there is not ours to touch.
    fn is_exact(self) -> bool {
        matches!(
            self,
            Self::RowSecurity
                | Self::Policy
                | Self::Owner
                | Self::DefaultGrant
                | Self::Grant
                | Self::ForeignKey
                | Self::Trigger
                | Self::Rule
        )
    }

    /// Whether its statement may be run where it is there already, and changes it.
    fn is_repeatable(self) -> bool {
        matches!(
            self,
            Self::Function
                | Self::Procedure
                | Self::Default
                | Self::Options
                | Self::ColumnOption
                | Self::Setting
                | Self::ReplicaIdentity
                | Self::Comment
        )
    }
}

/// Everything that was found.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub list: Vec<Fact>,
    needs: Vec<(Object, Object)>,
    /// What cannot be taken along, in words.
    pub foreign: Vec<String>,
}

/// Whose roles are facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roles {
    All,
    /// Those that something in the database names: the server has others too.
    Named,
}

impl Facts {
    /// Reads the catalog; the line has an empty `search_path`. `other`: the major version of the other end, because PostgreSQL writes
    /// views otherwise from one to the next.
    pub async fn read(line: &mut Line, roles: Roles, other: u32) -> Result<Self, database::Error> {
        let sql = include_str!("facts.sql")
            .replace("/*all*/", if roles == Roles::All { "true" } else { "false" })
            .replace("/*other*/0", &other.to_string());
        let answers = line.run(&sql).await?;
        let rows = |index: usize| answers.get(index).map(|rows: &Rows| rows.rows.as_slice()).unwrap_or_default();
        let number = |row: &Row, column| row.text(column).and_then(|text| text.parse().ok()).unwrap_or_default();
        let list = rows(0).iter().filter_map(fact).collect();
        let needs = rows(1).iter().map(|row| ((number(row, 0), number(row, 1)), (number(row, 2), number(row, 3))));
        let needs = needs.collect();
        let foreign = rows(2).iter().filter_map(|row| row.text(0)).map(str::to_owned).collect();
        Ok(Self { list, needs, foreign })
    }

    /// Leaves out the rights that only one end knows.
    pub fn without_maintain(mut self) -> Self {
        self.list.retain(|fact| {
            !(matches!(fact.kind, Kind::Grant | Kind::DefaultGrant) && fact.name.starts_with("maintain on "))
        });
        self
    }

    /// The embedded database keeps unlogged tables and sequences as ordinary ones (migration 22).
    pub fn without_unlogged(mut self) -> Self {
        for fact in &mut self.list {
            match fact.kind {
                Kind::Table if fact.same.starts_with('u') => fact.same.replace_range(..1, "p"),
                Kind::Sequence => fact.same = logged(&fact.same),
                _ => continue,
            }
            fact.make = logged(&fact.make);
        }
        self
    }

    /// What another has too, by its name.
    pub fn shared_with(&self, other: &Self) -> Self {
        let names: HashSet<_> = other.list.iter().map(|fact| (fact.kind, fact.name.as_str())).collect();
        let list = self.list.iter().filter(|fact| names.contains(&(fact.kind, fact.name.as_str())));
        Self { list: list.cloned().collect(), ..Self::default() }
    }

    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Fact> {
        self.list.iter().filter(move |fact| fact.kind == kind)
    }

    /// The names of those of a kind, each behind what it needs.
    pub fn in_order(&self, kind: Kind) -> impl Iterator<Item = &str> {
        ordered(self).into_iter().filter(move |fact| fact.kind == kind).map(|fact| fact.name.as_str())
    }
}

/// A statement that makes a table or a sequence, without the word.
fn logged(make: &str) -> String {
    make.replacen("create unlogged ", "create ", 1)
}

fn fact(row: &Row) -> Option<Fact> {
    let number = |column| row.text(column).and_then(|text| text.parse().ok()).unwrap_or_default();
    Some(Fact {
        kind: Kind::parse(row.text(0)?)?,
        name: row.text(1)?.to_owned(),
        make: row.text(2)?.to_owned(),
        same: row.text(3)?.to_owned(),
        unmake: row.text(4).map(str::to_owned),
        object: (number(5), number(6)),
        parent: number(7),
    })
}

/// A statement, and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub kind: Kind,
    pub name: String,
    pub sql: String,
}

/// What has to be done so that the target has what the source has of this stage and those before, in order.
pub fn plan(source: &Facts, target: &Facts, stage: Stage) -> Vec<Step> {
    let there: HashMap<_, _> = target.list.iter().map(|fact| ((fact.kind, fact.name.as_str()), fact)).collect();
    let wanted: HashSet<_> = source.list.iter().map(|fact| (fact.kind, fact.name.as_str())).collect();
    let early = early(source);
    let comes = |fact: &Fact| fact.kind.stage() <= stage || early.contains(&fact.object);
    let mut steps = Vec::new();
    let exact = target.list.iter().filter(|fact| fact.kind.is_exact() && fact.kind.stage() <= stage);
    for fact in exact.filter(|fact| !wanted.contains(&(fact.kind, fact.name.as_str()))) {
        steps.extend(fact.unmake.clone().map(|sql| Step { kind: fact.kind, name: fact.name.clone(), sql }));
    }
    let tables: HashSet<u32> = source
        .of(Kind::Table)
        .filter(|fact| !there.contains_key(&(Kind::Table, fact.name.as_str())))
        .map(|fact| fact.object.1)
        .collect();
    let made = ordered(source).into_iter().filter(|fact| comes(fact));
    for fact in made {
        // A table that is made has its columns.
        if fact.kind == Kind::Column && tables.contains(&fact.parent) {
            continue;
        }
        let step = |sql: String| Step { kind: fact.kind, name: fact.name.clone(), sql };
        match there.get(&(fact.kind, fact.name.as_str())) {
            None => steps.push(step(fact.make.clone())),
            Some(other) if other.same == fact.same => {}
            Some(_) if fact.kind.is_repeatable() => steps.push(step(fact.make.clone())),
            Some(_) if fact.kind == Kind::View => {
                steps.push(step(fact.make.replacen("create view", "create or replace view", 1)));
            }
            Some(other) => {
                if let Some(unmake) = &other.unmake {
                    steps.push(step(unmake.clone()));
                    steps.push(step(fact.make.clone()));
                }
            }
        }
    }
    steps
}

/// What differs where nothing should.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// Something is missing or is another.
    pub faults: Vec<String>,
    /// Worth knowing.
    pub notes: Vec<String>,
}

/// Compares both ends. PostgreSQL of another major version may write the same expression otherwise, so there only what is missing is a
/// fault.
pub fn differences(source: &Facts, target: &Facts, is_same_version: bool) -> Differences {
    let there: HashMap<_, _> = target.list.iter().map(|fact| ((fact.kind, fact.name.as_str()), fact)).collect();
    let mut found = Differences::default();
    for fact in &source.list {
        let said = || format!("{} {}", fact.kind.text(), fact.name);
        match there.get(&(fact.kind, fact.name.as_str())) {
            None => found.faults.push(format!("{} is missing", said())),
            Some(other) if other.same == fact.same => {}
            Some(other) if is_same_version => {
                found.faults.push(format!("{} is {:?} instead of {:?}", said(), other.same, fact.same));
            }
            Some(_) => found.notes.push(format!("{} is written otherwise by the other version", said())),
        }
    }
    let wanted: HashSet<_> = source.list.iter().map(|fact| (fact.kind, fact.name.as_str())).collect();
    let more = target.list.iter().filter(|fact| fact.kind.is_exact());
    let more = more.filter(|fact| !wanted.contains(&(fact.kind, fact.name.as_str())));
    found.faults.extend(more.map(|fact| format!("{} {} should not be there", fact.kind.text(), fact.name)));
    found
}

/// What tables and sequences need, and what that needs.
fn early(facts: &Facts) -> HashSet<Object> {
    let mut needs: HashMap<Object, Vec<Object>> = HashMap::new();
    for (what, needed) in &facts.needs {
        needs.entry(*what).or_default().push(*needed);
    }
    let seeds = facts.list.iter().filter(|fact| fact.kind.stage() == Stage::Before && fact.object != (0, 0));
    let mut open: Vec<Object> = seeds.map(|fact| fact.object).collect();
    let mut found: HashSet<Object> = HashSet::new();
    while let Some(object) = open.pop() {
        if found.insert(object) {
            open.extend(needs.get(&object).into_iter().flatten());
        }
    }
    found
}

/// All facts, each behind what it needs; what goes in circles comes as its kind has it.
fn ordered(facts: &Facts) -> Vec<&Fact> {
    let mut places: HashMap<Object, usize> = HashMap::new();
    let mut owners: HashMap<u32, usize> = HashMap::new();
    for (place, fact) in facts.list.iter().enumerate() {
        if fact.object != (0, 0) {
            places.insert(fact.object, place);
            owners.entry(fact.object.1).or_insert(place);
        }
    }
    let mut behind: Vec<Vec<usize>> = vec![Vec::new(); facts.list.len()];
    let mut waits: Vec<usize> = vec![0; facts.list.len()];
    let pairs = facts.needs.iter().filter_map(|(what, needed)| Some((*places.get(what)?, *places.get(needed)?)));
    let parents = facts.list.iter().enumerate();
    let parents = parents.filter_map(|(place, fact)| Some((place, *owners.get(&fact.parent)?)));
    let edges: HashSet<(usize, usize)> = pairs.chain(parents).filter(|(what, needed)| what != needed).collect();
    for (what, needed) in edges {
        behind[needed].push(what);
        waits[what] += 1;
    }
    let rank = |place: usize| (facts.list[place].kind, facts.list[place].name.as_str(), place);
    let mut ready: BinaryHeap<_> =
        (0..facts.list.len()).filter(|&place| waits[place] == 0).map(|place| Reverse(rank(place))).collect();
    let mut order = Vec::with_capacity(facts.list.len());
    let mut done = vec![false; facts.list.len()];
    loop {
        while let Some(Reverse((_, _, place))) = ready.pop() {
            if std::mem::replace(&mut done[place], true) {
                continue;
            }
            order.push(&facts.list[place]);
            for &next in &behind[place] {
                waits[next] = waits[next].saturating_sub(1);
                if waits[next] == 0 {
                    ready.push(Reverse(rank(next)));
                }
            }
        }
        // A circle: its first by kind goes on.
        match (0..facts.list.len()).filter(|&place| !done[place]).min_by_key(|&place| rank(place)) {
            Some(place) => ready.push(Reverse(rank(place))),
            None => return order,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(kind: Kind, name: &str, object: u32, parent: u32) -> Fact {
        Fact {
            kind,
            name: name.into(),
            make: format!("make {name}"),
            same: format!("make {name}"),
            unmake: Some(format!("unmake {name}")),
            object: if object == 0 { (0, 0) } else { (1, object) },
            parent,
        }
    }

    fn facts(list: Vec<Fact>, needs: &[(u32, u32)]) -> Facts {
        let needs = needs.iter().map(|&(what, needed)| ((1, what), (1, needed))).collect();
        Facts { list, needs, foreign: Vec::new() }
    }

    fn check(source: &Facts, target: &Facts, stage: Stage, expected: &[&str]) {
        let steps: Vec<String> = plan(source, target, stage).into_iter().map(|step| step.sql).collect();
        assert_eq!(steps, expected, "{stage:?}");
    }

    #[test]
    fn what_is_needed_comes_first() {
        let source = facts(
            vec![
                fact(Kind::View, "v", 4, 0),
                fact(Kind::Table, "t", 2, 0),
                fact(Kind::Function, "f", 3, 0),
                fact(Kind::Type, "y", 1, 0),
                fact(Kind::Column, "t.c", 0, 2),
                fact(Kind::Trigger, "g", 5, 2),
            ],
            &[(2, 3), (3, 1), (4, 2), (5, 3)],
        );
        let none = Facts::default();
        check(&source, &none, Stage::Before, &["make y", "make f", "make t"]);
        check(&source, &none, Stage::After, &["make y", "make f", "make t", "make v"]);
        check(&source, &source, Stage::Last, &[]);
    }

    #[test]
    fn a_table_that_is_there_gets_its_columns() {
        let source = facts(vec![fact(Kind::Table, "t", 2, 0), fact(Kind::Column, "t.c", 0, 2)], &[]);
        let target = facts(vec![fact(Kind::Table, "t", 9, 0)], &[]);
        check(&source, &target, Stage::Before, &["make t.c"]);
    }

    #[test]
    fn circles_come_to_an_end() {
        let source = facts(vec![fact(Kind::Function, "f", 1, 0), fact(Kind::View, "v", 2, 0)], &[(1, 2), (2, 1)]);
        check(&source, &Facts::default(), Stage::After, &["make f", "make v"]);
    }

    #[test]
    fn rights_become_exactly_those_of_the_source() {
        let other = Fact { same: "other".into(), ..fact(Kind::Policy, "p", 3, 0) };
        let source = facts(vec![fact(Kind::Grant, "a", 0, 0), fact(Kind::Policy, "p", 3, 0)], &[]);
        let target = facts(vec![fact(Kind::Grant, "b", 0, 0), other, fact(Kind::Setting, "s", 0, 0)], &[]);
        check(&source, &target, Stage::After, &["unmake b", "unmake p", "make p", "make a"]);
    }

    #[test]
    fn differences_are_named() {
        let source = facts(vec![fact(Kind::Table, "t", 1, 0), fact(Kind::View, "v", 2, 0)], &[]);
        let other = Fact { same: "other".into(), ..fact(Kind::View, "v", 7, 0) };
        let target = facts(vec![other, fact(Kind::Grant, "g", 0, 0)], &[]);
        let found = differences(&source, &target, true);
        assert_eq!(
            found.faults,
            ["table t is missing", "view v is \"other\" instead of \"make v\"", "grant g should not be there"]
        );
        assert_eq!(differences(&source, &target, false).notes, ["view v is written otherwise by the other version"]);
        assert_eq!(differences(&source, &source, true), Differences::default());
    }
}
