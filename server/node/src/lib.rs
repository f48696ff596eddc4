//! One server: routes, identity, limits, observation. It holds no state that outlives a request.
//!
//! [`Node::answer`] is a request's way through; [`serve`] gives it sockets. What is absent: TLS (the balancer's)
//! and every rule about data (PostgreSQL's).

mod admin;
mod backend;
mod cookies;
mod cors;
mod data_api;
mod files;
mod identify;
mod listen;
mod observe;
mod target;

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};

pub use admin::Admin;
pub use backend::{Backend, Page};
pub use data_api::{DataApi, Front};
pub use listen::{Listeners, Place, bind, bind_unix, serve};
pub use observe::{Log, Observation};

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
        let mut response = match &self.service {
            Service::Backend(backend) => backend.answer(request).await,
            Service::DataApi(api) => api.answer(request).await,
            Service::Admin(admin) => admin.answer(request).await,
        };
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        self.log.observe(&Observation::Answered {
            method: method.as_str(),
            path: &path,
            status: response.status().as_u16(),
            took: begun.elapsed(),
        });
        response
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
