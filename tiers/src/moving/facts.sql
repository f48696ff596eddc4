-- What a database is made of, one fact a row: its kind, the name it goes by, the statement that makes it, what has to be equal for two
-- of them to be the same (null: the statement), the statement that takes it away, what it is in the catalog, and the table it belongs to.
--
-- Asked with an empty search_path, so that every name is whole. Whoever asks owns what nobody else owns: `current_user` stands for them.
-- What extensions bring, and what our own migrations make for themselves (the schema ntier), is no fact.
with extended as materialized (
  select classid, objid from pg_depend where deptype = 'e'
), me as materialized (
  select oid from pg_roles where rolname = current_user
), spaces as materialized (
  select n.oid, n.nspname, n.nspowner, n.nspacl from pg_namespace n
  where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'ntier', 'ntier_move')
    and not exists (select from extended e where e.classid = 'pg_namespace'::regclass and e.objid = n.oid)
), relations as materialized (
  select c.*, n.nspname, format('%I.%I', n.nspname, c.relname) as name,
    exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'i' and c.relkind = 'S')
      as is_identity
  from pg_class c join spaces n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p', 'v', 'm', 'S', 'c', 'i', 'I')
    and not exists (select from extended e where e.classid = 'pg_class'::regclass and e.objid = c.oid)
    -- The days of messages come and go by themselves.
    and not (n.nspname = 'realtime' and c.relname ~ '^messages_\d{4}_\d{2}_\d{2}')
), tables as materialized (
  select * from relations where relkind in ('r', 'p')
), functions as materialized (
  select p.*, format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) as name,
    case p.prokind when 'p' then 'procedure' when 'a' then 'aggregate' else 'function' end as kind
  from pg_proc p join spaces n on n.oid = p.pronamespace
  where not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype in ('e', 'i'))
), types as materialized (
  select t.*, format('%I.%I', n.nspname, t.typname) as name
  from pg_type t join spaces n on n.oid = t.typnamespace
  where t.typtype in ('e', 'd', 'r')
    and not exists (select from extended e where e.classid = 'pg_type'::regclass and e.objid = t.oid)
), columns as materialized (
  select a.*, c.name as table_name, c.relkind, c.relispartition, format('%s.%I', c.name, a.attname) as name,
    pg_get_expr(d.adbin, d.adrelid) as expression,
    format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod))
      || case when a.attcollation <> 0 and a.attcollation <> t.typcollation
           then format(' collate %I.%I', cn.nspname, co.collname) else '' end
      || case when a.attcompression = 'p' then ' compression pglz' when a.attcompression = 'l' then ' compression lz4' else '' end
      || case
           when a.attgenerated = 's' then format(' generated always as (%s) stored', pg_get_expr(d.adbin, d.adrelid))
           when a.attgenerated = 'v' then format(' generated always as (%s) virtual', pg_get_expr(d.adbin, d.adrelid))
           when a.attidentity <> '' and not c.relispartition then format(
             ' generated %s as identity (sequence name %I.%I start %s increment %s minvalue %s maxvalue %s cache %s%s)',
             case a.attidentity when 'a' then 'always' else 'by default' end,
             sn.nspname, sc.relname, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
             case when s.seqcycle then ' cycle' else '' end)
           else '' end
      || case when a.attnotnull then ' not null' else '' end as definition
  from tables c
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  join pg_type t on t.oid = a.atttypid
  left join pg_collation co on co.oid = a.attcollation
  left join pg_namespace cn on cn.oid = co.collnamespace
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  left join pg_depend o on a.attidentity <> '' and o.refclassid = 'pg_class'::regclass and o.refobjid = a.attrelid
    and o.refobjsubid = a.attnum and o.deptype = 'i' and o.classid = 'pg_class'::regclass
  left join pg_sequence s on s.seqrelid = o.objid
  left join pg_class sc on sc.oid = s.seqrelid
  left join pg_namespace sn on sn.oid = sc.relnamespace
), role_names as materialized (
  select r.oid, case when r.oid = (select oid from me) then 'current_user' else quote_ident(r.rolname) end as name from pg_roles r
  union all select 0, 'public'
), roles as materialized (
  -- All that are not the server's own; of a server that others use too, those that something here names.
  select r.* from pg_roles r where r.rolname !~ '^pg_' and r.oid <> (select oid from me) and (
    /*all*/ or exists (
      select from pg_shdepend d
      where d.refclassid = 'pg_authid'::regclass and d.refobjid = r.oid
        and (d.dbid = (select oid from pg_database where datname = current_database()))
    )
  )
), granted as (
  select 'grant' as kind, what, grantee, grantor, privilege_type, is_grantable, owner, parent
  from (
    select format('table %s', c.name) as what, c.relacl as acl, case c.relkind when 'S' then 's' else 'r' end as kind, c.relowner as owner, c.oid as parent
    from relations c where c.relkind in ('r', 'p', 'v', 'm', 'S') and not c.is_identity
    union all
    select format('%s %s', f.kind, f.name), f.proacl, 'f', f.proowner, f.oid from functions f where f.kind <> 'aggregate'
    union all
    select format('schema %I', n.nspname), n.nspacl, 'n', n.nspowner, n.oid from spaces n
    union all
    select format('%s %s', case t.typtype when 'd' then 'domain' else 'type' end, t.name), t.typacl, 'T', t.typowner, t.oid from types t
  ) objects, lateral aclexplode(coalesce(acl, acldefault(kind::"char", owner)))
  where grantee <> owner
), column_grants as (
  select distinct c.table_name, c.attname, x.grantee, x.privilege_type, x.is_grantable, c.attrelid
  from columns c join pg_class r on r.oid = c.attrelid, lateral aclexplode(c.attacl) x where x.grantee <> r.relowner
), settings as (
  -- What holds here: said for this database before what is said for all.
  select distinct on (s.setrole, split_part(one, '=', 1)) s.setrole, split_part(one, '=', 1) as setting,
    substr(one, position('=' in one) + 1) as value
  from pg_db_role_setting s, unnest(s.setconfig) one
  where s.setdatabase in (0, (select oid from pg_database where datname = current_database()))
    and (s.setrole <> 0 or s.setdatabase <> 0)
    and (s.setrole = 0 or s.setrole in (select oid from roles))
  order by s.setrole, split_part(one, '=', 1), s.setdatabase desc
), facts as (
  select 'role' as kind, quote_ident(r.rolname) as name,
    format('create role %I%s%s%s%s%s%s%s%s', r.rolname,
      case when r.rolcanlogin then ' login' else ' nologin' end, case when r.rolinherit then '' else ' noinherit' end,
      case when r.rolsuper then ' superuser' else '' end, case when r.rolcreaterole then ' createrole' else '' end,
      case when r.rolcreatedb then ' createdb' else '' end, case when r.rolreplication then ' replication' else '' end,
      case when r.rolbypassrls then ' bypassrls' else '' end,
      case when r.rolconnlimit <> -1 then ' connection limit ' || r.rolconnlimit else '' end) as make,
    '' as same, null::text as unmake, 'pg_authid'::regclass::oid as class, r.oid as object, 0::oid as parent
  from roles r
  union all
  select 'member', format('%I in %I', m.rolname, g.rolname), format('grant %I to %I%s', g.rolname, m.rolname,
      case when a.admin_option then ' with admin option' else '' end), '', null, 0, 0, 0
  from pg_auth_members a join roles m on m.oid = a.member join pg_roles g on g.oid = a.roleid
  where g.oid in (select oid from roles) or g.rolname ~ '^pg_'
  union all
  select 'setting', format('%s of %s', s.setting, case s.setrole when 0 then 'all' else quote_ident(r.rolname) end),
    format('do $do$ begin execute format(%L, current_database()); end $do$',
      case s.setrole when 0 then 'alter database %1$I' else format('alter role %I in database %%1$I', r.rolname) end
      || format(' set %s to %s', s.setting, replace(
        case when s.setting in ('search_path', 'temp_tablespaces', 'session_preload_libraries', 'local_preload_libraries') and s.value <> ''
          then s.value else quote_literal(s.value) end, '%', '%%'))), null,
    format('do $do$ begin execute format(%L, current_database()); end $do$',
      case s.setrole when 0 then 'alter database %1$I' else format('alter role %I in database %%1$I', r.rolname) end
      || format(' reset %s', s.setting)), 0, 0, 0
  from settings s left join roles r on r.oid = s.setrole
  union all
  select 'schema', quote_ident(n.nspname), format('create schema if not exists %I', n.nspname), '', null, 'pg_namespace'::regclass, n.oid, 0
  from spaces n
  union all
  select 'extension', quote_ident(e.extname), format('create extension if not exists %I with schema %I', e.extname, n.nspname), '',
    null, 'pg_extension'::regclass, e.oid, 0
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname <> 'plpgsql'
  union all
  select 'type', t.name,
    case t.typtype
      when 'e' then format('create type %s as enum (%s)', t.name,
        (select coalesce(string_agg(quote_literal(l.enumlabel), ', ' order by l.enumsortorder), '') from pg_enum l where l.enumtypid = t.oid))
      when 'r' then (
        select format('create type %s as range (subtype = %s%s%s%s%s)', t.name, format_type(r.rngsubtype, null),
          format(', subtype_opclass = %I.%I', ocn.nspname, oc.opcname),
          case when r.rngcollation <> 0 then (
            select format(', collation = %I.%I', cn.nspname, co.collname) from pg_collation co join pg_namespace cn on cn.oid = co.collnamespace
            where co.oid = r.rngcollation) else '' end,
          case when r.rngsubdiff <> 0 then ', subtype_diff = ' || r.rngsubdiff::regproc else '' end,
          format(', multirange_type_name = %I.%I', mn.nspname, m.typname))
        from pg_range r join pg_opclass oc on oc.oid = r.rngsubopc join pg_namespace ocn on ocn.oid = oc.opcnamespace
        join pg_type m on m.oid = r.rngmultitypid join pg_namespace mn on mn.oid = m.typnamespace
        where r.rngtypid = t.oid)
      else format('create domain %s as %s%s%s%s', t.name, format_type(t.typbasetype, t.typtypmod),
        case when t.typdefault is not null then ' default ' || coalesce(pg_get_expr(t.typdefaultbin, 0), quote_literal(t.typdefault)) else '' end,
        case when t.typnotnull then ' not null' else '' end,
        (select coalesce(string_agg(format(' constraint %I %s', k.conname, pg_get_constraintdef(k.oid)), '' order by k.conname), '')
          from pg_constraint k where k.contypid = t.oid and k.contype = 'c'))
    end, null, null, 'pg_type'::regclass, t.oid, 0
  from types t
  union all
  select 'type', c.name, format('create type %s as (%s)', c.name,
      (select coalesce(string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' order by a.attnum), '')
        from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)),
    null, null, 'pg_class'::regclass, c.oid, 0
  from relations c where c.relkind = 'c'
  union all
  select f.kind, f.name,
    case when f.prokind <> 'a' then pg_get_functiondef(f.oid) else (
      select format('create aggregate %s (sfunc = %s, stype = %s%s%s%s%s%s)', f.name, a.aggtransfn::regproc, format_type(a.aggtranstype, null),
        case when a.aggtransspace <> 0 then ', sspace = ' || a.aggtransspace else '' end,
        case when a.aggfinalfn <> 0 then ', finalfunc = ' || a.aggfinalfn::regproc || case when a.aggfinalextra then ', finalfunc_extra' else '' end else '' end,
        case when a.aggcombinefn <> 0 then ', combinefunc = ' || a.aggcombinefn::regproc else '' end,
        case when a.agginitval is not null then format(', initcond = %L', a.agginitval) else '' end,
        case f.proparallel when 's' then ', parallel = safe' when 'r' then ', parallel = restricted' else '' end)
      from pg_aggregate a where a.aggfnoid = f.oid)
    end, null, null, 'pg_proc'::regclass, f.oid, 0
  from functions f
  union all
  select 'sequence', c.name, format('create %ssequence %s as %s increment %s minvalue %s maxvalue %s start %s cache %s%s',
      case c.relpersistence when 'u' then 'unlogged ' else '' end, c.name, format_type(s.seqtypid, null), s.seqincrement, s.seqmin, s.seqmax,
      s.seqstart, s.seqcache, case when s.seqcycle then ' cycle' else '' end), null, null, 'pg_class'::regclass, c.oid, 0
  from relations c join pg_sequence s on s.seqrelid = c.oid where not c.is_identity
  union all
  select 'owned sequence', c.name, format('alter sequence %s owned by %s', c.name, a.name), null, null, 0, 0, a.attrelid
  from relations c join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'a'
    and d.refclassid = 'pg_class'::regclass
  join columns a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
  where c.relkind = 'S'
  union all
  select 'table', t.name,
    format('create %stable %s (%s)%s%s', case t.relpersistence when 'u' then 'unlogged ' else '' end, t.name,
      (select coalesce(string_agg(c.definition, ', ' order by c.attnum), '') from columns c
        where c.attrelid = t.oid and (t.relispartition or c.attislocal)),
      case when not t.relispartition then coalesce((
        select format(' inherits (%s)', string_agg(i.inhparent::regclass::text, ', ' order by i.inhseqno)) from pg_inherits i where i.inhrelid = t.oid having count(*) > 0
      ), '') else '' end,
      case when t.relkind = 'p' then ' partition by ' || pg_get_partkeydef(t.oid) else '' end),
    format('%s%s', t.relpersistence, case when t.relkind = 'p' then ' partition by ' || pg_get_partkeydef(t.oid) else '' end), null,
    'pg_class'::regclass, t.oid, 0
  from tables t
  union all
  select 'column', c.name, format('alter table only %s add column %s', c.table_name, c.definition), c.definition, null, 0, 0, c.attrelid
  from columns c where c.attislocal and not c.relispartition
  union all
  select 'partition', t.name, format('alter table only %s attach partition %s %s', i.inhparent::regclass, t.name, pg_get_expr(t.relpartbound, t.oid)),
    null, null, 0, 0, t.oid
  from tables t join pg_inherits i on i.inhrelid = t.oid where t.relispartition
  union all
  select 'options', c.name, format('alter %s %s set (%s)',
      case c.relkind when 'm' then 'materialized view' else 'table' end, c.name, array_to_string(o.options, ', ')), null, null, 0, 0, c.oid
  from relations c left join pg_class t on t.oid = c.reltoastrelid,
  lateral (select coalesce(c.reloptions, '{}') || array(select 'toast.' || one from unnest(t.reloptions) one) as options) o
  where c.relkind in ('r', 'p', 'm') and o.options <> '{}'
  union all
  select 'column option', c.name || ' storage', format('alter table only %s alter column %I set storage %s', c.table_name, c.attname,
      case c.attstorage when 'p' then 'plain' when 'e' then 'external' when 'x' then 'extended' else 'main' end), null, null, 0, 0, c.attrelid
  from columns c join pg_type t on t.oid = c.atttypid where c.attstorage <> t.typstorage
  union all
  select 'column option', c.name || ' statistics', format('alter table only %s alter column %I set statistics %s', c.table_name, c.attname, c.attstattarget),
    null, null, 0, 0, c.attrelid
  from columns c where c.attstattarget >= 0
  union all
  select 'column option', c.name || ' options', format('alter table only %s alter column %I set (%s)', c.table_name, c.attname,
      array_to_string(c.attoptions, ', ')), null, null, 0, 0, c.attrelid
  from columns c where c.attoptions is not null
  union all
  select 'default', format('%s.%I', r.name, a.attname), format('alter table only %s alter column %I set default %s', r.name, a.attname, pg_get_expr(d.adbin, d.adrelid)),
    null, null, 'pg_attrdef'::regclass, d.oid, r.oid
  from pg_attrdef d join relations r on r.oid = d.adrelid
  join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum where a.attgenerated = ''
  union all
  select case c.relkind when 'v' then 'view' else 'materialized view' end, c.name,
    format('create %s %s%s as %s%s', case c.relkind when 'v' then 'view' else 'materialized view' end, c.name,
      case when c.relkind = 'v' and c.reloptions is not null then format(' with (%s)', array_to_string(c.reloptions, ', ')) else '' end,
      rtrim(pg_get_viewdef(c.oid), ';'), case c.relkind when 'm' then ' with no data' else '' end),
    case when current_setting('server_version_num')::int / 10000 = /*other*/0 then null else (
      select string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' order by a.attnum)
      from pg_attribute a where a.attrelid = c.oid and a.attnum > 0) end,
    null, 'pg_class'::regclass, c.oid, 0
  from relations c where c.relkind in ('v', 'm')
  union all
  select 'index', c.name, pg_get_indexdef(c.oid), null, null, 'pg_class'::regclass, c.oid, i.indrelid
  from relations c join pg_index i on i.indexrelid = c.oid
  where not exists (select from pg_constraint k where k.conindid = c.oid and k.contype in ('p', 'u', 'x'))
    and not (c.nspname = 'realtime' and i.indrelid not in (select oid from relations))
  union all
  select 'constraint', format('%s of %s', quote_ident(k.conname), t.name),
    format('alter table %s%s add constraint %I %s', case when k.contype <> 'c' then 'only ' else '' end, t.name, k.conname, pg_get_constraintdef(k.oid)),
    null, null, 'pg_constraint'::regclass, k.oid, t.oid
  from pg_constraint k join tables t on t.oid = k.conrelid
  where k.contype in ('p', 'u', 'x') or (k.contype = 'c' and k.conislocal)
  union all
  select 'index of a partition', c.name, format('alter index %s attach partition %s', i.inhparent::regclass, c.name), null, null, 0, 0, x.indrelid
  from relations c join pg_inherits i on i.inhrelid = c.oid join pg_index x on x.indexrelid = c.oid where c.relkind in ('i', 'I')
  union all
  select 'foreign key', format('%s of %s', quote_ident(k.conname), t.name),
    format('alter table %s add constraint %I %s', t.name, k.conname, pg_get_constraintdef(k.oid)), null,
    format('alter table %s drop constraint %I', t.name, k.conname), 'pg_constraint'::regclass, k.oid, t.oid
  from pg_constraint k join tables t on t.oid = k.conrelid where k.contype = 'f' and k.conparentid = 0
  union all
  select 'replica identity', t.name, format('alter table only %s replica identity %s', t.name,
      case t.relreplident when 'n' then 'nothing' when 'f' then 'full' else 'using index ' || quote_ident(i.relname) end), null, null, 0, 0, t.oid
  from tables t left join pg_index x on x.indrelid = t.oid and x.indisreplident left join pg_class i on i.oid = x.indexrelid
  where t.relreplident <> 'd'
  union all
  select 'row security', t.name, format('alter table only %s enable row level security', t.name), null,
    format('alter table only %s disable row level security', t.name), 0, 0, t.oid
  from tables t where t.relrowsecurity
  union all
  select 'row security', t.name || ' for its owner', format('alter table only %s force row level security', t.name), null,
    format('alter table only %s no force row level security', t.name), 0, 0, t.oid
  from tables t where t.relforcerowsecurity
  union all
  select 'policy', format('%I on %s', p.polname, t.name), format('create policy %I on %s as %s for %s to %s%s%s', p.polname, t.name,
      case when p.polpermissive then 'permissive' else 'restrictive' end,
      case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'all' end,
      (select string_agg(r.name, ', ' order by r.name) from role_names r where r.oid = any (p.polroles)),
      ' using (' || pg_get_expr(p.polqual, p.polrelid) || ')', ' with check (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')'),
    null, format('drop policy %I on %s', p.polname, t.name), 'pg_policy'::regclass, p.oid, t.oid
  from pg_policy p join tables t on t.oid = p.polrelid
  union all
  select 'statistics', format('%I.%I', n.nspname, s.stxname), pg_get_statisticsobjdef(s.oid), null, null, 'pg_statistic_ext'::regclass, s.oid, s.stxrelid
  from pg_statistic_ext s join spaces n on n.oid = s.stxnamespace
  union all
  select 'cast', format('%s as %s', format_type(c.castsource, null), format_type(c.casttarget, null)),
    format('create cast (%s as %s) %s%s', format_type(c.castsource, null), format_type(c.casttarget, null),
      case c.castmethod when 'f' then 'with function ' || c.castfunc::regprocedure when 'i' then 'with inout' else 'without function' end,
      case c.castcontext when 'a' then ' as assignment' when 'i' then ' as implicit' else '' end), null, null, 'pg_cast'::regclass, c.oid, 0
  from pg_cast c where c.oid >= 16384
    and not exists (select from pg_depend d where d.classid = 'pg_cast'::regclass and d.objid = c.oid and d.deptype in ('e', 'i'))
  union all
  select 'rule', format('%I on %s', w.rulename, r.name), rtrim(pg_get_ruledef(w.oid), ';'), null, format('drop rule %I on %s', w.rulename, r.name), 'pg_rewrite'::regclass, w.oid, r.oid
  from pg_rewrite w join relations r on r.oid = w.ev_class where w.rulename <> '_RETURN'
  union all
  select 'trigger', format('%I on %s', g.tgname, r.name), pg_get_triggerdef(g.oid), null, format('drop trigger %I on %s', g.tgname, r.name),
    'pg_trigger'::regclass, g.oid, r.oid
  from pg_trigger g join relations r on r.oid = g.tgrelid join pg_proc p on p.oid = g.tgfoid join pg_namespace n on n.oid = p.pronamespace
  where not g.tgisinternal and g.tgparentid = 0 and n.nspname <> 'ntier_move'
    -- Those that tell of changes are made where they are needed.
    and not (n.nspname = 'ntier' and p.proname ~ '^record_(change|insert|update|delete)')
  union all
  select 'trigger state', format('%I on %s', g.tgname, r.name), format('alter table %s %s trigger %I', r.name,
      case g.tgenabled when 'D' then 'disable' when 'R' then 'enable replica' else 'enable always' end, g.tgname), null, null, 0, 0, r.oid
  from pg_trigger g join relations r on r.oid = g.tgrelid
  where not g.tgisinternal and g.tgparentid = 0 and g.tgenabled <> 'O' and g.tgname !~ '^ntier_move'
  union all
  select 'event trigger', quote_ident(e.evtname), format('create event trigger %I on %s%s execute function %s()', e.evtname, e.evtevent,
      case when e.evttags is not null then (select format(' when tag in (%s)', string_agg(quote_literal(t), ', ')) from unnest(e.evttags) t) else '' end,
      e.evtfoid::regproc), null, null, 'pg_event_trigger'::regclass, e.oid, 0
  from pg_event_trigger e join pg_proc p on p.oid = e.evtfoid join pg_namespace n on n.oid = p.pronamespace
  where n.nspname not in ('ntier', 'ntier_move')
    and not exists (select from extended x where x.classid = 'pg_event_trigger'::regclass and x.objid = e.oid)
  union all
  select 'publication', quote_ident(p.pubname), format('create publication %I%s with (publish = %L, publish_via_partition_root = %s)', p.pubname,
      case when p.puballtables then ' for all tables' else '' end,
      concat_ws(', ', case when p.pubinsert then 'insert' end, case when p.pubupdate then 'update' end, case when p.pubdelete then 'delete' end,
        case when p.pubtruncate then 'truncate' end), p.pubviaroot), null, format('drop publication %I', p.pubname), 'pg_publication'::regclass, p.oid, 0
  from pg_publication p
  union all
  select 'published', format('%s in %I', t.name, p.pubname), format('alter publication %I add table only %s%s%s', p.pubname, t.name,
      (select format(' (%s)', string_agg(quote_ident(a.attname), ', ' order by a.attnum)) from pg_attribute a
        where a.attrelid = r.prrelid and a.attnum = any (r.prattrs) having count(*) > 0),
      ' where (' || pg_get_expr(r.prqual, r.prrelid) || ')'), null, format('alter publication %I drop table only %s', p.pubname, t.name),
    'pg_publication_rel'::regclass, r.oid, t.oid
  from pg_publication_rel r join pg_publication p on p.oid = r.prpubid join tables t on t.oid = r.prrelid
  union all
  select 'published', format('schema %I in %I', n.nspname, p.pubname), format('alter publication %I add tables in schema %I', p.pubname, n.nspname),
    null, format('alter publication %I drop tables in schema %I', p.pubname, n.nspname), 0, 0, 0
  from pg_publication_namespace x join pg_publication p on p.oid = x.pnpubid join spaces n on n.oid = x.pnnspid
  union all
  select 'owner', o.what, format('alter %s owner to %I', o.what, r.rolname), null, format('alter %s owner to current_user', o.what), 0, 0, o.parent
  from (
    select format('%s %s', case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence' when 'c' then 'type'
        else 'table' end, c.name) as what, c.relowner as owner, c.oid as parent
    from relations c where c.relkind in ('r', 'p', 'v', 'm', 'S', 'c') and not c.is_identity
      -- An owned sequence is its table's owner's.
      and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'a' and c.relkind = 'S')
    union all select format('%s %s', f.kind, f.name), f.proowner, f.oid from functions f
    union all select format('schema %I', n.nspname), n.nspowner, n.oid from spaces n where n.nspname <> 'public'
    union all select format('%s %s', case t.typtype when 'd' then 'domain' else 'type' end, t.name), t.typowner, t.oid from types t
  ) o join pg_roles r on r.oid = o.owner where o.owner <> (select oid from me)
  union all
  select 'grant', format('%s on %s to %s%s', lower(g.privilege_type), g.what, r.name, case when bool_or(g.is_grantable) then ' with grant option' else '' end),
    format('grant %s on %s to %s%s', g.privilege_type, g.what, r.name, case when bool_or(g.is_grantable) then ' with grant option' else '' end), null,
    format('revoke %s on %s from %s', g.privilege_type, g.what, r.name), 0, 0, g.parent
  from granted g join role_names r on r.oid = g.grantee group by g.privilege_type, g.what, r.name, g.parent
  union all
  select 'grant', format('%s (%I) on table %s to %s%s', lower(g.privilege_type), g.attname, g.table_name, r.name, case when g.is_grantable then ' with grant option' else '' end),
    format('grant %s (%I) on table %s to %s%s', g.privilege_type, g.attname, g.table_name, r.name, case when g.is_grantable then ' with grant option' else '' end), null,
    format('revoke %s (%I) on table %s from %s', g.privilege_type, g.attname, g.table_name, r.name), 0, 0, g.attrelid
  from column_grants g join role_names r on r.oid = g.grantee
  union all
  select 'default grant', format('%s on %s%s to %s%s', lower(x.privilege_type), k.what, k.whose, r.name, case when x.is_grantable then ' with grant option' else '' end),
    format('alter default privileges%s grant %s on %s to %s%s', k.whose, x.privilege_type, k.what, r.name, case when x.is_grantable then ' with grant option' else '' end), null,
    format('alter default privileges%s revoke %s on %s from %s', k.whose, x.privilege_type, k.what, r.name), 0, 0, 0
  from (
    select d.*, case d.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions' when 'T' then 'types' else 'schemas' end as what,
      case when d.defaclrole <> (select oid from me) then ' for role ' || quote_ident(o.rolname) else '' end
        || case when d.defaclnamespace <> 0 then ' in schema ' || quote_ident(n.nspname) else '' end as whose
    from pg_default_acl d join pg_roles o on o.oid = d.defaclrole left join spaces n on n.oid = d.defaclnamespace
    where (d.defaclrole = (select oid from me) or d.defaclrole in (select oid from roles)) and (d.defaclnamespace = 0 or n.oid is not null)
  ) k, lateral aclexplode(k.defaclacl) x join role_names r on r.oid = x.grantee
  where x.grantee <> k.defaclrole
  union all
  select 'default grant', format('nothing to public on %s%s', k.what, k.whose),
    format('alter default privileges%s revoke all on %s from public', k.whose, k.what), null,
    format('alter default privileges%s grant %s on %s to public', k.whose, case k.what when 'functions' then 'execute' else 'usage' end, k.what), 0, 0, 0
  from (
    select d.*, case d.defaclobjtype when 'f' then 'functions' else 'types' end as what,
      case when d.defaclrole <> (select oid from me) then ' for role ' || quote_ident(o.rolname) else '' end as whose
    from pg_default_acl d join pg_roles o on o.oid = d.defaclrole
    where d.defaclnamespace = 0 and d.defaclobjtype in ('f', 'T') and (d.defaclrole = (select oid from me) or d.defaclrole in (select oid from roles))
  ) k where not exists (select from aclexplode(k.defaclacl) x where x.grantee = 0)
  union all
  select 'comment', o.what, format('comment on %s is %L', o.what, d.description), null, format('comment on %s is null', o.what), 0, 0, o.parent
  from (
    select 'pg_class'::regclass as class, c.oid as object, 0 as part, format('%s %s', case c.relkind when 'v' then 'view' when 'm' then 'materialized view'
      when 'S' then 'sequence' when 'c' then 'type' when 'i' then 'index' when 'I' then 'index' else 'table' end, c.name) as what, c.oid as parent
    from relations c
    union all select 'pg_class'::regclass, r.oid, a.attnum, format('column %s.%I', r.name, a.attname), r.oid
      from relations r join pg_attribute a on a.attrelid = r.oid where a.attnum > 0 and not a.attisdropped and r.relkind in ('r', 'p', 'v', 'm', 'c')
    union all select 'pg_proc'::regclass, f.oid, 0, format('%s %s', f.kind, f.name), f.oid from functions f
    union all select 'pg_type'::regclass, t.oid, 0, format('%s %s', case t.typtype when 'd' then 'domain' else 'type' end, t.name), t.oid from types t
    union all select 'pg_namespace'::regclass, n.oid, 0, format('schema %I', n.nspname), n.oid from spaces n where n.nspname <> 'public'
    union all select 'pg_constraint'::regclass, k.oid, 0, format('constraint %I on %s', k.conname, t.name), t.oid
      from pg_constraint k join tables t on t.oid = k.conrelid
    union all select 'pg_trigger'::regclass, g.oid, 0, format('trigger %I on %s', g.tgname, t.name), t.oid
      from pg_trigger g join tables t on t.oid = g.tgrelid where g.tgparentid = 0
    union all select 'pg_policy'::regclass, p.oid, 0, format('policy %I on %s', p.polname, t.name), t.oid
      from pg_policy p join tables t on t.oid = p.polrelid
  ) o join pg_description d on d.classoid = o.class and d.objoid = o.object and d.objsubid = o.part
)
select kind, name, make, coalesce(same, make), unmake, class, object, parent from facts order by kind, name;

