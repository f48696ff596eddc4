//! Backends that fail, and what clients notice of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ntier_balancer::settings::{Choice, Ejection, Health};
use ntier_balancer::{Beside, Member, Observe, start};
use tokio::sync::watch;

use crate::stage::{Backend, Client, GET, Reply, ask, balance, named, ok, origin, settings, status, until};

const POST: &str = "POST /rest/v1/films HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\nretry-after: 7\r\n\r\nbusy";

#[tokio::test]
async fn a_backend_that_is_killed_costs_no_request_that_may_go_again() {
    let (one, other) = (named("one").await, named("other").await);
    let balancer = balance(settings(&[&one, &other])).await;
    let mut client = Client::connect(&balancer).await;
    for _ in 0..20 {
        assert_eq!(client.ask(GET).await.unwrap().status, 200);
    }
    one.kill().await;
    for _ in 0..200 {
        let answer = client.ask(GET).await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "other"));
    }
    // Nothing was sent to it: that may go again, whatever it is.
    assert_eq!(client.ask(POST).await.unwrap().status, 200);
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn a_connection_that_was_closed_while_it_was_idle_costs_nothing() {
    // Each connection takes one request, and says nothing of it.
    let backend = Backend::start(|_| Reply::Last(ok("here"))).await;
    let balancer = balance(settings(&[&backend])).await;
    let mut client = Client::connect(&balancer).await;
    for text in [GET, POST, GET, POST, GET] {
        let answer = client.ask(text).await.unwrap();
        // A write that met the closing connection has an unknown fate, which the client is told.
        assert!(answer.status == 200 || (text == POST && answer.status == 502), "{answer:?}");
    }
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn a_write_without_a_key_is_never_sent_twice() {
    let one = Backend::start(|_| Reply::Close).await;
    let other = Backend::start(|_| Reply::Close).await;
    let balancer = balance(settings(&[&one, &other])).await;
    let answer = ask(&balancer, POST).await;
    assert_eq!(answer.status, 502);
    assert!(answer.body.contains("NTIER204") && answer.header("retry-after").is_none(), "{answer:?}");
    assert_eq!(one.heard() + other.heard(), 1);
    // With a key it is the backend that sees to it.
    let keyed = POST.replace("\r\n\r\n", "\r\nidempotency-key: 1\r\n\r\n");
    assert_eq!(ask(&balancer, &keyed).await.status, 502);
    assert_eq!(one.heard() + other.heard(), 3);
    assert!(one.last().body == b"hello" && other.last().body == b"hello", "it is sent whole each time");
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn half_an_answer_is_not_asked_for_again() {
    let heads = Backend::start(|_| Reply::Last("HTTP/1.1 200 O".into())).await;
    let halves = Backend::start(|_| Reply::Last("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".into())).await;
    let nonsense = Backend::start(|_| Reply::Say("SSH-2.0-OpenSSH_9.2\r\n\r\n".into())).await;
    let both = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let smuggles = Backend::start(move |_| Reply::Say(both.into())).await;
    for (backend, expected) in [
        (&heads, Some((502, "NTIER204"))),
        (&halves, None),
        (&nonsense, Some((502, "NTIER205"))),
        (&smuggles, Some((502, "NTIER205"))),
    ] {
        let balancer = balance(settings(&[backend])).await;
        let mut client = Client::connect(&balancer).await;
        let answer = client.ask(GET).await;
        match expected {
            Some((status, code)) => {
                let answer = answer.unwrap();
                assert!(answer.status == status && answer.body.contains(code), "{answer:?}");
            }
            // The client notices that it is not whole.
            None => assert!(answer.is_none(), "{answer:?}"),
        }
        assert_eq!(backend.heard(), 1);
        balancer.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_backend_that_takes_too_long_is_given_up() {
    let silent = Backend::start(|_| Reply::Silence).await;
    let mut settings = settings(&[&silent]);
    settings.times.answer = Duration::from_millis(50);
    let balancer = balance(settings).await;
    let answer = ask(&balancer, GET).await;
    assert!(answer.status == 504 && answer.body.contains("NTIER206"), "{answer:?}");
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn a_read_that_is_refused_is_asked_for_elsewhere() {
    let busy = Backend::start(|_| Reply::Say(BUSY.into())).await;
    let good = named("good").await;
    let balancer = balance(settings(&[&busy, &good])).await;
    let mut client = Client::connect(&balancer).await;
    for _ in 0..3 {
        assert_eq!(client.ask(GET).await.unwrap().body, "good");
    }
    balancer.stop().await.unwrap();
    // Where nobody else is, its own answer is passed on.
    let balancer = balance(settings(&[&busy])).await;
    let answer = ask(&balancer, GET).await;
    assert_eq!((answer.status, answer.body.as_str(), answer.header("retry-after")), (503, "busy", Some("7")));
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn without_a_backend_the_answer_says_when_to_try_again() {
    let gone = named("gone").await;
    let settings = settings(&[&gone]);
    gone.kill().await;
    let balancer = balance(settings).await;
    let answer = ask(&balancer, GET).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(!answer.body.contains("127.0.0.1"), "{answer:?}");
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn backends_are_asked_how_they_are() {
    let is_well = Arc::new(AtomicBool::new(false));
    let checks = Arc::new(AtomicUsize::new(0));
    let ill = {
        let (is_well, checks) = (is_well.clone(), checks.clone());
        Backend::start(move |heard| {
            if !heard.head.starts_with("GET /ready ") {
                return Reply::Say(ok("ill"));
            }
            checks.fetch_add(1, Ordering::SeqCst);
            if is_well.load(Ordering::SeqCst) {
                Reply::Say(ok("ready"))
            } else {
                Reply::Say("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".into())
            }
        })
        .await
    };
    let well = named("well").await;
    let mut settings = settings(&[&ill, &well]);
    let policy = Health { path: Some("/ready".into()), interval: Duration::from_millis(5), ..settings.health };
    settings.health = policy;
    let balancer = balance(settings).await;
    // The first answer is heard before the first request.
    for _ in 0..20 {
        assert_eq!(ask(&balancer, GET).await.body, "well");
    }
    assert_eq!(balancer_state(&balancer, &ill).await, "down");
    is_well.store(true, Ordering::SeqCst);
    until(async || balancer_state(&balancer, &ill).await == "up").await;
    assert!(checks.load(Ordering::SeqCst) >= 2);
    until(async || ask(&balancer, GET).await.body == "ill").await;
    balancer.stop().await.unwrap();
}

async fn balancer_state(balancer: &ntier_balancer::Running, backend: &Backend) -> String {
    let status = status(balancer).await;
    let all = status["backends"].as_array().unwrap();
    let one = all.iter().find(|one| one["address"] == backend.address.to_string()).unwrap();
    one["state"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_backend_that_fails_requests_is_left_alone_for_a_while() {
    let bad = Backend::start(|_| Reply::Say(BUSY.into())).await;
    let good = named("good").await;
    let mut settings = settings(&[&bad, &good]);
    settings.choice = Choice::RoundRobin;
    settings.retries.most = 0;
    settings.ejection =
        Ejection { failures: 3, first: Duration::from_mins(1), longest: Duration::from_hours(1), share: 50 };
    let balancer = balance(settings).await;
    let mut client = Client::connect(&balancer).await;
    let mut failed = 0;
    for _ in 0..40 {
        failed += usize::from(client.ask(GET).await.unwrap().status == 503);
    }
    assert_eq!((failed, bad.heard()), (3, 3));
    assert_eq!(balancer_state(&balancer, &bad).await, "ejected");
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn what_a_request_brings_about_by_itself_does_not_speak_against_its_backend() {
    for status in ["502 Bad Gateway", "504 Gateway Timeout", "503 Service Unavailable"] {
        let says = || Backend::start(move |_| Reply::Say(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")));
        let (one, other) = (says().await, says().await);
        let mut settings = settings(&[&one, &other]);
        settings.choice = Choice::RoundRobin;
        settings.retries.most = 0;
        settings.ejection.failures = 3;
        let balancer = balance(settings).await;
        let mut client = Client::connect(&balancer).await;
        for _ in 0..20 {
            assert!(status.starts_with(&client.ask(GET).await.unwrap().status.to_string()));
        }
        assert_eq!((one.heard(), other.heard()), (10, 10), "{status}");
        balancer.stop().await.unwrap();
    }
}

#[tokio::test]
async fn the_last_backend_that_is_not_down_is_never_left_alone() {
    let busy = Backend::start(|heard| {
        Reply::Say(if heard.head.starts_with("GET /ready") { ok("ready") } else { BUSY.into() })
    })
    .await;
    let down = Backend::start(|_| Reply::Close).await;
    let mut settings = settings(&[&busy, &down]);
    settings.health.path = Some("/ready".into());
    settings.ejection.failures = 3;
    let balancer = balance(settings).await;
    assert_eq!(balancer_state(&balancer, &down).await, "down");
    let mut client = Client::connect(&balancer).await;
    for _ in 0..10 {
        assert_eq!(client.ask(GET).await.unwrap().body, "busy");
    }
    assert_eq!(balancer_state(&balancer, &busy).await, "up");
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn retries_end_with_their_budget() {
    let one = Backend::start(|_| Reply::Close).await;
    let other = Backend::start(|_| Reply::Close).await;
    let mut settings = settings(&[&one, &other]);
    settings.ejection.failures = 0;
    settings.retries.budget = 10;
    let balancer = balance(settings).await;
    let mut client = Client::connect(&balancer).await;
    for _ in 0..100 {
        assert_eq!(client.ask(GET).await.unwrap().status, 502);
    }
    let asked = one.heard() + other.heard();
    // A tenth, and a few that are always allowed in a second.
    assert!((115..=150).contains(&asked), "{asked}");
    assert!(status(&balancer).await["retries_over_budget"].as_u64().unwrap() > 50);
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn a_large_body_that_was_sent_is_not_sent_again() {
    let one = Backend::start(|_| Reply::Close).await;
    let other = Backend::start(|_| Reply::Close).await;
    let balancer = balance(settings(&[&one, &other])).await;
    let body = "x".repeat(200_000);
    let put = format!("PUT /storage/v1/object/b/k HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    assert_eq!(ask(&balancer, &put).await.status, 502);
    assert_eq!(one.heard() + other.heard(), 1);
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn backends_come_and_go_while_requests_are_answered() {
    let (one, other) = (named("one").await, named("other").await);
    let member = |backend: &Backend| Member { address: backend.address, weight: 1 };
    let (registrar, registered) = watch::channel(vec![member(&one)]);
    let balancer = start(settings(&[]), Beside { registered, ..Beside::default() }, Observe::Nothing).await.unwrap();
    assert_eq!(ask(&balancer, GET).await.body, "one");
    registrar.send_replace(vec![member(&one), member(&other)]);
    until(async || ask(&balancer, GET).await.body == "other").await;
    registrar.send_replace(vec![member(&other)]);
    until(async || status(&balancer).await["backends"].as_array().unwrap().len() == 1).await;
    until(async || ask(&balancer, GET).await.body == "other").await;
    for _ in 0..20 {
        assert_eq!(ask(&balancer, GET).await.body, "other");
    }
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn other_settings_are_in_force_while_connections_stay() {
    let (one, other) = (named("one").await, named("other").await);
    let first = settings(&[&one]);
    let balancer = balance(first.clone()).await;
    let mut client = Client::connect(&balancer).await;
    assert_eq!(client.ask(GET).await.unwrap().body, "one");
    balancer.reload(ntier_balancer::Settings { backends: vec![origin(other.address)], ..first }).await;
    loop {
        let answer = client.ask(GET).await.unwrap();
        assert_eq!(answer.status, 200);
        if answer.body == "other" {
            break;
        }
    }
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn names_of_backends_are_resolved() {
    let backend = named("here").await;
    let mut settings = settings(&[]);
    settings.backends = vec![format!("localhost:{}", backend.address.port()).parse().unwrap()];
    let balancer = balance(settings).await;
    until(async || ask(&balancer, GET).await.body == "here").await;
    balancer.stop().await.unwrap();
}
