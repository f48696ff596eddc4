//! Much is said at once: whoever reads hears all of it, and who does not is closed.

use ntier_tests::websocket::{Client, Heard};
use ntier_tests::{Who, World, on_both, until};
use serde_json::{Value, json};

on_both!(bursts_reach_whoever_reads, who_does_not_read_is_closed_and_holds_up_nobody, what_is_too_large_is_left_out,);

fn connect(world: &World) -> Client {
    Client::connect(&world.node.url, world.key("publishable_key"))
}

/// The numbers that are heard, until the last, or until the client is closed.
fn numbers(client: &Client, last: u64, number: impl Fn(&Heard) -> Option<u64>) -> Vec<u64> {
    let mut numbers = Vec::new();
    loop {
        let heard = client.take();
        numbers.extend(heard.iter().filter_map(&number));
        if heard.is_empty() || numbers.last() == Some(&last) {
            return numbers;
        }
    }
}

/// That of a broadcast.
fn broadcast(heard: &Heard) -> Option<u64> {
    match heard {
        Heard::Text(message) if message[3] == "broadcast" => message[4]["payload"]["n"].as_u64(),
        Heard::Text(_) => None,
        Heard::Broadcast { content, .. } => serde_json::from_slice::<Value>(content).ok()?["n"].as_u64(),
    }
}

#[track_caller]
fn all_are_heard(client: &Client, last: u64, number: impl Fn(&Heard) -> Option<u64>) {
    let numbers = numbers(client, last, number);
    assert!(numbers.iter().copied().eq(1..=last), "{} of {last}, until {:?}", numbers.len(), numbers.last());
}

/// Whether an operator sees this.
fn figure(world: &World, line: &str) -> bool {
    let mut ask = world.ask(&Who::Service, "GET /metrics");
    ask.move_to("/rest/v1", "/realtime/v1");
    ask.send().text().contains(&format!("\nntier_realtime_{line}\n"))
}

fn what_is_too_large_is_left_out(world: &mut World) {
    let mut client = connect(world);
    client.join("talk", &json!({}));
    for (n, bytes) in [(1, 1), (2, 5_000_000), (3, 2_900_000)] {
        let body = format!("jsonb_build_object('n', {n}, 'body', repeat('x', {bytes}))");
        world.sql(&format!("select realtime.send({body}, 'hello', 'talk', false)"));
    }
    assert_eq!(numbers(&client, 3, broadcast), [1, 3]);
    assert!(figure(world, "broadcasts_too_large_total 1"));
}

fn bursts_reach_whoever_reads(world: &mut World) {
    world.sql(
        "create table memos (id bigint primary key, body text);
         grant select on memos to anon;
         alter publication supabase_realtime add table memos;
         select 1",
    );
    let mut client = connect(world);
    client.join("talk", &json!({}));
    client.join("changes", &json!({ "postgres_changes": [{ "event": "*", "schema": "public", "table": "memos" }] }));
    client.until_heard(1, "changes", "system");

    world.sql("insert into memos select n, repeat('x', 6000) from generate_series(1, 1000) n; select 1");
    all_are_heard(&client, 1000, |heard| match heard {
        Heard::Text(message) if message[3] == "postgres_changes" => message[4]["data"]["record"]["id"].as_u64(),
        _ => None,
    });

    world.sql(
        "select count(realtime.send(jsonb_build_object('n', n, 'body', repeat('x', 8000)), 'hello', 'talk', false))
         from generate_series(1, 700) n",
    );
    all_are_heard(&client, 700, broadcast);

    for (count, bytes) in [(1100, 1), (60, 100_000)] {
        let message =
            |n: u64| json!({ "topic": "talk", "event": "hello", "payload": { "n": n, "body": "x".repeat(bytes) } });
        let messages: Vec<_> = (1..=count).map(message).collect();
        let mut ask = world.ask(&Who::Service, "POST /api/broadcast");
        ask.move_to("/rest/v1", "/realtime/v1");
        assert_eq!(ask.json(&json!({ "messages": messages })).send().status, 202);
        all_are_heard(&client, count, broadcast);
    }

    let mut sender = connect(world);
    sender.join("talk", &json!({}));
    for n in 1..=20_000 {
        sender.push("talk", "broadcast", &json!({ "type": "broadcast", "event": "hello", "payload": { "n": n } }));
    }
    all_are_heard(&client, 20_000, broadcast);
}

fn who_does_not_read_is_closed_and_holds_up_nobody(world: &mut World) {
    let [mut sender, mut deaf, mut other] = [(); 3].map(|()| connect(world));
    for client in [&mut sender, &mut deaf, &mut other] {
        client.join("talk", &json!({}));
    }
    let is_closed = || figure(world, "clients_closed_slow_total 1");
    let mut said = 0;
    let body = "x".repeat(100_000);
    deaf.without_reading(|| {
        until("it is closed", || {
            for _ in 0..32 {
                said += 1;
                let payload = json!({ "n": said, "body": body });
                sender.push("talk", "broadcast", &json!({ "type": "broadcast", "event": "hello", "payload": payload }));
            }
            is_closed()
        });
    });
    assert!(numbers(&deaf, said, broadcast).len() < usize::try_from(said).unwrap());
    all_are_heard(&other, said, broadcast);
}
