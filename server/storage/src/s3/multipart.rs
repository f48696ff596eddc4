//! Multipart uploads: begun, completed and given up. The state is rows, so any node goes on with what another began; completing is
//! a commit of rows, and copies nothing.
//!
//! The upload's id is the version that its object will have. So whoever completes it twice, because the first answer was lost, is
//! told the same again.

use std::time::SystemTime;

use http::{Response, StatusCode};
use md5::{Digest as _, Md5};
use ntier_backing::blobs::BlobId;
use ntier_backing::database::{self, Answer, Row};
use ntier_protocol::storage::error::Error as Wire;
use ntier_protocol::storage::name::{BucketId, ObjectKey};
use ntier_protocol::storage::s3::body::CompletedPart;
use ntier_protocol::storage::s3::request::{self, Put};
use ntier_protocol::storage::s3::{Code, answer, body as s3_body};
use serde_json::{Value, json};

use super::put::{describe, unless_new, whole};
use super::{Fault, Inflow, respond};
use crate::Storage;
use crate::body::Body;
use crate::error::Error;
use crate::session::{self, Request, sql};
use crate::store::{self, Bucket, Metadata, Part};
use crate::upload::{Description, Target, check, hex};
use crate::visitor::{Visitor, owner};

/// An upload that is under way.
pub(super) struct Pending {
    /// Its id, and the version of its object.
    pub(super) version: BlobId,
    pub(super) bucket: BucketId,
    pub(super) key: ObjectKey,
    pub(super) description: Description,
    /// In order.
    pub(super) parts: Vec<Uploaded>,
}

/// A part that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Uploaded {
    pub(super) number: u32,
    pub(super) blob: BlobId,
    pub(super) size_bytes: u64,
    /// In hexadecimal digits.
    pub(super) md5: String,
    pub(super) modified_at: String,
}

impl Storage {
    pub(super) async fn s3_create_upload(&self, visitor: &Visitor, put: &Put) -> Result<Response<Body>, Fault> {
        let (bucket, key) = (BucketId::parse(&put.bucket)?, ObjectKey::parse(&put.key)?);
        let owner = owner(visitor.caller()?);
        let target = Target { bucket: &bucket, key: &key, owner: owner.as_deref(), upsert: true };
        let description = describe(&put.headers, None);
        let request = Request::of(visitor, "storage.s3.upload.create_multipart");
        let limits = self.may_upload(Some(visitor.caller()?), &request, &target, &description).await?;
        check(&description, &limits, self.limit(&limits, &key), &key)?;
        let id = BlobId::random();
        let metadata = json!({ "mimetype": description.media_type, "cacheControl": description.cache_control });
        let insert = sql(
            "insert into storage.s3_multipart_uploads (id, version, upload_signature, bucket_id, key, owner_id, metadata, user_metadata) \
             values ($1, $1, '', $2, $3, $4, $5::jsonb, $6::jsonb)",
            &[
                Some(id.as_str()),
                Some(bucket.as_str()),
                Some(key.as_str()),
                owner.as_deref(),
                Some(&metadata.to_string()),
                description.user_metadata.as_ref().map(Value::to_string).as_deref(),
            ],
        );
        session::finish(&self.database, vec![insert]).await?;
        let object = request::Object { bucket: put.bucket.clone(), key: put.key.clone() };
        Ok(respond::xml(answer::upload_created(&request::Upload { object, id: id.to_string() })))
    }

    pub(super) async fn s3_complete(
        &self,
        visitor: &Visitor,
        upload: &request::Upload,
        only_new: bool,
        inflow: Inflow,
    ) -> Result<Response<Body>, Fault> {
        // A checksum in the headers is that of the whole object.
        let inflow = Inflow { intake: inflow.intake.without_checksum(), ..inflow };
        let wanted = s3_body::complete(&whole(inflow, None).await?)?;
        let operation = "storage.s3.upload.complete_multipart";
        let Some(pending) = self.s3_pending(upload).await? else {
            return self.s3_completed(visitor, upload, operation).await;
        };
        let limits = self.s3_may_go_on(visitor, &pending, operation, !only_new).await;
        let limits = limits.map_err(|fault| unless_new(fault, only_new))?;
        let chosen = choose(&pending.parts, &wanted)?;
        let size_bytes = chosen.iter().map(|part| part.size_bytes).sum();
        if size_bytes > self.limit(&limits, &pending.key) {
            return Err(Wire::too_large().into());
        }
        let parts: Vec<Part> =
            chosen.iter().map(|part| Part { blob: part.blob, size_bytes: part.size_bytes }).collect();
        self.look_at_parts(&pending.description.media_type, &limits, &parts).await?;
        let metadata = Metadata {
            size_bytes,
            media_type: pending.description.media_type.clone(),
            cache_control: pending.description.cache_control.clone(),
            etag: etag(&chosen),
            modified: Some(SystemTime::now()),
            robots: None,
        };
        match self.s3_commit(visitor, &pending, &chosen, &metadata, only_new).await {
            // The same request, sent twice, was faster.
            Err(Fault::S3(error)) if error.code == Code::NoSuchUpload => {
                return self.s3_completed(visitor, upload, operation).await;
            }
            committed => committed.map_err(|fault| unless_new(fault, only_new))?,
        }
        Ok(respond::xml(answer::upload_completed(&upload.object, &metadata.etag)))
    }

