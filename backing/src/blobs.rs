//! Blobs: the bytes of files, on the disk or on S3. Who may see them, what they are called and which of them still count is said by
//! rows in PostgreSQL, which live elsewhere.
//!
//! A blob is written once, whole, under a random name, and never changed. So whoever commits a row that names a blob has a file, and
//! a crash at any moment leaves at most a blob that no row names; the sweeper finds it by [`Blobs::list`].

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

mod carry;
mod disk;
mod id;
mod s3;

pub use carry::carry;
pub use disk::Disk;
pub use id::BlobId;
pub use s3::{S3, S3Settings};

/// Where blobs are. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Blobs {
    Disk(Disk),
    S3(S3),
}

/// What has been written, safe from a loss of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub id: BlobId,
    pub size_bytes: u64,
    /// Unless the writer went without.
    pub md5: Option<[u8; 16]>,
}

/// A blob as the sweeper sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    pub id: BlobId,
    /// When it was written, or copied.
    pub modified: SystemTime,
    pub size_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no blob {0}")]
    Missing(BlobId),
    /// The caller's row and the blob disagree.
    #[error("the blob {id} has {size_bytes} bytes; {range:?} were asked for")]
    Beyond { id: BlobId, size_bytes: u64, range: Range<u64> },
    /// Nothing was written. Trying again helps when somebody has made room.
    #[error("no space is left for blobs: {0}")]
    NoSpace(#[source] io::Error),
    /// At the start: somebody has to change a setting or a permission.
    #[error("the folder {} cannot be written: {source}; let the user that runs ntier own it, or choose another", folder.display())]
    Unwritable { folder: PathBuf, source: io::Error },
    /// A setting is wrong.
    #[error("{0:?} is no address of an S3: it begins with https://, or with http:// where that is allowed")]
    Endpoint(String),
    /// A setting is wrong.
    #[error("{0:?} cannot be the beginning of names in an S3 bucket")]
    Prefix(String),
    /// The network, or the S3 itself, is not well. Trying again may help.
    #[error("the S3 bucket {bucket} cannot be reached: {cause}")]
    Unreachable { bucket: String, cause: String },
    /// Somebody has to change a setting, or what the key may do.
    #[error("the S3 bucket {bucket} refuses: {cause}; is there such a bucket, and may this key write to it?")]
    Refused { bucket: String, cause: String },
    /// What was written is not what is read.
    #[error("the blob {0} is another one after it was copied")]
    Differs(BlobId),
    #[error("blobs: {0}")]
    Io(#[source] io::Error),
}

impl From<io::Error> for Error {
    fn from(cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace(cause),
            _ => Self::Io(cause),
        }
    }
}

impl Blobs {
    /// Begins a blob. Nobody sees it before [`Writer::finish`].
    #[expect(clippy::unused_async, reason = "another store may have to be asked")]
    pub async fn writer(&self) -> Result<Writer, Error> {
        Ok(self.writer_of(BlobId::random()))
    }

    /// Begins a blob that has a name already, in another store.
    fn writer_of(&self, id: BlobId) -> Writer {
        match self {
            Self::Disk(disk) => Writer::Disk(disk.writer(id)),
            Self::S3(s3) => Writer::S3(Box::new(s3.writer(id))),
        }
    }

    /// How many bytes a blob has.
    pub async fn size(&self, id: &BlobId) -> Result<u64, Error> {
        match self {
            Self::Disk(disk) => disk.size(id).await,
            Self::S3(s3) => s3.size(id).await,
        }
    }

    /// The bytes of a blob from the one place up to, not including, the other.
    pub async fn read(&self, id: &BlobId, range: Range<u64>) -> Result<Reader, Error> {
        match self {
            Self::Disk(disk) => Ok(Reader::Disk(disk.read(id, range).await?)),
            Self::S3(s3) => Ok(Reader::S3(s3.read(id, range).await?)),
        }
    }

    /// Another blob with the same bytes, which stays when the first goes.
    pub async fn copy(&self, from: &BlobId) -> Result<BlobId, Error> {
        match self {
            Self::Disk(disk) => disk.copy(from).await,
            Self::S3(s3) => s3.copy(from).await,
        }
    }

