//! The sweeper: rows and blobs never disagree for long. What a crash leaves behind is a blob that no row names; here it goes.
//!
//! A blob is written before its row, so one that is younger than a while may still get one. How old it is only its store knows, and
//! Amazon's says when its upload began: one that took long is old when it is there. So who has no row is asked for again after a moment,
//! which no commit outlasts. Every node sweeps now and then; the second finds nothing.

use std::time::{Duration, SystemTime};

use ntier_backing::blobs::{BlobId, Blobs};
use ntier_backing::database::Database;
use serde_json::json;

use crate::Storage;
use crate::error::Error;
use crate::session::{self, sql};

/// Blobs that are looked at together.
const PAGE: usize = 1000;
/// Longer than the commit of a row takes whose blob is there.
const MOMENT: Duration = Duration::from_mins(1);
/// Uploads by S3's protocol that nobody has sent a part of for so long are given up, as in Supabase.
const S3_UPLOADS: &str = "24 hours";

/// What a sweep found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    pub looked_at: usize,
    /// Blobs that no row named.
    pub removed: usize,
    /// Uploads that had not come to their end.
    pub unfinished: usize,
    /// Uploads that nobody went on with in time.
    pub expired: usize,
}

impl Storage {
    /// Removes what no row names and is older than this.
    pub async fn sweep(&self, older_than: Duration) -> Result<Swept, Error> {
        sweep(&self.database, &self.blobs, older_than).await
    }
}

/// Removes blobs older than this that no row names, what is left of uploads that broke off, and uploads that have expired.
pub async fn sweep(database: &Database, blobs: &Blobs, older_than: Duration) -> Result<Swept, Error> {
    let mut swept = Swept { expired: expire(database).await?, ..Swept::default() };
    let before = SystemTime::now().checked_sub(older_than).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut after: Option<BlobId> = None;
    let mut suspects = Vec::new();
    loop {
        let page = blobs.list(after.as_ref(), PAGE).await?;
        swept.looked_at += page.len();
        after = page.last().map(|last| last.id);
        let is_last = page.len() < PAGE;
        let old: Vec<BlobId> = page.into_iter().filter(|blob| blob.modified <= before).map(|blob| blob.id).collect();
        suspects.extend(unnamed(database, old).await?);
        if is_last {
            break;
        }
    }
    if !suspects.is_empty() {
        tokio::time::sleep(MOMENT.min(older_than)).await;
    }
    for page in suspects.chunks(PAGE) {
        let unnamed = unnamed(database, page.to_vec()).await?;
        swept.removed += unnamed.len();
        blobs.remove(&unnamed).await?;
    }
    swept.unfinished = blobs.clean(older_than).await?;
    Ok(swept)
}

/// Those that neither an object nor a part names.
async fn unnamed(database: &Database, ids: Vec<BlobId>) -> Result<Vec<BlobId>, Error> {
    if ids.is_empty() {
        return Ok(ids);
    }
    let list = json!(ids.iter().map(BlobId::as_str).collect::<Vec<_>>()).to_string();
    let statement = sql(
        "select id from jsonb_array_elements_text($1::jsonb) as list (id) \
         where not exists (select from storage.objects o where o.version = list.id) \
         and not exists (select from ntier.object_parts p where p.blob = list.id::uuid)",
        &[Some(&list)],
    );
    let answer = session::look(database, vec![statement]).await?;
    let rows = answer.results.first().map(|result| result.rows.as_slice()).unwrap_or_default();
    Ok(rows.iter().filter_map(|row| row.text(0)).filter_map(BlobId::parse).collect())
}

/// Forgets uploads whose time is over, and parts of what is neither an object nor an upload; their blobs have no name then.
async fn expire(database: &Database) -> Result<usize, Error> {
    let uploads = sql("delete from ntier.storage_uploads where expires_at < now() returning id", &[]);
    let s3_uploads = sql(
        "delete from storage.s3_multipart_uploads s where s.created_at < now() - $1::interval \
         and not exists (select from ntier.object_parts p where p.version::text = s.version and p.created_at > now() - $1::interval) \
         returning s.id",
        &[Some(S3_UPLOADS)],
    );
    let parts = sql(
        "delete from ntier.object_parts p where p.created_at < now() - interval '1 hour' \
         and not exists (select from storage.objects o where o.version = p.version::text) \
         and not exists (select from ntier.storage_uploads u where u.id = p.version) \
         and not exists (select from storage.s3_multipart_uploads s where s.version = p.version::text)",
        &[],
    );
    // What clients of WebDAV have said of objects that are gone.
    let properties = sql(
        "delete from ntier.dav_properties p where not exists (select from storage.objects o where o.id = p.object_id)",
        &[],
    );
    let answer = session::finish(database, vec![uploads, s3_uploads, parts, properties]).await?;
    Ok(answer.results.iter().take(2).map(|result| result.rows.len()).sum())
}
