//! Private channels: what policies on `realtime.messages` allow; and what is said from SQL.

use std::process::Command;

use ntier_tests::websocket::Client;
use ntier_tests::{World, directory, npm, on_both};
use serde_json::{Value, json};

on_both!(
    policies_rule_private_channels,
    who_does_not_ask_for_presences_hears_none,
    limits_are_kept,
    a_session_that_is_over_ends_its_channels,
    messages_are_said_from_sql,
    messages_are_kept_for_days,
);

/// Who may do what in which room, and SQL for whoever has the secret key.
const ROOMS: &str = "
    create table public.rooms (member uuid, topic text, may text);
    create function public.may(what text) returns boolean language sql stable security definer as $$
      select exists (select from public.rooms where member = auth.uid() and topic = realtime.topic() and may = what)
    $$;
    create policy hear on realtime.messages for select to authenticated using (public.may('hear ' || extension));
    create policy say on realtime.messages for insert to authenticated with check (public.may('say ' || extension));
    create policy raises on realtime.messages to authenticated
      using (realtime.topic() = 'raises' and 1 / length(replace(topic, 'raises', '')) = 1);
    create sequence public.asked;
    create function public.ask() returns boolean language sql security definer as $$ select nextval('public.asked') > 0 $$;
    create policy counted on realtime.messages for select to authenticated using (realtime.topic() = 'counted' and public.ask());
    create policy told on realtime.messages for select to authenticated
      using (realtime.topic() = 'told' and current_setting('request.headers')::json ->> 'x-room' = 'told');
    create policy slow on realtime.messages for select to authenticated using (realtime.topic() = 'slow' and pg_sleep(30) is null);
    create function public.run_sql(text text) returns jsonb language plpgsql security definer as $$
    declare
      result jsonb;
    begin
      if text like 'select %' then
        execute format('select jsonb_agg(to_jsonb(t)) from (%s) t', text) into result;
      else
        execute text;
      end if;
      return result;
    end
    $$;
    revoke execute on function public.run_sql from public;
    grant execute on function public.run_sql to service_role;";

fn policies_rule_private_channels(world: &mut World) {
    world.sql(ROOMS);
    world.reload();
    let said = npm::output(&mut client(world, "private.mjs"));
    assert_eq!(said.lines().count(), 16, "{said}");
}

fn who_does_not_ask_for_presences_hears_none(world: &mut World) {
    world.sql("create policy anything on realtime.messages to anon using (true) with check (true)");
    let connect = || Client::connect(&world.node.url, world.key("publishable_key"));
    let (mut one, mut two) = (connect(), connect());
    one.join("room", &json!({ "private": true }));
    two.join("room", &json!({ "private": true, "presence": { "key": "two", "enabled": true } }));
    two.track("room", &json!({ "n": 1 }));
    two.until_present("room", &["two"]);
    two.push("room", "broadcast", &json!({ "type": "broadcast", "event": "told", "payload": {} }));
    one.until_heard(1, "room", "broadcast");
    assert_eq!(one.heard("room", "presence_diff").len() + one.heard("room", "presence_state").len(), 0);
    // From its own first one on it does.
    one.track("room", &json!({ "n": 2 }));
    one.until_heard(1, "room", "presence_diff");
    two.track("room", &json!({ "n": 3 }));
    one.until_heard(2, "room", "presence_diff");
}

fn limits_are_kept(world: &mut World) {
    let more = [
        "--realtime-private-only",
        "--realtime-max-joins-per-second",
        "1",
        "--realtime-max-events-per-second",
        "1",
        "--realtime-max-presence-events-per-second",
        "1",
    ];
    let world = World::start_with(world.backend, &more);
    world.sql("create policy anything on realtime.messages to anon using (true) with check (true)");
    npm::output(&mut client(&world, "limits.mjs"));
}

fn a_session_that_is_over_ends_its_channels(world: &mut World) {
    let world = World::start_with(world.backend, &["--realtime-session-check", "200ms"]);
    world.sql(ROOMS);
    world.reload();
    npm::output(&mut client(&world, "sessions.mjs"));
}

