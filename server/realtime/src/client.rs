//! One client: what it says is read, decided and answered, one message after the other. What is to be sent goes to the outbox, so
//! nothing here waits for the network; what has to be asked of the database is waited for. Whoever drops that waiting drops the client.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ntier_protocol::realtime::error::{Declined, Refusal, Shutdown};
use ntier_protocol::realtime::frame::{Frame, Version};
use ntier_protocol::realtime::inbound::{self, Inbound};
use ntier_protocol::realtime::join::Join;
use ntier_protocol::realtime::message::{Message, Payload};
use ntier_protocol::realtime::outbound::{self, Address, Answer, System};
use ntier_protocol::realtime::presence::Call;
use ntier_protocol::realtime::write::Fanout;
use ntier_protocol::realtime::{read, topic, write};

use crate::Realtime;
use crate::admit::{Credential, Holder};
use crate::hub::{Hears, Member, Membership, Room};
use crate::outbox::{Closing, Outbox};

/// A connection and its channels.
pub struct Client {
    realtime: Arc<Realtime>,
    version: Version,
    credential: Credential,
    holder: Holder,
    pub outbox: Arc<Outbox>,
    /// By topic.
    channels: HashMap<String, Channel>,
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
}

impl Client {
    pub fn new(realtime: Arc<Realtime>, version: Version, credential: Credential, holder: Holder) -> Self {
        let outbox = Arc::new(Outbox::new(realtime.settings.outbox));
        Self { realtime, version, credential, holder, outbox, channels: HashMap::new() }
    }

    /// Takes what came. What cannot be read is dropped, as in realtime.
    pub async fn take(&mut self, frame: &Frame) {
        let Ok(message) = read::from_client(frame, self.version) else { return };
        match inbound::read(&message) {
            Inbound::Heartbeat => self.send(&outbound::answer(&message, Answer::Ok)),
            Inbound::Unnamed => self.refuse(&message, Refusal::NoName),
            Inbound::Unmatched => self.send(&outbound::answer(&message, Answer::Declined(Declined::Unmatched))),
            Inbound::Join { name, join } => self.join(&message, name, *join).await,
            Inbound::Leave => self.leave(&message),
            Inbound::Token(token) => self.renew(&message, token),
            Inbound::Broadcast(payload) => self.broadcast(&message, payload),
            Inbound::Presence(call) => self.presence(&message, call),
            Inbound::Unknown => {
                self.channel(&message);
            }
        }
    }

