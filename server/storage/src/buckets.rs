//! Buckets: made, read, changed, emptied and removed as the caller, so row level security on `storage.buckets` decides.

use std::time::{Duration, Instant};

use http::Response;
use ntier_protocol::storage::error::{Code, Error as Wire};
use ntier_protocol::storage::name::BucketId;
use ntier_protocol::storage::request::{self, CreateBucket, UpdateBucket};
use ntier_security::caller::Caller;
use serde_json::{Value, json};

use crate::Storage;
use crate::body::{self, Body};
use crate::error::Error;
use crate::respond;
use crate::session::{self, Mode, Request, Work, sql};
use crate::store::{self, time};
use crate::visitor::{Visitor, owner};

/// A bucket as JSON.
const BUCKET: &str = concat!(
    "json_build_object('id', b.id, 'name', b.name, 'owner', coalesce(b.owner::text, ''), 'public', b.public, ",
    "'file_size_limit', b.file_size_limit, 'allowed_mime_types', b.allowed_mime_types, 'created_at', ",
    time!("b.created_at"),
    ", 'updated_at', ",
    time!("b.updated_at"),
);

impl Storage {
    /// `GET /bucket`.
    pub(crate) async fn list_buckets(&self, visitor: &Visitor) -> Result<Response<Body>, Error> {
        let number = |name: &str| match visitor.parameter(name) {
            None | Some("") => Ok(None),
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() < 10 => Ok(Some(text)),
            Some(_) => Err(Wire::new(Code::InvalidRequest, format!("querystring/{name} must be integer"))),
        };
        let (limit, offset) = (number("limit")?, number("offset")?);
        let column = match visitor.parameter("sortColumn") {
            None | Some("") => None,
            Some(name @ ("id" | "name" | "created_at" | "updated_at")) => Some(name),
            Some(_) => {
                return Err(Wire::new(
                    Code::InvalidRequest,
                    "querystring/sortColumn must be equal to one of the allowed values",
                )
                .into());
            }
        };
        let order = match visitor.parameter("sortOrder") {
            None | Some("" | "asc") => "asc",
            Some("desc") => "desc",
            Some(_) => {
                return Err(Wire::new(
                    Code::InvalidRequest,
                    "querystring/sortOrder must be equal to one of the allowed values",
                )
                .into());
            }
        };
        let order = column.map(|column| format!("order by b.{column} {order}")).unwrap_or_default();
        // Old versions of the client for Python know no type.
        let kind = if knows_types(visitor) { ", 'type', b.type)" } else { ")" };
        let text = format!(
            "select coalesce(json_agg(row), '[]') from (select {BUCKET}{kind} as row from storage.buckets b \
             where $1::text is null or strpos(lower(b.name), lower($1)) > 0 {order} limit $2::bigint offset $3::bigint) list"
        );
        let search = visitor.parameter("search").filter(|text| !text.is_empty());
        let statement = sql(&text, &[search, limit, offset]);
        self.json(visitor, "storage.bucket.list", statement).await?.ok_or(Error::Incomplete)
    }

    /// `GET /bucket/{id}`.
    pub(crate) async fn get_bucket(&self, visitor: &Visitor, id: &str) -> Result<Response<Body>, Error> {
        let text = format!("select {BUCKET}) from storage.buckets b where b.id = $1");
        let found = self.json(visitor, "storage.bucket.get", sql(&text, &[Some(id)])).await?;
        found.ok_or_else(|| Wire::no_such_bucket().into())
    }

    /// `POST /bucket`.
    pub(crate) async fn create_bucket(&self, visitor: &Visitor, body: Body) -> Result<Response<Body>, Error> {
        let wanted: CreateBucket = request::parse(&body::whole(body).await?)?;
        let name = BucketId::parse(&wanted.name)?;
        let id = BucketId::parse(wanted.id.as_deref().unwrap_or(&wanted.name))?;
        match wanted.kind.as_deref() {
            None | Some("STANDARD") => {}
            Some(kind) => {
                let message = format!("The feature {kind} is not enabled for this resource");
                return Err(Wire::new(Code::FeatureNotEnabled, message).into());
            }
        }
        let limit = wanted.file_size_limit.as_ref().map(|value| self.bucket_limit(value)).transpose()?.flatten();
        let types = wanted.allowed_mime_types.map(request::media_types).transpose()?;
        let caller = visitor.caller()?;
        let owner = owner(caller);
        let uuid = owner.as_deref().filter(|owner| uuid::Uuid::try_parse(owner).is_ok());
        let statement = sql(
            "insert into storage.buckets (id, name, owner, owner_id, public, file_size_limit, allowed_mime_types) \
             values ($1, $2, $3::uuid, $4, $5::boolean, $6::bigint, \
             case when $7::jsonb is not null then array(select jsonb_array_elements_text($7::jsonb)) end)",
            &[
                Some(id.as_str()),
                Some(name.as_str()),
                uuid,
                owner.as_deref(),
                Some(if wanted.public == Some(true) { "true" } else { "false" }),
                limit.map(|limit| limit.to_string()).as_deref(),
                types.map(|types| json!(types).to_string()).as_deref(),
            ],
        );
        let answer = self.change(visitor, "storage.bucket.create", statement).await;
        answer.map_err(|error| match error.wire().code {
            Code::ResourceAlreadyExists => Wire::already_exists(Code::BucketAlreadyExists).into(),
            _ => error,
        })?;
        Ok(respond::json(&json!({ "name": name.as_str() })))
    }

