//! Buckets: made, seen and removed as the caller.

use http::{HeaderValue, Response, StatusCode, header};
use ntier_backing::database::{Answer, Statement};
use ntier_protocol::storage::error::{Code as WireCode, Error as Wire};
use ntier_protocol::storage::name::BucketId;
use ntier_protocol::storage::s3::answer;

use super::{Fault, respond};
use crate::Storage;
use crate::body::Body;
use crate::session::{self, Mode, Request, Work, sql};
use crate::store::{self, time};
use crate::visitor::{Visitor, owner};

/// There is one place. This is how Amazon calls its first, which needs no name where a bucket's is asked for.
const REGION: &str = "us-east-1";

impl Storage {
    pub(super) async fn s3_buckets(&self, visitor: &Visitor) -> Result<Response<Body>, Fault> {
        const LIST: &str = concat!("select b.name, ", time!("b.created_at"), " from storage.buckets b order by b.name");
        let answer = self.s3_read(visitor, "storage.s3.bucket.list", sql(LIST, &[])).await?;
        let rows = answer.results.first().map(|result| result.rows.as_slice()).unwrap_or_default();
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        let buckets: Vec<answer::Bucket> =
            rows.iter().map(|row| answer::Bucket { name: text(row.text(0)), created_at: text(row.text(1)) }).collect();
        Ok(respond::xml(answer::buckets(&buckets)))
    }

    pub(super) async fn s3_create_bucket(
        &self,
        visitor: &Visitor,
        bucket: &str,
        public: bool,
    ) -> Result<Response<Body>, Fault> {
        let id = BucketId::parse(bucket)?;
        let owner = owner(visitor.caller()?);
        let uuid = owner.as_deref().filter(|owner| uuid::Uuid::try_parse(owner).is_ok());
        let public = if public { "true" } else { "false" };
        let insert = sql(
            "insert into storage.buckets (id, name, owner, owner_id, public) values ($1, $1, $2::uuid, $3, $4::boolean)",
            &[Some(id.as_str()), uuid, owner.as_deref(), Some(public)],
        );
        let made = self.change(visitor, "storage.s3.bucket.create", insert).await;
        made.map_err(|error| match error.wire().code {
            WireCode::ResourceAlreadyExists => Wire::already_exists(WireCode::BucketAlreadyExists).into(),
            _ => error,
        })?;
        let mut response = respond::status(StatusCode::OK);
        if let Ok(location) = HeaderValue::from_str(&format!("/{bucket}")) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        Ok(response)
    }

    pub(super) async fn s3_delete_bucket(&self, visitor: &Visitor, bucket: &str) -> Result<Response<Body>, Fault> {
        let delete = sql("delete from storage.buckets where id = $1 returning id", &[Some(bucket)]);
        let answer = self.change(visitor, "storage.s3.bucket.delete", delete).await?;
        store::first(&answer, 0).ok_or_else(Wire::no_such_bucket)?;
        Ok(respond::status(StatusCode::NO_CONTENT))
    }

    pub(super) async fn s3_head_bucket(&self, visitor: &Visitor, bucket: &str) -> Result<Response<Body>, Fault> {
        self.s3_see_bucket(visitor, bucket, "storage.s3.bucket.head").await?;
        let mut response = respond::status(StatusCode::OK);
        response.headers_mut().insert("x-amz-bucket-region", HeaderValue::from_static(REGION));
        Ok(response)
    }

    pub(super) async fn s3_location(&self, visitor: &Visitor, bucket: &str) -> Result<Response<Body>, Fault> {
        self.s3_see_bucket(visitor, bucket, "storage.s3.bucket.get_location").await?;
        Ok(respond::xml(answer::location("")))
    }

    pub(super) async fn s3_versioning(&self, visitor: &Visitor, bucket: &str) -> Result<Response<Body>, Fault> {
        self.s3_see_bucket(visitor, bucket, "storage.s3.bucket.get_versioning").await?;
        Ok(respond::xml(answer::versioning()))
    }

    async fn s3_see_bucket(&self, visitor: &Visitor, bucket: &str, operation: &'static str) -> Result<(), Fault> {
        let see = sql("select id from storage.buckets where id = $1", &[Some(bucket)]);
        let answer = self.s3_read(visitor, operation, see).await?;
        store::first(&answer, 0).ok_or_else(Wire::no_such_bucket)?;
        Ok(())
    }

    /// Reads as the caller.
    pub(super) async fn s3_read(
        &self,
        visitor: &Visitor,
        operation: &'static str,
        statement: Statement,
    ) -> Result<Answer, Fault> {
        let work = Work { service: Vec::new(), caller: vec![statement] };
        let request = Request::of(visitor, operation);
        Ok(session::as_caller(&self.database, visitor.caller()?, &request, Mode::Read, work).await?)
    }
}
