//! Packages for Python, and programs in it: S3's clients.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::{directory, npm};

/// Installs the packages that a file names if they are not there, in an environment of their own below `target/tools`.
///
/// # Panics
/// When pip cannot.
pub fn install(requirements: &Path) {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let (folder, wanted) = (environment(), std::fs::read_to_string(requirements).unwrap());
    let marker = folder.join("requirements.txt");
    if std::fs::read_to_string(&marker).is_ok_and(|there| there == wanted) {
        return;
    }
    npm::output(Command::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(&folder));
    let mut pip = Command::new(folder.join("bin/pip"));
    npm::output(pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"]).arg(requirements));
    std::fs::write(marker, wanted).unwrap();
}

/// Python with those packages; their programs come first in the search path.
///
/// # Panics
/// When a folder of the search path has a colon.
pub fn command() -> Command {
    let programs = environment().join("bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path: OsString =
        std::env::join_paths(std::iter::once(programs.clone()).chain(std::env::split_paths(&path))).expect("no colon");
    let mut command = Command::new(programs.join("python"));
    command.env("PATH", path);
    command
}

fn environment() -> PathBuf {
    directory::repository().join("target/tools/python")
}
