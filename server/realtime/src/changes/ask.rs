//! What PostgreSQL is asked about changes: what came, how a table looks to a role, which rows somebody may see.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ntier_backing::database::{
    Access, Answer, Batch, Company, Database, Error, Row as DataRow, Rows, Session, Statement,
};
use ntier_protocol::realtime::binding::Operation;
use ntier_protocol::realtime::filter::{Filter, Operator, Value};
use ntier_protocol::realtime::position::Position;

use super::audience::Viewer;
use super::table::{Column, Table};

/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Asker {
    pub database: Database,
    /// With the texts they were read from.
    tables: Mutex<Tables<(Bytes, Arc<Table>)>>,
}

/// By relation and role.
pub type Tables<T> = HashMap<(u32, String), T>;

/// A row of the outbox.
#[derive(Debug, Clone)]
pub struct Row {
    pub position: Position,
    /// `2026-08-21T14:03:56.123Z`
    pub at: String,
    /// When it was read, in seconds.
    pub age: f64,
    /// The OID of its table.
    pub relation: u32,
    /// `None`: a broadcast.
    pub operation: Option<Operation>,
    /// Large values are left out.
    pub is_cut: bool,
    pub old: Option<Bytes>,
    pub new: Option<Bytes>,
}

/// The batches that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    pub oldest: i64,
    pub newest: i64,
}

impl Kept {
    /// Whether all that came after the position is there.
    pub fn has_all_after(self, position: Position) -> bool {
        let is_whole = position.batch == 0 || position.id == i64::MAX;
        let first = if is_whole { position.batch } else { position.batch - 1 };
        first >= self.oldest && position.batch <= self.newest
    }

    /// Where all of it is read.
    pub fn end(self) -> Position {
        Position { batch: self.newest, id: i64::MAX }
    }
}

impl Asker {
    pub fn new(database: Database) -> Self {
        Self { database, tables: Mutex::default() }
    }

    /// Writes a batch if something is new, and says which is the newest.
    pub async fn newest(&self) -> Result<i64, Error> {
        let statements = vec![Statement::new("select ntier.sequence_changes()", &[])];
        let answer = self.database.run(Batch { statements, deadline: PATIENCE, ..Batch::default() }).await?;
        let newest =
            answer.results.first().and_then(|rows| rows.rows.first()).and_then(|row| row.text(0)?.parse().ok());
        newest.ok_or_else(nothing)
    }

    /// What comes after the position, at most `most` rows.
    pub async fn after(&self, position: Position, most: usize, largest: usize) -> Result<(Kept, Vec<Row>), Error> {
        let text = "select batch, id, at, relation, operation, is_cut, extract(epoch from clock_timestamp() - at::timestamptz), old, new \
                    from ntier.changes_after($1, $2, $3, $4)";
        let [batch, id] = [position.batch, position.id].map(|number| number.to_string());
        let parameters = [&*batch, &id, &most.to_string(), &largest.to_string()];
        let kept_are = "select min(batch), max(batch) from ntier.change_batches";
        let answer = self.look(vec![Statement::new(kept_are, &[]), Statement::new(text, &parameters)]).await?;
        let mut results = answer.results.into_iter();
        let kept = kept(results.next().as_ref())?;
        let rows = results.next().map(|rows| rows.rows.iter().filter_map(row).collect()).unwrap_or_default();
        Ok((kept, rows))
    }

    /// Tables as roles see them; those that are not published are not among them.
    pub async fn tables(&self, asked: Vec<(u32, String)>) -> Result<Tables<Arc<Table>>, Error> {
        let question = |(relation, role): &(u32, String)| {
            Statement::new("select ntier.change_table($1, $2)", &[&relation.to_string(), role])
        };
        let statements = asked.iter().map(question).collect();
        let answer = self.look(statements).await?;
        let mut known = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = HashMap::new();
        for (key, rows) in asked.into_iter().zip(answer.results) {
            let Some(text) = rows.rows.first().and_then(|row| row.bytes(0)) else {
                known.remove(&key);
                continue;
            };
            match known.get(&key) {
                Some((before, table)) if *before == text => {
                    found.insert(key, table.clone());
                }
                _ => {
                    let Some(table) = serde_json::from_slice(&text).ok().map(Arc::new) else { continue };
                    known.insert(key.clone(), (text, Arc::clone(&table)));
                    found.insert(key, table);
                }
            }
        }
        Ok(found)
    }

