//! Second factors: `/factors`, with authenticator apps (TOTP), messages to a phone, and credentials of authenticators (WebAuthn).
//! Source: GoTrue, `internal/api/mfa.go`.

mod phone;
mod totp;
mod webauthn;

use bytes::Bytes;
use http::{Method, Response};
use ntier_backing::database::{Row, Statement};
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_protocol::auth::request::{self, Challenged, Enroll, VerifyFactor};
use ntier_protocol::auth::user::Factor;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::Error;
use crate::limits::Limit;
use crate::mail::Notice;
use crate::settings::Use;
use crate::store::{self, Actor, Way, sql};
use crate::visitor::{SessionOf, SignedIn, Visitor};
use crate::{Auth, now, respond};

/// Seconds from a challenge to its answer, and from the beginning of an enrolment to its end.
const PATIENCE: i64 = 300;

/// What a factor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Totp,
    Phone,
    WebAuthn,
}

impl Kind {
    fn of(text: &str) -> Result<Self, Error> {
        Ok(match text {
            "totp" => Self::Totp,
            "phone" => Self::Phone,
            "webauthn" => Self::WebAuthn,
            _ => return Err(Refused::invalid("factor_type needs to be totp, phone, or webauthn").into()),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Totp => "totp",
            Self::Phone => "phone",
            Self::WebAuthn => "webauthn",
        }
    }

    /// How a session says that this factor was shown.
    fn way(self) -> &'static str {
        match self {
            Self::Totp => "totp",
            Self::Phone => "mfa/phone",
            Self::WebAuthn => "mfa/webauthn",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Totp => "TOTP",
            Self::Phone => "Phone",
            Self::WebAuthn => "WebAuthn",
        }
    }

    fn settings(self, auth: &Auth) -> Use {
        let mfa = &auth.settings.mfa;
        match self {
            Self::Totp => mfa.totp,
            Self::Phone => mfa.phone,
            Self::WebAuthn => mfa.webauthn,
        }
    }

    fn may_enroll(self, auth: &Auth) -> Result<(), Error> {
        let code = match self {
            Self::Totp => Code::MfaTotpEnrollDisabled,
            Self::Phone => Code::MfaPhoneEnrollDisabled,
            Self::WebAuthn => Code::MfaWebAuthnEnrollDisabled,
        };
        if self.settings(auth).enroll {
            return Ok(());
        }
        Err(Refused::new(422, code, format!("MFA enroll is disabled for {}", self.title())).into())
    }

    fn may_verify(self, auth: &Auth) -> Result<(), Error> {
        let code = match self {
            Self::Totp => Code::MfaTotpVerifyDisabled,
            Self::Phone => Code::MfaPhoneVerifyDisabled,
            Self::WebAuthn => Code::MfaWebAuthnVerifyDisabled,
        };
        if self.settings(auth).verify {
            return Ok(());
        }
        Err(Refused::new(422, code, format!("MFA verification is disabled for {}", self.title())).into())
    }
}

/// A new factor: what is kept of it, and what its user is told.
#[derive(Debug, Default)]
struct Enrolled {
    secret: Option<String>,
    phone: Option<String>,
    told: Value,
}

/// A new challenge, likewise.
#[derive(Debug, Default)]
struct Asked {
    otp_code: Option<String>,
    session_data: Option<String>,
    told: Value,
    /// What is sent.
    statements: Vec<Statement>,
}

/// What is known when a challenge is answered.
#[derive(Debug)]
struct Facts {
    factor: String,
    secret: Option<String>,
    last_used_step: Option<i64>,
    phone: String,
    /// The credential, as JSON.
    credential: Option<Value>,
    otp_code: String,
    session_data: Value,
}

