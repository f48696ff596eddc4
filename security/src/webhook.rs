//! Signatures of calls to services of others, so that these know who calls (Standard Webhooks 1.0).

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::{Secret, UnixTime};

/// Reads `v1,whsec_…`; `None` where it is none.
pub fn secret(text: &str) -> Option<Secret<Vec<u8>>> {
    let encoded = text.trim().strip_prefix("v1,")?;
    let encoded = encoded.strip_prefix("whsec_").unwrap_or(encoded);
    STANDARD.decode(encoded).ok().filter(|secret| !secret.is_empty()).map(Secret::new)
}

/// The value of `webhook-signature`, one signature for each secret.
pub fn sign(secrets: &[Secret<Vec<u8>>], id: &str, timestamp: UnixTime, body: &str) -> String {
    let signed = format!("{id}.{timestamp}.{body}");
    let one = |secret: &Secret<Vec<u8>>| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        format!("v1,{}", STANDARD.encode(hmac::sign(&key, signed.as_bytes())))
    };
    secrets.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_the_standards() {
        let secrets = [secret("v1,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap()];
        let signed = sign(&secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let two = [secret("v1,whsec_AAAA").unwrap(), secret("v1,BBBB").unwrap()];
        assert_eq!(sign(&two, "a", 1, "").split(' ').count(), 2);
        for text in ["", "whsec_AAAA", "v1,", "v1,whsec_", "v1,whsec_?", "v2,whsec_AAAA"] {
            assert!(secret(text).is_none(), "{text}");
        }
    }
}
