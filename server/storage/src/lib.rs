//! Files under `/storage/v1`, as storage-api has them.
//!
//! Who may do what is decided by row level security on `storage.buckets` and `storage.objects`: requests read and write rows as their
//! caller. Bytes are in immutable blobs, named by a row's version alone: written before the row, removed after it. Not here: rules
//! about rights, and any state that outlives a request.

mod body;
mod buckets;
mod dav;
mod declare;
mod download;
mod error;
mod hot;
mod jobs;
mod list;
mod lookup;
mod remove;
mod render;
mod respond;
mod resumable;
pub mod s3;
mod session;
mod sign;
mod store;
mod sweep;
mod transfer;
mod upload;
mod visitor;

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use ntier_backing::blobs::Blobs;
use ntier_backing::database::Database;
use ntier_protocol::storage::error::{Code, Error as Wire};
use ntier_security::caller::Doorkeeper;
use ntier_security::signed_url::Signer;
use tokio::sync::Notify;

pub use body::{Body, full};
pub use declare::{Declared, DeclaredBucket};
pub use error::{Cause, Error};
pub use store::{Metadata, Object};
pub use sweep::{Swept, sweep};

use download::Access;
use hot::Hot;
use lookup::Lookups;
use render::Studio;
use visitor::Visitor;

/// What a project may decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of an object, at most; a bucket may allow less.
    pub file_size_limit: u64,
    /// Bytes that all objects of a user may have together.
    pub user_quota: Option<u64>,
    /// How long a signed URL for an upload is valid, in seconds.
    pub upload_url_seconds: u32,
    /// How long a resumable upload waits for its client to come back, in seconds.
    pub resumable_seconds: u32,
    /// Pictures are made smaller, cut and said in other formats.
    pub images: bool,
    /// How many at the same time.
    pub image_places: usize,
    /// Who can show AVIF is given AVIF, without asking for it.
    pub avif: bool,
    /// File managers are answered (WebDAV).
    pub webdav: bool,
}

impl Default for Settings {
    /// As Supabase has them: 50 MiB, a minute, an hour. One picture at a time.
    fn default() -> Self {
        Self {
            file_size_limit: 50 << 20,
            user_quota: None,
            upload_url_seconds: 60,
            resumable_seconds: 3600,
            images: true,
            image_places: 1,
            avif: false,
            webdav: true,
        }
    }
}

/// The service.
#[derive(Debug)]
pub struct Storage {
    database: Database,
    blobs: Blobs,
    settings: Settings,
    doorkeeper: Arc<Doorkeeper>,
    signer: Signer,
    studio: Studio,
    lookups: Lookups,
    hot: Hot,
    /// There is a job to do.
    jobs: Notify,
    /// `None` where S3 is switched off.
    s3: Option<s3::Credentials>,
}

impl Storage {
    /// `jwt_secret`: signed URLs hang on it.
    pub fn new(
        database: Database,
        blobs: Blobs,
        settings: Settings,
        doorkeeper: Arc<Doorkeeper>,
        jwt_secret: &str,
    ) -> Self {
        let studio = Studio::new(settings.image_places);
        let signer = Signer::new(jwt_secret);
        let (lookups, jobs) = (Lookups::default(), Notify::new());
        let hot = Hot::default();
        Self { database, blobs, settings, doorkeeper, signer, studio, lookups, hot, jobs, s3: None }
    }

    /// Whether file managers are answered, who know no other way to sign in than a password with each request.
    pub fn takes_passwords(&self, path: &str) -> bool {
        self.settings.webdav && (path == "/dav" || path.starts_with("/dav/"))
    }

    /// Takes requests by S3's protocol too.
    pub fn with_s3(self, credentials: s3::Credentials) -> Self {
        Self { s3: Some(credentials), ..self }
    }

    /// Answers a request. `path` is what follows `/storage/v1`, as it came.
    pub async fn answer(&self, path: &str, request: Request<Body>) -> Response<Body> {
        // Keys may have what is no step of a path elsewhere.
        if self.s3.is_some() && (path == "/s3" || path.starts_with("/s3/")) {
            let whole = request.uri().path();
            let root = whole[..whole.len().saturating_sub(path.len())].to_owned() + "/s3";
            return Box::pin(self.answer_s3(&root, request)).await;
        }
        let (parts, body) = request.into_parts();
        let answer = match Visitor::new(parts, path, &self.doorkeeper) {
            Ok(visitor) => match wanted(&visitor) {
                Some((access, bucket, key)) => self.download(&visitor, access, bucket, key).await,
                // The state of all else is large; a download need not carry it.
                None => Box::pin(self.route(&visitor, body)).await,
            },
            Err(error) => Err(error),
        };
        answer.unwrap_or_else(|error| respond::error(&error))
    }

