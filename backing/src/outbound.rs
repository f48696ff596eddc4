//! Requests to services of others: identity providers, senders of messages, hooks.
//!
//! Nobody is followed elsewhere (a redirect is an answer), nobody may take long or answer at length, and no connection is kept: such
//! requests are rare, and whoever is asked must not decide how we fare.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// From the name's look-up to the last byte.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer, usually.
const LONGEST: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("there are no root certificates: {0}")]
    Roots(std::io::Error),
    #[error("{} has no root certificates: {cause}", path.display())]
    Root { path: PathBuf, cause: String },
    #[error("{host} cannot be reached: {cause}")]
    Unreachable { host: String, cause: String },
    #[error("{0} did not answer in time")]
    Late(String),
    #[error("{host} breaks off or says too much: {cause}")]
    Answer { host: String, cause: String },
}

/// Asks others.
#[derive(Debug)]
pub struct Outbound {
    /// PEM: those who are believed instead of whom this machine believes.
    roots: Option<PathBuf>,
    /// Made when it is needed first: most nodes never ask anybody, and the root certificates take memory.
    client: OnceLock<Client<HttpsConnector<HttpConnector>, Full<Bytes>>>,
    /// Bytes of an answer.
    longest: usize,
}

impl Default for Outbound {
    fn default() -> Self {
        Self::with_longest(LONGEST)
    }
}

impl Outbound {
    pub fn new() -> Self {
        Self::default()
    }

    /// For answers of so many bytes at most.
    pub fn with_longest(longest: usize) -> Self {
        Self { roots: None, client: OnceLock::new(), longest }
    }

    /// Believes those of this file, as PEM, and nobody else.
    pub fn believing(roots: PathBuf) -> Self {
        Self { roots: Some(roots), ..Self::default() }
    }

    /// Sends the request, whose URI is absolute, over TLS where it says `https`.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Fault> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let client = self.client()?;
        let whole = async {
            let unreachable = |cause: hyper_util::client::legacy::Error| {
                let cause = std::error::Error::source(&cause).map_or_else(|| cause.to_string(), ToString::to_string);
                Fault::Unreachable { host: host.clone(), cause }
            };
            let response = client.request(request.map(Full::new)).await.map_err(unreachable)?;
            let (parts, body) = response.into_parts();
            let read = Limited::new(body, self.longest).collect().await;
            let body = read.map_err(|cause| Fault::Answer { host: host.clone(), cause: cause.to_string() })?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        tokio::time::timeout(PATIENCE, whole).await.map_err(|_| Fault::Late(host.clone()))?
    }

    fn client(&self) -> Result<&Client<HttpsConnector<HttpConnector>, Full<Bytes>>, Fault> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let connector = hyper_rustls::HttpsConnectorBuilder::new();
        let connector = match &self.roots {
            Some(path) => connector.with_tls_config(believing(path)?),
            None => connector.with_provider_and_native_roots(aws_lc_rs::default_provider()).map_err(Fault::Roots)?,
        };
        let connector = connector.https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(self.client.get_or_init(|| client))
    }
}

fn believing(path: &Path) -> Result<ClientConfig, Fault> {
    let fault = |cause: String| Fault::Root { path: path.to_owned(), cause };
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(path).map_err(|cause| fault(cause.to_string()))? {
        let root = root.map_err(|cause| fault(cause.to_string()))?;
        roots.add(root).map_err(|cause| fault(cause.to_string()))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|cause| fault(cause.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Whether secrets may travel to this address: it is reached over TLS, or is this very machine.
pub fn is_private(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => true,
        (Some("http"), Some(host)) => is_this_machine(host),
        _ => false,
    }
}

/// Whether a host is this very machine.
pub fn is_this_machine(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_travel_over_tls_or_not_at_all() {
        for (url, expected) in [
            ("https://example.com/a", true),
            ("http://127.0.0.1:8080", true),
            ("http://localhost", true),
            ("http://[::1]:80/", true),
            ("http://example.com", false),
            ("http://127.0.0.1.example.com", false),
            ("ftp://localhost", false),
            ("example.com", false),
            ("", false),
        ] {
            assert_eq!(is_private(url), expected, "{url}");
        }
    }
}
