//! Uploads: whether the caller may is asked before the body is read; the blob is whole on the disk before its row is there, so a row
//! never names what is not.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::{HeaderName, Response, header};
use http_body_util::BodyDataStream;
use ntier_backing::blobs::Written;
use ntier_backing::database::Statement;
use ntier_protocol::storage::error::{Code, Error as Wire};
use ntier_protocol::storage::media_type;
use ntier_protocol::storage::name::{BucketId, ObjectKey};
use ntier_security::caller::Caller;
use ntier_security::signed_url::Scope;
use serde_json::{Value, json};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::Storage;
use crate::body::{self, Body};
use crate::error::Error;
use crate::respond;
use crate::session::{self, Mode, Request, Work};
use crate::store::{self, Bucket, Metadata, NewObject, Part};
use crate::visitor::{Visitor, now, owner, place};

/// Bytes of a caller's own metadata. Source: storage-api, `MAX_CUSTOM_METADATA_SIZE`.
const LARGEST_METADATA: usize = 1 << 20;
/// Fields of a form besides the file. Source: storage-api, `createObject.ts`.
const MOST_FIELDS: usize = 10;
/// Bytes of a form's field.
const LARGEST_FIELD: usize = LARGEST_METADATA;
/// Bytes of a file whose ETag is its MD5, which takes longer than all else that is done with a larger one; the ETag of others is their version.
const LARGEST_HASHED: u64 = 1 << 20;
/// Bytes of a file that are read at once.
const PIECE: usize = 64 << 10;
/// Folders that a client shows as empty ones hold such a file, of no bytes and any type.
pub const PLACEHOLDER: &str = ".emptyFolderPlaceholder";

/// Where an object goes, and for whom.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    pub bucket: &'a BucketId,
    pub key: &'a ObjectKey,
    pub owner: Option<&'a str>,
    pub upsert: bool,
}

/// What the file is said to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    pub media_type: String,
    pub cache_control: String,
    pub robots: Option<String>,
    pub user_metadata: Option<Value>,
    /// Bytes, where they are said.
    pub declared: Option<u64>,
}

impl Storage {
    /// `POST` and `PUT /object/{bucket}/{key}`.
    pub(crate) async fn upload(
        &self,
        visitor: &Visitor,
        bucket: &str,
        key: &[String],
        upsert: bool,
        body: Body,
    ) -> Result<Response<Body>, Error> {
        let (bucket, key) = place(bucket, key)?;
        let caller = visitor.caller()?;
        let owner = owner(caller);
        let target = Target { bucket: &bucket, key: &key, owner: owner.as_deref(), upsert };
        let (id, _) = self.receive(visitor, Some(caller), target, body).await?;
        Ok(respond::json(&json!({ "Id": id, "Key": format!("{bucket}/{key}") })))
    }

    /// `PUT /object/upload/sign/{bucket}/{key}?token=`: whoever signed it was asked then.
    pub(crate) async fn upload_signed(
        &self,
        visitor: &Visitor,
        bucket: &str,
        key: &[String],
        body: Body,
    ) -> Result<Response<Body>, Error> {
        let (bucket, key) = place(bucket, key)?;
        let grant = self.check_signature(visitor, &bucket, &key, Scope::Upload)?;
        let target = Target { bucket: &bucket, key: &key, owner: grant.owner.as_deref(), upsert: grant.upsert };
        let (id, _) = self.receive(visitor, None, target, body).await?;
        Ok(respond::json(&json!({ "Id": id, "Key": format!("{bucket}/{key}") })))
    }

    async fn receive(
        &self,
        visitor: &Visitor,
        caller: Option<&Caller>,
        target: Target<'_>,
        body: Body,
    ) -> Result<(String, Metadata), Error> {
        let (description, source) = Source::open(visitor, body).await?;
        let request = Request::of(visitor, "storage.object.upload");
        let limits = self.may_upload(caller, &request, &target, &description).await?;
        self.write(&limits, &target, &description, source, Vec::new()).await
    }