-- What needs what. A view stands for its rule, a table for its row type and what is generated in it, a type for its array, a constraint
-- for its index.
with mapped as (
  select d.*,
    coalesce(w.ev_class, t.typrelid, el.typrelid, gd.adrelid, 0) as relation,
    coalesce(ek.oid, k.oid) as keyed, coalesce(mr.rngtypid, el.oid) as type, dk.contypid as domain
  from (
    select classid, objid, true as is_source, row_number() over () as number from pg_depend where deptype in ('n', 'a', 'i')
    union all
    select refclassid, refobjid, false, row_number() over () from pg_depend where deptype in ('n', 'a', 'i')
  ) d
  left join pg_rewrite w on d.classid = 'pg_rewrite'::regclass and w.oid = d.objid and w.rulename = '_RETURN'
  left join pg_type t on d.classid = 'pg_type'::regclass and t.oid = d.objid and t.typrelid <> 0
  left join pg_type a on d.classid = 'pg_type'::regclass and a.oid = d.objid and a.typrelid = 0 and a.typelem <> 0
  left join pg_type el on el.oid = a.typelem and el.typarray = a.oid
  left join pg_range mr on d.classid = 'pg_type'::regclass and mr.rngmultitypid = d.objid
  left join pg_attrdef ad on d.classid = 'pg_attrdef'::regclass and ad.oid = d.objid
  left join pg_attribute ga on ga.attrelid = ad.adrelid and ga.attnum = ad.adnum and ga.attgenerated <> ''
  left join pg_attrdef gd on gd.oid = ad.oid and ga.attrelid is not null
  left join pg_constraint k on d.classid = 'pg_class'::regclass and k.conindid = d.objid and k.contype in ('p', 'u', 'x')
  left join pg_constraint ek on false
  left join pg_constraint dk on d.classid = 'pg_constraint'::regclass and dk.oid = d.objid and dk.contypid <> 0
), ends as (
  select number, is_source,
    case when relation <> 0 then 'pg_class'::regclass::oid when keyed is not null then 'pg_constraint'::regclass::oid
      when type is not null or domain is not null then 'pg_type'::regclass::oid else classid end as class,
    case when relation <> 0 then relation else coalesce(keyed, type, domain, objid) end as object
  from mapped
)
select distinct s.class, s.object, t.class, t.object from ends s join ends t on t.number = s.number
where s.is_source and not t.is_source and (s.class, s.object) <> (t.class, t.object)
order by 1, 2, 3, 4;

