//! How many brackets are open at once. PostgreSQL goes one call deeper for each, and its stack has an end: a server refuses some
//! thousands of them (54001), and the embedded one would be ended by them, with all that others asked of it.

/// Nobody means more.
pub const MOST: usize = 1000;

/// Whether JSON has more open at once. What stands in its strings does not count.
pub fn is_deep_json(bytes: &[u8]) -> bool {
    // As good as every body is done with that.
    if bytes.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() <= MOST {
        return false;
    }
    let (mut open, mut is_string) = (0_usize, false);
    let mut bytes = bytes.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if is_string => drop(bytes.next()),
            b'"' => is_string = !is_string,
            b'[' | b'{' if !is_string => open += 1,
            b']' | b'}' if !is_string => open = open.saturating_sub(1),
            _ => {}
        }
        if open > MOST {
            return true;
        }
    }
    false
}

/// Whether a parameter has, which may be a regular expression or a search.
pub fn is_deep(text: &str) -> bool {
    let mut open = 0_usize;
    text.len() > MOST
        && text.bytes().any(|byte| {
            match byte {
                b'(' | b'[' | b'{' => open += 1,
                b')' | b']' | b'}' => open = open.saturating_sub(1),
                _ => {}
            }
            open > MOST
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_count_while_they_are_open() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!is_deep_json(nested(MOST).as_bytes()));
        assert!(is_deep_json(nested(MOST + 1).as_bytes()));
        assert!(is_deep_json(format!(r#"[{{"a": {}}}]"#, nested(MOST - 1)).as_bytes()));
        assert!(!is_deep_json(format!("[{}]", vec![r#"{"a": [1]}"#; 2000].join(",")).as_bytes()));
        assert!(!is_deep_json(format!(r#"["\"{}"]"#, "[".repeat(2000)).as_bytes()), "a string");
        assert!(is_deep_json(format!(r#"["\\",{}"#, "{".repeat(2000)).as_bytes()), "none any more");
        assert!(!is_deep(&format!("match.{}", "(a)".repeat(2000))));
        assert!(is_deep(&format!("match.{}", "(".repeat(MOST + 1))));
    }
}
