//! How much at most. Sources: realtime's `config/runtime.exs`, `lib/realtime/api/tenant.ex`, `lib/realtime_web/endpoint.ex`,
//! `subscription_check_filters.sql`.

use std::time::Duration;

/// Names in a binary frame, references, metadata: their lengths are a byte each.
pub const NAME_BYTES: usize = 255;
/// A whole topic. It is ours: realtime has no limit, and cannot send broadcasts to a topic longer than a name of a binary frame.
pub const TOPIC_BYTES: usize = 1024;
/// Entries of `postgres_changes` in a join. It is ours: realtime has none.
pub const BINDINGS: usize = 1000;
/// Values of an `in` filter.
pub const IN_VALUES: usize = 100;
/// Broadcasts that a join may have replayed.
pub const REPLAYED: i64 = 25;
/// A frame; who sends a longer one is closed with 1009.
pub const FRAME_BYTES: usize = 5_000_000;
/// Bytes over the size of a payload that realtime lets pass.
pub const PAYLOAD_PADDING: usize = 500;

/// What realtime limits by settings, with its defaults. Rates are averages over [`Limits::window`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub channels_per_client: usize,
    pub clients: usize,
    pub messages_per_second: u32,
    pub joins_per_second: u32,
    pub presences_per_second: u32,
    /// Calls of `track` and `untrack` by one channel of a client within [`Limits::client_presence_window`].
    pub client_presences: u32,
    pub client_presence_window: Duration,
    /// Of a broadcast or a presence, in units of 1000 bytes.
    pub payload_kilobytes: usize,
    /// A row; from a larger one only values of up to [`Limits::SMALL_VALUE_BYTES`] are sent.
    pub record_bytes: usize,
    pub window: Duration,
    /// Before a connection is refused.
    pub connection_backoff: Duration,
    /// Before a join is refused.
    pub join_backoff: Duration,
    /// Until a token is looked at again, at the latest.
    pub token_check: Duration,
    /// A connection that says nothing for so long is closed.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            channels_per_client: 100,
            clients: 200,
            messages_per_second: 100,
            joins_per_second: 100,
            presences_per_second: 1000,
            client_presences: 5,
            client_presence_window: Duration::from_secs(30),
            payload_kilobytes: 3000,
            record_bytes: 1024 * 1024,
            window: Duration::from_mins(1),
            connection_backoff: Duration::from_secs(2),
            join_backoff: Duration::from_secs(5),
            token_check: Duration::from_mins(5),
            silence: Duration::from_mins(1),
        }
    }
}

impl Limits {
    pub const SMALL_VALUE_BYTES: usize = 64;

    /// Whether a payload of so many bytes may pass. Realtime counts the bytes of Erlang's own form of it, we those of the wire.
    pub fn passes(&self, payload_bytes: usize) -> bool {
        payload_bytes <= self.payload_kilobytes * 1000 + PAYLOAD_PADDING
    }
}
