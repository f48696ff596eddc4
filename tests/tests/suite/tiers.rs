//! The same application on every tier, unchanged: `examples/board`, with the unmodified supabase-js.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use ntier::library::Application;
use ntier_tests::cluster::{Cluster, Ground};
use ntier_tests::{Backend, Node, World, directory, npm, postgres};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinHandle;

use crate::storage::store::server::Server;

/// What it prints, one line for each.
const STEPS: usize = 10;

fn board() -> PathBuf {
    let folder = directory::repository().join("examples/board");
    npm::install(&folder);
    folder
}

/// Two people use it there.
fn used(url: &str, key: &str) {
    let mut command = npm::command("npm", &board());
    command.args(["test", "--silent"]).env("SUPABASE_URL", url).env("SUPABASE_PUBLISHABLE_KEY", key);
    let said = npm::output(&mut command);
    assert_eq!(said.lines().filter(|line| line.starts_with("ok  ")).count(), STEPS, "{said}");
}

/// The application has no address: this one is the test's, and leads into the process.
async fn bridge(app: Arc<Application>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let bridging = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut inside = UnixStream::from_std(app.connect().unwrap()).unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut inside).await });
        }
    });
    (address, bridging)
}

#[test]
fn tier_1_in_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let builder = ntier::embedded().project(board()).data(&data).program(directory::program());
        let app = Arc::new(builder.start().await.unwrap());
        let key = app.keys().publishable_key.clone();

        // Asked from inside, without anything between.
        let ask = |path: &str| http::Request::get(path).header("apikey", &key).body(Vec::new()).unwrap();
        assert_eq!(app.send(ask("/ready")).await.unwrap().status(), 200);
        let refused = app.send(ask("/rest/v1/posts")).await.unwrap();
        assert!(refused.status() == 401 && refused.body().starts_with(b"{\"code\":\"42501\""), "{refused:?}");
        let many = (0..20).map(|_| app.send(ask("/health")));
        for answer in futures_util::future::join_all(many).await {
            assert_eq!(answer.unwrap().status(), 200);
        }
        assert!(!data.join("node.json").exists(), "nobody finds it");

        let (address, bridging) = bridge(app.clone()).await;
        tokio::task::spawn_blocking(move || used(&format!("http://{address}"), &key)).await.unwrap();
        bridging.abort();
        let _ = bridging.await;
        Arc::into_inner(app).unwrap().stop().await.unwrap();
    });
}

#[test]
fn tier_2_one_program() {
    let world = World::start_project(Backend::Embedded, &board());
    used(&world.node.url, world.key("publishable_key"));
}

#[test]
fn tier_3_with_a_server() {
    let world = World::start_project(Backend::Server, &board());
    used(&world.node.url, world.key("publishable_key"));
}

#[test]
fn tier_n_many_nodes() {
    let ground = Ground::start();
    let files = Server::start_at(ground.network.address(1));
    // It is on another machine, and this one's network.
    let flags = [files.flags(), vec!["--storage-s3-allow-http".into()]].concat();
    let cluster = Cluster::start(ground, &board(), &flags);
    let key = cluster.keys["publishable_key"].as_str().unwrap();
    for balancer in &cluster.balancers {
        used(&balancer.url, key);
    }
    let answers = |node: &Node| {
        let nodes = cluster.status(0)["backends"].clone();
        let host = node.url.trim_start_matches("http://").to_owned();
        let seen = nodes.as_array().unwrap().iter().find(|seen| seen["address"] == host.as_str()).cloned();
        seen.and_then(|seen| seen["answers"].as_u64()).unwrap_or_default()
    };
    for node in &cluster.nodes {
        assert!(answers(node) > 0, "each node had a part in it: {}", cluster.status(0));
    }
}

/// A balancer and nodes as processes of one, to be tried.
#[test]
fn all_of_it_by_one_command() {
    let world = World::start_project(Backend::Server, &board());
    let folder = tempfile::tempdir().unwrap();
    let (data, port) = (folder.path().join("data"), postgres::free_port());
    let vault = std::fs::read_to_string(world.data().join("vault.key")).unwrap();
    let mut command = Command::new(directory::program());
    command.args(["up", "--nodes", "2", "--data"]).arg(&data).arg("--project").arg(board());
    command.args(["--balance-listen", &format!("127.0.0.1:{port}")]).env("NTIER_VAULT_KEY", vault.trim());
    command.args(["--database-url", world.database_url.as_deref().unwrap()]);
    let mut up = Node::spawn(command, &data).unwrap();
    assert_eq!(up.url, format!("http://127.0.0.1:{port}"));
    used(&up.url, world.key("publishable_key"));
    assert!(up.stop().success());
    let left = world.sql("select count(*)::int as n from ntier.nodes");
    assert_eq!(left, json!([{ "n": 0 }]), "they have left in order");
}
