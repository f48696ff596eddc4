//! A running program: started, waited for, killed or asked to stop.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::Value;

use crate::directory;

/// Longer than anything takes on a slow machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A node.
#[derive(Debug)]
pub struct Node {
    pub url: String,
    pub data: PathBuf,
    child: Child,
    /// What it says, line by line; standard error likewise.
    lines: Mutex<Receiver<String>>,
}

impl Node {
    /// Starts `ntier <command>` on a free port and waits until it serves.
    ///
    /// # Panics
    /// When it ends instead.
    pub fn start(command: &str, data: &Path, more: &[&str]) -> Self {
        Self::try_start(command, data, more).unwrap_or_else(|said| panic!("ntier {command} ended: {said}"))
    }

    /// Like [`Node::start`]; gives what it said when it ended instead.
    pub fn try_start(command: &str, data: &Path, more: &[&str]) -> Result<Self, String> {
        Self::start_program(&directory::program(), command, data, more)
    }

    /// Like [`Node::try_start`], of another build.
    ///
    /// # Panics
    /// When it is not there.
    pub fn start_program(program: &Path, command: &str, data: &Path, more: &[&str]) -> Result<Self, String> {
        Self::start_program_in(&[], program, command, data, more)
    }

    /// Likewise, in this environment beside ours.
    ///
    /// # Panics
    /// When it is not there.
    pub fn start_program_in(
        environment: &[(String, String)],
        program: &Path,
        command: &str,
        data: &Path,
        more: &[&str],
    ) -> Result<Self, String> {
        let mut command_line = Command::new(program);
        command_line.args([command, "--listen", "127.0.0.1:0", "--data"]).arg(data).args(more);
        command_line.envs(environment.iter().map(|(name, value)| (name, value)));
        Self::spawn(command_line, data)
    }

    /// Starts `ntier rest` on a free port with these `PGRST_…` variables and this file, and waits until it serves; gives what it
    /// said when it ended instead.
    ///
    /// # Panics
    /// When the program is not there.
    pub fn try_start_rest(file: Option<&Path>, environment: &[(&str, &str)]) -> Result<Self, String> {
        let mut command_line = Command::new(directory::program());
        command_line.arg("rest").args(file).env("PGRST_SERVER_PORT", "0").envs(environment.iter().copied());
        Self::spawn(command_line, Path::new(""))
    }

    /// Starts what serves, and waits until it does; gives what it said when it ended instead.
    ///
    /// # Panics
    /// When the program is not there.
    pub fn spawn(mut command_line: Command, data: &Path) -> Result<Self, String> {
        let mut child = command_line
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be started");
        let (said, lines) = channel();
        follow(child.stdout.take().expect("it is piped"), said.clone());
        follow(child.stderr.take().expect("it is piped"), said);
        let mut heard = String::new();
        while let Ok(line) = lines.recv_timeout(PATIENCE) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["ntier", "serves", url] | ["ntier", "rest" | "balance", "serves", url] | ["URL", url] =
                words.as_slice()
            {
                return Ok(Self { url: (*url).to_owned(), data: data.to_owned(), child, lines: Mutex::new(lines) });
            }
            heard.push_str(&line);
            heard.push('\n');
        }
        let _ = child.kill();
        let _ = child.wait();
        Err(heard)
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// The engine's process, if it has one.
    pub fn engine(&self) -> Option<u32> {
        let task = format!("/proc/{0}/task/", self.child.id());
        let children = std::fs::read_dir(task)
            .ok()?
            .flatten()
            .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
        let all: Vec<u32> =
            children.flat_map(|list| list.split(' ').filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect();
        all.first().copied()
    }

    /// `kill -9`, and waits until it and its engine are gone.
    pub fn kill(&mut self) {
        let engine = self.engine().and_then(watch);
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(engine) = engine {
            let _ = poll(&mut [PollFd::new(&engine, PollFlags::IN)], Some(&Timespec { tv_sec: 60, tv_nsec: 0 }));
        }
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn stop(&mut self) -> ExitStatus {
        send(self.child.id(), Signal::TERM);
        self.wait()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("a child can be waited for")
    }

    /// Everything it says from here to its end.
    ///
    /// # Panics
    /// Never.
    pub fn rest(&self) -> Vec<String> {
        self.lines.lock().expect("no test goes on after a panic").iter().collect()
    }

    /// Waits until it says a line with this text.
    ///
    /// # Panics
    /// When it does not.
    pub fn says(&self, text: &str) -> String {
        let mut heard = String::new();
        let lines = self.lines.lock().expect("no test goes on after a panic");
        while let Ok(line) = lines.recv_timeout(PATIENCE) {
            if line.contains(text) {
                return line;
            }
            heard.push_str(&line);
            heard.push('\n');
        }
        panic!("it never said {text:?}, but:\n{heard}")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Becomes readable when the process ends.
fn watch(process: u32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(i32::try_from(process).ok()?)?, PidfdFlags::empty()).ok()
}

/// Sends a signal to a process of ours; one that is gone already does not mind.
pub fn send(process: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Runs the program to its end; gives its exit code, standard output and standard error.
///
/// # Panics
/// When it cannot be started.
pub fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    run_in(Path::new("/"), arguments)
}

/// Likewise, in a folder.
///
/// # Panics
/// When it cannot be started.
pub fn run_in(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(directory::program())
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("the program can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// `ntier keys --json`.
///
/// # Panics
/// When there are none.
pub fn keys(data: &Path) -> Value {
    let (code, out, told) = run(&["keys", "--data", &data.to_string_lossy(), "--json"]);
    assert_eq!(code, Some(0), "{told}");
    serde_json::from_str(&out).expect("keys are JSON")
}

fn follow(out: impl Read + Send + 'static, said: std::sync::mpsc::Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if std::env::var_os("NTIER_TESTS_SHOW").is_some() {
                eprintln!("  {line}");
            }
            let _ = said.send(line);
        }
    });
}
