//! Refresh tokens: a session's name, a number, and a seal that only the nodes can make. The session knows the number that counts;
//! the tokens are kept nowhere, so nobody can read one in the database.
//!
//! Source of the rules: GoTrue, `tokens.RefreshTokenGrant` (tokens of version 2).

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::UnixTime;

/// A token, opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshToken {
    /// The session's UUID.
    pub session: [u8; 16],
    pub counter: i64,
}

/// Seals and opens them.
pub struct Sealer(hmac::Key);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Sealer")
    }
}

/// Bytes of the seal: 160 bits.
const SEAL: usize = 20;
const LENGTH: usize = 16 + 8 + SEAL;

impl Sealer {
    /// The key is made of the secret that all nodes share.
    pub fn new(jwt_secret: &str) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, jwt_secret.as_bytes());
        let key = hmac::sign(&secret, b"ntier refresh token 1");
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()))
    }

    pub fn seal(&self, token: RefreshToken) -> String {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend_from_slice(&token.session);
        bytes.extend_from_slice(&token.counter.to_be_bytes());
        let seal = hmac::sign(&self.0, &bytes);
        bytes.extend_from_slice(&seal.as_ref()[..SEAL]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// `None` for whatever was not sealed here.
    pub fn open(&self, text: &str) -> Option<RefreshToken> {
        let bytes: [u8; LENGTH] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let (said, seal) = bytes.split_at(LENGTH - SEAL);
        let expected = hmac::sign(&self.0, said);
        let token = RefreshToken {
            session: said[..16].try_into().ok()?,
            counter: i64::from_be_bytes(said[16..].try_into().ok()?),
        };
        aws_lc_rs::constant_time::verify_slices_are_equal(&expected.as_ref()[..SEAL], seal).ok().map(|()| token)
    }
}

/// What is known of a session when its token comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The number that counts now.
    pub counter: i64,
    pub created_at: UnixTime,
    /// Its last refresh, or its beginning.
    pub refreshed_at: UnixTime,
    pub not_after: Option<UnixTime>,
    pub user_is_banned: bool,
}

/// How long things last, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// A token that was used may come again within this time: tabs that wake up together.
    pub reuse_interval: i64,
    /// A session's whole life.
    pub timebox: Option<i64>,
    /// A session's life without a refresh.
    pub inactivity: Option<i64>,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The next number counts from now.
    Rotate,
    /// The client has not got the last answer, or asks twice at once: it gets the token that counts.
    Repeat,
    /// Somebody else has it: the session ends.
    Revoke,
    Refuse(Refusal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Banned,
    /// The session is over.
    Expired,
    Inactive,
    /// It has a number that was never given.
    NotOurs,
}

/// Decides about the token with this number.
pub fn decide(counter: i64, facts: &Facts, policy: &Policy, now: UnixTime) -> Decision {
    if let Some(refusal) = refusal(facts, policy, now) {
        return Decision::Refuse(refusal);
    }
    match facts.counter - counter {
        ..0 => Decision::Refuse(Refusal::NotOurs),
        0 => Decision::Rotate,
        1 => Decision::Repeat,
        _ if (now - facts.refreshed_at).abs() < policy.reuse_interval => Decision::Repeat,
        _ => Decision::Revoke,
    }
}

/// Why no token of this session is good.
pub(crate) fn refusal(facts: &Facts, policy: &Policy, now: UnixTime) -> Option<Refusal> {
    let is_over = |begun: UnixTime, life: Option<i64>| life.is_some_and(|life| life > 0 && now > begun + life);
    if facts.user_is_banned {
        Some(Refusal::Banned)
    } else if facts.not_after.is_some_and(|end| now > end) || is_over(facts.created_at, policy.timebox) {
        Some(Refusal::Expired)
    } else if is_over(facts.refreshed_at, policy.inactivity) {
        Some(Refusal::Inactive)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = 1_800_000_000;

    #[test]
    fn security_t3_each_token_is_good_once_with_two_exceptions() {
        let facts = Facts {
            counter: 7,
            created_at: NOW - 1000,
            refreshed_at: NOW - 60,
            not_after: None,
            user_is_banned: false,
        };
        let just_now = Facts { refreshed_at: NOW - 9, ..facts };
        let policy = Policy { reuse_interval: 10, timebox: None, inactivity: None };
        for (what, counter, facts, expected) in [
            ("the one that counts", 7, facts, Decision::Rotate),
            ("its parent: the answer was lost", 6, facts, Decision::Repeat),
            ("an older one: stolen", 5, facts, Decision::Revoke),
            ("an older one, tabs that wake up together", 3, just_now, Decision::Repeat),
            ("one that was never given", 8, facts, Decision::Refuse(Refusal::NotOurs)),
            ("of a banned user", 7, Facts { user_is_banned: true, ..facts }, Decision::Refuse(Refusal::Banned)),
            (
                "of a session that is over",
                7,
                Facts { not_after: Some(NOW - 1), ..facts },
                Decision::Refuse(Refusal::Expired),
            ),
        ] {
            assert_eq!(decide(counter, &facts, &policy, NOW), expected, "{what}");
        }
        assert_eq!(
            decide(7, &facts, &Policy { timebox: Some(999), ..policy }, NOW),
            Decision::Refuse(Refusal::Expired)
        );
        assert_eq!(
            decide(7, &facts, &Policy { inactivity: Some(59), ..policy }, NOW),
            Decision::Refuse(Refusal::Inactive)
        );
        assert_eq!(
            decide(7, &facts, &Policy { inactivity: Some(60), timebox: Some(1000), ..policy }, NOW),
            Decision::Rotate
        );
        assert_eq!(decide(5, &just_now, &Policy { reuse_interval: 0, ..policy }, NOW), Decision::Revoke);
    }

    #[test]
    fn security_t3_a_token_cannot_be_made_or_changed() {
        let (ours, others) = (Sealer::new("a secret of ours, long enough for anything"), Sealer::new("another secret"));
        let token = RefreshToken { session: *b"0123456789abcdef", counter: 3 };
        let sealed = ours.seal(token);
        assert_eq!(ours.open(&sealed), Some(token));
        assert_eq!(others.open(&sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let opened = ours.open(&String::from_utf8(changed).unwrap());
            assert_eq!(opened, None, "{at}");
        }
        assert_eq!(ours.open(""), None);
        assert_eq!(ours.open(&"A".repeat(1000)), None);
    }
}
