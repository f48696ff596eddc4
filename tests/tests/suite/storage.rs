//! Files under `/storage/v1`: buckets, objects, signed URLs and lists, as storage-api's clients have them.

mod dav;
mod declared;
mod hostile;
mod resumable;
mod s3;
mod s3_clients;
pub mod store;

use ntier_tests::ask::Answer;
use ntier_tests::{Who, World, on_both};
use serde_json::{Value, json};

on_both!(
    buckets_are_made_changed_and_removed,
    an_object_comes_back_as_it_went,
    policies_decide_who_may_what,
    ranges_and_conditions,
    forms_are_files,
    lists_show_folders_and_pages,
    moving_and_copying,
    removing_says_what_is_gone,
    signed_urls,
    limits_of_buckets,
    pictures_are_made,
    jobs_remove_and_move_whole_folders,
    large_files_come_back_as_they_went,
    whoever_asks_at_once_is_told_what_is_there,
    security_f1_the_files_of_a_user_have_a_quota,
);

/// Makes a bucket as the service.
fn bucket(world: &World, name: &str, more: Value) {
    let mut body = json!({ "name": name });
    body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    let made = world.files(&Who::Service, "POST /bucket").json(&body).send();
    assert_eq!(made.status, 200, "{}", made.text());
}

/// Puts a text there as the service.
fn put(world: &World, path: &str, text: &str) -> Answer {
    let put = world.files(&Who::Service, &format!("POST /object/{path}")).body("text/plain", text).send();
    assert_eq!(put.status, 200, "{path}: {}", put.text());
    put
}

/// What is refused: the status that the body says, and its message.
fn refusal(answer: &Answer) -> (String, String) {
    let body = answer.json();
    (body["statusCode"].as_str().unwrap_or_default().into(), body["message"].as_str().unwrap_or_default().into())
}

/// Each user a folder, and the folder `shared` for all who are signed in.
const POLICIES: &str = "
    create policy own on storage.objects for all to authenticated
      using (bucket_id = 'private' and (storage.foldername(name))[1] = auth.uid()::text)
      with check (bucket_id = 'private' and (storage.foldername(name))[1] = auth.uid()::text);
    create policy shared on storage.objects for select to authenticated
      using (bucket_id = 'private' and (storage.foldername(name))[1] = 'shared')";

fn buckets_are_made_changed_and_removed(world: &mut World) {
    bucket(world, "avatars", json!({ "public": true, "file_size_limit": "1mb", "allowed_mime_types": ["image/*"] }));
    let found = world.files(&Who::Service, "GET /bucket/avatars").send().json();
    assert_eq!((&found["public"], &found["file_size_limit"]), (&json!(true), &json!(1_000_000)));
    assert_eq!(found["allowed_mime_types"], json!(["image/*"]));
    let again = world.files(&Who::Service, "POST /bucket").json(&json!({ "name": "avatars" })).send();
    assert_eq!((again.status, refusal(&again).0.as_str()), (400, "409"));
    let changed = json!({ "public": false, "file_size_limit": null });
    assert_eq!(world.files(&Who::Service, "PUT /bucket/avatars").json(&changed).send().status, 200);
    let found = world.files(&Who::Service, "GET /bucket/avatars").send().json();
    assert_eq!((&found["public"], &found["file_size_limit"]), (&json!(false), &Value::Null));
    assert_eq!(found["allowed_mime_types"], json!(["image/*"]), "what is not said stays");
    // Nobody has said that others may see it.
    let hidden = world.files(&Who::user(1), "GET /bucket/avatars").send();
    assert_eq!(refusal(&hidden), ("404".into(), "Bucket not found".into()));
    let refused = world.files(&Who::user(1), "POST /bucket").json(&json!({ "name": "mine" })).send();
    assert_eq!(refusal(&refused).0, "403");
    assert_eq!(refusal(&world.files(&Who::Nobody, "GET /bucket").send()).0, "403");
    bucket(world, "second", json!({}));
    let list = world.files(&Who::Service, "GET /bucket?sortColumn=name&sortOrder=desc&limit=1").send().json();
    assert_eq!(list[0]["name"], "second");
    put(world, "second/a.txt", "a");
    let full = world.files(&Who::Service, "DELETE /bucket/second").send();
    assert_eq!(refusal(&full), ("409".into(), "The bucket you tried to delete is not empty".into()));
    assert_eq!(world.files(&Who::Service, "POST /bucket/second/empty").send().status, 200);
    assert_eq!(world.files(&Who::Service, "DELETE /bucket/second").send().status, 200);
    assert_eq!(refusal(&world.files(&Who::Service, "DELETE /bucket/second").send()).0, "404");
    for name in ["", "a/b", " a", "a%00", &"a".repeat(101)] {
        let refused = world.files(&Who::Service, "POST /bucket").json(&json!({ "name": name })).send();
        assert_eq!(refusal(&refused).0, "400", "{name}");
    }
}

