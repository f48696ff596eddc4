//! One server: routes, identity, limits, observation. It holds no state that outlives a request.
//!
//! [`Node::answer`] is a request's way through; [`serve`] gives it sockets. What is absent: TLS (the balancer's)
//! and every rule about data (PostgreSQL's).

mod admin;
mod backend;
mod basic;
mod cookies;
mod cors;
mod data_api;
mod guard;
mod identify;
mod listen;
mod observe;
mod sendfile;
mod site;
mod stream;
mod target;
mod websocket;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use ntier_realtime::Realtime;
use ntier_storage::Body;

pub use admin::Admin;
pub use backend::{Backend, Page};
pub use data_api::{DataApi, Front};
pub use listen::{Connector, Listeners, Place, bind, bind_process, bind_unix, serve};
pub use observe::{Log, Observation};
pub use site::{Site, Source};
pub use stream::Pace;

/// One server.
#[derive(Debug)]
pub struct Node {
    pub service: Service,
    pub limits: Limits,
    pub log: Log,
}

/// What is served.
#[derive(Debug)]
pub enum Service {
    /// Everything that Supabase's clients ask for.
    Backend(Box<Backend>),
    /// The data API alone, as PostgREST serves it.
    DataApi(DataApi),
    /// What an operator asks of the data API.
    Admin(Admin),
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
    /// For a body that passes through: a file.
    pub pace: Pace,
    /// Open connections per worker; more wait to be accepted.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 10 << 20,
            header_time: Duration::from_secs(10),
            body_time: Duration::from_mins(1),
            pace: Pace { pause: Duration::from_secs(30), rate: 1000 },
            connections: 10_000,
        }
    }
}

impl Node {
    /// Answers a request whose body has been read.
    pub async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        let asked = Asked::of(&request);
        let response = match &self.service {
            Service::Backend(backend) => backend.answer(request).await,
            Service::DataApi(api) => api.answer(request).await,
            Service::Admin(admin) => admin.answer(request).await,
        };
        self.answered(asked, response)
    }

    /// Who takes a websocket with this path.
    fn realtime(&self, path: &str) -> Option<&Arc<Realtime>> {
        match &self.service {
            Service::Backend(backend) if path.strip_suffix('/').unwrap_or(path) == "/realtime/v1/websocket" => {
                backend.realtime.as_ref()
            }
            _ => None,
        }
    }

    /// Whether bodies of requests with this path pass through, rather than being read first.
    pub fn streams(&self, path: &str) -> bool {
        matches!(&self.service, Service::Backend(backend) if backend.streams(path))
    }

    /// Answers a request whose body is on its way.
    pub async fn stream(&self, request: Request<Body>) -> Response<Body> {
        let asked = Asked::of(&request);
        let response = match &self.service {
            Service::Backend(backend) => backend.stream(request).await,
            Service::DataApi(_) | Service::Admin(_) => not_found().map(ntier_storage::full),
        };
        self.answered(asked, response)
    }

    fn answered<B>(&self, asked: Asked, mut response: Response<B>) -> Response<B> {
        self.learn(&asked, &mut response);
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let cause = response.extensions_mut().remove::<ntier_storage::Cause>();
        self.log.observe(&Observation::Answered {
            method: asked.method.as_str(),
            path: asked.uri.path(),
            status: response.status().as_u16(),
            cause: cause.as_ref().map(|cause| cause.0.as_str()),
            took: asked.begun.elapsed(),
        });
        response
    }
}

/// What is told of a request once it is answered.
struct Asked {
    begun: Instant,
    method: Method,
    uri: Uri,
    client: Option<guard::Client>,
}

impl Asked {
    fn of<B>(request: &Request<B>) -> Self {
        Self {
            begun: Instant::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            client: request.extensions().get().copied(),
        }
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
