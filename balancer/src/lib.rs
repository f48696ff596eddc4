//! Who stands in front: takes requests of many clients and passes each on to one of several backends that is up.
//!
//! A request's way is [`forward`]: look, choose, ask, perhaps ask another, pass on. Decisions are pure functions (`choose`, `eject`,
//! `budget`, `repeat`, `health::Standing`); what is spoken with nodes is in `head`, `decode` and `exchange`, with
//! clients in `http1`, or in hyper where it is more than a plain request. What is absent: users, keys and rows,
//! which are the nodes', and any database: backends that register themselves, certificates and bans come from outside ([`Beside`]).

mod access;
mod admin;
mod answer;
mod backend;
mod budget;
mod choose;
mod clock;
mod crew;
mod decode;
mod eject;
mod ewma;
mod exchange;
mod figures;
mod forward;
mod frames;
mod guard;
mod head;
mod health;
mod http1;
pub mod issued;
mod late;
mod link;
mod listen;
mod members;
mod observe;
mod outbound;
mod outbox;
mod plan;
mod preface;
mod proxied;
mod redirect;
mod repeat;
mod room;
mod running;
pub mod settings;
mod streams;
pub mod tls;
mod tunnel;
mod upload;
mod worker;

pub use observe::Observe;
pub use plan::Member;
pub use running::{Beside, Error, Running, start};
pub use settings::Settings;
