//! Who is present, as all nodes together know it: a pure state that is told what happened, and says what has changed by it and what the
//! other nodes have to know.
//!
//! Each member belongs to one node, and only that node says what its members do; so nothing can be in conflict. A node counts what it says
//! of its members: whoever misses a number asks it for all of them, and takes that in the place of what was known. Each node says its count
//! every second, so the last number cannot be missed for long; a node that is not heard is gone, and its members with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use ntier_backing::bus::NodeId;
use ntier_protocol::realtime::message::Json;
use ntier_protocol::realtime::presence::{self, Meta};

use crate::hub::Room;

/// A channel of a client, on its node.
pub type MemberId = u64;

/// Between two signs of life.
const LIFE: Duration = Duration::from_secs(1);
/// A node that is not heard for so long is gone.
const SILENCE: Duration = Duration::from_secs(5);
/// A node that looks less often than this was itself away, and knows nothing of the silence of others.
const ABSENCE: Duration = Duration::from_secs(2);
/// Who was asked for everything is asked again after so long; who has said everything says it again after half of it.
const QUESTION: Duration = Duration::from_millis(500);
/// Bytes of members in one message, unless one member has more.
const PART: usize = 64 << 10;

/// What has changed in a room: metas by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    pub joins: BTreeMap<String, Vec<Meta>>,
    pub leaves: BTreeMap<String, Vec<Meta>>,
}

impl Diff {
    /// The payload of `presence_diff`.
    pub fn json(&self) -> Json {
        fn all(metas: &BTreeMap<String, Vec<Meta>>) -> impl Iterator<Item = (&str, &Vec<Meta>)> {
            metas.iter().map(|(key, metas)| (key.as_str(), metas))
        }
        presence::diff(all(&self.joins), all(&self.leaves))
    }
}

/// A member that is present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    pub room: Room,
    pub key: String,
    pub meta: Meta,
}

impl Present {
    fn len(&self) -> usize {
        self.room.name.len() + self.key.len() + self.meta.payload.len() + 100
    }
}

/// What nodes tell each other of their members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A sign of life, with the count of what was said.
    Alive {
        count: u64,
        wants_answer: bool,
    },
    /// A member came, or says something new of itself.
    Tracked {
        count: u64,
        member: MemberId,
        present: Arc<Present>,
    },
    Untracked {
        count: u64,
        member: MemberId,
    },
    /// Somebody wants to know all of a node's members.
    Ask {
        of: NodeId,
    },
    /// All members, as of the count: in parts, one after the other.
    All {
        count: u64,
        part: u32,
        is_last: bool,
        members: Vec<(MemberId, Arc<Present>)>,
    },
    /// The node stops.
    Goodbye,
}

/// What is to be told to clients, and to the other nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub diffs: HashMap<Room, Diff>,
    pub news: Vec<News>,
}

/// Everybody.
#[derive(Debug)]
pub struct Presences {
    own: NodeId,
    /// Of what this node has said of its members.
    count: u64,
    peers: HashMap<NodeId, Peer>,
    /// Of all nodes, this one too.
    members: HashMap<NodeId, Members>,
    /// The same, room by room.
    rooms: HashMap<Room, HashMap<(NodeId, MemberId), Arc<Present>>>,
    looked: Instant,
    /// When this node has asked for signs of life, has given one, and has said all of its members, the last time.
    greeted: Option<Instant>,
    alive: Option<Instant>,
    said_all: Option<Instant>,
    /// Somebody has asked since.
    is_asked: bool,
}

type Members = HashMap<MemberId, Arc<Present>>;

/// Another node.
#[derive(Debug)]
struct Peer {
    heard: Instant,
    /// Up to where its members are known. At 0 it has none.
    count: u64,
    asked: Option<Instant>,
    /// Parts of all its members, the last of which is to come.
    coming: Option<Coming>,
}

#[derive(Debug)]
struct Coming {
    count: u64,
    next: u32,
    members: Members,
}

impl Presences {
    pub fn new(own: NodeId, now: Instant) -> Self {
        Self {
            own,
            count: 0,
            peers: HashMap::new(),
            members: HashMap::new(),
            rooms: HashMap::new(),
            looked: now,
            greeted: None,
            alive: None,
            said_all: None,
            is_asked: false,
        }
    }

