//! The questions to `pg_catalog`. Each answers with one JSON value.
//!
//! They run with an empty search path, so that the names of types outside `pg_catalog` come out
//! qualified. `$1` is the array of exposed schemas, `$2` that of further schemas in the search path.

/// Makes `regtype`, `regproc` and `pg_get_expr` write qualified names.
pub(super) const EMPTY_SEARCH_PATH: &str = "select pg_catalog.set_config('search_path', '', true)";

/// Tables and views of the exposed schemas with their columns. `base` follows domains to their base type.
pub(super) const TABLES: &str = r"
with recursive domains (oid, base) as (
    select oid, typbasetype from pg_type where typtype = 'd'
    union all
    select d.oid, t.typbasetype from domains d join pg_type t on t.oid = d.base where t.typtype = 'd'
),
bases (oid, base) as (
    select d.oid, d.base from domains d join pg_type t on t.oid = d.base where t.typtype <> 'd'
),
cols as (
    select a.attrelid,
        json_agg(json_build_object(
            'name', a.attname,
            'description', col_description(a.attrelid, a.attnum),
            'nullable', not (a.attnotnull or (t.typtype = 'd' and t.typnotnull)),
            'base_type', case
                when t.typtype = 'd' and bt.typnamespace = 'pg_catalog'::regnamespace then format_type(bt.oid, null)
                when t.typtype <> 'd' and t.typnamespace = 'pg_catalog'::regnamespace then format_type(t.oid, null)
                else format_type(a.atttypid, a.atttypmod) end,
            'nominal_type', format_type(a.atttypid, a.atttypmod),
            'max_length', case
                when m.typmod = -1 then null
                when bt.oid in ('character'::regtype, 'varchar'::regtype) then m.typmod - 4
                when bt.oid in ('bit'::regtype, 'varbit'::regtype) then m.typmod end,
            'default', case
                when a.attidentity = 'd' then
                    format('nextval(%L)', (
                        select s.objid::regclass from pg_depend s
                        where s.refobjid = a.attrelid and s.refobjsubid = a.attnum and s.deptype = 'i'
                            and s.classid = 'pg_class'::regclass limit 1))
                when a.attgenerated <> '' then null
                when ad.adbin is not null then pg_get_expr(ad.adbin, ad.adrelid)
                when t.typtype = 'd' then pg_get_expr(t.typdefaultbin, 0) end,
            'enum_values', coalesce(
                (select json_agg(e.enumlabel order by e.enumsortorder) from pg_enum e where e.enumtypid = bt.oid), '[]')
        ) order by a.attnum) as list
    from pg_attribute a
    join pg_class c on c.oid = a.attrelid
    join pg_namespace n on n.oid = c.relnamespace
    join pg_type t on t.oid = a.atttypid
    left join bases b on b.oid = t.oid
    join pg_type bt on bt.oid = coalesce(b.base, t.oid)
    cross join lateral (select case when t.typtype = 'd' then t.typtypmod else a.atttypmod end as typmod) m
    left join pg_attrdef ad on ad.adrelid = a.attrelid and ad.adnum = a.attnum
    where n.nspname = any($1::text[]) and c.relkind in ('r', 'v', 'f', 'm', 'p')
      and a.attnum > 0 and not a.attisdropped
    group by a.attrelid
)
select coalesce(json_agg(json_build_object(
    'schema', n.nspname,
    'name', c.relname,
    'description', obj_description(c.oid, 'pg_class'),
    'is_view', c.relkind in ('v', 'm'),
    'insertable', c.relkind in ('r', 'p') or (c.relkind in ('v', 'f') and u.bits & 8 = 8),
    'updatable', c.relkind in ('r', 'p') or (c.relkind in ('v', 'f') and u.bits & 4 = 4),
    'deletable', c.relkind in ('r', 'p') or (c.relkind in ('v', 'f') and u.bits & 16 = 16),
    'primary_key', coalesce(pk.list, '[]'),
    'columns', coalesce(cols.list, '[]')
)), '[]')
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
left join cols on cols.attrelid = c.oid
cross join lateral (
    select case when c.relkind in ('v', 'f') then pg_relation_is_updatable(c.oid, true) else 0 end as bits) u
