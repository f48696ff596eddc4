//! Who may do what: keys, tokens and callers, as pure functions. Time is an argument; nothing here does IO.
//!
//! What a caller may see is not decided here: that is row level security in PostgreSQL. Here it is decided
//! who the caller is.

pub mod bearer;
mod bounded;
pub mod caller;
pub mod defence;
pub mod firewall;
pub mod intrusion;
pub mod keys;
pub mod legacy_refresh;
pub mod network;
pub mod networks;
pub mod one_time;
pub mod password;
pub mod rates;
pub mod refresh;
mod role_path;
mod secret;
pub mod signed_refresh;
pub mod signed_url;
pub mod signing;
pub mod token;
pub mod totp;
pub mod vault;
mod verified;
pub mod webauthn;
pub mod webhook;

pub use role_path::RolePath;
pub use secret::Secret;

/// Seconds since 1970-01-01 UTC, as JWTs count time (RFC 7519, `NumericDate`).
pub type UnixTime = i64;
