//! Everything that Supabase's clients ask for, under the paths where they look for it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use ntier_auth::Auth;
use ntier_realtime::Realtime;
use ntier_rest::{Identified, Rest};
use ntier_security::caller::Doorkeeper;
use ntier_security::defence::Defence;
use ntier_security::keys::{Fault, Keys};
use ntier_security::network::{self, Network};
use ntier_storage::{Body, Storage};

use crate::guard::{self, Client};
use crate::site::Site;
use crate::{admin, basic, cookies, cors, identify, json, not_found};

/// Where files are.
const FILES: &str = "/storage/v1";

/// What a whole backend is made of.
#[derive(Debug)]
pub struct Backend {
    pub rest: Arc<Rest>,
    /// `None` where sign-in is switched off.
    pub auth: Option<Auth>,
    /// `None` where files are switched off.
    pub storage: Option<Arc<Storage>>,
    /// `None` where realtime is switched off.
    pub realtime: Option<Arc<Realtime>>,
    pub doorkeeper: Arc<Doorkeeper>,
    /// Its e-mails can be looked at, for `ntier dev`.
    pub inbox: bool,
    /// Proxies that say whose request it is.
    pub trusted: Vec<Network>,
    /// `None` where everybody is let in.
    pub defence: Option<Arc<Defence>>,
    /// The public keys, as `/auth/v1/.well-known/jwks.json` gives them.
    pub jwks: RwLock<String>,
    /// A web site to serve at `/`.
    pub site: Option<Site>,
    /// What is served besides; a page goes before a file.
    pub pages: Vec<Page>,
    /// It answers still, and balancers are told to go elsewhere.
    pub leaving: AtomicBool,
}

/// A text that the node itself has, such as the page for a first visitor.
#[derive(Debug, Clone)]
pub struct Page {
    /// Whole, with its slash.
    pub path: &'static str,
    pub media_type: &'static str,
    pub body: Bytes,
}

impl Backend {
    /// Puts other keys in force: published first, signing last, so that no token comes before its key is known.
    pub fn set_keys(&self, keys: &Keys) -> Result<(), Fault> {
        *self.jwks.write().unwrap_or_else(PoisonError::into_inner) = keys.jwks()?.to_string();
        self.doorkeeper.set_keys(keys)?;
        if let Some(auth) = &self.auth {
            auth.set_keys(keys.clone());
        }
        Ok(())
    }

    pub(crate) async fn answer(&self, mut request: Request<Bytes>) -> Response<Bytes> {
        let mut response = if cors::is_preflight(&request) {
            cors::preflight(&request)
        } else {
            let cookies = cookies::take(&mut request, |body| body);
            // What others answer is data, whatever it is called.
            let is_sign_in = behind(request.uri().path(), "/auth/v1").is_some();
            let response = self.route(request).await;
            if cookies.are_wanted && is_sign_in { cookies.give(response) } else { response }
        };
        cors::expose(response.headers_mut());
        response
    }

    /// Files are too large to be held; the rest of what is not an API is the site's.
    pub(crate) fn streams(&self, path: &str) -> bool {
        let is_api =
            || ["/rest/v1", "/auth/v1", "/inbox", "/health", "/ready"].iter().any(|api| behind(path, api).is_some());
        (self.storage.is_some() && behind(path, FILES).is_some())
            || ((self.site.is_some() || self.pages.iter().any(|page| page.path == path))
                && !is_api()
                && !is_described(path))
    }

    pub(crate) async fn stream(&self, mut request: Request<Body>) -> Response<Body> {
        let mut response = if cors::is_preflight(&request) {
            cors::preflight(&request).map(ntier_storage::full)
        } else {
            cookies::take(&mut request, ntier_storage::full);
            let path = behind(request.uri().path(), FILES).map(str::to_owned);
            match (&self.storage, path) {
                (Some(storage), Some(path)) => self.file(storage, &path, request).await,
                _ => self.page(request).await,
            }
        };
        cors::expose(response.headers_mut());
        response
    }

    async fn file(&self, storage: &Storage, path: &str, mut request: Request<Body>) -> Response<Body> {
        if storage.takes_passwords(path) {
            let address = address(&request);
            if let Err(refusal) = Box::pin(basic::to_bearer(request.headers_mut(), self.auth.as_ref(), address)).await {
                return refusal;
            }
        }
        storage.answer(path, request).await
    }

