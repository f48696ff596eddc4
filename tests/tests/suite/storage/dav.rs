//! Buckets as file managers have them (WebDAV).

use ntier_tests::{Answer, Who, World, on_both};
use serde_json::json;

use super::{POLICIES, bucket, put};

on_both!(
    a_tree_is_made_listed_copied_moved_and_removed,
    policies_decide_what_a_file_manager_sees,
    locks_hold_others_back,
    who_asks_is_said_by_basic_credentials,
    security_f2_no_path_leads_out_of_a_bucket,
);

fn ask(world: &World, who: &Who, line: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
    let (method, path) = line.split_once(' ').unwrap();
    let ask = world.files(who, &format!("{method} /dav/{path}"));
    let ask = headers.iter().fold(ask, |ask, (name, value)| ask.header(name, value));
    match body {
        Some(body) => ask.body("text/plain", body).send(),
        None => ask.send(),
    }
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

fn to(world: &World, path: &str) -> String {
    format!("{}/storage/v1/dav/{path}", world.node.url)
}

fn a_tree_is_made_listed_copied_moved_and_removed(world: &mut World) {
    bucket(world, "files", json!({}));
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
        ("PUT files/none/b.txt", &[], Some("x"), 409),
        ("PUT files/a", &[], Some("x"), 405),
        ("MKCOL files/a/deep", &[], None, 201),
        ("PUT files/a/deep/two.txt", &[], Some("two"), 201),
        ("GET files/a", &[], None, 400),
        ("PROPFIND files/", &[("depth", "infinity")], None, 403),
        ("PROPFIND files/none", &[("depth", "0")], None, 404),
        ("PROPFIND none/", &[("depth", "0")], None, 404),
        ("PROPFIND files/", &[("depth", "0")], Some("<x"), 400),
        ("DELETE files/", &[], None, 403),
        ("POST files/a", &[], Some("x"), 405),
    ] {
        let found = ask(world, &who, line, headers, body);
        // What is a folder here is no object.
        let expected = if line == "GET files/a" { 404 } else { expected };
        assert_eq!(found.status, expected, "{line} {headers:?}: {}", found.text());
    }
    assert_eq!(listed(world, &who, ""), ["", "files/"]);
    assert_eq!(listed(world, &who, "files/"), ["files/", "files/a/"]);
    assert_eq!(listed(world, &who, "files/a"), ["files/a/", "files/a/deep/", "files/a/one.txt"]);
    assert_eq!(listed(world, &who, "files/a/deep/"), ["files/a/deep/", "files/a/deep/two.txt"]);
    assert_eq!(ask(world, &who, "GET files/a/one.txt", &[], None).text(), "uno");
    for (line, destination, overwrite, expected) in [
        ("COPY files/a", "files/b", "T", 201),
        ("COPY files/a", "files/b", "F", 412),
        ("COPY files/a", "files/b", "T", 204),
        ("COPY files/a", "files/a/c", "T", 403),
        ("COPY files/a/one.txt", "files/none/c", "T", 409),
        ("COPY files/a/one.txt", "files/b/1.txt", "T", 201),
        ("MOVE files/b/1.txt", "files/b/one.txt", "F", 412),
        ("MOVE files/b/1.txt", "files/b/one.txt", "T", 204),
        ("MOVE files/b", "files/ö c", "T", 201),
        ("MOVE files/b", "files/d", "T", 404),
    ] {
        let destination = to(world, &destination.replace('ö', "%C3%B6").replace(' ', "%20"));
        let headers = [("destination", destination.as_str()), ("overwrite", overwrite)];
        let found = ask(world, &who, line, &headers, None);
        assert_eq!(found.status, expected, "{line} to {destination}: {}", found.text());
    }
    let moved = ["%C3%B6%20c/", "%C3%B6%20c/deep/", "%C3%B6%20c/one.txt"].map(|name| format!("files/{name}"));
    assert_eq!(listed(world, &who, "files/ö c"), moved);
    assert_eq!(ask(world, &who, "GET files/ö c/deep/two.txt", &[], None).text(), "two");
    assert_eq!(status(world, &who, "DELETE files/a", &[], None), 204);
    assert_eq!(status(world, &who, "DELETE files/a", &[], None), 404);
    assert_eq!(listed(world, &who, "files/"), ["files/", "files/%C3%B6%20c/"]);
}

fn policies_decide_what_a_file_manager_sees(world: &mut World) {
    bucket(world, "private", json!({}));
    world.sql(POLICIES);
    let (one, two) = (Who::user(1), Who::user(2));
    let Who::User(id) = &one else { unreachable!() };
    put(world, "private/shared/s.txt", "for all");
    assert_eq!(status(world, &one, &format!("MKCOL private/{id}"), &[], None), 201);
    assert_eq!(status(world, &one, &format!("PUT private/{id}/a.txt"), &[], Some("mine")), 201);
    assert_eq!(
        listed(world, &one, "private/"),
        ["private/".into(), format!("private/{id}/"), "private/shared/".into()]
    );
    assert_eq!(listed(world, &two, "private/"), ["private/", "private/shared/"]);
    assert_eq!(status(world, &two, &format!("GET private/{id}/a.txt"), &[], None), 404);
    assert_eq!(status(world, &two, &format!("PUT private/{id}/b.txt"), &[], Some("x")), 409, "no folder is seen there");
    assert_eq!(status(world, &two, &format!("DELETE private/{id}/"), &[], None), 404);
    // What may be seen and not changed.
    assert_eq!(status(world, &one, "GET private/shared/s.txt", &[], None), 200);
    assert_eq!(status(world, &one, "PUT private/shared/t.txt", &[], Some("x")), 403);
    assert_eq!(status(world, &one, "DELETE private/shared/s.txt", &[], None), 403);
    let partly = ask(world, &one, "DELETE private/shared", &[], None);
    assert_eq!((partly.status, partly.text().contains("403 Forbidden")), (207, true));
    let away = to(world, &format!("private/{id}/t.txt"));
    assert_eq!(status(world, &one, "MOVE private/shared/s.txt", &[("destination", &away)], None), 403);
    let away = to(world, &format!("private/{id}/shared"));
    assert_eq!(status(world, &one, "MOVE private/shared", &[("destination", &away)], None), 403);
    assert_eq!(status(world, &one, "COPY private/shared", &[("destination", &away)], None), 201);
    let lock = "<lockinfo xmlns='DAV:'><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>";
    assert_eq!(status(world, &one, "LOCK private/shared/s.txt", &[], Some(lock)), 403);
}

