//! The examples, with the unmodified supabase-js as the client.

use std::path::{Path, PathBuf};
use std::process::Command;

use ntier_tests::{Backend, World, directory, npm};
use serde_json::json;

/// An example with its packages.
fn installed(name: &str) -> PathBuf {
    let folder = directory::repository().join("examples").join(name);
    npm::install(&folder);
    folder
}

/// Runs one of its scripts; gives what it printed.
fn run(folder: &Path, script: &[&str], world: &World) -> String {
    let mut command = npm::command("npm", folder);
    command.args(script).env("SUPABASE_URL", &world.node.url);
    command.env("SUPABASE_PUBLISHABLE_KEY", world.key("publishable_key"));
    npm::output(command.env("SUPABASE_SECRET_KEY", world.key("secret_key")))
}

fn hello(backend: Backend) {
    let folder = installed("hello");
    let world = World::start_project(backend, &folder);
    let said = run(&folder, &["start", "--silent"], &world);
    assert_eq!(said.trim(), "node: Hello from a script!\nntier: Hello, client!");
    assert_eq!(world.sql("select count(*)::int as n from messages"), json!([{"n": 2}]));
}

fn atlas(backend: Backend) {
    let folder = installed("atlas");
    let world = World::start_project(backend, &folder);
    let said = run(&folder, &["test", "--silent"], &world);
    assert!(said.trim_end().ends_with(" 0 wrong answers"), "{said}");
}

#[test]
fn a_notebook_has_its_backend_inside() {
    let folder = tempfile::tempdir().unwrap();
    let program = directory::program().with_file_name("notebook");
    let run = |words: &[&str]| {
        let mut command = Command::new(&program);
        let output = command.args(words).env("NOTEBOOK", folder.path().join("data")).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    for text in ["buy bread", "Grüße an Ada"] {
        assert_eq!(run(&["add", text]), (true, String::new()));
    }
    assert_eq!(run(&["list"]), (true, "buy bread\nGrüße an Ada\n".to_owned()));
    let (is_good, said) = run(&["add", ""]);
    assert!(!is_good && said.contains("notes_body_check"), "{said}");
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
