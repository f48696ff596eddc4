//! Packages of npm, and programs for Node.js: supabase-js as a client.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::directory;

/// Installs a folder's packages if they are not there; one folder at a time, because they share npm's cache.
///
/// # Panics
/// When npm cannot.
pub fn install(folder: &Path) {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let marker = folder.join("node_modules/.package-lock.json");
    let age = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    if age(&marker) < age(&folder.join("package-lock.json")) {
        output(command("npm", folder).args(["ci", "--no-audit", "--no-fund"]));
    }
}

/// `npm` or `node` in a folder: where `cargo xtask test` has put a Node.js comes first, if it had to.
///
/// # Panics
/// When a folder of the search path has a colon.
pub fn command(program: &str, folder: &Path) -> Command {
    let tools = directory::repository().join("target/tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path: OsString =
        std::env::join_paths(std::iter::once(tools).chain(std::env::split_paths(&path))).expect("no colon");
    let mut command = Command::new(program);
    command.current_dir(folder).env("PATH", path);
    command
}

/// Runs it; gives what it printed.
///
/// # Panics
/// When it fails.
pub fn output(command: &mut Command) -> String {
    let output = command.output().expect("it comes with Node.js");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{out}{}", String::from_utf8_lossy(&output.stderr));
    out
}
