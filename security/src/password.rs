//! Passwords: what may be one, and how it is kept.
//!
//! Kept as bcrypt, so that users can move to and from a Supabase project. It looks at 72 bytes and no further; longer passwords are
//! refused, never cut. Users who come from elsewhere may have hashes of other kinds, until they have signed in.

mod argon;
mod firebase;

use crate::Secret;

/// bcrypt's work: 2^10 rounds, as GoTrue has it.
const COST: u32 = 10;
/// Bytes that bcrypt looks at.
pub const LONGEST: usize = 72;
/// Of a password that nobody has, so that a sign-in takes as long where there is no user.
const NOBODY: Kept<'static> =
    Kept::Bcrypt { text: "$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy", cost: COST };

/// What a hash from elsewhere may ask for, so that none keeps a node busy: bcrypt's work, about two seconds,
const HIGHEST_COST: u32 = 15;
/// bytes of memory,
const MOST_MEMORY: u64 = 256 << 20;
/// and bytes to go through, all passes together: about three seconds.
const MOST_WORK: u64 = 1 << 30;
/// Characters of a hash: the column takes no more.
const LONGEST_HASH: usize = 255;

/// What passwords have to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Characters, at least.
    pub shortest: usize,
    pub letters: Letters,
    /// Those that everybody tries first are taken too: for machines of developers.
    pub takes_common: bool,
}

/// Kinds of characters that a password needs one of each of (`password_requirements` of Supabase).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Letters {
    #[default]
    Any,
    LettersDigits,
    LowerUpperLettersDigits,
    LowerUpperLettersDigitsSymbols,
}

const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const DIGITS: &str = "0123456789";
const SYMBOLS: &str = "!@#$%^&*()_+-=[]{};'\\:\"|<>?,./`~";

impl Letters {
    fn kinds(self) -> Vec<String> {
        let kinds: &[&[&str]] = match self {
            Self::Any => &[],
            Self::LettersDigits => &[&[LOWER, UPPER], &[DIGITS]],
            Self::LowerUpperLettersDigits => &[&[LOWER], &[UPPER], &[DIGITS]],
            Self::LowerUpperLettersDigitsSymbols => &[&[LOWER], &[UPPER], &[DIGITS], &[SYMBOLS]],
        };
        kinds.iter().map(|kind| kind.concat()).collect()
    }
}

/// Why a password is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    TooLong,
    /// Words for the user, and the reasons as GoTrue names them (`length`, `characters`, `pwned`).
    Weak {
        message: String,
        reasons: Vec<&'static str>,
    },
}

/// Decides whether it may be somebody's password.
pub fn check(password: &str, policy: Policy) -> Result<(), Fault> {
    if password.len() > LONGEST {
        return Err(Fault::TooLong);
    }
    let (mut messages, mut reasons) = (Vec::new(), Vec::new());
    if password.chars().count() < policy.shortest {
        reasons.push("length");
        messages.push(format!("Password should be at least {} characters.", policy.shortest));
    }
    let kinds = policy.letters.kinds();
    if !kinds.iter().all(|kind| password.contains(|character| kind.contains(character))) {
        reasons.push("characters");
        let kinds = kinds.join(", ");
        messages.push(format!("Password should contain at least one character of each: {kinds}."));
    }
    if !policy.takes_common && COMMON.lines().any(|common| common.eq_ignore_ascii_case(password)) {
        reasons.push("pwned");
        let message = "Password is known to be weak and easy to guess, please choose a different one.";
        messages.push(message.to_owned());
    }
    if reasons.is_empty() { Ok(()) } else { Err(Fault::Weak { message: messages.join(" "), reasons }) }
}

/// Passwords that are tried first.
const COMMON: &str = include_str!("common_passwords.txt");

/// The hash to keep. Takes some fifty milliseconds of a processor.
pub fn hash(password: &str) -> Result<Secret<String>, bcrypt::BcryptError> {
    // The crate's own function that cuts nothing counts a byte for the end, and refuses 72.
    if password.len() > LONGEST {
        return Err(bcrypt::BcryptError::Truncation(password.len()));
    }
    bcrypt::hash(password, COST).map(Secret::new)
}

/// Whether it is a hash that can be compared with.
pub fn is_hash(text: &str) -> bool {
    Kept::read(text).is_some()
}

/// A hash, taken apart.
#[derive(Debug)]
enum Kept<'a> {
    Bcrypt { text: &'a str, cost: u32 },
    Argon(argon::Hash),
    Firebase(firebase::Hash),
}

