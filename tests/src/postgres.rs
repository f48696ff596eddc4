//! A PostgreSQL server from Debian's packages, started once for a test process.
//!
//! A shell holds it: when the test process ends, however it ends, the shell's standard input ends, and the shell stops the
//! server and removes its files.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A running server; its owner is the superuser `postgres`, who needs no password on the socket.
#[derive(Debug)]
pub struct Postgres {
    /// The directory of its socket.
    pub directory: PathBuf,
    /// On 127.0.0.1, with TLS and passwords.
    pub port: u16,
    shell: Mutex<Shell>,
}

/// It does what it is told, and says so.
#[derive(Debug)]
struct Shell {
    tell: ChildStdin,
    said: BufReader<ChildStdout>,
    _child: Child,
}

const SCRIPT: &str = r#"
set -e
directory=$(mktemp -d "${TMPDIR:-/tmp}/ntier-tests.XXXXXX")
trap 'rm -rf "$directory"' EXIT
cd "$directory"
"$1/initdb" -D data -U postgres -A trust --no-sync -E UTF8 --locale C.UTF-8 >log 2>&1 || { cat log >&2; exit 1; }
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost -keyout data/server.key -out data/server.crt >>log 2>&1 || { cat log >&2; exit 1; }
cp data/server.crt root.crt; chmod 600 data/server.key; chmod 755 "$directory"; chmod 644 root.crt
printf 'local all all trust\nhost all all samenet scram-sha-256\n' >data/pg_hba.conf
start() {
  "$1/postgres" -D data -k "$directory" -c port="$2" -c listen_addresses=127.0.0.1 -c ssl=on -c max_connections=300 \
    -c shared_buffers=128MB $3 >>log 2>&1 &
  server=$!
  until "$1/pg_isready" -q -h "$directory" -p "$2"; do kill -0 $server || { cat log >&2; exit 1; }; sleep 0.1; done
}
stop() {
  kill -INT $server || true
  wait $server || true
}
start "$@"
echo "$directory"
while read -r what; do
  case $what in
    start) start "$@" ;;
    stop) stop ;;
  esac
  echo "$what"
done
stop
"#;

/// The server of this process.
///
/// # Panics
/// When there is none to start; `cargo xtask test` installs it.
pub fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| start("-c fsync=off -c full_page_writes=off"))
}

/// Starts one more, with these options for `postgres`.
///
/// # Panics
/// When there is none to start.
pub fn start(options: &str) -> Postgres {
    let bin = newest().expect("no PostgreSQL server in /usr/lib/postgresql: apt-get install postgresql");
    let port = free_port();
    // PostgreSQL refuses to run as root.
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--", "sh"]);
        command
    } else {
        Command::new("sh")
    };
    command.args(["-c", SCRIPT, "sh"]).arg(&bin).arg(port.to_string()).arg(options).current_dir("/");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh can be started");
    let tell = child.stdin.take().expect("it is piped");
    let said = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut shell = Shell { tell, said, _child: child };
    let directory = shell.hear();
    assert!(!directory.is_empty(), "PostgreSQL did not start");
    let server = Postgres { directory: directory.into(), port, shell: Mutex::new(shell) };
    server.sql("postgres", "alter role postgres password 'for tests'");
    server
}

impl Shell {
    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("the shell speaks");
        line.trim_end().to_owned()
    }
}

impl Postgres {
    /// Stops it as an administrator would: sessions are ended.
    ///
    /// # Panics
    /// When it cannot be stopped.
    pub fn stop(&self) {
        self.tell("stop");
    }

    /// Starts it again.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(&self) {
        self.tell("start");
    }

    fn tell(&self, what: &str) {
        let mut shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(shell.tell, "{what}").expect("the shell listens");
        assert_eq!(shell.hear(), what, "PostgreSQL does not {what}");
    }

    /// A URL over the socket.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@/{database}?host={}&port={}", self.directory.display(), self.port)
    }

    /// Runs SQL as the superuser.
    ///
    /// # Panics
    /// When it is refused.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let output = Command::new("psql")
            .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-d", &self.url(database), "-c", sql])
            .output()
            .expect("psql comes with the server");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

/// A port that nobody listens on now.
///
/// # Panics
/// When the machine has none left.
pub fn free_port() -> u16 {
    // Below those that the system gives to whoever connects: between this look and the server's one of these could take it. And none twice.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 16_000;
    const COUNT: u16 = 16_000;
    // Another process that does the same begins elsewhere.
    let begin = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or_default();
    let ports = (0..COUNT).map(|_| FIRST + (begin + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT);
    let is_free = |port: &u16| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok();
    ports.into_iter().find(is_free).expect("a free port")
}

/// The newest installed server's programs.
pub fn newest() -> Option<PathBuf> {
    let versions = std::fs::read_dir(Path::new("/usr/lib/postgresql")).ok()?;
    let found = versions.filter_map(|entry| {
        let entry = entry.ok()?;
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let bin = entry.path().join("bin");
        bin.join("postgres").exists().then_some((version, bin))
    });
    found.max().map(|(_, bin)| bin)
}
