//! GoTrue's dialect, as Supabase's clients speak it to `/auth/v1`.
//!
//! Here are the bodies that come and go, and the error codes. What follows from them is decided elsewhere.

pub mod error;
pub mod request;
pub mod user;
