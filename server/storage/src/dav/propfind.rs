//! PROPFIND: what there is, and what is said of it.

use http::{Response, StatusCode};
use ntier_backing::database::Row;
use ntier_protocol::storage::dav::answer::{self, Entry};
use ntier_protocol::storage::dav::body::{self as dav_body, Asked};
use ntier_protocol::storage::error::Error as Wire;
use ntier_protocol::storage::name::BucketId;

use super::place::{self, Place};
use super::{Answer, Fault, Kind, MOST, depth, is_infinite, xml};
use crate::Storage;
use crate::body::{self, Body};
use crate::session::{self, Mode, Request, Work, sql};
use crate::store::{self, Metadata, Object, time};
use crate::upload::PLACEHOLDER;
use crate::visitor::Visitor;

/// Entries that are read at once.
const PAGE: usize = 1000;

/// An entry, and where it is.
pub(super) struct Seen {
    /// In its bucket.
    pub(super) path: String,
    pub(super) entry: Entry,
}

impl Storage {
    pub(super) async fn dav_buckets(&self, visitor: &Visitor, body: Body) -> Answer {
        let is_deep = is_deep(visitor)?;
        let asked = dav_body::propfind(&body::whole(body).await?)?;
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
            // One that was named at another time may have no place here.
            entries.extend(answer.results.iter().flat_map(|result| &result.rows).filter_map(bucket));
        }
        tell(&entries, &asked)
    }

    pub(super) async fn dav_propfind(&self, visitor: &Visitor, place: &Place, body: Body) -> Answer {
        let is_deep = is_deep(visitor)?;
        let asked = dav_body::propfind(&body::whole(body).await?)?;
        let mut seen = match self.dav_look(visitor, place).await?.kind {
            Kind::Nothing => return Err(Wire::no_such_key().into()),
            Kind::File(object) => vec![file(place, &object)],
            Kind::Folder if is_deep => self.dav_list(visitor, place).await?,
            Kind::Folder => vec![folder(place, &place.path)],
        };
        self.dav_tell_locks(visitor, place, &mut seen).await?;
        self.dav_tell_properties(place, &asked, &mut seen).await?;
        tell(&seen.into_iter().map(|seen| seen.entry).collect::<Vec<_>>(), &asked)
    }

    /// The folder, and what is in it, read page by page.
    async fn dav_list(&self, visitor: &Visitor, place: &Place) -> Result<Vec<Seen>, Fault> {
        let prefix = place.prefix();
        let text = format!(
            "select l.name, l.id, l.metadata, {} from storage.list_objects_with_delimiter($1, $2, '/', {PAGE}, '', $3) l",
            time!("l.created_at")
        );
        let (mut seen, mut next) = (vec![folder(place, &place.path)], String::new());
        loop {
            let list = sql(&text, &[Some(place.bucket.as_str()), Some(&prefix), Some(&next)]);
            let work = Work { service: Vec::new(), caller: vec![list] };
            let request = Request::of(visitor, "storage.object.list");
            let answer = session::as_caller(&self.database, visitor.caller()?, &request, Mode::Read, work).await?;
            let rows = answer.results.first().map(|result| result.rows.as_slice()).unwrap_or_default();
            seen.extend(rows.iter().filter_map(|row| listed(place, &prefix, row)));
            // The folder is one more.
            if seen.len() > MOST + 1 {
                return Err(too_many());
            }
            match rows.last() {
                Some(last) if rows.len() >= PAGE => {
                    let slash = if last.text(1).is_none() { "/" } else { "" };
                    next = format!("{}{slash}", last.text(0).unwrap_or_default());
                }
                _ => return Ok(seen),
            }
        }
    }
}

/// Whether what is below is told too. Everything at any depth is refused: it may be the whole bucket. Clients that say nothing do not
/// mean that, though RFC 4918 would have it.
fn is_deep(visitor: &Visitor) -> Result<bool, Fault> {
    match depth(visitor) {
        Some("0") => Ok(false),
        Some("1") | None => Ok(true),
        depth if is_infinite(depth) => Err(Fault::Condition(StatusCode::FORBIDDEN, "propfind-finite-depth")),
        Some(_) => Err(Fault::Status(StatusCode::BAD_REQUEST)),
    }
}

fn tell(entries: &[Entry], asked: &Asked) -> Result<Response<Body>, Fault> {
    Ok(xml(StatusCode::MULTI_STATUS, answer::properties(entries, asked).ok_or_else(too_many)?))
}

pub(super) fn too_many() -> Fault {
    Fault::Condition(StatusCode::INSUFFICIENT_STORAGE, "number-of-matches-within-limits")
}

fn bucket(row: &Row) -> Option<Entry> {
    let bucket = BucketId::parse(row.text(0)?).ok()?;
    Some(Entry {
        href: place::href(Some(&bucket), "", true),
        name: bucket.as_str().to_owned(),
        is_folder: true,
        created: row.text(1).unwrap_or_default().to_owned(),
        modified: row.text(2).and_then(store::parse_time),
        ..Entry::default()
    })
}

/// A row of a listing; `None` for what only keeps its folder.
fn listed(place: &Place, prefix: &str, row: &Row) -> Option<Seen> {
    let path = row.text(0)?;
    let name = path.strip_prefix(prefix)?.trim_end_matches('/');
    if name.is_empty() || name == PLACEHOLDER {
        return None;
    }
    if row.text(1).is_none() {
        return Some(folder(place, path));
    }
    let entry = described(place, path, &Metadata::of(row.text(2)), row.text(3).unwrap_or_default());
    Some(Seen { path: path.to_owned(), entry })
}

fn file(place: &Place, object: &Object) -> Seen {
    let entry = described(place, &object.name, &object.metadata, &object.created_at);
    Seen { path: object.name.clone(), entry }
}

fn described(place: &Place, path: &str, metadata: &Metadata, created: &str) -> Entry {
    Entry {
        href: place::href(Some(&place.bucket), path, false),
        name: name(place, path),
        size_bytes: metadata.size_bytes,
        media_type: metadata.media_type.clone(),
        etag: metadata.etag.clone(),
        modified: metadata.modified,
        created: created.to_owned(),
        ..Entry::default()
    }
}

fn folder(place: &Place, path: &str) -> Seen {
    let href = place::href(Some(&place.bucket), path, true);
    let entry = Entry { href, name: name(place, path), is_folder: true, ..Entry::default() };
    Seen { path: path.to_owned(), entry }
}

/// The last step of the path; the bucket's for itself.
fn name(place: &Place, path: &str) -> String {
    let name = path.rsplit('/').next().filter(|name| !name.is_empty());
    name.unwrap_or(place.bucket.as_str()).to_owned()
}
