//! Turns: where a client's bytes may be cut, and what must be changed in them.
//!
//! A turn is what the engine runs without looking at another client: the frames up to a Sync, a
//! Query, a Flush or a FunctionCall. Other drivers' statement names are made their own by a prefix, and a
//! CopyFail follows whatever might start a COPY: the engine would trap if it ran out of input there,
//! and outside a COPY the protocol says that CopyFail is ignored. It traps at what no client may send, too.

use std::collections::BTreeSet;

use crate::frame::{self, Frame, TooLong};
use crate::session::{Prepared, quoted};

/// PostgreSQL's limit for messages that have no reason to be long.
const SMALL: usize = 10_000;

/// What a client's bytes begin with.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A turn of this length.
    Turn(usize),
    /// The client leaves; what it sent before that, and never had run, is not run.
    Leave,
    /// The end has not arrived.
    Part,
}

/// What no client may send.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    Length,
    Kind(u8),
}

impl From<TooLong> for Fault {
    fn from(_: TooLong) -> Self {
        Self::Length
    }
}

/// The first turn in the bytes.
pub fn next(input: &[u8]) -> Result<Next, Fault> {
    let mut at = 0;
    while at < input.len() {
        checked(&input[at..], b"PBEDCHSQFXdcf")?;
        let Some(frame) = frame::first(&input[at..])? else { break };
        at += frame.whole.len();
        match frame.kind {
            b'X' => return Ok(Next::Leave),
            b'S' | b'Q' | b'H' | b'F' => return Ok(Next::Turn(at)),
            _ => {}
        }
    }
    Ok(Next::Part)
}

/// The rows of a COPY up to CopyDone or CopyFail.
pub fn next_rows(input: &[u8]) -> Result<Next, Fault> {
    let mut at = 0;
    while at < input.len() {
        // Flush and Sync are ignored there.
        checked(&input[at..], b"dcfHSX")?;
        let Some(frame) = frame::first(&input[at..])? else { break };
        at += frame.whole.len();
        match frame.kind {
            b'X' => return Ok(Next::Leave),
            b'c' | b'f' => return Ok(Next::Turn(at)),
            _ => {}
        }
    }
    Ok(Next::Part)
}

/// Looks at the head of a message, before all of it is there.
fn checked(input: &[u8], kinds: &[u8]) -> Result<(), Fault> {
    let kind = input[0];
    if !kinds.contains(&kind) {
        return Err(Fault::Kind(kind));
    }
    let length = input.get(1..5).map_or(0, |length| length.iter().fold(0, |all, byte| all << 8 | usize::from(*byte)));
    if b"DECHSXc".contains(&kind) && length > SMALL { Err(Fault::Length) } else { Ok(()) }
}

/// The format of the rows (0 text, 1 binary) if the turn is a Query whose first statement is `COPY … FROM STDIN`.
pub fn copies_in(turn: &[u8]) -> Option<u8> {
    let Ok(Some(Frame { kind: b'Q', body, .. })) = frame::first(turn) else {
        return None;
    };
    let head = String::from_utf8_lossy(&body[..body.len().min(16 << 10)]).to_ascii_lowercase();
    let statement = without_comments(&head);
    let is_between = |byte: char| byte.is_ascii_whitespace() || matches!(byte, '(' | ')' | ',' | ';' | '\0' | '\'');
    let words: Vec<&str> = statement.split(is_between).filter(|word| !word.is_empty()).collect();
    let at = words.windows(2).position(|pair| pair == ["from", "stdin"])?;
    (words.first() == Some(&"copy")).then(|| u8::from(words[at..].contains(&"binary")))
}

