//! Passwords of Firebase projects, in the form in which GoTrue keeps them: scrypt makes a key, and what is kept is the project's signer key,
//! encrypted with it.
//!
//! Source: GoTrue, `crypto.ParseFirebaseScryptHash`; <https://github.com/firebase/scrypt>.

use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::iv::FixedLength;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use scrypt::Params;

use super::{is_bearable, number};

/// Of a password.
#[derive(Debug)]
pub struct Hash {
    params: Params,
    /// With the project's separator behind it.
    salt: Vec<u8>,
    signer_key: Vec<u8>,
    encrypted: Vec<u8>,
}

impl Hash {
    /// `None` where it is no such hash, or asks for too much.
    pub fn read(text: &str) -> Option<Self> {
        let parts: [&str; 5] = text.split('$').collect::<Vec<_>>().try_into().ok()?;
        let ["", "fbscrypt", fields, salt, encrypted] = parts else { return None };
        let fields: Vec<&str> = fields.split(',').collect();
        let (costs, separator, signer_key) = match fields.as_slice() {
            ["v=1", costs @ .., separator, key] if costs.len() == 3 => (costs, separator.strip_prefix("ss=")?, key),
            ["v=1", costs @ .., key] if costs.len() == 3 => (costs, "", key),
            _ => return None,
        };
        let decode = |text: &str| STANDARD.decode(text).ok();
        let signer_key = decode(signer_key.strip_prefix("sk=")?)?;
        let encrypted = decode(encrypted)?;
        if signer_key.is_empty() || encrypted.len() != signer_key.len() {
            return None;
        }
        Some(Self {
            params: params(number(costs[0], "n")?, number(costs[1], "r")?, number(costs[2], "p")?)?,
            salt: [decode(salt)?, decode(separator)?].concat(),
            signer_key,
            encrypted,
        })
    }

    pub fn is_of(&self, password: &str) -> bool {
        self.encrypt(password).is_some_and(|bytes| verify_slices_are_equal(&bytes, &self.encrypted).is_ok())
    }

    /// The signer key, encrypted with what this password gives.
    fn encrypt(&self, password: &str) -> Option<Vec<u8>> {
        let mut key = [0; 32];
        scrypt::scrypt(password.as_bytes(), &self.salt, &self.params, &mut key).ok()?;
        // In counter mode both directions are the same; this one lets us say that the counter begins at zero.
        let cipher = DecryptingKey::ctr(UnboundCipherKey::new(&AES_256, &key).ok()?).ok()?;
        let mut bytes = self.signer_key.clone();
        cipher.decrypt(&mut bytes, DecryptionContext::Iv128(FixedLength::from([0; 16]))).ok()?;
        Some(bytes)
    }
}

/// `log_n` is the number of doublings, as in Firebase's `mem_cost`.
fn params(log_n: u32, r: u32, p: u32) -> Option<Params> {
    let log_n = u8::try_from(log_n).ok().filter(|log_n| (1..32).contains(log_n))?;
    let (block, lanes) = (128 * u64::from(r), u64::from(p));
    let memory = block.checked_mul((1 << log_n) + lanes)?;
    is_bearable(memory, lanes).then(|| Params::new(log_n, r, p).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNER_KEY: &str = "ou9tdYTGyYm8kuR6Dt0Bp0kDuAYoXrK16mbZO4yGwAn3oLspjnN0/c41v8xZnO1n14J3MjKj1b2g6AUCAlFwMw==";
    const ENCRYPTED: &str = "zKVTMvnWVw5BBOZNUdnsalx4c4c7y/w7IS5p6Ut2+CfEFFlz37J9huyQfov4iizN8dbjvEJlM5tQaJP84+hfTw==";

    fn hash(costs: &str) -> String {
        format!("$fbscrypt${costs},ss=Bw==,sk={SIGNER_KEY}$C0sHCg9ek77hsg==${ENCRYPTED}")
    }

    #[test]
    fn hashes_of_firebase_are_read() {
        // The example of GoTrue's own tests.
        let read = Hash::read(&hash("v=1,n=14,r=8,p=1")).unwrap();
        for (password, is_it) in [("mytestpassword", true), ("mytestpassword1", false), ("", false)] {
            assert_eq!(read.is_of(password), is_it, "{password}");
        }
    }

    #[test]
    fn security_a3_what_gotrue_refuses_or_asks_for_too_much_is_none() {
        let whole = hash("v=1,n=14,r=8,p=1");
        assert!(Hash::read(&whole.replace("ss=Bw==,", "")).is_some_and(|read| !read.is_of("mytestpassword")));
        assert!(Hash::read(&hash("v=1,n=17,r=8,p=1")).is_some());
        for hash in [
            hash("v=2,n=14,r=8,p=1"),
            hash("v=1,n=0,r=8,p=1"),
            hash("v=1,n=14,r=0,p=1"),
            hash("v=1,n=14,r=8,p=0"),
            hash("v=1,n=4294967297,r=8,p=1"),
            hash("v=1,n=14,r=18446744073709551617,p=1"),
            hash("n=14,r=8,p=1"),
            hash("v=1,n=14,r=8"),
            hash("v=1,n=14,r=8,p=1,q=1"),
            // More memory, or more work, than a node gives.
            hash("v=1,n=18,r=8,p=1"),
            hash("v=1,n=63,r=8,p=1"),
            hash("v=1,n=1,r=4294967295,p=4294967295"),
            hash("v=1,n=14,r=8,p=255"),
            whole.replace("ss=Bw==", "ss=!!!"),
            whole.replace(SIGNER_KEY, "!!!"),
            whole.replace(&format!(",sk={SIGNER_KEY}"), ""),
            whole.replace(&format!("sk={SIGNER_KEY}"), "sk="),
            whole.replace("C0sHCg9ek77hsg==", "!!!"),
            whole.replace(ENCRYPTED, "!!!"),
            whole.replace(ENCRYPTED, "zKVTMg=="),
        ] {
            assert!(Hash::read(&hash).is_none(), "{hash}");
        }
    }
}