left join lateral (
    select json_agg(a.attname order by a.attname) as list
    from pg_constraint p
    join pg_attribute a on a.attrelid = c.oid and a.attnum = any(p.conkey)
    where p.conrelid = c.oid and p.contype = 'p') pk on true
where n.nspname = any($1::text[]) and c.relkind in ('r', 'v', 'f', 'm', 'p') and not c.relispartition
";

/// Primary and foreign keys of every schema: a relationship may go through a table that is not exposed.
/// A foreign key whose columns are also a primary key or unique is one-to-one.
pub(super) const KEYS: &str = r"
with keys as (
    select con.*, (select array_agg(k order by k) from unnest(con.conkey) k) as sorted
    from pg_constraint con
    join pg_class c on c.oid = con.conrelid
    where con.contype in ('p', 'u', 'f')
      and c.relnamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
)
select coalesce(json_agg(json_build_object(
    'constraint', k.conname,
    'primary', k.contype = 'p',
    'inherited', k.conparentid <> 0,
    'unique', exists (
        select from keys o where o.conrelid = k.conrelid and o.contype in ('p', 'u') and o.sorted = k.sorted),
    'oid', k.conrelid::bigint,
    'table', json_build_object('schema', n.nspname, 'name', c.relname),
    'columns', (
        select json_agg(json_build_array(a.attnum, a.attname) order by x.ord)
        from unnest(k.conkey) with ordinality x (num, ord)
        join pg_attribute a on a.attrelid = k.conrelid and a.attnum = x.num),
    'foreign_oid', nullif(k.confrelid, 0)::bigint,
    'foreign', case when k.contype = 'f' then json_build_object('schema', fn.nspname, 'name', f.relname) end,
    'foreign_columns', coalesce((
        select json_agg(json_build_array(a.attnum, a.attname) order by x.ord)
        from unnest(k.confkey) with ordinality x (num, ord)
        join pg_attribute a on a.attrelid = k.confrelid and a.attnum = x.num), '[]')
) order by k.conrelid, k.conname), '[]')
from keys k
join pg_class c on c.oid = k.conrelid
join pg_namespace n on n.oid = c.relnamespace
left join pg_class f on f.oid = k.confrelid
left join pg_namespace fn on fn.oid = f.relnamespace
where k.contype in ('p', 'f')
";

/// The rewrite rules of views, which say from which table's column each of their columns comes.
pub(super) const VIEWS: &str = r"
select coalesce(json_agg(json_build_object(
    'oid', c.oid::bigint,
    'exposed', n.nspname = any($1::text[]),
    'name', json_build_object('schema', n.nspname, 'name', c.relname),
    'rule', r.ev_action::text,
    'columns', (
        select json_agg(json_build_array(a.attnum, a.attname) order by a.attnum)
        from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)
)), '[]')
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_rewrite r on r.ev_class = c.oid and r.rulename = '_RETURN'
where c.relkind in ('v', 'm') and n.nspname = any($1::text[] || $2::text[])
";

/// Functions from one table's row to rows of a table: computed relationships.
pub(super) const COMPUTED: &str = r"
select coalesce(json_agg(json_build_object(
    'function', json_build_object('schema', n.nspname, 'name', p.proname),
    'table', json_build_object('schema', an.nspname, 'name', ac.relname),
    'foreign', json_build_object('schema', rn.nspname, 'name', rc.relname),
    'to_one', not p.proretset or p.prorows = 1
)), '[]')
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace
join pg_class ac on ac.reltype = p.proargtypes[0] and ac.relkind in ('v', 'r', 'm', 'f', 'p')
join pg_namespace an on an.oid = ac.relnamespace
join pg_class rc on rc.reltype = p.prorettype and rc.relkind in ('v', 'r', 'm', 'f', 'p')
join pg_namespace rn on rn.oid = rc.relnamespace
where p.pronargs = 1 and n.nspname not in ('pg_catalog', 'information_schema')
";

