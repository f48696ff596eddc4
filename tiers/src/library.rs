//! The first tier: the whole backend in the caller's process, without an address that anybody could connect to.
//!
//! A desktop or command-line application starts it, asks it over HTTP as any client would, and moves to a server later by asking the same of
//! another address.
//!
//! ```no_run
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // The database is a child process of the same executable: where this is the child, it ends here.
//!     ntier::library::engine();
//!     let runtime = tokio::runtime::Runtime::new()?;
//!     runtime.block_on(async {
//!         let app = ntier::embedded().project("my-app").start().await?;
//!         let request = http::Request::get("/rest/v1/films?select=title").header("apikey", &app.keys().publishable_key);
//!         let answer = app.send(request.body(Vec::new())?).await?;
//!         println!("{}", String::from_utf8_lossy(answer.body()));
//!         app.stop().await?;
//!         Ok(())
//!     })
//! }
//! ```

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use ntier_node::Connector;
use ntier_security::keys::Keys;

use crate::fault::Fault;
use crate::server::{self, Bound, Running};
use crate::settings::{self, Mode, Sources};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Settings(Vec<Fault>),
    #[error(transparent)]
    Start(#[from] server::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the node has not answered: {0}")]
    Answer(#[from] hyper::Error),
}

/// Serves the embedded database and ends the process, where a node of the same executable has started it for that; else nothing happens.
/// An application calls it first in `main`.
#[cfg(feature = "embedded")]
pub fn engine() {
    let mut arguments = std::env::args_os().skip(1);
    let is_engine =
        std::env::var_os(crate::database::MARK).is_some() && arguments.next().is_some_and(|word| word == "engine");
    if let (true, Some(data)) = (is_engine, arguments.nth(1)) {
        let code = ntier_engine::serve(&ntier_engine::Options::new(Path::new(&data)));
        std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
    }
}

/// An application that has its backend inside.
#[must_use]
pub fn embedded() -> Builder {
    // Standard error is the application's.
    let settings = vec![("log".to_owned(), "nothing".to_owned())];
    Builder { directory: PathBuf::from("."), settings, program: None }
}

/// What it is to be like.
#[derive(Debug, Clone)]
pub struct Builder {
    directory: PathBuf,
    settings: Vec<(String, String)>,
    program: Option<PathBuf>,
}

impl Builder {
    /// The folder that holds `supabase/`.
    #[must_use]
    pub fn project(self, folder: impl AsRef<Path>) -> Self {
        self.setting("project", &folder.as_ref().to_string_lossy())
    }

    /// Where database, keys and files are kept; without it `.ntier` in the project.
    #[must_use]
    pub fn data(self, folder: impl AsRef<Path>) -> Self {
        self.setting("data", &folder.as_ref().to_string_lossy())
    }

    /// Any setting of the table, as `ntier.toml` has it. The environment is not read. Without a word about `log` it tells nothing but
    /// what it cannot do.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.retain(|(other, _)| other != name);
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Another executable whose hidden command `engine` is the database, such as `ntier` itself; without it this one, which calls
    /// [`engine`].
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Starts it: the database is opened, migrations are applied, requests are answered.
    ///
    /// # Errors
    /// When a setting is wrong, or as [`server::start`] says.
    pub async fn start(self) -> Result<Application, Error> {
        let sources = Sources {
            mode: Mode::Serve,
            directory: std::env::current_dir()?.join(&self.directory),
            environment: Vec::new(),
            flags: self.settings,
        };
        let loaded = settings::load(&sources).map_err(Error::Settings)?;
        let program = self.program.map_or_else(std::env::current_exe, Ok)?;
        let (bound, connector) = Bound::process();
        let running = server::start_on(&loaded.settings, &loaded.project, program, bound, &|_| ()).await?;
        Ok(Application { running, connector, idle: Mutex::default() })
    }
}

/// A backend that runs here.
#[derive(Debug)]
pub struct Application {
    running: Running,
    connector: Connector,
    /// Connections that wait for the next request.
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// Connections that are kept.
const IDLE: usize = 8;

impl Application {
    /// What its clients need to be let in.
    pub fn keys(&self) -> &Keys {
        &self.running.keys
    }

    /// A connection of its own, on which the node speaks HTTP/1.1, websockets included: for any client that takes a stream.
    ///
    /// # Errors
    /// When the node has ended, or the process may open no more files.
    pub fn connect(&self) -> io::Result<UnixStream> {
        self.connector.connect()
    }

    /// Asks; the address needs no host. The whole body of the answer is read.
    ///
    /// # Errors
    /// When the node has ended or the answer broke off.
    pub async fn send(&self, request: Request<impl Into<Bytes>>) -> Result<Response<Bytes>, Error> {
        let (connection, response) = self.begin(request).await?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(connection);
        }
        drop(idle);
        Ok(Response::from_parts(parts, body))
    }

    /// Likewise; the body is read as it comes, for what is long.
    ///
    /// # Errors
    /// When the node has ended.
    pub async fn stream(&self, request: Request<impl Into<Bytes>>) -> Result<Response<Incoming>, Error> {
        Ok(self.begin(request).await?.1)
    }

    async fn begin(
        &self,
        request: Request<impl Into<Bytes>>,
    ) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>), Error> {
        let mut request = request.map(|body| Full::new(body.into()));
        prepare(&mut request);
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let (mut connection, is_new) = match idle {
                Some(connection) => (connection, false),
                None => (self.open().await?, true),
            };
            if let Err(cause) = connection.ready().await {
                if is_new {
                    return Err(cause.into());
                }
                continue;
            }
            match connection.try_send_request(request).await {
                Ok(response) => return Ok((connection, response)),
                Err(mut failed) => match failed.take_message().filter(|_| !is_new) {
                    // It was not sent: the connection had ended.
                    Some(back) => request = back,
                    None => return Err(failed.into_error().into()),
                },
            }
        }
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, Error> {
        let stream = tokio::net::UnixStream::from_std(self.connect()?)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// Returns when it no longer serves, which nobody asked for.
    ///
    /// # Errors
    /// Why.
    pub async fn failed(&mut self) -> io::Result<()> {
        self.running.failed().await
    }

    /// Answers what is under way, then ends.
    ///
    /// # Errors
    /// When a worker has failed.
    pub async fn stop(self) -> io::Result<()> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.running.stop().await
    }
}

/// As HTTP/1.1 has it: the path alone, and a host.
fn prepare(request: &mut Request<Full<Bytes>>) {
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    request.headers_mut().entry(header::HOST).or_insert(HeaderValue::from_static("localhost"));
}