    /// Writes the file, as far as the bucket takes it, and then its row, after what is to be done before that.
    pub(crate) async fn write(
        &self,
        limits: &Bucket,
        target: &Target<'_>,
        description: &Description,
        mut source: Source,
        first: Vec<Statement>,
    ) -> Result<(String, Metadata), Error> {
        let limit = self.limit(limits, target.key);
        check(description, limits, limit, target.key)?;
        let mut writer = self.blobs.writer().await?;
        if source.most().or(description.declared).is_none_or(|most| most > LARGEST_HASHED) {
            writer = writer.without_md5();
        }
        let mut beginning = Beginning::new(&description.media_type, limits);
        let mut size: u64 = 0;
        while let Some(bytes) = source.next().await? {
            beginning.look(&bytes)?;
            size += bytes.len() as u64;
            if size > limit {
                return Err(Wire::too_large().into());
            }
            writer.write(bytes).await?;
        }
        if description.declared.is_some_and(|declared| declared != size) {
            return Err(Error::Broken("its length is not what was said".into()));
        }
        let written = writer.finish().await?;
        self.commit(target, description, &written, first).await
    }

    /// Asks whether the caller may put such an object there; `None` is somebody who was asked before. Gives what the bucket takes.
    pub(crate) async fn may_upload(
        &self,
        caller: Option<&Caller>,
        request: &Request,
        target: &Target<'_>,
        description: &Description,
    ) -> Result<Bucket, Error> {
        let select = Bucket::select(target.bucket);
        let Some(caller) = caller else {
            let answer = session::look(&self.database, vec![select]).await?;
            return Bucket::of(&answer, 0).ok_or_else(|| Wire::no_such_bucket().into());
        };
        let row = NewObject {
            bucket: target.bucket,
            key: target.key,
            owner: target.owner,
            metadata: json!({ "mimetype": description.media_type, "contentLength": description.declared }),
            user_metadata: description.user_metadata.clone(),
            version: None,
            upsert: target.upsert,
            quota: self.settings.user_quota,
        };
        let work = Work { service: vec![select], caller: vec![row.insert()] };
        let answer = session::as_caller(&self.database, caller, request, Mode::Try, work).await;
        let answer = answer.map_err(|error| no_bucket(error, target.upsert))?;
        Bucket::of(&answer, 0).ok_or_else(|| Wire::no_such_bucket().into())
    }

    /// Refuses what was sent in parts and begins as a page that its bucket does not take.
    pub(crate) async fn look_at_parts(&self, said: &str, bucket: &Bucket, parts: &[Part]) -> Result<(), Error> {
        let mut beginning = Beginning::new(said, bucket);
        let size: u64 = parts.iter().map(|part| part.size_bytes).sum();
        let (Some(first), true) = (parts.first().filter(|_| size > 0), beginning.matters()) else { return Ok(()) };
        let segments = body::segments(*first, parts, 0..size.min(Beginning::LENGTH as u64));
        let mut bytes = body::stream(&self.blobs, segments).await?;
        while let Some(bytes) = body::own(&mut bytes).await? {
            beginning.look(&bytes)?;
        }
        Ok(())
    }

    /// Bytes that the bucket takes at most.
    pub(crate) fn limit(&self, bucket: &Bucket, key: &ObjectKey) -> u64 {
        if key.file_name() == PLACEHOLDER {
            return 0;
        }
        bucket.file_size_limit.map_or(self.settings.file_size_limit, |limit| limit.min(self.settings.file_size_limit))
    }

    /// Puts the row of a blob that is there.
    pub(crate) async fn commit(
        &self,
        target: &Target<'_>,
        description: &Description,
        written: &Written,
        first: Vec<Statement>,
    ) -> Result<(String, Metadata), Error> {
        let metadata = Metadata {
            size_bytes: written.size_bytes,
            media_type: description.media_type.clone(),
            cache_control: description.cache_control.clone(),
            etag: etag(written),
            modified: Some(SystemTime::now()),
            robots: description.robots.clone(),
        };
        let version = written.id.as_str();
        let id = self.put_row(target, &metadata, description.user_metadata.clone(), version, first).await;
        if id.is_err() {
            // What may have been committed keeps its blob: the sweeper knows.
            if id.as_ref().is_err_and(is_certain) {
                self.forget(vec![written.id]);
            }
        }
        Ok((id?, metadata))
    }

