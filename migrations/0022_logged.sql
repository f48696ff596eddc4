-- The embedded engine keeps no unlogged tables. After a crash PostgreSQL makes each of them anew while it reads the folder of the database,
-- and the engine's file system gives some files of a folder twice when others are made meanwhile: such a database might never open again
-- ("could not create file …: File exists"). Tables of this kind save the log and lose their rows; here they keep both.
do $$
declare
  relation record;
begin
  if version() not like '% on wasm32-%' then
    return;
  end if;
  for relation in select oid::regclass as name, case relkind when 'S' then 'sequence' else 'table' end as kind from pg_class
    where relpersistence = 'u' and relkind in ('r', 'S') order by relkind
  loop
    -- A table takes its sequences along.
    if (select relpersistence from pg_class where oid = relation.name) = 'u' then
      execute format('alter %s %s set logged', relation.kind, relation.name);
    end if;
  end loop;

  create or replace function ntier.keep_logged() returns event_trigger language plpgsql set search_path = '' as $body$
  declare
    relation record;
  begin
    for relation in select c.oid::regclass as name, d.object_type from pg_event_trigger_ddl_commands() d
      join pg_class c on c.oid = d.objid and d.classid = 'pg_class'::regclass
      where c.relpersistence = 'u' and c.relkind in ('r', 'S') order by c.relkind
    loop
      if (select relpersistence from pg_class where oid = relation.name) = 'u' then
        execute format('alter %s %s set logged', relation.object_type, relation.name);
      end if;
    end loop;
  end
  $body$;
  drop event trigger if exists ntier_keep_logged;
  create event trigger ntier_keep_logged on ddl_command_end
    when tag in ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE', 'CREATE SEQUENCE', 'ALTER SEQUENCE')
    execute function ntier.keep_logged();
end
$$;