    /// Whose request it is that came from `peer`.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        network::client_of(peer, headers, &self.trusted)
    }

    /// A page, or a file of the site.
    async fn page(&self, request: Request<Body>) -> Response<Body> {
        let nothing = || not_found().map(ntier_storage::full);
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return nothing();
        }
        let path = request.uri().path();
        let (storage, method, headers) = (self.storage.as_deref(), request.method(), request.headers());
        match (self.pages.iter().find(|page| page.path == path), &self.site) {
            (Some(page), _) => page.response().map(ntier_storage::full),
            (None, Some(site)) => Box::pin(site.answer(storage, method, path, headers)).await.unwrap_or_else(nothing),
            (None, None) => nothing(),
        }
    }

    async fn route(&self, request: Request<Bytes>) -> Response<Bytes> {
        let path = request.uri().path();
        if let Some(rest) = behind(path, "/rest/v1") {
            let rest = rest.to_owned();
            let may_write = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
            let response = self.data(request, &rest).await;
            if let Some(realtime) = self.realtime.as_ref().filter(|_| may_write && response.status().is_success()) {
                realtime.written();
            }
            return response;
        }
        if let (Some(auth), Some(rest)) = (&self.auth, behind(path, "/auth/v1"))
            && !rest.starts_with("/.well-known/")
            && rest != "/health"
        {
            let rest = rest.to_owned();
            return self.sign_in(auth, request, &rest).await;
        }
        if let (Some(realtime), Some(rest)) = (&self.realtime, behind(path, "/realtime/v1")) {
            return realtime.answer(rest, &request).await;
        }
        if let (Some(auth), true, Some(rest)) = (&self.auth, self.inbox, behind(path, "/inbox")) {
            let (rest, method) = (rest.to_owned(), request.method().clone());
            return auth.inbox(&method, &rest).await;
        }
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        match path {
            "/health" | "/auth/v1/health" if get => json(StatusCode::OK, r#"{"name":"ntier","status":"ok"}"#.into()),
            "/ready" if get && self.leaving.load(Ordering::Relaxed) => {
                json(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"the node leaves"}"#.into())
            }
            "/ready" if get => admin::ready(&self.rest).await,
            "/auth/v1/.well-known/jwks.json" if get => {
                json(StatusCode::OK, self.jwks.read().unwrap_or_else(PoisonError::into_inner).clone())
            }
            // Behind the address and, for whoever follows RFC 8414, before it.
            "/auth/v1/.well-known/openid-configuration"
            | "/auth/v1/.well-known/oauth-authorization-server"
            | "/.well-known/oauth-authorization-server/auth/v1"
            | "/.well-known/openid-configuration/auth/v1"
                if get =>
            {
                self.auth.as_ref().map_or_else(not_found, Auth::configuration)
            }
            _ => not_found(),
        }
    }

    async fn sign_in(&self, auth: &Auth, request: Request<Bytes>, path: &str) -> Response<Bytes> {
        // Browsers come there by links and by the redirects of others, and have no key; what they bring says enough.
        let is_open = matches!(path, "/verify" | "/authorize" | "/callback") || path.starts_with("/oauth/");
        if !is_open && let Err(refusal) = identify::admit(&self.doorkeeper, request.headers()) {
            return identify::refuse(&refusal);
        }
        let address = address(&request);
        auth.answer(path, address, request).await
    }

    /// The data API.
    async fn data(&self, request: Request<Bytes>, path: &str) -> Response<Bytes> {
        let begun = Instant::now();
        let caller = match identify::caller(&self.doorkeeper, request.headers()) {
            Ok(caller) => caller,
            Err(refusal) => return identify::refuse(&refusal),
        };
        let describes = path == "/" && matches!(*request.method(), Method::GET | Method::HEAD);
        if describes && caller.role != "service_role" {
            return identify::refuse_description();
        }
        let (mut parts, body) = request.into_parts();
        if let Some(defence) = &self.defence
            && let Err(refusal) = guard::admit_user(defence, &caller.claims, &parts)
        {
            return refusal;
        }
        let uri = match parts.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        match uri.parse() {
            Ok(uri) => parts.uri = uri,
            Err(_) => return not_found(),
        }
        let who = Identified { caller: &caller, took: begun.elapsed() };
        ntier_rest::answer(&self.rest, who, Request::from_parts(parts, body)).await
    }
}

/// Of the client; a request that came by no socket is this machine's.
fn address<B>(request: &Request<B>) -> IpAddr {
    request.extensions().get::<Client>().map_or(Ipv4Addr::LOCALHOST.into(), |client| client.0)
}

impl Page {
    fn response(&self) -> Response<Bytes> {
        let mut response = Response::new(self.body.clone());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

/// What this server says of itself as an authorization server, where others look for it.
fn is_described(path: &str) -> bool {
    let name = path.strip_prefix("/.well-known/").and_then(|rest| rest.strip_suffix("/auth/v1"));
    name.is_some_and(|name| matches!(name, "oauth-authorization-server" | "openid-configuration"))
}

/// What follows the prefix, if the path is the prefix or below it.
fn behind<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    match path.strip_prefix(prefix)? {
        "" => Some("/"),
        rest if rest.starts_with('/') => Some(rest),
        _ => None,
    }
}
