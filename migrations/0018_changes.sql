-- Changes of tables, as clients of realtime hear of them: an outbox that triggers fill, and the batches that put it in an order.
--
-- A table in the publication `supabase_realtime` gets triggers that write each change, in the transaction that makes it, to
-- `ntier.changes`: nothing is notified, nothing is locked. Whatever node comes first writes a batch: the snapshot of that moment. Batch n
-- has what is visible in snapshot n and was not in snapshot n - 1, ordered by id, which follows the locks of rows; so batches are in the
-- order of commits, every node reads the same in each, and (batch, id) is a position that holds for all of them and after all of them.
create table if not exists ntier.changes (
  id bigint generated always as identity,
  xid xid8 not null default pg_current_xact_id(),
  at timestamptz not null default clock_timestamp(),
  relation oid not null,
  -- I, U, D; B: a row of realtime.messages.
  operation "char" not null,
  old json,
  new json
);
create index if not exists changes_xid_id_idx on ntier.changes (xid, id);
-- What is written is read once or twice and deleted: its dead rows are taken away early.
alter table ntier.changes set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000);

create table if not exists ntier.change_batches (
  batch bigint primary key,
  snapshot pg_snapshot not null,
  at timestamptz not null default clock_timestamp()
);
insert into ntier.change_batches (batch, snapshot)
  select 0, pg_current_snapshot() where not exists (select from ntier.change_batches);

-- Which tables have triggers, and for what key they were made.
create table if not exists ntier.change_triggers (
  relation oid primary key,
  key text not null
);

-- What a row is turned to json by may be a cast of the project's: it runs as somebody who can write here and do nothing else.
do $$
begin
  if not exists (select from pg_roles where rolname = 'ntier_outbox') then
    create role ntier_outbox nologin noinherit;
  end if;
exception
  when duplicate_object or unique_violation then null;
end
$$;
grant usage on schema ntier to ntier_outbox;
grant insert on ntier.changes to ntier_outbox;

create or replace function ntier.record_change() returns trigger language plpgsql security definer as $$
begin
  if tg_op = 'INSERT' then
    insert into ntier.changes (relation, operation, new) values (tg_relid, 'I', pg_catalog.row_to_json(new));
  elsif tg_op = 'DELETE' then
    insert into ntier.changes (relation, operation, old) values (tg_relid, 'D', pg_catalog.row_to_json(old));
  elsif tg_nargs = 0 then
    insert into ntier.changes (relation, operation, new) values (tg_relid, 'U', pg_catalog.row_to_json(new));
  else
    insert into ntier.changes (relation, operation, old, new)
      values (tg_relid, 'U', pg_catalog.row_to_json(old), pg_catalog.row_to_json(new));
  end if;
  return null;
end
$$;

-- Rows of realtime.messages are said to their channels.
create or replace function ntier.record_broadcast() returns trigger language plpgsql security definer as $$
begin
  insert into ntier.changes (relation, operation, new) values (tg_relid, 'B', pg_catalog.row_to_json(new));
  return null;
end
$$;
revoke all on function ntier.record_change(), ntier.record_broadcast() from public;
grant execute on function ntier.record_change(), ntier.record_broadcast() to current_user;

do $$
declare
  function regprocedure;
begin
  if not (select rolsuper from pg_roles where rolname = current_user) then
    execute format(
      'grant ntier_outbox to %I %s', current_user,
      case when current_setting('server_version_num')::int >= 160000 then 'with set true' else '' end
    );
  end if;
  grant create on schema ntier to ntier_outbox;
  foreach function in array array['ntier.record_change()', 'ntier.record_broadcast()']::regprocedure[] loop
    execute format('alter function %s owner to ntier_outbox', function);
  end loop;
  revoke create on schema ntier from ntier_outbox;
exception
  when insufficient_privilege or invalid_grant_operation then
    raise warning 'changes are written as %: it may not use the role ntier_outbox', current_user;
end
$$;

-- Gives published tables their triggers and takes them from others. An update tells the old row where the replica identity is full, or
-- where the key changes. Where a table cannot have triggers, it is said and the others have theirs.
create or replace function ntier.attach_changes() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  wanted record;
  name text;
