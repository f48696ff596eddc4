//! Sockets: one single-threaded worker per core, each with its own listener on the same port.
//!
//! A worker at start takes its listener; in its loop it accepts and gives each connection a task; at the end it stops accepting, lets
//! the requests under way finish, and ends the rest after a while.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Semaphore, watch};
use tokio::time::{interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::crew::{Arrival, Crew, Share};
use crate::forward::{Front, Seated, forward};
use crate::guard;
use crate::http1::{self, HEADER_BYTES, HEADERS};
use crate::issued::PROOF;
use crate::observe::Observation;
use crate::outbound::Outbound;
use crate::plan::Plan;
use crate::preface::{self, Prefaced, Spoken};
use crate::room::{Limits, Room};
use crate::worker::Worker;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 4096;
/// How long a connection may take to say something once the balancer is asked to end.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// Requests at once on one connection of HTTP/2.
const STREAMS: u32 = 250;
/// A connection of HTTP/2 on which nothing is asked for so long takes nothing new; what is under way on it is answered.
const IDLE: Duration = Duration::from_mins(3);
/// What is kept of an answer for a stream whose client is slower than its backend: 8 MB for all of a connection.
const SEND_BYTES: usize = 32 << 10;

/// Binds one listener for each worker; port 0 picks a free one for all.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    let first = listener(address)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..workers.max(1) {
        listeners.push(listener(address)?);
    }
    Ok(listeners)
}

/// Deals listeners to workers: each has one at least, and each is somebody's.
pub fn deal(listeners: &[TcpListener], workers: usize) -> io::Result<Vec<Vec<TcpListener>>> {
    let mut dealt: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    if listeners.is_empty() || workers == 0 {
        return Ok(dealt);
    }
    for at in 0..listeners.len().max(workers) {
        let listener = listeners[at % listeners.len()].try_clone()?;
        listener.set_nonblocking(true)?;
        dealt[at % workers].push(listener);
    }
    Ok(dealt)
}

pub fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What all workers have in common.
#[derive(Debug, Clone)]
pub struct Shared {
    pub plans: watch::Receiver<Arc<Plan>>,
    pub stop: watch::Receiver<bool>,
    pub room: Arc<Room>,
    pub crew: Arc<Crew>,
}

/// Where a worker's connections come from.
#[derive(Debug)]
pub struct Sources {
    pub listeners: Vec<TcpListener>,
    /// Those that other workers have accepted.
    pub passed: UnboundedReceiver<Arrival>,
}

/// Serves until it is asked to stop and the requests under way are answered.
pub fn run(worker: &Arc<Worker>, sources: Sources, shared: Shared) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(worker, sources, shared))
}

