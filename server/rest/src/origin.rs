//! What of the HTTP request the database is told.

use http::request::Parts;
use serde_json::{Map, Value};

/// What `request.method` and its like say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    pub method: String,
    pub path: String,
    /// JSON objects.
    pub headers: String,
    pub cookies: String,
}

impl Origin {
    pub fn of(http: &Parts) -> Self {
        let mut headers = Map::new();
        let mut cookies = Map::new();
        for (name, value) in &http.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            if name == http::header::COOKIE {
                cookies.extend(value.split(';').filter_map(cookie));
            } else {
                headers.entry(name.as_str()).or_insert_with(|| value.into_owned().into());
            }
        }
        Self {
            method: http.method.as_str().to_owned(),
            path: http.uri.path().to_owned(),
            headers: Value::Object(headers).to_string(),
            cookies: Value::Object(cookies).to_string(),
        }
    }
}

fn cookie(text: &str) -> Option<(String, Value)> {
    let (name, value) = text.split_once('=')?;
    Some((name.trim().to_owned(), value.trim().into()))
}
