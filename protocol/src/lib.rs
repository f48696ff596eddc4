//! What is said on the wire: parse, render, error codes. No IO, no async, no database.

pub mod auth;
mod nesting;
pub mod realtime;
pub mod rest;
pub mod storage;
pub mod websocket;
