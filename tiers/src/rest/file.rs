//! PostgREST's configuration file: lines `name = value`, comments after `#`, and `$(VARIABLE)` from the environment.
//!
//! Source: PostgREST, "Config File"; the format is that of Haskell's configurator. Groups and imports are not read.

use std::collections::HashMap;

/// A line that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub line: usize,
    pub message: String,
}

/// A value and its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    pub text: String,
    pub line: usize,
}

/// Reads the file. A later line with the same name wins.
pub fn parse(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<HashMap<String, Value>, Vec<Fault>> {
    let (mut values, mut faults) = (HashMap::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match entry(line, environment) {
            Ok((name, text)) => _ = values.insert(name, Value { text, line: line_number }),
            Err(message) => faults.push(Fault { line: line_number, message }),
        }
    }
    if faults.is_empty() { Ok(values) } else { Err(faults) }
}

fn entry(line: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<(String, String), String> {
    let (name, value) = line.split_once('=').ok_or("a line is like name = value")?;
    let name = name.trim();
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(format!("{name:?} is not a name"));
    }
    let value = value.trim();
    let text = match value.strip_prefix('"') {
        Some(inside) => interpolated(&quoted(inside)?, environment)?,
        None => bare(value)?,
    };
    Ok((name.to_owned(), text))
}

/// A number or a truth value.
fn bare(value: &str) -> Result<String, String> {
    let value = value.split('#').next().unwrap_or_default().trim();
    let is_number = !value.is_empty() && value.strip_prefix('-').unwrap_or(value).bytes().all(|b| b.is_ascii_digit());
    if is_number || matches!(value, "true" | "false" | "on" | "off") {
        return Ok(value.to_owned());
    }
    Err(format!("{value:?} is neither a number nor true or false; a text needs quotes"))
}

/// The text up to the closing quote.
fn quoted(inside: &str) -> Result<String, String> {
    let mut text = String::new();
    let mut characters = inside.chars();
    loop {
        match characters.next().ok_or("the closing quote is missing")? {
            '"' => break,
            '\\' => text.push(match characters.next().ok_or("the closing quote is missing")? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            }),
            other => text.push(other),
        }
    }
    let rest = characters.as_str().trim_start();
    if rest.is_empty() || rest.starts_with('#') { Ok(text) } else { Err(format!("{rest:?} after the value")) }
}

/// `$(NAME)` is a variable of the environment, `$$` a dollar.
fn interpolated(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|after| after.split_once(')')) {
            out.push_str(&environment(name).ok_or_else(|| format!("the environment has no {name}"))?);
            rest = after;
        } else {
            return Err("a dollar is written $$, a variable $(NAME)".into());
        }
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<HashMap<String, Value>, Vec<Fault>> {
        parse(text, &|name| (name == "SECRET").then(|| "from outside".to_owned()))
    }

    #[test]
    fn a_file_is_read() {
        let text = "# comment\n\ndb-uri = \"postgres://u@h/d\" # where\ndb-max-rows=10\n\
            app.settings.key = \"a \\\"b\\\" $(SECRET) $$1\"\nopenapi-security-active = true\n";
        let values = read(text).unwrap();
        let value = |name: &str| values[name].text.as_str();
        assert_eq!(value("db-uri"), "postgres://u@h/d");
        assert_eq!((value("db-max-rows"), values["db-max-rows"].line), ("10", 4));
        assert_eq!(value("app.settings.key"), "a \"b\" from outside $1");
        assert_eq!(value("openapi-security-active"), "true");
    }

    #[test]
    fn all_faults_are_told_with_their_lines() {
        let text = "nonsense\na = \"open\nb = word\nc = \"$(NOTHING)\"\nd = \"$\"\ne = \"x\" y\n= 1\n";
        let lines: Vec<usize> = read(text).unwrap_err().iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5, 6, 7]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_file_is_understood_or_refused(text in "[a-z-=\"\\\\$(){}#\n 0-9ä]{0,60}") {
            let _ = parse(&text, &|_| Some("x".into()));
        }
    }
}
