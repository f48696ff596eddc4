//! `ntier rest`: the data API alone, under PostgREST's settings, on a database as it is.

use ntier_security::token::{SigningKey, sign};
use ntier_tests::node::{Node, send};
use ntier_tests::{Backend, World, on_both, until, world};
use rustix::process::Signal;
use serde_json::{Value, json};

on_both!(
    rest_serves_at_the_root,
    rest_takes_tokens_as_postgrest_does,
    rest_reads_its_settings_from_the_database,
    rest_answers_pages_and_operators,
    rest_runs_at_an_isolation_level,
);

const SECRET: &str = "a secret that only this test knows, and long enough";

/// A database with a role for the connection, two to become, and a table.
struct Place<'a> {
    world: &'a World,
}

impl<'a> Place<'a> {
    fn new(world: &'a World) -> Self {
        let place = Self { world };
        let suffix = place.suffix();
        place.owner(&format!(
            "create role connector_{suffix} login noinherit password 'x'; create role web_{suffix}; \
             create role clerk_{suffix}; grant web_{suffix}, clerk_{suffix} to connector_{suffix}; \
             create schema shop; grant usage on schema shop to connector_{suffix}, web_{suffix}, clerk_{suffix}; \
             create table shop.goods (id int primary key, name text); \
             insert into shop.goods values (1, 'bread'), (2, 'tea'); \
             grant select on shop.goods to web_{suffix}, clerk_{suffix}; grant insert on shop.goods to clerk_{suffix}; \
             create function shop.level() returns text language sql set default_transaction_isolation = 'serializable' \
             as $$ select current_setting('transaction_isolation') $$; \
             create function shop.configure() returns void language sql as \
             $$ select set_config('pgrst.db_max_rows', '1', true) $$;"
        ));
        place
    }

    /// Roles belong to the whole server, which other tests use too.
    fn suffix(&self) -> String {
        match &self.world.database_url {
            Some(url) => url.split("@/").nth(1).unwrap().split('?').next().unwrap().to_owned(),
            None => "here".into(),
        }
    }

    fn owner(&self, sql: &str) {
        let flag = match &self.world.database_url {
            Some(url) => ["--database-url".to_owned(), url.clone()],
            None => ["--data".to_owned(), self.world.data().to_string_lossy().into_owned()],
        };
        let (code, _, err) = ntier_tests::node::run(&["sql", &flag[0], &flag[1], sql]);
        assert_eq!(code, Some(0), "{err}");
    }

    /// Says that something changed: on a server to the database, on the embedded one, which tells its own node only, by a signal.
    fn tell(&self, node: &Node) {
        match self.world.backend {
            Backend::Server => self.owner("notify pgrst, 'reload config'"),
            Backend::Embedded => send(node.process(), Signal::USR2),
        }
    }

    fn start(&self, more: &[(&str, &str)]) -> Node {
        let suffix = self.suffix();
        let (role, connector) = (format!("web_{suffix}"), url(self.world, &format!("connector_{suffix}")));
        let usual = [
            ("PGRST_DB_URI", connector.as_str()),
            ("PGRST_DB_SCHEMAS", "shop"),
            ("PGRST_DB_ANON_ROLE", role.as_str()),
            ("PGRST_JWT_SECRET", SECRET),
        ];
        let all: Vec<_> = usual.into_iter().chain(more.iter().copied()).collect();
        Node::try_start_rest(None, &all).unwrap_or_else(|said| panic!("it ended: {said}"))
    }

    fn token(claims: &Value) -> String {
        format!("Bearer {}", sign(&claims.to_string(), &SigningKey::Hmac(SECRET.as_bytes())).unwrap())
    }

    fn clerk(&self) -> String {
        Self::token(&json!({ "role": format!("clerk_{}", self.suffix()) }))
    }
}

fn url(world: &World, user: &str) -> String {
    match &world.database_url {
        Some(url) => url.replacen("postgres@", &format!("{user}:x@"), 1),
        None => format!("postgres://{user}:x@/postgres?host={}", world.data().display()),
    }
}

struct Said {
    status: u16,
    body: Value,
    headers: http::HeaderMap,
}

