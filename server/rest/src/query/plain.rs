//! Reads whose rows come as they are and become JSON in `rows`, because all their types are known there.

use ntier_backing::database::Statement;
use ntier_backing::database::catalog::{Catalog, Table};
use ntier_protocol::rest::request::{Count, JsonStep, Range};

use super::select;
use super::sql::Sql;
use crate::plan::{Node, Read, Render, Select, Shape, Source};
use crate::rows;

/// The statement; `None` where PostgreSQL has to make the body.
pub fn read(plan: &Read, catalog: &Catalog) -> Option<Statement> {
    let limited = plan.max_rows.is_some() || plan.window != Range::default();
    let counted = matches!(plan.count, Some(Count::Exact | Count::Estimated));
    let json =
        matches!(plan.media.render, Render::Array { nulls_stripped: false } | Render::Object { nulls_stripped: false });
    // Where a function may speak of the response, it has to be asked after the rows.
    if !json || (counted && limited) || catalog.sets_response || !is_plain(&plan.root, catalog) {
        return None;
    }
    let mut sql = Sql::default();
    select::node(&mut sql, &plan.root);
    Some(sql.into_statement())
}

fn is_plain(root: &Node, catalog: &Catalog) -> bool {
    let Source::Table { name, .. } = &root.source else { return false };
    let Some(table) = catalog.tables.get(name) else { return false };
    let mut embeds = root.embeds.iter().filter(|embed| !embed.hidden);
    root.select.iter().all(|item| is_known(item, table))
        && embeds.all(|embed| matches!(embed.shape, Shape::Object | Shape::Array))
}

fn is_known(item: &Select, table: &Table) -> bool {
    let field = &item.field;
    let known = |name: &str| table.column(name).is_some_and(|column| rows::knows(&column.base_type));
    if item.aggregate.is_some() || field.whole_row {
        return false;
    }
    if let Some(cast) = &item.cast {
        return rows::knows(cast);
    }
    // A path gives JSON or text, a representation JSON.
    match field.path.last() {
        Some(JsonStep { .. }) => true,
        None if field.transform.is_some() => true,
        None if item.is_star() => table.columns.iter().all(|column| known(&column.name)),
        None => known(&field.name),
    }
}
