//! Clients of several nodes hear each other and see who is there, by PostgreSQL's NOTIFY or by NATS.

use std::time::{Duration, Instant};

use ntier_tests::nats::Nats;
use ntier_tests::node::PATIENCE;
use ntier_tests::websocket::{Client, Heard};
use ntier_tests::{Backend, Node, Who, World, directory, until};
use serde_json::{Value, json};

/// Both ways.
macro_rules! by_both {
    ($($name:ident),* $(,)?) => {
        mod by_postgres {
            $(#[test] fn $name() { super::$name(&super::World::start(super::Backend::Server)); })*
        }
        mod by_nats {
            $(#[test] fn $name() {
                let nats = super::Nats::start(&["--user", "me", "--pass", "p@ss"]);
                super::$name(&super::world(&format!("nats://me:p%40ss@127.0.0.1:{}", nats.port)));
            })*
        }
    };
}

by_both!(
    broadcasts_reach_the_clients_of_other_nodes,
    all_nodes_know_who_is_present,
    the_clients_of_a_node_that_ends_leave_on_the_others,
);

fn world(bus: &str) -> World {
    World::start_with(Backend::Server, &["--realtime-bus", bus])
}

fn connect(world: &World, node: &Node) -> Client {
    Client::connect(&node.url, world.key("publishable_key"))
}

/// Waits until what the first says is heard by the others: nodes may still be on their way to each other.
fn meet(room: &str, first: &mut Client, others: &[&Client]) {
    let mut number = 0;
    until("they hear each other", || {
        number += 1;
        first.push(room, "broadcast", &json!({ "type": "broadcast", "event": "hello", "payload": { "n": number } }));
        let is = |heard: &Heard| matches!(heard, Heard::Text(message) if message[4]["payload"]["n"] == number);
        let patience = Duration::from_millis(500);
        others.iter().all(|other| other.within(patience, |all| all.iter().any(is).then_some(())).is_some())
    });
}

fn with_key(key: &str) -> Value {
    json!({ "presence": { "key": key, "enabled": true } })
}

