//! The loop: one thread that reads from the clients, runs their turns and writes the answers.
//!
//! At start: lock, open (recovery happens there), bind, say `ready`. In the loop: wait for readiness, read,
//! run complete turns fairly, write. A client in a transaction keeps the session until the transaction
//! ends, but not while it idles and others wait. At the end (standard input closed, or a trap) the process
//! leaves; the log makes the next start whole.

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use oliphaunt_wasix::{DatabaseStorage, Extension, Oliphaunt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::client::{Client, NODE, Phase};
use crate::lock::{self, Lock};
use crate::maintenance::Maintenance;
use crate::parent::{self, Running};
use crate::{Error, Options, frame, session, socket_path, turn};

/// A client that idles inside a transaction while others wait loses it after this.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(5);
/// How long the running statement gets once the parent has gone.
const GRACE: Duration = Duration::from_secs(1);

/// Serves until standard input ends. On standard output it says `ready`, or `failed` and why.
pub fn serve(options: &Options) -> ExitCode {
    let server = match start(options) {
        Ok(server) => server,
        Err(cause) => {
            println!("failed {}", cause.to_string().replace('\n', " "));
            return ExitCode::FAILURE;
        }
    };
    println!("ready");
    match server.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("{cause}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: &Options) -> Result<Server, Error> {
    let io = |what| {
        let path = options.data.clone();
        move |cause: std::io::Error| Error::Io { what, path, cause }
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&options.data).map_err(io("create"))?;
    let lock = lock::acquire(&options.data)?;
    clear(&options.data.join("tmp")).map_err(io("clear the folder tmp in"))?;
    let socket = socket_path(&options.data);
    match std::fs::remove_file(&socket) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => {
            return Err(io("remove the socket in")(cause));
        }
        _ => {}
    }
    let engine = open(options)?;
    let listener = bind(&socket).map_err(io("bind the socket in"))?;
    let (leave, left) = UnixStream::pair().map_err(io("make a pipe for"))?;
    let running = Running::new();
    parent::watch(running.clone(), move || {
        // The end of the pair wakes the loop, which closes the engine; a statement that runs long gets no say.
        drop(leave);
        std::thread::sleep(GRACE);
        std::process::exit(0);
    });
    Server::new(engine, listener, running, left, lock)
}

/// Temporary files belong to one process; the lock says that it is this one.
fn clear(folder: &std::path::Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    std::fs::DirBuilder::new().mode(0o700).create(folder)
}

fn open(options: &Options) -> Result<Oliphaunt, Error> {
    Oliphaunt::builder()
        .storage(DatabaseStorage::Directory(options.data.join("cluster")))
        .extensions([Extension::PGCRYPTO, Extension::PG_TRGM, Extension::UUID_OSSP])
        .startup_guc("shared_buffers", &options.shared_buffers)
        .startup_guc("search_path", "\"$user\", public")
        // There is one session and no other process: what is kept ready for more would only take memory.
        .startup_guc("max_connections", "5")
        .startup_guc("max_worker_processes", "0")
        .startup_guc("max_parallel_workers", "0")
        .startup_guc("max_wal_senders", "0")
        .startup_guc("max_replication_slots", "0")
        .startup_guc("wal_buffers", "512kB")
        // Plans have a number by which they are found again.
        .startup_guc("compute_query_id", "on")
        .open()
        .map_err(|cause| Error::Open(cause.to_string()))
}

/// A path too long for a socket address is reached through an open directory.
fn bind(socket: &std::path::Path) -> std::io::Result<UnixListener> {
    let listener = if socket.as_os_str().len() < 100 {
        UnixListener::bind(socket)?
    } else {
        use std::os::fd::AsRawFd;
        let folder = std::fs::File::open(socket.parent().unwrap_or(std::path::Path::new(".")))?;
        UnixListener::bind(format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), crate::SOCKET_NAME))?
    };
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

struct Server {
    engine: Oliphaunt,
    listener: UnixListener,
    running: Running,
    /// Ends when the parent has gone.
    left: UnixStream,
    leaving: bool,
    _lock: Lock,
    clients: Vec<Client>,
    /// Whose settings are in the session now.
    current: Option<u32>,
    /// Who is in a transaction or between Flush and Sync.
    owner: Option<u32>,
    next_id: u32,
    /// Rotates, so that every client gets its turn.
    next: usize,
    turns: u64,
    parameters: Vec<u8>,
    maintenance: Maintenance,
}

