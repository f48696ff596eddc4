//! What reaches the other nodes, and what comes from them: broadcasts, and who is present.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ntier_backing::bus::{Event, Heard, Line};
use ntier_protocol::realtime::message::{Json, Payload};
use ntier_protocol::realtime::write::Fanout;
use ntier_protocol::realtime::{outbound, topic};
use tokio::time::MissedTickBehavior;

use crate::Realtime;
use crate::hub::{Hears, Room};
use crate::presence::{MemberId, News, Outcome, Presences};
use crate::words::{self, Word};

/// How often it is looked who is alive.
const LOOK: Duration = Duration::from_millis(250);

impl Realtime {
    /// Says a broadcast to all who are in the room, on whatever node, but for the member that has said it.
    pub(crate) fn say(&self, room: &Room, payload: &Payload, but: Option<MemberId>) {
        self.say_here(room, payload, but);
        if self.has_others.load(Ordering::Relaxed) {
            self.bus.publish(words::said(room, payload));
        }
    }

    /// The payload of `presence_state`.
    pub(crate) fn present(&self, room: &Room) -> Json {
        self.everybody().json(room)
    }

    /// A member says something of itself.
    pub(crate) fn track(&self, room: &Room, member: MemberId, key: &str, payload: Json) {
        let number = self.references.fetch_add(1, Ordering::Relaxed);
        let reference = format!("{:016x}{number:x}", self.bus.node());
        self.change(|everybody| everybody.track(member, room, key, payload, reference));
    }

    /// A member is present no longer, if it was.
    pub(crate) fn untrack(&self, member: MemberId) {
        self.change(|everybody| everybody.untrack(member));
    }

    /// Hears the other nodes and lets them hear this one, until [`Self::leave`]; where there can be no others there is nothing to do.
    /// What becomes of the bus goes to `tell`.
    pub async fn follow(self: Arc<Self>, line: Line, tell: impl FnMut(Event) + Send + 'static) {
        let hearing = self.clone();
        let looking = async {
            let mut ticks = tokio::time::interval(LOOK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                self.change(|everybody| everybody.look(Instant::now()));
            }
        };
        tokio::select! {
            () = line.run(move |heard| hearing.hear(heard), tell) => {}
            () = looking => {}
        }
    }

    /// Nothing more is said to the other nodes, which hear that this one stops.
    pub fn leave(&self) {
        self.change(|_| Presences::leave());
        self.bus.close();
    }

    fn hear(&self, heard: Heard) {
        match heard {
            Heard::Gap => self.change(|everybody| everybody.missed(Instant::now())),
            Heard::Message { from, message } => match words::read(message) {
                // Whoever hears nothing of it need not read it.
                Some(Word::Said(room, unread)) if self.hub.has(&room) => {
                    if let Some(payload) = unread.read() {
                        self.say_here(&room, &payload, None);
                    }
                }
                Some(Word::News(news)) => self.change(|everybody| everybody.hear(from, news, Instant::now())),
                Some(Word::Said(..)) | None => {}
            },
        }
    }

    fn say_here(&self, room: &Room, payload: &Payload, but: Option<MemberId>) {
        let message = Arc::new(Fanout::new(outbound::relayed(&topic::of(&room.name), payload)));
        self.hub.say(room, Hears::Broadcasts, &message, but);
    }

    /// Tells clients and nodes what has changed, before somebody else changes it again: they have to hear it in its order.
    fn change(&self, change: impl FnOnce(&mut Presences) -> Outcome) {
        let mut everybody = self.everybody();
        let Outcome { diffs, news } = change(&mut everybody);
        for (room, diff) in diffs {
            let message = Arc::new(Fanout::new(outbound::presence_diff(&topic::of(&room.name), diff.json())));
            self.hub.say(&room, Hears::Presence, &message, None);
        }
        let has_others = self.bus.has_others() && everybody.may_have_others();
        self.has_others.store(has_others, Ordering::Relaxed);
        for news in news {
            // Whoever comes later asks for it.
            let is_heard = has_others || matches!(news, News::Alive { .. } | News::Goodbye);
            if is_heard {
                self.bus.publish(words::news(&news));
            }
        }
    }

    pub(crate) fn everybody(&self) -> MutexGuard<'_, Presences> {
        self.everybody.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