/// The text behind the blanks and comments that it begins with.
fn without_comments(mut text: &str) -> &str {
    loop {
        text = text.trim_start_matches(|byte: char| byte.is_ascii_whitespace() || byte == ';');
        if let Some(rest) = text.strip_prefix("--") {
            text = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if text.starts_with("/*") {
            text = behind_comment(text);
        } else {
            return text;
        }
    }
}

/// Comments of this kind are nested.
fn behind_comment(text: &str) -> &str {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(pair) = text.as_bytes().get(at..at + 2) {
        match pair {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth.saturating_sub(1), at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return &text[at..];
        }
    }
    ""
}

/// Puts what ends a COPY behind a statement that may have begun one.
pub fn fail_copy(out: &mut Vec<u8>) {
    frame::push(out, b'f', b"COPY FROM STDIN must be the only statement of its query\0");
}

/// Rewrites the turn of a driver that has prepared these.
pub fn rewrite(turn: &[u8], prefix: &str, prepared: &Prepared) -> Vec<u8> {
    let mut out = Vec::with_capacity(turn.len() + 64);
    for frame in frame::all(turn) {
        match frame.kind {
            b'P' => named(&mut out, frame, 0, prefix),
            b'B' => {
                let portal = frame::cstr(frame.body).map_or(0, |(portal, _)| portal.len() + 1);
                named(&mut out, frame, portal, prefix);
            }
            b'D' | b'C' if frame.body.first() == Some(&b'S') => named(&mut out, frame, 1, prefix),
            b'Q' => {
                let own = deallocated(frame.body).map(|name| format!("{prefix}{name}"));
                match own.filter(|name| prepared.contains_key(name.as_bytes())) {
                    Some(name) => out.extend(frame::query(&format!("DEALLOCATE {}", quoted(&name, '"')))),
                    None => out.extend_from_slice(frame.whole),
                }
                fail_copy(&mut out);
            }
            b'E' => {
                out.extend_from_slice(frame.whole);
                fail_copy(&mut out);
            }
            _ => out.extend_from_slice(frame.whole),
        }
    }
    out
}

/// Copies a frame with the prefix put before the statement name at `at`; the unnamed statement stays so.
fn named(out: &mut Vec<u8>, frame: Frame<'_>, at: usize, prefix: &str) {
    match frame.body.get(at..).and_then(frame::cstr) {
        Some((name, rest)) if !name.is_empty() => {
            let body = [&frame.body[..at], prefix.as_bytes(), name, b"\0", rest].concat();
            frame::push(out, frame.kind, &body);
        }
        _ => out.extend_from_slice(frame.whole),
    }
}

/// The statement that a Query does nothing but deallocate: drivers do so by SQL where their library knows no Close.
fn deallocated(query: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(frame::cstr(query)?.0).ok()?.trim().trim_end_matches(';');
    let (word, rest) = text.split_once(|byte: char| byte.is_ascii_whitespace())?;
    let (name, rest) = identifier(rest.trim())?;
    (word.eq_ignore_ascii_case("deallocate") && rest.is_empty()).then_some(name)
}

/// The identifier that a text begins with, and what follows it.
fn identifier(text: &str) -> Option<(String, &str)> {
    if let Some(mut rest) = text.strip_prefix('"') {
        let mut name = String::new();
        loop {
            let (part, after) = rest.split_once('"')?;
            name.push_str(part);
            let Some(after) = after.strip_prefix('"') else { return Some((name, after)) };
            (name, rest) = (name + "\"", after);
        }
    }
    let end = text.find(|byte: char| !is_of_word(byte)).unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_ascii_lowercase(), &text[end..]))
}

fn is_of_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '$') || !character.is_ascii()
}

/// What a turn's SQL names, as far as its text says so.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// It may listen to these.
    pub channels: BTreeSet<String>,
    /// Settings of the application's own (`app.tenant`), which it may set. PostgreSQL has no list of them.
    pub settings: BTreeSet<String>,
}

impl Named {
    /// Adds what is named in a turn.
    pub fn note(&mut self, turn: &[u8]) {
        for frame in frame::all(turn) {
            let sql = match frame.kind {
                b'Q' => Some(frame.body),
                b'P' => frame::cstr(frame.body).map(|(_, rest)| rest),
                _ => None,
            };
            if let Some((sql, _)) = sql.and_then(frame::cstr) {
                let sql = String::from_utf8_lossy(sql);
                self.channels.extend(
                    behind(&sql, "listen").filter_map(|rest| identifier(rest.trim_start())).map(|(name, _)| name),
                );
                self.settings.extend(behind(&sql, "set").filter_map(setting));
                self.settings.extend(behind(&sql, "set_config").filter_map(configured));
            }
        }
    }
}

/// What stands behind a word, each time that it is there.
fn behind<'a>(sql: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    let places =
        sql.as_bytes().windows(word.len()).enumerate().filter(|(_, at)| at.eq_ignore_ascii_case(word.as_bytes()));
    places.map(|(at, _)| (&sql[..at], &sql[at + word.len()..])).filter_map(|(before, after)| {
        (!before.ends_with(is_of_word) && !after.starts_with(is_of_word)).then_some(after)
    })
}

