//! A web site at `/`: the files of a folder, or of a public bucket.
//!
//! A path is a file, a folder with its `index.html`, or a page without its `.html`. What is nothing of these is `404.html`, if the site
//! has one; else, for whoever navigates there, `index.html`, so that an application of a single page finds its own way. Names that have
//! a hash in them are kept for good, everything else is asked for again and answered by 304. Text is compressed; beside `app.js` an
//! `app.js.br` or `app.js.gz` is taken where it is there. Hidden files are not.

mod compress;
mod folder;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use ntier_protocol::storage::condition::{Conditions, Verdict};
use ntier_protocol::storage::range::{self, Wanted};
use ntier_storage::{Body, Storage};
use percent_encoding::percent_decode_str;

use compress::Compressed;

/// Where the files of a site are.
#[derive(Debug)]
pub enum Source {
    Folder(PathBuf),
    /// A bucket that is public; its name.
    Bucket(String),
}

/// A web site.
#[derive(Debug)]
pub struct Site {
    source: Source,
    compressed: Compressed,
}

/// A file, of which nothing is read yet.
struct File {
    size_bytes: u64,
    modified: SystemTime,
    /// With its quotes.
    etag: String,
    media_type: String,
    place: Place,
}

enum Place {
    Folder(PathBuf),
    Object(Arc<ntier_storage::Object>),
}

/// What a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Encodings {
    brotli: bool,
    gzip: bool,
}

/// Text is compressed on the way up to so many bytes; more comes as it is, or as it was compressed beforehand.
const COMPRESSIBLE: u64 = 4 << 20;
/// Less is not worth it.
const SMALL: u64 = 1 << 10;

impl Site {
    pub fn new(source: Source) -> Self {
        Self { source, compressed: Compressed::default() }
    }

