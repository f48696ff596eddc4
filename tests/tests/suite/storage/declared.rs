//! What a project and its settings say of files: buckets and what is in them, a web site from a bucket, keys for S3's clients.

use std::path::{Path, PathBuf};

use ntier_tests::{Who, World, node, on_both};
use serde_json::json;

on_both!(
    buckets_of_the_configuration_are_there_with_their_files,
    a_bucket_is_a_web_site,
    files_are_switched_off,
    the_largest_file_is_a_setting,
    files_are_kept_on_an_s3,
);

const CONFIG: &str = r#"
[storage]
enabled = true
file_size_limit = "1MiB"

[storage.buckets.films]
public = true
file_size_limit = "10KiB"
allowed_mime_types = ["text/plain", "image/svg+xml"]
objects_path = "./films"

[storage.buckets.private]

[storage.buckets.missing]
objects_path = "./nowhere"
"#;

fn project(folder: &Path, config: &str) -> PathBuf {
    let supabase = folder.join("project/supabase");
    std::fs::create_dir_all(supabase.join("films/old")).unwrap();
    std::fs::write(supabase.join("config.toml"), config).unwrap();
    for (name, text) in [
        ("films/a.txt", "a"),
        ("films/old/logo.svg", "<svg/>"),
        ("films/page.html", "<p>"),
        ("films/old/large.txt", &"x".repeat(10_241)),
    ] {
        std::fs::write(supabase.join(name), text).unwrap();
    }
    folder.join("project")
}

fn buckets_of_the_configuration_are_there_with_their_files(world: &mut World) {
    let folder = tempfile::tempdir().unwrap();
    let project = project(folder.path(), CONFIG);
    let mut declared = World::start_project(world.backend, &project);
    let bucket = |world: &World, name: &str| {
        let bucket = world.files(&Who::Service, &format!("GET /bucket/{name}")).send().json();
        json!([bucket["public"], bucket["file_size_limit"], bucket["allowed_mime_types"]])
    };
    let films = json!([true, 10_240, ["text/plain", "image/svg+xml"]]);
    assert_eq!(bucket(&declared, "films"), films);
    assert_eq!(bucket(&declared, "private"), json!([false, null, null]));
    assert_eq!(bucket(&declared, "missing"), json!([false, null, null]));
    let logo = declared.files(&Who::Nobody, "GET /object/public/films/old/logo.svg").send();
    assert_eq!((logo.status, logo.text().as_str()), (200, "<svg/>"));
    assert_eq!(logo.header("content-type"), Some("image/svg+xml"));
    assert_eq!(logo.header("cache-control"), Some("max-age=3600"));
    // What the bucket does not take is told, and is not there.
    let is_there =
        |path: &str| declared.files(&Who::Nobody, &format!("GET /object/public/films/{path}")).send().status == 200;
    assert_eq!(["a.txt", "page.html", "old/large.txt"].map(is_there), [true, false, false]);

    // At the next start, files are not put there again, and what is not named stays.
    assert_eq!(declared.files(&Who::Service, "DELETE /object/films/a.txt").send().status, 200);
    let made = declared.files(&Who::Service, "POST /bucket").json(&json!({ "name": "mine" })).send();
    assert_eq!(made.status, 200);
    let changed = json!({ "public": false, "file_size_limit": null });
    assert_eq!(declared.files(&Who::Service, "PUT /bucket/films").json(&changed).send().status, 200);
    declared.restart();
    assert_eq!(bucket(&declared, "films"), films);
    assert_eq!(bucket(&declared, "mine"), json!([false, null, null]));
    assert_ne!(declared.files(&Who::Nobody, "GET /object/public/films/a.txt").send().status, 200);
}

