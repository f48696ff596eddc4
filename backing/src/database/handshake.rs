//! From an address to a connection that is ready: socket, TLS, start-up, password.
//!
//! Source: PostgreSQL documentation, "Message Flow: Start-up" and "SASL Authentication". SCRAM and MD5 are
//! the crate `postgres-protocol`'s; a password in clear is only ever sent through TLS or a unix socket.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::stream::Stream;
use super::url::{Address, Host, SslMode};
use super::{Error, tls, wire};

/// How long a server may take for its part of it, a pooler in front of it included.
const CONNECTING: Duration = Duration::from_secs(15);

/// A connection that has said ReadyForQuery.
pub struct Ready {
    pub stream: Stream,
    /// Bytes read past ReadyForQuery.
    pub buffer: BytesMut,
    pub key: Key,
}

/// BackendKeyData: who we are to the server, for cancel requests.
#[derive(Debug, Clone, Copy, Default)]
pub struct Key {
    pub process: u32,
    pub secret: u32,
}

pub async fn connect(address: &Address) -> Result<Ready, Error> {
    match address.host {
        Host::Tcp { .. } => match tokio::time::timeout(CONNECTING, greet(address)).await {
            Ok(greeted) => greeted,
            Err(_) => Err(Error::Unavailable("the server takes connections and does not answer".into())),
        },
        // An embedded engine greets when it has done what others asked.
        Host::Unix(_) => greet(address).await,
    }
}

async fn greet(address: &Address) -> Result<Ready, Error> {
    let mut stream = open(address).await?;
    let mut out = BytesMut::new();
    let parameters = [
        ("user", address.user.as_str()),
        ("database", &address.database),
        ("application_name", &address.application_name),
        ("client_encoding", "UTF8"),
    ];
    frontend::startup_message(parameters, &mut out).map_err(|cause| unavailable(&cause))?;
    stream.write_all(&out).await.map_err(|cause| unavailable(&cause))?;
    Handshake { stream, buffer: BytesMut::with_capacity(8 << 10), address, scram: None, key: Key::default() }
        .finish()
        .await
}

/// Asks the server to cancel what the connection with this key is doing. No answer is defined.
pub async fn cancel(address: &Address, key: Key) -> Result<(), Error> {
    let mut stream = socket(address).await?;
    let mut out = BytesMut::new();
    out.put_u32(16);
    out.put_u32(80_877_102);
    out.put_u32(key.process);
    out.put_u32(key.secret);
    stream.write_all(&out).await.map_err(|cause| unavailable(&cause))?;
    stream.shutdown().await.map_err(|cause| unavailable(&cause))
}

async fn socket(address: &Address) -> Result<Stream, Error> {
    match &address.host {
        Host::Tcp { name, port } => {
            let tcp = TcpStream::connect((name.as_str(), *port)).await.map_err(|cause| unavailable(&cause))?;
            tcp.set_nodelay(true).map_err(|cause| unavailable(&cause))?;
            Ok(Stream::Tcp(tcp))
        }
        Host::Unix(path) => unix(path).await.map(Stream::Unix).map_err(|cause| unavailable(&cause)),
    }
}

/// A path too long for a socket address (108 bytes) is reached through an open directory.
pub async fn unix(path: &Path) -> std::io::Result<UnixStream> {
    if path.as_os_str().len() < 100 {
        return UnixStream::connect(path).await;
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return UnixStream::connect(path).await;
    };
    let folder = std::fs::File::open(folder)?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    UnixStream::connect(short).await
}

async fn open(address: &Address) -> Result<Stream, Error> {
    let stream = socket(address).await?;
    let (Host::Tcp { name, .. }, false) = (&address.host, address.tls == SslMode::Disable) else {
        return Ok(stream);
    };
    let Stream::Tcp(mut tcp) = stream else {
        return Ok(stream);
    };
    let mut out = BytesMut::new();
    frontend::ssl_request(&mut out);
    tcp.write_all(&out).await.map_err(|cause| unavailable(&cause))?;
    // Exactly one byte: whatever follows must come through TLS (CVE-2021-23222).
    match tcp.read_u8().await.map_err(|cause| unavailable(&cause))? {
        b'S' => tls::wrap(tcp, name, address).await,
        b'N' if address.tls == SslMode::Prefer => Ok(Stream::Tcp(tcp)),
        b'N' => Err(Error::Unavailable("the server does not support TLS, but sslmode requires it".into())),
        _ => Err(Error::Unavailable("the server does not speak PostgreSQL's protocol".into())),
    }
}

