//! Asking backends how they are: a task of its own for each. What a good and a bad answer change is decided by a pure function.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::backend::{Backend, Health};
use crate::decode;
use crate::observe::{Observation, Observe};
use crate::{link, settings};

/// What is held of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub health: Health,
    /// Answers in a row that speak against it.
    against: u32,
}

impl Standing {
    /// What is held of it after an answer.
    pub fn heard(self, is_good: bool, policy: &settings::Health) -> Self {
        let settled = |health| Self { health, against: 0 };
        let against = |most: u32, then| {
            let against = self.against + 1;
            if against >= most { settled(then) } else { Self { against, ..self } }
        };
        match (self.health, is_good) {
            // Whoever is asked for the first time is believed.
            (Health::Unknown | Health::Up, true) => settled(Health::Up),
            (Health::Unknown | Health::Down, false) => settled(Health::Down),
            (Health::Up, false) => against(policy.fall, Health::Down),
            (Health::Down, true) => against(policy.rise, Health::Up),
        }
    }
}

/// Asks this backend for as long as it is there.
pub async fn watch(backend: Arc<Backend>, policy: settings::Health, observe: Observe) {
    let Some(path) = policy.path.clone() else {
        backend.set_health(Health::Unknown);
        return;
    };
    // With other settings the watch begins anew, and what is known of it stays.
    let mut standing = Standing { health: backend.health(), against: 0 };
    loop {
        let asked = timeout(policy.timeout, ask(backend.address, &path)).await;
        let asked = asked.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within the time")));
        // What is missing here says nothing about the backend.
        let is_heard = !asked.as_ref().is_err_and(link::is_own);
        let next = if is_heard { standing.heard(asked.is_ok(), &policy) } else { standing };
        if next.health != standing.health {
            turn(&backend, standing.health, next.health, asked.err(), observe);
        }
        standing = next;
        // Not all at once: many balancers ask the same backend.
        let share = 0.9 + 0.2 * fastrand::f64();
        sleep(policy.interval.mul_f64(share)).await;
    }
}

fn turn(backend: &Backend, before: Health, after: Health, cause: Option<io::Error>, observe: Observe) {
    if after == Health::Up && before == Health::Down {
        backend.up_since.store(backend.clock.millis(Instant::now()), Relaxed);
        backend.failures.store(0, Relaxed);
        backend.ejected_until.store(0, Relaxed);
    }
    backend.set_health(after);
    match cause {
        None => observe.tell(&Observation::Up { backend: &backend.name }),
        Some(cause) => observe.tell(&Observation::Down { backend: &backend.name, cause: &cause.to_string() }),
    }
}

/// One question, on a connection of its own: whether new ones are taken is a part of it.
async fn ask(address: SocketAddr, path: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: ntier-balance\r\naccept: */*\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut read = BytesMut::new();
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closes without an answer"));
        }
        if let Some(head) = decode::head(&mut read, &Method::GET).map_err(io::Error::other)? {
            return if head.status.is_success() {
                Ok(())
            } else {
                Err(io::Error::other(format!("it answers {path} with {}", head.status.as_u16())))
            };
        }
    }
}

/// How long one may wait for the first answers of all.
pub fn patience(policy: &settings::Health) -> Duration {
    if policy.path.is_some() { policy.timeout } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_several_answers_to_change_what_is_held_of_a_backend() {
        let policy = settings::Health { rise: 2, fall: 3, ..settings::Settings::default().health };
        for (answers, expected) in [
            ("+", Health::Up),
            ("-", Health::Down),
            ("+--", Health::Up),
            ("+--+--", Health::Up),
            ("+---", Health::Down),
            ("-+", Health::Down),
            ("-+-+", Health::Down),
            ("-++", Health::Up),
            ("-++--", Health::Up),
        ] {
            let new = Standing { health: Health::Unknown, against: 0 };
            let end = answers.chars().fold(new, |standing, answer| standing.heard(answer == '+', &policy));
            assert_eq!(end.health, expected, "{answers}");
        }
    }
}
