//! Key pairs that sign tokens: made here, or read from a private JSON Web Key (RFC 7517, RFC 8037). Of what is published the
//! private half is never a part.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPairComponents, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Secret;
use crate::keys::Fault;

/// How a pair signs, by its name in a token (RFC 7518, 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Algorithm {
    /// ECDSA on P-256.
    #[default]
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// RSA; those made here have 2048 bits.
    #[serde(rename = "RS256")]
    Rs256,
}

impl Algorithm {
    pub const ALL: [Self; 3] = [Self::Es256, Self::EdDsa, Self::Rs256];

    pub fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
        }
    }

    /// The one of this name, however it is written.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// A key pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    pub id: String,
    pub algorithm: Algorithm,
    /// PKCS#8, base64url.
    pub pkcs8: Secret<String>,
}

/// Why a JSON Web Key does not sign here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("it is none of EC on P-256, OKP on Ed25519, and RSA")]
    Kind,
    #[error("it is not for signatures")]
    Use,
    #[error("keys of its kind sign as {expected} here, not as {found}")]
    Algorithm { expected: Algorithm, found: String },
    #[error("its member {0} is missing, or is not base64url")]
    Missing(&'static str),
    #[error("its members do not make a key, or not one that is safe")]
    Rejected,
}

impl Pair {
    /// Makes one; its id is its thumbprint (RFC 7638).
    pub fn generate(algorithm: Algorithm) -> Result<Self, Fault> {
        let random = SystemRandom::new();
        let pkcs8 = match algorithm {
            Algorithm::Es256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map(bytes),
            Algorithm::EdDsa => Ed25519KeyPair::generate_pkcs8v1(&random).map(bytes),
            Algorithm::Rs256 => RsaKeyPair::generate(KeySize::Rsa2048).and_then(|pair| rsa_pkcs8(&pair)),
        };
        Self::new(None, algorithm, &pkcs8.map_err(|_| Fault::Random)?)
    }

