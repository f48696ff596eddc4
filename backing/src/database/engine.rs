//! The embedded engine as a child process: started, questioned, killed and started again.
//!
//! The child serves PostgreSQL's protocol on a unix socket in the data directory. Its standard input is its
//! lifeline (it leaves when that closes, so a killed node leaves no child behind) and the way to ask whose statement runs.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::url::{Address, Host, SslMode};
use super::{Error, handshake};

/// How long opening may take: a first start or a long recovery on a slow disk.
const OPENING: Duration = Duration::from_mins(2);
/// How long the child may take to leave once asked: it ends by itself before.
const LEAVING: Duration = Duration::from_secs(35);

/// An embedded database: where it lives and how its engine is started.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// The engine's directory: lock, socket and cluster.
    pub data: PathBuf,
    pub engine: EngineCommand,
}

/// The program and its arguments; the child must serve `data` until its standard input ends.
#[derive(Debug, Clone)]
pub struct EngineCommand {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// Variables to set for it.
    pub environment: Vec<(&'static str, &'static str)>,
}

impl Embedded {
    /// Where the engine answers while it runs, for a client of this name; any PostgreSQL client may use it.
    pub fn address(&self, application_name: &str) -> Address {
        Address {
            host: Host::Unix(self.data.join(".s.PGSQL.5432")),
            user: "postgres".into(),
            password: None,
            database: "postgres".into(),
            tls: SslMode::Disable,
            root_certificate: None,
            application_name: application_name.into(),
        }
    }

    /// Whether some process serves the directory now.
    pub async fn is_served(&self) -> bool {
        match self.address("").host {
            Host::Unix(path) => handshake::unix(&path).await.is_ok(),
            Host::Tcp { .. } => false,
        }
    }
}

/// The name by which the engine knows the node's own connection, whose turns are not held against it.
pub const NODE: &str = "ntier node";

/// A running child.
#[derive(Debug)]
pub struct Engine {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// Whose statement the engine runs, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// The client's BackendKeyData process number; 0 for nobody.
    pub client: u32,
    pub time: Duration,
}

impl Engine {
    /// Starts the child and waits until it is ready.
    pub async fn start(embedded: &Embedded) -> Result<Self, Error> {
        let mut child = Command::new(&embedded.engine.program)
            .args(&embedded.engine.arguments)
            .envs(embedded.engine.environment.iter().copied())
            // What a killed engine leaves behind is cleared by the next one.
            .env("TMPDIR", embedded.data.join("tmp"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C in a terminal is for the node, which then lets the engine leave in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|cause| Error::Unavailable(format!("cannot start the database engine: {cause}")))?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or_else(|| Error::Unavailable("the engine has no output".into()))?;
        let mut engine = Self { child, input, output: BufReader::new(output) };
        let said = engine.line(OPENING).await;
        if said.as_deref() == Some("ready") {
            return Ok(engine);
        }
        engine.kill().await;
        let reason = said.as_deref().and_then(|said| said.strip_prefix("failed "));
        Err(Error::Unavailable(reason.unwrap_or("the database engine did not start").to_owned()))
    }

    /// Asks whose statement runs; `None` when the child does not say.
    pub async fn running(&mut self) -> Option<Running> {
        self.input.as_mut()?.write_all(b"?").await.ok()?;
        let line = self.line(Duration::from_secs(2)).await?;
        let mut words = line.strip_prefix("running ")?.split(' ');
        let client = words.next()?.parse().ok()?;
        let time = Duration::from_millis(words.next()?.parse().ok()?);
        Some(Running { client, time })
    }

    /// Ends it at once and waits until it is gone, so that its lock is free.
    pub async fn kill(&mut self) {
        let _ = self.child.start_kill();
        let _ = self.child.wait().await;
    }

    /// Asks it to leave; kills it when it does not.
    pub async fn stop(&mut self) {
        self.input = None;
        if timeout(LEAVING, self.child.wait()).await.is_err() {
            self.kill().await;
        }
    }

    async fn line(&mut self, patience: Duration) -> Option<String> {
        let mut line = String::new();
        match timeout(patience, self.output.read_line(&mut line)).await {
            Ok(Ok(read)) if read > 0 => Some(line.trim_end().to_owned()),
            _ => None,
        }
    }
}
