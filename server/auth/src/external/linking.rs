//! Whose account it is that somebody comes to from a provider.
//!
//! Source: GoTrue, `models.DetermineAccountLinking`, but that an address links only where the provider has verified it, whatever
//! the project asks of its own sign-ups (checklist A11).

use super::profile::Profile;

/// What the database knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The user who has this identity.
    pub identity: Option<String>,
    /// Users who have one of the verified addresses, as their own or by an identity.
    pub candidates: Vec<Candidate>,
    /// The main address is somebody's.
    pub is_taken: bool,
    /// Who is signed in and wants to have the identity.
    pub target: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub user: String,
    /// The main address is the user's own.
    pub is_main: bool,
}

/// What the settings say.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    pub signup: bool,
    pub email_optional: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The identity is known.
    SignIn {
        user: String,
    },
    /// The identity becomes one of an account that is there.
    Link {
        user: String,
    },
    /// Likewise because the user has asked for it.
    Attach {
        user: String,
    },
    /// A new account.
    Create,
    Refuse(Refusal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The identity is the user's already.
    LinkedAlready,
    /// It is somebody else's.
    LinkedToAnother,
    NoEmail,
    /// The address is somebody's, and the provider does not say that it is theirs.
    Unverified,
    /// Verified addresses of several accounts.
    Ambiguous,
    SignUpDisabled,
}

pub fn decide(facts: &Facts, profile: &Profile, policy: Policy) -> Decision {
    if let Some(target) = &facts.target {
        return match &facts.identity {
            Some(user) if user == target => Decision::Refuse(Refusal::LinkedAlready),
            Some(_) => Decision::Refuse(Refusal::LinkedToAnother),
            None => Decision::Attach { user: target.clone() },
        };
    }
    if let Some(user) = &facts.identity {
        return Decision::SignIn { user: user.clone() };
    }
    if profile.emails.is_empty() && !policy.email_optional {
        return Decision::Refuse(Refusal::NoEmail);
    }
    match facts.candidates.as_slice() {
        [] => {}
        [only] => return Decision::Link { user: only.user.clone() },
        several => {
            let main = several.iter().find(|candidate| candidate.is_main);
            let link = |main: &Candidate| Decision::Link { user: main.user.clone() };
            return main.map_or(Decision::Refuse(Refusal::Ambiguous), link);
        }
    }
    if facts.is_taken {
        return Decision::Refuse(Refusal::Unverified);
    }
    if policy.signup { Decision::Create } else { Decision::Refuse(Refusal::SignUpDisabled) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::external::profile::Email;

    #[test]
    fn security_a11_an_unverified_address_never_links() {
        let profile = |emails: &[(&str, bool)]| Profile {
            subject: "s".into(),
            emails: emails
                .iter()
                .map(|&(address, verified)| Email { address: address.into(), verified, primary: true })
                .collect(),
            claims: serde_json::Map::new(),
        };
        let user = |name: &str| Some(name.to_owned());
        let candidate = |name: &str, is_main| Candidate { user: name.into(), is_main };
        let open = Policy { signup: true, email_optional: false };
        let closed = Policy { signup: false, ..open };
        let free = Policy { email_optional: true, ..open };
        let none = Facts::default();
        let a = |verified| profile(&[("a", verified)]);
        for (facts, profile, policy, expected) in [
            (none.clone(), a(true), open, Decision::Create),
            (none.clone(), a(false), open, Decision::Create),
            (none.clone(), a(true), closed, Decision::Refuse(Refusal::SignUpDisabled)),
            (none.clone(), profile(&[]), open, Decision::Refuse(Refusal::NoEmail)),
            (none.clone(), profile(&[]), free, Decision::Create),
            (Facts { identity: user("u"), ..none.clone() }, a(false), closed, Decision::SignIn { user: "u".into() }),
            (Facts { identity: user("u"), ..none.clone() }, profile(&[]), open, Decision::SignIn { user: "u".into() }),
            (
                Facts { candidates: vec![candidate("u", true)], is_taken: true, ..none.clone() },
                a(true),
                closed,
                Decision::Link { user: "u".into() },
            ),
            (Facts { is_taken: true, ..none.clone() }, a(false), open, Decision::Refuse(Refusal::Unverified)),
            (
                Facts { candidates: vec![candidate("u", false), candidate("v", true)], ..none.clone() },
                a(true),
                open,
                Decision::Link { user: "v".into() },
            ),
            (
                Facts { candidates: vec![candidate("u", false), candidate("v", false)], ..none.clone() },
                a(true),
                open,
                Decision::Refuse(Refusal::Ambiguous),
            ),
            (
                Facts { target: user("u"), is_taken: true, ..none.clone() },
                a(false),
                closed,
                Decision::Attach { user: "u".into() },
            ),
            (
                Facts { target: user("u"), identity: user("u"), ..none.clone() },
                a(true),
                open,
                Decision::Refuse(Refusal::LinkedAlready),
            ),
            (
                Facts { target: user("u"), identity: user("v"), ..none.clone() },
                a(true),
                open,
                Decision::Refuse(Refusal::LinkedToAnother),
            ),
        ] {
            assert_eq!(decide(&facts, &profile, policy), expected, "{facts:?} {profile:?}");
        }
    }
}
