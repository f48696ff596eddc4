//! What takes longer than a request: removing or moving all objects whose names begin alike. Asked for at `/storage/v1/job`, which
//! storage-api does not have.
//!
//! A job is a row. A node takes it for a while, does some objects at a time with the rights of whoever asked, and says how far it
//! came; when the node dies, another goes on from there. Cancelling stops it between two steps.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Response, StatusCode};
use ntier_backing::blobs::BlobId;
use ntier_backing::database::{Row, Rows, Statement};
use ntier_protocol::storage::error::{Code, Error as Wire};
use ntier_protocol::storage::name::{BucketId, ObjectKey};
use ntier_protocol::storage::request;
use ntier_security::caller::Caller;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Storage;
use crate::body::{self, Body};
use crate::error::Error;
use crate::respond;
use crate::session::{self, Mode, Request, Work, sql};
use crate::store::{self, time};
use crate::transfer::Route;
use crate::visitor::{Visitor, owner};

/// Objects of one step.
const STEP: usize = 500;
/// A node that says nothing for so long is taken for dead, in seconds.
const LEASE: &str = "60";
/// How often a node looks for jobs that others have left.
const PAUSE: Duration = Duration::from_secs(30);
/// Jobs of one caller that are not done yet.
const MOST: &str = "100";

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Wanted {
    #[serde(rename_all = "camelCase")]
    DeletePrefix { bucket_id: String, prefix: String },
    #[serde(rename_all = "camelCase")]
    MovePrefix { bucket_id: String, prefix: String, destination_bucket: Option<String>, destination_prefix: String },
}

impl Wanted {
    fn kind(&self) -> &'static str {
        match self {
            Self::DeletePrefix { .. } => "delete_prefix",
            Self::MovePrefix { .. } => "move_prefix",
        }
    }

    fn check(&self) -> Result<(), Error> {
        let (bucket, prefixes) = match self {
            Self::DeletePrefix { bucket_id, prefix } => (bucket_id, vec![prefix]),
            Self::MovePrefix { bucket_id, prefix, destination_bucket, destination_prefix } => {
                destination_bucket.as_deref().map(BucketId::parse).transpose()?;
                (bucket_id, vec![prefix, destination_prefix])
            }
        };
        BucketId::parse(bucket)?;
        // Nothing is the beginning of all names.
        prefixes
            .into_iter()
            .filter(|prefix| !prefix.is_empty())
            .try_for_each(|prefix| ObjectKey::parse(prefix).map(drop))?;
        Ok(())
    }
}

/// A job as its row says.
struct Job {
    id: String,
    wanted: Wanted,
    caller: Caller,
    /// The last name that was dealt with.
    reached: Option<String>,
}

/// What a step did.
struct Step {
    done: usize,
    failed: usize,
    /// `None` at the end.
    reached: Option<String>,
}

impl Storage {
    /// `/job` and `/job/{id}`.
    pub(crate) async fn route_jobs(
        &self,
        visitor: &Visitor,
        rest: &[&str],
        body: Body,
    ) -> Result<Response<Body>, Error> {
        match (&visitor.method, rest) {
            (&Method::POST, [] | [""]) => self.create_job(visitor, body).await,
            (&Method::GET, [id]) => self.get_job(visitor, id).await,
            (&Method::DELETE, [id]) => self.cancel_job(visitor, id).await,
            _ => Ok(respond::not_found()),
        }
    }

    async fn create_job(&self, visitor: &Visitor, body: Body) -> Result<Response<Body>, Error> {
        let caller = visitor.caller()?;
        let body = body::whole(body).await?;
        let wanted: Wanted = request::parse(&body)?;
        wanted.check()?;
        let arguments: Value = request::parse(&body)?;
        let text = format!(
            "insert into ntier.storage_jobs (kind, arguments, role, claims) select $1, $2::jsonb, $3, $4::jsonb \
             where (select count(*) from ntier.storage_jobs where state in ('waiting', 'running') \
             and claims->>'sub' is not distinct from $5) < {MOST} returning {JOB}"
        );
        let statement = sql(
            &text,
            &[
                Some(wanted.kind()),
                Some(&arguments.to_string()),
                Some(&caller.role),
                Some(&caller.claims),
                owner(caller).as_deref(),
            ],
        );
        let answer = session::finish(&self.database, vec![statement]).await?;
        let Some(json) = store::first(&answer, 0).and_then(|row| row.text(0)) else {
            return Err(Wire::new(Code::SlowDown, "Too many jobs are waiting").into());
        };
        self.jobs.notify_one();
        let mut response = respond::text(json.to_owned());
        *response.status_mut() = StatusCode::ACCEPTED;
        Ok(response)
    }

