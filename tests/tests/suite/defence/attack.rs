//! Everything at once, and somebody who works beside it: the attacks are stopped, and who works sees nothing of them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ntier_tests::{Backend, Who, World};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use super::{ATTACKER, PASSWORD, USER, balance, behind_a_proxy, films, scan, sign_in, sign_up};

/// Within this an attack is stopped.
const SOON: Duration = Duration::from_secs(5);

const LIMITS: [&str; 4] = ["--defence-never", "127.0.0.1", "--firewall-max-body", "1MB"];

#[test]
fn an_attack_on_a_node_is_stopped_and_users_go_on() {
    let more = [&LIMITS[..], &["--defence-connections-per-address", "50"]].concat();
    attack(&behind_a_proxy(Backend::Server, &more));
}

#[test]
fn an_attack_on_a_balancer_is_stopped_and_users_go_on() {
    let mut world = behind_a_proxy(Backend::Server, &LIMITS);
    let (front, _folder) = balance(&world, &[&LIMITS[..], &["--balance-max-connections-per-address", "50"]].concat());
    world.node.url.clone_from(&front.url);
    attack(&world);
}

fn attack(world: &World) {
    sign_up(world, "ada@example.com");
    sign_up(world, "victim@example.com");
    let over = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let working = scope.spawn(move || works(world, over));
        let attacks = [
            ("1,000 wrong passwords from one address", one_address as fn(&World)),
            ("1,000 wrong passwords from fifty", fifty_addresses),
            ("scanner paths", scanner),
            ("connections that say nothing", slowloris),
            ("large headers", large_headers),
            ("large bodies", large_bodies),
        ];
        // An attack that is not stopped fails the test, but the user is to end all the same.
        let told: Vec<_> = attacks
            .into_iter()
            .map(|(name, attack)| {
                let begun = Instant::now();
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| attack(world)));
                println!("{name}: {:?}", begun.elapsed());
                (name, done)
            })
            .collect();
        over.store(true, Ordering::Relaxed);
        let (requests, slowest) = working.join().expect("the user is not disturbed");
        println!("{requests} requests of the user beside it, the slowest {slowest:?}");
        let failed: Vec<_> = told.iter().filter(|(_, done)| done.is_err()).map(|(name, _)| *name).collect();
        assert!(failed.is_empty() && requests > 10, "{failed:?}, {requests}");
    });
}

/// Somebody signs in, mistypes now and then, and reads; nothing is refused.
fn works(world: &World, over: &AtomicBool) -> (u32, Duration) {
    let (mut requests, mut slowest) = (0, Duration::ZERO);
    let mut timed = |expected: u16, ask: &dyn Fn() -> u16| {
        let begun = Instant::now();
        assert_eq!(ask(), expected);
        (requests, slowest) = (requests + 1, slowest.max(begun.elapsed()));
    };
    timed(400, &|| sign_in(world, USER, "ada@example.com", "mistyped").status);
    timed(200, &|| sign_in(world, USER, "ada@example.com", PASSWORD).status);
    while !over.load(Ordering::Relaxed) {
        timed(200, &|| films(world, USER));
        timed(406, &|| {
            let ask = world.ask(&Who::Anon, "GET /films?id=eq.0").header("x-forwarded-for", USER);
            ask.header("accept", "application/vnd.pgrst.object+json").send().status
        });
    }
    timed(200, &|| sign_in(world, USER, "ada@example.com", PASSWORD).status);
    (requests, slowest)
}

struct Attempt {
    status: u16,
    /// Since the first of all began.
    ended: Duration,
    took: Duration,
}

