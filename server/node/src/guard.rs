//! Who is let in before anything else is looked at, and what answers say of who asked: the node's part of the defence
//! (`security::defence`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use ntier_security::defence::{Answer, Defence, Refusal};
use ntier_security::firewall::Facts;
use ntier_security::intrusion::{Account, Event};

use crate::{Asked, Node, Service};

/// The client's address, as far as it can be known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client(pub IpAddr);

/// An open connection, until it is dropped.
pub(crate) struct Connected(Option<(Arc<Defence>, IpAddr)>);

impl Drop for Connected {
    fn drop(&mut self) {
        if let Some((defence, peer)) = &self.0 {
            defence.disconnected(*peer);
        }
    }
}

impl Node {
    pub(crate) fn defence(&self) -> Option<&Arc<Defence>> {
        match &self.service {
            Service::Backend(backend) => backend.defence.as_ref(),
            Service::DataApi(_) | Service::Admin(_) => None,
        }
    }

    /// `None` where its address has too many already: it ends unanswered.
    pub(crate) fn connected(&self, peer: IpAddr) -> Option<Connected> {
        let Some(defence) = self.defence() else { return Some(Connected(None)) };
        defence.connected(peer, Instant::now()).then(|| Connected(Some((defence.clone(), peer))))
    }

    /// Whether the request may come in; it is told whose it is.
    pub(crate) fn admit<B>(&self, request: &mut Request<B>, peer: IpAddr) -> Result<(), Response<Bytes>> {
        let Service::Backend(backend) = &self.service else { return Ok(()) };
        let client = backend.client(peer, request.headers());
        request.extensions_mut().insert(Client(client));
        let Some(defence) = &backend.defence else { return Ok(()) };
        let facts = Facts::new(client, request.method(), request.uri(), request.headers());
        let now = Instant::now();
        let mut admitted = defence.admit(&facts, now);
        if admitted.is_ok()
            && defence.counts().1
            && let Some(key) = request.headers().get("apikey")
        {
            admitted = defence.admit_key(key.as_bytes(), &facts, now);
        }
        admitted.map_err(|refusal| refuse(&refusal))
    }

    /// A connection ended because what came was no HTTP, or too much of it.
    pub(crate) fn malformed(&self, cause: &hyper::Error, peer: IpAddr) {
        let event = if cause.is_parse_too_large() { Event::TooLarge } else { Event::Malformed };
        if let (Some(defence), true) = (self.defence(), cause.is_parse()) {
            defence.note(event, peer, None, None, Instant::now());
        }
    }

    /// What the answer says of who asked.
    pub(crate) fn learn<B>(&self, asked: &Asked, response: &mut Response<B>) {
        let extensions = response.extensions_mut();
        let (event, account) = (extensions.remove::<Event>(), extensions.remove::<Account>());
        let (Some(defence), Some(Client(address))) = (self.defence(), asked.client) else { return };
        let (status, account) = (response.status(), account.as_ref().map(|account| account.0.as_str()));
        if status.is_client_error() {
            let event = event.or_else(|| of_sign_in(response.headers(), account.is_some()));
            let (path, query) = (asked.uri.path(), asked.uri.query());
            let answer = Answer { event, status: status.as_u16(), path, query, account };
            defence.refused(&answer, address, Instant::now());
        } else if let (Some(account), true) = (account, status.is_success()) {
            defence.forgive(address, account, Instant::now());
        }
    }
}

/// Whether this user may ask once more.
pub(crate) fn admit_user(defence: &Defence, claims: &str, parts: &Parts) -> Result<(), Response<Bytes>> {
    if !defence.counts().0 {
        return Ok(());
    }
    let claims: serde_json::Value = serde_json::from_str(claims).unwrap_or_default();
    let (Some(user), Some(Client(address))) = (claims["sub"].as_str(), parts.extensions.get()) else { return Ok(()) };
    let facts = Facts::new(*address, &parts.method, &parts.uri, &parts.headers);
    defence.admit_user(user, &facts, Instant::now()).map_err(|refusal| refuse(&refusal))
}

/// What sign-in says in the codes of its dialect. Where no account is named no password was looked at.
fn of_sign_in(headers: &HeaderMap, is_named: bool) -> Option<Event> {
    match headers.get("x-sb-error-code")?.as_bytes() {
        b"invalid_credentials" if is_named => Some(Event::WrongPassword),
        b"otp_expired" | b"mfa_verification_failed" | b"reauthentication_not_valid" => Some(Event::WrongCode),
        b"refresh_token_already_used" => Some(Event::ReusedToken),
        b"over_request_rate_limit" => Some(Event::Limited),
        _ => None,
    }
}

fn refuse(refusal: &Refusal) -> Response<Bytes> {
    refusal.response().map(Bytes::from)
}
