//! The commands, as a person or a script uses them.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ntier_tests::node::{self, Node, run, run_in};
use ntier_tests::world::hasty_agent;
use ntier_tests::{Backend, Who, World, directory, on_both, until};
use serde_json::{Value, json};

on_both!(sql_runs_as_the_owner, status_tells, migrate_applies_what_is_pending);

fn arguments<'a>(url: Option<&'a String>, data: &'a str, command: &'a str) -> Vec<&'a str> {
    let mut list = vec![command, "--data", data];
    if let Some(url) = url {
        list.extend(["--database-url", url]);
    }
    list
}

#[test]
fn help_teaches() {
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for command in ["dev", "serve", "rest", "migrate", "keys", "sql", "status", "completions"] {
        assert!(out.contains(&format!("\n  {command} ")), "{command} is not explained");
        let (code, help, _) = run(&[command, "--help"]);
        assert_eq!(code, Some(0));
        assert!(help.contains("Usage:"), "{help}");
    }
    assert!(!out.contains("engine"), "what nobody needs is not shown");
    assert_eq!(run(&["nonsense"]).0, Some(2));
    assert_eq!(run(&[]).0, Some(2));
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(&["completions", shell]).1.contains("database-url"), "{shell}");
    }
}

#[test]
fn dev_shows_a_newcomer_a_request_that_works() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start("dev", &folder.path().join("data"), &["--project", &sample(folder.path())]);
    let line = node.says("curl ");
    let output = Command::new("sh").args(["-c", &format!("{line} -s")]).output().unwrap();
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows[0]["body"], "first");
}

/// A small project of its own.
fn sample(folder: &Path) -> String {
    let migrations = folder.join("project/supabase/migrations");
    std::fs::create_dir_all(&migrations).unwrap();
    let sql =
        "create table notes (id int, body text); grant select on notes to anon; insert into notes values (1, 'first');";
    std::fs::write(migrations.join("20260101000000_notes.sql"), sql).unwrap();
    folder.join("project").to_string_lossy().into_owned()
}

#[test]
fn dev_applies_a_migration_as_soon_as_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let project = sample(folder.path());
    let node = Node::start("dev", &folder.path().join("data"), &["--project", &project]);
    node.says("curl ");
    let ask = |path: &str| {
        let mut answer = ntier_tests::world::agent().get(format!("{}/rest/v1/{path}", node.url)).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    };
    assert_eq!(ask("later").0, 404);
    let later = Path::new(&project).join("supabase/migrations/20260102000000_later.sql");
    std::fs::write(&later, "create table later (id int);\ngrant select on later to anon;\nselect 1 / 0;\n").unwrap();
    node.says("20260102000000_later.sql:3: division by zero");
    assert_eq!(ask("later").0, 404, "nothing of it was applied");
    std::fs::write(&later, "create table later (id int);\ngrant select on later to anon;\n").unwrap();
    node.says("applied");
    until("the table is known", || ask("later").0 != 404);
    assert_eq!(ask("later"), (200, "[]".to_owned()));
}

#[test]
fn a_directory_that_is_taken_says_by_whom() {
    let world = World::start(Backend::Embedded);
    let said = Node::try_start("serve", &world.data(), &[]).unwrap_err();
    assert!(said.contains("is in use by process"), "{said}");
    assert_eq!(world.get("/films?select=id&id=eq.1").status, 200, "and the first one goes on");
}

#[test]
fn a_port_that_is_taken_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let (code, _, told) = run(&["serve", "--data", &folder.path().to_string_lossy(), "--listen", &address]);
    assert_eq!(code, Some(1));
    assert!(told.contains(&format!("cannot listen on {address}")), "{told}");
}

#[test]
fn faults_of_the_settings_are_told_together() {
    let folder = tempfile::tempdir().unwrap();
    let supabase = folder.path().join("supabase");
    std::fs::create_dir(&supabase).unwrap();
    std::fs::write(supabase.join("config.toml"), "[api]\nport = \"x\"\ncolour = 1\n").unwrap();
    std::fs::write(folder.path().join("ntier.toml"), "[api]\ntimeout = \"soon\"\n").unwrap();
    let (code, _, told) = run_in(folder.path(), &["serve", "--listen", "nowhere"]);
    assert_eq!(code, Some(1));
    for fault in ["config.toml:2: ", "config.toml:3: ", "ntier.toml:2: ", "--listen: "] {
        assert!(told.contains(fault), "{fault} is missing in\n{told}");
    }
    assert!(!folder.path().join(".ntier").exists(), "nothing was begun");
}

#[test]
fn an_unreachable_server_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_string_lossy().into_owned();
    let (code, _, told) = run(&[
        "serve",
        "--data",
        &data,
        "--listen",
        "127.0.0.1:0",
        "--database-url",
        "postgres://x:secret@127.0.0.1:1/x",
    ]);
    assert_eq!(code, Some(1));
    assert!(told.contains("error: ") && !told.contains("secret"), "{told}");
}

