//! Who is in which room of this node, and how what is said there reaches them.
//!
//! Clients live on the thread that accepted them. Whoever says something leaves it in the mailbox of each thread that has members of
//! the room, and wakes that thread once; there it is dealt out. So a message for a thousand clients crosses threads as often as there are
//! threads, and who is awake is woken for nothing.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ntier_protocol::realtime::frame::Version;
use ntier_protocol::realtime::message::Message;
use ntier_protocol::realtime::write::{self, Fanout};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::outbox::{Bounds, Closing, Outbox, Pushed};
use crate::rate::Rate;

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
    /// Whether it may hear broadcasts, and presences; another token may change it.
    pub hears_broadcasts: AtomicBool,
    pub hears_presence: AtomicBool,
    /// It was told of stored broadcasts up to this batch by other ways.
    pub floor: AtomicI64,
    pub is_gone: AtomicBool,
    is_held: AtomicBool,
    /// What was said since [`Member::held`]; `None` once it is told.
    held: Mutex<Option<Vec<Arc<Fanout>>>>,
}

/// What may be said to a member that is held.
const HELD: usize = 1024;

impl Member {
    /// It hears everything, at once.
    pub fn new(id: u64, version: Version, outbox: Arc<Outbox>) -> Self {
        Self {
            id,
            version,
            outbox,
            hears_broadcasts: true.into(),
            hears_presence: true.into(),
            floor: 0.into(),
            is_gone: false.into(),
            is_held: false.into(),
            held: Mutex::default(),
        }
    }

    /// It is told nothing before [`Member::release`]: first it hears of what was before.
    pub fn held(self) -> Self {
        Self { is_held: true.into(), held: Mutex::new(Some(Vec::new())), ..self }
    }

    /// Tells it what was said meanwhile, but for what it knows already; from now on it is told at once.
    pub fn release(&self, knows: impl Fn(&Fanout) -> bool) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for message in held.take().unwrap_or_default() {
            if !knows(&message) {
                self.tell(&message);
            }
        }
        self.is_held.store(false, Ordering::Release);
    }

    /// Says whether more waits for it than should.
    fn hear(&self, message: &Arc<Fanout>) -> bool {
        if self.is_held.load(Ordering::Acquire)
            && let Some(held) = &mut *self.held.lock().unwrap_or_else(PoisonError::into_inner)
        {
            if held.len() < HELD {
                held.push(message.clone());
            } else {
                self.outbox.close(Closing::Slow);
            }
            return false;
        }
        self.tell(message)
    }

    /// Tells it something, unless it has left; says whether more waits for it than should.
    pub fn tell(&self, message: &Fanout) -> bool {
        !self.is_gone.load(Ordering::Relaxed)
            && message.frame(self.version).is_some_and(|frame| self.outbox.push(frame) == Pushed::Full)
    }

    /// Tells it alone something.
    pub fn say(&self, message: &Message) {
        if let Some(frame) = write::to_client(message, self.version) {
            self.outbox.push(frame);
        }
    }
}

/// What is dealt out.
#[derive(Debug, Clone)]
struct Parcel {
    to: To,
    message: Arc<Fanout>,
}

impl Parcel {
    /// To how many it goes, as limits count.
    fn told(&self, of_room: &[Arc<Member>]) -> u64 {
        let members = match &self.to {
            To::Room { .. } => of_room,
            To::Members(members) => members,
        };
        members.len() as u64
    }

    fn bytes(&self) -> usize {
        self.message.message().payload.len()
    }
}

#[derive(Debug, Clone)]
enum To {
    Room {
        room: Room,
        what: Hears,
        /// The member that has said it, and does not want to hear itself.
        but: Option<u64>,
        /// Of what came through the database.
        batch: Option<i64>,
    },
    Members(Vec<Arc<Member>>),
}

/// All of this node.
#[derive(Debug)]
pub struct Hub {
    threads: [Thread; THREADS],
    next: AtomicU64,
    /// Of messages, each counted once as it is said and once for each member that hears it.
    pub rate: Rate,
    /// Messages, counted for each member that hears them.
    pub told: AtomicU64,
}