impl Server {
    fn new(
        mut engine: Oliphaunt,
        listener: UnixListener,
        running: Running,
        left: UnixStream,
        lock: Lock,
    ) -> Result<Self, Error> {
        let parameters = parameters(&mut engine)?;
        Ok(Self {
            engine,
            listener,
            running,
            left,
            leaving: false,
            _lock: lock,
            clients: Vec::new(),
            current: None,
            owner: None,
            next_id: 1,
            next: 0,
            turns: 0,
            parameters,
            maintenance: Maintenance::new(),
        })
    }

    fn run(mut self) -> Result<(), Error> {
        loop {
            self.wait();
            if self.leaving {
                return self.engine.close().map_err(|cause| Error::Trapped(cause.to_string()));
            }
            self.accept();
            while !self.leaving && self.one_turn()? {
                self.read_ready();
            }
            self.bury()?;
            self.evict_idle_owner()?;
            if self.owner.is_none() && self.maintenance.due(self.turns).is_some_and(|due| due <= Instant::now()) {
                self.switch(None)?;
                self.maintenance.run(&mut self.engine, self.turns)?;
            }
        }
    }

    /// Waits until a client or the listener is ready, or something is due; then reads and writes.
    fn wait(&mut self) {
        let timeout = self.timeout();
        self.poll_clients(timeout);
    }

    /// Reads what has arrived meanwhile, without waiting.
    fn read_ready(&mut self) {
        if self.clients.len() == 1 {
            self.clients[0].fill();
        } else {
            self.poll_clients(Some(Duration::ZERO));
        }
    }