fn messages_are_said_from_sql(world: &mut World) {
    world.sql(
        "select realtime.send('{\"a\": 1}', 'event', 'topic');
         select realtime.send('{\"id\": \"mine\"}', 'event', 'topic', false);
         select realtime.send_binary('\\x00ff', 'bytes', 'topic');
         select realtime.send(null, 'nothing', 'topic')",
    );
    let said = world.sql(
        "select json_agg(json_build_array(event, private, extension, payload - 'id', payload ->> 'id' = coalesce(nullif(payload ->> 'id', id::text), id::text),
           payload ->> 'id' = 'mine', encode(binary_payload, 'hex'), inserted_at between (now() at time zone 'utc') - interval '1 minute' and now() at time zone 'utc') order by event, private)
         as said from realtime.messages where topic = 'topic'",
    );
    let expected = json!([
        ["bytes", true, "broadcast", null, null, null, "00ff", true],
        ["event", false, "broadcast", {}, true, true, null, true],
        ["event", true, "broadcast", { "a": 1 }, true, false, null, true],
        ["nothing", true, "broadcast", null, null, null, null, true],
    ]);
    assert_eq!(said[0]["said"], expected);
    // What cannot be said is a warning, and what it tells of is done.
    world.sql("select realtime.send('[]', 'event', 'failed'); select realtime.send('{}', 'event', null)");
    assert_eq!(count(world, "topic = 'failed'"), 0);

    world.sql(
        "create table public.told (id int primary key, name text);
         create function public.tell() returns trigger language plpgsql security definer as $$
         begin
           perform realtime.broadcast_changes('told:' || coalesce(new.id, old.id), tg_op, tg_op, tg_table_name, tg_table_schema, new, old);
           return null;
         end
         $$;
         create trigger tell after insert or update or delete on public.told for each row execute function public.tell();
         insert into public.told values (1, 'one');
         update public.told set name = 'two';
         delete from public.told",
    );
    let told = world.sql(
        "select json_agg(json_build_array(event, payload - 'id') order by event) as told from realtime.messages where topic = 'told:1'",
    );
    let change = |operation: &str, old: Value, new: Value| {
        let whole =
            json!({ "operation": operation, "table": "told", "schema": "public", "old_record": old, "record": new });
        json!([operation, whole])
    };
    let row = |name: &str| json!({ "id": 1, "name": name });
    let expected = json!([
        change("DELETE", row("two"), Value::Null),
        change("INSERT", Value::Null, row("one")),
        change("UPDATE", row("one"), row("two")),
    ]);
    assert_eq!(told[0]["told"], expected);
}

fn messages_are_kept_for_days(world: &mut World) {
    let days = "select json_agg(substr(c.relname, 10)::text order by c.relname) as days from pg_inherits i join pg_class c on c.oid = i.inhrelid \
        where i.inhparent = 'realtime.messages'::regclass";
    let ahead = "select json_agg(to_char((now() at time zone 'utc') + n * interval '1 day', 'YYYY_MM_DD')) as days from generate_series(0, 3) n";
    let names = |rows: Value| -> Vec<String> {
        rows[0]["days"].as_array().unwrap().iter().map(|day| day.as_str().unwrap().to_owned()).collect()
    };
    // The template may be of yesterday; a node makes what is missing as it starts.
    ntier_tests::until("the days to come have partitions", || {
        let there = names(world.sql(days));
        names(world.sql(ahead)).iter().all(|day| there.contains(day)) && there.contains(&"default".to_owned())
    });
    world.sql(
        "do $$
         declare
           today date := (now() at time zone 'utc')::date;
           old date;
         begin
           foreach old in array array[today - 3, today - 4] loop
             execute format('create table realtime.%I partition of realtime.messages for values from (%L) to (%L)', 'messages_' || to_char(old, 'YYYY_MM_DD'), old, old + 1);
           end loop;
           insert into realtime.messages (topic, extension, inserted_at)
             select 'days', 'broadcast', today + n from unnest(array[-30, -4, -3, 0, 4, 30]) n;
         end
         $$",
    );
    assert_eq!(
        (count(world, "topic = 'days'"), count(world, "tableoid = 'realtime.messages_default'::regclass")),
        (6, 3)
    );
    world.sql("select ntier.keep_messages()");
    // Four days ago is gone with its partition, thirty without one.
    assert_eq!(count(world, "topic = 'days'"), 4);
    assert_eq!(count(world, "topic = 'days' and inserted_at < (now() at time zone 'utc')::date"), 1);
    // A day whose rows are in the default partition stays there, and the others are kept all the same.
    world.sql(
        "do $$
         declare
           tomorrow date := (now() at time zone 'utc')::date + 1;
         begin
           execute format('drop table realtime.%I', 'messages_' || to_char(tomorrow, 'YYYY_MM_DD'));
           execute format('drop table realtime.%I', 'messages_' || to_char(tomorrow + 1, 'YYYY_MM_DD'));
           insert into realtime.messages (topic, extension, inserted_at) values ('tomorrow', 'broadcast', tomorrow);
         end
         $$",
    );
    world.sql("select ntier.keep_messages()");
    let (there, ahead) = (names(world.sql(days)), names(world.sql(ahead)));
    assert_eq!(ahead.iter().map(|day| there.contains(day)).collect::<Vec<_>>(), [true, false, true, true]);
    assert_eq!(count(world, "topic = 'tomorrow'"), 1);
}

fn count(world: &World, which: &str) -> i64 {
    world.sql(&format!("select count(*) from realtime.messages where {which}"))[0]["count"].as_i64().unwrap()
}

fn client(world: &World, program: &str) -> Command {
    let folder = directory::repository().join("tests/clients/realtime");
    npm::install(&folder);
    let mut command = npm::command("node", &folder);
    command.arg(program).env("URL", &world.node.url).env("KEY", world.key("publishable_key"));
    command.env("SECRET", world.key("secret_key")).env("JWT_SECRET", world.key("jwt_secret"));
    command
}