fn get(node: &Node, path: &str, headers: &[(&str, &str)]) -> Said {
    let mut request = world::agent().get(format!("{}{path}", node.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = request.call().unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Said { status: answer.status().as_u16(), body, headers: answer.headers().clone() }
}

fn rest_serves_at_the_root(world: &mut World) {
    let place = Place::new(world);
    let node = place.start(&[("PGRST_SERVER_TIMING_ENABLED", "true"), ("PGRST_SERVER_TRACE_HEADER", "X-Request-Id")]);
    let said = get(&node, "/goods?id=eq.2", &[("x-request-id", "r7")]);
    assert_eq!((said.status, said.body), (200, json!([{ "id": 2, "name": "tea" }])));
    assert_eq!(said.headers["x-request-id"], "r7");
    let timing = said.headers["server-timing"].to_str().unwrap();
    assert!(timing.starts_with("jwt;dur=") && timing.contains(", transaction;dur="), "{timing}");
    assert_eq!(get(&node, "/rest/v1/goods", &[]).status, 404);
    let description = get(&node, "/", &[]).body;
    assert!(description["paths"]["/goods"].is_object());
    let written = world::agent()
        .post(format!("{}/goods", node.url))
        .header("authorization", place.clerk())
        .send(r#"{"id":3,"name":"salt"}"#)
        .unwrap();
    assert_eq!(written.status().as_u16(), 201);
    place.tell(&node);
    node.says("schema reloaded");
    send(node.process(), Signal::USR1);
    node.says("schema reloaded");
}

fn rest_takes_tokens_as_postgrest_does(world: &mut World) {
    let place = Place::new(world);
    let node = place.start(&[("PGRST_JWT_AUD", "shop")]);
    let ask = |token: &str| get(&node, "/goods?select=id&limit=1", &[("authorization", token)]);
    assert_eq!(ask(&place.clerk()).status, 200);
    let cases = [
        ("Bearer ".to_owned(), 401, "PGRST301", "Empty JWT is sent in Authorization header"),
        ("Bearer a.b".to_owned(), 401, "PGRST301", "Expected 3 parts in JWT; got 2"),
        (Place::token(&json!({ "exp": 1 })), 401, "PGRST303", "JWT expired"),
        (Place::token(&json!({ "aud": "other" })), 401, "PGRST303", "JWT not in audience"),
    ];
    for (token, status, code, message) in cases {
        let said = ask(&token);
        assert_eq!(said.status, status);
        assert_eq!((&said.body["code"], &said.body["message"]), (&json!(code), &json!(message)));
        let challenge = said.headers["www-authenticate"].to_str().unwrap();
        assert_eq!(challenge, format!("Bearer error=\"invalid_token\", error_description=\"{message}\""));
    }
    let unknown = ask(&Place::token(&json!({ "role": "nobody_at_all" })));
    assert_eq!((unknown.status, &unknown.body["code"]), (401, &json!("22023")));
    let nobody = place.start(&[("PGRST_DB_ANON_ROLE", ""), ("PGRST_CLIENT_ERROR_VERBOSITY", "minimal")]);
    let said = get(&nobody, "/goods", &[]);
    let expected = json!({ "code": "PGRST302", "message": "Anonymous access is disabled" });
    assert_eq!((said.status, said.body), (401, expected));
}

fn rest_reads_its_settings_from_the_database(world: &mut World) {
    let place = Place::new(world);
    let node = place.start(&[("PGRST_DB_PRE_CONFIG", "shop.configure")]);
    assert_eq!(get(&node, "/goods", &[]).body.as_array().unwrap().len(), 1);
    let suffix = place.suffix();
    place.owner(&format!("alter role connector_{suffix} set pgrst.db_max_rows = '2'"));
    place.tell(&node);
    until("the settings are read again", || get(&node, "/goods", &[]).body.as_array().unwrap().len() == 2);
    place.owner(&format!("alter role connector_{suffix} set pgrst.db_tx_end = 'never'"));
    place.tell(&node);
    let line = node.says("schema not reloaded");
    assert!(line.contains("pgrst.db_tx_end in the database: db-tx-end is none of"), "{line}");
    assert_eq!(get(&node, "/goods", &[]).body.as_array().unwrap().len(), 2, "what was in force stays so");
}

fn rest_answers_pages_and_operators(world: &mut World) {
    let place = Place::new(world);
    let folder = world.scratch();
    let (socket, admin) = (folder.join("api.sock"), folder.join("admin.sock"));
    let node = place.start(&[
        ("PGRST_SERVER_CORS_ALLOWED_ORIGINS", "http://one.example, http://two.example"),
        ("PGRST_ADMIN_SERVER_UNIX_SOCKET", admin.to_str().unwrap()),
    ]);
    let said = get(&node, "/goods", &[("origin", "http://two.example")]);
    assert_eq!(said.headers["access-control-allow-origin"], "http://two.example");
    assert_eq!(said.headers["access-control-allow-credentials"], "true");
    let other = get(&node, "/goods", &[("origin", "http://three.example")]);
    assert!(!other.headers.contains_key("access-control-allow-origin"));
    let config = unix_get(&admin, "/config");
    assert!(config.contains("db-schemas = \"shop\"") && !config.contains(SECRET), "{config}");
    assert!(unix_get(&admin, "/ready").starts_with("HTTP/1.1 200"));
    assert!(unix_get(&admin, "/live").starts_with("HTTP/1.1 200"));
    let _other = place.start(&[("PGRST_SERVER_UNIX_SOCKET", socket.to_str().unwrap())]);
    assert!(unix_get(&socket, "/goods").contains("bread"));
}

fn unix_get(socket: &std::path::Path, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn rest_runs_at_an_isolation_level(world: &mut World) {
    let place = Place::new(world);
    let suffix = place.suffix();
    place.owner(&format!(
        "alter role clerk_{suffix} set default_transaction_isolation = 'repeatable read'; \
         create view shop.level_here as select current_setting('transaction_isolation') as level; \
         grant select on shop.level_here to web_{suffix}, clerk_{suffix}"
    ));
    for prepared in ["true", "false"] {
        let node = place.start(&[("PGRST_DB_PREPARED_STATEMENTS", prepared)]);
        for _ in 0..3 {
            assert_eq!(get(&node, "/rpc/level", &[]).body, "serializable");
            let here = |headers: &[(&str, &str)]| get(&node, "/level_here", headers).body[0]["level"].clone();
            assert_eq!(here(&[]), "read committed");
            assert_eq!(here(&[("authorization", &place.clerk())]), "repeatable read");
        }
    }
}

#[test]
fn faults_of_the_settings_are_told_together() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postgrest.conf");
    std::fs::write(&file, "db-tx-end = \"never\"\njwt-secret = \"short\"\n").unwrap();
    let said = Node::try_start_rest(Some(&file), &[("PGRST_LOG_LEVEL", "loud")]).unwrap_err();
    let expected = ["postgrest.conf:1: db-tx-end", "postgrest.conf:2: jwt-secret", "PGRST_LOG_LEVEL: log-level"];
    for part in expected {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_database_that_is_not_there_yet_is_waited_for() {
    let postgres = ntier_tests::postgres::server();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Whoever comes first finds nobody; later ones are let through.
    let target = ("127.0.0.1", postgres.port);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            if number > 0 {
                let server = std::net::TcpStream::connect(target).unwrap();
                for (from, to) in [(&stream, &server), (&server, &stream)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                }
            }
        }
    });
    let url =
        format!("host={} port={} user=postgres password='for tests' sslmode=disable", address.ip(), address.port());
    let node = Node::try_start_rest(None, &[("PGRST_DB_URI", &url), ("PGRST_DB_ANON_ROLE", "postgres")]).unwrap();
    assert_eq!(get(&node, "/", &[]).status, 200);
}

#[test]
fn rest_creates_nothing() {
    let world = World::start(Backend::Server);
    let place = Place::new(&world);
    let count = "select count(*) from pg_class";
    let url = world.database_url.as_ref().unwrap();
    let before = ntier_tests::node::run(&["sql", "--database-url", url, "--json", count]).1;
    let node = place.start(&[]);
    assert_eq!(get(&node, "/goods", &[]).status, 200);
    assert_eq!(ntier_tests::node::run(&["sql", "--database-url", url, "--json", count]).1, before);
}
