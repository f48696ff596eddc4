//! What workers go by: the settings in force and the backends that there are. A plan is never changed; another one takes its place.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use http::HeaderValue;
use rustls::ServerConfig;

use crate::backend::Backend;
use crate::choose::{self, Seen};
use crate::clock::Clock;
use crate::settings::{Choice, HashBy, Settings};

/// A backend that is there, wherever that is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    pub address: SocketAddr,
    /// From 1 to [`crate::settings::MOST_WEIGHT`].
    pub weight: u32,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub settings: Arc<Settings>,
    pub seats: Vec<Seat>,
    /// What clients are spoken to with; `None` is plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
    /// What browsers are told of it.
    pub hsts: Option<HeaderValue>,
    /// Turns of [`Choice::RoundRobin`].
    schedule: Vec<u16>,
}

/// A backend and its share.
#[derive(Debug, Clone)]
pub struct Seat {
    pub backend: Arc<Backend>,
    pub weight: u32,
}

/// What a choice needs to know of a request.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub key: Option<u64>,
    /// Backends that were asked already.
    pub tried: &'a Tried,
    pub turn: usize,
    pub now: Instant,
    pub is_websocket: bool,
}

/// Which backends were asked for one request. There are few attempts.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tried {
    seats: [u16; 8],
    count: usize,
}

impl Tried {
    pub fn add(&mut self, seat: usize) {
        if let (Some(place), Ok(seat)) = (self.seats.get_mut(self.count), u16::try_from(seat)) {
            *place = seat;
            self.count += 1;
        }
    }

    pub fn has(&self, seat: usize) -> bool {
        self.seats[..self.count].iter().any(|tried| usize::from(*tried) == seat)
    }
}

impl Plan {
    /// Backends that were there before keep what is known of them.
    pub fn new(
        settings: Arc<Settings>,
        members: &[Member],
        before: Option<&Self>,
        workers: usize,
        clock: Clock,
    ) -> Self {
        let mut members = members.to_vec();
        members.sort_unstable();
        members.dedup_by_key(|member| member.address);
        let known = |address: SocketAddr| {
            before.and_then(|plan| plan.seats.iter().find(|seat| seat.backend.address == address))
        };
        let seats: Vec<Seat> = members
            .iter()
            .map(|member| Seat {
                backend: known(member.address).map_or_else(
                    || {
                        let backend = Backend::new(member.address, workers, clock);
                        // Those that are there from the start begin warm.
                        if before.is_some() {
                            backend.up_since.store(clock.millis(Instant::now()), Relaxed);
                        }
                        Arc::new(backend)
                    },
                    |seat| seat.backend.clone(),
                ),
                weight: member.weight,
            })
            .collect();
        let weights: Vec<u32> = seats.iter().map(|seat| seat.weight).collect();
        let tls = before.and_then(|plan| plan.tls.clone());
        let hsts = settings.hsts.and_then(|time| HeaderValue::try_from(format!("max-age={}", time.as_secs())).ok());
        Self { settings, seats, tls, hsts, schedule: choose::schedule(&weights) }
    }

    /// Which backend is asked; `None` where none can be. A websocket stays for long: unless it has a turn or a key, it goes to whoever
    /// has the fewest, however quickly others answer just now.
    pub fn choose(&self, ask: &Ask<'_>) -> Option<usize> {
        let count = self.seats.len();
        let clock = self.seats.first()?.backend.clock;
        let now_ms = clock.millis(ask.now);
        let slow_start = self.settings.slow_start;
        let seen = |at: usize| {
            let seat = &self.seats[at];
            let seen = seat.backend.seen(seat.weight, now_ms, slow_start);
            let has_room = seen.pending < self.settings.limits.pending;
            Seen { usable: seen.usable && has_room && !ask.tried.has(at), ..seen }
        };
        let websockets = |at: usize| {
            let (seen, open) = (seen(at), self.seats[at].backend.tunnels.load(Relaxed));
            Seen { pending: seen.pending.saturating_add(open), ..seen }
        };
        match (self.settings.choice, ask.key) {
            (Choice::RoundRobin, _) => choose::in_turn(&self.schedule, ask.turn, fastrand::f32(), seen),
            (Choice::Hash, Some(key)) => choose::by_key(count, key, |at| self.seats[at].backend.name_hash, seen),
            _ if ask.is_websocket => choose::least_pending(count, fastrand::usize(..count), websockets),
            (Choice::LeastPending, _) => choose::least_pending(count, fastrand::usize(..count), seen),
            (Choice::PeakEwma, _) | (Choice::Hash, None) => {
                choose::of_two(count, clock.wrapped_millis(ask.now), |below| fastrand::usize(..below), seen)
            }
        }
    }

