//! Certificates of an authority (Pebble), which two balancers share.

use std::io::copy;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use ntier_tests::pebble::Pebble;
use ntier_tests::{Backend, Node, World, directory, node, until};

/// The last numbers of two balancers' addresses.
const HOSTS: [u8; 2] = [2, 3];

fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, host)
}

/// Of the authority that is reached at this port.
fn directory_at(port: u16) -> String {
    format!("https://127.0.0.1:{port}/dir")
}

/// An authority, a node, and balancers that ask the one for certificates of these names and the other for answers.
struct Stage {
    pebble: Pebble,
    world: World,
    names: Vec<&'static str>,
}

impl Stage {
    fn start(names: &[&'static str], life: u32) -> Self {
        let stage = Self { pebble: Pebble::start(life), world: World::start(Backend::Server), names: names.to_vec() };
        // Nobody asks yet: both balancers are to be there.
        for name in names {
            stage.world.sql(&format!(
                "insert into ntier.certificates (directory, name, next_at) values ('{}', '{name}', 'infinity')",
                directory_at(stage.pebble.port)
            ));
        }
        stage
    }

    /// `authority` is the port at which it is reached.
    fn balancer(&self, host: u8, challenge: &str, authority: u16) -> Node {
        let data = self.world.scratch().join(format!("balancer-{host}"));
        let vault = std::fs::read_to_string(self.world.data().join("vault.key")).unwrap();
        let mut command = Command::new(directory::program());
        command.arg("balance").arg("--data").arg(&data).env("NTIER_VAULT_KEY", vault.trim());
        command.args(["--database-url", self.world.database_url.as_deref().unwrap()]);
        command.args(["--balance-backends", self.world.node.url.trim_start_matches("http://")]);
        command.args(["--balance-listen", &format!("{}:{}", address(host), self.pebble.tls)]);
        command.args(["--balance-redirect", &format!("{}:{}", address(host), self.pebble.http)]);
        command.args(["--balance-acme-domains", &self.names.join(","), "--balance-acme-terms-agreed"]);
        command.args(["--balance-acme-directory", &directory_at(authority), "--balance-acme-challenge", challenge]);
        command.arg("--balance-acme-ca").arg(self.pebble.ca());
        Node::spawn(command, &data).unwrap_or_else(|said| panic!("balancer {host} ended: {said}"))
    }

    /// It is time for the certificates.
    fn ask(&self) {
        self.world.sql("update ntier.certificates set next_at = clock_timestamp()");
    }

    /// The certificate that a balancer shows for a name, as PEM; `None` where it shows none that is to be believed, or does not answer.
    fn shown(&self, host: u8, name: &str) -> Option<String> {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}\n%{certs}", "--cacert"])
            .arg(self.pebble.root());
        curl.args(["--resolve", &format!("{name}:{}:{}", self.pebble.tls, address(host))]);
        let answer =
            curl.arg(format!("https://{name}:{}/health", self.pebble.tls)).output().expect("curl can be started");
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        let rest = text.strip_prefix("200\n")?;
        let begin = rest.find("-----BEGIN")?;
        Some(rest[begin..].split("-----END").next()?.to_owned())
    }

    /// Waits until both show the same for each name, and gives that.
    fn shared(&self) -> Vec<String> {
        let mut all = Vec::new();
        until("both show the same", || {
            let of = |host| self.names.iter().map(|name| self.shown(host, name)).collect::<Option<Vec<_>>>();
            all = of(HOSTS[0]).unwrap_or_default();
            !all.is_empty() && of(HOSTS[1]).as_ref() == Some(&all)
        });
        all
    }

    /// Of a name's row.
    fn row(&self, column: &str) -> String {
        let rows =
            self.world.sql(&format!("select {column}::text as it from ntier.certificates order by name limit 1"));
        rows[0]["it"].as_str().unwrap_or_default().to_owned()
    }
}

