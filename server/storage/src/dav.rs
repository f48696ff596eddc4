//! WebDAV at `/storage/v1/dav/{bucket}/…` (RFC 4918), so that a file manager mounts a bucket with the rights of its user.
//!
//! A folder is what names begin with; one that holds nothing is kept by the object that Supabase's dashboard makes for it, which is
//! hidden here. Everything is read and written as the caller. Properties of clients are not kept.

mod condition;
mod locks;
mod place;
mod transfer;
mod xml;

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use ntier_backing::database::{Row, Statement};
use ntier_protocol::storage::condition::Verdict;
use ntier_protocol::storage::error::{Code, Error as Wire};
use ntier_protocol::storage::name::BucketId;

use crate::Storage;
use crate::body::{self, Body};
use crate::download::{Access, set};
use crate::error::Error;
use crate::respond;
use crate::session::{self, Mode, Request, Work, sql};
use crate::store::{self, Bucket, Metadata, Object, time};
use crate::upload::{self, Description, PLACEHOLDER, Source, Target};
use crate::visitor::{Visitor, owner};

use place::Place;
use xml::Entry;

/// Entries of a folder that are told, at most.
const MOST: usize = 10_000;
/// Entries that are read at once.
const PAGE: usize = 1000;
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
    /// Some of it was not done.
    Partly(Vec<(String, u16)>),
}

impl<E: Into<Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl From<xml::Wrong> for Fault {
    fn from(_: xml::Wrong) -> Self {
        Self::Status(StatusCode::BAD_REQUEST)
    }
}

type Answer = Result<Response<Body>, Fault>;