fn an_object_comes_back_as_it_went(world: &mut World) {
    bucket(world, "files", json!({ "public": true }));
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    let metadata = "eyJjb2xvdXIiOiJyZWQifQ==";
    let put = world.files(&Who::Service, "POST /object/files/a/Größe 1.bin");
    let put = put.header("cache-control", "max-age=60").header("x-metadata", metadata);
    let put = put.body("application/x-thing", bytes.clone()).send();
    assert_eq!((put.status, &put.json()["Key"]), (200, &json!("files/a/Größe 1.bin")));
    for path in ["public/files", "authenticated/files", "files"] {
        let got = world.files(&Who::Service, &format!("GET /object/{path}/a/Größe 1.bin")).send();
        assert_eq!((got.status, got.body == bytes), (200, true), "{path}");
        assert_eq!(got.header("content-type"), Some("application/x-thing"));
        assert_eq!(got.header("cache-control"), Some("max-age=60"));
        assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
        assert!(got.header("etag").is_some() && got.header("last-modified").is_some());
    }
    let head = world.files(&Who::Nobody, "HEAD /object/public/files/a/Größe 1.bin").send();
    assert_eq!((head.status, head.header("content-length")), (200, Some("3000000")));
    let info = world.files(&Who::Service, "GET /object/info/files/a/Größe 1.bin").send().json();
    assert_eq!((&info["size"], &info["metadata"]), (&json!(3_000_000), &json!({ "colour": "red" })));
    let named = world.files(&Who::Nobody, "GET /object/public/files/a/Größe 1.bin?download=x.bin").send();
    assert_eq!(named.header("content-disposition"), Some("attachment; filename=x.bin; filename*=UTF-8''x.bin"));
    // Twice only where it is said.
    let again = world.files(&Who::Service, "POST /object/files/a/Größe 1.bin").body("text/plain", "new").send();
    assert_eq!(refusal(&again), ("409".into(), "The resource already exists".into()));
    let upsert = world.files(&Who::Service, "POST /object/files/a/Größe 1.bin").header("x-upsert", "true");
    assert_eq!(upsert.body("text/plain", "new").send().status, 200);
    let got = world.files(&Who::Nobody, "GET /object/public/files/a/Größe 1.bin").send();
    assert_eq!(got.text(), "new");
    let empty = world.files(&Who::Service, "PUT /object/files/empty").body("text/plain", "").send();
    assert_eq!(empty.status, 200, "{}", empty.text());
    let got = world.files(&Who::Nobody, "GET /object/public/files/empty").send();
    assert_eq!((got.status, got.body.len()), (200, 0));
    for (path, expected) in [
        ("/object/public/files/none", "404"),
        ("/object/public/none/a", "404"),
        ("/object/info/public/files/none", "404"),
    ] {
        let missing = world.files(&Who::Nobody, &format!("GET {path}")).send();
        assert_eq!((missing.status, refusal(&missing).0.as_str()), (400, expected), "{path}");
    }
}

