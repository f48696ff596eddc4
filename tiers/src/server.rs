//! One node with its database: started in order, stopped in order.
//!
//! At start: the address is bound, the keys are read or made, the database is opened, our migrations and the project's are
//! applied, the catalog is read, and requests are answered. While it runs, a notification on `pgrst` reads the catalog again, and
//! a change of the files of the keys the keys.
//! At the end the requests under way are answered, then the database is let go.

pub(crate) mod files;
mod pages;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use ntier_auth::{Auth, Delivery, Sms};
use ntier_backing::blobs::{self, Blobs};
use ntier_backing::bus::{self, Bus};
use ntier_backing::database::migrations::Exposure;
use ntier_backing::database::{self, Batch, Database, Statement, catalog, migrations};
use ntier_node::{Backend, Connector, Limits, Listeners, Log, Node, Observation, Place, Service, Site, Source};
use ntier_realtime::Realtime;
use ntier_rest::Rest;
use ntier_security::caller::Doorkeeper;
use ntier_security::keys::Keys;
use ntier_storage::Storage;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::database::{CHANNEL, options, target, visitor};
use crate::keyring::{self, Keyring};
use crate::nodes::Advertised;
use crate::project::{Outcome, Project, migrate};
use crate::settings::{Mode, Settings};
use crate::whereabouts::{self, Whereabouts};
use crate::{defence, directories, keys};

/// How long an advertised node waits for balancers to see that it leaves.
const DRAIN: Duration = Duration::from_secs(3);

