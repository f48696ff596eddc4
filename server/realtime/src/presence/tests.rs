//! A room is known by several nodes; what they tell each other is late, or lost.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn json(text: &str) -> Json {
    Json::read(&bytes::Bytes::copy_from_slice(text.as_bytes())).unwrap()
}

fn room(name: &str) -> Room {
    Room { name: name.into(), is_private: false }
}

fn said(diff: &BTreeMap<String, Vec<Meta>>) -> Vec<(&str, &str)> {
    let metas = diff.iter().flat_map(|(key, metas)| metas.iter().map(move |meta| (key.as_str(), meta)));
    metas.map(|(key, meta)| (key, meta.reference.as_str())).collect()
}

#[test]
fn whoever_says_something_new_joins_and_leaves_as_what_it_was() {
    let (mut node, now) = (Presences::new(1, Instant::now()), Instant::now());
    let films = room("films");
    let first = node.track(1, &films, "ada", json(r#"{"a":1}"#), "r1".into());
    let diff = &first.diffs[&films];
    assert_eq!((said(&diff.joins), said(&diff.leaves)), (vec![("ada", "r1")], vec![]));
    assert_eq!(node.track(1, &films, "ada", json(r#"{"a":1}"#), "r2".into()), Outcome::default());
    let second = node.track(1, &films, "ada", json(r#"{"a":2}"#), "r3".into());
    let diff = &second.diffs[&films];
    assert_eq!((said(&diff.joins), said(&diff.leaves)), (vec![("ada", "r3")], vec![("ada", "r1")]));
    assert_eq!(diff.joins["ada"][0].before.as_deref(), Some("r1"));
    let meta = Meta { payload: json("{}"), reference: "r4".into(), before: None };
    let present = Arc::new(Present { room: films.clone(), key: "ada".into(), meta });
    node.hear(2, News::Tracked { count: 1, member: 1, present }, now);
    let text = String::from_utf8(node.json(&films).bytes().to_vec()).unwrap();
    assert_eq!(text, r#"{"ada":{"metas":[{"a":2,"phx_ref":"r3","phx_ref_prev":"r1"},{"phx_ref":"r4"}]}}"#);
    assert_eq!(node.json(&Room { is_private: true, ..films.clone() }), Json::empty());
    assert_eq!(said(&node.untrack(1).diffs[&films].leaves), [("ada", "r3")]);
    assert_eq!(node.untrack(1), Outcome::default());
    assert_eq!(said(&node.hear(2, News::Goodbye, now).diffs[&films].leaves), [("ada", "r4")]);
    assert!(node.rooms.is_empty() && node.members.is_empty() && node.peers.is_empty());
}

#[test]
fn all_members_come_in_parts() {
    let now = Instant::now();
    let (mut one, mut two) = (Presences::new(1, now), Presences::new(2, now));
    let payload = json(&format!(r#"{{"long":"{}"}}"#, "x".repeat(PART / 3)));
    for member in 0..7 {
        one.track(member, &room("films"), &member.to_string(), payload.clone(), format!("r{member}"));
    }
    let hello = one.missed(now).news.remove(0);
    assert_eq!(one.missed(now), Outcome::default());
    let asked = two.hear(1, hello, now).news;
    assert_eq!(asked, [News::Ask { of: 1 }, News::Alive { count: 0, wants_answer: false }]);
    let parts = one.hear(2, News::Ask { of: 1 }, now).news;
    assert_eq!(parts.len(), 4);
    // A node that asks now is answered later, once for all who ask.
    assert_eq!(one.hear(3, News::Ask { of: 1 }, now).news, []);
    assert_eq!(one.hear(4, News::Ask { of: 1 }, now).news, []);
    assert_eq!(one.look(now + QUESTION).news.iter().filter(|news| matches!(news, News::All { .. })).count(), 4);
    // One part is missing: none of the others counts.
    for part in [0, 1, 3] {
        assert_eq!(two.hear(1, parts[part].clone(), now), Outcome::default());
    }
    for part in &parts[..3] {
        assert_eq!(two.hear(1, part.clone(), now), Outcome::default());
    }
    let diff = &two.hear(1, parts[3].clone(), now).diffs[&room("films")];
    assert_eq!((diff.joins.len(), diff.leaves.len()), (7, 0));
    assert_eq!(two.json(&room("films")), one.json(&room("films")));
    // What is older than what is known changes nothing.
    let gone = one.untrack(3).news.remove(0);
    two.hear(1, gone, now);
    for part in parts {
        assert_eq!(two.hear(1, part, now), Outcome::default());
    }
    assert_eq!(two.json(&room("films")), one.json(&room("films")));
}

#[test]
fn whoever_is_alone_knows_it_after_a_while() {
    let begin = Instant::now();
    let at = |seconds: u64| begin + Duration::from_secs(seconds);
    let mut one = Presences::new(1, begin);
    let mut is_alone = |second: u64, act: fn(&mut Presences, Instant) -> Outcome| {
        act(&mut one, at(second));
        !one.may_have_others()
    };
    // The bus is not there yet.
    assert!(!is_alone(5, Presences::look));
    assert!(!is_alone(5, Presences::missed));
    assert!(!is_alone(7, Presences::look));
    assert!(is_alone(8, Presences::look));
    assert!(!is_alone(9, |one, now| one.hear(2, News::Ask { of: 3 }, now)));
    assert!(is_alone(10, |one, now| one.hear(2, News::Goodbye, now)));
    assert!(!is_alone(10, Presences::missed));
}

#[test]
fn a_silent_node_is_gone_unless_this_one_was_away() {
    let begin = Instant::now();
    let at = |seconds: u64| begin + Duration::from_secs(seconds);
    let (mut one, mut two) = (Presences::new(1, begin), Presences::new(2, begin));
    let told = two.track(1, &room("films"), "ada", json("{}"), "r1".into()).news.remove(0);
    one.hear(2, told, at(0));
    for second in 1..=5 {
        assert_eq!(one.look(at(second)).diffs, HashMap::new(), "after {second} s");
    }
    assert_eq!(said(&one.look(at(6)).diffs[&room("films")].leaves), [("ada", "r1")]);
    // It was only slow.
    one.look(at(7));
    assert_eq!(one.hear(2, two.look(at(8)).news.remove(0), at(8)).news, [News::Ask { of: 2 }]);
    let all = two.hear(1, News::Ask { of: 2 }, at(8)).news.remove(0);
    assert_eq!(said(&one.hear(2, all, at(8)).diffs[&room("films")].joins), [("ada", "r1")]);
    // A node that stood still has heard nothing, and says nothing of the others.
    assert_eq!(one.look(at(100)).diffs, HashMap::new());
}

/// What may happen. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    Track(Index, u64, u8, u8),
    Untrack(Index, u64),
    Deliver(Index, usize),
    Lose(Index, usize),
    Look(Index),
    Miss(Index),
    Wait(u64),
    Start,
    Stop(Index),
    Kill(Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = any::<Index>;
    let step = prop_oneof![
        6 => (which(), 0..6u64, 0..3u8, 0..3u8).prop_map(|(node, member, key, payload)| Step::Track(node, member, key, payload)),
        3 => (which(), 0..6u64).prop_map(|(node, member)| Step::Untrack(node, member)),
        8 => (which(), 1..8usize).prop_map(|(line, count)| Step::Deliver(line, count)),
        2 => (which(), 1..3usize).prop_map(|(line, count)| Step::Lose(line, count)),
        4 => which().prop_map(Step::Look),
        1 => which().prop_map(Step::Miss),
        2 => (1..1500u64).prop_map(Step::Wait),
        1 => Just(Step::Start),
        1 => which().prop_map(Step::Stop),
        1 => which().prop_map(Step::Kill),
    ];
    proptest::collection::vec(step, 0..150)
}

/// Nodes, what is on its way between them, and what a client on each has been told.
struct Cluster {
    now: Instant,
    nodes: Vec<Presences>,
    lines: BTreeMap<(NodeId, NodeId), VecDeque<News>>,
    told: BTreeMap<NodeId, BTreeSet<(String, String, String)>>,
    next: u64,
}

const ROOMS: [&str; 2] = ["a", "b"];

impl Cluster {
    fn new() -> Self {
        let mut cluster =
            Self { now: Instant::now(), nodes: vec![], lines: BTreeMap::new(), told: BTreeMap::new(), next: 1 };
        cluster.start();
        cluster.start();
        cluster
    }

    fn start(&mut self) {
        let id = self.number();
        let mut node = Presences::new(id, self.now);
        let hello = node.missed(self.now);
        self.told.insert(id, BTreeSet::new());
        self.nodes.push(node);
        self.happened(id, hello);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Track(node, member, key, payload) => {
                let reference = format!("r{:08}", self.number());
                // A member is in one room as long as it lives.
                let room = room(ROOMS[usize::try_from(member % 2).unwrap()]);
                let payload = json(&format!(r#"{{"is":{payload}}}"#));
                self.at(node, |node, _| node.track(member, &room, &format!("k{key}"), payload, reference));
            }
            Step::Untrack(node, member) => self.at(node, |node, _| node.untrack(member)),
            Step::Deliver(line, count) => self.carry(line, count, true),
            Step::Lose(line, count) => self.carry(line, count, false),
            Step::Look(node) => self.at(node, Presences::look),
            Step::Miss(node) => self.at(node, Presences::missed),
            Step::Wait(milliseconds) => self.now += Duration::from_millis(milliseconds),
            Step::Start if self.nodes.len() < 5 => self.start(),
            Step::Stop(node) if self.nodes.len() > 1 => {
                let at = node.index(self.nodes.len());
                let (id, goodbye) = (self.nodes[at].own, Presences::leave());
                self.happened(id, goodbye);
                self.end(id);
            }
            // Part of what it has said may still be on its way.
            Step::Kill(node) if self.nodes.len() > 1 => self.end(self.nodes[node.index(self.nodes.len())].own),
            Step::Start | Step::Stop(_) | Step::Kill(_) => {}
        }
    }

    fn end(&mut self, id: NodeId) {
        self.nodes.retain(|node| node.own != id);
        self.told.remove(&id);
        self.lines.retain(|(_, to), _| *to != id);
    }

    fn at(&mut self, node: Index, act: impl FnOnce(&mut Presences, Instant) -> Outcome) {
        let count = self.nodes.len();
        let node = &mut self.nodes[node.index(count)];
        let (id, outcome) = (node.own, act(node, self.now));
        self.happened(id, outcome);
    }

    fn carry(&mut self, line: Index, count: usize, arrives: bool) {
        let busy: Vec<_> = self.lines.iter().filter(|(_, line)| !line.is_empty()).map(|(ends, _)| *ends).collect();
        if busy.is_empty() {
            return;
        }
        let (from, to) = busy[line.index(busy.len())];
        for _ in 0..count {
            let Some(news) = self.lines.get_mut(&(from, to)).and_then(VecDeque::pop_front) else { return };
            if arrives && let Some(node) = self.nodes.iter_mut().find(|node| node.own == to) {
                let outcome = node.hear(from, news, self.now);
                self.happened(to, outcome);
            }
        }
    }

    /// Clients are told exactly what has changed, and the other nodes are told the news.
    fn happened(&mut self, id: NodeId, outcome: Outcome) {
        let told = self.told.get_mut(&id).unwrap();
        for (room, diff) in &outcome.diffs {
            assert!(!diff.joins.is_empty() || !diff.leaves.is_empty());
            let entry = |(key, reference): (&str, &str)| (room.name.to_string(), key.to_owned(), reference.to_owned());
            for entry in said(&diff.joins).into_iter().map(entry) {
                assert!(told.insert(entry.clone()), "{entry:?} was there");
            }
            for entry in said(&diff.leaves).into_iter().map(entry) {
                assert!(told.remove(&entry), "{entry:?} was not there");
            }
        }
        let node = self.nodes.iter().find(|node| node.own == id).unwrap();
        assert_eq!(*told, known(node), "what a client was told is what its node knows");
        for other in self.nodes.iter().map(|node| node.own).filter(|other| *other != id) {
            self.lines.entry((id, other)).or_default().extend(outcome.news.iter().cloned());
        }
    }

    /// Nothing more is lost, and time passes.
    fn settle(&mut self) {
        for _ in 0..40 {
            self.now += Duration::from_millis(250);
            for at in 0..self.nodes.len() {
                let outcome = self.nodes[at].look(self.now);
                self.happened(self.nodes[at].own, outcome);
            }
            while let Some(at) = self.lines.values().position(|line| !line.is_empty()) {
                let (from, to) = *self.lines.keys().nth(at).unwrap();
                let news = self.lines.get_mut(&(from, to)).unwrap().pop_front().unwrap();
                if let Some(node) = self.nodes.iter_mut().find(|node| node.own == to) {
                    let outcome = node.hear(from, news, self.now);
                    self.happened(to, outcome);
                }
            }
        }
    }
}

fn known(node: &Presences) -> BTreeSet<(String, String, String)> {
    let all = node.rooms.iter().flat_map(|(room, members)| members.values().map(move |present| (room, present)));
    all.map(|(room, present)| (room.name.to_string(), present.key.clone(), present.meta.reference.clone())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_nodes_come_to_know_the_same(steps in steps()) {
        let mut cluster = Cluster::new();
        for step in steps {
            cluster.step(step);
        }
        cluster.settle();
        let own = |node: &Presences| {
            let members = node.members.get(&node.own).into_iter().flatten();
            members.map(|(_, it)| (it.room.name.to_string(), it.key.clone(), it.meta.reference.clone())).collect::<Vec<_>>()
        };
        let all: BTreeSet<_> = cluster.nodes.iter().flat_map(own).collect();
        for node in &cluster.nodes {
            prop_assert_eq!(&known(node), &all, "node {}", node.own);
            prop_assert_eq!(node.peers.len(), cluster.nodes.len() - 1);
            // Whoever comes now is told the same.
            let metas = |name: &str| node.json(&room(name)).bytes().windows(9).filter(|it| it == b"\"phx_ref\"").count();
            prop_assert_eq!(ROOMS.map(metas).iter().sum::<usize>(), all.len());
        }
    }
}
