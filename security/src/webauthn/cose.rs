//! Public keys of credentials (RFC 9053; WebAuthn §5.8.5 and §6.5.1.1), and what they sign (§6.5.5).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, VerificationAlgorithm,
};

use super::Fault;
use super::cbor::{self, Map, bytes, number};

const ES256: i64 = -7;
const EDDSA: i64 = -8;
const ES384: i64 = -35;
const RS256: i64 = -257;

/// The algorithms that are taken, by their COSE numbers; the most common comes first, as `pubKeyCredParams` wants them.
pub const ALGORITHMS: [i64; 4] = [ES256, EDDSA, ES384, RS256];

/// Labels of a `COSE_Key`. Those below zero mean something else for each kind of key.
const KIND: i64 = 1;
const ALGORITHM: i64 = 3;
const CURVE: i64 = -1;
const X: i64 = -2;
const Y: i64 = -3;
const MODULUS: i64 = -1;
const EXPONENT: i64 = -2;

const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

pub struct Key {
    pub algorithm: i64,
    key: ParsedPublicKey,
}

impl Key {
    /// Kind, algorithm and curve have to agree: the algorithm is the key's, never the signature's choice.
    pub fn parse(cose: &[u8]) -> Result<Self, Fault> {
        let (map, rest) = cbor::map(cose).ok_or(Fault::Key)?;
        if !rest.is_empty() {
            return Err(Fault::Key);
        }
        let algorithm = number(&map, ALGORITHM).ok_or(Fault::KeyKind)?;
        let key = match (number(&map, KIND), algorithm, number(&map, CURVE)) {
            (Some(1), EDDSA, Some(6)) => {
                ParsedPublicKey::new(&ED25519, coordinate(&map, X, 32)?).map_err(|_| Fault::Key)
            }
            (Some(2), ES256, Some(1)) => elliptic(&map, &ECDSA_P256_SHA256_ASN1, 32),
            (Some(2), ES384, Some(2)) => elliptic(&map, &ECDSA_P384_SHA384_ASN1, 48),
            (Some(3), RS256, _) => rsa(&map),
            _ => Err(Fault::KeyKind),
        };
        Ok(Self { algorithm, key: key? })
    }

    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Fault> {
        self.key.verify_sig(message, signature).map_err(|_| Fault::Signature)
    }
}

/// Compressed points are not allowed (§5.8.5).
fn elliptic(map: &Map, algorithm: &'static dyn VerificationAlgorithm, length: usize) -> Result<ParsedPublicKey, Fault> {
    // SEC 1, 2.3.3: a point that is not compressed.
    let point = [&[4], coordinate(map, X, length)?, coordinate(map, Y, length)?].concat();
    ParsedPublicKey::new(algorithm, point).map_err(|_| Fault::Key)
}

fn coordinate(map: &Map, label: i64, length: usize) -> Result<&[u8], Fault> {
    bytes(map, label).filter(|bytes| bytes.len() == length).ok_or(Fault::Key)
}

fn rsa(map: &Map) -> Result<ParsedPublicKey, Fault> {
    let n = bytes(map, MODULUS).ok_or(Fault::Key)?;
    let e = bytes(map, EXPONENT).ok_or(Fault::Key)?;
    let unused = n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    // The library asks only when it verifies.
    if !MODULUS_BITS.contains(&(n.len() * 8 - unused)) {
        return Err(Fault::Key);
    }
    RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).map_err(|_| Fault::Key)
}
