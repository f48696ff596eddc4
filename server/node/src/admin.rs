//! What an operator asks: whether it lives, whether it can answer, and what it was told.
//!
//! Source: PostgREST, "Admin Server".

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use ntier_backing::database::{Access, Batch, Statement};
use ntier_rest::Rest;

use crate::{json, not_found};

#[derive(Debug)]
pub struct Admin {
    pub rest: Arc<Rest>,
    /// The settings in force as a configuration file would have them, without secrets.
    pub config: Arc<RwLock<String>>,
}

impl Admin {
    pub(crate) async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return not_found();
        }
        match request.uri().path() {
            "/live" => json(StatusCode::OK, String::new()),
            "/ready" if self.rest.current.get().is_some() => ready(&self.rest).await,
            "/ready" => json(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"the schema is not known yet"}"#.into()),
            "/config" => {
                let text = self.config.read().unwrap_or_else(PoisonError::into_inner).clone();
                let mut response = Response::new(Bytes::from(text));
                let plain = HeaderValue::from_static("text/plain; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, plain);
                response
            }
            _ => not_found(),
        }
    }
}

/// Whether the database answers.
pub(crate) async fn ready(rest: &Rest) -> Response<Bytes> {
    let batch = Batch {
        statements: vec![Statement::new("SELECT 1", &[])],
        access: Access::ReadOnly,
        deadline: Duration::from_secs(2),
        ..Batch::default()
    };
    match rest.database.run(batch).await {
        Ok(_) => json(StatusCode::OK, r#"{"status":"ready"}"#.into()),
        Err(_) => json(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"the database does not answer"}"#.into()),
    }
}
