//! What clients cost that say nothing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::swarm::Swarm;
use crate::measure::GroupMemory;
use crate::subject::Subject;

const CLIENTS: usize = 10_000;
/// In one channel.
const TOGETHER: usize = 100;

pub struct Idle {
    pub subject: &'static str,
    pub clients: usize,
    pub before: GroupMemory,
    pub after: GroupMemory,
}

impl Idle {
    /// What each has added to the node, in kB of PSS.
    pub fn each_kilobytes(&self) -> f64 {
        (self.after.node.pss - self.before.node.pss) * 1024.0 / super::count(self.clients as u64)
    }

    pub fn json(&self) -> Value {
        json!({
            "subject": self.subject, "clients": self.clients, "before": self.before.json(), "after": self.after.json(),
            "each_kilobytes": self.each_kilobytes(),
        })
    }
}

/// A node that was just started, and clients who have joined and are quiet.
pub fn idle(subject: &mut Subject, is_quick: bool) -> Result<Idle, String> {
    let clients = if is_quick { CLIENTS / 10 } else { CLIENTS };
    subject.restart()?;
    quiet();
    let before = GroupMemory::of(&subject.node)?;
    let mut swarm = Swarm::new(subject)?;
    for at in 0..clients {
        swarm.join(&format!("room-{}", at / TOGETHER), "{}", None)?;
    }
    swarm.told("phx_reply", clients)?;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        swarm.hear(until, &mut |_, _, _| {})?;
    }
    let after = GroupMemory::of(&subject.node)?;
    Ok(Idle { subject: subject.name, clients, before, after })
}

fn quiet() {
    std::thread::sleep(Duration::from_secs(2));
}