    /// When a channel's token expires, at the earliest.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.channels.values().filter_map(|channel| channel.holder.until).min()
    }

    /// Closes the channels whose token has expired.
    pub fn expire(&mut self) {
        let now = Instant::now();
        let is_over = |channel: &Channel| channel.holder.until.is_some_and(|until| until <= now);
        let over: Vec<String> =
            self.channels.iter().filter(|(_, channel)| is_over(channel)).map(|(topic, _)| topic.clone()).collect();
        for topic in over {
            self.shut(&topic, &Shutdown::Token(ntier_protocol::realtime::error::Token::Expired { ago: 0 }));
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
        match self.joined(message, name, join).await {
            Ok(()) => {}
            Err(refusal) => self.refuse(message, refusal),
        }
    }

    /// What a join does, in the order of what its client hears.
    async fn joined(&mut self, message: &Message, name: &str, join: Join) -> Result<(), Refusal> {
        if let Some(before) = self.channels.remove(&message.topic) {
            self.send(&before.address.close());
            self.gone(before);
        }
        if self.channels.len() >= self.realtime.settings.limits.channels_per_client {
            return Err(Refusal::TooManyChannels);
        }
        let holder = match &join.access_token {
            Some(token) => self.realtime.holder(&self.credential, token)?,
            None => self.holder,
        };
        if join.private {
            return Err(Refusal::Unauthorized { name: name.to_owned() });
        }
        let address = Address::of(message);
        let room = Room { name: name.into(), is_private: join.private };
        self.send(&address.reply(message, Answer::joined(&join)));
        let member = Member {
            id: self.realtime.hub.number(),
            version: self.version,
            outbox: self.outbox.clone(),
            hears_broadcasts: true,
            hears_presence: true,
        };
        let membership = self.realtime.hub.join(room, member);
        let key = join.presence.key.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let (acknowledges, hears_own) = (join.broadcast.acknowledged, join.broadcast.own);
        let calls = (Instant::now(), 0);
        let channel = Channel { address, membership, holder, acknowledges, hears_own, key, calls };
        self.subscribe(&channel, &join).await;
        if join.presence.enabled {
            self.send(&channel.address.presence_state(self.realtime.present(&channel.membership.room)));
        }
        self.channels.insert(message.topic.clone(), channel);
        Ok(())
    }

    /// After the reply and before `presence_state`: what the channel hears of the database, and `system` about it.
    async fn subscribe(&mut self, _channel: &Channel, _join: &Join) {}

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
        self.realtime.untrack(&channel.membership.room, channel.membership.member.id);
    }

    fn renew(&mut self, message: &Message, token: Option<String>) {
        let (realtime, credential) = (self.realtime.clone(), self.credential.clone());
        let Some(channel) = self.channel(message) else { return };
        let Some(token) = token else { return };
        match realtime.holder(&credential, &token) {
            Ok(holder) => channel.holder = holder,
            Err(fault) => self.shut(&message.topic, &Shutdown::Token(fault)),
        }
    }

    fn broadcast(&mut self, message: &Message, payload: &Payload) {
        let (realtime, version) = (self.realtime.clone(), self.version);
        let Some(channel) = self.channel(message) else { return };
        let length = match payload {
            Payload::Json(json) => json.len(),
            Payload::Broadcast(broadcast) => broadcast.content.len(),
        };
        let answer = if realtime.settings.limits.passes(length) {
            let room = &channel.membership.room;
            let relayed = Arc::new(Fanout::new(outbound::relayed(&topic::of(&room.name), payload)));
            let but = (!channel.hears_own).then_some(channel.membership.member.id);
            realtime.hub.say(room, Hears::Broadcasts, &relayed, but);
            Answer::Ok
        } else {
            Answer::Declined(Declined::TooLarge)
        };
        if channel.acknowledges
            && let Some(frame) = write::to_client(&channel.address.reply(message, answer), version)
        {
            self.outbox.push(frame);
        }
    }

    fn presence(&mut self, message: &Message, call: Call) {
        let realtime = self.realtime.clone();
        let limits = &realtime.settings.limits;
        let Some(channel) = self.channel(message) else { return };
        let answer = match call {
            Call::Nothing => Answer::Ok,
            Call::Unknown => Answer::Declined(Declined::Presence),
            Call::NotAnObject => Answer::Declined(Declined::NotAnObject),
            Call::Track(_) | Call::Untrack
                if channel.calls_too_often(limits.client_presences, limits.client_presence_window) =>
            {
                return self.shut(&message.topic, &Shutdown::TooManyClientPresences);
            }
            Call::Track(payload) if !limits.passes(payload.len()) => {
                return self.shut(&message.topic, &Shutdown::PresenceTooLarge);
            }
            Call::Track(payload) => {
                realtime.track(&channel.membership.room, channel.membership.member.id, &channel.key, payload);
                Answer::Ok
            }
            Call::Untrack => {
                realtime.untrack(&channel.membership.room, channel.membership.member.id);
                Answer::Ok
            }
        };
        let reply = channel.address.reply(message, answer);
        self.send(&reply);
    }

    /// The node stops.
    pub fn disconnect(&self) {
        for channel in self.channels.values() {
            self.send(&channel.address.system(&System::Disconnect));
        }
        self.outbox.close(Closing::Restarting);
    }
}

impl Channel {
    fn calls_too_often(&mut self, most: u32, window: Duration) -> bool {
        let (begun, count) = &mut self.calls;
        if begun.elapsed() >= window {
            (*begun, *count) = (Instant::now(), 0);
        }
        *count += 1;
        *count > most
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        for (_, channel) in self.channels.drain() {
            self.realtime.untrack(&channel.membership.room, channel.membership.member.id);
        }
    }
}
