//! What the authenticator says of itself, of the user and of a new credential (§6.1).

use aws_lc_rs::digest::{SHA256, digest};

use super::{Fault, LONGEST_ID, RelyingParty, UserVerification, cbor};

/// Somebody was there.
const USER_PRESENT: u8 = 1 << 0;
/// It was the one to whom the authenticator belongs.
const USER_VERIFIED: u8 = 1 << 2;
const BACKUP_ELIGIBLE: u8 = 1 << 3;
const BACKED_UP: u8 = 1 << 4;
const HAS_CREDENTIAL: u8 = 1 << 6;
const HAS_EXTENSIONS: u8 = 1 << 7;

pub struct AuthenticatorData<'a> {
    relying_party: [u8; 32],
    flags: u8,
    pub sign_count: u32,
    pub attested: Option<Attested<'a>>,
}

/// A new credential (§6.5.1).
pub struct Attested<'a> {
    pub aaguid: [u8; 16],
    pub id: &'a [u8],
    pub public_key: &'a [u8],
}

impl<'a> AuthenticatorData<'a> {
    /// All bytes have to be accounted for.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Fault> {
        let mut rest = bytes;
        let relying_party = take(&mut rest)?;
        let [flags] = take(&mut rest)?;
        let sign_count = u32::from_be_bytes(take(&mut rest)?);
        let has = |flag: u8| flags & flag != 0;
        let attested = if has(HAS_CREDENTIAL) { Some(Attested::parse(&mut rest)?) } else { None };
        if has(HAS_EXTENSIONS) {
            rest = cbor::map(rest).ok_or(Fault::AuthenticatorData)?.1;
        }
        if !rest.is_empty() {
            return Err(Fault::AuthenticatorData);
        }
        Ok(Self { relying_party, flags, sign_count, attested })
    }

    /// §7.1, steps 14 to 17, and §7.2, steps 15 to 18.
    pub fn check(&self, party: &RelyingParty<'_>, verification: UserVerification) -> Result<(), Fault> {
        if digest(&SHA256, party.id.as_bytes()).as_ref() != self.relying_party {
            return Err(Fault::RelyingParty);
        }
        if !self.has(USER_PRESENT) {
            return Err(Fault::UserAbsent);
        }
        if verification == UserVerification::Required && !self.is_user_verified() {
            return Err(Fault::UserUnverified);
        }
        if self.is_backed_up() && !self.is_backup_eligible() {
            return Err(Fault::BackupState);
        }
        Ok(())
    }

    pub fn is_user_verified(&self) -> bool {
        self.has(USER_VERIFIED)
    }

    pub fn is_backup_eligible(&self) -> bool {
        self.has(BACKUP_ELIGIBLE)
    }

    pub fn is_backed_up(&self) -> bool {
        self.has(BACKED_UP)
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

impl<'a> Attested<'a> {
    fn parse(rest: &mut &'a [u8]) -> Result<Self, Fault> {
        let aaguid = take(rest)?;
        let length = usize::from(u16::from_be_bytes(take(rest)?));
        if length > LONGEST_ID {
            return Err(Fault::LongId);
        }
        let (id, key) = rest.split_at_checked(length).ok_or(Fault::AuthenticatorData)?;
        let (_, after) = cbor::map(key).ok_or(Fault::AuthenticatorData)?;
        let public_key = &key[..key.len() - after.len()];
        *rest = after;
        Ok(Self { aaguid, id, public_key })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Fault> {
    let (first, after) = rest.split_first_chunk().ok_or(Fault::AuthenticatorData)?;
    *rest = after;
    Ok(*first)
}