fn policies_decide_who_may_what(world: &mut World) {
    bucket(world, "private", json!({}));
    world.sql(POLICIES);
    let (one, two) = (Who::user(1), Who::user(2));
    let Who::User(id) = &one else { unreachable!() };
    let own = format!("private/{id}/a.txt");
    let upload =
        |who: &Who, path: &str| world.files(who, &format!("POST /object/{path}")).body("text/plain", "mine").send();
    assert_eq!(upload(&one, &own).status, 200);
    assert_eq!(
        refusal(&upload(&two, &format!("private/{id}/b.txt"))),
        ("403".into(), "new row violates row-level security policy".into())
    );
    assert_eq!(refusal(&upload(&Who::Anon, &own)).0, "403");
    assert_eq!(refusal(&upload(&Who::Nobody, &own)).0, "403");
    let read = |who: &Who| world.files(who, &format!("GET /object/authenticated/{own}")).send();
    assert_eq!(read(&one).text(), "mine");
    assert_eq!(refusal(&read(&two)), ("404".into(), "Object not found".into()));
    let public = world.files(&one, &format!("GET /object/public/{own}")).send();
    assert_eq!(refusal(&public), ("404".into(), "Bucket not found".into()));
    // The owner is who uploaded.
    let owner = world.sql("select owner_id, owner::text from storage.objects");
    assert_eq!(owner[0], json!({ "owner_id": id, "owner": id }));
    // Nobody removes, signs, moves or copies what is not theirs.
    let list = json!({ "prefixes": [format!("{id}/a.txt")] });
    assert_eq!(world.files(&two, "DELETE /object/private").json(&list).send().json(), json!([]));
    let sign = world.files(&two, &format!("POST /object/sign/{own}")).json(&json!({ "expiresIn": 60 })).send();
    assert_eq!(refusal(&sign).0, "404");
    let route = json!({ "bucketId": "private", "sourceKey": format!("{id}/a.txt"), "destinationKey": "x.txt" });
    for operation in ["move", "copy"] {
        let refused = world.files(&two, &format!("POST /object/{operation}")).json(&route).send();
        assert_eq!(refusal(&refused).0, "404", "{operation}");
        let refused = world.files(&one, &format!("POST /object/{operation}")).json(&route).send();
        assert_eq!(refusal(&refused).0, "403", "{operation} into a place of others");
    }
    put(world, "private/shared/s.txt", "for all");
    let shared = |who: &Who| world.files(who, "GET /object/authenticated/private/shared/s.txt").send();
    assert_eq!((shared(&one).text().as_str(), shared(&two).status), ("for all", 200));
    let list = |who: &Who| {
        let list = world.files(who, "POST /object/list/private").json(&json!({ "prefix": "" })).send().json();
        list.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list(&one), [id.as_str(), "shared"]);
    assert_eq!(list(&two), ["shared"]);
    // By hand no row is deleted, because its blob would stay, and none is made to name the blob of another.
    let by_hand = |statement: &str| {
        let block = format!(
            "begin set local role authenticated; {statement}; exception when insufficient_privilege then return 'refused'; end"
        );
        world.sql(&format!(
            "create or replace function pg_temp.try() returns text language plpgsql as $$ begin {block}; return 'done'; end $$; select pg_temp.try() as tried"
        ))[0]["tried"].clone()
    };
    assert_eq!(by_hand("delete from storage.objects"), "refused");
    assert_eq!(by_hand("update storage.objects set version = gen_random_uuid()::text"), "refused");
    assert_eq!(world.files(&one, &format!("DELETE /object/{own}")).send().status, 200);
    assert_eq!(refusal(&read(&one)).0, "404");
}

fn ranges_and_conditions(world: &mut World) {
    bucket(world, "files", json!({ "public": true }));
    put(world, "files/digits", "0123456789");
    let get = |headers: &[(&str, &str)]| {
        let ask = world.files(&Who::Nobody, "GET /object/public/files/digits");
        headers.iter().fold(ask, |ask, (name, value)| ask.header(name, value)).send()
    };
    let whole = get(&[]);
    let (etag, modified) =
        (whole.header("etag").unwrap().to_owned(), whole.header("last-modified").unwrap().to_owned());
    assert_eq!(etag, "\"781e5e245d69b566979b86e28d23f2c7\"", "MD5, as S3's clients compare it");
    for (range, status, text) in [("bytes=2-4", 206, "234"), ("bytes=-1", 206, "9"), ("bytes=x", 200, "0123456789")] {
        let part = get(&[("range", range)]);
        assert_eq!((part.status, part.text().as_str()), (status, text), "{range}");
    }
    assert_eq!(get(&[("range", "bytes=2-4")]).header("content-range"), Some("bytes 2-4/10"));
    let beyond = get(&[("range", "bytes=10-")]);
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */10")));
    let several = get(&[("range", "bytes=0-1,8-")]);
    assert_eq!(several.status, 206);
    let kind = several.header("content-type").unwrap().to_owned();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let expected = format!(
        "\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
         \r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\n89\r\n--{boundary}--\r\n"
    );
    assert_eq!(several.text(), expected);
    assert_eq!(several.header("content-length"), Some(several.body.len().to_string().as_str()));
    for (name, value, status) in [
        ("if-none-match", etag.as_str(), 304),
        ("if-none-match", "\"other\"", 200),
        ("if-modified-since", &modified, 304),
        ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT", 200),
        ("if-match", "\"other\"", 412),
    ] {
        assert_eq!(get(&[(name, value)]).status, status, "{name}: {value}");
    }
    assert_eq!(get(&[("range", "bytes=0-1"), ("if-range", "\"other\"")]).status, 200);
    assert_eq!(get(&[("range", "bytes=0-1"), ("if-range", &etag)]).status, 206);
}

