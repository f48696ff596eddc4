//! Broadcasts to all clients of one channel: as many as there can be, half as many, and a number that other machines and days have too.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::latency::Latency;
use super::swarm::{Said, Swarm};
use super::{Options, count};
use crate::measure;
use crate::subject::Subject;

/// Broadcasts that not all have heard, when as many are sent as can be.
const UNDER_WAY: u64 = 16;
/// Deliveries a second that are far from too many.
pub const CALM: u32 = 50_000;
/// Clients who speak, in turns; all of them hear everything, also what they say.
const SPEAKERS: usize = 8;
/// As realtime-js says it: kind 3, with an event of the application and JSON. What is in it looks like a cursor's place.
const HEAD: &[u8] = b"\x03\x01\x01\x0e\x06\x00\x0117realtime:benchcursor";
const CONTENT: &[u8] =
    br#"{"at":"0000000000000000","x":512,"y":384,"user":"00000000-0000-4000-8000-000000000001","colour":"teal"}"#;
/// Where the time is in it.
const AT: usize = 7;
const DIGITS: usize = 16;

/// One manner of sending, for some seconds.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Deliveries a second.
    pub rate: f64,
    pub latency: Latency,
    /// Of the node, for each delivery, in microseconds.
    pub processor: f64,
}

#[derive(Debug, Clone, Copy)]
pub struct Talk {
    pub full: Seen,
    pub half: Seen,
    pub calm: Seen,
}

impl Talk {
    pub fn json(&self) -> Value {
        json!({ "full": self.full.json(), "half": self.half.json(), "calm": self.calm.json() })
    }
}

impl Seen {
    fn json(&self) -> Value {
        json!({ "deliveries_per_second": self.rate, "latency": self.latency.json(), "processor_us": self.processor })
    }
}

/// When the next is sent.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// Once all have heard an earlier one.
    Closed,
    /// So often, whatever is heard.
    Open(Duration),
}

pub fn talk(options: &Options, subject: &Subject, clients: usize) -> Result<Talk, String> {
    let mut swarm = Swarm::new(subject)?;
    for _ in 0..clients {
        swarm.join("bench", r#"{"broadcast":{"self":true}}"#, None)?;
    }
    swarm.told("phx_reply", clients)?;
    let mut talk = |pace, seconds| Run::new(&swarm, pace).go(&mut swarm, subject, seconds);
    talk(Pace::Closed, options.warm_up)?;
    let full = talk(Pace::Closed, options.seconds)?;
    let mut open = |deliveries: f64| {
        let each = Duration::from_secs_f64(count(clients as u64) / deliveries);
        talk(Pace::Open(each), options.warm_up)?;
        talk(Pace::Open(each), options.seconds)
    };
    let half = open(full.rate / 2.0)?;
    Ok(Talk { full, half, calm: open(CALM.into())? })
}

struct Run {
    pace: Pace,
    begun: Instant,
    clients: u64,
    sent: u64,
    heard: u64,
    times: Vec<u32>,
    frame: Vec<u8>,
}

impl Run {
    fn new(swarm: &Swarm, pace: Pace) -> Self {
        let (clients, frame) = (swarm.len() as u64, [HEAD, CONTENT].concat());
        Self { pace, begun: Instant::now(), clients, sent: 0, heard: 0, times: Vec::new(), frame }
    }

    fn go(mut self, swarm: &mut Swarm, subject: &Subject, seconds: u32) -> Result<Seen, String> {
        let processor = measure::processor_time(subject.node.process());
        let end = self.begun + Duration::from_secs(seconds.into());
        let late = end + Duration::from_secs(30);
        let mut taken = None;
        loop {
            let now = Instant::now();
            if now < end {
                while let Some(at) = self.due(Instant::now()) {
                    self.send(swarm, at)?;
                }
            } else {
                // What is still under way when the time is over belongs to nobody's rate.
                taken.get_or_insert((self.heard, now - self.begun));
                if self.heard >= self.sent * self.clients {
                    break;
                }
            }
            if now > late {
                return Err(format!("{} of {} broadcasts were heard", self.heard, self.sent * self.clients));
            }
            let until = self.next().filter(|_| now < end).unwrap_or(if now < end { end } else { late });
            let begun = self.begun;
            let (times, heard) = (&mut self.times, &mut self.heard);
            swarm.hear(until, &mut |_, said, now| {
                if let Some(at) = sent_at(said) {
                    let latency = (now - begun).saturating_sub(Duration::from_micros(at));
                    times.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
                    *heard += 1;
                }
            })?;
        }
        if self.heard != self.sent * self.clients || self.heard == 0 {
            return Err(format!("{} of {} broadcasts were heard", self.heard, self.sent * self.clients));
        }
        let (heard, took) = taken.unwrap_or((self.heard, self.begun.elapsed()));
        let processor = measure::processor_time(subject.node.process()).saturating_sub(processor);
        Ok(Seen {
            rate: count(heard) / took.as_secs_f64(),
            latency: Latency::of(self.times),
            processor: processor.as_secs_f64() * 1e6 / count(self.heard),
        })
    }

    /// When the next one should have been sent, if that is now or was before.
    fn due(&self, now: Instant) -> Option<Instant> {
        match self.pace {
            Pace::Closed => (self.sent < self.heard / self.clients + UNDER_WAY).then_some(now),
            Pace::Open(_) => self.next().filter(|next| *next <= now),
        }
    }

    fn next(&self) -> Option<Instant> {
        match self.pace {
            Pace::Closed => None,
            Pace::Open(each) => Some(self.begun + each.mul_f64(count(self.sent))),
        }
    }

    fn send(&mut self, swarm: &mut Swarm, at: Instant) -> Result<(), String> {
        let at = format!("{:0DIGITS$}", (at - self.begun).as_micros());
        let from = HEAD.len() + AT;
        self.frame[from..from + DIGITS].copy_from_slice(at.as_bytes());
        let speaker = usize::try_from(self.sent).unwrap_or_default() % SPEAKERS.min(swarm.len());
        self.sent += 1;
        swarm.say(speaker, Said::Binary(&self.frame))
    }
}

/// What the content of a broadcast says; nothing of anything else.
fn sent_at(said: Said<'_>) -> Option<u64> {
    let Said::Binary(bytes) = said else { return None };
    let from = bytes.len().checked_sub(CONTENT.len())? + AT;
    let digits = bytes.get(from..from + DIGITS)?;
    digits.iter().try_fold(0_u64, |at, digit| Some(at * 10 + u64::from(digit.checked_sub(b'0')?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_where_it_was_put() {
        let mut content = CONTENT.to_vec();
        content[AT..AT + DIGITS].copy_from_slice(b"0000000000012345");
        let delivered = [b"\x04\x0e\x06\x00\x01realtime:benchcursor".as_slice(), &content].concat();
        assert_eq!(sent_at(Said::Binary(&delivered)), Some(12_345));
        assert_eq!(sent_at(Said::Text(&delivered)), None);
        assert_eq!(usize::from(HEAD[3]), "realtime:bench".len());
        assert_eq!(usize::from(HEAD[4]), "cursor".len());
    }
}
