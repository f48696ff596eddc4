//! Credentials of authenticators as second factors. They are kept as GoTrue's library writes them (`web_authn_credential`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ntier_backing::database::Statement;
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_protocol::auth::request::WebAuthnAnswer;
use ntier_protocol::auth::user::Factor;
use ntier_security::webauthn::{self, Known, UserVerification};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Asked, Facts};
use crate::Auth;
use crate::ceremony::{self, Party};
use crate::error::Error;
use crate::store::{self, sql};
use crate::visitor::SignedIn;

impl Auth {
    pub(super) async fn challenge_webauthn(&self, who: &SignedIn, factor: &Factor) -> Result<Asked, Error> {
        let user = &who.account.user;
        let text = "select id, web_authn_credential ->> 'id' from auth.mfa_factors where user_id = $1 and web_authn_credential is not null";
        let answer = store::read(&self.database, vec![sql(text, &[Some(&user.id)])]).await?;
        let rows = answer.results.first().map(|result| result.rows.as_slice()).unwrap_or_default();
        let own = |row: &&ntier_backing::database::Row| !factor.is_verified() || row.text(0) == Some(&factor.id);
        let known: Vec<Vec<u8>> =
            rows.iter().filter(own).filter_map(|row| STANDARD.decode(row.text(1)?).ok()).collect();
        let challenge = ceremony::challenge()?;
        let party = Party::of(&self.settings);
        let (kind, options) = if factor.is_verified() {
            ("request", party.request(&challenge, &known))
        } else {
            ("create", party.creation(user, &challenge, &known, false))
        };
        Ok(Asked {
            session_data: Some(json!({ "challenge": challenge }).to_string()),
            told: json!({ "webauthn": { "type": kind, "credential_options": { "publicKey": options } } }),
            ..Asked::default()
        })
    }

    /// What says that the credential was shown, or keeps it where it is new.
    pub(super) fn prove_webauthn(
        &self,
        facts: &Facts,
        factor: &Factor,
        asked: Option<&WebAuthnAnswer>,
    ) -> Result<Statement, Error> {
        let invalid = |message: &str| Error::from(Refused::invalid(message));
        let asked = asked.ok_or_else(|| invalid("WebAuthn config required"))?;
        if !matches!(asked.kind.as_str(), "create" | "request") {
            return Err(invalid("WebAuthn type must be create or request"));
        }
        if asked.credential_response.is_null() {
            return Err(invalid("credential_response required"));
        }
        let challenge = facts.session_data["challenge"].as_str().ok_or(Error::Incomplete)?;
        let party = Party::of(&self.settings);
        let (response, party) = (&asked.credential_response, party.relying());
        let failed = |fault: webauthn::Fault| {
            let message = format!("Invalid credential_response: {fault}");
            Error::from(Refused::new(422, Code::MfaVerificationFailed, message))
        };
        match (&facts.credential, factor.is_verified()) {
            (None, false) if asked.kind == "create" => {
                let new =
                    webauthn::register(response, challenge, &party, UserVerification::Preferred).map_err(failed)?;
                let kept = json!({
                    "id": STANDARD.encode(&new.id), "publicKey": STANDARD.encode(&new.public_key),
                    "attestationType": new.attestation_format, "transport": new.transports,
                    "flags": {
                        "userPresent": true, "userVerified": new.user_verified, "backupEligible": new.backup_eligible,
                        "backupState": new.backed_up,
                    },
                    "authenticator": { "AAGUID": STANDARD.encode(new.aaguid), "signCount": new.sign_count },
                });
                Ok(sql(
                    "with new as (update auth.mfa_factors set status = 'verified', updated_at = now(), web_authn_credential = $2::jsonb, \
                     web_authn_aaguid = $3 where id = $1 and web_authn_credential is null returning 1) \
                     select ntier.expect(exists (select from new), 'the factor')",
                    &[Some(&facts.factor), Some(&kept.to_string()), Some(&Uuid::from_bytes(new.aaguid).to_string())],
                ))
            }
            (Some(credential), true) if asked.kind == "request" => {
                let bytes = |place: &str| {
                    credential.pointer(place).and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok())
                };
                let count = credential["authenticator"]["signCount"].as_u64().unwrap_or_default();
                let known = Known {
                    id: &bytes("/id").ok_or(Error::Incomplete)?,
                    public_key: &bytes("/publicKey").ok_or(Error::Incomplete)?,
                    sign_count: u32::try_from(count).map_err(|_| Error::Incomplete)?,
                    backup_eligible: credential["flags"]["backupEligible"] == Value::Bool(true),
                };
                let shown = webauthn::authenticate(response, challenge, &party, UserVerification::Preferred, &known)
                    .map_err(failed)?;
                Ok(sql(
                    "with used as (update auth.mfa_factors set updated_at = now(), \
                     web_authn_credential = jsonb_set(web_authn_credential, '{authenticator,signCount}', $3::jsonb) \
                     where id = $1 and coalesce(web_authn_credential -> 'authenticator' ->> 'signCount', '0') = $2 returning 1) \
                     select ntier.expect(exists (select from used), 'the counter')",
                    &[Some(&facts.factor), Some(&count.to_string()), Some(&shown.sign_count.to_string())],
                ))
            }
            _ => Err(invalid("the factor is not in the state that this type is for")),
        }
    }
}
