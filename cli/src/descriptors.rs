//! How many files and connections this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As many as it may allow itself: the usual 1024 are for programs that wait by `select(2)`, and a server has a connection for each client.
pub fn allow_all() {
    let limit = getrlimit(Resource::Nofile);
    // Where that is refused there are as many as before.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