    fn poll_clients(&mut self, timeout: Option<Duration>) {
        let ready: Vec<PollFlags> = {
            let mut fds: Vec<PollFd<'_>> = self
                .clients
                .iter()
                .map(|client| {
                    let write = if client.has_output() { PollFlags::OUT } else { PollFlags::empty() };
                    PollFd::new(&client.stream, PollFlags::IN | write)
                })
                .collect();
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
            fds.push(PollFd::new(&self.left, PollFlags::IN));
            let timeout = timeout.map(|timeout| Timespec {
                tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: timeout.subsec_nanos().into(),
            });
            // An interrupted wait is a short one.
            let _ = poll(&mut fds, timeout.as_ref());
            fds.iter().map(PollFd::revents).collect()
        };
        self.leaving = ready.last().is_some_and(|left| !left.is_empty());
        for (client, ready) in self.clients.iter_mut().zip(ready) {
            if ready.contains(PollFlags::OUT) {
                client.flush();
            }
            if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                client.fill();
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let idle_owner = self
            .owner
            .filter(|_| self.somebody_waits())
            .and_then(|owner| self.clients.iter().find(|client| client.id == owner))
            .map(|client| client.last_turn + IDLE_IN_TRANSACTION);
        let due = if self.owner.is_none() { self.maintenance.due(self.turns) } else { None };
        let next = [idle_owner, due].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn somebody_waits(&self) -> bool {
        self.clients.iter().any(|client| Some(client.id) != self.owner && !client.input.is_empty())
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client::new(self.next_id, stream));
                self.next_id = self.next_id.wrapping_add(1).max(1);
            }
        }
    }

    /// Runs the next complete turn of whoever is next; false when nobody has one.
    fn one_turn(&mut self) -> Result<bool, Error> {
        let count = self.clients.len();
        for step in 0..count {
            let index = (self.next + step) % count;
            let client = &self.clients[index];
            if client.gone || client.input.is_empty() || self.owner.is_some_and(|owner| owner != client.id) {
                continue;
            }
            if self.serve_client(index)? {
                self.next = index + 1;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn serve_client(&mut self, index: usize) -> Result<bool, Error> {
        match self.clients[index].phase {
            Phase::Startup => self.startup(index),
            Phase::Ready => self.statement(index),
            Phase::Copying => self.copy(index),
        }
    }

    /// Answers the startup packet: no password, because the socket's directory is private.
    fn startup(&mut self, index: usize) -> Result<bool, Error> {
        let client = &mut self.clients[index];
        let Some((length, rest)) = client.input.split_first_chunk::<4>() else {
            return Ok(false);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if !(8..=10_000).contains(&length) {
            client.gone = true;
            return Ok(true);
        }
        if rest.len() + 4 < length {
            return Ok(false);
        }
        let packet: Vec<u8> = client.input.drain(..length).skip(4).collect();
        match u32::from_be_bytes([packet[0], packet[1], packet[2], packet[3]]) {
            // SSLRequest and GSSENCRequest: not here.
            80_877_103 | 80_877_104 => client.send(b"N"),
            196_608..=196_610 => return self.welcome(index, &packet[4..]),
            // CancelRequest and anything else.
            _ => client.gone = true,
        }
        Ok(true)
    }

    fn welcome(&mut self, index: usize, packet: &[u8]) -> Result<bool, Error> {
        let fields = startup_fields(packet);
        let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let user = field("user").unwrap_or("postgres").to_owned();
        let database = field("database").unwrap_or(&user).to_owned();
        let is_node = field("application_name") == Some(NODE);
        if database != "postgres" {
            let message = format!("database \"{database}\" does not exist; the embedded database is \"postgres\"");
            self.refuse(index, "3D000", &message);
            return Ok(true);
        }
        let id = self.clients[index].id;
        self.switch(Some(id))?;
        if user != "postgres" {
            let set = format!("SET SESSION AUTHORIZATION {}", session::quoted(&user, '"'));
            if let Some(message) = frame::error(&session::sql(&mut self.engine, &set)?) {
                self.refuse(index, "28000", &message);
                return Ok(true);
            }
        }
        let parameters = self.parameters.clone();
        let client = &mut self.clients[index];
        client.is_node = is_node && user == "postgres";
        client.phase = Phase::Ready;
        let mut out = Vec::new();
        frame::push(&mut out, b'R', &0_u32.to_be_bytes());
        out.extend_from_slice(&parameters);
        frame::push(&mut out, b'K', &[id.to_be_bytes(), [0; 4]].concat());
        frame::push(&mut out, b'Z', b"I");
        client.send(&out);
        Ok(true)
    }

    fn refuse(&mut self, index: usize, code: &str, message: &str) {
        let mut out = Vec::new();
        frame::push_error(&mut out, "FATAL", code, message);
        let client = &mut self.clients[index];
        client.send(&out);
        client.gone = true;
    }

    fn statement(&mut self, index: usize) -> Result<bool, Error> {
        let client = &mut self.clients[index];
        let length = match turn::length(&client.input) {
            Ok(Some(length)) => length,
            Ok(None) => return Ok(false),
            Err(frame::TooLong) => {
                self.refuse(index, "08P01", "invalid message length");
                return Ok(true);
            }
        };
        if client.input[0] == b'X' {
            client.gone = true;
            return Ok(true);
        }
        if client.is_node {
            let turn: Vec<u8> = client.input.drain(..length).collect();
            return self.run_turn(index, &turn, false);
        }
        if turn::is_copy_in(&client.input[..length]) {
            // The engine wants the rows together with the statement, so they are collected first.
            client.send(&[b'G', 0, 0, 0, 7, 0, 0, 0]);
            client.phase = Phase::Copying;
            return Ok(true);
        }
        let turn: Vec<u8> = client.input.drain(..length).collect();
        let prefix = format!("c{}_", client.id);
        let turn = turn::rewrite(&turn, &prefix, &mut client.prepared);
        self.run_turn(index, &turn, false)
    }

    fn copy(&mut self, index: usize) -> Result<bool, Error> {
        let client = &mut self.clients[index];
        let statement = turn::length(&client.input).ok().flatten().unwrap_or(0);
        match turn::copy_length(&client.input[statement..]) {
            Ok(Some(rows)) => {
                client.phase = Phase::Ready;
                let turn: Vec<u8> = client.input.drain(..statement + rows).collect();
                self.run_turn(index, &turn, true)
            }
            Ok(None) => Ok(false),
            Err(frame::TooLong) => {
                self.refuse(index, "08P01", "invalid message length");
                Ok(true)
            }
        }
    }

    fn run_turn(&mut self, index: usize, turn: &[u8], was_copy: bool) -> Result<bool, Error> {
        let id = self.clients[index].id;
        self.switch(Some(id))?;
        self.running.begin(id);
        let response = session::run(&mut self.engine, turn)?;
        self.running.end();
        self.turns += 1;
        self.clients[index].last_turn = Instant::now();
        let seen = self.deliver(index, &response, was_copy);
        self.owner = match seen.status {
            Some(b'I') => None,
            _ => Some(id),
        };
        if seen.listening {
            self.note_channels(index)?;
        }
        Ok(true)
    }

    /// Sends the response to its client, and notifications to all who listen.
    fn deliver(&mut self, index: usize, response: &[u8], was_copy: bool) -> Seen {
        let mut seen = Seen::default();
        let mut notifications = Vec::new();
        let mut plain = true;
        for frame in frame::all(response) {
            match frame.kind {
                b'Z' => seen.status = frame.body.first().copied(),
                b'A' => {
                    notifications.push(frame.whole);
                    plain = false;
                }
                b'G' if was_copy => plain = false,
                b'C' if is_listen(frame.body) => seen.listening = true,
                _ => {}
            }
        }
        if plain {
            self.clients[index].send(response);
        } else {
            let kept: Vec<u8> = frame::all(response)
                .filter(|frame| frame.kind != b'A' && !(was_copy && frame.kind == b'G'))
                .flat_map(|frame| frame.whole.iter().copied())
                .collect();
            self.clients[index].send(&kept);
        }
        for notification in notifications {
            let channel = frame::cstr(&notification[9..]).map(|(name, _)| String::from_utf8_lossy(name));
            for client in &mut self.clients {
                if channel.as_ref().is_some_and(|channel| client.channels.contains(channel.as_ref())) {
                    client.send(notification);
                }
            }
        }
        seen
    }

    /// After LISTEN or UNLISTEN: whose channels are they, and which must be listened to again.
    fn note_channels(&mut self, index: usize) -> Result<(), Error> {
        let found = session::sql(&mut self.engine, "SELECT pg_catalog.pg_listening_channels()")?;
        let now: std::collections::BTreeSet<String> = frame::rows(&found).into_iter().flatten().flatten().collect();
        let others: std::collections::BTreeSet<String> = self
            .clients
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index)
            .flat_map(|(_, client)| client.channels.iter().cloned())
            .collect();
        let client = &mut self.clients[index];
        client.channels.retain(|channel| now.contains(channel));
        client.channels.extend(now.difference(&others).cloned());
        for lost in others.difference(&now) {
            session::sql(&mut self.engine, &format!("LISTEN {}", session::quoted(lost, '"')))?;
        }
        Ok(())
    }

    /// Makes the session that of `client`.
    fn switch(&mut self, client: Option<u32>) -> Result<(), Error> {
        if self.current == client {
            return Ok(());
        }
        if let Some(leaving) = self.clients.iter_mut().find(|other| Some(other.id) == self.current)
            && !leaving.is_node
        {
            session::take(&mut self.engine, &mut leaving.saved)?;
        }
        if let Some(coming) = self.clients.iter().find(|other| Some(other.id) == client)
            && !coming.is_node
        {
            session::give(&mut self.engine, &coming.saved)?;
        }
        self.current = client;
        Ok(())
    }

    /// Ends the sessions of clients that have left.
    fn bury(&mut self) -> Result<(), Error> {
        while let Some(index) = self.clients.iter().position(|client| client.gone) {
            let id = self.clients[index].id;
            if self.owner == Some(id) {
                let mut end = Vec::new();
                frame::push(&mut end, b'S', b"");
                session::run(&mut self.engine, &end)?;
                session::sql(&mut self.engine, "ROLLBACK")?;
                self.owner = None;
            }
            if self.current == Some(id) {
                self.switch(None)?;
            }
            let client = self.clients.swap_remove(index);
            session::forget(&mut self.engine, &client.prepared)?;
            for channel in &client.channels {
                if !self.clients.iter().any(|other| other.channels.contains(channel)) {
                    session::sql(&mut self.engine, &format!("UNLISTEN {}", session::quoted(channel, '"')))?;
                }
            }
        }
        Ok(())
    }

    fn evict_idle_owner(&mut self) -> Result<(), Error> {
        let Some(owner) = self.owner else {
            return Ok(());
        };
        let Some(index) = self.clients.iter().position(|client| client.id == owner) else {
            return Ok(());
        };
        let idle = self.clients[index].last_turn.elapsed() >= IDLE_IN_TRANSACTION;
        if idle && self.somebody_waits() {
            self.refuse(index, "25P03", "terminating connection due to idle-in-transaction timeout");
            self.bury()?;
        }
        Ok(())
    }
}

/// What a response told about the session.
#[derive(Default)]
struct Seen {
    status: Option<u8>,
    listening: bool,
}

fn is_listen(tag: &[u8]) -> bool {
    matches!(tag, b"LISTEN\0" | b"UNLISTEN\0" | b"DISCARD ALL\0")
}

fn startup_fields(mut packet: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    while let Some((key, rest)) = frame::cstr(packet) {
        if key.is_empty() {
            break;
        }
        let Some((value, rest)) = frame::cstr(rest) else {
            break;
        };
        fields.push((String::from_utf8_lossy(key).into_owned(), String::from_utf8_lossy(value).into_owned()));
        packet = rest;
    }
    fields
}

/// The ParameterStatus messages that a client gets at its start.
fn parameters(engine: &mut Oliphaunt) -> Result<Vec<u8>, Error> {
    let names = [
        "server_version",
        "server_encoding",
        "client_encoding",
        "application_name",
        "DateStyle",
        "IntervalStyle",
        "TimeZone",
        "integer_datetimes",
        "standard_conforming_strings",
    ];
    let mut out = Vec::new();
    for name in names {
        let found = frame::rows(&session::sql(engine, &format!("SHOW {name}"))?);
        let value = found.into_iter().flatten().flatten().next().unwrap_or_default();
        frame::push(&mut out, b'S', &[name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    Ok(out)
}
