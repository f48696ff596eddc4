//! How much one client, or all of them, may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ntier_balancer::{Beside, Observe, Running, start};
use ntier_security::defence::{self, Defence};
use ntier_security::firewall::Rules;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

use crate::stage::{Backend, Client, GET, Reply, ask, balance, named, ok, settings, status, until};

#[tokio::test]
async fn security_h1_one_address_has_so_many_connections() {
    let backend = named("here").await;
    let mut settings = settings(&[&backend]);
    settings.limits.per_address = 2;
    let balancer = balance(settings).await;
    let (mut one, mut two) = (Client::connect(&balancer).await, Client::connect(&balancer).await);
    assert_eq!(one.ask(GET).await.unwrap().status, 200);
    assert_eq!(two.ask(GET).await.unwrap().status, 200);
    assert!(Client::connect(&balancer).await.is_ended().await);
    drop(one);
    until(async || {
        let mut again = Client::connect(&balancer).await;
        again.stream.write_all(GET.as_bytes()).await.is_ok() && again.hear(true).await.is_some()
    })
    .await;
    assert!(status(&balancer).await["turned_away"].as_u64().unwrap() >= 1);
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn security_h1_slow_clients_are_given_up() {
    let backend = named("here").await;
    let mut settings = settings(&[&backend]);
    settings.times.header = Duration::from_millis(50);
    settings.times.body_pause = Duration::from_millis(50);
    let balancer = balance(settings).await;
    // Nothing, half a head, a head after a request.
    assert!(Client::connect(&balancer).await.is_ended().await);
    let mut slow = Client::connect(&balancer).await;
    slow.say("GET / HTTP/1.1\r\nhos").await;
    until(async || slow.is_ended().await).await;
    let mut idle = Client::connect(&balancer).await;
    assert_eq!(idle.ask(GET).await.unwrap().status, 200);
    assert!(idle.is_ended().await);
    // Half a body.
    let answer = ask(&balancer, "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nhalf").await;
    assert!(answer.status == 408 && answer.body.contains("NTIER211"), "{answer:?}");
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn security_h1_whoever_does_not_read_is_given_up() {
    let large = Backend::start(|_| Reply::Say(ok(&"x".repeat(32 << 20)))).await;
    let mut settings = settings(&[&large]);
    settings.times.stall = Duration::from_millis(50);
    let balancer = balance(settings).await;
    let mut client = Client::connect(&balancer).await;
    client.say(GET).await;
    until(async || status(&balancer).await["connections"]["open"] == 0).await;
    balancer.stop().await.unwrap();
}

/// A client of HTTP/2 that takes no body.
async fn taking_nothing(balancer: &Running) -> (SendRequest<Empty<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let stream = tokio::net::TcpStream::connect(balancer.address).await.unwrap();
    let mut client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = client.initial_stream_window_size(0).handshake(TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn get() -> Request<Empty<Bytes>> {
    Request::get("http://h/").body(Empty::new()).unwrap()
}

#[tokio::test]
async fn security_h3_answers_that_are_whole_take_no_place_while_their_clients_take_none() {
    let backend = named("here").await;
    let mut settings = settings(&[&backend]);
    settings.limits.pending = 1;
    let balancer = balance(settings).await;
    let (mut sender, connection) = taking_nothing(&balancer).await;
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(sender.send_request(get()).await.unwrap());
        assert_eq!(answers.last().unwrap().status(), 200);
    }
    assert_eq!(ask(&balancer, GET).await.status, 200);
    connection.abort();
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn security_h3_who_takes_nothing_of_an_answer_is_given_up() {
    let large = Backend::start(|_| Reply::Say(ok(&"x".repeat(8 << 20)))).await;
    let mut settings = settings(&[&large]);
    settings.times.stall = Duration::from_millis(50);
    let balancer = balance(settings).await;
    let (mut sender, connection) = taking_nothing(&balancer).await;
    let answer = sender.send_request(get()).await.unwrap();
    assert_eq!(answer.status(), 200);
    until(async || status(&balancer).await["backends"][0]["pending"] == 0).await;
    drop(answer);
    connection.abort();
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn security_h1_heads_and_bodies_have_a_size() {
    let backend = named("here").await;
    let mut settings = settings(&[&backend]);
    settings.body_bytes = Some(10);
    let balancer = balance(settings).await;
    let long = format!("GET / HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", "a".repeat(20_000));
    assert_eq!(ask(&balancer, &long).await.status, 431);
    let many = format!("GET / HTTP/1.1\r\nhost: h\r\n{}\r\n", "x: a\r\n".repeat(200));
    assert_eq!(ask(&balancer, &many).await.status, 431);
    assert_eq!(ask(&balancer, "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 11\r\n\r\n").await.status, 413);
    let chunks =
        "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n";
    assert_eq!(ask(&balancer, chunks).await.status, 413);
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn security_h1_whoever_is_refused_while_sending_is_told() {
    let backend = named("here").await;
    let rules = Rules { most_body_bytes: Some(1000), ..Rules::default() };
    let defence = Defence::new(defence::Settings { rules, ..defence::Settings::default() }, Instant::now());
    let beside = Beside { defence: Some(Arc::new(defence)), ..Beside::default() };
    let balancer = start(settings(&[&backend]), beside, Observe::Nothing).await.unwrap();
    let mut client = Client::connect(&balancer).await;
    // As most clients do, all of it is written before anything is read.
    client.say(&format!("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", 10 << 20)).await;
    client.stream.write_all(&vec![b'x'; 10 << 20]).await.unwrap();
    assert_eq!(client.hear(true).await.unwrap().status, 413);
    assert_eq!(backend.heard(), 0);
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn requests_beyond_what_a_backend_takes_wait_for_a_while() {
    let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn({
        let (at_once, most) = (at_once.clone(), most.clone());
        async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (at_once, most) = (at_once.clone(), most.clone());
                tokio::spawn(async move {
                    let mut buffer = Vec::new();
                    while tokio::io::AsyncReadExt::read_buf(&mut stream, &mut buffer).await.unwrap_or(0) > 0 {
                        // A head may come in pieces.
                        if !buffer.ends_with(b"\r\n\r\n") {
                            continue;
                        }
                        most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        for _ in 0..20 {
                            tokio::task::yield_now().await;
                        }
                        at_once.fetch_sub(1, Ordering::SeqCst);
                        buffer.clear();
                        stream.write_all(ok("done").as_bytes()).await.unwrap();
                    }
                });
            }
        }
    });
    let mut limited = settings(&[]);
    limited.backends = vec![crate::stage::origin(address)];
    limited.limits.pending = 2;
    limited.limits.queue = Duration::from_secs(20);
    let balancer = Arc::new(balance(limited).await);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let balancer = balancer.clone();
        clients.spawn(async move {
            let mut client = Client::connect(&balancer).await;
            for _ in 0..5 {
                assert_eq!(client.ask(GET).await.unwrap().status, 200);
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert!(most.load(Ordering::SeqCst) <= 2);
    Arc::into_inner(balancer).unwrap().stop().await.unwrap();
    serving.abort();
}

#[tokio::test]
async fn security_h3_whoever_waited_long_enough_is_put_off() {
    let silent = Backend::start(|_| Reply::Silence).await;
    let mut settings = settings(&[&silent]);
    settings.limits.pending = 1;
    settings.limits.queue = Duration::from_millis(30);
    settings.times.drain = Duration::from_millis(10);
    let balancer = balance(settings).await;
    let mut first = Client::connect(&balancer).await;
    first.say(GET).await;
    until(async || silent.heard() == 1).await;
    let answer = ask(&balancer, GET).await;
    assert!(answer.status == 503 && answer.header("retry-after") == Some("1"), "{answer:?}");
    assert!(answer.body.contains("NTIER202"), "{answer:?}");
    balancer.stop().await.unwrap();
}
