//! A place for one connection: it connects, serves its queue, and connects again when the connection ends.
//!
//! At start it connects (the embedded engine is started first). While it runs, work goes to the connection. When the
//! connection ends it decides for each batch that was under way: nothing that may have happened is done twice, and nothing that
//! certainly has not happened is given up. At the end of the queue it lets the engine leave.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

use super::connection::{Connection, Ended, Reason, Ways, Work};
use super::engine::{self, Engine};
use super::handshake;
use super::progress::Progress;
use super::referee::Referee;
use super::{Error, Notification, Options, Target};

/// Pauses between attempts to connect; the last one repeats.
const BACKOFF: [u64; 6] = [0, 20, 50, 100, 250, 1000];
/// Work is told that there is no database after this many attempts in a row.
const PATIENT_ATTEMPTS: usize = 4;

#[derive(Debug)]
pub struct Slot {
    queue: Mutex<Option<mpsc::UnboundedSender<Work>>>,
    sender: mpsc::WeakUnboundedSender<Work>,
    pub progress: Arc<Progress>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// Counts a batch as the slot's load while it lives.
pub struct Load(Arc<Progress>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.remove();
    }
}

impl Slot {
    /// Connects now; the error is the connection's.
    pub async fn connect(
        target: Target,
        options: &Options,
        notifications: broadcast::Sender<Notification>,
    ) -> Result<Self, Error> {
        let mut driver = Driver::new(target, options, notifications);
        let connection = driver.connect().await?;
        Ok(Self::spawn(driver, Some(connection)))
    }

    /// Connects when the first work comes.
    pub fn lazy(target: Target, options: &Options, notifications: broadcast::Sender<Notification>) -> Self {
        Self::spawn(Driver::new(target, options, notifications), None)
    }

