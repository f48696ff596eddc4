//! A balancer before real backends on loopback.

mod failing;
mod forwarding;
mod stage;