impl Auth {
    pub(crate) async fn factors(
        &self,
        method: &Method,
        path: &[&str],
        visitor: &Visitor,
        body: &Bytes,
    ) -> Result<Response<Bytes>, Error> {
        let who = self.signed_in(visitor).await?;
        if who.account.user.is_anonymous {
            let message = "Anonymous user not allowed to perform these actions";
            return Err(Refused::new(403, Code::NoAuthorization, message).into());
        }
        match (method, path) {
            (&Method::POST, []) => self.enroll(visitor, &who, &request::read(body)?).await,
            (&Method::POST, [id, "challenge"]) => {
                self.challenge(visitor, &who, own(&who, id)?, &request::read(body)?).await
            }
            (&Method::POST, [id, "verify"]) => {
                self.verify_factor(visitor, &who, own(&who, id)?, &request::read(body)?).await
            }
            (&Method::DELETE, [id]) => self.unenroll(visitor, &who, own(&who, id)?).await,
            _ => Ok(respond::not_found()),
        }
    }

    async fn enroll(&self, visitor: &Visitor, who: &SignedIn, asked: &Enroll) -> Result<Response<Bytes>, Error> {
        let user = &who.account.user;
        let kind = Kind::of(&asked.factor_type)?;
        kind.may_enroll(self)?;
        self.limit(Limit::Factor, visitor, None).await?;
        // An enrolment that was given up does not stand in the way.
        let expired = "delete from auth.mfa_factors where user_id = $1 and status = 'unverified' \
            and created_at < now() - make_interval(secs => $2::float8)";
        let patience = PATIENCE.to_string();
        let expired = sql(expired, &[Some(&user.id), Some(&patience)]);
        let answer = store::write(&self.database, vec![expired, store::select_user(&user.id)]).await?;
        let mut factors = store::last_user(&answer)?.factors;
        let mut all = Vec::new();
        if kind == Kind::Phone {
            let again = phone::enrolled(&factors, &asked.phone)?;
            factors.retain(|factor| !again.contains(&factor.id));
            all.extend(again.iter().flat_map(|factor| remove(factor)));
        }
        let name = asked.friendly_name.as_str();
        if factors.iter().any(|factor| factor.friendly_name.as_deref().unwrap_or_default() == name) {
            let message = format!("A factor with the friendly name {name:?} for this user already exists");
            return Err(Refused::new(422, Code::MfaFactorNameConflict, message).into());
        }
        if factors.len() >= self.settings.mfa.most {
            let message = "Maximum number of verified factors reached, unenroll to continue";
            return Err(Refused::new(422, Code::TooManyEnrolledMfaFactors, message).into());
        }
        if factors.iter().any(Factor::is_verified) && !is_second(who) {
            let message = "AAL2 required to enroll a new factor";
            return Err(Refused::new(403, Code::InsufficientAal, message).into());
        }
        let id = Uuid::new_v4().to_string();
        let new = match kind {
            Kind::Totp => self.enroll_totp(user, &id, &asked.issuer)?,
            Kind::Phone => phone::enroll(&asked.phone)?,
            Kind::WebAuthn => Enrolled { told: json!({}), ..Enrolled::default() },
        };
        all.push(sql(
            "insert into auth.mfa_factors (id, user_id, friendly_name, factor_type, status, created_at, updated_at, secret, phone) \
             values ($1, $2, $3, $4, 'unverified', now(), now(), $5, $6)",
            &[Some(&id), Some(&user.id), Some(name), Some(kind.name()), new.secret.as_deref(), new.phone.as_deref()],
        ));
        let traits = json!({ "factor_id": id, "factor_type": kind.name() });
        all.push(store::audit("factor_in_progress", "factor", &Actor::user(user), &visitor.address, &traits));
        store::write(&self.database, all).await?;
        let mut told = json!({ "id": id, "type": kind.name(), "friendly_name": name });
        told.as_object_mut()
            .into_iter()
            .for_each(|told| told.extend(new.told.as_object().cloned().unwrap_or_default()));
        Ok(respond::json(200, &told))
    }

