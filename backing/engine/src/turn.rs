//! Turns: where a client's bytes may be cut, and what must be changed in them.
//!
//! A turn is what the engine runs without looking at another client: the frames up to a Sync, a
//! Query, a Flush or a FunctionCall. Other drivers' statement names are made their own by a prefix, and a
//! CopyFail follows whatever might start a COPY: the engine would trap if it ran out of input there,
//! and outside a COPY the protocol says that CopyFail is ignored.

use crate::frame::{self, Frame, TooLong};
use crate::session::Prepared;

/// Length of the first turn in the bytes; `None` when its end has not arrived.
pub fn length(input: &[u8]) -> Result<Option<usize>, TooLong> {
    let mut at = 0;
    while let Some(frame) = frame::first(&input[at..])? {
        at += frame.whole.len();
        if matches!(frame.kind, b'S' | b'Q' | b'H' | b'F' | b'X') {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// Length of the rows of a COPY up to CopyDone or CopyFail.
pub fn copy_length(input: &[u8]) -> Result<Option<usize>, TooLong> {
    let mut at = 0;
    while let Some(frame) = frame::first(&input[at..])? {
        at += frame.whole.len();
        if matches!(frame.kind, b'c' | b'f') {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// Whether the turn is a Query whose first statement is `COPY … FROM STDIN`.
pub fn is_copy_in(turn: &[u8]) -> bool {
    let Ok(Some(Frame { kind: b'Q', body, .. })) = frame::first(turn) else {
        return false;
    };
    let head = String::from_utf8_lossy(&body[..body.len().min(16 << 10)]).to_ascii_lowercase();
    let mut words = head.split(|byte: char| byte.is_ascii_whitespace() || byte == ';');
    if words.find(|word| !word.is_empty()) != Some("copy") {
        return false;
    }
    let words: Vec<&str> = words.filter(|word| !word.trim_end_matches('\0').is_empty()).collect();
    words.windows(2).any(|pair| pair[0] == "from" && pair[1].trim_end_matches('\0') == "stdin")
}

/// Rewrites another driver's turn.
pub fn rewrite(turn: &[u8], prefix: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(turn.len() + 64);
    for frame in frame::all(turn) {
        match frame.kind {
            b'P' => named(&mut out, frame, 0, prefix),
            b'B' => {
                let portal = frame::cstr(frame.body).map_or(0, |(portal, _)| portal.len() + 1);
                named(&mut out, frame, portal, prefix);
            }
            b'D' | b'C' if frame.body.first() == Some(&b'S') => named(&mut out, frame, 1, prefix),
            b'Q' | b'E' => {
                out.extend_from_slice(frame.whole);
                frame::push(&mut out, b'f', b"COPY FROM STDIN must be the only statement of its query\0");
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

/// Keeps book of the statements that a turn, as the engine gets it, prepares and closes.
pub fn note(turn: &[u8], prepared: &mut Prepared) {
    for frame in frame::all(turn) {
        match (frame.kind, frame.body) {
            (b'P', body) => {
                if let Some((name, _)) = frame::cstr(body)
                    && !name.is_empty()
                {
                    prepared.insert(name.to_vec(), frame.whole.to_vec());
                }
            }
            (b'C', [b'S', body @ ..]) => {
                if let Some((name, _)) = frame::cstr(body) {
                    prepared.remove(name);
                }
            }
            _ => {}
        }
    }
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
        assert_eq!(length(&parse), Ok(None));
        let whole = [parse, frame(b'S', b"")].concat();
        let next = [whole.clone(), frame::query("select 2")].concat();
        assert_eq!(length(&next), Ok(Some(whole.len())));
    }

    #[test]
    fn copy_from_stdin_is_recognised() {
        for (sql, expected) in [
            ("copy t from stdin", true),
            (" COPY public.t (a, b) FROM stdin;", true),
            ("COPY t FROM STDIN WITH (FORMAT csv)", true),
            ("copy t to stdout", false),
            ("select 'copy t from stdin'", false),
        ] {
            assert_eq!(is_copy_in(&frame::query(sql)), expected, "{sql}");
        }
    }

    #[test]
    fn statement_names_are_kept_apart() {
        let turn = [frame(b'P', b"s1\0select 1\0\0\0"), frame(b'B', b"p\0s1\0\0\0\0\0\0\0")].concat();
        let rewritten = rewrite(&turn, "c7_");
        let bodies: Vec<_> = frame::all(&rewritten).map(|frame| frame.body.to_vec()).collect();
        assert_eq!(bodies[0], b"c7_s1\0select 1\0\0\0");
        assert_eq!(bodies[1], b"p\0c7_s1\0\0\0\0\0\0\0");
    }

    #[test]
    fn what_is_prepared_is_noted_until_it_is_closed() {
        let mut prepared = Prepared::new();
        let parse = frame(b'P', b"s1\0select 1\0\0\0");
        note(&[parse.clone(), frame(b'P', b"\0select 2\0\0\0"), frame(b'C', b"Ps1\0")].concat(), &mut prepared);
        assert_eq!(prepared.iter().collect::<Vec<_>>(), [(&b"s1".to_vec(), &parse)]);
        note(&frame(b'C', b"Ss1\0"), &mut prepared);
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
            let _ = copy_length(&input);
            if let Ok(Some(length)) = length(&input) {
                prop_assert!(length <= input.len());
                let turn = &input[..length];
                let _ = is_copy_in(turn);
                note(turn, &mut Prepared::new());
                let kinds = |bytes: &[u8]| -> Vec<u8> { frame::all(bytes).map(|frame| frame.kind).filter(|kind| *kind != b'f').collect() };
                if length <= whole {
                    prop_assert_eq!(kinds(&rewrite(turn, "c1_")), kinds(turn));
                }
            }
        }
    }
}
