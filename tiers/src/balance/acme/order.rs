//! What is said with the authority: an account, an order, its challenges, the certificate.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType, Error as Fault,
    HttpClient, Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use ntier_backing::outbound::Outbound;
use ntier_balancer::issued::Certificate;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::sleep;
use x509_cert::der::Decode;

use super::store::{Asked, Store};
use super::{Error, KNOWN_TO_ALL, when};
use crate::settings::{Acme, Challenge};

/// How long the authority may take to look at a challenge, and to issue.
const PATIENCE: RetryPolicy = RetryPolicy::new().timeout(Duration::from_mins(2)).backoff(1.5);
/// Of a SHA-256.
const DIGEST_BYTES: usize = 32;

/// Who issues.
#[derive(Debug)]
pub struct Authority {
    directory: String,
    contact: Option<String>,
    outbound: Arc<Outbound>,
}

/// A certificate, and what is to be known of it.
#[derive(Debug)]
pub struct Obtained {
    pub chain: String,
    pub key: String,
    /// Seconds since 1970, like the next.
    pub not_after: i64,
    /// When the next one is asked for.
    pub next: i64,
}

/// Our own HTTP and TLS.
struct Wire(Arc<Outbound>);

impl HttpClient for Wire {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Fault>> + Send>> {
        let outbound = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(|cause| Fault::Other(Box::new(cause)))?.to_bytes();
            let asked = outbound.send(Request::from_parts(parts, body)).await;
            let response = asked.map_err(|cause| Fault::Other(Box::new(cause)))?;
            Ok(BytesResponse::from(response.map(Full::new)))
        })
    }
}

impl Authority {
    pub fn new(acme: &Acme) -> Self {
        let outbound = acme.ca.clone().map_or_else(Outbound::new, Outbound::believing);
        let contact = acme.contact.as_ref().map(|address| format!("mailto:{address}"));
        Self { directory: acme.directory.clone(), contact, outbound: Arc::new(outbound) }
    }

    fn wire(&self) -> Box<dyn HttpClient> {
        Box::new(Wire(self.outbound.clone()))
    }

    /// A new account. Its terms were agreed to: without that nothing is asked for.
    pub async fn register(&self) -> Result<(Account, AccountCredentials), Error> {
        let contact: Vec<&str> = self.contact.iter().map(String::as_str).collect();
        let account = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let builder = Account::builder_with_http(self.wire());
        Ok(builder.create(&account, self.directory.clone(), None).await?)
    }

    pub async fn account(&self, kept: AccountCredentials) -> Result<Account, Error> {
        Ok(Account::builder_with_http(self.wire()).from_credentials(kept).await?)
    }
}

/// Obtains one.
pub async fn certificate(store: &Store, account: &Account, way: Challenge, name: &str) -> Result<Obtained, Error> {
    let identifiers = [Identifier::Dns(name.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    answer(store, &mut order, way, name).await?;
    if order.poll_ready(&PATIENCE).await? != OrderStatus::Ready {
        return Err(Error::Refused(reason(&mut order).await.unwrap_or_else(|| "nothing that it says".into())));
    }
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    order.finalize_csr(params.serialize_request(&key)?.der()).await?;
    let chain = order.poll_certificate(&PATIENCE).await?;
    let (not_before, not_after) = life(&chain)?;
    Ok(Obtained {
        key: key.serialize_pem(),
        not_after,
        next: when::renewal(not_before, not_after, fastrand::f64()),
        chain,
    })
}

/// Sees to it that each balancer answers, then has the authority ask.
async fn answer(store: &Store, order: &mut Order, way: Challenge, name: &str) -> Result<(), Error> {
    let kind = match way {
        Challenge::Http => ChallengeType::Http01,
        Challenge::TlsAlpn => ChallengeType::TlsAlpn01,
    };
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let mut challenge = authorization.challenge(kind.clone()).ok_or(Error::NotOffered(way.name()))?;
        let said = challenge.key_authorization();
        let answer = match way {
            Challenge::Http => said.as_str().to_owned(),
            // The digest, as base64url.
            Challenge::TlsAlpn => said.dns_value(),
        };
        let asked = Asked { name: name.to_owned(), kind: way.name().into(), token: challenge.token.clone(), answer };
        store.challenge(&asked).await?;
        sleep(KNOWN_TO_ALL).await;
        challenge.set_ready().await?;
    }
    Ok(())
}

/// What the authority did not like.
async fn reason(order: &mut Order) -> Option<String> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let state = authorization.refresh().await.ok()?;
        if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return Some(problem.to_string());
        }
    }
    None
}

/// From when to when a certificate is good: seconds since 1970.
fn life(chain: &str) -> Result<(i64, i64), Error> {
    let first = CertificateDer::from_pem_slice(chain.as_bytes()).map_err(ntier_balancer::issued::Unusable::from)?;
    let validity = x509_cert::Certificate::from_der(&first)?.tbs_certificate.validity;
    let seconds = |time: x509_cert::time::Time| i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
    Ok((seconds(validity.not_before), seconds(validity.not_after)))
}

/// What shows in a handshake that a name is ours (RFC 8737, 3). `digest` is that of the key authorization, as base64url.
pub fn proof(name: &str, digest: &str) -> Result<Certificate, Error> {
    let digest = URL_SAFE_NO_PAD.decode(digest).ok().filter(|digest| digest.len() == DIGEST_BYTES);
    let digest = digest.ok_or_else(|| Error::Refused("a challenge that is no digest".into()))?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
    let key = KeyPair::generate()?;
    let made = params.self_signed(&key)?;
    Ok(Certificate::made(made.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_made_of_a_digest_alone() {
        assert!(proof("a.example", &URL_SAFE_NO_PAD.encode([7; DIGEST_BYTES])).is_ok());
        assert!(proof("a.example", "short").is_err());
    }
}
