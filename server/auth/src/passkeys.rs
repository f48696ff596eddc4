//! `/passkeys`: sign-in by a credential that an authenticator keeps, and the credentials of a user.
//! Source: GoTrue, `internal/api/passkey_*.go`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Response};
use ntier_backing::database::{self, Row, Statement};
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_protocol::auth::request::{self, FriendlyName, PasskeyAnswer};
use ntier_protocol::auth::user::Factor;
use ntier_security::webauthn::{self, Known, UserVerification};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::ceremony::{self, PATIENCE, Party};
use crate::error::Error;
use crate::limits::Limit;
use crate::mfa::is_second;
use crate::store::{self, Actor, By, sql};
use crate::visitor::{SignedIn, Visitor};
use crate::{Auth, now, respond};

/// Of one user. Source: GoTrue, `MAX_PASSKEYS_PER_USER`.
const MOST: usize = 10;
/// Characters of a name.
const LONGEST_NAME: usize = 120;

impl Auth {
    pub(crate) async fn passkeys(
        &self,
        method: &Method,
        path: &[&str],
        visitor: &Visitor,
        body: &Bytes,
    ) -> Result<Response<Bytes>, Error> {
        if !self.settings.passkeys {
            return Err(Refused::new(404, Code::PasskeyDisabled, "Passkeys are disabled").into());
        }
        match (method, path) {
            (&Method::POST, ["authentication", "options"]) => self.ask_for_passkey(visitor).await,
            (&Method::POST, ["authentication", "verify"]) => self.by_passkey(visitor, &request::read(body)?).await,
            (&Method::POST, ["registration", "options"]) => self.offer_passkey(visitor).await,
            (&Method::POST, ["registration", "verify"]) => self.add_passkey(visitor, &request::read(body)?).await,
            (&Method::GET, []) => {
                let who = self.signed_in(visitor).await?;
                Ok(respond::json(200, &self.passkeys_of(&who.account.user.id).await?))
            }
            (&Method::PATCH, [id]) => self.rename_passkey(visitor, id, &request::read(body)?).await,
            (&Method::DELETE, [id]) => {
                let who = self.signed_in(visitor).await?;
                may_manage(&who)?;
                let actor = Actor::user(&who.account.user);
                self.remove_passkey(visitor, &who.account.user.id, id, &actor).await
            }
            _ => Ok(respond::not_found()),
        }
    }

    async fn ask_for_passkey(&self, visitor: &Visitor) -> Result<Response<Bytes>, Error> {
        self.limit(Limit::Passkey, visitor, None).await?;
        let challenge = ceremony::challenge()?;
        let options = Party::of(&self.settings).request(&challenge, &[]);
        self.begin_ceremony(None, "authentication", &challenge, &options).await
    }

    async fn offer_passkey(&self, visitor: &Visitor) -> Result<Response<Bytes>, Error> {
        let who = self.signed_in(visitor).await?;
        may_register(&who)?;
        self.limit(Limit::Passkey, visitor, None).await?;
        let user = &who.account.user;
        let text = "select encode(credential_id, 'base64') from auth.webauthn_credentials where user_id = $1";
        let answer = store::read(&self.database, vec![sql(text, &[Some(&user.id)])]).await?;
        let rows = answer.results.first().map(|result| result.rows.as_slice()).unwrap_or_default();
        let known: Vec<Vec<u8>> = rows.iter().map(|row| bytes(row, 0)).collect::<Result<_, _>>()?;
        if known.len() >= MOST {
            return Err(too_many().into());
        }
        let challenge = ceremony::challenge()?;
        let options = Party::of(&self.settings).creation(user, &challenge, &known, true);
        self.begin_ceremony(Some(&user.id), "registration", &challenge, &options).await
    }

    async fn begin_ceremony(
        &self,
        user: Option<&str>,
        kind: &str,
        challenge: &str,
        options: &Value,
    ) -> Result<Response<Bytes>, Error> {
        let id = Uuid::new_v4().to_string();
        let insert = "insert into auth.webauthn_challenges (id, user_id, challenge_type, session_data, expires_at) \
            values ($1, $2, $3, $4::jsonb, now() + make_interval(secs => $5::float8))";
        let kept = json!({ "challenge": challenge }).to_string();
        let patience = PATIENCE.to_string();
        let insert = sql(insert, &[Some(&id), user, Some(kind), Some(&kept), Some(&patience)]);
        store::write(&self.database, vec![insert]).await?;
        Ok(respond::json(200, &json!({ "challenge_id": id, "options": options, "expires_at": now() + PATIENCE })))
    }

