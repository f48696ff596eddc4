-- Buckets and objects under the names that Supabase's projects know: their policies, and a dump of theirs, find what they expect.
--
-- What listings cost is the number of entries that are listed, not of the objects below them: each folder is one step in an index, behind
-- it (`storage.walk_level`). Row level security lets only comparisons that tell nothing (leakproof) into an index, and `lower` is none
-- of them: therefore the names in lower case are a column.
do $storage$
declare
  objects oid := to_regclass('storage.objects');
begin
  -- Where Supabase's own tables are, they and their functions stay; they know nothing of that column.
  if objects is not null and not exists (select from pg_attribute where attrelid = objects and attname = 'name_lower') then
    if to_regprocedure('storage.list_objects_with_delimiter(text,text,text,integer,text,text,text)') is null
      or to_regprocedure('storage.protect_delete()') is null
      or not exists (select from pg_attribute where attrelid = to_regclass('storage.s3_multipart_uploads') and attname = 'metadata')
    then
      raise warning 'the schema storage is of an older Supabase: no files before its own migrations have run, to 57 at least';
    end if;
    return;
  end if;

  if to_regtype('storage.buckettype') is null then
    create type storage.buckettype as enum ('STANDARD', 'ANALYTICS', 'VECTOR');
  end if;

  create table if not exists storage.buckets (
    id text not null primary key,
    name text not null,
    owner uuid,
    created_at timestamptz default now(),
    updated_at timestamptz default now(),
    public boolean default false,
    avif_autodetection boolean default false,
    -- Bytes.
    file_size_limit bigint,
    allowed_mime_types text[],
    owner_id text,
    type storage.buckettype not null default 'STANDARD',
    versioning_status text not null default 'DISABLED',
    constraint buckets_versioning_status_check check (versioning_status in ('DISABLED', 'ENABLED', 'SUSPENDED')),
    constraint buckets_versioning_standard_only_check check (type = 'STANDARD' or versioning_status = 'DISABLED'),
    -- As long as nobody keeps old versions.
    constraint buckets_versioning_dark_check check (versioning_status = 'DISABLED')
  );
  create unique index if not exists bname on storage.buckets (name);

  create table if not exists storage.objects (
    id uuid not null default gen_random_uuid() primary key,
    bucket_id text constraint "objects_bucketId_fkey" references storage.buckets,
    name text,
    owner uuid,
    created_at timestamptz default now(),
    updated_at timestamptz default now(),
    last_accessed_at timestamptz default now(),
    -- What the store knows of the file: size, MIME type, ETag, …
    metadata jsonb,
    path_tokens text[] generated always as (string_to_array(name, '/')) stored,
    -- The blob's name, or that of its parts (`ntier.object_parts`).
    version text,
    owner_id text,
    -- What the caller says of the file.
    user_metadata jsonb,
    archived_at timestamptz,
    is_delete_marker boolean not null default false,
    is_versioned boolean not null default false,
    name_lower text collate "C" generated always as (lower(name)) stored
  );
  create unique index if not exists bucketid_objname on storage.objects (bucket_id, name);
  create index if not exists name_prefix_search on storage.objects (name text_pattern_ops);
  create index if not exists idx_objects_bucket_id_name on storage.objects (bucket_id, name collate "C");
  create index if not exists idx_objects_bucket_id_name_lower on storage.objects (bucket_id, name_lower);
  create index if not exists objects_version_idx on storage.objects (version);

  create table if not exists storage.s3_multipart_uploads (
    id text not null primary key,
    in_progress_size bigint not null default 0,
    upload_signature text not null,
    bucket_id text not null references storage.buckets,
    key text collate "C" not null,
    version text not null,
    owner_id text,
    created_at timestamptz not null default now(),
    user_metadata jsonb,
    metadata jsonb
  );
  create index if not exists idx_multipart_uploads_list on storage.s3_multipart_uploads (bucket_id, key, created_at);

  create table if not exists storage.s3_multipart_uploads_parts (
    id uuid not null default gen_random_uuid() primary key,
    upload_id text not null references storage.s3_multipart_uploads on delete cascade,
    size bigint not null default 0,
    part_number integer not null,
    bucket_id text not null references storage.buckets,
    key text collate "C" not null,
    etag text not null,
    owner_id text,
    version text not null,
    created_at timestamptz not null default now()
  );
  create index if not exists s3_multipart_uploads_parts_upload_id_idx on storage.s3_multipart_uploads_parts (upload_id, part_number);
  create index if not exists s3_multipart_uploads_parts_version_idx on storage.s3_multipart_uploads_parts (version);

  -- What a dump of a Supabase project brings; our own migrations are in `ntier.migrations`.
  create table if not exists storage.migrations (
    id integer not null primary key,
    name varchar(100) not null unique,
    -- SHA-1 of the file.
    hash varchar(40) not null,
    executed_at timestamp default current_timestamp
  );

  comment on column storage.buckets.owner is 'Deprecated: see owner_id.';
  comment on column storage.objects.owner is 'Deprecated: see owner_id.';
  comment on column storage.objects.name_lower is 'For listings without regard to case.';

  alter table storage.buckets enable row level security;
  alter table storage.objects enable row level security;
  alter table storage.s3_multipart_uploads enable row level security;
  alter table storage.s3_multipart_uploads_parts enable row level security;
  alter table storage.migrations enable row level security;

  -- Not all: TRUNCATE asks no policy.
  grant select, insert, update, delete on storage.buckets to anon, authenticated;
  grant select, delete on storage.objects to anon, authenticated;
  -- `version` names the blob: who could set it could read what belongs to others.
  grant
    insert (id, bucket_id, name, owner, owner_id, created_at, updated_at, last_accessed_at, metadata, user_metadata),
    update (id, bucket_id, name, owner, owner_id, created_at, updated_at, last_accessed_at, metadata, user_metadata)
    on storage.objects to anon, authenticated;
  grant select on storage.s3_multipart_uploads, storage.s3_multipart_uploads_parts to anon, authenticated;
  grant all on storage.buckets, storage.objects, storage.s3_multipart_uploads, storage.s3_multipart_uploads_parts to service_role;
  grant all on storage.buckets, storage.objects, storage.s3_multipart_uploads, storage.s3_multipart_uploads_parts, storage.migrations
    to supabase_storage_admin;

  -- What policies ask of a name. In SQL, so that they become a part of the policy.
  create or replace function storage.foldername(name text) returns text[]
  language sql immutable parallel safe as $body$
    select (string_to_array(name, '/'))[1 : array_length(string_to_array(name, '/'), 1) - 1]
  $body$;
  comment on function storage.foldername(text) is 'The folders above this name, the outermost first.';

  create or replace function storage.filename(name text) returns text
  language sql immutable parallel safe as $body$
    select case when name <> '' then split_part(name, '/', -1) end
  $body$;
  comment on function storage.filename(text) is 'The name without its folders.';

  create or replace function storage.extension(name text) returns text
  language sql immutable parallel safe as $body$
    select case when name <> '' then split_part(split_part(name, '/', -1), '.', -1) end
  $body$;
  comment on function storage.extension(text) is 'What follows the last dot of the file''s name; the whole of it where there is none.';

  -- What policies ask of the request.
  create or replace function storage.operation() returns text
  language sql stable parallel safe as $body$
    select current_setting('storage.operation', true)
  $body$;
  comment on function storage.operation() is 'What is being done, `storage.object.upload` for example; null outside of the files'' API.';

  create or replace function storage.allow_only_operation(expected_operation text) returns boolean
  language sql stable parallel safe as $body$
    select coalesce(
      nullif(case when starts_with(expected_operation, 'storage.') then substr(expected_operation, 9) else expected_operation end, '')
        = case when starts_with(storage.operation(), 'storage.') then substr(storage.operation(), 9) else storage.operation() end,
      false)
  $body$;
  comment on function storage.allow_only_operation(text) is 'Whether this is being done; `storage.` before its name may be left out.';

  create or replace function storage.allow_any_operation(expected_operations text[]) returns boolean
  language sql stable parallel safe as $body$
    select exists (select from unnest(expected_operations) as expected where storage.allow_only_operation(expected))
  $body$;
  comment on function storage.allow_any_operation(text[]) is 'Whether one of these is being done.';

  create or replace function storage.can_insert_object(bucketid text, name text, owner uuid, metadata jsonb) returns void
  language plpgsql as $body$
  begin
    insert into storage.objects (bucket_id, name, owner, metadata) values (bucketid, name, owner, metadata);
    -- Nothing was to be written: the policies have answered.
    raise sqlstate 'PT200' using message = 'ROLLBACK', detail = 'rollback successful insert';
  end
  $body$;

  create or replace function storage.update_updated_at_column() returns trigger
  language plpgsql as $body$
  begin
    new.updated_at = now();
    return new;
  end
  $body$;
  create or replace trigger update_objects_updated_at before update on storage.objects
    for each row execute function storage.update_updated_at_column();

  create or replace function storage.enforce_bucket_name_length() returns trigger
  language plpgsql as $body$
  begin
    if length(new.name) > 100 then
      raise exception 'bucket name "%" is too long (% characters). Max is 100.', new.name, length(new.name);
    end if;
    return new;
  end
  $body$;
  create or replace trigger enforce_bucket_name_length_trigger before insert or update of name on storage.buckets
    for each row execute function storage.enforce_bucket_name_length();

  -- A row that is deleted by hand leaves its blob: the setting says that whoever deletes knows of blobs.
  create or replace function storage.protect_delete() returns trigger
  language plpgsql as $body$
  begin
    if coalesce(current_setting('storage.allow_delete_query', true), '') <> 'true' then
      raise exception 'Direct deletion from storage tables is not allowed. Use the Storage API instead.'
        using errcode = 'insufficient_privilege', hint = 'Else the files would stay while nothing names them.';
    end if;
    return null;
  end
  $body$;
  create or replace trigger protect_buckets_delete before delete on storage.buckets
    for each statement execute function storage.protect_delete();
  create or replace trigger protect_objects_delete before delete on storage.objects
    for each statement execute function storage.protect_delete();

  create or replace function storage.get_size_by_bucket() returns table (size bigint, bucket_id text)
  language sql stable as $body$
    select sum((o.metadata ->> 'size')::bigint)::bigint, o.bucket_id from storage.objects o group by o.bucket_id
  $body$;

  create or replace function storage.get_common_prefix(p_key text, p_prefix text, p_delimiter text) returns text
  language sql immutable parallel safe as $body$
    select case
      when position(p_delimiter in substr(p_key, length(p_prefix) + 1)) > 0
      then left(p_key, length(p_prefix) + position(p_delimiter in substr(p_key, length(p_prefix) + 1)) + length(p_delimiter) - 1)
    end
  $body$;
  comment on function storage.get_common_prefix(text, text, text) is
    'The folder behind the prefix that this key is in, its delimiter included; null where it is in none.';

  -- No text has a successor, but all that begin alike have one: the last character that can be counted up is. Beyond everything is a
  -- text of last characters.
  create or replace function storage.after_prefix(prefix text) returns text
  language plpgsql immutable strict parallel safe as $body$
  declare
    kept text := prefix;
    code integer;
  begin
    while kept <> '' loop
      code := ascii(right(kept, 1));
      kept := left(kept, -1);
      if code < 1114111 then
        -- Between these two are no characters.
        return kept || chr(case code when 55295 then 57344 else code + 1 end);
      end if;
    end loop;
    return repeat(chr(1114111), 64);
  end
  $body$;
  comment on function storage.after_prefix(text) is 'The first text, by bytes, behind all that begin with this prefix.';

  -- One level of the tree in the order of its names: objects, and folders (without id and without their delimiter) in the place of all that
  -- is in them. What is read lies in [low, high); `folded` is without regard to case, and then prefix, low and high are in lower case.
  --
  -- Each statement is an ordered walk in an index, which is left at the first folder and begun again behind it. Sorting is off because
  -- without statistics, or with policies that look selective, the planner would rather read and sort everything each time.
  create or replace function storage.walk_level(
    bucket text, folded boolean, prefix text, delimiter text, low text, high text, ascending boolean, most bigint
  ) returns table (name text, id uuid, metadata jsonb, updated_at timestamptz, created_at timestamptz, last_accessed_at timestamptz)
  language plpgsql stable set enable_sort to off as $body$
  declare
    depth integer := greatest(cardinality(string_to_array(prefix, delimiter)), 1);
    emitted bigint := 0;
    entries refcursor;
    entry record;
  begin
    while emitted < most loop
      if folded and ascending then
        open entries no scroll for
          select storage.get_common_prefix(o.name_lower, prefix, delimiter) as folder, o.*
          from storage.objects o where o.bucket_id = bucket and o.name_lower >= low and o.name_lower < high order by o.name_lower;
      elsif folded then
        open entries no scroll for
          select storage.get_common_prefix(o.name_lower, prefix, delimiter) as folder, o.*
          from storage.objects o where o.bucket_id = bucket and o.name_lower >= low and o.name_lower < high order by o.name_lower desc;
      elsif ascending then
        open entries no scroll for
          select storage.get_common_prefix(o.name, prefix, delimiter) as folder, o.*
          from storage.objects o where o.bucket_id = bucket and o.name collate "C" >= low and o.name collate "C" < high
          order by o.name collate "C";
      else
        open entries no scroll for
          select storage.get_common_prefix(o.name, prefix, delimiter) as folder, o.*
          from storage.objects o where o.bucket_id = bucket and o.name collate "C" >= low and o.name collate "C" < high
          order by o.name collate "C" desc;
      end if;
      loop
        fetch entries into entry;
        exit when not found or entry.folder is not null;
        name := entry.name;
        id := entry.id;
        metadata := entry.metadata;
        updated_at := entry.updated_at;
        created_at := entry.created_at;
        last_accessed_at := entry.last_accessed_at;
        return next;
        emitted := emitted + 1;
        exit when emitted >= most;
      end loop;
      -- An open one would stay until the transaction ends.
      close entries;
      if entry.folder is null then
        return;
      end if;
      if folded then
        -- As it is written: in lower case it may have another length.
        name := array_to_string(entry.path_tokens[1 : depth], delimiter);
      else
        name := left(entry.folder, -length(delimiter));
      end if;
      id := null;
      metadata := null;
      updated_at := null;
      created_at := null;
      last_accessed_at := null;
      return next;
      emitted := emitted + 1;
      if ascending then
        low := storage.after_prefix(entry.folder);
      else
        high := entry.folder;
      end if;
    end loop;
  end
  $body$;

  -- `next_token` is a place that this function has told: a name, or a folder with its delimiter. `start_after` may also be a folder without
  -- it, as entries name them: where there is such a folder, it is what is meant.
  create or replace function storage.list_objects_with_delimiter(
    _bucket_id text, prefix_param text, delimiter_param text, max_keys integer default 100, start_after text default '',
    next_token text default '', sort_order text default 'asc'
  ) returns table (name text, id uuid, metadata jsonb, updated_at timestamptz, created_at timestamptz, last_accessed_at timestamptz)
  language plpgsql stable as $body$
  declare
    ascending boolean := lower(coalesce(sort_order, 'asc')) = 'asc';
    prefix text := coalesce(prefix_param, '');
    low text := prefix;
    high text := storage.after_prefix(prefix);
    delimiter text := nullif(delimiter_param, '');
    place text := coalesce(nullif(next_token, ''), start_after, '');
    folder text;
  begin
    if place <> '' then
      if storage.get_common_prefix(place, prefix, delimiter) = place then
        folder := place;
      elsif coalesce(next_token, '') = '' and exists (
        select from storage.objects o
        where o.bucket_id = _bucket_id and o.name collate "C" >= place || delimiter
          and o.name collate "C" < storage.after_prefix(place || delimiter)
      ) then
        folder := place || delimiter;
      end if;
      if ascending then
        -- Nothing is between a text and the same followed by the lowest character.
        low := greatest(low collate "C", coalesce(storage.after_prefix(folder), place || chr(1)));
      else
        high := least(high collate "C", coalesce(folder, place));
      end if;
    end if;
    return query
      select * from storage.walk_level(_bucket_id, false, prefix, delimiter, low, high, ascending, coalesce(max_keys, 2147483647));
  end
  $body$;

  -- By time, all objects below are looked at: a folder is as old as the oldest object in it.
  create or replace function storage.search_by_timestamp(
    p_prefix text, p_bucket_id text, p_limit integer, p_level integer, p_start_after text, p_sort_order text, p_sort_column text,
    p_sort_column_after text
  ) returns table (
    key text, name text, id uuid, updated_at timestamptz, created_at timestamptz, last_accessed_at timestamptz, metadata jsonb
  )
  language plpgsql stable as $body$
  declare
    ascending boolean := p_sort_order = 'asc';
    prefix text := coalesce(p_prefix, '');
    place text := coalesce(p_start_after, '');
    moment timestamptz := coalesce(nullif(p_sort_column_after, '')::timestamptz, 'epoch');
  begin
    return query
      -- The bounds are made first: a comparison with what a function that may tell makes of a row is kept out of the index.
      with level as materialized (
        select w.*, case when w.id is null then w.name || '/' end as low,
          case when w.id is null then storage.after_prefix(w.name || '/') end as high
        from storage.walk_level(p_bucket_id, false, prefix, '/', prefix, storage.after_prefix(prefix), true, 9223372036854775807) w
      ), entry as (
        select l.name, l.id, coalesce(oldest.created_at, l.updated_at) as updated_at, coalesce(oldest.created_at, l.created_at) as created_at,
          l.last_accessed_at, l.metadata
        from level l, lateral (
          select min(o.created_at) as created_at from storage.objects o
          where o.bucket_id = p_bucket_id and o.name collate "C" >= l.low and o.name collate "C" < l.high
        ) oldest
      ), dated as (
        select e.*, coalesce(date_trunc('milliseconds', case p_sort_column
          when 'updated_at' then e.updated_at when 'last_accessed_at' then e.last_accessed_at else e.created_at end), 'epoch') as dated_at
        from entry e
      )
      select split_part(d.name, '/', p_level), d.name, d.id, d.updated_at, d.created_at, d.last_accessed_at, d.metadata
      from dated d
      where place = ''
        or case when ascending then (d.dated_at, d.name collate "C") > (moment, place) else (d.dated_at, d.name collate "C") < (moment, place) end
      order by
        case when ascending then d.dated_at end, case when ascending then d.name end collate "C",
        case when not ascending then d.dated_at end desc, case when not ascending then d.name end collate "C" desc
      limit p_limit;
  end
  $body$;

  create or replace function storage.search_v2(
    prefix text, bucket_name text, limits integer default 100, levels integer default 1, start_after text default '',
    sort_order text default 'asc', sort_column text default 'name', sort_column_after text default ''
  ) returns table (
    key text, name text, id uuid, updated_at timestamptz, created_at timestamptz, last_accessed_at timestamptz, metadata jsonb
  )
  language plpgsql stable as $body$
  declare
    most integer := least(coalesce(limits, 100), 1500);
    direction text := case when lower(sort_order) = 'desc' then 'desc' else 'asc' end;
  begin
    if lower(sort_column) in ('updated_at', 'created_at') then
      return query
        select * from storage.search_by_timestamp(
          prefix, bucket_name, most, levels, start_after, direction, lower(sort_column), sort_column_after);
    else
      return query
        select split_part(l.name, '/', levels), l.name, l.id, l.updated_at, l.created_at, l.last_accessed_at, l.metadata
        from storage.list_objects_with_delimiter(bucket_name, prefix, '/', most, start_after, '', direction) l;
    end if;
  end
  $body$;

  -- The older listing: without regard to case, by pages that are counted. Sorted by a time folders come first, and there a backslash in
  -- prefix and search quotes what follows it, because callers quote for a pattern. `levels` is what callers have always given, and needless.
  create or replace function storage.search(
    prefix text, bucketname text, limits integer default 100, levels integer default 1, offsets integer default 0, search text default '',
    sortcolumn text default 'name', sortorder text default 'asc'
  ) returns table (name text, id uuid, updated_at timestamptz, created_at timestamptz, last_accessed_at timestamptz, metadata jsonb)
  language plpgsql stable as $body$
  declare
    ascending boolean := lower(coalesce(sortorder, 'asc')) = 'asc';
    most integer := greatest(least(coalesce(limits, 100), 1500), 0);
    skipped integer := greatest(coalesce(offsets, 0), 0);
    above text := coalesce(prefix, '');
    beginning text := lower(above || coalesce(search, ''));
    depth integer;
  begin
    if lower(sortcolumn) in ('updated_at', 'created_at', 'last_accessed_at') then
      above := regexp_replace(above, '\\(.)', '\1', 'g');
      beginning := regexp_replace(beginning, '\\(.)', '\1', 'g');
      depth := greatest(cardinality(string_to_array(above, '/')), 1);
      return query
        select array_to_string((string_to_array(w.name, '/'))[depth : ], '/'), w.id, w.updated_at, w.created_at, w.last_accessed_at, w.metadata
        from storage.walk_level(bucketname, true, beginning, '/', beginning, storage.after_prefix(beginning), true, 9223372036854775807) w,
          lateral (select case lower(sortcolumn)
            when 'updated_at' then w.updated_at when 'created_at' then w.created_at else w.last_accessed_at end as moment) sorted
        order by w.id is not null, case when ascending then sorted.moment end, case when not ascending then sorted.moment end desc,
          case when ascending then w.name end collate "C", case when not ascending then w.name end collate "C" desc
        limit most offset skipped;
    else
      return query
        select substr(w.name, length(above) + 1), w.id, w.updated_at, w.created_at, w.last_accessed_at, w.metadata
        from storage.walk_level(
          bucketname, true, beginning, '/', beginning, storage.after_prefix(beginning), ascending, skipped::bigint + most) w
        limit most offset skipped;
    end if;
  end
  $body$;

  -- In the order of keys and, where several uploads have the same key, of their ids: both tokens together name a place in it.
  create or replace function storage.list_multipart_uploads_with_delimiter(
    bucket_id text, prefix_param text, delimiter_param text, max_keys integer default 100, next_key_token text default '',
    next_upload_token text default ''
  ) returns table (key text, id text, created_at timestamptz)
  language plpgsql stable as $body$
  declare
    of_bucket text := bucket_id;
    -- Callers quote for a pattern.
    prefix text := regexp_replace(coalesce(prefix_param, ''), '\\(.)', '\1', 'g');
  begin
    return query
      with found as (
        select u.*, storage.get_common_prefix(u.key, prefix, delimiter_param) as folder
        from storage.s3_multipart_uploads u
        where u.bucket_id = of_bucket and u.key >= prefix and u.key < storage.after_prefix(prefix)
      ), entry as (
        select distinct on (coalesce(f.folder, f.key), case when f.folder is null then f.id end)
          coalesce(f.folder, f.key) as key, f.id, f.created_at, f.folder
        from found f
        order by coalesce(f.folder, f.key), case when f.folder is null then f.id end, f.key, f.created_at
      )
      select e.key, e.id, e.created_at from entry e
      where coalesce(next_key_token, '') = '' or e.key > next_key_token
        or e.key = next_key_token and e.folder is null and e.id collate "C" > nullif(next_upload_token, '')
      order by e.key, e.id collate "C"
      limit max_keys;
  end
  $body$;

  -- Where it may be, all of it belongs to the role that a Supabase project expects as its owner; who runs this can still change it.
  begin
    if not pg_has_role(current_user, 'supabase_storage_admin', 'USAGE') then
      execute format('grant supabase_storage_admin to %I', current_user);
    end if;
    if pg_has_role(current_user, 'supabase_storage_admin', 'USAGE') then
      alter table storage.buckets owner to supabase_storage_admin;
      alter table storage.objects owner to supabase_storage_admin;
      alter table storage.s3_multipart_uploads owner to supabase_storage_admin;
      alter table storage.s3_multipart_uploads_parts owner to supabase_storage_admin;
      alter table storage.migrations owner to supabase_storage_admin;
      alter type storage.buckettype owner to supabase_storage_admin;
    end if;
  exception
    when insufficient_privilege then null;
  end;
