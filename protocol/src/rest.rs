//! The PostgREST dialect: what a request may say, and how an error is said.
//!
//! [`parse::request`] is the way in. Nothing here does IO or knows a table.

mod cursor;
pub mod error;
mod filter;
mod media;
pub mod parse;
mod payload;
mod prefer;
mod query;
pub mod request;
mod select;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use prefer::preferences;
use request::MediaType;

/// A media type as it is written in a message.
fn media_name(media_type: &MediaType) -> &str {
    match media_type {
        MediaType::Any => "*/*",
        MediaType::Json => "application/json",
        MediaType::Array { .. } => "application/vnd.pgrst.array+json",
        MediaType::Object { .. } => "application/vnd.pgrst.object+json",
        MediaType::Csv => "text/csv",
        MediaType::GeoJson => "application/geo+json",
        MediaType::OpenApi => "application/openapi+json",
        MediaType::Text => "text/plain",
        MediaType::Xml => "text/xml",
        MediaType::OctetStream => "application/octet-stream",
        MediaType::UrlEncoded => "application/x-www-form-urlencoded",
        MediaType::Plan { json: true, .. } => "application/vnd.pgrst.plan+json",
        MediaType::Plan { json: false, .. } => "application/vnd.pgrst.plan+text",
        MediaType::Other(name) => name,
    }
}
