-- What WebDAV's clients keep beside files, for all nodes. The node's own: nothing is granted, and there are no policies.

-- Locks that they take (RFC 4918, 6). Rows that have expired hold nothing, and go when the next is taken.
create table if not exists ntier.dav_locks (
  token uuid primary key,
  bucket_id text not null,
  -- Of an object or a folder, without a slash at its end; empty for the bucket.
  name text not null,
  -- It holds for all below.
  is_deep boolean not null,
  is_shared boolean not null,
  -- What the client says of its user, as XML that was written here; told to others.
  owner text not null,
  -- Whose it is: nobody else may use or release it.
  role text not null,
  sub text,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null
);
create index if not exists dav_locks_bucket_id_name_idx on ntier.dav_locks (bucket_id, name);
create index if not exists dav_locks_role_sub_idx on ntier.dav_locks (role, sub);
create index if not exists dav_locks_expires_at_idx on ntier.dav_locks (expires_at);
alter table ntier.dav_locks enable row level security;

-- Properties that they set (RFC 4918, 4): elements by their whole names, `{namespace}name`. An object keeps its id when it is moved or
-- overwritten, and so its properties; those of a folder are of the object that keeps it. What objects leave that are gone, the sweeper takes.
create table if not exists ntier.dav_properties (
  object_id uuid primary key,
  properties jsonb not null constraint dav_properties_are_small check (octet_length(properties::text) <= 65536),
  updated_at timestamptz not null default now()
);
alter table ntier.dav_properties enable row level security;
