//! What is refused, in realtime's words, and the codes that operators know it by. Sources: realtime's `ERROR_CODES.md`,
//! `lib/realtime_web/channels/realtime_channel.ex`, `user_socket.ex` and the plugs and controllers.

use serde_json::{Value, json};

use crate::realtime::message::Json;

macro_rules! codes {
    ($($name:ident => $means:literal,)*) => {
        /// The codes. Refusals begin with theirs, and logs name it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($name,)*
        }

        impl Code {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// For people who look it up.
            pub fn means(self) -> &'static str {
                match self {
                    $(Self::$name => $means,)*
                }
            }
        }
    };
}

codes! {
    ChannelRateLimitReached => "A client wants to join more channels than one may.",
    ChannelShutdown => "A channel was closed by the server, and its client was told why.",
    ClientJoinRateLimitReached => "Clients join more often than they may.",
    ClientPresenceRateLimitReached => "A client changes its presence more often than it may.",
    ConnectionRateLimitReached => "There are as many clients as there may be.",
    DatabaseLackOfConnections => "The database takes no more connections.",
    ErrorConnectingToWebsocket => "A client could not be let in.",
    IncreaseConnectionPool => "Rights could not be looked up in time, as all connections to the database were busy.",
    InitializingProjectConnection => "The connection to the database is not there yet.",
    InvalidJWTToken => "A token has expired, or lacks the claims role and exp.",
    InvalidJoinPayload => "Something in the payload of a join could not be read; the rest was heeded.",
    InvalidPresencePayload => "A presence was not an object.",
    JoinsRateLimitReached => "A client was not let in, as clients join more often than they may.",
    JwtSignatureError => "A token is not signed by a key of ours.",
    JwtSignerError => "There is no key by which a token could be verified.",
    MalformedJWT => "A token is no JWT.",
    MalformedWebSocketMessage => "A message could not be read and was dropped; the connection lives on.",
    MessagePerSecondRateLimitReached => "More messages than there may be.",
    MissingAPIKey => "A client named no key.",
    MissingPartition => "The partition of realtime.messages for today is not there.",
    PresenceRateLimitReached => "More changes of presences than there may be.",
    PrivateOnly => "A public channel was to be joined where there are only private ones.",
    QueryCanceled => "The database cancelled a query, mostly as it took too long.",
    RealtimeDisabledForConfiguration => "What a client wants to hear of the database cannot be given to it.",
    RealtimeDisabledForTenant => "Realtime is switched off.",
    RealtimeRestarting => "The server is about to stop.",
    RlsPolicyError => "A policy on realtime.messages failed.",
    TenantNotFound => "There is no such project.",
    TopicNameRequired => "A channel was to be joined that has no name.",
    UnableToConnectToProject => "The database cannot be reached.",
    UnableToHandleBroadcast => "A broadcast could not be handled.",
    UnableToHandlePresence => "A presence could not be handled.",
    UnableToReplayMessages => "Earlier broadcasts were asked for that cannot be given.",
    UnableToSetPolicies => "Rights could not be looked up.",
    UnableToSubscribeToPostgres => "Changes of the database cannot be listened to.",
    UnableToTrackPresence => "A presence could not be kept.",
    Unauthorized => "The policies on realtime.messages do not let the client read there.",
    UnknownErrorOnChannel => "Something else failed on a channel.",
    UnknownErrorOnWebSocketMessage => "Something else failed with a message, which was dropped.",
    UnknownPresenceEvent => "A presence was neither to be tracked nor untracked.",
    UnprocessableEntity => "The body of a request could not be read.",
    OutboxFull => "A client takes messages slower than they come, and was closed. (Ours.)",
    PositionUnreadable => "A client named a position that is none. (Ours.)",
    SessionNotFound => "The session of a token was signed out, has expired, or its user may not sign in any more. (Ours.)",
    PositionTooOld => "A client named a position whose successors are not kept any more; it has to fetch again. (Ours.)",
}

/// A signing key that could not be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoSigner {
    /// The `kid` of the token.
    pub key: Option<String>,
}

