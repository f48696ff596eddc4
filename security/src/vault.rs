//! What has to be read again, and is not to be read by whoever has a copy of the database: sealed with AES-256-GCM.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Seals and opens secrets.
pub struct Vault(LessSafeKey);

impl std::fmt::Debug for Vault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Vault")
    }
}

/// What stands before a sealed text, so that others are told apart.
const MARK: &str = "sealed1.";

impl Vault {
    /// `key` is 32 random bytes in base64url.
    pub fn new(key: &str) -> Result<Self, Unspecified> {
        let key = URL_SAFE_NO_PAD.decode(key).map_err(|_| Unspecified)?;
        Ok(Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key)?)))
    }

    /// `place` says whose it is: it opens there only.
    pub fn seal(&self, text: &str, place: &str) -> Result<String, Unspecified> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce)?;
        let mut sealed = text.as_bytes().to_vec();
        self.0.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(place.as_bytes()),
            &mut sealed,
        )?;
        Ok(format!("{MARK}{}", URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat())))
    }

    /// `None` for what was not sealed here for this place. A text without the mark was never sealed: it came from elsewhere.
    pub fn open(&self, text: &str, place: &str) -> Option<String> {
        let Some(sealed) = text.strip_prefix(MARK) else { return Some(text.to_owned()) };
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let opened = self.0.open_in_place(nonce, Aad::from(place.as_bytes()), &mut sealed).ok()?;
        String::from_utf8(opened.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_a9_what_is_sealed_opens_in_its_place_only() {
        let vault = Vault::new(&URL_SAFE_NO_PAD.encode([7; 32])).unwrap();
        let other = Vault::new(&URL_SAFE_NO_PAD.encode([8; 32])).unwrap();
        let sealed = vault.seal("secret", "here").unwrap();
        assert!(!sealed.contains("secret") && sealed != vault.seal("secret", "here").unwrap());
        assert_eq!(vault.open(&sealed, "here").as_deref(), Some("secret"));
        assert_eq!(vault.open(&sealed, "there"), None);
        assert_eq!(other.open(&sealed, "here"), None);
        assert_eq!(vault.open("sealed1.", "here"), None);
        assert_eq!(vault.open("from elsewhere", "here").as_deref(), Some("from elsewhere"));
        assert!(Vault::new("short").is_err());
    }
}
