//! Sockets: one single-threaded worker per core, each with its own listener on the same port.
//!
//! A worker at start takes its listener; in its loop it accepts while there is room and gives each connection a task; at
//! shutdown it stops accepting, lets the requests under way finish, and ends the rest after a while.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ntier_storage::Body;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{interval, timeout};

use crate::sendfile::{Sending, Socket as Sends, Spans};
use crate::stream::{Expectation, Inbound, Outbound};
use crate::target::{Boundary, Encoded};
use crate::websocket::{self, Seat};
use crate::{Asked, Node, Observation};

/// Waiting connections the kernel keeps for us.
const BACKLOG: i32 = 1024;
/// Headers of one request, together.
const HEADER_BYTES: usize = 16 << 10;
const HEADERS: usize = 100;
/// How long requests under way may take once the server is asked to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Bound sockets, one per worker.
#[derive(Debug)]
pub struct Listeners {
    pub place: Place,
    sockets: Vec<Listener>,
}

/// Where clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
    /// Only this process, by a [`Connector`].
    Process,
}

impl std::fmt::Display for Place {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(out, "http://{address}"),
            Self::Unix(path) => path.display().fmt(out),
            Self::Process => out.write_str("this process"),
        }
    }
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
    Process(mpsc::UnboundedReceiver<UnixStream>),
}

/// Connects this process with its own node, where nobody else can.
#[derive(Debug)]
pub struct Connector {
    workers: Vec<mpsc::UnboundedSender<UnixStream>>,
    next: AtomicUsize,
}

impl Connector {
    /// One end of a pair of sockets without a name; the node speaks HTTP/1.1 at the other.
    pub fn connect(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let worker = self.next.fetch_add(1, Ordering::Relaxed) % self.workers.len().max(1);
        let ended = || io::Error::from(io::ErrorKind::ConnectionRefused);
        self.workers.get(worker).ok_or_else(ended)?.send(theirs).map_err(|_| ended())?;
        Ok(ours)
    }
}

/// Listeners for this process alone.
pub fn bind_process(workers: usize) -> (Listeners, Connector) {
    let (senders, sockets) = (0..workers.max(1)).map(|_| mpsc::unbounded_channel()).unzip::<_, _, Vec<_>, Vec<_>>();
    let sockets = sockets.into_iter().map(Listener::Process).collect();
    (Listeners { place: Place::Process, sockets }, Connector { workers: senders, next: AtomicUsize::new(0) })
}

/// Binds `workers` listeners to one address; port 0 picks a free one.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Listeners> {
    let first = listener(address)?;
    let address = first.local_addr()?;
    let mut sockets = vec![Listener::Tcp(first)];
    for _ in 1..workers.max(1) {
        sockets.push(Listener::Tcp(listener(address)?));
    }
    Ok(Listeners { place: Place::Tcp(address), sockets })
}

/// Binds a unix socket with this file mode, for all workers together. A socket that nobody serves any more is replaced.
pub fn bind_unix(path: &Path, mode: u32, workers: usize) -> io::Result<Listeners> {
    match UnixStream::connect(path) {
        Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
        Err(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
        Err(_) => {}
    }
    let first = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    first.set_nonblocking(true)?;
    let mut sockets = Vec::new();
    for _ in 1..workers {
        sockets.push(Listener::Unix(first.try_clone()?));
    }
    sockets.push(Listener::Unix(first));
    Ok(Listeners { place: Place::Unix(path.to_owned()), sockets })
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
pub async fn serve(node: Arc<Node>, listeners: Listeners, stop: watch::Receiver<bool>) -> io::Result<()> {
    let mut workers = Vec::new();
    for (number, socket) in listeners.sockets.into_iter().enumerate() {
        let (node, stop) = (node.clone(), stop.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let name = format!("http-{number}");
        let work = move || runtime.block_on(worker(&node, socket, stop));
        workers.push(std::thread::Builder::new().name(name).spawn(work)?);
    }
    tokio::task::spawn_blocking(move || {
        for worker in workers {
            worker.join().map_err(|_| io::Error::other("a worker panicked"))??;
        }
        Ok(())
    })
    .await
    .map_err(io::Error::other)?
}

async fn worker(node: &Arc<Node>, socket: Listener, mut stop: watch::Receiver<bool>) -> io::Result<()> {
    let mut socket = Accepting::new(socket)?;
    let room = Arc::new(Semaphore::new(node.limits.connections));
    // Whoever sets a timer while none is set wakes its thread by a write to an eventfd, though it is awake: that would be each connection,
    // with the time that it has for its next request. So there is always one that is nearer.
    let mut nearer = interval(node.limits.header_time / 2);
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = asked(&mut stop) => break,
            _ = nearer.tick() => continue,
        };
        let (node, stop) = (node.clone(), stop.clone());
        match accepted {
            Ok(Accepted::Tcp(stream, peer)) => tokio::spawn(async move {
                let Some(_connected) = node.connected(peer) else { return };
                // Answers are whole when they are written; waiting for more would only delay them.
                let _ = stream.set_nodelay(true);
                connection(node, stream, Peer(peer), Seat::new(place), stop).await;
            }),
            Ok(Accepted::Unix(stream)) => tokio::spawn(async move {
                connection(node, stream, Peer(Ipv4Addr::LOCALHOST.into()), Seat::new(place), stop).await;
            }),
            // Out of file descriptors, or the client left already: neither may end the server, nor spin it.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
    }
    drop(socket);
    let all = u32::try_from(node.limits.connections).unwrap_or(u32::MAX);
    // Those that are still open after the time are ended with the runtime.
    let _ = timeout(DRAIN, room.acquire_many(all)).await;
    Ok(())
}

enum Accepting {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
    Process(mpsc::UnboundedReceiver<UnixStream>),
}

enum Accepted {
    Tcp(tokio::net::TcpStream, IpAddr),
    Unix(tokio::net::UnixStream),
}

impl Accepting {
    fn new(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => Self::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Listener::Unix(listener) => Self::Unix(tokio::net::UnixListener::from_std(listener)?),
            Listener::Process(streams) => Self::Process(streams),
        })
    }

    async fn accept(&mut self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Accepted::Tcp(stream, peer.ip())
            }
            Self::Unix(listener) => Accepted::Unix(listener.accept().await?.0),
            Self::Process(streams) => match streams.recv().await {
                Some(stream) => Accepted::Unix(tokio::net::UnixStream::from_std(stream)?),
                // Nobody can connect any more; those who have go on.
                None => std::future::pending().await,
            },
        })
    }
}

