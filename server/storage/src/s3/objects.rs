//! Objects: read, copied and removed as the caller.

use std::collections::HashSet;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use ntier_backing::blobs;
use ntier_backing::database::Row;
use ntier_protocol::storage::condition::{Conditions, Verdict};
use ntier_protocol::storage::error::Error as Wire;
use ntier_protocol::storage::name::{BucketId, ObjectKey};
use ntier_protocol::storage::range::{self, Wanted};
use ntier_protocol::storage::s3::request::{self, Copy, Described, Read, Source};
use ntier_protocol::storage::s3::{Code, answer, body as s3_body};
use serde_json::{Map, Value, json};

use super::{Fault, Inflow, respond};
use crate::Storage;
use crate::body::{self, Body};
use crate::download::{self, guard, set};
use crate::error::Error;
use crate::session::{self, Mode, Request, Work, sql};
use crate::store::{self, Bucket, Object, format_time};
use crate::transfer::{Changes, Route};
use crate::visitor::Visitor;

/// Amazon's, where nobody says what a file is.
const UNKNOWN: &str = "binary/octet-stream";

impl Storage {
    pub(super) async fn s3_head(&self, visitor: &Visitor, read: &Read) -> Result<Response<Body>, Fault> {
        let object = self.s3_see(visitor, &read.bucket, &read.key, "storage.s3.object.info").await?;
        self.s3_give(&object, read, true).await
    }

    pub(super) async fn s3_get(&self, visitor: &Visitor, read: &Read) -> Result<Response<Body>, Fault> {
        let once = async || {
            let object = self.s3_see(visitor, &read.bucket, &read.key, "storage.s3.object.get").await?;
            self.s3_give(&object, read, false).await
        };
        // A blob may be replaced between its row and its reading: then the row is read again.
        match once().await {
            Err(Fault::Storage(Error::Blobs(blobs::Error::Missing(_)))) => once().await,
            answer => answer,
        }
    }

    /// There are none: whoever may see the object learns that.
    pub(super) async fn s3_tags(&self, visitor: &Visitor, object: &request::Object) -> Result<Response<Body>, Fault> {
        self.s3_see(visitor, &object.bucket, &object.key, "storage.s3.object.get_tagging").await?;
        Ok(respond::xml(answer::tagging()))
    }

    /// The object, if the caller may see it.
    pub(super) async fn s3_see(
        &self,
        visitor: &Visitor,
        bucket: &str,
        key: &str,
        operation: &'static str,
    ) -> Result<Object, Fault> {
        let bucket = BucketId::parse(bucket).map_err(|_| Wire::no_such_bucket())?;
        // What can have no such name is not there.
        let key = ObjectKey::parse(key).map_err(|_| Wire::no_such_key())?;
        let service = vec![Bucket::select(&bucket), store::select_parts(&bucket, &key)];
        let work = Work { service, caller: vec![Object::select(&bucket, &key)] };
        let request = Request::of(visitor, operation);
        let answer = session::as_caller(&self.database, visitor.caller()?, &request, Mode::Read, work).await?;
        Bucket::of(&answer, 0).ok_or_else(Wire::no_such_bucket)?;
        let mut object = Object::found(&answer, 2)?.ok_or_else(Wire::no_such_key)?;
        object.parts = store::parts(&answer, 1, &object.version)?;
        Ok(object)
    }

    async fn s3_give(&self, object: &Object, read: &Read, is_head: bool) -> Result<Response<Body>, Fault> {
        let metadata = &object.metadata;
        let mut response = respond::status(StatusCode::OK);
        describe(response.headers_mut(), object);
        match decide(&read.conditions, object) {
            Verdict::Proceed => {}
            Verdict::NotModified => {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                return Ok(response);
            }
            Verdict::Failed => return Err(Code::PreconditionFailed.into()),
        }
        for (name, value) in &read.overrides {
            set(response.headers_mut(), HeaderName::from_static(name), value);
        }
        let said =
            response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        guard(response.headers_mut(), said.as_deref().unwrap_or_default());
        let size = metadata.size_bytes;
        let wanted = match range::parse(read.range.as_deref(), size) {
            Wanted::Whole => 0..size,
            Wanted::Unsatisfiable => return Err(Code::InvalidRange.into()),
            // Amazon gives several ranges as one: the whole.
            Wanted::Parts(ranges) => match ranges.as_slice() {
                [range] => {
                    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                    let content_range = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                    set(response.headers_mut(), header::CONTENT_RANGE, &content_range);
                    range.clone()
                }
                _ => 0..size,
            },
        };
        let length = wanted.end - wanted.start;
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        if !is_head && length > 0 {
            *response.body_mut() = body::stream(&self.blobs, download::segments(object, wanted)?).await?;
        }
        Ok(response)
    }

