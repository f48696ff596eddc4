//! The loop: one thread that reads from the clients, runs their turns and writes the answers.
//!
//! At start: lock, open (recovery happens there), bind, say `ready`. In the loop: wait for readiness, read,
//! run complete turns fairly, write. A client in a transaction keeps the session until the transaction
//! ends, but not while it idles and others wait. At the end (standard input closed, or a trap) the process
//! leaves; the log makes the next start whole.

mod arrival;
mod padding;
mod turns;

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use oliphaunt_wasix::{DatabaseStorage, Extension, Oliphaunt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::client::{Client, Phase};
use crate::lock::{self, Lock};
use crate::maintenance::Maintenance;
use crate::parent::{self, Running};
use crate::session::{self, Session};
use crate::{Error, Options, socket_path};
use padding::Padding;

/// A client that idles inside a transaction while others wait loses it after this.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(5);
/// So many turns of the only client until it is looked whether there is another.
const TURNS_ALONE: u64 = 16;
/// How long the running statement gets once the parent has gone.
const GRACE: Duration = Duration::from_secs(1);
/// How long the last checkpoint gets after that; what it does not finish the next start does.
const CLOSING: Duration = Duration::from_secs(30);

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
    ignore_signals().map_err(|cause| Error::Io { what: "ignore signals in", path: options.data.clone(), cause })?;
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
    let session = open(options)?;
    let listener = bind(&socket).map_err(io("bind the socket in"))?;
    let (leave, left) = UnixStream::pair().map_err(io("make a pipe for"))?;
    let running = Running::new();
    let closing = Arc::new(AtomicBool::new(false));
    parent::watch(running.clone(), {
        let closing = closing.clone();
        move || {
            // The end of the pair wakes the loop, which closes the engine; a statement that runs long gets no say.
            drop(leave);
            std::thread::sleep(GRACE);
            if closing.load(Ordering::Relaxed) {
                std::thread::sleep(CLOSING);
            }
            std::process::exit(0);
        }
    });
    Ok(Server::new(options.clone(), session, listener, running, left, lock, closing))
}

/// Who ends a service signals all its processes: the node answers what is under way first, and needs the engine for it. The end of
/// standard input is what counts here.
fn ignore_signals() -> std::io::Result<()> {
    let unheard = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, unheard.clone())?;
    }
    Ok(())
}

/// Temporary files belong to one process; the lock says that it is this one.
fn clear(folder: &std::path::Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    std::fs::DirBuilder::new().mode(0o700).create(folder)
}

/// Opens the cluster; PostgreSQL recovers from its log where it has to.
fn open(options: &Options) -> Result<Session, Error> {
    let mut padding = Padding::default();
    loop {
        match open_once(options) {
            Err(Error::Open(cause)) if padding.helps(&options.data, &cause) => {}
            opened => return opened.map(Session::new),
        }
    }
}

fn open_once(options: &Options) -> Result<Oliphaunt, Error> {
    Oliphaunt::builder()
        .storage(DatabaseStorage::Directory(options.data.join("cluster")))
        .extensions([Extension::PGCRYPTO, Extension::PG_TRGM, Extension::UUID_OSSP])
        .startup_guc("shared_buffers", &options.shared_buffers)
        .startup_guc("search_path", "\"$user\", public")
        // There is one session and no other process: what is kept ready for more would only take memory.
        .startup_guc("max_connections", "5")
        .startup_guc("max_worker_processes", "0")
        .startup_guc("max_parallel_workers", "0")
        // A small database beside an application, not the machine's main purpose.
        .startup_guc("effective_cache_size", "128MB")
        .startup_guc("max_wal_senders", "0")
        .startup_guc("max_replication_slots", "0")
        .startup_guc("wal_buffers", "512kB")
        .startup_guc("max_stack_depth", session::STACK_DEPTH)
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
    options: Options,
    session: Session,
    listener: UnixListener,
    running: Running,
    /// Ends when the parent has gone.
    left: UnixStream,
    leaving: bool,
    /// Set once the last checkpoint is under way.
    closing: Arc<AtomicBool>,
    lock: Lock,
    clients: Vec<Client>,
    /// Whose settings are in the session now.
    current: Option<u32>,
    /// Who is in a transaction or between Flush and Sync.
    owner: Option<u32>,
    next_id: u32,
    /// Rotates, so that every client gets its turn.
    next: usize,
    turns: u64,
    /// Somebody has deallocated everybody's statements, in a transaction that goes on.
    are_deallocated: bool,
    maintenance: Maintenance,
}

impl Server {
    fn new(
        options: Options,
        session: Session,
        listener: UnixListener,
        running: Running,
        left: UnixStream,
        lock: Lock,
        closing: Arc<AtomicBool>,
    ) -> Self {
        Self {
            options,
            session,
            listener,
            running,
            left,
            leaving: false,
            closing,
            lock,
            clients: Vec::new(),
            current: None,
            owner: None,
            next_id: 1,
            next: 0,
            turns: 0,
            are_deallocated: false,
            maintenance: Maintenance::new(),
        }
    }