/// The setting behind SET, if it is an application's own.
fn setting(rest: &str) -> Option<String> {
    let (mut name, mut rest) = identifier(rest.trim_start())?;
    if name == "session" {
        (name, rest) = identifier(rest.trim_start())?;
    }
    let (second, _) = identifier(rest.strip_prefix('.')?)?;
    Some(format!("{name}.{second}"))
}

/// Likewise behind `set_config`.
fn configured(rest: &str) -> Option<String> {
    let (name, _) = rest.trim_start().strip_prefix('(')?.trim_start().strip_prefix('\'')?.split_once('\'')?;
    name.contains('.').then(|| name.to_owned())
}

/// Keeps book of the statements that a turn, as the engine gets it, prepares and closes: those without a name, too, unless it is the
/// node's, which uses them within the turn.
pub fn note(turn: &[u8], prepared: &mut Prepared, is_node: bool) {
    for frame in frame::all(turn) {
        match (frame.kind, frame.body) {
            (b'P', body) => {
                if let Some((name, _)) = frame::cstr(body)
                    && !(is_node && name.is_empty())
                {
                    prepared.insert(name.to_vec(), frame.whole.to_vec());
                }
            }
            (b'C', [b'S', body @ ..]) => {
                if let Some((name, _)) = frame::cstr(body) {
                    prepared.remove(name);
                }
            }
            // It takes the place of the statement without a name.
            (b'Q', _) => _ = prepared.remove(&b""[..]),
            _ => {}
        }
    }
}

/// Whether a turn needs a statement without a name from a turn before.
pub fn needs_unnamed(turn: &[u8]) -> bool {
    for frame in frame::all(turn) {
        let name = match (frame.kind, frame.body) {
            (b'Q', _) => return false,
            (b'P', body) if body.first() == Some(&0) => return false,
            (b'B', body) => frame::cstr(body).and_then(|(_, rest)| frame::cstr(rest)),
            (b'D', [b'S', body @ ..]) => frame::cstr(body),
            _ => None,
        };
        if name.is_some_and(|(name, _)| name.is_empty()) {
            return true;
        }
    }
    false
}

