//! What a project's files say: buckets that are to be there, and files in them. Done by the node at its start, as the service.
//! Nothing is taken away that is not named. Source: the Supabase CLI, `pkg/storage/batch.go`.

use std::path::Path;

use ntier_protocol::storage::media_type;
use ntier_protocol::storage::name::{BucketId, ObjectKey};
use ntier_protocol::storage::request;
use serde_json::json;
use tokio::fs::File;

use crate::Storage;
use crate::error::Error;
use crate::session::{self, Request, sql};
use crate::store;
use crate::upload::{Description, Source, Target};

/// A bucket that is to be there. What is `None` stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredBucket<'a> {
    pub name: &'a str,
    pub public: Option<bool>,
    /// Bytes.
    pub file_size_limit: Option<u64>,
    /// An empty list says nothing.
    pub allowed_mime_types: &'a [String],
}

/// What had to be done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    Made,
    Changed,
    /// It was as it is to be.
    Nothing,
}

impl Storage {
    /// Makes the bucket, or changes what is said of it. Nodes that start together may all do so.
    pub async fn declare(&self, bucket: &DeclaredBucket<'_>) -> Result<Declared, Error> {
        let name = BucketId::parse(bucket.name)?;
        let types = request::media_types(bucket.allowed_mime_types.to_vec())?;
        let types = (!types.is_empty()).then(|| json!(types).to_string());
        let limit = bucket.file_size_limit.map(|limit| limit.to_string());
        let public = bucket.public.map(|public| public.to_string());
        let parameters = [Some(name.as_str()), public.as_deref(), limit.as_deref(), types.as_deref()];
        let change = sql(
            "update storage.buckets b set public = new.public, file_size_limit = new.file_size_limit, \
             allowed_mime_types = new.allowed_mime_types, updated_at = now() \
             from (select id, coalesce($2::boolean, public) as public, \
             coalesce($3::bigint, file_size_limit) as file_size_limit, \
             case when $4::jsonb is null then allowed_mime_types \
             else array(select jsonb_array_elements_text($4::jsonb)) end as allowed_mime_types \
             from storage.buckets where name = $1) new \
             where b.id = new.id and (b.public, b.file_size_limit, b.allowed_mime_types) \
             is distinct from (new.public, new.file_size_limit, new.allowed_mime_types) returning b.id",
            &parameters,
        );
        let make = sql(
            "insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types) \
             values ($1, $1, coalesce($2::boolean, false), $3::bigint, \
             case when $4::jsonb is not null then array(select jsonb_array_elements_text($4::jsonb)) end) \
             on conflict do nothing returning id",
            &parameters,
        );
        let answer = session::finish(&self.database, vec![change, make]).await?;
        Ok(match (store::first(&answer, 0), store::first(&answer, 1)) {
            (_, Some(_)) => Declared::Made,
            (Some(_), None) => Declared::Changed,
            (None, None) => Declared::Nothing,
        })
    }

    /// Puts a file of this machine into a bucket, instead of what has its name there. Its media type follows from the ending.
    ///
    /// # Errors
    /// Also where the bucket does not take such a file.
    pub async fn put_file(&self, bucket: &str, key: &str, path: &Path) -> Result<(), Error> {
        let (bucket, key) = (BucketId::parse(bucket)?, ObjectKey::parse(key)?);
        let broken = |cause: std::io::Error| Error::Broken(cause.to_string());
        let file = File::open(path).await.map_err(broken)?;
        let description = Description {
            media_type: media_type::of_name(key.file_name()).to_owned(),
            // Source: the Supabase CLI, `pkg/storage/objects.go`.
            cache_control: "max-age=3600".into(),
            robots: None,
            user_metadata: None,
            declared: Some(file.metadata().await.map_err(broken)?.len()),
        };
        let target = Target { bucket: &bucket, key: &key, owner: None, upsert: true };
        let request = Request::of_job("storage.object.upload");
        let limits = self.may_upload(None, &request, &target, &description).await?;
        self.write(&limits, &target, &description, Source::File(file), Vec::new()).await?;
        Ok(())
    }
}
