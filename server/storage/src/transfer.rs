//! Moving and copying. A move changes a name and touches no blob; a copy has blobs of its own.

use std::time::SystemTime;

use http::Response;
use ntier_backing::blobs::{self, BlobId};
use ntier_protocol::storage::error::{Code, Error as Wire};
use ntier_protocol::storage::media_type;
use ntier_protocol::storage::name::{BucketId, ObjectKey};
use ntier_protocol::storage::request::{self, Transfer};
use ntier_security::caller::Caller;
use serde_json::{Value, json};

use crate::Storage;
use crate::body::{self, Body};
use crate::error::Error;
use crate::respond;
use crate::session::{self, Mode, Request, Work, sql};
use crate::store::{self, Bucket, Metadata, NewObject, Object, Part};
use crate::upload::Target;
use crate::visitor::{Visitor, owner};

/// From where to where.
#[derive(Debug, Clone)]
pub struct Route {
    pub from: (BucketId, ObjectKey),
    pub to: (BucketId, ObjectKey),
}

/// What a copy is, where it is not what its source is.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    pub media_type: Option<String>,
    pub cache_control: Option<String>,
    /// Instead of the source's, if it is not `None`.
    pub user_metadata: Option<Option<Value>>,
}

/// An object that a copy has made.
#[derive(Debug, Clone)]
pub struct Copied {
    pub id: String,
    pub version: String,
    pub metadata: Metadata,
    pub user_metadata: Option<Value>,
}

impl Route {
    fn of(wanted: &Transfer) -> Result<Self, Error> {
        let from = BucketId::parse(&wanted.bucket_id)?;
        let to = wanted.destination_bucket.as_deref().filter(|bucket| !bucket.is_empty());
        let to = to.map(BucketId::parse).transpose()?.unwrap_or_else(|| from.clone());
        // The source is what it is: an object of another time may have a name that none gets today.
        Ok(Self {
            from: (from, ObjectKey::parse(&wanted.source_key)?),
            to: (to, ObjectKey::parse(&wanted.destination_key)?),
        })
    }
}

impl Storage {
    /// `POST /object/move`.
    pub(crate) async fn move_object(&self, visitor: &Visitor, body: Body) -> Result<Response<Body>, Error> {
        let wanted: Transfer = request::parse(&body::whole(body).await?)?;
        let route = Route::of(&wanted)?;
        let request = Request::of(visitor, "storage.object.move");
        let id = self.rename(visitor.caller()?, &request, &route).await?;
        let key = route.to.1.as_str();
        Ok(respond::json(&json!({ "message": "Successfully moved", "Id": id, "Key": key })))
    }

    /// Gives the object another name, as the caller; gives its id.
    pub(crate) async fn rename(&self, caller: &Caller, request: &Request, route: &Route) -> Result<String, Error> {
        let Route { from, to } = route;
        // Seen and changed as the caller; the bucket it goes to takes what it takes.
        let see = Object::select(&from.0, &from.1);
        if from.0 != to.0 {
            let service = vec![Bucket::select(&to.0)];
            let work = Work { service, caller: vec![see.clone()] };
            let answer = session::as_caller(&self.database, caller, request, Mode::Read, work).await?;
            let bucket = Bucket::of(&answer, 0).ok_or_else(Wire::no_such_bucket)?;
            let object = Object::found(&answer, 1)?.ok_or_else(Wire::no_such_key)?;
            self.check_taken(&bucket, &to.1, &object.metadata)?;
        }
        let rename = sql(
            "update storage.objects set bucket_id = $3, name = $4 where bucket_id = $1 and name = $2 returning id",
            &[Some(from.0.as_str()), Some(from.1.as_str()), Some(to.0.as_str()), Some(to.1.as_str())],
        );
        let work = Work { service: Vec::new(), caller: vec![see, rename] };
        let answer = session::as_caller(&self.database, caller, request, Mode::Write, work).await;
        let answer = answer.map_err(|error| taken(error, false))?;
        store::first(&answer, 0).ok_or_else(Wire::no_such_key)?;
        // What may be seen and not changed is not there for who wants to change it, as storage-api has it.
        let id = store::first(&answer, 1).and_then(|row| row.text(0)).ok_or_else(Wire::no_such_key)?;
        Ok(id.to_owned())
    }

    /// `POST /object/copy`.
    pub(crate) async fn copy_object(&self, visitor: &Visitor, body: Body) -> Result<Response<Body>, Error> {
        let wanted: Transfer = request::parse(&body::whole(body).await?)?;
        let route = Route::of(&wanted)?;
        let mut changes = Changes::default();
        if wanted.copy_metadata == Some(false) {
            let metadata = wanted.metadata.unwrap_or_default();
            changes = Changes {
                media_type: metadata.mimetype,
                cache_control: metadata.cache_control,
                user_metadata: Some(crate::upload::describe(visitor)?.user_metadata),
            };
        }
        let request = Request::of(visitor, "storage.object.copy");
        let copied = self.copy(visitor.caller()?, &request, &route, changes, visitor.upsert()).await?;
        let (bucket, key) = &route.to;
        Ok(respond::json(&json!({
            "Id": copied.id,
            "Key": format!("{bucket}/{key}"),
            "id": copied.id,
            "name": key.as_str(),
            "bucket_id": bucket.as_str(),
            "version": copied.version,
            "metadata": copied.metadata.json(),
            "user_metadata": copied.user_metadata,
        })))
    }

