-- Broadcasts under the names that Supabase's projects know: policies on realtime.messages say who may hear and say what on private channels,
-- and realtime.send and realtime.broadcast_changes say something from SQL.
--
-- Messages are kept for three days, in a partition for each day (UTC) that the nodes make ahead (`ntier.keep_messages`). What is inserted while
-- its day has none goes to the default partition, and stays there: an insert never fails for want of one.
create schema if not exists realtime;

do $$
begin
  if not exists (select from pg_roles where rolname = 'supabase_realtime_admin') then
    create role supabase_realtime_admin nologin noinherit;
  end if;
exception
  when duplicate_object or unique_violation or insufficient_privilege then null;
end
$$;

do $realtime$
declare
  messages oid := to_regclass('realtime.messages');
begin
  -- Where Supabase's own table is, it stays.
  if messages is not null and not exists (
    select from pg_attribute where attrelid = messages and attname = 'binary_payload' and not attisdropped
  ) then
    raise warning 'the schema realtime is of an older Supabase: no private channels before its own migrations have run';
    return;
  end if;

  create table if not exists realtime.messages (
    topic text not null,
    -- broadcast or presence
    extension text not null,
    payload jsonb,
    event text,
    private boolean default false,
    -- UTC, whatever the session's time zone is.
    updated_at timestamp not null default (now() at time zone 'utc'),
    inserted_at timestamp not null default (now() at time zone 'utc'),
    id uuid not null default gen_random_uuid(),
    binary_payload bytea,
    primary key (id, inserted_at),
    constraint messages_payload_exclusive check (payload is null or binary_payload is null)
  ) partition by range (inserted_at);
  if messages is null then
    create table realtime.messages_default partition of realtime.messages default;
    create index messages_inserted_at_topic_index on realtime.messages (inserted_at desc, topic)
      where extension = 'broadcast' and private is true;
    comment on table realtime.messages is 'What was said from SQL; its policies say who may do what on private channels.';
  end if;
  alter table realtime.messages enable row level security;

  grant usage on schema realtime to anon, authenticated, service_role;
  grant select, insert, update on realtime.messages to anon, authenticated, service_role;

  create or replace function realtime.topic() returns text language sql stable as $body$
    select nullif(current_setting('realtime.topic', true), '')::text
  $body$;
  comment on function realtime.topic() is 'The name of the channel that is being joined or written to.';

  -- It may be called by a trigger: what goes wrong here must not undo the write that it tells of.
  create or replace function realtime.send(payload jsonb, event text, topic text, private boolean default true) returns void
  language plpgsql as $body$
  declare
    message uuid := gen_random_uuid();
  begin
    perform set_config('realtime.topic', topic, true);
    insert into realtime.messages (id, payload, event, topic, private, extension)
    values (
      message,
      case when payload ? 'id' then payload else jsonb_set(payload, '{id}', to_jsonb(message)) end,
      event, topic, private, 'broadcast'
    );
  exception
    when others then
      raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
  end
  $body$;
  comment on function realtime.send(jsonb, text, text, boolean) is 'Broadcasts to a channel once the transaction has been committed.';

  create or replace function realtime.send_binary(payload bytea, event text, topic text, private boolean default true) returns void
  language plpgsql as $body$
  begin
    perform set_config('realtime.topic', topic, true);
    insert into realtime.messages (binary_payload, event, topic, private, extension)
    values (payload, event, topic, private, 'broadcast');
  exception
    when others then
      raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
  end
  $body$;
  comment on function realtime.send_binary(bytea, text, text, boolean) is 'Broadcasts bytes to a channel once the transaction has been committed.';

  create or replace function realtime.broadcast_changes(
    topic_name text, event_name text, operation text, table_name text, table_schema text, new record, old record, level text default 'ROW'
  ) returns void
  language plpgsql as $body$
  begin
    if level = 'STATEMENT' then
      raise exception 'function can only be triggered for each row, not for each statement';
    end if;
    if operation not in ('INSERT', 'UPDATE', 'DELETE') then
      raise exception 'Unexpected operation type: %', operation;
    end if;
    perform realtime.send(
      jsonb_build_object('old_record', old, 'record', new, 'operation', operation, 'table', table_name, 'schema', table_schema),
      event_name, topic_name
    );
  exception
    when others then
      raise exception 'Failed to process the row: %', sqlerrm;
  end
  $body$;
  comment on function realtime.broadcast_changes(text, text, text, text, text, record, record, text) is
    'Broadcasts what a trigger for each row was called for.';

  -- Where it may be, all of it belongs to the role that a Supabase project expects as its owner; who runs this can still change it.
  begin
    if not pg_has_role(current_user, 'supabase_realtime_admin', 'USAGE') then
      execute format('grant supabase_realtime_admin to %I', current_user);
    end if;
    if pg_has_role(current_user, 'supabase_realtime_admin', 'USAGE') then
      grant all on schema realtime to supabase_realtime_admin;
      alter table realtime.messages owner to supabase_realtime_admin;
      alter table if exists realtime.messages_default owner to supabase_realtime_admin;
      alter function realtime.topic() owner to supabase_realtime_admin;
      alter function realtime.send(jsonb, text, text, boolean) owner to supabase_realtime_admin;
      alter function realtime.send_binary(bytea, text, text, boolean) owner to supabase_realtime_admin;
      alter function realtime.broadcast_changes(text, text, text, text, text, record, record, text) owner to supabase_realtime_admin;
    end if;
  exception
    when insufficient_privilege or undefined_object then null;
  end;
end
$realtime$;

-- Makes the partitions of today and of the days to come, and drops those of days that are over for long. Called by every node at its start and
-- then every hour; one at a time. It waits for nobody for long, and what it cannot do now it does the next time.
create or replace function ntier.keep_messages() returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '500ms' as $$
declare
  ahead constant integer := 3;
  kept constant integer := 3;
  today constant date := (now() at time zone 'utc')::date;
  parent constant oid := to_regclass('realtime.messages');
  owner name;
  part name;
begin
  if parent is null or not pg_try_advisory_xact_lock(7236978912449) then
    return;
  end if;
  owner := (select pg_get_userbyid(relowner) from pg_class where oid = parent);
  for day in 0 .. ahead loop
    part := 'messages_' || to_char(today + day, 'YYYY_MM_DD');
    continue when to_regclass(format('realtime.%I', part)) is not null;
    begin
      -- To attach one locks only it and the default partition; CREATE TABLE … PARTITION OF would lock them all.
      execute format('create table realtime.%I (like realtime.messages including defaults including constraints)', part);
      execute format('alter table realtime.%I owner to %I', part, owner);
      execute format(
        'alter table realtime.messages attach partition realtime.%I for values from (%L) to (%L)', part, today + day, today + day + 1
      );
    exception
      -- Of that day are rows in the default partition; somebody holds a lock; another node was faster.
      when check_violation or lock_not_available or deadlock_detected or duplicate_table or unique_violation then null;
    end;
  end loop;

  for part in
    select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = parent and c.relname ~ '^messages_\d{4}_\d{2}_\d{2}$'
      and substr(c.relname, 10) < to_char(today - kept, 'YYYY_MM_DD')
  loop
    begin
      execute format('drop table realtime.%I', part);
    exception
      when lock_not_available or deadlock_detected or undefined_table then null;
    end;
  end loop;
  if to_regclass('realtime.messages_default') is not null then
    delete from realtime.messages_default where inserted_at < today - kept;
  end if;
end
$$;
revoke all on function ntier.keep_messages() from public;
select ntier.keep_messages();
