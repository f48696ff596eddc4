//! Conditions and columns.

use ntier_backing::database::catalog::Name;
use ntier_protocol::rest::request::{
    Connective, Direction, FullText, IsValue, JsonOperand, JsonStep, Nulls, Operation, Operator, Quantifier,
};

use super::sql::Sql;
use crate::plan::{Field, Logic, Order};

/// All of them. `embedded` writes the condition on an embedded relation.
pub(super) fn logic(
    sql: &mut Sql,
    qualifier: &Name,
    condition: &Logic,
    embedded: &mut dyn FnMut(&mut Sql, &str, bool),
) {
    match condition {
        Logic::Branch { negated, connective, children } => {
            let between = match connective {
                Connective::And => " AND ",
                Connective::Or => " OR ",
            };
            sql.push(if *negated { "NOT (" } else { "(" });
            sql.list(between, children, |sql, child| logic(sql, qualifier, child, embedded));
            sql.push(")");
        }
        Logic::Filter { field, negated, operation } => {
            sql.push(if *negated { "NOT " } else { "" });
            filter(sql, qualifier, field, operation);
        }
        Logic::Embedded { handle, exists } => embedded(sql, handle, *exists),
    }
}

fn filter(sql: &mut Sql, qualifier: &Name, of: &Field, operation: &Operation) {
    field(sql, qualifier, of);
    match operation {
        Operation::Compare { operator, quantifier, value } => {
            sql.push(" ").push(symbol(*operator)).push(" ");
            sql.push(match quantifier {
                Some(Quantifier::Any) => "ANY(",
                Some(Quantifier::All) => "ALL(",
                None => "",
            });
            match operator {
                Operator::Like | Operator::ILike => {
                    sql.value(value.replace('*', "%"));
                }
                _ => transformed(sql, of, value),
            }
            sql.push(if quantifier.is_some() { ")" } else { "" });
        }
        Operation::In(values) => one_of(sql, of, values),
        Operation::Is(value) => {
            sql.push(match value {
                IsValue::Null => " IS NULL",
                IsValue::NotNull => " IS NOT NULL",
                IsValue::True => " IS TRUE",
                IsValue::False => " IS FALSE",
                IsValue::Unknown => " IS UNKNOWN",
            });
        }
        Operation::IsDistinctFrom(value) => {
            sql.push(" IS DISTINCT FROM ").value(value.clone());
        }
        Operation::FullText { kind, language, value } => {
            sql.push(match kind {
                FullText::Plain => " @@ to_tsquery(",
                FullText::PlainTo => " @@ plainto_tsquery(",
                FullText::Phrase => " @@ phraseto_tsquery(",
                FullText::WebSearch => " @@ websearch_to_tsquery(",
            });
            if let Some(language) = language {
                sql.value(language.clone()).push(", ");
            }
            sql.value(value.clone()).push(")");
        }
    }
}

/// `= ANY` and not `IN`: it takes the empty list, and the text does not depend on how many there are.
fn one_of(sql: &mut Sql, of: &Field, values: &[String]) {
    // `in.()` is parsed as one empty value.
    let values = if matches!(values, [one] if one.is_empty()) { &[][..] } else { values };
    let items = values.iter().map(String::as_str);
    sql.push(" = ANY (");
    match &of.transform {
        Some(function) => {
            sql.push("(SELECT ").push(function).push("(unnest(").array(items).push("::text[])))");
        }
        None => {
            sql.array(items);
        }
    }
    sql.push(")");
}

fn transformed(sql: &mut Sql, of: &Field, value: &str) {
    match &of.transform {
        Some(function) => sql.push(function).push("(").value(value.to_owned()).push(")"),
        None => sql.value(value.to_owned()),
    };
}

/// A column with its path, prepared for full-text search where that is what it is for.
pub(super) fn field(sql: &mut Sql, qualifier: &Name, of: &Field) {
    match &of.to_tsvector {
        Some(language) => {
            sql.push("to_tsvector(");
            if let Some(language) = language {
                sql.value(language.clone()).push(", ");
            }
            path(sql, qualifier, of);
            sql.push(")");
        }
        None => path(sql, qualifier, of),
    }
}

fn path(sql: &mut Sql, qualifier: &Name, of: &Field) {
    if of.whole_row {
        sql.ident(&qualifier.name);
        return;
    }
    sql.push(if of.to_json { "to_jsonb(" } else { "" });
    sql.column(qualifier, &of.name);
    sql.push(if of.to_json { ")" } else { "" });
    for JsonStep { operand, as_text } in &of.path {
        sql.push(if *as_text { "->>" } else { "->" });
        match operand {
            JsonOperand::Key(key) => sql.value(key.clone()),
            JsonOperand::Index(index) => sql.value(index.clone()).push("::int"),
        };
    }
}

pub(super) fn order(sql: &mut Sql, qualifier: &Name, terms: &[Order]) {
    if terms.is_empty() {
        return;
    }
    sql.push(" ORDER BY ").list(", ", terms, |sql, term| {
        match &term.relation {
            Some(handle) => field(sql, &Name::new("", handle), &term.field),
            None => field(sql, qualifier, &term.field),
        }
        sql.push(match term.direction {
            Some(Direction::Asc) => " ASC",
            Some(Direction::Desc) => " DESC",
            None => "",
        });
        sql.push(match term.nulls {
            Some(Nulls::First) => " NULLS FIRST",
            Some(Nulls::Last) => " NULLS LAST",
            None => "",
        });
    });
}

fn symbol(operator: Operator) -> &'static str {
    match operator {
        Operator::Eq => "=",
        Operator::Neq => "<>",
        Operator::Gt => ">",
        Operator::Gte => ">=",
        Operator::Lt => "<",
        Operator::Lte => "<=",
        Operator::Like => "LIKE",
        Operator::ILike => "ILIKE",
        Operator::Match => "~",
        Operator::IMatch => "~*",
        Operator::Contains => "@>",
        Operator::Contained => "<@",
        Operator::Overlaps => "&&",
        Operator::StrictlyLeft => "<<",
        Operator::StrictlyRight => ">>",
        Operator::NotExtendsRight => "&<",
        Operator::NotExtendsLeft => "&>",
        Operator::Adjacent => "-|-",
    }
}