    /// Answers a read; `None` where there is nothing, not even a page that says so.
    pub async fn answer(
        &self,
        storage: Option<&Storage>,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Option<Response<Body>> {
        let wanted = steps(path)?;
        let file = self.file(storage, &wanted).await;
        if let Some((name, file)) = file {
            // Relative links of a folder's page are meant within the folder.
            if name != wanted && name.ends_with("index.html") && !path.ends_with('/') {
                return Some(redirect(path));
            }
            return self.give(storage, method, &name, file, headers, StatusCode::OK).await;
        }
        if let Some(file) = self.find(storage, "404.html").await {
            return self.give(storage, method, "404.html", file, headers, StatusCode::NOT_FOUND).await;
        }
        let accepts = text(headers, &header::ACCEPT).unwrap_or_default();
        let last = wanted.rsplit('/').next().unwrap_or_default();
        if !accepts.contains("text/html") || last.contains('.') {
            return None;
        }
        let file = self.find(storage, "index.html").await?;
        self.give(storage, method, "index.html", file, headers, StatusCode::OK).await
    }

    /// The file that a path means, and its name.
    async fn file(&self, storage: Option<&Storage>, wanted: &str) -> Option<(String, File)> {
        let wanted = wanted.trim_end_matches('/');
        let index = if wanted.is_empty() { "index.html".to_owned() } else { format!("{wanted}/index.html") };
        for name in [wanted.to_owned(), index, format!("{wanted}.html")] {
            if !name.is_empty()
                && let Some(file) = self.find(storage, &name).await
            {
                return Some((name, file));
            }
        }
        None
    }

    async fn find(&self, storage: Option<&Storage>, name: &str) -> Option<File> {
        match &self.source {
            Source::Folder(folder) => folder::find(folder, name).await,
            Source::Bucket(bucket) => {
                let object = storage?.public_object(bucket, name).await.ok()??;
                Some(File {
                    size_bytes: object.metadata.size_bytes,
                    modified: object.metadata.modified.unwrap_or(SystemTime::UNIX_EPOCH),
                    etag: object.metadata.etag.clone(),
                    media_type: object.metadata.media_type.clone(),
                    place: Place::Object(object),
                })
            }
        }
    }

    async fn give(
        &self,
        storage: Option<&Storage>,
        method: &Method,
        name: &str,
        file: File,
        headers: &HeaderMap,
        status: StatusCode,
    ) -> Option<Response<Body>> {
        let media_type = file.media_type.clone();
        let encodings = Encodings::of(text(headers, &header::ACCEPT_ENCODING).unwrap_or_default());
        let mut response = Response::new(ntier_storage::full(Bytes::new()));
        *response.status_mut() = status;
        set(response.headers_mut(), header::CONTENT_TYPE, &media_type);
        set(response.headers_mut(), header::CACHE_CONTROL, cache_control(name));
        let is_text = compress::is_text(&media_type);
        if is_text {
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        let (file, encoding) = match self.beforehand(storage, name, encodings).await {
            Some((better, encoding)) => (better, Some(encoding)),
            None => (file, None),
        };
        let compress =
            encoding.is_none() && is_text && encodings.gzip && (SMALL..=COMPRESSIBLE).contains(&file.size_bytes);
        let etag = if compress { format!("{}-gz\"", file.etag.trim_end_matches('"')) } else { file.etag.clone() };
        set(response.headers_mut(), header::ETAG, &etag);
        set(response.headers_mut(), header::LAST_MODIFIED, &httpdate::fmt_http_date(file.modified));
        if let Some(encoding) = encoding.or(compress.then_some("gzip")) {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        let conditions = Conditions {
            if_none_match: text(headers, &header::IF_NONE_MATCH),
            if_modified_since: text(headers, &header::IF_MODIFIED_SINCE),
            if_range: text(headers, &header::IF_RANGE),
            ..Conditions::default()
        };
        if status == StatusCode::OK && conditions.decide(&etag, file.modified) == Verdict::NotModified {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Some(response);
        }
        if compress {
            let whole = read(storage, &file, 0..file.size_bytes).await?;
            let bytes = self.compressed.gzip(&format!("{name} {etag}"), whole).await?;
            response.headers_mut().insert(header::CONTENT_LENGTH, bytes.len().into());
            if method != Method::HEAD {
                *response.body_mut() = ntier_storage::full(bytes);
            }
            return Some(response);
        }
        response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let size = file.size_bytes;
        let asked = text(headers, &header::RANGE).filter(|_| conditions.allow_range(&etag, file.modified));
        let part = match range::parse(asked.filter(|_| status == StatusCode::OK && method == Method::GET), size) {
            Wanted::Parts(parts) if parts.len() == 1 => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let part = parts[0].clone();
                let said = format!("bytes {}-{}/{size}", part.start, part.end - 1);
                set(response.headers_mut(), header::CONTENT_RANGE, &said);
                part
            }
            Wanted::Unsatisfiable => {
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                set(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{size}"));
                return Some(response);
            }
            // Several parts of a page are nobody's wish.
            Wanted::Whole | Wanted::Parts(_) => 0..size,
        };
        response.headers_mut().insert(header::CONTENT_LENGTH, (part.end - part.start).into());
        if method != Method::HEAD && part.start < part.end {
            *response.body_mut() = open(storage, &file, part).await?;
        }
        Some(response)
    }

    /// The file as it was compressed beforehand.
    async fn beforehand(
        &self,
        storage: Option<&Storage>,
        name: &str,
        encodings: Encodings,
    ) -> Option<(File, &'static str)> {
        for (taken, ending, encoding) in [(encodings.brotli, "br", "br"), (encodings.gzip, "gz", "gzip")] {
            if taken && let Some(file) = self.find(storage, &format!("{name}.{ending}")).await {
                return Some((file, encoding));
            }
        }
        None
    }
}

async fn open(storage: Option<&Storage>, file: &File, range: std::ops::Range<u64>) -> Option<Body> {
    match &file.place {
        Place::Folder(path) => folder::open(path, range).await.ok(),
        Place::Object(object) => storage?.stream(object, range).await.ok(),
    }
}

async fn read(storage: Option<&Storage>, file: &File, range: std::ops::Range<u64>) -> Option<Bytes> {
    use http_body_util::BodyExt;
    let body = open(storage, file, range).await?;
    body.collect().await.ok().map(http_body_util::Collected::to_bytes)
}

impl Encodings {
    fn of(accepts: &str) -> Self {
        let takes = |name: &str| {
            accepts.split(',').any(|one| {
                let (coding, quality) = one.split_once(';').unwrap_or((one, ""));
                let refused = quality.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32));
                coding.trim().eq_ignore_ascii_case(name) && !refused
            })
        };
        Self { brotli: takes("br"), gzip: takes("gzip") }
    }
}

/// The path as a name, decoded; `None` for what tries to leave the site, and for hidden files.
fn steps(path: &str) -> Option<String> {
    let decoded = percent_decode_str(path).decode_utf8().ok()?;
    let name = decoded.trim_start_matches('/');
    if name.contains(['\0', '\\']) || path.to_ascii_lowercase().contains("%2f") {
        return None;
    }
    let inner = name.trim_end_matches('/');
    let is_plain = inner.is_empty()
        || inner.split('/').all(|step| !step.is_empty() && (!step.starts_with('.') || step == ".well-known"));
    is_plain.then(|| name.to_owned())
}

/// A name with a hash in it never means anything else.
fn cache_control(name: &str) -> &'static str {
    let file = name.rsplit('/').next().unwrap_or_default();
    let stem = file.rsplit_once('.').map_or("", |(stem, _)| stem);
    let has_hash = stem.rsplit(['.', '-', '_']).next().is_some_and(|last| {
        let digits = last.bytes().filter(u8::is_ascii_digit).count();
        let letters = last.bytes().filter(u8::is_ascii_alphabetic).count();
        last.len() != stem.len() && last.len() >= 8 && digits + letters == last.len() && digits > 0 && letters > 0
    });
    if has_hash { "public, max-age=31536000, immutable" } else { "no-cache" }
}