/// What came of so many attempts.
fn attempts(world: &World, count: u32, address: impl Fn(u32) -> String + Sync) -> Vec<Attempt> {
    let begun = Instant::now();
    let address = &address;
    let several = |worker: u32| {
        let numbers = (0..count).filter(move |number| number % 8 == worker);
        let attempt = |number| {
            let before = begun.elapsed();
            let status = sign_in(world, &address(number), "victim@example.com", &format!("guess {number}")).status;
            let ended = begun.elapsed();
            Attempt { status, ended, took: ended.saturating_sub(before) }
        };
        numbers.map(attempt).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8).map(|worker| scope.spawn(move || several(worker))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

/// Those whose passwords were looked at.
fn looked_at(attempts: &[Attempt]) -> Vec<&Attempt> {
    let statuses: Vec<u16> = attempts.iter().map(|attempt| attempt.status).collect();
    assert!(statuses.iter().all(|status| [400, 403, 429].contains(status)), "{statuses:?}");
    let looked_at: Vec<_> = attempts.iter().filter(|attempt| attempt.status == 400).collect();
    println!("{} were looked at, the last after {:?}", looked_at.len(), last(&looked_at));
    looked_at
}

fn last(attempts: &[&Attempt]) -> Duration {
    attempts.iter().map(|attempt| attempt.ended).max().unwrap_or_default()
}

fn one_address(world: &World) {
    let attempts = attempts(world, 1000, |_| ATTACKER.to_owned());
    let looked_at = looked_at(&attempts);
    // Eight were on their way when the address was banned. A machine may be so slow that it takes longer to look at so many.
    let slowest = looked_at.iter().map(|attempt| attempt.took).max().unwrap_or_default();
    let (count, last) = (looked_at.len(), last(&looked_at));
    assert!((10..=28).contains(&count) && last < SOON.max(slowest * 4), "{count} {last:?} {slowest:?}");
    assert_eq!(films(world, ATTACKER), 403);
}

fn fifty_addresses(world: &World) {
    let attempts = attempts(world, 1000, |number| format!("203.0.114.{}", number % 50));
    let count = looked_at(&attempts).len();
    // The account's bucket gives thirty, and one more in ten seconds.
    let took = attempts.iter().map(|attempt| attempt.ended.as_secs()).max().unwrap_or_default();
    assert!(count as u64 <= 31 + took / 10, "{count} in {took} s");
    assert_eq!(films(world, "203.0.115.1"), 200, "their neighbours are not concerned");
}

fn scanner(world: &World) {
    let paths = [
        "/.env",
        "/.git/config",
        "/wp-login.php",
        "/phpmyadmin/",
        "/cgi-bin/luci",
        "/.aws/credentials",
        "/actuator/env",
    ];
    let statuses: Vec<u16> = (0..100).map(|number| scan(world, "203.0.116.1", paths[number % paths.len()])).collect();
    assert!(statuses[8..].iter().all(|status| *status == 403), "{statuses:?}");
}

/// A connection from another address of this machine.
fn connection(world: &World, from: [u8; 4]) -> TcpStream {
    let to: SocketAddrV4 = world.node.url.trim_start_matches("http://").parse().unwrap();
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::from(from), 0)).unwrap();
    connect(&socket, &to).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// What comes back until the other side closes.
fn said(mut stream: TcpStream, bytes: &[u8]) -> String {
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn slowloris(world: &World) {
    let begun = Instant::now();
    let open: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = connection(world, [127, 0, 0, 66]);
            let _ = stream.write_all(b"GET /rest/v1/films HTTP/1.1\r\nhost: x\r\nx-slow: ");
            stream
        })
        .collect();
    // Those beyond the limit are closed at once; the others are waited for no longer than for any client.
    let is_closed = |mut stream: &TcpStream| {
        let _ = stream.set_read_timeout(Some(Duration::from_millis(1)));
        !matches!(stream.read(&mut [0; 1]), Err(cause) if cause.kind() == std::io::ErrorKind::WouldBlock)
    };
    let mut closed = 0;
    while closed < 250 && begun.elapsed() < SOON {
        closed = open.iter().filter(|stream| is_closed(stream)).count();
    }
    assert!(closed >= 250, "{closed} of 300");
}

fn large_headers(world: &World) {
    let request = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "b".repeat(100_000));
    for _ in 0..20 {
        let answer = said(connection(world, [127, 0, 0, 67]), request.as_bytes());
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    is_slowed_down(world, [127, 0, 0, 67]);
}

/// Who asks for ordinary things after all that has to wait.
fn is_slowed_down(world: &World, from: [u8; 4]) {
    let ask = || said(connection(world, from), b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let answers: Vec<String> = (0..30).map(|_| ask().chars().skip(9).take(3).collect()).collect();
    assert!(answers.iter().any(|status| status == "429"), "{answers:?}");
}

fn large_bodies(world: &World) {
    let key = world.key("publishable_key");
    let head =
        format!("POST /rest/v1/films HTTP/1.1\r\nhost: x\r\napikey: {key}\r\ncontent-length: 99999999999\r\n\r\n");
    for _ in 0..20 {
        let answer = said(connection(world, [127, 0, 0, 68]), head.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    }
    is_slowed_down(world, [127, 0, 0, 68]);
}
