//! What a node leans on: the database, and the services of others.

pub mod database;
pub mod outbound;
