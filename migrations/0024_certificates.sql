-- Certificates that balancers obtain from an authority (ACME, RFC 8555), so that all of them have the same. Private keys are sealed
-- with the vault's key, which is not here.

-- Who we are there.
create table if not exists ntier.acme_accounts (
  directory text primary key,
  sealed text not null,
  at timestamptz not null default now()
);

create table if not exists ntier.certificates (
  directory text not null,
  name text not null,
  -- Grows with each certificate; 0 is none yet.
  number bigint not null default 0,
  -- PEM, the name's own certificate first.
  chain text,
  sealed text,
  not_after timestamptz,
  -- When the next one is asked for: a part of its life before it ends, or a while after it was refused.
  next_at timestamptz not null default clock_timestamp(),
  failures integer not null default 0,
  fault text,
  -- The balancer that asks for one, as long as it gives signs of life.
  holder text,
  held_until timestamptz,
  primary key (directory, name)
);

-- What the authority asks, and any balancer may be asked; forgotten when it is decided.
create table if not exists ntier.acme_challenges (
  directory text not null,
  name text not null,
  kind text not null,
  token text not null,
  answer text not null,
  at timestamptz not null default clock_timestamp(),
  primary key (directory, name, token)
);
