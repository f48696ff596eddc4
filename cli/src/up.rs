//! `ntier up`: the last tier on one machine, to try it: PostgreSQL, some nodes and a balancer, each a process, until somebody ends it.
//!
//! What ends by itself is started again: it is there to be killed, and to see that nobody notices.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use clap::ArgMatches;
use ntier::settings::{Mode, Settings};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::arguments;
use crate::end::End;
use crate::failure::Failure;

/// How long all of it may take to answer.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks whether something is there, and before what has ended is started again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a process may take to end in order.
const FAREWELL: Duration = Duration::from_secs(30);

pub async fn run(flags: &ArgMatches) -> Result<(), Failure> {
    let count = flags.get_one::<u16>("nodes").copied().unwrap_or(3);
    let loaded = arguments::settings(flags, Mode::Serve)?;
    let settings = &loaded.settings;
    std::fs::create_dir_all(&settings.data)?;
    let data = settings.data.canonicalize()?;
    let mut end = End::new()?;
    let mut running: Vec<Process> = Vec::new();
    let url = if let Some(url) = given_url(flags) {
        url
    } else {
        let server = Server::find(&data)?;
        running.push(server.start().await?);
        server.url()
    };
    let program = Program { path: std::env::current_exe()?, url, data, project: loaded.project.root.clone() };
    let mut nodes = Vec::new();
    for number in 1..=count {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        running.push(Process::start(program.node(number, address))?);
        nodes.push(address);
    }
    running.push(Process::start(program.balancer(settings.balance.service.listen))?);
    let failed = tokio::select! {
        failed = serve(&mut running, settings.balance.service.listen, || greet(settings, &nodes, &program)) => Some(failed),
        () = end.asked() => None,
    };
    eprintln!("stopping: requests under way are answered first");
    // Clients first, then those who answer them, then the database.
    while let Some(process) = running.pop() {
        process.stop().await?;
    }
    failed.map_or(Ok(()), Err)
}

/// Waits until requests are answered, says so, and starts again what ends. It comes back with what cannot go on.
async fn serve(running: &mut [Process], listen: SocketAddr, greet: impl FnOnce()) -> Failure {
    let late = Instant::now() + PATIENCE;
    let mut greet = Some(greet);
    loop {
        for process in &mut *running {
            if let Some(status) = process.ended() {
                if greet.is_some() {
                    return Failure::new(format!("{} ended ({status})", process.plan.name));
                }
                eprintln!("{} ended ({status}); it is started again", process.plan.name);
                match Process::start(process.plan.clone()) {
                    Ok(next) => *process = next,
                    Err(failure) => return failure,
                }
            }
        }
        if greet.is_some() && is_ready(listen) {
            greet.take().into_iter().for_each(|greet| greet());
        } else if greet.is_some() && Instant::now() > late {
            return Failure::new(format!("nothing answers at {listen}"));
        }
        sleep(PAUSE).await;
    }
}

/// A server that is there already. It may have a password, so children are told by their environment.
fn given_url(flags: &ArgMatches) -> Option<String> {
    let flag = flags.get_one::<String>("database_url").cloned();
    flag.or_else(|| std::env::var("NTIER_DATABASE_URL").ok()).filter(|url| !url.is_empty())
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Whether a node answers behind the balancer.
fn is_ready(listen: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&listen, PAUSE)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(format!("GET /ready HTTP/1.1\r\nhost: {listen}\r\nconnection: close\r\n\r\n").as_bytes())?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

/// What a person needs first.
fn greet(settings: &Settings, nodes: &[SocketAddr], program: &Program) {
    let nodes = nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let key = ntier::keys::existing(settings).map_or_else(|_| "ntier keys".into(), |keys| keys.publishable_key);
    let data = program.data.display();
    println!(
        "\n  ntier up\n\n  \
         URL              http://{}\n  \
         Publishable key  {key}\n  \
         Nodes            {nodes}\n  \
         How they do      ntier balance status --data {data}\n\n  \
         Kill one of them, and ask again.\n",
        settings.balance.service.listen
    );
}

/// How a process is started, and started again.
#[derive(Debug, Clone)]
struct Plan {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, String)>,
    /// Where it writes what it says; here, with its name, without one.
    log: Option<PathBuf>,
    /// What asks it to end in order, as `kill` has it.
    signal: rustix::process::Signal,
}

/// This executable, as each of them uses it.
struct Program {
    path: PathBuf,
    url: String,
    data: PathBuf,
    project: Option<PathBuf>,
}

impl Program {
    fn node(&self, number: u16, address: SocketAddr) -> Plan {
        let more = [
            format!("--listen={address}"),
            format!("--advertise=http://{address}"),
            "--trusted-proxy=127.0.0.1".into(),
            "--drain=1s".into(),
        ];
        self.plan(format!("node {number}"), "serve", &more)
    }

