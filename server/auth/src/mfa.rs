//! Second factors: `/factors`, with authenticator apps (TOTP). Source: GoTrue, `internal/api/mfa.go`.

use bytes::Bytes;
use http::{Method, Response};
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_protocol::auth::request::{self, Enroll, VerifyFactor};
use ntier_protocol::auth::user::Factor;
use ntier_security::totp;
use qrcode::QrCode;
use qrcode::render::svg;
use serde_json::json;
use uuid::Uuid;

use crate::error::Error;
use crate::limits::Limit;
use crate::store::{self, Actor, Way, sql};
use crate::visitor::{SessionOf, SignedIn, Visitor};
use crate::{Auth, now, respond};

/// Factors of one user, verified or not. Source: GoTrue, `MAX_ENROLLED_FACTORS`.
const MOST: usize = 10;
/// Seconds from a challenge to its answer, and from the beginning of an enrolment to its end.
const PATIENCE: i64 = 300;

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
            (&Method::POST, [id, "challenge"]) => self.challenge(visitor, &who, own(&who, id)?).await,
            (&Method::POST, [id, "verify"]) => {
                self.verify_factor(visitor, &who, own(&who, id)?, &request::read(body)?).await
            }
            (&Method::DELETE, [id]) => self.unenroll(visitor, &who, own(&who, id)?).await,
            _ => Ok(respond::not_found()),
        }
    }

    async fn enroll(&self, visitor: &Visitor, who: &SignedIn, asked: &Enroll) -> Result<Response<Bytes>, Error> {
        let user = &who.account.user;
        match asked.factor_type.as_str() {
            "totp" => {}
            "phone" => {
                let message = "MFA enroll is disabled for Phone";
                return Err(Refused::new(422, Code::MfaPhoneEnrollDisabled, message).into());
            }
            "webauthn" => {
                let message = "MFA enroll is disabled for WebAuthn";
                return Err(Refused::new(422, Code::MfaWebAuthnEnrollDisabled, message).into());
            }
            _ => return Err(Refused::invalid("factor_type needs to be totp, phone, or webauthn").into()),
        }
        self.limit(Limit::Factor, visitor, None).await?;
        // An enrolment that was given up does not stand in the way.
        let expired = "delete from auth.mfa_factors where user_id = $1 and status = 'unverified' \
            and created_at < now() - make_interval(secs => $2::float8)";
        let patience = PATIENCE.to_string();
        let expired = sql(expired, &[Some(&user.id), Some(&patience)]);
        let answer = store::write(&self.database, vec![expired, store::select_user(&user.id)]).await?;
        let factors = store::last_user(&answer)?.factors;
        let name = asked.friendly_name.as_str();
        if factors.iter().any(|factor| factor.friendly_name.as_deref().unwrap_or_default() == name) {
            let message = format!("A factor with the friendly name {name:?} for this user already exists");
            return Err(Refused::new(422, Code::MfaFactorNameConflict, message).into());
        }
        if factors.len() >= MOST {
            let message = "Maximum number of verified factors reached, unenroll to continue";
            return Err(Refused::new(422, Code::TooManyEnrolledMfaFactors, message).into());
        }
        if factors.iter().any(Factor::is_verified) && !is_second(who) {
            let message = "AAL2 required to enroll a new factor";
            return Err(Refused::new(403, Code::InsufficientAal, message).into());
        }
        let id = Uuid::new_v4().to_string();
        let secret = totp::secret().map_err(|_| Error::Random)?;
        let issuer = match asked.issuer.as_str() {
            "" => host(&self.settings.site_url),
            issuer => issuer,
        };
        let uri = totp::uri(issuer, if user.email.is_empty() { &user.phone } else { &user.email }, &secret);
        let picture = QrCode::new(&uri).map_err(|_| Error::Incomplete)?;
        let picture = picture.render::<svg::Color<'_>>().min_dimensions(200, 200).build();
        let sealed = self.vault.seal(&secret, &id).map_err(|_| Error::Random)?;
        let insert = sql(
            "insert into auth.mfa_factors (id, user_id, friendly_name, factor_type, status, created_at, updated_at, secret) \
             values ($1, $2, $3, 'totp', 'unverified', now(), now(), $4)",
            &[Some(&id), Some(&user.id), Some(name), Some(&sealed)],
        );
        let traits = json!({ "factor_id": id });
        let audit = store::audit("factor_in_progress", "factor", &Actor::user(user), &visitor.address, &traits);
        store::write(&self.database, vec![insert, audit]).await?;
        Ok(respond::json(
            200,
            &json!({
                "id": id, "type": "totp", "friendly_name": name,
                "totp": { "qr_code": picture, "secret": secret, "uri": uri },
            }),
        ))
    }

    async fn challenge(&self, visitor: &Visitor, who: &SignedIn, factor: &Factor) -> Result<Response<Bytes>, Error> {
        self.limit(Limit::Factor, visitor, None).await?;
        let id = Uuid::new_v4().to_string();
        let insert = sql(
            "insert into auth.mfa_challenges (id, factor_id, created_at, ip_address) values ($1, $2, now(), $3::inet)",
            &[Some(&id), Some(&factor.id), Some(&visitor.address)],
        );
        let note = "update auth.mfa_factors set last_challenged_at = clock_timestamp() where id = $1";
        let note = sql(note, &[Some(&factor.id)]);
        let traits = json!({ "factor_id": factor.id, "factor_status": factor.status });
        let actor = Actor::user(&who.account.user);
        let audit = store::audit("challenge_created", "factor", &actor, &visitor.address, &traits);
        store::write(&self.database, vec![insert, note, audit]).await?;
        Ok(respond::json(200, &json!({ "id": id, "type": "totp", "expires_at": now() + PATIENCE })))
    }

    async fn verify_factor(
        &self,
        visitor: &Visitor,
        who: &SignedIn,
        factor: &Factor,
        asked: &VerifyFactor,
    ) -> Result<Response<Bytes>, Error> {
        if asked.code.is_empty() {
            return Err(Refused::invalid("Code needs to be non-empty").into());
        }
        let session = who.session.as_ref().ok_or_else(no_session)?;
        // The second bucket is the factor's: whoever has the password guesses no codes.
        self.limit(Limit::Factor, visitor, Some(&factor.id)).await?;
        let gone = || Refused::new(404, Code::MfaFactorNotFound, "MFA factor with the provided challenge ID not found");
        let challenge = Uuid::try_parse(&asked.challenge_id).map_err(|_| gone())?.to_string();
        let text = "select f.secret, f.last_used_step, extract(epoch from c.created_at)::bigint, c.verified_at is not null, \
            host(c.ip_address) = host($3::inet) from auth.mfa_challenges c join auth.mfa_factors f on f.id = c.factor_id \
            where c.id = $1 and f.id = $2";
        let facts = sql(text, &[Some(&challenge), Some(&factor.id), Some(&visitor.address)]);
        let answer = store::read(&self.database, vec![facts]).await?;
        let row = answer.results.first().and_then(|result| result.rows.first()).ok_or_else(gone)?;
        let created: i64 = row.text(2).and_then(|text| text.parse().ok()).ok_or(Error::Incomplete)?;
        if row.text(3) == Some("t") || now() > created + PATIENCE {
            let message = format!(
                "MFA challenge {challenge} has expired, verify against another challenge or create a new challenge."
            );
            return Err(Refused::new(422, Code::MfaChallengeExpired, message).into());
        }
        if row.text(4) != Some("t") {
            let message = "Challenge and verify IP addresses mismatch.";
            return Err(Refused::new(422, Code::MfaIpAddressMismatch, message).into());
        }
        let wrong = || Error::from(Refused::new(422, Code::MfaVerificationFailed, "Invalid TOTP code entered"));
        let secret = self.vault.open(row.text(0).unwrap_or_default(), &factor.id).ok_or(Error::Incomplete)?;
        let used = row.text(1).and_then(|text| text.parse().ok());
        let step = totp::step(&secret, &asked.code, now(), used).ok_or_else(wrong)?.to_string();
        let (user, id) = (&who.account.user, session.id.as_str());
        let traits = json!({ "factor_id": factor.id, "challenge_id": challenge, "factor_type": "totp" });
        let statements = vec![
            sql(
                "with spent as (update auth.mfa_challenges set verified_at = now() where id = $1 and verified_at is null returning 1) \
                 select ntier.expect(exists (select from spent), 'the challenge')",
                &[Some(&challenge)],
            ),
            sql(
                "with used as (update auth.mfa_factors set status = 'verified', updated_at = now(), last_used_step = $2 \
                 where id = $1 and coalesce(last_used_step, 0) < $2 returning 1) \
                 select ntier.expect(exists (select from used), 'the code')",
                &[Some(&factor.id), Some(&step)],
            ),
            sql(
                "update auth.sessions set aal = 'aal2', factor_id = $2, updated_at = now(), refreshed_at = now() at time zone 'UTC', \
                 refresh_token_counter = coalesce(refresh_token_counter, 0) + 1 where id = $1",
                &[Some(id), Some(&factor.id)],
            ),
            sql(
                "insert into auth.mfa_amr_claims (id, session_id, created_at, updated_at, authentication_method) \
                 values (gen_random_uuid(), $1, now(), now(), 'totp') \
                 on conflict (session_id, authentication_method) do update set updated_at = now()",
                &[Some(id)],
            ),
            // Sessions with the first factor alone have to show the second too.
            sql(
                "delete from auth.sessions where user_id = $1 and id <> $2 and aal < 'aal2'",
                &[Some(&user.id), Some(id)],
            ),
            sql(
                "delete from auth.mfa_factors where user_id = $1 and status = 'unverified' and factor_type = 'totp'",
                &[Some(&user.id)],
            ),
            store::audit("verification_attempted", "factor", &Actor::user(user), &visitor.address, &traits),
        ];
        match store::write(&self.database, statements).await {
            Err(Error::Changed(_)) => return Err(wrong()),
            done => done.map(drop)?,
        }
        let found = store::session(&self.database, id).await?.ok_or(Error::Incomplete)?;
        let uuid = Uuid::try_parse(id).map_err(|_| Error::Incomplete)?;
        Ok(respond::json(200, &self.session(&uuid, found.counter, found.account.user, &found.ways)?))
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
        store::write(&self.database, all).await?;
        Ok(respond::json(200, &json!({ "id": factor.id })))
    }
}

/// The factor goes, and what sessions owe to it.
pub fn remove(factor: &str) -> Vec<ntier_backing::database::Statement> {
    vec![
        sql(
            "delete from auth.mfa_amr_claims where authentication_method = 'totp' \
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

/// Whether the session has shown a second factor.
pub fn is_second(who: &SignedIn) -> bool {
    who.session.as_ref().is_some_and(|SessionOf { ways, .. }| level(ways) == "aal2")
}

/// The assurance level of a session that came about in these ways.
pub fn level(ways: &[Way]) -> &'static str {
    if ways.iter().any(|way| way.method == "totp") { "aal2" } else { "aal1" }
}

fn host(url: &str) -> &str {
    let behind = url.split_once("://").map_or(url, |(_, behind)| behind);
    behind.split(['/', '?', '#']).next().unwrap_or_default()
}
