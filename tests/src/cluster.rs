//! The last tier: two balancers, three nodes, PostgreSQL and NATS, each on a machine of its own as far as this one allows it.

use std::path::{Path, PathBuf};
use std::process::Command;

use ntier_security::keys::random;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::nats::Nats;
use crate::network::Network;
use crate::node::{self, Node, send};
use crate::postgres::{self, Postgres};
use crate::{directory, until};

/// The last numbers of the machines' addresses.
pub const NODES: [u8; 3] = [11, 12, 13];
pub const BALANCERS: [u8; 2] = [21, 22];

#[derive(Debug)]
pub struct Cluster {
    pub network: Network,
    pub postgres: Postgres,
    pub nodes: Vec<Node>,
    pub balancers: Vec<Node>,
    pub keys: Value,
    project: PathBuf,
    vault: String,
    flags: Vec<String>,
    folder: TempDir,
    nats: Nats,
}

/// What is on the machine before anything else is.
#[derive(Debug)]
pub struct Ground {
    pub network: Network,
    postgres: Postgres,
    nats: Nats,
}

impl Ground {
    pub fn start() -> Self {
        let hosts: Vec<u8> = NODES.into_iter().chain(BALANCERS).collect();
        let network = Network::start(&hosts);
        let postgres = postgres::start("-c listen_addresses=* -c fsync=off -c full_page_writes=off");
        postgres.sql("postgres", "create database app");
        Self { network, postgres, nats: Nats::start(&["-a", "0.0.0.0"]) }
    }
}

impl Cluster {
    /// All of it, for a project; `flags` are the nodes' own beside.
    ///
    /// # Panics
    /// When something of it does not start.
    pub fn start(ground: Ground, project: &Path, flags: &[String]) -> Self {
        let Ground { network, postgres, nats } = ground;
        let mut cluster = Self {
            network,
            postgres,
            nodes: Vec::new(),
            balancers: Vec::new(),
            keys: Value::Null,
            project: project.to_owned(),
            vault: random(32).expect("random numbers"),
            flags: flags.to_vec(),
            folder: tempfile::tempdir().unwrap(),
            nats,
        };
        cluster.nodes = NODES.into_iter().map(|host| cluster.node(host)).collect();
        cluster.keys = node::keys(&cluster.nodes[0].data);
        cluster.balancers = BALANCERS.into_iter().map(|host| cluster.balancer(host)).collect();
        cluster.until_up(NODES.len());
        cluster
    }

    /// Waits until both balancers send requests to so many nodes.
    pub fn until_up(&self, nodes: usize) {
        until("the balancers know who is up", || self.balancers.iter().all(|balancer| up(balancer) == nodes));
    }

    /// What a balancer says of itself.
    pub fn status(&self, balancer: usize) -> Value {
        status(&self.balancers[balancer])
    }

    /// Another process takes the place of a balancer, without an interruption; it ends when this is dropped.
    pub fn exchange_balancer(&self, at: usize) -> Successor {
        let balancer = &self.balancers[at];
        let before = status(balancer)["process"].clone();
        send(balancer.process(), Signal::USR2);
        let mut process = None;
        until("another process has its place", || {
            process = status(balancer)["process"].as_u64().filter(|process| before != *process);
            process.is_some()
        });
        Successor(u32::try_from(process.unwrap_or_default()).expect("a process"))
    }

    /// One more node on that machine.
    ///
    /// # Panics
    /// When it does not start.
    pub fn node(&self, host: u8) -> Node {
        let address = self.network.address(host);
        let mut command = self.command("serve", host);
        command.args(["--listen", &format!("{address}:54321"), "--advertise", &format!("http://{address}:54321")]);
        command.args(["--trusted-proxy", &self.network.all(), "--project"]).arg(&self.project);
        command.args(["--realtime-bus", &format!("nats://{}:{}", self.network.address(1), self.nats.port)]);
        command.args(&self.flags).env("NTIER_VAULT_KEY", &self.vault);
        Node::spawn(command, &self.data(host)).unwrap_or_else(|said| panic!("node {host} ended: {said}"))
    }

    /// A balancer on that machine.
    ///
    /// # Panics
    /// When it does not start.
    pub fn balancer(&self, host: u8) -> Node {
        let mut command = self.command("balance", host);
        command.args(["--balance-listen", &format!("{}:8000", self.network.address(host))]);
        command.args(["--balance-trusted-proxy", "127.0.0.0/8", "--project"]).arg(&self.project);
        Node::spawn(command, &self.data(host)).unwrap_or_else(|said| panic!("balancer {host} ended: {said}"))
    }

    fn command(&self, name: &str, host: u8) -> Command {
        let mut command = self.network.command(host, &directory::program());
        let server = self.network.address(1);
        let url = format!("postgres://postgres:for%20tests@{server}:{}/app", self.postgres.port);
        command.arg(name).arg("--data").arg(self.data(host)).args(["--database-url", &url]);
        // All clients of a test have one address.
        command.args(["--defence-requests-per-address", "0"]);
        command
    }

    fn data(&self, host: u8) -> PathBuf {
        self.folder.path().join(host.to_string())
    }
}

/// A process that no other one of the test has started.
#[derive(Debug)]
pub struct Successor(u32);

impl Drop for Successor {
    fn drop(&mut self) {
        send(self.0, Signal::KILL);
    }
}

/// What a balancer says of itself; nothing where it does not answer.
fn status(balancer: &Node) -> Value {
    let (_, out, _) = node::run(&["balance", "status", "--json", "--data", &balancer.data.to_string_lossy()]);
    serde_json::from_str(&out).unwrap_or_default()
}

/// Nodes to which it sends requests.
fn up(balancer: &Node) -> usize {
    let status = status(balancer);
    let backends = status["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
    backends.iter().filter(|backend| backend["state"] == "up").count()
}