fn locks_hold_others_back(world: &mut World) {
    bucket(world, "files", json!({}));
    world.sql("create policy all_of_it on storage.objects for all to authenticated using (true) with check (true)");
    let (one, two) = (Who::user(1), Who::user(2));
    let lock = "<D:lockinfo xmlns:D='DAV:'><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype>\
        <D:owner>ada &amp; co</D:owner></D:lockinfo>";
    let taken = ask(world, &one, "LOCK files/a.txt", &[("timeout", "Second-100")], Some(lock));
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
        (&two, "LOCK files/a.txt", &[], Some(lock), 423),
        (&one, "LOCK files/a.txt", &[("if", shown.as_str())], None, 200),
        (&two, "UNLOCK files/a.txt", &[("lock-token", token.as_str())], None, 403),
        (&one, "UNLOCK files/a.txt", &[("lock-token", token.as_str())], None, 204),
        (&two, "PUT files/a.txt", &[], Some("y"), 204),
    ] {
        let found = ask(world, who, line, headers, body);
        assert_eq!(found.status, expected, "{line} {headers:?}: {}", found.text());
    }
    // A folder's lock is that of what is below, and ends by itself.
    assert_eq!(status(world, &one, "MKCOL files/d", &[], None), 201);
    assert_eq!(status(world, &one, "LOCK files/d", &[("depth", "infinity")], Some(lock)), 200);
    assert_eq!(status(world, &two, "PUT files/d/b.txt", &[], Some("x")), 423);
    world.sql("update ntier.dav_locks set expires_at = now() - interval '1 second'");
    assert_eq!(status(world, &two, "PUT files/d/b.txt", &[], Some("x")), 201);
}

fn who_asks_is_said_by_basic_credentials(world: &mut World) {
    use base64::Engine as _;
    let basic = |name: &str, password: &str| {
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}")))
    };
    bucket(world, "files", json!({}));
    world.sql("create policy all_of_it on storage.objects for all to authenticated using (true) with check (true)");
    let nobody = ask(world, &Who::Nobody, "PROPFIND files/", &[("depth", "0")], None);
    assert_eq!(
        (nobody.status, nobody.header("www-authenticate").is_some_and(|text| text.starts_with("Basic"))),
        (401, true)
    );
    let options = ask(world, &Who::Nobody, "OPTIONS files/", &[], None);
    assert_eq!((options.status, options.header("dav")), (200, Some("1, 2")));
    let made = json!({ "email": "ada@example.com", "password": "correct horse battery" });
    assert_eq!(world.auth(None, "POST /signup").json(&made).send().status, 200);
    for (name, password, expected) in [
        ("ada@example.com", "correct horse battery", 207),
        ("ada@example.com", "correct horse battery", 207),
        ("ada@example.com", "wrong", 401),
        ("anything", world.key("secret_key"), 207),
        ("anything", "sb_secret_wrong", 401),
    ] {
        let credentials = basic(name, password);
        let headers = [("authorization", credentials.as_str()), ("depth", "0")];
        let found = ask(world, &Who::Nobody, "PROPFIND files/", &headers, None);
        assert_eq!(found.status, expected, "{name}: {}", found.text());
    }
    // What is made by the user is the user's; and the password was not checked each time.
    let credentials = basic("ada@example.com", "correct horse battery");
    let put = ask(world, &Who::Nobody, "PUT files/a.txt", &[("authorization", &credentials)], Some("x"));
    assert_eq!(put.status, 201, "{}", put.text());
    let rows = world.sql("select o.owner_id = u.id::text as own, (select count(*) from auth.sessions) as sessions from storage.objects o, auth.users u");
    // By signing up: the file manager has none.
    assert_eq!(rows[0], json!({ "own": true, "sessions": 1 }));
}

fn security_f2_no_path_leads_out_of_a_bucket(world: &mut World) {
    bucket(world, "files", json!({}));
    bucket(world, "secret", json!({}));
    put(world, "secret/a.txt", "secret");
    put(world, "files/a.txt", "a");
    for path in ["files/..%2fsecret/a.txt", "files/%2e%2e%2fsecret%2fa.txt", "files/%00", "files//a.txt", "files/a%5cb"]
    {
        let found = ask(world, &Who::Service, &format!("GET {path}"), &[], None);
        assert!((400..500).contains(&found.status), "{path}: {}", found.status);
    }
    for destination in
        ["/storage/v1/dav/files/..%2fsecret/b", "/etc/passwd", "http://elsewhere/storage/v1/dav/files/b", "x"]
    {
        let headers = [("destination", destination)];
        let found = ask(world, &Who::Service, "COPY files/a.txt", &headers, None);
        assert!((400..600).contains(&found.status), "{destination}: {}", found.status);
    }
    assert_eq!(listed(world, &Who::Service, "secret/"), ["secret/", "secret/a.txt"]);
}
