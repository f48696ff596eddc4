//! How many of the rooms run, and where: settings, the project folder, and the server that they make.

mod fault;
pub mod project;
pub mod settings;

pub use fault::{Fault, Place, Severity};
