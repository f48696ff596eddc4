-- Users and their sessions, under the names that Supabase's projects know: policies, foreign keys and triggers of a project
-- refer to them, and a dump of its data can be restored.
--
-- Nobody but the owner and supabase_auth_admin may look in; row level security is on without a policy, so that a grant made by
-- mistake shows nothing either.
create table if not exists auth.users (
  instance_id uuid,
  id uuid not null primary key,
  aud varchar(255),
  role varchar(255),
  email varchar(255),
  encrypted_password varchar(255),
  email_confirmed_at timestamptz,
  invited_at timestamptz,
  confirmation_token varchar(255),
  confirmation_sent_at timestamptz,
  recovery_token varchar(255),
  recovery_sent_at timestamptz,
  email_change_token_new varchar(255),
  email_change varchar(255),
  email_change_sent_at timestamptz,
  last_sign_in_at timestamptz,
  raw_app_meta_data jsonb,
  raw_user_meta_data jsonb,
  is_super_admin boolean,
  created_at timestamptz,
  updated_at timestamptz,
  phone text default null unique,
  phone_confirmed_at timestamptz,
  phone_change text default '',
  phone_change_token varchar(255) default '',
  phone_change_sent_at timestamptz,
  confirmed_at timestamptz generated always as (least(email_confirmed_at, phone_confirmed_at)) stored,
  email_change_token_current varchar(255) default '',
  email_change_confirm_status smallint default 0 check (email_change_confirm_status between 0 and 2),
  banned_until timestamptz,
  reauthentication_token varchar(255) default '',
  reauthentication_sent_at timestamptz,
  is_sso_user boolean not null default false,
  deleted_at timestamptz,
  is_anonymous boolean not null default false
);
create unique index if not exists users_email_partial_key on auth.users (email) where is_sso_user = false;
create index if not exists users_created_at_idx on auth.users (created_at desc, id);
create index if not exists users_is_anonymous_idx on auth.users (is_anonymous);

create table if not exists auth.identities (
  provider_id text not null,
  user_id uuid not null references auth.users on delete cascade,
  identity_data jsonb not null,
  provider text not null,
  last_sign_in_at timestamptz,
  created_at timestamptz,
  updated_at timestamptz,
  email text generated always as (lower(identity_data ->> 'email')) stored,
  id uuid not null default gen_random_uuid() primary key,
  constraint identities_provider_id_provider_unique unique (provider_id, provider)
);
create index if not exists identities_user_id_idx on auth.identities (user_id);
create index if not exists identities_email_idx on auth.identities (email text_pattern_ops);

do $$
begin
  create type auth.aal_level as enum ('aal1', 'aal2', 'aal3');
exception
  when duplicate_object then null;
end
$$;

-- A refresh token names its session and a number. The session knows the number that counts now; the tokens themselves are nowhere.
create table if not exists auth.sessions (
  id uuid not null primary key,
  user_id uuid not null references auth.users on delete cascade,
  created_at timestamptz,
  updated_at timestamptz,
  factor_id uuid,
  aal auth.aal_level,
  not_after timestamptz,
  refreshed_at timestamp,
  user_agent text,
  ip inet,
  tag text,
  oauth_client_id uuid,
  refresh_token_hmac_key text,
  refresh_token_counter bigint,
  scopes text check (char_length(scopes) <= 4096)
);
create index if not exists user_id_created_at_idx on auth.sessions (user_id, created_at);
create index if not exists sessions_not_after_idx on auth.sessions (not_after desc);

-- How a session came about.
create table if not exists auth.mfa_amr_claims (
  session_id uuid not null references auth.sessions on delete cascade,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  authentication_method text not null,
  id uuid not null constraint amr_id_pk primary key,
  constraint mfa_amr_claims_session_id_authentication_method_pkey unique (session_id, authentication_method)
);

-- Tokens of the older kind, as a dump of a Supabase project brings them.
create table if not exists auth.refresh_tokens (
  instance_id uuid,
  id bigserial primary key,
  token varchar(255) constraint refresh_tokens_token_unique unique,
  user_id varchar(255),
  revoked boolean,
  created_at timestamptz,
  updated_at timestamptz,
  parent varchar(255),
  session_id uuid references auth.sessions on delete cascade
);
create index if not exists refresh_tokens_session_id_revoked_idx on auth.refresh_tokens (session_id, revoked);

create table if not exists auth.audit_log_entries (
  instance_id uuid,
  id uuid not null primary key,
  payload json,
  created_at timestamptz,
  ip_address varchar(64) not null default ''
);
create index if not exists audit_log_entries_created_at_idx on auth.audit_log_entries (created_at desc);

do $$
declare
  name text;
begin
  foreach name in array array['users', 'identities', 'sessions', 'mfa_amr_claims', 'refresh_tokens', 'audit_log_entries'] loop
    execute format('alter table auth.%I enable row level security', name);
    execute format('grant all on auth.%I to supabase_auth_admin', name);
  end loop;
end
$$;
grant all on sequence auth.refresh_tokens_id_seq to supabase_auth_admin;

-- What a change of a user or a session begins with: `select ntier.expect(found)` undoes the transaction where something is no longer
-- as it was when the decision was made.
create or replace function ntier.expect(is_so boolean, what text) returns void
language plpgsql as $$
begin
  if is_so is not true then
    raise exception using errcode = 'NT001', message = what;
  end if;
end
$$;

-- A time as clients read it (RFC 3339).
create or replace function ntier.utc(moment timestamptz) returns text
language sql immutable parallel safe as $$
  select to_char(moment at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

-- How often somebody has asked lately, for all nodes together: buckets that fill up with time. Lost in a crash, which only forgives.
create unlogged table if not exists ntier.rate_limits (
  -- What is limited, and for whom.
  key text not null primary key,
  tokens float8 not null,
  -- A second.
  refill float8 not null,
  is_allowed boolean not null,
  seen_at timestamptz not null
);
create index if not exists rate_limits_seen_at on ntier.rate_limits (seen_at);

-- Takes one from each of these buckets, whose size and refill a second are given; false where one of them was empty.
create or replace function ntier.take(keys text[], sizes float8[], refills float8[]) returns boolean
language sql as $$
  with asked as (
    select * from unnest(keys, sizes, refills) as asked (key, size, refill) order by key
  ), taken as (
    insert into ntier.rate_limits as bucket (key, tokens, refill, is_allowed, seen_at)
    select key, size - 1, refill, true, now() from asked
    on conflict (key) do update set
      -- Who is refused takes nothing: else whoever asks without end would keep the bucket empty for everybody.
      tokens = least(excluded.tokens + 1, bucket.tokens + extract(epoch from now() - bucket.seen_at) * excluded.refill)
        - case when least(excluded.tokens + 1, bucket.tokens + extract(epoch from now() - bucket.seen_at) * excluded.refill) >= 1 then 1 else 0 end,
      is_allowed = least(excluded.tokens + 1, bucket.tokens + extract(epoch from now() - bucket.seen_at) * excluded.refill) >= 1,
      seen_at = now()
    returning is_allowed
  )
  select coalesce(bool_and(is_allowed), true) from taken
$$;