fn forms_are_files(world: &mut World) {
    bucket(world, "files", json!({ "public": true }));
    let form = "--x\r\nContent-Disposition: form-data; name=\"cacheControl\"\r\n\r\n3600\r\n\
        --x\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n{\"a\":1}\r\n\
        --x\r\nContent-Disposition: form-data; name=\"\"; filename=\"a.txt\"\r\nContent-Type: text/csv\r\n\r\nin a form\r\n--x--\r\n";
    let post = world.files(&Who::Service, "POST /object/files/form").body("multipart/form-data; boundary=x", form);
    let posted = post.send();
    assert_eq!(posted.status, 200, "{}", posted.text());
    let got = world.files(&Who::Nobody, "GET /object/public/files/form").send();
    assert_eq!(got.text(), "in a form");
    assert_eq!((got.header("content-type"), got.header("cache-control")), (Some("text/csv"), Some("max-age=3600")));
    let info = world.files(&Who::Service, "GET /object/info/files/form").send().json();
    assert_eq!(info["metadata"], json!({ "a": 1 }));
    for broken in ["", "--x\r\n", "--x\r\nContent-Disposition: form-data; name=\"\"; filename=\"a\"\r\n\r\nno end"] {
        let post = world.files(&Who::Service, "POST /object/files/broken");
        let refused = post.body("multipart/form-data; boundary=x", broken).send();
        assert_eq!(refused.status, 400, "{broken}");
    }
    let missing = world.files(&Who::Nobody, "GET /object/public/files/broken").send();
    assert_eq!(refusal(&missing).0, "404", "what broke off is not there");
}

fn lists_show_folders_and_pages(world: &mut World) {
    bucket(world, "files", json!({}));
    for name in ["b.txt", "a.txt", "docs/one.txt", "docs/two.txt", "docs/deep/three.txt"] {
        put(world, &format!("files/{name}"), name);
    }
    let list = |body: Value| world.files(&Who::Service, "POST /object/list/files").json(&body).send().json();
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&list(json!({ "prefix": "" }))), ["a.txt", "b.txt", "docs"]);
    let docs = list(json!({ "prefix": "docs" }));
    assert_eq!(names(&docs), ["deep", "one.txt", "two.txt"]);
    assert_eq!((&docs[0]["id"], &docs[1]["metadata"]["size"]), (&Value::Null, &json!(12)));
    let sorted = json!({ "prefix": "", "limit": 2, "sortBy": { "column": "name", "order": "desc" } });
    assert_eq!(names(&list(sorted)), ["docs", "b.txt"]);
    assert_eq!(names(&list(json!({ "prefix": "docs", "search": "tw" }))), ["two.txt"]);
    assert_eq!(names(&list(json!({ "prefix": "", "offset": 2 }))), ["docs"]);
    let page = |body: Value| world.files(&Who::Service, "POST /object/list-v2/files").json(&body).send().json();
    let all = page(json!({}));
    assert_eq!(names(&all["objects"]), ["a.txt", "b.txt", "docs/deep/three.txt", "docs/one.txt", "docs/two.txt"]);
    let level = page(json!({ "with_delimiter": true }));
    assert_eq!(level["folders"], json!([{ "key": "docs", "name": "docs/" }]));
    for sort in [json!({ "column": "name", "order": "desc" }), json!({ "column": "created_at" })] {
        let (mut found, mut cursor, mut pages) = (Vec::new(), Value::Null, 0);
        loop {
            let mut body = json!({ "limit": 2, "sortBy": sort });
            if cursor.is_string() {
                body["cursor"] = cursor;
            }
            let page = page(body);
            found.extend(names(&page["objects"]));
            pages += 1;
            cursor = page["nextCursor"].clone();
            if page["hasNext"] == false {
                break;
            }
        }
        assert_eq!((found.len(), pages), (5, 3), "{sort}");
    }
    for wrong in [json!({}), json!({ "prefix": 1 }), json!({ "prefix": "", "sortBy": { "column": "secret" } })] {
        let refused = world.files(&Who::Service, "POST /object/list/files").json(&wrong).send();
        assert_eq!(refusal(&refused).0, "400", "{wrong}");
    }
}