fn a_bucket_is_a_web_site(world: &mut World) {
    let site = World::start_with(world.backend, &["--public-bucket", "site"]);
    let ask = |path: &str| site.agent.get(format!("{}{path}", site.node.url)).call().unwrap();
    assert_eq!(ask("/").status(), 404, "there is no such bucket yet");
    let made = site.files(&Who::Service, "POST /bucket").json(&json!({ "name": "site", "public": true })).send();
    assert_eq!(made.status, 200);
    for (name, text) in [("index.html", "<h1>Welcome</h1>"), ("about.html", "<p>About</p>")] {
        let put = site.files(&Who::Service, &format!("POST /object/site/{name}")).body("text/html", text).send();
        assert_eq!(put.status, 200);
    }
    let mut page = ask("/");
    assert_eq!((page.status().as_u16(), page.body_mut().read_to_string().unwrap().as_str()), (200, "<h1>Welcome</h1>"));
    assert_eq!(ask("/about").body_mut().read_to_string().unwrap(), "<p>About</p>");
    // Who may see it is still the bucket's to say.
    assert_eq!(site.files(&Who::Service, "PUT /bucket/site").json(&json!({ "public": false })).send().status, 200);
    assert_eq!(ask("/about").status(), 404);
}

fn files_are_switched_off(world: &mut World) {
    let without = World::start_with(world.backend, &["--storage-enabled=false"]);
    assert_eq!(without.files(&Who::Service, "GET /bucket").send().status, 404);
}

fn the_largest_file_is_a_setting(world: &mut World) {
    let small = World::start_with(world.backend, &["--storage-file-size-limit", "10B"]);
    assert_eq!(small.files(&Who::Service, "POST /bucket").json(&json!({ "name": "a" })).send().status, 200);
    let put = |text: &str| small.files(&Who::Service, "POST /object/a/a.txt").body("text/plain", text).send().json();
    assert_eq!(put("12345678901")["statusCode"], "413");
    assert_eq!(put("1234567890")["Key"], "a/a.txt");
}

/// Which is another node.
fn files_are_kept_on_an_s3(world: &mut World) {
    let made = world.files(&Who::Service, "POST /bucket").json(&json!({ "name": "blobs" })).send();
    assert_eq!(made.status, 200);
    let endpoint = format!("{}/storage/v1/s3", world.node.url);
    let flags = [
        "--storage-s3-bucket",
        "blobs",
        "--storage-s3-endpoint",
        &endpoint,
        "--storage-s3-path-style",
        "--storage-s3-prefix",
        "files/",
        "--storage-s3-access-key-id",
        world.key("s3_access_key_id"),
        "--storage-s3-secret-access-key",
        world.key("s3_secret_access_key"),
    ];
    let other = World::start_with(world.backend, &flags);
    assert_eq!(other.files(&Who::Service, "POST /bucket").json(&json!({ "name": "a" })).send().status, 200);
    let put = other.files(&Who::Service, "POST /object/a/a.txt").body("text/plain", "kept elsewhere").send();
    assert_eq!(put.status, 200, "{}", put.text());
    assert_eq!(other.files(&Who::Service, "GET /object/a/a.txt").send().text(), "kept elsewhere");
    assert!(!other.data().join("files").exists());
    let kept = "select count(*) as count from storage.objects where bucket_id = 'blobs' and name like 'files/%'";
    assert_eq!(world.sql(kept), json!([{ "count": 1 }]));
    assert_eq!(other.files(&Who::Service, "DELETE /object/a/a.txt").send().status, 200);
    ntier_tests::until("it is gone", || world.sql(kept) == json!([{ "count": 0 }]));
}

#[test]
fn keys_for_s3_are_made_once_and_shown_to_whoever_asks() {
    let mut world = World::start(ntier_tests::Backend::Embedded);
    let (id, secret) = (world.key("s3_access_key_id"), world.key("s3_secret_access_key").to_owned());
    assert_eq!((id.len(), secret.len()), (32, 64));
    assert_eq!(node::keys(&world.data()), world.keys);
    world.node.stop();
    assert!(!world.node.rest().join("\n").contains(&secret));
}
