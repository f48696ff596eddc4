//! The PostgREST dialect: what a request may say, and how an error is said.

pub mod request;
