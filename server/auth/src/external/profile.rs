//! What a provider says of somebody, brought into one shape: the claims that GoTrue keeps of an identity.

use serde_json::{Map, Value};

/// Somebody, as a provider knows them.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// The name that never changes, at this provider.
    pub subject: String,
    pub emails: Vec<Email>,
    /// What is kept with the identity, without the address.
    pub claims: Map<String, Value>,
}

/// An address, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email {
    pub address: String,
    /// The provider has made sure that it is theirs.
    pub verified: bool,
    pub primary: bool,
}

/// When an address counts as verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    Always,
    Never,
    /// What stands there says so.
    Flag(&'static str),
    /// Something stands there.
    Present(&'static str),
    /// Microsoft's: where the claim is absent the address is the tenant's own.
    DomainOwner(&'static str),
}

impl Verified {
    fn holds(self, profile: &Value) -> bool {
        let is_true = |value: &Value| match value {
            Value::Bool(is_so) => *is_so,
            Value::String(text) => matches!(text.as_str(), "true" | "1"),
            Value::Number(number) => number.as_i64() == Some(1),
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        };
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Flag(at) => profile.pointer(at).is_some_and(is_true),
            Self::Present(at) => text(profile, at).is_some(),
            Self::DomainOwner(at) => profile.pointer(at).is_none_or(is_true),
        }
    }
}

/// Where in a provider's JSON the facts stand: JSON pointers (RFC 6901), and texts with pointers in braces.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub subject: &'static str,
    pub email: &'static str,
    pub verified: Verified,
    /// For each claim the texts that may be it; the first of which all parts are there is taken.
    pub claims: &'static [(&'static str, &'static [&'static str])],
    /// What only this provider knows.
    pub custom: &'static [(&'static str, &'static str)],
}

/// Where a list of all addresses has its parts.
#[derive(Debug, Clone, Copy)]
pub struct EmailShape {
    /// The list in the answer; empty where the answer is the list.
    pub list: &'static str,
    pub email: &'static str,
    pub verified: Verified,
    pub primary: &'static str,
}

/// The claims of OpenID Connect that are kept under their own names (OpenID Connect Core 1.0, 5.1).
const STANDARD: &[&str] = &[
    "iss",
    "name",
    "family_name",
    "given_name",
    "middle_name",
    "nickname",
    "preferred_username",
    "profile",
    "picture",
    "website",
    "gender",
    "birthdate",
    "zoneinfo",
    "locale",
    "updated_at",
    "full_name",
    "avatar_url",
    "user_name",
];

impl Profile {
    /// Reads an answer of a provider's own form; `None` where it does not say who it is.
    pub fn of_answer(
        shape: &Shape,
        issuer: &str,
        answer: &Value,
        emails: Option<(&EmailShape, &Value)>,
    ) -> Option<Self> {
        let subject = text(answer, shape.subject)?;
        let mut claims = Map::new();
        claims.insert("iss".into(), issuer.into());
        for (name, texts) in shape.claims {
            if let Some(value) = texts.iter().find_map(|template| fill(template, answer)) {
                claims.insert((*name).into(), value.into());
            }
        }
        let custom: Map<String, Value> = shape
            .custom
            .iter()
            .filter_map(|(name, at)| Some(((*name).to_owned(), answer.pointer(at)?.clone())))
            .filter(|(_, value)| !value.is_null())
            .collect();
        if !custom.is_empty() {
            claims.insert("custom_claims".into(), custom.into());
        }
        let mut all = Vec::new();
        if let Some((shape, list)) = emails {
            let list = list.pointer(shape.list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            all.extend(list.iter().filter_map(|entry| {
                let primary = !shape.primary.is_empty() && Verified::Flag(shape.primary).holds(entry);
                Some(Email {
                    address: text(entry, shape.email)?.to_lowercase(),
                    verified: shape.verified.holds(entry),
                    primary,
                })
            }));
        }
        if let Some(address) = text(answer, shape.email).map(|address| address.to_lowercase())
            && !all.iter().any(|email| email.address == address)
        {
            let primary = !all.iter().any(|email| email.primary);
            all.push(Email { address, verified: shape.verified.holds(answer), primary });
        }
        Some(Self { emails: all, ..Self::with(subject, claims) })
    }

    /// Reads the claims of an id token or of `userinfo`; `custom` are those that go with the identity besides.
    pub fn of_claims(claims: &Value, verified: Verified, custom: &[String]) -> Option<Self> {
        let subject = text(claims, "/sub")?;
        let mut kept = Map::new();
        for name in STANDARD {
            if let Some(value) = claims.get(*name).filter(|value| !value.is_null()) {
                kept.insert((*name).to_owned(), value.clone());
            }
        }
        for (name, like) in [("full_name", "name"), ("avatar_url", "picture")] {
            if let (None, Some(value)) = (kept.get(name), kept.get(like).cloned()) {
                kept.insert(name.to_owned(), value);
            }
        }
        let entry = |name: &String| Some((name.clone(), claims.get(name).filter(|value| !value.is_null())?.clone()));
        let custom: Map<String, Value> = custom.iter().filter_map(entry).collect();
        if !custom.is_empty() {
            kept.insert("custom_claims".into(), custom.into());
        }
        let email = text(claims, "/email").map(|address| Email {
            address: address.to_lowercase(),
            verified: verified.holds(claims),
            primary: true,
        });
        Some(Self { emails: email.into_iter().collect(), ..Self::with(subject, kept) })
    }

    fn with(subject: String, mut claims: Map<String, Value>) -> Self {
        claims.insert("sub".into(), subject.clone().into());
        claims.insert("provider_id".into(), subject.clone().into());
        Self { subject, emails: Vec::new(), claims }
    }
}

impl Profile {
    /// The address that counts: the primary one, else the last.
    pub fn main(&self) -> Option<&Email> {
        self.emails.iter().find(|email| email.primary).or(self.emails.last())
    }

