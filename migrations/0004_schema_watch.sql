-- Whoever changes the schema, by whatever client: the nodes read it again (`NOTIFY pgrst`, as PostgREST's documentation has it).
-- Only a superuser may create event triggers before PostgreSQL 18; without them a change by hand needs the NOTIFY by hand.
do $$
begin
  if not (select rolsuper from pg_roles where rolname = current_user) then
    raise warning 'changes of the schema are not noticed: % may not create event triggers', current_user;
    return;
  end if;
  -- Supabase's own is there already.
  if exists (select from pg_event_trigger where evtname = 'pgrst_ddl_watch') then
    return;
  end if;

  create or replace function ntier.schema_changed() returns event_trigger language plpgsql as $body$
  begin
    if exists (select from pg_event_trigger_ddl_commands() where schema_name is distinct from 'pg_temp') then
      notify pgrst, 'reload schema';
    end if;
  end
  $body$;
  create or replace function ntier.schema_dropped() returns event_trigger language plpgsql as $body$
  begin
    if exists (select from pg_event_trigger_dropped_objects() where not is_temporary) then
      notify pgrst, 'reload schema';
    end if;
  end
  $body$;

  drop event trigger if exists ntier_schema_changed;
  create event trigger ntier_schema_changed on ddl_command_end
    when tag in (
      'CREATE SCHEMA', 'ALTER SCHEMA', 'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE', 'CREATE FOREIGN TABLE',
      'ALTER FOREIGN TABLE', 'CREATE VIEW', 'ALTER VIEW', 'CREATE MATERIALIZED VIEW', 'ALTER MATERIALIZED VIEW',
      'CREATE FUNCTION', 'ALTER FUNCTION', 'CREATE AGGREGATE', 'CREATE TYPE', 'ALTER TYPE', 'CREATE DOMAIN', 'ALTER DOMAIN',
      'CREATE CAST', 'CREATE POLICY', 'ALTER POLICY', 'CREATE RULE', 'COMMENT'
    )
    execute function ntier.schema_changed();
  drop event trigger if exists ntier_schema_dropped;
  create event trigger ntier_schema_dropped on sql_drop execute function ntier.schema_dropped();
end
$$;
