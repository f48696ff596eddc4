-- A user is asked for with every request of some clients: the same as before, at a twentieth of the price. Until PostgreSQL 18 functions in
-- SQL that do not become a part of the statement are planned with every call, those in PL/pgSQL once in a session.
create or replace function ntier.auth_factors(of_user uuid) returns json
language plpgsql stable as $$
begin
  return (select coalesce(json_agg(json_build_object(
    'id', f.id, 'created_at', ntier.utc(f.created_at), 'updated_at', ntier.utc(f.updated_at), 'status', f.status,
    'friendly_name', nullif(f.friendly_name, ''), 'factor_type', f.factor_type, 'phone', nullif(f.phone, ''),
    'last_challenged_at', ntier.utc(f.last_challenged_at)) order by f.created_at), '[]')
  from auth.mfa_factors f where f.user_id = of_user);
end
$$;

-- A user as clients get it; what is null is left out by whoever writes it.
create or replace function ntier.auth_user(u auth.users) returns json
language plpgsql stable as $$
begin
  return json_build_object(
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
      from auth.identities i where i.user_id = u.id));
end
$$;

-- `to_char` is stable but not immutable: a function that promises more than its body never becomes a part of the statement.
create or replace function ntier.utc(moment timestamptz) returns text
language sql stable parallel safe as $$
  select to_char(moment at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;