begin
  for wanted in
    with published as (
      select c.oid, n.nspname, c.relname, c.relreplident = 'f' as is_full, p.pubinsert, p.pubupdate, p.pubdelete
      from pg_publication p, pg_publication_tables t
      join pg_namespace n on n.nspname = t.schemaname
      join pg_class c on c.relnamespace = n.oid and c.relname = t.tablename
      where p.pubname = 'supabase_realtime' and t.pubname = p.pubname
        and n.nspname not in ('ntier', 'realtime')
    ), keyed as (
      select p.*, (
        select string_agg(format('old.%1$I is distinct from new.%1$I', a.attname), ' or ' order by a.attnum)
        from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
        where i.indrelid = p.oid and i.indisprimary
      ) as changed
      from published p
    ), described as (
      select k.*, concat_ws(' ', case when pubinsert then 'insert' end, case when pubdelete then 'delete' end,
        case when pubupdate then 'update ' || case when is_full then 'full' else coalesce(changed, 'none') end end) as key
      from keyed k
    )
    select coalesce(d.oid, t.relation) as relation, d.nspname, d.relname, d.is_full, d.changed, d.key,
      d.pubinsert, d.pubupdate, d.pubdelete, exists (select from pg_class where oid = t.relation) as is_there
    from described d full join ntier.change_triggers t on t.relation = d.oid
    where d.key is distinct from t.key
      or (d.oid is not null and not exists (
        select from pg_trigger g where g.tgrelid = d.oid and g.tgname in ('ntier_insert', 'ntier_update', 'ntier_delete')))
  loop
    begin
      if wanted.is_there then
        foreach name in array array['ntier_insert', 'ntier_update', 'ntier_update_key', 'ntier_delete'] loop
          execute format('drop trigger if exists %I on %s', name, wanted.relation::regclass);
        end loop;
      end if;
      delete from ntier.change_triggers where relation = wanted.relation;
      continue when wanted.key is null;
      if wanted.pubinsert then
        execute format(
          'create trigger ntier_insert after insert on %I.%I for each row execute function ntier.record_change()',
          wanted.nspname, wanted.relname);
      end if;
      if wanted.pubdelete then
        execute format(
          'create trigger ntier_delete after delete on %I.%I for each row execute function ntier.record_change()',
          wanted.nspname, wanted.relname);
      end if;
      if wanted.pubupdate then
        if wanted.is_full then
          execute format(
            'create trigger ntier_update after update on %I.%I for each row execute function ntier.record_change(%L)',
            wanted.nspname, wanted.relname, 'old');
        else
          execute format(
            'create trigger ntier_update after update on %I.%I for each row %s execute function ntier.record_change()',
            wanted.nspname, wanted.relname, 'when (not (' || wanted.changed || '))');
          if wanted.changed is not null then
            execute format(
              'create trigger ntier_update_key after update on %I.%I for each row when (%s) execute function ntier.record_change(%L)',
              wanted.nspname, wanted.relname, wanted.changed, 'old');
          end if;
        end if;
      end if;
      insert into ntier.change_triggers (relation, key) values (wanted.relation, wanted.key);
    exception
      when others then
        raise warning 'changes of % are not announced: %', coalesce(wanted.relname, wanted.relation::text), sqlerrm;
    end;
  end loop;
end
$$;
revoke all on function ntier.attach_changes() from public;

-- Whoever changes what is published, by whatever client. Without the right to watch, nodes look themselves from time to time.
create or replace function ntier.publication_changed() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform ntier.attach_changes();
exception
  when others then
    raise warning 'changes are not announced: %', sqlerrm;
end
$$;
revoke all on function ntier.publication_changed() from public;
do $$
begin
  if (select rolsuper from pg_roles where rolname = current_user) then
    drop event trigger if exists ntier_publication_changed;
    create event trigger ntier_publication_changed on ddl_command_end
      when tag in ('CREATE PUBLICATION', 'ALTER PUBLICATION', 'DROP PUBLICATION', 'CREATE TABLE', 'CREATE TABLE AS', 'ALTER TABLE')
      execute function ntier.publication_changed();
  end if;
