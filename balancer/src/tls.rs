//! TLS towards clients: 1.2 and 1.3, with a certificate of files that may change while it runs, or with such as are issued meanwhile.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::issued::{Certificate, PROOF, Told, Unusable};

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// PEM: the server's own first, then those that vouch for it.
    pub certificate: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {cause}", path.display())]
    Read { path: PathBuf, cause: rustls_pki_types::pem::Error },
    #[error("{} has no certificate", .0.display())]
    Empty(PathBuf),
    #[error("certificate and key cannot be used: {0}")]
    Unusable(#[from] Unusable),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// When files were written, and how long they are: another value, other files.
pub type State = [Option<(SystemTime, u64)>; 2];

impl Files {
    pub fn state(&self) -> State {
        [&self.certificate, &self.key].map(|path| {
            let metadata = path.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }
}

/// What the files hold.
pub(crate) fn read(files: &Files) -> Result<Certificate, Error> {
    let fault = |path: &PathBuf| {
        let path = path.clone();
        move |cause| Error::Read { path, cause }
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(fault(&files.certificate))?;
    if chain.is_empty() {
        return Err(Error::Empty(files.certificate.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(fault(&files.key))?;
    Ok(Certificate::new(chain, key)?)
}

/// What clients are spoken to with: the certificate of files, those that are issued while it runs, or both.
pub(crate) fn config(own: Option<Certificate>, issued: Option<Told>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut provider = aws_lc_rs::default_provider();
    // AES-128 with SHA-256, which processors have instructions for; half a handshake would else go to SHA-384. Others are there for
    // clients that know nothing else.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let mut protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if issued.is_some() {
        protocols.push(PROOF.to_vec());
    }
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Names { own, issued }));
    config.alpn_protocols = protocols;
    config.ignore_client_order = true;
    // A client that comes back need not agree on keys anew, whichever worker it meets.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// Which certificate is shown.
#[derive(Debug)]
struct Names {
    own: Option<Certificate>,
    issued: Option<Told>,
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let Some(issued) = &self.issued else { return self.own.as_ref().map(|own| own.0.clone()) };
        let issued = issued.borrow().clone();
        let name = hello.server_name().map(str::to_ascii_lowercase);
        // An authority names this protocol alone (RFC 8737, 3); with it nothing else is said.
        let is_proof = hello.alpn().is_some_and(|mut protocols| protocols.all(|protocol| protocol == PROOF));
        let shown = if is_proof {
            issued.proofs.get(name.as_deref()?).cloned()
        } else {
            issued.shown(name.as_deref(), self.own.as_ref())
        };
        shown.map(|certificate| certificate.0)
    }
}
