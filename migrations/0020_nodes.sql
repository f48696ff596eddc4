-- The keys of all nodes of this database, sealed with the vault's key, which is not here: one row.
create table if not exists ntier.keyring (
  is_only boolean primary key default true check (is_only),
  -- Grows with each change.
  number bigint not null default 1,
  sealed text not null,
  at timestamptz not null default now()
);

-- Nodes that balancers may send requests to. Each gives a sign of life every second.
create table if not exists ntier.nodes (
  id text primary key,
  url text not null,
  version text not null,
  started_at timestamptz not null default clock_timestamp(),
  seen_at timestamptz not null default clock_timestamp(),
  -- It answers what it has, and takes nothing new.
  is_leaving boolean not null default false
);
