//! Where tests keep their databases and files: in memory where that has room for them. On a disk they wait for it most of the time, and what
//! is killed in them are processes, which what was written outlives either way.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// They take 2 GB at most; others may be here too.
const NEEDED_BYTES: u64 = 6 << 30;

/// A folder, until it is dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// `None` where there is no such place, or `TMPDIR` names another.
    pub fn make() -> Option<Self> {
        let memory = Path::new("/dev/shm");
        if std::env::var_os("TMPDIR").is_some() || free(memory)? < NEEDED_BYTES {
            return None;
        }
        let path = memory.join(format!("ntier-tests-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).ok()?;
        let scratch = Self(path);
        // PostgreSQL's own user makes its folders there.
        std::fs::set_permissions(&scratch.0, std::fs::Permissions::from_mode(0o1777)).ok()?;
        println!("tests keep what they write in {}", scratch.0.display());
        Some(scratch)
    }

    pub fn path(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Bytes that are free where this folder is.
fn free(folder: &Path) -> Option<u64> {
    let output = Command::new("df").args(["--output=avail", "--block-size=1"]).arg(folder).output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().nth(1)?.trim().parse().ok()
}
