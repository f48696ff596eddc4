-- A board of a team: whoever signs in reads all posts, and writes and removes their own.
create table posts (
  id bigint generated always as identity primary key,
  author uuid not null default auth.uid() references auth.users on delete cascade,
  body text not null check (length(body) between 1 and 500),
  -- In the bucket `pictures`.
  picture text,
  created_at timestamptz not null default now()
);
alter table posts enable row level security;
create policy "all who sign in" on posts for select to authenticated using (true);
create policy "one's own" on posts for insert to authenticated with check (author = (select auth.uid()));
create policy "one's own, later" on posts for update to authenticated using (author = (select auth.uid()));
create policy "one's own, again" on posts for delete to authenticated using (author = (select auth.uid()));
grant select, insert, update, delete on posts to authenticated;
alter publication supabase_realtime add table posts;

-- How many posts each author has; nobody sees more than the policies show.
create function authors() returns table (author uuid, posts bigint) language sql stable as $$
  select author, count(*) from posts group by author order by author
$$;
grant execute on function authors() to authenticated;

insert into storage.buckets (id, name, public) values ('pictures', 'pictures', false) on conflict do nothing;
create policy "pictures are for all who sign in" on storage.objects for select to authenticated using (bucket_id = 'pictures');
create policy "pictures in one's own folder" on storage.objects for insert to authenticated
  with check (bucket_id = 'pictures' and (storage.foldername(name))[1] = (select auth.uid())::text);
