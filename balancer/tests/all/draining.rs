//! The end of a balancer, and another one that takes its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ntier_balancer::{Beside, Observe, start};
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::stage::{Client, GET, UPGRADE, ask, balance, echo, named, ok, operator, settings, status, until};

#[tokio::test]
async fn what_is_under_way_is_answered_and_nothing_new_is_taken() {
    let (asked, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let backend = tokio::spawn({
        let (asked, answer) = (asked.clone(), answer.clone());
        async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = Vec::new();
            stream.read_buf(&mut buffer).await.unwrap();
            asked.notify_one();
            answer.notified().await;
            tokio::io::AsyncWriteExt::write_all(&mut stream, ok("at last").as_bytes()).await.unwrap();
        }
    });
    let mut settings = settings(&[]);
    settings.backends = vec![crate::stage::origin(address)];
    let balancer = balance(settings).await;
    let mut idle = Client::connect(&balancer).await;
    let mut client = Client::connect(&balancer).await;
    client.say(GET).await;
    asked.notified().await;
    let place = balancer.address;
    let stopping = tokio::spawn(balancer.stop());
    assert!(idle.is_ended().await);
    until(async || tokio::net::TcpStream::connect(place).await.is_err()).await;
    answer.notify_one();
    let answer = client.hear(true).await.unwrap();
    assert_eq!((answer.body.as_str(), answer.header("connection")), ("at last", Some("close")));
    stopping.await.unwrap().unwrap();
    backend.await.unwrap();
}

#[tokio::test]
async fn it_is_not_ready_before_it_takes_nothing_new() {
    let backend = named("here").await;
    let mut settings = settings(&[&backend]);
    settings.times.grace = Duration::from_millis(300);
    let balancer = balance(settings).await;
    let ntier_balancer::settings::Place::Tcp(admin) = balancer.admin else { panic!() };
    let place = balancer.address;
    let stopping = tokio::spawn(balancer.stop());
    let mut operator = Client { stream: tokio::net::TcpStream::connect(admin).await.unwrap(), buffer: Vec::new() };
    until(async || operator.ask("GET /ready HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap().status == 503).await;
    let mut client = Client { stream: tokio::net::TcpStream::connect(place).await.unwrap(), buffer: Vec::new() };
    assert_eq!(client.ask(GET).await.unwrap().body, "here");
    drop(client);
    stopping.await.unwrap().unwrap();
}

#[tokio::test]
async fn websockets_are_told_to_come_back() {
    let backend = echo("").await;
    let mut settings = settings(&[&backend]);
    settings.times.drain = Duration::from_millis(5100);
    let balancer = balance(settings).await;
    let mut client = Client::connect(&balancer).await;
    assert_eq!(client.ask(UPGRADE).await.unwrap().status, 101);
    until(async || status(&balancer).await["tunnels"]["open"] == 1).await;
    let stopping = tokio::spawn(balancer.stop());
    let mut heard = Vec::new();
    client.stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, [0x88, 2, 0x03, 0xf4], "1012: the service restarts");
    drop(client);
    stopping.await.unwrap().unwrap();
}

#[tokio::test]
async fn security_s3_sockets_are_taken_only_where_the_settings_say() {
    let backend = named("here").await;
    let settings = settings(&[&backend]);
    let bound = |ip: [u8; 4]| std::net::TcpListener::bind((std::net::Ipv4Addr::from(ip), 0)).unwrap();
    let (theirs, before, redirect) = (bound([127, 0, 0, 1]), bound([127, 0, 0, 2]), bound([127, 0, 0, 3]));
    let place = |listener: &std::net::TcpListener| listener.local_addr().unwrap();
    let (kept, dropped) = (place(&theirs), [place(&before), place(&redirect)]);
    // The redirect is not asked for any more, and it listened elsewhere too.
    let beside = Beside { inherited: vec![redirect, before, theirs], ..Beside::default() };
    let balancer = start(settings, beside, Observe::Nothing).await.unwrap();
    assert_eq!(balancer.address, kept);
    assert_eq!(ask(&balancer, GET).await.body, "here");
    for place in dropped {
        assert!(tokio::net::TcpStream::connect(place).await.is_err(), "{place} is closed");
    }
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn another_balancer_takes_the_place_and_no_connection_is_lost() {
    let backend = named("here").await;
    let mut settings = settings(&[&backend]);
    // They pass connections to each other, also while they end.
    settings.workers = Some(3);
    let mut balancer = balance(settings.clone()).await;
    let place = balancer.address;
    let (is_over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let (is_over, answered) = (is_over.clone(), answered.clone());
        clients.spawn(async move {
            while !is_over.load(Ordering::SeqCst) {
                // Each on a connection of its own: that is where they get lost.
                let stream = tokio::net::TcpStream::connect(place).await.unwrap();
                let mut client = Client { stream, buffer: Vec::new() };
                assert_eq!(client.ask(GET).await.expect("an answer").body, "here");
                answered.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    for _ in 0..5 {
        let before = answered.load(Ordering::SeqCst);
        until(async || answered.load(Ordering::SeqCst) > before + 50).await;
        let sockets = balancer.sockets().unwrap();
        let next = start(settings.clone(), Beside { inherited: sockets, ..Beside::default() }, Observe::Nothing)
            .await
            .unwrap();
        assert_eq!(next.address, place);
        std::mem::replace(&mut balancer, next).stop().await.unwrap();
    }
    is_over.store(true, Ordering::SeqCst);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert_eq!(operator(&balancer, "/ready").await.0, 200);
    balancer.stop().await.unwrap();
}
