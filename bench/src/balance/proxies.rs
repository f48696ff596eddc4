//! `HAProxy`, nginx and ntier before two origins, each with as many threads or workers as there are processors.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::measure;

/// Whoever stands in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ours,
    HaProxy,
    Nginx,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Ours, Self::HaProxy, Self::Nginx];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ntier",
            Self::HaProxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }
}

pub fn are_installed(binary: &Path) -> Result<(), String> {
    if !binary.is_file() {
        return Err(format!("{} is not there: cargo build --release -p ntier-cli", binary.display()));
    }
    for (program, flag, package) in [
        ("nginx", "-v", "nginx-light"),
        ("haproxy", "-v", "haproxy"),
        ("wrk", "-v", "wrk"),
        ("h2load", "--version", "nghttp2-client"),
    ] {
        let found = Command::new(program).arg(flag).output();
        found.map_err(|_| format!("{program} is not there: apt-get install {package}"))?;
    }
    Ok(())
}

/// How clients speak with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Plain,
    /// HTTP/1.1 over TLS.
    Tls,
    /// HTTP/2 over TLS.
    Http2,
}

impl Transport {
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "http/1.1",
            Self::Tls => "tls",
            Self::Http2 => "tls, h2",
        }
    }

    fn scheme(self) -> &'static str {
        if self == Self::Plain { "http" } else { "https" }
    }
}

/// A certificate of our own and its key, for all of them.
pub struct Certificate {
    folder: TempDir,
}

impl Certificate {
    pub fn make() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|cause| cause.to_string())?;
        let of = |name: &str| folder.path().join(name).display().to_string();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &of("key.pem")])
            .args(["-out", &of("certificate.pem")])
            .output()
            .map_err(|cause| format!("openssl: {cause}"))?;
        let text = |name| fs::read_to_string(of(name)).map_err(|cause| format!("{name}: {cause}"));
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).into_owned());
        }
        // As HAProxy takes them.
        let both = text("certificate.pem")? + &text("key.pem")?;
        fs::write(of("both.pem"), both).map_err(|cause| cause.to_string())?;
        Ok(Self { folder })
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

/// A process of others with its files. It ends when it is dropped.
struct Process {
    child: Child,
    _folder: TempDir,
}

