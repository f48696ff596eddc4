//! Passwords are hashed on threads of their own, few at once, so that a flood of sign-ins does not starve other requests.

use std::sync::Arc;
use std::thread::available_parallelism;

use ntier_protocol::auth::error::{Code, Error as Refused};
use ntier_security::password::{self, Verdict};
use tokio::sync::Semaphore;

use crate::error::Error;

#[derive(Debug)]
pub struct Hashing {
    /// One for each processor but one, so that there is always one for the others.
    running: Arc<Semaphore>,
    /// Those who run or wait; more are sent away.
    places: Arc<Semaphore>,
}

/// Who may wait for each that runs: at fifty milliseconds each, a wait of some seconds.
const WAITING: usize = 100;

impl Hashing {
    pub fn new() -> Self {
        let running = available_parallelism().map_or(1, std::num::NonZero::get).saturating_sub(1).max(1);
        Self { running: Arc::new(Semaphore::new(running)), places: Arc::new(Semaphore::new(running * WAITING)) }
    }

    /// The hash of a new password.
    pub async fn hash(&self, password: &str) -> Result<String, Error> {
        let password = password.to_owned();
        let hash = self.run(move || password::hash(&password)).await?;
        hash.map(|hash| hash.expose().clone()).map_err(|_| Error::Hashing)
    }

    /// Takes as long where there is no hash.
    pub async fn verify(&self, password: &str, hash: Option<&str>) -> Result<Verdict, Error> {
        let (password, hash) = (password.to_owned(), hash.map(str::to_owned));
        self.run(move || password::verify(&password, hash.as_deref())).await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let busy = || {
            let message = "Too many passwords are being checked, please try again in a moment";
            Refused::new(429, Code::OverloadedHashing, message)
        };
        let _place = self.places.clone().try_acquire_owned().map_err(|_| busy())?;
        let turn = self.running.clone().acquire_owned().await.map_err(|_| Error::Hashing)?;
        let work = move || {
            // Until it is done, also where nobody waits for it any more.
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Error::Hashing)
    }
}
