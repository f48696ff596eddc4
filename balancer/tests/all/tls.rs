//! TLS, plain HTTP beside it, and proxies that pass bytes.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ntier_balancer::settings::Files;
use ntier_balancer::{Beside, Observe, start};
use ntier_security::defence::{self, Defence};
use ntier_security::firewall::Rules;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::stage::{Client, GET, ask, balance, named, settings, until};

/// A certificate of its own for `localhost`, by OpenSSL.
fn certificate(folder: &Path, serial: &str) -> Files {
    let files = Files { certificate: folder.join("certificate.pem"), key: folder.join("key.pem") };
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-set_serial", serial])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(folder.join("new-key.pem"))
        .arg("-out")
        .arg(folder.join("new-certificate.pem"))
        .output()
        .expect("openssl is there");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::rename(folder.join("new-key.pem"), &files.key).unwrap();
    std::fs::rename(folder.join("new-certificate.pem"), &files.certificate).unwrap();
    files
}

async fn connect(
    balancer: &ntier_balancer::Running,
    files: &Files,
    protocol: &[u8],
    first: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let mut stream = TcpStream::connect(balancer.address).await.unwrap();
    stream.write_all(first).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

#[tokio::test]
async fn security_h6_requests_come_by_tls_and_browsers_are_told_to_stay_there() {
    let backend = named("here").await;
    let folder = tempfile::tempdir().unwrap();
    let files = certificate(folder.path(), "1");
    let mut settings = settings(&[&backend]);
    settings.tls = Some(files.clone());
    let balancer = balance(settings).await;
    let mut stream = connect(&balancer, &files, b"http/1.1", b"").await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("here"), "{text}");
    assert!(text.contains("strict-transport-security: max-age=31536000\r\n"), "{text}");
    assert!(backend.last().head.contains("x-forwarded-proto: https\r\n"));
    // HTTP/2 for whoever wants it.
    let stream = connect(&balancer, &files, b"h2", b"").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    // Plain HTTP is not spoken there.
    assert!(Client::connect(&balancer).await.ask(GET).await.is_none_or(|answer| answer.status != 200));
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn security_h1_the_redirect_has_limits_and_the_firewall_too() {
    let backend = named("here").await;
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    let mut settings = settings(&[&backend]);
    settings.tls = Some(certificate(folder.path(), "1"));
    settings.redirect = Some(place);
    settings.limits.per_address = 1;
    let rules = Rules { methods: vec!["GET".into()], ..Rules::default() };
    let defence = Defence::new(defence::Settings { rules, ..defence::Settings::default() }, Instant::now());
    let beside = Beside { inherited: vec![listener], defence: Some(Arc::new(defence)), ..Beside::default() };
    let balancer = start(settings, beside, Observe::Nothing).await.unwrap();
    let connect = async || Client { stream: TcpStream::connect(place).await.unwrap(), buffer: Vec::new() };
    let mut one = connect().await;
    assert_eq!(one.ask(GET).await.unwrap().status, 308);
    assert!(connect().await.is_ended().await, "it has one already");
    let refused = one.ask("HEAD / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    assert!(refused.status != 308 && backend.heard() == 0, "{refused:?}");
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_changes_is_taken_and_one_that_is_broken_is_not() {
    let backend = named("here").await;
    let folder = tempfile::tempdir().unwrap();
    let files = certificate(folder.path(), "1");
    let mut settings = settings(&[&backend]);
    settings.tls = Some(files.clone());
    let balancer = balance(settings).await;
    let first = connect(&balancer, &files, b"http/1.1", b"").await.unwrap();
    let shown = |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let first = shown(&first);
    // Half of what is written: nothing changes, whoever comes meanwhile.
    std::fs::write(&files.key, "broken").unwrap();
    let second = tempfile::tempdir().unwrap();
    let next = certificate(second.path(), "2");
    for _ in 0..3 {
        let stream = connect(&balancer, &files, b"http/1.1", b"").await.unwrap();
        assert_eq!(shown(&stream), first);
    }
    std::fs::copy(&next.key, &files.key).unwrap();
    std::fs::copy(&next.certificate, &files.certificate).unwrap();
    until(async || {
        let stream = connect(&balancer, &next, b"http/1.1", b"").await;
        stream.is_ok_and(|stream| shown(&stream) != first)
    })
    .await;
    balancer.stop().await.unwrap();
}

#[tokio::test]
async fn security_h9_a_declared_proxy_says_whose_connection_it_is() {
    let backend = named("here").await;
    let mut settings = settings(&[&backend]);
    settings.trusted_proxy = vec!["127.0.0.1".parse().unwrap()];
    settings.proxy_protocol = true;
    let balancer = balance(settings.clone()).await;
    let first = "PROXY TCP4 198.51.100.7 10.0.0.1 4000 80\r\n";
    let forged = "GET / HTTP/1.1\r\nhost: h\r\nx-forwarded-for: 6.6.6.6\r\n\r\n";
    assert_eq!(ask(&balancer, &format!("{first}{forged}")).await.status, 200);
    let head = backend.last().head;
    assert!(head.contains("x-forwarded-for: 198.51.100.7\r\n"), "its client is no proxy: {head}");
    // A limit for an address is for the client's.
    let mut limited = settings.clone();
    limited.limits.per_address = 1;
    let other = balance(limited).await;
    let mut one = Client::connect(&other).await;
    assert_eq!(one.ask(&format!("{first}{GET}")).await.unwrap().status, 200);
    assert!(Client::connect(&other).await.ask(&format!("{first}{GET}")).await.is_none());
    let second = "PROXY TCP4 198.51.100.8 10.0.0.1 4000 80\r\n";
    assert_eq!(ask(&other, &format!("{second}{GET}")).await.status, 200);
    drop(one);
    other.stop().await.unwrap();
    // Without it nothing is answered.
    assert!(Client::connect(&balancer).await.ask(GET).await.is_none());
    balancer.stop().await.unwrap();
    // From others it is no HTTP.
    settings.trusted_proxy.clear();
    let balancer = balance(settings).await;
    assert_eq!(ask(&balancer, &format!("{first}{forged}")).await.status, 400);
    balancer.stop().await.unwrap();
}