end
$$;
select ntier.attach_changes();

-- A row without an event is a question of a node about a right.
drop trigger if exists ntier_broadcast on realtime.messages;
create trigger ntier_broadcast after insert on realtime.messages
  for each row when (new.extension = 'broadcast' and new.event is not null) execute function ntier.record_broadcast();

-- Writes a batch if something is new, unless another does, and says which is the newest. Its rows are those of the transactions that ran
-- when the batch before was written or began later, and that have ended: no others need to be looked at.
create or replace function ntier.sequence_changes() returns bigint language plpgsql as $$
declare
  latest record;
begin
  -- Most of the time nothing is new, and nothing needs to be locked to see that. Under the lock it is looked again.
  for attempt in 1..2 loop
    select b.batch, pg_catalog.pg_current_snapshot() as now,
        -- A snapshot of what is not yet: the tables come from another server, whose transactions say nothing here.
        pg_catalog.pg_snapshot_xmax(b.snapshot) > pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()) as is_foreign,
        exists (
          select from ntier.changes c where c.xid = any (array(select pg_catalog.pg_snapshot_xip(b.snapshot)))
        ) or exists (
          select from ntier.changes c where c.xid >= pg_catalog.pg_snapshot_xmax(b.snapshot)
        ) as is_new
      into latest
      from (select * from ntier.change_batches order by batch desc limit 1) b;
    if not (latest.is_new or latest.is_foreign) then
      return latest.batch;
    end if;
    if attempt = 1 and not pg_catalog.pg_try_advisory_xact_lock(7236978912447) then
      return latest.batch;
    end if;
  end loop;
  if latest.is_foreign then
    delete from ntier.changes;
    delete from ntier.change_batches;
  end if;
  insert into ntier.change_batches (batch, snapshot) values (latest.batch + 1, latest.now);
  return latest.batch + 1;
end
$$;

-- What comes after a position, in order; at most so many rows. What is longer than a client is told is cut to its small values.
create or replace function ntier.changes_after(after_batch bigint, after_id bigint, most integer, largest integer)
returns table (batch bigint, id bigint, at text, relation oid, operation "char", is_cut boolean, old json, new json)
language plpgsql stable as $$
declare
  before pg_snapshot;
  this record;
  given integer := 0;
  count integer;
begin
  for this in
    select b.batch as number, b.snapshot from ntier.change_batches b
    -- The position's own batch first, unless it is done with.
    where b.batch > after_batch or (b.batch = after_batch and after_id < 9223372036854775807) order by b.batch
  loop
    if before is null then
      select b.snapshot into before from ntier.change_batches b where b.batch = this.number - 1;
      -- The oldest has nothing before it to count from.
      if before is null then
        before := this.snapshot;
        continue;
      end if;
    end if;
    return query
      select this.number, c.id, to_char(c.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), c.relation, c.operation, l.is_long,
        case when l.is_long and c.operation <> 'B' then ntier.small_values(c.old) else c.old end,
        case when l.is_long and c.operation <> 'B' then ntier.small_values(c.new) else c.new end
      from (
        select * from ntier.changes c
        where (c.xid = any (array(select pg_catalog.pg_snapshot_xip(before))) or c.xid >= pg_catalog.pg_snapshot_xmax(before))
          and c.xid < pg_catalog.pg_snapshot_xmax(this.snapshot)
          and pg_catalog.pg_visible_in_snapshot(c.xid, this.snapshot)
          and (this.number > after_batch or c.id > after_id)
        order by c.id
        limit most - given
      ) c,
      lateral (select coalesce(octet_length(c.old::text), 0) + coalesce(octet_length(c.new::text), 0) > largest as is_long) l
      order by c.id;
    get diagnostics count = row_count;
    given := given + count;
    exit when given >= most;
    before := this.snapshot;
  end loop;
end
$$;

create or replace function ntier.small_values(whole json) returns json language sql immutable as $$
  select coalesce(json_object_agg(key, value) filter (where octet_length(value::text) <= 64), '{}') from json_each(whole)
$$;

