//! The data API alone, in the place of PostgREST: its settings, its paths, on a PostgreSQL server as it is. Nothing is created in
//! the database.
//!
//! At start: the settings are read, the database is reached (it may come later), what it says of the settings is heard, the
//! catalog is read, and requests are answered. While it runs, a notification or a signal reads settings and catalog again. At the
//! end the requests under way are answered.

mod config;
mod file;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ntier_backing::database::{self, Database, Options, Target, catalog};
use ntier_node::{Admin, DataApi, Limits, Listeners, Log, Node, Observation, Place, Service};
use ntier_rest::Rest;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use config::assemble;
pub use config::{Config, Listen, Sources};

use crate::fault::Fault;
use crate::server::{self, workers};

/// Of a body. PostgREST has no limit of its own.
const BODY_BYTES: usize = 64 << 20;
/// Between attempts to reach the database, doubled each time up to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(32);

/// What happens at the start, for whoever waits.
#[derive(Debug)]
pub enum Step<'a> {
    Remark(&'a Fault),
    /// The database cannot be used yet; it is tried again.
    Waiting {
        cause: String,
        pause: Duration,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the settings cannot be used")]
    Settings(Vec<Fault>),
    #[error("cannot listen on {place}: {cause}")]
    Listen { place: String, cause: io::Error },
    #[error(transparent)]
    Server(#[from] server::Error),
}

/// A data API that answers.
#[derive(Debug)]
pub struct Running {
    pub place: Place,
    pub admin: Option<Place>,
    database: Database,
    stop: watch::Sender<bool>,
    serving: Vec<JoinHandle<io::Result<()>>>,
    following: JoinHandle<()>,
    reload: Arc<Notify>,
}

/// Starts it.
pub async fn start(sources: Sources, observe: &dyn Fn(Step<'_>)) -> Result<Running, Error> {
    let config = assemble(&sources, &HashMap::new()).map_err(Error::Settings)?;
    let database = reach(&config, observe).await;
    let started = serve(sources, config, database.clone(), observe).await;
    if started.is_err() {
        database.close().await;
    }
    started
}

/// Connects; a database that is not there yet is waited for.
async fn reach(config: &Config, observe: &dyn Fn(Step<'_>)) -> Database {
    let mut pause = FIRST_PAUSE;
    loop {
        let options = Options {
            connections: config.connections,
            listen: config.channel.iter().cloned().collect(),
            prepared_statements: config.prepared_statements,
            ..Options::default()
        };
        match Database::open(Target::External(config.database.clone()), options).await {
            Ok(database) => return database,
            Err(cause) => observe(Step::Waiting { cause: cause.to_string(), pause }),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

async fn serve(
    sources: Sources,
    config: Config,
    database: Database,
    observe: &dyn Fn(Step<'_>),
) -> Result<Running, Error> {
    let notifications = database.notifications();
    let (listen, admin, channel, log) =
        (config.listen.clone(), config.admin.clone(), config.channel.clone(), config.log);
    let config = with_database(&sources, config, &database, observe).await?;
    for remark in &config.remarks {
        observe(Step::Remark(remark));
    }
    let rest = Arc::new(Rest::new(database.clone(), config.rest.clone()));
    let mut pause = FIRST_PAUSE;
    while let Err(cause) = ntier_rest::install(&rest, config.rest.clone()).await {
        observe(Step::Waiting { cause: cause.to_string(), pause });
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
    let text = Arc::new(RwLock::new(config.text));
    let api = DataApi::new(rest.clone(), config.front);
    let limits = Limits { body_bytes: BODY_BYTES, ..Limits::default() };
    let node = Arc::new(Node { service: Service::DataApi(api), limits, log });
    let (stop, stopped) = watch::channel(false);
    let listeners = bind(&listen, workers())?;
    let place = listeners.place.clone();
    let mut serving = vec![tokio::spawn(ntier_node::serve(node.clone(), listeners, stopped.clone()))];
    let admin = match admin {
        Some(admin) => {
            let listeners = bind(&admin, 1)?;
            let place = listeners.place.clone();
            let service = Service::Admin(Admin { rest: rest.clone(), config: text.clone() });
            let node = Arc::new(Node { service, limits: Limits::default(), log });
            serving.push(tokio::spawn(ntier_node::serve(node, listeners, stopped)));
            Some(place)
        }
        None => None,
    };
    let reload = Arc::new(Notify::new());
    let follower = Follower { sources, database: database.clone(), rest, node, text, log };
    let following = tokio::spawn(follower.follow(channel, notifications, reload.clone()));
    Ok(Running { place, admin, database, stop, serving, following, reload })
}

/// The settings with what the database says of them.
async fn with_database(
    sources: &Sources,
    config: Config,
    database: &Database,
    observe: &dyn Fn(Step<'_>),
) -> Result<Config, Error> {
    if !config.in_database {
        return Ok(config);
    }
    let mut pause = FIRST_PAUSE;
    let said = loop {
        match said(database, &config).await {
            Ok(said) => break said,
            Err(cause) => observe(Step::Waiting { cause: cause.to_string(), pause }),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    };
    assemble(sources, &said).map_err(Error::Settings)
}

async fn said(database: &Database, config: &Config) -> Result<HashMap<String, String>, catalog::Error> {
    let function = config.pre_config.as_deref().map(ntier_rest::quoted_name);
    catalog::configuration(database, None, function.as_deref()).await
}

fn bind(listen: &Listen, workers: usize) -> Result<Listeners, Error> {
    match listen {
        Listen::Tcp(address) => Ok(server::listen(*address)?.listeners),
        Listen::Unix { path, mode } => ntier_node::bind_unix(path, *mode, workers)
            .map_err(|cause| Error::Listen { place: path.display().to_string(), cause }),
    }
}

impl Running {
    /// The address, where it listens on one.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.place {
            Place::Tcp(address) => Some(address),
            Place::Unix(_) | Place::Process => None,
        }
    }

    /// Reads settings and catalog again, soon.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    /// Returns when it no longer serves, which nobody asked for.
    pub async fn failed(&mut self) -> io::Result<()> {
        match self.serving.first_mut() {
            Some(serving) => serving.await.map_err(io::Error::other)?,
            None => Ok(()),
        }
    }

    /// Answers what is under way, then ends.
    pub async fn stop(self) -> io::Result<()> {
        self.stop.send_replace(true);
        let mut served = Ok(());
        for serving in self.serving {
            if !serving.is_finished() {
                served = served.and(serving.await.map_err(io::Error::other)?);
            }
        }
        self.following.abort();
        self.database.close().await;
        if let Place::Unix(path) = &self.place {
            let _ = std::fs::remove_file(path);
        }
        served
    }
}

/// Reads everything again whenever somebody says so.
struct Follower {
    sources: Sources,
    database: Database,
    rest: Arc<Rest>,
    node: Arc<Node>,
    text: Arc<RwLock<String>>,
    log: Log,
}

impl Follower {
    async fn follow(
        self,
        channel: Option<String>,
        mut notifications: tokio::sync::broadcast::Receiver<database::Notification>,
        reload: Arc<Notify>,
    ) {
        loop {
            tokio::select! {
                () = reload.notified() => {}
                said = notifications.recv() => match said {
                    Ok(said) if Some(&said.channel) != channel.as_ref() => continue,
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
            }
            while notifications.try_recv().is_ok() {}
            let begun = Instant::now();
            match self.read().await {
                Ok(()) => self.log.observe(&Observation::SchemaReloaded { took: begun.elapsed() }),
                Err(cause) => self.log.observe(&Observation::SchemaNotReloaded { cause: &cause }),
            }
        }
    }

    /// What cannot be read or used leaves everything as it was.
    async fn read(&self) -> Result<(), String> {
        let told = |faults: Vec<Fault>| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let mut config = assemble(&self.sources, &HashMap::new()).map_err(told)?;
        if config.in_database {
            let said = said(&self.database, &config).await.map_err(|cause| cause.to_string())?;
            config = assemble(&self.sources, &said).map_err(told)?;
        }
        ntier_rest::install(&self.rest, config.rest).await.map_err(|cause| cause.to_string())?;
        *self.text.write().unwrap_or_else(PoisonError::into_inner) = config.text;
        if let Service::DataApi(api) = &self.node.service {
            api.set_front(config.front);
        }
        Ok(())
    }
}