    /// A published table by its names, as a role sees it.
    pub async fn table(&self, schema: &str, name: &str, role: &str) -> Result<Option<Table>, Error> {
        let text = "select ntier.change_table(c.oid, $3) from pg_catalog.pg_class c join pg_catalog.pg_namespace n \
                    on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2";
        let answer = self.look(vec![Statement::new(text, &[schema, name, role])]).await?;
        let text = answer.results.first().and_then(|rows| rows.rows.first()).and_then(|row| row.bytes(0));
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// Whether some table is published that is meant; `*` is any.
    pub async fn is_published(&self, schema: &str, name: &str) -> Result<bool, Error> {
        let text = "select from pg_catalog.pg_publication_tables where pubname = 'supabase_realtime' \
                    and ($1 = '*' or schemaname = $1) and ($2 = '*' or tablename = $2) limit 1";
        let answer = self.look(vec![Statement::new(text, &[schema, name])]).await?;
        Ok(answer.results.first().is_some_and(|rows| !rows.rows.is_empty()))
    }

    /// Which rows of a table somebody sees now, of those whose keys are given column by column: their numbers, from 1.
    pub async fn visible(
        &self,
        viewer: &Viewer,
        table: &Table,
        keys: &[Vec<Option<String>>],
    ) -> Result<Vec<usize>, Error> {
        let answer = self.ask(viewer, &table.schema, vec![visible(table, keys)]).await?;
        Ok(answer.results.first().map(numbers).unwrap_or_default())
    }

    /// Likewise of several who have the same role, in their order. If PostgreSQL refuses one of them, it refuses all.
    ///
    /// PostgreSQL goes from one to the next itself, each with a question of its own: what a policy has looked up for one is not used for
    /// another.
    pub async fn visible_to(
        &self,
        viewers: &[&Arc<Viewer>],
        table: &Table,
        keys: &[Vec<Option<String>>],
    ) -> Result<Vec<Vec<usize>>, Error> {
        let Some(first) = viewers.first() else { return Ok(Vec::new()) };
        let arrays = arrays(table, keys);
        let claims = array(viewers.iter().map(|viewer| Some(&*viewer.claims)));
        let mut given = "select set_config('ntier.claims', $1, true)".to_owned();
        for at in 0..arrays.len() {
            let _ = write!(given, ", set_config('ntier.key{at}', ${}, true)", at + 2);
        }
        let parameters: Vec<&str> = std::iter::once(&claims).chain(&arrays).map(String::as_str).collect();
        let statements = vec![
            Statement::new(&given, &parameters),
            Statement::new(&loop_over(table, keys.len() == 1), &[]),
            Statement::new("select current_setting('ntier.seen')", &[]),
        ];
        // It leaves the last one's claims behind, so nobody may share its transaction.
        let answer = self.read(session(first, &table.schema), statements, Company::None).await?;
        let seen =
            answer.results.last().and_then(|rows| rows.rows.first()).and_then(|row| row.text(0)).unwrap_or_default();
        let numbers = |one: &str| one.split(',').filter_map(|number| number.parse().ok()).collect();
        Ok(seen.split_terminator(';').map(numbers).collect())
    }

    /// Whether values pass filters, in the order that they are given.
    pub async fn passes(
        &self,
        viewer: &Viewer,
        schema: &str,
        asked: &[(&Column, &Filter, &str)],
    ) -> Result<bool, Error> {
        let question = |(column, filter, value): &(&Column, &Filter, &str)| {
            let (sql, not) = (&column.sql, if filter.negated { "not " } else { "" });
            let operator = filter.operator.sql();
            let text = match (&filter.value, filter.operator) {
                (Value::Many { .. }, _) => format!("select {not}(($1::text)::{sql} {operator} (($2::text)::{sql}[]))"),
                (_, Operator::Match | Operator::IMatch | Operator::Like | Operator::ILike) => {
                    format!("select {not}(($1::text)::{sql} {operator} $2::text)")
                }
                _ => format!("select {not}(($1::text)::{sql} {operator} ($2::text)::{sql})"),
            };
            Statement::new(&text, &[value, filter.value.literal()])
        };
        let answer = self.ask(viewer, schema, asked.iter().map(question).collect()).await?;
        let is_true = |rows: &Rows| rows.rows.first().and_then(|row| row.text(0)) == Some("t");
        Ok(answer.results.iter().all(is_true))
    }

    /// Whether the literals of filters are of their columns' types.
    pub async fn literals(&self, viewer: &Viewer, table: &Table, filters: &[Filter]) -> Result<(), Error> {
        let question = |filter: &Filter| {
            let column = table.readable(&filter.column)?;
            let text = match (&filter.value, filter.operator) {
                (Value::Many { .. }, _) => format!("select ($1::text)::{}[] is null", column.sql),
                (_, Operator::Is) => return None,
                (_, Operator::Match) => "select '' ~ $1::text".to_owned(),
                (_, Operator::IMatch) => "select '' ~* $1::text".to_owned(),
                (_, Operator::Like | Operator::ILike) => "select '' like $1::text".to_owned(),
                _ => format!("select ($1::text)::{} is null", column.sql),
            };
            Some(Statement::new(&text, &[filter.value.literal()]))
        };
        let statements: Vec<Statement> = filters.iter().filter_map(question).collect();
        if !statements.is_empty() {
            self.ask(viewer, &table.schema, statements).await?;
        }
        Ok(())
    }

    /// Reads as somebody.
    async fn ask(&self, viewer: &Viewer, schema: &str, statements: Vec<Statement>) -> Result<Answer, Error> {
        self.read(session(viewer, schema), statements, Company::Transaction).await
    }

    /// Reads as the node.
    async fn look(&self, statements: Vec<Statement>) -> Result<Answer, Error> {
        self.read(Session::default(), statements, Company::Transaction).await
    }

    async fn read(&self, session: Session, statements: Vec<Statement>, company: Company) -> Result<Answer, Error> {
        let session = Some(session);
        let batch =
            Batch { session, statements, access: Access::ReadOnly, deadline: PATIENCE, company, ..Batch::default() };
        self.database.run(batch).await
    }
}

/// Of somebody who reads a table of this schema.
fn session(viewer: &Viewer, schema: &str) -> Session {
    let settings = vec![
        // The same question is asked for each viewer, and to plan it takes four times as long as to answer it. PostgreSQL would plan it
        // each time, as it takes the array of keys for longer than it is where it does not look at it.
        ("plan_cache_mode".into(), "force_generic_plan".to_owned()),
        ("search_path".into(), format!("{}, public, extensions", quoted(schema))),
        ("role".into(), viewer.role.to_string()),
        ("request.headers".into(), "{}".to_owned()),
        ("request.jwt.claims".into(), viewer.claims.to_string()),
    ];
    Session { settings, isolation: None }
}

fn visible(table: &Table, keys: &[Vec<Option<String>>]) -> Statement {
    let places = table.key().enumerate().map(|(at, column)| format!("${}::{}[]", at + 1, column.sql));
    let text = format!("select k.n from {}", rows_of(table, places));
    let arrays = arrays(table, keys);
    Statement::new(&text, &arrays.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Asks as each of those whose claims are in a setting, and leaves in another which rows they see: numbers with commas, and a semicolon
/// after each viewer. One row is looked up by its key, which takes two thirds of the time that a join takes (for 250 viewers of the embedded
/// database 12 ms instead of 17).
fn loop_over(table: &Table, is_one: bool) -> String {
    let mut body = "#variable_conflict use_variable\ndeclare ".to_owned();
    for (at, column) in table.key().enumerate() {
        let _ = write!(body, "ntier_key{at} {0}[] := current_setting('ntier.key{at}')::{0}[]; ", column.sql);
    }
    let question = if is_one {
        let keys = keyed(table, |at| format!("ntier_key{at}[1]"));
        format!("select '1' into ntier_rows from {} where {keys}", named(table))
    } else {
        let places = (0..table.key().count()).map(|at| format!("ntier_key{at}"));
        format!("select string_agg(k.n::text, ',') into ntier_rows from {}", rows_of(table, places))
    };
    let _ = write!(
        body,
        "ntier_one text; ntier_rows text; ntier_seen text := ''; \
         begin foreach ntier_one in array current_setting('ntier.claims')::text[] loop \
         ntier_one := set_config('request.jwt.claims', ntier_one, true); \
         {question}; \
         ntier_seen := ntier_seen || coalesce(ntier_rows, '') || ';'; \
         end loop; ntier_one := set_config('ntier.seen', ntier_seen, true); end"
    );
    format!("do E'{}'", body.replace('\\', "\\\\").replace('\'', "''"))
}

/// What joins keys, numbered from 1, to the rows of a table.
fn rows_of(table: &Table, places: impl Iterator<Item = String>) -> String {
    let places: Vec<String> = places.collect();
    let mut text = format!("unnest({}) with ordinality as k (", places.join(", "));
    for at in 0..places.len() {
        let _ = write!(text, "c{at}, ");
    }
    let _ = write!(text, "n) join {} on {}", named(table), keyed(table, |at| format!("k.c{at}")));
    text
}

/// A table, called `t`.
fn named(table: &Table) -> String {
    format!("{}.{} as t", quoted(&table.schema), quoted(&table.name))
}

/// That its key has these values, column by column.
fn keyed(table: &Table, value: impl Fn(usize) -> String) -> String {
    let columns = table.key().enumerate().map(|(at, column)| format!("t.{} = {}", quoted(&column.name), value(at)));
    columns.collect::<Vec<_>>().join(" and ")
}

/// Keys, column by column.
fn arrays(table: &Table, keys: &[Vec<Option<String>>]) -> Vec<String> {
    (0..table.key().count()).map(|at| array(keys.iter().map(|row| row[at].as_deref()))).collect()
}

fn numbers(rows: &Rows) -> Vec<usize> {
    rows.rows.iter().filter_map(|row| row.text(0)?.parse().ok()).collect()
}

fn kept(rows: Option<&Rows>) -> Result<Kept, Error> {
    let row = rows.and_then(|rows| rows.rows.first());
    let number = |column| row.and_then(|row: &DataRow| row.text(column)).and_then(|text| text.parse().ok());
    match (number(0), number(1)) {
        (Some(oldest), Some(newest)) => Ok(Kept { oldest, newest }),
        _ => Err(nothing()),
    }
}

/// There is always one batch.
fn nothing() -> Error {
    Error::Unavailable("ntier.change_batches is empty".into())
}

fn row(row: &DataRow) -> Option<Row> {
    let mut values = row.values();
    let mut text = || std::str::from_utf8(values.next()??).ok();
    let position = Position { batch: text()?.parse().ok()?, id: text()?.parse().ok()? };
    let (at, relation) = (text()?.to_owned(), text()?.parse().ok()?);
    let operation = match text()? {
        "I" => Some(Operation::Insert),
        "U" => Some(Operation::Update),
        "D" => Some(Operation::Delete),
        _ => None,
    };
    let is_cut = text()? == "t";
    let age = text()?.parse().ok()?;
    Some(Row { position, at, age, relation, operation, is_cut, old: row.bytes(7), new: row.bytes(8) })
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A literal of an array.
fn array<'a>(items: impl Iterator<Item = Option<&'a str>>) -> String {
    let mut out = String::from("{");
    for item in items {
        if out.len() > 1 {
            out.push(',');
        }
        match item {
            None => out.push_str("null"),
            Some(item) => {
                out.push('"');
                for character in item.chars() {
                    if matches!(character, '"' | '\\') {
                        out.push('\\');
                    }
                    out.push(character);
                }
                out.push('"');
            }
        }
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_goes_back_to_the_position_or_not() {
        let kept = Kept { oldest: 5, newest: 9 };
        for (batch, id, expected) in [
            (9, 3, true),
            (6, 1, true),
            (5, 1, false),
            (5, i64::MAX, true),
            (4, i64::MAX, false),
            (10, 1, false),
            (0, 0, false),
        ] {
            assert_eq!(kept.has_all_after(Position { batch, id }), expected, "{batch}.{id}");
        }
        assert!(Kept { oldest: 0, newest: 0 }.has_all_after(Position { batch: 0, id: 0 }));
    }

    #[test]
    fn arrays_are_quoted() {
        let items = [Some("a\"b\\,"), None, Some("")];
        assert_eq!(array(items.into_iter()), r#"{"a\"b\\,",null,""}"#);
    }
}
