//! Bad input over the wire: malformed, huge, slow. Each gets a clear error or a closed connection, and the next client is served.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ntier_tests::world::agent;
use ntier_tests::{Who, World, on_both};
use serde_json::json;

on_both!(
    malformed_requests,
    malformed_queries,
    deep_and_long_queries,
    costly_queries,
    large_bodies,
    large_answers,
    injection
);

/// Sends bytes as they are; gives what comes back until the other side closes.
fn raw(world: &World, bytes: &[u8]) -> String {
    let address = world.node.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // The other side may close before it has read everything.
    let _ = stream.write_all(bytes);
    // A body that is too short ends with the client; everything else has to be seen through as it is.
    if bytes.windows(19).any(|window| window == b"content-length: 100") {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// On a connection of its own: one that waited as long as a malformed request may be about to be closed.
fn serves(world: &World) {
    let answer = world.ask(&Who::Anon, "GET /films?select=id&id=eq.1").through(&agent()).unwrap();
    assert_eq!(answer.json(), json!([{"id": 1}]));
}

fn malformed_requests(world: &mut World) {
    let key = world.key("publishable_key").to_owned();
    let many_headers = (0..500).map(|n| format!("x-{n}: 1\r\n")).collect::<Vec<_>>().concat();
    for (bytes, expected) in [
        (b"nonsense\r\n\r\n".to_vec(), "HTTP/1.1 400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), ""),
        (b"GET / HTTP/1.1\r\n".to_vec(), ""),
        (format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(100_000)).into_bytes(), "HTTP/1.1 4"),
        (format!("GET / HTTP/1.1\r\nhost: x\r\n{many_headers}\r\n").into_bytes(), "HTTP/1.1 431"),
        (format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "b".repeat(100_000)).into_bytes(), "HTTP/1.1 431"),
        (
            format!("POST /rest/v1/films HTTP/1.1\r\nhost: x\r\napikey: {key}\r\ncontent-length: 100\r\n\r\n{{}}").into_bytes(),
            "HTTP/1.1 400",
        ),
        (
            format!("POST /rest/v1/films HTTP/1.1\r\nhost: x\r\napikey: {key}\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
                .into_bytes(),
            "HTTP/1.1 400",
        ),
        (
            format!(
                "POST /rest/v1/films HTTP/1.1\r\nhost: x\r\napikey: {key}\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"
            )
            .into_bytes(),
            "HTTP/1.1 400",
        ),
        (format!("TRACE /rest/v1/films HTTP/1.1\r\nhost: x\r\napikey: {key}\r\n\r\n").into_bytes(), "HTTP/1.1 405"),
        (
            format!("GET /rest/v1/films?select=details->>country&id=eq.1 HTTP/1.0\r\nhost: x\r\napikey: {key}\r\n\r\n")
                .into_bytes(),
            "HTTP/1.0 200",
        ),
        (
            format!("GET /rest/v1/films?title=eq.É&details=cs.{{\"a\":1}} HTTP/1.0\r\nhost: x\r\napikey: {key}\r\n\r\n")
                .into_bytes(),
            "HTTP/1.0 200",
        ),
        (format!("GET /rest/v1/%00 HTTP/1.1\r\nhost: x\r\napikey: {key}\r\n\r\n").into_bytes(), "HTTP/1.1 4"),
        (format!("GET /rest/v1/%ff%fe HTTP/1.1\r\nhost: x\r\napikey: {key}\r\n\r\n").into_bytes(), "HTTP/1.1 4"),
    ] {
        let answer = raw(world, &bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        assert!(answer.starts_with(expected), "{shown:?}: {answer:?}");
        serves(world);
    }
}

fn malformed_queries(world: &mut World) {
    for path in [
        "/films?select=(",
        "/films?select=id,,title",
        "/films?select=a(b(c",
        "/films?select=id::",
        "/films?select=id->",
        "/films?select=*,*(*)",
        "/films?id=",
        "/films?id=eq",
        "/films?id=in.(1,2",
        "/films?id=in.1",
        "/films?or=(",
        "/films?or=()",
        "/films?and=(id.eq.1,or(",
        "/films?order=id.sideways",
        "/films?order=",
        "/films?columns=%22",
        "/films?title=eq.%00",
        "/films?title=eq.%ff",
        "/films?tags=cs.{",
        "/films?details=cs.{",
        "/films?search=fts(nonsense).x",
        "/films?year=is.maybe",
        "/films?%00=eq.1",
        "/films?title=match.(",
        "/rpc/",
        "/rpc/add?a=1&a=2",
        "/films/1",
        "//films",
        "/films?select=directors(name)&directors.nope=eq.1",
        "/films?select=id&offset=99999999999999999999",
        "/films?select=id&limit=-1",
    ] {
        let answer = world.get(path);
        assert!((200..500).contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
        if answer.status >= 400 {
            let body = answer.json();
            assert!(body["message"].is_string(), "{path}: {body}");
        }
    }
    for (name, value) in [
        ("range", "a-b"),
        ("range", "5-1"),
        ("range", "-"),
        ("range", "99999999999999999999-"),
        ("prefer", "timezone=Nowhere/Else"),
        ("prefer", "max-affected=x, handling=strict"),
        ("accept", "///"),
        ("accept", "application/vnd.pgrst.plan+json; for="),
        ("accept-profile", "\"; drop schema public cascade; --"),
        ("authorization", "Bearer"),
        ("authorization", "Basic eDp5"),
        ("content-type", ";;;"),
    ] {
        let answer = world.ask(&Who::Anon, "GET /films?select=id").header(name, value).send();
        assert!((200..500).contains(&answer.status), "{name}: {value}: {} {}", answer.status, answer.text());
    }
    serves(world);
}

fn costly_queries(world: &mut World) {
    for (path, things) in [
        (format!("/films?select={}id{}", "directors(films(".repeat(6), "))".repeat(6)), "levels of embedding"),
        (
            format!("/films?select={}", (0..51).map(|n| format!("a{n}:actors(id)")).collect::<Vec<_>>().join(",")),
            "embedded relations",
        ),
        (format!("/films?{}", vec!["id=eq.1"; 201].join("&")), "filters"),
        (format!("/films?id=in.({})", vec!["1"; 5001].join(",")), "values in lists"),
    ] {
        let answer = world.get(&path);
        assert_eq!((answer.status, answer.code().as_str()), (400, "NTIER108"), "{}", answer.text());
        assert_eq!(answer.json()["message"], json!(format!("The request has too many {things}")));
        let change = world.ask(&Who::user(1), &format!("DELETE {path}")).send();
        assert_eq!(change.code(), "NTIER108", "{}", change.text());
    }
    serves(world);
}

fn deep_and_long_queries(world: &mut World) {
    // Headers and the request line share 16 kB; what fits must not overflow a stack.
    for path in [
        format!("/films?select={}id{}", "directors(".repeat(1000), ")".repeat(1000)),
        format!("/films?or={}id.eq.1{}", "(and".repeat(1500), ")".repeat(1500)),
        format!("/films?select=details{}", "->a".repeat(3000)),
        format!("/films?id=in.({})", vec!["1"; 5000].join(",")),
        format!("/films?{}", vec!["id=eq.1"; 1500].join("&")),
        format!("/films?select={}", vec!["id"; 4000].join(",")),
    ] {
        let answer = world.get(&path);
        assert!((200..510).contains(&answer.status), "{}: {}", &path[..60], answer.status);
        serves(world);
    }
    // What is nested deeper than PostgreSQL's stack may bear does not come to it.
    let film = |depth: usize| {
        let deep = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let body = format!(r#"{{"title": "deep", "year": 2000, "details": {deep}}}"#);
        world.ask(&Who::user(1), "POST /films").body("application/json", body).send()
    };
    assert_eq!(film(999).status, 201);
    for depth in [1000, 10_000, 200_000] {
        let answer = film(depth);
        assert_eq!((answer.status, answer.code().as_str()), (400, "PGRST102"), "{}", answer.text());
        serves(world);
    }
    let answer = world.get(&format!("/films?title=match.{}a{}", "(".repeat(3000), ")".repeat(3000)));
    assert_eq!((answer.status, answer.code().as_str()), (400, "PGRST100"), "{}", answer.text());
    serves(world);
}

fn large_bodies(world: &mut World) {
    let of = |size: usize| format!(r#"{{"title": "{}", "year": 2000}}"#, "x".repeat(size));
    let fits = world.ask(&Who::user(1), "POST /films").body("application/json", of(8 << 20)).send();
    // tsvector has a limit of its own; what matters is an answer.
    assert!(fits.status == 201 || fits.status == 500 || fits.status == 400, "{} {}", fits.status, fits.text());
    let sent = world.ask(&Who::user(1), "POST /films").body("application/json", of(11 << 20)).try_send();
    if let Ok(answer) = sent {
        assert_eq!(answer.status, 413, "{}", answer.text());
        assert!(answer.json()["message"].is_string());
    }
    serves(world);
    let rows: Vec<_> = (0..5000).map(|n| json!({"name": format!("actor {n}")})).collect();
    let many = world.ask(&Who::user(1), "POST /actors").json(&json!(rows)).send();
    assert_eq!(many.status, 201, "{}", many.text());
    assert_eq!(world.get("/actors?select=id").json().as_array().unwrap().len(), 1000, "max_rows");
}

fn large_answers(world: &mut World) {
    let answer = world.get("/rpc/big?size=20000000");
    assert_eq!((answer.status, answer.body.len()), (200, 20_000_002));
    serves(world);
}

/// Whatever stands in names and values stays a name or a value.
fn injection(world: &mut World) {
    let poison = "x'; drop table films; --\" \\ $1 %s";
    let encoded = "x%27%3B%20drop%20table%20films%3B%20--%22%20%5C%20%241%20%25s";
    for path in [
        format!("/films?title=eq.{encoded}"),
        format!("/films?{encoded}=eq.1"),
        format!("/films?select={encoded}"),
        format!("/films?select=a:title::{encoded}"),
        format!("/films?order={encoded}"),
        format!("/{encoded}"),
        format!("/rpc/{encoded}"),
        format!("/films?select=details->>{encoded}"),
        format!("/films?title=in.({encoded})"),
        format!("/films?search=fts({encoded}).x"),
        format!("/films?select=title,x:{encoded}(name)"),
    ] {
        let answer = world.get(&path);
        assert!(answer.status < 500, "{path}: {} {}", answer.status, answer.text());
        serves(world);
    }
    let kept = world
        .ask(&Who::user(1), "POST /actors?select=name")
        .prefer("return=representation")
        .json(&json!({ "name": poison }))
        .send();
    assert_eq!(kept.json(), json!([{ "name": poison }]));
    let bearer = format!("Bearer {}", world.token(&json!({ "role": "anon", "sub": poison, "x": poison })));
    let told = world.ask(&Who::Anon, "GET /rpc/who").header("authorization", &bearer).send().json();
    assert_eq!(told["claims"]["sub"], json!(poison));
}
