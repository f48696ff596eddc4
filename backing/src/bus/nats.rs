//! The bus by NATS: each message is published on one subject that all nodes of a project share.
//!
//! The crate connects, and connects again for as long as it takes. While it is away, what is said is dropped: old news help nobody.

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, ServerAddr, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::pieces::{self, Assembler, Brought};
use super::queue::Queue;
use super::{Hear, Heard, NodeId, Reach, Tell};

/// Bytes of messages that are taken together.
const AT_ONCE: usize = 256 << 10;
/// How long a message may wait for a connection that does not get on.
const PATIENCE: Duration = Duration::from_secs(2);
/// A piece is no longer, also where the servers would take it.
const PIECE: usize = 1 << 20;

/// Where NATS is, and as whom one comes.
#[derive(Clone, PartialEq, Eq)]
pub struct Servers {
    addresses: Vec<ServerAddr>,
    login: Login,
    /// On which the nodes of a project talk.
    subject: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Login {
    Nobody,
    User(String, String),
    Token(String),
}

/// What opens the door is not part of what can be printed.
impl std::fmt::Debug for Servers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hosts: Vec<_> = self.addresses.iter().map(|address| (address.host(), address.port())).collect();
        out.debug_struct("Servers").field("hosts", &hosts).field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl Servers {
    /// Reads addresses such as `nats://user:password@host:4222`, `tls://token@host`, between commas. The first that has a user or a
    /// token says it for all.
    pub fn parse(text: &str) -> Option<Self> {
        let read = |address: &str| {
            let address = address.trim();
            let is_ours = address.starts_with("nats://") || address.starts_with("tls://");
            address.parse::<ServerAddr>().ok().filter(|_| is_ours)
        };
        let addresses: Vec<ServerAddr> = text.split(',').map(read).collect::<Option<_>>()?;
        let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let login = addresses.iter().find_map(|address| match (address.username(), address.password()) {
            (None, _) => None,
            (Some(token), None) => Some(Login::Token(decoded(token))),
            (Some(user), Some(password)) => Some(Login::User(decoded(user), decoded(password))),
        });
        Some(Self { addresses, login: login.unwrap_or(Login::Nobody), subject: SUBJECT.to_owned() })
    }

    /// On another subject than `ntier`.
    pub fn on(self, subject: &str) -> Self {
        Self { subject: subject.to_owned(), ..self }
    }

    fn is_encrypted(&self) -> bool {
        self.addresses.iter().any(ServerAddr::tls_required)
    }
}

/// Where nothing else is said.
const SUBJECT: &str = "ntier";

#[derive(Debug)]
pub struct Nats {
    client: Client,
    subject: Subject,
    events: mpsc::Receiver<Event>,
}

impl Nats {
    /// Does not wait for the servers: a node serves its own clients without them.
    pub async fn open(servers: Servers) -> Result<Self, String> {
        let (sender, events) = mpsc::channel(64);
        let tell = move |event| {
            let sender = sender.clone();
            async move {
                // Whoever stops hears nothing any more.
                let _ = sender.send(event).await;
            }
        };
        let mut options = ConnectOptions::new()
            .name("ntier")
            .no_echo()
            .retry_on_initial_connect()
            .client_capacity(256)
            .subscription_capacity(4096)
            .ping_interval(Duration::from_secs(5))
            .event_callback(tell);
        options = match &servers.login {
            Login::Nobody => options,
            Login::User(user, password) => options.user_and_password(user.clone(), password.clone()),
            Login::Token(token) => options.token(token.clone()),
        };
        // Also where only a server asks for it.
        options = options.require_tls(servers.is_encrypted()).tls_client_config(encrypted()?);
        let said = |cause: async_nats::ConnectError| cause.to_string();
        let client = async_nats::connect_with_options(servers.addresses, options).await.map_err(said)?;
        Ok(Self { client, subject: servers.subject.into(), events })
    }

    /// Until the queue is closed and empty.
    pub async fn run(mut self, node: NodeId, queue: &Queue, hear: &mut Hear, tell: &mut Tell) {
        let Ok(mut subscription) = self.client.subscribe(self.subject.clone()).await else { return };
        let mut assembler = Assembler::default();
        let mut reach = Reach::default();
        loop {
            tokio::select! {
                message = subscription.next() => match message.map(|message| assembler.take(message.payload)) {
                    Some(Brought::Message(from, message)) => hear(Heard::Message { from, message }),
                    Some(Brought::Nothing) => {}
                    Some(Brought::Gap) => hear(Heard::Gap),
                    None => return,
                },
                event = self.events.recv() => match event {
                    Some(Event::Connected) => {
                        assembler.clear();
                        hear(Heard::Gap);
                        reach.back(queue, tell);
                    }
                    Some(Event::SlowConsumer(_)) => {
                        assembler.clear();
                        hear(Heard::Gap);
                    }
                    Some(event @ (Event::Disconnected | Event::ClientError(_) | Event::ServerError(_))) => {
                        reach.away(&event, tell);
                    }
                    Some(Event::LameDuckMode | Event::Draining | Event::Closed) | None => {}
                },
                messages = queue.take(AT_ONCE) => {
                    if messages.is_empty() {
                        let _ = self.client.flush().await;
                        return;
                    }
                    for message in messages {
                        if !self.publish(node, &message).await {
                            queue.lose(1);
                        }
                    }
                }
            }
        }
    }

    /// Says whether it is on its way.
    async fn publish(&self, node: NodeId, message: &Bytes) -> bool {
        if self.client.connection_state() != State::Connected {
            return false;
        }
        for piece in pieces::cut(node, message, self.client.max_payload().min(PIECE)) {
            let sent = timeout(PATIENCE, self.client.publish(self.subject.clone(), piece)).await;
            if !matches!(sent, Ok(Ok(()))) {
                return false;
            }
        }
        true
    }
}

/// TLS with certificates that the machine's own roots vouch for.
fn encrypted() -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|cause| cause.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_with_whom_one_comes_as() {
        let read = |text: &str| Servers::parse(text).map(|servers| (servers.addresses.len(), servers.login));
        let user = || Login::User("me".to_owned(), "p@ss".to_owned());
        for (text, expected) in [
            ("nats://localhost", Some((1, Login::Nobody))),
            ("nats://a:4222, tls://me:p%40ss@b", Some((2, user()))),
            ("nats://to%2Fken@a,nats://b", Some((2, Login::Token("to/ken".to_owned())))),
            ("", None),
            ("localhost", None),
            ("ws://localhost", None),
            ("nats://a,", None),
            ("nats://a:port", None),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        for text in ["nats://me:hunter2@h", "nats://hunter2@h"] {
            let printed = format!("{:?}", Servers::parse(text).unwrap());
            assert!(printed.contains("h\"") && !printed.contains("hunter2"), "{printed}");
        }
    }
}
