//! Parts of an upload: sent, or copied from an object. Each is a blob; one that is sent again takes the place of the other.

use std::time::SystemTime;

use http::Response;
use ntier_backing::blobs::{BlobId, Written};
use ntier_protocol::storage::condition::Verdict;
use ntier_protocol::storage::error::Error as Wire;
use ntier_protocol::storage::s3::request::{ByteRange, Part, Source};
use ntier_protocol::storage::s3::{self, Code, answer};

use super::multipart::{Pending, changed, expect_upload};
use super::objects::decide;
use super::put::{Expected, accepted};
use super::{Fault, Inflow, respond};
use crate::Storage;
use crate::body::{self, Body};
use crate::download;
use crate::error::Error;
use crate::session::{self, sql};
use crate::store::{self, Bucket, format_time};
use crate::upload::{Beginning, md5_hex};
use crate::visitor::{Visitor, owner};

impl Storage {
    pub(super) async fn s3_put_part(
        &self,
        visitor: &Visitor,
        part: &Part,
        content_md5: Option<[u8; 16]>,
        inflow: Inflow,
    ) -> Result<Response<Body>, Fault> {
        let length = inflow.intake.length.ok_or(Code::MissingContentLength)?;
        let pending = self.s3_pending(&part.upload).await?.ok_or(Code::NoSuchUpload)?;
        let limits = self.s3_may_go_on(visitor, &pending, "storage.s3.upload.part", true).await?;
        let limit = self.room(&pending, &limits, part.number);
        if length > limit {
            return Err(Wire::too_large().into());
        }
        let beginning = (part.number == 1).then(|| Beginning::new(&pending.description.media_type, &limits));
        let received = self.s3_receive(inflow, Expected { limit, content_md5, beginning }).await?;
        self.s3_name_part(visitor, part, &pending, &limits, &received.written).await?;
        Ok(accepted(&md5_hex(&received.written), received.checksum.as_ref()))
    }

    pub(super) async fn s3_copy_part(
        &self,
        visitor: &Visitor,
        part: &Part,
        source: &Source,
        range: Option<ByteRange>,
    ) -> Result<Response<Body>, Fault> {
        let operation = "storage.s3.upload.part_copy";
        let pending = self.s3_pending(&part.upload).await?.ok_or(Code::NoSuchUpload)?;
        let limits = self.s3_may_go_on(visitor, &pending, operation, true).await?;
        let object = self.s3_see(visitor, &source.bucket, &source.key, operation).await?;
        if decide(&source.conditions, &object) != Verdict::Proceed {
            return Err(Code::PreconditionFailed.into());
        }
        let size = object.metadata.size_bytes;
        let range = range.map_or(0..size, |range| range.first..range.last.saturating_add(1));
        if range.end > size {
            let message = "Range specified is not valid for source object";
            return Err(s3::Error::new(Code::InvalidRange, message).into());
        }
        if range.end - range.start > self.room(&pending, &limits, part.number) {
            return Err(Wire::too_large().into());
        }
        // Through here and not by a link: a part's MD5 has to be known.
        let mut from = body::stream(&self.blobs, download::segments(&object, range)?).await?;
        let mut writer = self.blobs.writer().await.map_err(Error::from)?;
        while let Some(bytes) = body::own(&mut from).await? {
            writer.write(bytes).await.map_err(Error::from)?;
        }
        let written = writer.finish().await.map_err(Error::from)?;
        self.s3_name_part(visitor, part, &pending, &limits, &written).await?;
        let now = format_time(SystemTime::now());
        Ok(respond::xml(answer::part_copied(&md5_hex(&written), &now)))
    }

    /// Bytes that a part may have, beside the others.
    fn room(&self, pending: &Pending, limits: &Bucket, number: u32) -> u64 {
        let others = pending.parts.iter().filter(|part| part.number != number).map(|part| part.size_bytes);
        self.limit(limits, &pending.key).saturating_sub(others.sum())
    }

    /// Gives the part its rows: one that says of which blob it is, and the one that Supabase's tables have.
    async fn s3_name_part(
        &self,
        visitor: &Visitor,
        part: &Part,
        pending: &Pending,
        limits: &Bucket,
        written: &Written,
    ) -> Result<(), Fault> {
        let version = pending.version.as_str();
        let (number, size, md5) = (part.number.to_string(), written.size_bytes.to_string(), md5_hex(written));
        let limit = self.limit(limits, &pending.key).to_string();
        let owner = owner(visitor.caller()?);
        let place = [Some(version), Some(number.as_str())];
        let statements = vec![
            expect_upload(version),
            sql("delete from ntier.object_parts where version = $1::uuid and number = $2::int returning blob", &place),
            sql(
                "insert into ntier.object_parts (version, number, blob, size, md5) values ($1::uuid, $2::int, $3::uuid, $4::bigint, $5)",
                &[Some(version), Some(&number), Some(written.id.as_str()), Some(&size), Some(&md5)],
            ),
            // Of parts that come at the same time each saw the others as not there.
            sql(
                "with change as (update storage.s3_multipart_uploads set in_progress_size = \
                 (select sum(size) from ntier.object_parts where version = $1::uuid) where id = $1 returning in_progress_size) \
                 select ntier.expect((select in_progress_size from change) <= $2::bigint, 'the size')",
                &[Some(version), Some(&limit)],
            ),
            sql(
                "delete from storage.s3_multipart_uploads_parts where upload_id = $1 and part_number = $2::int",
                &place,
            ),
            sql(
                "insert into storage.s3_multipart_uploads_parts (upload_id, version, part_number, size, etag, bucket_id, key, owner_id) \
                 values ($1, $1, $2::int, $3::bigint, $4, $5, $6, $7)",
                &[
                    Some(version),
                    Some(&number),
                    Some(&size),
                    Some(&format!("\"{md5}\"")),
                    Some(pending.bucket.as_str()),
                    Some(pending.key.as_str()),
                    owner.as_deref(),
                ],
            ),
        ];
        match session::finish(&self.database, statements).await {
            Ok(answer) => {
                let before = store::first(&answer, 1).and_then(|row| row.text(0)).and_then(BlobId::parse);
                self.forget(before.into_iter().collect());
                Ok(())
            }
            Err(error) => {
                if crate::upload::is_certain(&error) {
                    self.forget(vec![written.id]);
                }
                Err(changed(error))
            }
        }
    }
}