async fn serve(worker: &Arc<Worker>, sources: Sources, shared: Shared) -> io::Result<()> {
    let Sources { listeners, mut passed } = sources;
    let listeners: Vec<_> = listeners.into_iter().map(tokio::net::TcpListener::from_std).collect::<io::Result<_>>()?;
    tokio::spawn(worker.clone().follow(shared.plans));
    // A channel of the worker's own: connections look at it often, and all workers would share the lock of the other.
    let (tell, told) = watch::channel(false);
    let all = u32::MAX >> 4;
    let places = Arc::new(Semaphore::new(all as usize));
    let Shared { room, crew, .. } = shared;
    let arrivals = Arrivals { worker, places: places.clone(), room, crew, stop: told };
    // Whoever sets a timer while none is set wakes its thread by a write to an eventfd, though it is awake: that would be each request,
    // with the time that its answer may take. So there is always one that is nearer.
    let mut nearer = interval(Duration::from_millis(500));
    let mut stopping = std::pin::pin!(stopping(worker, shared.stop));
    loop {
        tokio::select! {
            accepted = accept(&listeners) => match accepted {
                Ok((stream, peer)) => arrivals.accepted(stream, peer),
                // Out of file descriptors, or the client left already: neither may end the balancer, nor spin it.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(arrival) = passed.recv() => arrivals.passed(arrival),
            () = &mut stopping => break,
            _ = nearer.tick() => {}
        }
    }
    // Whoever is connected already, as far as the kernel goes, is answered; closing the listener would reset it.
    for listener in listeners {
        let listener = listener.into_std()?;
        while let Ok((stream, peer)) = listener.accept() {
            stream.set_nonblocking(true)?;
            arrivals.passed(Arrival { stream, peer, share: arrivals.crew.of(worker.number) });
        }
    }
    passed.close();
    while let Some(arrival) = passed.recv().await {
        arrivals.passed(arrival);
    }
    tell.send_replace(true);
    drop(arrivals);
    // Those that are still open after the time are ended with the runtime.
    let drain = worker.plan().settings.times.drain;
    let _ = timeout(drain, places.acquire_many(all)).await;
    Ok(())
}

/// Returns once no more connections are to be taken.
async fn stopping(worker: &Worker, mut stop: watch::Receiver<bool>) {
    asked(&mut stop).await;
    tokio::time::sleep(worker.plan().settings.times.grace).await;
}

/// From whichever listener has one first.
async fn accept(listeners: &[tokio::net::TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|context| {
        let mut polls = listeners.iter().map(|listener| listener.poll_accept(context));
        polls.find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}

/// Connections that come.
struct Arrivals<'a> {
    worker: &'a Arc<Worker>,
    places: Arc<Semaphore>,
    room: Arc<Room>,
    crew: Arc<Crew>,
    stop: watch::Receiver<bool>,
}

impl Arrivals<'_> {
    /// Takes it, or passes it to a worker that has fewer.
    fn accepted(&self, stream: TcpStream, peer: SocketAddr) {
        let own = self.worker.number;
        let share = self.crew.share(own);
        if share.worker == own {
            return self.take(stream, peer, share);
        }
        let passed = stream.into_std().map(|stream| self.crew.pass(Arrival { stream, peer, share }));
        match passed {
            Ok(Ok(())) => {}
            Ok(Err(Arrival { stream, peer, .. })) => self.passed(Arrival { stream, peer, share: self.crew.of(own) }),
            Err(cause) => self.failed(&cause),
        }
    }

    /// It was accepted elsewhere.
    fn passed(&self, Arrival { stream, peer, share }: Arrival) {
        match TcpStream::from_std(stream) {
            Ok(stream) => self.take(stream, peer, share),
            Err(cause) => self.failed(&cause),
        }
    }

    fn failed(&self, cause: &io::Error) {
        self.worker.observe.tell(&Observation::ConnectionFailed { cause: &cause.to_string() });
    }

    /// Gives it a task of its own, if there is room for it.
    fn take(&self, stream: TcpStream, peer: SocketAddr, share: Share) {
        let plan = self.worker.plan();
        let peer = peer.ip().to_canonical();
        let is_trusted = plan.settings.trusted_proxy.iter().any(|network| network.contains(peer));
        let room = self.room.enter(peer, is_trusted, limits(&plan));
        let (Some(room), Ok(place)) = (room, self.places.clone().try_acquire_owned()) else {
            self.worker.counts.turned_away.add(1);
            return;
        };
        let place = Seated { worker: place, room, share };
        let is_tls = plan.tls.is_some();
        let front = Front { address: peer, peer: peer.to_string(), is_trusted, is_tls, stop: self.stop.clone(), place };
        let worker = self.worker.clone();
        tokio::spawn(async move {
            worker.counts.connections.add(1);
            worker.counts.open.add(1);
            // Answers are whole when they are written; waiting for more would only delay them.
            let _ = stream.set_nodelay(true);
            if let Err(cause) = connection(&worker, stream, front, &plan).await {
                worker.observe.tell(&Observation::ConnectionFailed { cause: &cause });
            }
            worker.counts.open.take(1);
        });
    }
}

fn limits(plan: &Plan) -> Limits {
    let limits = &plan.settings.limits;
    Limits { all: limits.connections, per_address: limits.per_address }
}

async fn connection(worker: &Arc<Worker>, stream: TcpStream, mut front: Front, plan: &Plan) -> Result<(), String> {
    let times = &plan.settings.times;
    let mut stop = front.stop.clone();
    let begun = timeout(times.header, Box::pin(begin(Prefaced::new(stream, times.stall), &mut front, plan)));
    let begun = tokio::select! {
        biased;
        begun = begun => begun,
        // Its request may be on its way; whoever says nothing then has asked for nothing.
        () = async { asked(&mut stop).await; tokio::time::sleep(FIRST_WORD).await } => return Ok(()),
    };
    let Ok(begun) = begun else { return Ok(()) };
    if matches!(begun, Ok(Begun::Nowhere)) {
        worker.counts.turned_away.add(1);
    }
    let front = Arc::new(front);
    // Each has its own size, and there are many of the small one.
    match begun.map_err(|cause| cause.to_string())? {
        Begun::Plain(Spoken::Http1(stream)) => {
            Box::pin(http1_connection(worker, front, Box::new(stream), stop, times.header)).await
        }
        Begun::Plain(Spoken::Http2(stream)) => Box::pin(http2_connection(worker, front, stream, stop)).await,
        Begun::Tls(Spoken::Http1(stream)) => {
            Box::pin(http1_connection(worker, front, stream, stop, times.header)).await
        }
        Begun::Tls(Spoken::Http2(stream)) => Box::pin(http2_connection(worker, front, stream, stop)).await,
        Begun::Plain(Spoken::Nothing) | Begun::Tls(Spoken::Nothing) | Begun::Nowhere => Ok(()),
    }
}

/// What is spoken, and in which way.
enum Begun {
    Plain(Spoken<Prefaced<TcpStream>>),
    Tls(Spoken<Box<Prefaced<TlsStream<Prefaced<TcpStream>>>>>),
    /// There is no place for it.
    Nowhere,
}

/// Whose connection it is, where a proxy says so; TLS, where it is spoken; what is spoken then.
async fn begin(mut stream: Prefaced<TcpStream>, front: &mut Front, plan: &Plan) -> io::Result<Begun> {
    let settings = &plan.settings;
    if settings.proxy_protocol
        && front.is_trusted
        && let Some(source) = stream.source().await?
    {
        let source = source.to_canonical();
        front.is_trusted = settings.trusted_proxy.iter().any(|network| network.contains(source));
        (front.address, front.peer) = (source, source.to_string());
        if !front.place.room.give(source, front.is_trusted, limits(plan)) {
            return Ok(Begun::Nowhere);
        }
    }
    let Some(tls) = &plan.tls else { return Ok(Begun::Plain(preface::hear(stream).await?)) };
    let mut stream = TlsAcceptor::from(tls.clone()).accept(stream).await?;
    let protocol = stream.get_ref().1.alpn_protocol();
    if protocol == Some(PROOF) {
        // The handshake was all that was wanted.
        stream.shutdown().await?;
        return Ok(Begun::Plain(Spoken::Nothing));
    }
    let is_http2 = protocol == Some(b"h2");
    let stream = Box::new(Prefaced::new(stream, settings.times.stall));
    Ok(Begun::Tls(if is_http2 { Spoken::Http2(stream) } else { Spoken::Http1(stream) }))
}

async fn http1_connection<S>(
    worker: &Arc<Worker>,
    front: Arc<Front>,
    stream: Box<Prefaced<S>>,
    mut stop: watch::Receiver<bool>,
    header: Duration,
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let plain = http1::serve(worker, &front, stream, asked(&mut stop), header).await;
    let Some(stream) = plain.map_err(|cause| cause.to_string())? else { return Ok(()) };
    Box::pin(http1_by_hyper(worker, front, stream, stop, header)).await
}

/// From a request on that is not of the plain kind.
async fn http1_by_hyper<S>(
    worker: &Arc<Worker>,
    front: Arc<Front>,
    stream: S,
    mut stop: watch::Receiver<bool>,
    header: Duration,
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| answer(worker.clone(), front.clone(), request));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let done = tokio::select! {
        biased;
        done = connection.as_mut() => done,
        () = asked(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    done.map_err(|cause| fault(worker, &front, &cause))
}

async fn http2_connection<S>(
    worker: &Arc<Worker>,
    front: Arc<Front>,
    stream: S,
    mut stop: watch::Receiver<bool>,
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let requests = Arc::new(AtomicU64::new(0));
    let service = {
        let (worker, front, requests) = (worker.clone(), front.clone(), requests.clone());
        service_fn(move |request| {
            requests.fetch_add(1, Relaxed);
            answer(worker.clone(), front.clone(), request)
        })
    };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .enable_connect_protocol()
        .max_send_buf_size(SEND_BYTES)
        .max_header_list_size(u32::try_from(HEADER_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        biased;
        done = connection.as_mut() => return done.map_err(|cause| fault(worker, &front, &cause)),
        () = asked(&mut stop) => {}
        () = idle(&requests) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await.map_err(|cause| fault(worker, &front, &cause))
}

/// Returns when no request has come for [`IDLE`], or up to twice as long.
async fn idle(requests: &AtomicU64) {
    let mut before = requests.load(Relaxed);
    loop {
        tokio::time::sleep(IDLE).await;
        let now = requests.load(Relaxed);
        if now == before {
            return;
        }
        before = now;
    }
}

/// In a box: it has 3 kB, and hyper moves it several times until it has a task.
fn answer(
    worker: Arc<Worker>,
    front: Arc<Front>,
    request: Request<Incoming>,
) -> Pin<Box<impl Future<Output = Result<Response<Outbound>, Infallible>> + Send>> {
    Box::pin(async move { Ok(forward(&worker, &front, request).await) })
}

/// Why a connection ended.
fn fault(worker: &Worker, front: &Front, cause: &hyper::Error) -> String {
    if let Some(defence) = &worker.defence {
        guard::malformed(defence, front, cause);
    }
    cause.to_string()
}

/// Returns once the balancer is asked to stop, or nobody is left who could ask.
async fn asked(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await.map(drop);
}
