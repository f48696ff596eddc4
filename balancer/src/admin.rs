//! What operators ask: how it is, as JSON, and figures for Prometheus. On a listener of its own, which is not for the network.

use std::convert::Infallible;
use std::fmt::Write;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::backend::Health;
use crate::figures::{self, BOUNDS_US, Count};
use crate::listen;
use crate::outbound::Outbound;
use crate::plan::{Plan, Seat};
use crate::settings::Place;
use crate::worker::{Counts, Worker};

/// Where operators ask.
pub struct Door {
    pub place: Place,
    listener: Listener,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Takes the place. A socket in the file system is for its owner alone; one that is there already is replaced in one step, so that
/// whoever asks meets the old balancer or the new one.
pub fn bind(place: &Place) -> io::Result<Door> {
    match place {
        Place::Tcp(address) => {
            // Whoever takes this balancer's place listens beside it for a while.
            let listener = listen::listener(*address)?;
            let place = Place::Tcp(listener.local_addr()?);
            Ok(Door { place, listener: Listener::Tcp(TcpListener::from_std(listener)?) })
        }
        Place::Unix(path) => {
            let listener = bind_unix(path)?;
            Ok(Door { place: place.clone(), listener: Listener::Unix(UnixListener::from_std(listener)?) })
        }
    }
}

fn bind_unix(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&beside);
    let listener = std::os::unix::net::UnixListener::bind(&beside)?;
    listener.set_nonblocking(true)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&beside, path)?;
    Ok(listener)
}

/// Which socket is there: another balancer may have put its own in the place.
pub fn identity(place: &Place) -> Option<u64> {
    match place {
        Place::Tcp(_) => None,
        Place::Unix(path) => std::fs::metadata(path).ok().map(|metadata| metadata.ino()),
    }
}

/// Answers until it is aborted.
pub async fn serve(door: Door, operators: Arc<Operators>) {
    loop {
        let operators = operators.clone();
        let accepted = match &door.listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(connection(stream, operators));
            }),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(connection(stream, operators));
            }),
        };
        if accepted.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, operators: Arc<Operators>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = operators.answer(request.method(), request.uri().path()).map(Outbound::whole);
        async move { Ok::<_, Infallible>(response) }
    });
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// What operators may know.
pub struct Operators {
    plans: watch::Receiver<Arc<Plan>>,
    workers: Vec<Arc<Worker>>,
    stopped: watch::Receiver<bool>,
    began: Instant,
}

