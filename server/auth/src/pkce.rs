//! Proof that whoever ends a flow has begun it (PKCE, RFC 7636): the link of an e-mail gives a code, which is good for nothing without the
//! verifier that stays in the browser.

use bytes::Bytes;
use http::Response;
use ntier_backing::database::Statement;
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_protocol::auth::request::{Challenge, PkceGrant};
use ntier_protocol::auth::user::Session;
use ntier_security::one_time;
use serde_json::json;
use uuid::Uuid;

use crate::error::Error;
use crate::limits::Limit;
use crate::mail::Kind;
use crate::store::{self, Actor, By, sql};
use crate::visitor::Visitor;
use crate::{Auth, now, respond};

/// What stands before the hash in a link that leads to a code.
pub const PREFIX: &str = "pkce_";
/// Seconds for which a code is good. Source: GoTrue, `EXTERNAL_FLOW_STATE_EXPIRY_DURATION`.
pub const LIFE: i64 = 300;

/// The challenge of a request, if it has one (checklist A11: S256 alone).
pub fn challenge(asked: &Challenge) -> Result<Option<&str>, Error> {
    let (method, challenge) = (asked.code_challenge_method.as_str(), asked.code_challenge.as_str());
    let is_fine = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_' | '~');
    match (method.is_empty(), challenge.is_empty()) {
        (true, true) => Ok(None),
        (false, false) if !method.eq_ignore_ascii_case("s256") => {
            Err(Refused::invalid("invalid code challenge method, only S256 is taken").into())
        }
        (false, false) if (43..=128).contains(&challenge.len()) && challenge.chars().all(is_fine) => {
            Ok(Some(challenge))
        }
        (false, false) => {
            let message = "code challenge has to be between 43 and 128 characters of A-Z, a-z, 0-9, -, ., _ and ~";
            Err(Refused::invalid(message).into())
        }
        _ => {
            let message = "PKCE flow requires code_challenge_method and code_challenge";
            Err(Refused::invalid(message).into())
        }
    }
}

/// What is kept until the browser comes back.
pub fn remember(user: &str, kind: Kind, challenge: &str) -> Statement {
    sql(
        "insert into auth.flow_state (id, user_id, auth_code, code_challenge_method, code_challenge, provider_type, \
         authentication_method, created_at, updated_at) values (gen_random_uuid(), $1, $2, 's256', $3, $4, $4, now(), now())",
        &[Some(user), Some(&Uuid::new_v4().to_string()), Some(challenge), Some(kind.verification())],
    )
}

/// The code of the last flow of this kind that the user has begun; its time runs from now.
pub fn issue(user: &str, kind: &str) -> Statement {
    sql(
        "update auth.flow_state set auth_code_issued_at = now(), updated_at = now() where id = (select id from auth.flow_state \
         where user_id = $1 and authentication_method = $2 order by created_at desc limit 1) returning auth_code",
        &[Some(user), Some(kind)],
    )
}

impl Auth {
    /// `POST /token?grant_type=pkce`: the code and the verifier give the session, once.
    pub(crate) async fn by_code(&self, visitor: &Visitor, asked: &PkceGrant) -> Result<Response<Bytes>, Error> {
        if asked.auth_code.is_empty() || asked.code_verifier.is_empty() {
            let message = "invalid request: both auth code and code verifier should be non-empty";
            return Err(Refused::invalid(message).into());
        }
        self.limit(Limit::Token, visitor, None).await?;
        let gone = || {
            let message = "invalid flow state, no valid flow state found";
            Error::from(Refused::new(404, Code::FlowStateNotFound, message))
        };
        let text = "select id, user_id, code_challenge, extract(epoch from auth_code_issued_at)::bigint, authentication_method, \
            provider_type, provider_access_token, provider_refresh_token from auth.flow_state where auth_code = $1 and auth_code_issued_at is not null";
        let answer = store::read(&self.database, vec![sql(text, &[Some(&asked.auth_code)])]).await?;
        let row = answer.results.first().and_then(|result| result.rows.first()).ok_or_else(gone)?;
        let flow = row.text(0).ok_or(Error::Incomplete)?;
        let user = row.text(1).ok_or_else(gone)?;
        let issued: i64 = row.text(3).and_then(|text| text.parse().ok()).ok_or(Error::Incomplete)?;
        if now() > issued + LIFE {
            let message = "invalid flow state, flow state has expired";
            return Err(Refused::new(422, Code::FlowStateExpired, message).into());
        }
        if !one_time::is_verifier(&asked.code_verifier, row.text(2).unwrap_or_default()) {
            let message = "code challenge does not match previously saved code verifier";
            return Err(Refused::new(400, Code::BadCodeVerifier, message).into());
        }
        let account = store::find(&self.database, By::Id(user)).await?.ok_or_else(gone)?;
        if account.is_banned {
            return Err(Refused::new(403, Code::UserBanned, "User is banned").into());
        }
        let is_external = row.text(4) == Some("oauth");
        let new = self.begin(if is_external { "oauth" } else { "otp" });
        let spend = "with gone as (delete from auth.flow_state where id = $1 returning 1) \
            select ntier.expect(exists (select from gone), 'the flow')";
        let traits = json!({ "provider_type": row.text(5) });
        let mut all = vec![sql(spend, &[Some(flow)])];
        all.push(store::audit("login", "account", &Actor::user(&account.user), &visitor.address, &traits));
        all.extend(new.statements(user, visitor));
        match store::write(&self.database, all).await {
            Ok(answer) => {
                let session = self.begun(&new, store::last_user(&answer)?, None).await?;
                let opened = |column: usize| self.vault.open(row.text(column)?, flow);
                let session = Session { provider_token: opened(6), provider_refresh_token: opened(7), ..session };
                Ok(respond::json(200, &session))
            }
            // The code was used a moment before.
            Err(Error::Changed(_)) => Err(gone()),
            Err(error) => Err(error),
        }
    }
}