-- Deletes what is older than that, and the older half where all of it is more than that many bytes; clients that were away for longer are told so. The oldest batch that
-- is left is where all others count from, and the newest keeps its rows: nobody who has seen all of it has missed anything.
create or replace function ntier.sweep_changes(age interval, bytes bigint) returns bigint language plpgsql as $$
declare
  last record;
  kept numeric;
  swept bigint := 0;
begin
  if not pg_catalog.pg_try_advisory_xact_lock(7236978912448) then
    return 0;
  end if;
  perform ntier.sequence_changes();
  select b.batch, b.snapshot into last from ntier.change_batches b
    where b.at < clock_timestamp() - age and b.batch < (select max(m.batch) from ntier.change_batches m)
    order by b.batch desc limit 1;
  -- As many rows as there are numbers, of the size of the newest: the file itself does not become shorter.
  select (newest.id - (select c.id from ntier.changes c order by c.xid, c.id limit 1) + 1) * newest.size into kept
    from (
      select max(c.id) as id, avg(pg_catalog.pg_column_size(c)) as size
      from (select * from ntier.changes order by xid desc, id desc limit 1000) c
    ) newest;
  if bytes < kept then
    select b.batch, b.snapshot into last from ntier.change_batches b
      where b.batch >= greatest(last.batch, (select (min(m.batch) + max(m.batch)) / 2 from ntier.change_batches m))
        and b.batch < (select max(m.batch) from ntier.change_batches m)
      order by b.batch limit 1;
  end if;
  if last.batch is not null then
    delete from ntier.changes c
      where c.xid < pg_catalog.pg_snapshot_xmax(last.snapshot) and pg_catalog.pg_visible_in_snapshot(c.xid, last.snapshot);
    get diagnostics swept = row_count;
    delete from ntier.change_batches b where b.batch < last.batch;
  end if;
  return swept;
end
$$;
revoke all on function ntier.sequence_changes(), ntier.changes_after(bigint, bigint, integer, integer),
  ntier.small_values(json), ntier.sweep_changes(interval, bigint) from public;

-- A published table as somebody sees it; nothing if it is not published. A partition stands for the table that is published, where that is.
create or replace function ntier.change_table(relation oid, viewer name) returns json
language sql stable set search_path = pg_catalog, pg_temp as $$
  with ancestors as (
    select a.relid, a.ordinality from pg_partition_ancestors(relation::regclass) with ordinality a(relid, ordinality)
    union all select relation, 1 where not exists (select from pg_partition_ancestors(relation::regclass))
  ), subject as (
    select c.*, n.nspname from ancestors a
    join pg_class c on c.oid = a.relid
    join pg_namespace n on n.oid = c.relnamespace
    where exists (
      select from pg_publication_tables t
      where t.pubname = 'supabase_realtime' and t.schemaname = n.nspname and t.tablename = c.relname)
    order by a.ordinality desc limit 1
  )
  select json_build_object(
    'schema', s.nspname,
    'table', s.relname,
    'row_security', s.relrowsecurity,
    -- Whether policies decide which rows it sees.
    'filtered', s.relrowsecurity and not r.rolbypassrls and not r.rolsuper
      and (s.relforcerowsecurity or not pg_has_role(r.oid, s.relowner, 'USAGE')),
    'full', s.relreplident = 'f',
    'columns', (
      select coalesce(json_agg(json_build_object(
        'name', a.attname,
        'type', t.typname,
        'is_usual', t.typnamespace = 'pg_catalog'::regnamespace,
        'is_enum', t.typtype = 'e',
        'sql', format_type(a.atttypid, a.atttypmod),
        'is_text', t.typcategory = 'S',
        'said', format_type(a.atttypid, null),
        'key', coalesce(a.attnum = any (k.indkey), false),
        'readable', has_schema_privilege(viewer, s.relnamespace, 'USAGE') and has_column_privilege(viewer, s.oid, a.attnum, 'SELECT')
      ) order by a.attnum), '[]')
      from pg_attribute a join pg_type t on t.oid = a.atttypid
      left join pg_index k on k.indrelid = s.oid and k.indisprimary
      where a.attrelid = s.oid and a.attnum > 0 and not a.attisdropped
    )
  ) from subject s, pg_roles r where r.rolname = viewer
$$;
