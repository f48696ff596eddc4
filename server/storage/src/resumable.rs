//! Resumable uploads (TUS 1.0.0) at `/upload/resumable`, with their state in PostgreSQL, so that any node continues what another began.
//!
//! What has come is kept in pieces: each is a blob, and counts once the row that names it is committed with the new offset. Whoever
//! sends last holds the upload; what an earlier request commits after that is refused, so a connection that hangs somewhere does not
//! disturb the client that came back. The last piece makes the object: rows alone, no byte is copied.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use md5::{Digest, Md5};
use ntier_backing::blobs::{BlobId, Writer, Written};
use ntier_backing::database::{Row, Statement};
use ntier_protocol::storage::error::{Code, Error as Wire};
use ntier_protocol::storage::name::{BucketId, ObjectKey};
use ntier_protocol::storage::tus::{self, Algorithm, Checksum};
use ntier_security::caller::Caller;
use ntier_security::signed_url::{Refusal, Scope};
use serde_json::Value;

use crate::Storage;
use crate::body::{self, Body};
use crate::download::set;
use crate::error::Error;
use crate::respond;
use crate::session::{self, Request, sql};
use crate::store::{self, Bucket, Metadata, Part};
use crate::upload::{self, Description, Target, hex, md5_hex};
use crate::visitor::{Visitor, now, owner};

/// Bytes after which a piece is committed: what a node that dies takes with it of one upload.
const PIECE: u64 = 32 << 20;
/// A last piece smaller than this is written again with what follows, so that nobody makes of a file a million pieces.
const SMALL: u64 = 256 << 10;
/// Pieces of one upload.
const MOST_PIECES: usize = 10_000;
/// Uploads of one owner that have not come to their end (checklist F5).
const MOST_UPLOADS: u32 = 500;

/// What 460, the protocol's own status, says.
const MISMATCH: &str = "Checksum Mismatch";

const RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const LENGTH: HeaderName = HeaderName::from_static("upload-length");
const DEFERRED: HeaderName = HeaderName::from_static("upload-defer-length");
const METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const EXPIRES: HeaderName = HeaderName::from_static("upload-expires");

/// Who uploads: the caller, or whoever has a signed URL.
struct Uploader<'a> {
    caller: Option<&'a Caller>,
    owner: Option<String>,
    upsert: bool,
}

/// An upload as its row says.
struct Upload {
    id: String,
    bucket: BucketId,
    key: ObjectKey,
    /// Bytes; `None` until the client says it.
    size: Option<u64>,
    offset: u64,
    description: Description,
    /// As the client wrote it.
    written_metadata: String,
    owner: Option<String>,
    upsert: bool,
    expires: SystemTime,
    is_complete: bool,
}

impl Storage {
    /// `/upload/resumable` and what is below it; `rest` are the steps of the path behind that.
    pub(crate) async fn resumable(&self, visitor: &Visitor, rest: &[&str], body: Body) -> Response<Body> {
        let answer = self.route_resumable(visitor, rest, body).await;
        let mut response = answer.unwrap_or_else(|error| refuse(&error, &visitor.method));
        response.headers_mut().insert(RESUMABLE, HeaderValue::from_static(tus::VERSION));
        response
    }

