//! The same work by the plainest program: a copy with fsync; and what several do at once.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{Options, UPLOADED};

/// What several have done.
pub struct Done {
    /// MB a second.
    pub rate: f64,
    /// Of one file.
    pub p99_ms: f64,
}

/// Lets so many do it as often as they can; the first argument tells who, the second how often before.
pub fn busy(
    clients: usize,
    options: &Options,
    work: impl Fn(usize, usize) -> Result<(), String> + Sync,
) -> Result<Done, String> {
    let run = |seconds: u32| -> Result<(Vec<Duration>, Duration), String> {
        let (begun, length) = (Instant::now(), Duration::from_secs(seconds.into()));
        let done: Result<Vec<_>, String> = thread::scope(|scope| {
            let one = |client: usize| {
                let work = &work;
                scope.spawn(move || {
                    let mut times = Vec::new();
                    while begun.elapsed() < length {
                        let begun = Instant::now();
                        work(client, times.len())?;
                        times.push(begun.elapsed());
                    }
                    Ok(times)
                })
            };
            let threads: Vec<_> = (0..clients).map(one).collect();
            threads.into_iter().map(|thread| thread.join().map_err(|_| "a client panicked".to_owned())?).collect()
        });
        Ok((done?.concat(), begun.elapsed()))
    };
    run(options.warm_up)?;
    let (mut times, took) = run(options.seconds)?;
    times.sort();
    let last = times.get((times.len() * 99 / 100).min(times.len() - 1)).copied().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "some thousand files")]
    let megabytes = (times.len() * UPLOADED) as f64 / 1e6;
    Ok(Done { rate: megabytes / took.as_secs_f64(), p99_ms: last.as_secs_f64() * 1000.0 })
}

/// A file as one writes it who wants it to be there after a loss of power: a temporary one, fsync, a new name, fsync of the folder.
pub fn copy(folder: &Path, client: usize, mut content: &[u8]) -> Result<(), String> {
    let (temporary, place) = (folder.join(format!("{client}.new")), folder.join(client.to_string()));
    let copied = (|| {
        let mut file = File::create(&temporary)?;
        // As from another file, through a buffer.
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = content.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            file.write_all(&buffer[..read])?;
        }
        file.sync_all()?;
        fs::rename(&temporary, &place)?;
        File::open(folder)?.sync_all()
    })();
    copied.map_err(|cause: std::io::Error| format!("{}: {cause}", folder.display()))
}

/// Where the only file of this size is, below the folder.
pub fn of_size(folder: &Path, bytes: u64) -> Result<String, String> {
    let inner = || -> std::io::Result<Option<String>> {
        for below in fs::read_dir(folder.join("blobs"))? {
            let below = below?;
            for file in fs::read_dir(below.path())? {
                let file = file?;
                if file.metadata()?.len() == bytes {
                    let name = Path::new("blobs").join(below.file_name()).join(file.file_name());
                    return Ok(Some(name.to_string_lossy().into_owned()));
                }
            }
        }
        Ok(None)
    };
    let found = inner().map_err(|cause| format!("{}: {cause}", folder.display()))?;
    found.ok_or_else(|| format!("{} has no file of {bytes} bytes", folder.display()))
}