impl std::fmt::Display for NoSigner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        let whose = self.key.as_ref().map(|key| format!(" for key ID (kid) {}", super::inspect::string(key)));
        write!(
            formatter,
            "Failed to generate JWT signer{}, check your JWT secret or JWKS configuration",
            whose.unwrap_or_default()
        )
    }
}

/// What is wrong with a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Token {
    #[error("Token has expired {ago} seconds ago")]
    Expired { ago: u64 },
    #[error("Fields `role` and `exp` are required in JWT")]
    MissingClaims,
    #[error("The token provided is not a valid JWT")]
    Malformed,
    #[error("Failed to validate JWT signature")]
    Signature,
    #[error("{0}")]
    NoSigner(NoSigner),
    /// Ours, in the words that sign-in has for it.
    #[error("Session from session_id claim in JWT does not exist")]
    SessionOver,
}

impl Token {
    pub fn code(&self) -> Code {
        match self {
            Self::Expired { .. } | Self::MissingClaims => Code::InvalidJWTToken,
            Self::Malformed => Code::MalformedJWT,
            Self::Signature => Code::JwtSignatureError,
            Self::NoSigner(_) => Code::JwtSignerError,
            Self::SessionOver => Code::SessionNotFound,
        }
    }
}

/// Why a channel cannot be joined: the reply's reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("You must provide a topic name")]
    NoName,
    #[error("Realtime is restarting, please standby")]
    Restarting,
    #[error("Realtime disabled for this tenant")]
    Disabled,
    #[error("This project only allows private channels")]
    PrivateOnly,
    #[error("Too many connected users")]
    TooManyClients,
    /// The connection is closed after it, with [`close::GOING_AWAY`].
    #[error("Too many joins per second")]
    TooManyJoins,
    #[error("Too many channels")]
    TooManyChannels,
    #[error(transparent)]
    Token(#[from] Token),
    #[error("You do not have permissions to read from this Channel topic: {name}")]
    Unauthorized { name: String },
    #[error("Replay is not allowed for public channels")]
    PublicReplay,
    #[error("Replay params are not valid")]
    InvalidReplay,
    #[error("Realtime was unable to replay messages")]
    ReplayFailed,
    #[error("Please increase your connection pool size")]
    Busy,
    #[error("Database can't accept more connections, Realtime won't connect")]
    NoConnections,
    #[error("Realtime was unable to connect to the project database")]
    Unreachable,
    #[error("Connecting to the project database")]
    Connecting,
    #[error("Query was cancelled, please try again")]
    Cancelled,
    #[error("Realtime was unable to find the expected messages partition")]
    NoPartition,
    #[error("Unknown Error on Channel")]
    Unknown,
}

impl Refusal {
    pub fn code(&self) -> Code {
        match self {
            Self::NoName => Code::TopicNameRequired,
            Self::Restarting => Code::RealtimeRestarting,
            Self::Disabled => Code::RealtimeDisabledForTenant,
            Self::PrivateOnly => Code::PrivateOnly,
            Self::TooManyClients => Code::ConnectionRateLimitReached,
            Self::TooManyJoins => Code::ClientJoinRateLimitReached,
            Self::TooManyChannels => Code::ChannelRateLimitReached,
            Self::Token(token) => token.code(),
            Self::Unauthorized { .. } => Code::Unauthorized,
            Self::PublicReplay | Self::InvalidReplay | Self::ReplayFailed => Code::UnableToReplayMessages,
            Self::Busy => Code::IncreaseConnectionPool,
            Self::NoConnections => Code::DatabaseLackOfConnections,
            Self::Unreachable => Code::UnableToConnectToProject,
            Self::Connecting => Code::InitializingProjectConnection,
            Self::Cancelled => Code::QueryCanceled,
            Self::NoPartition => Code::MissingPartition,
            Self::Unknown => Code::UnknownErrorOnChannel,
        }
    }