    /// What requests have in common that go to the same backend.
    pub fn key(&self, parts: &http::request::Parts, client: IpAddr) -> Option<u64> {
        if self.settings.choice != Choice::Hash {
            return None;
        }
        match &self.settings.hash_by {
            HashBy::Address => Some(choose::hash(client.to_string().as_bytes())),
            HashBy::Path => Some(choose::hash(parts.uri.path().as_bytes())),
            HashBy::Header(name) => parts.headers.get(name).map(|value| choose::hash(value.as_bytes())),
        }
    }

    /// How many may be asked.
    pub fn usable(&self, now: Instant) -> usize {
        let now_ms = |backend: &Backend| backend.clock.millis(now);
        let seats = self.seats.iter();
        seats.filter(|seat| seat.backend.seen(1, now_ms(&seat.backend), self.settings.slow_start).usable).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Health;

    fn members(ports: &[u16]) -> Vec<Member> {
        ports.iter().map(|port| Member { address: SocketAddr::from(([127, 0, 0, 1], *port)), weight: 1 }).collect()
    }

    #[test]
    fn a_backend_that_stays_keeps_what_is_known_of_it() {
        let clock = Clock::start(Instant::now());
        let settings = Arc::new(Settings::default());
        let first = Plan::new(settings.clone(), &members(&[1, 2, 2]), None, 1, clock);
        assert_eq!(first.seats.len(), 2, "an address is one backend");
        first.seats[1].backend.set_health(Health::Down);
        let second = Plan::new(settings, &members(&[3, 2]), Some(&first), 1, clock);
        let said: Vec<_> =
            second.seats.iter().map(|seat| (seat.backend.address.port(), seat.backend.health())).collect();
        assert_eq!(said, [(2, Health::Down), (3, Health::Unknown)]);
        assert!(second.seats[1].backend.up_since.load(Relaxed) > 0, "one that has come warms up");
    }

    #[test]
    fn those_that_are_down_or_were_asked_are_not_chosen() {
        let clock = Clock::start(Instant::now());
        for choice in Choice::ALL.map(|(_, choice)| choice) {
            let settings = Arc::new(Settings { choice, ..Settings::default() });
            let plan = Plan::new(settings, &members(&[1, 2, 3]), None, 1, clock);
            plan.seats[0].backend.set_health(Health::Down);
            let mut tried = Tried::default();
            tried.add(2);
            for turn in 0..20 {
                let ask = Ask {
                    key: Some(turn as u64),
                    tried: &tried,
                    turn,
                    now: Instant::now(),
                    is_websocket: turn % 2 == 0,
                };
                assert_eq!(plan.choose(&ask), Some(1), "{choice:?}");
            }
            tried.add(1);
            let ask = Ask { key: None, tried: &tried, turn: 0, now: Instant::now(), is_websocket: false };
            assert_eq!(plan.choose(&ask), None);
        }
    }

    #[test]
    fn websockets_go_to_whoever_has_the_fewest() {
        let clock = Clock::start(Instant::now());
        let plan = Plan::new(Arc::default(), &members(&[1, 2, 3]), None, 1, clock);
        plan.seats[0].backend.tunnels.store(9, Relaxed);
        plan.seats[1].backend.tunnels.store(3, Relaxed);
        for _ in 0..18 {
            let ask = Ask { key: None, tried: &Tried::default(), turn: 0, now: Instant::now(), is_websocket: true };
            plan.seats[plan.choose(&ask).unwrap()].backend.tunnels.fetch_add(1, Relaxed);
        }
        let open: Vec<_> = plan.seats.iter().map(|seat| seat.backend.tunnels.load(Relaxed)).collect();
        assert_eq!(open, [10, 10, 10]);
    }
}
