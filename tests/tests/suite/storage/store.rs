//! Files whose bytes are in a bucket on S3: what holds on the disk holds here, and besides that the S3 may be away.

pub mod server;

use std::io::Write;
use std::net::TcpStream;

use ntier_tests::ask::Answer;
use ntier_tests::{Backend, Who, World, until};
use serde_json::json;

use super::{blobs, bucket, put, resumable};
use server::Server;

/// A world whose files are there.
fn world_on(server: &Server, backend: Backend, more: &[&str]) -> World {
    let flags = server.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let world = World::start_with(backend, &flags);
    assert!(!world.data().join("files").exists(), "nothing is on the disk");
    // Whoever counts blobs finds them.
    let folder = world.data().join("files/blobs");
    std::fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink(server.bucket(), folder.join("bucket")).unwrap();
    world
}

/// Tests of the disk that have to hold here too; the database is the same to them, so that one is enough for most.
macro_rules! on_s3 {
    ($backend:ident: $($name:ident of $room:path),* $(,)?) => {
        $(#[test] fn $name() {
            use $room as room;
            let server = Server::start();
            room::$name(&mut world_on(&server, Backend::$backend, &[]));
        })*
    };
}

on_s3!(
    Server:
    an_object_comes_back_as_it_went of super,
    ranges_and_conditions of super,
    moving_and_copying of super,
    removing_says_what_is_gone of super,
    limits_of_buckets of super,
    an_upload_in_steps of super::resumable,
    an_upload_goes_on_after_the_node_was_killed of super::resumable,
    offsets_and_checksums_are_held of super::resumable,
    uploads_end of super::resumable,
    what_is_put_by_s3_is_there_for_everybody of super::s3,
    parts_are_one_file_and_go_with_it of super::s3,
    an_upload_goes_on_after_a_kill of super::s3,
);

/// Bytes that differ from place to place; more than an S3 gets in one part.
fn large() -> Vec<u8> {
    (0..20_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

#[test]
fn a_large_file_goes_there_in_parts_and_comes_back() {
    let server = Server::start();
    let world = world_on(&server, Backend::Embedded, &[]);
    bucket(&world, "files", json!({ "public": true }));
    let bytes = large();
    let sent = world.files(&Who::Service, "POST /object/files/large").body("video/x", bytes.clone()).send();
    assert_eq!(sent.status, 200, "{}", sent.text());
    let copy = json!({ "bucketId": "files", "sourceKey": "large", "destinationKey": "copy" });
    assert_eq!(world.files(&Who::Service, "POST /object/copy").json(&copy).send().status, 200);
    assert_eq!(blobs(&world), 2);
    assert_eq!(world.files(&Who::Service, "DELETE /object/files/large").send().status, 200);
    until("its blob is gone", || blobs(&world) == 1);
    let got = world.files(&Who::Nobody, "GET /object/public/files/copy").send();
    assert!(got.body == bytes, "{} {}", got.status, got.body.len());
    let get = world.files(&Who::Nobody, "GET /object/public/files/copy").header("range", "bytes=8388600-8388700,-5");
    let got = get.send();
    let has = |piece: &[u8]| got.body.windows(piece.len()).any(|window| window == piece);
    assert!(got.status == 206 && has(&bytes[8_388_600..=8_388_700]) && has(&bytes[19_999_995..]), "{}", got.text());
}

/// 503 and when to come again.
fn is_put_off(answer: &Answer) {
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{}", answer.text());
}

#[test]
fn while_the_s3_is_away_clients_are_put_off_and_no_row_is_without_its_blob() {
    let mut server = Server::start();
    let world = world_on(&server, Backend::Server, &[]);
    bucket(&world, "files", json!({ "public": true }));
    put(&world, "files/there", "hello");
    put(&world, "files/gone", "hello");
    let address = resumable::address(&resumable::begin(&world, &Who::Service, "resumed", 6));
    assert_eq!(resumable::patch(&world, &Who::Service, &address, 0, b"abc").status, 204);

    server.go_away();
    is_put_off(&world.files(&Who::Nobody, "GET /object/public/files/there").send());
    let said = world.node.says("GET /storage/v1/object/public/files/there answered 503");
    assert!(said.contains("cannot be reached"), "who runs the node is told why: {said}");
    is_put_off(&world.files(&Who::Service, "POST /object/files/new").body("text/plain", "new").send());
    is_put_off(&world.files(&Who::Service, "PUT /object/files/there").body("text/plain", "other").send());
    let copy = json!({ "bucketId": "files", "sourceKey": "there", "destinationKey": "copy" });
    is_put_off(&world.files(&Who::Service, "POST /object/copy").json(&copy).send());
    is_put_off(&resumable::patch(&world, &Who::Service, &address, 3, b"def"));
    is_put_off(&world.s3(&world.signer(&Who::Service), "PUT /files/new").body("text/plain", "new").send());
    assert_eq!(resumable::offset(&world, &Who::Service, &address), Some(3), "the rows are there");
    let head = world.files(&Who::Nobody, "HEAD /object/public/files/there").send();
    assert_eq!(head.status, 200, "nothing of it is asked for");
    let list = world.files(&Who::Service, "POST /object/list/files").json(&json!({ "prefix": "" })).send().json();
    assert_eq!(list.as_array().unwrap().len(), 2, "{list}");
    assert_eq!(
        world.files(&Who::Service, "DELETE /object/files/gone").send().status,
        200,
        "the sweeper will find its blob"
    );

    server.come_back();
    assert_eq!(world.files(&Who::Nobody, "GET /object/public/files/there").send().text(), "hello");
    assert_eq!(resumable::patch(&world, &Who::Service, &address, 3, b"def").status, 204);
    assert_eq!(world.files(&Who::Nobody, "GET /object/public/files/resumed").send().text(), "abcdef");
    put(&world, "files/new", "new");
}

#[test]
fn what_a_kill_leaves_there_is_swept() {
    let server = Server::start();
    let mut world = world_on(&server, Backend::Embedded, &["--storage-sweep-after", "1s"]);
    bucket(&world, "files", json!({ "public": true }));
    put(&world, "files/kept", "kept");
    // In the middle of an upload, parts of which are there.
    let address = world.node.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    let key = world.key("secret_key");
    let head = format!(
        "POST /storage/v1/object/files/never HTTP/1.1\r\nhost: x\r\napikey: {key}\r\nauthorization: Bearer {key}\r\n\
         content-type: video/x\r\ncontent-length: 30000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&large()).unwrap();
    // A blob whose row was never committed.
    let of_object = world.sql("select version from storage.objects")[0]["version"].as_str().unwrap().to_owned();
    let unnamed = server.bucket().join("00000000-0000-4000-8000-000000000000");
    std::fs::copy(server.bucket().join(of_object), &unnamed).unwrap();
    world.restart();
    until("what no row names is gone", || !unnamed.exists());
    assert_eq!(blobs(&world), 1);
    assert_eq!(world.files(&Who::Nobody, "GET /object/public/files/kept").send().text(), "kept");
    assert_eq!(world.sql("select count(*)::int as n from storage.objects")[0]["n"], 1);
}
