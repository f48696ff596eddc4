//! Resumable uploads: what TUS clients do, and what befalls them.

use std::io::{Read, Write};
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ntier_tests::ask::Answer;
use ntier_tests::world::now;
use ntier_tests::{Who, World, on_both, tus};
use serde_json::json;

use super::{POLICIES, bucket, refusal};

on_both!(
    an_upload_in_steps,
    an_upload_goes_on_after_the_node_was_killed,
    offsets_and_checksums_are_held,
    uploads_belong_to_who_began_them,
    uploads_end,
    an_answer_that_was_lost_is_found_again,
    of_two_who_send_the_same_the_last_goes_on,
    an_upload_is_completed_once,
    what_is_there_is_replaced_only_where_it_is_said,
    lengths_are_held,
    security_f1_a_page_in_pieces_is_no_picture,
    security_f5_uploads_expire,
    tus_js_client_sends_as_supabase_has_it,
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

/// What a client may not know of, because it or the network went away: the next request tells.
fn an_answer_that_was_lost_is_found_again(world: &mut World) {
    bucket(world, "files", json!({ "public": true }));
    let who = Who::Service;
    let address = address(&begin(world, &who, "a", 6));
    assert_eq!(patch(world, &who, &address, 0, b"abc").status, 204);
    let again = patch(world, &who, &address, 0, b"abc");
    assert_eq!((again.status, again.header("upload-offset")), (409, Some("3")));
    assert_eq!(patch(world, &who, &address, 3, b"def").status, 204);
    // It is complete, and stays so.
    let again = patch(world, &who, &address, 3, b"def");
    assert_eq!((again.status, again.header("upload-offset")), (409, Some("6")));
    assert_eq!(offset(world, &who, &address), Some(6));
    assert_eq!(patch(world, &who, &address, 6, b"").status, 204);
    let delete = world.files(&who, &format!("DELETE {address}")).header("tus-resumable", "1.0.0").send();
    assert_eq!(delete.status, 400, "{}", delete.text());
    assert_eq!(world.files(&Who::Nobody, "GET /object/public/files/a").send().text(), "abcdef");
}

/// A `PATCH` whose body has not come to its end.
fn slow_patch(world: &World, address: &str, offset: usize, length: usize, begin: &[u8]) -> TcpStream {
    let key = world.key("secret_key");
    let head = format!(
        "PATCH /storage/v1{address} HTTP/1.1\r\nhost: x\r\napikey: {key}\r\nauthorization: Bearer {key}\r\ncontent-type: {BYTES}\r\n\
         tus-resumable: 1.0.0\r\nupload-offset: {offset}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    let mut stream = TcpStream::connect(world.node.url.trim_start_matches("http://")).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(begin).unwrap();
    stream
}

fn of_two_who_send_the_same_the_last_goes_on(world: &mut World) {
    bucket(world, "files", json!({ "public": true }));
    let who = Who::Service;
    let address = address(&begin(world, &who, "a", 400_000));
    let mut first = slow_patch(world, &address, 0, 400_000, &[1_u8].repeat(200_000));
    let held = "select taken_by is not null as held from ntier.storage_uploads";
    ntier_tests::until("the first holds it", || world.sql(held)[0]["held"] == true);
    assert_eq!(offset(world, &who, &address), Some(0), "to ask does not disturb");
    assert_eq!(patch(world, &who, &address, 0, &[2_u8].repeat(300_000)).status, 204);
    first.write_all(&[1_u8].repeat(200_000)).unwrap();
    let mut refused = String::new();
    first.read_to_string(&mut refused).unwrap();
    assert!(refused.starts_with("HTTP/1.1 409"), "{refused}");
    assert_eq!(offset(world, &who, &address), Some(300_000));
    // One that breaks off keeps what came, and the next goes on there.
    let broken = slow_patch(world, &address, 300_000, 100_000, &[2_u8].repeat(60_000));
    broken.shutdown(std::net::Shutdown::Both).unwrap();
    ntier_tests::until("what came is kept", || offset(world, &who, &address) == Some(360_000));
    assert_eq!(patch(world, &who, &address, 360_000, &[2_u8].repeat(40_000)).status, 204);
    let got = world.files(&Who::Nobody, "GET /object/public/files/a").send();
    assert!(got.body == [2_u8].repeat(400_000), "{}", got.status);
    ntier_tests::until("nothing is left of the first", || super::blobs(world) == 2);
}

/// A node may end between the last piece and the row of the object: then whoever asks completes it, and of several one.
fn an_upload_is_completed_once(world: &mut World) {
    bucket(world, "files", json!({ "public": true }));
    let who = Who::Service;
    let address = address(&begin(world, &who, "a", 3));
    assert_eq!(patch(world, &who, &address, 0, b"abc").status, 204);
    let undone = "set storage.allow_delete_query = 'true'; delete from storage.objects; \
        update ntier.storage_uploads set completed_at = null";
    world.sql(undone);
    let asked: Vec<Option<usize>> = std::thread::scope(|scope| {
        let world = &*world;
        let asks: Vec<_> = (0..8).map(|_| scope.spawn(|| offset(world, &Who::Service, &address))).collect();
        asks.into_iter().map(|ask| ask.join().unwrap()).collect()
    });
    assert_eq!(asked, [Some(3); 8], "nobody is refused, though nothing may be written over");
    assert_eq!(world.files(&Who::Nobody, "GET /object/public/files/a").send().text(), "abc");
    // What has taken its place since stays.
    let put = world.files(&who, "PUT /object/files/a").body("text/plain", "later").send();
    assert_eq!(put.status, 200, "{}", put.text());
    assert_eq!(offset(world, &who, &address), Some(3));
    assert_eq!(patch(world, &who, &address, 3, b"").status, 204);
    assert_eq!(world.files(&Who::Nobody, "GET /object/public/files/a").send().text(), "later");
    ntier_tests::until("the blob before is gone", || super::blobs(world) == 1);
}

fn what_is_there_is_replaced_only_where_it_is_said(world: &mut World) {
    bucket(world, "files", json!({ "public": true }));
    let who = Who::Service;
    let begin_over = |upsert: &str| {
        let post =
            world.files(&who, "POST /upload/resumable").header("tus-resumable", "1.0.0").header("x-upsert", upsert);
        post.header("upload-length", "3").header("upload-metadata", &metadata("files", "a")).send()
    };
    // Two are begun before there is one.
    let (first, second) = (address(&begin_over("false")), address(&begin_over("false")));
    assert_eq!(patch(world, &who, &first, 0, b"one").status, 204);
    assert_eq!(patch(world, &who, &second, 0, b"two").status, 409);
    let refused = begin_over("false");
    assert_eq!(refused.status, 409, "{}", refused.text());
    let over = address(&begin_over("true"));
    assert_eq!(patch(world, &who, &over, 0, b"two").status, 204);
    assert_eq!(world.files(&Who::Nobody, "GET /object/public/files/a").send().text(), "two");
    ntier_tests::until("the blob before is gone", || super::blobs(world) == 1);
}

fn lengths_are_held(world: &mut World) {
    bucket(world, "files", json!({ "file_size_limit": 10 }));
    let who = Who::Service;
    let deferred = || {
        let post = world.files(&who, "POST /upload/resumable").header("tus-resumable", "1.0.0");
        address(&post.header("upload-defer-length", "1").header("upload-metadata", &metadata("files", "a")).send())
    };
    let patch_of = |address: &str, offset: &str, length: &str, bytes: &str| {
        let ask = world.files(&who, &format!("PATCH {address}")).header("tus-resumable", "1.0.0");
        ask.header("upload-offset", offset).header("upload-length", length).body(BYTES, bytes).send().status
    };
    let one = deferred();
    assert_eq!(patch(world, &who, &one, 0, b"more than ten").status, 413);
    assert_eq!(patch_of(&one, "0", "11", "abc"), 413);
    assert_eq!(offset(world, &who, &one), Some(0));
    assert_eq!(patch(world, &who, &one, 0, b"abcde").status, 204);
    assert_eq!(patch_of(&one, "5", "4", ""), 400, "less than has come");
    assert_eq!(patch_of(&one, "5", "9999999999999999999", ""), 400);
    assert_eq!(patch_of(&one, "5", "8", "f"), 204);
    assert_eq!(patch_of(&one, "6", "9", "g"), 400, "it has been said otherwise");
    assert_eq!(patch(world, &who, &one, 6, b"ghi").status, 413);
    assert_eq!(patch(world, &who, &one, 6, b"gh").status, 204);
    assert_eq!(world.files(&who, "GET /object/files/a").send().text(), "abcdefgh");
    let both = world.files(&who, "POST /upload/resumable").header("tus-resumable", "1.0.0");
    let both = both.header("upload-defer-length", "1").header("upload-length", "3");
    assert_eq!(both.header("upload-metadata", &metadata("files", "b")).send().status, 400);
}

fn security_f1_a_page_in_pieces_is_no_picture(world: &mut World) {
    bucket(world, "files", json!({ "allowed_mime_types": ["text/csv"] }));
    let who = Who::Service;
    let encode = |text: &str| STANDARD.encode(text);
    let said = format!("bucketName {},objectName {},contentType {}", encode("files"), encode("a"), encode("image/png"));
    let post =
        world.files(&who, "POST /upload/resumable").header("tus-resumable", "1.0.0").header("upload-length", "30");
    assert_eq!(post.header("upload-metadata", &said).send().status, 415);
    let changed = json!({ "allowed_mime_types": ["image/png"] });
    assert_eq!(world.files(&who, "PUT /bucket/files").json(&changed).send().status, 200);
    let post =
        world.files(&who, "POST /upload/resumable").header("tus-resumable", "1.0.0").header("upload-length", "30");
    let address = address(&post.header("upload-metadata", &said).send());
    assert_eq!(patch(world, &who, &address, 0, b" <").status, 204);
    assert_eq!(patch(world, &who, &address, 2, b"script>alert(1)</script>....").status, 415);
    assert_eq!(offset(world, &who, &address), None, "it is over");
    ntier_tests::until("nothing is left of it", || super::blobs(world) == 0);
}

fn security_f5_uploads_expire(world: &mut World) {
    let world = World::start_with(world.backend, &["--storage-sweep-after", "1s"]);
    bucket(&world, "files", json!({}));
    let who = Who::Service;
    let (dead, alive) = (address(&begin(&world, &who, "dead", 6)), address(&begin(&world, &who, "alive", 6)));
    for address in [&dead, &alive] {
        assert_eq!(patch(&world, &who, address, 0, b"abc").status, 204);
    }
    world.sql(
        "update ntier.storage_uploads set expires_at = now() - interval '1 second' where name = 'dead'; \
         update ntier.object_parts set created_at = now() - interval '2 hours'",
    );
    assert_eq!(offset(&world, &who, &dead), None);
    assert_eq!(patch(&world, &who, &dead, 3, b"def").status, 404);
    ntier_tests::until("its blob is swept", || super::blobs(&world) == 1);
    assert_eq!(patch(&world, &who, &alive, 3, b"def").status, 204);
    assert_eq!(world.files(&who, "GET /object/files/alive").send().text(), "abcdef");
    // Parts by S3's protocol wait for a day.
    world.sql("insert into storage.s3_multipart_uploads (id, version, upload_signature, bucket_id, key, created_at) \
        select name, gen_random_uuid(), '', 'files', name, at from (values ('old', now() - interval '25 hours'), ('new', now())) v (name, at)");
    let left = "select id from storage.s3_multipart_uploads";
    ntier_tests::until("the old one is given up", || world.sql(left) == json!([{ "id": "new" }]));
}

/// In chunks of 6 MB, as a user with a policy, with and without `x-upsert`, by a signed URL, and with a length that is said last.
fn tus_js_client_sends_as_supabase_has_it(world: &mut World) {
    bucket(world, "films", json!({}));
    world.sql(&POLICIES.replace("'private'", "'films'"));
    let user = Who::user(1);
    let Who::User(id) = &user else { unreachable!() };
    let token =
        world.token(&json!({ "sub": id, "role": "authenticated", "aud": "authenticated", "exp": now() + 3600 }));
    let file = world.scratch().join("film.bin");
    let send = |name: &str, size: usize, said: &[(&str, &str)]| {
        std::fs::write(&file, tus::film(size)).unwrap();
        let memory = world.scratch().join(format!("{}.json", name.replace('/', "-")));
        let mut client = tus::client(&world.node.url, &file, 6 << 20, &memory);
        let output = client.env("OBJECT", name).envs(said.iter().copied()).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let is_there = |name: &str, size: usize| {
        let got = world.files(&user, &format!("GET /object/authenticated/films/{name}")).send();
        assert!(got.status == 200 && got.body == tus::film(size), "{name}: {} {}", got.status, got.body.len());
        let info = world.files(&user, &format!("GET /object/info/films/{name}")).send().json();
        assert_eq!((&info["content_type"], &info["metadata"]), (&json!("video/x"), &json!({ "by": "tus" })));
    };
    let (own, as_user) = (format!("{id}/film"), ("TOKEN", token.as_str()));
    let (is_fine, said) = send(&own, 14 << 20, &[as_user]);
    assert!(is_fine && said.ends_with("done\n") && !said.contains("retries"), "{said}");
    is_there(&own, 14 << 20);
    let (is_fine, said) = send(&own, 100, &[as_user, ("PATIENCE", "0")]);
    assert!(!is_fine && said.contains("409"), "{said}");
    let (is_fine, said) = send(&own, 7 << 20, &[as_user, ("UPSERT", "true")]);
    assert!(is_fine, "{said}");
    is_there(&own, 7 << 20);
    let (is_fine, said) = send("somebody else's", 100, &[as_user]);
    assert!(!is_fine && said.contains("403"), "{said}");
    let deferred = format!("{id}/deferred");
    let (is_fine, said) = send(&deferred, 13 << 20, &[as_user, ("DEFER", "true")]);
    assert!(is_fine, "{said}");
    is_there(&deferred, 13 << 20);
    let signed = format!("{id}/signed");
    let token = world.files(&user, &format!("POST /object/upload/sign/films/{signed}")).send().json();
    let (is_fine, said) = send(&signed, 8 << 20, &[("SIGNATURE", token["token"].as_str().unwrap())]);
    assert!(is_fine, "{said}");
    is_there(&signed, 8 << 20);
}
