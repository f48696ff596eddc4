//! A NATS server from Debian's packages. A shell holds it, and stops it when the test process ends, however that ends.

use std::io::{BufRead, BufReader, ErrorKind};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use crate::postgres::free_port;
use crate::until;

const SCRIPT: &str = r#"
PATH=$PATH:/usr/sbin
port=$1; shift
nats-server -a 127.0.0.1 -p "$port" "$@" >/dev/null 2>&1 &
server=$!
cat >/dev/null
kill -TERM $server
wait $server
"#;

#[derive(Debug)]
pub struct Nats {
    pub port: u16,
    options: Vec<String>,
    shell: Option<Child>,
}

impl Nats {
    /// Starts one with these options.
    ///
    /// # Panics
    /// When it does not start; `cargo xtask test` installs it.
    pub fn start(options: &[&str]) -> Self {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut server = Self { port: free_port(), options, shell: None };
        server.begin();
        server
    }

    /// Starts it again, where it was.
    ///
    /// # Panics
    /// When it does not start.
    pub fn begin(&mut self) {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "sh", &self.port.to_string()]).args(&self.options);
        self.shell = Some(command.stdin(Stdio::piped()).spawn().expect("sh can be started"));
        until("NATS answers (apt-get install nats-server)", || self.says_info());
    }

    /// Stops it; its port stays its own.
    ///
    /// # Panics
    /// When it does not end.
    pub fn end(&mut self) {
        if let Some(mut shell) = self.shell.take() {
            drop(shell.stdin.take());
            shell.wait().expect("the shell ends");
        }
    }

    fn says_info(&self) -> bool {
        let mut line = String::new();
        match TcpStream::connect(("127.0.0.1", self.port)) {
            Ok(stream) => BufReader::new(stream).read_line(&mut line).is_ok() && line.starts_with("INFO"),
            Err(cause) => {
                assert_eq!(cause.kind(), ErrorKind::ConnectionRefused);
                false
            }
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.end();
    }
}
