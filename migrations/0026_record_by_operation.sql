-- What writes a change is one function for each operation, without a branch: whoever writes a row waits for it, and to make ready in each
-- transaction what the branch compared took about a tenth of the whole.
create or replace function ntier.record_insert() returns trigger language plpgsql security definer as $$
begin
  insert into ntier.changes (relation, operation, new) values (tg_relid, 'I', pg_catalog.row_to_json(new));
  return null;
end
$$;
create or replace function ntier.record_update() returns trigger language plpgsql security definer as $$
begin
  insert into ntier.changes (relation, operation, new) values (tg_relid, 'U', pg_catalog.row_to_json(new));
  return null;
end
$$;
create or replace function ntier.record_update_with_old() returns trigger language plpgsql security definer as $$
begin
  insert into ntier.changes (relation, operation, old, new)
    values (tg_relid, 'U', pg_catalog.row_to_json(old), pg_catalog.row_to_json(new));
  return null;
end
$$;
create or replace function ntier.record_delete() returns trigger language plpgsql security definer as $$
begin
  insert into ntier.changes (relation, operation, old) values (tg_relid, 'D', pg_catalog.row_to_json(old));
  return null;
end
$$;

-- They belong to whoever the one belonged to.
do $$
declare
  writer regrole := (select proowner from pg_proc where oid = 'ntier.record_change()'::regprocedure);
  function regprocedure;
begin
  grant create on schema ntier to ntier_outbox;
  foreach function in array
    array['ntier.record_insert()', 'ntier.record_update()', 'ntier.record_update_with_old()', 'ntier.record_delete()']::regprocedure[]
  loop
    execute format('revoke all on function %s from public', function);
    execute format('grant execute on function %s to current_user', function);
    execute format('alter function %s owner to %s', function, writer);
  end loop;
  revoke create on schema ntier from ntier_outbox;
end
$$;

-- As before, with these functions.
create or replace function ntier.attach_changes() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  wanted record;
  made record;
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
      for made in
        select * from (
          values
            ('ntier_insert', 'insert', wanted.pubinsert, null, 'record_insert'),
            ('ntier_delete', 'delete', wanted.pubdelete, null, 'record_delete'),
            ('ntier_update', 'update', wanted.pubupdate and wanted.is_full, null, 'record_update_with_old'),
            ('ntier_update', 'update', wanted.pubupdate and not wanted.is_full, 'not (' || wanted.changed || ')', 'record_update'),
            ('ntier_update_key', 'update', wanted.pubupdate and not wanted.is_full and wanted.changed is not null, wanted.changed,
              'record_update_with_old')
        ) trigger (name, event, is_wanted, condition, function) where is_wanted
      loop
        execute format('create trigger %I after %s on %I.%I for each row %s execute function ntier.%I()', made.name, made.event,
          wanted.nspname, wanted.relname, 'when (' || made.condition || ')', made.function);
      end loop;
      insert into ntier.change_triggers (relation, key) values (wanted.relation, wanted.key);
    exception
      when others then
        raise warning 'changes of % are not announced: %', coalesce(wanted.relname, wanted.relation::text), sqlerrm;
    end;
  end loop;
end
$$;
-- What is there is made anew; a table that cannot be locked now keeps the function that it has, until a node looks again.
update ntier.change_triggers set key = '';
select ntier.attach_changes();