    async fn challenge(
        &self,
        visitor: &Visitor,
        who: &SignedIn,
        factor: &Factor,
        asked: &Challenged,
    ) -> Result<Response<Bytes>, Error> {
        let kind = Kind::of(&factor.factor_type)?;
        kind.may_verify(self)?;
        may_prove(who, factor)?;
        self.limit(Limit::Factor, visitor, None).await?;
        let new = match kind {
            Kind::Totp => Asked { told: json!({}), ..Asked::default() },
            Kind::Phone => self.challenge_phone(visitor, &who.account.user.id, factor, asked).await?,
            Kind::WebAuthn => self.challenge_webauthn(who, factor).await?,
        };
        let id = Uuid::new_v4().to_string();
        let insert = sql(
            "insert into auth.mfa_challenges (id, factor_id, created_at, ip_address, otp_code, web_authn_session_data) \
             values ($1, $2, now(), $3::inet, $4, $5::jsonb)",
            &[
                Some(&id),
                Some(&factor.id),
                Some(&visitor.address),
                new.otp_code.as_deref(),
                new.session_data.as_deref(),
            ],
        );
        let note = "update auth.mfa_factors set last_challenged_at = clock_timestamp() where id = $1";
        let traits = json!({ "factor_id": factor.id, "factor_status": factor.status });
        let actor = Actor::user(&who.account.user);
        let audit = store::audit("challenge_created", "factor", &actor, &visitor.address, &traits);
        let mut all = vec![insert, sql(note, &[Some(&factor.id)]), audit];
        all.extend(new.statements);
        store::write(&self.database, all).await?;
        let mut told = json!({ "id": id, "type": kind.name(), "expires_at": now() + PATIENCE });
        told.as_object_mut()
            .into_iter()
            .for_each(|told| told.extend(new.told.as_object().cloned().unwrap_or_default()));
        Ok(respond::json(200, &told))
    }

    async fn verify_factor(
        &self,
        visitor: &Visitor,
        who: &SignedIn,
        factor: &Factor,
        asked: &VerifyFactor,
    ) -> Result<Response<Bytes>, Error> {
        let kind = Kind::of(&factor.factor_type)?;
        kind.may_verify(self)?;
        if asked.code.is_empty() && kind != Kind::WebAuthn {
            return Err(Refused::invalid("Code needs to be non-empty").into());
        }
        may_prove(who, factor)?;
        let session = who.session.as_ref().ok_or_else(no_session)?;
        // The second bucket is the factor's: whoever has the password guesses no codes.
        self.limit(Limit::Factor, visitor, Some(&factor.id)).await?;
        let (challenge, facts) = self.challenge_facts(visitor, factor, &asked.challenge_id).await?;
        let applied = match kind {
            Kind::Totp => self.prove_totp(&facts, &asked.code),
            Kind::Phone => phone::prove(&self.codes, &facts, &asked.code),
            Kind::WebAuthn => self.prove_webauthn(&facts, factor, asked.webauthn.as_ref()),
        };
        let named = (factor.id.as_str(), kind.name());
        self.factor_attempt(visitor, &who.account.user.id, named, applied.is_ok()).await?;
        let applied = applied?;
        let (user, id) = (&who.account.user, session.id.as_str());
        let traits = json!({ "factor_id": factor.id, "challenge_id": challenge, "factor_type": kind.name() });
        let mut statements = vec![
            sql("select from auth.users where id = $1 for update", &[Some(&user.id)]),
            sql(
                "select ntier.expect((select aal from auth.sessions where id = $3) = 'aal2' or exists (select from auth.mfa_factors \
                 where id = $2 and status = 'verified') or not exists (select from auth.mfa_factors \
                 where user_id = $1 and status = 'verified'), 'the factor')",
                &[Some(&user.id), Some(&factor.id), Some(id)],
            ),
            sql(
                "with spent as (update auth.mfa_challenges set verified_at = now() where id = $1 and verified_at is null returning 1) \
                 select ntier.expect(exists (select from spent), 'the challenge')",
                &[Some(&challenge)],
            ),
            applied,
        ];
        statements.extend([
            sql(
                "update auth.sessions set aal = 'aal2', factor_id = $2, updated_at = now(), refreshed_at = now() at time zone 'UTC', \
                 refresh_token_counter = coalesce(refresh_token_counter, 0) + 1 where id = $1",
                &[Some(id), Some(&factor.id)],
            ),
            sql(
                "insert into auth.mfa_amr_claims (id, session_id, created_at, updated_at, authentication_method) \
                 values (gen_random_uuid(), $1, now(), now(), $2) \
                 on conflict (session_id, authentication_method) do update set updated_at = now()",
                &[Some(id), Some(kind.way())],
            ),
            // Sessions with the first factor alone have to show the second too.
            sql(
                "delete from auth.sessions where user_id = $1 and id <> $2 and aal < 'aal2'",
                &[Some(&user.id), Some(id)],
            ),
            sql(
                "delete from auth.mfa_factors where user_id = $1 and status = 'unverified' and factor_type = $2::auth.factor_type",
                &[Some(&user.id), Some(kind.name())],
            ),
            store::audit("verification_attempted", "factor", &Actor::user(user), &visitor.address, &traits),
        ]);
        if !factor.is_verified() {
            statements.extend(self.notice(Notice::FactorEnrolled, user, json!({ "FactorType": kind.name() })));
        }
        match store::write(&self.database, statements).await {
            Err(Error::Changed(_)) => return Err(wrong(kind).into()),
            done => done.map(drop)?,
        }
        let found = store::session(&self.database, id).await?.ok_or(Error::Incomplete)?;
        let uuid = Uuid::try_parse(id).map_err(|_| Error::Incomplete)?;
        Ok(respond::json(200, &self.session(&uuid, found.counter, found).await?))
    }

