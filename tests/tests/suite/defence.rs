//! Who attacks is kept out, and who does not is let in. Clients far away are those that a declared proxy names.

mod attack;

use std::process::Command;
use std::time::Instant;

use ntier_tests::{Answer, Backend, Node, Who, World, directory, node, until};
use serde_json::{Value, json};

const ATTACKER: &str = "203.0.113.7";
const USER: &str = "198.51.100.1";
const PASSWORD: &str = "correct horse battery";

macro_rules! on_each {
    ($($name:ident),* $(,)?) => {
        mod embedded {
            $(#[test] fn $name() { super::$name(ntier_tests::Backend::Embedded); })*
        }
        mod server {
            $(#[test] fn $name() { super::$name(ntier_tests::Backend::Server); })*
        }
    };
}

on_each!(
    security_d2_wrong_passwords_lead_to_a_ban_that_can_be_lifted,
    security_d2_a_dry_run_only_writes_down,
    security_h9_forged_addresses_change_nothing,
    bans_and_exemptions_by_hand,
    a_client_that_is_denied_much_is_left_alone,
);

/// A world behind a proxy on this machine.
fn behind_a_proxy(backend: Backend, more: &[&str]) -> World {
    World::start_with(backend, &[&["--trusted-proxy", "127.0.0.1"], more].concat())
}

fn get(world: &World, from: &str, path: &str) -> Answer {
    world.ask(&Who::Anon, &format!("GET {path}")).header("x-forwarded-for", from).send()
}

fn films(world: &World, from: &str) -> u16 {
    get(world, from, "/films?select=id&limit=1").status
}

fn sign_in(world: &World, from: &str, email: &str, password: &str) -> Answer {
    let ask = world.auth(None, "POST /token?grant_type=password").header("x-forwarded-for", from);
    ask.json(&json!({ "email": email, "password": password })).send()
}

fn sign_up(world: &World, email: &str) {
    let ask = world.auth(None, "POST /signup").header("x-forwarded-for", USER);
    let answer = ask.json(&json!({ "email": email, "password": PASSWORD })).send();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// A path that only scanners ask for.
fn scan(world: &World, from: &str, path: &str) -> u16 {
    let mut ask = world.ask(&Who::Nobody, &format!("GET {path}")).header("x-forwarded-for", from);
    ask.move_to("/rest/v1", "");
    ask.send().status
}

/// `ntier bans` on this world's database.
fn bans(world: &World, arguments: &[&str]) -> (Option<i32>, String) {
    let data = world.data().to_string_lossy().into_owned();
    let (name, rest) = arguments.split_first().map_or((None, arguments), |(name, rest)| (Some(*name), rest));
    let mut all = vec!["bans"];
    all.extend(name);
    all.extend(["--data", &data]);
    if let Some(url) = &world.database_url {
        all.extend(["--database-url", url]);
    }
    all.extend(rest);
    let (code, out, told) = node::run(&all);
    (code, if code == Some(0) { out } else { told })
}

fn banned(world: &World) -> Vec<String> {
    let (code, out) = bans(world, &["list", "--json"]);
    assert_eq!(code, Some(0), "{out}");
    let all: Value = serde_json::from_str(&out).unwrap();
    all.as_array().unwrap().iter().map(|ban| ban["network"].as_str().unwrap().to_owned()).collect()
}

fn security_d2_wrong_passwords_lead_to_a_ban_that_can_be_lifted(backend: Backend) {
    let log = tempfile::tempdir().unwrap();
    let file = log.path().join("security.log");
    let world = behind_a_proxy(backend, &["--defence-log", &file.to_string_lossy()]);
    sign_up(&world, "ada@example.com");
    let attempts = (0..60).map(|number| sign_in(&world, ATTACKER, &format!("a{number}@example.com"), "wrong"));
    let answers: Vec<Answer> = attempts.take_while(|answer| answer.status != 403).collect();
    // Twenty, and one or two more where hashing takes so long that the first are worth less by then.
    assert!((20..=23).contains(&answers.len()), "{:?}", answers.iter().map(|answer| answer.status).collect::<Vec<_>>());
    let refused = get(&world, ATTACKER, "/films");
    assert_eq!((refused.status, refused.code().as_str()), (403, "address_banned"), "{}", refused.text());
    assert!(refused.header("retry-after").unwrap().parse::<u32>().unwrap() <= 600);
    assert_eq!(films(&world, &format!("6.6.6.6, {ATTACKER}")), 403, "whatever stands left of it");
    // Somebody mistypes five times beside it.
    for number in 0..5 {
        assert_eq!(sign_in(&world, USER, "ada@example.com", &format!("mistyped {number}")).status, 400);
        assert_eq!(films(&world, USER), 200);
    }
    assert_eq!(sign_in(&world, USER, "ada@example.com", PASSWORD).status, 200);
    until("the ban is a row", || banned(&world) == [ATTACKER]);
    // By its own word it would be a minute.
    let left = || get(&world, ATTACKER, "/films").header("retry-after")?.parse::<u32>().ok();
    until("the node has it from there", || left().is_some_and(|seconds| seconds > 60));
    let lines = || std::fs::read_to_string(&file).unwrap_or_default();
    let of = |event: &str| {
        let lines = lines();
        let records = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records.filter(|record| record["event"] == event && record["address"] == ATTACKER).count()
    };
    until("it is written down", || of("wrong_password") == answers.len() && of("ban") == 1);
    assert!(!lines().contains("@example.com") && !lines().contains(PASSWORD), "{}", lines());
    let (code, out) = bans(&world, &["lift", ATTACKER]);
    assert_eq!((code, out.as_str()), (Some(0), "lifted 203.0.113.7\n"));
    until("it is let in again", || films(&world, ATTACKER) == 200);
    assert_eq!(sign_in(&world, ATTACKER, "ada@example.com", "wrong").status, 400, "and begins anew");
    assert_eq!(films(&world, ATTACKER), 200);
}

fn security_d2_a_dry_run_only_writes_down(backend: Backend) {
    let log = tempfile::tempdir().unwrap();
    let file = log.path().join("security.log");
    let world = behind_a_proxy(backend, &["--defence-mode", "watch", "--defence-log", &file.to_string_lossy()]);
    for _ in 0..30 {
        assert_eq!(scan(&world, ATTACKER, "/.env"), 404);
    }
    assert_eq!(films(&world, ATTACKER), 200);
    until("it is written down", || {
        let lines = std::fs::read_to_string(&file).unwrap_or_default();
        let records = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records.filter(|record| record["standing"] == "banned" && record["dry_run"] == true).count() > 0
    });
    assert_eq!(banned(&world), [""; 0]);
}

fn security_h9_forged_addresses_change_nothing(backend: Backend) {
    // No proxy is declared, and this machine is like any other.
    let world = World::start_with(backend, &["--defence-never", "192.0.2.1"]);
    let statuses: Vec<u16> =
        (0..20).map(|number| scan(&world, &format!("198.51.100.{number}"), "/.git/config")).collect();
    assert_eq!(statuses[..7], [404; 7]);
    assert_eq!(statuses[7..], [403; 13], "each is the same address");
    // The command goes to the database, not through the node.
    until("the ban is a row", || banned(&world) == ["127.0.0.1"]);
    assert_eq!(films(&world, "198.51.100.200"), 403);
}

fn bans_and_exemptions_by_hand(backend: Backend) {
    let world =
        behind_a_proxy(backend, &["--firewall-deny-paths", "/auth/v1/admin/**", "--firewall-methods", "GET,POST"]);
    let done = |arguments: &[&str], expected: &str| {
        let (code, out) = bans(&world, arguments);
        assert_eq!((code, out.as_str()), (Some(0), expected), "{arguments:?}");
    };
    done(&["list"], "nobody is banned\n");
    done(&["add", "203.0.113.9/24", "--for", "1h", "--reason", "a nuisance"], "banned 203.0.113.0/24\n");
    until("the network is banned", || films(&world, ATTACKER) == 403);
    assert_eq!(films(&world, USER), 200);
    done(&["add", ATTACKER, "--never"], "203.0.113.7 is never banned\n");
    until("one of it is let in", || films(&world, ATTACKER) == 200);
    assert!((0..20).all(|_| scan(&world, ATTACKER, "/.env") == 404), "whatever it does");
    assert_eq!(films(&world, "203.0.113.8"), 403);
    done(&["add", "2001:db8::/32"], "banned 2001:db8::/32\n");
    until("IPv6 is banned as well", || films(&world, "2001:db8::7") == 403);
    assert_eq!(get(&world, "2001:db8::7", "/films").header("retry-after"), None, "until it is lifted");
    done(&["lift", "--all"], "lifted 203.0.113.0/24\nlifted 2001:db8::/32\n");
    until("all are let in", || films(&world, "203.0.113.8") == 200 && films(&world, "2001:db8::7") == 200);
    assert_eq!(banned(&world), [ATTACKER], "what is said of it stays");
    for (arguments, expected) in [
        (&["add", "here"][..], "expected an address or a range"),
        (&["add", "0.0.0.0/0"], "that would keep everybody out"),
        (&["lift", "192.0.2.1"], "nothing is said of 192.0.2.1"),
        (&["add", "192.0.2.1", "--for", "soon"], "expected a duration"),
    ] {
        let (code, told) = bans(&world, arguments);
        assert!(code == Some(1) && told.contains(expected), "{arguments:?}: {told}");
    }
    let admin = |path: &str| {
        let mut ask = world.ask(&Who::Service, "GET /");
        ask.move_to("/rest/v1/", path);
        let answer = ask.send();
        (answer.status, answer.code())
    };
    assert_eq!(admin("/auth//v1/%61dmin/users"), (403, "path_denied".into()));
    assert_eq!(world.ask(&Who::Service, "DELETE /films?id=eq.0").send().status, 405);
}

fn a_client_that_is_denied_much_is_left_alone(backend: Backend) {
    let world = behind_a_proxy(backend, &[]);
    for _ in 0..300 {
        assert_eq!(get(&world, USER, "/secrets").code(), "42501");
    }
    assert!((0..50).all(|_| films(&world, USER) == 200));
    assert_eq!(banned(&world), [""; 0]);
}

/// One more node of a world.
struct Second<'a> {
    world: &'a World,
    node: Node,
}

impl<'a> Second<'a> {
    fn of(world: &'a World) -> Self {
        Self { world, node: world.another() }
    }

    fn scan(&self, from: &str) -> u16 {
        let mut ask = self.world.ask(&Who::Nobody, "GET /.git/config").header("x-forwarded-for", from);
        ask.move_to(&format!("{}/rest/v1", self.world.node.url), &self.node.url);
        ask.send().status
    }

    fn get(&self, from: &str, path: &str) -> u16 {
        let mut ask = self.world.ask(&Who::Anon, &format!("GET {path}")).header("x-forwarded-for", from);
        ask.move_to(&self.world.node.url, &self.node.url);
        ask.send().status
    }
}

#[test]
fn two_nodes_share_a_ban_that_neither_would_have_made() {
    let world = behind_a_proxy(Backend::Server, &[]);
    let second = Second::of(&world);
    for round in 0..4 {
        for status in [scan(&world, ATTACKER, "/.env"), second.scan(ATTACKER)] {
            // On a slow machine they have told each other before all is asked.
            assert!(status == 404 || (round > 0 && status == 403), "{round}: {status}");
        }
    }
    let begun = Instant::now();
    until("both keep it out", || films(&world, ATTACKER) == 403 && second.get(ATTACKER, "/films?limit=1") == 403);
    println!("after {:?}", begun.elapsed());
    assert_eq!(second.get(USER, "/films?limit=1"), 200);
    until("the ban is a row", || banned(&world) == [ATTACKER]);
    assert_eq!(bans(&world, &["lift", ATTACKER]).0, Some(0));
    until("both let it in", || films(&world, ATTACKER) == 200 && second.get(ATTACKER, "/films?limit=1") == 200);
    assert_eq!(banned(&world), Vec::<String>::new());
}

/// A balancer in front of a world's node, behind a proxy of its own.
struct Front<'a> {
    world: &'a World,
    node: Node,
    data: String,
    _folder: tempfile::TempDir,
}

/// A balancer in front of a world's node, and its folder; this machine is a proxy before it.
fn balance(world: &World, more: &[&str]) -> (Node, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(directory::program());
    command.args(["balance", "--balance-listen", "127.0.0.1:0", "--data"]).arg(folder.path());
    command.args(["--balance-backends", world.node.url.trim_start_matches("http://")]);
    command.args(["--balance-trusted-proxy", "127.0.0.1"]).args(more);
    if let Some(url) = &world.database_url {
        command.args(["--database-url", url]);
    }
    (Node::spawn(command, folder.path()).unwrap_or_else(|said| panic!("it ended: {said}")), folder)
}

impl<'a> Front<'a> {
    fn of(world: &'a World, more: &[&str]) -> Self {
        let (node, folder) = balance(world, &[&["--defence-never", "192.0.2.0/24"], more].concat());
        Self { world, node, data: folder.path().to_string_lossy().into_owned(), _folder: folder }
    }

    fn get(&self, from: &str, path: &str) -> Answer {
        let mut ask = self.world.ask(&Who::Anon, &format!("GET {path}")).header("x-forwarded-for", from);
        ask.move_to(&self.world.node.url, &self.node.url);
        ask.send()
    }

    /// Requests that it has not let in.
    fn denied(&self) -> u64 {
        let (_, out, told) = node::run(&["balance", "status", "--json", "--data", &self.data]);
        let status: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{told}"));
        status["denied"].as_u64().unwrap()
    }
}

#[test]
fn security_d2_a_balancer_keeps_out_whom_nodes_have_banned() {
    let world = behind_a_proxy(Backend::Server, &[]);
    let front = Front::of(&world, &["--firewall-deny-paths", "/rest/v1/secrets"]);
    assert_eq!(front.get(ATTACKER, "/films?limit=1").status, 200);
    for _ in 0..8 {
        scan(&world, ATTACKER, "/.env");
    }
    until("the ban is a row", || banned(&world) == [ATTACKER]);
    until("the balancer itself keeps it out", || {
        let refused = front.get(ATTACKER, "/films?limit=1");
        assert!(refused.status == 200 || refused.code() == "address_banned", "{}", refused.text());
        refused.status == 403 && front.denied() > 0
    });
    assert_eq!(front.get(USER, "/films?limit=1").status, 200);
    let refused = front.get(USER, "/secrets");
    assert_eq!((refused.status, refused.code().as_str()), (403, "path_denied"));
    assert_eq!(bans(&world, &["lift", ATTACKER]).0, Some(0));
    until("it is let in again", || front.get(ATTACKER, "/films?limit=1").status == 200);
}

#[test]
fn security_h10_two_balancers_count_requests_together() {
    let world = behind_a_proxy(Backend::Server, &[]);
    let limit = ["--defence-requests-per-address", "4"];
    let fronts = [Front::of(&world, &limit), Front::of(&world, &limit)];
    let statuses: Vec<u16> = (0..40).map(|_| fronts[0].get(USER, "/films?limit=1").status).collect();
    assert!(statuses[..10].iter().all(|status| *status == 200) && statuses.contains(&429), "{statuses:?}");
    assert!(fronts[0].denied() > 0);
    until("the other counts them too", || fronts[1].get(USER, "/films?limit=1").status == 429);
    assert_eq!(fronts[1].get("198.51.100.99", "/films?limit=1").status, 200);
}

/// What never comes to a node is noticed where it ends.
#[test]
fn security_d2_a_balancer_without_a_database_slows_attackers_down_by_itself() {
    let world = behind_a_proxy(Backend::Embedded, &[]);
    let front = Front::of(&world, &["--balance-max-body", "1kB"]);
    let too_large = || {
        let mut ask = world.ask(&Who::Anon, "POST /films").header("x-forwarded-for", ATTACKER);
        ask.move_to(&world.node.url, &front.node.url);
        ask.body("text/plain", "x".repeat(2000)).send().status
    };
    let statuses: Vec<u16> = (0..60).map(|_| too_large()).collect();
    assert!(statuses[0] == 413 && statuses.contains(&429), "{statuses:?}");
    assert_eq!(front.get(USER, "/films?limit=1").status, 200);
    assert_eq!(films(&world, ATTACKER), 200, "the node knows nothing of it");
}

#[test]
fn security_h10_two_nodes_count_requests_together() {
    let limits = ["--defence-requests-per-address", "4", "--defence-requests-per-user", "3", "--defence-mode", "on"];
    let world = behind_a_proxy(Backend::Server, &limits);
    let second = Second::of(&world);
    // What an address may at once, at the first node.
    let statuses: Vec<u16> = (0..40).map(|_| films(&world, USER)).collect();
    let through = statuses.iter().filter(|status| **status == 200).count();
    assert!((20..36).contains(&through) && statuses.contains(&429), "{statuses:?}");
    let refused = get(&world, USER, "/films");
    assert_eq!((refused.status, refused.code().as_str()), (429, "over_request_rate_limit"));
    assert!(refused.header("retry-after").is_some());
    // The other has heard of it: it lets through far less than all that at once.
    until("the other counts them too", || second.get(USER, "/films?limit=1") == 429);
    assert_eq!(second.get("198.51.100.99", "/films?limit=1"), 200);
    let user = |number: u32, from: u32| {
        let ask = world.ask(&Who::user(number), "GET /films?limit=1");
        ask.header("x-forwarded-for", &format!("198.51.101.{from}")).send().status
    };
    let statuses: Vec<u16> = (0..40).map(|from| user(1, from)).collect();
    assert!(statuses.contains(&429), "one user from many addresses: {statuses:?}");
    assert_eq!(user(2, 0), 200);
}
