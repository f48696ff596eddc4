//! What is said on the wire: parse, render, error codes. No IO, no async, no database.

pub mod auth;
pub mod realtime;
pub mod rest;
pub mod storage;
pub mod websocket;
