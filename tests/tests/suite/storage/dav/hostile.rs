//! What nobody may do to others through a file manager's door.

use ntier_tests::{Who, World, on_both};
use serde_json::json;

use super::super::{POLICIES, bucket, put};
use super::{LOCK, OPEN, PATCH, ask, basic, count, listed, make_many, sign_up, status, to};

on_both!(
    security_policies_decide_what_a_file_manager_sees,
    security_what_may_be_done_in_part_is_not_done,
    security_a_password_that_is_none_any_more_opens_nothing,
    security_pages_of_other_sites_and_files_run_nowhere,
    security_f2_no_path_leads_out_of_a_bucket,
    security_what_costs_too_much_is_refused,
    security_locks_of_a_caller_have_an_end,
);

fn security_policies_decide_what_a_file_manager_sees(world: &mut World) {
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
    assert_eq!(listed(world, &Who::Anon, "private/"), ["private/"]);
    assert_eq!(listed(world, &two, ""), [""], "nobody has said that buckets are seen");
    for (line, body, expected) in [
        (format!("GET private/{id}/a.txt"), None, 404),
        (format!("PROPFIND private/{id}/a.txt"), None, 404),
        (format!("PROPFIND private/{id}/"), None, 404),
        (format!("PUT private/{id}/b.txt"), Some("x"), 409),
        (format!("MKCOL private/{id}/b"), None, 409),
        (format!("DELETE private/{id}/"), None, 404),
        (format!("DELETE private/{id}/a.txt"), None, 404),
        (format!("LOCK private/{id}/a.txt"), Some(LOCK), 409),
        ("MKCOL private/mine".into(), None, 403),
    ] {
        assert_eq!(status(world, &two, &line, &[("depth", "0")], body), expected, "{line}");
    }
    // What may be seen and not changed.
    for (line, body, expected) in [
        ("GET private/shared/s.txt", None, 200),
        ("PUT private/shared/s.txt", Some("x"), 403),
        ("PUT private/shared/t.txt", Some("x"), 403),
        ("MKCOL private/shared/t", None, 403),
        ("DELETE private/shared/s.txt", None, 403),
        ("LOCK private/shared/s.txt", Some(LOCK), 403),
        ("LOCK private/shared/new.txt", Some(LOCK), 403),
        ("LOCK private/shared", Some(LOCK), 403),
        ("LOCK private/", Some(LOCK), 403),
        ("PROPPATCH private/shared/s.txt", Some(PATCH), 403),
        ("PROPPATCH private/shared", Some(PATCH), 403),
    ] {
        assert_eq!(status(world, &one, line, &[], body), expected, "{line}");
    }
    let partly = ask(world, &one, "DELETE private/shared", &[], None);
    assert_eq!((partly.status, partly.text().contains("403 Forbidden")), (207, true), "{}", partly.text());
    let away = to(world, &format!("private/{id}/t.txt"));
    assert_eq!(status(world, &one, "MOVE private/shared/s.txt", &[("destination", &away)], None), 403);
    let away = to(world, &format!("private/{id}/shared"));
    assert_eq!(status(world, &one, "MOVE private/shared", &[("destination", &away)], None), 403);
    assert_eq!(status(world, &one, "COPY private/shared", &[("destination", &away)], None), 201);
    let away = to(world, "private/shared/stolen");
    assert_eq!(status(world, &one, &format!("COPY private/{id}/a.txt"), &[("destination", &away)], None), 403);
    // Somebody's properties and locks are told to those who see the file.
    assert_eq!(status(world, &one, &format!("PROPPATCH private/{id}/a.txt"), &[], Some(PATCH)), 207);
    assert_eq!(status(world, &one, &format!("LOCK private/{id}/a.txt"), &[], Some(LOCK)), 200);
    let seen = ask(world, &two, "PROPFIND private/", &[("depth", "1")], None).text();
    assert!(!seen.contains("urn:x") && !seen.contains("activelock") && !seen.contains(id), "{seen}");
}

