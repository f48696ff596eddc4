//! Bad input for files: paths that lead elsewhere, lengths that lie, bodies that do not end.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use ntier_tests::{Who, World, on_both};
use serde_json::json;

use super::{bucket, put, refusal};

on_both!(
    security_f2_paths_lead_nowhere_else,
    security_f3_nothing_runs_in_our_origin,
    bodies_that_break_off_leave_nothing,
    who_waits_to_be_asked_for_a_body_is_asked_or_let_go,
);

/// Sends a request as it is; gives what comes back. One whose body has no end is broken off.
fn raw(world: &World, bytes: &[u8], is_whole: bool) -> String {
    let mut stream = TcpStream::connect(world.node.url.trim_start_matches("http://")).unwrap();
    stream.write_all(bytes).unwrap();
    if !is_whole {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn security_f2_paths_lead_nowhere_else(world: &mut World) {
    bucket(world, "files", json!({ "public": true }));
    let key = world.key("secret_key").to_owned();
    for path in [
        "files/../secret",
        "files/a/../../b",
        "files/%2e%2e/b",
        "files/..%2fb",
        "files/a%2fb",
        "files/%00",
        "files/a%00b",
        "files//etc/passwd",
        "files/a//b",
        "files/./a",
        "files/a%5cb",
        "files/%ff",
        "files/%e2%80%ae",
        "../files/a",
        "%2e%2e/a",
    ] {
        for method in ["POST", "GET"] {
            let request = format!(
                "{method} /storage/v1/object/{path} HTTP/1.1\r\nhost: x\r\napikey: {key}\r\nauthorization: Bearer {key}\r\n\
                 content-type: text/plain\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx"
            );
            let answer = raw(world, request.as_bytes(), true);
            assert!(answer.starts_with("HTTP/1.1 4"), "{method} {path}: {answer}");
        }
    }
    let long = format!("files/{}", "a/".repeat(600));
    let refused = world.files(&Who::Service, &format!("POST /object/{long}b")).body("text/plain", "x").send();
    assert_eq!(refusal(&refused).0, "400");
    assert_eq!(world.sql("select count(*) as count from storage.objects")[0]["count"], 0);
    // A name that is long for a file system is none for us.
    put(world, &format!("files/{}", "é".repeat(400)), "long");
}

fn security_f3_nothing_runs_in_our_origin(world: &mut World) {
    bucket(world, "files", json!({ "public": true }));
    for (name, media_type, sandboxed) in [
        ("a.html", "text/html", true),
        ("a.svg", "image/svg+xml", true),
        ("a.js", "text/javascript", true),
        ("a.png", "image/png", false),
    ] {
        let post = world.files(&Who::Service, &format!("POST /object/files/{name}"));
        assert_eq!(post.body(media_type, "<script>alert(1)</script>").send().status, 200);
        let got = world.files(&Who::Nobody, &format!("GET /object/public/files/{name}")).send();
        let policy = got.header("content-security-policy").unwrap_or_default();
        assert_eq!(policy.contains("sandbox"), sandboxed, "{name}: {policy}");
        assert_eq!(
            (got.header("content-type"), got.header("x-content-type-options")),
            (Some(media_type), Some("nosniff"))
        );
    }
    // What a caller says stands in headers only where it can.
    let post = world.files(&Who::Service, "POST /object/files/odd").header("cache-control", "a b;c");
    assert_eq!(post.body("text/plain", "x").send().status, 200);
    let odd = world.files(&Who::Nobody, "GET /object/public/files/odd?download=a%0d%0ax: y").send();
    assert_eq!(
        odd.header("content-disposition"),
        Some("attachment; filename=a%0D%0Ax%3A%20y; filename*=UTF-8''a%0D%0Ax%3A%20y")
    );
}

fn bodies_that_break_off_leave_nothing(world: &mut World) {
    bucket(world, "files", json!({}));
    let key = world.key("secret_key").to_owned();
    let head = |more: &str| {
        format!(
            "POST /storage/v1/object/files/a HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\napikey: {key}\r\n\
             content-type: text/plain\r\nconnection: close\r\n{more}\r\n"
        )
    };
    for (more, body) in [
        ("content-length: 100\r\n", "short"),
        ("transfer-encoding: chunked\r\n", "5\r\nhello\r\n"),
        ("transfer-encoding: chunked\r\n", "zz\r\n"),
    ] {
        let answer = raw(world, [head(more).as_bytes(), body.as_bytes()].concat().as_slice(), false);
        assert!(!answer.starts_with("HTTP/1.1 2"), "{more}: {answer}");
    }
    let missing = world.files(&Who::Service, "GET /object/files/a").send();
    assert_eq!(refusal(&missing).0, "404");
    // Too much is refused before it has come, and the refusal is read.
    let answer = raw(world, head("content-length: 99999999999\r\n").as_bytes(), true);
    assert!(answer.contains("413"), "{answer}");
    assert_eq!(super::blobs(world), 0);
    put(world, "files/a", "whole");
}

/// `Expect: 100-continue`, as S3's clients send it: whoever is refused sends no body, so what comes next is not a part of one.
fn who_waits_to_be_asked_for_a_body_is_asked_or_let_go(world: &mut World) {
    bucket(world, "files", json!({}));
    let key = world.key("secret_key").to_owned();
    let head = |path: &str| {
        format!(
            "PUT /storage/v1/object/{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\napikey: {key}\r\n\
             content-type: text/plain\r\ncontent-length: 5\r\nexpect: 100-continue\r\n"
        )
    };
    let refused = raw(world, format!("{}\r\n", head("none/a")).as_bytes(), true);
    assert!(refused.starts_with("HTTP/1.1 4") && refused.contains("connection: close"), "{refused}");
    let taken = raw(world, format!("{}connection: close\r\n\r\nhello", head("files/a")).as_bytes(), true);
    assert!(taken.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200"), "{taken}");
    assert_eq!(world.files(&Who::Service, "GET /object/files/a").send().text(), "hello");
    let empty = head("files/empty").replace("length: 5", "length: 0");
    let taken = raw(world, format!("{empty}\r\n").as_bytes(), true);
    assert!(taken.starts_with("HTTP/1.1 200") && taken.contains("connection: close"), "{taken}");
}