    async fn route_resumable(&self, visitor: &Visitor, rest: &[&str], body: Body) -> Result<Response<Body>, Error> {
        let (is_signed, rest) = match rest {
            ["sign", rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let rest: Vec<&str> = rest.iter().copied().filter(|step| !step.is_empty()).collect();
        let said = visitor.text("x-http-method-override").and_then(|name| Method::from_bytes(name.as_bytes()).ok());
        let method = said.unwrap_or_else(|| visitor.method.clone());
        if method == Method::OPTIONS {
            return Ok(self.tell());
        }
        if visitor.header(&RESUMABLE) != Some(tus::VERSION) {
            let mut response = respond::status(StatusCode::PRECONDITION_FAILED);
            response.headers_mut().insert("tus-version", HeaderValue::from_static(tus::VERSION));
            return Ok(response);
        }
        match (method, rest.as_slice()) {
            (Method::POST, []) => self.create(visitor, is_signed, body).await,
            (Method::HEAD, [address]) => self.tell_of(visitor, is_signed, address).await,
            (Method::PATCH, [address]) => self.append(visitor, is_signed, address, body).await,
            (Method::DELETE, [address]) => self.terminate(visitor, is_signed, address).await,
            _ => Ok(respond::status(StatusCode::NOT_FOUND)),
        }
    }

    /// What this server can.
    fn tell(&self) -> Response<Body> {
        let mut response = respond::status(StatusCode::NO_CONTENT);
        let headers = response.headers_mut();
        headers.insert("tus-version", HeaderValue::from_static(tus::VERSION));
        headers.insert("tus-extension", HeaderValue::from_static(tus::EXTENSIONS));
        headers.insert("tus-checksum-algorithm", HeaderValue::from_static(tus::CHECKSUMS));
        headers.insert("tus-max-size", self.settings.file_size_limit.into());
        response
    }

    async fn create(&self, visitor: &Visitor, is_signed: bool, body: Body) -> Result<Response<Body>, Error> {
        let written_metadata = visitor.header(&METADATA).unwrap_or_default().to_owned();
        if written_metadata.is_empty() {
            return Err(Wire::new(Code::InvalidRequest, "Metadata header is required").into());
        }
        let said = tus::metadata(&written_metadata)?;
        let (bucket, key) = (BucketId::parse(&said.bucket)?, ObjectKey::parse(&said.object)?);
        let size = match (number(visitor, &LENGTH)?, visitor.header(&DEFERRED)) {
            (Some(size), None) => Some(size),
            (None, Some("1")) => None,
            _ => {
                return Err(
                    Wire::new(Code::InvalidRequest, "Upload-Length or Upload-Defer-Length header required").into()
                );
            }
        };
        let uploader = self.uploader(visitor, is_signed, &bucket, &key)?;
        let description = Description {
            media_type: said.content_type.unwrap_or_else(|| "application/octet-stream".into()),
            cache_control: said.cache_control.map_or_else(|| "no-cache".into(), |seconds| format!("max-age={seconds}")),
            robots: None,
            user_metadata: said
                .user_metadata
                .as_deref()
                .map(|json| upload::plain_metadata(json.as_bytes()))
                .transpose()?
                .flatten(),
            declared: size,
        };
        self.may(visitor, &uploader, &bucket, &key, &description, "storage.tus.upload.create").await?;
        let id = BlobId::random().to_string();
        let mut upload = Upload {
            id,
            bucket,
            key,
            size,
            offset: 0,
            description,
            written_metadata,
            owner: uploader.owner.clone(),
            upsert: uploader.upsert,
            expires: self.expiry(),
            is_complete: false,
        };
        self.insert_upload(&upload, &uploader).await?;
        let has_bytes = visitor.header(&header::CONTENT_TYPE) == Some(tus::MEDIA_TYPE);
        if has_bytes || upload.size == Some(0) {
            let body = if has_bytes { body } else { body::empty() };
            match self.take(&mut upload, checksum(visitor)?, body).await {
                // The upload is there, with what has come.
                Ok(_) | Err(Error::Broken(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let mut response = respond::status(StatusCode::CREATED);
        let headers = response.headers_mut();
        let place = if is_signed { "/sign" } else { "" };
        let address = upload.address();
        set(headers, header::LOCATION, &format!("/storage/v1/upload/resumable{place}/{address}"));
        set(headers, EXPIRES, &httpdate::fmt_http_date(upload.expires));
        if has_bytes {
            headers.insert(OFFSET, upload.offset.into());
        }
        Ok(response)
    }

    async fn tell_of(&self, visitor: &Visitor, is_signed: bool, address: &str) -> Result<Response<Body>, Error> {
        let mut upload = self.find_upload(address).await?;
        self.own(visitor, is_signed, &upload)?;
        // All is here, but for the last step: a client that is told so will not come again.
        if upload.size == Some(upload.offset)
            && !upload.is_complete
            && let Some(held) = self.hold(&mut upload, BlobId::random().as_str()).await?
        {
            self.complete(&mut upload, &held).await?;
        }
        let mut response = respond::status(StatusCode::OK);
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(OFFSET, upload.offset.into());
        match upload.size {
            Some(size) => headers.insert(LENGTH, size.into()),
            None => headers.insert(DEFERRED, 1.into()),
        };
        set(headers, METADATA, &upload.written_metadata);
        set(headers, EXPIRES, &httpdate::fmt_http_date(upload.expires));
        Ok(response)
    }

    async fn append(
        &self,
        visitor: &Visitor,
        is_signed: bool,
        address: &str,
        body: Body,
    ) -> Result<Response<Body>, Error> {
        if visitor.header(&header::CONTENT_TYPE) != Some(tus::MEDIA_TYPE) {
            return Ok(respond::status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let Some(offset) = number(visitor, &OFFSET)? else {
            return Err(Wire::new(Code::InvalidRequest, "Upload-Offset header required").into());
        };
        let mut upload = self.find_upload(address).await?;
        let uploader = self.own(visitor, is_signed, &upload)?;
        if offset != upload.offset {
            return Ok(conflict(upload.offset));
        }
        let said = number(visitor, &LENGTH)?;
        if said.is_some_and(|said| said < upload.offset || upload.size.is_some_and(|size| size != said)) {
            return Err(Wire::new(Code::InvalidRequest, "Upload-Length is not what was said or has come").into());
        }
        upload.size = upload.size.or(said);
        upload.description.declared = upload.size;
        if !upload.is_complete {
            let Upload { bucket, key, description, .. } = &upload;
            self.may(visitor, &uploader, bucket, key, description, "storage.tus.upload.part").await?;
            match self.take(&mut upload, checksum(visitor)?, body).await {
                Ok(true) => {}
                // What has come of a body that broke off, or was too slow, is kept: a client that is still there goes on behind it.
                Ok(false) | Err(Error::Broken(_)) => return Ok(conflict(upload.offset)),
                Err(error) => return Err(error),
            }
        }
        let mut response = respond::status(StatusCode::NO_CONTENT);
        response.headers_mut().insert(OFFSET, upload.offset.into());
        set(response.headers_mut(), EXPIRES, &httpdate::fmt_http_date(upload.expires));
        Ok(response)
    }

    async fn terminate(&self, visitor: &Visitor, is_signed: bool, address: &str) -> Result<Response<Body>, Error> {
        let upload = self.find_upload(address).await?;
        self.own(visitor, is_signed, &upload)?;
        if !self.end(&upload.id).await? {
            return Err(Wire::new(Code::TusError, "Cannot terminate an already completed upload").into());
        }
        Ok(respond::status(StatusCode::NO_CONTENT))
    }

    /// Takes the bytes of a request; false where another request holds the upload now.
    async fn take(&self, upload: &mut Upload, checksum: Option<Checksum>, mut body: Body) -> Result<bool, Error> {
        let holder = BlobId::random().to_string();
        let Some(mut held) = self.hold(upload, &holder).await? else { return Ok(false) };
        let limit = self.limit(&held.limits, &upload.key);
        let mut check = checksum.map(Check::new);
        // What is checked as a whole is kept as a whole.
        let piece = if check.is_some() { u64::MAX } else { PIECE };
        let mut open: Option<Open> = None;
        let mut received = upload.offset;
        let end = loop {
            let bytes = match body::next(&mut body).await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break Ok(()),
                Err(cause) => break Err(cause),
            };
            received += bytes.len() as u64;
            if upload.size.is_some_and(|size| received > size) || received > limit {
                return Err(Wire::too_large().into());
            }
            if let Some(check) = &mut check {
                check.update(&bytes);
            }
            let writing = match &mut open {
                Some(writing) => writing,
                None => open.insert(self.open(&held.pieces).await?),
            };
            writing.write(bytes).await?;
            if writing.new_bytes >= piece
                && let Some(writing) = open.take()
                && !self.commit_piece(upload, &holder, &mut held.pieces, writing).await?
            {
                return Ok(false);
            }
        };
        if let Some(check) = check
            && (end.is_err() || !check.finds_right())
        {
            end?;
            return Err(Wire::new(Code::InvalidChecksum, MISMATCH).into());
        }
        if let Some(writing) = open.take()
            && !self.commit_piece(upload, &holder, &mut held.pieces, writing).await?
        {
            return Ok(false);
        }
        // What came before the client went is kept, and it goes on from there.
        end?;
        if upload.size == Some(upload.offset) {
            self.complete(upload, &held).await?;
        }
        Ok(true)
    }

    /// Says that this request holds the upload now, and gives what is there; `None` where its offset has changed, or its length is
    /// another already.
    async fn hold(&self, upload: &mut Upload, holder: &str) -> Result<Option<Held>, Error> {
        let take = sql(
            "update ntier.storage_uploads set taken_by = $2::uuid, size = coalesce(size, $3::bigint), updated_at = now(), \
             expires_at = now() + make_interval(secs => $5::int) \
             where id = $1::uuid and offset_bytes = $4::bigint and completed_at is null \
             and (size is null or $3::bigint is null or size = $3::bigint) returning size",
            &[
                Some(&upload.id),
                Some(holder),
                upload.size.map(|size| size.to_string()).as_deref(),
                Some(&upload.offset.to_string()),
                Some(&self.settings.resumable_seconds.to_string()),
            ],
        );
        let pieces = sql(
            "select number, blob, size, md5 from ntier.object_parts where version = $1::uuid order by number",
            &[Some(&upload.id)],
        );
        let expires = self.expiry();
        let answer = session::finish(&self.database, vec![take, pieces, Bucket::select(&upload.bucket)]).await?;
        let Some(row) = store::first(&answer, 0) else { return Ok(None) };
        upload.size = row.text(0).and_then(|size| size.parse().ok());
        upload.expires = expires;
        let rows = answer.results.get(1).map(|result| result.rows.as_slice()).unwrap_or_default();
        let pieces = rows.iter().map(Piece::of).collect::<Result<_, _>>()?;
        Ok(Some(Held { pieces, limits: Bucket::of(&answer, 2).ok_or_else(Wire::no_such_bucket)? }))
    }

    /// Begins a piece: a new one, or the last again where it is small.
    async fn open(&self, pieces: &[Piece]) -> Result<Open, Error> {
        let mut writer = self.blobs.writer().await?;
        let last = pieces.last().filter(|piece| piece.size_bytes < SMALL).cloned();
        if let Some(last) = &last {
            let part = Part { blob: last.blob, size_bytes: last.size_bytes };
            let segments = body::segments(part, &[], 0..last.size_bytes);
            let mut bytes = body::stream(&self.blobs, segments).await?;
            while let Some(bytes) = body::own(&mut bytes).await? {
                writer.write(bytes).await?;
            }
        } else if pieces.len() >= MOST_PIECES {
            return Err(Wire::new(Code::EntityTooLarge, "The upload came in too many pieces").into());
        }
        Ok(Open { writer, again: last, new_bytes: 0 })
    }

    /// Commits a piece with the offset behind it; false where another request holds the upload now.
    async fn commit_piece(
        &self,
        upload: &mut Upload,
        holder: &str,
        pieces: &mut Vec<Piece>,
        open: Open,
    ) -> Result<bool, Error> {
        let Open { writer, again, new_bytes } = open;
        let written: Written = writer.finish().await?;
        let number = again.as_ref().map_or_else(|| pieces.last().map_or(1, |last| last.number + 1), |last| last.number);
        let piece = Piece { number, blob: written.id, size_bytes: written.size_bytes, md5: md5_hex(&written) };
        let expires = self.expiry();
        let answer =
            session::finish(&self.database, piece.commit(upload, holder, new_bytes, self.settings.resumable_seconds))
                .await;
        let held = answer.as_ref().is_ok_and(|answer| store::first(answer, 0).is_some());
        if !held {
            // A lost answer may have been a commit: then the row names the blob, and the sweeper leaves it.
            if answer.is_ok() {
                self.forget(vec![written.id]);
            }
            answer?;
            return Ok(false);
        }
        upload.offset += new_bytes;
        upload.expires = expires;
        if let Some(last) = again {
            pieces.pop();
            self.forget(vec![last.blob]);
        }
        pieces.push(piece);
        Ok(true)
    }

    /// All has come: the object is there with the commit of its row. Of several requests that find it so, one does it.
    async fn complete(&self, upload: &mut Upload, held: &Held) -> Result<(), Error> {
        let Held { pieces, limits } = held;
        let parts: Vec<Part> =
            pieces.iter().map(|piece| Part { blob: piece.blob, size_bytes: piece.size_bytes }).collect();
        if let Err(cause) = self.look_at_parts(&upload.description.media_type, limits, &parts).await {
            // It will never be anything else.
            if matches!(cause, Error::Refused(_)) {
                self.end(&upload.id).await?;
            }
            return Err(cause);
        }
        let etag = match pieces.as_slice() {
            [one] => format!("\"{}\"", one.md5),
            _ => etag_of_parts(pieces.iter().map(|piece| piece.md5.as_str())),
        };
        let metadata = Metadata {
            size_bytes: upload.offset,
            media_type: upload.description.media_type.clone(),
            cache_control: upload.description.cache_control.clone(),
            etag,
            modified: Some(SystemTime::now()),
            robots: None,
        };
        // Whoever comes second waits here for the first, and for the sweeper, and finds it done or gone.
        let mut first = vec![sql(
            "with upload as (update ntier.storage_uploads set completed_at = now() \
             where id = $1::uuid and completed_at is null returning id) \
             select ntier.expect(exists (select from upload), 'the upload')",
            &[Some(&upload.id)],
        )];
        if pieces.is_empty() {
            // A file of no bytes has a blob all the same.
            let written = self.blobs.writer().await?.finish().await?;
            let piece = Piece { number: 1, blob: written.id, size_bytes: 0, md5: md5_hex(&written) };
            first.push(piece.insert(&upload.id));
        }
        let target =
            Target { bucket: &upload.bucket, key: &upload.key, owner: upload.owner.as_deref(), upsert: upload.upsert };
        let user_metadata = upload.description.user_metadata.clone();
        match self.put_row(&target, &metadata, user_metadata, &upload.id, first).await {
            Err(error) if session::is_changed(&error) => {
                *upload = self.find_upload(&upload.address()).await?;
                if upload.is_complete { Ok(()) } else { Err(error) }
            }
            done => {
                done?;
                upload.is_complete = true;
                Ok(())
            }
        }
    }

    /// Ends an upload that is not complete; false where there is none.
    async fn end(&self, id: &str) -> Result<bool, Error> {
        let statement = sql(
            "delete from ntier.storage_uploads where id = $1::uuid and completed_at is null returning id",
            &[Some(id)],
        );
        let answer = session::finish(&self.database, vec![statement]).await?;
        let is_ended = store::first(&answer, 0).is_some();
        if is_ended {
            self.discard(vec![id.to_owned()]);
        }
        Ok(is_ended)
    }

    fn uploader<'a>(
        &self,
        visitor: &'a Visitor,
        is_signed: bool,
        bucket: &BucketId,
        key: &ObjectKey,
    ) -> Result<Uploader<'a>, Error> {
        if !is_signed {
            let caller = visitor.caller()?;
            return Ok(Uploader { caller: Some(caller), owner: owner(caller), upsert: visitor.upsert() });
        }
        let Some(token) = visitor.text("x-signature") else {
            return Err(Wire::new(Code::InvalidSignature, "Missing x-signature header").into());
        };
        let grant = self.signer.check(token, &format!("{bucket}/{key}"), Scope::Upload, now());
        let grant = grant.map_err(|refusal: Refusal| Wire::new(Code::InvalidSignature, refusal.to_string()))?;
        Ok(Uploader { caller: None, owner: grant.owner, upsert: grant.upsert })
    }

    /// Who may go on with the upload: whoever began it, the service, or whoever has a signed URL for its object.
    fn own<'a>(&self, visitor: &'a Visitor, is_signed: bool, upload: &Upload) -> Result<Uploader<'a>, Error> {
        let mut uploader = self.uploader(visitor, is_signed, &upload.bucket, &upload.key)?;
        let is_service = uploader.caller.is_some_and(|caller| caller.role == "service_role");
        if !is_service && uploader.owner != upload.owner {
            return Err(Wire::new(Code::NoSuchUpload, "Upload not found").into());
        }
        uploader.upsert = upload.upsert;
        Ok(uploader)
    }

    /// Asks whether such an object may be put there.
    async fn may(
        &self,
        visitor: &Visitor,
        uploader: &Uploader<'_>,
        bucket: &BucketId,
        key: &ObjectKey,
        description: &Description,
        operation: &'static str,
    ) -> Result<(), Error> {
        let target = Target { bucket, key, owner: uploader.owner.as_deref(), upsert: uploader.upsert };
        let request = Request::of(visitor, operation);
        let limits = self.may_upload(uploader.caller, &request, &target, description).await?;
        upload::check(description, &limits, self.limit(&limits, key), key)
    }

    fn expiry(&self) -> SystemTime {
        SystemTime::now() + Duration::from_secs(self.settings.resumable_seconds.into())
    }

    async fn insert_upload(&self, upload: &Upload, uploader: &Uploader<'_>) -> Result<(), Error> {
        let text = "insert into ntier.storage_uploads \
             (id, bucket_id, name, size, metadata, upload_metadata, user_metadata, owner_id, role, claims, upsert, expires_at) \
             select $1::uuid, $2, $3, $4::bigint, $5::jsonb, $6, $7::jsonb, $8, $9, $10::jsonb, $11::boolean, \
             now() + make_interval(secs => $12::int) \
             where (select count(*) from ntier.storage_uploads where owner_id is not distinct from $8 and role = $9 \
             and completed_at is null and expires_at > now()) < $13::bigint returning id";
        let metadata = serde_json::json!({
            "mimetype": upload.description.media_type,
            "cacheControl": upload.description.cache_control,
        });
        let user_metadata = upload.description.user_metadata.as_ref().map(Value::to_string);
        let signed = r#"{"signed":true}"#;
        let statement = sql(
            text,
            &[
                Some(&upload.id),
                Some(upload.bucket.as_str()),
                Some(upload.key.as_str()),
                upload.size.map(|size| size.to_string()).as_deref(),
                Some(&metadata.to_string()),
                Some(&upload.written_metadata),
                user_metadata.as_deref(),
                upload.owner.as_deref(),
                Some(uploader.caller.map_or("service_role", |caller| caller.role.as_str())),
                Some(uploader.caller.map_or(signed, |caller| &caller.claims)),
                Some(if upload.upsert { "true" } else { "false" }),
                Some(&self.settings.resumable_seconds.to_string()),
                Some(&MOST_UPLOADS.to_string()),
            ],
        );
        let answer = session::finish(&self.database, vec![statement]).await?;
        if store::first(&answer, 0).is_none() {
            let message = "Too many uploads have been begun and not finished";
            return Err(Wire::new(Code::SlowDown, message).into());
        }
        Ok(())
    }

    async fn find_upload(&self, address: &str) -> Result<Upload, Error> {
        let missing = || Wire::new(Code::NoSuchUpload, "Upload not found");
        let id = tus::id(address).filter(|id| uuid::Uuid::try_parse(id).is_ok()).ok_or_else(missing)?;
        let statement = sql(
            "select id, bucket_id, name, size, offset_bytes, metadata, upload_metadata, user_metadata, owner_id, upsert, \
             extract(epoch from expires_at)::bigint, completed_at is not null \
             from ntier.storage_uploads where id = $1::uuid and expires_at > now()",
            &[Some(&id)],
        );
        let answer = session::look(&self.database, vec![statement]).await?;
        Upload::of(store::first(&answer, 0).ok_or_else(missing)?)
    }
}

impl Upload {
    /// The last step of its URL.
    fn address(&self) -> String {
        tus::address(self.bucket.as_str(), self.key.as_str(), &self.id)
    }

    fn of(row: &Row) -> Result<Self, Error> {
        let text = |column: usize| row.text(column).map(str::to_owned);
        let number = |column: usize| row.text(column).and_then(|text| text.parse::<u64>().ok());
        let described: Value = row.text(5).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        let said = |name: &str, otherwise: &str| described[name].as_str().unwrap_or(otherwise).to_owned();
        let size = number(3);
        Ok(Self {
            id: text(0).ok_or(Error::Incomplete)?,
            bucket: BucketId::parse(row.text(1).unwrap_or_default())?,
            key: ObjectKey::parse(row.text(2).unwrap_or_default())?,
            size,
            offset: number(4).ok_or(Error::Incomplete)?,
            description: Description {
                media_type: said("mimetype", "application/octet-stream"),
                cache_control: said("cacheControl", "no-cache"),
                robots: None,
                user_metadata: row.text(7).and_then(|json| serde_json::from_str(json).ok()),
                declared: size,
            },
            written_metadata: text(6).unwrap_or_default(),
            owner: text(8),
            upsert: row.text(9) == Some("t"),
            expires: SystemTime::UNIX_EPOCH + Duration::from_secs(number(10).unwrap_or_default()),
            is_complete: row.text(11) == Some("t"),
        })
    }
}

/// What a request finds that holds an upload.
struct Held {
    pieces: Vec<Piece>,
    limits: Bucket,
}

/// A part that is there.
#[derive(Debug, Clone)]
struct Piece {
    number: u32,
    blob: BlobId,
    size_bytes: u64,
    md5: String,
}

impl Piece {
    fn of(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            number: row.text(0).and_then(|text| text.parse().ok()).ok_or(Error::Incomplete)?,
            blob: row.text(1).and_then(BlobId::parse).ok_or(Error::Incomplete)?,
            size_bytes: row.text(2).and_then(|text| text.parse().ok()).ok_or(Error::Incomplete)?,
            md5: row.text(3).unwrap_or_default().to_owned(),
        })
    }

    fn insert(&self, version: &str) -> Statement {
        sql(
            "insert into ntier.object_parts (version, number, blob, size, md5) values ($1::uuid, $2::int, $3::uuid, $4::bigint, $5) \
             on conflict (version, number) do update set blob = excluded.blob, size = excluded.size, md5 = excluded.md5",
            &[
                Some(version),
                Some(&self.number.to_string()),
                Some(self.blob.as_str()),
                Some(&self.size_bytes.to_string()),
                Some(&self.md5),
            ],
        )
    }

    /// One statement, so that the row of the part is there only if the offset is.
    fn commit(&self, upload: &Upload, holder: &str, new_bytes: u64, seconds: u32) -> Vec<Statement> {
        vec![sql(
            "with held as (update ntier.storage_uploads set offset_bytes = offset_bytes + $3::bigint, updated_at = now(), \
             expires_at = now() + make_interval(secs => $4::int) \
             where id = $1::uuid and taken_by = $2::uuid and offset_bytes = $5::bigint and completed_at is null returning id), \
             part as (insert into ntier.object_parts (version, number, blob, size, md5) \
             select id, $6::int, $7::uuid, $8::bigint, $9 from held \
             on conflict (version, number) do update set blob = excluded.blob, size = excluded.size, md5 = excluded.md5) \
             select id from held",
            &[
                Some(&upload.id),
                Some(holder),
                Some(&new_bytes.to_string()),
                Some(&seconds.to_string()),
                Some(&upload.offset.to_string()),
                Some(&self.number.to_string()),
                Some(self.blob.as_str()),
                Some(&self.size_bytes.to_string()),
                Some(&self.md5),
            ],
        )]
    }
}

/// A piece that is being written.
struct Open {
    writer: Writer,
    /// The piece whose bytes are at its beginning.
    again: Option<Piece>,
    new_bytes: u64,
}

impl Open {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.new_bytes += bytes.len() as u64;
        Ok(self.writer.write(bytes).await?)
    }
}