    async fn get_job(&self, visitor: &Visitor, id: &str) -> Result<Response<Body>, Error> {
        let text = format!("select {JOB} from ntier.storage_jobs where {OWN}");
        self.one_job(visitor, id, &text).await
    }

    async fn cancel_job(&self, visitor: &Visitor, id: &str) -> Result<Response<Body>, Error> {
        let text = format!(
            "update ntier.storage_jobs set state = case when state in ('waiting', 'running') then 'cancelled' else state end, \
             finished_at = coalesce(finished_at, now()) where {OWN} returning {JOB}"
        );
        self.one_job(visitor, id, &text).await
    }

    async fn one_job(&self, visitor: &Visitor, id: &str, text: &str) -> Result<Response<Body>, Error> {
        let caller = visitor.caller()?;
        let missing = || Wire::new(Code::NoSuchUpload, "Job not found");
        let id = Some(id).filter(|id| uuid::Uuid::try_parse(id).is_ok()).ok_or_else(missing)?;
        let is_service = if caller.role == "service_role" { "true" } else { "false" };
        let statement = sql(text, &[Some(id), Some(is_service), Some(&caller.role), owner(caller).as_deref()]);
        let answer = session::finish(&self.database, vec![statement]).await?;
        let json = store::first(&answer, 0).and_then(|row| row.text(0)).ok_or_else(missing)?;
        Ok(respond::text(json.to_owned()))
    }

    /// Does jobs for as long as the node lives: those of its own clients at once, those that others have left within a minute.
    pub async fn do_jobs(self: Arc<Self>) {
        let worker = BlobId::random().to_string();
        loop {
            match self.next_job(&worker).await {
                Ok(Some(job)) => self.do_job(&worker, job).await,
                // Whatever hinders will not be over at once.
                Ok(None) | Err(_) => {
                    let _ = tokio::time::timeout(PAUSE, self.jobs.notified()).await;
                }
            }
        }
    }

    async fn next_job(&self, worker: &str) -> Result<Option<Job>, Error> {
        let text = format!(
            "update ntier.storage_jobs set state = 'running', taken_by = $1::uuid, attempts = attempts + 1, \
             taken_until = now() + interval '{LEASE} seconds', updated_at = now() \
             where id = (select id from ntier.storage_jobs where state in ('waiting', 'running') \
             and (taken_until is null or taken_until < now()) order by created_at limit 1 for update skip locked) \
             returning id, kind, arguments, role, claims, reached"
        );
        let answer = session::finish(&self.database, vec![sql(&text, &[Some(worker)])]).await?;
        store::first(&answer, 0).map(Job::of).transpose()
    }

    async fn do_job(&self, worker: &str, mut job: Job) {
        loop {
            let (step, fault) = match self.step(&job).await {
                Ok(step) => (step, None),
                // It goes on when its time is over, here or elsewhere.
                Err(error) if error.wire().code == Code::SlowDown => return,
                Err(error) => (Step { done: 0, failed: 0, reached: None }, Some(error.wire().message)),
            };
            let state = match (&step.reached, &fault) {
                (_, Some(_)) => "failed",
                (None, None) => "done",
                (Some(_), None) => "running",
            };
            let text = format!(
                "update ntier.storage_jobs set done = done + $3::bigint, failed = failed + $4::bigint, \
                 reached = coalesce($5, reached), state = $6, error = $7, updated_at = now(), \
                 finished_at = case when $6 <> 'running' then now() end, \
                 taken_until = now() + interval '{LEASE} seconds' \
                 where id = $1::uuid and taken_by = $2::uuid and state = 'running' returning id"
            );
            let (done, failed) = (step.done.to_string(), step.failed.to_string());
            let said = sql(
                &text,
                &[
                    Some(&job.id),
                    Some(worker),
                    Some(&done),
                    Some(&failed),
                    step.reached.as_deref(),
                    Some(state),
                    fault.as_deref(),
                ],
            );
            let is_ours = session::finish(&self.database, vec![said]).await;
            if !is_ours.is_ok_and(|answer| store::first(&answer, 0).is_some()) || step.reached.is_none() {
                return;
            }
            job.reached = step.reached;
        }
    }

    async fn step(&self, job: &Job) -> Result<Step, Error> {
        match &job.wanted {
            Wanted::DeletePrefix { bucket_id, prefix } => self.delete_step(job, bucket_id, prefix).await,
            Wanted::MovePrefix { bucket_id, prefix, destination_bucket, destination_prefix } => {
                let bucket = destination_bucket.as_deref().unwrap_or(bucket_id);
                self.move_step(job, (bucket_id, prefix), (bucket, destination_prefix)).await
            }
        }
    }

