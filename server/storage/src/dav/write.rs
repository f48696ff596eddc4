//! GET, PUT, MKCOL and DELETE.

use std::time::SystemTime;

use http::{StatusCode, header};
use ntier_backing::database::Statement;
use ntier_protocol::storage::condition::{Conditions, Verdict};
use ntier_protocol::storage::error::{Code, Error as Wire};
use ntier_protocol::storage::media_type;
use ntier_protocol::storage::name::ObjectKey;

use super::locks::{Change, Lock};
use super::place::{self, Place};
use super::{Answer, Fault, Kind, any_below, depth, is_infinite, plain, refused};
use crate::Storage;
use crate::body::{self, Body};
use crate::download::{Access, set};
use crate::error::Error;
use crate::respond;
use crate::session::{self, Mode, Request, Work, sql};
use crate::store::{self, Metadata, Object};
use crate::upload::{self, Description, Source, Target};
use crate::visitor::{Visitor, owner};

/// Of a folder's files that could not be removed, so many are told.
const MOST_TOLD: usize = 100;

/// A file on its way to its place.
pub(super) struct Upload {
    pub(super) description: Description,
    pub(super) body: Body,
    /// Whether it takes the place of another.
    pub(super) upsert: bool,
    /// What has to hold still when it is there.
    pub(super) given: Vec<Statement>,
}

impl Upload {
    /// A file of no bytes.
    pub(super) fn empty(media_type: &str, upsert: bool) -> Self {
        let description = Description {
            media_type: media_type.to_owned(),
            cache_control: "no-cache".into(),
            robots: None,
            user_metadata: None,
            declared: Some(0),
        };
        Self { description, body: body::empty(), upsert, given: Vec::new() }
    }
}

impl Storage {
    pub(super) async fn dav_get(&self, visitor: &Visitor, place: &Place) -> Answer {
        if !place.path.is_empty() && !place.with_slash {
            let steps: Vec<String> = place.path.split('/').map(str::to_owned).collect();
            match self.download(visitor, Access::Caller, place.bucket.as_str(), &steps).await {
                Err(error) if error.wire().code == Code::NoSuchKey => {}
                found => return Ok(found?),
            }
        }
        // Some clients ask so whether a folder is there.
        match self.dav_look(visitor, place).await?.kind {
            Kind::Folder => {
                Ok(plain(StatusCode::OK, "A folder. File managers and other clients of WebDAV show what is in it.\n"))
            }
            Kind::File(_) | Kind::Nothing => Err(Wire::no_such_key().into()),
        }
    }

