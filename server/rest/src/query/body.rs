//! From rows to the response's body.

use ntier_backing::database::catalog::Returns;

use super::sql::Sql;
use crate::plan::{Media, Render, SOURCE};

/// The name of the rows that the body is made of.
pub(super) const ROW: &str = "_postgrest_t";

pub(super) fn render(sql: &mut Sql, media: &Media, returns: Option<&Returns>) {
    let scalar = returns.is_some_and(Returns::is_scalar);
    let set_of_scalar = returns.is_some_and(Returns::is_set_of_scalar);
    let value = if scalar || set_of_scalar { "_postgrest_t.pgrst_scalar" } else { ROW };
    match &media.render {
        Render::Nothing => {
            sql.push("''::text");
        }
        Render::Object { nulls_stripped } => {
            let value = if scalar { value } else { ROW };
            array(sql, value, *nulls_stripped, true);
        }
        Render::Array { nulls_stripped } => {
            let single = scalar || returns.is_some_and(Returns::is_single_composite);
            array(sql, value, *nulls_stripped, single);
        }
        Render::Csv => {
            csv(sql);
        }
        Render::GeoJson => {
            sql.push("json_build_object('type', 'FeatureCollection', 'features', coalesce(json_agg(ST_AsGeoJSON(");
            sql.push(ROW).push(")::json), '[]'))");
        }
        Render::Custom { function, row_type, .. } => {
            sql.name(function).push("(").push(if scalar { value } else { ROW });
            if let (false, Some(row_type)) = (scalar, row_type) {
                sql.push("::").name(row_type);
            }
            sql.push(")");
        }
    }
}

/// A JSON array, or its first element.
fn array(sql: &mut Sql, value: &str, nulls_stripped: bool, only_first: bool) {
    sql.push("coalesce(").push(if nulls_stripped { "json_strip_nulls(" } else { "" });
    sql.push("json_agg(").push(value).push(")").push(if only_first { "->0" } else { "" });
    sql.push(if nulls_stripped { ")" } else { "" }).push(if only_first { ", 'null')" } else { ", '[]')" });
}

/// The names of the first row's columns, and each row as PostgreSQL writes a row, without its parentheses.
fn csv(sql: &mut Sql) {
    sql.push("(SELECT coalesce(string_agg(k, ','), '') FROM (SELECT json_object_keys(r) AS k FROM (")
        .push("SELECT row_to_json(h) AS r FROM ")
        .push(SOURCE)
        .push(" AS h LIMIT 1) s) a) || E'\\n' || ")
        .push("coalesce(string_agg(substring(_postgrest_t::text, 2, length(_postgrest_t::text) - 2), E'\\n'), '')");
}

/// The filter that finds the one inserted row again.
pub(super) fn location(sql: &mut Sql, key: &[String]) {
    sql.push("CASE WHEN pg_catalog.count(*) = 1 THEN (SELECT json_agg(c.key || '=' || coalesce('eq.' || c.value, 'is.null'))")
        .push(" FROM (SELECT row_to_json(s) AS r FROM ")
        .push(SOURCE)
        .push(" AS s LIMIT 1) d CROSS JOIN json_each_text(d.r) AS c WHERE c.key = ANY (")
        .array(key.iter().map(String::as_str))
        .push("::text[])) END");
}