impl Operators {
    pub fn new(plans: watch::Receiver<Arc<Plan>>, workers: Vec<Arc<Worker>>, stopped: watch::Receiver<bool>) -> Self {
        Self { plans, workers, stopped, began: Instant::now() }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Bytes> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
        }
        match path {
            "/live" => text(StatusCode::OK, "live\n".into()),
            "/ready" if *self.stopped.borrow() => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n".into()),
            "/ready" if self.plan().usable(Instant::now()) == 0 => {
                text(StatusCode::SERVICE_UNAVAILABLE, "no backend is up\n".into())
            }
            "/ready" => text(StatusCode::OK, "ready\n".into()),
            "/status" => typed(StatusCode::OK, "application/json", format!("{:#}\n", self.status())),
            "/metrics" => typed(StatusCode::OK, "text/plain; version=0.0.4", self.metrics()),
            _ => text(StatusCode::NOT_FOUND, "there are /live, /ready, /status and /metrics\n".into()),
        }
    }

    fn plan(&self) -> Arc<Plan> {
        self.plans.borrow().clone()
    }

    fn total(&self, of: impl Fn(&Counts) -> &Count) -> u64 {
        self.workers.iter().fold(0, |sum: u64, worker| sum.wrapping_add(of(&worker.counts).get()))
    }

    fn status(&self) -> Value {
        let (plan, now) = (self.plan(), Instant::now());
        let backends: Vec<Value> = plan.seats.iter().map(|seat| backend_status(seat, now)).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "process": std::process::id(),
            "uptime_s": self.began.elapsed().as_secs(),
            "stopping": *self.stopped.borrow(),
            "workers": self.workers.len(),
            "choice": plan.settings.choice.name(),
            "connections": { "open": self.total(|counts| &counts.open), "total": self.total(|counts| &counts.connections) },
            "turned_away": self.total(|counts| &counts.turned_away),
            "denied": self.total(|counts| &counts.denied),
            "waiting": self.total(|counts| &counts.waiting),
            "tunnels": { "open": self.total(|counts| &counts.open_tunnels), "total": self.total(|counts| &counts.tunnels) },
            "requests": self.total(|counts| &counts.requests),
            "retries": self.total(|counts| &counts.retries),
            "retries_over_budget": self.total(|counts| &counts.unfunded),
            "answered_itself": (1..6).map(|class| self.total(|counts| &counts.own[class])).sum::<u64>(),
            "backends": backends,
        })
    }

    fn metrics(&self) -> String {
        let mut out = Metrics(String::new());
        let all = [
            ("connections_total", "Connections of clients", self.total(|counts| &counts.connections)),
            ("requests_total", "Requests of clients", self.total(|counts| &counts.requests)),
            ("retries_total", "Requests that went to another backend", self.total(|counts| &counts.retries)),
            (
                "retries_over_budget_total",
                "Requests that did not, as too many had",
                self.total(|counts| &counts.unfunded),
            ),
            (
                "turned_away_total",
                "Connections that were refused, as there were too many",
                self.total(|counts| &counts.turned_away),
            ),
            (
                "denied_total",
                "Requests that were not let in, by rules, bans or limits",
                self.total(|counts| &counts.denied),
            ),
            ("tunnels_total", "Websockets", self.total(|counts| &counts.tunnels)),
        ];
        for (name, help, value) in all {
            out.head(name, "counter", help);
            out.line(name, "", value);
        }
        out.head("connections", "gauge", "Connections of clients that are open");
        out.line("connections", "", self.total(|counts| &counts.open));
        out.head("tunnels", "gauge", "Websockets that are open");
        out.line("tunnels", "", self.total(|counts| &counts.open_tunnels));
        out.head("own_answers_total", "counter", "Answers of the balancer itself");
        for class in 1..6 {
            out.line(
                "own_answers_total",
                &format!("{{status=\"{class}xx\"}}"),
                self.total(|counts| &counts.own[class]),
            );
        }
        self.backends(&mut out);
        out.0
    }

    fn backends(&self, out: &mut Metrics) {
        let (plan, now) = (self.plan(), Instant::now());
        let sums: Vec<_> = plan
            .seats
            .iter()
            .map(|seat| (seat, figures::sum(seat.backend.lanes.iter().map(|lane| &lane.figures))))
            .collect();
        out.head("backend_up", "gauge", "1 where it may be asked");
        for (seat, _) in &sums {
            let seen = seat.backend.seen(seat.weight, seat.backend.clock.millis(now), Duration::ZERO);
            out.line("backend_up", &label(seat, ""), u64::from(seen.usable));
        }
        out.head("backend_pending", "gauge", "Requests under way");
        for (seat, _) in &sums {
            out.line("backend_pending", &label(seat, ""), u64::from(seat.backend.pending.load(Relaxed)));
        }
        out.head("backend_ejected", "gauge", "1 while it is left alone, as it failed requests");
        for (seat, _) in &sums {
            let is_ejected = seat.backend.is_ejected(seat.backend.clock.millis(now));
            out.line("backend_ejected", &label(seat, ""), u64::from(is_ejected));
        }
        out.head("backend_idle_connections", "gauge", "Connections that wait for a request");
        for (seat, _) in &sums {
            let idle: usize = seat.backend.lanes.iter().map(crate::backend::Lane::idle).sum();
            out.line("backend_idle_connections", &label(seat, ""), idle as u64);
        }
        let counters: [(&str, &str, Of); 5] = [
            ("backend_connections_total", "Connections made", |sum| sum.connections),
            ("backend_refused_total", "Connections that could not be made", |sum| sum.refused),
            ("backend_failures_total", "Requests without an answer, or with half of one", |sum| sum.failures),
            ("backend_sent_bytes_total", "Bodies of answers", |sum| sum.sent),
            ("backend_received_bytes_total", "Bodies of requests", |sum| sum.received),
        ];
        for (name, help, of) in counters {
            out.head(name, "counter", help);
            for (seat, sum) in &sums {
                out.line(name, &label(seat, ""), of(sum));
            }
        }
        out.head("backend_answers_total", "counter", "Answers by status");
        for (seat, sum) in &sums {
            for (class, count) in sum.answers.iter().enumerate().skip(1) {
                out.line("backend_answers_total", &label(seat, &format!(",status=\"{class}xx\"")), *count);
            }
        }
        out.head("backend_first_byte_seconds", "histogram", "From the request to the first byte of its answer");
        for (seat, sum) in &sums {
            for (bound, count) in BOUNDS_US.iter().zip(&sum.times) {
                let bound = Duration::from_micros(*bound).as_secs_f64();
                out.line("backend_first_byte_seconds_bucket", &label(seat, &format!(",le=\"{bound}\"")), *count);
            }
            let all = sum.times[BOUNDS_US.len()];
            out.line("backend_first_byte_seconds_bucket", &label(seat, ",le=\"+Inf\""), all);
            out.line("backend_first_byte_seconds_sum", &label(seat, ""), sum.seconds);
            out.line("backend_first_byte_seconds_count", &label(seat, ""), all);
        }
    }
}

fn label(seat: &Seat, more: &str) -> String {
    format!("{{backend=\"{}\"{more}}}", seat.backend.name)
}

fn backend_status(seat: &Seat, now: Instant) -> Value {
    let backend = &seat.backend;
    let sum = figures::sum(backend.lanes.iter().map(|lane| &lane.figures));
    let now_ms = backend.clock.millis(now);
    let state = match backend.health() {
        Health::Down => "down",
        _ if backend.is_ejected(now_ms) => "ejected",
        health => health.name(),
    };
    json!({
        "address": backend.name,
        "state": state,
        "weight": seat.weight,
        "tunnels": backend.tunnels.load(Relaxed),
        "pending": backend.pending.load(Relaxed),
        "idle_connections": backend.lanes.iter().map(crate::backend::Lane::idle).sum::<usize>(),
        "answers": sum.answers.iter().sum::<u64>(),
        "server_errors": sum.answers[5],
        "failures": sum.failures,
        "refused": sum.refused,
        "recent_ms": backend.recent(now).map(|time| (time.as_secs_f64() * 1e5).round() / 100.0),
        "ejections": backend.ejections.load(Relaxed),
        "ejected_for_s": backend.ejected_until.load(Relaxed).saturating_sub(now_ms) / 1000,
    })
}

/// One of the figures.
type Of = fn(&figures::Sum) -> u64;

/// Prometheus' text.
struct Metrics(String);

impl Metrics {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP ntier_balance_{name} {help}\n# TYPE ntier_balance_{name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "ntier_balance_{name}{labels} {value}");
    }
}

fn text(status: StatusCode, body: String) -> Response<Bytes> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, media_type: &'static str, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
