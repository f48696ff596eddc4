//! What has rows: which tables are moved, by which key their rows are told apart, and the statements that read and write them.

use serde_json::Value;

use super::Error;
use super::compare::Piece;
use super::place::{Place, literal};

/// A table, or all partitions of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Quoted, with its schema.
    pub name: String,
    /// The tables that hold its rows: itself, or its partitions.
    pub parts: Vec<String>,
    /// What is written, quoted: all but generated columns.
    pub columns: Vec<String>,
    /// What is compared: all but what is generated, in the order of their names. That is made of the others by each end itself, which may have
    /// another idea of what a letter is (`to_tsvector`).
    pub compared: Vec<String>,
    /// Column and type; empty where rows cannot be told apart for certain.
    pub key: Vec<(String, String)>,
    pub is_partitioned: bool,
}

/// What a node keeps for itself for a moment, or what says nothing elsewhere: transactions' numbers, OIDs. Keys go as files.
const NOT_MOVED: &str = "'ntier.migrations', 'ntier.rate_limits', 'ntier.bus', 'ntier.changes', 'ntier.change_batches', 'ntier.change_triggers', \
    'ntier.nodes', 'ntier.keyring'";

/// Its partitions are dropped when their days are over, which no trigger sees: it is moved at the end, whole.
const AT_THE_END: &str = "realtime.messages";

/// The tables of a database, except those that only say something where they are.
pub async fn units(place: &mut Place) -> Result<Vec<Unit>, Error> {
    let sql = format!(
        "with tables as (
           select c.oid, c.relkind, c.relispartition, format('%I.%I', n.nspname, c.relname) as name
           from pg_class c join pg_namespace n on n.oid = c.relnamespace
           where c.relkind in ('r', 'p') and c.relpersistence <> 't' and not c.relispartition
             and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'ntier_move')
             and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
         ), keys as (
           select distinct on (i.indrelid) i.indrelid, i.indkey[0 : i.indnkeyatts - 1] as attributes
           from pg_index i
           where i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
             and not exists (
               select from pg_attribute a where a.attrelid = i.indrelid and a.attnum = any (i.indkey[0 : i.indnkeyatts - 1]) and not a.attnotnull)
           order by i.indrelid, i.indisprimary desc, i.indnkeyatts, i.indexrelid
         )
         select json_build_object('name', t.name, 'partitioned', t.relkind = 'p',
           'parts', case t.relkind when 'p' then (
             select coalesce(json_agg(format('%I.%I', pn.nspname, p.relname) order by p.oid), '[]')
             from pg_partition_tree(t.oid) l join pg_class p on p.oid = l.relid join pg_namespace pn on pn.oid = p.relnamespace
             where l.isleaf and p.relkind = 'r') else json_build_array(t.name) end,
           'columns', (select coalesce(json_agg(quote_ident(a.attname) order by a.attnum) filter (where a.attgenerated = ''), '[]')
             from pg_attribute a where a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped),
           'compared', (select coalesce(json_agg(quote_ident(a.attname) order by a.attname collate \"C\") filter (where a.attgenerated = ''), '[]')
             from pg_attribute a where a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped),
           'key', (select coalesce(json_agg(json_build_array(quote_ident(a.attname), format_type(a.atttypid, a.atttypmod)) order by k.place), '[]')
             from keys join unnest(keys.attributes) with ordinality k (number, place) on true
             join pg_attribute a on a.attrelid = keys.indrelid and a.attnum = k.number where keys.indrelid = t.oid)
         ) from tables t where t.name not in ({NOT_MOVED}) order by t.name"
    );
    let answers = place.run("reading the list of tables", &sql).await?;
    let rows = answers.last().map(|rows| rows.rows.as_slice()).unwrap_or_default();
    Ok(rows.iter().filter_map(|row| unit(&serde_json::from_str(row.text(0)?).ok()?)).collect())
}

