//! How a plan is said in SQL: one statement, the same text for every request of the same shape.
//!
//! What a caller gives is a parameter. What comes from the catalog or is a name goes through
//! [`sql::Sql::ident`]. The rows become the body inside PostgreSQL.

mod body;
mod call;
mod change;
mod filter;
pub mod plain;
mod select;
pub(crate) mod sql;

use ntier_backing::database::Statement;
use ntier_protocol::rest::request::{Count, MediaType, Range};

use crate::media::option_name;
use crate::plan::{Call, Change, Media, Mutate, Read, Render, RowLimit, SOURCE};
pub use change::DUPLICATE_MARK;
use sql::Sql;

/// Where the columns of a main statement stand. The first two are the total and the number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    pub body: usize,
    /// A JSON array of `column=eq.value`, where a `Location` is asked for.
    pub location: Option<usize>,
    /// How many rows were inserted, where that is asked for.
    pub inserted: Option<usize>,
}

impl Columns {
    pub const TOTAL: usize = 0;
    pub const ROWS: usize = 1;
    /// Of a read or a call.
    pub const READ: Self = Self { body: 2, location: None, inserted: None };
    /// Of a change. The order is the reference's, so that a plan that is asked for shows the same.
    pub const CHANGE: Self = Self { body: 3, location: Some(2), inserted: Some(6) };

    pub fn headers(self) -> usize {
        self.body + 1
    }

    pub fn status(self) -> usize {
        self.body + 2
    }
}

/// What a transaction says of its own response.
const RESPONSE: &str =
    ", nullif(current_setting('response.headers', true), ''), nullif(current_setting('response.status', true), '')";

/// How many rows were inserted, less those that were there already; see `change`.
const INSERTED: &str = "nullif(current_setting('pgrst.inserted', true), '')::int";

/// The columns are those of a change where it is to be remembered.
pub fn read(plan: &Read, limit: RowLimit, remember: bool) -> Statement {
    let mut sql = Sql::default();
    explain(&mut sql, &plan.media);
    sql.push("WITH ").push(SOURCE).push(" AS (");
    select::node(&mut sql, &plan.root);
    sql.push(")");
    let limited = plan.max_rows.is_some() || plan.window != Range::default();
    let total = count(&mut sql, &plan.root, plan.count, limited, plan.max_rows);
    sql.push(if remember { ANSWER[0] } else { "" }).push(" SELECT ").push(total);
    rows(&mut sql, "pg_catalog.count(*)", limit);
    sql.push(if remember { ", null, " } else { ", " });
    body::render(&mut sql, &plan.media, None);
    sql.push(RESPONSE).push(if remember { ", null" } else { "" });
    sql.push(" FROM ").push(SOURCE).push(" AS ").push(body::ROW).push(if remember { ANSWER[1] } else { "" });
    sql.into_statement()
}

/// The planner's guess at the number of rows.
pub fn planned_count(plan: &Read) -> Option<Statement> {
    if !matches!(plan.count, Some(Count::Planned | Count::Estimated)) {
        return None;
    }
    let mut sql = Sql::default();
    sql.push("EXPLAIN (FORMAT JSON) ");
    select::count(&mut sql, &plan.root);
    Some(sql.into_statement())
}

/// Adds the subquery that counts all rows, and gives the expression for the count. Without a window the
/// rows of the page are all there are.
fn count(
    sql: &mut Sql,
    root: &crate::plan::Node,
    count: Option<Count>,
    limited: bool,
    max_rows: Option<u64>,
) -> &'static str {
    match count {
        Some(Count::Exact | Count::Estimated) if limited => {
            sql.push(", pgrst_source_count AS (");
            select::count(sql, root);
            if let (Some(Count::Estimated), Some(most)) = (count, max_rows) {
                // One more than the limit is enough to know that the planner's guess is to be taken.
                sql.push(&format!(" LIMIT {}", most.saturating_add(1)));
            }
            sql.push(")");
            "(SELECT pg_catalog.count(*) FROM pgrst_source_count)"
        }
        Some(Count::Exact | Count::Estimated) => "pg_catalog.count(*)",
        Some(Count::Planned) | None => "null::bigint",
    }
}

/// Keeps the row of the main statement in a setting of the transaction, under the names of its columns.
const ANSWER: [&str; 2] = [
    ", pgrst_answer (total, rows, location, body, headers, status, inserted) AS (",
    ") SELECT *, set_config('ntier.answer', json_build_object('total', total, 'rows', rows, 'location', location, 'body', body::text, \
     'headers', headers, 'status', status, 'inserted', inserted)::text, true) FROM pgrst_answer",
];

