//! The wire protocol's frames, as far as sharing a session needs them.
//!
//! Source: PostgreSQL documentation, "Frontend/Backend Protocol", message formats.

/// One message: a type byte, a length that counts itself, and the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: u8,
    pub body: &'a [u8],
    /// Type, length and body.
    pub whole: &'a [u8],
}

/// PostgreSQL's own limit on a message is 1 GB less one; ours keeps one client from filling memory.
pub const MAX_FRAME: usize = 512 << 20;

/// The first frame of the bytes, `None` when it is not all there.
pub fn first(bytes: &[u8]) -> Result<Option<Frame<'_>>, TooLong> {
    let Some((header, _)) = bytes.split_first_chunk::<5>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if !(4..=MAX_FRAME).contains(&length) {
        return Err(TooLong);
    }
    let Some(whole) = bytes.get(..=length) else {
        return Ok(None);
    };
    Ok(Some(Frame { kind: header[0], body: &whole[5..], whole }))
}

/// A length no client may send.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

/// All complete frames of bytes that the engine wrote.
pub fn all(mut bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let frame = first(bytes).ok()??;
        bytes = &bytes[frame.whole.len()..];
        Some(frame)
    })
}

/// Appends a frame.
pub fn push(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.push(kind);
    let length = u32::try_from(body.len() + 4).expect("our own frames are small");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
}

/// A simple query's frame.
pub fn query(sql: &str) -> Vec<u8> {
    let mut body = sql.as_bytes().to_vec();
    body.push(0);
    let mut out = Vec::new();
    push(&mut out, b'Q', &body);
    out
}

/// The bytes up to the first NUL, and what follows it.
pub fn cstr(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// The rows of a response in text format; NULL is `None`.
pub fn rows(response: &[u8]) -> Vec<Vec<Option<String>>> {
    all(response).filter(|frame| frame.kind == b'D').filter_map(|frame| row(frame.body)).collect()
}

fn row(body: &[u8]) -> Option<Vec<Option<String>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut values = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        rest = tail;
        // A negative length is NULL.
        let value = usize::try_from(i32::from_be_bytes(*length)).ok();
        if let Some(length) = value {
            values.push(Some(String::from_utf8_lossy(tail.get(..length)?).into_owned()));
            rest = &tail[length..];
        } else {
            values.push(None);
        }
    }
    Some(values)
}

/// The message of the first ErrorResponse, if there is one.
pub fn error(response: &[u8]) -> Option<String> {
    error_field(response, b'M')
}

/// A field of the first ErrorResponse, if there is one.
pub fn error_field(response: &[u8], name: u8) -> Option<String> {
    let frame = all(response).find(|frame| frame.kind == b'E')?;
    let mut rest = frame.body;
    while let Some((&field, tail)) = rest.split_first() {
        let (value, after) = cstr(tail)?;
        if field == name {
            return Some(String::from_utf8_lossy(value).into_owned());
        }
        rest = after;
    }
    None
}

/// An ErrorResponse.
pub fn push_error(out: &mut Vec<u8>, severity: &str, code: &str, message: &str) {
    let mut body = Vec::new();
    for (field, value) in [(b'S', severity), (b'V', severity), (b'C', code), (b'M', message)] {
        body.push(field);
        body.extend_from_slice(value.as_bytes());
        body.push(0);
    }
    body.push(0);
    push(out, b'E', &body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_once_it_is_whole() {
        let bytes = query("select 1");
        for cut in 0..bytes.len() {
            assert_eq!(first(&bytes[..cut]), Ok(None));
        }
        assert_eq!(first(&bytes).unwrap().unwrap().body, b"select 1\0");
    }

    #[test]
    fn an_impossible_length_is_refused() {
        assert_eq!(first(&[b'Q', 0, 0, 0, 3]), Err(TooLong));
        assert_eq!(first(&[b'Q', 255, 255, 255, 255]), Err(TooLong));
    }

    #[test]
    fn an_error_says_its_message() {
        let mut out = Vec::new();
        push_error(&mut out, "FATAL", "25P03", "too idle");
        assert_eq!(error(&out).as_deref(), Some("too idle"));
    }
}