struct Handshake<'a> {
    stream: Stream,
    buffer: BytesMut,
    address: &'a Address,
    scram: Option<sasl::ScramSha256>,
    key: Key,
}

impl Handshake<'_> {
    async fn finish(mut self) -> Result<Ready, Error> {
        loop {
            let message = self.receive().await?;
            match message.kind {
                b'R' => self.authenticate(&message.body).await?,
                b'K' if message.body.len() >= 8 => {
                    let word = |at: usize| {
                        u32::from_be_bytes([
                            message.body[at],
                            message.body[at + 1],
                            message.body[at + 2],
                            message.body[at + 3],
                        ])
                    };
                    self.key = Key { process: word(0), secret: word(4) };
                }
                b'Z' => {
                    return Ok(Ready { stream: self.stream, buffer: self.buffer, key: self.key });
                }
                b'E' => {
                    let refusal = wire::refusal(&message.body);
                    return Err(Error::Unavailable(format!("{} ({})", refusal.message, refusal.code)));
                }
                _ => {}
            }
        }
    }

    async fn authenticate(&mut self, body: &[u8]) -> Result<(), Error> {
        let Some((kind, rest)) = body.split_first_chunk::<4>() else {
            return Err(nonsense());
        };
        let mut out = BytesMut::new();
        match u32::from_be_bytes(*kind) {
            0 => return Ok(()),
            3 if matches!(self.stream, Stream::Tcp(_)) => {
                return Err(Error::Unavailable(
                    "the server asks for the password in clear on a connection without TLS".into(),
                ));
            }
            3 => frontend::password_message(self.password()?, &mut out).map_err(|cause| unavailable(&cause))?,
            5 => {
                let salt = *rest.first_chunk::<4>().ok_or_else(nonsense)?;
                let hash = md5_hash(self.address.user.as_bytes(), self.password()?, salt);
                frontend::password_message(hash.as_bytes(), &mut out).map_err(|cause| unavailable(&cause))?;
            }
            10 if rest.split(|&byte| byte == 0).any(|name| name == sasl::SCRAM_SHA_256.as_bytes()) => {
                let scram = sasl::ScramSha256::new(self.password()?, sasl::ChannelBinding::unsupported());
                frontend::sasl_initial_response(sasl::SCRAM_SHA_256, scram.message(), &mut out)
                    .map_err(|cause| unavailable(&cause))?;
                self.scram = Some(scram);
            }
            11 => {
                let scram = self.scram.as_mut().ok_or_else(nonsense)?;
                scram.update(rest).map_err(|cause| unavailable(&cause))?;
                frontend::sasl_response(scram.message(), &mut out).map_err(|cause| unavailable(&cause))?;
            }
            12 => {
                let scram = self.scram.as_mut().ok_or_else(nonsense)?;
                return scram.finish(rest).map_err(|cause| unavailable(&cause));
            }
            other => {
                return Err(Error::Unavailable(format!(
                    "the server asks for authentication method {other}, which is not supported"
                )));
            }
        }
        self.stream.write_all(&out).await.map_err(|cause| unavailable(&cause))
    }

    fn password(&self) -> Result<&[u8], Error> {
        let password = self.address.password.as_deref();
        password
            .map(str::as_bytes)
            .ok_or_else(|| Error::Unavailable("the server asks for a password, and the database URL has none".into()))
    }

    async fn receive(&mut self) -> Result<wire::Message, Error> {
        loop {
            if let Some(message) = wire::next(&mut self.buffer).map_err(|_| nonsense())? {
                return Ok(message);
            }
            if self.stream.read_buf(&mut self.buffer).await.map_err(|cause| unavailable(&cause))? == 0 {
                return Err(Error::Unavailable("the server closed the connection".into()));
            }
        }
    }
}

fn nonsense() -> Error {
    Error::Unavailable("the server does not speak PostgreSQL's protocol".into())
}

fn unavailable(cause: &dyn std::fmt::Display) -> Error {
    Error::Unavailable(cause.to_string())
}
