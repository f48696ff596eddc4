//! What comes with a new credential (§6.5): its authenticator data, and a statement on where it is from (§8).

use ciborium::Value;

use super::cbor::{self, Map, bytes, find, number};
use super::{Fault, cose};

/// The longest name of a format (§8.1).
const LONGEST_FORMAT: usize = 32;

pub struct Attestation {
    pub format: String,
    pub authenticator_data: Vec<u8>,
    statement: Map,
}

impl Attestation {
    pub fn parse(object: &[u8]) -> Result<Self, Fault> {
        let read = || {
            let (map, rest) = cbor::map(object)?;
            let format = find(&map, "fmt")?.as_text()?;
            let is_name =
                (1..=LONGEST_FORMAT).contains(&format.len()) && format.bytes().all(|byte| byte.is_ascii_graphic());
            let attestation = Self {
                format: format.to_owned(),
                authenticator_data: bytes(&map, "authData")?.to_vec(),
                statement: find(&map, "attStmt")?.as_map()?.clone(),
            };
            (rest.is_empty() && is_name).then_some(attestation)
        };
        read().ok_or(Fault::AttestationObject)
    }

    /// `key` is the new credential's own. A statement with certificates, and one of another format, is taken as if there were none.
    pub fn check(&self, key: &cose::Key, signed: &[u8]) -> Result<(), Fault> {
        let is_there = |name: &str| self.statement.iter().any(|(key, _)| *key == Value::from(name));
        match self.format.as_str() {
            "none" if self.statement.is_empty() => Ok(()),
            "none" => Err(Fault::AttestationStatement),
            // Self attestation (§8.2): signed with the credential's key, where others have a certificate.
            "packed" if !is_there("x5c") => {
                let signature = bytes(&self.statement, "sig").ok_or(Fault::AttestationStatement)?;
                if number(&self.statement, "alg") != Some(key.algorithm) {
                    return Err(Fault::AttestationStatement);
                }
                key.verify(signed, signature)
            }
            _ => Ok(()),
        }
    }
}
