//! WebDAV at `/storage/v1/dav/{bucket}/…` (RFC 4918), so that a file manager mounts a bucket with the rights of its user.
//!
//! A folder is what names begin with; one that holds nothing is kept by the object that Supabase's dashboard makes for it, which is
//! hidden here. Everything is read and written as the caller. Not here: what is said on the wire (`ntier_protocol::storage::dav`).

mod given;
mod lock;
mod locks;
mod place;
mod properties;
mod propfind;
mod transfer;
mod write;

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use ntier_backing::database::{Refusal, Statement};
use ntier_protocol::storage::dav::{answer, body as dav_body};
use ntier_protocol::storage::error::{Code, Error as Wire};
use ntier_protocol::storage::name::BucketId;

use crate::Storage;
use crate::body::{self, Body};
use crate::error::Error;
use crate::respond;
use crate::session::{self, Mode, Request, Work, sql};
use crate::store::{self, Bucket, Object};
use crate::visitor::Visitor;

use place::Place;

/// Entries of a folder that are told, or files that are copied one after the other, at most.
const MOST: usize = 10_000;
const ALLOW: &str = "OPTIONS, GET, HEAD, PUT, DELETE, PROPFIND, PROPPATCH, MKCOL, COPY, MOVE, LOCK, UNLOCK";

/// What is in a place, as the caller sees it.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Nothing,
    File(Box<Object>),
    Folder,
}

/// A place that was looked at.
#[derive(Debug, Clone, PartialEq)]
struct Found {
    kind: Kind,
    /// There is a folder where it is or would be.
    has_parent: bool,
}

