-- The countries of the world, their languages, currencies and borders. Everybody may read; the loader writes with a secret key.

create table regions (
  name text primary key
);

create table subregions (
  name text primary key,
  region text not null references regions
);

create table languages (
  code text primary key check (code ~ '^[a-z]{3}$'),
  name text not null
);

create table currencies (
  code text primary key check (code ~ '^[A-Z]{3}$'),
  name text not null,
  symbol text not null
);

create table countries (
  code text primary key check (code ~ '^[A-Z]{3}$'),
  code2 text not null unique check (code2 ~ '^[A-Z]{2}$'),
  name text not null unique,
  official_name text not null,
  region text not null references regions,
  subregion text references subregions,
  capitals text[] not null,
  domains text[] not null,
  independent boolean,
  un_member boolean not null,
  landlocked boolean not null,
  area numeric not null,
  latitude double precision not null check (latitude between -90 and 90),
  longitude double precision not null check (longitude between -180 and 180),
  flag text not null,
  translations jsonb not null,
  search tsvector generated always as (
    setweight(to_tsvector('simple', name || ' ' || official_name), 'A') || to_tsvector('simple', translations)
  ) stored
);
create index on countries (region);
create index on countries (subregion);
create index on countries using gin (search);
create index on countries using gin (translations jsonb_path_ops);

create table country_languages (
  country text references countries on delete cascade,
  language text references languages,
  primary key (country, language)
);
create index on country_languages (language);

create table country_currencies (
  country text references countries on delete cascade,
  currency text references currencies,
  primary key (country, currency)
);
create index on country_currencies (currency);

-- Each border stands twice, once from either side.
create table borders (
  country text references countries on delete cascade,
  neighbour text references countries on delete cascade,
  primary key (country, neighbour)
);
create index on borders (neighbour);

-- The countries nearest to a point, as the crow flies (the haversine formula on a sphere).
create function nearest(lat double precision, lng double precision)
returns table (code text, name text, kilometres double precision)
language sql stable as $$
  select c.code, c.name, round(2 * 6371 * asin(least(1, sqrt(
    sind((c.latitude - lat) / 2) ^ 2 + cosd(lat) * cosd(c.latitude) * sind((c.longitude - lng) / 2) ^ 2
  )))::numeric, 1)::double precision as kilometres
  from countries as c
  order by kilometres, c.code
$$;

-- The fewest borders to cross from one country to another; null where there is no way over land.
create function borders_between(start text, destination text) returns int
language sql stable as $$
  with recursive way (country, steps, seen) as (
    select start, 0, array[start]
    union all
    select step.neighbour, step.steps, seen || array_agg(step.neighbour) over ()
    from (
      select distinct b.neighbour, way.steps + 1 as steps, way.seen
      from way join borders as b on b.country = way.country
      where b.neighbour <> all (way.seen) and not destination = any (way.seen)
    ) as step
  )
  select min(steps) from way where country = destination
$$;

do $$
declare
  name text;
begin
  foreach name in array array['regions', 'subregions', 'languages', 'currencies', 'countries', 'country_languages',
    'country_currencies', 'borders']
  loop
    execute format('alter table %I enable row level security', name);
    execute format('create policy "everybody reads" on %I for select to anon, authenticated using (true)', name);
    execute format('grant select on %I to anon, authenticated', name);
    execute format('grant all on %I to service_role', name);
  end loop;
end
$$;
grant execute on function nearest, borders_between to anon, authenticated, service_role;