    /// With the code before it, as clients read it.
    pub fn reason(&self) -> String {
        match self {
            Self::Unknown => self.to_string(),
            _ => format!("{}: {self}", self.code().text()),
        }
    }
}

/// Why the server closes a channel: said by a `system` message before `phx_close`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Shutdown {
    #[error("Too many messages per second")]
    TooManyMessages,
    #[error("Too many presence messages per second")]
    TooManyPresences,
    #[error("Client presence rate limit exceeded")]
    TooManyClientPresences,
    #[error("Track message size exceeded")]
    PresenceTooLarge,
    #[error(transparent)]
    Token(#[from] Token),
    #[error("You do not have permissions to read from this Channel topic: {name}")]
    Unauthorized { name: String },
    /// A right that was there is not any more.
    #[error("You no longer have permission to read from this Channel topic: {name}")]
    Revoked { name: String },
    #[error("Realtime was unable to connect to the project database")]
    Unreachable,
    #[error("Query was cancelled, please try again")]
    Cancelled,
    #[error("Replication connection was not established in time")]
    NotReady,
}

impl Shutdown {
    /// What operators count it as.
    pub fn code(&self) -> Code {
        match self {
            Self::TooManyMessages => Code::MessagePerSecondRateLimitReached,
            Self::TooManyPresences => Code::PresenceRateLimitReached,
            Self::TooManyClientPresences => Code::ClientPresenceRateLimitReached,
            Self::Token(token) => token.code(),
            Self::Unauthorized { .. } | Self::Revoked { .. } => Code::Unauthorized,
            Self::Unreachable => Code::UnableToConnectToProject,
            Self::Cancelled => Code::QueryCanceled,
            Self::PresenceTooLarge | Self::NotReady => Code::ChannelShutdown,
        }
    }
}

/// Why a client is not let in: the answer to its handshake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Handshake {
    #[error("API key is missing")]
    NoKey,
    #[error("Token has expired")]
    Expired,
    /// Not [`Token::Expired`], which is said otherwise here.
    #[error(transparent)]
    Token(Token),
    #[error("Realtime was disabled for this tenant")]
    Disabled,
    #[error("Too many connected users")]
    TooManyClients,
    #[error("Too many joins per second")]
    TooManyJoins,
    #[error("Error connecting to Realtime")]
    Unknown,
}

impl From<Token> for Handshake {
    fn from(token: Token) -> Self {
        match token {
            Token::Expired { .. } => Self::Expired,
            Token::MissingClaims | Token::Malformed | Token::Signature | Token::NoSigner(_) | Token::SessionOver => {
                Self::Token(token)
            }
        }
    }
}

impl Handshake {
    pub fn status(&self) -> u16 {
        match self {
            Self::NoKey | Self::Expired | Self::Token(_) => 401,
            Self::Disabled => 403,
            Self::TooManyClients | Self::TooManyJoins => 429,
            Self::Unknown => 500,
        }
    }

    pub fn code(&self) -> Code {
        match self {
            Self::NoKey => Code::MissingAPIKey,
            Self::Expired => Code::InvalidJWTToken,
            Self::Token(token) => token.code(),
            Self::Disabled => Code::RealtimeDisabledForTenant,
            Self::TooManyClients => Code::ConnectionRateLimitReached,
            Self::TooManyJoins => Code::JoinsRateLimitReached,
            Self::Unknown => Code::ErrorConnectingToWebsocket,
        }
    }

    pub fn body(&self) -> Value {
        json!({ "error": self.to_string() })
    }
}

/// What a reply to a message within a channel refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declined {
    /// Nobody has joined there.
    Unmatched,
    /// A broadcast that is to be acknowledged.
    TooLarge,
    /// A presence that is not an object.
    NotAnObject,
    /// A presence that may not be, or cannot be kept.
    Presence,
}

impl Declined {
    /// The reply's response.
    pub fn response(self) -> Json {
        match self {
            Self::Unmatched => Json::of(&json!({ "reason": "unmatched topic" })),
            // A bare text, as it comes from realtime.
            Self::TooLarge => Json::of(&json!("payload_size_exceeded")),
            Self::NotAnObject => Json::of(&json!({ "reason": "Presence track payload must be a map" })),
            Self::Presence => Json::empty(),
        }
    }
}

