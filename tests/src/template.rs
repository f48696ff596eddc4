//! The migrated project, made once for a test process by the program itself; worlds are cloned from it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{directory, postgres};

/// A folder that a shell removes when this process ends, however it ends: statics are never dropped.
struct Kept {
    folder: PathBuf,
    _keeper: Child,
}

/// Clones the embedded template to a data directory.
///
/// # Panics
/// When it could not be made.
pub fn clone_embedded(data: &Path) {
    static TEMPLATE: OnceLock<Kept> = OnceLock::new();
    let template = TEMPLATE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        let mut keeper = Command::new("sh");
        keeper.args(["-c", "cat >/dev/null; rm -rf \"$1\"", "sh"]).arg(&folder).stdin(Stdio::piped());
        let kept = Kept { _keeper: keeper.spawn().unwrap(), folder };
        migrate(&["--data", &kept.folder.join("data").to_string_lossy()]);
        kept
    });
    directory::copy(&template.folder.join("data"), data);
}

/// Clones the server's template; gives the URL of the new database.
///
/// # Panics
/// When it could not be made.
pub fn clone_server() -> String {
    static TEMPLATE: OnceLock<()> = OnceLock::new();
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let server = postgres::server();
    TEMPLATE.get_or_init(|| {
        server.sql("postgres", "create database template");
        let folder = tempfile::tempdir().unwrap();
        migrate(&["--data", &folder.path().to_string_lossy(), "--database-url", &server.url("template")]);
    });
    let name = format!("world_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    server.sql("postgres", &format!("create database {name} template template"));
    server.url(&name)
}

/// A database of the server with nothing in it; gives its URL.
pub fn empty_server() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let name = format!("empty_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    postgres::server().sql("postgres", &format!("create database {name}"));
    postgres::server().url(&name)
}

fn migrate(arguments: &[&str]) {
    let output = Command::new(directory::program())
        .arg("migrate")
        .arg("--project")
        .arg(directory::project())
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
