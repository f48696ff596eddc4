-- The same as before, sooner: it is asked for each time that changes are read. Its plans are kept now, and what is published is looked up
-- for a table alone rather than listed for all of them. A partition, where lists have the one or the other, is looked up as before.
create or replace function ntier.change_table(relation oid, viewer name) returns json
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
  subject oid;
begin
  if exists (select from pg_class c where c.oid = relation and (c.relispartition or c.relkind = 'p')) then
    select c.oid into subject
      from pg_partition_ancestors(relation::regclass) with ordinality a(relid, ordinality)
      join pg_class c on c.oid = a.relid
      join pg_namespace n on n.oid = c.relnamespace
      where exists (
        select from pg_publication_tables t
        where t.pubname = 'supabase_realtime' and t.schemaname = n.nspname and t.tablename = c.relname)
      order by a.ordinality desc limit 1;
  else
    select c.oid into subject from pg_class c
      where c.oid = relation and pg_relation_is_publishable(relation) and exists (
        select from pg_publication p
        where p.pubname = 'supabase_realtime' and (
          p.puballtables
          or exists (select from pg_publication_rel r where r.prrelid = c.oid and r.prpubid = p.oid)
          or exists (select from pg_publication_namespace s where s.pnnspid = c.relnamespace and s.pnpubid = p.oid)));
  end if;
  return (
    select json_build_object(
      'schema', n.nspname,
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
    )
    from pg_class s join pg_namespace n on n.oid = s.relnamespace, pg_roles r
    where s.oid = subject and r.rolname = viewer
  );
end
$$;

-- As before, but triggers are taken away before others are made: those of a partitioned table are its partitions' too, and where
-- `publish_via_partition_root` changes, the one had them and the others get them.
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
    order by d.key is not null
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
select ntier.attach_changes();

-- As before, but whether something is new is found by the ends of the index. PostgreSQL took so many rows for new ones that it went through
-- the whole table to find the first of them, or that there is none: fifty times a second, 0.1 s each time where 250,000 changes are kept.
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
          select from unnest(array(select pg_catalog.pg_snapshot_xip(b.snapshot))) as running (xid),
            lateral (select from ntier.changes c where c.xid = running.xid order by c.xid, c.id limit 1) as change
        ) or coalesce(
          (select c.xid from ntier.changes c order by c.xid desc, c.id desc limit 1) >= pg_catalog.pg_snapshot_xmax(b.snapshot),
          false
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