    /// Commits an object's row, in one with what else is to be done before it, and lets go of what it replaces. Gives its id.
    pub(crate) async fn put_row(
        &self,
        target: &Target<'_>,
        metadata: &Metadata,
        user_metadata: Option<Value>,
        version: &str,
        first: Vec<Statement>,
    ) -> Result<String, Error> {
        let before = session::sql(
            "select version from storage.objects where bucket_id = $1 and name = $2 for update",
            &[Some(target.bucket.as_str()), Some(target.key.as_str())],
        );
        let row = NewObject {
            bucket: target.bucket,
            key: target.key,
            owner: target.owner,
            metadata: metadata.json(),
            user_metadata: Some(user_metadata.unwrap_or_else(|| json!({}))),
            version: Some(version),
            upsert: target.upsert,
            quota: self.settings.user_quota,
        };
        let id = session::sql(
            "select id from storage.objects where bucket_id = $1 and name = $2",
            &[Some(target.bucket.as_str()), Some(target.key.as_str())],
        );
        let own = first.len();
        let mut statements = first;
        statements.extend([before, row.insert(), id]);
        let answer = session::finish(&self.database, statements).await;
        let answer = answer.map_err(|error| no_bucket(error, target.upsert))?;
        let replaced = store::first(&answer, own).and_then(|row| row.text(0)).map(str::to_owned);
        self.discard(replaced.into_iter().filter(|old| old != version).collect());
        let id = store::first(&answer, own + 2).and_then(|row| row.text(0)).ok_or(Error::Incomplete)?;
        Ok(id.to_owned())
    }

    /// `POST /object/upload/sign/{bucket}/{key}`.
    pub(crate) async fn sign_upload(
        &self,
        visitor: &Visitor,
        bucket: &str,
        key: &[String],
    ) -> Result<Response<Body>, Error> {
        let (bucket, key) = place(bucket, key)?;
        let caller = visitor.caller()?;
        let owner = owner(caller);
        let target = Target { bucket: &bucket, key: &key, owner: owner.as_deref(), upsert: visitor.upsert() };
        let request = Request::of(visitor, "storage.object.sign_upload_url");
        self.may_upload(Some(caller), &request, &target, &describe(visitor)?).await?;
        let url = format!("{bucket}/{key}");
        let seconds = self.settings.upload_url_seconds;
        let token = self.sign(ntier_security::signed_url::Grant {
            url: url.clone(),
            scope: Scope::Upload,
            transformations: None,
            upsert: target.upsert,
            owner: owner.clone(),
            iat: now(),
            exp: now().saturating_add(seconds.into()),
        })?;
        Ok(respond::json(&json!({ "url": format!("/object/upload/sign/{url}?token={token}"), "token": token })))
    }
}

/// Whether it is known that nothing was committed.
pub(crate) fn is_certain(error: &Error) -> bool {
    use ntier_backing::database::Error as Database;
    !matches!(error, Error::Database(Database::Lost(_) | Database::Deadline))
}

/// A bucket that is not there is one that the row refers to.
fn no_bucket(error: Error, upsert: bool) -> Error {
    let wire = error.wire();
    match wire.code {
        Code::RelatedResourceNotFound => Wire::no_such_bucket().into(),
        Code::ResourceAlreadyExists if !upsert => Wire::already_exists(Code::KeyAlreadyExists).into(),
        _ => error,
    }
}

/// Whether the bucket takes what the file is said to be.
pub fn check(description: &Description, bucket: &Bucket, limit: u64, key: &ObjectKey) -> Result<(), Error> {
    let allowed = media_type::is_allowed(&description.media_type, &bucket.allowed_mime_types);
    if !allowed && key.file_name() != PLACEHOLDER {
        return Err(Wire::not_your_media_type(&description.media_type).into());
    }
    if description.declared.is_some_and(|size| size > limit) {
        return Err(Wire::too_large().into());
    }
    Ok(())
}

