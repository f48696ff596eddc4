//! One-time codes: digits that a person types, and the hash that a link carries and the database keeps.
//!
//! Source: GoTrue, `crypto.GenerateOtp`. Its `crypto.GenerateTokenHash` needs no key: whoever knows an address computes what its links may
//! carry, a million hashes, and shows them without saying whose they are. Here they cannot be computed.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::UnixTime;

/// So many random digits.
pub fn code(digits: usize) -> Result<String, aws_lc_rs::error::Unspecified> {
    let random = SystemRandom::new();
    let mut code = String::with_capacity(digits);
    while code.len() < digits {
        let mut byte = [0];
        random.fill(&mut byte)?;
        // Above 249 the first digits would come more often than the last.
        if byte[0] < 250 {
            code.push(char::from(b'0' + byte[0] % 10));
        }
    }
    Ok(code)
}

/// Hashes codes for addresses, with a key of the project.
#[derive(Debug, Clone)]
pub struct Hasher(hmac::Key);

impl Hasher {
    /// All nodes of a project have its secret.
    pub fn new(jwt_secret: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, format!("one-time codes {jwt_secret}").as_bytes()))
    }

    /// The hash of a code for an address.
    pub fn hash(&self, address: &str, code: &str) -> String {
        hex(hmac::sign(&self.0, format!("{address} {code}").as_bytes()).as_ref())
    }
}

/// SHA-256 in hexadecimal digits.
pub fn sha256_hex(text: &str) -> String {
    hex(digest(&SHA256, text.as_bytes()).as_ref())
}

/// HMAC with SHA-256 in hexadecimal digits.
pub fn hmac_sha256_hex(key: &str, text: &str) -> String {
    hex(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), text.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The challenge of a verifier (RFC 7636, 4.2; S256).
pub fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()).as_ref())
}

/// Whether this verifier belongs to the challenge (RFC 7636, 4.6; S256).
pub fn is_verifier(verifier: &str, challenge: &str) -> bool {
    !challenge.is_empty() && crate::secret::equal(&self::challenge(verifier), challenge.trim_end_matches('='))
}

/// Whether two hashes are the same, told in constant time.
pub fn is_same(one: &str, other: &str) -> bool {
    crate::secret::equal(one, other)
}

/// A hash that was sent, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    /// Empty where none is out.
    pub hash: String,
    pub at: Option<UnixTime>,
}

impl Sent {
    /// Whether this hash is it, and still good.
    pub fn is(&self, hash: &str, life: i64, now: UnixTime) -> bool {
        let is_fresh = self.at.is_some_and(|at| now <= at + life);
        // What was typed is the same whether or not its link leads to a code.
        let is_it = |ours: &str| crate::secret::equal(ours, hash);
        let is_same = is_it(&self.hash) || self.hash.strip_prefix("pkce_").is_some_and(is_it);
        !self.hash.is_empty() && is_fresh && is_same
    }

    /// Seconds until another may be sent.
    pub fn pause(&self, pause: i64, now: UnixTime) -> Option<i64> {
        self.at.map(|at| at + pause - now).filter(|left| *left > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_a8_codes_are_digits_and_their_hashes_need_a_key() {
        let (one, other) = (code(6).unwrap(), code(6).unwrap());
        assert!(one.len() == 6 && one.bytes().all(|byte| byte.is_ascii_digit()));
        assert!(one != other || code(6).unwrap() != one);
        let hash = |secret: &str, code: &str| Hasher::new(secret).hash("a@b.c", code);
        assert_eq!(hash("secret", "123456"), hash("secret", "123456"));
        assert_ne!(hash("secret", "123456"), hash("secret", "123457"));
        assert_ne!(hash("secret", "123456"), hash("another", "123456"));
    }

    #[test]
    fn security_a11_a_verifier_belongs_to_its_challenge() {
        // RFC 7636, appendix B.
        let (verifier, challenge) =
            ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert!(is_verifier(verifier, challenge) && !is_verifier("x", challenge) && !is_verifier("", ""));
    }

    #[test]
    fn security_a8_codes_have_a_life() {
        let sent = Sent { hash: "h".into(), at: Some(1000) };
        assert!(sent.is("h", 600, 1600) && !sent.is("h", 600, 1601) && !sent.is("x", 600, 1000));
        assert!(!Sent::default().is("", 600, 0));
        assert_eq!((sent.pause(60, 1010), sent.pause(60, 1060)), (Some(50), None));
    }
}