impl<'a> Kept<'a> {
    fn read(text: &'a str) -> Option<Self> {
        if text.len() > LONGEST_HASH {
            return None;
        }
        if text.starts_with("$argon2") {
            return argon::Hash::read(text).map(Self::Argon);
        }
        if text.starts_with("$fbscrypt") {
            return firebase::Hash::read(text).map(Self::Firebase);
        }
        let cost = text.parse::<bcrypt::HashParts>().ok()?.get_cost();
        (cost <= HIGHEST_COST).then_some(Self::Bcrypt { text, cost })
    }

    fn is_of(&self, password: &str) -> bool {
        match self {
            Self::Bcrypt { text, .. } => password.len() <= LONGEST && bcrypt::verify(password, text).unwrap_or(false),
            Self::Argon(hash) => hash.is_of(password),
            Self::Firebase(hash) => hash.is_of(password),
        }
    }

    fn is_old(&self) -> bool {
        match self {
            Self::Bcrypt { cost, .. } => *cost < COST,
            Self::Argon(_) | Self::Firebase(_) => true,
        }
    }
}

/// Whether a node does what a hash asks for.
fn is_bearable(memory_bytes: u64, passes: u64) -> bool {
    memory_bytes <= MOST_MEMORY && memory_bytes.saturating_mul(passes) <= MOST_WORK
}

/// The number of a field like `m=16`, whose name this is.
fn number(field: &str, name: &str) -> Option<u32> {
    let digits = field.strip_prefix(name)?.strip_prefix('=')?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// What a comparison gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Wrong,
    Right,
    /// But the hash is weaker than it would be today, or of another kind.
    RightAndOld,
}

