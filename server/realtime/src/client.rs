//! One client: what it says is read, decided and answered, one message after the other. What is to be sent goes to the outbox, so
//! nothing here waits for the network; what has to be asked of the database is waited for. Whoever drops that waiting drops the client.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ntier_protocol::realtime::error::{Declined, Refusal, Shutdown, Token};
use ntier_protocol::realtime::frame::{Frame, Version};
use ntier_protocol::realtime::inbound::{self, Inbound};
use ntier_protocol::realtime::join::{Join, Replay};
use ntier_protocol::realtime::message::{Message, Payload};
use ntier_protocol::realtime::outbound::{self, Address, Answer, Meta, System};
use ntier_protocol::realtime::position::{Position, Unreadable};
use ntier_protocol::realtime::presence::Call;
use ntier_protocol::realtime::write::Fanout;
use ntier_protocol::realtime::{read, write};
use tokio::sync::watch;

use crate::admit::{Credential, Holder};
use crate::authorize::{Extension, Reads};
use crate::changes::{Asked, Interest, Listening};
use crate::figures::count;
use crate::hub::{Member, Membership, Room};
use crate::outbox::{Closing, Outbox};
use crate::replay::Earlier;
use crate::{Realtime, replay};

/// A connection and its channels.
pub struct Client {
    realtime: Arc<Realtime>,
    version: Version,
    credential: Credential,
    holder: Holder,
    pub outbox: Arc<Outbox>,
    /// By topic.
    channels: HashMap<String, Channel>,
    /// Changes when sessions are over.
    ended: watch::Receiver<u64>,
}

struct Channel {
    address: Address,
    membership: Membership,
    holder: Holder,
    /// Each broadcast is to be answered.
    acknowledges: bool,
    hears_own: bool,
    /// Under which it is present.
    key: String,
    /// Calls of presence, since when.
    calls: (Instant, u32),
    /// It hears who is present.
    hears_presence: bool,
    reads: Reads,
    writes: Writes,
    /// To changes of the database.
    listening: Option<Listening>,
    interest: Interest,
}

/// What may be said; not known before it is asked for. Another token may say otherwise.
#[derive(Debug, Clone, Copy, Default)]
struct Writes {
    broadcasts: Option<bool>,
    presence: Option<bool>,
}

impl Client {
    pub fn new(realtime: Arc<Realtime>, version: Version, credential: Credential, holder: Holder) -> Self {
        let outbox = Arc::new(Outbox::new(realtime.settings.outbox));
        let ended = realtime.sessions.ended();
        Self { realtime, version, credential, holder, outbox, channels: HashMap::new(), ended }
    }

    /// Takes what came. What cannot be read is dropped, as in realtime.
    pub async fn take(&mut self, frame: &Frame) {
        count(&self.realtime.figures.received);
        let Ok(message) = read::from_client(frame, self.version) else { return };
        match inbound::read(&message) {
            Inbound::Heartbeat => self.send(&outbound::answer(&message, Answer::Ok)),
            Inbound::Unnamed => self.refuse(&message, Refusal::NoName),
            Inbound::Unmatched => self.send(&outbound::answer(&message, Answer::Declined(Declined::Unmatched))),
            Inbound::Join { name, join } => self.join(&message, name, *join).await,
            Inbound::Leave => self.leave(&message),
            Inbound::Token(token) => self.renew(&message, token).await,
            Inbound::Broadcast(payload) => self.broadcast(&message, payload).await,
            Inbound::Presence(call) => self.presence(&message, call).await,
            Inbound::Unknown => {
                self.channel(&message);
            }
        }
    }

