-- What nodes tell each other and is too long for a NOTIFY; gone after a minute. Whoever reads a row was told of it, so it is not logged, and nothing of it
-- is there after a crash.
create unlogged table if not exists ntier.bus (
  -- The node that says it, and the number that it gives to it.
  node text not null,
  number bigint not null,
  -- Base64.
  body text not null,
  at timestamptz not null default now(),
  primary key (node, number)
);
-- It is not smaller when it is compressed, only later.
alter table ntier.bus alter column body set storage external;
