//! Changes of the database, and broadcasts that came through it: each node reads the outbox once, in the order of positions, and tells
//! whoever listens there.
//!
//! What a channel hears begins at a position, its own where it names one (`since`). It is told the earlier ones first, beside the others,
//! and joins them when it has all that they have; so it hears everything once, whatever node it comes to.

mod ask;
mod audience;
mod deal;
mod table;

use std::future::ready;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ntier_backing::database::{Batch, Database, Error, Statement};
use ntier_protocol::realtime::binding::{Binding, Unsubscribed, Wanted};
use ntier_protocol::realtime::error::Refusal;
use ntier_protocol::realtime::filter::{Operator, Unfit};
use ntier_protocol::realtime::limits::Limits;
use ntier_protocol::realtime::outbound::{Address, System};
use ntier_protocol::realtime::position::Position;
use ntier_protocol::realtime::write::Fanout;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::authorize;
use crate::hub::{Hub, Membership};
use ask::{Asker, Kept, Row};
use audience::{Entry, Interned, Listener, Viewer};
use deal::Delivery;

/// How often a node looks for what others have written, while somebody listens.
const PACE: Duration = Duration::from_millis(20);
/// Between two looks at least, beside that: what is written at the same time is read together.
const BREATH: Duration = Duration::from_millis(4);
/// Before the database is asked again that could not be.
const PAUSE: Duration = Duration::from_millis(200);
/// Rows that are read at once.
const CHUNK: usize = 1000;
/// Likewise, of those that one channel has missed.
const REPLAYED: usize = 200;
/// How long a join waits for the feed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What has been done, since the node runs.
#[derive(Debug, Default)]
pub struct Figures {
    pub read: AtomicU64,
    pub delivered: AtomicU64,
    pub replayed: AtomicU64,
    /// Channels that had been away for too long.
    pub too_old: AtomicU64,
    /// Broadcasts that nobody was told.
    pub too_large: AtomicU64,
    /// How long after it was made the newest change was dealt out, in microseconds; and the sum of that over all that were read.
    pub lag: AtomicU64,
    pub lags: AtomicU64,
}

impl Figures {
    fn late(&self, rows: &[Row], decided: Duration) {
        let lag = |row: &Row| Duration::try_from_secs_f64(row.age).unwrap_or_default().saturating_add(decided);
        let micros = |lag: Duration| u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
        if let Some(newest) = rows.last() {
            self.lag.store(micros(lag(newest)), Ordering::Relaxed);
        }
        self.lags.fetch_add(rows.iter().map(|row| micros(lag(row))).sum(), Ordering::Relaxed);
    }
}

/// One node's.
#[derive(Debug)]
pub struct Feed {
    asker: Asker,
    hub: Arc<Hub>,
    limits: Limits,
    state: Mutex<State>,
    /// Channels that hear of the database.
    interested: AtomicUsize,
    wake: Notify,
    /// Rounds that have begun, and that have ended.
    begun: AtomicU64,
    ended: watch::Sender<Ended>,
    pub figures: Figures,
}

/// What has come of the rounds.
#[derive(Debug, Clone, Copy, Default)]
struct Ended {
    /// The last that has read all.
    round: u64,
    /// Rounds in which the database was away.
    failures: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Until where it has been read. `None`: nobody listens, and what is written meanwhile is nobody's.
    cursor: Option<Position>,
    listeners: Arc<Vec<Arc<Listener>>>,
    viewers: Interned<Viewer>,
    wanted: Interned<Wanted>,
}

/// As long as it is there, the feed is read.
#[derive(Debug)]
pub struct Interest {
    feed: Arc<Feed>,
    /// What came until then is not heard.
    from: Position,
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.feed.interested.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A channel's listening, until it is dropped.
#[derive(Debug)]
pub struct Listening {
    feed: Arc<Feed>,
    listener: Arc<Listener>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut state = self.feed.state();
        if state.listeners.iter().any(|other| Arc::ptr_eq(other, &self.listener)) {
            Arc::make_mut(&mut state.listeners).retain(|other| !Arc::ptr_eq(other, &self.listener));
        }
    }
}

/// What a join asks for.
#[derive(Debug)]
pub struct Asked<'a> {
    pub bindings: &'a [Binding],
    /// Where each of them begins, in their order, and where broadcasts of the database do.
    pub since: Vec<Option<Position>>,
    pub broadcasts_since: Option<Position>,
    pub is_old: bool,
}