/// Codes that a websocket is closed with.
pub mod close {
    /// The client is to come back later, or elsewhere.
    pub const GOING_AWAY: u16 = 1001;
    /// The client takes messages too slowly. Realtime has no such code; this is what RFC 6455 has for one's rules.
    pub const POLICY: u16 = 1008;
    pub const TOO_LARGE: u16 = 1009;
    /// The node stops, or what it goes by has changed.
    pub const RESTART: u16 = 1012;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_explained() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/realtime.md");
        let page = std::fs::read_to_string(path).unwrap();
        let lines = Code::ALL.iter().map(|code| format!("| `{}` | {} |\n", code.text(), code.means()));
        let codes = lines.collect::<Vec<_>>().concat();
        assert!(page.ends_with(&codes), "the page ends with these lines:\n{codes}");
    }

    #[test]
    fn joins_are_refused_in_realtimes_words() {
        let name = "room".to_owned();
        for (refusal, expected) in [
            (Refusal::NoName, "TopicNameRequired: You must provide a topic name"),
            (Refusal::TooManyJoins, "ClientJoinRateLimitReached: Too many joins per second"),
            (Refusal::TooManyChannels, "ChannelRateLimitReached: Too many channels"),
            (Refusal::TooManyClients, "ConnectionRateLimitReached: Too many connected users"),
            (Refusal::PrivateOnly, "PrivateOnly: This project only allows private channels"),
            (
                Refusal::Unauthorized { name },
                "Unauthorized: You do not have permissions to read from this Channel topic: room",
            ),
            (Token::Expired { ago: 12 }.into(), "InvalidJWTToken: Token has expired 12 seconds ago"),
            (Token::MissingClaims.into(), "InvalidJWTToken: Fields `role` and `exp` are required in JWT"),
            (Token::Malformed.into(), "MalformedJWT: The token provided is not a valid JWT"),
            (Token::Signature.into(), "JwtSignatureError: Failed to validate JWT signature"),
            (
                Token::NoSigner(NoSigner { key: Some("a\"b".to_owned()) }).into(),
                r#"JwtSignerError: Failed to generate JWT signer for key ID (kid) "a\"b", check your JWT secret or JWKS configuration"#,
            ),
            (
                Token::NoSigner(NoSigner { key: None }).into(),
                "JwtSignerError: Failed to generate JWT signer, check your JWT secret or JWKS configuration",
            ),
            (Refusal::PublicReplay, "UnableToReplayMessages: Replay is not allowed for public channels"),
            (Refusal::InvalidReplay, "UnableToReplayMessages: Replay params are not valid"),
            (Refusal::Unknown, "Unknown Error on Channel"),
        ] {
            assert_eq!(refusal.reason(), expected);
        }
    }

    #[test]
    fn handshakes_are_refused_in_realtimes_words() {
        for (refusal, status, expected) in [
            (Handshake::NoKey, 401, r#"{"error":"API key is missing"}"#),
            (Token::Expired { ago: 1 }.into(), 401, r#"{"error":"Token has expired"}"#),
            (Token::Malformed.into(), 401, r#"{"error":"The token provided is not a valid JWT"}"#),
            (Handshake::Disabled, 403, r#"{"error":"Realtime was disabled for this tenant"}"#),
            (Handshake::TooManyClients, 429, r#"{"error":"Too many connected users"}"#),
            (Handshake::TooManyJoins, 429, r#"{"error":"Too many joins per second"}"#),
            (Handshake::Unknown, 500, r#"{"error":"Error connecting to Realtime"}"#),
        ] {
            assert_eq!((refusal.status(), refusal.body().to_string().as_str()), (status, expected));
        }
    }

    #[test]
    fn a_code_is_there_once() {
        let mut texts: Vec<_> = Code::ALL.iter().map(|code| code.text()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|code| code.means().ends_with(['.', ')'])));
    }
}
