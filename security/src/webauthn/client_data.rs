//! What the browser says of a ceremony, and the authenticator signs (§5.8.1).

use serde::Deserialize;

use super::{Fault, LOCALHOST, RelyingParty};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientData {
    r#type: String,
    challenge: String,
    origin: String,
    cross_origin: Option<bool>,
    top_origin: Option<String>,
}

/// §7.1, steps 5 to 11, and §7.2, steps 8 to 14.
pub fn check(json: &[u8], ceremony: &str, challenge: &str, party: &RelyingParty<'_>) -> Result<(), Fault> {
    // "Any leading byte order mark (BOM) must be stripped."
    let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
    let data: ClientData = serde_json::from_slice(json).map_err(|_| Fault::ClientData)?;
    if data.r#type != ceremony {
        return Err(Fault::Ceremony(data.r#type));
    }
    if data.challenge != challenge {
        return Err(Fault::Challenge);
    }
    let is_own = |own: &String| *own == data.origin || (own == LOCALHOST && is_local(&data.origin));
    if !party.origins.iter().any(is_own) {
        return Err(Fault::Origin(data.origin));
    }
    if data.cross_origin == Some(true) || data.top_origin.is_some() {
        return Err(Fault::CrossOrigin);
    }
    Ok(())
}

/// `http://localhost` with a port or without.
fn is_local(origin: &str) -> bool {
    let Some(port) = origin.strip_prefix("http://localhost") else { return false };
    port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_has_any_port() {
        for (origin, expected) in [
            ("http://localhost", true),
            ("http://localhost:5173", true),
            ("https://localhost:5173", false),
            ("http://localhost:", false),
            ("http://localhost:99999", false),
            ("http://localhost.evil.com", false),
            ("http://localhost:80@evil.com", false),
        ] {
            assert_eq!(is_local(origin), expected, "{origin}");
        }
    }
}
