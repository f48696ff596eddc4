//! The HTTP that S3 is spoken over: our own client, so that there is one TLS and one HTTP in the house.
//!
//! Connections are kept for a while. Nothing waits for ever: neither for a connection, nor for an answer, nor for the next bytes of one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector as Connector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Instant, Sleep, sleep};

/// For a connection to be there.
const CONNECTING: Duration = Duration::from_secs(3);
/// For an answer to begin after the request has been sent, and between two pieces of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a request that are sent in a second at least.
const SLOWEST: u64 = 128 << 10;
/// Shorter than an S3 keeps a connection.
const IDLE: Duration = Duration::from_secs(15);

#[derive(Debug, Clone)]
pub struct Transport(legacy::Client<HttpsConnector<HttpConnector>, HttpRequestBody>);

impl Transport {
    /// With the machine's root certificates if there is TLS; without it there may be none.
    pub fn new(tls: bool) -> io::Result<Self> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECTING));
        let provider = aws_lc_rs::default_provider();
        let connector = if tls {
            HttpsConnectorBuilder::new().with_provider_and_native_roots(provider)?.https_only()
        } else {
            let nobody = ClientConfig::builder_with_provider(Arc::new(provider));
            let nobody = nobody.with_safe_default_protocol_versions().map_err(io::Error::other)?;
            let nobody = nobody.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
            HttpsConnectorBuilder::new().with_tls_config(nobody).https_or_http()
        };
        let connector = connector.enable_http1().wrap_connector(http);
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(Self(client))
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let patience = PATIENCE + Duration::from_secs(request.body().content_length() as u64 / SLOWEST);
        let response = tokio::time::timeout(patience, self.0.request(request)).await;
        let response = response.map_err(|late| HttpError::new(HttpErrorKind::Timeout, late))?;
        // What is not a fault of connecting may be tried again as well: to do the same twice is to do it once here.
        let response = response.map_err(|cause| {
            let kind = if cause.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
            HttpError::new(kind, cause)
        })?;
        Ok(response.map(|body| HttpResponseBody::new(Patient { body: Box::pin(body), waiting: None })))
    }
}

impl Connector for Transport {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for Transport {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.send(request))
    }
}

/// A body that ends with an error when nothing comes. That nobody asks for more is no fault of the S3, so time counts only while
/// somebody does.
struct Patient<B> {
    body: Pin<Box<B>>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static>> Body for Patient<B> {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Poll::Ready(frame) = self.body.as_mut().poll_frame(context) {
            self.waiting = None;
            return Poll::Ready(
                frame.map(|frame| frame.map_err(|cause| HttpError::new(HttpErrorKind::Interrupted, cause))),
            );
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
        if waiting.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        waiting.as_mut().reset(Instant::now() + PATIENCE);
        Poll::Ready(Some(Err(HttpError::new(HttpErrorKind::Timeout, io::Error::from(io::ErrorKind::TimedOut)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