    fn run(mut self) -> Result<(), Error> {
        loop {
            self.wait();
            if self.leaving {
                self.closing.store(true, Ordering::Relaxed);
                self.lock.leave();
                return self.session.close();
            }
            self.accept();
            // Whoever has gone, or is sent away, may have kept others waiting whose turns have been read already: so this comes
            // before the turns, and nobody with a whole turn is left behind when it goes to wait again.
            loop {
                self.bury()?;
                self.evict_idle_owner()?;
                let has_run = !self.leaving && self.one_turn()?;
                self.maintain()?;
                if !has_run {
                    break;
                }
                self.renew_worn()?;
                self.read_ready();
            }
        }
    }

    fn maintain(&mut self) -> Result<(), Error> {
        if self.owner.is_none() && self.maintenance.due(self.turns).is_some_and(|due| due <= Instant::now()) {
            self.switch(None)?;
            self.maintenance.run(&mut self.session, self.turns)?;
        }
        Ok(())
    }

    /// Waits until a client or the listener is ready, or something is due; then reads and writes.
    fn wait(&mut self) {
        let timeout = self.timeout();
        self.poll_clients(timeout);
    }

    /// Reads what has arrived meanwhile, without waiting.
    fn read_ready(&mut self) {
        if self.clients.len() == 1 && !self.turns.is_multiple_of(TURNS_ALONE) {
            self.clients[0].fill();
        } else {
            self.poll_clients(Some(Duration::ZERO));
            self.accept();
        }
    }

    fn poll_clients(&mut self, timeout: Option<Duration>) {
        let ready: Vec<PollFlags> = {
            // Who has gone would be ready all the time, and may have to wait for somebody's transaction until it is buried.
            let here = self.clients.iter().filter(|client| !client.gone);
            let mut fds: Vec<PollFd<'_>> = here
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
        let here = self.clients.iter_mut().filter(|client| !client.gone);
        for (client, ready) in here.zip(ready) {
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
        self.clients.iter().any(|client| Some(client.id) != self.owner && client.waits())
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
            // The next turn of a client begins when its last answer has left: behind what a node was not answered, nothing has begun.
            if client.gone
                || client.has_output()
                || client.input.is_empty()
                || self.owner.is_some_and(|owner| owner != client.id)
            {
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

    /// Makes the session that of `client`.
    fn switch(&mut self, client: Option<u32>) -> Result<(), Error> {
        if self.current == client {
            return Ok(());
        }
        if let Some(leaving) = self.clients.iter_mut().find(|other| Some(other.id) == self.current) {
            if !leaving.is_node {
                leaving.saved = self.session.take(&leaving.named.settings)?;
            } else if !leaving.saved.is_empty() {
                self.session.sql("RESET ALL")?;
            }
        }
        if let Some(coming) = self.clients.iter().find(|other| Some(other.id) == client) {
            self.session.give(&coming.saved)?;
        }
        self.current = client;
        Ok(())
    }

    /// Opens the database anew where errors have used up the stack of the one session: what is asked meanwhile waits, and what clients
    /// have prepared and listen to is there again. Whoever is in a transaction is waited for, but not for ever.
    fn renew_worn(&mut self) -> Result<(), Error> {
        if !self.session.has_failed() {
            return Ok(());
        }
        if let Some(index) = self.owning() {
            if !self.session.has_failed_too_often() {
                return Ok(());
            }
            self.refuse(index, "54000", "terminating connection due to too many errors in one transaction");
            self.bury()?;
        }
        self.switch(None)?;
        if !self.session.is_worn()? {
            return Ok(());
        }
        self.session.close()?;
        self.session = open(&self.options)?;
        self.prepare_again(None)?;
        for client in &self.clients {
            for channel in &client.channels {
                self.session.listen(channel)?;
            }
        }
        Ok(())
    }

    /// Prepares the statements of all but one, each with its own settings, as a name may mean another table without them.
    fn prepare_again(&mut self, but: Option<u32>) -> Result<(), Error> {
        for index in 0..self.clients.len() {
            let client = &self.clients[index];
            if Some(client.id) != but && !client.prepared.is_empty() {
                self.switch(Some(client.id))?;
                self.session.prepare(&self.clients[index].prepared)?;
            }
        }
        Ok(())
    }

    /// Ends the sessions of clients that have left, but not within the transaction of another.
    fn bury(&mut self) -> Result<(), Error> {
        while let Some(index) =
            self.clients.iter().position(|client| client.gone && self.owner.is_none_or(|owner| owner == client.id))
        {
            let id = self.clients[index].id;
            if self.owner == Some(id) {
                self.session.roll_back()?;
                self.owner = None;
            }
            if self.current == Some(id) {
                self.switch(None)?;
            }
            let client = self.clients.swap_remove(index);
            self.session.forget(&client.prepared)?;
            for channel in &client.channels {
                if !self.clients.iter().any(|other| other.channels.contains(channel)) {
                    self.session.sql(&format!("UNLISTEN {}", session::quoted(channel, '"')))?;
                }
            }
        }
        Ok(())
    }

    /// Who is in a transaction, or between Flush and Sync.
    fn owning(&self) -> Option<usize> {
        let owner = self.owner?;
        self.clients.iter().position(|client| client.id == owner)
    }

    fn evict_idle_owner(&mut self) -> Result<(), Error> {
        let Some(index) = self.owning() else {
            return Ok(());
        };
        let owner = &self.clients[index];
        let is_idle = owner.last_turn.elapsed() >= IDLE_IN_TRANSACTION;
        if is_idle && self.somebody_waits() {
            self.refuse(index, "25P03", "terminating connection due to idle-in-transaction timeout");
            self.bury()?;
        }
        Ok(())
    }
}
