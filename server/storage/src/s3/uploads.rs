//! Listings of uploads that are under way, and of their parts.

use http::Response;
use ntier_protocol::storage::error::Error as Wire;
use ntier_protocol::storage::s3::Code;
use ntier_protocol::storage::s3::answer::{self, ListedPart, ListedUpload, UploadsPage};
use ntier_protocol::storage::s3::request::{ListUploads, Upload};

use super::{Fault, respond};
use crate::Storage;
use crate::body::Body;
use crate::session::{self, Mode, Request, Work, sql};
use crate::store::{self, time};
use crate::visitor::Visitor;

impl Storage {
    /// Those that row level security shows to the caller: the service alone, where no policy says otherwise.
    pub(super) async fn s3_list_uploads(&self, visitor: &Visitor, list: &ListUploads) -> Result<Response<Body>, Fault> {
        const WITH_DELIMITER: &str = concat!(
            "select r.key, r.id, ",
            time!("r.created_at"),
            // A folder has the id of an upload in it.
            ", r.key <> (select u.key from storage.s3_multipart_uploads u where u.id = r.id) ",
            "from storage.list_multipart_uploads_with_delimiter($1, $2, $3, $4::int, $5, $6) r"
        );
        const PLAIN: &str = concat!(
            "select r.key, r.id, ",
            time!("r.created_at"),
            ", false from storage.s3_multipart_uploads r where r.bucket_id = $1 and r.key >= $2 ",
            "and r.key < storage.after_prefix($2) and (r.key > $4 or $4 = '' or $5 <> '' and r.key = $4 and r.id collate \"C\" > $5) ",
            "order by r.key, r.id collate \"C\" limit $3::bigint"
        );
        let limit = (list.limit + 1).to_string();
        let (key, id) = (list.key_marker.as_deref(), list.upload_marker.as_deref());
        let (bucket, key, id) =
            (Some(list.bucket.as_str()), Some(key.unwrap_or_default()), Some(id.unwrap_or_default()));
        let statement = match &list.delimiter {
            // The function takes a prefix that is quoted for a pattern.
            Some(delimiter) => {
                let prefix = quoted(&list.prefix);
                sql(WITH_DELIMITER, &[bucket, Some(&prefix), Some(delimiter), Some(&limit), key, id])
            }
            None => sql(PLAIN, &[bucket, Some(&list.prefix), Some(&limit), key, id]),
        };
        let see = sql("select id from storage.buckets where id = $1", &[bucket]);
        let work = Work { service: vec![see], caller: vec![statement] };
        let request = Request::of(visitor, "storage.s3.upload.list_multipart");
        let answer = session::as_caller(&self.database, visitor.caller()?, &request, Mode::Read, work).await?;
        store::first(&answer, 0).ok_or_else(Wire::no_such_bucket)?;
        let rows = answer.results.get(1).map(|result| result.rows.as_slice()).unwrap_or_default();
        let limit = list.limit as usize;
        let mut page = UploadsPage::default();
        let mut last = (String::new(), String::new());
        for row in rows.iter().take(limit) {
            let text = |column: usize| row.text(column).unwrap_or_default().to_owned();
            last = (text(0), text(1));
            if row.text(3) == Some("t") {
                page.prefixes.push(text(0));
            } else {
                page.uploads.push(ListedUpload { key: text(0), id: text(1), initiated_at: text(2) });
            }
        }
        page.next = (rows.len() > limit).then_some(last);
        Ok(respond::xml(answer::uploads(list, &page)))
    }

    /// For whoever may put the object.
    pub(super) async fn s3_list_parts(
        &self,
        visitor: &Visitor,
        upload: &Upload,
        after: u32,
        limit: u32,
    ) -> Result<Response<Body>, Fault> {
        let pending = self.s3_pending(upload).await?.ok_or(Code::NoSuchUpload)?;
        self.s3_may_go_on(visitor, &pending, "storage.s3.upload.list_parts", true).await?;
        let rest: Vec<ListedPart> = pending
            .parts
            .into_iter()
            .filter(|part| part.number > after)
            .map(|part| ListedPart {
                number: part.number,
                modified_at: part.modified_at,
                etag: part.md5,
                size_bytes: part.size_bytes,
            })
            .collect();
        let page = &rest[..rest.len().min(limit as usize)];
        Ok(respond::xml(answer::parts(upload, after, limit, page, rest.len() > page.len())))
    }
}

fn quoted(prefix: &str) -> String {
    prefix.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}