    /// An upload that is not there: perhaps it has been completed, and the client has not heard of it.
    async fn s3_completed(
        &self,
        visitor: &Visitor,
        upload: &request::Upload,
        operation: &'static str,
    ) -> Result<Response<Body>, Fault> {
        let object = self.s3_see(visitor, &upload.object.bucket, &upload.object.key, operation).await;
        match object {
            Ok(object) if object.version == upload.id => {
                Ok(respond::xml(answer::upload_completed(&upload.object, &object.metadata.etag)))
            }
            _ => Err(Code::NoSuchUpload.into()),
        }
    }

    /// Makes the object of parts that are there, in one transaction that says which these were.
    async fn s3_commit(
        &self,
        visitor: &Visitor,
        pending: &Pending,
        chosen: &[&Uploaded],
        metadata: &Metadata,
        only_new: bool,
    ) -> Result<(), Fault> {
        let version = pending.version.as_str();
        let numbers = json!(chosen.iter().map(|part| part.number).collect::<Vec<_>>()).to_string();
        let decided_upon: Vec<String> = chosen.iter().map(|part| format!("{}:{}", part.number, part.md5)).collect();
        let owner = owner(visitor.caller()?);
        let target = Target { bucket: &pending.bucket, key: &pending.key, owner: owner.as_deref(), upsert: !only_new };
        let first = vec![
            expect_upload(version),
            sql(
                "select ntier.expect($3 = (select string_agg(number || ':' || md5, ',' order by number) from ntier.object_parts \
                 where version = $1::uuid and number = any (array(select jsonb_array_elements_text($2::jsonb)::int))), 'the parts')",
                &[Some(version), Some(&numbers), Some(&decided_upon.join(","))],
            ),
            // Their blobs have no name then; the sweeper knows.
            sql(
                "delete from ntier.object_parts where version = $1::uuid \
                 and number <> all (array(select jsonb_array_elements_text($2::jsonb)::int))",
                &[Some(version), Some(&numbers)],
            ),
            sql("delete from storage.s3_multipart_uploads where id = $1", &[Some(version)]),
        ];
        let user_metadata = pending.description.user_metadata.clone();
        let committed = self.put_row(&target, metadata, user_metadata, version, first).await;
        committed.map(drop).map_err(changed)
    }

    pub(super) async fn s3_abort(&self, visitor: &Visitor, upload: &request::Upload) -> Result<Response<Body>, Fault> {
        let pending = self.s3_pending(upload).await?.ok_or(Code::NoSuchUpload)?;
        self.s3_may_go_on(visitor, &pending, "storage.s3.upload.abort_multipart", true).await?;
        let version = pending.version.as_str();
        let statements = vec![
            expect_upload(version),
            sql("delete from ntier.object_parts where version = $1::uuid returning blob", &[Some(version)]),
            sql("delete from storage.s3_multipart_uploads where id = $1", &[Some(version)]),
        ];
        let answer = session::finish(&self.database, statements).await.map_err(changed)?;
        self.forget(blobs(&answer, 1));
        Ok(respond::status(StatusCode::NO_CONTENT))
    }

    /// The upload of this id, if it is one for this object.
    pub(super) async fn s3_pending(&self, upload: &request::Upload) -> Result<Option<Pending>, Fault> {
        let Some(version) = BlobId::parse(&upload.id) else { return Ok(None) };
        let statements = vec![
            sql(
                "select metadata, user_metadata from storage.s3_multipart_uploads where id = $1 and bucket_id = $2 and key = $3",
                &[Some(version.as_str()), Some(&upload.object.bucket), Some(&upload.object.key)],
            ),
            sql(
                "select number, size, md5, ntier.utc(created_at), blob from ntier.object_parts where version = $1::uuid order by number",
                &[Some(version.as_str())],
            ),
        ];
        let answer = session::look(&self.database, statements).await?;
        let Some(row) = store::first(&answer, 0) else { return Ok(None) };
        let metadata = Metadata::of(row.text(0));
        let description = Description {
            media_type: metadata.media_type,
            cache_control: metadata.cache_control,
            robots: None,
            user_metadata: row.text(1).and_then(|json| serde_json::from_str(json).ok()),
            declared: None,
        };
        let rows = answer.results.get(1).map(|result| result.rows.as_slice()).unwrap_or_default();
        let parts = rows.iter().map(Uploaded::of).collect::<Result<_, Error>>()?;
        let (bucket, key) = (BucketId::parse(&upload.object.bucket)?, ObjectKey::parse(&upload.object.key)?);
        Ok(Some(Pending { version, bucket, key, description, parts }))
    }