/// The beginning of a file, as it comes. A bucket that takes only some types does not take a page that calls itself one of them
/// (checklist F1). Other contents are not looked at: a browser is told not to guess.
pub(crate) struct Beginning {
    bytes: Vec<u8>,
    /// How many tell what it is; none where nobody asks.
    enough: usize,
}

impl Beginning {
    /// Bytes at which browsers look. Source: WHATWG, MIME Sniffing, "resource header".
    pub(crate) const LENGTH: usize = 1445;

    /// Of a file that is said to be of this type.
    pub(crate) fn new(said: &str, bucket: &Bucket) -> Self {
        let open = bucket.allowed_mime_types.is_empty() || media_type::is_active(said);
        let enough = if open || media_type::essence(said) == "text/plain" { 0 } else { Self::LENGTH };
        Self { bytes: Vec::new(), enough }
    }

    /// Whether somebody has to look.
    pub(crate) fn matters(&self) -> bool {
        self.enough > 0
    }

    /// Takes the next bytes, however few; refuses what is a page.
    pub(crate) fn look(&mut self, next: &[u8]) -> Result<(), Error> {
        let left = self.enough - self.bytes.len();
        if left == 0 || next.is_empty() {
            return Ok(());
        }
        self.bytes.extend_from_slice(&next[..left.min(next.len())]);
        let text = self.bytes.trim_ascii_start();
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text).trim_ascii_start();
        let begins =
            |word: &str| text.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word.as_bytes()));
        if ["<!doctype html", "<html", "<script", "<svg", "<iframe", "<body"].into_iter().any(begins) {
            return Err(Wire::not_your_media_type("text/html").into());
        }
        Ok(())
    }
}

/// What the headers say of the file.
pub fn describe(visitor: &Visitor) -> Result<Description, Error> {
    let text = |name: &HeaderName| visitor.header(name).filter(|text| !text.is_empty());
    let metadata = visitor.text("x-metadata").map(encoded_metadata).transpose()?.flatten();
    Ok(Description {
        media_type: text(&header::CONTENT_TYPE).unwrap_or("application/octet-stream").to_owned(),
        cache_control: text(&header::CACHE_CONTROL).unwrap_or("no-cache").to_owned(),
        robots: visitor.text("x-robots-tag").map(str::to_owned),
        user_metadata: metadata,
        declared: visitor.content_length(),
    })
}

/// `x-metadata`: JSON in base64; what is not that is nothing, as in storage-api.
fn encoded_metadata(text: &str) -> Result<Option<Value>, Error> {
    match STANDARD.decode(text.trim()) {
        Ok(json) => plain_metadata(&json),
        Err(_) => Ok(None),
    }
}

pub(crate) fn plain_metadata(json: &[u8]) -> Result<Option<Value>, Error> {
    if json.len() > LARGEST_METADATA {
        return Err(Wire::new(Code::EntityTooLarge, "The user_metadata exceeded the maximum allowed size").into());
    }
    Ok(serde_json::from_slice::<Value>(json).ok().filter(Value::is_object))
}

/// Where the bytes of a file come from.
pub(crate) enum Source {
    /// The body is the file.
    Raw(Body),
    /// A field of a form is, which has so many bytes as a whole, if it says how many.
    Form(Box<multer::Field<'static>>, Option<u64>),
    /// A file of this machine is.
    File(File),
}

impl Source {
    async fn open(visitor: &Visitor, body: Body) -> Result<(Description, Self), Error> {
        let mut description = describe(visitor)?;
        let boundary = match multer::parse_boundary(&description.media_type) {
            Ok(boundary) => boundary,
            Err(_) if description.media_type.starts_with("multipart/form-data") => {
                return Err(Wire::new(Code::InvalidRequest, "the form has no boundary").into());
            }
            Err(_) => return Ok((description, Self::Raw(body))),
        };
        // Its length is that of the whole form.
        let most = description.declared.take();
        description.cache_control = "no-cache".into();
        let mut form = multer::Multipart::new(BodyDataStream::new(body), boundary);
        for _ in 0..=MOST_FIELDS {
            let Some(mut field) = form.next_field().await.map_err(broken_form)? else { break };
            if field.file_name().is_some() {
                if description.media_type.starts_with("multipart/form-data") {
                    let said = field.content_type().map_or("application/octet-stream", |said| said.as_ref());
                    description.media_type = said.to_owned();
                }
                return Ok((description, Self::Form(Box::new(field), most)));
            }
            let name = field.name().unwrap_or_default().to_owned();
            let value = small_field(&mut field).await?;
            let text = || String::from_utf8_lossy(&value).into_owned();
            match name.as_str() {
                "cacheControl" => description.cache_control = format!("max-age={}", text()),
                "metadata" | "userMetadata" => description.user_metadata = plain_metadata(&value)?,
                "contentType" => description.media_type = text(),
                _ => {}
            }
        }
        Err(Wire::new(Code::InvalidRequest, "No content provided").into())
    }

