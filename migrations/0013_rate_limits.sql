-- Takes one from each of these buckets, whose size and refill a second are given, in their order; false where one of them was empty, and
-- from those behind it nothing is taken: else whoever is refused could empty what belongs to others, an account's or the project's.
create or replace function ntier.take(keys text[], sizes float8[], refills float8[]) returns boolean
language plpgsql as $$
declare
  allowed boolean;
begin
  for at in 1 .. cardinality(keys) loop
    insert into ntier.rate_limits as bucket (key, tokens, refill, is_allowed, seen_at)
    values (keys[at], case when sizes[at] >= 1 then sizes[at] - 1 else sizes[at] end, refills[at], sizes[at] >= 1, now())
    on conflict (key) do update set
      -- Who is refused takes nothing: else whoever asks without end would keep the bucket empty for everybody.
      tokens = least(sizes[at], bucket.tokens + extract(epoch from now() - bucket.seen_at) * refills[at])
        - case when least(sizes[at], bucket.tokens + extract(epoch from now() - bucket.seen_at) * refills[at]) >= 1 then 1 else 0 end,
      is_allowed = least(sizes[at], bucket.tokens + extract(epoch from now() - bucket.seen_at) * refills[at]) >= 1,
      seen_at = now()
    returning is_allowed into allowed;
    if not allowed then
      return false;
    end if;
  end loop;
  return true;
end
$$;
