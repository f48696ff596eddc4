-- Messages that everybody may read and write, and nobody may change.
create table public.messages (
  id bigint generated always as identity primary key,
  author text not null check (char_length(author) between 1 and 40),
  body text not null check (char_length(body) between 1 and 280),
  created_at timestamptz not null default now()
);

-- Row level security says which rows; without a policy it is none.
alter table public.messages enable row level security;
create policy "everybody reads" on public.messages for select to anon, authenticated using (true);
create policy "everybody writes" on public.messages for insert to anon, authenticated with check (true);

-- Grants say which verbs. Without them a new table is not part of the API.
grant select on public.messages to anon, authenticated;
grant insert (author, body) on public.messages to anon, authenticated;
grant all on public.messages to service_role;

insert into public.messages (author, body) values ('ntier', 'Hello, client!');