    pub fn verified(&self) -> impl Iterator<Item = &str> {
        self.emails.iter().filter(|email| email.verified).map(|email| email.address.as_str())
    }

    /// What is kept with the identity.
    pub fn identity_data(&self) -> Map<String, Value> {
        let mut data = self.claims.clone();
        let email = self.main();
        if let Some(email) = email {
            data.insert("email".into(), email.address.clone().into());
        }
        data.insert("email_verified".into(), email.is_some_and(|email| email.verified).into());
        data.insert("phone_verified".into(), false.into());
        data
    }

    /// Lays what an administrator's mapping says over the claims: `{"name": "display_name"}`.
    pub fn mapped(raw: &Value, mapping: &Map<String, Value>) -> Value {
        let mut claims = raw.clone();
        for (name, from) in mapping {
            let value = match from {
                Value::String(from) => raw.get(from).or_else(|| raw.pointer(&format!("/{}", from.replace('.', "/")))),
                other => Some(other),
            };
            if let (Some(value), Some(claims)) = (value, claims.as_object_mut()) {
                claims.insert(name.clone(), value.clone());
            }
        }
        claims
    }
}

/// A text or a number that is there and not empty.
fn text(value: &Value, at: &str) -> Option<String> {
    if at.is_empty() {
        return None;
    }
    match value.pointer(at)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The template with its parts; `None` where one is missing.
fn fill(template: &str, value: &Value) -> Option<String> {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once('{') {
        let (at, after) = behind.split_once('}')?;
        out.push_str(before);
        out.push_str(&text(value, at)?);
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_of_their_own_form_are_read() {
        let shape = Shape {
            subject: "/id",
            email: "/email",
            verified: Verified::Present("/confirmed_at"),
            claims: &[("name", &["{/first} {/last}", "{/first}"]), ("picture", &["https://example.com/{/id}.png"])],
            custom: &[("team", "/team")],
        };
        let answer = json!({ "id": 7, "email": "Ada@Example.com", "confirmed_at": "x", "first": "Ada", "last": "", "team": "red" });
        let profile = Profile::of_answer(&shape, "https://example.com", &answer, None).unwrap();
        assert_eq!(
            Value::Object(profile.identity_data()),
            json!({
                "iss": "https://example.com", "name": "Ada", "picture": "https://example.com/7.png", "custom_claims": { "team": "red" },
                "sub": "7", "provider_id": "7", "email": "ada@example.com", "email_verified": true, "phone_verified": false,
            })
        );
        assert_eq!(Profile::of_answer(&shape, "", &json!({ "email": "a@b.c" }), None), None, "nobody");
    }

    #[test]
    fn lists_of_addresses_say_which_counts() {
        let shape = Shape { subject: "/id", email: "", verified: Verified::Never, claims: &[], custom: &[] };
        let list = EmailShape { list: "", email: "/email", verified: Verified::Flag("/verified"), primary: "/primary" };
        let emails = json!([
            { "email": "a@example.com", "verified": true, "primary": false },
            { "email": "B@example.com", "verified": true, "primary": true },
            { "email": "c@example.com", "verified": false, "primary": false },
        ]);
        let profile = Profile::of_answer(&shape, "", &json!({ "id": "x" }), Some((&list, &emails))).unwrap();
        assert_eq!(profile.main().unwrap().address, "b@example.com");
        assert_eq!(profile.verified().collect::<Vec<_>>(), ["a@example.com", "b@example.com"]);
    }

    #[test]
    fn security_a11_an_address_is_verified_only_where_the_provider_says_so() {
        for (claims, verified, expected) in [
            (json!({ "email_verified": true }), Verified::Flag("/email_verified"), true),
            (json!({ "email_verified": "true" }), Verified::Flag("/email_verified"), true),
            (json!({ "email_verified": "false" }), Verified::Flag("/email_verified"), false),
            (json!({ "email_verified": "yes" }), Verified::Flag("/email_verified"), false),
            (json!({}), Verified::Flag("/email_verified"), false),
            (json!({ "xms_edov": false }), Verified::DomainOwner("/xms_edov"), false),
            (json!({ "xms_edov": "1" }), Verified::DomainOwner("/xms_edov"), true),
            (json!({}), Verified::DomainOwner("/xms_edov"), true),
            (json!({}), Verified::Always, true),
            (json!({}), Verified::Never, false),
        ] {
            assert_eq!(verified.holds(&claims), expected, "{claims} {verified:?}");
        }
    }

    #[test]
    fn claims_keep_what_is_standard_and_what_was_asked_for() {
        let claims = json!({ "sub": "x", "name": "Ada", "picture": "p", "hd": "example.com", "secret": 1, "email": "a@b.c", "nonce": "n" });
        let profile = Profile::of_claims(&claims, Verified::Always, &["hd".into()]).unwrap();
        assert_eq!(
            Value::Object(profile.claims),
            json!({
                "name": "Ada", "picture": "p", "full_name": "Ada", "avatar_url": "p", "custom_claims": { "hd": "example.com" },
                "sub": "x", "provider_id": "x",
            })
        );
        assert_eq!(Profile::of_claims(&json!({ "email": "a@b.c" }), Verified::Always, &[]), None);
        let raw = json!({ "uid": 5, "contact": { "mail": "a@b.c" } });
        let mapping = json!({ "sub": "uid", "email": "contact.mail" });
        let mapped = Profile::mapped(&raw, mapping.as_object().unwrap());
        assert_eq!((&mapped["sub"], &mapped["email"]), (&json!(5), &json!("a@b.c")));
    }
}
