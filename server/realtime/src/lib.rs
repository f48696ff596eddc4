//! Clients meet here: channels on which they hear each other, and see who else is there.
//!
//! A client says something to its node; the node says it to all who are in the room, and by the bus to the other nodes, which do likewise.
//! What is said on the wire is `ntier_protocol::realtime`; sockets are accepted by the node. Not here: anything that outlives a connection.

mod admit;
mod authorize;
mod changes;
mod client;
mod figures;
mod hub;
mod nodes;
mod outbox;
mod post;
mod presence;
mod rate;
mod replay;
mod sessions;
mod socket;
mod websocket;
mod words;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ntier_backing::bus::Bus;
use ntier_backing::database::{Batch, Database, Statement};
use ntier_protocol::realtime::error::Handshake;
use ntier_protocol::realtime::limits::Limits;
use ntier_security::caller::Doorkeeper;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

pub use admit::{Admitted, Refused, accept};
pub use outbox::Bounds;

use authorize::Rights;
use changes::Feed;
use client::Client;
use figures::Figures;
use hub::Hub;
use presence::Presences;
use rate::Rate;
use sessions::Sessions;

/// What a project may decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub limits: Limits,
    /// What may wait for one client.
    pub outbox: Bounds,
    /// There are no public channels.
    pub private_only: bool,
    /// Until it is asked again which sessions are over.
    pub session_check: Duration,
    /// How long changes of the database are kept for clients that were away, and how many bytes of them.
    pub kept_for: Duration,
    pub kept_bytes: u64,
}

impl Default for Settings {
    /// As Supabase has them, but for how many there may be: a node is its owner's.
    fn default() -> Self {
        let limits = Limits {
            clients: 10_000,
            messages_per_second: 1_000_000,
            joins_per_second: 1000,
            presences_per_second: 10_000,
            ..Limits::default()
        };
        Self {
            limits,
            outbox: Bounds::default(),
            private_only: false,
            session_check: Duration::from_secs(10),
            kept_for: Duration::from_hours(1),
            kept_bytes: 1 << 30,
        }
    }
}

/// The service.
#[derive(Debug)]
pub struct Realtime {
    database: Database,
    doorkeeper: Arc<Doorkeeper>,
    settings: Settings,
    hub: Arc<Hub>,
    figures: Figures,
    feed: Arc<Feed>,
    rights: Rights,
    sessions: Sessions,
    joins: Rate,
    presences: Rate,
    bus: Bus,
    /// Somebody else may be there to hear it.
    has_others: AtomicBool,
    /// Who is present, on all nodes.
    everybody: Mutex<Presences>,
    references: AtomicU64,
    clients: AtomicUsize,
}

impl Realtime {
    pub fn new(database: Database, doorkeeper: Arc<Doorkeeper>, settings: Settings, bus: Bus) -> Self {
        let limits = &settings.limits;
        let rate = |most| Rate::new(most, limits.window);
        let hub = Arc::new(Hub::new(rate(limits.messages_per_second)));
        Self {
            feed: Arc::new(Feed::new(database.clone(), hub.clone(), limits.clone())),
            hub,
            figures: Figures::default(),
            rights: Rights::new(database.clone()),
            sessions: Sessions::default(),
            joins: rate(limits.joins_per_second),
            presences: rate(limits.presences_per_second),
            database,
            doorkeeper,
            settings,
            has_others: AtomicBool::new(bus.has_others()),
            everybody: Mutex::new(Presences::new(bus.node(), Instant::now())),
            bus,
            references: AtomicU64::default(),
            clients: AtomicUsize::default(),
        }
    }

    /// What a node does beside its clients, until it is dropped: keeps the days of `realtime.messages`, and ends the channels of those whose
    /// sessions are over. What fails is done the next time.
    pub async fn keep(&self) {
        const DAYS: Duration = Duration::from_hours(1);
        const SWEEP: Duration = Duration::from_mins(1);
        let keep_days = async {
            loop {
                let statements = vec![Statement::new("select ntier.keep_messages()", &[])];
                let _ = self.database.run(Batch { statements, ..Batch::default() }).await;
                tokio::time::sleep(DAYS).await;
            }
        };
        let end_sessions = async {
            loop {
                tokio::time::sleep(self.settings.session_check).await;
                self.sessions.look(&self.database).await;
            }
        };
        let keep_changes = async {
            loop {
                self.feed.keep(self.settings.kept_for, self.settings.kept_bytes).await;
                tokio::time::sleep(SWEEP).await;
            }
        };
        tokio::join!(keep_days, end_sessions, keep_changes, self.feed.run());
    }

    /// This node has written to the database: whoever listens to changes hears of them at once.
    pub fn written(&self) {
        self.feed.poke();
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
}

/// Of one client, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Realtime>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}
