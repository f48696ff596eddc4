-- Second factors, under Supabase's names.
do $$
begin
  create type auth.factor_type as enum ('totp', 'webauthn', 'phone');
exception
  when duplicate_object then null;
end
$$;
do $$
begin
  create type auth.factor_status as enum ('unverified', 'verified');
exception
  when duplicate_object then null;
end
$$;

create table if not exists auth.mfa_factors (
  id uuid not null primary key,
  user_id uuid not null references auth.users on delete cascade,
  friendly_name text,
  factor_type auth.factor_type not null,
  status auth.factor_status not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  -- Sealed with a key that the nodes have and the database has not.
  secret text,
  phone text,
  last_challenged_at timestamptz unique,
  web_authn_credential jsonb,
  web_authn_aaguid uuid,
  last_webauthn_challenge_data jsonb,
  -- The last step of the clock whose code was taken: no code is taken twice.
  last_used_step bigint
);
create unique index if not exists mfa_factors_user_friendly_name_unique on auth.mfa_factors (friendly_name, user_id) where trim(friendly_name) <> '';
create index if not exists factor_id_created_at_idx on auth.mfa_factors (user_id, created_at);
create unique index if not exists unique_phone_factor_per_user on auth.mfa_factors (user_id, phone);

create table if not exists auth.mfa_challenges (
  id uuid not null primary key,
  factor_id uuid not null references auth.mfa_factors on delete cascade,
  created_at timestamptz not null,
  verified_at timestamptz,
  ip_address inet not null,
  otp_code text,
  web_authn_session_data jsonb
);
create index if not exists mfa_challenge_created_at_idx on auth.mfa_challenges (created_at desc);
create index if not exists mfa_challenges_factor_id_idx on auth.mfa_challenges (factor_id);

alter table auth.mfa_factors enable row level security;
alter table auth.mfa_challenges enable row level security;
grant all on auth.mfa_factors, auth.mfa_challenges to supabase_auth_admin;

create or replace function ntier.auth_factors(of_user uuid) returns json
language sql stable as $$
  select coalesce(json_agg(json_build_object(
    'id', f.id, 'created_at', ntier.utc(f.created_at), 'updated_at', ntier.utc(f.updated_at), 'status', f.status,
    'friendly_name', nullif(f.friendly_name, ''), 'factor_type', f.factor_type, 'phone', nullif(f.phone, ''),
    'last_challenged_at', ntier.utc(f.last_challenged_at)) order by f.created_at), '[]')
  from auth.mfa_factors f where f.user_id = of_user
$$;

-- A user as clients get it; what is null is left out by whoever writes it.
create or replace function ntier.auth_user(u auth.users) returns json
language sql stable as $$
  select json_build_object(
    'id', u.id, 'aud', coalesce(u.aud, ''), 'role', coalesce(u.role, ''), 'email', coalesce(u.email, ''),
    'phone', coalesce(u.phone, ''), 'is_anonymous', u.is_anonymous,
    'email_confirmed_at', ntier.utc(u.email_confirmed_at), 'phone_confirmed_at', ntier.utc(u.phone_confirmed_at),
    'confirmed_at', ntier.utc(u.confirmed_at), 'invited_at', ntier.utc(u.invited_at),
    'confirmation_sent_at', ntier.utc(u.confirmation_sent_at), 'recovery_sent_at', ntier.utc(u.recovery_sent_at),
    'new_email', nullif(u.email_change, ''), 'email_change_sent_at', ntier.utc(u.email_change_sent_at),
    'new_phone', nullif(u.phone_change, ''), 'phone_change_sent_at', ntier.utc(u.phone_change_sent_at),
    'reauthentication_sent_at', ntier.utc(u.reauthentication_sent_at), 'last_sign_in_at', ntier.utc(u.last_sign_in_at),
    'app_metadata', coalesce(u.raw_app_meta_data, '{}'), 'user_metadata', coalesce(u.raw_user_meta_data, '{}'),
    'created_at', coalesce(ntier.utc(u.created_at), ''), 'updated_at', coalesce(ntier.utc(u.updated_at), ''),
    'banned_until', ntier.utc(u.banned_until), 'deleted_at', ntier.utc(u.deleted_at),
    'factors', ntier.auth_factors(u.id),
    'identities', (
      select coalesce(json_agg(json_build_object(
        'identity_id', i.id, 'id', i.provider_id, 'user_id', i.user_id, 'identity_data', i.identity_data, 'provider', i.provider,
        'last_sign_in_at', ntier.utc(i.last_sign_in_at), 'created_at', ntier.utc(i.created_at), 'updated_at', ntier.utc(i.updated_at),
        'email', i.email) order by i.created_at, i.provider), '[]')
      from auth.identities i where i.user_id = u.id))
$$;
