//! E-mails and messages to phones leave the queue: some node takes what is due, sends it, and removes it. A node that dies on the way
//! leaves it to be taken again; a server that is away is asked again later, with growing pauses.

use std::time::Duration;

use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::PoolConfig;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use ntier_backing::database::{Database, Row};
use ntier_backing::outbound::{Outbound, is_this_machine};
use ntier_security::Secret;
use serde_json::Value;

use crate::error::Error;
use crate::hooks::{self, Hooks};
use crate::settings::Settings;
use crate::sms::Service;
use crate::store::{self, sql};

/// A mail server, and who writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smtp {
    pub host: String,
    /// 465 is TLS from the beginning; others begin it by STARTTLS, which is required but on this machine. There nobody listens in, so
    /// the certificate is not looked at either.
    pub port: u16,
    pub user: String,
    pub password: Secret<String>,
    /// An address, perhaps with a name: `Shop <no-reply@example.com>`.
    pub from: String,
}

/// Why mail cannot be sent at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the sender {0:?} is not an address such as no-reply@example.com")]
    From(String),
    #[error("{0:?} cannot be a mail server with TLS")]
    Host(String),
}

/// Sends what is in the queue.
#[derive(Debug)]
pub struct Delivery {
    database: Database,
    mail: Option<Mail>,
    sms: Option<Service>,
    hooks: Hooks,
    outbound: Outbound,
}

#[derive(Debug)]
struct Mail {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// At once, by one node.
const BATCH: &str = "10";
/// How often the queue is looked at.
const PAUSE: Duration = Duration::from_secs(1);
/// Whoever has taken an e-mail has so long to send it.
const PATIENCE: Duration = Duration::from_secs(30);

impl Mail {
    fn new(smtp: &Smtp) -> Result<Self, Fault> {
        let from: Mailbox = smtp.from.parse().map_err(|_| Fault::From(smtp.from.clone()))?;
        let is_here = is_this_machine(&smtp.host);
        let parameters = TlsParameters::builder(smtp.host.clone())
            .dangerous_accept_invalid_certs(is_here)
            .build()
            .map_err(|_| Fault::Host(smtp.host.clone()))?;
        let tls = match smtp.port {
            465 => Tls::Wrapper(parameters),
            _ if is_here => Tls::Opportunistic(parameters),
            _ => Tls::Required(parameters),
        };
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&smtp.host)
            .port(smtp.port)
            .tls(tls)
            // A name, which relays ask for (RFC 5321, 4.1.1.1); the machine's own seldom is one that others know.
            .hello_name(ClientId::Domain(from.email.domain().to_owned()))
            .timeout(Some(PATIENCE / 3))
            .pool_config(PoolConfig::new().max_size(2));
        if !smtp.user.is_empty() {
            transport = transport.credentials(Credentials::new(smtp.user.clone(), smtp.password.expose().clone()));
        }
        Ok(Self { transport: transport.build(), from })
    }

    async fn send(&self, row: &Row) -> Result<(), String> {
        let text = |column: usize| row.text(column).unwrap_or_default().to_owned();
        let to: Mailbox = text(1).parse().map_err(|_| "the address is none".to_owned())?;
        // Who gets an e-mail twice, because the first time was not acknowledged, knows it by its name.
        let id = format!("<{}.{}@{}>", text(0), text(7), self.from.email.domain());
        let message = Message::builder().message_id(Some(id)).from(self.from.clone()).to(to).subject(text(2));
        let message = match text(4) {
            html if html.is_empty() => message.body(text(3)),
            html => message.multipart(MultiPart::alternative_plain_html(text(3), html)),
        };
        let message = message.map_err(|cause| cause.to_string())?;
        self.transport.send(message).await.map(drop).map_err(|cause| cause.to_string())
    }
}

impl Delivery {
    /// `None` where nobody takes anything.
    pub fn new(database: Database, settings: &Settings) -> Result<Option<Self>, Fault> {
        let mail = settings.smtp.as_ref().map(Mail::new).transpose()?;
        let (sms, hooks) = (settings.sms.service.clone(), settings.hooks.clone());
        let delivery = Self { database, mail, sms, hooks, outbound: Outbound::new() };
        Ok(Some(delivery).filter(|delivery| delivery.mail.is_some() || delivery.sms.is_some() || delivery.has_hook()))
    }

    fn has_hook(&self) -> bool {
        self.hooks.send_email.is_some() || self.hooks.send_sms.is_some()
    }

