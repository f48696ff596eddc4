//! Pebble, an authority that issues certificates (ACME), from Debian's packages, and the names that it looks up. A shell holds both, and stops
//! them when the test process ends, however that ends.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::postgres::free_port;
use crate::until;

const SCRIPT: &str = r#"
cd "$1"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
  -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out certificate.pem >log 2>&1 || { cat log >&2; exit 1; }
export PEBBLE_VA_NOSLEEP=1 PEBBLE_AUTHZREUSE=0
pebble-challtestsrv -defaultIPv6 "" -http01 "" -https01 "" -tlsalpn01 "" -dns01 "127.0.0.1:$2" -management "127.0.0.1:$3" >>log 2>&1 &
names=$!
pebble -config config.json -dnsserver "127.0.0.1:$2" >>log 2>&1 &
authority=$!
cat >/dev/null
kill -TERM $names $authority
wait $names $authority
"#;

#[derive(Debug)]
pub struct Pebble {
    /// Where it answers.
    pub port: u16,
    /// Where it asks by plain HTTP, and by TLS, whichever the address.
    pub http: u16,
    pub tls: u16,
    folder: TempDir,
    names: u16,
    management: u16,
    shell: Child,
}

impl Pebble {
    /// Starts one whose certificates are good for so many seconds.
    ///
    /// # Panics
    /// When it does not start; `cargo xtask test` installs it.
    pub fn start(life: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [port, http, tls, names, management, dns] = std::array::from_fn(|_| free_port());
        let config = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"), "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": "certificate.pem", "privateKey": "key.pem", "httpPort": http, "tlsPort": tls,
            "ocspResponderURL": "", "externalAccountBindingRequired": false, "certificateValidityPeriod": life,
        } });
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "sh"]).arg(folder.path()).args([dns, names].map(|port| port.to_string()));
        let shell = command.stdin(Stdio::piped()).spawn().expect("sh can be started");
        let pebble = Self { port, http, tls, folder, names, management, shell };
        until("Pebble answers (apt-get install pebble)", || {
            [port, names, management].into_iter().all(|port| TcpStream::connect(("127.0.0.1", port)).is_ok())
        });
        pebble
    }

    /// Who vouches for its own address.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    /// Who vouches for what it issues.
    ///
    /// # Panics
    /// When it does not say so.
    pub fn root(&self) -> PathBuf {
        let root = self.folder.path().join("root.pem");
        let url = format!("https://127.0.0.1:{}/roots/0", self.management);
        let got = Command::new("curl").args(["-sf", "--cacert"]).arg(self.ca()).arg("-o").arg(&root).arg(url).status();
        assert!(got.expect("curl can be started").success());
        root
    }

    /// From now on a name has this address.
    ///
    /// # Panics
    /// When that cannot be told.
    pub fn name(&self, name: &str, address: Ipv4Addr) {
        let body = json!({ "host": format!("{name}."), "addresses": [address] }).to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.names)).expect("it listens");
        let length = body.len();
        write!(
            stream,
            "POST /add-a HTTP/1.1\r\nhost: names\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        assert!(line.contains(" 200 "), "{line}");
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
