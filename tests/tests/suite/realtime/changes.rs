//! Clients hear of changes of tables, as far as a SELECT would show them, and miss none.

use ntier_tests::websocket::{Client, Heard};
use ntier_tests::{Who, World, on_both};
use serde_json::{Value, json};

on_both!(
    changes_are_told_as_they_are,
    policies_and_privileges_decide_who_hears,
    what_cannot_be_told_is_an_error_to_all_who_listen,
    names_of_all_kinds_are_asked_for,
    partitions_are_told_as_they_are_published,
    what_is_kept_makes_nobody_wait,
    whoever_comes_back_is_told_what_it_missed,
    what_cannot_be_listened_to_is_said,
    what_the_database_says_is_heard,
    nothing_is_heard_that_is_not_to_be_seen_any_more,
    an_operator_sees_figures,
);

const CHANGES: &str = "postgres_changes";

fn table(world: &World, more: &str) {
    world.sql(&format!(
        "create table memos (id bigint primary key, owner uuid, body text, n numeric, raw bytea, tags text[]);
         grant select on memos to anon, authenticated;
         alter publication supabase_realtime add table memos;
         {more}
         select 1"
    ));
}

fn connect(world: &World) -> Client {
    Client::connect(&world.node.url, world.key("publishable_key"))
}

fn to(entries: &Value) -> Value {
    json!({ "postgres_changes": entries })
}

fn user(world: &World, id: &str) -> String {
    let claims =
        json!({ "sub": id, "role": "authenticated", "aud": "authenticated", "exp": ntier_tests::world::now() + 3600 });
    world.token(&claims)
}

const ADA: &str = "aaaaaaaa-0000-4000-8000-000000000001";
const BOB: &str = "bbbbbbbb-0000-4000-8000-000000000002";

fn changes_are_told_as_they_are(world: &mut World) {
    table(world, "");
    let mut client = connect(world);
    let mut entries = vec![
        json!({ "event": "*", "schema": "public", "table": "memos" }),
        json!({ "event": "INSERT", "schema": "public", "table": "memos", "filter": "n=gt.5,body=like.%b%" }),
        json!({ "event": "UPDATE", "schema": "public" }),
        json!({ "event": "INSERT", "schema": "public", "table": "memos", "select": ["body"] }),
        json!({ "event": "*", "schema": "public", "table": "others" }),
    ];
    client.join("room", &to(&json!(entries)));
    // One that cannot be listened to spoils all of them, as in realtime; so without it.
    let said = client.until_heard(1, "room", "system");
    assert_eq!(said[0]["status"], "error", "{said:?}");
    entries.pop();
    client.join("room", &to(&json!(entries)));
    let said = client.until_heard(2, "room", "system");
    assert_eq!((&said[1]["status"], &said[1]["message"]), (&json!("ok"), &json!("Subscribed to PostgreSQL")));
    let ids = client.until("the ids", |heard| match heard {
        Heard::Text(message) if message[1] == "2" => message[4]["response"][CHANGES].as_array().cloned(),
        _ => None,
    });
    let ids: Vec<Value> = ids.iter().map(|entry| entry["id"].clone()).collect();

    world.sql(
        r"insert into memos values (1, null, 'abc', 7.50, '\xdead', '{x,y}'), (2, null, 'xyz', 1, null, null);
          update memos set body = 'neu' where id = 2;
          update memos set id = 3 where id = 2;
          select 1",
    );
    client.until_heard(6, "room", CHANGES);
    world.sql(
        "alter table memos replica identity full;
         update memos set body = 'ganz' where id = 3;
         delete from memos where id = 1;
         select 1",
    );
    let heard = client.until_heard(8, "room", CHANGES);
    let data: Vec<&Value> = heard.iter().map(|heard| &heard["data"]).collect();
    let of = |index: usize, key: &str| data[index][key].clone();
    let sorted = |ids: &[&Value]| {
        let mut ids: Vec<_> = ids.iter().filter_map(|id| id.as_u64()).collect();
        ids.sort_unstable();
        json!(ids)
    };
    // The first row, for the two that want all of it, and for the one who wants its body.
    let row = json!({ "id": 1, "owner": null, "body": "abc", "n": 7.50, "raw": "dead", "tags": ["x", "y"] });
    assert_eq!((of(0, "type"), of(0, "record")), (json!("INSERT"), row));
    assert_eq!(heard[0]["ids"], sorted(&[&ids[0], &ids[1]]));
    assert_eq!((&heard[1]["ids"], of(1, "record")), (&sorted(&[&ids[3]]), json!({ "id": 1, "body": "abc" })));
    assert_eq!(of(1, "columns"), json!([{ "name": "id", "type": "int8" }, { "name": "body", "type": "text" }]));
    assert_eq!((&heard[2]["ids"], of(2, "record")["id"].clone()), (&sorted(&[&ids[0]]), json!(2)));
    assert_eq!(of(3, "record"), json!({ "id": 2, "body": "xyz" }));
    let times: Vec<_> = data.iter().filter_map(|data| data["commit_timestamp"].as_str()).collect();
    assert_eq!(times.len(), data.len());
    assert!(times.iter().all(|time| time.len() == 24 && time.ends_with('Z')), "{times:?}");
    assert_eq!((of(4, "type"), of(4, "old_record")), (json!("UPDATE"), json!({ "id": 2 })));
    assert_eq!(heard[4]["ids"], sorted(&[&ids[0], &ids[2]]));
    assert_eq!((of(5, "record")["id"].clone(), of(5, "old_record")), (json!(3), json!({ "id": 2 })));
    let whole = json!({ "id": 3, "owner": null, "body": "neu", "n": 1, "raw": null, "tags": null });
    assert_eq!(of(6, "old_record"), whole);
    let whole = json!({ "id": 1, "owner": null, "body": "abc", "n": 7.50, "raw": "dead", "tags": ["x", "y"] });
    assert_eq!((of(7, "type"), of(7, "old_record"), of(7, "record")), (json!("DELETE"), whole, Value::Null));
}

