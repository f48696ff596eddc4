//! Nodes are killed under clients that listen to a table that others write to: whoever joins again with the last position it saw, on
//! whatever node, ends with the whole history, each change once and in its order.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use ntier_tests::websocket::{Client, Heard};
use ntier_tests::{Backend, Node, World, until};
use serde_json::{Value, json};

use super::alone;

const CLIENTS: usize = 200;
const NODES: usize = 3;
/// One every few seconds, for about a minute.
const KILLS: usize = 20;
/// Changes that the clients hear between two kills.
const BETWEEN: usize = 120;
const WRITERS: u32 = 3;
const COUNTERS: u32 = 10;

/// What a client has heard of one change: where it stands, which counter, and what it was set to.
type Step = (String, i64, i64);

#[test]
fn clients_miss_nothing_while_nodes_are_killed() {
    let _alone = alone();
    let world = World::start(Backend::Server);
    world.sql(&format!(
        "create table counters (id int primary key, n bigint not null);
         insert into counters select number, 0 from generate_series(0, {COUNTERS}) number;
         grant select on counters to anon;
         alter publication supabase_realtime add table counters;
         select 1"
    ));
    let nodes: Vec<Mutex<Node>> = (0..NODES).map(|_| Mutex::new(world.another())).collect();
    let (joined, heard, is_over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let url = world.database_url.clone().expect("a server");
    let histories = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (nodes, world, joined, heard) = (&nodes, &world, &joined, &heard);
                scope.spawn(move || history(number, nodes, world.key("publishable_key"), joined, heard))
            })
            .collect();
        until("all have joined", || joined.load(Ordering::Relaxed) == CLIENTS);
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let (url, is_over) = (&url, &is_over);
                scope.spawn(move || write(number, url, is_over))
            })
            .collect();
        for kill in 0..KILLS {
            let seen = heard.load(Ordering::Relaxed);
            until("the clients hear changes", || heard.load(Ordering::Relaxed) >= seen + BETWEEN * CLIENTS);
            let mut node = nodes[kill % NODES].lock().unwrap_or_else(PoisonError::into_inner);
            node.kill();
            *node = world.another();
        }
        is_over.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().expect("the writer ends");
        }
        // The last that everybody hears.
        world.sql("update counters set n = 1 where id = 0; select 1");
        clients.into_iter().map(|client| client.join().expect("the client ends")).collect::<Vec<_>>()
    });
    let written = world.sql("select id, n from counters order by id");
    let history = &histories[0];
    for counter in written.as_array().expect("rows") {
        let steps = history.iter().filter(|(_, id, _)| counter["id"] == *id).map(|(_, _, n)| *n);
        let last = counter["n"].as_i64().expect("a number");
        assert_eq!(steps.collect::<Vec<_>>(), (1..=last).collect::<Vec<_>>(), "{counter}");
    }
    for (number, other) in histories.iter().enumerate() {
        assert_eq!(other.len(), history.len(), "{number}");
        assert_eq!(other, history, "{number}");
    }
    println!("{CLIENTS} clients heard {} changes each, once and in order, over {KILLS} kills", history.len());
}

/// Sets counters, each time to one more: several in a transaction, in an order of its own, and some that are undone.
fn write(number: u32, url: &str, is_over: &AtomicBool) {
    let mut psql = Command::new("psql")
        .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-d", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("psql comes with the server");
    let mut input = psql.stdin.take().expect("piped");
    let output = psql.stdout.take().expect("piped");
    let mut said = std::io::BufRead::lines(std::io::BufReader::new(output));
    let mut round = number;
    while !is_over.load(Ordering::Relaxed) {
        round = round.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [one, other] = [round >> 8, round >> 16].map(|random| 1 + random % COUNTERS);
        // The lower first, so that they do not wait for each other in a circle.
        let (one, other) = (one.min(other), one.max(other));
        let end = if (round >> 24).is_multiple_of(8) { "rollback" } else { "commit" };
        let script = format!(
            "begin; update counters set n = n + 1 where id = {one}; select pg_sleep(0.01);
             update counters set n = n + 1 where id = {other}; {end}; select pg_sleep(0.05), 'done';\n"
        );
        input.write_all(script.as_bytes()).expect("psql reads");
        while said.next().is_some_and(|line| !line.expect("psql says").ends_with("done")) {}
    }
    drop(input);
    assert!(psql.wait().expect("psql ends").success());
}

fn history(number: usize, nodes: &[Mutex<Node>], key: &str, joined: &AtomicUsize, heard: &AtomicUsize) -> Vec<Step> {
    let (mut history, mut since) = (Vec::new(), Value::Null);
    for turn in number.. {
        // A node that is being exchanged is waited for.
        let url = nodes[turn % NODES].lock().unwrap_or_else(PoisonError::into_inner).url.clone();
        let Ok(mut client) = Client::try_connect(&url, key) else { continue };
        let entry = json!({ "event": "UPDATE", "schema": "public", "table": "counters", "since": since });
        let join = json!({ "config": { "postgres_changes": [entry] } }).to_string();
        if client.try_push("room", "phx_join", &join).is_err() {
            continue;
        }
        loop {
            let all = client.take();
            if all.is_empty() {
                break;
            }
            for message in all {
                let Heard::Text(message) = message else { continue };
                let (event, payload) = (message[3].as_str().unwrap_or_default(), &message[4]);
                if event == "system" {
                    assert_eq!(payload["status"], "ok", "{payload}");
                    if since.is_null() {
                        since = payload["position"].clone();
                        joined.fetch_add(1, Ordering::Relaxed);
                    }
                } else if event == "postgres_changes" {
                    let data = &payload["data"];
                    let number = |key: &str| data["record"][key].as_i64().expect("a number");
                    since = data["position"].clone();
                    history.push((since.as_str().expect("a position").to_owned(), number("id"), number("n")));
                    heard.fetch_add(1, Ordering::Relaxed);
                    if number("id") == 0 {
                        return history;
                    }
                }
            }
        }
    }
    unreachable!("turns do not end")
}
