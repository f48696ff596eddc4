//! What a node leans on: the database, blobs, and the services of others.

pub mod blobs;
pub mod database;
pub mod outbound;
