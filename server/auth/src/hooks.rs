//! What a project adds to sign-in: functions of its database, or services of its own, that are asked before something is done.
//! Source: GoTrue, `internal/hooks` and `v0hooks`.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use ntier_backing::database::{self, Batch, Company, Database, Session};
use ntier_backing::outbound::{self, Outbound};
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_protocol::auth::user::User;
use ntier_security::{Secret, UnixTime, webhook};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::Error;
use crate::signup::NewUser;
use crate::store::{self, sql};
use crate::visitor::Visitor;
use crate::{Auth, now};

/// Those of a project.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    pub custom_access_token: Option<Hook>,
    pub before_user_created: Option<Hook>,
    pub after_user_created: Option<Hook>,
    pub mfa_verification_attempt: Option<Hook>,
    pub password_verification_attempt: Option<Hook>,
    pub send_sms: Option<Hook>,
    pub send_email: Option<Hook>,
}

impl Hooks {
    /// The one that `config.toml` calls so.
    pub fn of(&mut self, name: &str) -> Option<&mut Option<Hook>> {
        Some(match name {
            "custom_access_token" => &mut self.custom_access_token,
            "before_user_created" => &mut self.before_user_created,
            "after_user_created" => &mut self.after_user_created,
            "mfa_verification_attempt" => &mut self.mfa_verification_attempt,
            "password_verification_attempt" => &mut self.password_verification_attempt,
            "send_sms" => &mut self.send_sms,
            "send_email" => &mut self.send_email,
            _ => return None,
        })
    }
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hook {
    /// A function of the database that takes `jsonb` and gives it; it runs as `supabase_auth_admin`.
    Function { schema: String, name: String },
    /// A service; it knows by the signature that we ask.
    Http { url: String, secrets: Vec<Secret<Vec<u8>>> },
}

/// What a service is called with, and how often.
const ATTEMPTS: usize = 3;
const PAUSE: Duration = Duration::from_millis(500);
/// Bytes of an answer. Source: GoTrue, `payloadLimit`.
const LONGEST: usize = 200 << 10;
/// Who functions are run as: nobody else need have a grant on them.
const ROLE: &str = "supabase_auth_admin";

impl Hook {
    /// `pg-functions://postgres/schema/function`, or an address with secrets (`v1,whsec_…`, several separated by `|`).
    pub fn parse(uri: &str, secrets: &str) -> Result<Self, String> {
        if let Some(path) = uri.strip_prefix("pg-functions://") {
            let parts: Vec<&str> = path.split('/').collect();
            let is_name = |name: &str| {
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$');
                (1..=63).contains(&name.len()) && name.chars().all(plain)
            };
            return match parts.as_slice() {
                [_, schema, name] if is_name(schema) && is_name(name) => {
                    Ok(Self::Function { schema: (*schema).to_owned(), name: (*name).to_owned() })
                }
                _ => Err("expected pg-functions://<database>/<schema>/<function>".into()),
            };
        }
        if !outbound::is_private(uri) {
            return Err("expected pg-functions://… or an https:// address".into());
        }
        let all: Option<Vec<_>> = secrets.split('|').map(webhook::secret).collect();
        let secrets = all.ok_or("a service needs secrets of the form v1,whsec_<base64>, separated by |")?;
        Ok(Self::Http { url: uri.to_owned(), secrets })
    }

