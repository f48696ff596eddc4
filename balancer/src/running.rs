//! A balancer that runs: its workers, and the task that tells them which backends there are.
//!
//! At start: sockets are bound, backends are asked how they are for the first time, workers begin. While it runs, the keeper makes a
//! new plan whenever settings, names or registrations change. At the end workers answer what is under way.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ntier_security::defence::Defence;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::interval;

use crate::access::AccessLog;
use crate::backend::{Backend, Health};
use crate::clock::Clock;
use crate::crew::Crew;
use crate::issued::Told;
use crate::listen::{Shared, Sources};
use crate::members::{Known, Resolved};
use crate::observe::{Observation, Observe};
use crate::plan::{Member, Plan};
use crate::redirect::Redirect;
use crate::settings::{Files, Place, Settings};
use crate::worker::Worker;
use crate::{admin, health, listen, members, redirect, tls};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {place}: {cause}")]
    Listen { place: String, cause: io::Error },
    #[error("cannot write the access log: {0}")]
    AccessLog(io::Error),
    #[error(transparent)]
    Certificate(#[from] tls::Error),
    #[error(transparent)]
    System(#[from] io::Error),
}

/// A balancer that answers.
#[derive(Debug)]
pub struct Running {
    pub address: SocketAddr,
    pub admin: Place,
    admin_socket: Option<u64>,
    /// The same sockets that workers listen on: for whoever takes its place.
    listeners: Vec<TcpListener>,
    reload: mpsc::Sender<Settings>,
    stop: watch::Sender<bool>,
    access: AccessLog,
    serving: JoinHandle<io::Result<()>>,
    others: Vec<AbortHandle>,
}

/// What a balancer has beside its settings.
#[derive(Debug)]
pub struct Beside {
    /// Backends that come and go by themselves.
    pub registered: watch::Receiver<Vec<Member>>,
    /// Certificates that do; with them TLS is spoken.
    pub issued: Option<Told>,
    /// Who is kept out.
    pub defence: Option<Arc<Defence>>,
    /// Sockets that listen already, such as those of a balancer whose place it takes, or of systemd. Those are used that listen where the
    /// settings say.
    pub inherited: Vec<TcpListener>,
}

impl Default for Beside {
    fn default() -> Self {
        Self { registered: watch::channel(Vec::new()).1, issued: None, defence: None, inherited: Vec::new() }
    }
}

/// Starts it.
pub async fn start(settings: Settings, beside: Beside, observe: Observe) -> Result<Running, Error> {
    let Beside { registered, issued, defence, inherited } = beside;
    let workers = settings.workers.unwrap_or_else(processors).max(1);
    let refused = |place: String| move |cause| Error::Listen { place, cause };
    let redirect = settings.redirect.filter(|_| settings.tls.is_some() || issued.is_some());
    let (mut redirects, inherited): (Vec<_>, Vec<_>) =
        inherited.into_iter().partition(|listener| redirect.is_some_and(|place| is_at(listener, place)));
    let (inherited, others): (Vec<_>, Vec<_>) =
        inherited.into_iter().partition(|listener| is_at(listener, settings.listen));
    for place in others.iter().filter_map(|listener| listener.local_addr().ok()) {
        observe.tell(&Observation::Unused { place });
    }
    drop(others);
    let redirect = match redirect {
        None => None,
        Some(place) => {
            Some(redirects.pop().map_or_else(|| redirect::bind(place), Ok).map_err(refused(place.to_string()))?)
        }
    };
    let mut listeners = if inherited.is_empty() {
        listen::bind(settings.listen, workers).map_err(refused(settings.listen.to_string()))?
    } else {
        inherited
    };
    let address = listeners.first().map_or(Ok(settings.listen), TcpListener::local_addr)?;
    let dealt = listen::deal(&listeners, workers)?;
    if let Some(redirect) = &redirect {
        redirect.set_nonblocking(true)?;
        listeners.push(redirect.try_clone()?);
    }
    let door = admin::bind(&settings.admin).map_err(refused(settings.admin.to_string()))?;
    let admin = door.place.clone();
    let admin_socket = admin::identity(&admin);
    let access = AccessLog::open(&settings.access_log, observe).map_err(Error::AccessLog)?;
    let (stop, stopped) = watch::channel(false);

    let mut keeper = Keeper::new(settings, registered, issued.clone(), workers, observe);
    keeper.read_certificate()?;
    keeper.renew();
    keeper.first_answers().await;
    let plans = keeper.plans.subscribe();
    let all: Vec<Arc<Worker>> = (0..workers)
        .map(|number| Arc::new(Worker::new(number, plans.borrow().clone(), access.clone(), observe, defence.clone())))
        .collect();
    let operators = admin::Operators::new(plans.clone(), all.clone(), stopped.clone());
    let (reload, reloads) = mpsc::channel(1);
    let mut others = vec![
        tokio::spawn(keeper.keep(reloads)).abort_handle(),
        tokio::spawn(admin::serve(door, Arc::new(operators))).abort_handle(),
    ];
    if let Some(redirect) = redirect {
        let answers = Redirect { port: address.port(), issued, defence, plans: plans.clone() };
        others.push(tokio::spawn(redirect::serve(redirect, answers)).abort_handle());
    }
    let (crew, passed) = Crew::new(workers);
    let shared = Shared { plans, stop: stopped, room: Arc::default(), crew };
    let mut threads = Vec::new();
    for ((worker, listeners), passed) in all.into_iter().zip(dealt).zip(passed) {
        let (sources, shared) = (Sources { listeners, passed }, shared.clone());
        let name = format!("balance-{}", worker.number);
        let work = move || listen::run(&worker, sources, shared);
        threads.push(std::thread::Builder::new().name(name).spawn(work)?);
    }
    let serving = tokio::task::spawn_blocking(move || {
        for thread in threads {
            thread.join().map_err(|_| io::Error::other("a worker panicked"))??;
        }
        Ok(())
    });
    Ok(Running { address, admin, admin_socket, listeners, reload, stop, access, serving, others })
}

/// Whether it listens there; port 0 stands for any.
fn is_at(listener: &TcpListener, place: SocketAddr) -> bool {
    listener.local_addr().is_ok_and(|found| {
        let is_same = found.ip().to_canonical() == place.ip().to_canonical();
        let is_all = found.ip().is_unspecified() && place.ip().is_unspecified();
        (is_same || is_all) && (found.port() == place.port() || place.port() == 0)
    })
}

/// One worker for each.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl Running {
    /// Other settings are in force from now on; connections stay. Where it listens, and with how many workers, is not changed.
    pub async fn reload(&self, settings: Settings) {
        let _ = self.reload.send(settings).await;
    }

    /// Sockets for whoever takes its place, in another process. Connections that wait to be accepted are lost by neither.
    pub fn sockets(&self) -> io::Result<Vec<TcpListener>> {
        self.listeners.iter().map(TcpListener::try_clone).collect()
    }

    /// The access log was renamed: another file is begun.
    pub fn reopen_log(&self) {
        self.access.reopen();
    }

    /// Returns when it no longer serves, which nobody asked for.
    pub async fn failed(&mut self) -> io::Result<()> {
        (&mut self.serving).await.map_err(io::Error::other)?
    }

    /// Answers what is under way, then ends.
    pub async fn stop(mut self) -> io::Result<()> {
        self.stop.send_replace(true);
        // Otherwise clients would be connected to sockets that nobody accepts from.
        self.listeners.clear();
        let served = if self.serving.is_finished() {
            Ok(())
        } else {
            (&mut self.serving).await.map_err(io::Error::other).and_then(|served| served)
        };
        for other in &self.others {
            other.abort();
        }
        if let Place::Unix(path) = &self.admin
            && admin::identity(&self.admin) == self.admin_socket
        {
            let _ = std::fs::remove_file(path);
        }
        served
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for other in &self.others {
            other.abort();
        }
    }
}

