//! The suites: what users rely on, over HTTP, on the embedded database and on a PostgreSQL server.

mod auth;
mod beyond;
mod browser;
mod certificates;
mod commands;
mod defence;
mod drivers;
mod examples;
mod hostile;
mod import;
mod moving;
mod nodes;
mod project;
mod read;
mod realtime;
mod rest_command;
mod rpc;
mod security;
mod storage;
mod tiers;
mod write;