fn policies_and_privileges_decide_who_hears(world: &mut World) {
    table(
        world,
        // What is looked up once in a question is of the one who asks it.
        "alter table memos enable row level security;
         create policy own on memos for select using (owner = (select auth.uid()));
         revoke select on memos from authenticated; grant select (id, owner, body) on memos to authenticated;",
    );
    let all = to(&json!([{ "event": "*", "schema": "public", "table": "memos" }]));
    let (mut ada, mut bob, mut stranger) = (connect(world), connect(world), connect(world));
    ada.join_as(Some(&user(world, ADA)), "room", &all);
    bob.join_as(Some(&user(world, BOB)), "room", &all);
    stranger.join("room", &all);
    for client in [&ada, &bob, &stranger] {
        assert_eq!(client.until_heard(1, "room", "system")[0]["status"], "ok");
    }
    world.sql(&format!(
        "insert into memos (id, owner, body, n) values (1, '{ADA}', 'a', 1), (2, '{BOB}', 'b', 2), (3, null, 'c', 3);
         insert into memos (id, owner, body, n) values (4, '{ADA}', 'd', 4), (5, '{BOB}', 'e', 5);
         delete from memos where id in (3, 4);
         select 1"
    ));
    // A deletion tells all of them its key: there is no row any more that a policy could be asked about.
    let told = |client: &Client, count| -> Vec<Value> {
        let heard = client.until_heard(count, "room", CHANGES);
        heard.iter().map(|heard| json!([heard["data"]["record"], heard["data"]["old_record"]])).collect()
    };
    let inserted = |id: u32, owner: &str, body: &str| json!([{ "id": id, "owner": owner, "body": body }, null]);
    let deleted = |id: u32| json!([null, { "id": id }]);
    // What was deleted before anybody was asked about it is not seen.
    let bobs = [inserted(2, BOB, "b"), inserted(5, BOB, "e"), deleted(3), deleted(4)];
    assert_eq!(told(&bob, 4), bobs);
    let adas = told(&ada, 3);
    assert_eq!(adas.first(), Some(&inserted(1, ADA, "a")));
    assert_eq!(adas[adas.len() - 2..], [deleted(3), deleted(4)]);
    assert_eq!(told(&stranger, 2), [deleted(3), deleted(4)]);
}

