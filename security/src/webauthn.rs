//! Passkeys and security keys: the ceremonies of WebAuthn Level 3, registration (§7.1) and authentication (§7.2), as far as the
//! relying party has to verify them.
//!
//! Attestation is `none` by policy: who made an authenticator is not asked. What a statement claims by itself is checked (`none` is
//! empty, self attestation is signed by the new key); certificates in it are neither read nor trusted. Ceremonies in frames of other
//! origins are refused. Not here: whose a credential is, whether its id is known already, and that a challenge is taken once.

mod attestation;
mod authenticator_data;
mod cbor;
mod client_data;
mod cose;
#[cfg(test)]
mod tests;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use serde_json::Value;

pub use cose::ALGORITHMS;

use attestation::Attestation;
use authenticator_data::AuthenticatorData;

/// Who asks for credentials.
#[derive(Debug, Clone, Copy)]
pub struct RelyingParty<'a> {
    /// The domain to which credentials are bound.
    pub id: &'a str,
    /// Where ceremonies may take place: `https://app.example.com`, `android:apk-key-hash:…` for an app, or [`LOCALHOST`].
    pub origins: &'a [String],
}

/// Among the origins of a relying party: `http://localhost`, at any port.
pub const LOCALHOST: &str = "http://localhost:*";

/// Whether the authenticator has to know who holds it (by a PIN, a finger, a face), beyond that somebody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserVerification {
    Required,
    /// Asked for or not, it is reported and not insisted on.
    Preferred,
}

/// What has to be kept of a new credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pub id: Vec<u8>,
    /// A `COSE_Key` (RFC 9052, 7), as it came.
    pub public_key: Vec<u8>,
    /// The model of the authenticator, as it says; zeros where it does not.
    pub aaguid: [u8; 16],
    pub sign_count: u32,
    /// It may be copied to other devices. This never changes.
    pub backup_eligible: bool,
    /// It has been copied.
    pub backed_up: bool,
    pub user_verified: bool,
    /// How the browser reaches the authenticator (`internal`, `usb`, …), as hints for later ceremonies.
    pub transports: Vec<String>,
    pub attestation_format: String,
}

/// A credential that was registered.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    pub id: &'a [u8],
    pub public_key: &'a [u8],
    /// The last one seen.
    pub sign_count: u32,
    pub backup_eligible: bool,
}

/// What an assertion says, to be kept with the credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    pub sign_count: u32,
    pub backed_up: bool,
    pub user_verified: bool,
    /// Whom the authenticator says it signs in. It is not signed: the caller compares it with the credential's owner.
    pub user_handle: Option<Vec<u8>>,
}

/// Why a ceremony is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Where in the JSON something is missing, or is not what belongs there.
    #[error("not the JSON of a PublicKeyCredential: {0}")]
    Malformed(&'static str),
    #[error("the client data cannot be read")]
    ClientData,
    #[error("the client data are those of {0:?}")]
    Ceremony(String),
    #[error("the challenge is another")]
    Challenge,
    #[error("{0:?} is not an origin of this relying party")]
    Origin(String),
    #[error("the ceremony took place in a frame of another origin")]
    CrossOrigin,
    #[error("the attestation object cannot be read")]
    AttestationObject,
    #[error("the authenticator data cannot be read")]
    AuthenticatorData,
    #[error("the credential is for another relying party")]
    RelyingParty,
    #[error("nobody was present")]
    UserAbsent,
    #[error("the user was not verified")]
    UserUnverified,
    #[error("a credential that is not eligible for backup is backed up")]
    BackupState,
    #[error("whether the credential is eligible for backup has changed")]
    BackupEligibility,
    #[error("the authenticator made no credential")]
    NoCredential,
    #[error("the ids of the credential differ")]
    DifferentIds,
    #[error("the id of the credential is longer than 1023 bytes")]
    LongId,
    #[error("a public key of unknown kind")]
    KeyKind,
    #[error("the public key is not valid")]
    Key,
    /// It contradicts its own format.
    #[error("the attestation statement is not valid")]
    AttestationStatement,
    #[error("the credential is another")]
    OtherCredential,
    #[error("the signature is not valid")]
    Signature,
    /// There may be a copy of the credential.
    #[error("the counter went from {known} to {given}")]
    Counter { known: u32, given: u32 },
}

/// The longest that a credential's id may be, in bytes (§7.1, step 25).
const LONGEST_ID: usize = 1023;
/// The longest that a user handle may be, in bytes (§5.4.3).
const LONGEST_USER_HANDLE: usize = 64;
/// Attestation objects with all their certificates have a tenth of this.
const LONGEST_MEMBER: usize = 64 * 1024;
/// Hints on transports are kept, but not without end.
const MOST_TRANSPORTS: usize = 16;
const LONGEST_TRANSPORT: usize = 32;

/// Base64url as the JSON of a credential has it. Some libraries pad it.
const BASE64URL: GeneralPurpose = {
    let config: GeneralPurposeConfig = NO_PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&alphabet::URL_SAFE, config)
};

