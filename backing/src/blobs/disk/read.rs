//! Reading a blob from the disk.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::chunk::{self, Chunks};
use super::{Folder, blocking};
use crate::blobs::{BlobId, Error, Piece};

/// Gives one chunk after the other, each when it is asked for.
#[derive(Debug)]
pub struct Reader {
    /// Read together with opening the file: of a small blob it is all.
    first: Option<Bytes>,
    /// Absent when there is nothing left in it.
    file: Option<Arc<File>>,
    /// What is not given yet.
    range: Range<u64>,
    chunks: Arc<Chunks>,
    /// A chunk that the disk is waited for.
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Reader {
    pub(super) async fn open(
        folder: &Arc<Folder>,
        chunks: &Arc<Chunks>,
        id: BlobId,
        range: Range<u64>,
    ) -> Result<Self, Error> {
        if let Some(file) = open_cached(folder, &id) {
            check(&file, id, &range)?;
            let first = chunks.read_first(&file, &range, Chunks::read_cached)?;
            return Ok(Self::new(file, first, range, chunks.clone()));
        }
        let (folder, chunks) = (folder.clone(), chunks.clone());
        blocking(move || {
            let file = File::open(folder.blob(&id)).map_err(|cause| match cause.kind() {
                io::ErrorKind::NotFound => Error::Missing(id),
                _ => cause.into(),
            })?;
            check(&file, id, &range)?;
            let read = |chunks: &Arc<Chunks>, file: &File, offset, left| chunks.read(file, offset, left).map(Some);
            let first = chunks.read_first(&file, &range, read)?;
            Ok(Self::new(file, first, range, chunks))
        })
        .await
    }

    fn new(file: File, first: Option<Bytes>, range: Range<u64>, chunks: Arc<Chunks>) -> Self {
        let has_all = first.as_ref().map_or(0, Bytes::len) as u64 == range.end - range.start;
        let file = (!has_all).then(|| Arc::new(file));
        Self { first, file, range, chunks, reading: None }
    }

    pub fn remaining(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// The next chunk; `None` at the end.
    pub(in crate::blobs) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.remaining() == 0 {
            return Poll::Ready(None);
        }
        let bytes = ready!(self.poll_chunk(context));
        if let Ok(bytes) = &bytes {
            self.range.start += bytes.len() as u64;
        } else {
            // A body that has failed is over.
            self.range.start = self.range.end;
        }
        if self.remaining() == 0 {
            self.file = None;
        }
        Poll::Ready(Some(bytes))
    }

    /// The next chunk, or a larger piece of the file where that is in the page cache.
    pub(in crate::blobs) fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
        longest: usize,
    ) -> Poll<Option<io::Result<Piece>>> {
        let length = usize::try_from(self.remaining()).unwrap_or(usize::MAX).min(longest);
        if self.first.is_none()
            && self.reading.is_none()
            && let Some(file) = self.file.clone()
            && chunk::is_cached(&file, self.range.start, length)
        {
            let offset = self.range.start;
            self.range.start += length as u64;
            if self.remaining() == 0 {
                self.file = None;
            }
            return Poll::Ready(Some(Ok(Piece::File { file, offset, length })));
        }
        self.poll(context).map(|bytes| bytes.map(|bytes| bytes.map(Piece::Bytes)))
    }

    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Ok(first));
        }
        if self.reading.is_none() {
            let (offset, left) = (self.range.start, self.remaining());
            let file = self.file.clone().expect("a file stays open until its last byte is read");
            match self.chunks.read_cached(&file, offset, left) {
                Ok(Some(bytes)) => return Poll::Ready(Ok(bytes)),
                Ok(None) => {}
                Err(cause) => return Poll::Ready(Err(cause)),
            }
            let chunks = self.chunks.clone();
            self.reading = Some(tokio::task::spawn_blocking(move || chunks.read(&file, offset, left)));
        }
        let reading = self.reading.as_mut().expect("set just above");
        let bytes = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        Poll::Ready(bytes.unwrap_or_else(|cause| Err(io::Error::other(cause))))
    }
}

impl Chunks {
    /// The first chunk of a range, unless the range is empty.
    fn read_first(
        self: &Arc<Self>,
        file: &File,
        range: &Range<u64>,
        read: impl FnOnce(&Arc<Self>, &File, u64, u64) -> io::Result<Option<Bytes>>,
    ) -> io::Result<Option<Bytes>> {
        if range.is_empty() { Ok(None) } else { read(self, file, range.start, range.end - range.start) }
    }
}

fn check(file: &File, id: BlobId, range: &Range<u64>) -> Result<(), Error> {
    let size_bytes = file.metadata()?.len();
    if range.start > range.end || range.end > size_bytes {
        return Err(Error::Beyond { id, size_bytes, range: range.clone() });
    }
    Ok(())
}

/// Opens a blob whose path the kernel knows by heart; `None` also where it is not there, for the slow way to tell.
#[cfg(target_os = "linux")]
fn open_cached(folder: &Folder, id: &BlobId) -> Option<File> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
    let path = format!("{}/{id}", &id.as_str()[..super::FAN_OUT_DIGITS]);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    openat2(&folder.blobs, path, flags, Mode::empty(), ResolveFlags::CACHED).ok().map(File::from)
}

#[cfg(not(target_os = "linux"))]
fn open_cached(_: &Folder, _: &BlobId) -> Option<File> {
    None
}