    /// Copies the object, as the caller.
    pub(crate) async fn copy(
        &self,
        caller: &Caller,
        request: &Request,
        route: &Route,
        changes: Changes,
        upsert: bool,
    ) -> Result<Copied, Error> {
        match self.copy_once(caller, request, route, changes.clone(), upsert).await {
            // Its blob may be replaced between its row and its reading: then the row is read again.
            Err(Error::Blobs(blobs::Error::Missing(_))) => {
                self.copy_once(caller, request, route, changes, upsert).await
            }
            copied => copied,
        }
    }

    async fn copy_once(
        &self,
        caller: &Caller,
        request: &Request,
        route: &Route,
        changes: Changes,
        upsert: bool,
    ) -> Result<Copied, Error> {
        let Route { from, to } = route;
        let service = vec![Bucket::select(&to.0), store::select_parts(&from.0, &from.1)];
        let work = Work { service, caller: vec![Object::select(&from.0, &from.1)] };
        let answer = session::as_caller(&self.database, caller, request, Mode::Read, work).await?;
        let mut source = Object::found(&answer, 2)?.ok_or_else(Wire::no_such_key)?;
        source.parts = store::parts(&answer, 1, &source.version)?;
        let bucket = Bucket::of(&answer, 0).ok_or_else(Wire::no_such_bucket)?;
        let mut metadata = Metadata { modified: Some(SystemTime::now()), ..source.metadata.clone() };
        metadata.media_type = changes.media_type.unwrap_or(metadata.media_type);
        metadata.cache_control = changes.cache_control.unwrap_or(metadata.cache_control);
        let user_metadata = changes.user_metadata.unwrap_or_else(|| source.user_metadata.clone());
        self.check_taken(&bucket, &to.1, &metadata)?;
        let owner = owner(caller);
        let row = NewObject {
            bucket: &to.0,
            key: &to.1,
            owner: owner.as_deref(),
            metadata: metadata.json(),
            user_metadata: user_metadata.clone(),
            version: None,
            upsert,
            quota: self.settings.user_quota,
        };
        let work = Work { service: Vec::new(), caller: vec![row.insert()] };
        let tried = session::as_caller(&self.database, caller, request, Mode::Try, work).await;
        tried.map_err(|error| taken(error, upsert))?;
        let (version, parts) = self.copy_blobs(&source).await?;
        let target = Target { bucket: &to.0, key: &to.1, owner: owner.as_deref(), upsert };
        let with = if parts.is_empty() { Vec::new() } else { vec![store::insert_parts(version.as_str(), &parts)] };
        let id = self.put_row(&target, &metadata, user_metadata.clone(), version.as_str(), with).await?;
        Ok(Copied { id, version: version.to_string(), metadata, user_metadata })
    }

    /// Blobs of the same bytes, and the version that names them.
    async fn copy_blobs(&self, source: &Object) -> Result<(BlobId, Vec<Part>), Error> {
        if source.parts.is_empty() {
            let id = BlobId::parse(&source.version).ok_or_else(Wire::no_such_key)?;
            return Ok((self.blobs.copy(&id).await?, Vec::new()));
        }
        let mut parts = Vec::with_capacity(source.parts.len());
        for part in &source.parts {
            let blob = self.blobs.copy(&part.blob).await?;
            parts.push(Part { blob, size_bytes: part.size_bytes });
        }
        Ok((BlobId::random(), parts))
    }

    /// A bucket's limits hold for what comes from elsewhere too (checklist F1).
    fn check_taken(&self, bucket: &Bucket, key: &ObjectKey, metadata: &Metadata) -> Result<(), Error> {
        if !media_type::is_allowed(&metadata.media_type, &bucket.allowed_mime_types) {
            return Err(Wire::not_your_media_type(&metadata.media_type).into());
        }
        // What is there already may be as large as the server once allowed.
        let limit = bucket.file_size_limit.unwrap_or(u64::MAX).max(self.limit(bucket, key));
        if metadata.size_bytes > limit {
            return Err(Wire::too_large().into());
        }
        Ok(())
    }
}

fn taken(error: Error, upsert: bool) -> Error {
    match error.wire().code {
        Code::ResourceAlreadyExists if !upsert => Wire::already_exists(Code::KeyAlreadyExists).into(),
        _ => error,
    }
}