fn redirect(path: &str) -> Response<Body> {
    let mut response = Response::new(ntier_storage::full(Bytes::new()));
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    // A path that begins with two slashes would name another host.
    set(response.headers_mut(), header::LOCATION, &format!("/{}/", path.trim_start_matches('/')));
    response
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_the_site_is_named() {
        for (path, expected) in [
            ("/", Some("")),
            ("/a/b.js", Some("a/b.js")),
            ("/a%20b.html", Some("a b.html")),
            ("/docs/", Some("docs/")),
            ("/.well-known/security.txt", Some(".well-known/security.txt")),
            ("/../secret", None),
            ("/a/%2e%2e/secret", None),
            ("/a%2fb", None),
            ("/.env", None),
            ("/a/.git/config", None),
            ("/a%00b", None),
            ("/..%5csecret", None),
            ("//a//b", None),
        ] {
            assert_eq!(steps(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn names_with_hashes_are_kept_for_good() {
        for (name, forever) in [
            ("assets/index-BxH3k2j9.js", true),
            ("main.3f2a1b9c.css", true),
            ("index.html", false),
            ("logo-large.png", false),
            ("report-20261121.pdf", false),
            ("jquery-3.7.1.js", false),
            ("3f2a1b9c.js", false),
        ] {
            assert_eq!(cache_control(name) != "no-cache", forever, "{name}");
        }
    }

    #[test]
    fn encodings_are_those_that_are_taken() {
        for (accepts, brotli, gzip) in [
            ("gzip, deflate, br", true, true),
            ("gzip;q=0, br;q=0.5", true, false),
            ("identity", false, false),
            ("", false, false),
        ] {
            assert_eq!(Encodings::of(accepts), Encodings { brotli, gzip }, "{accepts}");
        }
    }
}
