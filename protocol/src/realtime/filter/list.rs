//! The items of an array, as PostgreSQL reads them between its braces. Source: PostgreSQL's documentation, "Array Input and Output
//! Syntax".

/// Reads one dimension; nothing for what PostgreSQL would refuse, or read as more dimensions.
pub fn read(inner: &str) -> Option<Vec<Option<String>>> {
    let mut rest = inner.trim_matches(blank);
    let mut items = Vec::new();
    if rest.is_empty() {
        return Some(items);
    }
    loop {
        let (item, after) = if rest.starts_with('"') { quoted(rest)? } else { bare(rest)? };
        items.push(item);
        match after.trim_start_matches(blank) {
            "" => return Some(items),
            after => rest = after.strip_prefix(',')?.trim_start_matches(blank),
        }
    }
}

fn quoted(text: &str) -> Option<(Option<String>, &str)> {
    let mut out = String::new();
    let mut rest = text.strip_prefix('"')?.chars();
    loop {
        match rest.next()? {
            '"' => return Some((Some(out), rest.as_str())),
            '\\' => out.push(rest.next()?),
            other => out.push(other),
        }
    }
}

fn bare(text: &str) -> Option<(Option<String>, &str)> {
    let mut out = String::new();
    // Blanks at the end are not a part of it, unless a backslash is before them.
    let mut kept = 0;
    let mut escaped = false;
    let mut rest = text.chars();
    let after = loop {
        let after = rest.as_str();
        match rest.next() {
            None | Some(',') => break after,
            Some('{' | '}' | '"') => return None,
            Some('\\') => {
                out.push(rest.next()?);
                (kept, escaped) = (out.len(), true);
            }
            Some(other) => {
                out.push(other);
                if !blank(other) {
                    kept = out.len();
                }
            }
        }
    };
    out.truncate(kept);
    match &out[..] {
        "" => None,
        null if !escaped && null.eq_ignore_ascii_case("null") => Some((None, after)),
        _ => Some((Some(out), after)),
    }
}

fn blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_read_as_postgresql_does() {
        for (inner, expected) in [
            ("", Some(&[][..])),
            ("  ", Some(&[])),
            ("1,2", Some(&[Some("1"), Some("2")])),
            (" a b , c ", Some(&[Some("a b"), Some("c")])),
            (r#""a,b", "c\"d\\" ,"""#, Some(&[Some("a,b"), Some("c\"d\\"), Some("")])),
            ("null,NULL,\"null\",nul", Some(&[None, None, Some("null"), Some("nul")])),
            (r"a\,b,\ ,n\ull", Some(&[Some("a,b"), Some(" "), Some("null")])),
            ("é,ü", Some(&[Some("é"), Some("ü")])),
            ("1,", None),
            (",1", None),
            ("1,,2", None),
            ("{1},{2}", None),
            ("a}b", None),
            ("a\"b\"", None),
            ("\"a\"b", None),
            ("\"a", None),
            ("a\\", None),
        ] {
            let expected: Option<Vec<Option<String>>> =
                expected.map(|items| items.iter().map(|item| item.map(str::to_owned)).collect());
            assert_eq!(read(inner), expected, "{inner}");
        }
    }
}
