//! Codes in messages to a phone.

use ntier_backing::database::Statement;
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_protocol::auth::request::Challenged;
use ntier_protocol::auth::user::Factor;
use ntier_security::one_time::{self, Hasher};
use serde_json::json;

use super::{Asked, Enrolled, Facts, Kind, wrong};
use crate::Auth;
use crate::error::Error;
use crate::limits::Limit;
use crate::signup;
use crate::sms::channel;
use crate::store::{self, sql};
use crate::visitor::Visitor;

/// The factors that have this number and were not verified: they go.
pub fn enrolled(factors: &[Factor], phone: &str) -> Result<Vec<String>, Error> {
    let phone = number(phone)?;
    let same: Vec<&Factor> = factors.iter().filter(|factor| factor.phone.as_ref() == Some(&phone)).collect();
    if same.iter().any(|factor| factor.is_verified()) {
        let message = "A verified phone factor already exists, unenroll the existing factor to continue";
        return Err(Refused::new(422, Code::MfaVerifiedFactorExists, message).into());
    }
    Ok(same.into_iter().map(|factor| factor.id.clone()).collect())
}

pub fn enroll(phone: &str) -> Result<Enrolled, Error> {
    Ok(Enrolled { secret: None, phone: Some(number(phone)?), told: json!({ "phone": phone }) })
}

fn number(phone: &str) -> Result<String, Error> {
    if phone.is_empty() {
        return Err(Refused::invalid("Phone number required to enroll Phone factor").into());
    }
    signup::phone(phone)
}

impl Auth {
    pub(super) async fn challenge_phone(
        &self,
        visitor: &Visitor,
        user: &str,
        factor: &Factor,
        asked: &Challenged,
    ) -> Result<Asked, Error> {
        let channel = channel(&asked.channel)?;
        let text = "select phone, extract(epoch from last_challenged_at)::bigint from auth.mfa_factors where id = $1";
        let answer = store::read(&self.database, vec![sql(text, &[Some(&factor.id)])]).await?;
        let row = answer.results.first().and_then(|result| result.rows.first()).ok_or(Error::Incomplete)?;
        let phone = row.text(0).unwrap_or_default();
        let at = row.text(1).and_then(|text| text.parse().ok());
        self.may_message(phone, &one_time::Sent { hash: String::new(), at })?;
        self.limit(Limit::Message, visitor, None).await?;
        let (hash, message) = self.message(user, phone, channel)?;
        Ok(Asked {
            otp_code: Some(hash),
            session_data: None,
            told: json!({}),
            statements: message.into_iter().collect(),
        })
    }
}

/// What says that the code was taken.
pub fn prove(codes: &Hasher, facts: &Facts, code: &str) -> Result<Statement, Error> {
    if facts.otp_code.is_empty() || !one_time::is_same(&codes.hash(&facts.phone, code), &facts.otp_code) {
        return Err(wrong(Kind::Phone).into());
    }
    let text = "update auth.mfa_factors set status = 'verified', updated_at = now() where id = $1";
    Ok(sql(text, &[Some(&facts.factor)]))
}