    /// Waits until the token of a channel has to be looked at: it expires, its time is over, or sessions have ended.
    pub async fn due(&mut self) {
        let check = self.realtime.settings.limits.token_check;
        let next = self.channels.values().filter_map(|channel| {
            let Holder { until, since, .. } = channel.holder;
            until.into_iter().chain(since.checked_add(check)).min()
        });
        let next = next.min();
        let expired = async {
            match next {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        let has_sessions = self.channels.values().any(|channel| channel.holder.session.is_some());
        tokio::select! {
            () = expired => {}
            _ = self.ended.changed(), if has_sessions => {}
        }
    }

    /// Looks at all tokens, and closes the channels whose token is not good any more.
    pub fn look(&mut self) {
        let now = Instant::now();
        let mut over = Vec::new();
        for (topic, channel) in &mut self.channels {
            match self.realtime.still(&self.credential, &channel.holder, now) {
                Ok(None) => {}
                Ok(Some(holder)) => channel.holder = holder,
                Err(why) => over.push((topic.clone(), why)),
            }
        }
        for (topic, why) in over {
            self.shut(&topic, &why);
        }
    }

    fn send(&self, message: &Message) {
        if let Some(frame) = write::to_client(message, self.version) {
            self.outbox.push(frame);
        }
    }

    fn refuse(&self, message: &Message, refusal: Refusal) {
        let too_many = matches!(refusal, Refusal::TooManyJoins);
        self.send(&outbound::answer(message, Answer::Refused(refusal)));
        if too_many {
            self.outbox.close(Closing::Refused);
        }
    }

    /// The channel that a message is for; where nobody has joined, the client is told so.
    fn channel(&mut self, message: &Message) -> Option<&mut Channel> {
        if !self.channels.contains_key(&message.topic) {
            self.send(&outbound::answer(message, Answer::Declined(Declined::Unmatched)));
        }
        self.channels.get_mut(&message.topic)
    }

    async fn join(&mut self, message: &Message, name: &str, join: Join) {
        // As in Phoenix, the channel of a join before is gone now, and its client hears of that after the answer.
        let before = self.channels.remove(&message.topic).map(|before| {
            let close = before.address.close();
            self.gone(before);
            close
        });
        if let Err(refusal) = self.joined(message, name, join, before.as_ref()).await {
            self.refuse(message, refusal);
            if let Some(close) = &before {
                self.send(close);
            }
        }
    }

    /// What a join does, in the order of what its client hears.
    async fn joined(
        &mut self,
        message: &Message,
        name: &str,
        join: Join,
        before: Option<&Message>,
    ) -> Result<(), Refusal> {
        let realtime = self.realtime.clone();
        let settings = &realtime.settings;
        if settings.private_only && !join.private {
            return Err(Refusal::PrivateOnly);
        }
        if realtime.joins.is_reached() {
            return Err(Refusal::TooManyJoins);
        }
        realtime.joins.add(1);
        if self.channels.len() >= settings.limits.channels_per_client {
            return Err(Refusal::TooManyChannels);
        }
        let holder = match &join.access_token {
            Some(token) => realtime.holder(&self.credential, token)?,
            None => self.holder.clone(),
        };
        if holder.session.as_ref().is_some_and(|session| session.is_over()) {
            return Err(Token::SessionOver.into());
        }
        let unauthorized = || Refusal::Unauthorized { name: name.to_owned() };
        let room = Room { name: name.into(), is_private: join.private };
        let reads = if join.private {
            realtime.rights.reads(&holder.asker, &room.name).await.map_err(|failure| failure.refusal(name))?
        } else {
            Reads::ALL
        };
        if !(reads.broadcasts || (join.presence.enabled && reads.presence)) {
            return Err(unauthorized());
        }
        let member = Member::new(realtime.hub.number(), self.version, self.outbox.clone());
        member.hears_broadcasts.store(reads.broadcasts, Ordering::Relaxed);
        let hears_presence = reads.presence && (join.presence.enabled || !join.private);
        member.hears_presence.store(hears_presence, Ordering::Relaxed);
        let address = Address::of(message);
        // From now on the database is listened to: what is said there after the reply is heard.
        let broadcast = &join.broadcast;
        let hears_changes = !join.changes.is_empty() || broadcast.replay.is_some() || broadcast.tell_when_ready;
        let interest = realtime.feed.interest(hears_changes).await?;
        let answer = || {
            self.send(&address.reply(message, Answer::joined(&join)));
            if let Some(close) = before {
                self.send(close);
            }
        };
        let membership = match join.broadcast.replay {
            None => {
                answer();
                realtime.hub.join(room, member)
            }
            Some(_) if !join.private => return Err(Refusal::PublicReplay),
            Some(_) if !reads.broadcasts => return Err(unauthorized()),
            Some(replay) => {
                // What is said while the earlier is read comes after it.
                let membership = realtime.hub.join(room, member.held());
                let earlier = self.earlier(name, replay).await?;
                answer();
                self.replay(&address, &membership, earlier);
                membership
            }
        };
        let key = join.presence.key.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let channel = Channel {
            address,
            membership,
            holder,
            acknowledges: join.broadcast.acknowledged,
            hears_own: join.broadcast.own,
            key,
            calls: (Instant::now(), 0),
            hears_presence: join.presence.enabled,
            reads,
            writes: if join.private { Writes::default() } else { Writes::ALL },
            listening: None,
            interest,
        };
        let channel = Channel { listening: self.subscribe(&channel, &join).await, ..channel };
        if join.presence.enabled && reads.presence {
            self.send(&channel.address.presence_state(self.realtime.present(&channel.membership.room)));
        }
        self.channels.insert(message.topic.clone(), channel);
        Ok(())
    }

    /// After the reply and before `presence_state`: what the channel hears of the database, and `system` about it.
    async fn subscribe(&mut self, channel: &Channel, join: &Join) -> Option<Listening> {
        let feed = &self.realtime.feed;
        let mut is_unreadable = false;
        let mut readable = |since: Option<Result<Position, Unreadable>>| {
            let since = since?;
            is_unreadable |= since == Err(Unreadable);
            since.ok()
        };
        let since = join.changes.iter().map(|binding| readable(join.since_of(binding))).collect();
        let broadcasts_since = readable(join.broadcasts_since()).filter(|_| channel.reads.broadcasts);
        if is_unreadable {
            self.send(&channel.address.system(&System::Unreadable { position: feed.position() }));
        }
        let asked = Asked { bindings: &join.changes, since, broadcasts_since, is_old: join.old };
        let viewer = feed.viewer(&channel.holder.asker);
        let listening = feed.subscribe(&channel.membership, &channel.address, viewer, &channel.interest, asked).await;
        if join.broadcast.tell_when_ready {
            self.send(&channel.address.system(&System::Ready));
        }
        listening
    }

    async fn earlier(&self, name: &str, replay: Replay) -> Result<Vec<Earlier>, Refusal> {
        // More than that is not taken at once by a client that has other things to hear.
        let most = self.realtime.settings.outbox.bytes / 2;
        replay::read(&self.realtime.database, name, replay, most).await
    }

    fn replay(&self, address: &Address, membership: &Membership, earlier: Vec<Earlier>) {
        let mut known = HashSet::new();
        for Earlier { id, event, content } in earlier {
            let meta = Meta { id: Some(id.clone()), replayed: true, ..Meta::default() };
            self.send(&address.replayed(&event, content, &meta));
            known.insert(id);
        }
        membership.member.release(|message| id_of(message).is_some_and(|id| known.contains(&id)));
    }

    fn leave(&mut self, message: &Message) {
        match self.channels.get(&message.topic) {
            Some(channel) if !channel.address.is_left_by(message) => {}
            None => self.send(&outbound::answer(message, Answer::Ok)),
            Some(_) => {
                if let Some(channel) = self.channels.remove(&message.topic) {
                    self.send(&channel.address.reply(message, Answer::Ok));
                    self.send(&channel.address.close());
                    self.gone(channel);
                }
            }
        }
    }

    /// Says why a channel is closed, and closes it.
    fn shut(&mut self, topic: &str, why: &Shutdown) {
        if let Some(channel) = self.channels.remove(topic) {
            self.send(&channel.address.shutdown(why));
            self.send(&channel.address.close());
            self.gone(channel);
        }
    }

    fn gone(&self, channel: Channel) {
        self.realtime.untrack(channel.membership.member.id);
    }

    async fn renew(&mut self, message: &Message, token: Option<String>) {
        let (realtime, credential) = (self.realtime.clone(), self.credential.clone());
        let Some(channel) = self.channel(message) else { return };
        let Some(token) = token.filter(|token| channel.holder.token.as_deref() != Some(token)) else { return };
        let renewed = match realtime.holder(&credential, &token) {
            Ok(holder) => channel.renew(&realtime, holder).await,
            Err(fault) => Err(Shutdown::Token(fault)),
        };
        match renewed {
            Err(why) => self.shut(&message.topic, &why),
            Ok(News::Presence) => {
                let channel = &self.channels[&message.topic];
                self.send(&channel.address.presence_state(realtime.present(&channel.membership.room)));
            }
            Ok(News::None) => {}
        }
    }

    async fn broadcast(&mut self, message: &Message, payload: &Payload) {
        let realtime = self.realtime.clone();
        let Some(channel) = self.channel(message) else { return };
        if realtime.hub.rate.is_reached() {
            return self.shut(&message.topic, &Shutdown::TooManyMessages);
        }
        realtime.hub.rate.add(1);
        if !channel.may_say(&realtime, Extension::Broadcast).await {
            // Nothing is said of it, as in realtime.
            return;
        }
        let answer = if realtime.settings.limits.passes(payload.len()) {
            let room = &channel.membership.room;
            let but = (!channel.hears_own).then_some(channel.membership.member.id);
            realtime.say(room, payload, but);
            realtime.hub.pace(room).await;
            Answer::Ok
        } else {
            Answer::Declined(Declined::TooLarge)
        };
        if channel.acknowledges {
            channel.membership.member.say(&channel.address.reply(message, answer));
        }
    }

    async fn presence(&mut self, message: &Message, call: Call) {
        let realtime = self.realtime.clone();
        let limits = &realtime.settings.limits;
        let Some(channel) = self.channel(message) else { return };
        if matches!(call, Call::Track(_) | Call::Untrack) {
            if channel.calls_too_often(limits.client_presences, limits.client_presence_window) {
                return self.shut(&message.topic, &Shutdown::TooManyClientPresences);
            }
            if realtime.presences.is_reached() {
                return self.shut(&message.topic, &Shutdown::TooManyPresences);
            }
            realtime.presences.add(1);
        }
        let answer = match call {
            Call::Nothing => Answer::Ok,
            Call::NotAnObject => Answer::Declined(Declined::NotAnObject),
            Call::Track(payload) if !limits.passes(payload.len()) => {
                return self.shut(&message.topic, &Shutdown::PresenceTooLarge);
            }
            Call::Track(payload) if channel.may_say(&realtime, Extension::Presence).await => {
                channel.hear_presence();
                realtime.track(&channel.membership.room, channel.membership.member.id, &channel.key, payload);
                Answer::Ok
            }
            Call::Unknown | Call::Track(_) => Answer::Declined(Declined::Presence),
            Call::Untrack => {
                realtime.untrack(channel.membership.member.id);
                Answer::Ok
            }
        };
        let reply = channel.address.reply(message, answer);
        self.send(&reply);
    }

    /// It was closed because it did not read.
    pub fn was_slow(&self) {
        count(&self.realtime.figures.slow);
    }

    /// The node stops.
    pub fn disconnect(&self) {
        for channel in self.channels.values() {
            self.send(&channel.address.system(&System::Disconnect));
        }
        self.outbox.close(Closing::Restarting);
    }
}

impl Writes {
    /// Of a public channel.
    const ALL: Self = Self { broadcasts: Some(true), presence: Some(true) };
}

/// What a client has to hear because of another token.
enum News {
    None,
    /// Who is present, which it might not know before.
    Presence,
}

impl Channel {
    /// Goes by another token from now on: its rights are asked for anew. Whoever loses one is closed.
    async fn renew(&mut self, realtime: &Realtime, holder: Holder) -> Result<News, Shutdown> {
        if holder.session.as_ref().is_some_and(|session| session.is_over()) {
            return Err(Shutdown::Token(Token::SessionOver));
        }
        let Room { name, is_private } = &self.membership.room;
        if let Some(listening) = &self.listening {
            listening.change(realtime.feed.viewer(&holder.asker));
            self.membership.member.say(&self.address.system(&System::Subscribed { position: None }));
        }
        if !is_private {
            self.holder = holder;
            return Ok(News::None);
        }
        let reads = realtime.rights.reads(&holder.asker, name).await.map_err(|failure| failure.shutdown(name))?;
        let before = std::mem::replace(&mut self.reads, reads);
        (self.holder, self.writes) = (holder, Writes::default());
        let is_lost = |before: bool, now: bool| before && !now;
        if !(reads.broadcasts || (self.hears_presence && reads.presence)) {
            return Err(Shutdown::Unauthorized { name: name.to_string() });
        }
        if is_lost(before.broadcasts, reads.broadcasts)
            || (self.hears_presence && is_lost(before.presence, reads.presence))
        {
            return Err(Shutdown::Revoked { name: name.to_string() });
        }
        let member = &self.membership.member;
        member.hears_broadcasts.store(reads.broadcasts, Ordering::Relaxed);
        member.hears_presence.store(reads.presence && self.hears_presence, Ordering::Relaxed);
        let is_won = self.hears_presence && reads.presence && !before.presence;
        Ok(if is_won { News::Presence } else { News::None })
    }

    /// Whoever is present hears who else is, even where the join did not ask for it.
    fn hear_presence(&mut self) {
        self.hears_presence = true;
        self.membership.member.hears_presence.store(self.reads.presence, Ordering::Relaxed);
    }

    /// Whether it may say something, which is asked for once for each token. Where that fails it may not, and is asked for again.
    async fn may_say(&mut self, realtime: &Realtime, extension: Extension) -> bool {
        let known = match extension {
            Extension::Broadcast => &mut self.writes.broadcasts,
            Extension::Presence => &mut self.writes.presence,
        };
        if known.is_none() {
            *known = realtime.rights.writes(&self.holder.asker, &self.membership.room.name, extension).await.ok();
        }
        known.unwrap_or(false)
    }

    fn calls_too_often(&mut self, most: u32, window: Duration) -> bool {
        let (begun, count) = &mut self.calls;
        if begun.elapsed() >= window {
            (*begun, *count) = (Instant::now(), 0);
        }
        *count += 1;
        *count > most
    }
}

/// That of a broadcast which came through the database.
fn id_of(message: &Fanout) -> Option<String> {
    let Payload::Broadcast(broadcast) = &message.message().payload else { return None };
    let meta = broadcast.meta.as_ref()?.value()?;
    meta["id"].as_str().map(str::to_owned)
}

impl Drop for Client {
    fn drop(&mut self) {
        for (_, channel) in self.channels.drain() {
            self.realtime.untrack(channel.membership.member.id);
        }
    }
}