fn moving_and_copying(world: &mut World) {
    bucket(world, "one", json!({}));
    bucket(world, "two", json!({ "public": true, "allowed_mime_types": ["text/*"], "file_size_limit": 10 }));
    put(world, "one/a.txt", "abc");
    let go = |operation: &str, from: &str, bucket: &str, to: &str| {
        let body = json!({ "bucketId": "one", "sourceKey": from, "destinationBucket": bucket, "destinationKey": to });
        world.files(&Who::Service, &format!("POST /object/{operation}")).json(&body).send()
    };
    assert_eq!(go("copy", "a.txt", "two", "b.txt").json()["Key"], "two/b.txt");
    assert_eq!(go("move", "a.txt", "one", "c/d.txt").json()["message"], "Successfully moved");
    let text = |path: &str| world.files(&Who::Service, &format!("GET /object/{path}")).send().text();
    assert_eq!((text("two/b.txt").as_str(), text("one/c/d.txt").as_str()), ("abc", "abc"));
    assert_eq!(refusal(&go("move", "a.txt", "one", "e.txt")).0, "404");
    assert_eq!(refusal(&go("copy", "c/d.txt", "two", "b.txt")).0, "409");
    assert_eq!(refusal(&go("move", "c/d.txt", "two", "b.txt")).0, "409");
    assert_eq!(refusal(&go("move", "c/d.txt", "none", "b.txt")).0, "404");
    assert_eq!(refusal(&go("copy", "c/d.txt", "two", "../b.txt")).0, "400");
    put(world, "one/long.txt", "more than ten bytes");
    for operation in ["move", "copy"] {
        assert_eq!(refusal(&go(operation, "long.txt", "two", "long.txt")).0, "413", "{operation}");
    }
    // A copy stays when its source goes.
    assert_eq!(go("copy", "c/d.txt", "one", "copy.txt").status, 200);
    assert_eq!(world.files(&Who::Service, "DELETE /object/one/c/d.txt").send().status, 200);
    assert_eq!(text("one/copy.txt"), "abc");
}

fn removing_says_what_is_gone(world: &mut World) {
    bucket(world, "files", json!({}));
    for name in ["a", "b", "c"] {
        put(world, &format!("files/{name}"), name);
    }
    let list = json!({ "prefixes": ["a", "none", "c"] });
    let gone = world.files(&Who::Service, "DELETE /object/files").json(&list).send().json();
    let mut names: Vec<&str> = gone.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "c"]);
    for wrong in [json!({}), json!({ "prefixes": [] }), json!({ "prefixes": vec!["x"; 1001] })] {
        assert_eq!(refusal(&world.files(&Who::Service, "DELETE /object/files").json(&wrong).send()).0, "400");
    }
    // The blobs follow.
    ntier_tests::until("one blob is left", || blobs(world) == 1);
}

/// How many blobs are on the disk.
pub fn blobs(world: &World) -> usize {
    let folders = std::fs::read_dir(world.data().join("files/blobs")).unwrap();
    folders.flatten().map(|folder| std::fs::read_dir(folder.path()).unwrap().count()).sum()
}

