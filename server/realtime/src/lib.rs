//! Clients meet here: channels on which they hear each other, and see who else is there.
//!
//! A client says something to its node; the node says it to all who are in the room. What is said on the wire is
//! `ntier_protocol::realtime`; sockets are accepted by the node. Not here: anything that outlives a connection.

mod admit;
mod client;
mod hub;
mod outbox;
mod post;
mod presence;
mod socket;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ntier_backing::database::Database;
use ntier_protocol::realtime::error::Handshake;
use ntier_protocol::realtime::limits::Limits;
use ntier_protocol::realtime::message::Json;
use ntier_protocol::realtime::write::Fanout;
use ntier_protocol::realtime::{outbound, topic};
use ntier_security::caller::Doorkeeper;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

pub use admit::{Admitted, Refused, accept};
pub use outbox::Bounds;

use client::Client;
use hub::{Hears, Hub, Room};
use presence::{Diff, MemberId, NodeId, Presences};

/// What a project may decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub limits: Limits,
    /// What may wait for one client.
    pub outbox: Bounds,
}

impl Default for Settings {
    /// As Supabase has them, but for how many clients there may be: ten thousand.
    fn default() -> Self {
        Self { limits: Limits { clients: 10_000, ..Limits::default() }, outbox: Bounds::default() }
    }
}

/// The service.
#[derive(Debug)]
pub struct Realtime {
    database: Database,
    doorkeeper: Arc<Doorkeeper>,
    settings: Settings,
    hub: Arc<Hub>,
    rooms: Mutex<HashMap<Room, Presences>>,
    node: NodeId,
    references: AtomicU64,
    clients: AtomicUsize,
}

impl Realtime {
    pub fn new(database: Database, doorkeeper: Arc<Doorkeeper>, settings: Settings) -> Self {
        let (node, _) = uuid::Uuid::new_v4().as_u64_pair();
        Self {
            database,
            doorkeeper,
            settings,
            hub: Arc::default(),
            rooms: Mutex::default(),
            node,
            references: AtomicU64::default(),
            clients: AtomicUsize::default(),
        }
    }

    /// A place for one more client, if there is one.
    pub fn place(self: &Arc<Self>) -> Result<Place, Handshake> {
        let most = self.settings.limits.clients;
        let taken = self
            .clients
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < most).then_some(count + 1));
        taken.map(|_| Place(self.clone())).map_err(|_| Handshake::TooManyClients)
    }

    /// Serves a client who was let in, on what its connection has become, until one of both ends it or `stop` becomes true.
    pub async fn serve<S>(place: Place, stream: S, admitted: Admitted, stop: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let realtime = place.0.clone();
        let silence = realtime.settings.limits.silence;
        let client = Client::new(realtime, admitted.version, admitted.credential, admitted.holder);
        socket::serve(stream, client, silence, stop).await;
        drop(place);
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<Room, Presences>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The payload of `presence_state`.
    fn present(&self, room: &Room) -> Json {
        self.rooms().get(room).map_or_else(Json::empty, Presences::json)
    }

    fn track(&self, room: &Room, member: MemberId, key: &str, payload: Json) {
        let number = self.references.fetch_add(1, Ordering::Relaxed);
        let reference = format!("{:016x}{number:x}", self.node);
        let mut rooms = self.rooms();
        let presences = rooms.entry(room.clone()).or_default();
        if let Some(diff) = presences.track((self.node, member), key, payload, reference) {
            // Said before somebody else changes it again: diffs have to come in their order.
            self.tell(room, &diff);
        }
    }

    fn untrack(&self, room: &Room, member: MemberId) {
        let mut rooms = self.rooms();
        let Some(presences) = rooms.get_mut(room) else { return };
        let diff = presences.untrack((self.node, member));
        if presences.is_empty() {
            rooms.remove(room);
        }
        self.tell(room, &diff);
    }

    fn tell(&self, room: &Room, diff: &Diff) {
        if !diff.is_empty() {
            let message = Arc::new(Fanout::new(outbound::presence_diff(&topic::of(&room.name), diff.json())));
            self.hub.say(room, Hears::Presence, &message, None);
        }
    }
}

/// Of one client, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Realtime>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}
