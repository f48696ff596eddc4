-- What a user may have in files, where the project says how much (`storage.user_quota`): the node tells it with each row that it writes, as
-- bytes, in `ntier.storage_quota`. Whoever replaces or copies a file is asked too; what is no user's counts for nobody.
create index if not exists objects_owner_id_idx on storage.objects (owner_id) where owner_id is not null;

create or replace function ntier.keep_storage_quota() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  quota constant bigint := nullif(current_setting('ntier.storage_quota', true), '')::bigint;
  used bigint;
begin
  if quota is null then
    return null;
  end if;
  -- One after the other: two uploads at once must not both be the last that fits.
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('ntier storage quota ' || new.owner_id, 0));
  select coalesce(sum(coalesce((o.metadata->>'size')::bigint, (o.metadata->>'contentLength')::bigint)), 0) into used
    from storage.objects o where o.owner_id = new.owner_id;
  if used > quota then
    raise exception 'The files of a user may take % bytes in all', quota using errcode = '53400';
  end if;
  return null;
end
$$;
revoke all on function ntier.keep_storage_quota() from public;

drop trigger if exists keep_storage_quota on storage.objects;
create trigger keep_storage_quota after insert or update of metadata, owner_id on storage.objects
  for each row when (new.owner_id is not null) execute function ntier.keep_storage_quota();