/// `remember`: the row is left in the setting `ntier.answer` too.
pub fn mutate(plan: &Mutate, remember: bool) -> Statement {
    let mut sql = Sql::default();
    explain(&mut sql, &plan.media);
    sql.push("WITH ").push(SOURCE).push(" AS (");
    change::change(&mut sql, plan);
    sql.push(")").push(if remember { ANSWER[0] } else { "" }).push(" SELECT ''");
    rows(&mut sql, "pg_catalog.count(*)", plan.limit);
    sql.push(", ");
    match &plan.location {
        Some(key) => body::location(&mut sql, key),
        None => _ = sql.push("null"),
    }
    sql.push(", ");
    body::render(&mut sql, &plan.media, None);
    sql.push(RESPONSE);
    let counted = matches!(plan.change, Change::Insert { count_inserted: true, .. });
    sql.push(", ").push(if counted { INSERTED } else { "null" }).push(" FROM (");
    if plan.media.render == Render::Nothing {
        sql.push("SELECT * FROM ").push(SOURCE);
    } else {
        select::node(&mut sql, &plan.root);
    }
    sql.push(") AS ").push(body::ROW).push(if remember { ANSWER[1] } else { "" });
    sql.into_statement()
}

/// The columns are those of a change where it is to be remembered.
pub fn call(plan: &Call, remember: bool) -> Statement {
    let mut sql = Sql::default();
    explain(&mut sql, &plan.media);
    sql.push("WITH ").push(SOURCE).push(" AS (");
    call::call(&mut sql, plan);
    sql.push(")");
    let limited = plan.max_rows.is_some() || plan.window != Range::default();
    let total = count(&mut sql, &plan.root, plan.count, limited, None);
    let page = if plan.function.returns.set { "pg_catalog.count(*)" } else { "1" };
    let total = if total == "pg_catalog.count(*)" { page } else { total };
    sql.push(if remember { ANSWER[0] } else { "" }).push(" SELECT ").push(total);
    rows(&mut sql, page, plan.limit);
    sql.push(if remember { ", null, " } else { ", " });
    body::render(&mut sql, &plan.media, Some(&plan.function.returns));
    sql.push(RESPONSE).push(if remember { ", null" } else { "" }).push(" FROM (");
    select::node(&mut sql, &plan.root);
    sql.push(") AS ").push(body::ROW).push(if remember { ANSWER[1] } else { "" });
    sql.into_statement()
}

/// What of a schema the role may use, and the schema's comment: three columns, the first two JSON.
pub fn visible(schema: &str) -> Statement {
    let mut sql = Sql::default();
    sql.push("SELECT (SELECT json_agg(c.relname) FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid")
        .push(" AND c.relkind IN ('v', 'r', 'm', 'f', 'p') AND (pg_has_role(c.relowner, 'USAGE')")
        .push(" OR has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')")
        .push(" OR has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE, REFERENCES'))),")
        .push(" (SELECT json_agg(p.oid::bigint) FROM pg_catalog.pg_proc p WHERE p.pronamespace = n.oid")
        .push(" AND has_function_privilege(p.oid, 'EXECUTE')), obj_description(n.oid, 'pg_namespace')")
        .push(" FROM pg_catalog.pg_namespace n WHERE n.nspname = ")
        .value(schema.to_owned());
    sql.into_statement()
}

/// What a broken limit puts into the message of the error that undoes the transaction.
pub const LIMIT_MARK: &str = "ntier:rows=";

/// The number of rows. Where it is limited, another number is cast to something it is not: this raises an
/// error, and so the transaction is undone. `respond` knows it by the mark in its message.
fn rows(sql: &mut Sql, number: &str, limit: RowLimit) {
    sql.push(", ");
    let most = match limit {
        RowLimit::AtMost(most) | RowLimit::ExactlyOneAndAtMost(most) => Some(most),
        RowLimit::None | RowLimit::ExactlyOne | RowLimit::MatchingKey => None,
    };
    let only_one = matches!(limit, RowLimit::ExactlyOne | RowLimit::MatchingKey | RowLimit::ExactlyOneAndAtMost(_));
    if limit == RowLimit::None {
        sql.push(number);
        return;
    }
    sql.push("CASE WHEN ");
    if only_one {
        sql.push(number).push(" = 1");
    }
    if let Some(most) = most {
        sql.push(if only_one { " AND " } else { "" })
            .push(number)
            .push(" <= ")
            .value(most.to_string())
            .push("::bigint");
    }
    sql.push(" THEN ").push(number).push(" ELSE ('").push(LIMIT_MARK).push("' || ").push(number).push(")::bigint END");
}

fn explain(sql: &mut Sql, media: &Media) {
    let MediaType::Plan { json, options, .. } = &media.media_type else { return };
    sql.push("EXPLAIN (FORMAT ").push(if *json { "JSON" } else { "TEXT" });
    for option in options {
        sql.push(", ").push(&option_name(*option).to_ascii_uppercase());
    }
    sql.push(") ");
}
