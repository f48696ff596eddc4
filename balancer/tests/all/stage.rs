//! Backends and clients for the tests: real sockets on loopback, with words that are written down byte by byte.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ntier_balancer::settings::{Health, Host, Origin, Place};
use ntier_balancer::{Beside, Observe, Running, Settings, start};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Nothing here takes so long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A request as a backend has heard it.
#[derive(Debug, Clone)]
pub struct Heard {
    pub head: String,
    pub body: Vec<u8>,
}

/// What a backend does.
pub enum Reply {
    /// Says this, and goes on.
    Say(String),
    /// Says this, and closes.
    Last(String),
    /// Closes without a word.
    Close,
    /// Says nothing more, and keeps the connection.
    Silence,
    /// Says this, then back whatever it hears.
    Echo(String),
    /// Answers before it reads the body.
    Early(String),
}

/// A backend.
pub struct Backend {
    pub address: SocketAddr,
    pub heard: Arc<Mutex<Vec<Heard>>>,
    pub connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Backend {
    pub async fn start(reply: impl Fn(&Heard) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), reply).await
    }

    pub async fn start_at(address: SocketAddr, reply: impl Fn(&Heard) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, connections) = (Arc::<Mutex<Vec<Heard>>>::default(), Arc::<AtomicUsize>::default());
        let reply = Arc::new(reply);
        let accepting = tokio::spawn({
            let (heard, connections) = (heard.clone(), connections.clone());
            async move {
                let mut open = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    connections.fetch_add(1, Ordering::SeqCst);
                    let (heard, reply) = (heard.clone(), reply.clone());
                    open.spawn(async move { converse(stream, heard, &*reply).await });
                }
            }
        });
        Self { address, heard, connections, accepting }
    }

    pub fn heard(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn last(&self) -> Heard {
        self.heard.lock().unwrap().last().cloned().expect("something was heard")
    }

    /// Its connections break, and new ones are refused.
    pub async fn kill(self) {
        self.accepting.abort();
        let _ = self.accepting.await;
    }
}

/// A backend that says who it is.
pub async fn named(name: &'static str) -> Backend {
    Backend::start(move |_| Reply::Say(ok(name))).await
}

pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

async fn converse(mut stream: TcpStream, heard: Arc<Mutex<Vec<Heard>>>, reply: &(impl Fn(&Heard) -> Reply + ?Sized)) {
    let mut buffer = Vec::new();
    loop {
        let Some(head) = head(&mut stream, &mut buffer).await else { return };
        let mut request = Heard { head, body: Vec::new() };
        let is_early = match reply(&request) {
            Reply::Early(text) => {
                stream.write_all(text.as_bytes()).await.unwrap();
                true
            }
            _ => false,
        };
        if request.head.contains("expect: 100-continue") && !is_early {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        }
        let Some(body) = body(&mut stream, &mut buffer, &request.head).await else { return };
        request.body = body;
        heard.lock().unwrap().push(request.clone());
        match reply(&request) {
            Reply::Say(text) => stream.write_all(text.as_bytes()).await.unwrap(),
            Reply::Last(text) => {
                stream.write_all(text.as_bytes()).await.unwrap();
                return;
            }
            Reply::Close => return,
            Reply::Silence => std::future::pending().await,
            Reply::Early(_) => {}
            Reply::Echo(text) => {
                stream.write_all(text.as_bytes()).await.unwrap();
                stream.write_all(&buffer).await.unwrap();
                let (mut reads, mut writes) = stream.split();
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
                return;
            }
        }
    }
}

/// Reads until the blank line; `None` at the end.
async fn head(stream: &mut (impl AsyncReadExt + Unpin), buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = buffer.split_off(end + 4);
            let head = std::mem::replace(buffer, rest);
            return Some(String::from_utf8_lossy(&head).into_owned());
        }
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

/// What a header says.
pub fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

async fn body(stream: &mut (impl AsyncReadExt + Unpin), buffer: &mut Vec<u8>, head: &str) -> Option<Vec<u8>> {
    if value(head, "transfer-encoding") == Some("chunked") {
        return chunks(stream, buffer).await;
    }
    let length = value(head, "content-length").map_or(0, |length| length.parse().unwrap());
    exactly(stream, buffer, length).await
}

async fn exactly(stream: &mut (impl AsyncReadExt + Unpin), buffer: &mut Vec<u8>, length: usize) -> Option<Vec<u8>> {
    while buffer.len() < length {
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    }
    let rest = buffer.split_off(length);
    Some(std::mem::replace(buffer, rest))
}

