//! What a node leans on: the database, blobs, the bus between nodes, and the services of others.

pub mod blobs;
pub mod bus;
pub mod database;
pub mod outbound;