/// Functions that can be called by name: all arguments named, or one unnamed of a type that a body can be.
pub(super) const FUNCTIONS: &str = r"
with recursive domains (oid, base) as (
    select oid, typbasetype from pg_type where typtype = 'd'
    union all
    select d.oid, t.typbasetype from domains d join pg_type t on t.oid = d.base where t.typtype = 'd'
),
bases (oid, base) as (
    select d.oid, d.base from domains d join pg_type t on t.oid = d.base where t.typtype <> 'd'
)
select coalesce(json_agg(json_build_object(
    'oid', p.oid::bigint,
    'schema', n.nspname,
    'name', p.proname,
    'description', obj_description(p.oid, 'pg_proc'),
    'arguments', coalesce(args.list, '[]'),
    'returns', json_build_object(
        'set', p.proretset,
        'composite', t.typtype = 'c' or coalesce(p.proargmodes::text[] && '{t,b,o}', false),
        'composite_alias', b.base is not null,
        'schema', tn.nspname,
        'name', coalesce(comp.relname, t.typname)),
    'volatility', p.provolatile,
    'settings', coalesce((
        select json_object_agg(left(s, strpos(s, '=') - 1), substr(s, strpos(s, '=') + 1))
        from unnest(p.proconfig) s
        where left(s, strpos(s, '=') - 1) = any($2::text[])), '{}')
)), '[]')
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace
left join bases b on b.oid = p.prorettype
join pg_type t on t.oid = coalesce(b.base, p.prorettype)
join pg_namespace tn on tn.oid = t.typnamespace
left join pg_class comp on comp.oid = t.typrelid
cross join lateral (
    select json_agg(json_build_object(
            'name', coalesce(i.name, ''),
            'type', i.type::regtype::text,
            'required', i.idx <= p.pronargs - p.pronargdefaults,
            'variadic', i.mode = 'v') order by i.idx) as list,
        count(*) filter (where coalesce(i.name, '') = '') as unnamed,
        bool_and(i.type in ('bytea'::regtype, 'json'::regtype, 'jsonb'::regtype, 'text'::regtype, 'xml'::regtype))
            as body_type
    from (
        select x.name, x.type, coalesce(x.mode, 'i') as mode, row_number() over (order by x.ord) as idx
        from unnest(p.proargnames, coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargmodes)
            with ordinality x (name, type, mode, ord)
        where coalesce(x.mode, 'i') in ('i', 'b', 'v') and x.type is not null) i
) args
where n.nspname = any($1::text[]) and p.prokind = 'f'
  and t.oid not in ('trigger'::regtype, 'event_trigger'::regtype)
  and (coalesce(args.unnamed, 0) = 0 or (args.unnamed = 1 and p.pronargs = 1 and args.body_type))
";

/// Implicit casts between a domain and text or JSON: how its values are written and read.
pub(super) const REPRESENTATIONS: &str = r"
select coalesce(json_agg(json_build_array(
    c.castsource::regtype::text, c.casttarget::regtype::text, c.castfunc::regproc::text)), '[]')
from pg_cast c
join pg_type s on s.oid = c.castsource
join pg_type t on t.oid = c.casttarget
where c.castcontext = 'i' and c.castmethod = 'f' and has_function_privilege(c.castfunc, 'execute')
  and ((s.typtype = 'd' and t.oid in ('json'::regtype, 'text'::regtype))
    or (t.typtype = 'd' and s.oid in ('json'::regtype, 'text'::regtype)))
";

/// Domains named like media types: aggregates over a table's rows that return one, and functions that do.
pub(super) const MEDIA_HANDLERS: &str = r"
with media as (
    select t.oid, n.nspname, t.typname, lower(t.typname) as label, t.typbasetype = 'bytea'::regtype as is_binary
    from pg_type t join pg_namespace n on n.oid = t.typnamespace
    where t.typtype = 'd' and (t.typname ~* '^[a-z0-9.-]+/[a-z0-9.+-]+$' or t.typname = '*/*')
)
select coalesce(json_agg(h), '[]') from (
    select json_build_object(
        'function', json_build_object('schema', n.nspname, 'name', p.proname),
        'target', case when a.oid <> 'anyelement'::regtype
            then json_build_object('schema', an.nspname, 'name', a.typname) end,
        'media_type', m.label, 'is_binary', m.is_binary) as h
    from media m
    join pg_proc p on p.prorettype = m.oid and p.prokind = 'a' and p.pronargs = 1
    join pg_namespace n on n.oid = p.pronamespace
    join pg_type a on a.oid = p.proargtypes[0]
    join pg_namespace an on an.oid = a.typnamespace
    where n.nspname = any($1::text[])
      and (a.oid = 'anyelement'::regtype or exists (
          select from pg_class c where c.reltype = a.oid and c.relkind in ('v', 'r', 'm', 'f', 'p')))
    union all
    select json_build_object(
        'function', json_build_object('schema', m.nspname, 'name', m.typname),
        'target', json_build_object('schema', n.nspname, 'name', p.proname),
        'media_type', m.label, 'is_binary', m.is_binary)
    from media m
    join pg_proc p on p.prorettype = m.oid and p.prokind = 'f' and not p.proretset
    join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = any($1::text[])
) handlers
";

