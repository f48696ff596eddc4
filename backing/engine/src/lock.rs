//! One process per data directory: an advisory lock on a file that names its holder.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::Error;

/// How long to wait for a holder that may be about to leave: the child of a node that was killed
/// notices within milliseconds, but may be in the middle of a statement.
const PATIENCE: Duration = Duration::from_secs(3);
/// And for one that says that it leaves: it writes down what it has in memory, and ends before.
const LEAVING: Duration = Duration::from_secs(35);

/// Held until dropped or until the process ends, however it ends.
pub struct Lock(File);

impl Lock {
    /// Tells whoever waits that it will not be long. What is lost if that cannot be written is their patience.
    pub fn leave(&mut self) {
        let _ = write!(self.0, " leaving");
    }
}

pub fn acquire(data: &Path) -> Result<Lock, Error> {
    let path = data.join("lock");
    let io = |what| {
        let path = path.clone();
        move |cause: std::io::Error| Error::Io { what, path, cause }
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io("open"))?;
    let start = Instant::now();
    while let Err(cause) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if cause != rustix::io::Errno::WOULDBLOCK {
            return Err(io("lock")(cause.into()));
        }
        if start.elapsed() > PATIENCE {
            let mut text = String::new();
            let is_read = file.rewind().and_then(|()| file.read_to_string(&mut text)).is_ok();
            let mut words = text.split_whitespace().filter(|_| is_read);
            let holder = words.next().map(str::to_owned);
            if words.next().is_none() || start.elapsed() > LEAVING {
                return Err(Error::Taken { data: data.to_owned(), holder });
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(io("write"))?;
    write!(file, "{}", std::process::id()).map_err(io("write"))?;
    Ok(Lock(file))
}
