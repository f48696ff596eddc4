//! Many clients of realtime in one thread: websockets as lean as they can be, because they take their time from what is measured. Frames
//! are told apart, not read; what is in them is looked at where it is expected.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::subject::Subject;

/// More than anything that is said here.
const BUFFER: usize = 256 << 10;
const PATIENCE: Duration = Duration::from_secs(30);
/// Who says nothing for a minute is taken for gone.
const BEAT: Duration = Duration::from_secs(20);

pub struct Swarm {
    address: SocketAddr,
    apikey: String,
    clients: Vec<Client>,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
    frame: Vec<u8>,
    beaten: Instant,
}

struct Client {
    stream: TcpStream,
    /// The begin of a frame.
    rest: Vec<u8>,
}

/// What the server said to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<'a> {
    Text(&'a [u8]),
    Binary(&'a [u8]),
}

/// Files that this process and those it starts may have open: as many as are allowed.
pub fn raise_limit() -> Result<(), String> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: maximum, maximum };
    setrlimit(Resource::Nofile, limit).map_err(|cause| format!("the limit of open files: {cause}"))
}

impl Swarm {
    pub fn new(subject: &Subject) -> Result<Self, String> {
        let url = subject.node.url.trim_start_matches("http://");
        Ok(Self {
            address: url.parse().map_err(|_| format!("{url} is no address"))?,
            apikey: subject.headers[0].1.clone(),
            clients: Vec::new(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|cause| cause.to_string())?,
            events: Vec::with_capacity(1024),
            buffer: vec![0; BUFFER],
            frame: Vec::new(),
            beaten: Instant::now(),
        })
    }

    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// One more client, which has joined when it hears so.
    pub fn join(&mut self, topic: &str, config: &str, token: Option<&str>) -> Result<(), String> {
        let text = |cause: std::io::Error| format!("client {} cannot connect: {cause}", self.clients.len());
        let mut stream = TcpStream::connect(self.address).map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(text)?;
        let request = format!(
            "GET /realtime/v1/websocket?apikey={}&vsn=2.0.0 HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.apikey, self.address
        );
        stream.write_all(request.as_bytes()).map_err(text)?;
        let mut rest = Vec::new();
        let end = loop {
            if let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            let read = stream.read(&mut self.buffer).map_err(text)?;
            if read == 0 {
                return Err("a connection ended in the handshake".into());
            }
            rest.extend_from_slice(&self.buffer[..read]);
        };
        if !rest.starts_with(b"HTTP/1.1 101") {
            return Err(format!("no websocket: {}", String::from_utf8_lossy(&rest)));
        }
        rest.drain(..end);
        stream.set_nonblocking(true).map_err(text)?;
        let at = self.clients.len();
        let data = epoll::EventData::new_u64(at as u64);
        epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN).map_err(|cause| cause.to_string())?;
        self.clients.push(Client { stream, rest });
        let token = token.map(|token| format!(",\"access_token\":\"{token}\"")).unwrap_or_default();
        let join = format!("[\"1\",\"1\",\"realtime:{topic}\",\"phx_join\",{{\"config\":{config}{token}}}]");
        self.say(at, Said::Text(join.as_bytes()))
    }

    /// Lets a client say something.
    pub fn say(&mut self, at: usize, what: Said<'_>) -> Result<(), String> {
        let (kind, payload) = match what {
            Said::Text(payload) => (1, payload),
            Said::Binary(payload) => (2, payload),
        };
        self.frame.clear();
        self.frame.push(0x80 | kind);
        match u16::try_from(payload.len()) {
            Ok(length @ ..126) => self.frame.push(0x80 | length.to_le_bytes()[0]),
            Ok(length) => {
                self.frame.push(0xfe);
                self.frame.extend_from_slice(&length.to_be_bytes());
            }
            Err(_) => return Err("nothing that long is said here".into()),
        }
        // A mask of zeros leaves everything as it is.
        self.frame.extend_from_slice(&[0; 4]);
        self.frame.extend_from_slice(payload);
        match self.clients[at].stream.write(&self.frame) {
            Ok(written) if written == self.frame.len() => Ok(()),
            Ok(_) => Err(format!("client {at} cannot say all: the server does not read")),
            Err(cause) => Err(format!("client {at} cannot speak: {cause}")),
        }
    }

    /// Hears what comes until then at the latest; the time is that at which it was read.
    pub fn hear(&mut self, until: Instant, heard: &mut impl FnMut(usize, Said<'_>, Instant)) -> Result<(), String> {
        if self.beaten.elapsed() > BEAT {
            self.beaten = Instant::now();
            for at in 0..self.clients.len() {
                self.say(at, Said::Text(br#"[null,"0","phoenix","heartbeat",{}]"#))?;
            }
        }
        let wait = until.saturating_duration_since(Instant::now());
        let wait = Timespec { tv_sec: i64::try_from(wait.as_secs()).unwrap_or(1), tv_nsec: wait.subsec_nanos().into() };
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(cause) => return Err(cause.to_string()),
        }
        for at in 0..self.events.len() {
            let client = usize::try_from(self.events[at].data.u64()).map_err(|cause| cause.to_string())?;
            self.read(client, heard)?;
        }
        Ok(())
    }

    fn read(&mut self, at: usize, heard: &mut impl FnMut(usize, Said<'_>, Instant)) -> Result<(), String> {
        let client = &mut self.clients[at];
        let kept = client.rest.len();
        self.buffer[..kept].copy_from_slice(&client.rest);
        let read = match client.stream.read(&mut self.buffer[kept..]) {
            Ok(0) => return Err(format!("the server has closed client {at}")),
            Ok(read) => read,
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(cause) => return Err(format!("client {at} cannot read: {cause}")),
        };
        let now = Instant::now();
        let mut rest = &self.buffer[..kept + read];
        while let Some(frame) = Frame::first(rest).map_err(|why| format!("client {at}: {why}"))? {
            if let Some(said) = frame.said {
                heard(at, said, now);
            }
            rest = frame.behind;
        }
        client.rest.clear();
        client.rest.extend_from_slice(rest);
        Ok(())
    }

    /// Hears until so many clients have been told this, and nobody was told of an error.
    pub fn told(&mut self, what: &str, count: usize) -> Result<(), String> {
        let late = Instant::now() + PATIENCE;
        let (mut told, mut fault) = (0, None);
        while told < count {
            self.hear(late, &mut |_, said, _| {
                let Said::Text(text) = said else { return };
                if position(text, r#""status":"error""#).is_some() {
                    fault.get_or_insert_with(|| String::from_utf8_lossy(text).into_owned());
                } else if position(text, what).is_some() {
                    told += 1;
                }
            })?;
            if let Some(fault) = fault.take() {
                return Err(fault);
            }
            if Instant::now() > late {
                return Err(format!("{told} of {count} clients were told {what:?}"));
            }
        }
        Ok(())
    }
}

struct Frame<'a> {
    /// Nothing if it is neither text nor binary.
    said: Option<Said<'a>>,
    behind: &'a [u8],
}

impl<'a> Frame<'a> {
    /// `None` when it is not whole.
    fn first(bytes: &'a [u8]) -> Result<Option<Self>, String> {
        let [first, second, more @ ..] = bytes else { return Ok(None) };
        let (length, more) = match (second, more) {
            (126, [a, b, more @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), more),
            (126, _) => return Ok(None),
            (127, _) => return Err("a frame of more than 64 kB".into()),
            (length, more) => (usize::from(*length), more),
        };
        let Some((payload, behind)) = more.split_at_checked(length) else { return Ok(None) };
        let said = match first {
            0x81 => Some(Said::Text(payload)),
            0x82 => Some(Said::Binary(payload)),
            0x88 => return Err(format!("closed: {}", String::from_utf8_lossy(payload.get(2..).unwrap_or_default()))),
            _ => None,
        };
        Ok(Some(Self { said, behind }))
    }
}

/// Where a text is in another. What is heard is looked at a thousand times for each change, on the processors that are measured: this is
/// five times as quick as looking at each place.
pub fn position(text: &[u8], what: &str) -> Option<usize> {
    str::from_utf8(text).ok()?.find(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_told_apart() {
        let bytes = b"\x81\x02hi\x82\x7e\x00\x03abc\x89\x00\x81\x05hel";
        let (mut rest, mut said) = (bytes.as_slice(), Vec::new());
        while let Some(frame) = Frame::first(rest).unwrap() {
            said.push(frame.said);
            rest = frame.behind;
        }
        assert_eq!(said, [Some(Said::Text(b"hi")), Some(Said::Binary(b"abc")), None]);
        assert_eq!(rest, b"\x81\x05hel");
        assert_eq!(Frame::first(b"\x88\x06\x03\xf0slow").err().unwrap(), "closed: slow");
    }
}
