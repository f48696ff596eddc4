//! Refresh tokens of GoTrue's newer kind, as the clients of a Supabase project hold them: a session's name and a number, signed with a key
//! that stands in the session's own row. A dump brings the key along, so they go on here, under the same rules as ours.
//!
//! Source: GoTrue, `crypto.RefreshToken` (version 0 of the encoding).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::refresh::RefreshToken;

const SIGNATURE: usize = 16;
const CHECKSUM: usize = 4;

/// A token, read but not believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    pub token: RefreshToken,
    body: Vec<u8>,
    signature: Vec<u8>,
}

/// `None` for whatever is of another kind.
pub fn parse(text: &str) -> Option<Signed> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM)?)?;
    if digest(&SHA256, body).as_ref()[..CHECKSUM] != *checksum {
        return None;
    }
    let (signed, signature) = body.split_at_checked(body.len().checked_sub(SIGNATURE)?)?;
    let (version, rest) = signed.split_first()?;
    let (session, counter) = rest.split_at_checked(16)?;
    if *version != 0 {
        return None;
    }
    let token = RefreshToken { session: session.try_into().ok()?, counter: varint(counter)? };
    Some(Signed { token, body: signed.to_vec(), signature: signature.to_vec() })
}

impl Signed {
    /// Whether the session's key (base64url) has signed it.
    pub fn is_signed_by(&self, key: &str) -> bool {
        let Ok(key) = URL_SAFE_NO_PAD.decode(key) else { return false };
        let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &self.body);
        !key.is_empty() && verify_slices_are_equal(&expected.as_ref()[..SIGNATURE], &self.signature).is_ok()
    }
}

/// A number in groups of seven bits, the lowest first, and nothing behind it.
fn varint(bytes: &[u8]) -> Option<i64> {
    let (last, before) = bytes.split_last()?;
    if bytes.len() > 9 || last & 0x80 != 0 || before.iter().any(|byte| byte & 0x80 == 0) {
        return None;
    }
    let value = bytes.iter().rev().fold(0_u64, |value, byte| (value << 7) | u64::from(byte & 0x7f));
    i64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As GoTrue makes them.
    fn encode(session: [u8; 16], counter: &[u8], key: &[u8]) -> String {
        let mut bytes = [&[0][..], &session, counter].concat();
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &bytes);
        bytes.extend(&signature.as_ref()[..SIGNATURE]);
        let checksum = digest(&SHA256, &bytes);
        bytes.extend(&checksum.as_ref()[..CHECKSUM]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    #[test]
    fn tokens_are_read_and_believed_by_their_sessions_key() {
        let key = [7; 32];
        let encoded_key = URL_SAFE_NO_PAD.encode(key);
        for (counter, expected) in [(&[0][..], 0), (&[5], 5), (&[0x80, 1], 128), (&[0xff, 0xff, 3], 65_535)] {
            let signed = parse(&encode([1; 16], counter, &key)).unwrap();
            assert_eq!(signed.token, RefreshToken { session: [1; 16], counter: expected });
            assert!(signed.is_signed_by(&encoded_key));
            assert!(!signed.is_signed_by(&URL_SAFE_NO_PAD.encode([8; 32])) && !signed.is_signed_by(""));
        }
        for counter in [&[][..], &[0x80], &[1, 1], &[0xff; 10]] {
            assert_eq!(parse(&encode([1; 16], counter, &key)), None, "{counter:?}");
        }
        let mut text = encode([1; 16], &[5], &key);
        text.replace_range(5..6, if &text[5..6] == "A" { "B" } else { "A" });
        assert_eq!(parse(&text), None, "the checksum");
        for text in ["", "abc", "aaaaaaaaaaaa", "?"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn anything_may_come(text in ".{0,80}") {
            let _ = parse(&text);
        }
    }
}
