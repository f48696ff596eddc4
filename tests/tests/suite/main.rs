//! The suites: what users rely on, over HTTP, on the embedded database and on a PostgreSQL server.

mod faults;
mod hostile;
mod read;
mod rpc;
mod security;
mod write;