fn signed_urls(world: &mut World) {
    bucket(world, "files", json!({}));
    put(world, "files/a b.txt", "signed");
    let sign = |body: Value| world.files(&Who::Service, "POST /object/sign/files/a b.txt").json(&body).send().json();
    let url = sign(json!({ "expiresIn": 60 }))["signedURL"].as_str().unwrap().to_owned();
    let get = |url: &str| world.files(&Who::Nobody, &format!("GET {url}")).send();
    let got = get(&url);
    assert_eq!(got.text(), "signed");
    assert!(got.header("expires").is_some());
    let (path, token) = url.split_once("?token=").unwrap();
    // For this object and this use alone.
    put(world, "files/b.txt", "other");
    assert_eq!(refusal(&get(&format!("/object/sign/files/b.txt?token={token}"))).0, "400");
    assert_eq!(refusal(&get(&format!("{path}?token={token}x"))).0, "400");
    assert_eq!(refusal(&get(path)).0, "400");
    let upload = world.files(&Who::Nobody, &format!("PUT /object/upload/sign/files/a b.txt?token={token}"));
    assert_eq!(refusal(&upload.body("text/plain", "x").send()).0, "400");
    let bearer = world.files(&Who::Nobody, "GET /bucket").header("authorization", &format!("Bearer {token}")).send();
    assert_eq!(refusal(&bearer).0, "403", "T2: it opens nothing else");
    let many = json!({ "expiresIn": 60, "paths": ["a b.txt", "none"] });
    let many = world.files(&Who::Service, "POST /object/sign/files").json(&many).send().json();
    assert_eq!((&many[1]["signedURL"], many[0]["error"].is_null()), (&Value::Null, true));
    assert_eq!(get(many[0]["signedURL"].as_str().unwrap()).text(), "signed");
    assert_eq!(
        refusal(&world.files(&Who::Service, "POST /object/sign/files/b.txt").json(&json!({ "expiresIn": 0 })).send()).0,
        "400"
    );
    // For an upload: once, and what is there stays.
    let signed = world.files(&Who::Service, "POST /object/upload/sign/files/new.txt").send().json();
    let url = signed["url"].as_str().unwrap().to_owned();
    let put = |text: &str| world.files(&Who::Nobody, &format!("PUT {url}")).body("text/plain", text).send();
    assert_eq!(put("first").status, 200);
    assert_eq!(refusal(&put("second")), ("409".into(), "The resource already exists".into()));
    let got = world.files(&Who::Service, "GET /object/files/new.txt").send();
    assert_eq!(got.text(), "first");
    let download = world
        .files(&Who::Nobody, &format!("GET /object/sign/files/new.txt?token={}", signed["token"].as_str().unwrap()));
    assert_eq!(refusal(&download.send()).0, "400");
}

fn limits_of_buckets(world: &mut World) {
    bucket(world, "small", json!({ "file_size_limit": 10, "allowed_mime_types": ["text/plain", "image/png"] }));
    let post = |media_type: &str, body: &str| {
        world.files(&Who::Service, "POST /object/small/a?x").header("x-upsert", "true").body(media_type, body).send()
    };
    assert_eq!(post("text/plain; charset=utf-8", "0123456789").status, 200);
    assert_eq!(
        refusal(&post("text/plain", "0123456789a")),
        ("413".into(), "The object exceeded the maximum allowed size".into())
    );
    assert_eq!(refusal(&post("image/gif", "a")), ("415".into(), "mime type image/gif is not supported".into()));
    assert_eq!(refusal(&post("image/png", "<html>")).0, "415", "F1: a page is no picture");
    // Whose length nobody said is counted as it comes.
    let form = format!(
        "--x\r\nContent-Disposition: form-data; name=\"\"; filename=\"a\"\r\nContent-Type: text/plain\r\n\r\n{}\r\n--x--\r\n",
        "0123456789a"
    );
    assert_eq!(refusal(&post("multipart/form-data; boundary=x", &form)).0, "413");
    let more =
        world.files(&Who::Service, "POST /bucket").json(&json!({ "name": "huge", "file_size_limit": "5gb" })).send();
    assert_eq!(refusal(&more).0, "413", "no bucket takes more than the server");
}

