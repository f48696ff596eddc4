//! The dialect of Supabase's storage, as its clients speak it to `/storage/v1`.
//!
//! Here are names, bodies, conditions and error codes. What follows from them is decided elsewhere, who may do what by row level
//! security.

pub mod condition;
pub mod dav;
pub mod error;
pub mod media_type;
pub mod name;
pub mod range;
pub mod request;
pub mod s3;
pub mod tus;
mod xml;
