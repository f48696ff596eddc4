//! TLS to the database, with certificates checked as libpq's `sslmode` means it.
//!
//! `prefer` and `require` encrypt and check nothing about who answers; `verify-ca` checks the chain; `verify-full` the
//! chain and the host name. Source: PostgreSQL documentation, "SSL Support: Protection Provided in Different Modes".

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Error;
use super::stream::Stream;
use super::url::{Address, SslMode};

pub async fn wrap(tcp: TcpStream, name: &str, address: &Address) -> Result<Stream, Error> {
    let config = config(address)?;
    let name = ServerName::try_from(name.to_owned()).map_err(|cause| refused(&cause))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|cause| refused(&cause))?;
    Ok(Stream::Tls(Box::new(stream)))
}

fn config(address: &Address) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|cause| refused(&cause))?;
    Ok(match address.tls {
        SslMode::VerifyFull => builder.with_root_certificates(roots(address)?).with_no_client_auth(),
        SslMode::VerifyCa => {
            let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(address)?), provider.clone())
                .build()
                .map_err(|cause| refused(&cause))?;
            let verifier = Lenient { chain: Some(chain), provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
        SslMode::Disable | SslMode::Prefer | SslMode::Require => {
            let verifier = Lenient { chain: None, provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
    })
}

fn roots(address: &Address) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    match &address.root_certificate {
        Some(path) => {
            let certificates = CertificateDer::pem_file_iter(path).map_err(|cause| refused(&cause))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|cause| refused(&cause))?;
                roots.add(certificate).map_err(|cause| refused(&cause))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(Error::Unavailable("there is no root certificate to verify the database server with".into()));
    }
    Ok(roots)
}

/// Checks the chain but not the name (`verify-ca`), or neither (`prefer`, `require`).
#[derive(Debug)]
struct Lenient {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        match chain.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // The chain is checked before the name, so these mean that only the name differs.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn refused(cause: &dyn std::fmt::Display) -> Error {
    Error::Unavailable(format!("TLS with the database failed: {cause}"))
}
