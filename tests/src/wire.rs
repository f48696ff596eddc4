//! A wire between clients and nodes, at an address that stays. It lets so many bytes through and then holds them, in the middle of
//! whatever they are of, until somebody has done what was to be done meanwhile. It may lead to another node, as a balancer does.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::node::PATIENCE;

#[derive(Debug)]
pub struct Wire {
    /// Of its end for clients.
    pub url: String,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inner {
    node: SocketAddr,
    /// Bytes of clients that may still pass.
    left: u64,
    /// Somebody has more than that.
    is_held: bool,
    /// The clients' ends, of what is open.
    clients: Vec<TcpStream>,
    /// The nodes' ends of what clients have been cut off from: they hear no end.
    hanging: Vec<TcpStream>,
    /// Whether a node does not hear that its clients have been cut off.
    hangs: bool,
}

impl Wire {
    /// To this node; nothing passes before [`Wire::pass`].
    ///
    /// # Panics
    /// When there is no port, or that is no node's URL.
    pub fn new(node: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inner = Inner {
            node: address(node),
            left: 0,
            is_held: false,
            clients: Vec::new(),
            hanging: Vec::new(),
            hangs: false,
        };
        let state = Arc::new(State { inner: Mutex::new(inner), changed: Condvar::new() });
        let url = format!("http://{}", listener.local_addr().unwrap());
        let of_threads = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = of_threads.clone();
                std::thread::spawn(move || state.carry(client));
            }
        });
        Self { url, state }
    }

    /// Lets so many bytes of clients pass.
    ///
    /// # Panics
    /// Never.
    pub fn pass(&self, bytes: u64) {
        let mut inner = self.state.lock();
        (inner.left, inner.is_held) = (bytes, false);
        self.state.changed.notify_all();
    }

    /// Waits until they have passed and there are more.
    ///
    /// # Panics
    /// When that never happens.
    pub fn held(&self) {
        let inner = self.state.lock();
        let waited = self.state.changed.wait_timeout_while(inner, PATIENCE, |inner| !inner.is_held);
        let (inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(inner.is_held, "never: so many bytes have passed");
    }

    /// Leads to another node. Clients are cut off; the node before hears of it, or it does not, as when a machine is gone.
    ///
    /// # Panics
    /// When that is no node's URL.
    pub fn lead(&self, node: &str, hears: bool) {
        let mut inner = self.state.lock();
        inner.node = address(node);
        inner.hangs = !hears;
        for client in inner.clients.drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry(self: Arc<Self>, mut client: TcpStream) {
        let node = {
            let mut inner = self.lock();
            inner.clients.push(client.try_clone().unwrap());
            inner.node
        };
        let Ok(mut up) = TcpStream::connect(node) else {
            // A node that is not there is not there for the client either.
            let _ = client.shutdown(Shutdown::Both);
            return;
        };
        let (mut down, mut back) = (up.try_clone().unwrap(), client.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut down, &mut back);
            let _ = back.shutdown(Shutdown::Both);
        });
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = client.read(&mut buffer) {
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(self.take(rest.len()));
                if up.write_all(now).is_err() {
                    let _ = client.shutdown(Shutdown::Both);
                    return;
                }
                rest = later;
            }
        }
        let mut inner = self.lock();
        if inner.hangs && inner.node != node {
            inner.hanging.push(up);
        } else {
            drop(inner);
            let _ = up.shutdown(Shutdown::Write);
        }
    }

    /// How many of so many bytes may pass; waits until there are some.
    fn take(&self, wanted: usize) -> usize {
        let mut inner = self.lock();
        while inner.left == 0 {
            inner.is_held = true;
            self.changed.notify_all();
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        let taken = wanted.min(usize::try_from(inner.left).unwrap_or(wanted));
        inner.left -= taken as u64;
        taken
    }
}

fn address(node: &str) -> SocketAddr {
    node.trim_start_matches("http://").parse().expect("a node's URL has an address and a port")
}
