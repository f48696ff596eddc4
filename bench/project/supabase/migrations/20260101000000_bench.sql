-- Ten thousand rows, each with an owner, and twice as many below them. Row level security decides for each row.
create table items (
  id bigint generated always as identity primary key,
  owner uuid not null,
  name text not null,
  price numeric(8, 2) not null,
  details jsonb not null,
  created_at timestamptz not null default now()
);
create table parts (
  id bigint generated always as identity primary key,
  item_id bigint not null references items,
  name text not null
);
create index on parts (item_id);
create table events (
  id bigint generated always as identity primary key,
  owner uuid not null default auth.uid(),
  body text not null
);

alter table items enable row level security;
alter table parts enable row level security;
alter table events enable row level security;
create policy "one's own" on items for select to authenticated using (owner = (select auth.uid()));
create policy "everybody's" on parts for select to authenticated using (true);
create policy "one's own" on events for insert to authenticated with check (owner = (select auth.uid()));
grant select on items, parts to authenticated;
grant insert on events to authenticated;

insert into items (owner, name, price, details)
select '00000000-0000-4000-8000-000000000001', 'item ' || n, n % 1000 / 7.0, jsonb_build_object('colour', 'red', 'n', n)
from generate_series(1, 10000) as n;
insert into parts (item_id, name) select 1 + n % 10000, 'part ' || n from generate_series(1, 20000) as n;
analyze items, parts;