#[test]
fn two_balancers_share_what_one_obtained_over_http() {
    let stage = Stage::start(&["a.test", "b.test"], 3600);
    let mut balancers = HOSTS.map(|host| stage.balancer(host, "http-01", stage.pebble.port));
    assert_eq!(stage.shown(HOSTS[0], "a.test"), None, "there is none yet");
    // Whichever of them asks, one of the names is answered for by the other.
    stage.pebble.name("a.test", address(HOSTS[0]));
    stage.pebble.name("b.test", address(HOSTS[1]));
    stage.ask();
    let shared = stage.shared();
    assert_ne!(shared[0], shared[1], "each name has its own");
    let sums = stage.world.sql("select sum(number)::int as all, sum(failures)::int as failed from ntier.certificates");
    assert_eq!((sums[0]["all"].as_i64(), sums[0]["failed"].as_i64()), (Some(2), Some(0)), "each was asked for once");
    let kept = stage.world.sql("select count(*)::int as n from ntier.certificates where sealed like 'sealed1.%'");
    assert_eq!(kept[0]["n"], 2);
    let left = stage.world.sql("select count(*)::int as n from ntier.acme_challenges");
    assert_eq!(left[0]["n"], 0);
    assert_eq!(stage.shown(HOSTS[0], "c.test"), None, "it is nobody's name");
    // Who comes later has them from the start.
    balancers[0].kill();
    balancers[0] = stage.balancer(HOSTS[0], "http-01", stage.pebble.port);
    assert_eq!(stage.shown(HOSTS[0], "a.test").as_ref(), Some(&shared[0]));
}

#[test]
fn two_balancers_share_what_one_obtained_in_a_handshake_and_renew_it() {
    let stage = Stage::start(&["a.test", "b.test"], 30);
    let _balancers = HOSTS.map(|host| stage.balancer(host, "tls-alpn-01", stage.pebble.port));
    stage.pebble.name("a.test", address(HOSTS[0]));
    stage.pebble.name("b.test", address(HOSTS[1]));
    stage.ask();
    let first = stage.shared();
    until("it is renewed before it ends", || stage.row("number") != "1");
    until("both show the next one", || stage.shared()[0] != first[0]);
}

#[test]
fn a_certificate_that_nobody_can_read_is_asked_for_again_and_stops_no_other() {
    let stage = Stage::start(&["a.test", "b.test"], 3600);
    let _balancers = HOSTS.map(|host| stage.balancer(host, "http-01", stage.pebble.port));
    stage.pebble.name("a.test", address(HOSTS[0]));
    stage.pebble.name("b.test", address(HOSTS[1]));
    stage.world.sql("update ntier.certificates set next_at = clock_timestamp() where name = 'a.test'");
    until("the first is there", || HOSTS.iter().all(|host| stage.shown(*host, "a.test").is_some()));
    stage.world.sql("update ntier.certificates set number = number + 1, sealed = 'sealed1.none' where name = 'a.test'");
    stage.world.sql("update ntier.certificates set next_at = clock_timestamp() where name = 'b.test'");
    stage.shared();
    until("it is replaced", || stage.row("number") == "3");
}

/// A way to the authority on which nothing goes on until it is opened.
fn door(to: u16) -> (u16, std::sync::mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (open, opened) = channel();
    thread::spawn(move || pass(&listener, to, &opened));
    (port, open)
}

fn pass(listener: &TcpListener, to: u16, opened: &Receiver<()>) {
    // The sender is kept until the test ends: what is dropped ends this.
    if opened.recv().is_err() {
        return;
    }
    for client in listener.incoming().map_while(Result::ok) {
        let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { return };
        for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
            thread::spawn(move || {
                let _ = copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    }
}

#[test]
fn another_balancer_asks_where_one_was_killed_while_it_did() {
    let stage = Stage::start(&["a.test"], 3600);
    let (way, open) = door(stage.pebble.port);
    stage.world.sql(&format!("update ntier.certificates set directory = '{}'", directory_at(way)));
    let mut balancers = HOSTS.map(|host| stage.balancer(host, "http-01", way));
    stage.ask();
    let mut holder = String::new();
    until("one asks", || {
        holder = stage.row("holder");
        !holder.is_empty()
    });
    let process: u32 = holder.split('-').next().unwrap().parse().unwrap();
    let killed = balancers.iter().position(|balancer| balancer.process() == process).expect("it is one of them");
    balancers[killed].kill();
    let survivor = HOSTS[1 - killed];
    stage.pebble.name("a.test", address(survivor));
    open.send(()).unwrap();
    until("the other has obtained it", || stage.shown(survivor, "a.test").is_some());
    assert_eq!((stage.row("number"), stage.row("failures")), ("1".into(), "0".into()));
}

#[test]
fn without_a_database_certificates_are_not_asked_for() {
    let arguments = [
        "balance",
        "--data",
        "/nonexistent/ntier",
        "--balance-backends",
        "127.0.0.1:1",
        "--balance-acme-domains",
        "a.test",
    ];
    let (code, _, told) = node::run(&arguments);
    assert_ne!(code, Some(0));
    assert!(told.contains("database_url") && told.contains("balance.acme.terms_agreed"), "{told}");
}
