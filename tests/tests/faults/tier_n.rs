//! Two balancers and three nodes, while nodes are killed, drained, cut off, a balancer is exchanged and PostgreSQL restarted: whoever reads is
//! answered, whoever writes with an idempotency key writes once, and what was acknowledged is there.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ntier_tests::cluster::{Cluster, Ground, NODES};
use ntier_tests::world::hasty_agent;
use ntier_tests::{directory, until};
use serde_json::json;

use super::alone;

/// Longer than a node is cut off, and shorter than a hang.
const PATIENCE: Duration = Duration::from_secs(40);
/// A refusal says when to come again, and comes soon.
const PROMPT: Duration = Duration::from_secs(15);
const READERS: usize = 6;
const WRITERS: usize = 3;
const OWNER: &str = "00000000-0000-4000-8000-000000000001";
/// Answers that have to come between two faults.
const STRIDE: u64 = 300;

#[derive(Default)]
struct Load {
    answered: AtomicU64,
    /// PostgreSQL is away: reads may be put off.
    may_be_put_off: AtomicBool,
    put_off: AtomicU64,
    written: Mutex<BTreeSet<String>>,
    faults: Mutex<Vec<String>>,
    /// What is being done to them.
    now: Mutex<&'static str>,
    is_over: AtomicBool,
}

/// What came of a request: its status, when to come again, how long it took and what was said; or why there is no answer.
type Came = Result<(u16, Option<String>, Duration, String), String>;

impl Load {
    fn fault(&self, what: String) {
        let now = *self.now.lock().unwrap();
        self.faults.lock().unwrap().push(format!("{now}: {what}"));
    }

    fn begins(&self, now: &'static str) {
        *self.now.lock().unwrap() = now;
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    fn read(&self, cluster: &Cluster, reader: usize) {
        let agent = hasty_agent(PATIENCE);
        let url = format!("{}/rest/v1/films?select=id,title&limit=3", cluster.balancers[reader % 2].url);
        while self.goes_on() {
            let may_be_put_off = self.may_be_put_off.load(Ordering::Relaxed);
            let begun = Instant::now();
            let came: Came = match agent.get(&url).header("apikey", key(cluster, "publishable_key")).call() {
                Ok(mut answer) => {
                    let said = answer.body_mut().read_to_string().unwrap_or_default();
                    let again = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
                    Ok((answer.status().as_u16(), again, begun.elapsed(), said))
                }
                Err(cause) => Err(cause.to_string()),
            };
            let may_be_put_off = may_be_put_off || self.may_be_put_off.load(Ordering::Relaxed);
            match came {
                Ok((200, ..)) => drop(self.answered.fetch_add(1, Ordering::Relaxed)),
                Ok((503, Some(_), took, _)) if may_be_put_off && took < PROMPT => {
                    self.put_off.fetch_add(1, Ordering::Relaxed);
                }
                other => self.fault(format!("a read: {other:?}")),
            }
        }
    }

    fn write(&self, cluster: &Cluster, writer: usize) {
        let agent = hasty_agent(PATIENCE);
        let url = format!("{}/rest/v1/notes", cluster.balancers[writer % 2].url);
        for number in 0.. {
            let entry = format!("{writer}-{number}");
            // As a client does: the same until it is known.
            loop {
                let asked = agent
                    .post(&url)
                    .header("apikey", key(cluster, "secret_key"))
                    .header("idempotency-key", &format!("\"{entry}\""))
                    .header("content-type", "application/json")
                    .send(json!({ "owner": OWNER, "body": entry }).to_string());
                match asked.map(|answer| answer.status().as_u16()) {
                    Ok(201) => break,
                    Ok(502..=504) | Err(_) if self.goes_on() => {}
                    Ok(502..=504) | Err(_) => return,
                    Ok(status) => return self.fault(format!("a write: {status}")),
                }
            }
            self.written.lock().unwrap().insert(entry);
            if !self.goes_on() {
                return;
            }
        }
    }

    /// Waits until so many more were answered.
    fn advance(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        until("clients are answered", || {
            self.answered.load(Ordering::Relaxed) >= before + STRIDE || !self.faults.lock().unwrap().is_empty()
        });
    }
}

fn key<'a>(cluster: &'a Cluster, name: &str) -> &'a str {
    cluster.keys[name].as_str().unwrap()
}

#[test]
fn clients_of_many_nodes_notice_nothing() {
    let _alone = alone();
    let mut cluster = Cluster::start(Ground::start(), &directory::project(), &[]);
    let mut nodes = std::mem::take(&mut cluster.nodes);
    let load = Load::default();
    let successor = std::thread::scope(|scope| {
        for reader in 0..READERS {
            let (load, cluster) = (&load, &cluster);
            scope.spawn(move || load.read(cluster, reader));
        }
        for writer in 0..WRITERS {
            let (load, cluster) = (&load, &cluster);
            scope.spawn(move || load.write(cluster, writer));
        }
        let _over = Over(&load);
        load.advance();

        load.begins("a node is killed");
        nodes[0].kill();
        cluster.until_up(2);
        load.advance();
        load.begins("it comes back");
        nodes[0] = cluster.node(NODES[0]);
        cluster.until_up(3);
        load.advance();

        load.begins("a node is drained");
        assert!(nodes[1].stop().success(), "it is drained");
        load.advance();
        load.begins("its next version comes");
        nodes[1] = cluster.node(NODES[1]);
        cluster.until_up(3);

        load.begins("a balancer is exchanged");
        let successor = cluster.exchange_balancer(0);
        load.advance();

        if cluster.network.has_cables() {
            load.begins("a node is cut off");
            cluster.network.cut(NODES[2]);
            // As the issue has it; it is the fault, and nothing that is waited for.
            std::thread::sleep(Duration::from_secs(10));
            load.begins("it is there again");
            cluster.network.mend(NODES[2]);
            cluster.until_up(3);
            load.advance();
        }

        load.begins("PostgreSQL is away");
        load.may_be_put_off.store(true, Ordering::Relaxed);
        cluster.postgres.stop();
        until("reads are put off", || {
            load.put_off.load(Ordering::Relaxed) > 0 || !load.faults.lock().unwrap().is_empty()
        });
        cluster.postgres.start();
        load.advance();
        cluster.until_up(3);
        load.begins("PostgreSQL is back");
        load.may_be_put_off.store(false, Ordering::Relaxed);
        load.advance();
        successor
    });
    let faults = load.faults.into_inner().unwrap();
    assert!(
        faults.is_empty(),
        "{} of {}: {:#?}",
        faults.len(),
        load.answered.into_inner(),
        &faults[..faults.len().min(40)]
    );
    let kept = cluster.postgres.sql("app", "select body from notes order by 1");
    let kept: Vec<&str> = kept.lines().collect();
    let written = load.written.into_inner().unwrap();
    assert!(written.len() > 50, "{}", written.len());
    for entry in &written {
        assert_eq!(kept.iter().filter(|kept| *kept == entry).count(), 1, "{entry}");
    }
    let twice = cluster.postgres.sql("app", "select count(*) - count(distinct body) from notes");
    assert_eq!(twice, "0", "no write is done twice");
    drop(successor);
}

/// The load ends, also when a fault of the test ends it.
struct Over<'a>(&'a Load);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}
