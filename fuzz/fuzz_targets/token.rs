//! Tokens that nobody signed, and claims that somebody did.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ntier_security::token::{KeyIds, SigningKey, Verifier, VerifyingKey, sign};

const SECRET: &[u8] = b"a secret that is long enough for HS256";

fuzz_target!(|text: &str| {
    let verifier = Verifier::new(vec![VerifyingKey::hmac(SECRET)], KeyIds::OrNone, Some("app".into()));
    assert!(verifier.verify(text, 1_800_000_000).is_err());
    let signed = sign(text, &SigningKey::Hmac(SECRET)).expect("HMAC signs everything");
    if let Ok(verified) = verifier.verify(&signed, 1_800_000_000) {
        assert_eq!(verified.claims, text);
    }
});
