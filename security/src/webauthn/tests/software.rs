//! An authenticator in software. What it says can be changed before it is signed.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ciborium::Value as Cbor;
use serde_json::{Value, json};

pub const CHALLENGE: &str = "Y2hhbGxlbmdl";
pub const ORIGIN: &str = "https://app.example.com";
pub const PARTY: &str = "example.com";

/// User present and verified.
pub const PRESENT_AND_VERIFIED: u8 = 0b101;
pub const BACKUP_ELIGIBLE: u8 = 0b1000;
pub const BACKED_UP: u8 = 0b1_0000;
pub const CREDENTIAL: u8 = 0b100_0000;
pub const EXTENSIONS: u8 = 0b1000_0000;

pub enum Pair {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

pub struct Software {
    pub pair: Pair,
    pub id: Vec<u8>,
}

/// What is said in one ceremony.
pub struct Said {
    pub client_data: Value,
    /// Sent in the place of the client data above.
    pub raw_client_data: Option<Vec<u8>>,
    pub party: &'static str,
    pub flags: u8,
    pub count: u32,
    pub id: Vec<u8>,
    pub key: Vec<u8>,
    /// Extensions, or whatever follows.
    pub after: Vec<u8>,
    pub format: &'static str,
    /// Sent in the place of the format's own.
    pub statement: Option<Cbor>,
}

impl Software {
    pub fn p256() -> Self {
        Self::of(Pair::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap()))
    }

    pub fn p384() -> Self {
        Self::of(Pair::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap()))
    }

    pub fn ed25519() -> Self {
        Self::of(Pair::Ed25519(Ed25519KeyPair::generate().unwrap()))
    }

    pub fn rsa() -> Self {
        Self::of(Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    fn of(pair: Pair) -> Self {
        Self { pair, id: b"the credential".to_vec() }
    }

    pub fn algorithm(&self) -> i64 {
        match self.pair {
            Pair::P256(_) => -7,
            Pair::P384(_) => -35,
            Pair::Ed25519(_) => -8,
            Pair::Rsa(_) => -257,
        }
    }

    pub fn public_key(&self) -> Vec<u8> {
        cbor(&Cbor::Map(self.labels().into_iter().map(|(label, value)| (label.into(), value)).collect()))
    }

    /// What a `COSE_Key` says.
    pub fn labels(&self) -> Vec<(i64, Cbor)> {
        let elliptic = |pair: &EcdsaKeyPair, curve: i64| {
            let point = &pair.public_key().as_ref()[1..];
            let (x, y) = point.split_at(point.len() / 2);
            vec![(1, 2.into()), (-1, curve.into()), (-2, x.into()), (-3, y.into())]
        };
        let mut labels = match &self.pair {
            Pair::P256(pair) => elliptic(pair, 1),
            Pair::P384(pair) => elliptic(pair, 2),
            Pair::Ed25519(pair) => vec![(1, 1.into()), (-1, 6.into()), (-2, pair.public_key().as_ref().into())],
            Pair::Rsa(pair) => {
                let public = pair.public_key();
                let (n, e) = (public.modulus().big_endian_without_leading_zero().into(), public.exponent());
                vec![(1, 3.into()), (-1, n), (-2, e.big_endian_without_leading_zero().into())]
            }
        };
        labels.insert(1, (3, self.algorithm().into()));
        labels
    }

    pub fn creates(&self) -> Said {
        Said {
            client_data: json!({ "type": "webauthn.create", "challenge": CHALLENGE, "origin": ORIGIN, "crossOrigin": false }),
            raw_client_data: None,
            party: PARTY,
            flags: PRESENT_AND_VERIFIED | CREDENTIAL,
            count: 0,
            id: self.id.clone(),
            key: self.public_key(),
            after: Vec::new(),
            format: "none",
            statement: None,
        }
    }

    pub fn asserts(&self) -> Said {
        let mut said = Said { flags: PRESENT_AND_VERIFIED, ..self.creates() };
        said.client_data["type"] = "webauthn.get".into();
        said
    }

    pub fn registration(&self, said: &Said) -> Value {
        let (client_data, data) = (said.client_data(), said.authenticator_data());
        let statement = said.statement.clone().unwrap_or_else(|| {
            Cbor::Map(match said.format {
                "none" => Vec::new(),
                "packed" => {
                    let signature = self.sign(&data, &client_data);
                    vec![("alg".into(), self.algorithm().into()), ("sig".into(), signature.into())]
                }
                _ => vec![("x5c".into(), Cbor::Array(vec![b"a certificate".to_vec().into()]))],
            })
        });
        let object = cbor(&Cbor::Map(vec![
            ("fmt".into(), said.format.into()),
            ("attStmt".into(), statement),
            ("authData".into(), data.into()),
        ]));
        let members = json!({ "attestationObject": base64(&object), "transports": ["internal", "hybrid"] });
        self.response(&client_data, members)
    }

    pub fn assertion(&self, said: &Said) -> Value {
        let (client_data, data) = (said.client_data(), said.authenticator_data());
        let signature = self.sign(&data, &client_data);
        let members = json!({
            "authenticatorData": base64(&data), "signature": base64(&signature), "userHandle": base64(b"the user"),
        });
        self.response(&client_data, members)
    }

    fn response(&self, client_data: &[u8], mut members: Value) -> Value {
        members["clientDataJSON"] = base64(client_data).into();
        let id = base64(&self.id);
        json!({ "type": "public-key", "id": id, "rawId": id, "response": members, "clientExtensionResults": {} })
    }

    fn sign(&self, data: &[u8], client_data: &[u8]) -> Vec<u8> {
        let message = [data, digest(&SHA256, client_data).as_ref()].concat();
        let random = SystemRandom::new();
        match &self.pair {
            Pair::P256(pair) | Pair::P384(pair) => pair.sign(&random, &message).unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(&message).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, &message, &mut signature).unwrap();
                signature
            }
        }
    }
}

impl Said {
    pub fn client_data(&self) -> Vec<u8> {
        self.raw_client_data.clone().unwrap_or_else(|| self.client_data.to_string().into_bytes())
    }

    pub fn authenticator_data(&self) -> Vec<u8> {
        let mut data = digest(&SHA256, self.party.as_bytes()).as_ref().to_vec();
        data.push(self.flags);
        data.extend(self.count.to_be_bytes());
        if self.flags & CREDENTIAL != 0 {
            data.extend([7; 16]);
            data.extend(u16::try_from(self.id.len()).unwrap().to_be_bytes());
            data.extend(&self.id);
            data.extend(&self.key);
        }
        data.extend(&self.after);
        data
    }
}

pub fn cbor(value: &Cbor) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(value, &mut out).unwrap();
    out
}

pub fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