    /// The payload of `presence_state`: metas by key, in the order of their references.
    pub fn json(&self, room: &Room) -> Json {
        let mut state: BTreeMap<&str, Vec<&Meta>> = BTreeMap::new();
        for present in self.rooms.get(room).into_iter().flat_map(HashMap::values) {
            state.entry(&present.key).or_default().push(&present.meta);
        }
        for metas in state.values_mut() {
            metas.sort_by(|one, other| one.reference.cmp(&other.reference));
        }
        presence::state(state)
    }

    /// A member of this node says something of itself, for the first time or anew. Where it says what it has said before, nothing happens.
    pub fn track(&mut self, member: MemberId, room: &Room, key: &str, payload: Json, reference: String) -> Outcome {
        let before = self.members.get(&self.own).and_then(|members| members.get(&member));
        if before.is_some_and(|before| before.meta.payload == payload) {
            return Outcome::default();
        }
        let meta = Meta { payload, reference, before: before.map(|before| before.meta.reference.clone()) };
        let present = Arc::new(Present { room: room.clone(), key: key.to_owned(), meta });
        let mut outcome = Outcome::default();
        self.put(self.own, member, Some(present.clone()), &mut outcome);
        self.count += 1;
        outcome.news.push(News::Tracked { count: self.count, member, present });
        outcome
    }

    /// A member of this node is present no longer, if it was.
    pub fn untrack(&mut self, member: MemberId) -> Outcome {
        let mut outcome = Outcome::default();
        if self.put(self.own, member, None, &mut outcome) {
            self.count += 1;
            outcome.news.push(News::Untracked { count: self.count, member });
        }
        outcome
    }

    /// What others said may have been missed: they are to give a sign of life, from which one sees.
    pub fn missed(&mut self, now: Instant) -> Outcome {
        if !is_over(self.greeted, QUESTION, now) {
            return Outcome::default();
        }
        self.greeted = Some(now);
        Outcome { news: vec![News::Alive { count: self.count, wants_answer: true }], ..Outcome::default() }
    }

    /// This node stops.
    pub fn leave() -> Outcome {
        Outcome { news: vec![News::Goodbye], ..Outcome::default() }
    }

    /// Whether there may be other nodes: one is alive, or those that are could not say so yet.
    pub fn may_have_others(&self) -> bool {
        let was_here = |greeted| self.looked.saturating_duration_since(greeted) > 2 * LIFE;
        !self.peers.is_empty() || !self.greeted.is_some_and(was_here)
    }

    /// How many other nodes are alive.
    pub fn others(&self) -> usize {
        self.peers.len()
    }

    /// Another node has said something.
    pub fn hear(&mut self, from: NodeId, news: News, now: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        if from == self.own {
            return outcome;
        }
        let new = || Peer { heard: now, count: 0, asked: None, coming: None };
        let peer = self.peers.entry(from).or_insert_with(new);
        peer.heard = now;
        match news {
            News::Alive { count, wants_answer } => {
                peer.ask_if(count > peer.count, from, now, &mut outcome);
                if wants_answer {
                    outcome.news.push(News::Alive { count: self.count, wants_answer: false });
                }
            }
            News::Tracked { count, member, present } => {
                if peer.is_next(count, from, now, &mut outcome) {
                    self.put(from, member, Some(present), &mut outcome);
                }
            }
            News::Untracked { count, member } => {
                if peer.is_next(count, from, now, &mut outcome) {
                    self.put(from, member, None, &mut outcome);
                }
            }
            News::Ask { of } => {
                self.is_asked |= of == self.own;
                self.answer(now, &mut outcome);
            }
            News::All { count, part, is_last, members } => {
                if let Some(members) = peer.all(count, part, is_last, members, now) {
                    self.replace(from, members, &mut outcome);
                }
            }
            News::Goodbye => self.gone(from, &mut outcome),
        }
        outcome
    }

    /// To be called several times a second.
    pub fn look(&mut self, now: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        if now.saturating_duration_since(self.looked) > ABSENCE {
            self.peers.values_mut().for_each(|peer| peer.heard = now);
        }
        self.looked = now;
        let is_silent = |peer: &Peer| now.saturating_duration_since(peer.heard) > SILENCE;
        let silent = self.peers.iter().filter(|(_, peer)| is_silent(peer));
        for node in silent.map(|(node, _)| *node).collect::<Vec<_>>() {
            self.gone(node, &mut outcome);
        }
        self.answer(now, &mut outcome);
        if is_over(self.alive, LIFE, now) {
            self.alive = Some(now);
            outcome.news.push(News::Alive { count: self.count, wants_answer: false });
        }
        outcome
    }