-- What is there and cannot be taken along.
with extended as materialized (
  select classid, objid from pg_depend where deptype = 'e'
), spaces as (
  select n.oid, n.nspname from pg_namespace n where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'ntier', 'ntier_move')
), found (what, class, object) as (
  select format('the foreign table %I.%I', n.nspname, c.relname), 'pg_class'::regclass::oid, c.oid
    from pg_class c join spaces n on n.oid = c.relnamespace where c.relkind = 'f'
  union all select format('the table %I.%I of a type', n.nspname, c.relname), 'pg_class'::regclass, c.oid
    from pg_class c join spaces n on n.oid = c.relnamespace where c.reloftype <> 0
  union all select format('the table %I.%I, which is not a heap', n.nspname, c.relname), 'pg_class'::regclass, c.oid
    from pg_class c join spaces n on n.oid = c.relnamespace join pg_am a on a.oid = c.relam where c.relkind = 'r' and a.amname <> 'heap'
  union all select format('the foreign server %I', s.srvname), 'pg_foreign_server'::regclass, s.oid from pg_foreign_server s
  union all select format('the foreign data wrapper %I', w.fdwname), 'pg_foreign_data_wrapper'::regclass, w.oid from pg_foreign_data_wrapper w
  union all select format('the type %I.%I', n.nspname, t.typname), 'pg_type'::regclass, t.oid
    from pg_type t join spaces n on n.oid = t.typnamespace where (t.typtype = 'b' and t.typelem = 0)
      or exists (select from pg_range r where r.rngtypid = t.oid and r.rngcanonical <> 0)
  union all select format('the operator %s', o.oid::regoperator), 'pg_operator'::regclass, o.oid from pg_operator o join spaces n on n.oid = o.oprnamespace
  union all select format('the operator class %I.%I', n.nspname, o.opcname), 'pg_opclass'::regclass, o.oid from pg_opclass o join spaces n on n.oid = o.opcnamespace
  union all select format('the collation %I.%I', n.nspname, o.collname), 'pg_collation'::regclass, o.oid from pg_collation o join spaces n on n.oid = o.collnamespace
  union all select format('the conversion %I.%I', n.nspname, o.conname), 'pg_conversion'::regclass, o.oid from pg_conversion o join spaces n on n.oid = o.connamespace
  union all select format('the text search configuration %I.%I', n.nspname, o.cfgname), 'pg_ts_config'::regclass, o.oid from pg_ts_config o join spaces n on n.oid = o.cfgnamespace
  union all select format('the text search dictionary %I.%I', n.nspname, o.dictname), 'pg_ts_dict'::regclass, o.oid from pg_ts_dict o join spaces n on n.oid = o.dictnamespace
  union all select format('the aggregate %s', p.oid::regprocedure), 'pg_proc'::regclass, p.oid
    from pg_aggregate a join pg_proc p on p.oid = a.aggfnoid join spaces n on n.oid = p.pronamespace where a.aggkind <> 'n' or a.aggmtransfn <> 0 or a.aggsortop <> 0
  union all select format('the language %I', l.lanname), 'pg_language'::regclass, l.oid from pg_language l where l.oid >= 16384
  union all select format('the transform %s', t.oid), 'pg_transform'::regclass, t.oid from pg_transform t
  union all select format('the subscription %I', s.subname), 'pg_subscription'::regclass, s.oid from pg_subscription s
    where s.subdbid = (select oid from pg_database where datname = current_database())
  union all select format('%s large objects', count(*)), 0, 0 from pg_largeobject_metadata having count(*) > 0
  union all select 'security labels', 0, 0 from pg_seclabel having count(*) > 0
)
select what from found f where not exists (select from extended e where e.classid = f.class and e.objid = f.object) order by what;