impl Feed {
    pub fn new(database: Database, hub: Arc<Hub>, limits: Limits) -> Self {
        Self {
            asker: Asker::new(database),
            hub,
            limits,
            state: Mutex::default(),
            interested: AtomicUsize::new(0),
            wake: Notify::new(),
            begun: AtomicU64::new(0),
            ended: watch::Sender::default(),
            figures: Figures::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node has written something; whoever listens hears of it at once.
    pub fn poke(&self) {
        if self.interested.load(Ordering::Acquire) > 0 {
            self.wake.notify_one();
        }
    }

    /// Channels that hear of the database.
    pub fn channels(&self) -> usize {
        self.interested.load(Ordering::Relaxed)
    }

    /// Begins to read, where it was not read yet: what is said from now on is heard. Whoever listens to changes does not hear of those
    /// that were committed before; others do not wait for a database that is away, and hear of it when it is back.
    pub async fn interest(self: &Arc<Self>, listens: bool) -> Result<Interest, Refusal> {
        self.interested.fetch_add(1, Ordering::AcqRel);
        let mut interest = Interest { feed: self.clone(), from: Position { batch: 0, id: 0 } };
        let known = self.state().cursor.filter(|_| !listens);
        if let Some(from) = known {
            interest.from = from;
        } else if let Some(now) = self.now(listens).await {
            interest.from = now;
        } else if listens {
            return Err(Refusal::Unreachable);
        }
        Ok(interest)
    }

    /// A position that is after all that was committed before this call. It waits for the database, or only for whether that is there.
    async fn now(&self, is_patient: bool) -> Option<Position> {
        let mut ended = self.ended.subscribe();
        let failures = ended.borrow().failures;
        let next = self.begun.load(Ordering::Acquire) + 1;
        self.wake.notify_one();
        let told = |ended: &Ended| ended.round >= next || (!is_patient && ended.failures > failures);
        let ended = *timeout(PATIENCE, ended.wait_for(told)).await.ok()?.ok()?;
        if ended.round >= next { self.state().cursor } else { None }
    }

    /// Reads as long as the node runs.
    pub async fn run(&self) {
        loop {
            let is_idle = {
                let mut state = self.state();
                let is_idle = self.interested.load(Ordering::Acquire) == 0;
                if is_idle {
                    state.cursor = None;
                }
                is_idle
            };
            if is_idle {
                self.wake.notified().await;
                continue;
            }
            let round = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
            if self.round().await.is_err() {
                self.ended.send_modify(|ended| ended.failures += 1);
                sleep(PAUSE).await;
                continue;
            }
            self.ended.send_modify(|ended| ended.round = round);
            sleep(BREATH).await;
            let _ = timeout(PACE, self.wake.notified()).await;
        }
    }

    /// Deletes what is older than that, or more than so many bytes, and gives published tables their triggers where PostgreSQL cannot tell
    /// that there is a new one.
    pub async fn keep(&self, age: Duration, bytes: u64) {
        let (age, bytes) = (format!("{} seconds", age.as_secs()), bytes.to_string());
        let statements = [
            Statement::new("select ntier.sweep_changes($1::interval, $2::bigint)", &[&age, &bytes]),
            Statement::new("select ntier.attach_changes()", &[]),
        ];
        let deadline = Duration::from_mins(5);
        // What fails now is done the next time.
        for statement in statements {
            let batch = Batch { statements: vec![statement], deadline, ..Batch::default() };
            let _ = self.asker.database.run(batch).await;
        }
    }

    /// Reads all there is.
    async fn round(&self) -> Result<(), Error> {
        let newest = Position { batch: self.asker.newest().await?, id: i64::MAX };
        let cursor = *self.state().cursor.get_or_insert(newest);
        if cursor == newest {
            return Ok(());
        }
        let mut cursor = cursor;
        loop {
            let (kept, rows) = self.asker.after(cursor, CHUNK, self.limits.record_bytes).await?;
            if !kept.has_all_after(cursor) {
                self.lost(cursor, kept);
                return Ok(());
            }
            let is_all = rows.len() < CHUNK;
            let Some(last) = rows.last() else { return Ok(()) };
            cursor = if is_all { Position { id: i64::MAX, ..last.position } } else { last.position };
            let listeners = {
                let mut state = self.state();
                state.cursor = Some(cursor);
                state.listeners.clone()
            };
            self.figures.read.fetch_add(rows.len() as u64, Ordering::Relaxed);
            let read = Instant::now();
            deal::deal(&self.asker, &rows, &listeners, |delivery| self.say(delivery)).await;
            self.figures.late(&rows, read.elapsed());
            if is_all {
                return Ok(());
            }
        }
    }

    /// The node was away for longer than changes are kept.
    fn lost(&self, since: Position, kept: Kept) {
        let listeners = {
            let mut state = self.state();
            state.cursor = Some(kept.end());
            state.listeners.clone()
        };
        for listener in listeners.iter() {
            self.too_old(listener, since, kept);
        }
    }

    fn too_old(&self, listener: &Listener, since: Position, kept: Kept) {
        self.figures.too_old.fetch_add(1, Ordering::Relaxed);
        let system = System::TooOld { since, position: Some(kept.end()) };
        listener.member.say(&listener.address.system(&system));
    }

    /// Whether a broadcast is not larger than one of a client may be.
    fn passes(&self, message: &Fanout) -> bool {
        self.limits.passes(message.message().payload.len())
    }

    async fn say(&self, delivery: Delivery) {
        match delivery {
            Delivery::Broadcast { message, .. } if !self.passes(&message) => {
                self.figures.too_large.fetch_add(1, Ordering::Relaxed);
            }
            Delivery::Broadcast { message, room, position } => {
                self.hub.say_stored(&room, &message, position.batch);
                self.hub.pace(&room).await;
            }
            Delivery::Change { message, listeners } => {
                self.figures.delivered.fetch_add(listeners.len() as u64, Ordering::Relaxed);
                let mut by_thread: Vec<(usize, Vec<_>)> = Vec::new();
                for listener in listeners {
                    match by_thread.iter_mut().find(|(thread, _)| *thread == listener.thread) {
                        Some((_, members)) => members.push(listener.member.clone()),
                        None => by_thread.push((listener.thread, vec![listener.member.clone()])),
                    }
                }
                for (thread, members) in by_thread {
                    self.hub.tell(thread, members, message.clone());
                    self.hub.pace_of(thread).await;
                }
            }
        }
    }

    /// Somebody whom PostgreSQL may be asked as.
    pub fn viewer(&self, asker: &authorize::Asker) -> Arc<Viewer> {
        let viewer = Viewer { role: asker.role.clone(), claims: asker.claims.clone() };
        self.state().viewers.get(viewer)
    }

    /// Until where it was read.
    pub fn position(&self) -> Option<Position> {
        self.state().cursor
    }

    /// Lets a channel hear what it asks for, and says what is to be told of that. `None` where it does not listen: it asks for nothing, or
    /// for something that cannot be.
    pub async fn subscribe(
        self: &Arc<Self>,
        membership: &Membership,
        address: &Address,
        viewer: Arc<Viewer>,
        interest: &Interest,
        asked: Asked<'_>,
    ) -> Option<Listening> {
        if asked.bindings.is_empty() && asked.broadcasts_since.is_none() {
            return None;
        }
        let member = &membership.member;
        // Until it has been told what it missed, it hears nothing else of the database's broadcasts.
        if asked.broadcasts_since.is_some() {
            member.floor.store(i64::MAX, Ordering::Relaxed);
        }
        let wanted = match self.wanted(&viewer, asked.bindings).await {
            Ok(wanted) => wanted,
            Err(why) => {
                member.say(&address.system(&System::NotSubscribed(&why)));
                Vec::new()
            }
        };
        let now = interest.from;
        let mut from = asked.broadcasts_since.unwrap_or(now);
        let entries = wanted.into_iter().map(|(at, id, wanted)| {
            let after = asked.since.get(at).copied().flatten().unwrap_or(now);
            from = from.min(after);
            Entry { id, wanted, after }
        });
        let entries: Vec<Entry> = entries.collect();
        if entries.is_empty() && asked.broadcasts_since.is_none() {
            return None;
        }
        if !entries.is_empty() {
            member.say(&address.system(&System::Subscribed { position: Some(from) }));
        }
        let place = (member.clone(), membership.thread, membership.room.clone());
        let listener = Arc::new(Listener::new(place, address.clone(), asked.is_old, entries, viewer));
        tokio::spawn(self.clone().catch_up(listener.clone(), from, asked.broadcasts_since));
        Some(Listening { feed: self.clone(), listener })
    }

    /// What the bindings want, if all of it can be: their numbers, their ids and themselves. Else why not, as `system` says it.
    async fn wanted(&self, viewer: &Viewer, bindings: &[Binding]) -> Result<Vec<(usize, u32, Arc<Wanted>)>, String> {
        let mut all = Vec::with_capacity(bindings.len());
        for (at, binding) in bindings.iter().enumerate() {
            let wanted = binding.wanted.as_ref().map_err(ToString::to_string)?;
            self.check(viewer, wanted).await?;
            all.push((at, binding.id, self.state().wanted.get(wanted.clone())));
        }
        Ok(all)
    }

    async fn check(&self, viewer: &Viewer, wanted: &Wanted) -> Result<(), String> {
        let away = |_| UNREACHABLE.to_owned();
        if wanted.schema == "*" || wanted.table == "*" {
            let is_published = self.asker.is_published(&wanted.schema, &wanted.table).await.map_err(away)?;
            return if is_published { Ok(()) } else { Err(wanted.not_published().to_string()) };
        }
        let table = self.asker.table(&wanted.schema, &wanted.table, &viewer.role).await.map_err(away)?;
        let table = table.ok_or_else(|| wanted.not_published().to_string())?;
        table.fits(&wanted.filters, wanted.select.as_deref()).map_err(|unfit| wanted.unfit(&unfit).to_string())?;
        match self.asker.literals(viewer, &table, &wanted.filters).await {
            Ok(()) => Ok(()),
            Err(Error::Refused(refusal)) => Err(refused(wanted, &refusal.code, &refusal.message).to_string()),
            Err(_) => Err(UNREACHABLE.to_owned()),
        }
    }

    /// Tells a channel what came after a position, and then lets it hear what others hear.
    async fn catch_up(self: Arc<Self>, listener: Arc<Listener>, from: Position, broadcasts: Option<Position>) {
        let mut cursor = from;
        loop {
            if listener.member.is_gone.load(Ordering::Relaxed) || self.hand_over(&listener, cursor) {
                return;
            }
            let Ok((kept, rows)) = self.asker.after(cursor, REPLAYED, self.limits.record_bytes).await else {
                sleep(PAUSE).await;
                continue;
            };
            if !kept.has_all_after(cursor) {
                self.too_old(&listener, cursor, kept);
                cursor = kept.end();
                continue;
            }
            self.replay(&listener, &rows, broadcasts).await;
            cursor = match rows.last() {
                Some(last) if rows.len() >= REPLAYED => last.position,
                // The newest batch was looked up before the rows were, so these are all that there is until then.
                Some(last) => kept.end().max(Position { id: i64::MAX, ..last.position }),
                None => kept.end(),
            };
        }
    }

    /// From here on the channel hears what all hear, if it has been told all that the feed has told.
    fn hand_over(&self, listener: &Arc<Listener>, cursor: Position) -> bool {
        let mut state = self.state();
        // What the feed reads next is after what it has read.
        let is_level = state.cursor.is_some_and(|live| cursor >= live);
        if is_level && !listener.member.is_gone.load(Ordering::Relaxed) {
            listener.begin(cursor);
            listener.member.floor.store(cursor.batch, Ordering::Relaxed);
            Arc::make_mut(&mut state.listeners).push(listener.clone());
        }
        is_level
    }

    async fn replay(&self, listener: &Arc<Listener>, rows: &[Row], broadcasts: Option<Position>) {
        let mut deliveries = Vec::new();
        let keep = |delivery| {
            deliveries.push(delivery);
            ready(())
        };
        deal::deal(&self.asker, rows, std::slice::from_ref(listener), keep).await;
        for delivery in deliveries {
            let message = match delivery {
                Delivery::Change { message, .. } => message,
                Delivery::Broadcast { message, room, position }
                    if room == listener.room
                        && self.passes(&message)
                        && listener.member.hears_broadcasts.load(Ordering::Relaxed)
                        && broadcasts.is_some_and(|since| position > since) =>
                {
                    message
                }
                Delivery::Broadcast { .. } => continue,
            };
            listener.member.outbox.room().await;
            listener.member.tell(&message);
            self.figures.replayed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Listening {
    /// The channel goes on as somebody else.
    pub fn change(&self, viewer: Arc<Viewer>) {
        self.listener.change(viewer);
    }
}

const UNREACHABLE: &str = "Realtime was unable to connect to the project database";

fn refused(wanted: &Wanted, code: &str, message: &str) -> Unsubscribed {
    let condition = match code {
        "2201B" => {
            let is_pattern = |operator| matches!(operator, Operator::Match | Operator::IMatch);
            let pattern = wanted.filters.iter().find(|filter| is_pattern(filter.operator));
            let operator = pattern.map(|filter| filter.operator);
            if let Some(operator) = operator {
                return wanted.unfit(&Unfit::Pattern { operator, why: message.to_owned() });
            }
            "invalid_regular_expression"
        }
        "22P02" => "invalid_text_representation",
        "22007" => "invalid_datetime_format",
        "22008" => "datetime_field_overflow",
        "22003" => "numeric_value_out_of_range",
        "42501" => "insufficient_privilege",
        _ => "data_exception",
    };
    wanted.failed(code, condition, message)
}