/// A picture of one colour, as BMP, which needs no library.
fn picture(width: u32, height: u32) -> Vec<u8> {
    let row = (width * 3).div_ceil(4) * 4;
    let size = row * height;
    let mut bytes = b"BM".to_vec();
    bytes.extend((54 + size).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(54_u32.to_le_bytes());
    bytes.extend(40_u32.to_le_bytes());
    bytes.extend(width.to_le_bytes());
    bytes.extend(height.to_le_bytes());
    bytes.extend(1_u16.to_le_bytes());
    bytes.extend(24_u16.to_le_bytes());
    bytes.extend([0; 24]);
    bytes.resize(54 + size as usize, 200);
    bytes
}

fn pictures_are_made(world: &mut World) {
    bucket(world, "pictures", json!({ "public": true }));
    let put = world.files(&Who::Service, "POST /object/pictures/a.bmp").body("image/bmp", picture(200, 100)).send();
    assert_eq!(put.status, 200);
    let render = |accept: &str, query: &str| {
        let ask = world.files(&Who::Nobody, &format!("GET /render/image/public/pictures/a.bmp?{query}"));
        ask.header("accept", accept).send()
    };
    let jpeg = render("*/*", "width=50&height=50");
    assert_eq!((jpeg.status, jpeg.header("content-type")), (200, Some("image/jpeg")), "{}", jpeg.text());
    assert_eq!(jpeg.header("x-transformations"), Some("height:50,width:50,resizing_type:fill"));
    let webp = render("image/webp,*/*", "width=50");
    assert_eq!(webp.header("content-type"), Some("image/webp"));
    assert!(webp.header("vary").is_some_and(|vary| vary.contains("Accept")));
    assert_eq!(render("*/*", "width=50&height=50").body, jpeg.body, "the same again");
    let avif = render("*/*", "width=20&format=avif");
    assert_eq!((avif.header("content-type"), avif.body.get(4..12)), (Some("image/avif"), Some(&b"ftypavif"[..])));
    assert_eq!(render("image/avif", "width=20").header("content-type"), Some("image/jpeg"), "AVIF is to be asked for");
    for wrong in ["width=x", "quality=5", "resize=twist", "format=exe", "gravity=up"] {
        assert_eq!(refusal(&render("*/*", wrong)).0, "400", "{wrong}");
    }
    let text = world.files(&Who::Service, "POST /object/pictures/text").body("image/png", "no picture").send();
    assert_eq!(text.status, 200);
    let refused = world.files(&Who::Nobody, "GET /render/image/public/pictures/text?width=10").send();
    assert_eq!(refusal(&refused).0, "400");
    // A signed URL makes what was signed, whatever else it says.
    let body = json!({ "expiresIn": 60, "transform": { "width": 20, "height": 10 } });
    let signed = world.files(&Who::Service, "POST /object/sign/pictures/a.bmp").json(&body).send().json();
    let url = signed["signedURL"].as_str().unwrap();
    assert!(url.starts_with("/render/image/sign/pictures/a.bmp?token="), "{url}");
    let made = world.files(&Who::Nobody, &format!("GET {url}&width=2000")).send();
    assert_eq!(made.header("x-transformations"), Some("height:10,width:20,resizing_type:fill"));
}

/// Such files leave the node another way than small ones do.
fn large_files_come_back_as_they_went(world: &mut World) {
    bucket(world, "films", json!({ "public": true }));
    let film: Vec<u8> = (0..5_000_000_u32).map(|at| (at ^ (at >> 8)).to_le_bytes()[0]).collect();
    let put = world.files(&Who::Service, "POST /object/films/film").body("video/x", film.clone()).send();
    assert_eq!(put.status, 200, "{}", put.text());
    let get = || world.files(&Who::Nobody, "GET /object/public/films/film");
    assert!(get().send().body == film);
    let (first, last) = (70_001, 4_999_998);
    let part = get().header("range", &format!("bytes={first}-{last}")).send();
    assert!(part.status == 206 && part.body == film[first..=last]);
    let two = get().header("range", "bytes=5-1000004,2000000-4000000").send();
    let begins = two.body.windows(8).position(|bytes| bytes == &film[5..13]).unwrap();
    assert!(two.status == 206 && two.body[begins..begins + 1_000_000] == film[5..1_000_005]);
    let copied = json!({ "bucketId": "films", "sourceKey": "film", "destinationKey": "copy" });
    assert_eq!(world.files(&Who::Service, "POST /object/copy").json(&copied).send().status, 200);
    assert!(world.files(&Who::Nobody, "GET /object/public/films/copy").send().body == film);
}

/// Look-ups of public files are gathered: nobody is told of another's file, nor of what was there before.
fn whoever_asks_at_once_is_told_what_is_there(world: &mut World) {
    bucket(world, "open", json!({ "public": true }));
    bucket(world, "closed", json!({}));
    for number in 0..10 {
        put(world, &format!("open/{number}"), &number.to_string());
        put(world, &format!("closed/{number}"), "secret");
    }
    let world = &*world;
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for turn in 0..50 {
                    let number = (thread + turn) % 12;
                    let found = world.files(&Who::Nobody, &format!("GET /object/public/open/{number}")).send();
                    let expected = if number < 10 { number.to_string() } else { "Object not found".into() };
                    assert!(found.text().contains(&expected), "{number}: {}", found.text());
                    let closed = world.files(&Who::Nobody, &format!("GET /object/public/closed/{number}")).send();
                    assert_eq!(refusal(&closed).1, "Bucket not found");
                    // What was acknowledged is what is read next.
                    let own = format!("open/own {thread}");
                    let put = world.files(&Who::Service, &format!("POST /object/{own}")).header("x-upsert", "true");
                    assert_eq!(put.body("text/plain", turn.to_string()).send().status, 200);
                    let found = world.files(&Who::Nobody, &format!("GET /object/public/{own}")).send();
                    assert_eq!(found.text(), turn.to_string());
                }
            });
        }
    });
}