    /// Takes one from elsewhere; without a `kid`, its id is its thumbprint.
    pub fn from_jwk(jwk: &Value) -> Result<Self, Unusable> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let member = |name: &'static str| {
            let decoded = text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
            decoded.ok_or(Unusable::Missing(name))
        };
        let algorithm = match (text("kty"), text("crv")) {
            (Some("EC"), Some("P-256")) => Algorithm::Es256,
            (Some("OKP"), Some("Ed25519")) => Algorithm::EdDsa,
            (Some("RSA"), _) => Algorithm::Rs256,
            _ => return Err(Unusable::Kind),
        };
        if text("use").is_some_and(|usage| usage != "sig") {
            return Err(Unusable::Use);
        }
        if let Some(found) = text("alg").filter(|found| *found != algorithm.name()) {
            return Err(Unusable::Algorithm { expected: algorithm, found: found.to_owned() });
        }
        let pkcs8 = match algorithm {
            Algorithm::Es256 => {
                let point = [vec![4], member("x")?, member("y")?].concat();
                let (kind, secret) = (&ECDSA_P256_SHA256_FIXED_SIGNING, member("d")?);
                let pair = EcdsaKeyPair::from_private_key_and_public_key(kind, &secret, &point);
                pair.map_err(|_| Unusable::Rejected)?.to_pkcs8v1().map(bytes)
            }
            Algorithm::EdDsa => {
                let pair = Ed25519KeyPair::from_seed_and_public_key(&member("d")?, &member("x")?);
                pair.map_err(|_| Unusable::Rejected)?.to_pkcs8v1().map(bytes)
            }
            Algorithm::Rs256 => {
                let pair = RsaKeyPair::from_components(&KeyPairComponents {
                    public_key: RsaPublicKeyComponents { n: member("n")?, e: member("e")? },
                    d: member("d")?,
                    p: member("p")?,
                    q: member("q")?,
                    dP: member("dp")?,
                    dQ: member("dq")?,
                    qInv: member("qi")?,
                });
                rsa_pkcs8(&pair.map_err(|_| Unusable::Rejected)?)
            }
        };
        let pkcs8 = pkcs8.map_err(|_| Unusable::Rejected)?;
        Self::new(text("kid"), algorithm, &pkcs8).map_err(|_| Unusable::Rejected)
    }

    fn new(id: Option<&str>, algorithm: Algorithm, pkcs8: &[u8]) -> Result<Self, Fault> {
        let pkcs8 = Secret::new(URL_SAFE_NO_PAD.encode(pkcs8));
        let mut pair = Self { id: id.unwrap_or_default().to_owned(), algorithm, pkcs8 };
        if pair.id.is_empty() {
            let thumbprint = digest(&SHA256, pair.members()?.to_string().as_bytes());
            pair.id = URL_SAFE_NO_PAD.encode(thumbprint);
        }
        Ok(pair)
    }

    /// Its public half as a JSON Web Key.
    pub fn jwk(&self) -> Result<Value, Fault> {
        let mut jwk = json!({
            "alg": self.algorithm.name(), "kid": self.id, "use": "sig", "key_ops": ["verify"], "ext": true,
        });
        if let (Some(jwk), Value::Object(members)) = (jwk.as_object_mut(), self.members()?) {
            jwk.extend(members);
        }
        Ok(jwk)
    }

    /// What makes the public half: of its kind the required members, in the order of a thumbprint.
    fn members(&self) -> Result<Value, Fault> {
        let (pkcs8, text) = (self.decoded()?, |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes));
        Ok(match self.algorithm {
            Algorithm::Es256 => {
                let pair = elliptic(&pkcs8)?;
                // An uncompressed point: 4, x, y.
                let point = pair.public_key().as_ref();
                let (x, y) = point.get(1..65).ok_or(Fault::SigningKey)?.split_at(32);
                json!({ "crv": "P-256", "kty": "EC", "x": text(x), "y": text(y) })
            }
            Algorithm::EdDsa => {
                json!({ "crv": "Ed25519", "kty": "OKP", "x": text(edwards(&pkcs8)?.public_key().as_ref()) })
            }
            Algorithm::Rs256 => {
                let pair = rsa(&pkcs8)?;
                let RsaPublicKeyComponents::<Vec<u8>> { n, e } = pair.public_key().into();
                json!({ "e": text(&e), "kty": "RSA", "n": text(&n) })
            }
        })
    }

    /// The signature of a token's first two parts.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Fault> {
        let (pkcs8, random) = (self.decoded()?, SystemRandom::new());
        let failed = |_| Fault::SigningKey;
        match self.algorithm {
            Algorithm::Es256 => elliptic(&pkcs8)?.sign(&random, message).map(bytes).map_err(failed),
            Algorithm::EdDsa => edwards(&pkcs8)?.try_sign(message).map(bytes).map_err(failed),
            Algorithm::Rs256 => {
                let pair = rsa(&pkcs8)?;
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }

    fn decoded(&self) -> Result<Vec<u8>, Fault> {
        URL_SAFE_NO_PAD.decode(self.pkcs8.expose()).map_err(|_| Fault::SigningKey)
    }
}

fn elliptic(pkcs8: &[u8]) -> Result<EcdsaKeyPair, Fault> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map_err(|_| Fault::SigningKey)
}

fn edwards(pkcs8: &[u8]) -> Result<Ed25519KeyPair, Fault> {
    Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| Fault::SigningKey)
}

fn rsa(pkcs8: &[u8]) -> Result<RsaKeyPair, Fault> {
    RsaKeyPair::from_pkcs8(pkcs8).map_err(|_| Fault::SigningKey)
}

fn rsa_pkcs8(pair: &RsaKeyPair) -> Result<Vec<u8>, aws_lc_rs::error::Unspecified> {
    AsDer::<Pkcs8V1Der<'_>>::as_der(pair).map(|der| der.as_ref().to_vec())
}