    /// Bytes there are at most, where that is known.
    fn most(&self) -> Option<u64> {
        match self {
            Self::Raw(body) => http_body::Body::size_hint(body).upper(),
            Self::Form(_, most) => *most,
            Self::File(_) => None,
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Raw(body) => body::next(body).await,
            Self::Form(field, _) => field.chunk().await.map_err(broken_form),
            Self::File(file) => {
                let mut bytes = BytesMut::with_capacity(PIECE);
                file.read_buf(&mut bytes).await.map_err(|cause| Error::Broken(cause.to_string()))?;
                Ok(Some(bytes.freeze()).filter(|bytes| !bytes.is_empty()))
            }
        }
    }
}

async fn small_field(field: &mut multer::Field<'static>) -> Result<Vec<u8>, Error> {
    let mut value = Vec::new();
    while let Some(bytes) = field.chunk().await.map_err(broken_form)? {
        value.extend_from_slice(&bytes);
        if value.len() > LARGEST_FIELD {
            return Err(Wire::new(Code::EntityTooLarge, "The form's field exceeded the maximum allowed size").into());
        }
    }
    Ok(value)
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn broken_form(cause: multer::Error) -> Error {
    Error::Broken(cause.to_string())
}

/// The MD5, as S3 has it; where that was not made, the blob's name, which nobody takes for one.
pub fn etag(written: &Written) -> String {
    written.md5.map_or_else(|| format!("\"{}\"", written.id), |_| format!("\"{}\"", md5_hex(written)))
}

/// The MD5 in hexadecimal digits; empty where it was not made.
pub fn md5_hex(written: &Written) -> String {
    written.md5.map(|md5| hex(&md5)).unwrap_or_default()
}

pub fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_f1_a_page_is_no_picture() {
        let bucket = |types: &[&str]| Bucket {
            public: true,
            file_size_limit: None,
            allowed_mime_types: types.iter().map(|text| (*text).to_owned()).collect(),
        };
        for (begin, said, types, taken) in [
            ("\u{ff}\u{d8}", "image/png", &["image/png"][..], true),
            ("<!DOCTYPE html><p>", "image/png", &["image/png"], false),
            (" \n<svg onload=x>", "image/png", &["image/*"], false),
            ("\u{feff}<script>", "image/gif", &["image/*"], false),
            ("<svg>", "image/svg+xml", &["image/*"], true),
            ("<html>", "text/plain", &["text/plain"], true),
            ("<html>", "image/png", &[], true),
        ] {
            let bucket = bucket(types);
            assert_eq!(Beginning::new(said, &bucket).look(begin.as_bytes()).is_ok(), taken, "{begin} as {said}");
            // However it comes.
            let mut beginning = Beginning::new(said, &bucket);
            let byte_by_byte = begin.as_bytes().chunks(1).all(|byte| beginning.look(byte).is_ok());
            assert_eq!(byte_by_byte, taken, "{begin} as {said}, byte by byte");
        }
        let mut beginning = Beginning::new("image/png", &bucket(&["image/png"]));
        assert!(beginning.look(&[b'a'; 10 * Beginning::LENGTH]).is_ok() && beginning.look(b"<html>").is_ok());
    }
}