/// The `ETag` of an object in parts, as S3 makes it: the MD5 of their MD5s, and how many they are.
pub fn etag_of_parts<'a>(md5s: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Md5::new();
    let mut count = 0;
    for md5 in md5s {
        hash.update(unhex(md5));
        count += 1;
    }
    format!("\"{}-{count}\"", hex(&hash.finalize()))
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// A checksum on its way.
struct Check {
    wanted: Vec<u8>,
    so_far: Hash,
}

enum Hash {
    Md5(Md5),
    Sha(digest::Context),
}

impl Check {
    fn new(checksum: Checksum) -> Self {
        let so_far = match checksum.algorithm {
            Algorithm::Md5 => Hash::Md5(Md5::new()),
            Algorithm::Sha1 => Hash::Sha(digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY)),
            Algorithm::Sha256 => Hash::Sha(digest::Context::new(&digest::SHA256)),
        };
        Self { wanted: checksum.digest, so_far }
    }

    fn update(&mut self, bytes: &[u8]) {
        match &mut self.so_far {
            Hash::Md5(hash) => hash.update(bytes),
            Hash::Sha(hash) => hash.update(bytes),
        }
    }

    fn finds_right(self) -> bool {
        match self.so_far {
            Hash::Md5(hash) => hash.finalize().as_slice() == self.wanted,
            Hash::Sha(hash) => hash.finish().as_ref() == self.wanted,
        }
    }
}

