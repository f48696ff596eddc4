//! Resumable uploads: what TUS clients do, and what befalls them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ntier_tests::ask::Answer;
use ntier_tests::{Who, World, on_both};
use serde_json::json;

use super::{POLICIES, bucket, refusal};

on_both!(
    an_upload_in_steps,
    an_upload_goes_on_after_the_node_was_killed,
    offsets_and_checksums_are_held,
    uploads_belong_to_who_began_them,
    uploads_end,
);

const BYTES: &str = "application/offset+octet-stream";

fn metadata(bucket: &str, name: &str) -> String {
    let encode = |text: &str| STANDARD.encode(text);
    format!(
        "bucketName {},objectName {},contentType {},cacheControl {}",
        encode(bucket),
        encode(name),
        encode("text/plain"),
        encode("60")
    )
}

/// Begins an upload and gives its address below `/storage/v1`.
pub(super) fn begin(world: &World, who: &Who, name: &str, length: usize) -> Answer {
    let post = world.files(who, "POST /upload/resumable").header("tus-resumable", "1.0.0");
    post.header("upload-length", &length.to_string()).header("upload-metadata", &metadata("files", name)).send()
}

pub(super) fn address(begun: &Answer) -> String {
    assert_eq!(begun.status, 201, "{}", begun.text());
    begun.header("location").unwrap().strip_prefix("/storage/v1").unwrap().to_owned()
}

pub(super) fn patch(world: &World, who: &Who, address: &str, offset: usize, bytes: &[u8]) -> Answer {
    let ask = world.files(who, &format!("PATCH {address}")).header("tus-resumable", "1.0.0");
    ask.header("upload-offset", &offset.to_string()).body(BYTES, bytes).send()
}

pub(super) fn offset(world: &World, who: &Who, address: &str) -> Option<usize> {
    let head = world.files(who, &format!("HEAD {address}")).header("tus-resumable", "1.0.0").send();
    head.header("upload-offset").and_then(|text| text.parse().ok())
}

pub(super) fn an_upload_in_steps(world: &mut World) {
    bucket(world, "files", json!({ "public": true }));
    let who = Who::Service;
    let options = world.files(&Who::Nobody, "OPTIONS /upload/resumable").send();
    assert_eq!((options.status, options.header("tus-version")), (204, Some("1.0.0")));
    assert!(options.header("tus-extension").unwrap().contains("creation-defer-length"));
    // Large pieces become blobs, small ones are joined; the bytes come back as one.
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let address = address(&begin(world, &who, "a/b.txt", bytes.len()));
    let mut at = 0;
    for step in [1, 10, 300_000, 1, 2, 600_000, usize::MAX] {
        let end = at + step.min(bytes.len() - at);
        let sent = patch(world, &who, &address, at, &bytes[at..end]);
        assert_eq!(
            (sent.status, sent.header("upload-offset")),
            (204, Some(end.to_string().as_str())),
            "{}",
            sent.text()
        );
        assert!(sent.header("upload-expires").is_some());
        at = end;
        assert_eq!(offset(world, &who, &address), Some(at));
    }
    let got = world.files(&Who::Nobody, "GET /object/public/files/a/b.txt").send();
    assert_eq!((got.status, got.body == bytes), (200, true));
    assert_eq!((got.header("content-type"), got.header("cache-control")), (Some("text/plain"), Some("max-age=60")));
    let part =
        world.files(&Who::Nobody, "GET /object/public/files/a/b.txt").header("range", "bytes=299990-600020").send();
    assert_eq!((part.status, part.body == bytes[299_990..=600_020]), (206, true), "a range over several blobs");
    // All of it at once, with its length said last.
    let post = world.files(&who, "POST /upload/resumable").header("tus-resumable", "1.0.0");
    let begun =
        post.header("upload-defer-length", "1").header("upload-metadata", &metadata("files", "deferred")).send();
    let address = self::address(&begun);
    assert_eq!(patch(world, &who, &address, 0, b"abc").status, 204);
    let last = world.files(&who, &format!("PATCH {address}")).header("tus-resumable", "1.0.0");
    let last = last.header("upload-offset", "3").header("upload-length", "6").body(BYTES, "def").send();
    assert_eq!(last.status, 204, "{}", last.text());
    assert_eq!(world.files(&Who::Nobody, "GET /object/public/files/deferred").send().text(), "abcdef");
    // Creation with upload, and a file of no bytes.
    let post = world.files(&who, "POST /upload/resumable").header("tus-resumable", "1.0.0");
    let post = post.header("upload-length", "3").header("upload-metadata", &metadata("files", "at once"));
    let begun = post.body(BYTES, "xyz").send();
    assert_eq!((begun.status, begun.header("upload-offset")), (201, Some("3")));
    assert_eq!(world.files(&Who::Nobody, "GET /object/public/files/at once").send().text(), "xyz");
    self::address(&begin(world, &who, "empty", 0));
    let empty = world.files(&Who::Nobody, "GET /object/public/files/empty").send();
    assert_eq!((empty.status, empty.body.len()), (200, 0), "{}", empty.text());
    // A copy of what is in pieces.
    let copy = json!({ "bucketId": "files", "sourceKey": "a/b.txt", "destinationKey": "copy" });
    assert_eq!(world.files(&who, "POST /object/copy").json(&copy).send().status, 200);
    assert_eq!(world.files(&who, "DELETE /object/files/a/b.txt").send().status, 200);
    let got = world.files(&Who::Nobody, "GET /object/public/files/copy").send();
    assert!(got.body == bytes, "{}", got.status);
}