end
$storage$;

-- A file that was sent in pieces keeps them: its blobs in order. A file that is one blob has no rows here, and its version is the blob's id.
create table if not exists ntier.object_parts (
  -- That of the object, or the id of the upload that will make it.
  version uuid not null,
  number integer not null,
  blob uuid not null,
  -- Bytes.
  size bigint not null check (size >= 0),
  -- In hexadecimal digits: the ETag of the whole is made of them.
  md5 text,
  created_at timestamptz not null default now(),
  primary key (version, number)
);
-- The sweeper asks of a blob whether anything names it.
create index if not exists object_parts_blob_idx on ntier.object_parts (blob);

-- Resumable uploads (TUS): what any node needs to go on with what another began. Their pieces are `ntier.object_parts` with the id as version.
create table if not exists ntier.storage_uploads (
  id uuid primary key,
  bucket_id text not null,
  name text not null,
  -- Bytes; null until the client says it.
  size bigint check (size >= 0),
  offset_bytes bigint not null default 0 check (offset_bytes >= 0 and offset_bytes <= size),
  -- The client's, parsed; and as it was written, because it is asked for in these very words.
  metadata jsonb not null default '{}',
  upload_metadata text not null default '',
  user_metadata jsonb,
  owner_id text,
  -- Who began it.
  role text not null,
  claims jsonb not null default '{}',
  -- Whether it may take the place of an object.
  upsert boolean not null default false,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  expires_at timestamptz not null,
  -- Its object is there; kept until it expires, for a client that has not heard of it.
  completed_at timestamptz,
  -- One request writes at a time; what it holds ends by itself when its node has died.
  taken_by uuid,
  taken_until timestamptz
);
create index if not exists storage_uploads_expires_at_idx on ntier.storage_uploads (expires_at);
create index if not exists storage_uploads_bucket_id_idx on ntier.storage_uploads (bucket_id);

-- What takes longer than a request: whole folders and buckets. A node takes a job for a while; what a dead node leaves, another takes.
create table if not exists ntier.storage_jobs (
  id uuid primary key default gen_random_uuid(),
  kind text not null check (kind in ('delete_prefix', 'move_prefix', 'empty_bucket')),
  arguments jsonb not null default '{}',
  -- Who asked: it is done with their rights.
  role text not null,
  claims jsonb not null default '{}',
  state text not null default 'waiting' check (state in ('waiting', 'running', 'done', 'failed', 'cancelled')),
  -- Objects.
  total bigint,
  done bigint not null default 0,
  failed bigint not null default 0,
  -- The last name that was dealt with, where the next node goes on.
  reached text,
  attempts integer not null default 0,
  error text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  finished_at timestamptz,
  taken_by uuid,
  taken_until timestamptz
);
create index if not exists storage_jobs_open on ntier.storage_jobs (created_at) where state in ('waiting', 'running');

-- The node's own: nothing is granted, and there are no policies.
alter table ntier.object_parts enable row level security;
alter table ntier.storage_uploads enable row level security;
alter table ntier.storage_jobs enable row level security;