    async fn route(&self, visitor: &Visitor, body: Body) -> Result<Response<Body>, Error> {
        let path: Vec<&str> = visitor.path.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["bucket", rest @ ..] => self.route_bucket(visitor, rest, body).await,
            ["object", ..] => self.route_object(visitor, body).await,
            ["render", "image", rest @ ..] => self.route_render(visitor, rest).await,
            ["job", rest @ ..] => self.route_jobs(visitor, rest, body).await,
            ["upload", "resumable", rest @ ..] => Ok(self.resumable(visitor, rest, body).await),
            ["dav", rest @ ..] if self.settings.webdav => Ok(self.dav(visitor, rest, body).await),
            ["cdn", _, ..] if visitor.method == Method::DELETE => purge(visitor),
            ["status" | "health" | "version"] if visitor.method == Method::GET => Ok(respond::status(StatusCode::OK)),
            _ => Ok(respond::not_found()),
        }
    }

    async fn route_bucket(&self, visitor: &Visitor, path: &[&str], body: Body) -> Result<Response<Body>, Error> {
        match (&visitor.method, path) {
            (&Method::GET, [] | [""]) => self.list_buckets(visitor).await,
            (&Method::POST, [] | [""]) => self.create_bucket(visitor, body).await,
            (&Method::GET, [id]) => self.get_bucket(visitor, id).await,
            (&Method::PUT, [id]) => self.update_bucket(visitor, id, body).await,
            (&Method::DELETE, [id]) => self.delete_bucket(visitor, id).await,
            (&Method::POST, [id, "empty"]) => self.empty_bucket(visitor, id).await,
            _ => Ok(respond::not_found()),
        }
    }

    /// The words of the API come before names: a bucket called `public` is reached by `authenticated/public/…`.
    async fn route_object(&self, visitor: &Visitor, body: Body) -> Result<Response<Body>, Error> {
        let path: Vec<&str> = visitor.path.iter().map(String::as_str).collect();
        let key = |from: usize| &visitor.path[from.min(visitor.path.len())..];
        let rest = path.get(1..).unwrap_or_default();
        match (&visitor.method, rest) {
            (&Method::GET, ["info", "public", bucket, _, ..]) => {
                self.info(visitor, Access::Public, bucket, key(4)).await
            }
            (&Method::GET, ["info", "authenticated", bucket, _, ..]) => {
                self.info(visitor, Access::Caller, bucket, key(4)).await
            }
            (&Method::GET, ["info", bucket, _, ..]) => self.info(visitor, Access::CallerIfAny, bucket, key(3)).await,
            (&Method::GET | &Method::HEAD, ["sign", bucket, _, ..]) => {
                self.download_signed(visitor, bucket, key(3)).await
            }
            (&Method::POST, ["sign", bucket]) => self.sign_urls(visitor, bucket, body).await,
            (&Method::POST, ["sign", bucket, _, ..]) => self.sign_url(visitor, bucket, key(3), body).await,
            (&Method::POST, ["upload", "sign", bucket, _, ..]) => self.sign_upload(visitor, bucket, key(4)).await,
            (&Method::PUT, ["upload", "sign", bucket, _, ..]) => {
                self.upload_signed(visitor, bucket, key(4), body).await
            }
            (&Method::POST, ["list", bucket]) => self.list(visitor, bucket, body).await,
            (&Method::POST, ["list-v2", bucket]) => self.list_v2(visitor, bucket, body).await,
            (&Method::POST, ["move"]) => self.move_object(visitor, body).await,
            (&Method::POST, ["copy"]) => self.copy_object(visitor, body).await,
            (&Method::DELETE, [bucket]) => self.remove(visitor, bucket, body).await,
            (&Method::DELETE, [bucket, _, ..]) => self.remove_one(visitor, bucket, key(2)).await,
            (&Method::POST, [bucket, _, ..]) => self.upload(visitor, bucket, key(2), visitor.upsert(), body).await,
            (&Method::PUT, [bucket, _, ..]) => self.upload(visitor, bucket, key(2), true, body).await,
            _ => Ok(respond::not_found()),
        }
    }
}

/// The object that is asked for as it is, if that is what the request is: by which right, its bucket and its name. The words of the API come
/// before names here too.
fn wanted(visitor: &Visitor) -> Option<(Access, &str, &[String])> {
    if !matches!(visitor.method, Method::GET | Method::HEAD) {
        return None;
    }
    let (first, path) = visitor.path.split_first()?;
    let (access, path) = match path.first()?.as_str() {
        _ if first != "object" => return None,
        "sign" if path.len() > 2 => return None,
        "info" if path.len() > 2 && visitor.method == Method::GET => return None,
        "public" if path.len() > 2 => (Access::Public, &path[1..]),
        "authenticated" if path.len() > 2 => (Access::Caller, &path[1..]),
        _ => (Access::CallerIfAny, path),
    };
    let (bucket, key) = path.split_first()?;
    if key.is_empty() { None } else { Some((access, bucket, key)) }
}

/// There is nothing between here and the client that would have to forget.
fn purge(visitor: &Visitor) -> Result<Response<Body>, Error> {
    if visitor.caller()?.role != "service_role" {
        return Err(Wire::new(Code::AccessDenied, "Access denied").into());
    }
    Ok(respond::message("success"))
}