    /// `PUT /bucket/{id}`.
    pub(crate) async fn update_bucket(&self, visitor: &Visitor, id: &str, body: Body) -> Result<Response<Body>, Error> {
        let wanted: UpdateBucket = request::parse(&body::whole(body).await?)?;
        let limit = wanted.file_size_limit.as_ref().map(|value| self.bucket_limit(value)).transpose()?;
        let types = match wanted.allowed_mime_types {
            None => None,
            Some(list) => Some(list.map(request::media_types).transpose()?),
        };
        if wanted.public.is_none() && limit.is_none() && types.is_none() {
            return Err(Wire::new(Code::InvalidRequest, "No content provided").into());
        }
        let flag = |set: bool| Some(if set { "true" } else { "false" });
        let statement = sql(
            "update storage.buckets set public = coalesce($2::boolean, public), \
             file_size_limit = case when $3::boolean then $4::bigint else file_size_limit end, \
             allowed_mime_types = case when not $5::boolean then allowed_mime_types \
             when $6::jsonb is not null then array(select jsonb_array_elements_text($6::jsonb)) end, \
             updated_at = now() where id = $1 returning id",
            &[
                Some(id),
                wanted.public.and_then(flag),
                flag(limit.is_some()),
                limit.flatten().map(|limit| limit.to_string()).as_deref(),
                flag(types.is_some()),
                types.flatten().map(|types| json!(types).to_string()).as_deref(),
            ],
        );
        let answer = self.change(visitor, "storage.bucket.update", statement).await?;
        store::first(&answer, 0).ok_or_else(Wire::no_such_bucket)?;
        Ok(respond::message("Successfully updated"))
    }

    /// `DELETE /bucket/{id}`.
    pub(crate) async fn delete_bucket(&self, visitor: &Visitor, id: &str) -> Result<Response<Body>, Error> {
        let statement = sql("delete from storage.buckets where id = $1 returning id", &[Some(id)]);
        let answer = self.change(visitor, "storage.bucket.delete", statement).await?;
        store::first(&answer, 0).ok_or_else(Wire::no_such_bucket)?;
        Ok(respond::message("Successfully deleted"))
    }

    /// `POST /bucket/{id}/empty`: takes away what the caller may take away.
    pub(crate) async fn empty_bucket(&self, visitor: &Visitor, id: &str) -> Result<Response<Body>, Error> {
        /// A client waits so long; what is left then is left.
        const PATIENCE: Duration = Duration::from_mins(1);
        let caller = visitor.caller()?;
        let request = Request::of(visitor, "storage.bucket.empty");
        let begun = Instant::now();
        let see = sql("select id from storage.buckets where id = $1", &[Some(id)]);
        let work = Work { service: Vec::new(), caller: vec![see] };
        let answer = session::as_caller(&self.database, caller, &request, Mode::Read, work).await?;
        store::first(&answer, 0).ok_or_else(Wire::no_such_bucket)?;
        while self.remove_some(caller, &request, id).await? && begun.elapsed() < PATIENCE {}
        Ok(respond::message("Empty bucket has been queued. Completion may take up to an hour."))
    }

    /// Removes a thousand objects of the bucket; false where there were none.
    async fn remove_some(&self, caller: &Caller, request: &Request, bucket: &str) -> Result<bool, Error> {
        let statement = sql(
            "delete from storage.objects where id in \
             (select id from storage.objects where bucket_id = $1 limit 1000) returning version",
            &[Some(bucket)],
        );
        let work = Work { service: Vec::new(), caller: vec![statement] };
        let answer = session::as_caller(&self.database, caller, request, Mode::Write, work).await?;
        let rows = answer.results.first().map(|result| result.rows.as_slice()).unwrap_or_default();
        self.discard(rows.iter().filter_map(|row| row.text(0)).map(str::to_owned).collect());
        Ok(!rows.is_empty())
    }

    fn bucket_limit(&self, value: &Value) -> Result<Option<u64>, Error> {
        let limit = request::size_limit(value)?;
        if limit.is_some_and(|limit| limit > self.settings.file_size_limit) {
            return Err(Wire::too_large().into());
        }
        Ok(limit)
    }

    /// Runs a change as the caller.
    pub(crate) async fn change(
        &self,
        visitor: &Visitor,
        operation: &'static str,
        statement: ntier_backing::database::Statement,
    ) -> Result<ntier_backing::database::Answer, Error> {
        let work = Work { service: Vec::new(), caller: vec![statement] };
        let request = Request::of(visitor, operation);
        session::as_caller(&self.database, visitor.caller()?, &request, Mode::Write, work).await
    }

    /// The JSON that a statement gives to the caller; `None` where there is no row.
    pub(crate) async fn json(
        &self,
        visitor: &Visitor,
        operation: &'static str,
        statement: ntier_backing::database::Statement,
    ) -> Result<Option<Response<Body>>, Error> {
        let work = Work { service: Vec::new(), caller: vec![statement] };
        let request = Request::of(visitor, operation);
        let answer = session::as_caller(&self.database, visitor.caller()?, &request, Mode::Read, work).await?;
        let text = store::first(&answer, 0).and_then(|row| row.text(0));
        Ok(text.map(|text| respond::text(text.to_owned())))
    }
}

/// Source: storage-api, `getAllBuckets.ts`.
fn knows_types(visitor: &Visitor) -> bool {
    let is_before = |header: &'static str, prefix: &str, since: [u32; 3]| {
        let version = visitor.text(header).and_then(|text| text.split(prefix).nth(1));
        let mut parts = version.unwrap_or_default().split(['.', ' ']).map_while(|part| part.parse::<u32>().ok());
        match (parts.next(), parts.next(), parts.next()) {
            (Some(major), Some(minor), Some(patch)) => [major, minor, patch] < since,
            _ => false,
        }
    };
    !is_before("x-client-info", "supabase-py/", [2, 18, 0])
        && !is_before("user-agent", "supabase-py/storage3 v", [0, 12, 1])
}
