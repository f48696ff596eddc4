//! A client of realtime, as simple as one can be (RFC 6455, realtime's messages in version 2.0.0). It remembers all that it hears.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::node::PATIENCE;

/// What the server has said.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// Join reference, reference, topic, event, payload.
    Text(Value),
    /// A broadcast in a binary frame.
    Broadcast { topic: String, event: String, is_json: bool, content: Vec<u8> },
}

/// A connection with its channels.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    heard: Arc<(Mutex<Vec<Heard>>, Condvar)>,
    has_ended: Arc<AtomicBool>,
    next: u32,
}

impl Client {
    /// Connects to a node.
    ///
    /// # Panics
    /// When it is refused.
    pub fn connect(url: &str, key: &str) -> Self {
        Self::try_connect(url, key).expect("the node listens and answers")
    }

    /// Likewise, to a node that may be gone.
    ///
    /// # Errors
    /// When it is.
    ///
    /// # Panics
    /// When the client is refused.
    pub fn try_connect(url: &str, key: &str) -> io::Result<Self> {
        let path = format!("/realtime/v1/websocket?apikey={key}&vsn=2.0.0");
        let (stream, mut reader, status) = handshake(url, &path)?;
        assert!(status.contains(" 101 "), "{status}");
        let heard: Arc<(Mutex<Vec<Heard>>, Condvar)> = Arc::default();
        let remembered = heard.clone();
        let has_ended = Arc::new(AtomicBool::new(false));
        let ended = has_ended.clone();
        std::thread::spawn(move || {
            while let Some(message) = read(&mut reader) {
                remembered.0.lock().unwrap_or_else(PoisonError::into_inner).push(message);
                remembered.1.notify_all();
            }
            ended.store(true, Ordering::Release);
            remembered.1.notify_all();
        });
        Ok(Self { stream, heard, has_ended, next: 1 })
    }

    /// The first line of what a node answers to a handshake at this path.
    ///
    /// # Panics
    /// When there is no answer.
    #[must_use]
    pub fn answered(url: &str, path: &str) -> String {
        handshake(url, path).expect("the node listens and answers").2
    }

    /// Joins a channel and waits until it has; `config` is that of the join.
    ///
    /// # Panics
    /// When it is refused.
    pub fn join(&mut self, name: &str, config: &Value) {
        self.join_as(None, name, config);
    }

    /// Likewise, with a token.
    ///
    /// # Panics
    /// When it is refused.
    pub fn join_as(&mut self, token: Option<&str>, name: &str, config: &Value) {
        let reply = self.try_join_as(token, name, config);
        assert_eq!(reply["status"], "ok", "{reply}");
    }

    /// Likewise; gives the answer, whatever it is.
    ///
    /// # Panics
    /// When there is none.
    pub fn try_join_as(&mut self, token: Option<&str>, name: &str, config: &Value) -> Value {
        let reference = self.next.to_string();
        self.push(name, "phx_join", &json!({ "config": config, "access_token": token }));
        self.until("joined", |heard| match heard {
            Heard::Text(message) if message[1] == reference.as_str() => Some(message[4].clone()),
            _ => None,
        })
    }

    /// The payloads of an event on a channel that were heard until now.
    pub fn heard(&self, name: &str, event: &str) -> Vec<Value> {
        heard(&self.all(), name, event)
    }

    /// Waits until so many payloads of an event were heard on a channel, and gives them all.
    ///
    /// # Panics
    /// When they never are.
    pub fn until_heard(&self, count: usize, name: &str, event: &str) -> Vec<Value> {
        let found = self.within(PATIENCE, |all| {
            let heard = heard(all, name, event);
            (heard.len() >= count).then_some(heard)
        });
        found.unwrap_or_else(|| panic!("{count} of {event} never heard; but {:?}", self.all()))
    }

    /// Says something on a channel.
    ///
    /// # Panics
    /// When the connection has ended.
    pub fn push(&mut self, name: &str, event: &str, payload: &Value) {
        self.push_text(name, event, &payload.to_string());
    }

    /// Likewise, in just these letters.
    ///
    /// # Panics
    /// When the connection has ended.
    pub fn push_text(&mut self, name: &str, event: &str, payload: &str) {
        self.try_push(name, event, payload).expect("the connection is open");
    }

