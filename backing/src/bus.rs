//! The bus: what one node says, and all others hear.
//!
//! It is for what is worth something now and nothing later: a message reaches each other live node once at most, in the order in which its
//! node said it. Who says something never waits: what a bus that is away or slow cannot take is dropped and counted. Whoever
//! has to know everything numbers what they say, and asks again for what is missing.
//!
//! Here are the [`Bus`], which one says things to, and the [`Line`], which carries them and hears the others; how they travel is in
//! `postgres.rs` and `nats.rs`. What the messages mean is for others to know.

mod nats;
mod parcels;
mod pieces;
mod postgres;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::database::{self, Address, Database};
use nats::Nats;
pub use nats::Servers;
use postgres::Postgres;
use queue::Queue;

/// A node, as long as it runs.
pub type NodeId = u64;

/// How messages travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Not at all: there is one node.
    Local,
    /// By LISTEN and NOTIFY, over one connection of its own.
    Postgres(Address),
    Nats(Servers),
}

/// What a node hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Message {
        from: NodeId,
        message: Bytes,
    },
    /// What was said before may have been missed, from whomever. It comes first.
    Gap,
}

/// What becomes of the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The others cannot be reached.
    Away { cause: String },
    /// They can again; so many messages of this node were dropped since it started.
    Back { lost: u64 },
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the nodes cannot hear each other: {0}")]
    Postgres(#[from] database::Error),
    #[error("the nodes cannot hear each other: {0}")]
    Nats(String),
}

/// What one says things to; cheap to clone.
#[derive(Debug, Clone)]
pub struct Bus {
    node: NodeId,
    /// `None` where nobody is there to hear it.
    queue: Option<Arc<Queue>>,
}

/// Carries what is said, and hears what others say.
#[derive(Debug)]
pub struct Line {
    node: NodeId,
    carrier: Option<(Arc<Queue>, Carrier)>,
}

#[derive(Debug)]
enum Carrier {
    Postgres(Box<Postgres>),
    Nats(Box<Nats>),
}

/// How long the last messages of a node that stops may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// Takes a place among the nodes of the project that this is the database of.
pub async fn open(way: Way, database: &Database) -> Result<(Bus, Line), Error> {
    let (node, _) = uuid::Uuid::new_v4().as_u64_pair();
    let carrier = match way {
        Way::Local => return Ok((Bus { node, queue: None }, Line { node, carrier: None })),
        Way::Postgres(address) => Carrier::Postgres(Box::new(Postgres::open(address, database).await?)),
        Way::Nats(servers) => Carrier::Nats(Box::new(Nats::open(servers).await.map_err(Error::Nats)?)),
    };
    let queue = Arc::new(Queue::default());
    Ok((Bus { node, queue: Some(queue.clone()) }, Line { node, carrier: Some((queue, carrier)) }))
}

impl Bus {
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Whether there may be others.
    pub fn has_others(&self) -> bool {
        self.queue.is_some()
    }

    /// Says something to all other nodes, later; it does not wait.
    pub fn publish(&self, message: Bytes) {
        if let Some(queue) = &self.queue {
            queue.push(message);
        }
    }

    /// How many messages were dropped since the node started.
    pub fn lost(&self) -> u64 {
        self.queue.as_ref().map_or(0, |queue| queue.lost())
    }

    /// Nothing more is said; the [`Line`] ends once what was said has left.
    pub fn close(&self) {
        if let Some(queue) = &self.queue {
            queue.close();
        }
    }
}

impl Line {
    /// Works until the bus is closed: what others say goes to `hear`, and what becomes of the bus to `tell`. Neither may take long.
    /// Where there are no others there is nothing to do.
    pub async fn run(self, mut hear: impl FnMut(Heard) + Send + 'static, mut tell: impl FnMut(Event) + Send + 'static) {
        let Some((queue, carrier)) = self.carrier else { return };
        let (hear, tell): (&mut Hear, &mut Tell) = (&mut hear, &mut tell);
        let carried = async {
            match carrier {
                Carrier::Postgres(postgres) => postgres.run(self.node, &queue, hear, tell).await,
                Carrier::Nats(nats) => nats.run(self.node, &queue, hear, tell).await,
            }
        };
        let late = async {
            queue.closed().await;
            tokio::time::sleep(FAREWELL).await;
        };
        tokio::select! {
            () = carried => {}
            () = late => {}
        }
    }
}

type Hear = dyn FnMut(Heard) + Send;
type Tell = dyn FnMut(Event) + Send;

/// Whether others can be reached, told when it changes.
#[derive(Debug, Default)]
struct Reach {
    is_away: bool,
}

impl Reach {
    fn away(&mut self, cause: &dyn std::fmt::Display, tell: &mut Tell) {
        if !std::mem::replace(&mut self.is_away, true) {
            tell(Event::Away { cause: cause.to_string() });
        }
    }

    fn back(&mut self, queue: &Queue, tell: &mut Tell) {
        if std::mem::take(&mut self.is_away) {
            tell(Event::Back { lost: queue.lost() });
        }
    }
}
