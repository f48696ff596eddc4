//! How many connections there may be: in all, and from one address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Shared by all workers. Asked once for a connection, never for a request.
#[derive(Debug, Default)]
pub struct Room(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// What may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub all: usize,
    /// Proxies that are trusted may have as many as there are.
    pub per_address: usize,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    room: Arc<Room>,
    address: IpAddr,
}

impl Room {
    /// A place for this client, if there is one. An IPv6 client is its network: it has as many addresses as it likes.
    pub fn enter(self: &Arc<Self>, address: IpAddr, is_trusted: bool, limits: Limits) -> Option<Place> {
        let address = network(address);
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= limits.all || !taken.add(address, is_trusted, limits) {
            return None;
        }
        taken.all += 1;
        Some(Place { room: self.clone(), address })
    }
}

impl Taken {
    /// One more of this address; false where it has as many as it may.
    fn add(&mut self, address: IpAddr, is_trusted: bool, limits: Limits) -> bool {
        let here = self.by_address.get(&address).copied().unwrap_or_default();
        let has_room = is_trusted || here < limits.per_address;
        if has_room {
            self.by_address.insert(address, here + 1);
        }
        has_room
    }

    fn remove(&mut self, address: IpAddr) {
        if let Entry::Occupied(mut here) = self.by_address.entry(address) {
            *here.get_mut() -= 1;
            if *here.get() == 0 {
                here.remove();
            }
        }
    }
}

impl Place {
    /// It is another client's, as a proxy says; false where that one has as many as it may.
    pub fn give(&mut self, address: IpAddr, is_trusted: bool, limits: Limits) -> bool {
        let address = network(address);
        let mut taken = self.room.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = taken.add(address, is_trusted, limits);
        if has_room {
            taken.remove(self.address);
            self.address = address;
        }
        has_room
    }
}

/// The /64 of an IPv6 address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        taken.remove(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_h1_one_address_has_so_many_connections() {
        let (room, limits) = (Arc::new(Room::default()), Limits { all: 4, per_address: 2 });
        let enter = |address: &str, is_trusted| room.enter(address.parse().unwrap(), is_trusted, limits);
        let one = enter("192.0.2.1", false);
        let _two = enter("::ffff:192.0.2.1", false);
        assert!(enter("192.0.2.1", false).is_none());
        drop(one);
        let one = enter("192.0.2.1", false);
        assert!(one.is_some());
        let _six = (enter("2001:db8::1", false).unwrap(), enter("2001:db8::ffff:2", false).unwrap());
        assert!(enter("2001:db8::3", false).is_none(), "they share a network");
        assert!(enter("198.51.100.1", true).is_none(), "it is full");
        drop(one);
        assert!(enter("192.0.2.1", true).is_some());
    }

    #[test]
    fn security_h1_a_place_counts_for_whom_a_proxy_names() {
        let (room, limits) = (Arc::new(Room::default()), Limits { all: 9, per_address: 1 });
        let (proxy, client) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([192, 0, 2, 1]));
        let mut one = room.enter(proxy, true, limits).unwrap();
        let mut two = room.enter(proxy, true, limits).unwrap();
        assert!(one.give(client, false, limits) && !two.give(client, false, limits));
        drop(one);
        assert!(two.give(client, false, limits));
        drop(two);
        let taken = room.0.lock().unwrap();
        assert!(taken.all == 0 && taken.by_address.is_empty(), "{taken:?}");
    }
}
