//! Removing objects. The row goes first, as the caller; then the blobs that nothing names any more.

use http::Response;
use ntier_backing::blobs::{BlobId, Blobs};
use ntier_backing::database::Database;
use ntier_protocol::storage::error::Error as Wire;
use ntier_protocol::storage::name::BucketId;
use ntier_protocol::storage::request::{self, Remove};
use serde_json::{Value, json};

use crate::Storage;
use crate::body::{self, Body};
use crate::error::Error;
use crate::respond;
use crate::session::{self, sql};
use crate::store::time;
use crate::visitor::{Visitor, place};

impl Storage {
    /// `DELETE /object/{bucket}`.
    pub(crate) async fn remove(&self, visitor: &Visitor, bucket: &str, body: Body) -> Result<Response<Body>, Error> {
        let bucket = BucketId::parse(bucket)?;
        let wanted: Remove = request::parse(&body::whole(body).await?)?;
        request::check_names("prefixes", &wanted.prefixes)?;
        Ok(respond::json(&Value::Array(self.remove_named(visitor, &bucket, &wanted.prefixes).await?)))
    }

    /// `DELETE /object/{bucket}/{key}`.
    pub(crate) async fn remove_one(
        &self,
        visitor: &Visitor,
        bucket: &str,
        key: &[String],
    ) -> Result<Response<Body>, Error> {
        let (bucket, key) = place(bucket, key)?;
        let removed = self.remove_named(visitor, &bucket, &[key.as_str().to_owned()]).await?;
        removed.first().ok_or_else(Wire::no_such_key)?;
        Ok(respond::message("Successfully deleted"))
    }

    /// Removes the objects of these names that the caller may remove, and gives their rows.
    pub(crate) async fn remove_named(
        &self,
        visitor: &Visitor,
        bucket: &BucketId,
        names: &[String],
    ) -> Result<Vec<Value>, Error> {
        const REMOVE: &str = concat!(
            "delete from storage.objects o where o.bucket_id = $1 ",
            "and o.name = any (array(select jsonb_array_elements_text($2::jsonb))) ",
            "returning o.version, json_build_object('id', o.id, 'name', o.name, 'bucket_id', o.bucket_id, ",
            "'owner', coalesce(o.owner::text, ''), 'owner_id', o.owner_id, 'version', o.version, ",
            "'metadata', o.metadata, 'user_metadata', o.user_metadata, 'created_at', ",
            time!("o.created_at"),
            ", 'updated_at', ",
            time!("o.updated_at"),
            ", 'last_accessed_at', ",
            time!("o.last_accessed_at"),
            ")"
        );
        let statement = sql(REMOVE, &[Some(bucket.as_str()), Some(&json!(names).to_string())]);
        let answer = self.change(visitor, "storage.object.delete_many", statement).await?;
        let rows = answer.results.first().map(|result| result.rows.as_slice()).unwrap_or_default();
        self.discard(rows.iter().filter_map(|row| row.text(0)).map(str::to_owned).collect());
        let read = |json: &str| serde_json::from_str(json).map_err(|_| Error::Incomplete);
        rows.iter().map(|row| row.text(1).map_or(Err(Error::Incomplete), read)).collect()
    }

    /// Removes, in a while, the blobs of versions that no row names any more. What is not done before the node ends, the sweeper
    /// does.
    pub(crate) fn discard(&self, versions: Vec<String>) {
        if versions.is_empty() {
            return;
        }
        let (database, blobs) = (self.database.clone(), self.blobs.clone());
        tokio::spawn(async move {
            let _ = discard(&database, &blobs, &versions).await;
        });
    }

    /// Removes, in a while, blobs that were never named.
    pub(crate) fn forget(&self, ids: Vec<BlobId>) {
        let blobs = self.blobs.clone();
        tokio::spawn(async move {
            let _ = blobs.remove(&ids).await;
        });
    }
}

/// Removes the blobs of these versions, and the rows that name their parts.
pub async fn discard(database: &Database, blobs: &Blobs, versions: &[String]) -> Result<(), Error> {
    let mut ids: Vec<BlobId> = versions.iter().filter_map(|version| BlobId::parse(version)).collect();
    let list = json!(ids.iter().map(BlobId::as_str).collect::<Vec<_>>()).to_string();
    let parts = sql(
        "delete from ntier.object_parts where version = any (array(select jsonb_array_elements_text($1::jsonb)::uuid)) \
         returning blob",
        &[Some(&list)],
    );
    let answer = session::finish(database, vec![parts]).await?;
    let rows = answer.results.first().map(|result| result.rows.as_slice()).unwrap_or_default();
    ids.extend(rows.iter().filter_map(|row| row.text(0)).filter_map(BlobId::parse));
    Ok(blobs.remove(&ids).await?)
}
