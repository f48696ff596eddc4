//! Files on their way: each blob that a row names is copied, read again where it came to, and noted; and the keys, which stay as they are.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use ntier_backing::blobs::{self, BlobId, Blobs, Written, carry};
use tokio::task::JoinSet;

use super::place::{Place, literal};
use super::{Error, Event, Observe};
use crate::keys;
use crate::server::files as store;
use crate::settings::Settings;

/// Blobs that are looked at together.
const PAGE: usize = 200;
/// Blobs on their way at once: a small one is mostly waited for.
const AT_ONCE: usize = 8;

/// Both stores, where they are two.
#[derive(Debug, Clone)]
pub struct Stores {
    from: Blobs,
    to: Blobs,
}

/// What became of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Files {
    pub count: u64,
    pub bytes: u64,
    /// Named by a row, and not there before the move either.
    pub missing: u64,
}

impl Stores {
    /// `None` where files stay where they are, or where there are none.
    pub async fn open(source: &Settings, target: &Settings) -> Result<Option<Self>, Error> {
        if !source.storage.enabled || is_same(source, target) {
            return Ok(None);
        }
        Ok(Some(Self { from: store::blobs(source).await?, to: store::blobs(target).await? }))
    }

    /// Copies what is not there yet; gives what is there now.
    pub async fn copy(&self, source: &mut Place, target: &mut Place, observe: Observe<'_>) -> Result<Files, Error> {
        let (mut files, mut after) = (Files::default(), String::new());
        loop {
            let named = named(source, &after).await?;
            let Some(last) = named.last() else { return Ok(files) };
            after.clone_from(last);
            let done = done(target, &named).await?;
            for (_, size) in &done {
                files.count += 1;
                files.bytes += size;
            }
            let open = named.iter().filter(|id| !done.iter().any(|(there, _)| there == *id));
            let ids: Vec<BlobId> = open.filter_map(|id| BlobId::parse(id)).collect();
            for ids in ids.chunks(AT_ONCE) {
                let (written, missing) = self.carry(ids).await?;
                note(target, &written).await?;
                files.count += written.len() as u64;
                files.bytes += written.iter().map(|written| written.size_bytes).sum::<u64>();
                files.missing += missing;
                observe(Event::Files { count: files.count });
            }
        }
    }

    /// Copies these at once; gives what was written, and how many were not there.
    async fn carry(&self, ids: &[BlobId]) -> Result<(Vec<Written>, u64), Error> {
        let stores = Arc::new(self.clone());
        let mut tasks = JoinSet::new();
        for &id in ids {
            let stores = stores.clone();
            tasks.spawn(async move { carry(&stores.from, &stores.to, &id).await });
        }
        let (mut written, mut missing) = (Vec::with_capacity(ids.len()), 0);
        while let Some(done) = tasks.join_next().await {
            match done.map_err(io::Error::other).map_err(blobs::Error::Io)? {
                Ok(one) => written.push(one),
                Err(blobs::Error::Missing(_)) => missing += 1,
                Err(cause) => return Err(cause.into()),
            }
        }
        Ok((written, missing))
    }
}

/// Whether both keep files in the same place.
fn is_same(source: &Settings, target: &Settings) -> bool {
    match (source.storage.s3.bucket(), target.storage.s3.bucket()) {
        (Some(source), Some(target)) => {
            (source.endpoint, source.bucket, source.prefix) == (target.endpoint, target.bucket, target.prefix)
        }
        (None, None) => {
            let folder = |settings: &Settings| {
                let folder = settings.storage.folder.clone().unwrap_or_else(|| settings.data.join("files"));
                fs::canonicalize(&folder).unwrap_or(folder)
            };
            folder(source) == folder(target)
        }
        _ => false,
    }
}

/// Some blobs that rows name, in the order of their names.
async fn named(source: &mut Place, after: &str) -> Result<Vec<String>, Error> {
    let sql = format!(
        "select id from (
           select o.version as id from storage.objects o
           where o.version ~ '^[0-9a-f]{{8}}-[0-9a-f]{{4}}-[0-9a-f]{{4}}-[0-9a-f]{{4}}-[0-9a-f]{{12}}$'
             and not exists (select from ntier.object_parts p where p.version::text = o.version)
           union
           select p.blob::text from ntier.object_parts p
         ) named where id collate \"C\" > {} order by id collate \"C\" limit {PAGE}",
        literal(after)
    );
    let answers = source.run("reading which files there are", &sql).await?;
    let rows = answers.last().map(|rows| rows.rows.as_slice()).unwrap_or_default();
    Ok(rows.iter().filter_map(|row| row.text(0)).map(str::to_owned).collect())
}

/// Those of them that are there, with their sizes in bytes.
async fn done(target: &mut Place, ids: &[String]) -> Result<Vec<(String, u64)>, Error> {
    let list: Vec<String> = ids.iter().map(|id| literal(id)).collect();
    let sql = format!("select blob, size from ntier_move.files where blob in ({})", list.join(", "));
    let answers = target.run("reading which files are there", &sql).await?;
    let rows = answers.last().map(|rows| rows.rows.as_slice()).unwrap_or_default();
    Ok(rows.iter().filter_map(|row| Some((row.text(0)?.to_owned(), row.text(1)?.parse().ok()?))).collect())
}

async fn note(target: &mut Place, written: &[Written]) -> Result<(), Error> {
    if written.is_empty() {
        return Ok(());
    }
    let row = |written: &Written| {
        let md5 = u128::from_be_bytes(written.md5.unwrap_or_default());
        format!("('{}', {}, '{md5:032x}')", written.id, written.size_bytes)
    };
    let rows: Vec<String> = written.iter().map(row).collect();
    let sql = format!("insert into ntier_move.files values {} on conflict do nothing", rows.join(", "));
    target.run("noting files", &sql).await?;
    Ok(())
}

/// The files that make tokens, API keys and sealed secrets go on being good.
const KEYS: [&str; 2] = ["keys.json", "vault.key"];

/// Whether the target has keys of its own, which must not be lost.
pub fn check_keys(source: &Settings, target: &Settings) -> Result<(), Error> {
    for name in KEYS {
        let (from, to) = (source.data.join(name), target.data.join(name));
        let (Ok(ours), Ok(theirs)) = (fs::read(&from), fs::read(&to)) else { continue };
        if ours != theirs {
            return Err(Error::Target(format!(
                "there are other keys in {}: take the file away if nothing needs them",
                to.display()
            )));
        }
    }
    Ok(())
}

/// Copies the keys, whole and private.
pub fn copy_keys(source: &Settings, target: &Settings) -> Result<bool, Error> {
    let mut copied = false;
    for name in KEYS {
        copied |= copy_key(&source.data.join(name), &target.data.join(name))?;
    }
    Ok(copied)
}

fn copy_key(from: &Path, to: &Path) -> Result<bool, Error> {
    let fault = |path: &Path, cause| Error::Keys(keys::Error::File { path: path.to_owned(), cause });
    let text = match fs::read_to_string(from) {
        Ok(text) => text,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(cause) => return Err(fault(from, cause)),
    };
    if to.exists() {
        return Ok(false);
    }
    keys::write_new(to, text.trim_end()).map_err(|cause| fault(to, cause))?;
    Ok(true)
}
