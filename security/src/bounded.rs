//! A table that takes the same room whatever strangers do: a key has one of a few places, and where all are taken the entry that is worth
//! least gives way. Where a key lies depends on a secret of the process, so nobody can choose whom to push out; and as what is worth most
//! is what has done most, whoever has done much cannot have it forgotten by filling the table with others.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is counted: a kind, and a number within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub kind: u8,
    pub id: u128,
}

/// See the module.
#[derive(Debug)]
pub struct Bounded<V> {
    random: RandomState,
    parts: Vec<Mutex<Part<V>>>,
    /// Of a part.
    sets: usize,
}

/// Sets of places, one behind the other.
type Part<V> = Vec<Option<(Key, V)>>;

/// Places that a key may have.
const WAYS: usize = 8;
/// Parts that are locked each by itself.
const PARTS: usize = 64;

impl<V> Bounded<V> {
    /// Has room for about so many.
    pub fn new(entries: usize) -> Self {
        let sets = entries.div_ceil(WAYS * PARTS).max(1);
        let part = || Mutex::new(std::iter::repeat_with(|| None).take(sets * WAYS).collect());
        Self { random: RandomState::new(), parts: std::iter::repeat_with(part).take(PARTS).collect(), sets }
    }

    /// Changes what is known of the key; `new` where nothing is. `worth` says which of those in its places gives way.
    pub fn change<R>(
        &self,
        key: Key,
        new: impl FnOnce() -> V,
        worth: impl Fn(&V) -> f64,
        change: impl FnOnce(&mut V) -> R,
    ) -> R {
        let (mut part, at) = self.lock(key);
        let set = &mut part[at..at + WAYS];
        if let Some((_, value)) = set.iter_mut().flatten().find(|(other, _)| *other == key) {
            return change(value);
        }
        let worth = |place: &Option<(Key, V)>| place.as_ref().map_or(f64::NEG_INFINITY, |(_, value)| worth(value));
        let least = (0..WAYS).min_by(|one, other| worth(&set[*one]).total_cmp(&worth(&set[*other]))).unwrap_or(0);
        change(&mut set[least].insert((key, new())).1)
    }

    /// What is known of the key, if anything.
    pub fn look<R>(&self, key: Key, look: impl FnOnce(&mut V) -> R) -> Option<R> {
        let (mut part, at) = self.lock(key);
        let found = part[at..at + WAYS].iter_mut().flatten().find(|(other, _)| *other == key);
        found.map(|(_, value)| look(value))
    }

    /// Forgets it.
    pub fn forget(&self, key: Key) {
        let (mut part, at) = self.lock(key);
        for place in &mut part[at..at + WAYS] {
            place.take_if(|(other, _)| *other == key);
        }
    }

    fn lock(&self, key: Key) -> (MutexGuard<'_, Part<V>>, usize) {
        let hash = self.random.hash_one(key);
        let part = usize::try_from(hash >> 58).unwrap_or(0) % PARTS;
        let set = usize::try_from(hash & 0xffff_ffff).unwrap_or(0) % self.sets;
        // What a panic left behind is whole: values are replaced, not taken apart.
        (self.parts[part].lock().unwrap_or_else(PoisonError::into_inner), set * WAYS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_done_most_is_not_forgotten() {
        let table = Bounded::<f64>::new(1000);
        let add =
            |id: u128, much: f64| table.change(Key { kind: 0, id }, || 0.0, |worth| *worth, |value| *value += much);
        add(7, 50.0);
        for id in 1000..200_000 {
            add(id, 1.0);
        }
        assert_eq!(table.look(Key { kind: 0, id: 7 }, |value| *value), Some(50.0));
        assert_eq!(table.look(Key { kind: 1, id: 7 }, |value| *value), None);
        table.forget(Key { kind: 0, id: 7 });
        assert_eq!(table.look(Key { kind: 0, id: 7 }, |value| *value), None);
    }

    #[test]
    fn it_has_room_for_as_many_as_it_says() {
        let table = Bounded::<u32>::new(4096);
        let places: usize = table.parts.iter().map(|part| part.lock().unwrap().len()).sum();
        assert_eq!(places, 4096);
    }
}