    /// The challenge that is answered, which is spent by it.
    async fn spend_challenge(&self, asked: &PasskeyAnswer, kind: &str, user: Option<&str>) -> Result<String, Error> {
        if asked.challenge_id.is_empty() {
            return Err(Refused::invalid("challenge_id is required").into());
        }
        if asked.credential.is_null() {
            return Err(Refused::invalid("credential is required").into());
        }
        let id = Uuid::try_parse(&asked.challenge_id)
            .map_err(|_| Refused::invalid("challenge_id must be a valid UUID"))?
            .to_string();
        let text = "delete from auth.webauthn_challenges where id = $1 and challenge_type = $2 and user_id is not distinct from $3::uuid \
            returning session_data ->> 'challenge', expires_at < now()";
        let answer = store::write(&self.database, vec![sql(text, &[Some(&id), Some(kind), user])]).await?;
        let row = answer.results.first().and_then(|result| result.rows.first());
        let unknown = || Refused::new(400, Code::WebAuthnChallengeNotFound, "Challenge not found or already used");
        let row = row.ok_or_else(unknown)?;
        if row.text(1) == Some("t") {
            return Err(Refused::new(400, Code::WebAuthnChallengeExpired, "Challenge has expired").into());
        }
        row.text(0).map(str::to_owned).ok_or(Error::Incomplete)
    }

    async fn add_passkey(&self, visitor: &Visitor, asked: &PasskeyAnswer) -> Result<Response<Bytes>, Error> {
        let who = self.signed_in(visitor).await?;
        may_register(&who)?;
        self.limit(Limit::Passkey, visitor, None).await?;
        let user = &who.account.user;
        let challenge = self.spend_challenge(asked, "registration", Some(&user.id)).await?;
        let party = Party::of(&self.settings);
        let verified = webauthn::register(&asked.credential, &challenge, &party.relying(), UserVerification::Preferred);
        let credential = verified.map_err(|fault| failed(&fault))?;
        let id = Uuid::new_v4().to_string();
        let flag = |is_so: bool| Some(if is_so { "true" } else { "false" });
        let aaguid = Uuid::from_bytes(credential.aaguid).to_string();
        let most = MOST.to_string();
        let all = vec![
            // Of two that come at once both are counted.
            sql("select from auth.users where id = $1 for update", &[Some(&user.id)]),
            sql(
                "select ntier.expect((select count(*) from auth.webauthn_credentials where user_id = $1) < $2::bigint, 'the number')",
                &[Some(&user.id), Some(&most)],
            ),
            sql(
                "insert into auth.webauthn_credentials (id, user_id, credential_id, public_key, attestation_type, aaguid, sign_count, \
                 transports, backup_eligible, backed_up, friendly_name) \
                 values ($1, $2, decode($3, 'base64'), decode($4, 'base64'), $5, $6, $7, $8::jsonb, $9, $10, 'Passkey')",
                &[
                    Some(&id),
                    Some(&user.id),
                    Some(&STANDARD.encode(&credential.id)),
                    Some(&STANDARD.encode(&credential.public_key)),
                    Some(&credential.attestation_format),
                    Some(&aaguid),
                    Some(&credential.sign_count.to_string()),
                    Some(&json!(credential.transports).to_string()),
                    flag(credential.backup_eligible),
                    flag(credential.backed_up),
                ],
            ),
            audit("passkey_created", &Actor::user(user), visitor, &id),
            select(&id),
        ];
        match store::write(&self.database, all).await {
            Ok(answer) => Ok(respond::json(200, &shown(&answer)?)),
            Err(Error::Changed(_)) => Err(too_many().into()),
            Err(Error::Taken(_)) => {
                let message = "This credential is already registered";
                Err(Refused::new(422, Code::WebAuthnCredentialExists, message).into())
            }
            Err(error) => Err(error),
        }
    }