#[test]
fn keys_are_those_of_the_directory() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (code, _, told) = run(&["keys", "--data", &data.to_string_lossy()]);
    assert_eq!(code, Some(1));
    assert!(told.contains("ntier dev"), "{told}");
    let world = World::start(Backend::Server);
    let keys = node::keys(&world.data());
    let names: Vec<&str> = keys.as_object().unwrap().keys().map(String::as_str).collect();
    let project = ["publishable_key", "secret_key", "anon_key", "service_role_key", "jwt_secret"];
    let files = ["s3_access_key_id", "s3_secret_access_key"];
    assert_eq!(names, [project.as_slice(), &files].concat());
    let (_, out, _) = run(&["keys", "--data", &world.data().to_string_lossy()]);
    assert!(out.contains(keys["secret_key"].as_str().unwrap()));
}

fn sql_runs_as_the_owner(world: &mut World) {
    assert_eq!(world.sql("select body from secrets"), json!([{"body": "nobody may read this"}]));
    let (data, url) = (world.data().to_string_lossy().into_owned(), world.database_url.clone());
    let mut list = arguments(url.as_ref(), &data, "sql");
    // From standard input, several statements, one transaction.
    let mut child = Command::new(directory::program())
        .args(&list)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"insert into secrets values (2, 'two');\nselect 1/0;\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("division by zero (SQLSTATE 22012)"));
    assert_eq!(world.sql("select count(*)::int as n from secrets"), json!([{"n": 1}]));
    let file = world.scratch().join("script.sql");
    std::fs::write(&file, "select title from films where id = 2").unwrap();
    let file = file.to_string_lossy().into_owned();
    list.extend(["--file", &file]);
    assert_eq!(run(&list).1, " title\n-------\n M\n(1 row)\n");
    // Also while no node runs.
    world.node.stop();
    assert_eq!(world.sql("select count(*)::int as n from films"), json!([{"n": 5}]));
}

fn status_tells(world: &mut World) {
    let (data, url) = (world.data().to_string_lossy().into_owned(), world.database_url.clone());
    let mut list = arguments(url.as_ref(), &data, "status");
    list.push("--json");
    let told = |list: &[&str]| -> Value { serde_json::from_str(&run(list).1).unwrap() };
    let status = told(&list);
    assert_eq!((&status["node"]["url"], &status["node"]["ready"]), (&json!(world.node.url), &json!(true)));
    assert_eq!(status["embedded"], json!(world.backend == Backend::Embedded));
    assert!(status["database"]["bytes"].as_u64().unwrap() > 1_000_000);
    assert!(world.node.stop().success());
    let status = told(&list);
    assert_eq!(status["node"], Value::Null);
    assert!(run(&list[..list.len() - 1]).1.contains("none runs here"));
}

fn migrate_applies_what_is_pending(world: &mut World) {
    let (data, url) = (world.data().to_string_lossy().into_owned(), world.database_url.clone());
    let project = world.scratch().join("project");
    directory::copy(&directory::project(), &project);
    let name = project.join("supabase/migrations/20270101000000_more.sql");
    std::fs::write(name, "create table more (id int);\ngrant select on more to anon;\n").unwrap();
    let project = project.to_string_lossy().into_owned();
    let mut list = arguments(url.as_ref(), &data, "migrate");
    list.extend(["--project", &project]);
    let mut asked = list.clone();
    asked.push("--status");
    assert!(run(&asked).1.contains("pending"));
    let (code, _, told) = run(&list);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("applied supabase/migrations/20270101000000_more.sql"), "{told}");
    assert_eq!(run(&list).1, "nothing is pending\n");
    until("the table is known", || world.get("/more").status != 404);
    assert_eq!(world.get("/more").json(), json!([]), "the node that runs sees it");
    assert!(!run(&asked).1.contains("pending"));
    let recorded = world.sql("select version, name from supabase_migrations.schema_migrations order by version");
    assert_eq!(recorded.as_array().unwrap().len(), 2);
    assert_eq!(recorded[1], json!({"version": "20270101000000", "name": "more"}));
}

/// On the socket of the embedded database.
fn psql_of(world: &World, user: &str) -> Command {
    let mut command = Command::new("psql");
    command.args(["-Xq", "-h", &world.data().to_string_lossy(), "-U", user, "-d", "postgres"]);
    command
}

/// Somebody leaves in the middle of a transaction: those who waited for it are served at once.
#[test]
fn nobody_waits_for_a_client_that_has_gone() {
    let world = World::start(Backend::Embedded);
    let mut psql =
        psql_of(&world, "postgres").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    psql.stdin.as_mut().unwrap().write_all(b"begin; select 1;\n").unwrap();
    let ask = |patience: Duration| {
        let agent = hasty_agent(patience);
        world.ask(&Who::Anon, "GET /films?select=id&id=eq.1").through(&agent).is_ok()
    };
    until("the transaction is open", || !ask(Duration::from_millis(300)));
    std::thread::scope(|scope| {
        // Shorter than anything else that would wake the engine.
        let waiting = scope.spawn(|| ask(Duration::from_secs(4)));
        psql.kill().unwrap();
        psql.wait().unwrap();
        assert!(waiting.join().unwrap(), "it waits for somebody who has gone");
    });
}