    /// Whether the caller may put the object that the upload is for; gives what the bucket takes.
    pub(super) async fn s3_may_go_on(
        &self,
        visitor: &Visitor,
        pending: &Pending,
        operation: &'static str,
        upsert: bool,
    ) -> Result<Bucket, Fault> {
        let owner = owner(visitor.caller()?);
        let target = Target { bucket: &pending.bucket, key: &pending.key, owner: owner.as_deref(), upsert };
        let request = Request::of(visitor, operation);
        Ok(self.may_upload(Some(visitor.caller()?), &request, &target, &pending.description).await?)
    }
}

impl Uploaded {
    fn of(row: &Row) -> Result<Self, Error> {
        let text = |column: usize| row.text(column).ok_or(Error::Incomplete);
        let number = |column: usize| text(column)?.parse::<u64>().map_err(|_| Error::Incomplete);
        Ok(Self {
            number: number(0)?.try_into().map_err(|_| Error::Incomplete)?,
            size_bytes: number(1)?,
            md5: text(2)?.to_owned(),
            modified_at: text(3)?.to_owned(),
            blob: BlobId::parse(text(4)?).ok_or(Error::Incomplete)?,
        })
    }
}

/// Locks the upload for as long as the transaction lasts; undoes it where there is none any more.
pub(super) fn expect_upload(version: &str) -> database::Statement {
    sql(
        "with upload as (select from storage.s3_multipart_uploads where id = $1 for update) \
         select ntier.expect(exists (select from upload), 'the upload')",
        &[Some(version)],
    )
}

/// What was decided upon is not so any more.
pub(super) fn changed(error: Error) -> Fault {
    match &error {
        Error::Database(database::Error::Refused(refusal)) if refusal.code == "NT001" => {
            match refusal.message.as_str() {
                "the parts" => Code::InvalidPart.into(),
                "the size" => Code::EntityTooLarge.into(),
                _ => Code::NoSuchUpload.into(),
            }
        }
        _ => error.into(),
    }
}

fn blobs(answer: &Answer, index: usize) -> Vec<BlobId> {
    let rows = answer.results.get(index).map(|result| result.rows.as_slice()).unwrap_or_default();
    rows.iter().filter_map(|row| row.text(0)).filter_map(BlobId::parse).collect()
}

/// The parts that the client means; all of them where it names none. It must know them by their `ETags`.
fn choose<'a>(there: &'a [Uploaded], wanted: &[CompletedPart]) -> Result<Vec<&'a Uploaded>, Fault> {
    if there.is_empty() {
        return Err(Code::InvalidPart.into());
    }
    if wanted.is_empty() {
        return Ok(there.iter().collect());
    }
    let find = |part: &CompletedPart| {
        let at = there.binary_search_by_key(&part.number, |there| there.number).ok()?;
        Some(&there[at]).filter(|there| there.md5.eq_ignore_ascii_case(&part.etag))
    };
    wanted.iter().map(|part| find(part).ok_or_else(|| Code::InvalidPart.into())).collect()
}

/// The MD5 of the parts' MD5s, and how many there are. Source: Amazon, "Checking object integrity".
fn etag(parts: &[&Uploaded]) -> String {
    let mut whole = Md5::new();
    for part in parts {
        let digits = part.md5.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok());
        let bytes: Vec<u8> = digits.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
        whole.update(&bytes);
    }
    format!("\"{}-{}\"", hex(&whole.finalize()), parts.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uploaded(number: u32, md5: &str) -> Uploaded {
        Uploaded { number, blob: BlobId::random(), size_bytes: 1, md5: md5.to_owned(), modified_at: String::new() }
    }

    #[test]
    fn the_etag_is_that_of_the_parts() {
        // MD5 of nothing twice, as `md5sum` has it.
        let part = uploaded(1, "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(etag(&[&part, &part]), "\"5873dd45edd01f09c1ef2e7819369e8e-2\"");
    }

    #[test]
    fn parts_are_known_by_number_and_etag() {
        let there = [uploaded(1, "aa"), uploaded(3, "bb"), uploaded(4, "cc")];
        let part = |number, etag: &str| CompletedPart { number, etag: etag.to_owned() };
        let numbers = |wanted: &[CompletedPart]| -> Option<Vec<u32>> {
            choose(&there, wanted).ok().map(|parts| parts.iter().map(|part| part.number).collect())
        };
        assert_eq!(numbers(&[]), Some(vec![1, 3, 4]));
        assert_eq!(numbers(&[part(1, "AA"), part(4, "cc")]), Some(vec![1, 4]));
        assert_eq!(numbers(&[part(2, "aa")]), None);
        assert_eq!(numbers(&[part(1, "bb")]), None);
        assert!(choose(&[], &[]).is_err());
    }
}
