//! Passwords: what may be one, and how it is kept.
//!
//! Kept as bcrypt, so that users can move to and from a Supabase project. It looks at 72 bytes and no further; longer passwords are
//! refused, never cut.

use crate::Secret;

/// bcrypt's work: 2^10 rounds, as GoTrue has it.
const COST: u32 = 10;
/// Bytes that bcrypt looks at.
pub const LONGEST: usize = 72;
/// Of a password that nobody has, so that a sign-in takes as long where there is no user.
const NOBODY: &str = "$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";

/// What passwords have to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Characters, at least.
    pub shortest: usize,
    pub letters: Letters,
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
    if COMMON.lines().any(|common| common.eq_ignore_ascii_case(password)) {
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
    text.parse::<bcrypt::HashParts>().is_ok()
}

/// What a comparison gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Wrong,
    Right,
    /// But the hash is weaker than it would be today.
    RightAndOld,
}

/// Compares; takes as long where there is no hash.
pub fn verify(password: &str, hash: Option<&str>) -> Verdict {
    let known = hash.filter(|hash| !hash.is_empty());
    let is_right = password.len() <= LONGEST && bcrypt::verify(password, known.unwrap_or(NOBODY)).unwrap_or(false);
    match known {
        Some(hash) if is_right => {
            let cost = hash.parse::<bcrypt::HashParts>().map_or(COST, |parts| parts.get_cost());
            if cost < COST { Verdict::RightAndOld } else { Verdict::Right }
        }
        _ => Verdict::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_a1_short_and_long_passwords_are_refused() {
        let policy = Policy { shortest: 8, letters: Letters::Any };
        assert_eq!(check(&"é".repeat(8), policy), Ok(()));
        assert_eq!(check(&"x".repeat(72), policy), Ok(()));
        assert_eq!(check(&"x".repeat(73), policy), Err(Fault::TooLong));
        let Err(Fault::Weak { reasons, .. }) = check("k3J!x", policy) else { panic!("it is short") };
        assert_eq!(reasons, ["length"]);
    }

    #[test]
    fn security_a2_passwords_that_everybody_tries_are_refused() {
        for common in ["password", "12345678", "Qwertyuiop"] {
            let weak = check(common, Policy { shortest: 8, letters: Letters::Any });
            assert!(matches!(weak, Err(Fault::Weak { reasons, .. }) if reasons == ["pwned"]), "{common}");
        }
    }

    #[test]
    fn kinds_of_characters_may_be_required() {
        let policy = |letters| Policy { shortest: 6, letters };
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
    fn the_longest_password_is_hashed() {
        let longest = "x".repeat(LONGEST);
        let kept = hash(&longest).unwrap();
        assert_eq!(verify(&longest, Some(kept.expose())), Verdict::Right);
        assert_eq!(verify(&longest[1..], Some(kept.expose())), Verdict::Wrong);
        assert!(hash(&"x".repeat(LONGEST + 1)).is_err());
    }
}
