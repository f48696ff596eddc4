//! One-time passwords by the clock (RFC 6238): SHA-1, six digits, thirty seconds, as all authenticator apps have them.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::UnixTime;

/// Seconds of a step.
const STEP: i64 = 30;
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// A new secret, in base32 (RFC 4648) without padding, as apps take it.
pub fn secret() -> Result<String, aws_lc_rs::error::Unspecified> {
    let mut bytes = [0; 20];
    SystemRandom::new().fill(&mut bytes)?;
    Ok(encode(&bytes))
}

/// What an app reads from a QR code (the Key URI Format).
pub fn uri(issuer: &str, account: &str, secret: &str) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let (issuer, account) = (encoded(issuer), encoded(account));
    format!("otpauth://totp/{issuer}:{account}?algorithm=SHA1&digits=6&issuer={issuer}&period=30&secret={secret}")
}

/// The step to which a code belongs, one before or after the clock's at most; only one that is later than `used` (checklist A9: a
/// code is taken once).
pub fn step(secret: &str, code: &str, now: UnixTime, used: Option<i64>) -> Option<i64> {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &decode(secret)?);
    let current = now / STEP;
    let is_it = |step: &i64| crate::secret::equal(&at(&key, *step), code);
    [current, current - 1, current + 1].into_iter().filter(|step| used.is_none_or(|used| *step > used)).find(is_it)
}

/// The code of a moment, for who shows codes rather than takes them.
pub fn code(secret: &str, now: UnixTime) -> Option<String> {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &decode(secret)?);
    Some(at(&key, now / STEP))
}

fn at(key: &hmac::Key, step: i64) -> String {
    let tag = hmac::sign(key, &step.to_be_bytes());
    let tag = tag.as_ref();
    // RFC 4226, 5.3: the last four bits say where to look.
    let offset = usize::from(tag[tag.len() - 1] & 15);
    let word = u32::from_be_bytes([tag[offset] & 127, tag[offset + 1], tag[offset + 2], tag[offset + 3]]);
    format!("{:06}", word % 1_000_000)
}

fn encode(bytes: &[u8]) -> String {
    let mut out = String::new();
    let (mut buffer, mut bits) = (0_u32, 0);
    for byte in bytes {
        buffer = (buffer << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(char::from(ALPHABET[(buffer >> bits) as usize & 31]));
        }
    }
    if bits > 0 {
        out.push(char::from(ALPHABET[(buffer << (5 - bits)) as usize & 31]));
    }
    out
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut buffer, mut bits) = (0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = ALPHABET.iter().position(|letter| *letter == byte.to_ascii_uppercase())?;
        buffer = (buffer << 5) | u32::try_from(value).ok()?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from((buffer >> bits) & 255).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B: the secret is `12345678901234567890`, and the last six digits count.
    const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    #[test]
    fn codes_are_those_of_the_rfc() {
        for (now, expected) in
            [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924"), (20_000_000_000, "353130")]
        {
            assert_eq!(code(SECRET, now).as_deref(), Some(expected), "{now}");
        }
        assert_eq!(decode(SECRET).unwrap(), b"12345678901234567890");
        assert_eq!(encode(b"12345678901234567890"), SECRET);
    }

    #[test]
    fn security_a9_a_code_is_taken_once_and_for_a_moment() {
        let (now, code) = (1_111_111_109, "081804");
        let its = now / STEP;
        assert_eq!(step(SECRET, code, now, None), Some(its));
        assert_eq!(step(SECRET, code, now + 30, None), Some(its));
        assert_eq!(step(SECRET, code, now - 30, None), Some(its));
        assert_eq!(step(SECRET, code, now + 60, None), None);
        assert_eq!(step(SECRET, code, now, Some(its)), None);
        assert_eq!(step(SECRET, code, now, Some(its - 1)), Some(its));
        assert_eq!(step(SECRET, "081805", now, None), None);
        assert_eq!(step("not base32!", code, now, None), None);
    }

    #[test]
    fn apps_can_read_it() {
        let uri = uri("My App", "ada@example.com", "ABC");
        assert!(
            uri.starts_with("otpauth://totp/My%20App:ada%40example%2Ecom?") && uri.contains("&issuer=My%20App&"),
            "{uri}"
        );
    }
}