fn bytes(of: impl AsRef<[u8]>) -> Vec<u8> {
    of.as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UnixTime;
    use crate::token::{KeyIds, SigningKey, Verifier, VerifyingKey, sign};

    const NOW: UnixTime = 1_800_000_000;
    /// EC, OKP (RFC 8037, A.1) and RSA.
    const JWKS: &str = include_str!("signing/test_keys.json");

    fn jwks() -> Vec<Value> {
        serde_json::from_str(JWKS).unwrap()
    }

    fn verifies(by: &Pair, token: &str) -> bool {
        let key = VerifyingKey::from_jwk(&by.jwk().unwrap()).unwrap();
        Verifier::new(vec![key], KeyIds::OrNone, None).verify(token, NOW).is_ok()
    }

    #[test]
    fn what_a_pair_signs_its_public_half_verifies() {
        for algorithm in Algorithm::ALL {
            let (pair, other) = (Pair::generate(algorithm).unwrap(), Pair::generate(algorithm).unwrap());
            let token = sign("{}", &SigningKey::Pair(&pair)).unwrap();
            assert!(verifies(&pair, &token), "{algorithm}");
            assert!(!verifies(&Pair { id: pair.id.clone(), ..other }, &token), "{algorithm}");
        }
    }

    #[test]
    fn algorithms_are_known_by_their_names() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::named(&algorithm.name().to_lowercase()), Some(algorithm));
        }
        assert_eq!(Algorithm::named("HS256"), None);
    }

    #[test]
    fn private_json_web_keys_become_pairs() {
        let expected = [
            (Algorithm::Es256, "elliptic"),
            // RFC 8037, A.3.
            (Algorithm::EdDsa, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),
            (Algorithm::Rs256, "f9GTjOcCFnAQvmXYcEo5MMWiEHKnNuCoxEQpumuQfTA"),
        ];
        for (jwk, (algorithm, id)) in jwks().iter().zip(expected) {
            let pair = Pair::from_jwk(jwk).unwrap();
            assert_eq!((pair.algorithm, pair.id.as_str()), (algorithm, id));
            assert!(verifies(&pair, &sign("{}", &SigningKey::Pair(&pair)).unwrap()), "{algorithm}");
            let public = pair.jwk().unwrap();
            for (name, value) in jwk.as_object().unwrap() {
                match name.as_str() {
                    "d" | "p" | "q" | "dp" | "dq" | "qi" => assert_eq!(public.get(name), None, "{algorithm}"),
                    "key_ops" => assert_eq!(public[name], json!(["verify"])),
                    _ => assert_eq!(public[name], *value, "{algorithm} {name}"),
                }
            }
        }
    }

    #[test]
    fn other_json_web_keys_are_refused_with_their_reason() {
        let jwks = jwks();
        let with = |at: usize, name: &str, value: Value| {
            let mut jwk = jwks[at].clone();
            jwk[name] = value;
            jwk
        };
        let found = |found: &str, expected| Unusable::Algorithm { expected, found: found.to_owned() };
        let cases = [
            (json!(null), Unusable::Kind),
            (json!({ "kty": "oct", "k": "AAAA" }), Unusable::Kind),
            (with(0, "crv", json!("P-384")), Unusable::Kind),
            (with(0, "use", json!("enc")), Unusable::Use),
            (with(0, "alg", json!("ES384")), found("ES384", Algorithm::Es256)),
            (with(2, "alg", json!("RS512")), found("RS512", Algorithm::Rs256)),
            (with(0, "d", json!(null)), Unusable::Missing("d")),
            (with(1, "d", json!("not base64url")), Unusable::Missing("d")),
            (with(2, "qi", json!(1)), Unusable::Missing("qi")),
            (with(0, "x", jwks[0]["y"].clone()), Unusable::Rejected),
            (with(1, "d", json!("AAAA")), Unusable::Rejected),
            (with(1, "x", jwks[0]["x"].clone()), Unusable::Rejected),
            (with(2, "p", jwks[2]["q"].clone()), Unusable::Rejected),
        ];
        for (jwk, reason) in cases {
            assert_eq!(Pair::from_jwk(&jwk), Err(reason), "{jwk}");
        }
    }
}