fn security_what_may_be_done_in_part_is_not_done(world: &mut World) {
    bucket(world, "files", json!({}));
    // All may be seen, made and removed, but what is kept may not be changed, nor removed.
    world.sql(
        "create policy see on storage.objects for select to authenticated using (true);
         create policy make on storage.objects for insert to authenticated with check (true);
         create policy change on storage.objects for update to authenticated using (name not like '%kept%');
         create policy remove on storage.objects for delete to authenticated using (name not like '%kept%')",
    );
    let who = Who::user(1);
    make_many(world, "files", "folder", 20);
    put(world, "files/folder/kept", "kept");
    put(world, "files/target", "target");
    put(world, "files/kept", "kept");
    put(world, "files/other", "other");
    for (line, destination, expected) in [
        ("MOVE files/folder", "files/elsewhere", 403),
        ("MOVE files/folder", "files/target", 403),
        ("MOVE files/kept", "files/target", 403),
        ("MOVE files/other", "files/kept", 403),
        ("MOVE files/other", "files/folder", 403),
        ("MOVE files/other", "files/target", 204),
    ] {
        let destination = to(world, destination);
        let found = ask(world, &who, line, &[("destination", &destination)], None);
        assert_eq!(found.status, expected, "{line} to {destination}: {}", found.text());
        assert_eq!((count(world, "files", "folder"), count(world, "files", "elsewhere")), (21, 0), "{line}");
    }
    assert_eq!(ask(world, &who, "GET files/target", &[], None).text(), "other");
    assert_eq!(ask(world, &who, "GET files/kept", &[], None).text(), "kept");
    assert_eq!(status(world, &who, "GET files/other", &[], None), 404);
    // Names that would become too long.
    let long = "n".repeat(600);
    put(world, &format!("files/long/{long}"), "x");
    assert_eq!(status(world, &who, &format!("MKCOL files/{long}"), &[], None), 201);
    let destination = to(world, &format!("files/{long}/long"));
    assert_eq!(status(world, &who, "MOVE files/long", &[("destination", &destination)], None), 403);
    assert_eq!(count(world, "files", "long"), 1);
}

fn security_a_password_that_is_none_any_more_opens_nothing(world: &mut World) {
    bucket(world, "files", json!({}));
    world.sql(OPEN);
    let id = sign_up(world, "ada@example.com", "correct horse battery");
    let opens = |password: &str| {
        let headers = [("authorization", &*basic("ada@example.com", password)), ("depth", "0")];
        status(world, &Who::Nobody, "PROPFIND files/", &headers, None)
    };
    let admin = |line: &str, body: serde_json::Value| {
        let changed = world.auth(None, line).header("apikey", world.key("secret_key")).json(&body).send();
        assert_eq!(changed.status, 200, "{}", changed.text());
    };
    let user = format!("PUT /admin/users/{id}");
    assert_eq!((opens("correct horse battery"), opens("correct horse battery")), (207, 207));
    // What is remembered of a password ends with it, at once.
    admin(&user, json!({ "password": "another horse battery" }));
    assert_eq!((opens("correct horse battery"), opens("another horse battery")), (401, 207));
    admin(&user, json!({ "ban_duration": "1h" }));
    assert_eq!(opens("another horse battery"), 401);
    admin(&user, json!({ "ban_duration": "none" }));
    assert_eq!(opens("another horse battery"), 207);
    // Rights are those of now, too.
    world.sql(
        "create policy few on storage.objects as restrictive for insert to authenticated
        with check (auth.jwt()->'app_metadata'->>'may' = 'write')",
    );
    let write = || {
        let headers = [("authorization", &*basic("ada@example.com", "another horse battery"))];
        status(world, &Who::Nobody, "PUT files/a.txt", &headers, Some("x"))
    };
    assert_eq!(write(), 403);
    admin(&user, json!({ "app_metadata": { "may": "write" } }));
    assert_eq!(write(), 201);
    // That of signing up has ended with the first password.
    assert_eq!(world.sql("select count(*) from auth.sessions")[0]["count"], 0, "passwords begin no sessions");
    admin(&format!("DELETE /admin/users/{id}"), json!({}));
    assert_eq!(opens("another horse battery"), 401);
    // Whoever guesses is stopped as at sign-in.
    let guesses: Vec<u16> = (0..40).map(|number| opens(&format!("guess {number}"))).collect();
    assert_eq!((guesses[0], guesses[39]), (401, 429), "{guesses:?}");
}