    pub(super) async fn s3_copy(&self, visitor: &Visitor, copy: &Copy) -> Result<Response<Body>, Fault> {
        let Source { bucket, key, conditions } = &copy.source;
        if *conditions != request::Conditions::default() {
            let source = self.s3_see(visitor, bucket, key, "storage.s3.object.copy").await?;
            if decide(conditions, &source) != Verdict::Proceed {
                return Err(Code::PreconditionFailed.into());
            }
        }
        let from = BucketId::parse(bucket).map_err(|_| Wire::no_such_bucket())?;
        let route = Route {
            from: (from, ObjectKey::parse(key).map_err(|_| Wire::no_such_key())?),
            to: (BucketId::parse(&copy.bucket)?, ObjectKey::parse(&copy.key)?),
        };
        let request = Request::of(visitor, "storage.s3.object.copy");
        let changes = copy.headers.as_ref().map(changes).unwrap_or_default();
        let copied = self.copy(visitor.caller()?, &request, &route, changes, true).await?;
        let modified = copied.metadata.modified.map(format_time).unwrap_or_default();
        Ok(respond::xml(answer::object_copied(&copied.metadata.etag, &modified)))
    }

    /// Who may not see it, and who may not delete it, hears the same as where there is none: it is not there for them.
    pub(super) async fn s3_delete(&self, visitor: &Visitor, object: &request::Object) -> Result<Response<Body>, Fault> {
        let keys = [object.key.clone()];
        self.s3_remove(visitor, &object.bucket, &keys, "storage.s3.object.delete").await?;
        Ok(respond::status(StatusCode::NO_CONTENT))
    }

    pub(super) async fn s3_delete_many(
        &self,
        visitor: &Visitor,
        bucket: &str,
        content_md5: Option<[u8; 16]>,
        inflow: Inflow,
    ) -> Result<Response<Body>, Fault> {
        let wanted = s3_body::delete(&super::put::whole(inflow, content_md5).await?)?;
        let left = self.s3_remove(visitor, bucket, &wanted.keys, "storage.s3.object.delete_many").await?;
        let (denied, deleted): (Vec<String>, Vec<String>) = wanted.keys.into_iter().partition(|key| left.contains(key));
        Ok(respond::xml(answer::deleted(&deleted, &denied, wanted.quiet)))
    }

    /// Removes as the caller, and gives the names of what is there still.
    async fn s3_remove(
        &self,
        visitor: &Visitor,
        bucket: &str,
        keys: &[String],
        operation: &'static str,
    ) -> Result<HashSet<String>, Fault> {
        const REMOVE: &str = "delete from storage.objects o where o.bucket_id = $1 \
             and o.name = any (array(select jsonb_array_elements_text($2::jsonb))) returning o.version";
        const LEFT: &str = "select o.name from storage.objects o where o.bucket_id = $1 \
             and o.name = any (array(select jsonb_array_elements_text($2::jsonb)))";
        let names = json!(keys).to_string();
        let parameters = [Some(bucket), Some(names.as_str())];
        let answer = self.change(visitor, operation, sql(REMOVE, &parameters)).await?;
        let removed = texts(answer.results.first().map(|result| result.rows.as_slice()).unwrap_or_default());
        let all_gone = removed.len() == keys.len();
        self.discard(removed);
        if all_gone && !keys.is_empty() {
            return Ok(HashSet::new());
        }
        let see = sql("select id from storage.buckets where id = $1", &[Some(bucket)]);
        let answer = session::look(&self.database, vec![see, sql(LEFT, &parameters)]).await?;
        store::first(&answer, 0).ok_or_else(Wire::no_such_bucket)?;
        let left = texts(answer.results.get(1).map(|result| result.rows.as_slice()).unwrap_or_default());
        Ok(left.into_iter().collect())
    }
}

fn texts(rows: &[Row]) -> Vec<String> {
    rows.iter().filter_map(|row| row.text(0)).map(str::to_owned).collect()
}

fn changes(headers: &Described) -> Changes {
    Changes {
        media_type: Some(headers.content_type.clone().unwrap_or_else(|| UNKNOWN.to_owned())),
        cache_control: Some(headers.cache_control.clone().unwrap_or_else(|| "no-cache".to_owned())),
        user_metadata: Some(Some(user_metadata(headers))),
    }
}

/// As column `user_metadata` has it.
pub(super) fn user_metadata(headers: &Described) -> Value {
    let pairs = headers.metadata.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    Value::Object(pairs.collect::<Map<_, _>>())
}

pub(super) fn decide(said: &request::Conditions, object: &Object) -> Verdict {
    let conditions = Conditions {
        if_match: said.if_match.as_deref(),
        if_none_match: said.if_none_match.as_deref(),
        if_modified_since: said.if_modified_since.as_deref(),
        if_unmodified_since: said.if_unmodified_since.as_deref(),
        if_range: None,
    };
    conditions.decide(&object.metadata.etag, object.metadata.modified.unwrap_or(SystemTime::UNIX_EPOCH))
}

fn describe(headers: &mut HeaderMap, object: &Object) {
    let metadata = &object.metadata;
    respond::metadata(headers, object.user_metadata.as_ref());
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    set(headers, header::CONTENT_TYPE, &metadata.media_type);
    set(headers, header::ETAG, &metadata.etag);
    set(headers, header::CACHE_CONTROL, &metadata.cache_control);
    if let Some(modified) = metadata.modified {
        set(headers, header::LAST_MODIFIED, &httpdate::fmt_http_date(modified));
    }
}