/// What WebDAV says beyond the errors of files.
#[derive(Debug)]
enum Fault {
    Error(Error),
    Status(StatusCode),
    /// A condition of RFC 4918, 16.
    Condition(StatusCode, &'static str),
    /// Some of it was not done: hrefs and statuses.
    Partly(Vec<(String, StatusCode)>),
}

impl<E: Into<Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl From<dav_body::Wrong> for Fault {
    fn from(_: dav_body::Wrong) -> Self {
        Self::Status(StatusCode::BAD_REQUEST)
    }
}

type Answer = Result<Response<Body>, Fault>;

impl Storage {
    /// `rest` is what follows `/dav`.
    pub(crate) async fn dav(&self, visitor: &Visitor, rest: &[&str], body: Body) -> Response<Body> {
        let mut response = if visitor.method == Method::OPTIONS {
            options()
        } else if visitor.caller().is_ok() {
            self.dav_answer(visitor, rest, body).await.unwrap_or_else(respond_fault)
        } else {
            challenge()
        };
        let headers = response.headers_mut();
        headers.insert(HeaderName::from_static("dav"), HeaderValue::from_static("1, 2"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }

    async fn dav_answer(&self, visitor: &Visitor, rest: &[&str], body: Body) -> Answer {
        let method = visitor.method.as_str();
        let place = match Place::of(rest) {
            Ok(Some(place)) => place,
            Ok(None) if method == "PROPFIND" => return self.dav_buckets(visitor, body).await,
            Ok(None) => return Err(Fault::Status(StatusCode::FORBIDDEN)),
            // Nothing can be there, and clients ask for all kinds of names.
            Err(_) if matches!(method, "GET" | "HEAD" | "PROPFIND") => return Err(Wire::no_such_key().into()),
            Err(error) => return Err(error.into()),
        };
        match method {
            "PROPFIND" => self.dav_propfind(visitor, &place, body).await,
            "PROPPATCH" => self.dav_proppatch(visitor, &place, body).await,
            "GET" | "HEAD" => self.dav_get(visitor, &place).await,
            "PUT" => self.dav_put(visitor, &place, body).await,
            "MKCOL" => self.dav_mkcol(visitor, &place, body).await,
            "DELETE" => self.dav_delete(visitor, &place).await,
            "COPY" | "MOVE" => self.dav_transfer(visitor, &place).await,
            "LOCK" => self.dav_lock(visitor, &place, body).await,
            "UNLOCK" => self.dav_unlock(visitor, &place).await,
            _ => Err(Fault::Status(StatusCode::METHOD_NOT_ALLOWED)),
        }
    }

    /// What the caller sees there; an error where there is no such bucket.
    async fn dav_look(&self, visitor: &Visitor, place: &Place) -> Result<Found, Error> {
        let above = place.parent().map(|parent| parent.prefix()).unwrap_or_default();
        let mut caller = vec![any_below(&place.bucket, &place.prefix()), any_below(&place.bucket, &above)];
        if !place.path.is_empty() {
            caller.push(Object::select(&place.bucket, &place.key()?));
        }
        let work = Work { service: vec![Bucket::select(&place.bucket)], caller };
        let request = Request::of(visitor, "storage.object.info");
        let answer = session::as_caller(&self.database, visitor.caller()?, &request, Mode::Read, work).await?;
        Bucket::of(&answer, 0).ok_or_else(Wire::no_such_bucket)?;
        let is_folder = place.path.is_empty() || store::first(&answer, 1).is_some();
        let file = if place.path.is_empty() { None } else { Object::found(&answer, 3)? };
        let kind = match file {
            // An empty one beside a folder of its name is how some clients of S3 keep that folder.
            Some(file) if !place.with_slash && (!is_folder || file.metadata.size_bytes > 0) => {
                Kind::File(Box::new(file))
            }
            _ if is_folder => Kind::Folder,
            _ => Kind::Nothing,
        };
        Ok(Found { kind, has_parent: above.is_empty() || store::first(&answer, 2).is_some() })
    }
}

/// A row where a name begins so. Its plan is one step into the index by bucket and name.
fn any_below(bucket: &BucketId, prefix: &str) -> Statement {
    sql(
        "select 1 from storage.objects where bucket_id = $1 and name collate \"C\" >= $2 \
         and ($2 = '' or name collate \"C\" < storage.after_prefix($2)) limit 1",
        &[Some(bucket.as_str()), Some(prefix)],
    )
}

/// A condition for the row of a file, or for those of all below a folder: `name` is their column, `path` a parameter.
fn rows(kind: &Kind, name: &str, path: &str) -> String {
    match kind {
        Kind::Folder => format!(
            "{name} collate \"C\" >= {path} || '/' and {name} collate \"C\" < storage.after_prefix({path} || '/')"
        ),
        Kind::File(_) | Kind::Nothing => format!("{name} = {path}"),
    }
}

/// What the database refused, if it was by this code.
fn refused<'a>(error: &'a Error, code: &str) -> Option<&'a Refusal> {
    match error {
        Error::Database(ntier_backing::database::Error::Refused(refusal)) if refusal.code == code => Some(refusal),
        _ => None,
    }
}

fn depth(visitor: &Visitor) -> Option<&str> {
    visitor.text("depth")
}

/// What is meant where nothing is said.
fn is_infinite(depth: Option<&str>) -> bool {
    depth.is_none_or(|text| text.eq_ignore_ascii_case("infinity"))
}

fn options() -> Response<Body> {
    let mut response = respond::status(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static(ALLOW));
    // Windows asks no server that does not say so.
    headers.insert(HeaderName::from_static("ms-author-via"), HeaderValue::from_static("DAV"));
    response
}

fn challenge() -> Response<Body> {
    let mut response = plain(StatusCode::UNAUTHORIZED, "Sign in with e-mail and password, a token or an API key");
    let challenge = HeaderValue::from_static("Basic realm=\"ntier\", charset=\"UTF-8\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

fn respond_fault(fault: Fault) -> Response<Body> {
    match fault {
        Fault::Error(error) => {
            let wire = error.wire();
            let mut response = plain(status(wire.code), &wire.message);
            response.extensions_mut().extend(respond::because(&error));
            if wire.code == Code::SlowDown {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            response
        }
        Fault::Status(status) => {
            let mut response = plain(status, status.canonical_reason().unwrap_or_default());
            if status == StatusCode::METHOD_NOT_ALLOWED {
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(ALLOW));
            }
            response
        }
        Fault::Condition(status, name) => xml(status, answer::condition(name)),
        Fault::Partly(failed) => xml(StatusCode::MULTI_STATUS, answer::failures(&failed)),
    }
}

fn status(code: Code) -> StatusCode {
    StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn plain(status: StatusCode, message: &str) -> Response<Body> {
    said(status, "text/plain; charset=utf-8", message.to_owned())
}

fn xml(status: StatusCode, text: String) -> Response<Body> {
    said(status, "application/xml; charset=utf-8", text)
}

fn said(status: StatusCode, media_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
