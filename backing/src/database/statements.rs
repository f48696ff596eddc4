//! The statements one connection has prepared: a bounded cache, least recently used leaves first. A statement is prepared when it
//! comes for the second time, so that those that never come again (or that somebody invents by the thousand) push out nothing.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};

use super::Column;

/// Enough for the shapes of a large application; PostgreSQL keeps a plan in memory for each.
const CAPACITY: usize = 512;
/// Statements that came once are known by eight bytes each.
const SEEN: usize = 4096;

#[derive(Debug, Default)]
pub struct Statements {
    known: HashMap<Arc<str>, Known>,
    /// Hashes of those that came once.
    seen: HashSet<u64>,
    hasher: RandomState,
    clock: u64,
    named: u64,
    /// Makes names unique where several connections share one session (the embedded engine). `None` keeps nothing.
    prefix: Option<String>,
}

#[derive(Debug)]
struct Known {
    name: Arc<str>,
    columns: Columns,
    used: u64,
}

/// The columns of a statement's result, once the database has described them.
pub type Columns = Arc<OnceLock<Arc<[Column]>>>;

/// What must be sent before a statement can be bound.
#[derive(Debug, PartialEq, Eq)]
pub struct Use {
    pub name: Arc<str>,
    pub columns: Columns,
    /// It is new: send Parse, and Describe for its columns.
    pub parse: bool,
    /// It took the place of this one: send Close.
    pub close: Option<Arc<str>>,
}

impl Statements {
    pub fn new(prefix: String) -> Self {
        Self { prefix: Some(prefix), ..Self::default() }
    }

    /// Every statement is parsed anew, without a name.
    pub fn unnamed() -> Self {
        Self::default()
    }

    pub fn need(&mut self, text: &Arc<str>) -> Use {
        self.clock += 1;
        if let Some(known) = self.known.get_mut(text) {
            known.used = self.clock;
            return Use { name: known.name.clone(), columns: known.columns.clone(), parse: false, close: None };
        }
        let prefix = match &self.prefix {
            Some(prefix) if self.seen.remove(&self.hasher.hash_one(text)) => prefix,
            _ => {
                self.see(text);
                return Use { name: Arc::from(""), columns: Columns::default(), parse: true, close: None };
            }
        };
        self.named += 1;
        let name: Arc<str> = format!("{prefix}s{}", self.named).into();
        let close = if self.known.len() >= CAPACITY { self.evict() } else { None };
        let columns = Columns::default();
        self.known.insert(text.clone(), Known { name: name.clone(), columns: columns.clone(), used: self.clock });
        Use { name, columns, parse: true, close }
    }

    fn see(&mut self, text: &str) {
        if self.seen.len() >= SEEN {
            self.seen.clear();
        }
        self.seen.insert(self.hasher.hash_one(text));
    }

    /// The database does not have it (its Parse failed or was skipped, or somebody deallocated it).
    pub fn forget(&mut self, text: &str) {
        self.known.remove(text);
    }

    fn evict(&mut self) -> Option<Arc<str>> {
        let oldest = self.known.iter().min_by_key(|(_, known)| known.used)?.0.clone();
        self.known.remove(&oldest).map(|known| known.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_prepared_when_it_comes_again() {
        let mut statements = Statements::new("n1_".into());
        let text: Arc<str> = "select 1".into();
        let mut need = |expected: (&str, bool)| {
            let needed = statements.need(&text);
            assert_eq!((&*needed.name, needed.parse), expected);
        };
        need(("", true));
        need(("n1_s1", true));
        need(("n1_s1", false));
        statements.forget(&text);
        let later = statements.need(&text);
        assert_eq!((&*later.name, later.parse), ("", true));
    }

    #[test]
    fn without_names_nothing_is_kept() {
        let mut statements = Statements::unnamed();
        let text: Arc<str> = "select 1".into();
        for _ in 0..2 {
            let needed = statements.need(&text);
            assert_eq!((&*needed.name, needed.parse), ("", true));
        }
    }

    #[test]
    fn the_least_recently_used_leaves_first() {
        let mut statements = Statements::new(String::new());
        let texts: Vec<Arc<str>> = (0..=CAPACITY).map(|n| format!("select {n}").into()).collect();
        for text in &texts[..CAPACITY] {
            statements.need(text);
            assert_eq!(statements.need(text).close, None);
        }
        statements.need(&texts[0]);
        assert_eq!(statements.need(&texts[CAPACITY]).close, None);
        assert_eq!(statements.need(&texts[CAPACITY]).close.as_deref(), Some("s2"));
    }
}
