//! Buckets as file managers have them (WebDAV).

mod clients;
mod hostile;

use ntier_tests::{Answer, Who, World, on_both};
use serde_json::json;

use super::{bucket, put};

on_both!(
    a_tree_is_made_listed_copied_moved_and_removed,
    a_folder_stays_when_it_is_empty,
    a_folder_of_thousands_is_moved_at_once,
    properties_stay_with_their_file,
    locks_hold_others_back,
    conditions_are_of_what_they_name,
    what_changes_while_a_file_comes_counts,
    who_asks_is_said_by_basic_credentials,
    a_client_that_is_asked_who_it_is_asks_again,
    the_door_can_be_closed,
);

const PATCH: &str = "<propertyupdate xmlns='DAV:'><set><prop><a xmlns='urn:x'/></prop></set></propertyupdate>";
/// For all who are signed in.
const OPEN: &str = "create policy all_of_it on storage.objects for all to authenticated using (true) with check (true)";
const LOCK: &str = "<D:lockinfo xmlns:D='DAV:'><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype>\
    <D:owner>ada &amp; co</D:owner></D:lockinfo>";

fn ask(world: &World, who: &Who, line: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
    let (method, path) = line.split_once(' ').unwrap();
    let ask = world.files(who, &format!("{method} /dav/{path}"));
    let ask = match body {
        Some(body) => ask.body("text/plain", body),
        None => ask,
    };
    headers.iter().fold(ask, |ask, (name, value)| ask.header(name, value)).send()
}

fn status(world: &World, who: &Who, line: &str, headers: &[(&str, &str)], body: Option<&str>) -> u16 {
    ask(world, who, line, headers, body).status
}

/// The hrefs of a listing, behind `/storage/v1/dav/`.
fn listed(world: &World, who: &Who, path: &str) -> Vec<String> {
    let answer = ask(world, who, &format!("PROPFIND {path}"), &[("depth", "1")], None);
    assert_eq!(answer.status, 207, "{path}: {}", answer.text());
    let text = answer.text();
    let hrefs = text.split("<D:response><D:href>").skip(1).filter_map(|part| part.split("</D:href>").next());
    hrefs.map(|href| href.trim_start_matches("/storage/v1/dav/").to_owned()).collect()
}

/// A place as `Destination` names it.
fn to(world: &World, path: &str) -> String {
    format!("{}/storage/v1/dav/{path}", world.node.url)
}

/// Rows of files that have no bytes, `{folder}/0` and so on: many are made at once so.
fn make_many(world: &World, bucket: &str, folder: &str, count: usize) {
    world.sql(&format!(
        "insert into storage.objects (bucket_id, name, metadata) select '{bucket}', '{folder}/' || i, '{{\"size\": 1}}' \
         from generate_series(1, {count}) i"
    ));
}

fn count(world: &World, bucket: &str, folder: &str) -> i64 {
    let rows = world.sql(&format!(
        "select count(*) from storage.objects where bucket_id = '{bucket}' and starts_with(name, '{folder}/')"
    ));
    rows[0]["count"].as_i64().unwrap()
}