pub(super) fn an_upload_goes_on_after_the_node_was_killed(world: &mut World) {
    bucket(world, "files", json!({ "public": true }));
    let bytes = vec![7; 400_000];
    let address = address(&begin(world, &Who::Service, "a", bytes.len()));
    assert_eq!(patch(world, &Who::Service, &address, 0, &bytes[..150_000]).status, 204);
    world.restart();
    let at = offset(world, &Who::Service, &address).unwrap();
    assert_eq!(at, 150_000, "what was acknowledged is there");
    assert_eq!(patch(world, &Who::Service, &address, at, &bytes[at..]).status, 204);
    let got = world.files(&Who::Nobody, "GET /object/public/files/a").send();
    assert!(got.body == bytes, "{}", got.status);
}

pub(super) fn offsets_and_checksums_are_held(world: &mut World) {
    bucket(world, "files", json!({ "file_size_limit": 100 }));
    let who = Who::Service;
    let address = address(&begin(world, &who, "a", 10));
    assert_eq!(patch(world, &who, &address, 1, b"x").status, 409);
    assert_eq!(patch(world, &who, &address, 0, b"more than ten").status, 413);
    assert_eq!(offset(world, &who, &address), Some(0));
    let checked = |digest: &str| {
        let ask = world.files(&who, &format!("PATCH {address}")).header("tus-resumable", "1.0.0");
        ask.header("upload-offset", "0").header("upload-checksum", digest).body(BYTES, "hello").send().status
    };
    assert_eq!(checked("sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA="), 460);
    assert_eq!(checked("sha9 AAAA"), 400);
    assert_eq!(offset(world, &who, &address), Some(0));
    assert_eq!(checked("sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00="), 204);
    assert_eq!(offset(world, &who, &address), Some(5));
    let wrong_type = world.files(&who, &format!("PATCH {address}")).header("tus-resumable", "1.0.0");
    assert_eq!(wrong_type.header("upload-offset", "5").body("text/plain", "x").send().status, 415);
    let old = world.files(&who, &format!("HEAD {address}")).header("tus-resumable", "0.2.1").send();
    assert_eq!((old.status, old.header("tus-version")), (412, Some("1.0.0")));
    assert_eq!(begin(world, &who, "large", 101).status, 413);
    assert_eq!(begin(world, &who, "../a", 1).status, 400);
    for wrong in ["", "nonsense", "bucketName %%%"] {
        let post = world.files(&who, "POST /upload/resumable").header("tus-resumable", "1.0.0");
        assert_eq!(post.header("upload-length", "1").header("upload-metadata", wrong).send().status, 400, "{wrong}");
    }
}

fn uploads_belong_to_who_began_them(world: &mut World) {
    bucket(world, "private", json!({}));
    bucket(world, "files", json!({}));
    world.sql(&POLICIES.replace("'private'", "'files'"));
    let (one, two) = (Who::user(1), Who::user(2));
    let Who::User(id) = &one else { unreachable!() };
    assert_eq!(begin(world, &two, &format!("{id}/a"), 3).status, 403);
    let address = address(&begin(world, &one, &format!("{id}/a"), 3));
    assert_eq!(patch(world, &two, &address, 0, b"abc").status, 404);
    assert_eq!(patch(world, &one, &address, 0, b"abc").status, 204);
    let got = world.files(&one, &format!("GET /object/authenticated/files/{id}/a")).send();
    assert_eq!(got.text(), "abc");
    // By a signed URL, without a user.
    let signed = world.files(&one, &format!("POST /object/upload/sign/files/{id}/b")).send().json();
    let token = signed["token"].as_str().unwrap();
    let post = |token: &str| {
        let post = world.files(&Who::Nobody, "POST /upload/resumable/sign").header("tus-resumable", "1.0.0");
        let post = post.header("upload-length", "3").header("x-signature", token);
        post.header("upload-metadata", &metadata("files", &format!("{id}/b"))).body(BYTES, "xyz").send()
    };
    assert_eq!(post("x.y.z").status, 400);
    assert_eq!(post(token).status, 201);
    let owner = world.sql(&format!("select owner_id from storage.objects where name = '{id}/b'"));
    assert_eq!(owner[0]["owner_id"], *id);
}

pub(super) fn uploads_end(world: &mut World) {
    bucket(world, "files", json!({}));
    let who = Who::Service;
    let address = address(&begin(world, &who, "a", 300_000));
    assert_eq!(patch(world, &who, &address, 0, &vec![1; 290_000]).status, 204);
    assert_eq!(super::blobs(world), 1);
    let delete = || world.files(&who, &format!("DELETE {address}")).header("tus-resumable", "1.0.0").send();
    assert_eq!(delete().status, 204);
    assert_eq!(offset(world, &who, &address), None);
    ntier_tests::until("its blobs are gone", || super::blobs(world) == 0);
    let missing = world.files(&who, "GET /object/files/a").send();
    assert_eq!(refusal(&missing).0, "404");
}