fn security_pages_of_other_sites_and_files_run_nowhere(world: &mut World) {
    bucket(world, "files", json!({}));
    world.sql(OPEN);
    sign_up(world, "ada@example.com", "correct horse battery");
    let credentials = basic("ada@example.com", "correct horse battery");
    let asked = |line: &str, more: &[(&str, &str)], body: Option<&str>| {
        let headers = [&[("authorization", credentials.as_str())], more].concat();
        ask(world, &Who::Nobody, line, &headers, body)
    };
    let own = world.node.url.clone();
    assert_eq!(asked("PUT files/page.html", &[("content-type", "text/html")], Some("<script>")).status, 201);
    for (line, body) in [
        ("GET files/page.html", None),
        ("PUT files/page.html", Some("x")),
        ("DELETE files/page.html", None),
        ("PROPFIND files/", None),
        ("POST files/page.html", Some("x")),
    ] {
        for header in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "https://evil.example"),
            ("origin", "null"),
        ] {
            let refused = asked(line, &[header, ("depth", "0")], body);
            assert_eq!(refused.status, 403, "{line} {header:?}: {}", refused.text());
            assert!(refused.header("www-authenticate").is_none(), "nobody is asked for a password then");
        }
    }
    for header in [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "none"), ("origin", own.as_str())] {
        assert_eq!(asked("GET files/page.html", &[header], None).status, 200, "{header:?}");
    }
    // A browser that asks whether it may is not told that credentials may come.
    let preflight = world.files(&Who::Nobody, "OPTIONS /dav/files/page.html").header("origin", "https://evil.example");
    let preflight = preflight.header("access-control-request-method", "PUT").send();
    let found = asked("GET files/page.html", &[], None);
    for answer in [&preflight, &found] {
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
    assert!(found.header("content-security-policy").is_some_and(|policy| policy.contains("sandbox")));
    assert_eq!(found.header("x-content-type-options"), Some("nosniff"));
    let missing = asked("GET files/%3Cscript%3E", &[], None);
    assert_eq!((missing.status, missing.header("x-content-type-options")), (404, Some("nosniff")));
    // S5: a secret key in a browser is no secret any more.
    let key = basic("any", world.key("secret_key"));
    let headers = [("authorization", key.as_str()), ("user-agent", "Mozilla/5.0"), ("depth", "0")];
    assert_eq!(status(world, &Who::Nobody, "PROPFIND files/", &headers, None), 401);
}

fn security_f2_no_path_leads_out_of_a_bucket(world: &mut World) {
    bucket(world, "files", json!({}));
    bucket(world, "secret", json!({}));
    put(world, "secret/a.txt", "secret");
    put(world, "files/a.txt", "a");
    for path in [
        "files/..%2fsecret/a.txt",
        "files/%2e%2e%2fsecret%2fa.txt",
        "files/%2e%2e/secret/a.txt",
        "files/../secret/a.txt",
        "files/./a.txt",
        "files/%00",
        "files//a.txt",
        "files/a%5cb",
        "files%2fa.txt",
        "%2e%2e/a.txt",
    ] {
        for method in ["GET", "PUT", "DELETE", "MKCOL", "PROPFIND"] {
            // As it is: clients tidy up what they ask for.
            let answer = raw(world, &format!("{method} /storage/v1/dav/{path}"));
            assert!((400..500).contains(&answer), "{method} {path}: {answer}");
        }
    }
    let url = &world.node.url;
    for destination in [
        "/storage/v1/dav/files/..%2fsecret/b",
        "/storage/v1/dav/files/%2e%2e/secret/b",
        "/storage/v1/dav/files/../secret/b",
        "/storage/v1/dav/files//b",
        "/storage/v1/dav/files/b%00",
        "/storage/v1/dav/files/.emptyFolderPlaceholder",
        "/storage/v1/dav/files/",
        "/storage/v1/dav/",
        "/storage/v1/object/files/b",
        "/etc/passwd",
        "http://elsewhere/storage/v1/dav/files/b",
        &format!("{url}@elsewhere/storage/v1/dav/files/b"),
        "x",
        "",
        "http://",
    ] {
        for line in ["COPY files/a.txt", "MOVE files/a.txt"] {
            let found = ask(world, &Who::Service, line, &[("destination", destination)], None);
            assert!((400..503).contains(&found.status), "{line} {destination}: {}", found.status);
        }
    }
    assert_eq!(status(world, &Who::Service, "COPY files/a.txt", &[], None), 400);
    assert_eq!(listed(world, &Who::Service, "secret/"), ["secret/", "secret/a.txt"]);
    assert_eq!(listed(world, &Who::Service, "files/"), ["files/", "files/a.txt"]);
}

