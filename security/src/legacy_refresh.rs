//! Refresh tokens of GoTrue's older kind, as a dump of a Supabase project brings them: random letters, kept in `auth.refresh_tokens`. Each
//! is exchanged for a sealed one, and with it all others of its session.
//!
//! Source of the rules: GoTrue, `tokens.RefreshTokenGrant` (tokens of version 1).

use crate::UnixTime;
use crate::refresh::{self, Decision, Policy};

/// Characters of a token.
const LENGTH: usize = 12;

/// Whether it may be one; others need not be looked for.
pub fn is_token(text: &str) -> bool {
    text.len() == LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// What is known of a token when it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    pub is_revoked: bool,
    /// Its last change; of a revoked one, when it was.
    pub updated_at: UnixTime,
    /// The newest token of its session that is not revoked was given for it: the project that was dumped did so, and the answer was lost.
    pub has_live_child: bool,
    /// The sealed token that counts was given for it.
    pub is_exchanged: bool,
}

/// Decides about a token of this session. To rotate is to exchange it.
pub fn decide(token: &Facts, session: &refresh::Facts, policy: &Policy, now: UnixTime) -> Decision {
    if let Some(refusal) = refresh::refusal(session, policy, now) {
        return Decision::Refuse(refusal);
    }
    if !token.is_revoked || token.has_live_child {
        return Decision::Rotate;
    }
    if token.is_exchanged || (now - token.updated_at).abs() < policy.reuse_interval {
        return Decision::Repeat;
    }
    Decision::Revoke
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refresh::Refusal;

    const NOW: UnixTime = 1_800_000_000;

    #[test]
    fn security_t3_each_old_token_is_good_once_with_two_exceptions() {
        let session = refresh::Facts {
            counter: 0,
            created_at: NOW - 1000,
            refreshed_at: NOW - 100,
            not_after: None,
            user_is_banned: false,
        };
        let policy = Policy { reuse_interval: 10, timebox: None, inactivity: None };
        let live = Facts { is_revoked: false, updated_at: NOW - 100, has_live_child: false, is_exchanged: false };
        let revoked = Facts { is_revoked: true, ..live };
        for (what, token, expected) in [
            ("a live one", live, Decision::Rotate),
            ("a live one of just now", Facts { updated_at: NOW, ..live }, Decision::Rotate),
            ("the answer was lost before the move", Facts { has_live_child: true, ..revoked }, Decision::Rotate),
            ("the answer was lost since", Facts { is_exchanged: true, ..revoked }, Decision::Repeat),
            ("tabs that wake up together", Facts { updated_at: NOW - 9, ..revoked }, Decision::Repeat),
            ("an older one: stolen", Facts { updated_at: NOW - 10, ..revoked }, Decision::Revoke),
            ("one of a clock that goes wrong", Facts { updated_at: NOW + 10, ..revoked }, Decision::Revoke),
        ] {
            assert_eq!(decide(&token, &session, &policy, NOW), expected, "{what}");
            let banned = refresh::Facts { user_is_banned: true, ..session };
            assert_eq!(decide(&token, &banned, &policy, NOW), Decision::Refuse(Refusal::Banned), "{what}, banned");
            let over = refresh::Facts { not_after: Some(NOW - 1), ..session };
            assert_eq!(decide(&token, &over, &policy, NOW), Decision::Refuse(Refusal::Expired), "{what}, over");
            let short = Policy { inactivity: Some(99), ..policy };
            assert_eq!(decide(&token, &session, &short, NOW), Decision::Refuse(Refusal::Inactive), "{what}, inactive");
        }
    }

    #[test]
    fn old_tokens_look_so() {
        for (text, is_one) in [
            ("hp3yqk4vd7ma", true),
            ("7kQpZr2XvB9w", true),
            ("hp3yqk4vd7m", false),
            ("hp3yqk4vd7maa", false),
            ("hp3yqk4vd7m'", false),
            ("hp3yqk4vd7\0a", false),
            ("éééééé", false),
            ("", false),
        ] {
            assert_eq!(is_token(text), is_one, "{text}");
        }
    }
}
