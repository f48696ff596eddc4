//! The pieces that blobs are read in, and their memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Bytes that are read at once.
pub const CHUNK: usize = 128 << 10;
/// Below it a buffer of its own, of just this size, is cheaper than a whole chunk.
const SMALL: usize = 16 << 10;
/// Buffers kept for who reads next: 4 MB.
const KEPT: usize = 32;

/// Buffers that are zeroed once and used again, as every safe way to read into memory asks for initialised bytes; and a buffer that
/// was in use a moment ago is still in the processor's cache.
#[derive(Debug, Default)]
pub struct Chunks(Mutex<Vec<Box<[u8]>>>);

impl Chunks {
    /// Reads at most a chunk of what is left. `None` where the disk would have to be waited for.
    pub fn read_cached(self: &Arc<Self>, file: &File, offset: u64, left: u64) -> io::Result<Option<Bytes>> {
        self.read_by(left, |buffer| cached(file, buffer, offset))
    }

    /// Reads at most a chunk of what is left; for a blocking thread.
    pub fn read(self: &Arc<Self>, file: &File, offset: u64, left: u64) -> io::Result<Bytes> {
        let bytes = self.read_by(left, |buffer| file.read_at(buffer, offset).map(Some))?;
        Ok(bytes.unwrap_or_default())
    }

    fn read_by(
        self: &Arc<Self>,
        left: u64,
        read: impl FnOnce(&mut [u8]) -> io::Result<Option<usize>>,
    ) -> io::Result<Option<Bytes>> {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
        let mut buffer = if length <= SMALL { vec![0; length].into() } else { self.take() };
        let read = match read(&mut buffer[..length])? {
            Some(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a blob is shorter than it was")),
            Some(read) => read,
            None => {
                self.give_back(buffer);
                return Ok(None);
            }
        };
        if read == buffer.len() && read <= SMALL {
            return Ok(Some(buffer.into()));
        }
        Ok(Some(Bytes::from_owner(Lent { buffer, read, home: self.clone() })))
    }

    fn take(&self) -> Box<[u8]> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| vec![0; CHUNK].into())
    }

    fn give_back(&self, buffer: Box<[u8]>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.len() == CHUNK && kept.len() < KEPT {
            kept.push(buffer);
        }
    }
}

/// A buffer that goes home when the last byte of it has been sent.
struct Lent {
    buffer: Box<[u8]>,
    read: usize,
    home: Arc<Chunks>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.read]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.buffer));
    }
}

/// Whether the page cache has both ends of a piece of the file, and so most likely all of it: what is read is read ahead.
pub fn is_cached(file: &File, offset: u64, length: usize) -> bool {
    let has = |at| matches!(cached(file, &mut [0], at), Ok(Some(1)));
    length > 0 && has(offset) && has(offset + length as u64 - 1)
}

/// Reads what is in the page cache. `None` where it is not, and where the file system cannot tell.
#[cfg(target_os = "linux")]
fn cached(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
    use rustix::io::{Errno, IoSliceMut, ReadWriteFlags, preadv2};
    match preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
        Ok(read) => Ok(Some(read)),
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::INTR) => Ok(None),
        Err(cause) => Err(cause.into()),
    }
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "on Linux it may fail")]
fn cached(_: &File, _: &mut [u8], _: u64) -> io::Result<Option<usize>> {
    Ok(None)
}