fn security_f1_the_files_of_a_user_have_a_quota(world: &mut World) {
    let world = World::start_with(world.backend, &["--storage-user-quota", "1000B"]);
    bucket(&world, "private", json!({}));
    world.sql(POLICIES);
    let (one, two) = (Who::user(1), Who::user(2));
    let put = |who: &Who, name: &str, bytes: usize| {
        let Who::User(id) = who else { unreachable!() };
        let line = format!("POST /object/private/{id}/{name}");
        world.files(who, &line).header("x-upsert", "true").body("text/plain", vec![b'x'; bytes]).send()
    };
    assert_eq!(put(&one, "a", 600).status, 200);
    let refused = put(&one, "b", 401);
    assert_eq!(refusal(&refused), ("413".into(), "The files of a user may take 1000 bytes in all".into()));
    assert_eq!(put(&one, "b", 400).status, 200);
    assert_eq!(put(&one, "a", 601).status, 400, "what is replaced does not count, and what replaces it does");
    assert_eq!(put(&one, "a", 599).status, 200);
    assert_eq!(put(&two, "a", 1000).status, 200, "each has a quota of their own");
    let Who::User(id) = &one else { unreachable!() };
    let copied = json!({ "bucketId": "private", "sourceKey": format!("{id}/a"), "destinationKey": format!("{id}/c") });
    assert_eq!(refusal(&world.files(&one, "POST /object/copy").json(&copied).send()).0, "413");
    assert_eq!(world.files(&one, &format!("DELETE /object/private/{id}/a")).send().status, 200);
    let at_once: Vec<u16> = std::thread::scope(|scope| {
        let tries: Vec<_> =
            (0..6).map(|n| scope.spawn(move || put(&Who::user(1), &format!("d{n}"), 200).status)).collect();
        tries.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(at_once.iter().filter(|status| **status == 200).count(), 3, "{at_once:?}");
    assert_eq!(
        world.files(&Who::Service, "POST /object/private/much").body("text/plain", vec![b'x'; 5000]).send().status,
        200
    );
}

fn jobs_remove_and_move_whole_folders(world: &mut World) {
    bucket(world, "private", json!({}));
    world.sql(POLICIES);
    let one = Who::user(1);
    let Who::User(id) = &one else { unreachable!() };
    for number in 0..5 {
        put(world, &format!("private/{id}/old/{number}.txt"), "x");
        put(world, &format!("private/other/{number}.txt"), "x");
    }
    let job = |body: Value| {
        let made = world.files(&one, "POST /job").json(&body).send();
        assert_eq!(made.status, 202, "{}", made.text());
        let id = made.json()["id"].as_str().unwrap().to_owned();
        let mut job = Value::Null;
        ntier_tests::until("the job is done", || {
            job = world.files(&one, &format!("GET /job/{id}")).send().json();
            job["state"] != "waiting" && job["state"] != "running"
        });
        assert_eq!(refusal(&world.files(&Who::user(2), &format!("GET /job/{id}")).send()).0, "404");
        job
    };
    let names =
        || world.sql("select string_agg(name, ' ' order by name) as names, count(*) as count from storage.objects");
    let moved = job(json!({
        "kind": "move_prefix", "bucketId": "private", "prefix": format!("{id}/old/"), "destinationPrefix": format!("{id}/new/")
    }));
    assert_eq!((&moved["state"], &moved["done"], &moved["failed"]), (&json!("done"), &json!(5), &json!(0)));
    assert!(names()[0]["names"].as_str().unwrap().contains(&format!("{id}/new/4.txt")));
    // Everything below, as far as the caller may.
    let removed = job(json!({ "kind": "delete_prefix", "bucketId": "private", "prefix": "" }));
    assert_eq!((&removed["state"], &removed["done"]), (&json!("done"), &json!(5)));
    assert_eq!(names()[0]["count"], 5, "what belongs to others stays");
    for wrong in [
        json!({}),
        json!({ "kind": "eat" }),
        json!({ "kind": "delete_prefix", "bucketId": "private", "prefix": "../" }),
    ] {
        assert_eq!(refusal(&world.files(&one, "POST /job").json(&wrong).send()).0, "400", "{wrong}");
    }
}
