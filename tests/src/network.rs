//! Machines of their own on one machine: network namespaces on a bridge, where root may make them, else addresses of loopback. A shell holds them,
//! and removes them when the test process ends, however that ends.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Its arguments are the prefix of names, that of addresses, and the machines' last numbers.
const SCRIPT: &str = r#"
name=$1; net=$2; shift 2
clean() {
  for host in $hosts; do ip netns del "$name-$host" 2>/dev/null; done
  ip link del "$name" 2>/dev/null
}
hosts=$*
trap clean EXIT
set -e
ip link add "$name" type bridge
ip addr add "$net.1/24" dev "$name"
ip link set "$name" up
for host in $hosts; do
  ip netns add "$name-$host"
  ip link add "$name-$host" type veth peer name eth0 netns "$name-$host"
  ip link set "$name-$host" master "$name" up
  ip -n "$name-$host" addr add "$net.$host/24" dev eth0
  ip -n "$name-$host" link set lo up
  ip -n "$name-$host" link set eth0 up
done
echo ready
while read -r what host; do
  ip link set "$name-$host" "$what"
  echo "$what"
done
"#;

/// Where programs run that are to be apart.
#[derive(Debug)]
pub struct Network {
    /// Such as `10.77.3`.
    net: String,
    /// `None` on loopback.
    namespaces: Option<(String, Mutex<Shell>)>,
}

#[derive(Debug)]
struct Shell {
    tell: ChildStdin,
    said: BufReader<ChildStdout>,
    _child: Child,
}

impl Network {
    /// Machines with these last numbers of their addresses, from 2 on; 1 is this machine.
    pub fn start(hosts: &[u8]) -> Self {
        let [.., high, low] = std::process::id().to_be_bytes();
        let (name, net) = (format!("nt{high:02x}{low:02x}"), format!("10.{}.{low}", 64 + high % 128));
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "sh", &name, &net]).args(hosts.iter().map(ToString::to_string));
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let shell = started.ok().and_then(|mut child| {
            let (tell, said) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
            let mut shell = Shell { tell, said, _child: child };
            (shell.hear() == "ready").then_some(shell)
        });
        match shell {
            Some(shell) => Self { net, namespaces: Some((name, Mutex::new(shell))) },
            None => Self { net: "127.0.0".into(), namespaces: None },
        }
    }

    /// Of the machine with this number.
    ///
    /// # Panics
    /// Never.
    pub fn address(&self, host: u8) -> Ipv4Addr {
        format!("{}.{host}", self.net).parse().expect("it is an address")
    }

    /// All of them.
    pub fn all(&self) -> String {
        format!("{}.0/24", self.net)
    }

    /// Whether machines can be cut off.
    pub fn has_cables(&self) -> bool {
        self.namespaces.is_some()
    }

    /// A program there.
    pub fn command(&self, host: u8, program: &std::path::Path) -> Command {
        let Some((name, _)) = &self.namespaces else { return Command::new(program) };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{name}-{host}")]).arg(program);
        command
    }

    /// Nothing comes to that machine, and nothing from it.
    pub fn cut(&self, host: u8) {
        self.tell("down", host);
    }

    pub fn mend(&self, host: u8) {
        self.tell("up", host);
    }

    fn tell(&self, what: &str, host: u8) {
        let Some((_, shell)) = &self.namespaces else { return };
        let mut shell = shell.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(shell.tell, "{what} {host}").expect("the shell listens");
        assert_eq!(shell.hear(), what, "the shell does it");
    }
}

impl Shell {
    fn hear(&mut self) -> String {
        let mut line = String::new();
        let _ = self.said.read_line(&mut line);
        line.trim_end().to_owned()
    }
}
