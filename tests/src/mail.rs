//! Mail servers: a real one with TLS and passwords (aiosmtpd, from Debian's packages), and one as simple as one can be.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use crate::directory;
use crate::node::PATIENCE;

/// A mail server in a process of its own. It holds its port from the beginning, and answers when it is told to.
#[derive(Debug)]
pub struct MailServer {
    pub port: u16,
    process: Child,
    input: Option<ChildStdin>,
    events: Receiver<Value>,
    heard: Vec<Value>,
}

impl MailServer {
    /// The options are those of `fixtures/mail_server.py`.
    ///
    /// # Panics
    /// When it does not start; `cargo xtask test` installs it.
    pub fn start(options: &Value) -> Self {
        // Debian's own Python: another one that comes first in the search path does not know Debian's packages.
        let mut command = Command::new("/usr/bin/python3");
        command
            .args(["-W", "ignore"])
            .arg(directory::repository().join("tests/fixtures/mail_server.py"))
            .arg(options.to_string());
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("no python3: apt-get install python3-aiosmtpd");
        let (sender, events) = channel();
        let said = BufReader::new(process.stdout.take().expect("it is piped"));
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).expect("events are JSON"));
            }
        });
        let input = process.stdin.take();
        let mut server = Self { port: 0, process, input, events, heard: Vec::new() };
        let port = server.hears("port")["port"].as_u64();
        server.port = port.and_then(|port| port.try_into().ok()).expect("a port");
        server
    }

    /// Answers from now on.
    pub fn up(&mut self) {
        self.tell("up");
    }

    /// Ends all connections, and refuses others.
    pub fn down(&mut self) {
        self.tell("down");
    }

    fn tell(&mut self, word: &str) {
        let input = self.input.as_mut().expect("it has not ended");
        writeln!(input, "{word}").expect("it listens");
        self.hears(word);
    }

    /// Waits for an event that has this.
    ///
    /// # Panics
    /// When there is none.
    pub fn hears(&mut self, name: &str) -> Value {
        while let Ok(event) = self.events.recv_timeout(PATIENCE) {
            self.heard.push(event.clone());
            if event.get(name).is_some() {
                return event;
            }
        }
        panic!("it never heard {name:?}, but {:?}", self.heard)
    }

    /// Ends it; gives what it heard from the beginning.
    pub fn end(mut self) -> Vec<Value> {
        self.input = None;
        let mut heard = std::mem::take(&mut self.heard);
        heard.extend(self.events.iter());
        heard
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A certificate that signs itself, for this name as OpenSSL writes it (`DNS:localhost`); gives the file, and that of its key.
///
/// # Panics
/// When there is no openssl; `cargo xtask test` installs it.
pub fn certificate(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    // Each is signed by somebody else.
    let subject = format!("/CN={}", folder.file_name().unwrap_or_default().display());
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", &subject, "-addext", &format!("subjectAltName={name}")])
        // Otherwise it would be for certificates of others only.
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("no openssl: apt-get install openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (certificate, key)
}

/// A mail server that takes everything and asks for nothing, until the process ends; gives each message as it came.
pub fn take_everything(listener: TcpListener) -> Receiver<String> {
    let (sender, messages) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), sender) = (stream, sender.clone()) else { break };
            std::thread::spawn(move || -> std::io::Result<()> {
                let mut lines = BufReader::new(stream.try_clone()?).lines();
                stream.write_all(b"220 here\r\n")?;
                while let Some(line) = lines.next() {
                    let line = line?;
                    let reply: &[u8] = match line.get(..4).unwrap_or_default() {
                        "QUIT" => return Ok(()),
                        "DATA" => {
                            stream.write_all(b"354 go on\r\n")?;
                            let text: Vec<String> =
                                lines.by_ref().map_while(Result::ok).take_while(|line| line != ".").collect();
                            let _ = sender.send(text.join("\n"));
                            b"250 taken\r\n"
                        }
                        _ => b"250 fine\r\n",
                    };
                    stream.write_all(reply)?;
                }
                Ok(())
            });
        }
    });
    messages
}
