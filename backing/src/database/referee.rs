//! Who ends a statement that runs too long, and whose fault it is that an answer is late.

use std::time::Duration;

use super::engine::Engine;
use super::handshake::{self, Key};
use super::url::Address;

/// What to do when the head is over its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// It is not the head's fault: count its time anew.
    Wait,
    /// A cancel request is on its way: wait for its effect.
    Cancelled,
    /// End the connection.
    End,
}

#[derive(Debug)]
pub enum Referee {
    /// A server takes cancel requests.
    Server(Address),
    /// The engine must be killed; another client of it (psql, a dump) may take `guest_deadline`.
    Engine { engine: Option<Engine>, guest_deadline: Duration },
}

impl Referee {
    /// Ends the engine, so that nothing more happens. A server goes on; there is no telling what it does.
    pub async fn end(&mut self) {
        if let Self::Engine { engine: Some(engine), .. } = self {
            engine.kill().await;
        }
    }

    pub async fn overdue(&mut self, key: Key, deadline: Duration) -> Overdue {
        match self {
            Self::Server(address) => {
                match tokio::time::timeout(Duration::from_secs(2), handshake::cancel(address, key)).await {
                    Ok(Ok(())) => Overdue::Cancelled,
                    _ => Overdue::End,
                }
            }
            Self::Engine { engine: None, .. } => Overdue::End,
            Self::Engine { engine: Some(engine), guest_deadline } => match engine.running().await {
                Some(running) if running.client == key.process && running.time >= deadline => Overdue::End,
                Some(running) if running.client == key.process => Overdue::Wait,
                Some(running) if running.time < *guest_deadline => Overdue::Wait,
                // A guest has had its time, or the engine does not even say: start again.
                _ => Overdue::End,
            },
        }
    }
}