/// Whether a turn runs nothing: what it prepares is there without a transaction.
pub fn only_prepares(turn: &[u8]) -> bool {
    frame::all(turn).all(|frame| matches!(frame.kind, b'P' | b'D' | b'C' | b'H'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame::push(&mut out, kind, body);
        out
    }

    #[test]
    fn a_turn_ends_at_sync_or_query() {
        let parse = frame(b'P', b"\0select 1\0\0\0");
        assert_eq!(next(&parse), Ok(Next::Part));
        let whole = [parse.clone(), frame(b'S', b"")].concat();
        let more = [whole.clone(), frame::query("select 2")].concat();
        assert_eq!(next(&more), Ok(Next::Turn(whole.len())));
        let leaves = [parse, frame(b'c', b""), frame(b'X', b"")].concat();
        assert_eq!(next(&leaves), Ok(Next::Leave));
    }

    #[test]
    fn what_no_client_may_send_is_seen_at_its_head() {
        for (input, rows, fault) in [
            (b"p".as_slice(), false, Fault::Kind(b'p')),
            (b"\xff\0\0\0\x04", false, Fault::Kind(0xff)),
            (b"D\0\x01\0\0", false, Fault::Length),
            (b"Q\0\0\0\x03", false, Fault::Length),
            (b"Q", true, Fault::Kind(b'Q')),
            (b"d\xff\0\0\0", true, Fault::Length),
        ] {
            let seen = if rows { next_rows(input) } else { next(input) };
            assert_eq!(seen, Err(fault), "{input:?}");
        }
        assert_eq!(next(b"B\0\x01\0\0"), Ok(Next::Part), "what is bound may be long");
    }

    #[test]
    fn copy_from_stdin_is_recognised() {
        for (sql, expected) in [
            ("copy t from stdin", Some(0)),
            (" COPY public.t (a, b) FROM stdin;", Some(0)),
            ("COPY t FROM STDIN WITH (FORMAT csv)", Some(0)),
            ("copy t(a)from stdin(format 'binary')", Some(1)),
            ("copy t from stdin binary", Some(1)),
            ("/*x/*y*/*/ -- z\n; copy t from stdin", Some(0)),
            ("copy binary_things from stdin", Some(0)),
            ("copy t to stdout", None),
            ("select 'copy t from stdin'", None),
            ("/* copy t from stdin", None),
        ] {
            assert_eq!(copies_in(&frame::query(sql)), expected, "{sql}");
        }
    }

    #[test]
    fn what_sql_names_is_found() {
        let sql = "listen A; unlisten b; LISTEN \"C\"\"d\"; listen; set x = 1; SET app.Tenant to 2; set session a.b = 3; \
                   update t set t.c = 1; select Set_Config( 'app.user', $1, false), set_config('role', '', true)";
        let mut named = Named::default();
        named.note(&[frame::query(sql), frame(b'P', b"s\0listen\n\xc3\xa9\0\0\0")].concat());
        assert_eq!(named.channels, BTreeSet::from(["a", "C\"d", "é"].map(str::to_owned)));
        assert_eq!(named.settings, BTreeSet::from(["app.tenant", "a.b", "t.c", "app.user"].map(str::to_owned)));
    }

    #[test]
    fn a_statement_without_a_name_may_be_of_a_turn_before() {
        let parse = frame(b'P', b"\0select 1\0\0\0");
        let bind = frame(b'B', b"p\0\0\0\0\0\0\0\0");
        assert!(needs_unnamed(&bind));
        assert!(needs_unnamed(&frame(b'D', b"S\0")));
        assert!(!needs_unnamed(&[parse, bind].concat()));
        assert!(!needs_unnamed(&frame(b'B', b"p\0s\0\0\0\0\0\0\0")));
    }

    #[test]
    fn statement_names_are_kept_apart() {
        let turn = [frame(b'P', b"s1\0select 1\0\0\0"), frame(b'B', b"p\0s1\0\0\0\0\0\0\0")].concat();
        let rewritten = rewrite(&turn, "c7_", &Prepared::new());
        let bodies: Vec<_> = frame::all(&rewritten).map(|frame| frame.body.to_vec()).collect();
        assert_eq!(bodies[0], b"c7_s1\0select 1\0\0\0");
        assert_eq!(bodies[1], b"p\0c7_s1\0\0\0\0\0\0\0");
        let prepared = Prepared::from([(b"c7_s1".to_vec(), turn)]);
        for (sql, expected) in [
            ("DEALLOCATE s1", "DEALLOCATE \"c7_s1\""),
            ("deallocate \"s1\" ;", "DEALLOCATE \"c7_s1\""),
            ("deallocate s2", "deallocate s2"),
            ("deallocate all", "deallocate all"),
        ] {
            let rewritten = rewrite(&frame::query(sql), "c7_", &prepared);
            assert!(rewritten.starts_with(&frame::query(expected)), "{sql}");
        }
    }

    #[test]
    fn what_is_prepared_is_noted_until_it_is_closed() {
        let mut prepared = Prepared::new();
        let parse = frame(b'P', b"s1\0select 1\0\0\0");
        note(&[parse.clone(), frame(b'P', b"\0select 2\0\0\0"), frame(b'C', b"Ps1\0")].concat(), &mut prepared, true);
        assert_eq!(prepared.iter().collect::<Vec<_>>(), [(&b"s1".to_vec(), &parse)]);
        note(&frame(b'C', b"Ss1\0"), &mut prepared, true);
        assert!(prepared.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        /// A turn is cut where a message ends, and rewriting keeps the messages.
        #[test]
        fn whatever_a_client_sends_is_cut_safely(
            frames in prop::collection::vec((prop::sample::select(b"PBDECSQHFXcdf\xff".to_vec()), prop::collection::vec(any::<u8>(), 0..20)), 0..8),
            rest in prop::collection::vec(any::<u8>(), 0..12),
        ) {
            let mut input: Vec<u8> = frames.iter().flat_map(|(kind, body)| frame(*kind, body)).collect();
            let whole = input.len();
            input.extend(rest);
            let _ = next_rows(&input);
            if let Ok(Next::Turn(length)) = next(&input) {
                prop_assert!(length <= input.len());
                let turn = &input[..length];
                let _ = (copies_in(turn), Named::default().note(turn), needs_unnamed(turn));
                note(turn, &mut Prepared::new(), false);
                let kinds = |bytes: &[u8]| -> Vec<u8> { frame::all(bytes).map(|frame| frame.kind).filter(|kind| *kind != b'f').collect() };
                if length <= whole {
                    prop_assert_eq!(kinds(&rewrite(turn, "c1_", &Prepared::new())), kinds(turn));
                }
            }
        }
    }
}
