//! From a column's name to what is known of it.

use ntier_backing::database::catalog::Table;
use ntier_protocol::rest::request::{self, Filter, JsonOperand, LogicTree, Operation, OrderTerm};

use super::{Context, Field, Logic, Order};

impl Context<'_> {
    /// A column as it is shown: a domain may say how its values are written.
    pub(super) fn output(&self, table: Option<&Table>, field: &request::Field) -> Field {
        let mut resolved = resolve(table, field, None);
        resolved.transform = table
            .and_then(|table| table.column(&field.name))
            .and_then(|column| self.representation(&column.nominal_type, "json"));
        resolved
    }

    /// A filter: a domain may say how a value in the URL is read.
    pub(super) fn filter(&self, table: Option<&Table>, filter: &Filter) -> Logic {
        let to_tsvector = match &filter.operation {
            Operation::FullText { language, .. } => Some(language.clone()),
            _ => None,
        };
        let mut field = resolve(table, &filter.field, to_tsvector);
        field.transform = table
            .and_then(|table| table.column(&filter.field.name))
            .and_then(|column| self.representation("text", &column.nominal_type));
        Logic::Filter { field, negated: filter.negated, operation: filter.operation.clone() }
    }

    pub(super) fn logic(&self, table: Option<&Table>, tree: &LogicTree) -> Logic {
        match tree {
            LogicTree::Filter(filter) => self.filter(table, filter),
            LogicTree::Branch { negated, connective, children } => Logic::Branch {
                negated: *negated,
                connective: *connective,
                children: children.iter().map(|child| self.logic(table, child)).collect(),
            },
        }
    }

    pub(super) fn representation(&self, source: &str, target: &str) -> Option<String> {
        if self.catalog.representations.is_empty() {
            return None;
        }
        self.catalog.representations.get(&(source.to_owned(), target.to_owned())).cloned()
    }
}

pub(super) fn order(table: Option<&Table>, term: &OrderTerm) -> Order {
    let field = match &term.relation {
        None => resolve(table, &term.field, None),
        Some(_) => Field { path: term.field.path.clone(), ..Field::plain(&term.field.name) },
    };
    Order { field, relation: term.relation.clone(), direction: term.direction, nulls: term.nulls }
}

/// Columns that are JSON already are not converted, so that their indexes apply; what is not known
/// (a function's result, a computed column) is.
fn resolve(table: Option<&Table>, field: &request::Field, to_tsvector: Option<Option<String>>) -> Field {
    let column = table.and_then(|table| table.column(&field.name));
    let nominal = column.map_or("", |column| column.nominal_type.as_str());
    let base = column.map_or("", |column| column.base_type.as_str());
    Field {
        name: field.name.clone(),
        path: field.path.clone(),
        to_json: !field.path.is_empty() && !matches!(nominal, "json" | "jsonb"),
        to_tsvector: to_tsvector.filter(|_| column.is_some() && base != "tsvector"),
        transform: None,
        whole_row: false,
    }
}

/// The name that a path gives to its value: the last key in it, or the column's name.
pub(super) fn path_label(field: &request::Field) -> Option<String> {
    let keys = field.path.iter().rev().filter_map(|step| match &step.operand {
        JsonOperand::Key(key) => Some(key),
        JsonOperand::Index(_) => None,
    });
    (!field.path.is_empty()).then(|| keys.map(String::clone).next().unwrap_or_else(|| field.name.clone()))
}