/// How often files of certificates are looked at.
const CERTIFICATE: Duration = Duration::from_secs(2);

/// Knows which backends there are, and tells the workers.
struct Keeper {
    settings: Arc<Settings>,
    known: Known,
    registered: watch::Receiver<Vec<Member>>,
    issued: Option<Told>,
    plans: watch::Sender<Arc<Plan>>,
    workers: usize,
    clock: Clock,
    observe: Observe,
    watches: HashMap<SocketAddr, AbortHandle>,
    certificate: (Option<Files>, tls::State),
    resolving: Option<AbortHandle>,
    told: mpsc::Sender<Resolved>,
    resolved: mpsc::Receiver<Resolved>,
}

impl Keeper {
    fn new(
        settings: Settings,
        registered: watch::Receiver<Vec<Member>>,
        issued: Option<Told>,
        workers: usize,
        observe: Observe,
    ) -> Self {
        let settings = Arc::new(settings);
        let clock = Clock::start(Instant::now());
        let known =
            Known { settings: settings.backends.clone(), registered: registered.borrow().clone(), ..Known::default() };
        let plan = Plan::new(settings.clone(), &known.members(), None, workers, clock);
        let (plans, _) = watch::channel(Arc::new(plan));
        let (told, resolved) = mpsc::channel(16);
        let mut keeper = Self {
            settings,
            known,
            registered,
            issued,
            plans,
            workers,
            clock,
            observe,
            watches: HashMap::new(),
            certificate: (None, [None; 2]),
            resolving: None,
            told,
            resolved,
        };
        keeper.resolve();
        keeper
    }