fn a_tree_is_made_listed_copied_moved_and_removed(world: &mut World) {
    bucket(world, "files", json!({}));
    bucket(world, "other", json!({}));
    let who = Who::Service;
    for (line, headers, body, expected) in [
        ("MKCOL files/a", &[][..], None, 201),
        ("MKCOL files/a/", &[], None, 405),
        ("MKCOL files/none/b", &[], None, 409),
        ("MKCOL files/x", &[], Some("<x/>"), 415),
        ("PUT files/a/one.txt", &[], Some("one"), 201),
        ("PUT files/a/one.txt", &[], Some("uno"), 204),
        ("PUT files/a/one.txt", &[("if-none-match", "*")], Some("x"), 412),
        ("PUT files/a/one.txt", &[("if-match", "\"x\"")], Some("x"), 412),
        ("PUT files/a/one.txt", &[("content-range", "bytes 0-0/3")], Some("x"), 400),
        ("MKCOL files/a/one.txt/", &[], None, 405),
        ("PUT files/none/b.txt", &[], Some("x"), 409),
        ("PUT files/a", &[], Some("x"), 405),
        ("MKCOL files/a/deep", &[], None, 201),
        ("PUT files/a/deep/two.txt", &[], Some("two"), 201),
        ("GET files/a", &[], None, 200),
        ("HEAD files/a/", &[], None, 200),
        ("HEAD files/", &[], None, 200),
        ("GET files/none", &[], None, 404),
        ("HEAD files/none/", &[], None, 404),
        ("GET files/a/one.txt/", &[], None, 404),
        ("PROPFIND files/", &[("depth", "2")], None, 400),
        ("PROPFIND files/none", &[("depth", "0")], None, 404),
        ("PROPFIND none/", &[("depth", "0")], None, 404),
        ("PROPFIND files/", &[("depth", "0")], Some("<x"), 400),
        ("DELETE files/", &[], None, 403),
        ("DELETE files/a", &[("depth", "0")], None, 400),
        ("POST files/a", &[], Some("x"), 405),
    ] {
        let found = ask(world, &who, line, headers, body);
        assert_eq!(found.status, expected, "{line} {headers:?}: {}", found.text());
    }
    assert_eq!(listed(world, &who, ""), ["", "files/", "other/"]);
    assert_eq!(listed(world, &who, "files/"), ["files/", "files/a/"]);
    assert_eq!(listed(world, &who, "files/a"), ["files/a/", "files/a/deep/", "files/a/one.txt"]);
    assert_eq!(listed(world, &who, "files/a/deep/"), ["files/a/deep/", "files/a/deep/two.txt"]);
    let unsaid = ask(world, &who, "PROPFIND files/a/one.txt", &[], None);
    assert_eq!(unsaid.status, 207, "clients that say no depth do not mean everything");
    assert!(unsaid.text().contains("<D:getcontenttype>text/plain</D:getcontenttype>"), "{}", unsaid.text());
    assert_eq!(ask(world, &who, "GET files/a/one.txt", &[], None).text(), "uno");
    for (line, destination, overwrite, expected) in [
        ("COPY files/a", "files/b", "T", 201),
        ("COPY files/a", "files/b", "F", 412),
        ("COPY files/a", "files/b", "T", 204),
        ("COPY files/a", "files/a/c", "T", 403),
        ("COPY files/a/deep", "files/a", "T", 403),
        ("COPY files/a/one.txt", "files/none/c", "T", 409),
        ("COPY files/a/one.txt", "files/b/1.txt", "T", 201),
        ("MOVE files/b/1.txt", "files/b/one.txt", "F", 412),
        ("MOVE files/b/1.txt", "files/b/one.txt", "T", 204),
        ("MOVE files/b", "files/ö c", "T", 201),
        ("MOVE files/b", "files/d", "T", 404),
        ("COPY files/a", "other/a", "T", 201),
        ("MOVE other/a/one.txt", "files/1.txt", "T", 201),
        ("MOVE other/a", "files/from other", "T", 201),
        ("MOVE files/1.txt", "files/from other", "T", 204),
    ] {
        let destination = to(world, &destination.replace('ö', "%C3%B6").replace(' ', "%20"));
        let headers = [("destination", destination.as_str()), ("overwrite", overwrite)];
        let found = ask(world, &who, line, &headers, None);
        assert_eq!(found.status, expected, "{line} to {destination}: {}", found.text());
    }
    let moved = ["%C3%B6%20c/", "%C3%B6%20c/deep/", "%C3%B6%20c/one.txt"].map(|name| format!("files/{name}"));
    assert_eq!(listed(world, &who, "files/ö c"), moved);
    assert_eq!(ask(world, &who, "GET files/ö c/deep/two.txt", &[], None).text(), "two");
    assert_eq!(ask(world, &who, "GET files/from other", &[], None).text(), "uno", "a file in the place of a folder");
    assert_eq!(status(world, &who, "DELETE files/a", &[], None), 204);
    assert_eq!(status(world, &who, "DELETE files/a", &[], None), 404);
    assert_eq!(listed(world, &who, "files/"), ["files/", "files/from%20other", "files/%C3%B6%20c/"]);
}

fn a_folder_stays_when_it_is_empty(world: &mut World) {
    bucket(world, "files", json!({}));
    put(world, "files/a/b/one.txt", "1");
    put(world, "files/c/two.txt", "2");
    assert_eq!(status(world, &Who::Service, "DELETE files/a/b/one.txt", &[], None), 204);
    assert_eq!(listed(world, &Who::Service, "files/a/b"), ["files/a/b/"]);
    let away = to(world, "files/a/two.txt");
    assert_eq!(status(world, &Who::Service, "MOVE files/c/two.txt", &[("destination", &away)], None), 201);
    assert_eq!(listed(world, &Who::Service, "files/c"), ["files/c/"]);
    assert_eq!(listed(world, &Who::Service, "files"), ["files/", "files/a/", "files/c/"]);
    // What keeps it is not seen.
    assert_eq!(status(world, &Who::Service, "GET files/c/.emptyFolderPlaceholder", &[], None), 404);
}

