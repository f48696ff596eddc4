//! SQL while it is written: text, and parameters beside it.

use bytes::Bytes;
use ntier_backing::database::Statement;
use ntier_backing::database::catalog::Name;

/// Words that name a type without being its name (PostgreSQL's grammar, `SimpleTypename`).
const TYPE_WORDS: [&str; 32] = [
    "bigint",
    "bit",
    "boolean",
    "char",
    "character",
    "day",
    "dec",
    "decimal",
    "double",
    "float",
    "hour",
    "int",
    "integer",
    "interval",
    "minute",
    "month",
    "national",
    "nchar",
    "numeric",
    "precision",
    "real",
    "second",
    "smallint",
    "time",
    "timestamp",
    "to",
    "varchar",
    "varying",
    "with",
    "without",
    "year",
    "zone",
];

#[derive(Debug, Default)]
pub(crate) struct Sql {
    text: String,
    parameters: Vec<Option<Bytes>>,
}

impl Sql {
    /// SQL of ours (or of the catalog's): never a caller's.
    pub fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// A name, quoted. The only way for one to get into the text.
    pub fn ident(&mut self, name: &str) -> &mut Self {
        self.text.push('"');
        for character in name.chars().filter(|character| *character != '\0') {
            if character == '"' {
                self.text.push('"');
            }
            self.text.push(character);
        }
        self.text.push('"');
        self
    }

    /// A name with its schema, if it has one.
    pub fn name(&mut self, name: &Name) -> &mut Self {
        if !name.schema.is_empty() {
            self.ident(&name.schema).push(".");
        }
        self.ident(&name.name)
    }

    pub fn column(&mut self, qualifier: &Name, column: &str) -> &mut Self {
        if !qualifier.name.is_empty() {
            self.name(qualifier).push(".");
        }
        self.ident(column)
    }

    /// A value: it becomes a parameter whose type PostgreSQL infers.
    pub fn value(&mut self, value: impl Into<Bytes>) -> &mut Self {
        self.optional(Some(value.into()))
    }

    /// Likewise, or null.
    pub fn optional(&mut self, value: Option<Bytes>) -> &mut Self {
        self.parameters.push(value);
        let number = self.parameters.len();
        self.push(&format!("${number}"))
    }

    /// A name of the catalog's as a text.
    pub fn literal(&mut self, name: &str) -> &mut Self {
        let escaped = name.replace('\'', "''").replace('\0', "");
        if escaped.contains('\\') {
            return self.push(" E'").push(&escaped.replace('\\', "\\\\")).push("'");
        }
        self.push("'").push(&escaped).push("'")
    }

    /// Several values as one array literal.
    pub fn array<'a>(&mut self, values: impl IntoIterator<Item = &'a str>) -> &mut Self {
        self.value(array_literal(values))
    }

    /// A type to cast to, as a caller wrote it: words of SQL's own grammar for types, or a name, which becomes a quoted one.
    pub fn type_name(&mut self, name: &str) -> &mut Self {
        let word = |text: &str| TYPE_WORDS.into_iter().find(|word| word.eq_ignore_ascii_case(text));
        let words: Option<Vec<&str>> = name.split_ascii_whitespace().map(word).collect();
        if let Some(words) = words.filter(|words| !words.is_empty()) {
            return self.push(&words.join(" "));
        }
        let (base, array) = name.strip_suffix("[]").map_or((name, ""), |base| (base, "[]"));
        // Without quotes it would be read in lower case.
        let name = |sql: &mut Self, part: &str| _ = sql.ident(&part.to_ascii_lowercase());
        self.list(".", base.split('.'), name).push(array)
    }

    /// The parts, with something between them.
    pub fn list<T>(
        &mut self,
        between: &str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.push(between);
            }
            write(self, item);
        }
        self
    }

    pub fn into_statement(self) -> Statement {
        Statement { text: self.text.into(), parameters: self.parameters }
    }
}

/// `{"a","b"}`, with quotes and backslashes escaped.
pub(crate) fn array_literal<'a>(values: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = String::from("{");
    for (index, value) in values.into_iter().enumerate() {
        text.push_str(if index > 0 { ",\"" } else { "\"" });
        for character in value.chars().filter(|character| *character != '\0') {
            if matches!(character, '"' | '\\') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push('"');
    }
    text.push('}');
    text
}

/// A list of names as the setting `search_path` takes it.
pub(crate) fn identifier_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut sql = Sql::default();
    sql.list(", ", names, |sql, name| {
        sql.ident(name);
    });
    sql.text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_quotes() {
        for (name, expected) in
            [("plain", r#""plain""#), (r#"a"; drop"#, r#""a""; drop""#), ("nul\0l", r#""null""#), ("", r#""""#)]
        {
            assert_eq!(Sql::default().ident(name).text, expected);
        }
    }

    #[test]
    fn a_cast_is_a_name_and_nothing_else() {
        for (name, expected) in [
            ("int", "int"),
            ("INT", "int"),
            ("int4[]", r#""int4"[]"#),
            ("double  precision", "double precision"),
            ("timestamp with time zone", "timestamp with time zone"),
            ("Text", r#""text""#),
            ("api.mood", r#""api"."mood""#),
            ("int) from secrets --", r#""int) from secrets --""#),
            ("x'y", r#""x'y""#),
            ("1", r#""1""#),
        ] {
            assert_eq!(Sql::default().type_name(name).text, expected);
        }
    }

    #[test]
    fn array_literals_keep_their_elements_apart() {
        assert_eq!(array_literal(["a,b", r#"q"\"#, ""]), r#"{"a,b","q\"\\",""}"#);
        assert_eq!(array_literal([]), "{}");
    }
}