/// What is being done, for whoever waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Opening,
    Migrating,
    Project,
    Cataloguing,
    /// Something was done, or is worth knowing.
    Done(Outcome),
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address}: {cause}")]
    Listen { address: SocketAddr, cause: io::Error },
    #[error(transparent)]
    Directory(#[from] directories::Error),
    #[error(transparent)]
    Keys(#[from] keys::Error),
    #[error(transparent)]
    Keyring(#[from] keyring::Error),
    #[error("{0}")]
    Database(#[from] database::Error),
    #[error(transparent)]
    Migrations(#[from] migrations::Error),
    #[error(transparent)]
    Project(#[from] migrate::Error),
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    #[error("e-mails cannot be sent: {0}")]
    Mail(#[from] ntier_auth::Fault),
    #[error("files cannot be kept: {0}")]
    Blobs(#[from] blobs::Error),
    #[error(transparent)]
    Files(#[from] files::Error),
    #[error(transparent)]
    Bus(#[from] bus::Error),
    #[error("networks to keep out cannot be read: {0}")]
    Networks(#[from] defence::Unread),
}

/// A node that answers.
#[derive(Debug)]
pub struct Running {
    data: PathBuf,
    /// Where clients find it.
    pub url: String,
    /// As they were at the start.
    pub keys: Keys,
    pub database: Database,
    node: Arc<Node>,
    rest: Arc<Rest>,
    drain: Option<Duration>,
    advertised: Option<Advertised>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<io::Result<()>>,
    listening: JoinHandle<()>,
    sweeping: JoinHandle<()>,
    renewing: JoinHandle<()>,
    delivering: Option<JoinHandle<()>>,
    keeping: Option<JoinHandle<()>>,
    meeting: Option<JoinHandle<()>>,
    following: Option<(Arc<Realtime>, JoinHandle<()>)>,
    defending: Option<JoinHandle<()>>,
}

/// Starts the node. `program` is this executable, which is started again as the database engine.
pub async fn start(
    settings: &Settings,
    project: &Project,
    program: PathBuf,
    observe: &dyn Fn(Step),
) -> Result<Running, Error> {
    let bound = listen(settings.listen)?;
    start_on(settings, project, program, bound, observe).await
}

/// Likewise, where these listen.
pub(crate) async fn start_on(
    settings: &Settings,
    project: &Project,
    program: PathBuf,
    bound: Bound,
    observe: &dyn Fn(Step),
) -> Result<Running, Error> {
    directories::create_private(&settings.data)?;
    let database = open(settings, program, observe).await?;
    // What starts a node is large, and nobody does it often.
    let started = Box::pin(serve(settings, project, database.clone(), bound, observe)).await;
    if started.is_err() {
        database.close().await;
    }
    started
}

/// Opens the node's database and applies our own migrations.
async fn open(settings: &Settings, program: PathBuf, observe: &dyn Fn(Step)) -> Result<Database, Error> {
    observe(Step::Opening);
    let database = Database::open(target(settings, program), options(settings)).await?;
    prepare(settings, database, observe).await
}

/// The database for a command that comes and goes, with or without a node beside it.
pub async fn visit(settings: &Settings, program: PathBuf, observe: &dyn Fn(Step)) -> Result<Database, Error> {
    directories::create_private(&settings.data)?;
    observe(Step::Opening);
    Ok(Database::open(crate::database::visit(settings, program).await, visitor()).await?)
}

/// Applies our own migrations.
pub async fn prepare(settings: &Settings, database: Database, observe: &dyn Fn(Step)) -> Result<Database, Error> {
    observe(Step::Migrating);
    let exposure = if settings.api.auto_expose_new_tables { Exposure::Automatic } else { Exposure::Granted };
    match migrations::apply(&database, exposure).await {
        Ok(report) => {
            for name in report.differing {
                let remark = format!("the migration {name} was applied by another version of ntier");
                observe(Step::Done(Outcome::Remark(remark)));
            }
            Ok(database)
        }
        Err(cause) => {
            database.close().await;
            Err(cause.into())
        }
    }
}

async fn serve(
    settings: &Settings,
    project: &Project,
    database: Database,
    bound: Bound,
    observe: &dyn Fn(Step),
) -> Result<Running, Error> {
    // Several nodes have the keys of the database that they share.
    let keyring = match &settings.database {
        Some(_) => Some(Box::pin(Keyring::join(database.clone(), settings.clone())).await?),
        None => None,
    };
    let keys = keys::Follower::start(settings)?;
    observe(Step::Project);
    // Whoever comes first must not miss what is said while the catalog is read.
    let notifications = database.notifications();
    migrate::apply(&database, project, &|outcome| observe(Step::Done(outcome))).await?;
    observe(Step::Cataloguing);
    let rest = Arc::new(Rest::new(database.clone(), rest_settings(settings)));
    ntier_rest::reload(&rest).await?;
    let Bound { listeners, url } = bound;
    let is_found = !matches!(listeners.place, Place::Process);
    let delivery = match &settings.auth {
        Some(auth) => Delivery::new(database.clone(), auth)?,
        None => None,
    };
    let blobs = if settings.storage.enabled { Some(files::blobs(settings).await?) } else { None };
    let (bus, line) = bus::open(settings.bus(), &database).await?;
    let node = Arc::new(node(settings, project, &keys.keys, rest.clone(), blobs, bus, &url)?);
    if let Some(storage) = storage_of(&node) {
        files::declare(&database, &storage, project, &|outcome| observe(Step::Done(outcome))).await?;
    }
    let (stop, stopped) = watch::channel(false);
    let defending = defend(settings, &node, &database);
    let listening = tokio::spawn(follow(rest.clone(), settings.log, notifications));
    let sweeping = tokio::spawn(sweep(database.clone()));
    let delivering = delivery.map(|delivery| {
        let log = settings.log;
        tokio::spawn(delivery.run(move |cause| log.observe(&Observation::MailNotSent { cause })))
    });
    let first = keys.keys.clone();
    let renewing = tokio::spawn(renew(keyring, keys, node.clone(), settings.log));
    let keeping =
        storage_of(&node).map(|storage| tokio::spawn(files::keep(storage, settings.storage.sweep_after, settings.log)));
    let meeting = realtime_of(&node).map(|realtime| tokio::spawn(async move { realtime.keep().await }));
    let log = settings.log;
    let following = realtime_of(&node).map(|realtime| {
        let tell = move |event| match event {
            bus::Event::Away { cause } => log.observe(&Observation::BusAway { cause: &cause }),
            bus::Event::Back { lost } => log.observe(&Observation::BusBack { lost }),
        };
        (realtime.clone(), tokio::spawn(realtime.follow(line, tell)))
    });
    let serving = tokio::spawn(ntier_node::serve(node.clone(), listeners, stopped));
    let advertised = match &settings.advertise {
        Some(url) => Some(Advertised::begin(database.clone(), url.clone()).await?),
        None => None,
    };
    let process = std::process::id();
    let said = Whereabouts { process, url: url.clone() };
    if is_found && let Err(cause) = whereabouts::tell(&settings.data, &said) {
        let remark = format!("`ntier status` will not find this node: {cause}");
        observe(Step::Done(Outcome::Remark(remark)));
    }
    Ok(Running {
        data: settings.data.clone(),
        url,
        keys: first,
        database,
        node,
        rest,
        drain: settings.drain.or(advertised.is_some().then_some(DRAIN)),
        advertised,
        stop,
        serving,
        listening,
        sweeping,
        renewing,
        delivering,
        keeping,
        meeting,
        following,
        defending,
    })
}

fn node(
    settings: &Settings,
    project: &Project,
    keys: &Keys,
    rest: Arc<Rest>,
    blobs: Option<Blobs>,
    bus: Bus,
    url: &str,
) -> Result<Node, Error> {
    let limits =
        Limits { body_bytes: usize::try_from(settings.api.max_body).unwrap_or(usize::MAX), ..Limits::default() };
    let doorkeeper = Arc::new(
        Doorkeeper::new(keys, settings.api.require_key, settings.jwt_audience.as_deref()).map_err(keys::Error::from)?,
    );
    let vault = keys::vault(settings)?;
    let auth = settings.auth.clone().map(|auth| {
        let url = if auth.url.is_empty() { url.to_owned() } else { auth.url.clone() };
        let site_url = if auth.site_url.is_empty() { url.clone() } else { auth.site_url.clone() };
        // `ntier dev` shows them, unless it was told who takes them.
        let mail = auth.smtp.is_some() || auth.hooks.send_email.is_some() || settings.mode == Mode::Dev;
        let sent = auth.sms.service.is_some()
            || auth.hooks.send_sms.is_some()
            || (settings.mode == Mode::Dev && auth.sms.inbox);
        let sms = Sms { sent, ..auth.sms.clone() };
        let auth =
            ntier_auth::Settings { url: format!("{}/auth/v1", url.trim_end_matches('/')), site_url, mail, sms, ..auth };
        Auth::new(rest.database.clone(), auth, doorkeeper.clone(), keys.clone(), vault)
    });
    let storage = blobs.map(|blobs| {
        let (database, secret) = (rest.database.clone(), keys.jwt_secret.expose());
        let storage = Storage::new(database, blobs, settings.storage.service.clone(), doorkeeper.clone(), secret);
        Arc::new(match files::credentials(settings, keys) {
            Some(credentials) => storage.with_s3(credentials),
            None => storage,
        })
    });
    let service = settings.realtime.service.clone();
    let realtime = Arc::new(Realtime::new(rest.database.clone(), doorkeeper.clone(), service, bus));
    let folder = settings.public.clone().map(Source::Folder);
    let bucket = settings.public_bucket.clone().map(Source::Bucket);
    let backend = Backend {
        rest,
        auth,
        storage,
        realtime: settings.realtime.enabled.then_some(realtime),
        doorkeeper,
        inbox: settings.mode == Mode::Dev
            && settings.auth.as_ref().is_some_and(|auth| auth.smtp.is_none() || auth.sms.service.is_none()),
        trusted: settings.trusted_proxy.clone(),
        defence: settings.defence.defence(&settings.trusted_proxy)?,
        jwks: RwLock::new(keys.jwks().map_err(keys::Error::from)?.to_string()),
        site: folder.or(bucket).map(Site::new),
        pages: match settings.mode {
            Mode::Dev => pages::dev(settings, project, keys, url),
            Mode::Serve => Vec::new(),
        },
        leaving: AtomicBool::new(false),
    };
    Ok(Node { service: Service::Backend(Box::new(backend)), limits, log: settings.log })
}

fn rest_settings(settings: &Settings) -> ntier_rest::Settings {
    let api = &settings.api;
    ntier_rest::Settings {
        schemas: api.schemas.clone(),
        extra_search_path: api.extra_search_path.clone(),
        max_rows: api.max_rows,
        limits: api.limits,
        aggregates: api.aggregates,
        deadline: api.timeout,
        authenticator: Some("authenticator".into()),
        idempotency: true,
        ..ntier_rest::Settings::default()
    }
}

impl Running {
    /// A table that may be read without signing in, to show how; only names that need no encoding.
    pub async fn example_table(&self) -> Option<String> {
        let sql = "select relname from pg_class where relkind in ('r', 'p', 'v') and relname ~ '^[a-z_0-9]+$' \
            and relnamespace = to_regnamespace('public') and has_table_privilege('anon', oid, 'select') \
            order by relkind, oid limit 1";
        let answer = self.database.simple(sql).await.ok()?;
        Some(answer.first()?.rows.first()?.text(0)?.to_owned())
    }

    /// Applies what the project has now; the catalog follows by itself.
    pub async fn apply(&self, project: &Project, observe: &dyn Fn(Outcome)) -> Result<bool, migrate::Error> {
        migrate::apply(&self.database, project, observe).await
    }

    /// Reads the catalog again.
    pub async fn reload(&self) -> Result<(), catalog::Error> {
        ntier_rest::reload(&self.rest).await
    }

    /// Returns when it no longer serves, which nobody asked for.
    pub async fn failed(&mut self) -> io::Result<()> {
        (&mut self.serving).await.map_err(io::Error::other)?
    }

    /// Tells balancers to go elsewhere, answers what is under way, then ends.
    pub async fn stop(self) -> io::Result<()> {
        if let Service::Backend(backend) = &self.node.service {
            backend.leaving.store(true, Ordering::Relaxed);
        }
        if let Some(advertised) = &self.advertised {
            advertised.leave().await;
        }
        if let Some(drain) = self.drain.filter(|_| !self.serving.is_finished()) {
            tokio::time::sleep(drain).await;
        }
        self.stop.send_replace(true);
        let served = if self.serving.is_finished() { Ok(()) } else { self.serving.await.map_err(io::Error::other)? };
        // Clients have left by now, and the others are told.
        if let Some((realtime, following)) = self.following {
            realtime.leave();
            let _ = following.await;
        }
        self.listening.abort();
        self.sweeping.abort();
        self.renewing.abort();
        if let Some(advertised) = self.advertised {
            advertised.end().await;
        }
        for task in self.delivering.into_iter().chain(self.keeping).chain(self.meeting).chain(self.defending) {
            task.abort();
        }
        self.database.close().await;
        whereabouts::forget(&self.data, std::process::id());
        served
    }
}

/// Binds the address for every worker. The kernel would let two nodes of one user share a port, so it is first asked
/// whether somebody answers there.
pub(crate) fn listen(address: SocketAddr) -> Result<Bound, Error> {
    let failed = |cause| Error::Listen { address, cause };
    if address.port() != 0 {
        drop(TcpListener::bind(address).map_err(failed)?);
    }
    let listeners = ntier_node::bind(address, workers()).map_err(failed)?;
    // Port 0 has become another.
    let address = if let Place::Tcp(bound) = listeners.place { bound } else { address };
    Ok(Bound { listeners, url: format!("http://{address}") })
}

/// One worker for each processor.
pub(crate) fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Sockets that are bound, and where.
pub(crate) struct Bound {
    pub listeners: Listeners,
    pub url: String,
}

impl Bound {
    /// For this process alone. Links in e-mails need an address of their own: `site_url`.
    pub fn process() -> (Self, Connector) {
        let (listeners, connector) = ntier_node::bind_process(workers());
        (Self { listeners, url: "http://localhost".into() }, connector)
    }
}

/// Forgets what need not be remembered any longer. Every node does so; the second finds nothing.
async fn sweep(database: Database) {
    const PAUSE: Duration = Duration::from_hours(1);
    loop {
        let statements = [
            "delete from ntier.idempotency_keys where created_at < now() - interval '1 day'",
            "delete from ntier.rate_limits where seen_at < now() - interval '2 hours'",
            "delete from ntier.mail where created_at < now() - interval '1 day'",
            "delete from auth.flow_state where created_at < now() - interval '1 day'",
            "delete from auth.sessions where not_after < now() - interval '1 day'",
            "delete from auth.oauth_client_states where created_at < now() - interval '1 day'",
            "delete from auth.oauth_authorizations where expires_at < now() - interval '1 day'",
            "delete from auth.webauthn_challenges where expires_at < now() - interval '1 day'",
            "delete from ntier.bans where expires_at < now() - interval '30 days'",
            "delete from auth.mfa_challenges where created_at < now() - interval '1 day'",
        ];
        let statement = |text: &str| Statement { text: text.into(), parameters: Vec::new() };
        let statements = statements.map(statement).to_vec();
        // What fails now is done an hour later.
        let _ = database.run(Batch { statements, ..Batch::default() }).await;
        tokio::time::sleep(PAUSE).await;
    }
}

fn storage_of(node: &Node) -> Option<Arc<Storage>> {
    match &node.service {
        Service::Backend(backend) => backend.storage.clone(),
        Service::DataApi(_) | Service::Admin(_) => None,
    }
}

/// Keeps the node's defence going, if it has one.
fn defend(settings: &Settings, node: &Node, database: &Database) -> Option<JoinHandle<()>> {
    let Service::Backend(backend) = &node.service else { return None };
    let (defence, told) = (backend.defence.clone()?, database.notifications());
    let (settings, log) = (settings.defence.clone(), settings.log);
    Some(tokio::spawn(defence::keep(settings, defence, defence::Role::Node, database.clone(), log, told)))
}

fn realtime_of(node: &Node) -> Option<Arc<Realtime>> {
    match &node.service {
        Service::Backend(backend) => backend.realtime.clone(),
        Service::DataApi(_) | Service::Admin(_) => None,
    }
}

/// Exchanges the keys whenever those of the database or their files change, or the time of one is over. What cannot be read leaves them as
/// they are, and is told once.
async fn renew(mut keyring: Option<Keyring>, mut follower: keys::Follower, node: Arc<Node>, log: Log) {
    let Service::Backend(backend) = &node.service else { return };
    let mut told = None;
    loop {
        tokio::time::sleep(keys::PAUSE).await;
        let followed = match &mut keyring {
            Some(keyring) => keyring.follow().await,
            None => Ok(()),
        };
        let looked = match followed {
            // While the database is away, others have changed nothing.
            Ok(()) | Err(keyring::Error::Database(_)) => follower.look(keys::now()).map_err(keyring::Error::from),
            Err(cause) => Err(cause),
        };
        let renewed = match looked {
            Ok(false) => Ok(()),
            Ok(true) => backend.set_keys(&follower.keys).map_err(|cause| keys::Error::from(cause).into()).map(|()| {
                log.observe(&Observation::KeysExchanged { signing: &follower.keys.signing_key_id });
            }),
            Err(cause) => Err(cause),
        };
        let cause = renewed.err().map(|cause| cause.to_string());
        if let Some(cause) = cause.as_deref().filter(|cause| told.as_deref() != Some(*cause)) {
            log.observe(&Observation::KeysNotRead { cause });
        }
        told = cause;
    }
}

/// Reads the catalog again whenever somebody says so, until the database is closed. What is said while it reads is answered by
/// one more reading.
async fn follow(
    rest: Arc<Rest>,
    log: Log,
    mut notifications: tokio::sync::broadcast::Receiver<database::Notification>,
) {
    loop {
        match notifications.recv().await {
            Ok(notification) if notification.channel != CHANNEL => continue,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
        while notifications.try_recv().is_ok() {}
        let begun = Instant::now();
        match ntier_rest::reload(&rest).await {
            Ok(()) => log.observe(&Observation::SchemaReloaded { took: begun.elapsed() }),
            Err(cause) => log.observe(&Observation::SchemaNotReloaded { cause: &cause.to_string() }),
        }
    }
}
