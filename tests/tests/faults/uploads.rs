//! Files when the node is killed: each that was acknowledged reads back as it went, and rows and blobs name each other.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ntier_tests::node::{Node, send};
use ntier_tests::world::agent;
use ntier_tests::{Backend, Who, World, until};
use rustix::process::Signal;
use serde_json::json;

use super::alone;

/// As the issue has it: so many at the same time.
const UPLOADS: usize = 200;

#[test]
fn files_are_whole_when_the_node_is_killed_embedded() {
    node_is_killed(Backend::Embedded);
}

#[test]
fn files_are_whole_when_the_node_is_killed_server() {
    node_is_killed(Backend::Server);
}

/// Bytes that belong to a number: some kilobytes to half a megabyte.
fn bytes(number: usize) -> Vec<u8> {
    let seed = format!("upload {number} ");
    seed.bytes().cycle().take(2000 + (number * 7919) % 500_000).collect()
}

fn node_is_killed(backend: Backend) {
    let _alone = alone();
    let world = World::start(backend);
    world.files(&Who::Service, "POST /bucket").json(&json!({ "name": "files", "public": true })).send();
    let (acknowledged, next) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..UPLOADS {
            scope.spawn(|| {
                let own = agent();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let post = world.files(&Who::Service, &format!("POST /object/files/{number}"));
                    match post.body("text/plain", bytes(number)).through(&own) {
                        Ok(answer) if answer.status == 200 => acknowledged.lock().unwrap().push(number),
                        // Too much at once, said so.
                        Ok(answer) if answer.status == 503 => {}
                        Ok(answer) => panic!("{number}: {} {}", answer.status, answer.text()),
                        // It is gone.
                        Err(_) => return,
                    }
                }
            });
        }
        until("many are acknowledged", || acknowledged.lock().unwrap().len() >= UPLOADS);
        send(world.node.process(), Signal::KILL);
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    let data = world.data();
    // It sweeps at once what is older than a moment.
    let mut flags = vec!["--project".to_owned(), ntier_tests::directory::project().to_string_lossy().into_owned()];
    flags.extend(["--storage-sweep-after".to_owned(), "1s".to_owned()]);
    flags.extend(world.database_url.iter().flat_map(|url| ["--database-url".to_owned(), url.clone()]));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let node = Node::start("serve", &data, &flags);
    for &number in &acknowledged {
        let mut get = world.files(&Who::Nobody, &format!("GET /object/public/files/{number}"));
        get.move_to(&world.node.url, &node.url);
        let got = get.send();
        assert!(got.status == 200 && got.body == bytes(number), "{number}: {} {}", got.status, got.body.len());
    }
    let rows = world.sql("select version from storage.objects");
    let named: HashSet<&str> = rows.as_array().unwrap().iter().filter_map(|row| row["version"].as_str()).collect();
    assert!(named.len() >= acknowledged.len());
    until("no blob is without a row, and no row without a blob", || {
        let there = blobs(&data.join("files/blobs"));
        let there: HashSet<&str> = there.iter().map(String::as_str).collect();
        assert!(named.is_subset(&there), "a row has no blob");
        there == named
    });
    until("nothing half done is left", || std::fs::read_dir(data.join("files/tmp")).unwrap().count() == 0);
}

fn blobs(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for folder in std::fs::read_dir(folder).unwrap().flatten() {
        for file in std::fs::read_dir(folder.path()).unwrap().flatten() {
            names.push(file.file_name().to_string_lossy().into_owned());
        }
    }
    names
}