/// Threads that have a mailbox of their own; more share.
const THREADS: usize = 32;
static KNOWN: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static THIS: usize = KNOWN.fetch_add(1, Ordering::Relaxed) % THREADS;
}

/// What may be in a mailbox, before whoever leaves more waits.
const MAIL: Bounds = Bounds { frames: 1024, bytes: 4 << 20 };
/// With more than so many parcels nobody is waited for any more.
const TOO_MUCH: usize = 16 * MAIL.frames;

#[derive(Debug, Default)]
struct Thread {
    state: Mutex<State>,
    mail: Arc<Notify>,
    is_crowded: AtomicBool,
    /// For whoever waits until it is not.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Shared with what is being dealt out; whoever comes or goes meanwhile changes a copy.
    rooms: HashMap<Room, Arc<Vec<Arc<Member>>>>,
    mailbox: VecDeque<Parcel>,
    /// Of the payloads in it.
    bytes: usize,
    /// Somebody deals out here.
    is_served: bool,
}

/// Being a member, until it is dropped.
#[derive(Debug)]
pub struct Membership {
    hub: Arc<Hub>,
    pub thread: usize,
    pub room: Room,
    pub member: Arc<Member>,
}

impl Hub {
    pub fn new(rate: Rate) -> Self {
        Self {
            threads: std::array::from_fn(|_| Thread::default()),
            next: AtomicU64::new(1),
            rate,
            told: AtomicU64::new(0),
        }
    }

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
        self.say_all(room, what, message, but, None);
    }

    /// Says a broadcast that came through the database, in this batch of its changes.
    pub fn say_stored(&self, room: &Room, message: &Arc<Fanout>, batch: i64) {
        self.say_all(room, Hears::Broadcasts, message, None, Some(batch));
    }

    fn say_all(&self, room: &Room, what: Hears, message: &Arc<Fanout>, but: Option<u64>, batch: Option<i64>) {
        for thread in &self.threads {
            let state = thread.state();
            if state.rooms.contains_key(room) {
                let to = To::Room { room: room.clone(), what, but, batch };
                thread.leave(state, Parcel { to, message: message.clone() });
            }
        }
    }

    /// Tells these members of one thread something.
    pub fn tell(&self, thread: usize, members: Vec<Arc<Member>>, message: Arc<Fanout>) {
        let thread = &self.threads[thread];
        thread.leave(thread.state(), Parcel { to: To::Members(members), message });
    }

    /// Waits until what was said in the room is dealt out, but for a little: for whoever can say more later.
    pub async fn pace(&self, room: &Room) {
        for thread in &self.threads {
            if thread.is_crowded.load(Ordering::Relaxed) && thread.state().rooms.contains_key(room) {
                thread.room().await;
            }
        }
    }

    /// Likewise, to members of one thread.
    pub async fn pace_of(&self, thread: usize) {
        self.threads[thread].room().await;
    }

    /// Whether somebody is in this room.
    pub fn has(&self, room: &Room) -> bool {
        self.threads.iter().any(|thread| thread.state().rooms.contains_key(room))
    }
}

impl Thread {
    fn leave(&self, mut state: MutexGuard<'_, State>, parcel: Parcel) {
        state.bytes += parcel.bytes();
        state.mailbox.push_back(parcel);
        let is_first = state.mailbox.len() == 1;
        if state.is_served && (state.mailbox.len() > MAIL.frames || state.bytes > MAIL.bytes) {
            self.is_crowded.store(true, Ordering::Relaxed);
        }
        drop(state);
        if is_first {
            self.mail.notify_one();
        }
    }

    /// All that is in the mailbox.
    fn take(&self, state: &mut State) -> VecDeque<Parcel> {
        state.bytes = 0;
        self.uncrowd();
        std::mem::take(&mut state.mailbox)
    }

    fn uncrowd(&self) {
        if self.is_crowded.swap(false, Ordering::Relaxed) {
            self.emptied.notify_waiters();
        }
    }

