//! What goes wrong on its own: processes killed, statements that never end, queues that fill. Nothing acknowledged is lost, nothing
//! half done stays, and service comes back.
//!
//! A binary of its own, so that the other suites do not share the machine while times matter.

mod realtime;
mod resumable;
mod tier_n;
mod uploads;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ntier_tests::node::{Node, PATIENCE, send};
use ntier_tests::world::{agent, hasty_agent};
use ntier_tests::{Ask, Backend, Who, World, on_both, until};
use rustix::process::Signal;
use serde_json::{Value, json};

on_both!(
    a_runaway_statement_is_ended,
    a_stack_overflow_ends_only_its_request,
    a_full_queue_says_so,
    a_node_stops_in_order
);

/// As the issue has it: twenty times, with writers that never pause.
const KILLS: u32 = 20;
/// How long service was away, each time. It is shown and not judged: a busy machine is no fault (`--nocapture` shows it).
#[derive(Default)]
struct Away(Vec<Duration>);

impl Drop for Away {
    fn drop(&mut self) {
        self.0.sort();
        if let (Some(middle), Some(worst)) = (self.0.get(self.0.len() / 2), self.0.last()) {
            println!("service was away for {middle:.2?} in the middle, {worst:.2?} at most");
        }
    }
}

/// One of these at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn nothing_acknowledged_is_lost_when_the_engine_is_killed() {
    let _alone = alone();
    let world = World::start(Backend::Embedded);
    let load = Load::default();
    std::thread::scope(|scope| {
        // More than the engine has on the way at once, so that they share flushes of the log.
        for writer in 0..8 {
            let (load, world) = (&load, &world);
            scope.spawn(move || load.write(writer, &|line| world.ask(&Who::Service, line)));
        }
        let ended = load.end_on_panic();
        let mut away = Away::default();
        for _ in 0..KILLS {
            load.wait_for_acknowledged(10);
            let engine = world.node.engine().expect("the engine runs");
            send(engine, Signal::KILL);
            let begun = Instant::now();
            until("service is back", || world.ask(&Who::Service, "GET /rpc/who").send().status == 200);
            away.0.push(begun.elapsed());
        }
        drop(ended);
    });
    load.check(&world);
}

/// As a machine that sleeps does it, or a debugger.
#[test]
fn an_engine_that_stood_still_goes_on() {
    let _alone = alone();
    let world = World::start(Backend::Embedded);
    let engine = world.node.engine().expect("the engine runs");
    for _ in 0..3 {
        send(engine, Signal::STOP);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| world.ask(&Who::Service, "GET /rpc/who").send().status);
            send(engine, Signal::CONT);
            assert_eq!(asked.join().unwrap(), 200);
        });
        assert_eq!(world.node.engine(), Some(engine), "it is the same one");
    }
}