    /// Says all members, if somebody has asked and it was not just done.
    fn answer(&mut self, now: Instant, outcome: &mut Outcome) {
        if !self.is_asked || !is_over(self.said_all, QUESTION / 2, now) {
            return;
        }
        (self.is_asked, self.said_all) = (false, Some(now));
        let mut parts = vec![Vec::new()];
        let mut bytes = 0;
        for (member, present) in self.members.get(&self.own).into_iter().flatten() {
            if bytes > 0 && bytes + present.len() > PART {
                parts.push(Vec::new());
                bytes = 0;
            }
            bytes += present.len();
            parts.last_mut().expect("there is one").push((*member, present.clone()));
        }
        let (count, last) = (self.count, parts.len() - 1);
        outcome.news.extend(parts.into_iter().enumerate().map(|(at, members)| {
            let part = u32::try_from(at).unwrap_or(u32::MAX);
            News::All { count, part, is_last: at == last, members }
        }));
    }

    fn replace(&mut self, node: NodeId, members: Members, outcome: &mut Outcome) {
        let known = self.members.get(&node);
        let gone = known.into_iter().flat_map(HashMap::keys).filter(|member| !members.contains_key(member));
        for member in gone.copied().collect::<Vec<_>>() {
            self.put(node, member, None, outcome);
        }
        for (member, present) in members {
            self.put(node, member, Some(present), outcome);
        }
    }

    fn gone(&mut self, node: NodeId, outcome: &mut Outcome) {
        self.peers.remove(&node);
        self.replace(node, Members::new(), outcome);
    }

    /// Knows this of a member from now on; says whether that is something else than before.
    fn put(&mut self, node: NodeId, member: MemberId, present: Option<Arc<Present>>, outcome: &mut Outcome) -> bool {
        let members = self.members.entry(node).or_default();
        let before = match &present {
            Some(present) => members.insert(member, present.clone()),
            None => members.remove(&member),
        };
        if members.is_empty() {
            self.members.remove(&node);
        }
        if before == present {
            return false;
        }
        if let Some(before) = before {
            let room = self.rooms.get_mut(&before.room);
            if room.is_some_and(|room| room.remove(&(node, member)).is_some() && room.is_empty()) {
                self.rooms.remove(&before.room);
            }
            let diff = outcome.diffs.entry(before.room.clone()).or_default();
            diff.leaves.entry(before.key.clone()).or_default().push(before.meta.clone());
        }
        if let Some(present) = present {
            let diff = outcome.diffs.entry(present.room.clone()).or_default();
            diff.joins.entry(present.key.clone()).or_default().push(present.meta.clone());
            self.rooms.entry(present.room.clone()).or_default().insert((node, member), present);
        }
        true
    }
}

impl Peer {
    /// Whether this is what comes next of it. It is asked for everything if something was missed.
    fn is_next(&mut self, count: u64, node: NodeId, now: Instant, outcome: &mut Outcome) -> bool {
        let is_next = Some(count) == self.count.checked_add(1);
        if is_next {
            self.count = count;
        }
        self.ask_if(count > self.count, node, now, outcome);
        is_next
    }

    fn ask_if(&mut self, is_missing: bool, node: NodeId, now: Instant, outcome: &mut Outcome) {
        if is_missing && is_over(self.asked, QUESTION, now) {
            self.asked = Some(now);
            outcome.news.push(News::Ask { of: node });
        }
    }

    /// All its members, once they are whole and newer than what is known.
    fn all(
        &mut self,
        count: u64,
        part: u32,
        is_last: bool,
        members: Vec<(MemberId, Arc<Present>)>,
        now: Instant,
    ) -> Option<Members> {
        let before = self.coming.take().filter(|coming| part > 0 && coming.count == count && coming.next == part);
        if before.is_none() && part > 0 || count <= self.count {
            return None;
        }
        let mut coming = before.unwrap_or(Coming { count, next: 0, members: Members::new() });
        coming.members.extend(members);
        coming.next += 1;
        if is_last {
            (self.count, self.asked) = (count, None);
            return Some(coming.members);
        }
        self.asked = Some(now);
        self.coming = Some(coming);
        None
    }
}

/// Whether it was so long ago, or never.
fn is_over(since: Option<Instant>, pause: Duration, now: Instant) -> bool {
    since.is_none_or(|since| now.saturating_duration_since(since) >= pause)
}

#[cfg(test)]
mod tests;
