//! An authenticator in software: makes a credential, and shows it (WebAuthn Level 3, 6.3).

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// See the module.
#[derive(Debug)]
pub struct Authenticator {
    pub origin: String,
    key: EcdsaKeyPair,
    id: [u8; 16],
    /// Whom it knows, as the options of its making said.
    user: Vec<u8>,
    count: u32,
}

impl Authenticator {
    /// # Panics
    /// When there are no random numbers.
    pub fn new(origin: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).expect("random numbers");
        Self { origin: origin.to_owned(), key, id, user: Vec::new(), count: 0 }
    }

    /// What `navigator.credentials.create()` gives for these options.
    ///
    /// # Panics
    /// When the options have no challenge.
    pub fn create(&mut self, options: &Value) -> Value {
        self.user = URL_SAFE_NO_PAD.decode(text(&options["user"]["id"])).expect("a handle");
        let mut data = self.data(text(&options["rp"]["id"]), 0x45);
        data.extend([0; 16]);
        data.extend([0, 16]);
        data.extend(self.id);
        // COSE_Key: EC2, ES256, P-256, x, y.
        let point = self.key.public_key().as_ref();
        data.extend([0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20]);
        data.extend(&point[1..33]);
        data.extend([0x22, 0x58, 0x20]);
        data.extend(&point[33..]);
        // {"fmt": "none", "attStmt": {}, "authData": …}
        let mut object = b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x58".to_vec();
        object.push(u8::try_from(data.len()).expect("short"));
        object.extend(&data);
        let client = self.client_data("webauthn.create", text(&options["challenge"]));
        self.response(&json!({ "clientDataJSON": encoded(client.as_bytes()), "attestationObject": encoded(&object) }))
    }

    /// What `navigator.credentials.get()` gives for these options.
    ///
    /// # Panics
    /// When the options have no challenge.
    pub fn get(&mut self, options: &Value) -> Value {
        self.count += 1;
        let data = self.data(text(&options["rpId"]), 0x05);
        let client = self.client_data("webauthn.get", text(&options["challenge"]));
        let signed = [data.as_slice(), digest(&SHA256, client.as_bytes()).as_ref()].concat();
        let signature = self.key.sign(&SystemRandom::new(), &signed).expect("signed");
        self.response(&json!({
            "clientDataJSON": encoded(client.as_bytes()), "authenticatorData": encoded(&data), "signature": encoded(signature.as_ref()),
            "userHandle": encoded(&self.user),
        }))
    }

    fn data(&self, party: &str, flags: u8) -> Vec<u8> {
        [digest(&SHA256, party.as_bytes()).as_ref(), &[flags], &self.count.to_be_bytes()].concat()
    }

    fn client_data(&self, kind: &str, challenge: &str) -> String {
        json!({ "type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": false }).to_string()
    }

    fn response(&self, response: &Value) -> Value {
        let id = encoded(&self.id);
        json!({ "id": id, "rawId": id, "type": "public-key", "response": response, "clientExtensionResults": {} })
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
