//! Who signed a request.

use ntier_protocol::storage::s3::signature::{Chain, Signed};
use ntier_protocol::storage::s3::{self, Code, Parts};
use ntier_security::caller::{self, Caller};

use super::Fault;
use crate::Storage;
use crate::visitor::now;

impl Storage {
    /// The caller, and what the signatures of the body's chunks continue.
    pub(super) fn identify(&self, parts: &Parts<'_>, signed: &Signed) -> Result<(Caller, Chain), Fault> {
        let keys = self.s3.as_ref().ok_or_else(|| s3::Error::new(Code::AccessDenied, "S3 is switched off"))?;
        let Some(token) = &signed.session_token else {
            if signed.access_key != keys.access_key_id {
                return Err(Code::InvalidAccessKeyId.into());
            }
            let chain = verify(parts, signed, keys.secret_access_key.expose())?;
            return Ok((service(), chain));
        };
        // The access key is the project's name, and there is one project here.
        let mut secrets = keys.session_secrets.iter().map(|secret| verify(parts, signed, secret));
        let chain =
            secrets.find(|chain| !is_wrong_key(chain)).unwrap_or_else(|| Err(Code::SignatureDoesNotMatch.into()))?;
        let bearer = format!("Bearer {token}");
        let user_agent = parts.headers.iter().find(|(name, _)| *name == "user-agent").map(|(_, value)| *value);
        let credentials = caller::Credentials { apikey: None, authorization: Some(&bearer), user_agent };
        let holder = self.doorkeeper.holder(credentials, now());
        let caller = holder.map_err(|refusal| s3::Error::new(Code::AccessDenied, refusal.to_string()))?;
        Ok((caller, chain))
    }
}

/// A proxy in between may have given the request another host, and say which one the client meant. The host is signed so that a
/// request is not taken elsewhere; whoever could change the header has the request already.
fn verify(parts: &Parts<'_>, signed: &Signed, secret: &str) -> Result<Chain, s3::Error> {
    let verified = signed.verify(parts, secret, now());
    let forwarded = parts.headers.iter().find(|(name, _)| *name == "x-forwarded-host");
    let Some((_, host)) = forwarded.filter(|_| is_wrong_key(&verified)) else { return verified };
    let headers: Vec<(&str, &str)> =
        parts.headers.iter().map(|(name, value)| (*name, if *name == "host" { *host } else { *value })).collect();
    signed.verify(&Parts { headers: &headers, ..*parts }, secret, now())
}

fn is_wrong_key(verified: &Result<Chain, s3::Error>) -> bool {
    verified.as_ref().is_err_and(|error| error.code == Code::SignatureDoesNotMatch)
}

fn service() -> Caller {
    Caller { role: "service_role".into(), claims: r#"{"role":"service_role"}"#.into(), is_anonymous: false }
}
