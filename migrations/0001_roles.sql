-- The roles that requests act as, and the one that may become them.
--
-- Roles belong to the whole server, not to this database: another database's node may create them at the
-- same moment, so each is created by itself and "it is there already" is success.
do $$
declare
  wanted record;
begin
  for wanted in
    select * from (values
      ('anon', 'nologin noinherit', '3s'),
      ('authenticated', 'nologin noinherit', '8s'),
      ('service_role', 'nologin noinherit bypassrls', '60s'),
      ('authenticator', 'login noinherit', null),
      ('supabase_auth_admin', 'nologin noinherit', null),
      ('supabase_storage_admin', 'nologin noinherit', null)
    ) as list (name, attributes, patience)
  loop
    continue when exists (select from pg_roles where rolname = wanted.name);
    begin
      execute format('create role %I %s', wanted.name, wanted.attributes);
      -- A request's role brings its own patience: what a stranger asks is ended sooner.
      if wanted.patience is not null then
        execute format('alter role %I set statement_timeout = %L', wanted.name, wanted.patience);
      end if;
    exception
      when duplicate_object or unique_violation then null;
      when insufficient_privilege then
        raise exception 'the role % is missing and % may not create it', wanted.name, current_user
          using errcode = 'insufficient_privilege',
                hint = format('As a superuser, run: create role %I %s;', wanted.name, wanted.attributes);
    end;
  end loop;
end
$$;

-- Membership: the authenticator may become the three, and so may the role that runs this, because the node
-- connects with it. A superuser may anyway. Since PostgreSQL 16 the right to become is called SET.
do $$
declare
  becoming text := case when current_setting('server_version_num')::int >= 160000 then 'SET' else 'MEMBER' end;
  is_superuser boolean := (select rolsuper from pg_roles where rolname = current_user);
  member text;
  granted text;
begin
  for member, granted in
    select m, g
    from unnest(array['authenticator', current_user::text]) as m, unnest(array['anon', 'authenticated', 'service_role']) as g
    where m = 'authenticator' or not is_superuser
  loop
    continue when pg_has_role(member, granted, becoming);
    begin
      execute format('grant %I to %I', granted, member);
    exception
      when unique_violation then null;
      when insufficient_privilege then
        raise exception '% may not become the role % and % may not allow it', member, granted, current_user
          using errcode = 'insufficient_privilege',
                hint = format('As a superuser, run: grant %I to %I;', granted, member);
    end;
  end loop;
end
$$;