impl Storage {
    /// `rest` is what follows `/dav`.
    pub(crate) async fn dav(&self, visitor: &Visitor, rest: &[&str], body: Body) -> Response<Body> {
        if visitor.method == Method::OPTIONS {
            return options();
        }
        let mut response = if visitor.caller().is_ok() {
            self.dav_answer(visitor, rest, body).await.unwrap_or_else(respond_fault)
        } else {
            let mut response =
                plain(StatusCode::UNAUTHORIZED, "Sign in with an API key, a token, or e-mail and password");
            let challenge = HeaderValue::from_static("Basic realm=\"ntier\", charset=\"UTF-8\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            response
        };
        response.headers_mut().insert(DAV, HeaderValue::from_static("1, 2"));
        response
    }

    async fn dav_answer(&self, visitor: &Visitor, rest: &[&str], body: Body) -> Answer {
        let place = Place::of(rest)?;
        let Some(place) = place else {
            return match visitor.method.as_str() {
                "PROPFIND" => self.dav_buckets(visitor, body).await,
                _ => Err(Fault::Status(StatusCode::FORBIDDEN)),
            };
        };
        match visitor.method.as_str() {
            "PROPFIND" => self.dav_propfind(visitor, &place, body).await,
            "PROPPATCH" => self.dav_proppatch(visitor, &place, body).await,
            "GET" | "HEAD" => self.dav_get(visitor, &place).await,
            "PUT" => self.dav_put(visitor, &place, body).await,
            "MKCOL" => self.dav_mkcol(visitor, &place, body).await,
            "DELETE" => self.dav_delete(visitor, &place).await,
            "COPY" | "MOVE" => self.dav_transfer(visitor, &place).await,
            "LOCK" => self.dav_lock(visitor, &place, body).await,
            "UNLOCK" => self.dav_unlock(visitor, &place).await,
            _ => {
                let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "");
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(ALLOW));
                Ok(response)
            }
        }
    }

    /// What the caller sees there; an error where there is no such bucket.
    async fn dav_look(&self, visitor: &Visitor, place: &Place) -> Result<Found, Error> {
        let parent = place.parent();
        let above = if parent.is_empty() { String::new() } else { format!("{parent}/") };
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
            Some(file) if !place.with_slash && (!is_folder || file.metadata.size_bytes > 0) => {
                Kind::File(Box::new(file))
            }
            _ if is_folder => Kind::Folder,
            _ => Kind::Nothing,
        };
        Ok(Found { kind, has_parent: above.is_empty() || store::first(&answer, 2).is_some() })
    }

    async fn dav_buckets(&self, visitor: &Visitor, body: Body) -> Answer {
        let is_deep = depth_of_listing(visitor)?;
        let asked = xml::propfind(&body::whole(body).await?)?;
        let mut entries = vec![Entry { href: place::href(None, "", true), is_folder: true, ..Entry::default() }];
        if is_deep {
            let text = format!(
                "select id, {}, {} from storage.buckets order by id limit {MOST}",
                time!("created_at"),
                time!("updated_at")
            );
            let work = Work { service: Vec::new(), caller: vec![sql(&text, &[])] };
            let request = Request::of(visitor, "storage.bucket.list");
            let answer = session::as_caller(&self.database, visitor.caller()?, &request, Mode::Read, work).await?;
            let rows = answer.results.first().map(|result| result.rows.as_slice()).unwrap_or_default();
            for row in rows {
                // One that was named at another time, and has no place here.
                let Some(bucket) = row.text(0).and_then(|id| BucketId::parse(id).ok()) else { continue };
                entries.push(Entry {
                    href: place::href(Some(&bucket), "", true),
                    name: bucket.as_str().to_owned(),
                    is_folder: true,
                    created: row.text(1).unwrap_or_default().to_owned(),
                    modified: row.text(2).and_then(store::parse_time),
                    ..Entry::default()
                });
            }
        }
        Ok(multistatus(xml::properties(&entries, &asked)))
    }

    async fn dav_propfind(&self, visitor: &Visitor, place: &Place, body: Body) -> Answer {
        let is_deep = depth_of_listing(visitor)?;
        let asked = xml::propfind(&body::whole(body).await?)?;
        let found = self.dav_look(visitor, place).await?;
        let name = place.path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(place.bucket.as_str());
        let mut entries = match &found.kind {
            Kind::Nothing => return Err(Wire::no_such_key().into()),
            Kind::File(object) => {
                vec![file((place.href(false), &place.path), name, &object.metadata, &object.created_at)]
            }
            Kind::Folder => {
                vec![Entry {
                    href: place.href(true),
                    path: place.path.clone(),
                    name: name.into(),
                    is_folder: true,
                    ..Entry::default()
                }]
            }
        };
        if is_deep && found.kind == Kind::Folder {
            self.dav_list(visitor, place, &mut entries).await?;
        }
        self.dav_tell_locks(visitor, place, &mut entries).await?;
        Ok(multistatus(xml::properties(&entries, &asked)))
    }

    /// What is in the folder, page by page.
    async fn dav_list(&self, visitor: &Visitor, place: &Place, entries: &mut Vec<Entry>) -> Result<(), Fault> {
        let prefix = place.prefix();
        let text = format!(
            "select l.name, l.id, l.metadata, {} from storage.list_objects_with_delimiter($1, $2, '/', {PAGE}, '', $3) l",
            time!("l.created_at")
        );
        let mut next = String::new();
        loop {
            let list = sql(&text, &[Some(place.bucket.as_str()), Some(&prefix), Some(&next)]);
            let work = Work { service: Vec::new(), caller: vec![list] };
            let request = Request::of(visitor, "storage.object.list");
            let answer = session::as_caller(&self.database, visitor.caller()?, &request, Mode::Read, work).await?;
            let rows = answer.results.first().map(|result| result.rows.as_slice()).unwrap_or_default();
            entries.extend(rows.iter().filter_map(|row| entry(place, &prefix, row)));
            if entries.len() > MOST {
                return Err(Fault::Condition(StatusCode::INSUFFICIENT_STORAGE, "number-of-matches-within-limits"));
            }
            match rows.last() {
                Some(last) if rows.len() >= PAGE => {
                    let slash = if last.text(1).is_none() { "/" } else { "" };
                    next = format!("{}{slash}", last.text(0).unwrap_or_default());
                }
                _ => return Ok(()),
            }
        }
    }

    async fn dav_proppatch(&self, visitor: &Visitor, place: &Place, body: Body) -> Answer {
        let names = xml::proppatch(&body::whole(body).await?)?;
        let found = self.dav_look(visitor, place).await?;
        if found.kind == Kind::Nothing {
            return Err(Wire::no_such_key().into());
        }
        self.dav_may_change(visitor, place, &found, locks::Change::Content).await?;
        Ok(multistatus(xml::patched(&place.href(found.kind == Kind::Folder), &names)))
    }

    async fn dav_get(&self, visitor: &Visitor, place: &Place) -> Answer {
        if place.path.is_empty() || place.with_slash {
            return Err(Fault::Status(StatusCode::METHOD_NOT_ALLOWED));
        }
        let steps: Vec<String> = place.path.split('/').map(str::to_owned).collect();
        Ok(self.download(visitor, Access::Caller, place.bucket.as_str(), &steps).await?)
    }

    async fn dav_put(&self, visitor: &Visitor, place: &Place, body: Body) -> Answer {
        if place.path.is_empty() || place.with_slash {
            return Err(Fault::Status(StatusCode::METHOD_NOT_ALLOWED));
        }
        // A part of a file would take the place of the whole (RFC 9110, 14.4).
        if visitor.headers.contains_key(header::CONTENT_RANGE) {
            return Err(Fault::Status(StatusCode::BAD_REQUEST));
        }
        let found = self.dav_look(visitor, place).await?;
        let before = match &found.kind {
            Kind::Folder => return Err(Fault::Status(StatusCode::METHOD_NOT_ALLOWED)),
            _ if !found.has_parent => return Err(Fault::Status(StatusCode::CONFLICT)),
            Kind::File(object) => Some(object),
            Kind::Nothing => None,
        };
        self.dav_may_change(visitor, place, &found, locks::Change::Content).await?;
        let conditions = visitor.conditions();
        let holds = match before {
            Some(object) => {
                let modified = object.metadata.modified.unwrap_or(std::time::SystemTime::UNIX_EPOCH);
                conditions.decide(&object.metadata.etag, modified) == Verdict::Proceed
            }
            None => conditions.if_match.is_none(),
        };
        if !holds {
            return Err(Fault::Status(StatusCode::PRECONDITION_FAILED));
        }
        let mut description = upload::describe(visitor)?;
        if !visitor.headers.contains_key(header::CONTENT_TYPE) {
            description.media_type = media_type(&place.path).into();
        }
        // One of the two that make it at the same time is told that it is there.
        let upsert = conditions.if_none_match.is_none_or(|tags| tags.trim() != "*");
        let metadata = self.dav_store(visitor, (&place.bucket, &place.key()?), upsert, description, body).await;
        let metadata = metadata.map_err(|error| match error.wire().code {
            Code::KeyAlreadyExists => Fault::Status(StatusCode::PRECONDITION_FAILED),
            _ => Fault::Error(error),
        })?;
        let status = if before.is_some() { StatusCode::NO_CONTENT } else { StatusCode::CREATED };
        let mut response = respond::status(status);
        set(response.headers_mut(), header::ETAG, &metadata.etag);
        Ok(response)
    }

    async fn dav_mkcol(&self, visitor: &Visitor, place: &Place, mut body: Body) -> Answer {
        if body::next(&mut body).await?.is_some_and(|bytes| !bytes.is_empty()) {
            return Err(Fault::Status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let found = self.dav_look(visitor, place).await?;
        // With a slash a file is not seen.
        let bare = Place { with_slash: false, ..place.clone() };
        if found.kind != Kind::Nothing || self.dav_look(visitor, &bare).await?.kind != Kind::Nothing {
            return Err(Fault::Status(StatusCode::METHOD_NOT_ALLOWED));
        }
        if !found.has_parent {
            return Err(Fault::Status(StatusCode::CONFLICT));
        }
        self.dav_may_change(visitor, place, &found, locks::Change::Content).await?;
        self.dav_make_folder(visitor, place).await?;
        Ok(respond::status(StatusCode::CREATED))
    }

    async fn dav_make_folder(&self, visitor: &Visitor, place: &Place) -> Result<(), Error> {
        let description = Description { declared: Some(0), ..described("application/octet-stream") };
        self.dav_store(visitor, (&place.bucket, &place.placeholder()?), true, description, body::empty()).await?;
        Ok(())
    }

    async fn dav_store(
        &self,
        visitor: &Visitor,
        (bucket, key): (&BucketId, &ntier_protocol::storage::name::ObjectKey),
        upsert: bool,
        description: Description,
        body: Body,
    ) -> Result<Metadata, Error> {
        let caller = visitor.caller()?;
        let owner = owner(caller);
        let target = Target { bucket, key, owner: owner.as_deref(), upsert };
        let request = Request::of(visitor, "storage.object.upload");
        let limits = self.may_upload(Some(caller), &request, &target, &description).await?;
        Ok(self.write(&limits, &target, &description, Source::Raw(body)).await?.1)
    }

    async fn dav_delete(&self, visitor: &Visitor, place: &Place) -> Answer {
        if place.path.is_empty() {
            // A whole bucket is not lost by a slip of the mouse.
            return Err(Fault::Status(StatusCode::FORBIDDEN));
        }
        let found = self.dav_look(visitor, place).await?;
        if found.kind == Kind::Nothing {
            return Err(Wire::no_such_key().into());
        }
        if found.kind == Kind::Folder && depth(visitor).is_some_and(|depth| depth != "infinity") {
            return Err(Fault::Status(StatusCode::BAD_REQUEST));
        }
        self.dav_may_change(visitor, place, &found, locks::Change::Tree).await?;
        self.dav_remove(visitor, place, &found.kind).await?;
        self.dav_drop_locks(place).await?;
        Ok(respond::status(StatusCode::NO_CONTENT))
    }

    /// Removes the file, or the folder with all below.
    async fn dav_remove(&self, visitor: &Visitor, place: &Place, kind: &Kind) -> Result<(), Fault> {
        if *kind != Kind::Folder {
            let removed = self.remove_named(visitor, &place.bucket, std::slice::from_ref(&place.path)).await?;
            // It is seen, and yet it may not be removed.
            return if removed.is_empty() { Err(Fault::Status(StatusCode::FORBIDDEN)) } else { Ok(()) };
        }
        const REMOVE: &str = "with next as (select id, name from storage.objects where bucket_id = $1 and name collate \"C\" >= $2 \
            and name collate \"C\" < storage.after_prefix($2) and name collate \"C\" > $3 order by name collate \"C\" limit 1000), \
            removed as (delete from storage.objects o using next where o.id = next.id returning o.name, o.version) \
            select next.name, removed.version, removed.name from next left join removed using (name) order by next.name collate \"C\"";
        let (prefix, mut after) = (place.prefix(), String::new());
        let mut left = Vec::new();
        loop {
            let step = sql(REMOVE, &[Some(place.bucket.as_str()), Some(&prefix), Some(&after)]);
            let answer = self.change(visitor, "storage.object.delete_many", step).await?;
            let rows = answer.results.first().map(|result| result.rows.as_slice()).unwrap_or_default();
            self.discard(rows.iter().filter_map(|row| row.text(1)).map(str::to_owned).collect());
            let stays = rows.iter().filter(|row| row.text(2).is_none()).filter_map(|row| row.text(0));
            let room = 100 - left.len().min(100);
            left.extend(stays.take(room).map(|name| (place::href(Some(&place.bucket), name, false), 403)));
            match rows.last().and_then(|row| row.text(0)) {
                Some(name) => name.clone_into(&mut after),
                None => break,
            }
        }
        if left.is_empty() { Ok(()) } else { Err(Fault::Partly(left)) }
    }
}

const DAV: HeaderName = HeaderName::from_static("dav");

fn options() -> Response<Body> {
    let mut response = respond::status(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(DAV, HeaderValue::from_static("1, 2"));
    headers.insert(header::ALLOW, HeaderValue::from_static(ALLOW));
    // Windows asks no server that does not say so.
    headers.insert(HeaderName::from_static("ms-author-via"), HeaderValue::from_static("DAV"));
    response
}

fn respond_fault(fault: Fault) -> Response<Body> {
    match fault {
        Fault::Error(error) => {
            let wire = error.wire();
            let status = StatusCode::from_u16(wire.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            plain(status, &wire.message)
        }
        Fault::Status(status) => plain(status, status.canonical_reason().unwrap_or_default()),
        Fault::Condition(status, name) => {
            let mut response = multistatus(xml::condition(name));
            *response.status_mut() = status;
            response
        }
        Fault::Partly(failed) => multistatus(xml::failures(&failed)),
    }
}

fn plain(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = Response::new(body::full(message.to_owned()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn multistatus(xml: String) -> Response<Body> {
    let mut response = plain(StatusCode::MULTI_STATUS, &xml);
    let media_type = HeaderValue::from_static("application/xml; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

fn depth(visitor: &Visitor) -> Option<&str> {
    visitor.header(&HeaderName::from_static("depth"))
}

/// Whether what is below is told too. Everything at any depth is refused: it may be the whole bucket.
fn depth_of_listing(visitor: &Visitor) -> Result<bool, Fault> {
    match depth(visitor) {
        Some("0") => Ok(false),
        Some("1") => Ok(true),
        Some("infinity") | None => Err(Fault::Condition(StatusCode::FORBIDDEN, "propfind-finite-depth")),
        Some(_) => Err(Fault::Status(StatusCode::BAD_REQUEST)),
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

fn file((href, path): (String, &str), name: &str, metadata: &Metadata, created: &str) -> Entry {
    Entry {
        href,
        path: path.to_owned(),
        name: name.to_owned(),
        is_folder: false,
        size_bytes: metadata.size_bytes,
        media_type: metadata.media_type.clone(),
        etag: metadata.etag.clone(),
        modified: metadata.modified,
        created: created.to_owned(),
        locks: String::new(),
    }
}

/// A row of a listing; `None` for what only keeps its folder.
fn entry(place: &Place, prefix: &str, row: &Row) -> Option<Entry> {
    let path = row.text(0)?;
    let name = path.strip_prefix(prefix)?.trim_end_matches('/');
    if name.is_empty() || name == PLACEHOLDER {
        return None;
    }
    let is_folder = row.text(1).is_none();
    let href = place::href(Some(&place.bucket), path, is_folder);
    if is_folder {
        return Some(Entry { href, path: path.to_owned(), name: name.to_owned(), is_folder, ..Entry::default() });
    }
    Some(file((href, path), name, &Metadata::of(row.text(2)), row.text(3).unwrap_or_default()))
}

fn described(media_type: &str) -> Description {
    Description {
        media_type: media_type.to_owned(),
        cache_control: "no-cache".into(),
        robots: None,
        user_metadata: None,
        declared: None,
    }
}

/// What a file is by its name: file managers often do not say it.
fn media_type(path: &str) -> &'static str {
    let extension = path.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).unwrap_or_default();
    match extension.as_str() {
        "avif" => "image/avif",
        "bmp" => "image/bmp",
        "css" => "text/css",
        "csv" => "text/csv",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "gif" => "image/gif",
        "gz" => "application/gzip",
        "heic" => "image/heic",
        "htm" | "html" => "text/html",
        "jpg" | "jpeg" => "image/jpeg",
        "js" | "mjs" => "text/javascript",
        "json" => "application/json",
        "m4a" => "audio/mp4",
        "md" => "text/markdown",
        "mov" => "video/quicktime",
        "mp3" => "audio/mpeg",
        "mp4" => "video/mp4",
        "odt" => "application/vnd.oasis.opendocument.text",
        "ogg" => "audio/ogg",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "pptx" => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "svg" => "image/svg+xml",
        "tif" | "tiff" => "image/tiff",
        "txt" | "log" => "text/plain",
        "wav" => "audio/wav",
        "webm" => "video/webm",
        "webp" => "image/webp",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "xml" => "application/xml",
        "zip" => "application/zip",
        _ => "application/octet-stream",
    }
}