    async fn delete_step(&self, job: &Job, bucket: &str, prefix: &str) -> Result<Step, Error> {
        let request = Request::of_job("storage.object.delete_prefix");
        let remove = next_names(
            "with next as ({}) , removed as (delete from storage.objects o using next where o.id = next.id returning o.name, o.version) \
             select next.name, removed.version from next left join removed using (name) order by next.name collate \"C\"",
            (bucket, prefix),
            job.reached.as_deref(),
        );
        let work = Work { service: Vec::new(), caller: vec![remove] };
        let answer = session::as_caller(&self.database, &job.caller, &request, Mode::Write, work).await?;
        let rows = answer.results.first().cloned().unwrap_or_default();
        let versions: Vec<String> = rows.rows.iter().filter_map(|row| row.text(1)).map(str::to_owned).collect();
        let done = versions.len();
        self.discard(versions);
        Ok(Step { done, failed: rows.rows.len() - done, reached: reached(&rows) })
    }

    /// One by one, because what stands in the way of one does not stand in that of the others.
    async fn move_step(&self, job: &Job, from: (&str, &str), to: (&str, &str)) -> Result<Step, Error> {
        let request = Request::of_job("storage.object.move_prefix");
        let names = next_names("{}", from, job.reached.as_deref());
        let work = Work { service: Vec::new(), caller: vec![names] };
        let answer = session::as_caller(&self.database, &job.caller, &request, Mode::Read, work).await?;
        let rows = answer.results.first().cloned().unwrap_or_default();
        let mut step = Step { done: 0, failed: 0, reached: reached(&rows) };
        for name in rows.rows.iter().filter_map(|row| row.text(1)) {
            // What is in the new place already stays.
            if from.0 == to.0 && name.starts_with(to.1) && to.1.starts_with(from.1) {
                continue;
            }
            let target = format!("{}{}", to.1, &name[from.1.len()..]);
            let (Ok(key), Ok(target)) = (ObjectKey::parse(name), ObjectKey::parse(&target)) else {
                step.failed += 1;
                continue;
            };
            let route = Route { from: (BucketId::parse(from.0)?, key), to: (BucketId::parse(to.0)?, target) };
            match self.rename(&job.caller, &request, &route).await {
                Ok(_) => step.done += 1,
                Err(error) if error.wire().code == Code::SlowDown => return Err(error),
                Err(_) => step.failed += 1,
            }
        }
        Ok(step)
    }
}

/// The columns of a job, as it is told.
const JOB: &str = concat!(
    "json_build_object('id', id, 'kind', kind, 'arguments', arguments, 'state', state, 'done', done, 'failed', failed, 'error', error, ",
    "'created_at', ",
    time!("created_at"),
    ", 'finished_at', ",
    time!("finished_at"),
    ")"
);
/// Whose job it is may see it.
const OWN: &str = "id = $1::uuid and ($2::boolean or (role = $3::text and claims->>'sub' = $4::text))";

/// The statement around `select id, name` of the next objects that begin so.
fn next_names(around: &str, (bucket, prefix): (&str, &str), after: Option<&str>) -> Statement {
    let next = format!(
        "select id, name from storage.objects where bucket_id = $1 and name collate \"C\" >= $2 \
         and starts_with(name, $2) and ($3::text is null or name collate \"C\" > $3) \
         order by name collate \"C\" limit {STEP}"
    );
    sql(&around.replace("{}", &next), &[Some(bucket), Some(prefix), after])
}

/// The last name of a full step; `None` where no more follows.
fn reached(rows: &Rows) -> Option<String> {
    let name = |row: &Row| {
        row.text(usize::from(rows.columns.first().is_some_and(|column| column.name == "id"))).map(str::to_owned)
    };
    if rows.rows.len() < STEP { None } else { rows.rows.last().and_then(name) }
}

impl Job {
    fn of(row: &Row) -> Result<Self, Error> {
        let text = |column: usize| row.text(column).map(str::to_owned).ok_or(Error::Incomplete);
        let mut arguments: Value = serde_json::from_str(&text(2)?).map_err(|_| Error::Incomplete)?;
        arguments["kind"] = json!(text(1)?);
        Ok(Self {
            id: text(0)?,
            wanted: serde_json::from_value(arguments).map_err(|_| Error::Incomplete)?,
            caller: Caller { role: text(3)?, claims: text(4)?.into(), is_anonymous: false },
            reached: row.text(5).map(str::to_owned),
        })
    }
}
