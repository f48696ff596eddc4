-- Locks that WebDAV's clients take (RFC 4918, 6), for all nodes. Rows that have expired hold nothing, and go when the next is taken.
create table if not exists ntier.dav_locks (
  token uuid primary key,
  bucket_id text not null,
  -- Of an object or a folder, without a slash at its end; empty for the bucket.
  name text not null,
  -- It holds for all below.
  is_deep boolean not null,
  is_shared boolean not null,
  -- What the client says of its user; told to others.
  owner text not null,
  -- Whose it is: nobody else may use or release it.
  role text not null,
  sub text,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null
);
create index if not exists dav_locks_bucket_id_name_idx on ntier.dav_locks (bucket_id, name);
create index if not exists dav_locks_expires_at_idx on ntier.dav_locks (expires_at);

-- The node's own: nothing is granted, and there are no policies.
alter table ntier.dav_locks enable row level security;
