//! What an authenticator that nobody made might say: of a new credential, and with a key that was never one.
#![no_main]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use ntier_security::webauthn::{Known, RelyingParty, UserVerification, authenticate, register};
use serde_json::json;

fuzz_target!(|bytes: &[u8]| {
    let party = RelyingParty { id: "example.com", origins: &["https://example.com".to_owned()] };
    let said = |ceremony: &str, members: serde_json::Value| {
        let client = json!({ "type": ceremony, "challenge": "x", "origin": "https://example.com" }).to_string();
        let mut response = json!({ "type": "public-key", "id": "AAAA", "rawId": "AAAA", "response": members });
        response["response"]["clientDataJSON"] = URL_SAFE_NO_PAD.encode(client).into();
        response
    };
    let base64 = URL_SAFE_NO_PAD.encode(bytes);
    let response = said("webauthn.create", json!({ "attestationObject": base64 }));
    let _ = register(&response, "x", &party, UserVerification::Preferred);
    let known = Known { id: &[0; 3], public_key: bytes, sign_count: 0, backup_eligible: false };
    let (data, key) = bytes.split_at(bytes.len() / 2);
    for (data, key) in [(bytes, key), (data, key)] {
        let members = json!({ "authenticatorData": URL_SAFE_NO_PAD.encode(data), "signature": "AAAA" });
        let response = said("webauthn.get", members);
        let known = Known { public_key: key, ..known };
        assert!(authenticate(&response, "x", &party, UserVerification::Preferred, &known).is_err());
    }
});
