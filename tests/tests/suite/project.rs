//! A Supabase project folder runs as it is; our own migrations are the same on every start and from many nodes at once.

use ntier_tests::node::{self, Node};
use ntier_tests::{Backend, Who, World, directory, on_both, template, until};
use serde_json::json;

on_both!(roles_and_schemas, seeds_run_once, an_exposed_project, a_change_of_the_schema_is_noticed);

fn roles_and_schemas(world: &mut World) {
    let roles = world.sql(
        "select rolname, rolsuper or rolbypassrls as all_rows from pg_roles where rolname in ('anon', 'authenticated', \
         'service_role', 'authenticator', 'supabase_auth_admin', 'supabase_storage_admin') order by rolname",
    );
    let names: Vec<(&str, bool)> = roles
        .as_array()
        .unwrap()
        .iter()
        .map(|role| (role["rolname"].as_str().unwrap(), role["all_rows"].as_bool().unwrap()))
        .collect();
    assert_eq!(
        names,
        [
            ("anon", false),
            ("authenticated", false),
            ("authenticator", false),
            ("service_role", true),
            ("supabase_auth_admin", false),
            ("supabase_storage_admin", false)
        ]
    );
    let there = "select to_regnamespace('auth') is not null and to_regnamespace('storage') is not null \
        and to_regnamespace('extensions') is not null as schemas, \
        (set_config('request.jwt.claims', '{\"sub\":\"00000000-0000-4000-8000-000000000001\",\"role\":\"x\"}', true) is not null) as claims";
    assert_eq!(world.sql(there), json!([{"schemas": true, "claims": true}]));
    let claims = "begin; select set_config('request.jwt.claims', '{\"sub\":\"00000000-0000-4000-8000-000000000001\",\"role\":\"x\"}', true); \
        select auth.uid()::text as uid, auth.role() as role, auth.jwt() ->> 'role' as jwt; ";
    assert_eq!(
        world.sql(&format!("{claims} commit;")),
        json!([{"uid": "00000000-0000-4000-8000-000000000001", "role": "x", "jwt": "x"}])
    );
}

fn seeds_run_once(world: &mut World) {
    world.sql("delete from letters");
    world.restart();
    assert_eq!(world.get("/letters").json(), json!([]));
    let versions = world
        .sql("select version, name, cardinality(statements) > 10 as kept from supabase_migrations.schema_migrations");
    assert_eq!(versions, json!([{"version": "20260101000000", "name": "cinema", "kept": true}]));
}

/// Whoever makes it: nobody has to say so.
fn a_change_of_the_schema_is_noticed(world: &mut World) {
    let status = |path: &str| world.ask(&Who::Service, &format!("GET {path}")).send().status;
    assert_eq!(status("/sudden"), 404);
    world.sql("create table sudden (id int); grant select on sudden to service_role");
    until("it is known", || status("/sudden") != 404);
    assert_eq!(status("/sudden"), 200);
    world.sql("drop table sudden");
    until("it is gone", || status("/sudden") != 200);
    assert_eq!(status("/sudden"), 404);
}

/// `auto_expose_new_tables` in config.toml, as projects from before have it.
fn an_exposed_project(world: &mut World) {
    let project = world.scratch().join("project/supabase");
    std::fs::create_dir_all(project.join("migrations")).unwrap();
    std::fs::write(project.join("config.toml"), "[api]\nauto_expose_new_tables = true\n").unwrap();
    std::fs::write(project.join("migrations/20260101000000_a.sql"), "create table open_to_all (id int);").unwrap();
    let project = world.scratch().join("project").to_string_lossy().into_owned();
    let mut flags = vec!["--project", &project, "--api-require-key=false"];
    let url = (world.backend == Backend::Server).then(template::empty_server);
    if let Some(url) = &url {
        flags.extend(["--database-url", url]);
    }
    let node = Node::start("serve", &world.scratch().join("other"), &flags);
    let mut answer = world.agent.get(format!("{}/rest/v1/open_to_all", node.url)).call().unwrap();
    assert_eq!((answer.status().as_u16(), answer.body_mut().read_to_string().unwrap().as_str()), (200, "[]"));
}

/// Ten nodes start at once on a server that has nothing.
#[test]
fn many_nodes_start_at_once() {
    let folder = tempfile::tempdir().unwrap();
    // One of them makes the keys; the others have what opens them.
    let vault = [("NTIER_VAULT_KEY".to_owned(), "YSBrZXkgb2YgMzIgYnl0ZXMgZm9yIHRlc3RzIGFsb24".to_owned())];
    let url = template::empty_server();
    let project = directory::project().to_string_lossy().into_owned();
    std::thread::scope(|scope| {
        let nodes: Vec<_> = (0..10)
            .map(|number| {
                let (url, project, vault) = (&url, &project, &vault);
                let data = folder.path().join(number.to_string());
                let flags = ["--database-url", url, "--project", project];
                scope.spawn(move || {
                    Node::start_program_in(vault, &directory::program(), "serve", &data, &flags)
                        .unwrap_or_else(|said| panic!("node {number} ended: {said}"))
                })
            })
            .collect();
        for node in nodes {
            drop(node.join().unwrap());
        }
    });
    let data = folder.path().join("0").to_string_lossy().into_owned();
    let count = "select (select count(*) from supabase_migrations.schema_migrations)::int as migrations, \
        (select count(*) from films)::int as films";
    let (_, out, _) = node::run(&["sql", "--data", &data, "--database-url", &url, "--json", count]);
    assert_eq!(out.trim(), r#"[{"migrations":1,"films":5}]"#);
}

/// A server reached as libpq would: by TCP with a password, TLS checked as `sslmode` says.
#[test]
fn a_server_is_reached_as_libpq_would() {
    let server = ntier_tests::postgres::server();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_string_lossy().into_owned();
    let root = server.directory.join("root.crt");
    let port = server.port;
    let url = |host: &str, password: &str, more: &str| {
        format!("postgres://postgres:{password}@{host}:{port}/postgres?{more}")
    };
    let verify = format!("sslmode=verify-full&sslrootcert={}", root.display());
    let authority = format!("sslmode=verify-ca&sslrootcert={}", root.display());
    for (url, works) in [
        (url("127.0.0.1", "for%20tests", "sslmode=disable"), true),
        (url("127.0.0.1", "for%20tests", ""), true),
        (url("127.0.0.1", "for%20tests", "sslmode=require"), true),
        (url("localhost", "for%20tests", &verify), true),
        (url("127.0.0.1", "for%20tests", &verify), false),
        (url("127.0.0.1", "for%20tests", &authority), true),
        (url("localhost", "for%20tests", "sslmode=verify-full"), false),
        (url("127.0.0.1", "wrong", ""), false),
    ] {
        let tls = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
        let (code, out, told) = node::run(&["sql", "--data", &data, "--database-url", &url, "--json", tls]);
        assert_eq!(code == Some(0), works, "{url}: {told}");
        if works {
            assert_eq!(out.trim(), format!(r#"[{{"ssl":{}}}]"#, !url.contains("disable")), "{url}");
        }
    }
}
