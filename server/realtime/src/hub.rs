//! Who is in which room of this node, and how what is said there reaches them.
//!
//! Clients live on the thread that accepted them. Whoever says something leaves it in the mailbox of each thread that has members of
//! the room, and wakes that thread once; there it is dealt out. So a message for a thousand clients crosses threads as often as there are
//! threads, and who is awake is woken for nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ntier_protocol::realtime::frame::Version;
use ntier_protocol::realtime::write::Fanout;
use tokio::sync::Notify;

use crate::outbox::Outbox;

/// A topic; a public and a private one of the same name are two rooms.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Room {
    pub name: Arc<str>,
    pub is_private: bool,
}

/// What members of a room are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hears {
    Broadcasts,
    Presence,
}

/// A channel of a client.
#[derive(Debug)]
pub struct Member {
    pub id: u64,
    pub version: Version,
    pub outbox: Arc<Outbox>,
    /// Whether it may hear broadcasts, and presences.
    pub hears_broadcasts: bool,
    pub hears_presence: bool,
}

/// What is dealt out.
#[derive(Debug, Clone)]
struct Parcel {
    room: Room,
    what: Hears,
    message: Arc<Fanout>,
    /// The member that has said it, and does not want to hear itself.
    but: Option<u64>,
}

/// All of this node.
#[derive(Debug)]
pub struct Hub {
    threads: [Thread; THREADS],
    next: AtomicU64,
}

/// Threads that have a mailbox of their own; more share.
const THREADS: usize = 32;
static KNOWN: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static THIS: usize = KNOWN.fetch_add(1, Ordering::Relaxed) % THREADS;
}

#[derive(Debug, Default)]
struct Thread {
    state: Mutex<State>,
    mail: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    /// Shared with what is being dealt out; whoever comes or goes meanwhile changes a copy.
    rooms: HashMap<Room, Arc<Vec<Arc<Member>>>>,
    mailbox: VecDeque<Parcel>,
    /// Somebody deals out here.
    is_served: bool,
}

impl Default for Hub {
    fn default() -> Self {
        Self { threads: std::array::from_fn(|_| Thread::default()), next: AtomicU64::new(1) }
    }
}

/// Being a member, until it is dropped.
#[derive(Debug)]
pub struct Membership {
    hub: Arc<Hub>,
    thread: usize,
    pub room: Room,
    pub member: Arc<Member>,
}

impl Hub {
    /// A number that no other member of this node has.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Lets a client of this thread hear what is said in the room from now on.
    pub fn join(self: &Arc<Self>, room: Room, member: Member) -> Membership {
        let thread = THIS.with(|thread| *thread);
        let member = Arc::new(member);
        let begins = {
            let mut state = self.threads[thread].state();
            Arc::make_mut(state.rooms.entry(room.clone()).or_default()).push(member.clone());
            !std::mem::replace(&mut state.is_served, true)
        };
        if begins {
            tokio::spawn(Server { hub: self.clone(), thread }.run());
        }
        Membership { hub: self.clone(), thread, room, member }
    }

    /// Says something to all members of the room, but for the one who has said it.
    pub fn say(&self, room: &Room, what: Hears, message: &Arc<Fanout>, but: Option<u64>) {
        for thread in &self.threads {
            let mut state = thread.state();
            if state.rooms.contains_key(room) {
                let parcel = Parcel { room: room.clone(), what, message: message.clone(), but };
                state.mailbox.push_back(parcel);
                let is_first = state.mailbox.len() == 1;
                drop(state);
                if is_first {
                    thread.mail.notify_one();
                }
            }
        }
    }
}

impl Thread {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deals out what is in a mailbox, on the thread whose it is, as long as that has members.
struct Server {
    hub: Arc<Hub>,
    thread: usize,
}

impl Server {
    async fn run(self) {
        let thread = &self.hub.threads[self.thread];
        let mail = thread.mail.clone();
        loop {
            mail.notified().await;
            loop {
                let parcels = {
                    let mut state = thread.state();
                    let parcels = std::mem::take(&mut state.mailbox);
                    // The list of members is taken with the mail: nobody hears what was said before they came.
                    let members: Vec<_> = parcels
                        .iter()
                        .map(|parcel| state.rooms.get(&parcel.room).cloned().unwrap_or_default())
                        .collect();
                    parcels.into_iter().zip(members).collect::<Vec<_>>()
                };
                if parcels.is_empty() {
                    break;
                }
                for (parcel, members) in parcels {
                    deal(&parcel, &members);
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Drop for Server {
    /// Ended with the runtime of its thread: whoever joins on a thread that shares this mailbox begins anew.
    fn drop(&mut self) {
        self.hub.threads[self.thread].state().is_served = false;
    }
}

fn deal(parcel: &Parcel, members: &[Arc<Member>]) {
    for member in members {
        let hears = match parcel.what {
            Hears::Broadcasts => member.hears_broadcasts,
            Hears::Presence => member.hears_presence,
        };
        if hears
            && parcel.but != Some(member.id)
            && let Some(frame) = parcel.message.frame(member.version)
        {
            member.outbox.push(frame);
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.hub.threads[self.thread].state();
        if let Some(members) = state.rooms.get_mut(&self.room) {
            Arc::make_mut(members).retain(|member| member.id != self.member.id);
            if members.is_empty() {
                state.rooms.remove(&self.room);
            }
        }
    }
}