fn checksum(visitor: &Visitor) -> Result<Option<Checksum>, Error> {
    Ok(visitor.text("upload-checksum").map(tus::checksum).transpose()?)
}

fn number(visitor: &Visitor, name: &HeaderName) -> Result<Option<u64>, Error> {
    let Some(text) = visitor.header(name) else { return Ok(None) };
    // PostgreSQL's bigint has a sign.
    let number = text.parse::<u64>().ok().filter(|number| i64::try_from(*number).is_ok());
    number.map(Some).ok_or_else(|| Wire::new(Code::InvalidRequest, format!("{name} is not a number")).into())
}

/// Somebody else was faster: the client asks where to go on.
fn conflict(offset: u64) -> Response<Body> {
    let mut response = respond::status(StatusCode::CONFLICT);
    response.headers_mut().insert(OFFSET, offset.into());
    response
}

/// Here the status counts, and the body is text, as storage-api has it.
fn refuse(error: &Error, method: &Method) -> Response<Body> {
    let wire = error.wire();
    let mut response = Response::new(body::full(wire.message.clone()));
    let status = match wire.code {
        Code::InvalidChecksum if wire.message == MISMATCH => 460,
        // To any other of these, tus-js-client and what is made of it begin the upload anew.
        Code::SlowDown | Code::DatabaseTimeout if method == Method::HEAD => StatusCode::LOCKED.as_u16(),
        code => code.status(),
    };
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if wire.code == Code::SlowDown {
        headers.insert(header::RETRY_AFTER, respond::AGAIN);
    }
    response.extensions_mut().extend(respond::because(error));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_of_parts_are_those_of_s3() {
        // Two parts, "a" and "b".
        let md5s = ["0cc175b9c0f1b6a831c399e269772661", "92eb5ffee6ae2fec3ad71c777531578f"];
        assert_eq!(etag_of_parts(md5s.into_iter()), "\"96e024ba2074fe77e8e965ba43a704be-2\"");
    }
}