/// Chunks put together, with the trailers behind them as text.
async fn chunks(stream: &mut (impl AsyncReadExt + Unpin), buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let line = line(stream, buffer).await?;
        let size = usize::from_str_radix(&line, 16).unwrap();
        if size == 0 {
            loop {
                let trailer = self::line(stream, buffer).await?;
                if trailer.is_empty() {
                    return Some(all);
                }
                all.extend_from_slice(format!("[{trailer}]").as_bytes());
            }
        }
        all.extend(exactly(stream, buffer, size).await?);
        assert_eq!(exactly(stream, buffer, 2).await?, b"\r\n");
    }
}

async fn line(stream: &mut (impl AsyncReadExt + Unpin), buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(2).position(|two| two == b"\r\n") {
            let rest = buffer.split_off(end + 2);
            let line = std::mem::replace(buffer, rest);
            return Some(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

/// A client's connection.
pub struct Client {
    pub stream: TcpStream,
    pub buffer: Vec<u8>,
}

/// An answer as a client has heard it.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        value(&self.head, name)
    }
}

impl Client {
    pub async fn connect(balancer: &Running) -> Self {
        Self { stream: TcpStream::connect(balancer.address).await.unwrap(), buffer: Vec::new() }
    }

    pub async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next answer; `None` where the connection ends without one.
    pub async fn hear(&mut self, has_body: bool) -> Option<Answer> {
        let hearing = async {
            let head = head(&mut self.stream, &mut self.buffer).await?;
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            let body =
                match (has_body && status >= 200, value(&head, "content-length"), value(&head, "transfer-encoding")) {
                    (false, _, _) => Some(Vec::new()),
                    (true, None, None) if status != 204 && status != 304 => {
                        let mut rest = std::mem::take(&mut self.buffer);
                        self.stream.read_to_end(&mut rest).await.ok().map(|_| rest)
                    }
                    (true, _, _) => body(&mut self.stream, &mut self.buffer, &head).await,
                };
            Some(Answer { status, head, body: String::from_utf8_lossy(&body?).into_owned() })
        };
        timeout(PATIENCE, hearing).await.expect("an answer or an end")
    }

    pub async fn ask(&mut self, text: &str) -> Option<Answer> {
        self.say(text).await;
        self.hear(!text.starts_with("HEAD")).await
    }

    /// Whether the connection is at its end.
    pub async fn is_ended(&mut self) -> bool {
        timeout(PATIENCE, async { self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 })
            .await
            .expect("an end")
    }
}

/// One request on a connection of its own.
pub async fn ask(balancer: &Running, text: &str) -> Answer {
    Client::connect(balancer).await.ask(text).await.expect("an answer")
}

pub const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\n\r\n";

pub const UPGRADE: &str = "GET / HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";

/// A backend that makes a websocket of each request, on which it says this and then what it hears.
pub async fn echo(first: &'static str) -> Backend {
    let upgraded = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: a\r\n\r\n";
    Backend::start(move |_| Reply::Echo(format!("{upgraded}{first}"))).await
}

/// Settings on free ports, without health checks.
pub fn settings(backends: &[&Backend]) -> Settings {
    let mut settings = Settings::default();
    settings.listen.set_port(0);
    settings.admin = Place::Tcp(([127, 0, 0, 1], 0).into());
    settings.workers = Some(1);
    settings.backends = backends.iter().map(|backend| origin(backend.address)).collect();
    settings.health = Health { path: None, ..settings.health };
    settings.times.drain = Duration::from_secs(5);
    settings
}

pub fn origin(address: SocketAddr) -> Origin {
    Origin { host: Host::Address(address.ip()), port: address.port(), weight: 1 }
}

pub async fn balance(settings: Settings) -> Running {
    start(settings, Beside::default(), Observe::Nothing).await.unwrap()
}

/// What operators are told.
pub async fn operator(balancer: &Running, path: &str) -> (u16, String) {
    let Place::Tcp(address) = &balancer.admin else { panic!("tests ask by TCP") };
    let mut client = Client { stream: TcpStream::connect(address).await.unwrap(), buffer: Vec::new() };
    let answer = client.ask(&format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n")).await.unwrap();
    (answer.status, answer.body)
}

/// What is said of the backends.
pub async fn status(balancer: &Running) -> serde_json::Value {
    serde_json::from_str(&operator(balancer, "/status").await.1).unwrap()
}

/// Waits until it is so.
pub async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("it comes to be so");
}
