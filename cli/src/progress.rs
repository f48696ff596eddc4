//! What is being done, told to whoever waits: at once on a terminal, elsewhere only what takes more than a second.
//!
//! A thread looks at the current step; it begins to speak when the step is a second old and ends with the value.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ntier::project::Outcome;
use ntier::server::Step;

const PATIENCE: Duration = Duration::from_secs(1);

pub struct Progress {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    terminal: bool,
}

#[derive(Default)]
struct State {
    step: Option<(&'static str, Instant)>,
    /// The step's line is on the screen.
    shown: bool,
    ended: bool,
}

impl Progress {
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), terminal });
        let thread = std::thread::spawn({
            let shared = shared.clone();
            move || shared.tell()
        });
        Self { shared, thread: Some(thread) }
    }

    pub fn observe(&self, step: Step) {
        let doing = match step {
            Step::Opening => "opening the database",
            Step::Migrating => "preparing the database",
            Step::Project => "applying the project's migrations",
            Step::Cataloguing => "reading the schema",
            Step::Done(outcome) => return self.done(&outcome),
        };
        let mut state = self.shared.lock();
        self.shared.clear(&mut state);
        state.step = Some((doing, Instant::now()));
        self.shared.changed.notify_one();
    }

    pub fn done(&self, outcome: &Outcome) {
        let mut state = self.shared.lock();
        self.shared.clear(&mut state);
        match outcome {
            Outcome::Migrated(file) => eprintln!("applied {file}"),
            Outcome::Seeded(file) => eprintln!("seeded {file}"),
            Outcome::BucketMade(name) => eprintln!("made the bucket {name}"),
            Outcome::BucketChanged(name) => eprintln!("changed the bucket {name} as config.toml has it"),
            Outcome::Uploaded { bucket, files } => eprintln!("uploaded {files} files to the bucket {bucket}"),
            Outcome::Remark(text) => eprintln!("note: {text}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        self.shared.clear(&mut state);
        state.ended = true;
        drop(state);
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        let mut state = self.lock();
        while !state.ended {
            let wait = match state.step {
                Some((doing, since)) if since.elapsed() >= PATIENCE => self.show(&mut state, doing, since.elapsed()),
                Some((_, since)) => PATIENCE.saturating_sub(since.elapsed()),
                None => PATIENCE,
            };
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Gives how long until it is worth showing again.
    fn show(&self, state: &mut State, doing: &str, took: Duration) -> Duration {
        if self.terminal {
            eprint!("\r\x1b[K{doing} … {} s", took.as_secs());
            let _ = std::io::stderr().flush();
        } else if !state.shown {
            eprintln!("{doing} …");
        }
        state.shown = true;
        PATIENCE
    }

    fn clear(&self, state: &mut State) {
        if self.terminal && state.shown {
            eprint!("\r\x1b[K");
        }
        state.shown = false;
    }
}
