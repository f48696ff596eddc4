//! What WebAuthn's ceremonies are asked with: options as a browser takes them (`parseCreationOptionsFromJSON`), and for whom.

use ntier_backing::outbound::is_this_machine;
use ntier_protocol::auth::user::User;
use ntier_security::webauthn::{self, ALGORITHMS, LOCALHOST, RelyingParty};
use serde_json::{Value, json};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::settings::Settings;

/// Seconds from a challenge to its answer.
pub const PATIENCE: i64 = 300;

/// Who asks for credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    pub id: String,
    name: String,
    origins: Vec<String>,
}

impl Party {
    /// What the settings say, else the site's own host.
    pub fn of(settings: &Settings) -> Self {
        let said = &settings.webauthn;
        let site = settings.site_url.parse::<http::Uri>().unwrap_or_default();
        let host = site.host().unwrap_or("localhost");
        // Credentials are bound to names, never to addresses.
        let host = if is_this_machine(host) { "localhost" } else { host };
        let origin = match (site.scheme_str(), site.authority()) {
            (Some(scheme), Some(authority)) if host != "localhost" => format!("{scheme}://{authority}"),
            _ => LOCALHOST.to_owned(),
        };
        let id = said.rp_id.clone().unwrap_or_else(|| host.to_owned());
        Self {
            name: said.rp_display_name.clone().unwrap_or_else(|| id.clone()),
            origins: if said.rp_origins.is_empty() { vec![origin] } else { said.rp_origins.clone() },
            id,
        }
    }

    pub fn relying(&self) -> RelyingParty<'_> {
        RelyingParty { id: &self.id, origins: &self.origins }
    }

    /// Options for a new credential. `known` are those that the user has.
    pub fn creation(&self, user: &User, challenge: &str, known: &[Vec<u8>], discoverable: bool) -> Value {
        let address = if user.email.is_empty() { &user.phone } else { &user.email };
        let name = user.user_metadata.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let parameters: Vec<Value> =
            ALGORITHMS.iter().map(|algorithm| json!({ "type": "public-key", "alg": algorithm })).collect();
        let selection = if discoverable {
            json!({ "residentKey": "required", "requireResidentKey": true, "userVerification": "preferred" })
        } else {
            json!({ "userVerification": "preferred" })
        };
        json!({
            "rp": { "id": self.id, "name": self.name },
            "user": { "id": handle(&user.id), "name": address, "displayName": name.unwrap_or(address) },
            "challenge": challenge,
            "pubKeyCredParams": parameters,
            "timeout": PATIENCE * 1000,
            "excludeCredentials": descriptors(known),
            "authenticatorSelection": selection,
            "attestation": "none",
        })
    }

    /// Options for showing a credential: one of these, or whichever the authenticator has.
    pub fn request(&self, challenge: &str, known: &[Vec<u8>]) -> Value {
        json!({
            "challenge": challenge, "timeout": PATIENCE * 1000, "rpId": self.id, "allowCredentials": descriptors(known),
            "userVerification": "preferred",
        })
    }
}

/// What an authenticator keeps of a user.
fn handle(user: &str) -> String {
    URL_SAFE_NO_PAD.encode(user)
}

fn descriptors(known: &[Vec<u8>]) -> Vec<Value> {
    known.iter().map(|id| json!({ "type": "public-key", "id": URL_SAFE_NO_PAD.encode(id) })).collect()
}

/// A new challenge, as it is kept and as it is sent.
pub fn challenge() -> Result<String, crate::error::Error> {
    webauthn::challenge().map_err(|_| crate::error::Error::Random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::WebAuthn;

    #[test]
    fn a_party_is_the_site_unless_the_settings_say_otherwise() {
        for (site, said, id, origins) in [
            ("https://app.example.com/x", WebAuthn::default(), "app.example.com", vec!["https://app.example.com"]),
            (
                "https://app.example.com:8443",
                WebAuthn::default(),
                "app.example.com",
                vec!["https://app.example.com:8443"],
            ),
            ("http://127.0.0.1:54321", WebAuthn::default(), "localhost", vec![LOCALHOST]),
            ("http://localhost:3000", WebAuthn::default(), "localhost", vec![LOCALHOST]),
            (
                "https://app.example.com",
                WebAuthn {
                    rp_id: Some("example.com".into()),
                    rp_origins: vec!["https://a.example.com".into()],
                    ..WebAuthn::default()
                },
                "example.com",
                vec!["https://a.example.com"],
            ),
        ] {
            let settings = Settings { site_url: site.into(), webauthn: said, ..Settings::default() };
            let party = Party::of(&settings);
            assert_eq!(
                (party.id.as_str(), party.origins),
                (id, origins.into_iter().map(str::to_owned).collect()),
                "{site}"
            );
        }
    }
}