    /// The challenge that is answered, if it still can be.
    async fn challenge_facts(
        &self,
        visitor: &Visitor,
        factor: &Factor,
        challenge: &str,
    ) -> Result<(String, Facts), Error> {
        let gone = || Refused::new(422, Code::MfaFactorNotFound, "MFA factor with the provided challenge ID not found");
        let challenge = Uuid::try_parse(challenge).map_err(|_| gone())?.to_string();
        let text = "select f.secret, f.last_used_step, f.phone, f.web_authn_credential, c.otp_code, c.web_authn_session_data, \
            extract(epoch from c.created_at)::bigint, c.verified_at is not null, host(c.ip_address) = host($3::inet) \
            from auth.mfa_challenges c join auth.mfa_factors f on f.id = c.factor_id where c.id = $1 and f.id = $2";
        let facts = sql(text, &[Some(&challenge), Some(&factor.id), Some(&visitor.address)]);
        let answer = store::read(&self.database, vec![facts]).await?;
        let row = answer.results.first().and_then(|result| result.rows.first()).ok_or_else(gone)?;
        let created: i64 = row.text(6).and_then(|text| text.parse().ok()).ok_or(Error::Incomplete)?;
        if row.text(7) == Some("t") || now() > created + PATIENCE {
            let message = format!(
                "MFA challenge {challenge} has expired, verify against another challenge or create a new challenge."
            );
            return Err(Refused::new(422, Code::MfaChallengeExpired, message).into());
        }
        if row.text(8) != Some("t") {
            let message = "Challenge and verify IP addresses mismatch.";
            return Err(Refused::new(422, Code::MfaIpAddressMismatch, message).into());
        }
        let json = |row: &Row, column: usize| row.text(column).and_then(|json| serde_json::from_str(json).ok());
        let facts = Facts {
            factor: factor.id.clone(),
            secret: row.text(0).map(str::to_owned),
            last_used_step: row.text(1).and_then(|text| text.parse().ok()),
            phone: row.text(2).unwrap_or_default().to_owned(),
            credential: json(row, 3),
            otp_code: row.text(4).unwrap_or_default().to_owned(),
            session_data: json(row, 5).unwrap_or_default(),
        };
        Ok((challenge, facts))
    }

