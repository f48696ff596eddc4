//! One process per data directory: an advisory lock on a file that names its holder.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::Error;

/// How long to wait for a holder that is about to leave: the child of a node that was killed
/// notices within milliseconds, but may be in the middle of a statement.
const PATIENCE: Duration = Duration::from_secs(3);

/// Held until dropped or until the process ends, however it ends.
pub struct Lock(#[allow(dead_code, reason = "held for its lock")] File);

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
            let mut holder = String::new();
            let read = file.read_to_string(&mut holder).is_ok();
            let holder = Some(holder.trim().to_owned()).filter(|pid| read && !pid.is_empty());
            return Err(Error::Taken { data: data.to_owned(), holder });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(io("write"))?;
    write!(file, "{}", std::process::id()).map_err(io("write"))?;
    Ok(Lock(file))
}
