//! A folder of a web site, for `ntier dev`: plain files, nothing generated, nothing outside the folder.

use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use percent_encoding::percent_decode_str;

/// Serves the file at the path, `index.html` for a folder.
pub async fn serve(folder: &Path, path: &str, _headers: &HeaderMap) -> Response<Bytes> {
    let Some(relative) = relative(path) else { return super::not_found() };
    let mut file = folder.join(relative);
    if tokio::fs::metadata(&file).await.is_ok_and(|metadata| metadata.is_dir()) {
        file.push("index.html");
    }
    // A link may point anywhere; what it points to must still be inside.
    let inside = match (tokio::fs::canonicalize(folder).await, tokio::fs::canonicalize(&file).await) {
        (Ok(folder), Ok(file)) => file.starts_with(folder),
        _ => false,
    };
    let Some(bytes) = (if inside { tokio::fs::read(&file).await.ok() } else { None }) else {
        return super::not_found();
    };
    let mut response = Response::new(Bytes::from(bytes));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(&file)));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// The path inside the folder; `None` for what tries to leave it, and for hidden files.
fn relative(path: &str) -> Option<PathBuf> {
    let decoded = percent_decode_str(path).decode_utf8().ok()?;
    if decoded.contains(['\0', '\\']) {
        return None;
    }
    let relative = Path::new(decoded.trim_start_matches('/'));
    let plain = relative.components().all(|part| match part {
        Component::Normal(name) => !name.to_string_lossy().starts_with('.'),
        _ => false,
    });
    plain.then(|| relative.to_owned())
}

fn media_type(file: &Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "wasm" => "application/wasm",
        "woff2" => "font/woff2",
        "txt" | "md" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_the_folder_is_named() {
        for (path, expected) in [
            ("/", Some("")),
            ("/a/b.js", Some("a/b.js")),
            ("/a%20b.html", Some("a b.html")),
            ("/../secret", None),
            ("/a/%2e%2e/secret", None),
            ("/.env", None),
            ("/a/.git/config", None),
            ("/a%00b", None),
            ("/..%5csecret", None),
        ] {
            assert_eq!(relative(path), expected.map(PathBuf::from), "{path}");
        }
    }
}
