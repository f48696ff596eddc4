//! Certificates that come while it runs, each for a name, and what an authority asks before it issues one (RFC 8555, RFC 8737).

use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

/// The protocol of a handshake that only proves whose name it is (RFC 8737, 6.1).
pub(crate) const PROOF: &[u8] = b"acme-tls/1";
/// Where an authority asks over plain HTTP; a token follows (RFC 8555, 8.3).
pub(crate) const ASKED: &str = "/.well-known/acme-challenge/";

/// Who tells of them, while it runs.
pub type Told = watch::Receiver<Arc<Issued>>;

/// What there is now. Names are in lower case.
#[derive(Debug, Clone, Default)]
pub struct Issued {
    pub certificates: HashMap<String, Certificate>,
    /// Of whoever does not say which name is meant.
    pub first: Option<Certificate>,
    /// By token, what is answered over HTTP.
    pub answers: HashMap<String, String>,
    /// By name, what is shown in a handshake that only proves it.
    pub proofs: HashMap<String, Certificate>,
}

/// A certificate, those that vouch for it, and its key.
#[derive(Debug, Clone)]
pub struct Certificate(pub(crate) Arc<CertifiedKey>);

#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("it is not PEM: {0}")]
    Pem(#[from] rustls_pki_types::pem::Error),
    #[error("there is no certificate in it")]
    Empty,
    #[error(transparent)]
    Key(#[from] rustls::Error),
}

impl Certificate {
    /// From PEM, the server's own certificate first. A key that is not the certificate's is refused.
    pub fn read(chain: &str, key: &str) -> Result<Self, Unusable> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>()?;
        Self::new(chain, PrivateKeyDer::from_pem_slice(key.as_bytes())?)
    }

    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, Unusable> {
        if chain.is_empty() {
            return Err(Unusable::Empty);
        }
        Ok(Self(Arc::new(CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())?)))
    }

    /// One that was just made of this key, so that it need not be looked into: what proves a name has an extension that verifiers of
    /// ordinary certificates refuse, and must (RFC 8737, 3).
    pub fn made(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> Result<Self, Unusable> {
        let key = aws_lc_rs::default_provider().key_provider.load_private_key(key)?;
        Ok(Self(Arc::new(CertifiedKey::new(vec![certificate], key))))
    }
}

impl Issued {
    /// What is shown to whoever means this name, and `own` where there is none of that name.
    pub(crate) fn shown(&self, name: Option<&str>, own: Option<&Certificate>) -> Option<Certificate> {
        let named = name.and_then(|name| self.certificates.get(name));
        let otherwise = || if name.is_none() { self.first.as_ref() } else { None };
        named.or(own).or_else(otherwise).cloned()
    }

    /// What is answered where an authority asks at this path.
    pub(crate) fn answer(&self, path: &str) -> Option<&str> {
        self.answers.get(path.strip_prefix(ASKED)?).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> Certificate {
        let made = std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "2", "-subj", "/CN=localhost", "-keyout", "-", "-out", "-"])
            .output()
            .expect("openssl is there");
        let text = String::from_utf8(made.stdout).unwrap();
        Certificate::read(&text, &text).unwrap()
    }

    #[test]
    fn each_name_has_its_certificate() {
        let [one, own] = [certificate(), certificate()];
        let certificates = HashMap::from([("a.example".to_owned(), one.clone())]);
        let issued = Issued { certificates, first: Some(one.clone()), ..Issued::default() };
        let same = |a: &Certificate, b: &Certificate| Arc::ptr_eq(&a.0, &b.0);
        for (name, has_own, expected) in [
            (Some("a.example"), true, Some(&one)),
            (Some("a.example"), false, Some(&one)),
            (Some("b.example"), true, Some(&own)),
            (Some("b.example"), false, None),
            (None, true, Some(&own)),
            (None, false, Some(&one)),
        ] {
            let found = issued.shown(name, has_own.then_some(&own));
            let fits = match (&found, expected) {
                (Some(found), Some(expected)) => same(found, expected),
                (found, expected) => found.is_none() && expected.is_none(),
            };
            assert!(fits, "{name:?} {has_own}");
        }
    }

    #[test]
    fn only_tokens_that_are_known_are_answered() {
        let answers = HashMap::from([("token".to_owned(), "token.thumbprint".to_owned())]);
        let issued = Issued { answers, ..Issued::default() };
        for (path, expected) in [
            ("/.well-known/acme-challenge/token", Some("token.thumbprint")),
            ("/.well-known/acme-challenge/other", None),
            ("/.well-known/acme-challenge/", None),
            ("/token", None),
        ] {
            assert_eq!(issued.answer(path), expected, "{path}");
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let chain = certificate().0.cert.clone();
        assert!(matches!(Certificate::new(chain, key()), Err(Unusable::Key(_))));
        assert!(matches!(Certificate::read("", ""), Err(Unusable::Pem(_) | Unusable::Empty)));
    }

    fn key() -> PrivateKeyDer<'static> {
        let made = std::process::Command::new("openssl")
            .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .output()
            .expect("openssl is there");
        PrivateKeyDer::from_pem_slice(&made.stdout).unwrap()
    }
}