fn a_folder_of_thousands_is_moved_at_once(world: &mut World) {
    bucket(world, "files", json!({}));
    make_many(world, "files", "old", 5000);
    make_many(world, "files", "there", 10);
    let headers = [("destination", to(world, "files/there"))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(status(world, &Who::Service, "MOVE files/old", &headers, None), 204);
    assert_eq!((count(world, "files", "old"), count(world, "files", "there")), (0, 5000));
    assert_eq!(listed(world, &Who::Service, "files/there").len(), 5001);
    assert_eq!(status(world, &Who::Service, "DELETE files/there", &[], None), 204);
    assert_eq!(listed(world, &Who::Service, "files"), ["files/"]);
}

fn properties_stay_with_their_file(world: &mut World) {
    bucket(world, "files", json!({}));
    let who = Who::Service;
    let patch = |path: &str, steps: &str| {
        let body = format!("<D:propertyupdate xmlns:D='DAV:' xmlns:x='urn:x'>{steps}</D:propertyupdate>");
        let answer = ask(world, &who, &format!("PROPPATCH {path}"), &[], Some(&body));
        assert_eq!(answer.status, 207, "{path}: {}", answer.text());
        answer.text()
    };
    let set = |value: &str| format!("<D:set><D:prop><x:colour>{value}</x:colour></D:prop></D:set>");
    let colour = |path: &str| {
        let body = "<propfind xmlns='DAV:'><prop><colour xmlns='urn:x'/></prop></propfind>";
        let answer = ask(world, &who, &format!("PROPFIND {path}"), &[("depth", "0")], Some(body));
        assert_eq!(answer.status, 207, "{path}: {}", answer.text());
        let value = answer.text();
        let value =
            value.split("<x:colour xmlns:x=\"urn:x\">").nth(1).and_then(|rest| rest.split("</x:colour>").next());
        value.map(str::to_owned)
    };
    put(world, "files/d/a.txt", "a");
    assert_eq!(colour("files/d/a.txt"), None);
    assert!(patch("files/d/a.txt", &set("r&lt;d")).contains("200 OK"));
    assert!(patch("files/d", &set("blue")).contains("200 OK"));
    assert_eq!((colour("files/d/a.txt").as_deref(), colour("files/d/").as_deref()), (Some("r&lt;d"), Some("blue")));
    // What the server says nobody else says, and then nothing is done.
    let refused =
        patch("files/d/a.txt", &format!("{}<D:set><D:prop><D:getetag>x</D:getetag></D:prop></D:set>", set("x")));
    assert!(refused.contains("403 Forbidden") && refused.contains("424 Failed Dependency"), "{refused}");
    // Overwritten, moved and copied, also as a part of its folder.
    assert_eq!(status(world, &who, "PUT files/d/a.txt", &[], Some("b")), 204);
    let headers = |path: &str| [("destination", to(world, path))];
    let transfer = |line: &str, path: &str| {
        let headers = headers(path);
        status(world, &who, line, &headers.each_ref().map(|(name, value)| (*name, value.as_str())), None)
    };
    assert_eq!(transfer("MOVE files/d", "files/e"), 201);
    assert_eq!(transfer("COPY files/e", "files/f"), 201);
    assert_eq!(transfer("COPY files/e/a.txt", "files/b.txt"), 201);
    for path in ["files/e/a.txt", "files/f/a.txt", "files/b.txt"] {
        assert_eq!(colour(path).as_deref(), Some("r&lt;d"), "{path}");
    }
    assert_eq!(colour("files/f").as_deref(), Some("blue"));
    // All that a listing tells of a folder's entries.
    let all = ask(world, &who, "PROPFIND files/", &[("depth", "1")], None).text();
    assert_eq!(all.matches("<x:colour xmlns:x=\"urn:x\">").count(), 3, "{all}");
    // The last word counts.
    patch("files/b.txt", &format!("{}<D:remove><D:prop><x:colour/></D:prop></D:remove>", set("green")));
    assert_eq!(colour("files/b.txt"), None);
    assert_eq!(transfer("COPY files/b.txt", "files/f/a.txt"), 204);
    assert_eq!(colour("files/f/a.txt"), None, "it is a copy of another");
    // There is an end to it.
    for (number, expected) in [(1, 207), (2, 507)] {
        let body = format!(
            "<propertyupdate xmlns='DAV:'><set><prop><p{number} xmlns='urn:x'>{}</p{number}></prop></set></propertyupdate>",
            "x".repeat(40_000)
        );
        assert_eq!(status(world, &who, "PROPPATCH files/b.txt", &[], Some(&body)), expected);
    }
    assert_eq!(status(world, &who, "PROPPATCH files/none", &[], Some(PATCH)), 404);
    // What is left of files that are gone goes.
    assert_eq!(status(world, &who, "DELETE files/e", &[], None), 204);
    let sweeping = World::start_with(world.backend, &["--storage-sweep-after", "1s"]);
    sweeping.sql("insert into ntier.dav_properties values (gen_random_uuid(), '{}')");
    ntier_tests::until("they are swept away", || {
        sweeping.sql("select count(*) from ntier.dav_properties")[0]["count"] == 0
    });
}

fn locks_hold_others_back(world: &mut World) {
    bucket(world, "files", json!({}));
    world.sql(OPEN);
    let (one, two) = (Who::user(1), Who::user(2));
    let taken = ask(world, &one, "LOCK files/a.txt", &[("timeout", "Second-100")], Some(LOCK));
    assert_eq!(taken.status, 201, "{}", taken.text());
    assert!(taken.text().contains("<D:timeout>Second-100</D:timeout>") && taken.text().contains("ada &amp; co"));
    let token = taken.header("lock-token").unwrap().to_owned();
    let shown = format!("({token})");
    for (who, line, headers, body, expected) in [
        (&two, "PUT files/a.txt", &[][..], Some("x"), 423),
        (&two, "PUT files/a.txt", &[("if", shown.as_str())], Some("x"), 423),
        (&one, "PUT files/a.txt", &[], Some("x"), 423),
        (&one, "PUT files/a.txt", &[("if", "(<urn:uuid:00000000-0000-4000-8000-000000000000>)")], Some("x"), 412),
        (&one, "PUT files/a.txt", &[("if", "nonsense")], Some("x"), 400),
        (&one, "PUT files/a.txt", &[("if", shown.as_str())], Some("x"), 204),
        (&two, "DELETE files/a.txt", &[], None, 423),
        (&two, "PROPPATCH files/a.txt", &[], Some(PATCH), 423),
        (&two, "LOCK files/a.txt", &[], Some(LOCK), 423),
        (&one, "LOCK files/a.txt", &[("if", shown.as_str())], None, 200),
        (&one, "LOCK files/a.txt", &[], None, 412),
        (&two, "UNLOCK files/a.txt", &[("lock-token", token.as_str())], None, 403),
        (&one, "UNLOCK files/b.txt", &[("lock-token", token.as_str())], None, 409),
        (&one, "UNLOCK files/a.txt", &[("lock-token", "nonsense")], None, 400),
        (&one, "UNLOCK files/a.txt", &[("lock-token", token.as_str())], None, 204),
        (&two, "PUT files/a.txt", &[], Some("y"), 204),
    ] {
        let found = ask(world, who, line, headers, body);
        assert_eq!(found.status, expected, "{line} {headers:?}: {}", found.text());
    }
    // A folder's lock is that of what is below, and ends by itself.
    assert_eq!(status(world, &one, "MKCOL files/d", &[], None), 201);
    assert_eq!(status(world, &one, "LOCK files/d", &[("depth", "infinity")], Some(LOCK)), 200);
    assert_eq!(status(world, &two, "PUT files/d/b.txt", &[], Some("x")), 423);
    let told = ask(world, &two, "PROPFIND files/", &[("depth", "1")], None).text();
    assert_eq!(told.matches("<D:activelock>").count(), 1, "{told}");
    let away = to(world, "files/e");
    assert_eq!(status(world, &two, "MOVE files/d", &[("destination", &away)], None), 423);
    world.sql("update ntier.dav_locks set name = ''");
    let told = ask(world, &two, "PROPFIND files/", &[("depth", "1")], None).text();
    assert_eq!(told.matches("<D:activelock>").count(), 3, "the bucket's is that of all: {told}");
    world.sql("update ntier.dav_locks set expires_at = now() - interval '1 second'");
    assert_eq!(status(world, &two, "PUT files/d/b.txt", &[], Some("x")), 201);
    // What is gone is not locked.
    let taken = ask(world, &one, "LOCK files/d/b.txt", &[], Some(LOCK));
    let shown = format!("<{}> ({})", to(world, "files/d/b.txt"), taken.header("lock-token").unwrap());
    assert_eq!(status(world, &one, "DELETE files/d", &[("if", &shown)], None), 204);
    assert_eq!(world.sql("select count(*) from ntier.dav_locks")[0]["count"], 0);
}

fn conditions_are_of_what_they_name(world: &mut World) {
    bucket(world, "files", json!({}));
    put(world, "files/a.txt", "a");
    put(world, "files/b.txt", "b");
    let etag =
        |path: &str| ask(world, &Who::Service, &format!("GET {path}"), &[], None).header("etag").unwrap().to_owned();
    let (a, b) = (etag("files/a.txt"), etag("files/b.txt"));
    let at = |path: &str| to(world, path);
    let destination = at("files/c.txt");
    // What names nothing is of what is asked for, and not of where it goes.
    for (condition, expected) in [
        (format!("([{b}])"), 412),
        (format!("([{a}])"), 201),
        (format!("([{b}]) (Not [{b}])"), 204),
        (format!("<{}> ([{b}])", at("files/b.txt")), 204),
        (format!("<{}> ([{a}])", at("files/b.txt")), 412),
        (format!("<{}> (Not [{a}])", at("files/none.txt")), 204),
        (format!("<{}> ([{a}])", at("none/a.txt")), 412),
        ("<http://elsewhere/a> (Not <DAV:no-lock>)".to_owned(), 204),
        ("<http://elsewhere/a> (<urn:uuid:00000000-0000-4000-8000-000000000000>)".to_owned(), 412),
        ("(".to_owned(), 400),
        ("<a>".to_owned(), 400),
        ("(Not)".to_owned(), 400),
        ("([\"a\")".to_owned(), 400),
        ("()".repeat(1000), 400),
    ] {
        let headers = [("destination", destination.as_str()), ("if", condition.as_str())];
        let found = ask(world, &Who::Service, "COPY files/a.txt", &headers, None);
        assert_eq!(found.status, expected, "{condition}: {}", found.text());
    }
}

/// What is sent as it is.
fn connect(world: &World) -> std::net::TcpStream {
    let stream = std::net::TcpStream::connect(world.node.url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(ntier_tests::node::PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn a_client_that_is_asked_who_it_is_asks_again(world: &mut World) {
    use std::io::{Read, Write};
    bucket(world, "files", json!({}));
    let body = "<propfind xmlns=\"DAV:\"><propname/></propfind>";
    let head = |more: &str| {
        format!(
            "PROPFIND /storage/v1/dav/files/ HTTP/1.1\r\nhost: x\r\ndepth: 0\r\ncontent-length: {}\r\n{more}\r\n",
            body.len()
        )
    };
    let mut stream = connect(world);
    let mut status = |send: &[&str]| {
        for part in send {
            stream.write_all(part.as_bytes()).unwrap();
        }
        let (mut answer, mut buffer) = (String::new(), [0; 8192]);
        while !(answer.contains("\r\n\r\n") && (answer.ends_with(">\n") || answer.ends_with("key"))) {
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "{answer}");
            answer.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    // It is answered before its body, which then comes with the next request; the body of that one comes by itself.
    let again = head(&format!("authorization: {}\r\n", basic("any", world.key("secret_key"))));
    assert_eq!(status(&[&head("")]), "401");
    assert_eq!(status(&[&format!("{body}{again}"), body]), "207");
    assert_eq!(status(&[&again, body]), "207");
}

/// A PUT whose body waits until the server has looked at what is before it.
fn slow_put(world: &World, path: &str, headers: &str, meanwhile: impl FnOnce()) -> String {
    use std::io::{Read, Write};
    let mut stream = connect(world);
    let key = world.key("secret_key");
    let head = format!(
        "PUT /storage/v1/dav/{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nexpect: 100-continue\r\n\
         content-length: 4\r\nconnection: close\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut begin = [0; 25];
    stream.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"HTTP/1.1 100 Continue\r\n\r\n");
    meanwhile();
    stream.write_all(b"late").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

fn what_changes_while_a_file_comes_counts(world: &mut World) {
    bucket(world, "files", json!({}));
    put(world, "files/a.txt", "a");
    let read = || ask(world, &Who::Service, "GET files/a.txt", &[], None);
    let etag = format!("if-match: {}\r\n", read().header("etag").unwrap());
    assert_eq!(slow_put(world, "files/a.txt", &etag, || ()), "HTTP/1.1 204 No Content");
    let etag = format!("if-match: {}\r\n", read().header("etag").unwrap());
    let change = || drop(put_again(world, "files/a.txt", "b"));
    assert_eq!(slow_put(world, "files/a.txt", &etag, change), "HTTP/1.1 412 Precondition Failed");
    assert_eq!(read().text(), "b");
    let lock = || assert_eq!(status(world, &Who::Service, "LOCK files/a.txt", &[], Some(LOCK)), 200);
    assert_eq!(slow_put(world, "files/a.txt", "", lock), "HTTP/1.1 423 Locked");
    assert_eq!(read().text(), "b");
    let make = || drop(put(world, "files/new.txt", "c"));
    assert_eq!(slow_put(world, "files/new.txt", "if-none-match: *\r\n", make), "HTTP/1.1 412 Precondition Failed");
    assert_eq!(ask(world, &Who::Service, "GET files/new.txt", &[], None).text(), "c");
}

/// By the other door.
fn put_again(world: &World, path: &str, text: &str) -> Answer {
    let put = world.files(&Who::Service, &format!("PUT /object/{path}")).body("text/plain", text).send();
    assert_eq!(put.status, 200, "{}", put.text());
    put
}

fn the_door_can_be_closed(world: &mut World) {
    let closed = World::start_with(world.backend, &["--storage-webdav=false"]);
    bucket(&closed, "files", json!({}));
    let credentials = basic("any", closed.key("secret_key"));
    let found = ask(&closed, &Who::Nobody, "PROPFIND files/", &[("authorization", &credentials), ("depth", "0")], None);
    assert_eq!((found.status, found.header("dav"), found.header("www-authenticate")), (404, None, None));
}

fn basic(name: &str, password: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}")))
}

fn sign_up(world: &World, email: &str, password: &str) -> String {
    let made = world.auth(None, "POST /signup").json(&json!({ "email": email, "password": password })).send();
    assert_eq!(made.status, 200, "{}", made.text());
    made.json()["user"]["id"].as_str().unwrap().to_owned()
}

fn who_asks_is_said_by_basic_credentials(world: &mut World) {
    bucket(world, "files", json!({}));
    world.sql(OPEN);
    let nobody = ask(world, &Who::Nobody, "PROPFIND files/", &[("depth", "0")], None);
    let challenge = nobody.header("www-authenticate").is_some_and(|text| text.starts_with("Basic"));
    assert_eq!((nobody.status, challenge), (401, true));
    let options = ask(world, &Who::Nobody, "OPTIONS files/", &[], None);
    assert_eq!((options.status, options.header("dav")), (200, Some("1, 2")));
    sign_up(world, "ada@example.com", "correct horse battery");
    for (name, password, expected) in [
        ("ada@example.com", "correct horse battery", 207),
        ("Ada@Example.com", "correct horse battery", 207),
        ("ada@example.com", "wrong", 401),
        ("ada@example.com\0", "correct horse battery", 401),
        ("", "", 401),
        ("anything", world.key("secret_key"), 207),
        ("anything", world.key("publishable_key"), 207),
        ("anything", "sb_secret_wrong", 401),
        ("anything", "eyJh.eyJh.x", 401),
    ] {
        let credentials = basic(name, password);
        let headers = [("authorization", credentials.as_str()), ("depth", "0")];
        let found = ask(world, &Who::Nobody, "PROPFIND files/", &headers, None);
        assert_eq!(found.status, expected, "{name}: {}", found.text());
    }
    let credentials = basic("ada@example.com", "correct horse battery");
    let put = ask(world, &Who::Nobody, "PUT files/a.txt", &[("authorization", &credentials)], Some("x"));
    assert_eq!(put.status, 201, "{}", put.text());
    let rows = world.sql("select o.owner_id = u.id::text as own from storage.objects o, auth.users u");
    assert_eq!(rows[0]["own"], true, "what is made by the user is the user's");
}