    async fn by_passkey(&self, visitor: &Visitor, asked: &PasskeyAnswer) -> Result<Response<Bytes>, Error> {
        self.limit(Limit::Passkey, visitor, None).await?;
        let challenge = self.spend_challenge(asked, "authentication", None).await?;
        let credential = webauthn::credential_id(&asked.credential).map_err(|fault| failed(&fault))?;
        let text = "select id, user_id, encode(public_key, 'base64'), sign_count, backup_eligible from auth.webauthn_credentials \
            where credential_id = decode($1, 'base64')";
        let find = sql(text, &[Some(&STANDARD.encode(&credential))]);
        let answer = store::read(&self.database, vec![find]).await?;
        let unknown =
            || Error::from(Refused::new(400, Code::WebAuthnVerificationFailed, "Credential verification failed"));
        let row = answer.results.first().and_then(|result| result.rows.first()).ok_or_else(unknown)?;
        let (id, owner) = (row.text(0).ok_or(Error::Incomplete)?, row.text(1).ok_or(Error::Incomplete)?);
        let count = row.text(3).unwrap_or("0");
        let known = Known {
            id: &credential,
            public_key: &bytes(row, 2)?,
            sign_count: count.parse().map_err(|_| Error::Incomplete)?,
            backup_eligible: row.text(4) == Some("t"),
        };
        let party = Party::of(&self.settings);
        let preferred = UserVerification::Preferred;
        let verified = webauthn::authenticate(&asked.credential, &challenge, &party.relying(), preferred, &known);
        let assertion = verified.map_err(|fault| failed(&fault))?;
        // The authenticator says whom it means: nobody is signed in as another.
        if assertion.user_handle.as_deref() != Some(owner.as_bytes()) {
            return Err(unknown());
        }
        let account = store::find(&self.database, By::Id(owner)).await?.ok_or_else(unknown)?;
        let user = &account.user;
        if !user.email.is_empty() && user.email_confirmed_at.is_none() {
            return Err(Refused::new(403, Code::EmailNotConfirmed, "Email not confirmed").into());
        }
        if !user.phone.is_empty() && user.phone_confirmed_at.is_none() {
            return Err(Refused::new(403, Code::PhoneNotConfirmed, "Phone not confirmed").into());
        }
        if account.is_banned {
            return Err(Refused::new(403, Code::UserBanned, "User is banned").into());
        }
        let new = self.begin("passkey");
        let next = assertion.sign_count.to_string();
        let backed_up = if assertion.backed_up { "true" } else { "false" };
        let mut all = vec![
            sql(
                "with used as (update auth.webauthn_credentials set sign_count = $3, backed_up = $4, last_used_at = now(), \
                 updated_at = now() where id = $1 and sign_count = $2 returning 1) \
                 select ntier.expect(exists (select from used), 'the passkey')",
                &[Some(id), Some(count), Some(&next), Some(backed_up)],
            ),
            audit("login", &Actor::user(user), visitor, id),
        ];
        all.extend(new.statements(owner, visitor));
        match store::write(&self.database, all).await {
            Ok(answer) => Ok(respond::json(200, &self.begun(&new, store::last_user(&answer)?, None).await?)),
            // It was removed meanwhile, or used by somebody who has a copy.
            Err(Error::Changed(_)) => Err(unknown()),
            Err(error) => Err(error),
        }
    }

    /// The user's passkeys, the oldest first.
    pub(crate) async fn passkeys_of(&self, user: &str) -> Result<Value, Error> {
        let text = format!(
            "select coalesce(json_agg({SHOWN} order by c.created_at), '[]') from auth.webauthn_credentials c where c.user_id = $1"
        );
        let answer = store::read(&self.database, vec![sql(&text, &[Some(user)])]).await?;
        shown(&answer)
    }

