-- The schemas that a Supabase project expects, who may look into them, and the extensions it takes for granted.
create schema if not exists auth;
create schema if not exists storage;
create schema if not exists extensions;

grant usage on schema public, auth, storage, extensions to anon, authenticated, service_role;
grant all on schema auth to supabase_auth_admin;
grant all on schema storage to supabase_storage_admin;

-- Where the server has them and lets us; what needs one of them says so itself.
do $$
declare
  wanted text;
begin
  foreach wanted in array array['pgcrypto', 'uuid-ossp'] loop
    continue when exists (select from pg_extension where extname = wanted);
    continue when not exists (select from pg_available_extensions where name = wanted);
    begin
      execute format('create extension if not exists %I with schema extensions', wanted);
    exception
      when insufficient_privilege then
        raise warning 'the extension % is not installed: % may not', wanted, current_user;
    end;
  end loop;
end
$$;

-- Tables in this publication are announced to subscribers; a project's migrations add them.
do $$
begin
  if not exists (select from pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
  end if;
exception
  when insufficient_privilege then
    raise warning 'the publication supabase_realtime is not there: % may not create it', current_user;
end
$$;