    fn spawn(driver: Driver, connection: Option<Connection>) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let progress = driver.progress.clone();
        let task = tokio::spawn(driver.drive(receiver, connection));
        Self { sender: sender.downgrade(), queue: Mutex::new(Some(sender)), progress, task: Mutex::new(Some(task)) }
    }

    pub fn submit(&self, work: Work) -> Result<Load, Error> {
        let closed = || Error::Unavailable("the database is closed".into());
        let sender = self.sender.upgrade().ok_or_else(closed)?;
        self.progress.add();
        let load = Load(self.progress.clone());
        sender.send(work).map_err(|_| closed())?;
        Ok(load)
    }

    pub async fn close(&self) {
        let held = |lock: std::sync::PoisonError<_>| lock.into_inner();
        self.queue.lock().unwrap_or_else(held).take();
        let task = self.task.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

struct Driver {
    target: Target,
    referee: Referee,
    listen: Vec<String>,
    prepared_statements: bool,
    notifications: broadcast::Sender<Notification>,
    progress: Arc<Progress>,
}

impl Driver {
    fn new(target: Target, options: &Options, notifications: broadcast::Sender<Notification>) -> Self {
        let guest_deadline = options.guest_deadline;
        let referee = match &target {
            Target::External(address) => Referee::Server(address.clone()),
            Target::Embedded(_) => Referee::Engine { engine: None, guest_deadline },
        };
        let progress = Arc::new(Progress::new());
        let Options { listen, prepared_statements, .. } = options.clone();
        Self { target, referee, listen, prepared_statements, notifications, progress }
    }

    async fn connect(&mut self) -> Result<Connection, Error> {
        let address = match &self.target {
            Target::External(address) => address.clone(),
            Target::Embedded(embedded) => {
                if let Referee::Engine { engine, .. } = &mut self.referee {
                    if let Some(mut old) = engine.take() {
                        old.kill().await;
                    }
                    *engine = Some(Engine::start(embedded).await?);
                }
                embedded.address(engine::NODE)
            }
        };
        let ready = handshake::connect(&address).await?;
        let (notifications, progress) = (self.notifications.clone(), self.progress.clone());
        let groups_commits = matches!(self.target, Target::Embedded(_));
        let ways = Ways { prepared_statements: self.prepared_statements, groups_commits };
        let mut connection = Connection::new(ready, notifications, progress, ways);
        connection.listen(&self.listen);
        Ok(connection)
    }

    async fn drive(mut self, mut queue: mpsc::UnboundedReceiver<Work>, mut first: Option<Connection>) {
        // Work that must go again, before what waits in the queue.
        let mut again: VecDeque<Work> = VecDeque::new();
        loop {
            if first.is_none() && again.is_empty() && !self.is_eager() {
                let Some(work) = queue.recv().await else { break };
                again.push_back(work);
            }
            let connection = match first.take() {
                Some(connection) => Some(connection),
                None => self.reconnect(&mut queue, &mut again).await,
            };
            let Some(mut connection) = connection else { break };
            for work in again.drain(..) {
                connection.begin(work);
            }
            let ended = connection.run(&mut queue, &mut self.referee).await;
            if matches!(ended.reason, Reason::Closed) {
                break;
            }
            again = self.sort_out(ended).await;
        }
        for work in again {
            work.answer(Err(Error::Unavailable("the database is closed".into())));
        }
        if let Referee::Engine { engine: Some(engine), .. } = &mut self.referee {
            engine.stop().await;
        }
    }

    /// The embedded engine, and whoever listens, reconnects without waiting for work.
    fn is_eager(&self) -> bool {
        matches!(self.target, Target::Embedded(_)) || !self.listen.is_empty()
    }

    /// Connects however long it takes; work that has waited long enough is told. `None` when the queue has closed.
    async fn reconnect(
        &mut self,
        queue: &mut mpsc::UnboundedReceiver<Work>,
        again: &mut VecDeque<Work>,
    ) -> Option<Connection> {
        for attempt in 0.. {
            tokio::time::sleep(Duration::from_millis(BACKOFF[attempt.min(BACKOFF.len() - 1)])).await;
            let cause = match self.connect().await {
                Ok(connection) => {
                    self.tell_listeners();
                    return Some(connection);
                }
                Err(cause) => cause,
            };
            if attempt + 1 >= PATIENT_ATTEMPTS {
                while let Ok(work) = queue.try_recv() {
                    again.push_back(work);
                }
                for work in again.drain(..) {
                    work.answer(Err(cause.clone()));
                }
            }
            if queue.is_closed() && queue.is_empty() {
                return None;
            }
            if attempt + 1 >= PATIENT_ATTEMPTS && !self.is_eager() {
                again.push_back(queue.recv().await?);
            }
        }
        None
    }

    /// What was said on the channels while there was no connection is lost; an empty notification says so.
    fn tell_listeners(&self) {
        for channel in &self.listen {
            let _ = self.notifications.send(Notification { channel: channel.clone(), payload: String::new() });
        }
    }

    /// Decides what becomes of the batches that were under way.
    async fn sort_out(&mut self, ended: Ended) -> VecDeque<Work> {
        self.referee.end().await;
        let embedded = matches!(self.target, Target::Embedded(_));
        let mut again = VecDeque::new();
        for work in ended.unflushed {
            work.answer(Err(Error::Lost("it had not reached the disk".into())));
        }
        for (place, begun) in ended.begun.into_iter().enumerate() {
            let mut work = begun.work;
            let head = place == 0;
            if head && matches!(ended.reason, Reason::Deadline) {
                // The engine was killed before it answered, so nothing of it was done. A server that did not even answer to being asked to
                // cancel is out of reach, and what it has done is not known.
                let told = match embedded {
                    true if ended.is_head_answered => Error::Lost("it was ended while it answered".into()),
                    true => Error::Deadline,
                    false => Error::Lost("the server does not answer".into()),
                };
                work.answer(Err(told));
                continue;
            }
            // The engine begins the next batch when the answer of the one before has left it, and its answers were read to the end:
            // behind the head nothing has begun. A server's answers may be lost on the way, so there only reads go again.
            let untouched = embedded && !head;
            if untouched || (work.is_repeatable() && work.attempts < 2) {
                work.attempts += u8::from(!untouched);
                again.push_back(work);
            } else {
                let reason = match &ended.reason {
                    Reason::Lost(cause) => cause.clone(),
                    Reason::Deadline | Reason::Closed => "it was ended".into(),
                };
                work.answer(Err(Error::Lost(reason)));
            }
        }
        again.extend(ended.held);
        again
    }
}
