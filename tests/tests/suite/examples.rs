//! The examples, with the unmodified supabase-js as the client.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use ntier_tests::{Backend, World, directory};
use serde_json::json;

/// Installs an example's packages; one at a time, because they share npm's cache.
fn installed(name: &str) -> PathBuf {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = directory::repository().join("examples").join(name);
    let marker = folder.join("node_modules/.package-lock.json");
    let age = |path: &PathBuf| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    if age(&marker) < age(&folder.join("package-lock.json")) {
        npm(&folder, &["ci", "--no-audit", "--no-fund"], None);
    }
    folder
}

/// Where `cargo xtask test` has put a Node.js comes first, if it had to.
fn search_path() -> OsString {
    let tools = directory::repository().join("target/tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(tools).chain(std::env::split_paths(&path))).expect("no folder has a colon")
}

/// Runs npm; gives what it printed.
fn npm(folder: &PathBuf, arguments: &[&str], world: Option<&World>) -> String {
    let mut command = Command::new("npm");
    command.args(arguments).current_dir(folder).env("PATH", search_path());
    if let Some(world) = world {
        command.env("SUPABASE_URL", &world.node.url);
        command.env("SUPABASE_PUBLISHABLE_KEY", world.key("publishable_key"));
        command.env("SUPABASE_SECRET_KEY", world.key("secret_key"));
    }
    let output = command.output().expect("npm comes with Node.js");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{out}{}", String::from_utf8_lossy(&output.stderr));
    out
}

fn hello(backend: Backend) {
    let folder = installed("hello");
    let world = World::start_project(backend, &folder);
    let said = npm(&folder, &["start", "--silent"], Some(&world));
    assert_eq!(said.trim(), "node: Hello from a script!\nntier: Hello, client!");
    assert_eq!(world.sql("select count(*)::int as n from messages"), json!([{"n": 2}]));
}

fn atlas(backend: Backend) {
    let folder = installed("atlas");
    let world = World::start_project(backend, &folder);
    let said = npm(&folder, &["test", "--silent"], Some(&world));
    assert!(said.trim_end().ends_with(" 0 wrong answers"), "{said}");
}

#[test]
fn hello_embedded() {
    hello(Backend::Embedded);
}

#[test]
fn hello_server() {
    hello(Backend::Server);
}

#[test]
fn atlas_embedded() {
    atlas(Backend::Embedded);
}

#[test]
fn atlas_server() {
    atlas(Backend::Server);
}
