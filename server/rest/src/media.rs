//! The names of media types.

use ntier_protocol::rest::request::{MediaType, PlanOption};

/// As it is written in `Accept`, without a character set.
pub fn essence(media_type: &MediaType) -> String {
    let stripped = |name: &str, nulls_stripped: bool| {
        let suffix = if nulls_stripped { ";nulls=stripped" } else { "" };
        format!("application/vnd.pgrst.{name}+json{suffix}")
    };
    let name = match media_type {
        MediaType::Any => "*/*",
        MediaType::Json | MediaType::Array { nulls_stripped: false } => "application/json",
        MediaType::Array { nulls_stripped: true } => return stripped("array", true),
        MediaType::Object { nulls_stripped } => return stripped("object", *nulls_stripped),
        MediaType::Csv => "text/csv",
        MediaType::GeoJson => "application/geo+json",
        MediaType::OpenApi => "application/openapi+json",
        MediaType::Text => "text/plain",
        MediaType::Xml => "text/xml",
        MediaType::OctetStream => "application/octet-stream",
        MediaType::UrlEncoded => "application/x-www-form-urlencoded",
        MediaType::Plan { json, of, options } => return plan(*json, of, options),
        MediaType::Other(name) => name,
    };
    name.to_owned()
}

fn plan(json: bool, of: &MediaType, options: &[PlanOption]) -> String {
    let format = if json { "json" } else { "text" };
    let mut text = format!("application/vnd.pgrst.plan+{format}; for=\"{}\"", essence(of));
    if !options.is_empty() {
        let names: Vec<&str> = options.iter().map(|option| option_name(*option)).collect();
        text.push_str("; options=");
        text.push_str(&names.join("|"));
    }
    text
}

pub fn option_name(option: PlanOption) -> &'static str {
    match option {
        PlanOption::Analyze => "analyze",
        PlanOption::Verbose => "verbose",
        PlanOption::Settings => "settings",
        PlanOption::Buffers => "buffers",
        PlanOption::Wal => "wal",
    }
}

/// As it is written in `Content-Type`. Bytes and unknown types have no character set.
pub fn content_type(media_type: &MediaType) -> String {
    let name = essence(media_type);
    match media_type {
        MediaType::OctetStream | MediaType::Other(_) => name,
        _ => format!("{name}; charset=utf-8"),
    }
}

/// The media type that a domain of the database is named after.
pub fn parse(name: &str) -> MediaType {
    match name {
        "*/*" => MediaType::Any,
        "application/json" => MediaType::Json,
        "text/csv" => MediaType::Csv,
        "application/geo+json" => MediaType::GeoJson,
        "application/openapi+json" => MediaType::OpenApi,
        "text/plain" => MediaType::Text,
        "text/xml" => MediaType::Xml,
        "application/octet-stream" => MediaType::OctetStream,
        "application/x-www-form-urlencoded" => MediaType::UrlEncoded,
        other => MediaType::Other(other.to_owned()),
    }
}
