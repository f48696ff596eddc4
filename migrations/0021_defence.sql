-- Networks that are kept out, and those that never are.
create table if not exists ntier.bans (
  -- An address is the network of itself; of IPv6 a /64 is banned.
  network cidr primary key,
  verdict text not null default 'ban' check (verdict in ('ban', 'never')),
  reason text not null,
  -- ntier, operator or crowdsec.
  source text not null,
  -- How often: each time takes longer.
  times integer not null default 1,
  created_at timestamptz not null default now(),
  -- Null: until it is lifted. Rows whose time is over are kept for a month, so that the next time is known to be one.
  expires_at timestamptz
);

-- Rises with each change, so that whoever looks every second reads the list only when it is another.
create table if not exists ntier.bans_version (
  is_only boolean primary key default true check (is_only),
  version bigint not null
);
insert into ntier.bans_version (version) values (1) on conflict do nothing;

create or replace function ntier.bans_changed() returns trigger language plpgsql as $$
begin
  update ntier.bans_version set version = version + 1;
  perform pg_catalog.pg_notify('ntier_bans', '');
  return null;
end
$$;
create or replace trigger bans_changed after insert or update or delete or truncate on ntier.bans
  for each statement execute function ntier.bans_changed();

-- What nodes and balancers tell each other about requests and attacks, each second at most; gone after half a minute. Nothing of it is worth
-- a crash's recovery, so it is not logged.
create unlogged table if not exists ntier.shares (
  process text not null,
  -- Of the process, rising.
  tick bigint not null,
  -- node or balancer.
  role text not null,
  body text not null,
  at timestamptz not null default now(),
  primary key (process, tick)
);
create index if not exists shares_at on ntier.shares (at);

-- Who does what one process does for all; whoever does not renew it loses it.
create table if not exists ntier.turns (
  name text primary key,
  holder text not null,
  until timestamptz not null
);