fn what_cannot_be_told_is_an_error_to_all_who_listen(world: &mut World) {
    table(
        world,
        "alter table memos enable row level security;
         create policy own on memos for select using (owner = (select auth.uid()));
         revoke select on memos from authenticated; grant select (owner, body) on memos to authenticated;
         create table keyless (owner uuid, body text);
         grant select on keyless to anon, authenticated;
         alter publication supabase_realtime add table keyless;
         alter table keyless enable row level security;
         create policy own on keyless for select using (owner = (select auth.uid()));",
    );
    let entry = |table: &str| json!({ "event": "INSERT", "schema": "public", "table": table, "filter": "body=eq.b" });
    let mut bob = connect(world);
    bob.join_as(Some(&user(world, BOB)), "room", &to(&json!([entry("memos"), entry("keyless")])));
    assert_eq!(bob.until_heard(1, "room", "system")[0]["status"], "ok");
    world.sql(&format!(
        "insert into memos (id, owner, body) values (1, '{ADA}', 'a');
         insert into keyless (owner, body) values ('{ADA}', 'a');
         select 1"
    ));
    for (heard, (table, error)) in bob
        .until_heard(2, "room", CHANGES)
        .iter()
        .zip([("memos", "Error 401: Unauthorized"), ("keyless", "Error 400: Bad Request, no primary key")])
    {
        let data = &heard["data"];
        assert_eq!((&data["table"], &data["errors"]), (&json!(table), &json!([error])));
        assert!(!data.to_string().contains(ADA), "{data}");
    }
}