/// After a crash PostgreSQL goes through the folder of a database, for tables that are not logged, in a way that the engine's file
/// system does not bear well; see `padding.rs` there and migration 22.
#[test]
fn an_embedded_database_opens_whatever_is_in_its_folder() {
    let _alone = alone();
    let world = World::start(Backend::Embedded);
    let made = world.sql(
        "create unlogged table fast (id int generated always as identity primary key, what text default repeat('x', 5000));
         insert into fast default values;
         create unlogged sequence numbers;
         create unlogged table copied as select * from fast;
         select what into unlogged into_this from fast;
         create table slow (id serial primary key);
         alter table slow set unlogged;
         create temporary table scratch (id int);
         select string_agg(distinct relpersistence::text, '') as kinds from pg_class
         where relname in ('fast', 'fast_id_seq', 'fast_pkey', 'numbers', 'copied', 'into_this', 'slow', 'slow_id_seq')",
    );
    assert_eq!(made, json!([{ "kinds": "p" }]));
    // What crashes in the middle of transactions leave of such tables. The folder is given in portions of somewhat more than a hundred
    // names: wherever they are cut, one of these rounds has it among its files.
    let base = world.data().join("cluster/pgdata/base/5");
    let names = || -> Vec<String> {
        std::fs::read_dir(&base).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let mut sorted = names();
    sorted.sort();
    for anchor in sorted.iter().skip(120).step_by(12).take(12) {
        let digits = anchor.split('_').next().unwrap();
        let left: Vec<String> = (0..8).map(|number| format!("{digits}{number}")).collect();
        for name in &left {
            std::fs::write(base.join(format!("{name}_init")), [0; 8192]).unwrap();
        }
        let engine = world.node.engine().unwrap();
        send(engine, Signal::KILL);
        until("another engine runs", || world.node.engine().is_some_and(|another| another != engine));
        until("it answers", || world.ask(&Who::Service, "GET /films?select=id&id=eq.1").send().status == 200);
        assert_eq!(world.sql("select count(*)::int as n from fast"), json!([{ "n": 1 }]));
        for name in left {
            std::fs::remove_file(base.join(&name)).expect("it was made of what is below");
            std::fs::remove_file(base.join(format!("{name}_init"))).unwrap();
        }
        assert!(names().iter().all(|name| !name.starts_with("0-")), "padding is taken away");
    }
}

fn node_is_killed(backend: Backend) {
    let _alone = alone();
    let world = World::start(backend);
    let url = RwLock::new(world.node.url.clone());
    let load = Load::default();
    let mut node: Option<Node> = None;
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (load, world, url) = (&load, &world, &url);
            scope.spawn(move || {
                load.write(writer, &|line| {
                    let mut ask = world.ask(&Who::Service, line);
                    ask.move_to(&world.node.url, &url.read().unwrap());
                    ask
                });
            });
        }
        let ended = load.end_on_panic();
        let mut away = Away::default();
        for _ in 0..KILLS {
            load.wait_for_acknowledged(10);
            let killed = node.as_ref().unwrap_or(&world.node).process();
            send(killed, Signal::KILL);
            let begun = Instant::now();
            let next = world.another();
            away.0.push(begun.elapsed());
            url.write().unwrap().clone_from(&next.url);
            node = Some(next);
        }
        drop(ended);
    });
    load.check(&world);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_node_is_killed_embedded() {
    node_is_killed(Backend::Embedded);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_node_is_killed_server() {
    node_is_killed(Backend::Server);
}

/// Writers that remember what they were told.
#[derive(Default)]
struct Load {
    acknowledged: Mutex<HashSet<String>>,
    grown: Condvar,
    done: AtomicBool,
}

impl Load {
    fn write<'a>(&self, writer: u32, ask: &dyn Fn(&str) -> Ask<'a>) {
        let agent = agent();
        for number in 0.. {
            if self.done.load(Ordering::SeqCst) {
                return;
            }
            let entry = format!("{writer}-{number}");
            let asked = ask("POST /rpc/post").json(&json!({ "entry": entry })).through(&agent);
            // Whoever gets no answer knows nothing: the entry may be there or not, but never half.
            let Ok(answer) = asked else { continue };
            match answer.status {
                200 => {
                    self.acknowledged.lock().unwrap().insert(entry);
                    self.grown.notify_all();
                }
                503 => assert!(answer.header("retry-after").is_some(), "{}", answer.text()),
                status => panic!("{status} {}", answer.text()),
            }
        }
    }

    /// Until so many more are acknowledged.
    fn wait_for_acknowledged(&self, more: usize) {
        let acknowledged = self.acknowledged.lock().unwrap();
        let wanted = acknowledged.len() + more;
        let few = |acknowledged: &mut HashSet<String>| acknowledged.len() < wanted;
        let (_acknowledged, waited) = self.grown.wait_timeout_while(acknowledged, PATIENCE, few).unwrap();
        assert!(!waited.timed_out(), "nothing is acknowledged any more");
    }

    fn end_on_panic(&self) -> impl Drop {
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        End(&self.done)
    }

    fn check(&self, world: &World) {
        let list = world.sql("select entry, count(*)::int as halves from ledger_halves group by entry");
        let list = list.as_array().unwrap();
        let whole = |row: &&Value| row["halves"] == 2;
        assert_eq!(list.iter().filter(whole).count(), list.len(), "half an entry stayed");
        let kept: HashSet<&str> = list.iter().filter_map(|row| row["entry"].as_str()).collect();
        let acknowledged = self.acknowledged.lock().unwrap();
        let lost: Vec<&String> = acknowledged.iter().filter(|entry| !kept.contains(entry.as_str())).collect();
        assert!(lost.is_empty(), "{} of {} acknowledged entries are lost: {lost:?}", lost.len(), acknowledged.len());
    }
}