    async fn unenroll(&self, visitor: &Visitor, who: &SignedIn, factor: &Factor) -> Result<Response<Bytes>, Error> {
        let session = who.session.as_ref().ok_or_else(no_session)?;
        if factor.is_verified() && !is_second(who) {
            let message = "AAL2 required to unenroll verified factor";
            return Err(Refused::new(422, Code::InsufficientAal, message).into());
        }
        let mut all = remove(&factor.id);
        let traits = json!({ "factor_id": factor.id, "factor_status": factor.status, "session_id": session.id });
        let actor = Actor::user(&who.account.user);
        all.push(store::audit("factor_unenrolled", "factor", &actor, &visitor.address, &traits));
        if factor.is_verified() {
            let more = json!({ "FactorType": factor.factor_type });
            all.extend(self.notice(Notice::FactorUnenrolled, &who.account.user, more));
        }
        store::write(&self.database, all).await?;
        Ok(respond::json(200, &json!({ "id": factor.id })))
    }
}

fn wrong(kind: Kind) -> Refused {
    let message = match kind {
        Kind::Totp => "Invalid TOTP code entered",
        Kind::Phone => "Invalid MFA Phone code entered",
        Kind::WebAuthn => "Invalid WebAuthn response",
    };
    Refused::new(422, Code::MfaVerificationFailed, message)
}

/// The factor goes, and what sessions owe to it.
pub fn remove(factor: &str) -> Vec<Statement> {
    vec![
        sql(
            "delete from auth.mfa_amr_claims where authentication_method in ('totp', 'mfa/phone', 'mfa/webauthn') \
             and session_id in (select id from auth.sessions where factor_id = $1)",
            &[Some(factor)],
        ),
        sql("update auth.sessions set aal = 'aal1', factor_id = null where factor_id = $1", &[Some(factor)]),
        sql("delete from auth.mfa_factors where id = $1", &[Some(factor)]),
    ]
}

/// The user's own factor with this id.
fn own<'a>(who: &'a SignedIn, id: &str) -> Result<&'a Factor, Error> {
    find(&who.account.user.factors, id)
}

pub fn find<'a>(factors: &'a [Factor], id: &str) -> Result<&'a Factor, Error> {
    let id = Uuid::try_parse(id);
    let id = id.map_err(|_| Refused::new(404, Code::ValidationFailed, "factor_id must be an UUID"))?.to_string();
    let found = factors.iter().find(|factor| factor.id == id);
    found.ok_or_else(|| Refused::new(404, Code::MfaFactorNotFound, "Factor not found").into())
}

fn no_session() -> Error {
    Refused::new(403, Code::SessionNotFound, "A valid session and factor are required").into()
}

/// A second factor beside others is proven by whoever has shown one of those: else somebody who knows the password begins with one of
/// their own before there is another, and ends with it later.
fn may_prove(who: &SignedIn, factor: &Factor) -> Result<(), Error> {
    if factor.is_verified() || is_second(who) || !who.account.user.factors.iter().any(Factor::is_verified) {
        return Ok(());
    }
    Err(Refused::new(403, Code::InsufficientAal, "AAL2 required to verify a new factor").into())
}

/// Whether the session has shown a second factor.
pub fn is_second(who: &SignedIn) -> bool {
    who.session.as_ref().is_some_and(|SessionOf { ways, .. }| level(ways) == "aal2")
}

/// The assurance level of a session that came about in these ways.
pub fn level(ways: &[Way]) -> &'static str {
    let is_second = |way: &Way| matches!(way.method.as_str(), "totp" | "mfa/phone" | "mfa/webauthn");
    if ways.iter().any(is_second) { "aal2" } else { "aal1" }
}