/// psql and ORMs reach the embedded database through its socket, beside the node, in turns.
#[test]
fn psql_shares_the_embedded_database() {
    let world = World::start(Backend::Embedded);
    let psql_as = |user: &str, sql: &str| {
        let output = psql_of(&world, user).args(["-At", "-v", "ON_ERROR_STOP=1", "-c", sql]).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    };
    let psql = |sql: &str| psql_as("postgres", sql);
    assert_eq!(psql("select count(*) from films"), (true, "5".into()));
    assert_eq!(psql("set role anon; select current_user"), (true, "anon".into()));
    assert_eq!(psql("select current_user"), (true, "postgres".into()), "nothing is left of another session");
    let who = "select session_user, current_user";
    assert_eq!(psql_as("authenticator", who), (true, "authenticator|authenticator".into()));
    assert_eq!(psql(who), (true, "postgres|postgres".into()), "nor of its user");
    let mut reading =
        psql_of(&world, "authenticator").arg("-At").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut asked, mut answered) = (reading.stdin.take().unwrap(), reading.stdout.take().unwrap());
    for _ in 0..3 {
        asked.write_all(b"select session_user;\n").unwrap();
        let mut line = [0; "authenticator\n".len()];
        answered.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"authenticator\n", "each keeps its own");
        assert_eq!(psql(who), (true, "postgres|postgres".into()));
        let secret = world.ask(&Who::Service, "GET /rpc/who").send();
        assert_eq!(secret.json()["role"], "service_role", "the node is still who it was");
    }
    drop(asked);
    reading.wait().unwrap();
    assert_eq!(world.get("/rpc/who").json()["role"], "anon");
    assert!(psql("begin; insert into films (title, year) values ('X', 2000); rollback").0);
    assert_eq!(world.get("/films?title=eq.X").json(), json!([]));
    // A transaction that idles keeps the others waiting for a while only.
    let mut idle =
        psql_of(&world, "postgres").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = idle.stdin.take().unwrap();
    input.write_all(b"begin; update films set rating = 1; select 'begun';\n").unwrap();
    let mut begun = String::new();
    let mut output = std::io::BufReader::new(idle.stdout.take().unwrap());
    while !begun.contains("begun\n") || !begun.contains("(1 row)") {
        assert!(std::io::BufRead::read_line(&mut output, &mut begun).unwrap() > 0, "{begun}");
    }
    let answer = world.ask(&Who::Anon, "GET /films?select=rating&id=eq.1").send();
    assert_eq!(answer.json(), json!([{"rating": 8.3}]), "its changes are gone with it");
    drop(input);
    idle.wait().unwrap();
}

/// Each error leaves a piece of the engine's stack behind. The engine is made anew before that is used up, and those who are connected
/// lose nothing by it.
#[test]
fn errors_do_not_wear_the_embedded_database_out() {
    let world = World::start(Backend::Embedded);
    let engine = world.node.engine();
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("wrong.sql");
    // So deep that six hundred use the stack up more than once.
    let wrong = format!("select {}nosuch{};\n", "(select ".repeat(60), ")".repeat(60));
    let begin = "set work_mem to '3MB'; set role anon; listen news;\n";
    let end = "show work_mem; select current_user; notify news;";
    std::fs::write(&script, [begin, &wrong.repeat(600), end].concat()).unwrap();
    let mut psql = psql_of(&world, "postgres");
    psql.args(["-At", "-v", "VERBOSITY=terse", "-f"]).arg(&script);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let wrong = scope.spawn(|| {
            let output = psql.output().unwrap();
            is_over.store(true, Ordering::SeqCst);
            output
        });
        while !is_over.load(Ordering::SeqCst) {
            let answer = world.get("/films?select=id&id=eq.1");
            assert_eq!((answer.status, answer.json()), (200, json!([{"id": 1}])), "others do not notice");
        }
        let output = wrong.join().unwrap();
        let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let mut lines = said.lines();
        assert_eq!((lines.next(), lines.next()), (Some("3MB"), Some("anon")), "{told}");
        assert!(lines.next().is_some_and(|line| line.contains("notification \"news\"")), "{said}");
        let expected = |line: &&str| line.contains("column \"nosuch\" does not exist");
        assert_eq!((told.lines().filter(expected).count(), told.lines().count()), (600, 600), "{told}");
    });
    // Nothing can be made anew within a transaction: one that fails on and on is ended.
    let begin = "begin; insert into films (title, year) values ('X', 2000); select nosuch;\n";
    std::fs::write(&script, [begin, &"select 1;\n".repeat(20_000)].concat()).unwrap();
    let output = psql.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("too many errors in one transaction"), "{told}");
    assert!(told.lines().count() < 2100, "{told}");
    assert_eq!(world.get("/films?title=eq.X").json(), json!([]));
    assert_eq!(world.node.engine(), engine, "it is the same process");
}