/// Who is at the other end of a connection; on a unix socket somebody of this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub IpAddr);

async fn connection<S>(node: Arc<Node>, stream: S, peer: Peer, seat: Seat, mut stop: watch::Receiver<bool>)
where
    S: Sends + Send + 'static,
{
    let (stream, spans) = Sending::new(stream);
    let (stream, boundary) = Encoded::new(stream);
    let handler = {
        let (node, stop) = (node.clone(), stop.clone());
        service_fn(move |mut request: Request<Incoming>| {
            let admitted = node.admit(&mut request, peer.0);
            let (seat, stop) = (seat.clone(), stop.clone());
            let (node, boundary, spans) = (node.clone(), boundary.next(), spans.clone());
            async move {
                if let Err(refusal) = admitted {
                    return Ok(refusal.map(|body| Outbound::Whole(Full::new(body))));
                }
                if let Some(realtime) = node.realtime(request.uri().path()) {
                    let answer = websocket::answer(realtime, request, seat, stop);
                    return Ok(answer.map(|body| Outbound::Whole(Full::new(body))));
                }
                Ok::<_, Infallible>(handle(&node, request, boundary, spans).await)
            }
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(node.limits.header_time)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), handler)
        .with_upgrades();
    tokio::pin!(connection);
    let done = tokio::select! {
        done = connection.as_mut() => done,
        () = asked(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(cause) = done {
        node.malformed(&cause, peer.0);
        node.log.observe(&Observation::ConnectionFailed { cause: &cause.to_string() });
    }
}

async fn handle(node: &Node, request: Request<Incoming>, boundary: Boundary, spans: Spans) -> Response<Outbound> {
    if node.streams(request.uri().path()) {
        let expectation = Expectation::of(request.headers());
        let pace = node.limits.pace;
        let request = request.map(|body| Body::new(Inbound::new(body, boundary, expectation.clone(), pace)));
        // What files need is large, and other requests need not carry it.
        let mut response = Box::pin(node.stream(request)).await.map(|body| Outbound::new(body, spans));
        if expectation.is_open() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        return response;
    }
    let response = handle_whole(node, request).await;
    // The body was read before the answer was made.
    boundary.reached();
    response.map(Outbound::Whole)
}

async fn handle_whole(node: &Node, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let is_head = request.method() == http::Method::HEAD;
    let asked = Asked::of(&request);
    let unread = |status, message| {
        let mut response = refuse(status, message);
        node.learn(&asked, &mut response);
        response
    };
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, node.limits.body_bytes).collect();
    let response = match timeout(node.limits.body_time, body).await {
        Ok(Ok(body)) => node.answer(Request::from_parts(parts, body.to_bytes())).await,
        Ok(Err(cause)) if cause.is::<LengthLimitError>() => {
            unread(StatusCode::PAYLOAD_TOO_LARGE, "The request body is too large")
        }
        Ok(Err(_)) => unread(StatusCode::BAD_REQUEST, "The request body could not be read"),
        Err(_) => unread(StatusCode::REQUEST_TIMEOUT, "The request body took too long"),
    };
    let (mut parts, body) = response.into_parts();
    if is_head && !body.is_empty() && !parts.headers.contains_key(header::CONTENT_LENGTH) {
        parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
    }
    Response::from_parts(parts, Full::new(if is_head { Bytes::new() } else { body }))
}

/// Returns once the server is asked to stop, or nobody is left who could ask.
async fn asked(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await.map(drop);
}

/// A refusal in the data API's form; the rest of the body is not read, so the connection ends.
fn refuse(status: StatusCode, message: &str) -> Response<Bytes> {
    let body = serde_json::json!({ "code": null, "details": null, "hint": null, "message": message });
    let mut response = crate::json(status, body.to_string());
    response.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
    response
}