    pub(super) async fn dav_put(&self, visitor: &Visitor, place: &Place, body: Body) -> Answer {
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
            Kind::File(object) => Some(object.as_ref()),
            Kind::Nothing => None,
        };
        self.dav_expect(visitor, place, &found.kind).await?;
        let change = if before.is_some() { Change::Content } else { Change::Made };
        let locks = self.dav_may_change(visitor, place, change).await?;
        // A date is no condition of a change (RFC 9110, 13.1.3).
        let conditions = Conditions { if_modified_since: None, ..visitor.conditions() };
        if !holds(&conditions, before) {
            return Err(Fault::Status(StatusCode::PRECONDITION_FAILED));
        }
        let mut given = vec![no_other_lock(place, &locks)];
        if conditions.if_match.is_some() || conditions.if_unmodified_since.is_some() {
            given.extend(before.map(|object| is_still(place, object)));
        }
        let upload = Upload {
            description: describe(visitor, place)?,
            body,
            // One of the two that make it at the same time is told that it is there.
            upsert: conditions.if_none_match.is_none_or(|tags| tags.trim() != "*"),
            given,
        };
        let metadata = self.dav_store(visitor, place, &place.key()?, upload).await.map_err(not_put)?;
        let status = if before.is_some() { StatusCode::NO_CONTENT } else { StatusCode::CREATED };
        let mut response = respond::status(status);
        set(response.headers_mut(), header::ETAG, &metadata.etag);
        Ok(response)
    }

    pub(super) async fn dav_mkcol(&self, visitor: &Visitor, place: &Place, mut body: Body) -> Answer {
        if body::next(&mut body).await?.is_some_and(|bytes| !bytes.is_empty()) {
            return Err(Fault::Status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        // With a slash a file is not seen.
        let found = self.dav_look(visitor, &place.without_slash()).await?;
        if found.kind != Kind::Nothing {
            return Err(Fault::Status(StatusCode::METHOD_NOT_ALLOWED));
        }
        if !found.has_parent {
            return Err(Fault::Status(StatusCode::CONFLICT));
        }
        self.dav_expect(visitor, place, &found.kind).await?;
        self.dav_may_change(visitor, place, Change::Made).await?;
        self.dav_make_folder(visitor, place).await?;
        Ok(respond::status(StatusCode::CREATED))
    }

    pub(super) async fn dav_make_folder(&self, visitor: &Visitor, place: &Place) -> Result<(), Error> {
        let upload = Upload::empty("application/octet-stream", true);
        self.dav_store(visitor, place, &place.placeholder()?, upload).await?;
        Ok(())
    }

    /// Puts an object into the place's bucket, as the caller.
    pub(super) async fn dav_store(
        &self,
        visitor: &Visitor,
        place: &Place,
        key: &ObjectKey,
        upload: Upload,
    ) -> Result<Metadata, Error> {
        let Upload { description, body, upsert, given } = upload;
        let caller = visitor.caller()?;
        let owner = owner(caller);
        let target = Target { bucket: &place.bucket, key, owner: owner.as_deref(), upsert };
        let request = Request::of(visitor, "storage.object.upload");
        let limits = self.may_upload(Some(caller), &request, &target, &description).await?;
        Ok(self.write(&limits, &target, &description, Source::Raw(body), given).await?.1)
    }

    pub(super) async fn dav_delete(&self, visitor: &Visitor, place: &Place) -> Answer {
        if place.path.is_empty() {
            // A whole bucket is not lost by a slip of the mouse.
            return Err(Fault::Status(StatusCode::FORBIDDEN));
        }
        let found = self.dav_look(visitor, place).await?;
        if found.kind == Kind::Nothing {
            return Err(Wire::no_such_key().into());
        }
        if found.kind == Kind::Folder && !is_infinite(depth(visitor)) {
            return Err(Fault::Status(StatusCode::BAD_REQUEST));
        }
        self.dav_expect(visitor, place, &found.kind).await?;
        self.dav_may_change(visitor, place, Change::Gone).await?;
        self.dav_remove(visitor, place, &found.kind).await?;
        self.dav_drop_locks(place).await?;
        self.dav_keep_parent(visitor, place).await?;
        Ok(respond::status(StatusCode::NO_CONTENT))
    }

    /// Removes the file, or the folder with all below that the caller may remove.
    pub(super) async fn dav_remove(&self, visitor: &Visitor, place: &Place, kind: &Kind) -> Result<(), Fault> {
        if *kind == Kind::Folder {
            return self.dav_remove_folder(visitor, place).await;
        }
        let removed = self.remove_named(visitor, &place.bucket, std::slice::from_ref(&place.path)).await?;
        // It is seen, and yet it may not be removed.
        if removed.is_empty() { Err(Fault::Status(StatusCode::FORBIDDEN)) } else { Ok(()) }
    }

    /// Step by step, so that others need not wait for all of it.
    async fn dav_remove_folder(&self, visitor: &Visitor, place: &Place) -> Result<(), Fault> {
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
            let told = stays.map(|name| (place::href(Some(&place.bucket), name, false), StatusCode::FORBIDDEN));
            left.extend(told.take(MOST_TOLD.saturating_sub(left.len())));
            match rows.last().and_then(|row| row.text(0)) {
                Some(name) => name.clone_into(&mut after),
                None => break,
            }
        }
        if left.is_empty() { Ok(()) } else { Err(Fault::Partly(left)) }
    }

    /// A folder stays when the last that was in it is gone, if the caller may keep it.
    pub(super) async fn dav_keep_parent(&self, visitor: &Visitor, place: &Place) -> Result<(), Error> {
        let Some(parent) = place.parent() else { return Ok(()) };
        let work = Work { service: Vec::new(), caller: vec![any_below(&parent.bucket, &parent.prefix())] };
        let request = Request::of(visitor, "storage.object.info");
        let answer = session::as_caller(&self.database, visitor.caller()?, &request, Mode::Read, work).await?;
        if store::first(&answer, 0).is_some() {
            return Ok(());
        }
        match self.dav_make_folder(visitor, &parent).await {
            Err(error) if error.wire().code == Code::AccessDenied => Ok(()),
            made => made,
        }
    }
}

/// What the client says of the file; what it does not say, the name does.
fn describe(visitor: &Visitor, place: &Place) -> Result<Description, Error> {
    let mut description = upload::describe(visitor)?;
    if !visitor.headers.contains_key(header::CONTENT_TYPE) {
        description.media_type = media_type::of_name(&place.path).into();
    }
    Ok(description)
}

/// Whether what is there is what the client takes it for.
fn holds(conditions: &Conditions<'_>, before: Option<&Object>) -> bool {
    match before {
        Some(object) => {
            let modified = object.metadata.modified.unwrap_or(SystemTime::UNIX_EPOCH);
            conditions.decide(&object.metadata.etag, modified) == Verdict::Proceed
        }
        None => conditions.if_match.is_none(),
    }
}

/// What `ntier.expect` refuses, and what it says where somebody has taken a lock meanwhile.
const UNEXPECTED: &str = "NT001";
const LOCKED: &str = "no lock";

fn not_put(error: Error) -> Fault {
    match (refused(&error, UNEXPECTED), error.wire().code) {
        (Some(refusal), _) if refusal.message == LOCKED => Fault::Condition(StatusCode::LOCKED, "lock-token-submitted"),
        (Some(_), _) | (None, Code::KeyAlreadyExists) => Fault::Status(StatusCode::PRECONDITION_FAILED),
        (None, _) => Fault::Error(error),
    }
}

/// The file that comes may take its time: nobody has locked its place since it was asked.
fn no_other_lock(place: &Place, known: &[Lock]) -> Statement {
    let known: Vec<&str> = known.iter().map(|lock| lock.token.as_str()).collect();
    sql(
        "select ntier.expect(not exists (select from ntier.dav_locks where bucket_id = $1 and expires_at > now() \
         and (name = $2 or (is_deep and (name = '' or starts_with($2, name || '/')))) \
         and token::text <> all (array(select jsonb_array_elements_text($3::jsonb)))), $4)",
        &[Some(place.bucket.as_str()), Some(&place.path), Some(&serde_json::json!(known).to_string()), Some(LOCKED)],
    )
}

/// Nor has anybody replaced the file.
fn is_still(place: &Place, object: &Object) -> Statement {
    sql(
        "select ntier.expect(exists (select from storage.objects where bucket_id = $1 and name = $2 and version = $3 for update), \
         'the file')",
        &[Some(place.bucket.as_str()), Some(&place.path), Some(&object.version)],
    )
}
