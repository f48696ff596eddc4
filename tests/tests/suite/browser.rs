//! Sign-in in a browser: the journeys of tests/browser, with the unmodified supabase-js in Chromium.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use ntier_tests::{Backend, World, directory, npm};

/// Longer than all journeys take on a slow machine.
const PATIENCE: Duration = Duration::from_mins(5);

fn journeys(backend: Backend) {
    let folder = directory::repository().join("tests/browser");
    npm::install(&folder);
    // The provider's socket listens before anybody is told its address, and nobody else gets its port meanwhile.
    let provider = TcpListener::bind("127.0.0.1:0").unwrap();
    let issuer = format!("http://{}", provider.local_addr().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let project = scratch.path().join("project");
    make_project(&folder, &project, &issuer);
    let world = World::start_dev_project(backend, &project, &[]);

    let mut command = npm::command("node", &folder);
    command.args(["--test-reporter=spec", "journeys.mjs"]).stdin(Stdio::from(OwnedFd::from(provider)));
    command.env("NTIER_URL", world.node.url.replace("127.0.0.1", "localhost"));
    command.env("NTIER_SECRET_KEY", world.key("secret_key")).env("ISSUER", issuer);
    command.env("SCREENSHOTS", std::env::temp_dir());
    // The browser's profile is in the one, what it keeps beside in the other.
    command.env("TMPDIR", scratch.path()).env("HOME", scratch.path());
    let (is_fine, said) = run(command);
    assert!(is_fine, "{said}");
    println!("{said}");
}

/// The page as `public/`, and a configuration that asks for confirmations and knows the provider.
fn make_project(folder: &Path, project: &Path, issuer: &str) {
    let (public, supabase) = (project.join("public"), project.join("supabase"));
    directory::copy(&folder.join("page"), &public);
    fs::copy(folder.join("node_modules/@supabase/supabase-js/dist/umd/supabase.js"), public.join("supabase.js"))
        .unwrap();
    fs::create_dir_all(&supabase).unwrap();
    let config = format!(
        "[auth]\nsite_url = \"http://localhost\"\n\n\
         [auth.email]\nenable_confirmations = true\n\n\
         [auth.external.house]\nenabled = true\nurl = \"{issuer}\"\nclient_id = \"ntier\"\nsecret = \"for tests only\"\n"
    );
    fs::write(supabase.join("config.toml"), config).unwrap();
}

/// Runs it to its end; gives whether all is fine, and what it said. The browser ends when it does, however it ends: they
/// talk through a pipe.
fn run(mut command: Command) -> (bool, String) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut child = command.stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
    // It has our ends of the pipe.
    drop(command);
    let (done, end) = channel();
    let follower = std::thread::spawn(move || {
        let mut said = Vec::new();
        reader.read_to_end(&mut said).unwrap();
        let _ = done.send(());
        said
    });
    let is_late = end.recv_timeout(PATIENCE).is_err();
    if is_late {
        child.kill().unwrap();
    }
    let is_fine = child.wait().unwrap().success() && !is_late;
    let mut said = String::from_utf8_lossy(&follower.join().unwrap()).into_owned();
    if is_late {
        said.push_str(&format!("\nit did not end within {PATIENCE:?}"));
    }
    (is_fine, said)
}

#[test]
fn journeys_embedded() {
    journeys(Backend::Embedded);
}

#[test]
fn journeys_server() {
    journeys(Backend::Server);
}
