//! What passes through, and how.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ntier_balancer::settings::{Choice, HashBy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::stage::{
    Backend, Client, GET, PATIENCE, Reply, UPGRADE, ask, balance, echo, named, ok, operator, settings, status, until,
};

#[tokio::test]
async fn a_request_passes_with_what_is_known_of_its_client() {
    let backend = named("here").await;
    let balancer = balance(settings(&[&backend])).await;
    let text = "POST /rest/v1/films?id=eq.1 HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: keep-alive, x-hop\r\n\
        X-Hop: 1\r\napikey: k\r\ncontent-length: 5\r\n\r\nhello";
    let answer = ask(&balancer, text).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "here"));
    let heard = backend.last();
    assert!(heard.head.starts_with("POST /rest/v1/films?id=eq.1 HTTP/1.1\r\nhost: shop.example\r\n"), "{}", heard.head);
    assert!(
        heard.head.contains("apikey: k\r\n") && heard.head.contains("x-forwarded-for: 127.0.0.1\r\n"),
        "{}",
        heard.head
    );
    assert!(!heard.head.contains("6.6.6.6") && !heard.head.contains("x-hop"), "{}", heard.head);
    assert_eq!(heard.body, b"hello");
    let id = answer.header("x-request-id").unwrap();
    assert!(id.len() == 32 && heard.head.contains(id));
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn connections_to_backends_are_used_again() {
    let backend = named("here").await;
    let balancer = balance(settings(&[&backend])).await;
    let mut client = Client::connect(&balancer).await;
    for _ in 0..50 {
        assert_eq!(client.ask(GET).await.unwrap().body, "here");
    }
    assert_eq!(ask(&balancer, GET).await.body, "here");
    assert_eq!((backend.heard(), backend.connections()), (51, 1));
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn requests_that_come_at_once_are_answered_in_order() {
    let backend = Backend::start(|heard| Reply::Say(ok(heard.head.split(' ').nth(1).unwrap()))).await;
    let balancer = balance(settings(&[&backend])).await;
    let mut client = Client::connect(&balancer).await;
    let all: Vec<String> = (0..20).map(|at| format!("GET /{at} HTTP/1.1\r\nhost: h\r\n\r\n")).collect();
    client.say(&all.concat()).await;
    for at in 0..20 {
        assert_eq!(client.hear(true).await.unwrap().body, format!("/{at}"));
    }
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn a_connection_goes_on_whatever_is_asked_of_it_next() {
    let backend = Backend::start(|heard| Reply::Say(ok(&String::from_utf8_lossy(&heard.body)))).await;
    let balancer = balance(settings(&[&backend])).await;
    let mut client = Client::connect(&balancer).await;
    // First what is answered the short way, then what hyper knows, and what came behind it in one packet.
    let post = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\n";
    assert_eq!(client.ask(&format!("{post}whole")).await.unwrap().body, "whole");
    client.say(&format!("{post}in ")).await;
    // Meanwhile another is answered, so that the pieces are not read as one.
    assert_eq!(ask(&balancer, GET).await.body, "");
    client.say("2!GET / HTTP/1.1\r\nho").await;
    assert_eq!(client.hear(true).await.unwrap().body, "in 2!");
    client.say("st: h\r\n\r\n").await;
    assert_eq!(client.hear(true).await.unwrap().body, "");
    let chunks = "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    client.say(&format!("{post}first{chunks}{post}third")).await;
    for expected in ["first", "abc", "third"] {
        assert_eq!(client.hear(true).await.unwrap().body, expected);
    }
    let large = "x".repeat(100_000);
    let head = format!("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", large.len());
    assert_eq!(client.ask(&(head + &large)).await.unwrap().body, large);
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn nobody_works_for_a_client_that_has_left() {
    let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(&[]);
    settings.backends = vec![listener.local_addr().unwrap().to_string().parse().unwrap()];
    let serving = tokio::spawn(async move {
        let answer = [
            "",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        ];
        for begun in answer {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_buf(&mut Vec::with_capacity(4096)).await.unwrap();
            stream.write_all(begun.as_bytes()).await.unwrap();
            told.send("asked").unwrap();
            let rest = stream.read_to_end(&mut Vec::new()).await;
            told.send(if rest.is_ok_and(|length| length > 0) { "more" } else { "ended" }).unwrap();
        }
    });
    let balancer = balance(settings).await;
    for _ in 0..3 {
        let mut client = Client::connect(&balancer).await;
        client.say(GET).await;
        for expected in ["asked", "ended"] {
            assert_eq!(timeout(PATIENCE, ended.recv()).await.unwrap(), Some(expected));
            client.stream.shutdown().await.unwrap();
        }
    }
    serving.await.unwrap();
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn bodies_end_as_their_backends_say() {
    let backend = Backend::start(|heard| {
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nx-sum: 5\r\n\r\n";
        match heard.head.split(' ').nth(1).unwrap() {
            "/chunked" => Reply::Say(chunked.into()),
            "/close" => Reply::Last("HTTP/1.1 200 OK\r\n\r\nuntil the end".into()),
            "/none" => Reply::Say("HTTP/1.1 204 No Content\r\n\r\n".into()),
            "/same" => Reply::Say("HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\ncontent-length: 5\r\n\r\n".into()),
            "/early" => Reply::Say(format!("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{}", ok("final"))),
            _ => Reply::Say("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n".into()),
        }
    })
    .await;
    let balancer = balance(settings(&[&backend])).await;
    let mut client = Client::connect(&balancer).await;
    let mut get =
        async |path: &str, more: &str| client.ask(&format!("{path} HTTP/1.1\r\nhost: h\r\n{more}\r\n")).await.unwrap();
    assert_eq!(get("GET /chunked", "").await.body, "abcde");
    assert_eq!(get("GET /chunked", "te: trailers\r\nconnection: te\r\n").await.body, "abcde[x-sum: 5]");
    assert_eq!(get("GET /none", "").await.status, 204);
    let same = client_answer(get("GET /same", "").await);
    assert_eq!(same, (304, String::new()));
    let head = get("HEAD /head", "").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("7")));
    assert_eq!(get("GET /early", "").await.body, "final");
    assert_eq!(get("GET /close", "").await.body, "until the end");
    assert_eq!(ask(&balancer, "GET /chunked HTTP/1.0\r\nhost: h\r\n\r\n").await.body, "abcde");
    balancer.stop().await.unwrap();
}

fn client_answer(answer: crate::stage::Answer) -> (u16, String) {
    (answer.status, answer.body)
}

#[tokio::test]
async fn a_client_that_waits_is_told_to_go_on_when_its_backend_says_so() {
    let backend = Backend::start(|heard| {
        let refused = "HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        if heard.head.contains("/refused") { Reply::Early(refused.into()) } else { Reply::Say(ok("taken")) }
    })
    .await;
    let balancer = balance(settings(&[&backend])).await;
    let mut client = Client::connect(&balancer).await;
    client.say("PUT /x HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
    assert_eq!(client.hear(true).await.unwrap().status, 100);
    client.say("hello").await;
    assert_eq!(client.hear(true).await.unwrap().body, "taken");
    assert_eq!(backend.last().body, b"hello");
    // Refused before a byte of the body was sent: the next bytes are not taken for it, as the connection ends.
    client.say("PUT /refused HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
    assert_eq!(client.hear(true).await.unwrap().status, 413);
    assert!(client.is_ended().await);
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn a_websocket_passes_both_ways() {
    let backend = echo("first").await;
    let balancer = balance(settings(&[&backend])).await;
    let mut client = Client::connect(&balancer).await;
    let handshake = "GET /realtime/v1/websocket HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-key: k\r\n\r\n";
    let answer = client.ask(handshake).await.unwrap();
    assert_eq!(
        (answer.status, answer.header("upgrade"), answer.header("sec-websocket-accept")),
        (101, Some("websocket"), Some("a"))
    );
    assert!(backend.connections() == 1);
    client.say("then what the client says").await;
    let mut heard = std::mem::take(&mut client.buffer);
    while heard.len() < "firstthen what the client says".len() {
        assert!(client.stream.read_buf(&mut heard).await.unwrap() > 0);
    }
    assert_eq!(heard, b"firstthen what the client says");
    assert_eq!(status(&balancer).await["tunnels"]["open"], 1);
    drop(client);
    until(async || status(&balancer).await["tunnels"]["open"] == 0).await;
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn websockets_are_spread_evenly_however_long_they_stay() {
    let backends = [echo("").await, echo("").await, echo("").await];
    let balancer = balance(settings(&backends.each_ref())).await;
    let mut clients = Vec::new();
    for _ in 0..12 {
        let mut client = Client::connect(&balancer).await;
        assert_eq!(client.ask(UPGRADE).await.unwrap().status, 101);
        clients.push(client);
    }
    assert_eq!(backends.each_ref().map(Backend::connections), [4, 4, 4]);
    drop(clients);
    until(async || status(&balancer).await["tunnels"]["open"] == 0).await;
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn a_large_body_passes_both_ways_while_little_is_kept() {
    const PIECES: usize = 512;
    let backend = Backend::start(|_| Reply::Echo("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".into())).await;
    // It answers while it still reads: what goes in comes out.
    let echo = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = echo.local_addr().unwrap();
    let echoing = tokio::spawn(async move {
        let (mut stream, _) = echo.accept().await.unwrap();
        let mut buffer = Vec::new();
        while !buffer.windows(4).any(|four| four == b"\r\n\r\n") {
            stream.read_buf(&mut buffer).await.unwrap();
        }
        let end = buffer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        stream.write_all(&buffer[end..]).await.unwrap();
        let (mut reads, mut writes) = stream.split();
        let _ = tokio::io::copy(&mut reads, &mut writes).await;
    });
    let mut settings = settings(&[&backend]);
    settings.backends = vec![crate::stage::origin(address)];
    let balancer = balance(settings).await;
    let client = Client::connect(&balancer).await;
    let (mut reads, mut writes) = client.stream.into_split();
    let piece = "x".repeat(64 << 10);
    let sending = tokio::spawn(async move {
        writes.write_all(b"PUT / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        for _ in 0..PIECES {
            writes.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await.unwrap();
        }
        writes.write_all(b"0\r\n\r\n").await.unwrap();
        writes
    });
    let (mut all, mut last) = (0, Vec::new());
    let mut buffer = vec![0; 64 << 10];
    while !last.ends_with(b"0\r\n\r\n") {
        let length = reads.read(&mut buffer).await.unwrap();
        assert!(length > 0, "it ends too soon, after {all}");
        all += length;
        last = [&last[last.len().saturating_sub(8)..], &buffer[..length]].concat();
    }
    assert!(all >= PIECES * (64 << 10), "{all}");
    drop(sending.await.unwrap());
    echoing.abort();
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn http_2_passes_without_tls_to_whoever_begins_with_it() {
    let backend = Backend::start(|heard| {
        Reply::Say(ok(&format!("{}|{}", heard.head.split(' ').nth(1).unwrap(), String::from_utf8_lossy(&heard.body))))
    })
    .await;
    let balancer = balance(settings(&[&backend])).await;
    let stream = TcpStream::connect(balancer.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut under_way = Vec::new();
    for at in 0..20 {
        let request = Request::post(format!("http://shop.example/{at}"))
            .version(Version::HTTP_2)
            .body(Full::new(Bytes::from(format!("body {at}"))).boxed())
            .unwrap();
        under_way.push(sender.send_request(request));
    }
    for (at, answer) in under_way.into_iter().enumerate() {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, format!("/{at}|body {at}"));
    }
    let heard = backend.last();
    assert!(
        heard.head.contains("\r\nhost: shop.example\r\n") && heard.head.contains("\r\ncontent-length: "),
        "{}",
        heard.head
    );
    // Without a length it comes in chunks, and its trailers with it.
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", "1".parse().unwrap());
    let frames = [Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from("abc"))), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(futures_stream(frames)).boxed();
    let answer = sender.send_request(Request::post("http://h/t").body(body).unwrap()).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "/t|abc[x-sum: 1]");
    drop(sender);
    connection.abort();
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn a_websocket_passes_on_a_stream_of_http_2() {
    let backend = echo("first").await;
    let balancer = balance(settings(&[&backend])).await;
    let stream = TcpStream::connect(balancer.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    // The server says that it takes them; that has to be heard first.
    let body = || Full::new(Bytes::new());
    until(async || sender.ready().await.is_ok()).await;
    let plain = Request::get("http://h/").body(body()).unwrap();
    drop(sender.send_request(plain).await);
    let request = Request::connect("http://h/realtime/v1/websocket")
        .extension(hyper::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(body())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let heard = backend.last().head;
    assert!(heard.starts_with("GET /realtime/v1/websocket HTTP/1.1\r\nhost: h\r\n"), "{heard}");
    assert!(heard.contains("sec-websocket-key: ") && heard.contains("upgrade: websocket\r\n"), "{heard}");
    let mut stream = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    stream.write_all(b"then this").await.unwrap();
    let mut text = vec![0; "firstthen this".len()];
    stream.read_exact(&mut text).await.unwrap();
    assert_eq!(text, b"firstthen this");
    drop((stream, sender));
    connection.abort();
    balancer.stop().await.unwrap();
}

/// A stream of what is there already.
fn futures_stream<T>(items: impl IntoIterator<Item = T, IntoIter: Unpin>) -> impl futures_util::Stream<Item = T> {
    futures_util::stream::iter(items)
}

#[tokio::test]
async fn each_choice_asks_all_backends_and_a_key_asks_one() {
    for (choice, spreads) in
        [(Choice::RoundRobin, true), (Choice::LeastPending, true), (Choice::PeakEwma, true), (Choice::Hash, false)]
    {
        let (one, other) = (named("one").await, named("other").await);
        let mut settings = settings(&[&one, &other]);
        settings.choice = choice;
        settings.hash_by = HashBy::Header("apikey".parse().unwrap());
        let balancer = balance(settings).await;
        let mut counts = BTreeMap::<String, u32>::new();
        let mut client = Client::connect(&balancer).await;
        for _ in 0..100 {
            let body = client.ask("GET / HTTP/1.1\r\nhost: h\r\napikey: k\r\n\r\n").await.unwrap().body;
            *counts.entry(body).or_default() += 1;
        }
        assert_eq!(counts.len(), if spreads { 2 } else { 1 }, "{choice:?} {counts:?}");
        if choice == Choice::RoundRobin {
            assert!(counts.values().all(|count| *count == 50), "{counts:?}");
        }
        balancer.stop().await.unwrap();
    }
}

#[tokio::test]
async fn clients_behind_a_proxy_are_spread_by_their_own_addresses() {
    let (one, other) = (named("one").await, named("other").await);
    let mut settings = settings(&[&one, &other]);
    (settings.choice, settings.hash_by) = (Choice::Hash, HashBy::Address);
    settings.trusted_proxy = vec!["127.0.0.1".parse().unwrap()];
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    settings.access_log = ntier_balancer::settings::AccessLog::File(log.clone());
    let balancer = balance(settings).await;
    let mut client = Client::connect(&balancer).await;
    let mut asked = BTreeMap::<String, Vec<usize>>::new();
    for at in (0..64).chain(0..64) {
        let text = format!("GET / HTTP/1.1\r\nhost: h\r\nx-forwarded-for: 198.51.100.{at}\r\n\r\n");
        asked.entry(client.ask(&text).await.unwrap().body).or_default().push(at);
    }
    assert_eq!(asked.len(), 2);
    for clients in asked.values() {
        let (first, again) = clients.split_at(clients.len() / 2);
        assert_eq!(first, again, "each comes to the same one again");
    }
    until(async || std::fs::read_to_string(&log).unwrap().contains(r#""client":"198.51.100.63""#)).await;
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn a_proxy_that_is_trusted_says_who_the_client_is() {
    let backend = named("here").await;
    let mut settings = settings(&[&backend]);
    settings.trusted_proxy = vec!["127.0.0.1".parse().unwrap()];
    let balancer = balance(settings).await;
    let text = "GET / HTTP/1.1\r\nhost: inner\r\nx-forwarded-for: 198.51.100.7\r\nx-forwarded-proto: https\r\nx-request-id: theirs\r\n\r\n";
    ask(&balancer, text).await;
    let head = backend.last().head;
    let local = IpAddr::from(Ipv4Addr::LOCALHOST);
    assert!(head.contains(&format!("x-forwarded-for: 198.51.100.7, {local}\r\n")), "{head}");
    assert!(head.contains("x-forwarded-proto: https\r\n") && head.contains("x-request-id: theirs\r\n"), "{head}");
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn security_h4_what_could_be_understood_in_two_ways_is_refused_or_said_anew() {
    let backend = named("here").await;
    let balancer = balance(settings(&[&backend])).await;
    for (text, expected) in [
        ("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello", 400),
        ("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: +5\r\n\r\nhello", 400),
        ("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5, 5x\r\n\r\nhello", 400),
        ("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nhost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: h\r\nx: a\r\n b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: h\r\nx\0: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: h\r\nx: a\rb\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: h\r\nhost: other\r\n\r\n", 400),
        ("CONNECT elsewhere:443 HTTP/1.1\r\nhost: elsewhere:443\r\n\r\n", 405),
    ] {
        let before = backend.heard();
        let answer = Client::connect(&balancer).await.ask(text).await;
        assert_eq!(answer.map(|answer| answer.status), Some(expected), "{text:?}");
        assert_eq!(backend.heard(), before, "{text:?}");
    }
    // Both lengths: the chunks count (RFC 9112, 6.3), and the backend is told of them alone.
    let both =
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(ask(&balancer, both).await.status, 200);
    let heard = backend.last();
    assert!(heard.body == b"hello" && !heard.head.contains("content-length"), "{}", heard.head);
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn operators_are_told_how_it_is() {
    let backend = named("here").await;
    let balancer = balance(settings(&[&backend])).await;
    ask(&balancer, GET).await;
    assert_eq!(operator(&balancer, "/live").await.0, 200);
    assert_eq!(operator(&balancer, "/ready").await.0, 200);
    let name = backend.address.to_string();
    until(async || status(&balancer).await["backends"][0]["pending"] == 0).await;
    let status = status(&balancer).await;
    assert_eq!(status["backends"][0]["address"], name);
    assert_eq!((&status["requests"], &status["backends"][0]["answers"]), (&1.into(), &1.into()));
    let metrics = operator(&balancer, "/metrics").await.1;
    for line in [
        format!("ntier_balance_backend_answers_total{{backend=\"{name}\",status=\"2xx\"}} 1"),
        format!("ntier_balance_backend_first_byte_seconds_count{{backend=\"{name}\"}} 1"),
        format!("ntier_balance_backend_up{{backend=\"{name}\"}} 1"),
        "ntier_balance_requests_total 1".to_owned(),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }
    backend.kill().await;
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn the_access_log_tells_of_each_request_and_of_no_secret() {
    let backend = named("here").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let mut settings = settings(&[&backend]);
    settings.access_log = ntier_balancer::settings::AccessLog::File(path.clone());
    let balancer = balance(settings).await;
    let text = "POST /auth/v1/token?secret=canary HTTP/1.1\r\nhost: shop\r\nauthorization: Bearer canary\r\ncontent-length: 6\r\n\r\ncanary";
    let answer = ask(&balancer, text).await;
    until(async || std::fs::read_to_string(&path).unwrap().ends_with('\n')).await;
    let text = std::fs::read_to_string(&path).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    assert!(!text.contains("canary"), "{text}");
    for (name, expected) in [
        ("method", "POST".into()),
        ("path", "/auth/v1/token".into()),
        ("status", 200.into()),
        ("client", "127.0.0.1".into()),
        ("bytes_received", 6.into()),
        ("bytes_sent", 4.into()),
        ("attempts", 1.into()),
        ("whole", true.into()),
        ("request_id", serde_json::Value::from(answer.header("x-request-id").unwrap())),
        ("backend", backend.address.to_string().into()),
    ] {
        assert_eq!(line[name], expected, "{name}");
    }
    balancer.stop().await.unwrap();
}
