//! TLS to the database, with certificates checked as libpq's `sslmode` means it.
//!
//! `prefer` and `require` encrypt and check nothing about who answers; `verify-ca` checks the chain; `verify-full` the
//! chain and the host name. Source: PostgreSQL documentation, "SSL Support: Protection Provided in Different Modes".

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
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
    let verifier = match address.tls {
        SslMode::VerifyFull | SslMode::VerifyCa => {
            let trusted = trusted(address)?;
            let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(&trusted)?), provider.clone())
                .build()
                .map_err(|cause| refused(&cause))?;
            Verifier { checks: Some(Checks { trusted, chain, name: address.tls == SslMode::VerifyFull }), provider }
        }
        SslMode::Disable | SslMode::Prefer | SslMode::Require => Verifier { checks: None, provider },
    };
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

/// The certificates that may sign: those of the file, or the machine's own.
fn trusted(address: &Address) -> Result<Vec<CertificateDer<'static>>, Error> {
    let trusted = match &address.root_certificate {
        Some(path) => {
            let list = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
            list.map_err(|cause| Error::Unavailable(format!("cannot read {}: {cause}", path.display())))?
        }
        None => rustls_native_certs::load_native_certs().certs,
    };
    if trusted.is_empty() {
        return Err(Error::Unavailable("there is no root certificate to verify the database server with".into()));
    }
    Ok(trusted)
}

fn roots(trusted: &[CertificateDer<'static>]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted.iter().cloned());
    if roots.is_empty() { Err(refused(&"no root certificate can be understood")) } else { Ok(roots) }
}

/// Checks what the mode asks for; `prefer` and `require` ask for nothing.
#[derive(Debug)]
struct Verifier {
    checks: Option<Checks>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
struct Checks {
    trusted: Vec<CertificateDer<'static>>,
    chain: Arc<WebPkiServerVerifier>,
    /// Whether the name has to be right too.
    name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(checks) = &self.checks else {
            return Ok(ServerCertVerified::assertion());
        };
        // A self-signed certificate that the user trusts by itself, as PostgreSQL's manual makes one: it is marked as
        // an authority, which WebPKI does not let serve and OpenSSL does.
        if checks.trusted.iter().any(|trusted| trusted == end_entity) {
            if checks.name {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match checks.chain.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // The chain is checked before the name, so these mean that only the name differs.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !checks.name => Ok(ServerCertVerified::assertion()),
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