    async fn room(&self) {
        while self.is_crowded.load(Ordering::Relaxed) {
            let mut emptied = pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if self.is_crowded.load(Ordering::Relaxed) {
                emptied.await;
            }
        }
    }

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
        let mut pace = Pace::default();
        loop {
            mail.notified().await;
            loop {
                let parcels = {
                    let mut state = thread.state();
                    let parcels = thread.take(&mut state);
                    // The list of members is taken with the mail: nobody hears what was said before they came.
                    let members: Vec<_> = parcels
                        .iter()
                        .map(|parcel| match &parcel.to {
                            To::Room { room, .. } => state.rooms.get(room).cloned().unwrap_or_default(),
                            To::Members(_) => Arc::default(),
                        })
                        .collect();
                    parcels.into_iter().zip(members).collect::<Vec<_>>()
                };
                if parcels.is_empty() {
                    break;
                }
                pace.is_pressed = parcels.len() > TOO_MUCH;
                let mut told = 0;
                for (parcel, members) in parcels {
                    if pace.is_over() {
                        pace.rest().await;
                    }
                    deal(&parcel, &members, &mut pace);
                    told += parcel.told(&members);
                }
                self.hub.rate.add(told);
                self.hub.told.fetch_add(told, Ordering::Relaxed);
                pace.rest().await;
            }
        }
    }
}

impl Drop for Server {
    /// Ended with the runtime of its thread: whoever joins on a thread that shares this mailbox begins anew.
    fn drop(&mut self) {
        let thread = &self.hub.threads[self.thread];
        thread.state().is_served = false;
        thread.uncrowd();
    }
}

/// How quickly mail is dealt out: between some parcels the clients' own tasks have to run, and whoever has not read them yet is waited for,
/// but so shortly that the others hear some thousands in a second all the same.
#[derive(Default)]
struct Pace {
    /// Dealt out since the last rest.
    parcels: usize,
    bytes: usize,
    /// More waits for them than should.
    full: Vec<Arc<Outbox>>,
    /// There is so much mail that nobody can be waited for.
    is_pressed: bool,
}

impl Pace {
    const PARCELS: usize = 64;
    const BYTES: usize = 256 << 10;
    const PATIENCE: Duration = Duration::from_millis(20);

    fn is_over(&self) -> bool {
        self.parcels >= Self::PARCELS || self.bytes >= Self::BYTES
    }

    async fn rest(&mut self) {
        tokio::task::yield_now().await;
        if !self.full.is_empty() && !self.is_pressed {
            let room = async {
                for outbox in &self.full {
                    outbox.room().await;
                }
            };
            // Who has none by then is told all the same, as far as it goes.
            let _ = timeout(Self::PATIENCE, room).await;
        }
        self.full.clear();
        (self.parcels, self.bytes) = (0, 0);
    }

    fn tell(&mut self, member: &Member, message: &Arc<Fanout>) {
        if member.hear(message) {
            self.full.push(member.outbox.clone());
        }
    }
}

fn deal(parcel: &Parcel, members: &[Arc<Member>], pace: &mut Pace) {
    pace.parcels += 1;
    pace.bytes += parcel.bytes();
    match &parcel.to {
        To::Room { what, but, batch, .. } => {
            for member in members {
                let hears = match what {
                    Hears::Broadcasts => &member.hears_broadcasts,
                    Hears::Presence => &member.hears_presence,
                };
                let is_new = batch.is_none_or(|batch| batch > member.floor.load(Ordering::Relaxed));
                if hears.load(Ordering::Relaxed) && is_new && *but != Some(member.id) {
                    pace.tell(member, &parcel.message);
                }
            }
        }
        To::Members(members) => {
            for member in members.iter().filter(|member| !member.is_gone.load(Ordering::Relaxed)) {
                pace.tell(member, &parcel.message);
            }
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.member.is_gone.store(true, Ordering::Relaxed);
        let mut state = self.hub.threads[self.thread].state();
        if let Some(members) = state.rooms.get_mut(&self.room) {
            Arc::make_mut(members).retain(|member| member.id != self.member.id);
            if members.is_empty() {
                state.rooms.remove(&self.room);
            }
        }
    }
}