fn unit(said: &Value) -> Option<Unit> {
    let list = |name: &str| -> Option<Vec<String>> {
        said[name].as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let name = said["name"].as_str()?.to_owned();
    let key = said["key"].as_array()?.iter();
    let key =
        key.map(|pair| Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned()))).collect::<Option<_>>()?;
    Some(Unit {
        key: if name == AT_THE_END { Vec::new() } else { key },
        parts: list("parts")?,
        columns: list("columns")?,
        compared: list("compared")?,
        is_partitioned: said["partitioned"].as_bool()?,
        name,
    })
}

/// A row's key, as text.
pub type Key = Vec<String>;

impl Unit {
    /// Whether its rows can be followed while they change.
    pub fn has_key(&self) -> bool {
        !self.key.is_empty()
    }

    /// Where rows are written.
    pub fn write(&self) -> String {
        let columns = if self.columns.is_empty() { String::new() } else { format!("({}) ", self.columns.join(", ")) };
        format!("copy {} {columns}from stdin", self.name)
    }

    /// The key of the row that ends the next piece of so many, behind `after`; no row where fewer are left.
    pub fn boundary(&self, after: Option<&Key>, rows: u64) -> String {
        let (names, texts) = (self.key_names(), self.key_texts());
        format!(
            "select {texts} from {} {} order by {names} offset {} limit 1",
            self.from(),
            self.behind(after),
            rows.max(1) - 1
        )
    }

    /// The rows behind `after`, up to `until` where that is said.
    pub fn piece(&self, after: Option<&Key>, until: Option<&Key>) -> String {
        let mut conditions = self.behind(after);
        if let Some(until) = until {
            conditions.push_str(if conditions.is_empty() { "where " } else { " and " });
            conditions.push_str(&format!("({}) <= ({})", self.key_names(), self.key_values(until)));
        }
        format!("copy (select {} from {} {conditions}) to stdout", self.columns.join(", "), self.from())
    }

    /// Rows of a part by their place in its file; nothing may be written meanwhile.
    pub fn pages(&self, part: &str, from: u64, to: u64) -> String {
        let columns = self.columns.join(", ");
        format!("copy (select {columns} from only {part} where ctid >= '({from},0)' and ctid < '({to},0)') to stdout")
    }

    /// The rows with these keys.
    pub fn chosen(&self, keys: &[Key]) -> String {
        let columns = self.columns.join(", ");
        format!("copy (select {columns} from {} where {}) to stdout", self.from(), self.among(keys))
    }

    pub fn delete(&self, keys: &[Key]) -> String {
        format!("delete from {} where {}", self.from(), self.among(keys))
    }

    pub fn empty(&self) -> String {
        format!("delete from {}", self.from())
    }

    /// The unit's number, and of each bucket of the rows of a part on these pages: which it is, how many rows, and the sum of
    /// their hashes, which is the same in any order. `only` these buckets (as `look::bits` writes them): of other rows nothing but the key
    /// is looked at.
    pub fn sums(&self, piece: &Piece<'_>, buckets: usize, only: Option<&str>) -> String {
        let row =
            if self.compared.is_empty() { "''".to_owned() } else { format!("row({})::text", self.compared.join(", ")) };
        let Piece { unit, part, from, to } = piece;
        let key = format!("row({})::text", self.key_names());
        let bucket = if buckets == 1 { "0".to_owned() } else { bucket(&key, buckets) };
        let only = only.map_or_else(String::new, |bits| format!(" and get_bit(decode('{bits}', 'hex'), {bucket}) = 1"));
        format!(
            "select {unit}, {bucket}, count(*), sum(hashtextextended({row}, 0)) from only {part} \
             where ctid >= '({from},0)' and ctid < '({to},0)'{only} group by 2"
        )
    }

    /// The buckets of these keys.
    pub fn buckets_of(&self, keys: &[Key], buckets: usize) -> String {
        let keys: Vec<String> = keys.iter().map(|key| format!("row({})::text", self.key_values(key))).collect();
        format!("select distinct {} from unnest(array[{}]) key", bucket("key", buckets), keys.join(", "))
    }

    /// The tables that are written to: itself, and what it is made of.
    pub fn tables(&self) -> impl Iterator<Item = &String> {
        let own = Some(&self.name).filter(|name| !self.parts.contains(name));
        own.into_iter().chain(&self.parts)
    }

