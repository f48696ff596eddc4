//! Argon2i and Argon2id in the PHC string format, as other services keep passwords.
//!
//! Source of what is taken: GoTrue, `crypto.ParseArgon2Hash`: version 19, and neither a key nor data.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::{is_bearable, number};

/// Of a password.
#[derive(Debug)]
pub struct Hash {
    algorithm: Algorithm,
    params: Params,
    salt: Vec<u8>,
    derived: Vec<u8>,
}

impl Hash {
    /// `None` where it is no such hash, or asks for too much.
    pub fn read(text: &str) -> Option<Self> {
        let parts: [&str; 6] = text.split('$').collect::<Vec<_>>().try_into().ok()?;
        let ["", algorithm, "v=19", costs, salt, derived] = parts else { return None };
        let algorithm = match algorithm {
            "argon2i" => Algorithm::Argon2i,
            "argon2id" => Algorithm::Argon2id,
            _ => return None,
        };
        let costs: [&str; 3] = costs.split(',').collect::<Vec<_>>().try_into().ok()?;
        let [memory, passes, lanes] = [number(costs[0], "m")?, number(costs[1], "t")?, number(costs[2], "p")?];
        if !is_bearable(u64::from(memory) << 10, u64::from(passes)) {
            return None;
        }
        let (salt, derived) = (STANDARD_NO_PAD.decode(salt).ok()?, STANDARD_NO_PAD.decode(derived).ok()?);
        // Each lane has eight blocks at least, so that memory bounds the lanes too.
        let params = Params::new(memory, passes, lanes, Some(derived.len())).ok()?;
        (salt.len() >= argon2::MIN_SALT_LEN).then_some(Self { algorithm, params, salt, derived })
    }

    pub fn is_of(&self, password: &str) -> bool {
        let argon = Argon2::new(self.algorithm, Version::V0x13, self.params.clone());
        let mut derived = vec![0; self.derived.len()];
        let done = argon.hash_password_into(password.as_bytes(), &self.salt, &mut derived);
        done.is_ok() && verify_slices_are_equal(&derived, &self.derived).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_argon2_are_read() {
        // Those of GoTrue's own tests, and one of the reference implementation's (phc-winner-argon2, test.c).
        for (hash, password) in [
            ("$argon2i$v=19$m=16,t=2,p=1$bGJRWThNOHJJTVBSdHl2dQ$NfEnUOuUpb7F2fQkgFUG4g", "test"),
            ("$argon2id$v=19$m=32,t=3,p=2$SFVpOWJ0eXhjRzVkdGN1RQ$RXnb8rh7LaDcn07xsssqqulZYXOM/EUCEFMVcAcyYVk", "test"),
            ("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "password"),
        ] {
            let read = Hash::read(hash).unwrap();
            assert!(read.is_of(password) && !read.is_of("test1") && !read.is_of(""), "{hash}");
        }
    }

    #[test]
    fn security_a3_what_gotrue_refuses_or_asks_for_too_much_is_none() {
        let (salt, derived) = ("bGJRWThNOHJJTVBSdHl2dQ", "NfEnUOuUpb7F2fQkgFUG4g");
        let whole = |head: &str| format!("${head}${salt}${derived}");
        assert!(Hash::read(&whole("argon2id$v=19$m=16,t=2,p=1")).is_some());
        assert!(Hash::read(&whole("argon2id$v=19$m=262144,t=4,p=4")).is_some());
        for hash in [
            whole("argon2d$v=19$m=16,t=2,p=1"),
            whole("argon2id$v=16$m=16,t=2,p=1"),
            whole("argon2id$m=16,t=2,p=1"),
            whole("argon2id$v=19$m=16,t=2,p=1,data=abc"),
            whole("argon2id$v=19$m=16,t=2,p=1,keyid=abc"),
            whole("argon2id$v=19$t=2,m=16,p=1"),
            whole("argon2id$v=19$m=4294967297,t=2,p=1"),
            whole("argon2id$v=19$m=16,t=4294967297,p=1"),
            whole("argon2id$v=19$m=16,t=2,p=256"),
            whole("argon2id$v=19$m=16,t=0,p=1"),
            whole("argon2id$v=19$m=16,t=2,p=0"),
            whole("argon2id$v=19$m=+16,t=2,p=1"),
            // More memory, or more work, than a node gives.
            whole("argon2id$v=19$m=262145,t=1,p=1"),
            whole("argon2id$v=19$m=262144,t=5,p=1"),
            whole("argon2id$v=19$m=16,t=4294967295,p=1"),
            format!("$argon2id$v=19$m=16,t=2,p=1$!!!${derived}"),
            format!("$argon2id$v=19$m=16,t=2,p=1${salt}$!!!"),
            format!("$argon2id$v=19$m=16,t=2,p=1$${derived}"),
            format!("$argon2id$v=19$m=16,t=2,p=1${salt}$"),
            format!("$argon2id$v=19$m=16,t=2,p=1${salt}"),
        ] {
            assert!(Hash::read(&hash).is_none(), "{hash}");
        }
    }
}