    async fn rename_passkey(
        &self,
        visitor: &Visitor,
        id: &str,
        asked: &FriendlyName,
    ) -> Result<Response<Bytes>, Error> {
        let who = self.signed_in(visitor).await?;
        let id = passkey(id)?;
        let name = asked.friendly_name.as_str();
        if name.is_empty() {
            return Err(Refused::invalid("friendly_name is required").into());
        }
        if name.chars().count() > LONGEST_NAME {
            let message = format!("friendly_name must be {LONGEST_NAME} characters or less");
            return Err(Refused::invalid(message).into());
        }
        let user = &who.account.user;
        let rename = "with renamed as (update auth.webauthn_credentials set friendly_name = $3, updated_at = now() \
            where id = $1 and user_id = $2 returning 1) select ntier.expect(exists (select from renamed), 'the passkey')";
        let rename = sql(rename, &[Some(&id), Some(&user.id), Some(name)]);
        let all = vec![rename, audit("passkey_updated", &Actor::user(user), visitor, &id), select(&id)];
        match store::write(&self.database, all).await {
            Ok(answer) => Ok(respond::json(200, &shown(&answer)?)),
            Err(Error::Changed(_)) => Err(gone().into()),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn remove_passkey(
        &self,
        visitor: &Visitor,
        user: &str,
        id: &str,
        actor: &Actor<'_>,
    ) -> Result<Response<Bytes>, Error> {
        let id = passkey(id)?;
        let remove = "with removed as (delete from auth.webauthn_credentials where id = $1 and user_id = $2 returning 1) \
            select ntier.expect(exists (select from removed), 'the passkey')";
        let all = vec![sql(remove, &[Some(&id), Some(user)]), audit("passkey_deleted", actor, visitor, &id)];
        match store::write(&self.database, all).await {
            Ok(_) => Ok(respond::nothing()),
            Err(Error::Changed(_)) => Err(gone().into()),
            Err(error) => Err(error),
        }
    }
}

/// A passkey as its user sees it; what is null is left out.
const SHOWN: &str = "json_strip_nulls(json_build_object('id', c.id, 'friendly_name', nullif(c.friendly_name, ''), \
    'created_at', ntier.utc(c.created_at), 'last_used_at', ntier.utc(c.last_used_at)))";

fn select(id: &str) -> Statement {
    sql(&format!("select {SHOWN} from auth.webauthn_credentials c where c.id = $1"), &[Some(id)])
}

/// The JSON of the last statement.
fn shown(answer: &database::Answer) -> Result<Value, Error> {
    let text = answer.results.last().and_then(|result| result.rows.first()?.text(0));
    text.and_then(|json| serde_json::from_str(json).ok()).ok_or(Error::Incomplete)
}

fn audit(action: &str, actor: &Actor<'_>, visitor: &Visitor, passkey: &str) -> Statement {
    store::audit(action, "account", actor, &visitor.address, &json!({ "passkey_id": passkey }))
}

fn may_register(who: &SignedIn) -> Result<(), Error> {
    if who.account.is_sso {
        return Err(Refused::new(422, Code::ValidationFailed, "SSO users cannot register passkeys").into());
    }
    if who.account.user.is_anonymous {
        let message = "Anonymous user not allowed to perform these actions";
        return Err(Refused::new(403, Code::NoAuthorization, message).into());
    }
    may_manage(who)
}

/// Whoever has a second factor shows it before the ways to sign in change.
fn may_manage(who: &SignedIn) -> Result<(), Error> {
    if who.account.user.factors.iter().any(Factor::is_verified) && !is_second(who) {
        let message = "AAL2 session is required to manage passkeys when MFA is enabled";
        return Err(Refused::new(403, Code::InsufficientAal, message).into());
    }
    Ok(())
}

fn passkey(id: &str) -> Result<String, Error> {
    Ok(Uuid::try_parse(id).map_err(|_| gone())?.to_string())
}

fn gone() -> Refused {
    Refused::new(404, Code::WebAuthnCredentialNotFound, "Passkey not found")
}

fn too_many() -> Refused {
    Refused::new(422, Code::TooManyPasskeys, "Maximum number of passkeys reached")
}

/// The reason is the developer's to know: mostly an origin or a domain that the settings do not name.
fn failed(fault: &webauthn::Fault) -> Error {
    let message = format!("Credential verification failed: {fault}");
    Refused::new(400, Code::WebAuthnVerificationFailed, message).into()
}

fn bytes(row: &Row, column: usize) -> Result<Vec<u8>, Error> {
    // PostgreSQL breaks its lines.
    let text: String = row.text(column).unwrap_or_default().split_whitespace().collect();
    STANDARD.decode(text).map_err(|_| Error::Incomplete)
}
