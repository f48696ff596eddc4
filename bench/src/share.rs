//! A small part of a processor for a process, by a control group of the kernel: so a few processors stand for many small machines.

use std::fs;
use std::path::{Path, PathBuf};

/// The group, until it is dropped; whoever is in it has to be gone by then.
pub struct Share(PathBuf);

/// The time in which a part is dealt out, in microseconds.
const PERIOD_US: u32 = 20_000;

impl Share {
    /// Needs root, and version 1 or 2 of control groups.
    pub fn make(name: &str, percent: u32) -> Result<Self, String> {
        let root = Path::new("/sys/fs/cgroup");
        let is_second = root.join("cgroup.controllers").exists();
        let folder = if is_second { root.to_owned() } else { root.join("cpu") };
        let group = folder.join(format!("ntier-bench-{}-{name}", std::process::id()));
        let text = |cause: std::io::Error| format!("no control group, {}: {cause}", group.display());
        if is_second {
            // It may be there for groups already.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+cpu");
        }
        fs::create_dir(&group).map_err(text)?;
        let share = Self(group.clone());
        let quota = PERIOD_US * percent / 100;
        let limited = if is_second {
            fs::write(group.join("cpu.max"), format!("{quota} {PERIOD_US}"))
        } else {
            fs::write(group.join("cpu.cfs_period_us"), PERIOD_US.to_string())
                .and_then(|()| fs::write(group.join("cpu.cfs_quota_us"), quota.to_string()))
        };
        limited.map_err(text)?;
        Ok(share)
    }

    /// The process, with all its threads, has no more than this from now on.
    pub fn hold(&self, process: u32) -> Result<(), String> {
        let file = self.0.join("cgroup.procs");
        fs::write(&file, process.to_string()).map_err(|cause| format!("{}: {cause}", file.display()))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
