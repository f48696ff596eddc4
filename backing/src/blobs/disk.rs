//! Blobs as files: `blobs/ab/abcd….` below one folder, and `tmp/` for what is not finished.
//!
//! A blob's file is written in `tmp`, flushed, renamed, and its new folder flushed: under its name it is whole, whatever happens. What is
//! in the page cache is read where the request runs, for a hop to another thread costs more than the read; everything else that
//! touches the disk is done by blocking threads.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{BlobId, Error, Listed};

mod chunk;
mod read;
mod write;

pub use read::Reader;
pub use write::Writer;

use chunk::Chunks;

/// The first digits of a blob's name, which are the name of its folder.
const FAN_OUT_DIGITS: usize = 2;

/// A folder of blobs. Several nodes may share it, where the file system is one that they share.
#[derive(Debug, Clone)]
pub struct Disk {
    folder: Arc<Folder>,
    chunks: Arc<Chunks>,
}

impl Disk {
    /// Takes the folder, and makes it where it is not there.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = folder.into();
        let unwritable = |source| Error::Unwritable { folder: folder.clone(), source };
        let folder = Folder::open(&folder).map_err(unwritable)?;
        Ok(Self { folder: Arc::new(folder), chunks: Arc::default() })
    }

    pub(super) fn writer(&self, id: BlobId) -> Writer {
        Writer::new(self.folder.clone(), id)
    }

    pub(super) async fn size(&self, id: &BlobId) -> Result<u64, Error> {
        let (folder, id) = (self.folder.clone(), *id);
        blocking(move || match fs::metadata(folder.blob(&id)) {
            Ok(file) => Ok(file.len()),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Err(Error::Missing(id)),
            Err(cause) => Err(cause.into()),
        })
        .await
    }

    pub(super) async fn read(&self, id: &BlobId, range: Range<u64>) -> Result<Reader, Error> {
        Reader::open(&self.folder, &self.chunks, *id, range).await
    }

    pub(super) async fn copy(&self, from: &BlobId) -> Result<BlobId, Error> {
        let (folder, from) = (self.folder.clone(), *from);
        blocking(move || folder.copy(&from)).await
    }

    pub(super) async fn remove(&self, ids: &[BlobId]) -> Result<(), Error> {
        let (folder, ids) = (self.folder.clone(), ids.to_vec());
        blocking(move || ids.iter().try_for_each(|id| folder.remove(id))).await
    }

    pub(super) async fn list(&self, after: Option<&BlobId>, limit: usize) -> Result<Vec<Listed>, Error> {
        let (folder, after) = (self.folder.clone(), after.copied());
        blocking(move || Ok(folder.list(after, limit)?)).await
    }

    pub(super) async fn clean(&self, older_than: Duration) -> Result<usize, Error> {
        let folder = self.folder.clone();
        blocking(move || Ok(folder.clean(older_than)?)).await
    }

    pub(super) async fn check(&self) -> Result<(), Error> {
        let folder = self.folder.clone();
        blocking(move || {
            let written = folder.make().and_then(|()| write::probe(&folder));
            written.map_err(|cause| match Error::from(cause) {
                Error::Io(source) => Error::Unwritable { folder: folder.root.clone(), source },
                other => other,
            })
        })
        .await
    }
}

/// The paths, and what is done with them by blocking threads.
#[derive(Debug)]
struct Folder {
    root: PathBuf,
    /// Open, so that a blob's path is short to follow.
    #[cfg(target_os = "linux")]
    blobs: File,
}

impl Folder {
    fn open(root: &Path) -> io::Result<Self> {
        let folder = Self {
            root: root.to_owned(),
            #[cfg(target_os = "linux")]
            blobs: {
                make_folder(&root.join("blobs"))?;
                File::open(root.join("blobs"))?
            },
        };
        folder.make()?;
        Ok(folder)
    }

    fn make(&self) -> io::Result<()> {
        make_folder(&self.root.join("blobs"))?;
        make_folder(&self.root.join("tmp"))
    }

