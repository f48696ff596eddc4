//! A balancer before real backends on loopback.

mod draining;
mod failing;
mod forwarding;
mod limits;
mod stage;
mod tls;