fn broadcasts_reach_the_clients_of_other_nodes(world: &World) {
    let second = world.another();
    let (mut one, mut two) = (connect(world, &world.node), connect(world, &second));
    let mut elsewhere = connect(world, &second);
    one.join("talk", &json!({}));
    two.join("talk", &json!({}));
    elsewhere.join("elsewhere", &json!({}));
    meet("talk", &mut one, &[&two]);

    // Letters and bytes stay as they came.
    let long = format!(r#"{{"b":1.50,"a" : "{}\u00e4ö"}}"#, "x".repeat(100_000));
    let bytes: Vec<u8> = (0..100_000_u32).map(|number| u8::try_from(number % 256).unwrap()).collect();
    for (event, is_json, content) in [
        ("small", true, &b"{\"a\" : 1}"[..]),
        ("long", true, long.as_bytes()),
        ("binary", false, &bytes[..]),
        ("nothing", false, &b""[..]),
    ] {
        one.broadcast("talk", event, is_json, content);
        let heard = two.until(event, |heard| match heard {
            Heard::Broadcast { event: is, topic, is_json, content } if is == event => {
                Some((topic.clone(), *is_json, content.clone()))
            }
            _ => None,
        });
        assert!(heard == ("realtime:talk".to_owned(), is_json, content.to_vec()), "{event} came as something else");
    }

    // Many at once, some of them long, come in their order.
    let filling = "y".repeat(20_000);
    for number in 0..500 {
        let filling = if number % 50 == 7 { &filling } else { "" };
        let payload =
            json!({ "type": "broadcast", "event": "count", "payload": { "number": number, "filling": filling } });
        one.push("talk", "broadcast", &payload);
    }
    let counted = |all: &[Heard]| -> Vec<i64> {
        let numbers = all.iter().filter_map(|heard| match heard {
            Heard::Text(message) if message[4]["event"] == "count" => message[4]["payload"]["number"].as_i64(),
            _ => None,
        });
        numbers.collect()
    };
    two.until("the last", |heard| {
        matches!(heard, Heard::Text(message) if message[4]["payload"]["number"] == 499).then_some(())
    });
    assert_eq!(counted(&two.all()), (0..500).collect::<Vec<_>>());

    // Those that are alike are as many.
    for _ in 0..500 {
        one.push("talk", "broadcast", &json!({ "type": "broadcast", "event": "same", "payload": {} }));
    }
    let is_same = |heard: &&Heard| matches!(heard, Heard::Text(message) if message[4]["event"] == "same");
    let all = two.within(PATIENCE, |all| (all.iter().filter(is_same).count() >= 500).then_some(()));
    assert!(all.is_some(), "{} of 500", two.all().iter().filter(is_same).count());

    // Whoever has no socket is heard on all nodes too.
    let message = json!({ "messages": [{ "topic": "talk", "event": "posted", "payload": { "a": 1 } }] });
    let mut post = world.ask(&Who::Service, "POST /api/broadcast").json(&message);
    post.move_to(&format!("{}/rest/v1", world.node.url), &format!("{}/realtime/v1", second.url));
    assert_eq!(post.send().status, 202);
    for client in [&one, &two] {
        client.until("the post", |heard| {
            matches!(heard, Heard::Text(message) if message[4]["event"] == "posted").then_some(())
        });
    }
    let is_broadcast = |heard: &Heard| {
        matches!(heard, Heard::Broadcast { .. }) || matches!(heard, Heard::Text(it) if it[3] == "broadcast")
    };
    assert!(!elsewhere.all().iter().any(is_broadcast), "{:?}", elsewhere.all());
}

fn all_nodes_know_who_is_present(world: &World) {
    let second = world.another();
    let (mut ada, mut bob) = (connect(world, &world.node), connect(world, &second));
    ada.join("here", &with_key("ada"));
    bob.join("here", &with_key("bob"));
    ada.track("here", &json!({ "is": "on the first" }));
    bob.track("here", &json!({ "is": "on the second" }));
    for client in [&ada, &bob] {
        client.until_present("here", &["ada", "bob"]);
    }
    // A node that comes later learns of all.
    let third = world.another();
    let mut cai = connect(world, &third);
    cai.join("here", &with_key("cai"));
    cai.until_present("here", &["ada", "bob"]);
    cai.track("here", &json!({}));
    ada.track("here", &json!({ "is": "away" }));
    for client in [&ada, &bob, &cai] {
        client.until_present("here", &["ada", "bob", "cai"]);
        client.until_so("ada says something else", "here", |present| present["ada"][0]["is"] == "away");
        assert_eq!(client.present("here")["ada"].len(), 1);
    }
    // Whoever comes now is told the same at once.
    let mut dan = connect(world, &second);
    dan.join("here", &with_key("dan"));
    dan.until_present("here", &["ada", "bob", "cai"]);
    bob.push("here", "presence", &json!({ "type": "presence", "event": "untrack" }));
    for client in [&ada, &bob, &cai, &dan] {
        client.until_present("here", &["ada", "cai"]);
    }
    drop(cai);
    for client in [&ada, &bob, &dan] {
        client.until_present("here", &["ada"]);
    }
}

fn the_clients_of_a_node_that_ends_leave_on_the_others(world: &World) {
    let (mut killed, mut stopped) = (world.another(), world.another());
    let mut stays = connect(world, &world.node);
    stays.join("here", &with_key("stays"));
    stays.track("here", &json!({}));
    let mut clients: Vec<Client> = Vec::new();
    for (key, node) in [("killed", &killed), ("stopped", &stopped)] {
        let mut client = connect(world, node);
        client.join("here", &with_key(key));
        client.track("here", &json!({}));
        clients.push(client);
    }
    stays.until_present("here", &["killed", "stays", "stopped"]);
    assert!(stopped.stop().success());
    stays.until_present("here", &["killed", "stays"]);
    killed.kill();
    let begun = Instant::now();
    stays.until_present("here", &["stays"]);
    println!("gone after {:.1?}", begun.elapsed());
}

/// Without NATS a node serves its own clients; when it is back, the nodes know of each other again.
#[test]
fn presence_is_whole_again_after_nats_was_away() {
    let mut nats = Nats::start(&[]);
    let world = world(&format!("nats://127.0.0.1:{}", nats.port));
    let second = world.another();
    let (mut ada, mut bob) = (connect(&world, &world.node), connect(&world, &second));
    ada.join("here", &with_key("ada"));
    bob.join("here", &with_key("bob"));
    ada.track("here", &json!({}));
    bob.until_present("here", &["ada"]);
    nats.end();
    world.node.says("other nodes cannot be reached");
    let mut near = connect(&world, &world.node);
    near.join("here", &with_key("near"));
    near.track("here", &json!({}));
    bob.track("here", &json!({}));
    ada.until_present("here", &["ada", "near"]);
    // What is not heard for long is taken for gone.
    bob.until_present("here", &["bob"]);
    nats.begin();
    for client in [&ada, &bob, &near] {
        client.until_present("here", &["ada", "bob", "near"]);
    }
    world.node.says("other nodes can be reached again");
    meet("here", &mut ada, &[&bob, &near]);
}

/// Nodes whose connections to PostgreSQL are cut make new ones, and learn what they have missed.
#[test]
fn presence_is_whole_again_after_postgresql_was_away() {
    let world = World::start(Backend::Server);
    let second = world.another();
    let (mut ada, mut bob) = (connect(&world, &world.node), connect(&world, &second));
    ada.join("here", &with_key("ada"));
    bob.join("here", &with_key("bob"));
    meet("here", &mut ada, &[&bob]);
    meet("here", &mut bob, &[&ada]);
    for round in 0..3 {
        let cut = "select count(pg_terminate_backend(pid))::int as cut from pg_stat_activity \
            where datname = current_database() and pid <> pg_backend_pid() and query not like 'select count(pg_term%'";
        assert!(world.sql(cut)[0]["cut"].as_i64().unwrap() >= 2);
        ada.track("here", &json!({ "round": round }));
        bob.track("here", &json!({ "round": round }));
        for client in [&ada, &bob] {
            client.until_so("both are known as they are", "here", |present| {
                ["ada", "bob"].iter().all(|key| present.get(*key).is_some_and(|metas| metas[0]["round"] == round))
            });
        }
    }
    meet("here", &mut ada, &[&bob]);
    meet("here", &mut bob, &[&ada]);
}

/// A public and a private channel of one name are two rooms, also on other nodes.
#[test]
fn private_rooms_are_others_than_public_ones() {
    let world = World::start(Backend::Server);
    world.sql("create policy anything on realtime.messages to anon using (true) with check (true)");
    let second = world.another();
    let [mut one, mut two, mut outside] = [&world.node, &second, &second].map(|node| connect(&world, node));
    let private = |key: &str| json!({ "private": true, "presence": { "key": key, "enabled": true } });
    one.join("secret", &private("one"));
    two.join("secret", &private("two"));
    outside.join("secret", &with_key("outside"));
    one.track("secret", &json!({}));
    outside.track("secret", &json!({}));
    meet("secret", &mut one, &[&two]);
    two.until_present("secret", &["one"]);
    outside.until_present("secret", &["outside"]);
    one.push("secret", "presence", &json!({ "type": "presence", "event": "untrack" }));
    two.until_present("secret", &[]);
    let is_hello = |heard: &Heard| matches!(heard, Heard::Text(message) if message[4]["event"] == "hello");
    assert!(!outside.all().iter().any(is_hello), "{:?}", outside.all());
}

/// By TLS, with a certificate that is to be trusted; and with a token.
#[test]
fn nodes_reach_nats_by_tls() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (certificate, key) = (path("nats.crt"), path("nats.key"));
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ])
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &key, "-out", &certificate])
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let nats = Nats::start(&["--tls", "--tlscert", &certificate, "--tlskey", &key, "--auth", "a-token"]);
    let bus = format!("tls://a-token@localhost:{}", nats.port);
    let world = world(&bus);
    let url = world.database_url.clone().unwrap();
    let start = || {
        let flags = ["--database-url", &url, "--realtime-bus", &bus];
        let trusting = [("SSL_CERT_FILE".to_owned(), certificate.clone())];
        Node::start_program_in(&trusting, &directory::program(), "serve", &world.data(), &flags).unwrap()
    };
    let (first, second) = (start(), start());
    let (mut one, mut two) = (connect(&world, &first), connect(&world, &second));
    one.join("talk", &json!({}));
    two.join("talk", &json!({}));
    meet("talk", &mut one, &[&two]);
    // The world's own node does not trust the certificate.
    for (node, others) in [(&world.node, 0), (&first, 1), (&second, 1)] {
        let line = format!("ntier_realtime_other_nodes {others}\n");
        until("the others are known", || {
            let mut ask = world.ask(&Who::Service, "GET /metrics");
            ask.move_to(&format!("{}/rest/v1", world.node.url), &format!("{}/realtime/v1", node.url));
            ask.send().text().contains(&line)
        });
    }
}