/// Compares; takes as long where there is no hash, or none that can be compared with.
pub fn verify(password: &str, hash: Option<&str>) -> Verdict {
    let kept = hash.and_then(Kept::read);
    let is_right = kept.as_ref().unwrap_or(&NOBODY).is_of(password);
    match kept {
        // bcrypt would not take what is longer: such a password keeps its hash.
        Some(kept) if is_right && kept.is_old() && password.len() <= LONGEST => Verdict::RightAndOld,
        Some(_) if is_right => Verdict::Right,
        _ => Verdict::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Nor does reading what an admin sends end a node.
        #[test]
        fn security_a3_whatever_is_read_can_be_afforded(
            memory in any::<u32>(), passes in any::<u32>(), lanes in any::<u32>(), less in 0..32_u32, rest in "[$,=a-z0-9]{0,40}",
        ) {
            let (memory, passes, lanes) = (memory >> less, passes >> (31 - less), lanes >> less);
            let argon = format!("$argon2id$v=19$m={memory},t={passes},p={lanes}$c2FsdHNhbHQ$c2FsdHNhbHQ");
            if is_hash(&argon) {
                prop_assert!(u64::from(memory) * u64::from(passes) <= MOST_WORK >> 10 && lanes <= memory / 8, "{argon}");
            }
            let firebase = format!("$fbscrypt$v=1,n={},r={passes},p={lanes},sk=YQ==$YQ==$YQ==", memory % 64);
            if is_hash(&firebase) {
                let work = (u64::from(passes) * u64::from(lanes)) << (memory % 64);
                prop_assert!(work <= MOST_WORK >> 7, "{firebase}");
            }
            for start in ["$argon2", "$fbscrypt$v=1", "$2b$", ""] {
                let text = format!("{start}{rest}");
                prop_assert!(!is_hash(&text), "{text}");
            }
        }
    }

    #[test]
    fn security_a1_short_and_long_passwords_are_refused() {
        let policy = Policy { shortest: 8, letters: Letters::Any, takes_common: false };
        assert_eq!(check(&"é".repeat(8), policy), Ok(()));
        assert_eq!(check(&"x".repeat(72), policy), Ok(()));
        assert_eq!(check(&"x".repeat(73), policy), Err(Fault::TooLong));
        let Err(Fault::Weak { reasons, .. }) = check("k3J!x", policy) else { panic!("it is short") };
        assert_eq!(reasons, ["length"]);
    }

    #[test]
    fn security_a2_passwords_that_everybody_tries_are_refused() {
        for common in ["password", "12345678", "Qwertyuiop"] {
            let policy = Policy { shortest: 8, letters: Letters::Any, takes_common: false };
            let weak = check(common, policy);
            assert!(matches!(weak, Err(Fault::Weak { reasons, .. }) if reasons == ["pwned"]), "{common}");
            assert_eq!(check(common, Policy { takes_common: true, ..policy }), Ok(()));
        }
    }

    #[test]
    fn kinds_of_characters_may_be_required() {
        let policy = |letters| Policy { shortest: 6, letters, takes_common: false };
        for (letters, weak, strong) in [
            (Letters::LettersDigits, "hgfdsa-", "hgfdsa1"),
            (Letters::LowerUpperLettersDigits, "hgfdsa1", "hgfdsA1"),
            (Letters::LowerUpperLettersDigitsSymbols, "hgfdsA1", "hgfds:A1"),
        ] {
            assert!(check(weak, policy(letters)).is_err(), "{weak}");
            assert_eq!(check(strong, policy(letters)), Ok(()), "{strong}");
        }
    }

    #[test]
    fn security_a3_hashes_are_bcrypt_of_full_strength() {
        let kept = hash("correct horse").unwrap();
        assert!(kept.expose().starts_with("$2b$10$"));
        assert_eq!(verify("correct horse", Some(kept.expose())), Verdict::Right);
        assert_eq!(verify("correct hors", Some(kept.expose())), Verdict::Wrong);
        assert_eq!(verify("", None), Verdict::Wrong);
        let old = bcrypt::hash("correct horse", 4).unwrap();
        assert_eq!(verify("correct horse", Some(&old)), Verdict::RightAndOld);
        assert_eq!(verify("x", Some("no hash at all")), Verdict::Wrong);
    }
    #[test]
    fn passwords_from_elsewhere_are_right_and_their_hashes_old() {
        let firebase = "$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk=ou9tdYTGyYm8kuR6Dt0Bp0kDuAYoXrK16mbZO4yGwAn3oLspjnN0/c41v8xZnO1n14J3MjKj1b2g6AUCAlFwMw==\
            $C0sHCg9ek77hsg==$zKVTMvnWVw5BBOZNUdnsalx4c4c7y/w7IS5p6Ut2+CfEFFlz37J9huyQfov4iizN8dbjvEJlM5tQaJP84+hfTw==";
        for (hash, password, verdict) in [
            // Those of GoTrue's own tests.
            ("$2y$04$mIJxfrCaEI3GukZe11CiXublhEFanu5.ododkll1WphfSp6pn4zIu", "test", Verdict::RightAndOld),
            ("$2y$10$srNl09aPtc2qr.0Vl.NtjekJRt/NxRxYQm3qd3OvfcKsJgVnr6.Ve", "test", Verdict::Right),
            ("$argon2i$v=19$m=16,t=2,p=1$bGJRWThNOHJJTVBSdHl2dQ$NfEnUOuUpb7F2fQkgFUG4g", "test", Verdict::RightAndOld),
            (firebase, "mytestpassword", Verdict::RightAndOld),
        ] {
            assert!(is_hash(hash), "{hash}");
            assert_eq!(verify(password, Some(hash)), verdict, "{hash}");
            assert_eq!(verify("test1", Some(hash)), Verdict::Wrong, "{hash}");
        }
        let long = "x".repeat(73);
        let params = argon2::Params::new(16, 2, 1, None).unwrap();
        let mut derived = [0; 32];
        argon2::Argon2::from(params).hash_password_into(long.as_bytes(), b"saltsalt", &mut derived).unwrap();
        let derived = base64::engine::Engine::encode(&base64::engine::general_purpose::STANDARD_NO_PAD, derived);
        let hash = format!("$argon2id$v=19$m=16,t=2,p=1$c2FsdHNhbHQ${derived}");
        assert_eq!(verify(&long, Some(&hash)), Verdict::Right, "bcrypt would not take it");
    }

    #[test]
    fn security_a3_a_hash_that_asks_for_too_much_is_none() {
        let salt_and_hash = "N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";
        assert!(is_hash(&format!("$2b$15${salt_and_hash}")));
        for hash in [
            format!("$2b$16${salt_and_hash}"),
            format!("$2b$31${salt_and_hash}"),
            "$argon2id$v=19$m=4194304,t=1,p=1$bGJRWThNOHJJTVBSdHl2dQ$NfEnUOuUpb7F2fQkgFUG4g".to_owned(),
            format!("$argon2id$v=19$m=16,t=2,p=1$bGJRWThNOHJJTVBSdHl2dQ${}", "A".repeat(208)),
            String::new(),
        ] {
            assert!(!is_hash(&hash), "{hash}");
            assert_eq!(verify("x", Some(&hash)), Verdict::Wrong, "{hash}");
        }
    }

    #[test]
    fn the_longest_password_is_hashed() {
        let longest = "x".repeat(LONGEST);
        let kept = hash(&longest).unwrap();
        assert_eq!(verify(&longest, Some(kept.expose())), Verdict::Right);
        assert_eq!(verify(&longest[1..], Some(kept.expose())), Verdict::Wrong);
        assert!(hash(&"x".repeat(LONGEST + 1)).is_err());
    }
}