    /// Until the task is ended. `told` hears what goes wrong, without addresses.
    pub async fn run(self, told: impl Fn(&str)) {
        loop {
            match self.some().await {
                Ok(0) => tokio::time::sleep(PAUSE).await,
                Ok(_) => {}
                Err(Attempt::Database(_)) => tokio::time::sleep(PAUSE * 5).await,
                Err(Attempt::Sending(cause)) => told(&cause),
            }
        }
    }

    /// Sends some of what is due; gives their number.
    async fn some(&self) -> Result<usize, Attempt> {
        let flag = |is_so: bool| Some(if is_so { "true" } else { "false" });
        // The next attempt is set before this one: whoever dies has not lost it.
        let due = sql(
            "update ntier.mail m set attempts = attempts + 1, next_attempt_at = now() + least(interval '1 hour', \
             interval '5 seconds' * power(2, least(attempts, 10)) + interval '30 seconds') \
             where id in (select id from ntier.mail where sent_at is null and next_attempt_at <= now() \
             and (channel = 'email' and $2::boolean or channel in ('sms', 'whatsapp') and $3::boolean or channel = 'hook' and $4::boolean) \
             order by id limit $1::bigint for update skip locked) returning id, recipient, subject, plain, html, channel, kind, \
             (extract(epoch from created_at) * 1000000)::bigint, attempts",
            &[Some(BATCH), flag(self.mail.is_some()), flag(self.sms.is_some()), flag(self.has_hook())],
        );
        let answer = store::write(&self.database, vec![due]).await.map_err(Attempt::Database)?;
        let rows = answer.results.into_iter().next().unwrap_or_default().rows;
        let mut failed = None;
        for row in &rows {
            // Those before it may have taken their time: what somebody else has taken meanwhile is theirs.
            let still = sql(
                "update ntier.mail set next_attempt_at = greatest(next_attempt_at, now() + interval '40 seconds') \
                 where id = $1 and attempts = $2::int returning 1",
                &[row.text(0), row.text(8)],
            );
            let answer = store::write(&self.database, vec![still]).await.map_err(Attempt::Database)?;
            if answer.results.first().is_none_or(|result| result.rows.is_empty()) {
                continue;
            }
            let sent = tokio::time::timeout(PATIENCE, self.one(row)).await;
            if let Err(cause) = sent.unwrap_or_else(|_| Err("it took too long".to_owned())) {
                let text = "update ntier.mail set last_error = $2, \
                    next_attempt_at = now() + least(interval '1 hour', interval '1 second' * power(2, least(attempts, 12))) where id = $1";
                let note = sql(text, &[row.text(0), Some(&cause)]);
                store::write(&self.database, vec![note]).await.map_err(Attempt::Database)?;
                // A server may repeat in its answer to whom it was.
                let words = cause.split(' ').map(|word| if word.contains('@') { "…" } else { word });
                failed = Some(words.collect::<Vec<_>>().join(" "));
            }
        }
        failed.map_or(Ok(rows.len()), |cause| Err(Attempt::Sending(cause)))
    }

    async fn one(&self, row: &Row) -> Result<(), String> {
        let nobody = || "nobody takes it".to_owned();
        match row.text(5) {
            Some("email") => self.mail.as_ref().ok_or_else(nobody)?.send(row).await?,
            Some("hook") => self.by_hook(row.text(6).unwrap_or_default(), row.text(3).unwrap_or_default()).await?,
            channel => {
                let text = |column: usize| row.text(column).unwrap_or_default();
                let service = self.sms.as_ref().ok_or_else(nobody)?;
                service.send(&self.outbound, channel.unwrap_or_default(), text(1), text(3)).await?;
            }
        }
        // What it says is a secret of whoever got it.
        let gone = sql("delete from ntier.mail where id = $1", &[row.text(0)]);
        store::write(&self.database, vec![gone]).await.map(drop).map_err(|cause| cause.to_string())
    }
}

impl Delivery {
    /// A project sends its messages by itself.
    async fn by_hook(&self, kind: &str, payload: &str) -> Result<(), String> {
        let (hook, name) = match kind {
            "send_sms" => (self.hooks.send_sms.as_ref(), "send-sms"),
            _ => (self.hooks.send_email.as_ref(), "send-email"),
        };
        let hook = hook.ok_or_else(|| "nobody takes it".to_owned())?;
        let mut input: Value = serde_json::from_str(payload).map_err(|cause| cause.to_string())?;
        input["metadata"] = hooks::metadata(name, "");
        hook.ask(&self.database, &self.outbound, &input).await.map(drop).map_err(|error| error.to_string())
    }
}

/// What went wrong.
enum Attempt {
    Database(#[expect(dead_code, reason = "the node says by itself that its database is away")] Error),
    Sending(String),
}
