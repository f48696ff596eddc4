//! Sockets: one single-threaded worker per core, each with its own listener on the same port.
//!
//! A worker at start takes its listener; in its loop it accepts and gives each connection a task; at the end it stops accepting, lets
//! the requests under way finish, and ends the rest after a while.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{interval, timeout};

use crate::forward::{Front, forward};
use crate::observe::Observation;
use crate::outbound::Outbound;
use crate::plan::Plan;
use crate::preface::{self, Prefaced, Spoken};
use crate::worker::Worker;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 4096;
/// Headers of one request, together.
const HEADER_BYTES: usize = 16 << 10;
const HEADERS: usize = 100;
/// Requests at once on one connection of HTTP/2.
const STREAMS: u32 = 250;

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

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves until `stop` becomes true and the requests under way are answered.
pub fn run(
    worker: &Arc<Worker>,
    listener: TcpListener,
    plans: watch::Receiver<Arc<Plan>>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(worker, listener, plans, stop))
}

async fn serve(
    worker: &Arc<Worker>,
    listener: TcpListener,
    plans: watch::Receiver<Arc<Plan>>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tokio::spawn(worker.clone().follow(plans));
    // A channel of the worker's own: connections look at it often, and all workers would share the lock of the other.
    let (tell, told) = watch::channel(false);
    let all = u32::MAX >> 4;
    let room = Arc::new(Semaphore::new(all as usize));
    // Whoever sets a timer while none is set wakes its thread by a write to an eventfd, though it is awake: that would be each request,
    // with the time that its answer may take. So there is always one that is nearer.
    let mut nearer = interval(Duration::from_millis(500));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
            _ = nearer.tick() => continue,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of file descriptors, or the client left already: neither may end the balancer, nor spin it.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let Ok(place) = room.clone().try_acquire_owned() else { continue };
        let (worker, told) = (worker.clone(), told.clone());
        tokio::spawn(async move {
            worker.counts.connections.add(1);
            worker.counts.open.add(1);
            // Answers are whole when they are written; waiting for more would only delay them.
            let _ = stream.set_nodelay(true);
            if let Err(cause) = connection(&worker, stream, peer, told).await {
                worker.observe.tell(&Observation::ConnectionFailed { cause: &cause });
            }
            worker.counts.open.take(1);
            drop(place);
        });
    }
    drop(listener);
    tell.send_replace(true);
    // Those that are still open after the time are ended with the runtime.
    let drain = worker.plan().settings.times.drain;
    let _ = timeout(drain, room.acquire_many(all)).await;
    Ok(())
}

async fn connection(
    worker: &Arc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    stop: watch::Receiver<bool>,
) -> Result<(), String> {
    let plan = worker.plan();
    let peer = peer.ip().to_canonical();
    let is_trusted = plan.settings.trusted_proxy.iter().any(|network| network.contains(peer));
    let front = Arc::new(Front { peer: peer.to_string(), is_trusted, is_tls: false });
    let header = plan.settings.times.header;
    drop(plan);
    let Ok(spoken) = timeout(header, preface::hear(stream)).await else { return Ok(()) };
    match spoken.map_err(|cause| cause.to_string())? {
        Spoken::Http1(stream) => http1_connection(worker, front, stream, stop, header).await,
        Spoken::Http2(stream) => http2_connection(worker, front, stream, stop).await,
        Spoken::Nothing => Ok(()),
    }
}

async fn http1_connection<S>(
    worker: &Arc<Worker>,
    front: Arc<Front>,
    stream: Prefaced<S>,
    mut stop: watch::Receiver<bool>,
    header: Duration,
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| answer(worker.clone(), front.clone(), request));
    let connection = http1::Builder::new()
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
    done.map_err(|cause| cause.to_string())
}

async fn http2_connection<S>(
    worker: &Arc<Worker>,
    front: Arc<Front>,
    stream: Prefaced<S>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = {
        let (worker, front) = (worker.clone(), front.clone());
        service_fn(move |request| answer(worker.clone(), front.clone(), request))
    };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEADER_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let done = tokio::select! {
        biased;
        done = connection.as_mut() => done,
        () = asked(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    done.map_err(|cause| cause.to_string())
}

async fn answer(
    worker: Arc<Worker>,
    front: Arc<Front>,
    request: Request<Incoming>,
) -> Result<Response<Outbound>, Infallible> {
    Ok(forward(&worker, &front, request).await)
}

/// Returns once the balancer is asked to stop, or nobody is left who could ask.
async fn asked(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await.map(drop);
}