    /// Removes blobs; one that is not there is no error. After a loss of power some may be there again.
    pub async fn remove(&self, ids: &[BlobId]) -> Result<(), Error> {
        match self {
            Self::Disk(disk) => disk.remove(ids).await,
            Self::S3(s3) => s3.remove(ids).await,
        }
    }

    /// At most `limit` blobs that come after this one, in the order of their names.
    pub async fn list(&self, after: Option<&BlobId>, limit: usize) -> Result<Vec<Listed>, Error> {
        match self {
            Self::Disk(disk) => disk.list(after, limit).await,
            Self::S3(s3) => s3.list(after, limit).await,
        }
    }

    /// Removes what writers have left behind that were killed, and were not heard of for so long. Returns how many.
    pub async fn clean(&self, older_than: Duration) -> Result<usize, Error> {
        match self {
            Self::Disk(disk) => disk.clean(older_than).await,
            Self::S3(s3) => s3.clean(older_than).await,
        }
    }

    /// Whether blobs can be written at all, tried with a real one; the error says what to do.
    pub async fn check(&self) -> Result<(), Error> {
        match self {
            Self::Disk(disk) => disk.check().await,
            Self::S3(s3) => s3.check().await,
        }
    }
}

/// Takes the bytes of one blob. Dropped before it has finished, in any state, it leaves nothing.
#[derive(Debug)]
pub enum Writer {
    Disk(disk::Writer),
    S3(Box<s3::Writer>),
}

impl Writer {
    /// Goes without MD5, which takes longer than everything else that is done with a large blob. Asked before the first byte.
    pub fn without_md5(mut self) -> Self {
        match &mut self {
            Self::Disk(writer) => writer.forget_md5(),
            Self::S3(writer) => writer.forget_md5(),
        }
        self
    }

    /// Appends bytes; waits while what came before is on its way. After an error, or when this future was dropped, the writer is of
    /// no more use.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        match self {
            Self::Disk(writer) => writer.write(bytes).await,
            Self::S3(writer) => writer.write(bytes).await,
        }
    }

    /// Makes the blob visible, after it has reached the disk.
    pub async fn finish(self) -> Result<Written, Error> {
        match self {
            Self::Disk(writer) => writer.finish().await,
            Self::S3(writer) => writer.finish().await,
        }
    }
}

/// What comes next of a blob.
#[derive(Debug)]
pub enum Piece {
    Bytes(Bytes),
    /// They are in the page cache, from where the kernel can send them by itself.
    File {
        file: Arc<File>,
        offset: u64,
        length: usize,
    },
}

/// The bytes that were asked for, as they are pulled: nothing is read ahead but one piece.
#[derive(Debug)]
pub enum Reader {
    Disk(disk::Reader),
    S3(s3::Reader),
}

impl Reader {
    /// Bytes that are still to come.
    pub fn remaining(&self) -> u64 {
        match self {
            Self::Disk(reader) => reader.remaining(),
            Self::S3(reader) => reader.remaining(),
        }
    }

    /// Like [`Body::poll_frame`], for somebody who can also do something with a file. `longest`: bytes of a piece of it, at most.
    pub fn poll_piece(&mut self, context: &mut Context<'_>, longest: usize) -> Poll<Option<io::Result<Piece>>> {
        match self {
            Self::Disk(reader) => reader.poll_piece(context, longest),
            Self::S3(reader) => reader.poll(context).map(|bytes| bytes.map(|bytes| bytes.map(Piece::Bytes))),
        }
    }
}

impl Body for Reader {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let bytes = match &mut *self {
            Self::Disk(reader) => reader.poll(context),
            Self::S3(reader) => reader.poll(context),
        };
        bytes.map(|bytes| bytes.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining())
    }
}

/// Moves bytes to a buffer until it has so many.
fn collect(buffer: &mut Vec<u8>, bytes: &mut Bytes, limit: usize) {
    let piece = bytes.split_to(bytes.len().min(limit - buffer.len()));
    // A buffer that is not enough for the second piece is made as large as it may become: growing step by step copies.
    if buffer.len() + piece.len() > buffer.capacity() && !buffer.is_empty() {
        buffer.reserve_exact(limit - buffer.len());
    }
    buffer.extend_from_slice(&piece);
}

#[cfg(test)]
mod tests;