/// The status of a request line that is sent as it is, as the service.
fn raw(world: &World, line: &str) -> u16 {
    use std::io::{Read, Write};
    let address = world.node.url.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let key = world.key("secret_key");
    let head = format!(
        "{line} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{line}: {answer}"))
}

fn security_what_costs_too_much_is_refused(world: &mut World) {
    bucket(world, "files", json!({}));
    make_many(world, "files", "many", 10_000);
    make_many(world, "files", "some", 400);
    make_many(world, "files", "too", 50_001);
    let propfind = |path: &str, depth: &str, body: Option<&str>| {
        ask(world, &Who::Service, &format!("PROPFIND {path}"), &[("depth", depth)], body)
    };
    let bomb =
        "<!DOCTYPE a [<!ENTITY x 'xxxx'><!ENTITY y '&x;&x;&x;'>]><propfind xmlns='DAV:'><prop>&y;</prop></propfind>";
    let outside = "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><propfind xmlns='DAV:'><prop><a>&x;</a></prop></propfind>";
    let deep = format!("<propfind xmlns='DAV:'>{}{}</propfind>", "<a>".repeat(5000), "</a>".repeat(5000));
    let wide = format!("<propfind xmlns='DAV:'><prop>{}</prop></propfind>", "<a/>".repeat(5000));
    let spaces: Vec<String> = (0..2000).map(|number| format!("xmlns:n{number}='urn:{number}'")).collect();
    let spaces = format!("<propfind xmlns='DAV:' {}><allprop/></propfind>", spaces.join(" "));
    let large = " ".repeat(2 << 20);
    for (body, expected) in
        [(bomb, 400), (outside, 400), (&deep, 400), (&wide, 400), (&spaces, 400), (&large, 413), ("\u{1}", 400)]
    {
        for line in ["PROPFIND files/", "PROPPATCH files/many/1", "LOCK files/many/1"] {
            let found = ask(world, &Who::Service, line, &[("depth", "0")], Some(body));
            assert_eq!(found.status, expected, "{line}: {body:.200}");
        }
    }
    let infinite = propfind("files/", "infinity", None);
    assert_eq!((infinite.status, infinite.text().contains("propfind-finite-depth")), (403, true));
    // A folder has so many entries and no more; long names are not repeated for each of them without end.
    assert_eq!(listed(world, &Who::Service, "files/many").len(), 10_001);
    make_many(world, "files", "many/more", 1);
    assert_eq!(propfind("files/many", "1", None).status, 507);
    let long = format!("<propfind xmlns='DAV:'><prop><{} xmlns='urn:x'/></prop></propfind>", "a".repeat(60_000));
    assert_eq!(propfind("files/some", "1", Some(&long)).status, 507);
    assert_eq!(propfind("files/some", "0", Some(&long)).status, 207);
    // What is more than is moved at once stays where it is.
    let destination = to(world, "files/elsewhere");
    let moved = ask(world, &Who::Service, "MOVE files/too", &[("destination", &destination)], None);
    assert_eq!((moved.status, count(world, "files", "too")), (507, 50_001), "{}", moved.text());
}

fn security_locks_of_a_caller_have_an_end(world: &mut World) {
    bucket(world, "files", json!({}));
    world.sql(OPEN);
    let (one, two) = (Who::user(1), Who::user(2));
    let Who::User(id) = &one else { unreachable!() };
    put(world, "files/a.txt", "a");
    world.sql(&format!(
        "insert into ntier.dav_locks (token, bucket_id, name, is_deep, is_shared, owner, role, sub, expires_at) \
         select gen_random_uuid(), 'files', 'd/' || (i % 10), false, true, 'x', 'authenticated', '{id}', now() + interval '1 hour' \
         from generate_series(1, 1000) i"
    ));
    assert_eq!(status(world, &one, "LOCK files/a.txt", &[], Some(LOCK)), 507);
    assert_eq!(status(world, &two, "LOCK files/a.txt", &[], Some(LOCK)), 200);
    // However many share a lock, a listing tells few of them.
    put(world, "files/d/1", "x");
    let told = ask(world, &two, "PROPFIND files/d", &[("depth", "1")], None).text();
    assert_eq!(told.matches("<D:activelock>").count(), 10);
    world.sql("update ntier.dav_locks set expires_at = now() where name <> 'a.txt'");
    assert_eq!(status(world, &one, "LOCK files/b.txt", &[], Some(LOCK)), 201);
}
