//! Values as Elixir shows them: some of realtime's messages have them in, and clients show these to people.

use serde_json::Value;

pub fn value(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => string(text),
        Value::Array(items) => list(items.iter().map(self::value)),
        Value::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            let entries: Vec<_> =
                entries.into_iter().map(|(key, entry)| format!("{} => {}", string(key), self::value(entry))).collect();
            format!("%{{{}}}", entries.join(", "))
        }
    }
}

pub fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

pub fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '#' if rest.peek() == Some(&'{') => out.push_str("\\#"),
            control if control.is_control() => out.push_str(&format!("\\x{:02X}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_look_as_in_elixir() {
        for (given, expected) in [
            (json!({"b": [1, "x", null], "a": {"c": true}}), r#"%{"a" => %{"c" => true}, "b" => [1, "x", nil]}"#),
            (json!({}), "%{}"),
            (json!("a\"\\\n\t#{x} é\u{1}"), r#""a\"\\\n\t\#{x} é\x01""#),
            (json!(1.5), "1.5"),
        ] {
            assert_eq!(value(&given), expected);
        }
    }
}
