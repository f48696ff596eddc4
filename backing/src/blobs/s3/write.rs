//! Writing a blob to S3.
//!
//! What fits in one part is put at once. More goes part by part: one is collected while at most two are on their way. Parts are 8 MB for
//! the first thousand, and grow from there, as an S3 takes no more than ten thousand of them; some (Cloudflare's) want all parts to
//! have one size, and so take blobs up to 8 GB.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use md5::{Digest, Md5};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{Error as Cause, MultipartId, ObjectStoreExt, PutPayload};
use std::io;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::Bucket;
use crate::blobs::{BlobId, Error, Written, collect};

/// Bytes of the first parts; no S3 takes smaller ones than 5 MB.
const PART: usize = 8 << 20;
/// After so many parts they are twice as large: 5 TB, the largest object of all S3s, are 9,200 parts.
const PARTS_OF_ONE_SIZE: usize = 1000;
/// Parts that are on their way at once.
const SENDING: usize = 2;
/// Received bytes are gathered in blocks of this size.
const BLOCK: usize = 256 << 10;
/// Hashing more takes long enough to be done by another thread.
const HASHED_HERE: usize = 32 << 10;

#[derive(Debug)]
pub struct Writer {
    id: BlobId,
    object: Object,
    block: Vec<u8>,
    /// Blocks of the part that is being collected.
    part: Vec<Bytes>,
    part_bytes: usize,
    size_bytes: u64,
    md5: Option<Md5>,
    sending: JoinSet<Result<(usize, PartId), Cause>>,
    sent: Vec<(usize, PartId)>,
    /// Parts that were begun.
    parts: usize,
}

impl Writer {
    pub(super) fn new(bucket: Arc<Bucket>, id: BlobId) -> Self {
        Self {
            id,
            object: Object { path: bucket.path(&id), bucket, upload: None, put: false },
            block: Vec::new(),
            part: Vec::new(),
            part_bytes: 0,
            size_bytes: 0,
            md5: Some(Md5::new()),
            sending: JoinSet::new(),
            sent: Vec::new(),
            parts: 0,
        }
    }

    pub(in crate::blobs) fn forget_md5(&mut self) {
        self.md5 = None;
    }

    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        while !bytes.is_empty() {
            let part_size = part_size(self.parts);
            if self.part_bytes + self.block.len() == part_size {
                self.send_part().await?;
                continue;
            }
            collect(&mut self.block, &mut bytes, BLOCK);
            if self.block.len() == BLOCK {
                self.end_block();
            }
        }
        Ok(())
    }

    pub async fn finish(mut self) -> Result<Written, Error> {
        if self.object.upload.is_none() {
            let payload = self.take_part().await?;
            self.object.put = true;
            let put = self.object.bucket.store.put(&self.object.path, payload).await;
            put.map_err(|cause| self.object.fault(cause))?;
        } else {
            self.send_part().await?;
            while self.part_sent().await? {}
            self.sent.sort_unstable_by_key(|(number, _)| *number);
            let parts = mem::take(&mut self.sent).into_iter().map(|(_, part)| part).collect();
            self.object.complete(parts).await?;
        }
        self.object.keep();
        let md5 = self.md5.take().map(|md5| md5.finalize().into());
        Ok(Written { id: self.id, size_bytes: self.size_bytes, md5 })
    }

    /// Sends the part that has been collected, after one of those on their way has arrived if there are as many as may be.
    async fn send_part(&mut self) -> Result<(), Error> {
        let upload = self.object.upload().await?;
        while self.sending.len() >= SENDING {
            self.part_sent().await?;
        }
        let payload = self.take_part().await?;
        let (bucket, path, number) = (self.object.bucket.clone(), self.object.path.clone(), self.parts);
        self.parts += 1;
        self.sending.spawn(async move {
            let part = bucket.store.put_part(&path, &upload, number, payload).await?;
            Ok((number, part))
        });
        Ok(())
    }

    /// Waits for one of the parts on their way; `false` when there is none.
    async fn part_sent(&mut self) -> Result<bool, Error> {
        let Some(sent) = self.sending.join_next().await else { return Ok(false) };
        let part = sent.map_err(io::Error::other)?.map_err(|cause| self.object.fault(cause))?;
        self.sent.push(part);
        Ok(true)
    }

    /// The part that has been collected, hashed.
    async fn take_part(&mut self) -> Result<PutPayload, Error> {
        self.end_block();
        let part = mem::take(&mut self.part);
        let size = mem::take(&mut self.part_bytes);
        self.size_bytes += size as u64;
        let payload = PutPayload::from_iter(part);
        if let Some(mut md5) = self.md5.take() {
            let whole = payload.clone();
            let hash = move || {
                whole.iter().for_each(|block| md5.update(block));
                md5
            };
            self.md5 = Some(if size <= HASHED_HERE {
                hash()
            } else {
                tokio::task::spawn_blocking(hash).await.map_err(io::Error::other)?
            });
        }
        Ok(payload)
    }

    fn end_block(&mut self) {
        if !self.block.is_empty() {
            self.part_bytes += self.block.len();
            self.part.push(mem::take(&mut self.block).into());
        }
    }
}

/// What there is of the blob at the S3; it goes again unless it is kept.
struct Object {
    bucket: Arc<Bucket>,
    path: Path,
    upload: Option<MultipartId>,
    /// Somebody may see it from now on.
    put: bool,
}

impl std::fmt::Debug for Object {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Object").field("path", &self.path).field("upload", &self.upload).finish_non_exhaustive()
    }
}

impl Object {
    async fn upload(&mut self) -> Result<MultipartId, Error> {
        if let Some(upload) = &self.upload {
            return Ok(upload.clone());
        }
        let begun = self.bucket.store.create_multipart(&self.path).await;
        let upload = begun.map_err(|cause| self.fault(cause))?;
        self.upload = Some(upload.clone());
        Ok(upload)
    }

    async fn complete(&mut self, parts: Vec<PartId>) -> Result<(), Error> {
        let upload = self.upload().await?;
        self.put = true;
        let completed = self.bucket.store.complete_multipart(&self.path, &upload, parts).await;
        completed.map(drop).map_err(|cause| self.fault(cause))
    }

    fn keep(&mut self) {
        self.upload = None;
        self.put = false;
    }

    fn fault(&self, cause: Cause) -> Error {
        self.bucket.fault(cause, None)
    }
}

impl Drop for Object {
    /// What does not succeed here is found when the bucket is cleaned, or swept.
    fn drop(&mut self) {
        let (upload, put) = (self.upload.take(), self.put);
        let Ok(runtime) = Handle::try_current() else { return };
        if upload.is_none() && !put {
            return;
        }
        let (bucket, path) = (self.bucket.clone(), mem::take(&mut self.path));
        runtime.spawn(async move {
            if let Some(upload) = upload {
                let _ = bucket.store.abort_multipart(&path, &upload).await;
            }
            if put {
                let _ = bucket.store.delete(&path).await;
            }
        });
    }
}

fn part_size(number: usize) -> usize {
    PART << (number / PARTS_OF_ONE_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_terabytes_fit() {
        let mut bytes = 0;
        let parts = (0..10_000).take_while(|number| {
            let begun = bytes < 5_u64 << 40;
            bytes += part_size(*number) as u64;
            begun
        });
        assert_eq!(parts.count(), 9_282);
        assert!(part_size(9_999) < 5 << 30);
        assert_eq!(part_size(0) % BLOCK, 0);
    }
}
