//! The dialect of Supabase's realtime, as its clients speak it over a websocket at `/realtime/v1/websocket`: Phoenix's channels, with
//! broadcasts, presences and changes of the database.
//!
//! A [`frame::Frame`] is [`read`] into a [`message::Message`], whose [`inbound::Inbound`] says what the client wants; what a server
//! says is built by [`outbound`], [`change`] and [`presence`], and [`write`] makes frames of it. Payloads that are only passed on
//! stay the bytes they came as. Who may do what, and who hears what, is decided elsewhere.
//!
//! Sources: supabase/realtime (`lib/realtime_web`), Phoenix (`lib/phoenix/socket.ex`, `lib/phoenix/channel/server.ex`) and realtime-js
//! (`src/lib/serializer.ts`, `src/RealtimeChannel.ts`).
//!
//! Beyond them: a client that names a [`position::Position`] is sent what it missed since.

pub mod binding;
pub mod change;
pub mod error;
pub mod filter;
pub mod frame;
pub mod http;
pub mod inbound;
mod inspect;
pub mod join;
pub mod limits;
pub mod message;
pub mod outbound;
pub mod position;
pub mod presence;
pub mod read;
pub mod topic;
pub mod write;

#[cfg(test)]
mod properties;