impl Process {
    fn start(program: &Path, arguments: impl FnOnce(&Path) -> Result<Vec<String>, String>) -> Result<Self, String> {
        let text = |cause: std::io::Error| format!("{}: {cause}", program.display());
        let folder = tempfile::tempdir().map_err(text)?;
        let arguments = arguments(folder.path())?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command.spawn().map_err(text)?;
        Ok(Self { child, _folder: folder })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A master ends its workers when it is asked to; killed, it would leave them.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn free() -> Result<SocketAddr, String> {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(|cause| cause.to_string())
}

fn wait(address: SocketAddr, name: &str) -> Result<(), String> {
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        if begun.elapsed() > Duration::from_secs(10) {
            return Err(format!("{name} does not answer"));
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// What nginx's configurations have in common; `keepalive_requests`: a connection stays for the whole measurement.
fn nginx(folder: &Path, http: &str) -> Result<Vec<String>, String> {
    let own = folder.display();
    let text = format!(
        "daemon off;\nworker_processes auto;\nworker_rlimit_nofile 16384;\npid {own}/pid;\nerror_log {own}/error.log;\nuser root;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n access_log off;\n keepalive_requests 1000000000;\n default_type application/json;\n\
         client_body_temp_path {own}/body;\n proxy_temp_path {own}/proxy;\n fastcgi_temp_path {own}/fastcgi;\n\
         uwsgi_temp_path {own}/uwsgi;\n scgi_temp_path {own}/scgi;\n{http}\n}}\n"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, text).map_err(|cause| cause.to_string())?;
    Ok(vec!["-c".into(), file.display().to_string()])
}

/// Two servers that answer the same, at once and from memory.
pub struct Origins {
    pub addresses: [SocketAddr; 2],
    _process: Process,
}

impl Origins {
    pub fn start(answer: &str) -> Result<Self, String> {
        let addresses = [free()?, free()?];
        let servers = addresses.map(|address| {
            format!(" server {{ listen {address} reuseport backlog=4096; location / {{ return 200 '{answer}'; }} }}")
        });
        let process = Process::start(Path::new("nginx"), |folder| nginx(folder, &servers.join("\n")))?;
        for address in addresses {
            wait(address, "an origin")?;
        }
        Ok(Self { addresses, _process: process })
    }
}

/// One of them, while it runs.
pub struct Proxy {
    pub url: String,
    process: Process,
}

impl Proxy {
    pub fn start(
        kind: Kind,
        binary: &Path,
        origins: &Origins,
        transport: Transport,
        certificate: &Certificate,
    ) -> Result<Self, String> {
        match kind {
            Kind::Ours => Self::ours(binary, origins, transport, certificate),
            Kind::HaProxy => Self::haproxy(origins, transport, certificate),
            Kind::Nginx => Self::nginx(origins, transport, certificate),
        }
    }

    /// With figures, rules, bans and limits, which it has in production too; none of them is reached.
    fn ours(binary: &Path, origins: &Origins, transport: Transport, certificate: &Certificate) -> Result<Self, String> {
        let backends = origins.addresses.map(|address| address.to_string()).join(",");
        let mut process = Process::start(binary, |folder| {
            let data = folder.join("data").display().to_string();
            let flags = ["balance", "--data", &data, "--balance-listen", "127.0.0.1:0", "--balance-health-path", "/"];
            let mut flags = flags.map(str::to_owned).to_vec();
            flags.extend(["--balance-backends".to_owned(), backends]);
            let defence = ["--defence-never", "192.0.2.0/24", "--defence-requests-per-address", "1000000000"];
            let firewall = ["--firewall-deny", "203.0.113.0/24", "--firewall-deny-paths", "/auth/v1/admin/**"];
            flags.extend(defence.iter().chain(&firewall).map(ToString::to_string));
            if transport != Transport::Plain {
                flags.extend(["--balance-tls-certificate".into(), certificate.file("certificate.pem")]);
                flags.extend(["--balance-tls-key".into(), certificate.file("key.pem")]);
            }
            Ok(flags)
        })?;
        let said = process.child.stdout.take().ok_or("it says nothing")?;
        let mut lines = BufReader::new(said).lines().map_while(Result::ok);
        let url = lines.find_map(|line| line.strip_prefix("ntier balance serves ").map(str::to_owned));
        // Whoever writes where nobody reads any more ends.
        lines.next();
        Ok(Self { url: url.ok_or("ntier balance does not serve")?, process })
    }

    fn haproxy(origins: &Origins, transport: Transport, certificate: &Certificate) -> Result<Self, String> {
        let address = free()?;
        let tls = match transport {
            Transport::Plain => String::new(),
            Transport::Tls => format!(" ssl crt {} alpn http/1.1", certificate.file("both.pem")),
            Transport::Http2 => format!(" ssl crt {} alpn h2,http/1.1", certificate.file("both.pem")),
        };
        let [one, other] = origins.addresses;
        let text = format!(
            "global\n  maxconn 4096\n\
             defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  option http-keep-alive\n\
             frontend front\n  bind {address}{tls}\n  option forwardfor\n  default_backend back\n\
             backend back\n  balance leastconn\n  http-reuse always\n  option httpchk GET /\n\
             server one {one} check\n  server other {other} check\n"
        );
        let process = Process::start(Path::new("haproxy"), |folder| {
            let file = folder.join("haproxy.cfg");
            fs::write(&file, text).map_err(|cause| cause.to_string())?;
            Ok(vec!["-db".into(), "-f".into(), file.display().to_string()])
        })?;
        wait(address, "haproxy")?;
        Ok(Self { url: format!("{}://{address}", transport.scheme()), process })
    }

    fn nginx(origins: &Origins, transport: Transport, certificate: &Certificate) -> Result<Self, String> {
        let address = free()?;
        let files = format!(
            "ssl_certificate {}; ssl_certificate_key {};",
            certificate.file("certificate.pem"),
            certificate.file("key.pem")
        );
        let (tls, files) = match transport {
            Transport::Plain => ("", ""),
            Transport::Tls => (" ssl", files.as_str()),
            Transport::Http2 => (" ssl http2", files.as_str()),
        };
        let [one, other] = origins.addresses;
        let http = format!(
            " upstream back {{ least_conn; server {one}; server {other}; keepalive 512; keepalive_requests 1000000000; }}\n\
             server {{ listen {address}{tls} reuseport backlog=4096; {files} location / {{ proxy_pass http://back; proxy_http_version 1.1;\n\
             proxy_set_header Connection ''; proxy_set_header Host $host;\n\
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }}"
        );
        let process = Process::start(Path::new("nginx"), |folder| nginx(folder, &http))?;
        wait(address, "nginx")?;
        Ok(Self { url: format!("{}://{address}", transport.scheme()), process })
    }

    pub fn processor_time(&self) -> Duration {
        measure::processor_time(self.process.child.id())
    }

    /// What is resident of it and of the workers below it.
    pub fn memory_mb(&self) -> Result<f64, String> {
        let process = self.process.child.id();
        let below = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
        let all = below.split_whitespace().filter_map(|id| id.parse().ok()).chain([process]);
        all.map(|id| measure::memory(id).map(|memory| memory.pss)).sum()
    }
}