fn a_runaway_statement_is_ended(world: &mut World) {
    let others = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let world = &*world;
        // anon's patience is three seconds.
        let runaway = scope.spawn(|| {
            let answer = world.get("/rpc/forever");
            others.store(true, Ordering::SeqCst);
            answer
        });
        let agent = agent();
        let mut answered = 0;
        while !others.load(Ordering::SeqCst) {
            let answer = world.ask(&Who::Service, "GET /films?select=id&id=eq.1").through(&agent).unwrap();
            // On the embedded database the others wait until it is ended; then they are answered or told to come again.
            assert!(answer.status == 200 || answer.status == 503, "{} {}", answer.status, answer.text());
            answered += u32::from(answer.status == 200);
        }
        let ended = runaway.join().unwrap();
        assert_eq!(ended.code(), "57014", "{}", ended.text());
        assert!(answered > 0);
    });
    assert_eq!(world.get("/films?select=id&id=eq.1").json(), json!([{"id": 1}]));
}

fn a_stack_overflow_ends_only_its_request(world: &mut World) {
    for _ in 0..3 {
        let answer = world.get("/rpc/deep?depth=1");
        assert!(answer.status >= 500, "{} {}", answer.status, answer.text());
        assert!(answer.json()["code"].is_string(), "{}", answer.text());
        until("service is back", || world.get("/films?select=id&id=eq.1").status == 200);
    }
}

fn a_full_queue_says_so(world: &mut World) {
    let world = World::start_with(world.backend, &["--database-max-waiting", "4", "--database-connections", "1"]);
    let refused = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let answer = world.ask(&Who::Anon, "GET /rpc/forever").through(&agent()).unwrap();
                if answer.status == 503 {
                    assert!(answer.header("retry-after").is_some());
                    assert!(answer.json()["code"].is_string(), "{}", answer.text());
                    refused.fetch_add(1, Ordering::SeqCst);
                } else {
                    assert_eq!(answer.code(), "57014", "{} {}", answer.status, answer.text());
                }
            });
        }
    });
    assert!(refused.load(Ordering::SeqCst) >= 8, "{} were refused", refused.load(Ordering::SeqCst));
    assert_eq!(world.get("/films?select=id&id=eq.1").json(), json!([{"id": 1}]));
}

/// SIGTERM: what is under way is answered, then it ends.
fn a_node_stops_in_order(world: &mut World) {
    let slow = "create function slow() returns int language sql volatile as 'select 1 from pg_sleep(2)';
        grant execute on function slow to anon";
    world.sql(slow);
    world.reload();
    std::thread::scope(|scope| {
        let world = &*world;
        let asked = scope.spawn(|| world.ask(&Who::Anon, "POST /rpc/slow").json(&json!({})).send());
        // The request is under way when the database runs it: on the embedded one nobody else is answered meanwhile.
        let running = "select count(*)::int as n from pg_stat_activity where state = 'active' and query like '%slow%' \
            and pid <> pg_backend_pid()";
        match world.backend {
            Backend::Server => until("it runs", || world.sql(running)[0]["n"] != 0),
            Backend::Embedded => {
                let hasty = hasty_agent(Duration::from_millis(500));
                until("it runs", || world.ask(&Who::Anon, "GET /films?select=id&id=eq.1").through(&hasty).is_err());
            }
        }
        // Whoever ends a service signals all its processes.
        if let Some(engine) = world.node.engine() {
            send(engine, Signal::TERM);
        }
        send(world.node.process(), Signal::TERM);
        assert_eq!(asked.join().unwrap().status, 200);
    });
    assert!(world.node.wait().success());
    assert!(!world.data().join("node.json").exists());
}
