//! Resumable uploads when clients and nodes are killed in the middle of them, with the unmodified tus-js-client: each goes on where it
//! stopped, and comes to its end bit-identical.

use std::path::PathBuf;
use std::process::Child;

use ntier_tests::node::{Node, send};
use ntier_tests::wire::Wire;
use ntier_tests::{Backend, Who, World, tus};
use rustix::process::Signal;
use serde_json::json;

use super::alone;

/// Bytes of the file, of what the client sends in one request, and of what passes between two interruptions: each falls somewhere within
/// a request.
const FILE: usize = 14 << 20;
const CHUNK: usize = 256 << 10;
const BETWEEN: u64 = 1_200_000;

#[derive(Debug, Clone, Copy)]
enum Interruption {
    /// SIGKILL to the client, which is started again.
    Client,
    /// SIGKILL to the node; the next begins on the same data.
    Node,
    /// Another node of the same database takes over, while the one before still waits for the rest of a request.
    TakeOver,
}
use Interruption::{Client, Node as KillNode, TakeOver};

#[test]
fn a_resumable_upload_survives_ten_interruptions_embedded() {
    is_interrupted(
        Backend::Embedded,
        &[Client, KillNode, Client, KillNode, Client, KillNode, KillNode, Client, Client, KillNode],
    );
}

#[test]
fn a_resumable_upload_survives_ten_interruptions_server() {
    is_interrupted(
        Backend::Server,
        &[TakeOver, Client, KillNode, TakeOver, TakeOver, Client, KillNode, Client, TakeOver, KillNode],
    );
}

fn is_interrupted(backend: Backend, interruptions: &[Interruption]) {
    let _alone = alone();
    let world = World::start(backend);
    world.files(&Who::Service, "POST /bucket").json(&json!({ "name": "films", "public": true })).send();
    let sender = Sender::new(&world);
    let wire = Wire::new(&world.node.url);
    let mut nodes: Vec<Node> = Vec::new();
    let mut client = sender.start(&wire.url);
    let mut starts = 1;
    for interruption in interruptions {
        wire.pass(BETWEEN);
        wire.held();
        match interruption {
            Client => {
                let said = kill(client);
                assert!(starts == 1 || said.contains("goes on with"), "{said}");
                client = sender.start(&wire.url);
                starts += 1;
            }
            KillNode => {
                send(nodes.last().unwrap_or(&world.node).process(), Signal::KILL);
                let next = world.another();
                wire.lead(&next.url, true);
                nodes.push(next);
            }
            TakeOver => {
                let next = world.another();
                wire.lead(&next.url, false);
                nodes.push(next);
            }
        }
    }
    wire.pass(u64::MAX);
    let output = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("goes on with") && !said.contains("from 0\n") && said.ends_with("done\n"), "{said}");
    let mut get = world.files(&Who::Nobody, "GET /object/public/films/a film.bin");
    get.move_to(&world.node.url, &nodes.last().unwrap_or(&world.node).url);
    let got = get.send();
    assert!(got.status == 200 && got.body == tus::film(FILE), "{} {}", got.status, got.body.len());
    assert_eq!((got.header("content-type"), got.header("cache-control")), (Some("video/x"), Some("max-age=60")));
    let uploads = world.sql("select offset_bytes, completed_at is not null as complete from ntier.storage_uploads");
    assert_eq!(uploads, json!([{ "offset_bytes": FILE, "complete": true }]), "it was begun once");
    println!("{said}");
}

/// Starts clients, one after the other, that know what the ones before have done.
struct Sender {
    file: PathBuf,
    memory: PathBuf,
    key: String,
}

impl Sender {
    fn new(world: &World) -> Self {
        let (file, memory) = (world.scratch().join("film.bin"), world.scratch().join("uploads.json"));
        std::fs::write(&file, tus::film(FILE)).unwrap();
        Self { file, memory, key: world.key("secret_key").to_owned() }
    }

    fn start(&self, url: &str) -> Child {
        let mut command = tus::client(url, &self.file, CHUNK, &self.memory);
        command.env("OBJECT", "a film.bin").env("TOKEN", &self.key).spawn().expect("there is Node.js")
    }
}

/// SIGKILL; gives what it said before.
fn kill(mut client: Child) -> String {
    client.kill().unwrap();
    let output = client.wait_with_output().unwrap();
    assert!(output.status.code().is_none(), "it ended by itself: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
