//! What a node leans on. Today: the database.

pub mod database;
