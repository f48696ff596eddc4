//! Tables, columns and arguments as JSON Schema.

use ntier_backing::database::catalog::{Argument, Catalog, Column, Function, Link, Table};
use serde_json::{Map, Value, json};

pub(super) fn table_schema(catalog: &Catalog, table: &Table) -> Value {
    let properties: Map<String, Value> =
        table.columns.iter().map(|column| (column.name.clone(), property(catalog, table, column))).collect();
    let mut schema = json!({ "type": "object", "properties": properties });
    if let Some(description) = &table.description {
        schema["description"] = description.as_str().into();
    }
    let required: Vec<&str> = table.columns.iter().filter(|c| !c.nullable).map(|c| c.name.as_str()).collect();
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn property(catalog: &Catalog, table: &Table, column: &Column) -> Value {
    let mut schema = typed(&column.base_type);
    let mut notes = Vec::new();
    if table.primary_key.contains(&column.name) {
        notes.push("This is a Primary Key.<pk/>".to_owned());
    }
    if let Some((table, column)) = foreign_column(catalog, table, column) {
        notes.push(format!("This is a Foreign Key to `{table}.{column}`.<fk table='{table}' column='{column}'/>"));
    }
    let comment = column.description.clone();
    let description = if notes.is_empty() {
        comment
    } else {
        let before = comment.map(|comment| format!("{comment}\n\n")).unwrap_or_default();
        Some(format!("{before}Note:\n{}", notes.join("\n")))
    };
    if let Some(description) = description {
        schema["description"] = description.into();
    }
    if !column.enum_values.is_empty() {
        schema["enum"] = json!(column.enum_values);
    }
    if let Some(length) = column.max_length {
        schema["maxLength"] = length.into();
    }
    if let Some(default) = column.default.as_deref().and_then(|default| default_value(&column.base_type, default)) {
        schema["default"] = default;
    }
    schema
}

/// What the column alone points to; a table rather than a view of it.
fn foreign_column(catalog: &Catalog, table: &Table, column: &Column) -> Option<(String, String)> {
    let list = catalog.relationships.get(&(table.name.clone(), table.name.schema.clone()))?;
    let mut found: Vec<_> = list
        .iter()
        .filter_map(|relationship| match &relationship.link {
            Link::ManyToOne { columns, .. } | Link::OneToOne { columns, is_parent: false, .. } => {
                let [(here, there)] = columns.as_slice() else { return None };
                (*here == column.name).then_some((relationship.foreign_is_view, &relationship.foreign.name, there))
            }
            _ => None,
        })
        .collect();
    found.sort_by_key(|(is_view, _, _)| *is_view);
    found.first().map(|(_, table, column)| ((*table).clone(), (*column).clone()))
}

/// `type`, `format` and `items`. JSON may be anything and has no type.
fn typed(data_type: &str) -> Value {
    let mut schema = Map::new();
    let name = type_name(data_type);
    if let Some(name) = name {
        schema.insert("type".into(), name.into());
    }
    schema.insert("format".into(), format(data_type).into());
    if name == Some("array") {
        let element = type_name(data_type.trim_end_matches("[]"));
        schema.insert("items".into(), element.map_or_else(|| json!({}), |element| json!({ "type": element })));
    }
    Value::Object(schema)
}

fn type_name(data_type: &str) -> Option<&'static str> {
    Some(match data_type {
        "boolean" => "boolean",
        "smallint" | "integer" | "bigint" => "integer",
        "numeric" | "real" | "double precision" => "number",
        "json" | "jsonb" => return None,
        other if other.ends_with("[]") => "array",
        _ => "string",
    })
}

fn format(data_type: &str) -> &str {
    match data_type {
        "smallint" | "integer" => "int32",
        "bigint" => "int64",
        other => other,
    }
}

/// A default that is a constant; an expression only where the value would be a string anyway.
fn default_value(data_type: &str, default: &str) -> Option<Value> {
    if type_name(data_type) != Some("string") {
        return serde_json::from_str(default).ok();
    }
    let text = match default.strip_suffix(&format!("::{data_type}")) {
        Some(constant) => constant.trim_matches('\''),
        None => default,
    };
    Some(text.into())
}

pub(super) fn arguments_schema(schema: &str, function: &Function) -> Value {
    let properties: Map<String, Value> =
        function.arguments.iter().map(|a| (a.name.clone(), typed(local(schema, &a.data_type)))).collect();
    let mut described = json!({ "type": "object", "properties": properties });
    if let Some(description) = &function.description {
        described["description"] = description.as_str().into();
    }
    let required: Vec<&str> = function.arguments.iter().filter(|a| a.required).map(|a| a.name.as_str()).collect();
    if !required.is_empty() {
        described["required"] = json!(required);
    }
    described
}

pub(super) fn argument_parameter(schema: &str, argument: &Argument) -> Value {
    let data_type = local(schema, &argument.data_type);
    let mut parameter = json!({ "name": argument.name, "in": "query", "required": argument.required });
    if argument.variadic {
        let element = data_type.trim_end_matches("[]");
        let mut items = json!({ "format": format(element) });
        if let Some(name) = type_name(element) {
            items["type"] = name.into();
        }
        parameter["type"] = "array".into();
        parameter["collectionFormat"] = "multi".into();
        parameter["items"] = items;
        return parameter;
    }
    // An array is written as one text here, `{a,b}`, and JSON as text.
    let name = type_name(data_type).filter(|name| *name != "array").unwrap_or("string");
    parameter["type"] = name.into();
    parameter["format"] = format(data_type).into();
    parameter
}

/// A type of the described schema goes without its schema's name.
fn local<'a>(schema: &str, data_type: &'a str) -> &'a str {
    data_type.strip_prefix(schema).and_then(|rest| rest.strip_prefix('.')).unwrap_or(data_type)
}
