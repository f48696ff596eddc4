//! The harness: worlds to test in. A world is a node of its own on its own clone of a migrated template, on the embedded
//! database or on a PostgreSQL server.
//!
//! The node is the real program, spoken to over HTTP only. Everything a world makes is in one temporary directory and ends
//! with it; the PostgreSQL server is shared by all worlds of a test process and ends with that process.

pub mod ask;
pub mod authenticator;
pub mod cluster;
pub mod directory;
pub mod mail;
pub mod nats;
pub mod network;
pub mod node;
pub mod npm;
pub mod pebble;
pub mod postgres;
pub mod python;
pub mod s3;
pub mod service;
pub mod template;
pub mod tus;
pub mod websocket;
pub mod wire;
pub mod world;

use std::io::Write;
use std::sync::Once;

pub use ask::{Answer, Ask, Who};
pub use node::Node;
pub use world::{Backend, World};

/// Between two looks: whoever looks without a pause takes the processor from whom it waits for.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// From now on a test that fails says why at once, too: the summary stands at the end of all tests, and who waits for half an hour,
/// or has half of a log, would not know before.
pub fn report_at_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |fault| {
            usual(fault);
            let thread = std::thread::current();
            // Unlike what is printed, this is not kept for the summary.
            let _ = writeln!(std::io::stderr(), "{}: {fault}", thread.name().unwrap_or("a thread of a test"));
        }));
    });
}

/// Asks again until it is so.
///
/// # Panics
/// When it never is.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < node::PATIENCE, "never: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// Makes a test for each backend out of each function that takes a [`World`].
#[macro_export]
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod embedded {
            $(#[test] fn $name() { super::$name(&mut $crate::World::start($crate::Backend::Embedded)); })*
        }
        mod server {
            $(#[test] fn $name() { super::$name(&mut $crate::World::start($crate::Backend::Server)); })*
        }
    };
}
