//! Rows that are read as the service: those of public files, and of files whose signed URL somebody has.
//!
//! Such look-ups are gathered. While one statement runs, those that come wait for the next one, which answers all of them and asks for
//! each place once; so a file that many want costs the database little. An answer is kept for a moment, as long as this node changes nothing:
//! whoever has changed a file, or a bucket, sees it at once; at another node it may take that moment.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ntier_backing::database::{Answer, Database, Row};
use ntier_protocol::storage::name::{BucketId, ObjectKey};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::error::Error;
use crate::session::{self, sql};
use crate::store::{self, Object};

/// Places that one statement asks for.
const MOST: usize = 256;
/// How long an answer is kept, from when it was asked for. It saves most where many want the same; the longer, the older is what other nodes give.
const MOMENT: Duration = Duration::from_millis(50);
/// Answers that are kept by each thread.
const KEPT: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    bucket: BucketId,
    key: ObjectKey,
}

/// What is at a place.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// `None` where there is no such bucket.
    pub is_public: Option<bool>,
    pub object: Option<Arc<Object>>,
}

type Told = Result<Found, Arc<Error>>;

/// One queue for each thread, more or less: whoever waits is woken by a thread that is awake, which costs nothing.
#[derive(Debug, Default)]
pub struct Lookups([Arc<Mutex<Queue>>; QUEUES]);

#[derive(Debug, Default)]
struct Queue {
    kept: HashMap<Place, Kept>,
    waiting: HashMap<Place, Vec<oneshot::Sender<Told>>>,
    is_running: bool,
}

#[derive(Debug)]
struct Kept {
    found: Found,
    since: Since,
}

/// The state that an answer is of.
#[derive(Debug, Clone, Copy)]
struct Since {
    asked: Instant,
    writes: u64,
}

impl Since {
    fn now() -> Self {
        Self { asked: Instant::now(), writes: session::writes() }
    }

    fn holds(self, now: Self) -> bool {
        self.writes == now.writes && now.asked.duration_since(self.asked) < MOMENT
    }
}

/// Threads that have one of their own.
const QUEUES: usize = 32;

static THREADS: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed);
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lookups {
    /// What is at the place: by a statement that begins after this call, or that began a moment ago.
    pub async fn find(&self, database: &Database, bucket: &BucketId, key: &ObjectKey) -> Result<Found, Error> {
        let place = Place { bucket: bucket.clone(), key: key.clone() };
        let (sender, told) = oneshot::channel();
        let queue = &self.0[THREAD.with(|thread| thread % QUEUES)];
        let begins = {
            let mut queue = lock(queue);
            if let Some(kept) = queue.kept.get(&place).filter(|kept| kept.since.holds(Since::now())) {
                return Ok(kept.found.clone());
            }
            queue.waiting.entry(place).or_default().push(sender);
            !std::mem::replace(&mut queue.is_running, true)
        };
        if begins {
            // Not as part of this request, whose client may go away.
            tokio::spawn(Running { queue: queue.clone(), is_done: false }.run(database.clone()));
        }
        match told.await {
            Ok(told) => Ok(told?),
            // The node stops.
            Err(_) => Err(Error::Incomplete),
        }
    }
}

/// The one that asks for all.
struct Running {
    queue: Arc<Mutex<Queue>>,
    is_done: bool,
}

impl Running {
    async fn run(mut self, database: Database) {
        while let Some(batch) = self.next() {
            let since = Since::now();
            match ask(&database, batch.keys()).await {
                Ok(found) => {
                    let mut queue = lock(&self.queue);
                    if queue.kept.len() > KEPT {
                        queue.kept.clear();
                    }
                    for ((place, senders), found) in batch.into_iter().zip(found) {
                        tell(senders, &Ok(found.clone()));
                        queue.kept.insert(place, Kept { found, since });
                    }
                }
                Err(error) => {
                    let told = Err(Arc::new(error));
                    for senders in batch.into_values() {
                        tell(senders, &told);
                    }
                }
            }
        }
    }

    /// Who waits now; `None` once there is nobody, and then the next one begins anew.
    fn next(&mut self) -> Option<HashMap<Place, Vec<oneshot::Sender<Told>>>> {
        let mut queue = lock(&self.queue);
        if queue.waiting.len() <= MOST {
            let batch = std::mem::take(&mut queue.waiting);
            if batch.is_empty() {
                queue.is_running = false;
                self.is_done = true;
                return None;
            }
            return Some(batch);
        }
        let first: Vec<Place> = queue.waiting.keys().take(MOST).cloned().collect();
        Some(first.into_iter().filter_map(|place| queue.waiting.remove_entry(&place)).collect())
    }
}

impl Drop for Running {
    /// Ended with the worker that it ran on: nobody may wait for it.
    fn drop(&mut self) {
        if !self.is_done {
            let mut queue = lock(&self.queue);
            queue.is_running = false;
            queue.waiting.clear();
        }
    }
}

fn tell(senders: Vec<oneshot::Sender<Told>>, told: &Told) {
    for sender in senders {
        // Whoever has gone is not told.
        let _ = sender.send(told.clone());
    }
}

/// In the order of the places.
async fn ask(database: &Database, places: impl Iterator<Item = &Place>) -> Result<Vec<Found>, Error> {
    let places: Vec<Value> =
        places.map(|place| json!({ "bucket": place.bucket.as_str(), "name": place.key.as_str() })).collect();
    let count = places.len();
    // Each place by itself and by its index, however many there are and whatever the tables looked like when it was planned.
    let text = format!(
        "select {}, b.public, {}, place.number from jsonb_array_elements($1::jsonb) with ordinality as place (it, number) \
         cross join lateral (select public from storage.buckets where id = place.it->>'bucket' offset 0) b \
         left join lateral (select * from storage.objects where bucket_id = place.it->>'bucket' and name = place.it->>'name' offset 0) o \
         on true",
        Object::COLUMNS,
        store::PARTS,
    );
    let answer = session::look(database, vec![sql(&text, &[Some(&Value::Array(places).to_string())])]).await?;
    let mut found = vec![Found::default(); count];
    for row in rows(&answer) {
        let number: Option<usize> = row.text(9).and_then(|text| text.parse().ok());
        let place = number.and_then(|number| found.get_mut(number.checked_sub(1)?)).ok_or(Error::Incomplete)?;
        place.is_public = Some(row.text(7) == Some("t"));
        if row.text(0).is_some() {
            let mut object = Object::of(row)?;
            object.parts = store::parts_of(row.text(8))?;
            place.object = Some(Arc::new(object));
        }
    }
    Ok(found)
}

fn rows(answer: &Answer) -> &[Row] {
    answer.results.first().map(|result| result.rows.as_slice()).unwrap_or_default()
}
