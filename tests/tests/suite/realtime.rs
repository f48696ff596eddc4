//! Clients meet on channels, by the unmodified supabase-js.

mod behaviour;
mod bursts;
mod changes;
mod nodes;
mod private;

use ntier_tests::node;
use ntier_tests::websocket::{Client, Heard};
use ntier_tests::{Node, World, directory, npm, on_both, postgres, until};
use serde_json::{Value, json};

on_both!(
    clients_meet_on_channels,
    keys_are_rotated_under_open_sockets,
    a_key_in_a_join_is_not_heeded,
    who_joins_again_is_answered_before_the_end_of_the_first,
    a_token_says_who_and_until_when
);

fn said(heard: &Heard, number: u32) -> Option<()> {
    matches!(heard, Heard::Text(message) if message[3] == "broadcast" && message[4]["payload"]["n"] == number)
        .then_some(())
}

/// What the first says, the second hears.
fn meet(room: &str, number: u32, one: &mut Client, other: &Client) {
    one.push(room, "broadcast", &json!({ "type": "broadcast", "event": "hello", "payload": { "n": number } }));
    other.until("it is heard", |heard| said(heard, number));
}

fn keys_are_rotated_under_open_sockets(world: &mut World) {
    let session = |line: &str| -> Value {
        let body = json!({ "email": "ada@example.com", "password": "correct horse battery" });
        world.auth(None, line).json(&body).send().json()
    };
    let token = |session: &Value| session["access_token"].as_str().unwrap().to_owned();
    let old = token(&session("POST /signup"));
    let connect = || Client::connect(&world.node.url, world.key("publishable_key"));
    let (mut one, mut two) = (connect(), connect());
    one.join_as(Some(&old), "talk", &json!({}));
    two.join_as(Some(&old), "talk", &json!({}));
    meet("talk", 1, &mut one, &two);
    let (code, _, told) = node::run(&["keys", "rotate", "--data", &world.data().to_string_lossy()]);
    assert_eq!(code, Some(0), "{told}");
    let header = |token: &str| token.split('.').next().unwrap().to_owned();
    let mut new = old.clone();
    until("the new key signs", || {
        new = token(&session("POST /token?grant_type=password"));
        header(&new) != header(&old)
    });
    meet("talk", 2, &mut one, &two);
    // A token of the key before is good until it expires, and another one takes its place.
    let mut late = connect();
    late.join_as(Some(&old), "talk", &json!({}));
    one.push("talk", "access_token", &json!({ "access_token": new }));
    meet("talk", 3, &mut one, &late);
    late.join_as(Some(&new), "elsewhere", &json!({}));
    two.join_as(Some(&new), "elsewhere", &json!({}));
    meet("elsewhere", 4, &mut late, &two);
}

fn who_joins_again_is_answered_before_the_end_of_the_first(world: &mut World) {
    let mut client = Client::connect(&world.node.url, world.key("publishable_key"));
    for _ in 0..2 {
        client.join("talk", &json!({ "presence": { "enabled": true } }));
    }
    client.until_heard(2, "talk", "presence_state");
    let events = client.all().into_iter().filter_map(|heard| match heard {
        Heard::Text(message) => Some(message[3].clone()),
        Heard::Broadcast { .. } => None,
    });
    let events: Vec<Value> = events.collect();
    assert_eq!(events, ["phx_reply", "presence_state", "phx_reply", "phx_close", "presence_state"]);
    let path = format!("/realtime/v1/websocket/?apikey={}&vsn=2.0.0", world.key("publishable_key"));
    let answered = Client::answered(&world.node.url, &path);
    assert!(answered.contains(" 101 "), "{answered}");
}

fn a_key_in_a_join_is_not_heeded(world: &mut World) {
    let connect = || Client::connect(&world.node.url, world.key("publishable_key"));
    let (mut one, mut two) = (connect(), connect());
    one.join_as(Some("sb_publishable_unknown"), "talk", &json!({}));
    two.join_as(Some(world.key("secret_key")), "talk", &json!({}));
    meet("talk", 1, &mut one, &two);
    // It gives no more rights than the connection has.
    let reply = two.try_join_as(Some(world.key("secret_key")), "closed", &json!({ "private": true }));
    assert_eq!(reply["status"], "error", "{reply}");
}

fn a_token_says_who_and_until_when(world: &mut World) {
    let connect = || Client::connect(&world.node.url, world.key("publishable_key"));
    let exp = ntier_tests::world::now() + 3600;
    let why = "Fields `role` and `exp` are required in JWT";
    for claims in [json!({ "role": "authenticated" }), json!({ "exp": exp })] {
        let token = world.token(&claims);
        let mut client = connect();
        let reply = client.try_join_as(Some(&token), "talk", &json!({}));
        assert_eq!(reply["response"]["reason"], format!("InvalidJWTToken: {why}"), "{claims}");
        client.join("talk", &json!({}));
        client.push("talk", "access_token", &json!({ "access_token": token }));
        assert_eq!(client.until_heard(1, "talk", "system")[0]["message"], why, "{claims}");
        client.until_heard(1, "talk", "phx_close");
        let answered = Client::answered(&world.node.url, &format!("/realtime/v1/websocket?apikey={token}&vsn=2.0.0"));
        assert!(answered.contains(" 401 "), "{claims}: {answered}");
    }
    let token = world.token(&json!({ "role": "authenticated", "exp": exp }));
    Client::connect(&world.node.url, &token).join("talk", &json!({}));
    connect().join_as(Some(&token), "talk", &json!({}));
}

#[test]
fn public_channels_need_no_database() {
    let server = postgres::start("-c fsync=off");
    server.sql("postgres", "create database app");
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let project = directory::project().to_string_lossy().into_owned();
    let node = Node::start("serve", &data, &["--project", &project, "--database-url", &server.url("app")]);
    let keys = node::keys(&data);
    let connect = || Client::connect(&node.url, keys["publishable_key"].as_str().unwrap());
    let changes = json!({ "postgres_changes": [{ "event": "*", "schema": "public", "table": "notes" }] });
    server.stop();
    let (mut one, mut two) = (connect(), connect());
    one.join("talk", &json!({}));
    two.join("talk", &json!({}));
    meet("talk", 1, &mut one, &two);
    let refused = one.try_join_as(None, "changes", &changes);
    assert_eq!(refused["status"], "error", "{refused}");
    server.start();
    until("changes can be listened to", || one.try_join_as(None, "changes", &changes)["status"] == "ok");
    meet("talk", 2, &mut one, &two);
    server.sql("app", "select realtime.send('{}', 'from the database', 'talk', false)");
    two.until("it is heard", |heard| {
        matches!(heard, Heard::Broadcast { event, .. } if event == "from the database").then_some(())
    });
}

fn clients_meet_on_channels(world: &mut World) {
    let folder = directory::repository().join("tests/clients/realtime");
    npm::install(&folder);
    for vsn in ["1.0.0", "2.0.0"] {
        let mut command = npm::command("node", &folder);
        command.arg("meet.mjs").env("URL", &world.node.url).env("KEY", world.key("publishable_key")).env("VSN", vsn);
        let said = npm::output(&mut command);
        assert_eq!(said.lines().count(), 7, "{vsn}: {said}");
    }
}