/// Whether a function, view or policy of the database names the settings `response.headers` or `response.status`.
pub(super) const SETS_RESPONSE: &str = r"
with own as (select oid from pg_namespace where nspname <> 'information_schema' and nspname !~ '^pg_')
select to_json(exists (
        select from pg_proc where pronamespace in (select oid from own) and prokind in ('f', 'p')
            and case when prosqlbody is null then prosrc else pg_get_functiondef(oid) end ~ 'response\.'
    ) or exists (
        select from pg_class where relnamespace in (select oid from own) and relkind in ('v', 'm')
            and pg_get_viewdef(oid) ~ 'response\.'
    ) or exists (
        select from pg_policy where concat(pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) ~ 'response\.'
    ))";

/// The roles that `$1` may become, without superusers; null where there is no such role.
pub(super) const ROLES: &str = r"
select case when exists (select from pg_roles where rolname = $1::text) then coalesce(json_agg(r.rolname), '[]') end
from pg_roles a
join pg_roles r on not r.rolsuper and r.rolname <> a.rolname and pg_has_role(a.oid, r.oid,
    case when current_setting('server_version_num')::int >= 160000 then 'SET' else 'MEMBER' end)
where a.rolname = $1::text";

/// `ALTER ROLE … SET`, of the roles the connection may become and for settings it may set; what is said
/// for this database wins over what is said for all.
pub(super) const ROLE_SETTINGS: &str = r"
select coalesce(json_agg(json_build_array(s.rolname, s.key, s.value)), '[]')
from (
    select distinct on (r.rolname, kv.key) r.rolname, kv.key, kv.value
    from pg_roles r
    join pg_db_role_setting d on d.setrole = r.oid
        and d.setdatabase in (0, (select oid from pg_database where datname = current_database()))
    cross join lateral unnest(d.setconfig) setting
    cross join lateral (
        select left(setting, strpos(setting, '=') - 1) as key, substr(setting, strpos(setting, '=') + 1) as value) kv
    join pg_settings ps on ps.name = kv.key
    where pg_has_role(current_user, r.oid, 'member') and r.rolname <> current_user
      and (ps.context = 'user' or has_parameter_privilege(current_user, kv.key, 'set'))
      and kv.key not in ('role', 'session_authorization')
    order by r.rolname, kv.key, d.setdatabase desc
) s
";

/// `ALTER ROLE … SET pgrst.…` of the connection's role, or else of the role $1.
pub(super) const CONFIGURATION: &str = r"
select coalesce(json_object_agg(key, value), '{}')
from (
    select distinct on (kv.key) kv.key, kv.value
    from pg_roles r
    join pg_db_role_setting d on d.setrole = r.oid
        and d.setdatabase in (0, (select oid from pg_database where datname = current_database()))
    cross join lateral unnest(d.setconfig) setting
    cross join lateral (
        select substr(left(setting, strpos(setting, '=') - 1), 7) as key,
            substr(setting, strpos(setting, '=') + 1) as value) kv
    where r.rolname in (current_user, $1::text) and setting like 'pgrst.%=%'
    order by kv.key, (r.rolname = current_user) desc, d.setdatabase desc
) s
";

/// What a function has just set under these names, without their prefix.
pub(super) const PRE_CONFIGURATION: &str = r"
select coalesce(json_object_agg(name, value), '{}')
from (select name, current_setting('pgrst.' || name, true) as value from unnest($1::text[]) name) s
where value is not null
";
