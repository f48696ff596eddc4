//! The parent's line: standard input. Its end is our end; a byte on it is a question.
//!
//! Starts with the process and ends with it. While the engine runs a statement nothing else in this
//! process can answer, so this thread does: for each byte read it writes one line, the client whose
//! statement is running (0 for none) and for how many milliseconds. That is how the parent knows whether a
//! late answer is late because of its own statement or of somebody else's.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Which client is being served, and since when. Written by the engine's thread around each turn.
#[derive(Debug, Clone)]
pub struct Running {
    epoch: Instant,
    client: Arc<AtomicU64>,
    since_ms: Arc<AtomicU64>,
}

impl Running {
    pub fn new() -> Self {
        Self { epoch: Instant::now(), client: Arc::default(), since_ms: Arc::default() }
    }

    pub fn begin(&self, client: u32) {
        let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since_ms.store(now, Ordering::Relaxed);
        self.client.store(client.into(), Ordering::Release);
    }

    /// What comes until the next begins is nobody's.
    pub fn end(&self) {
        self.begin(0);
    }

    fn line(&self) -> String {
        let client = self.client.load(Ordering::Acquire);
        let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        format!("running {client} {}\n", now.saturating_sub(self.since_ms.load(Ordering::Relaxed)))
    }
}

/// Watches standard input until it ends, then calls `leave`. A statement that is running gets no say:
/// the log makes the next start whole.
pub fn watch(running: Running, leave: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut byte = [0_u8; 1];
        while matches!(input.read(&mut byte), Ok(1)) {
            let mut output = std::io::stdout().lock();
            if output.write_all(running.line().as_bytes()).and_then(|()| output.flush()).is_err() {
                break;
            }
        }
        leave();
    });
}
