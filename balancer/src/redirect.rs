//! Plain HTTP where TLS is spoken: who asks to read is sent there, who sends something is refused, as it was heard by others already
//! (checklist H6). An authority that issues certificates is answered here too (RFC 8555, 8.3).

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ntier_security::defence::Defence;
use ntier_security::firewall::Facts;
use ntier_security::network;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::issued::Told;
use crate::outbound::Outbound;
use crate::plan::Plan;
use crate::room::{self, Room};

/// Connections at once, in all and from one address, and how long each may last.
const CONNECTIONS: usize = 1000;
const PER_ADDRESS: usize = 50;
const LONGEST: Duration = Duration::from_secs(20);
/// How long a request's head may take: it is a few lines.
const HEAD: Duration = Duration::from_secs(3);

/// What it answers by.
#[derive(Debug)]
pub struct Redirect {
    /// Of TLS.
    pub port: u16,
    pub issued: Option<Told>,
    pub defence: Option<Arc<Defence>>,
    pub plans: watch::Receiver<Arc<Plan>>,
}

/// Answers until it is aborted.
pub async fn serve(listener: std::net::TcpListener, redirect: Redirect) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let (redirect, room, all) = (Arc::new(redirect), Arc::<Room>::default(), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let Ok(place) = all.clone().acquire_owned().await else { return Ok(()) };
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let peer = peer.ip().to_canonical();
        let limits = redirect.plans.borrow().settings.limits;
        let limits = room::Limits { all: CONNECTIONS, per_address: limits.per_address.min(PER_ADDRESS) };
        let Some(room) = room.enter(peer, redirect.is_trusted(peer), limits) else { continue };
        let redirect = redirect.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = redirect.respond(peer, &request.into_parts().0).map(Outbound::whole);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), service);
            let _ = timeout(LONGEST, connection).await;
            drop((place, room));
        });
    }
}

impl Redirect {
    fn is_trusted(&self, peer: IpAddr) -> bool {
        self.plans.borrow().settings.trusted_proxy.iter().any(|network| network.contains(peer))
    }

    /// An authority is answered whoever it is; everybody else only if let in.
    fn respond(&self, peer: IpAddr, parts: &Parts) -> Response<Bytes> {
        let issued = self.issued.as_ref().map(|issued| issued.borrow().clone());
        if let Some(proof) = issued.as_ref().and_then(|issued| issued.answer(parts.uri.path())) {
            return prove(proof);
        }
        let client = network::client_of(peer, &parts.headers, &self.plans.borrow().settings.trusted_proxy);
        let facts = Facts::new(client, &parts.method, &parts.uri, &parts.headers);
        match self.defence.as_ref().map_or(Ok(()), |defence| defence.admit(&facts, Instant::now())) {
            Ok(()) => answer(parts, self.port),
            Err(refusal) => refusal.response().map(Bytes::from),
        }
    }
}

/// What an authority wants to read, by whichever method.
fn prove(answer: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::copy_from_slice(answer.as_bytes()));
    let binary = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, binary);
    response
}

fn answer(parts: &Parts, port: u16) -> Response<Bytes> {
    let refuse = |status, text: &'static str| {
        let mut response = Response::new(Bytes::from_static(text.as_bytes()));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    };
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return refuse(StatusCode::FORBIDDEN, "use https\n");
    }
    let Some(target) = target(parts, port) else { return refuse(StatusCode::BAD_REQUEST, "which host?\n") };
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(header::LOCATION, target);
    response
}

/// The same, by TLS.
fn target(parts: &Parts, port: u16) -> Option<HeaderValue> {
    let host = parts.headers.get(header::HOST)?.to_str().ok()?;
    // It is a name or an address, and no more than that.
    let authority: http::uri::Authority = host.parse().ok().filter(|_| !host.contains('@'))?;
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    HeaderValue::try_from(format!("https://{}{port}{path}", authority.host())).ok()
}

/// On this address.
pub fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    crate::listen::listener(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_h6_who_reads_is_sent_to_tls_and_who_writes_is_refused() {
        for (method, target, host, port, expected) in [
            (Method::GET, "/a?b=c", Some("shop.example:80"), 443, Ok("https://shop.example/a?b=c")),
            (Method::HEAD, "/", Some("[::1]:80"), 8443, Ok("https://[::1]:8443/")),
            (Method::POST, "/", Some("shop.example"), 443, Err(403)),
            (Method::GET, "/", None, 443, Err(400)),
            (Method::GET, "/", Some("evil@shop.example"), 443, Err(400)),
            (Method::GET, "/", Some("shop.example/x"), 443, Err(400)),
        ] {
            let mut request = Request::builder().method(method).uri(target);
            if let Some(host) = host {
                request = request.header("host", host);
            }
            let response = answer(&request.body(()).unwrap().into_parts().0, port);
            let found = match response.headers().get("location") {
                Some(location) => Ok(location.to_str().unwrap()),
                None => Err(response.status().as_u16()),
            };
            assert_eq!(found, expected, "{host:?}");
        }
    }
}
