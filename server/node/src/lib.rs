//! One server: routes, identity, limits, observation. It holds no state that outlives a request.
//!
//! [`Node::answer`] is a request's way through; [`serve`] gives it sockets. What is absent: TLS (the balancer's)
//! and every rule about data (PostgreSQL's).

mod cors;
mod files;
mod identify;
mod listen;
mod observe;
mod target;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use ntier_backing::database::{Access, Batch, End, Statement};
use ntier_rest::Rest;
use ntier_security::caller::Doorkeeper;

pub use listen::{Listeners, bind, serve};
pub use observe::{Log, Observation};

/// What one server is made of.
#[derive(Debug)]
pub struct Node {
    pub rest: Arc<Rest>,
    pub doorkeeper: Doorkeeper,
    /// The public keys, as `/auth/v1/.well-known/jwks.json` gives them.
    pub jwks: String,
    pub limits: Limits,
    /// A folder to serve at `/`, for `ntier dev`.
    pub files: Option<PathBuf>,
    /// What is served besides; a page goes before a file.
    pub pages: Vec<Page>,
    pub log: Log,
}

/// A text that the node itself has, such as the page for a first visitor.
#[derive(Debug, Clone)]
pub struct Page {
    /// Whole, with its slash.
    pub path: &'static str,
    pub media_type: &'static str,
    pub body: Bytes,
}

/// What one client may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of a request to the data API.
    pub body_bytes: usize,
    /// From the first byte of a request to the last of its headers.
    pub header_time: Duration,
    /// For the whole body.
    pub body_time: Duration,
    /// Open connections per worker; more wait to be accepted.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 10 << 20,
            header_time: Duration::from_secs(10),
            body_time: Duration::from_mins(1),
            connections: 10_000,
        }
    }
}

impl Node {
    /// Answers a request whose body has been read.
    pub async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        let begun = Instant::now();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let preflight = cors::is_preflight(&request).then(|| cors::preflight(&request));
        let mut response = match preflight {
            Some(response) => response,
            None => self.route(request).await,
        };
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        cors::expose(headers);
        self.log.observe(&Observation::Answered {
            method: method.as_str(),
            path: &path,
            status: response.status().as_u16(),
            took: begun.elapsed(),
        });
        response
    }

    async fn route(&self, request: Request<Bytes>) -> Response<Bytes> {
        let path = request.uri().path();
        if let Some(rest) = behind(path, "/rest/v1") {
            let rest = rest.to_owned();
            return self.data(request, &rest).await;
        }
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        match path {
            "/health" | "/auth/v1/health" if get => json(StatusCode::OK, r#"{"name":"ntier","status":"ok"}"#.into()),
            "/ready" if get => self.ready().await,
            "/auth/v1/.well-known/jwks.json" if get => json(StatusCode::OK, self.jwks.clone()),
            _ if !get => not_found(),
            _ => match (self.pages.iter().find(|page| page.path == path), &self.files) {
                (Some(page), _) => page.response(),
                (None, Some(folder)) => files::serve(folder, path, request.headers()).await,
                (None, None) => not_found(),
            },
        }
    }

    /// The data API.
    async fn data(&self, request: Request<Bytes>, path: &str) -> Response<Bytes> {
        let caller = match identify::caller(&self.doorkeeper, request.headers()) {
            Ok(caller) => caller,
            Err(refusal) => return identify::refuse(&refusal),
        };
        if path == "/" && caller.role != "service_role" && request.method() != Method::OPTIONS {
            return identify::refuse_description();
        }
        let (mut parts, body) = request.into_parts();
        let uri = match parts.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        match uri.parse() {
            Ok(uri) => parts.uri = uri,
            Err(_) => return not_found(),
        }
        ntier_rest::answer(&self.rest, &caller, Request::from_parts(parts, body)).await
    }

    /// Whether the database answers.
    async fn ready(&self) -> Response<Bytes> {
        let batch = Batch {
            session: None,
            statements: vec![Statement { text: "SELECT 1".into(), parameters: Vec::new() }],
            access: Access::ReadOnly,
            end: End::Commit,
            deadline: Duration::from_secs(2),
        };
        match self.rest.database.run(batch).await {
            Ok(_) => json(StatusCode::OK, r#"{"status":"ready"}"#.into()),
            Err(_) => json(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"the database does not answer"}"#.into()),
        }
    }
}

impl Page {
    fn response(&self) -> Response<Bytes> {
        let mut response = Response::new(self.body.clone());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

/// What follows the prefix, if the path is the prefix or below it.
fn behind<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    match path.strip_prefix(prefix)? {
        "" => Some("/"),
        rest if rest.starts_with('/') => Some(rest),
        _ => None,
    }
}

/// A response of JSON text.
fn json(status: StatusCode, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn not_found() -> Response<Bytes> {
    json(StatusCode::NOT_FOUND, r#"{"message":"no Route matched with those values"}"#.into())
}