    /// Descendants of a table that is inherited from are units of their own.
    fn from(&self) -> String {
        if self.is_partitioned { self.name.clone() } else { format!("only {}", self.name) }
    }

    fn key_names(&self) -> String {
        self.key.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn key_texts(&self) -> String {
        self.key.iter().map(|(name, _)| format!("{name}::text")).collect::<Vec<_>>().join(", ")
    }

    fn key_values(&self, key: &Key) -> String {
        let values = self.key.iter().zip(key).map(|((_, kind), value)| format!("{}::{kind}", literal(value)));
        values.collect::<Vec<_>>().join(", ")
    }

    fn behind(&self, after: Option<&Key>) -> String {
        after.map_or_else(String::new, |after| format!("where ({}) > ({})", self.key_names(), self.key_values(after)))
    }

    fn among(&self, keys: &[Key]) -> String {
        let list: Vec<String> = keys.iter().map(|key| format!("({})", self.key_values(key))).collect();
        format!("({}) in ({})", self.key_names(), list.join(", "))
    }
}

/// The bucket of a key, of so many: a power of two.
fn bucket(key: &str, buckets: usize) -> String {
    format!("hashtextextended({key}, 0) & {}", buckets - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> Unit {
        Unit {
            name: "public.t".into(),
            parts: vec!["public.t".into()],
            columns: vec!["a".into(), "\"B\"".into()],
            compared: vec!["\"B\"".into(), "a".into(), "g".into()],
            key: vec![("a".into(), "integer".into()), ("\"B\"".into(), "character varying(9)".into())],
            is_partitioned: false,
        }
    }

    #[test]
    fn pieces_lie_between_keys() {
        let (unit, key) = (pair(), |a: &str, b: &str| vec![a.to_owned(), b.to_owned()]);
        assert_eq!(
            unit.boundary(None, 100),
            "select a::text, \"B\"::text from only public.t  order by a, \"B\" offset 99 limit 1"
        );
        assert_eq!(
            unit.piece(Some(&key("1", "it's")), Some(&key("2", "a\\b"))),
            "copy (select a, \"B\" from only public.t where (a, \"B\") > ('1'::integer, 'it''s'::character varying(9)) \
             and (a, \"B\") <= ('2'::integer, E'a\\\\b'::character varying(9))) to stdout"
        );
        assert_eq!(unit.piece(None, None), "copy (select a, \"B\" from only public.t ) to stdout");
    }

    #[test]
    fn rows_are_summed_by_buckets() {
        let piece = Piece { unit: 3, part: "public.t", from: 0, to: 9 };
        assert_eq!(
            pair().sums(&piece, 1, None),
            "select 3, 0, count(*), sum(hashtextextended(row(\"B\", a, g)::text, 0)) from only public.t \
             where ctid >= '(0,0)' and ctid < '(9,0)' group by 2"
        );
        assert_eq!(
            pair().sums(&piece, 8, Some("82")),
            "select 3, hashtextextended(row(a, \"B\")::text, 0) & 7, count(*), sum(hashtextextended(row(\"B\", a, g)::text, 0)) \
             from only public.t where ctid >= '(0,0)' and ctid < '(9,0)' \
             and get_bit(decode('82', 'hex'), hashtextextended(row(a, \"B\")::text, 0) & 7) = 1 group by 2"
        );
        assert_eq!(
            pair().buckets_of(&[vec!["1".to_owned(), "x".to_owned()]], 8),
            "select distinct hashtextextended(key, 0) & 7 from unnest(array[row('1'::integer, 'x'::character varying(9))::text]) key"
        );
    }

    #[test]
    fn rows_are_chosen_by_their_keys() {
        let keys = [vec!["1".to_owned(), "x".to_owned()], vec!["2".to_owned(), "y".to_owned()]];
        assert_eq!(
            pair().delete(&keys),
            "delete from only public.t where (a, \"B\") in (('1'::integer, 'x'::character varying(9)), \
             ('2'::integer, 'y'::character varying(9)))"
        );
    }
}
