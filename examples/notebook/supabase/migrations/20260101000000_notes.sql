create table notes (
  id bigint generated always as identity primary key,
  body text not null check (body <> ''),
  at timestamptz not null default now()
);
alter table notes enable row level security;
grant select, insert on notes to service_role;
