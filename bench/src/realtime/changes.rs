//! Changes of a table, to a thousand subscribers of few and of many identities: each may see all of them, by a policy that looks for
//! its membership.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ntier_tests::world::{agent, now};
use serde_json::{Value, json};

use super::latency::Latency;
use super::swarm::{Said, Swarm, position};
use super::{Options, count};
use crate::subject::Subject;

pub const SUBSCRIBERS: usize = 1000;
/// Changes a second, each by a request of its own, where the time is what counts.
const CALM: f64 = 10.0;
/// Changes that not all have heard, where as many are made as can be; and who makes them.
const UNDER_WAY: u64 = 32;
const WRITERS: u64 = 4;
const CHANGE: &[u8] = br#"[null,null,"realtime:bench","postgres_changes""#;

#[derive(Debug, Clone, Copy)]
pub struct Fed {
    /// From the insert, within its transaction, to a subscriber, at a calm pace.
    pub each: Latency,
    /// Likewise, to the last of the subscribers.
    pub all: Latency,
    /// Deliveries a second, when as many changes are made as are heard.
    pub rate: f64,
    pub full: Latency,
}

impl Fed {
    pub fn json(&self) -> Value {
        json!({
            "each": self.each.json(), "all": self.all.json(), "deliveries_per_second": self.rate, "at_full": self.full.json(),
        })
    }
}

pub fn feed(options: &Options, subject: &Subject, identities: usize) -> Result<Fed, String> {
    let mut swarm = Swarm::new(subject)?;
    let config = r#"{"postgres_changes":[{"event":"*","schema":"public","table":"notes"}]}"#;
    for at in 0..SUBSCRIBERS {
        let token = subject.token(&json!({
            "sub": format!("00000000-0000-4000-8000-{:012}", at % identities + 1), "role": "authenticated",
            "aud": "authenticated", "exp": now() + 86_400,
        }))?;
        swarm.join("bench", config, Some(&token))?;
    }
    swarm.told("Subscribed to PostgreSQL", SUBSCRIBERS)?;
    let mut run = |pace, seconds| Run::new(pace, seconds).go(&mut swarm, subject);
    run(Some(CALM), options.warm_up)?;
    let calm = run(Some(CALM), options.seconds)?;
    run(None, options.warm_up)?;
    let full = run(None, options.seconds)?;
    Ok(Fed { each: calm.each, all: calm.all, rate: full.rate, full: full.each })
}

struct Seen {
    each: Latency,
    all: Latency,
    rate: f64,
}

struct Run {
    /// Changes a second; `None`: as many as are heard.
    pace: Option<f64>,
    begun: Instant,
    length: Duration,
    /// Changes that were begun, made, and heard by all.
    taken: AtomicU64,
    made: AtomicU64,
    heard: AtomicU64,
    is_over: AtomicBool,
}