/// What the authenticator is to sign, once: 32 random bytes in base64url.
pub fn challenge() -> Result<String, Unspecified> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// The credential of which a response speaks, to look it up. Nothing is verified yet.
pub fn credential_id(response: &Value) -> Result<Vec<u8>, Fault> {
    if text(response, "/type")? != "public-key" {
        return Err(Fault::Malformed("/type"));
    }
    let id = bytes(response, "/id")?;
    if id != bytes(response, "/rawId")? {
        return Err(Fault::DifferentIds);
    }
    match id.len() {
        0 => Err(Fault::Malformed("/id")),
        1..=LONGEST_ID => Ok(id),
        _ => Err(Fault::LongId),
    }
}

/// Verifies what `navigator.credentials.create()` gave for this challenge: a `RegistrationResponseJSON` (§5.1).
pub fn register(
    response: &Value,
    challenge: &str,
    party: &RelyingParty<'_>,
    verification: UserVerification,
) -> Result<Credential, Fault> {
    let id = credential_id(response)?;
    let client_data = bytes(response, "/response/clientDataJSON")?;
    client_data::check(&client_data, "webauthn.create", challenge, party)?;
    let attestation = Attestation::parse(&bytes(response, "/response/attestationObject")?)?;
    let data = AuthenticatorData::parse(&attestation.authenticator_data)?;
    data.check(party, verification)?;
    let attested = data.attested.as_ref().ok_or(Fault::NoCredential)?;
    if attested.id != id {
        return Err(Fault::DifferentIds);
    }
    let key = cose::Key::parse(attested.public_key)?;
    attestation.check(&key, &signed(&attestation.authenticator_data, &client_data))?;
    Ok(Credential {
        id,
        public_key: attested.public_key.to_vec(),
        aaguid: attested.aaguid,
        sign_count: data.sign_count,
        backup_eligible: data.is_backup_eligible(),
        backed_up: data.is_backed_up(),
        user_verified: data.is_user_verified(),
        transports: transports(response)?,
        attestation_format: attestation.format,
    })
}

/// Verifies what `navigator.credentials.get()` gave for this challenge: an `AuthenticationResponseJSON` (§5.1).
pub fn authenticate(
    response: &Value,
    challenge: &str,
    party: &RelyingParty<'_>,
    verification: UserVerification,
    known: &Known<'_>,
) -> Result<Assertion, Fault> {
    if credential_id(response)? != known.id {
        return Err(Fault::OtherCredential);
    }
    let user_handle = user_handle(response)?;
    let client_data = bytes(response, "/response/clientDataJSON")?;
    client_data::check(&client_data, "webauthn.get", challenge, party)?;
    let authenticator_data = bytes(response, "/response/authenticatorData")?;
    let data = AuthenticatorData::parse(&authenticator_data)?;
    data.check(party, verification)?;
    if data.is_backup_eligible() != known.backup_eligible {
        return Err(Fault::BackupEligibility);
    }
    let key = cose::Key::parse(known.public_key)?;
    key.verify(&signed(&authenticator_data, &client_data), &bytes(response, "/response/signature")?)?;
    // An authenticator that does not count says 0 always.
    let counts = data.sign_count != 0 || known.sign_count != 0;
    if counts && data.sign_count <= known.sign_count {
        return Err(Fault::Counter { known: known.sign_count, given: data.sign_count });
    }
    Ok(Assertion {
        sign_count: data.sign_count,
        backed_up: data.is_backed_up(),
        user_verified: data.is_user_verified(),
        user_handle,
    })
}

/// Over what authenticators sign.
fn signed(authenticator_data: &[u8], client_data: &[u8]) -> Vec<u8> {
    [authenticator_data, digest(&SHA256, client_data).as_ref()].concat()
}

/// Absent, null and empty mean the same; browsers differ.
fn user_handle(response: &Value) -> Result<Option<Vec<u8>>, Fault> {
    const PLACE: &str = "/response/userHandle";
    if response.pointer(PLACE).is_none_or(Value::is_null) {
        return Ok(None);
    }
    let handle = bytes(response, PLACE)?;
    if handle.len() > LONGEST_USER_HANDLE {
        return Err(Fault::Malformed(PLACE));
    }
    Ok(Some(handle).filter(|handle| !handle.is_empty()))
}

fn transports(response: &Value) -> Result<Vec<String>, Fault> {
    const PLACE: &str = "/response/transports";
    let names = match response.pointer(PLACE) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(names)) => names,
        Some(_) => return Err(Fault::Malformed(PLACE)),
    };
    let names: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
    let names = names.ok_or(Fault::Malformed(PLACE))?.into_iter();
    let is_name = |name: &&str| (1..=LONGEST_TRANSPORT).contains(&name.len());
    Ok(names.filter(is_name).take(MOST_TRANSPORTS).map(str::to_owned).collect())
}

/// `place` is a JSON pointer.
fn text<'a>(response: &'a Value, place: &'static str) -> Result<&'a str, Fault> {
    response.pointer(place).and_then(Value::as_str).ok_or(Fault::Malformed(place))
}

fn bytes(response: &Value, place: &'static str) -> Result<Vec<u8>, Fault> {
    let text = text(response, place)?;
    if text.len() > LONGEST_MEMBER / 3 * 4 {
        return Err(Fault::Malformed(place));
    }
    BASE64URL.decode(text).map_err(|_| Fault::Malformed(place))
}