    /// Asks; the answer is an object, empty where nothing was said.
    pub async fn ask(&self, database: &Database, outbound: &Outbound, input: &Value) -> Result<Value, Error> {
        let answer = match self {
            Self::Function { schema, name } => in_database(database, schema, name, input).await?,
            Self::Http { url, secrets } => by_http(outbound, url, secrets, &input.to_string()).await?,
        };
        if let Some(message) = answer["error"]["message"].as_str().filter(|message| !message.is_empty()) {
            let status = answer["error"]["http_code"].as_u64().and_then(|code| u16::try_from(code).ok());
            let status = status.filter(|status| (400..=599).contains(status)).unwrap_or(500);
            return Err(Refused::new(status, Code::Unknown, message).into());
        }
        Ok(answer)
    }
}

async fn in_database(database: &Database, schema: &str, name: &str, input: &Value) -> Result<Value, Error> {
    let call = format!("select \"{schema}\".\"{name}\"($1::jsonb)");
    let settings = vec![("role".into(), ROLE.to_owned())];
    let batch = Batch {
        session: Some(Session { settings, isolation: None }),
        statements: vec![sql(&call, &[Some(&input.to_string())])],
        company: Company::Flush,
        ..Batch::default()
    };
    let answer = database.run(batch).await.map_err(|error| match error {
        database::Error::Refused(refusal) => {
            let message = format!("Error running hook {schema}.{name}: {}", refusal.message);
            Error::from(Refused::new(500, Code::UnexpectedFailure, message))
        }
        error => Error::of(error),
    })?;
    let text = answer.results.first().and_then(|result| result.rows.first()?.text(0));
    let Some(text) = text else { return Ok(json!({})) };
    serde_json::from_str(text).map_err(|_| failed("Error unmarshaling JSON output."))
}

async fn by_http(outbound: &Outbound, url: &str, secrets: &[Secret<Vec<u8>>], body: &str) -> Result<Value, Error> {
    for attempt in 1..=ATTEMPTS {
        let (id, timestamp) = (Uuid::new_v4().to_string(), now());
        let request = Request::post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", webhook::sign(secrets, &id, timestamp, body))
            .body(Bytes::copy_from_slice(body.as_bytes()))
            .map_err(|_| failed("Hook failed to make request object"))?;
        let response = match outbound.send(request).await {
            Ok(response) => response,
            Err(_) if attempt < ATTEMPTS => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(fault) => {
                let message = format!("Failed to reach hook after maximum retries: {fault}");
                return Err(Refused::new(422, Code::HookTimeout, message).into());
            }
        };
        let is_json = || {
            let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
        };
        match response.status().as_u16() {
            204 => return Ok(json!({})),
            200 | 202 if !is_json() => {
                let message = "Invalid JSON response. The Content-Type has to be application/json";
                return Err(Refused::new(400, Code::HookPayloadInvalidContentType, message).into());
            }
            200 | 202 if response.body().len() > LONGEST => {
                let message = format!("Payload size exceeded size limit of {LONGEST} bytes");
                return Err(Refused::new(422, Code::HookPayloadOverSizeLimit, message).into());
            }
            200 | 202 => {
                let answer: Option<Value> = serde_json::from_slice(response.body()).ok();
                return answer.ok_or_else(|| failed("Error unmarshaling JSON output."));
            }
            429 | 503 if response.headers().contains_key("retry-after") && attempt < ATTEMPTS => {
                tokio::time::sleep(PAUSE).await;
            }
            429 | 503 => break,
            400 => return Err(failed("Invalid payload sent to hook")),
            401 => return Err(failed("Hook requires authorization token")),
            other => return Err(failed(&format!("Unexpected status code returned from hook: {other}"))),
        }
    }
    Err(failed("Service currently unavailable due to hook"))
}

fn failed(message: &str) -> Error {
    Refused::new(500, Code::UnexpectedFailure, message).into()
}

/// What every call begins with.
pub fn metadata(name: &str, address: &str) -> Value {
    json!({ "uuid": Uuid::new_v4().to_string(), "time": rfc3339(now()), "name": name, "ip_address": address })
}

/// RFC 3339, 5.6, in UTC. The calendar's arithmetic is that of days counted from a first of March.
fn rfc3339(time: UnixTime) -> String {
    let (days, seconds) = (time.div_euclid(86_400) + 719_468, time.rem_euclid(86_400));
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

impl Auth {
    async fn hook(&self, hook: Option<&Hook>, input: impl FnOnce() -> Value) -> Result<Option<Value>, Error> {
        let Some(hook) = hook else { return Ok(None) };
        hook.ask(&self.database, &self.exchange.outbound, &input()).await.map(Some)
    }

    /// The claims that a token gets.
    pub(crate) async fn customized(&self, claims: Value, method: &str) -> Result<Value, Error> {
        let hook = self.settings.hooks.custom_access_token.as_ref();
        let input = || {
            json!({
                "metadata": metadata("customize-access-token", ""), "user_id": claims["sub"], "claims": claims,
                "authentication_method": method,
            })
        };
        let Some(answer) = self.hook(hook, input).await? else { return Ok(claims) };
        let new = answer.get("claims").ok_or_else(|| failed("output claims field is missing"))?;
        check_claims(new).map_err(|name| {
            failed(&format!(
                "output claims do not conform to the expected schema: {name} is missing or of another type"
            ))
        })?;
        Ok(new.clone())
    }

    /// A project may not want a user.
    pub(crate) async fn before_user(&self, visitor: &Visitor, user: &NewUser<'_>) -> Result<(), Error> {
        let hook = self.settings.hooks.before_user_created.as_ref();
        let input = || json!({ "metadata": metadata("before-user-created", &visitor.address), "user": user.shown() });
        self.hook(hook, input).await.map(drop)
    }

    pub(crate) async fn after_user(&self, visitor: &Visitor, user: &User) -> Result<(), Error> {
        let hook = self.settings.hooks.after_user_created.as_ref();
        let input = || json!({ "metadata": metadata("after-user-created", &visitor.address), "user": user });
        self.hook(hook, input).await.map(drop)
    }

    /// A project may count attempts, and refuse more of them.
    pub(crate) async fn password_attempt(&self, visitor: &Visitor, user: &str, valid: bool) -> Result<(), Error> {
        let hook = self.settings.hooks.password_verification_attempt.as_ref();
        let input = || json!({ "metadata": metadata("password-verification", &visitor.address), "user_id": user, "valid": valid });
        let Some(answer) = self.hook(hook, input).await? else { return Ok(()) };
        if answer["decision"] != "reject" {
            return Ok(());
        }
        if answer["should_logout_user"] == Value::Bool(true) {
            store::write(&self.database, vec![store::end_sessions(user, None)]).await?;
        }
        let usual = "Further password verification attempts will be rejected.";
        Err(Refused::new(400, Code::InvalidCredentials, message(&answer, usual)).into())
    }

    pub(crate) async fn factor_attempt(
        &self,
        visitor: &Visitor,
        user: &str,
        (factor, kind): (&str, &str),
        valid: bool,
    ) -> Result<(), Error> {
        let hook = self.settings.hooks.mfa_verification_attempt.as_ref();
        let input = || {
            json!({
                "metadata": metadata("mfa-verification", &visitor.address), "user_id": user, "factor_id": factor,
                "factor_type": kind, "valid": valid,
            })
        };
        let Some(answer) = self.hook(hook, input).await? else { return Ok(()) };
        if answer["decision"] != "reject" {
            return Ok(());
        }
        store::write(&self.database, vec![store::end_sessions(user, None)]).await?;
        let usual = "Further MFA verification attempts will be rejected.";
        Err(Refused::new(403, Code::MfaVerificationRejected, message(&answer, usual)).into())
    }
}

fn message<'a>(answer: &'a Value, usual: &'a str) -> &'a str {
    answer["message"].as_str().filter(|message| !message.is_empty()).unwrap_or(usual)
}

/// What a token cannot do without; the name of what is wrong.
fn check_claims(claims: &Value) -> Result<(), &'static str> {
    for name in ["sub", "email", "phone", "role", "aal", "session_id"] {
        if !claims[name].is_string() {
            return Err(name);
        }
    }
    for name in ["exp", "iat"] {
        if !claims[name].is_number() {
            return Err(name);
        }
    }
    if !claims["aud"].is_string() && !claims["aud"].is_array() {
        return Err("aud");
    }
    if claims["is_anonymous"].is_boolean() { Ok(()) } else { Err("is_anonymous") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_functions_or_services() {
        let secret = "v1,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        for (uri, secrets, is_fine) in [
            ("pg-functions://postgres/public/custom_token", "", true),
            ("pg-functions://postgres/auth/before-user-created-hook", "", true),
            ("pg-functions://postgres/public", "", false),
            ("pg-functions://postgres/public/a\"b", "", false),
            ("pg-functions://postgres/public/a/b", "", false),
            ("https://example.com/hook", secret, true),
            ("https://example.com/hook", "v1,whsec_AAAA|v1,whsec_BBBB", true),
            ("https://example.com/hook", "", false),
            ("https://example.com/hook", "whsec_AAAA", false),
            ("http://example.com/hook", secret, false),
            ("http://127.0.0.1:9/hook", secret, true),
        ] {
            assert_eq!(Hook::parse(uri, secrets).is_ok(), is_fine, "{uri} {secrets}");
        }
    }

    #[test]
    fn times_are_of_the_calendar() {
        for (time, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(time), text);
        }
    }

    #[test]
    fn a_token_keeps_what_it_cannot_do_without() {
        let good = json!({
            "sub": "u", "email": "", "phone": "", "role": "authenticated", "aal": "aal1", "session_id": "s", "exp": 1, "iat": 1,
            "aud": "authenticated", "is_anonymous": false, "tenant": 7,
        });
        assert_eq!(check_claims(&good), Ok(()));
        for name in ["sub", "email", "phone", "role", "aal", "session_id", "exp", "iat", "aud", "is_anonymous"] {
            let mut bad = good.clone();
            bad[name] = Value::Null;
            assert_eq!(check_claims(&bad), Err(name));
        }
    }
}