    fn balancer(&self, listen: SocketAddr) -> Plan {
        self.plan("balancer".into(), "balance", &[format!("--balance-listen={listen}")])
    }

    fn plan(&self, name: String, command: &str, more: &[String]) -> Plan {
        let mut arguments: Vec<OsString> = vec![command.into(), "--data".into(), self.data.clone().into()];
        if let Some(project) = &self.project {
            arguments.extend(["--project".into(), project.into()]);
        }
        arguments.extend(more.iter().map(OsString::from));
        let environment = vec![("NTIER_DATABASE_URL", self.url.clone())];
        Plan {
            name,
            program: self.path.clone(),
            arguments,
            environment,
            log: None,
            signal: rustix::process::Signal::TERM,
        }
    }
}

/// PostgreSQL of this machine, with its data beside ours; nobody reaches it but by its socket.
struct Server {
    programs: PathBuf,
    data: PathBuf,
    socket: PathBuf,
}

impl Server {
    fn find(data: &Path) -> Result<Self, Failure> {
        let none = "there is no PostgreSQL server on this machine: install one (Debian: apt-get install postgresql), or name one \
                    with --database-url";
        let newest = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let newest = newest.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let named = std::env::split_paths(&path).find(|folder| folder.join("initdb").exists());
        let programs =
            newest.max().map(|(_, path)| path.join("bin")).filter(|bin| bin.join("initdb").exists()).or(named);
        if rustix::process::geteuid().is_root() {
            return Err(Failure::new(
                "PostgreSQL does not run as root: run `ntier up` as another user, or name a server with --database-url",
            ));
        }
        Ok(Self {
            programs: programs.ok_or_else(|| Failure::new(none))?,
            data: data.join("postgres"),
            socket: data.to_owned(),
        })
    }

    fn url(&self) -> String {
        format!("postgres://postgres@/postgres?host={}", self.socket.display())
    }

    async fn start(&self) -> Result<Process, Failure> {
        if !self.data.join("PG_VERSION").exists() {
            let mut command = Command::new(self.programs.join("initdb"));
            command.arg("-D").arg(&self.data).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]);
            let made = command.output().await?;
            if !made.status.success() {
                return Err(Failure::new(format!("initdb: {}", String::from_utf8_lossy(&made.stderr).trim_end())));
            }
        }
        let mut arguments: Vec<OsString> =
            vec!["-D".into(), self.data.clone().into(), "-k".into(), self.socket.clone().into()];
        arguments.extend(["-c", "listen_addresses="].map(OsString::from));
        let mut process = Process::start(Plan {
            name: "postgres".into(),
            program: self.programs.join("postgres"),
            arguments,
            environment: Vec::new(),
            log: Some(self.socket.join("postgres.log")),
            signal: rustix::process::Signal::INT,
        })?;
        let late = Instant::now() + PATIENCE;
        loop {
            let mut command = Command::new(self.programs.join("pg_isready"));
            if command.args(["-q", "-U", "postgres", "-h"]).arg(&self.socket).status().await?.success() {
                return Ok(process);
            }
            match process.ended() {
                Some(status) => return Err(Failure::new(format!("postgres ended ({status})"))),
                None if Instant::now() > late => return Err(Failure::new("postgres does not answer")),
                None => sleep(PAUSE).await,
            }
        }
    }
}

struct Process {
    plan: Plan,
    child: Child,
}

impl Process {
    fn start(plan: Plan) -> Result<Self, Failure> {
        let mut command = Command::new(&plan.program);
        command.args(&plan.arguments).envs(plan.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(match &plan.log {
            Some(path) => OpenOptions::new().create(true).append(true).open(path)?.into(),
            None => Stdio::piped(),
        });
        // The keyboard asks this process alone to end, which asks them in their order.
        command.process_group(0).kill_on_drop(true);
        let started = command.spawn();
        let mut child = started.map_err(|cause| Failure::new(format!("{}: {cause}", plan.program.display())))?;
        if let Some(said) = child.stderr.take() {
            tokio::spawn(repeat(plan.name.clone(), said));
        }
        Ok(Self { plan, child })
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    async fn stop(mut self) -> Result<(), Failure> {
        let process = self.child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(process) = process {
            // It may have ended by now.
            let _ = rustix::process::kill_process(process, self.plan.signal);
        }
        if timeout(FAREWELL, self.child.wait()).await.is_err() {
            eprintln!("{} did not end in order", self.plan.name);
            self.child.kill().await?;
        }
        Ok(())
    }
}

/// What it says, with its name.
async fn repeat(name: String, said: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(said).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        eprintln!("{name}: {line}");
    }
}
