//! Several nodes on one database: they have the same keys, say where they are, and leave in order.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use ntier_tests::node::{self, Node, send};
use ntier_tests::{Backend, World, directory, on_both, until};
use rustix::process::Signal;
use serde_json::{Value, json};

on_both!(a_node_says_where_it_is_and_leaves_in_order);

/// One more node of this world, with a data directory of its own.
fn elsewhere(world: &World, data: &Path, environment: &[(String, String)]) -> Result<Node, String> {
    let project = directory::project().to_string_lossy().into_owned();
    let url = world.database_url.as_deref().unwrap();
    let flags = ["--project", &project, "--database-url", url];
    Node::start_program_in(environment, &directory::program(), "serve", data, &flags)
}

fn published(world: &World, node: &Node) -> Vec<String> {
    let url = format!("{}/auth/v1/.well-known/jwks.json", node.url);
    let answer = world.agent.get(&url).call().unwrap().into_body().read_to_string().unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    answer["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn nodes_of_one_database_have_its_keys() {
    let world = World::start(Backend::Server);
    let folder = tempfile::tempdir().unwrap();
    let data = |name: &str| folder.path().join(name);
    let said = elsewhere(&world, &data("without"), &[]).unwrap_err();
    assert!(said.contains("vault.key") && said.contains("vault_key"), "{said}");
    assert!(!data("without").join("vault.key").exists(), "a vault of its own would be in the way");

    let vault = std::fs::read_to_string(world.data().join("vault.key")).unwrap();
    let environment = [("NTIER_VAULT_KEY".to_owned(), vault.trim().to_owned())];
    let other = elsewhere(&world, &data("by-setting"), &environment).unwrap();
    assert_eq!(node::keys(&other.data), world.keys);

    // It had keys of its own, for another database.
    let own = World::start(Backend::Server);
    assert_ne!(own.keys, world.keys);
    std::fs::create_dir(data("by-file")).unwrap();
    for (name, from) in [("keys.json", own.data()), ("vault.key", world.data())] {
        std::fs::copy(from.join(name), data("by-file").join(name)).unwrap();
    }
    let third = elsewhere(&world, &data("by-file"), &[]).unwrap();
    assert_eq!(node::keys(&third.data), world.keys);
    let before = std::fs::read(data("by-file").join("keys.before.json")).unwrap();
    assert_eq!(before, std::fs::read(own.data().join("keys.json")).unwrap(), "what was there is not lost");

    // A rotation at one of them is heard by all, and by those who come later.
    let first = published(&world, &world.node);
    let (code, _, told) = node::run(&["keys", "rotate", "--data", &other.data.to_string_lossy()]);
    assert_eq!(code, Some(0), "{told}");
    for node in [&other, &world.node, &third] {
        until("the keys are taken", || published(&world, node)[0] == first[1]);
    }
    let rotated = published(&world, &other);
    until("all have the same", || [&world.node, &third].iter().all(|node| published(&world, node) == rotated));

    // Also one that was made while nobody ran there.
    let mut third = third;
    third.kill();
    let (code, _, told) = node::run(&["keys", "rotate", "--data", &third.data.to_string_lossy()]);
    assert_eq!(code, Some(0), "{told}");
    let third = elsewhere(&world, &third.data, &[]).unwrap();
    assert_ne!(published(&world, &third), rotated);
    until("the others have it", || published(&world, &world.node) == published(&world, &third));
}

fn a_node_says_where_it_is_and_leaves_in_order(world: &mut World) {
    let rows = |world: &World| world.sql("select url, is_leaving from ntier.nodes order by url");
    assert_eq!(rows(world), json!([]), "nobody has to be told of a single node");
    let (project, url) = (directory::project().to_string_lossy().into_owned(), world.database_url.clone());
    let mut flags = vec!["--advertise", "http://127.0.0.1:9", "--drain", "2s", "--project", &project];
    match &url {
        Some(url) => flags.extend(["--database-url", url]),
        // It has one node.
        None => world.node.kill(),
    }
    let mut node = Node::start("serve", &world.data(), &flags);
    let ask = |path: &str| world.agent.get(format!("{}{path}", node.url)).call().map(|answer| answer.status().as_u16());
    assert_eq!(ask("/ready").unwrap(), 200);
    let told = |is_leaving: bool| json!([{ "url": "http://127.0.0.1:9", "is_leaving": is_leaving }]);
    assert_eq!(rows(world), told(false));
    send(node.process(), Signal::TERM);
    until("it says that it leaves", || ask("/ready").unwrap() == 503);
    assert_eq!(ask("/health").unwrap(), 200, "it answers still");
    assert_eq!(rows(world), told(true));
    assert!(node.wait().success());
    world.node = world.another();
    assert_eq!(rows(world), json!([]));
}

#[test]
fn a_balancer_that_is_told_to_read_its_settings_while_it_starts_goes_on() {
    // A database that takes connections and says nothing: nodes are waited for meanwhile.
    let database = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(directory::program());
    command.arg("balance").arg("--data").arg(folder.path()).args(["--balance-listen", "127.0.0.1:0"]);
    command.args(["--database-url", &format!("postgres://nobody@{}/app", database.local_addr().unwrap())]);
    let mut balancer = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let _connection = database.accept().unwrap();
    send(balancer.id(), Signal::HUP);
    // It is read until the end: a line that nobody takes would end it, too.
    let mut said = BufReader::new(balancer.stdout.take().unwrap()).lines().map_while(Result::ok);
    let serves = said.any(|line| line.starts_with("ntier balance serves"));
    send(balancer.id(), Signal::TERM);
    assert!(balancer.wait().unwrap().success() && serves);
}
