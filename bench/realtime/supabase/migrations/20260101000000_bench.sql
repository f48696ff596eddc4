-- Notes that whoever is a member may see, and two tables for events that are alike but for the publication.
create table members (
  user_id uuid not null,
  room bigint not null,
  primary key (user_id, room)
);
create table notes (
  id bigint generated always as identity primary key,
  room bigint not null default 1,
  n bigint not null,
  -- Microseconds since 1970, when the row was inserted and not when its transaction began.
  at bigint not null default (extract(epoch from clock_timestamp()) * 1000000)::bigint,
  body text not null
);
create table plain_events (
  id bigint generated always as identity primary key,
  owner uuid default auth.uid(),
  body text not null
);
create table published_events (like plain_events including all);

alter table members enable row level security;
alter table notes enable row level security;
alter table plain_events enable row level security;
alter table published_events enable row level security;
create policy "one's own" on members for select to authenticated using (user_id = auth.uid());
create policy "of the rooms one is in" on notes for select to authenticated
  using (exists (select from members where members.user_id = auth.uid() and members.room = notes.room));
create policy "one's own" on plain_events for insert to authenticated with check (owner = (select auth.uid()));
create policy "one's own" on published_events for insert to authenticated with check (owner = (select auth.uid()));
grant select on members, notes to authenticated;
grant insert on notes to service_role;
grant insert on plain_events, published_events to authenticated;

insert into members (user_id, room)
select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 1 from generate_series(1, 1000) as n;
analyze members;
alter publication supabase_realtime add table notes, published_events;
