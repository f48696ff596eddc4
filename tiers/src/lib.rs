//! How many of the rooms run, and where: settings, the project folder, and the server that they make.

pub mod balance;
pub mod database;
pub mod defence;
mod directories;
mod fault;
pub mod keyring;
pub mod keys;
pub mod library;
pub mod moving;
pub mod nodes;
pub mod project;
pub mod rest;
pub mod server;
pub mod settings;
pub mod whereabouts;

pub use fault::{Fault, Place, Severity};
pub use library::embedded;
