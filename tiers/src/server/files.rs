//! Files of a node: where their bytes are, what the project wants to be there, and what is done about them beside requests.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ntier_backing::blobs::{self, Blobs, Disk, S3};
use ntier_backing::database::Database;
use ntier_node::{Log, Observation};
use ntier_security::keys::Keys;
use ntier_storage::s3::Credentials;
use ntier_storage::{Declared, DeclaredBucket, Storage};

use crate::project::config::Bucket;
use crate::project::{Outcome, Project, Unread, migrate};
use crate::settings::Settings;

/// Why what the project wants is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the bucket {name} of config.toml: {cause}")]
    Bucket { name: String, cause: ntier_storage::Error },
    #[error("{path}: {cause}")]
    Object { path: String, cause: ntier_storage::Error },
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error(transparent)]
    Bookkeeping(#[from] migrate::Error),
}

/// Where the bytes of files are.
pub async fn blobs(settings: &Settings) -> Result<Blobs, blobs::Error> {
    let storage = &settings.storage;
    let blobs = match storage.s3.bucket() {
        Some(bucket) => Blobs::S3(S3::open(&bucket)?),
        None => Blobs::Disk(Disk::open(storage.folder.clone().unwrap_or_else(|| settings.data.join("files")))?),
    };
    blobs.check().await?;
    Ok(blobs)
}

/// With what S3's clients sign; `None` where their protocol is switched off.
pub fn credentials(settings: &Settings, keys: &Keys) -> Option<Credentials> {
    let key = keys.s3.as_ref().filter(|_| settings.storage.s3_protocol.enabled)?;
    Some(Credentials {
        access_key_id: key.access_key_id.clone(),
        secret_access_key: key.secret_access_key.clone(),
        session_secrets: vec![keys.anon_key.clone(), keys.publishable_key.clone()],
    })
}

/// Makes the buckets of the configuration, or changes them; puts files into them where that is still to be done, which is after the
/// first start. Buckets and files that are not named stay.
pub async fn declare(
    database: &Database,
    storage: &Storage,
    project: &Project,
    observe: &dyn Fn(Outcome),
) -> Result<(), Error> {
    let buckets = &project.config.storage.buckets;
    for (name, bucket) in buckets {
        let declared = DeclaredBucket {
            name,
            public: bucket.public,
            file_size_limit: bucket.file_size_limit,
            allowed_mime_types: bucket.allowed_mime_types.as_deref().unwrap_or_default(),
        };
        match storage.declare(&declared).await {
            Ok(Declared::Made) => observe(Outcome::BucketMade(name.clone())),
            Ok(Declared::Changed) => observe(Outcome::BucketChanged(name.clone())),
            Ok(Declared::Nothing) => {}
            Err(cause) => return Err(Error::Bucket { name: name.clone(), cause }),
        }
    }
    if buckets.is_empty() || !migrate::files_pending(database).await? {
        return Ok(());
    }
    for (name, bucket) in buckets {
        upload(storage, project, name, bucket, observe).await?;
    }
    Ok(migrate::files_done(database).await?)
}

async fn upload(
    storage: &Storage,
    project: &Project,
    name: &str,
    bucket: &Bucket,
    observe: &dyn Fn(Outcome),
) -> Result<(), Error> {
    let Some(path) = &bucket.objects_path else { return Ok(()) };
    let Some(objects) = project.objects(path)? else {
        let remark = format!("storage.buckets.{name}.objects_path: there is no {path} in the folder supabase");
        observe(Outcome::Remark(remark));
        return Ok(());
    };
    let mut files = 0;
    for (key, path) in objects {
        match storage.put_file(name, &key, &path).await {
            Ok(()) => files += 1,
            // The others need not wait until somebody has changed this one.
            Err(ntier_storage::Error::Refused(wire)) => {
                observe(Outcome::Remark(refused(name, &path, &wire.to_string())));
            }
            Err(cause) => return Err(Error::Object { path: path.display().to_string(), cause }),
        }
    }
    observe(Outcome::Uploaded { bucket: name.to_owned(), files });
    Ok(())
}

fn refused(bucket: &str, path: &Path, why: &str) -> String {
    format!("{} is not put into the bucket {bucket}: {why}", path.display())
}

/// Does what is to be done about files beside requests: jobs at once, and a look now and then at blobs that no row names.
pub async fn keep(storage: Arc<Storage>, sweep_after: Duration, log: Log) {
    let sweeping = async {
        loop {
            tokio::time::sleep(sweep_after).await;
            match storage.sweep(sweep_after).await {
                Ok(swept) if swept.removed + swept.unfinished > 0 => {
                    log.observe(&Observation::BlobsSwept { removed: swept.removed, unfinished: swept.unfinished });
                }
                Ok(_) => {}
                Err(cause) => log.observe(&Observation::BlobsNotSwept { cause: &cause.to_string() }),
            }
        }
    };
    tokio::join!(storage.clone().do_jobs(), sweeping);
}