    fn blob(&self, id: &BlobId) -> PathBuf {
        let mut path = self.fan_out(id);
        path.push(id.as_str());
        path
    }

    fn fan_out(&self, id: &BlobId) -> PathBuf {
        self.root.join("blobs").join(&id.as_str()[..FAN_OUT_DIGITS])
    }

    fn temporary(&self, id: &BlobId) -> PathBuf {
        self.root.join("tmp").join(id.as_str())
    }

    /// Puts something at a blob's place, whose folder may not be there yet; after it no loss of power takes it away.
    fn place(&self, id: &BlobId, put: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
        let path = self.blob(id);
        let folder = self.fan_out(id);
        match put(&path) {
            // Another thread may have made it since.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                make_folder(&folder)?;
                flush_folder(&self.root.join("blobs"))?;
                put(&path)?;
            }
            other => other?,
        }
        flush_folder(&folder)
    }

    fn copy(&self, from: &BlobId) -> Result<BlobId, Error> {
        let id = BlobId::random();
        let source = self.blob(from);
        match self.place(&id, |path| fs::hard_link(&source, path)) {
            Ok(()) => Ok(id),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Err(Error::Missing(*from)),
            // There is no space for a name either, or the disk is broken.
            Err(cause) if matches!(Error::from(io::Error::from(cause.kind())), Error::NoSpace(_)) => Err(cause.into()),
            // Too many links to one file (ext4: 65,000), or a file system without them.
            Err(_) => Ok(write::duplicate(self, &source)?),
        }
    }

    fn remove(&self, id: &BlobId) -> Result<(), Error> {
        match fs::remove_file(self.blob(id)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause.into()),
            _ => Ok(()),
        }
    }

    fn list(&self, after: Option<BlobId>, limit: usize) -> io::Result<Vec<Listed>> {
        let begin = after.map_or(0, |id| fan_out_number(&id));
        let mut listed = Vec::new();
        for number in begin..=u8::MAX {
            let folder = self.root.join("blobs").join(format!("{number:02x}"));
            let mut ids = blobs_in(&folder)?;
            ids.retain(|id| after.is_none_or(|after| *id > after));
            ids.sort_unstable();
            for id in ids {
                if listed.len() == limit {
                    return Ok(listed);
                }
                match fs::symlink_metadata(folder.join(id.as_str())) {
                    // A link to an old blob is a new blob, which only the time of the last change to the inode tells.
                    Ok(file) => listed.push(Listed { id, modified: changed(&file), size_bytes: file.len() }),
                    Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                    Err(cause) => return Err(cause),
                }
            }
        }
        Ok(listed)
    }

    fn clean(&self, older_than: Duration) -> io::Result<usize> {
        let now = SystemTime::now();
        let mut removed = 0;
        for entry in fs::read_dir(self.root.join("tmp"))? {
            let entry = entry?;
            let written = entry.metadata().and_then(|file| file.modified());
            // A file that has gone meanwhile was finished, or given up.
            let Ok(written) = written else { continue };
            if now.duration_since(written).is_ok_and(|age| age >= older_than) && fs::remove_file(entry.path()).is_ok() {
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn fan_out_number(id: &BlobId) -> u8 {
    u8::from_str_radix(&id.as_str()[..FAN_OUT_DIGITS], 16).expect("a blob's name begins with hexadecimal digits")
}

fn blobs_in(folder: &Path) -> io::Result<Vec<BlobId>> {
    let entries = match fs::read_dir(folder) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name()));
    let ids = names.map(|name: io::Result<_>| Ok(name?.to_str().and_then(BlobId::parse)));
    ids.filter_map(Result::transpose).collect()
}

fn changed(file: &fs::Metadata) -> SystemTime {
    let seconds = Duration::from_secs(file.ctime().try_into().unwrap_or_default());
    UNIX_EPOCH + seconds + Duration::from_nanos(file.ctime_nsec().try_into().unwrap_or_default())
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn flush_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Does it on a thread that may wait for the disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests;
