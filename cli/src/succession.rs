//! One process takes another's place without a connection being lost: the listening sockets are handed down, as systemd hands them to a
//! service (`LISTEN_FDS`), and whoever serves asks its predecessor to end.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::parent_id;

use listenfd::ListenFd;
use ntier::balance::Running;
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process};
use tokio::process::Child;

use crate::failure::Failure;

/// The process that is to end once this one serves.
const PREDECESSOR: &str = "LISTEN_PREDECESSOR";
/// Descriptors are handed down at the end of what a process may have, where nobody else takes any; but not further than this.
const LAST: u64 = 16_384;

/// Sockets that listen already, of a predecessor or of systemd.
pub fn inherited() -> Result<Vec<TcpListener>, Failure> {
    let mut handed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for at in 0..handed.len() {
        let socket = handed.take_tcp_listener(at);
        sockets.extend(socket.map_err(|cause| Failure::new(format!("the socket {at} of LISTEN_FDS: {cause}")))?);
    }
    Ok(sockets)
}

/// This process serves: systemd is told, and a predecessor asked to end.
pub fn serves() -> Result<(), Failure> {
    tell_systemd(&format!("READY=1\nMAINPID={}", std::process::id()));
    let Some(predecessor) = std::env::var(PREDECESSOR).ok().and_then(|id| id.parse::<i32>().ok()) else {
        return Ok(());
    };
    // Whoever that is by now is not asked, unless it has started this process.
    if u32::try_from(predecessor).ok() == Some(parent_id())
        && let Some(predecessor) = Pid::from_raw(predecessor)
    {
        kill_process(predecessor, Signal::TERM).map_err(io::Error::from)?;
    }
    Ok(())
}

/// Starts the binary that is there by now, with this process' arguments and sockets.
pub fn begin(running: &Running) -> io::Result<Child> {
    let sockets = in_a_row(&running.sockets()?)?;
    let first = sockets.first().map_or(0, AsRawFd::as_raw_fd);
    let mut command = tokio::process::Command::new(program()?);
    command.args(std::env::args_os().skip(1)).env_remove("LISTEN_PID").env_remove("LISTEN_FDNAMES");
    command.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDS_FIRST_FD", first.to_string());
    command.env(PREDECESSOR, std::process::id().to_string());
    // Nothing else is started meanwhile that would get them too.
    for socket in &sockets {
        fcntl_setfd(socket, FdFlags::empty())?;
    }
    command.spawn()
}

/// The same sockets under numbers that follow each other.
fn in_a_row(sockets: &[TcpListener]) -> io::Result<Vec<OwnedFd>> {
    let most = getrlimit(Resource::Nofile).current.unwrap_or(LAST).min(LAST);
    let count = sockets.len() as u64;
    let mut end = most;
    while let Some(first) = end.checked_sub(count).filter(|first| *first > 2) {
        let numbers = (first..end).map(|number| i32::try_from(number).unwrap_or(i32::MAX));
        let taken: io::Result<Vec<OwnedFd>> = sockets
            .iter()
            .zip(numbers.clone())
            .map(|(socket, number)| fcntl_dupfd_cloexec(socket, number).map_err(io::Error::from))
            .collect();
        if let Ok(taken) = taken
            && taken.iter().map(AsRawFd::as_raw_fd).eq(numbers)
        {
            return Ok(taken);
        }
        end -= 1;
    }
    Err(io::Error::other("there are no numbers left for its sockets"))
}

/// Where this process' binary is. One that was replaced meanwhile has the same name, without what the kernel says of it.
fn program() -> io::Result<std::path::PathBuf> {
    let program = std::env::current_exe()?;
    let name = program.to_string_lossy();
    Ok(name.strip_suffix(" (deleted)").map_or(program.clone(), Into::into))
}

/// `sd_notify(3)`; where nobody listens nothing is said.
fn tell_systemd(text: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let Ok(socket) = UnixDatagram::unbound() else { return };
    let _ = match path.to_string_lossy().strip_prefix('@') {
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            std::os::unix::net::SocketAddr::from_abstract_name(name)
                .and_then(|address| socket.send_to_addr(text.as_bytes(), &address))
        }
        None => socket.send_to(text.as_bytes(), path),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_handed_down_in_a_row() {
        let sockets: Vec<TcpListener> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let one = in_a_row(&sockets).unwrap();
        // The same again, while the first are there.
        let other = in_a_row(&sockets).unwrap();
        for row in [&one, &other] {
            assert!(row.windows(2).all(|pair| pair[1].as_raw_fd() == pair[0].as_raw_fd() + 1));
        }
        assert!(other[3].as_raw_fd() < one[0].as_raw_fd());
    }
}
