//! Messages to phones: codes, by the queue that e-mails take.
//! Source: GoTrue, `internal/api/phone.go` and `sms_provider`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use ntier_backing::database::Statement;
use ntier_backing::outbound::Outbound;
use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_security::Secret;
use ntier_security::one_time::Sent;
use serde_json::Value;

use crate::error::Error;
use crate::redirect::form;
use crate::store::sql;
use crate::{Auth, now};

/// What messages are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sms {
    /// Somebody delivers them.
    pub sent: bool,
    /// The inbox of `ntier dev` shows them.
    pub inbox: bool,
    /// The service that takes them.
    pub service: Option<Service>,
    /// `{{ .Code }}` stands for the code.
    pub template: String,
    /// Seconds between two messages to one user about one thing.
    pub pause: i64,
    /// Seconds for which a code is good.
    pub code_life: i64,
    /// Messages in an hour, of the whole project; `None` where they go nowhere.
    pub per_hour: Option<u32>,
    /// Numbers to which nothing is sent, because their code is known.
    pub test: BTreeMap<String, String>,
}

impl Default for Sms {
    fn default() -> Self {
        Self {
            sent: false,
            inbox: false,
            service: None,
            template: "Your code is {{ .Code }}".into(),
            pause: 60,
            code_life: 60,
            per_hour: None,
            test: BTreeMap::new(),
        }
    }
}

/// A service that speaks Twilio's HTTP ("Messages resource", 2010-04-01).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `https://api.twilio.com`, or another that speaks the same.
    pub url: String,
    pub account: String,
    pub token: Secret<String>,
    /// A number, or the id of a messaging service.
    pub from: String,
}

impl Service {
    /// Sends a message; the cause of a failure has no number in it.
    pub async fn send(&self, outbound: &Outbound, channel: &str, phone: &str, text: &str) -> Result<(), String> {
        let is_number = self.from.bytes().all(|byte| byte.is_ascii_digit() || byte == b'+');
        let (to, from) = match channel {
            "whatsapp" if is_number => (format!("whatsapp:+{phone}"), format!("whatsapp:{}", self.from)),
            "whatsapp" => (format!("whatsapp:+{phone}"), self.from.clone()),
            _ => (format!("+{phone}"), self.from.clone()),
        };
        let sender = if self.from.starts_with("MG") { "MessagingServiceSid" } else { "From" };
        let credentials = STANDARD.encode(format!("{}:{}", self.account, self.token.expose()));
        let url = self.url.trim_end_matches('/');
        let request = Request::post(format!("{url}/2010-04-01/Accounts/{}/Messages.json", self.account))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(AUTHORIZATION, format!("Basic {credentials}"))
            .body(form([("To", to.as_str()), (sender, from.as_str()), ("Body", text)]).into());
        let response =
            outbound.send(request.map_err(|cause| cause.to_string())?).await.map_err(|cause| cause.to_string())?;
        let answer: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        let is_taken =
            response.status().is_success() && !matches!(answer["status"].as_str(), Some("failed" | "undelivered"));
        // The service's code says why, and names nobody.
        let why = || format!("the service for messages answers {} {}", response.status().as_u16(), answer["code"]);
        if is_taken { Ok(()) } else { Err(why()) }
    }
}

/// How a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Sms,
    WhatsApp,
}

impl Channel {
    fn name(self) -> &'static str {
        match self {
            Self::Sms => "sms",
            Self::WhatsApp => "whatsapp",
        }
    }
}

/// What a request says; by SMS if nothing.
pub fn channel(text: &str) -> Result<Channel, Error> {
    match text {
        "" | "sms" => Ok(Channel::Sms),
        "whatsapp" => Ok(Channel::WhatsApp),
        _ => {
            let message = "Invalid channel, supported values are 'sms' or 'whatsapp'. 'whatsapp' is only supported if Twilio or \
                Twilio Verify is used as the provider.";
            Err(Refused::invalid(message).into())
        }
    }
}

impl Auth {
    /// Messages can be sent at all, and none was sent to this user a moment ago.
    pub(crate) fn may_message(&self, phone: &str, before: &Sent) -> Result<(), Error> {
        let sms = &self.settings.sms;
        if let Some(left) = before.pause(sms.pause, now()) {
            let message = format!("For security purposes, you can only request this after {left} seconds.");
            return Err(Refused::new(429, Code::OverSmsSendRateLimit, message).into());
        }
        if !sms.sent && !sms.test.contains_key(phone) {
            let message = "Error sending confirmation OTP to provider: no service for messages to phones is configured";
            return Err(Refused::new(422, Code::SmsSendFailed, message).into());
        }
        Ok(())
    }

    /// A new code for a user's phone: its hash, and the message if one is sent.
    pub(crate) fn message(
        &self,
        user: &str,
        phone: &str,
        channel: Channel,
    ) -> Result<(String, Option<Statement>), Error> {
        let sms = &self.settings.sms;
        if let Some(code) = sms.test.get(phone) {
            return Ok((self.codes.hash(phone, code), None));
        }
        let (code, hash) = self.new_token(phone)?;
        if self.settings.hooks.send_sms.is_some() {
            let message = sql(
                "insert into ntier.mail (channel, recipient, kind, subject, plain, html) \
                 select 'hook', $2::text, 'send_sms', '', json_build_object('user', ntier.auth_user(u), \
                   'sms', json_build_object('otp', $3::text, 'phone', $2::text, 'sms_type', $4::text))::text, '' \
                 from auth.users u where u.id = $1",
                &[Some(user), Some(phone), Some(&code), Some(channel.name())],
            );
            return Ok((hash, Some(message)));
        }
        let text = sms.template.replace("{{ .Code }}", &code).replace("{{.Code}}", &code);
        let message = sql(
            "insert into ntier.mail (channel, recipient, kind, subject, plain, html) values ($1, $2, 'code', 'Code', $3, '')",
            &[Some(channel.name()), Some(phone), Some(&text)],
        );
        Ok((hash, Some(message)))
    }

    /// The statements that send a code to a user's phone; `column` is `confirmation`, `phone_change` or `reauthentication`.
    pub(crate) fn send_code(
        &self,
        column: &str,
        user: &str,
        phone: &str,
        channel: Channel,
    ) -> Result<Vec<Statement>, Error> {
        let (hash, message) = self.message(user, phone, channel)?;
        let set = format!("update auth.users set {column}_token = $2, {column}_sent_at = now() where id = $1");
        let mut all = vec![sql(&set, &[Some(user), Some(&hash)])];
        all.extend(message);
        Ok(all)
    }
}
