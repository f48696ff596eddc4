//! Who is present in a room, as all nodes together know it: a pure state that is told what happened and says what has changed by it.
//!
//! Each member belongs to one node, and only that node says what its members do; so nothing can be in conflict.

use std::collections::{BTreeMap, HashMap};

use ntier_protocol::realtime::message::Json;
use ntier_protocol::realtime::presence::{self, Meta};

/// A node, as long as it runs.
pub type NodeId = u64;
/// A channel of a client, on its node.
pub type MemberId = u64;

/// What has changed: metas by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    pub joins: BTreeMap<String, Vec<Meta>>,
    pub leaves: BTreeMap<String, Vec<Meta>>,
}

impl Diff {
    pub fn is_empty(&self) -> bool {
        self.joins.is_empty() && self.leaves.is_empty()
    }

    /// The payload of `presence_diff`.
    pub fn json(&self) -> Json {
        fn all(metas: &BTreeMap<String, Vec<Meta>>) -> impl Iterator<Item = (&str, &Vec<Meta>)> {
            metas.iter().map(|(key, metas)| (key.as_str(), metas))
        }
        presence::diff(all(&self.joins), all(&self.leaves))
    }

    fn join(&mut self, key: &str, meta: Meta) {
        self.joins.entry(key.to_owned()).or_default().push(meta);
    }

    fn leave(&mut self, key: &str, meta: Meta) {
        self.leaves.entry(key.to_owned()).or_default().push(meta);
    }
}

#[derive(Debug)]
struct Present {
    key: String,
    meta: Meta,
}

/// One room.
#[derive(Debug, Default)]
pub struct Presences {
    members: HashMap<(NodeId, MemberId), Present>,
}

impl Presences {
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A member says something of itself, for the first time or anew. `None` where it says what it has said before.
    pub fn track(&mut self, member: (NodeId, MemberId), key: &str, payload: Json, reference: String) -> Option<Diff> {
        let before = self.members.get(&member);
        if before.is_some_and(|before| before.meta.payload == payload) {
            return None;
        }
        let mut diff = Diff::default();
        let meta = Meta { payload, reference, before: before.map(|before| before.meta.reference.clone()) };
        diff.join(key, meta.clone());
        if let Some(before) = self.members.insert(member, Present { key: key.to_owned(), meta }) {
            diff.leave(&before.key, before.meta);
        }
        Some(diff)
    }

    /// A member is present no longer.
    pub fn untrack(&mut self, member: (NodeId, MemberId)) -> Diff {
        let mut diff = Diff::default();
        if let Some(Present { key, meta }) = self.members.remove(&member) {
            diff.leave(&key, meta);
        }
        diff
    }

    /// The payload of `presence_state`: metas by key, in the order of their references.
    pub fn json(&self) -> Json {
        let mut state: BTreeMap<&str, Vec<&Meta>> = BTreeMap::new();
        for present in self.members.values() {
            state.entry(&present.key).or_default().push(&present.meta);
        }
        for metas in state.values_mut() {
            metas.sort_by(|one, other| one.reference.cmp(&other.reference));
        }
        presence::state(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &'static str) -> Json {
        Json::read(&bytes::Bytes::from_static(text.as_bytes())).unwrap()
    }

    fn said(diff: &BTreeMap<String, Vec<Meta>>) -> Vec<(&str, &str)> {
        let metas = diff.iter().flat_map(|(key, metas)| metas.iter().map(move |meta| (key.as_str(), meta)));
        metas.map(|(key, meta)| (key, meta.reference.as_str())).collect()
    }

    #[test]
    fn whoever_says_something_new_joins_and_leaves_as_what_it_was() {
        let mut room = Presences::default();
        let first = room.track((1, 1), "ada", json(r#"{"a":1}"#), "r1".into()).unwrap();
        assert_eq!((said(&first.joins), said(&first.leaves)), (vec![("ada", "r1")], vec![]));
        assert!(room.track((1, 1), "ada", json(r#"{"a":1}"#), "r2".into()).is_none());
        let second = room.track((1, 1), "ada", json(r#"{"a":2}"#), "r3".into()).unwrap();
        assert_eq!((said(&second.joins), said(&second.leaves)), (vec![("ada", "r3")], vec![("ada", "r1")]));
        assert_eq!(second.joins["ada"][0].before.as_deref(), Some("r1"));
        room.track((2, 1), "ada", json("{}"), "r4".into());
        let text = String::from_utf8(room.json().bytes().to_vec()).unwrap();
        assert_eq!(text, r#"{"ada":{"metas":[{"a":2,"phx_ref":"r3","phx_ref_prev":"r1"},{"phx_ref":"r4"}]}}"#);
        assert_eq!(said(&room.untrack((1, 1)).leaves), [("ada", "r3")]);
        assert!(room.untrack((1, 1)).is_empty());
        assert!(!room.is_empty());
    }
}
