//! Who listens: channels with what they want to hear, and as whom.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ntier_protocol::realtime::binding::Wanted;
use ntier_protocol::realtime::outbound::Address;
use ntier_protocol::realtime::position::Position;

use crate::hub::{Member, Room};

/// Whoever PostgreSQL is asked as. There is one of the same role and claims, however many listen.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Viewer {
    pub role: Arc<str>,
    pub claims: Arc<str>,
}

/// A channel that listens to changes, or is told of earlier ones.
#[derive(Debug)]
pub struct Listener {
    pub member: Arc<Member>,
    pub thread: usize,
    pub room: Room,
    pub address: Address,
    pub topic: Arc<str>,
    /// It joined in the old manner.
    pub is_old: bool,
    pub entries: Vec<Entry>,
    viewer: Mutex<Arc<Viewer>>,
    begun: OnceLock<Position>,
}

/// An entry of `postgres_changes`.
#[derive(Debug, Clone)]
pub struct Entry {
    pub id: u32,
    /// There is one of the same.
    pub wanted: Arc<Wanted>,
    /// What came until then it has heard, or never wanted to.
    pub after: Position,
}

impl Listener {
    pub fn new(
        (member, thread, room): (Arc<Member>, usize, Room),
        address: Address,
        is_old: bool,
        entries: Vec<Entry>,
        viewer: Arc<Viewer>,
    ) -> Self {
        let topic = address.topic.as_str().into();
        Self {
            member,
            thread,
            room,
            address,
            topic,
            is_old,
            entries,
            viewer: Mutex::new(viewer),
            begun: OnceLock::new(),
        }
    }

    pub fn viewer(&self) -> Arc<Viewer> {
        self.viewer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It has been told all until here, and hears what all hear from now on.
    pub fn begin(&self, after: Position) {
        self.begun.get_or_init(|| after);
    }

    pub fn begun_after(&self) -> Position {
        self.begun.get().copied().unwrap_or(Position { batch: 0, id: 0 })
    }

    /// It goes on with another token.
    pub fn change(&self, viewer: Arc<Viewer>) {
        *self.viewer.lock().unwrap_or_else(PoisonError::into_inner) = viewer;
    }
}

/// Of equal values one, as long as somebody has it.
#[derive(Debug)]
pub struct Interned<T>(HashSet<Arc<T>>);

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T: Eq + Hash> Interned<T> {
    pub fn get(&mut self, value: T) -> Arc<T> {
        // Those that only we have are nobody's any more; looking for them each time the table has doubled costs little.
        if self.0.len() == self.0.capacity() {
            self.0.retain(|key| Arc::strong_count(key) > 1);
        }
        if let Some(key) = self.0.get(&value) {
            return key.clone();
        }
        let value = Arc::new(value);
        self.0.insert(value.clone());
        value
    }
}