fn names_of_all_kinds_are_asked_for(world: &mut World) {
    // Both are asked for in one question, which has its settings; one by one they would see nothing.
    let table = r#""it's \ ""odd"" $ntier$""#;
    world.sql(&format!(
        r#"create table {table} ("key's" int, "n\1" text, ntier_one uuid, primary key ("key's", "n\1"));
         alter table {table} enable row level security;
         create policy own on {table} for select
           using (ntier_one = (select auth.uid()) and current_setting('ntier.claims', true) is not null);
         grant select on {table} to authenticated;
         alter publication supabase_realtime add table {table}; select 1"#
    ));
    let all = to(&json!([{ "event": "*", "schema": "public" }]));
    let (mut ada, mut bob) = (connect(world), connect(world));
    ada.join_as(Some(&user(world, ADA)), "room", &all);
    bob.join_as(Some(&user(world, BOB)), "room", &all);
    for client in [&ada, &bob] {
        assert_eq!(client.until_heard(1, "room", "system")[0]["status"], "ok");
    }
    let rows = format!(r#"(1, 'a\', '{ADA}'), (2, 'b"', '{BOB}'), (3, 'c''', '{ADA}')"#);
    world.sql(&format!("insert into {table} values {rows}; select 1"));
    let told = |client: &Client, count| -> Vec<Value> {
        let heard = client.until_heard(count, "room", CHANGES);
        heard.iter().map(|heard| heard["data"]["record"][r"n\1"].clone()).collect()
    };
    assert_eq!(told(&ada, 2), [r"a\", "c'"]);
    assert_eq!(told(&bob, 1), ["b\""]);
    // A row that comes alone is looked for in another way.
    for (number, owner) in [(4, ADA), (5, BOB)] {
        world.sql(&format!(r"insert into {table} values ({number}, '{number}\', '{owner}'); select 1"));
        let (client, count) = if owner == ADA { (&ada, 3) } else { (&bob, 2) };
        assert_eq!(told(client, count)[count - 1], format!(r"{number}\"));
    }
}

fn partitions_are_told_as_they_are_published(world: &mut World) {
    world.sql(
        "create table days (id int, day date, primary key (id, day)) partition by range (day);
         create table days_2026 partition of days for values from ('2026-01-01') to ('2027-01-01');
         grant select on days, days_2026 to anon;
         alter publication supabase_realtime add table days; select 1",
    );
    let mut client = connect(world);
    client.join("room", &to(&json!([{ "event": "*", "schema": "public" }])));
    assert_eq!(client.until_heard(1, "room", "system")[0]["status"], "ok");
    for (number, (by_root, table)) in [(false, "days_2026"), (true, "days"), (false, "days_2026")].iter().enumerate() {
        world.sql(&format!(
            "alter publication supabase_realtime set (publish_via_partition_root = {by_root}); select 1"
        ));
        world.sql(&format!("insert into days values ({number}, '2026-11-22'); select 1"));
        let heard = client.until_heard(number + 1, "room", CHANGES);
        let data = &heard[number]["data"];
        assert_eq!((&data["table"], &data["record"]["id"]), (&json!(table), &json!(number)), "{data}");
    }
}

fn what_is_kept_makes_nobody_wait(world: &mut World) {
    table(world, "");
    world.sql("insert into memos (id) select generate_series(1, 20000); select ntier.sequence_changes()");
    let read_whole = || {
        let counted = "select seq_scan from pg_stat_all_tables where relid = 'ntier.changes'::regclass";
        world.sql("select pg_stat_force_next_flush()");
        world.sql(counted)
    };
    let before = read_whole();
    for number in 1..=10 {
        world.sql("select ntier.sequence_changes()");
        world.sql(&format!("insert into memos (id) values (-{number}); select 1"));
        let found = world.sql(
            "select ntier.sequence_changes();
             select new->>'id' as id from ntier.changes_after(
               (select max(batch) - 1 from ntier.change_batches), 9223372036854775807, 500, 1000)",
        );
        assert_eq!(found, json!([{ "id": format!("-{number}") }]));
    }
    assert_eq!(read_whole(), before, "changes are found by their index");
}

fn listen(world: &World, since: &Value) -> Client {
    let mut client = connect(world);
    client.join("room", &to(&json!([{ "event": "*", "schema": "public", "table": "memos", "since": since }])));
    client
}

fn whoever_comes_back_is_told_what_it_missed(world: &mut World) {
    table(world, "");
    let first = listen(world, &Value::Null);
    assert_eq!(first.until_heard(1, "room", "system")[0]["status"], "ok");
    world.sql("insert into memos (id) values (1), (2), (3); select 1");
    let heard = first.until_heard(3, "room", CHANGES);
    let positions: Vec<Value> = heard.iter().map(|heard| heard["data"]["position"].clone()).collect();
    drop(first);
    world.sql("insert into memos (id) select generate_series(4, 700); select 1");
    let ids = |client: &Client, count| -> Vec<u64> {
        let heard = client.until_heard(count, "room", CHANGES);
        heard.iter().filter_map(|heard| heard["data"]["record"]["id"].as_u64()).collect()
    };
    let again = listen(world, &positions[1]);
    world.sql("insert into memos (id) select generate_series(701, 703); select 1");
    assert_eq!(ids(&again, 701), (3..=703).collect::<Vec<_>>());
    // Where the node is another, too.
    drop(again);
    world.restart();
    let again = listen(world, &positions[2]);
    world.sql("insert into memos (id) values (704); select 1");
    assert_eq!(ids(&again, 701), (4..=704).collect::<Vec<_>>());

    let unreadable = listen(world, &json!("yesterday"));
    let said = unreadable.until_heard(2, "room", "system");
    assert!(said[0]["message"].as_str().is_some_and(|said| said.starts_with("PositionUnreadable")), "{said:?}");
    world.sql("select ntier.sweep_changes('0 seconds', 1000000000)");
    let late = listen(world, &positions[0]);
    let said = late.until_heard(2, "room", "system");
    assert!(said[1]["message"].as_str().is_some_and(|said| said.starts_with("PositionTooOld")), "{said:?}");
    // And it goes on from here.
    world.sql("insert into memos (id) values (705); select 1");
    assert_eq!(ids(&late, 1), [705]);
}

fn what_cannot_be_listened_to_is_said(world: &mut World) {
    table(
        world,
        "revoke select on memos from anon; grant select (id, body, n) on memos to anon; create table hidden (id int);",
    );
    let mut client = connect(world);
    let unable = "Unable to subscribe to changes with given parameters.";
    for (number, (entry, expected)) in [
        (json!({ "schema": "public", "table": "hidden" }), format!("{unable} Please check Realtime is enabled")),
        (json!({ "schema": "nowhere" }), format!("{unable} Please check Realtime is enabled")),
        (
            json!({ "table": "memos", "schema": "public", "filter": "gone=eq.1" }),
            "ERROR P0001 (raise_exception) invalid column for filter gone".into(),
        ),
        (
            json!({ "table": "memos", "schema": "public", "filter": "owner=eq.1" }),
            "invalid column for filter owner".into(),
        ),
        (
            json!({ "table": "memos", "schema": "public", "filter": "id=eq.hey" }),
            "ERROR 22P02 (invalid_text_representation) invalid input syntax for type bigint: \"hey\"".into(),
        ),
        (json!({ "table": "memos", "schema": "public", "filter": "id=in.(1,x)" }), "ERROR 22P02".into()),
        (
            json!({ "table": "memos", "schema": "public", "filter": "body=match.(" }),
            "invalid regular expression for match filter".into(),
        ),
        (
            json!({ "table": "memos", "schema": "public", "filter": "id=like.1" }),
            "operator like requires a text-compatible column type, got bigint".into(),
        ),
        (
            json!({ "table": "memos", "schema": "public", "select": ["owner"] }),
            "invalid column for select owner".into(),
        ),
        (
            json!({ "table": "memos", "schema": "public", "filter": "wrong" }),
            "Error parsing `filter` params: [\"wrong\"]".into(),
        ),
        (json!({ "event": "*" }), "No subscription params provided.".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("room{number}");
        client.join(&name, &to(&json!([entry])));
        let said = client.until_heard(1, &name, "system").remove(0);
        assert_eq!((&said["extension"], &said["status"]), (&json!(CHANGES), &json!("error")), "{entry}");
        let message = said["message"].as_str().unwrap_or_default();
        assert!(message.contains(&expected), "{entry}: {message}");
    }
}

fn what_the_database_says_is_heard(world: &mut World) {
    let mut client = connect(world);
    client.join("room", &json!({}));
    client.join("other", &json!({}));
    world.sql("select realtime.send('{\"a\":1}', 'first', 'room', false)");
    world.sql("begin; select realtime.send('{\"a\":2}', 'undone', 'room', false); rollback; select 1");
    world.sql("select realtime.send('{\"a\":3}', 'second', 'room', false)");
    let told = |client: &Client, count: usize| {
        let all = client.within(ntier_tests::node::PATIENCE, |all| {
            let of = |heard: &Heard| match heard {
                Heard::Broadcast { topic, event, content, .. } if topic == "realtime:room" => {
                    let content: Value = serde_json::from_slice(content).ok()?;
                    Some((event.clone(), content["a"].as_u64()))
                }
                _ => None,
            };
            let told: Vec<_> = all.iter().filter_map(of).collect();
            (told.len() >= count).then_some(told)
        });
        all.unwrap_or_else(|| panic!("not heard: {:?}", client.all()))
    };
    let said = |event: &str, a| (event.to_owned(), Some(a));
    assert_eq!(told(&client, 2), [said("first", 1), said("second", 3)]);
    // Whoever was away, from the beginning.
    let mut late = connect(world);
    late.join("room", &json!({ "broadcast": { "since": "0.0" } }));
    assert_eq!(told(&late, 2), [said("first", 1), said("second", 3)]);
    world.sql("select realtime.send('{\"a\":4}', 'third', 'room', false)");
    for client in [&client, &late] {
        assert_eq!(told(client, 3), [said("first", 1), said("second", 3), said("third", 4)]);
    }
}

fn nothing_is_heard_that_is_not_to_be_seen_any_more(world: &mut World) {
    table(
        world,
        "alter table memos enable row level security; create policy own on memos for select using (owner = auth.uid());",
    );
    world.sql("create table last (id int primary key); grant select on last to authenticated; alter publication supabase_realtime add table last; select 1");
    let mut ada = connect(world);
    let all = to(&json!([{ "event": "INSERT", "schema": "public" }]));
    ada.join_as(Some(&user(world, ADA)), "room", &all);
    assert_eq!(ada.until_heard(1, "room", "system")[0]["status"], "ok");
    let mut number = 0;
    // Adds a note, and then something that everybody hears: so what was not heard before it is not heard.
    let mut hears = |ada: &Client| {
        number += 1;
        world.sql(&format!(
            "insert into memos (id, owner) values ({number}, '{ADA}'); insert into last values ({number}); select 1"
        ));
        let heard = |all: &[Heard], table: &str| {
            all.iter().any(|heard| match heard {
                Heard::Text(message) => {
                    message[4]["data"]["table"] == table && message[4]["data"]["record"]["id"] == number
                }
                Heard::Broadcast { .. } => false,
            })
        };
        let found = ada.within(ntier_tests::node::PATIENCE, |all| heard(all, "last").then(|| heard(all, "memos")));
        found.expect("the last is heard")
    };
    assert!(hears(&ada));
    world.sql("drop policy own on memos; select 1");
    assert!(!hears(&ada), "the policy is gone");
    world.sql("create policy own on memos for select using (owner = auth.uid()); select 1");
    assert!(hears(&ada));
    world.sql("revoke select on memos from authenticated; select 1");
    assert!(!hears(&ada), "the privilege is gone");
    world.sql("grant select on memos to authenticated; alter publication supabase_realtime drop table memos; select 1");
    assert!(!hears(&ada), "it is not published");
    world.sql("alter publication supabase_realtime add table memos; select 1");
    assert!(hears(&ada));
    world.sql("drop table memos; create table memos (id bigint primary key, owner uuid); select 1");
    assert!(!hears(&ada), "it is another table");
    // A token of somebody else's, on the same channel.
    world.sql("drop table memos; select 1");
    table(
        world,
        "alter table memos enable row level security; create policy own on memos for select using (owner = auth.uid());",
    );
    world.sql("truncate last; select 1");
    ada.push("room", "access_token", &json!({ "access_token": user(world, BOB) }));
    ada.until_heard(2, "room", "system");
    assert!(!hears(&ada), "it is somebody else");
}

fn an_operator_sees_figures(world: &mut World) {
    table(world, "");
    let mut client = connect(world);
    client.join("room", &to(&json!([{ "event": "*", "schema": "public", "table": "memos" }])));
    world.sql("insert into memos (id) values (1), (2); select 1");
    client.until_heard(2, "room", CHANGES);
    let metrics = |who: &Who| {
        let mut ask = world.ask(who, "GET /metrics");
        ask.move_to("/rest/v1", "/realtime/v1");
        ask.send()
    };
    assert_eq!(metrics(&Who::Anon).status, 401);
    let text = metrics(&Who::Service).text();
    for line in ["clients 1", "channels 1", "messages_received_total 1", "changes_read_total 2", "changes_told_total 2"]
    {
        assert!(text.contains(&format!("\nntier_realtime_{line}\n")), "{line}: {text}");
    }
}