    /// In its loop it waits for whatever changes; it ends with the balancer.
    async fn keep(mut self, mut reloads: mpsc::Receiver<Settings>) {
        let mut may_register = true;
        let mut tick = interval(CERTIFICATE);
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    self.look_at_certificate();
                    continue;
                }
                settings = reloads.recv() => {
                    let Some(settings) = settings else { return };
                    self.reload(settings);
                    self.look_at_certificate();
                    self.observe.tell(&Observation::Reloaded);
                }
                resolved = self.resolved.recv() => {
                    let Some((name, addresses)) = resolved else { return };
                    if self.known.resolved.get(&name) == Some(&addresses) {
                        continue;
                    }
                    self.known.resolved.insert(name, addresses);
                }
                changed = self.registered.changed(), if may_register => {
                    if changed.is_err() {
                        may_register = false;
                        continue;
                    }
                    self.known.registered.clone_from(&self.registered.borrow_and_update());
                }
            }
            self.renew();
        }
    }

    fn reload(&mut self, settings: Settings) {
        let other_health = settings.health != self.settings.health;
        self.settings = Arc::new(settings);
        self.known.settings.clone_from(&self.settings.backends);
        self.resolve();
        if other_health {
            for (_, watch) in self.watches.drain() {
                watch.abort();
            }
        }
    }

    /// Takes another certificate where its files have changed; one that cannot be used changes nothing.
    fn look_at_certificate(&mut self) {
        let files = self.settings.tls.clone();
        let state = files.as_ref().map_or([None; 2], Files::state);
        if self.certificate == (files.clone(), state) {
            return;
        }
        match self.read_certificate() {
            Ok(()) if files.is_some() => self.observe.tell(&Observation::CertificateRead),
            Ok(()) => {}
            Err(cause) => self.observe.tell(&Observation::CertificateNotRead { cause: &cause.to_string() }),
        }
    }

    fn read_certificate(&mut self) -> Result<(), tls::Error> {
        let files = self.settings.tls.clone();
        // Before it is read: what changes meanwhile is read again.
        self.certificate = (files.clone(), files.as_ref().map_or([None; 2], Files::state));
        let own = files.as_ref().map(tls::read).transpose()?;
        let mut plan = Plan::clone(&self.plans.borrow());
        plan.tls =
            if own.is_some() || self.issued.is_some() { Some(tls::config(own, self.issued.clone())?) } else { None };
        self.plans.send_replace(Arc::new(plan));
        Ok(())
    }

    fn resolve(&mut self) {
        if let Some(resolving) = self.resolving.take() {
            resolving.abort();
        }
        let names = self.known.names();
        self.known.resolved.retain(|name, _| names.contains(name));
        if !names.is_empty() {
            let resolving = members::resolve(names, self.settings.resolve, self.told.clone(), self.observe);
            self.resolving = Some(tokio::spawn(resolving).abort_handle());
        }
    }

    /// Makes a plan of what is known, and sees to it that each backend is watched.
    fn renew(&mut self) {
        let before = self.plans.borrow().clone();
        let members = self.known.members();
        let plan = Plan::new(self.settings.clone(), &members, Some(&before), self.workers, self.clock);
        let has = |plan: &Plan, address| plan.seats.iter().any(|seat| seat.backend.address == address);
        for seat in plan.seats.iter().filter(|seat| !has(&before, seat.backend.address)) {
            self.observe.tell(&Observation::Came { backend: &seat.backend.name });
        }
        for seat in before.seats.iter().filter(|seat| !has(&plan, seat.backend.address)) {
            self.observe.tell(&Observation::Went { backend: &seat.backend.name });
        }
        self.watches.retain(|address, watch| {
            let stays = has(&plan, *address);
            if !stays {
                watch.abort();
            }
            stays
        });
        for seat in &plan.seats {
            self.watch(&seat.backend);
        }
        self.plans.send_replace(Arc::new(plan));
    }

    fn watch(&mut self, backend: &Arc<Backend>) {
        let (policy, observe) = (&self.settings.health, self.observe);
        self.watches
            .entry(backend.address)
            .or_insert_with(|| tokio::spawn(health::watch(backend.clone(), policy.clone(), observe)).abort_handle());
    }

    /// Waits until each backend was heard or has had its time: whoever is down from the start gets no request.
    async fn first_answers(&self) {
        let end = Instant::now() + health::patience(&self.settings.health).min(Duration::from_secs(2));
        let plan = self.plans.borrow().clone();
        while Instant::now() < end && plan.seats.iter().any(|seat| seat.backend.health() == Health::Unknown) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        for watch in self.watches.values().chain(&self.resolving) {
            watch.abort();
        }
    }
}