impl Run {
    fn new(pace: Option<f64>, seconds: u32) -> Self {
        Self {
            pace,
            begun: Instant::now(),
            length: Duration::from_secs(seconds.into()),
            taken: AtomicU64::new(0),
            made: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    fn go(self, swarm: &mut Swarm, subject: &Subject) -> Result<Seen, String> {
        thread::scope(|scope| {
            let writers = if self.pace.is_some() { 1 } else { WRITERS };
            let writers: Vec<_> = (0..writers).map(|_| scope.spawn(|| self.write(subject))).collect();
            let seen = self.hear(swarm, || writers.iter().all(thread::ScopedJoinHandle::is_finished));
            self.is_over.store(true, Ordering::Relaxed);
            for writer in writers {
                writer.join().map_err(|_| "a writer panicked".to_owned())??;
            }
            seen
        })
    }

    /// Makes changes until the time is over.
    fn write(&self, subject: &Subject) -> Result<(), String> {
        let (agent, url) = (agent(), format!("{}/rest/v1/notes", subject.node.url));
        loop {
            let number = self.taken.fetch_add(1, Ordering::Relaxed);
            if let Some(pace) = self.pace {
                let due = self.begun + Duration::from_secs_f64(count(number) / pace);
                thread::sleep(due.saturating_duration_since(Instant::now()));
            } else {
                while number >= self.heard.load(Ordering::Relaxed) + UNDER_WAY && !self.is_over() {
                    thread::sleep(Duration::from_micros(200));
                }
            }
            if self.is_over() {
                return Ok(());
            }
            let made = agent
                .post(&url)
                .header("apikey", &subject.headers[0].1)
                .header("authorization", &subject.admin)
                .header("content-type", "application/json")
                .send(json!({ "n": number, "body": "what somebody wrote to everybody in the room" }).to_string())
                .map_err(|cause| format!("{url}: {cause}"))?;
            if made.status() != 201 {
                self.is_over.store(true, Ordering::Relaxed);
                return Err(format!("{url}: {} {:?}", made.status(), made.into_body().read_to_string()));
            }
            self.made.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_over(&self) -> bool {
        self.begun.elapsed() > self.length || self.is_over.load(Ordering::Relaxed)
    }

    /// Hears until all of them have heard all that was made.
    fn hear(&self, swarm: &mut Swarm, have_ended: impl Fn() -> bool) -> Result<Seen, String> {
        let late = self.begun + self.length + Duration::from_secs(30);
        let subscribers = swarm.len() as u64;
        // By number: how many have heard it, and how long the last of them waited.
        let mut by_number: Vec<(u64, u32)> = Vec::new();
        let (mut times, mut heard, mut unread, mut taken) = (Vec::new(), 0, None, None);
        loop {
            swarm.hear(Instant::now() + Duration::from_millis(20), &mut |_, said, _| {
                let Said::Text(text) = said else { return };
                if !text.starts_with(CHANGE) {
                    return;
                }
                let Some((number, took)) = read(text) else {
                    unread.get_or_insert_with(|| String::from_utf8_lossy(text).into_owned());
                    return;
                };
                if by_number.len() <= number {
                    by_number.resize(number + 1, (0, 0));
                }
                let (count, longest) = &mut by_number[number];
                (*count, *longest) = (*count + 1, took.max(*longest));
                times.push(took);
                heard += 1;
            })?;
            if let Some(unread) = unread {
                return Err(format!("no change: {unread}"));
            }
            self.heard.store(heard / subscribers, Ordering::Relaxed);
            if self.is_over() {
                taken.get_or_insert((heard, self.begun.elapsed()));
            }
            let made = self.made.load(Ordering::Relaxed);
            if have_ended() && (heard >= made * subscribers || Instant::now() > late) {
                break;
            }
        }
        let made = self.made.load(Ordering::Relaxed);
        // A number that was taken when the time was over stands for no change.
        let is_partly_heard = by_number.iter().any(|(count, _)| *count != 0 && *count != subscribers);
        if heard != made * subscribers || is_partly_heard || made == 0 {
            return Err(format!("{heard} of {} changes were heard", made * subscribers));
        }
        let (heard, took) = taken.unwrap_or((heard, self.begun.elapsed()));
        Ok(Seen {
            each: Latency::of(times),
            all: Latency::of(by_number.into_iter().map(|(_, longest)| longest).collect()),
            rate: count(heard) / took.as_secs_f64(),
        })
    }
}

/// The number of a change, and how many microseconds ago its row says that it was inserted.
fn read(text: &[u8]) -> Option<(usize, u32)> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_micros();
    let ago = now.saturating_sub(number(text, r#""at":"#)?);
    Some((usize::try_from(number(text, r#""n":"#)?).ok()?, u32::try_from(ago).unwrap_or(u32::MAX)))
}

fn number(text: &[u8], name: &str) -> Option<u128> {
    let behind = text.get(position(text, name)? + name.len()..)?;
    let digits = behind.trim_ascii_start();
    let length = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    str::from_utf8(&digits[..length]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_rows_are_found() {
        let text = br#"[null,null,"realtime:bench","postgres_changes",{"ids":[1],"data":{"columns":[{"name":"n","type":"int4"},{"name":"at","type":"int8"}],"record":{"at":1763766000123456,"n": 42}}}]"#;
        assert!(text.starts_with(CHANGE));
        assert_eq!((number(text, r#""n":"#), number(text, r#""at":"#)), (Some(42), Some(1_763_766_000_123_456)));
        assert_eq!(number(br#"{"n":"x"}"#, r#""n":"#), None);
    }
}