    /// Likewise, on a connection that may have ended.
    ///
    /// # Errors
    /// When it has.
    pub fn try_push(&mut self, name: &str, event: &str, payload: &str) -> io::Result<()> {
        let reference = self.next;
        self.next += 1;
        let message = format!(r#"["1","{reference}","realtime:{name}","{event}",{payload}]"#);
        self.try_send(1, message.as_bytes())
    }

    /// Reads nothing meanwhile: what comes stays where it is.
    pub fn without_reading<T>(&self, action: impl FnOnce() -> T) -> T {
        let _held = self.heard.0.lock().unwrap_or_else(PoisonError::into_inner);
        action()
    }

    /// Waits for something that was not taken yet, and takes all of it. Nothing, once the connection has ended.
    pub fn take(&self) -> Vec<Heard> {
        let (heard, changed) = &*self.heard;
        let mut all = heard.lock().unwrap_or_else(PoisonError::into_inner);
        while all.is_empty() && !self.has_ended.load(Ordering::Acquire) {
            // The end may be told in between.
            all = changed.wait_timeout(all, Duration::from_millis(100)).unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::take(&mut *all)
    }

    /// Broadcasts in a binary frame.
    ///
    /// # Panics
    /// When the connection has ended.
    pub fn broadcast(&mut self, name: &str, event: &str, is_json: bool, content: &[u8]) {
        let reference = self.next.to_string();
        self.next += 1;
        let names = ["1".to_owned(), reference, format!("realtime:{name}"), event.to_owned(), String::new()];
        let mut frame = vec![3];
        frame.extend(names.iter().map(|name| u8::try_from(name.len()).expect("a short name")));
        frame.push(u8::from(is_json));
        for name in &names {
            frame.extend_from_slice(name.as_bytes());
        }
        frame.extend_from_slice(content);
        self.send(2, &frame);
    }

    /// Is present on a channel as this.
    ///
    /// # Panics
    /// When the connection has ended.
    pub fn track(&mut self, name: &str, payload: &Value) {
        self.push(name, "presence", &json!({ "type": "presence", "event": "track", "payload": payload }));
    }

    /// All that was heard until now.
    pub fn all(&self) -> Vec<Heard> {
        self.heard.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until something is heard, also earlier.
    ///
    /// # Panics
    /// When it never is.
    pub fn until<T>(&self, what: &str, is: impl Fn(&Heard) -> Option<T>) -> T {
        let found = self.within(PATIENCE, |all| all.iter().find_map(&is));
        found.unwrap_or_else(|| panic!("never heard: {what}; but {:?}", self.all()))
    }

    /// Looks at all that was heard until there is something to be found, for so long at most.
    pub fn within<T>(&self, patience: Duration, find: impl Fn(&[Heard]) -> Option<T>) -> Option<T> {
        let (heard, changed) = &*self.heard;
        let begun = Instant::now();
        let mut all = heard.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = find(&all) {
                return Some(found);
            }
            let left = patience.checked_sub(begun.elapsed())?;
            all = changed.wait_timeout(all, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Who is present on a channel, as far as it was told: what they are, by their keys.
    pub fn present(&self, name: &str) -> BTreeMap<String, Vec<Value>> {
        present(&self.all(), name)
    }

    /// Waits until these are present on a channel.
    ///
    /// # Panics
    /// When they never are.
    pub fn until_present(&self, name: &str, keys: &[&str]) {
        let expected: BTreeSet<&str> = keys.iter().copied().collect();
        self.until_so(&format!("{expected:?} are present"), name, |present| {
            present.keys().map(String::as_str).eq(expected.iter().copied())
        });
    }

    /// Waits until it is so with who is present on a channel.
    ///
    /// # Panics
    /// When it never is.
    pub fn until_so(&self, what: &str, name: &str, is: impl Fn(&BTreeMap<String, Vec<Value>>) -> bool) {
        let found = self.within(PATIENCE, |all| is(&present(all, name)).then_some(()));
        assert!(found.is_some(), "never: {what}, but {:?}", self.present(name));
    }

    fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.try_send(opcode, payload).expect("the connection is open");
    }

    fn try_send(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame = vec![0x80 + opcode];
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(length), _) if length < 126 => frame.push(0x80 + length),
            (_, Ok(length)) => {
                frame.push(0x80 + 126);
                frame.extend(length.to_be_bytes());
            }
            _ => {
                frame.push(0x80 + 127);
                frame.extend((payload.len() as u64).to_be_bytes());
            }
        }
        // A mask of nothing is one too.
        frame.extend([0; 4]);
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Asks for a websocket: the connection, what comes on it after the head of the answer, and that one's first line.
fn handshake(url: &str, path: &str) -> io::Result<(TcpStream, BufReader<TcpStream>, String)> {
    let host = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host)?;
    stream.set_nodelay(true)?;
    let handshake = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(handshake.as_bytes())?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut status, mut line) = (String::new(), String::new());
    reader.read_line(&mut status)?;
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok((stream, reader, status))
}

/// The next message; `None` at the end. Frames of a server are not masked.
fn read(reader: &mut impl Read) -> Option<Heard> {
    let mut message = Vec::new();
    let mut kind = 0;
    loop {
        let mut head = [0; 2];
        reader.read_exact(&mut head).ok()?;
        let length = match head[1] & 0x7f {
            126 => {
                let mut length = [0; 2];
                reader.read_exact(&mut length).ok()?;
                u64::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                reader.read_exact(&mut length).ok()?;
                u64::from_be_bytes(length)
            }
            short => u64::from(short),
        };
        let mut part = vec![0; usize::try_from(length).ok()?];
        reader.read_exact(&mut part).ok()?;
        match head[0] & 0x0f {
            0x0 => {}
            opcode @ (0x1 | 0x2) => kind = opcode,
            0x8 => return None,
            _ => continue,
        }
        message.extend(part);
        if head[0] & 0x80 != 0 {
            break;
        }
    }
    if kind == 1 {
        return serde_json::from_slice(&message).ok().map(Heard::Text);
    }
    // 4, the lengths of topic, event and metadata, the encoding, and then they.
    let [4, topic, event, meta, encoding, rest @ ..] = message.as_slice() else { return None };
    let (topic, rest) = rest.split_at_checked(usize::from(*topic))?;
    let (event, rest) = rest.split_at_checked(usize::from(*event))?;
    let (_, content) = rest.split_at_checked(usize::from(*meta))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (topic, event) = (text(topic), text(event));
    Some(Heard::Broadcast { topic, event, is_json: *encoding == 1, content: content.to_vec() })
}

fn heard(all: &[Heard], name: &str, event: &str) -> Vec<Value> {
    let topic = format!("realtime:{name}");
    let payload = |heard: &Heard| match heard {
        Heard::Text(message) if message[2] == topic.as_str() && message[3] == event => Some(message[4].clone()),
        _ => None,
    };
    all.iter().filter_map(payload).collect()
}

/// What states and diffs come to, metas by key, as Phoenix's client reckons.
fn present(all: &[Heard], name: &str) -> BTreeMap<String, Vec<Value>> {
    let topic = format!("realtime:{name}");
    let mut present: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for heard in all {
        let Heard::Text(message) = heard else { continue };
        if message[2] != topic.as_str() {
            continue;
        }
        let metas = |value: &Value| -> Vec<(String, Vec<Value>)> {
            let keys = value.as_object().into_iter().flatten();
            keys.map(|(key, it)| (key.clone(), it["metas"].as_array().cloned().unwrap_or_default())).collect()
        };
        match message[3].as_str() {
            Some("presence_state") => present = metas(&message[4]).into_iter().collect(),
            Some("presence_diff") => {
                for (key, joins) in metas(&message[4]["joins"]) {
                    let of_key = present.entry(key).or_default();
                    // The state may have had it already.
                    of_key.retain(|known| joins.iter().all(|meta| meta["phx_ref"] != known["phx_ref"]));
                    of_key.extend(joins);
                }
                for (key, leaves) in metas(&message[4]["leaves"]) {
                    let of_key = present.entry(key.clone()).or_default();
                    of_key.retain(|known| leaves.iter().all(|meta| meta["phx_ref"] != known["phx_ref"]));
                    if of_key.is_empty() {
                        present.remove(&key);
                    }
                }
            }
            _ => {}
        }
    }
    present
}
