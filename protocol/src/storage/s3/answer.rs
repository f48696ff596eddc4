//! The answers that are XML.
//!
//! Times are RFC 3339 in UTC, as PostgreSQL gives them when asked; `ETags` come without quotes and are quoted here.

use super::encoding;
use super::request::{List, ListUploads, ListVersion, Object, Upload};
use super::xml::Document;

/// Amazon's id of the version of what has no other.
const ONLY: &str = "null";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    pub name: String,
    pub created_at: String,
}

/// An object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    pub modified_at: String,
    pub etag: String,
    pub size_bytes: u64,
}

/// What a page of a listing has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    pub objects: Vec<Listed>,
    pub prefixes: Vec<String>,
    /// Where the next page begins; there is none without it. An opaque token with [`ListVersion::Two`], else the last key or prefix.
    pub next: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedUpload {
    pub key: String,
    pub id: String,
    pub initiated_at: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadsPage {
    pub uploads: Vec<ListedUpload>,
    pub prefixes: Vec<String>,
    /// Markers of key and upload.
    pub next: Option<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPart {
    pub number: u32,
    pub modified_at: String,
    pub etag: String,
    pub size_bytes: u64,
}

pub fn buckets(buckets: &[Bucket]) -> String {
    let mut document = Document::new("ListAllMyBucketsResult");
    document.open("Buckets");
    for bucket in buckets {
        document.open("Bucket");
        document.text("Name", &bucket.name);
        document.text("CreationDate", &bucket.created_at);
        document.close();
    }
    document.finish()
}

pub fn location(region: &str) -> String {
    // Amazon's form: the text stands in the root.
    let mut document = Document::new("LocationConstraint");
    document.characters(region);
    document.finish()
}

/// Versions are not kept.
pub fn versioning() -> String {
    let mut document = Document::new("VersioningConfiguration");
    document.text("Status", "Suspended");
    document.text("MfaDelete", "Disabled");
    document.finish()
}

/// Tags are not kept.
pub fn tagging() -> String {
    let mut document = Document::new("Tagging");
    document.open("TagSet");
    document.finish()
}

pub fn objects(list: &List, page: &Page) -> String {
    let key = |key: &str| shown(key, list.encoded);
    let versions = list.version == ListVersion::Versions;
    let mut document = Document::new(if versions { "ListVersionsResult" } else { "ListBucketResult" });
    document.text("Name", &list.bucket);
    document.text("Prefix", &key(&list.prefix));
    match list.version {
        ListVersion::One => {
            document.text("Marker", &key(list.after.as_deref().unwrap_or_default()));
            // Amazon: the last key of the page tells the same where there is no delimiter.
            let next = page.next.as_deref().filter(|_| list.delimiter.is_some());
            document.optional("NextMarker", next.map(key).as_deref());
        }
        ListVersion::Versions => {
            document.text("KeyMarker", &key(list.after.as_deref().unwrap_or_default()));
            document.text("VersionIdMarker", "");
            document.optional("NextKeyMarker", page.next.as_deref().map(key).as_deref());
            document.optional("NextVersionIdMarker", page.next.as_ref().map(|_| ONLY));
        }
        ListVersion::Two => {
            document.optional("StartAfter", list.after.as_deref().map(key).as_deref());
            document.optional("ContinuationToken", list.token.as_deref());
            document.optional("NextContinuationToken", page.next.as_deref());
            document.value("KeyCount", page.objects.len() + page.prefixes.len());
        }
    }
    document.value("MaxKeys", list.limit);
    document.optional("Delimiter", list.delimiter.as_deref().map(key).as_deref());
    document.optional("EncodingType", list.encoded.then_some("url"));
    document.value("IsTruncated", page.next.is_some());
    for object in &page.objects {
        document.open(if versions { "Version" } else { "Contents" });
        document.text("Key", &key(&object.key));
        if versions {
            document.text("VersionId", ONLY);
            document.value("IsLatest", true);
        }
        document.text("LastModified", &object.modified_at);
        document.text("ETag", &quoted(&object.etag));
        document.value("Size", object.size_bytes);
        document.text("StorageClass", "STANDARD");
        document.close();
    }
    prefixes(&mut document, &page.prefixes, list.encoded);
    document.finish()
}

pub fn uploads(list: &ListUploads, page: &UploadsPage) -> String {
    let key = |key: &str| shown(key, list.encoded);
    let mut document = Document::new("ListMultipartUploadsResult");
    document.text("Bucket", &list.bucket);
    document.text("KeyMarker", &key(list.key_marker.as_deref().unwrap_or_default()));
    document.text("UploadIdMarker", list.upload_marker.as_deref().unwrap_or_default());
    if let Some((next_key, next_upload)) = &page.next {
        document.text("NextKeyMarker", &key(next_key));
        document.text("NextUploadIdMarker", next_upload);
    }
    document.text("Prefix", &key(&list.prefix));
    document.optional("Delimiter", list.delimiter.as_deref().map(key).as_deref());
    document.value("MaxUploads", list.limit);
    document.optional("EncodingType", list.encoded.then_some("url"));
    document.value("IsTruncated", page.next.is_some());
    for upload in &page.uploads {
        document.open("Upload");
        document.text("Key", &key(&upload.key));
        document.text("UploadId", &upload.id);
        document.text("StorageClass", "STANDARD");
        document.text("Initiated", &upload.initiated_at);
        document.close();
    }
    prefixes(&mut document, &page.prefixes, list.encoded);
    document.finish()
}

/// A page of parts; `more` says that there are others behind it.
pub fn parts(upload: &Upload, after: u32, limit: u32, parts: &[ListedPart], more: bool) -> String {
    let mut document = Document::new("ListPartsResult");
    document.text("Bucket", &upload.object.bucket);
    document.text("Key", &upload.object.key);
    document.text("UploadId", &upload.id);
    document.value("PartNumberMarker", after);
    if let Some(last) = parts.last().filter(|_| more) {
        document.value("NextPartNumberMarker", last.number);
    }
    document.value("MaxParts", limit);
    document.value("IsTruncated", more);
    for part in parts {
        document.open("Part");
        document.value("PartNumber", part.number);
        document.text("LastModified", &part.modified_at);
        document.text("ETag", &quoted(&part.etag));
        document.value("Size", part.size_bytes);
        document.close();
    }
    document.text("StorageClass", "STANDARD");
    document.finish()
}

pub fn upload_created(upload: &Upload) -> String {
    let mut document = Document::new("InitiateMultipartUploadResult");
    document.text("Bucket", &upload.object.bucket);
    document.text("Key", &upload.object.key);
    document.text("UploadId", &upload.id);
    document.finish()
}

pub fn upload_completed(object: &Object, etag: &str) -> String {
    let mut document = Document::new("CompleteMultipartUploadResult");
    document.text("Location", &format!("{}/{}", object.bucket, object.key));
    document.text("Bucket", &object.bucket);
    document.text("Key", &object.key);
    document.text("ETag", &quoted(etag));
    document.finish()
}

pub fn object_copied(etag: &str, modified_at: &str) -> String {
    copied("CopyObjectResult", etag, modified_at)
}

pub fn part_copied(etag: &str, modified_at: &str) -> String {
    copied("CopyPartResult", etag, modified_at)
}

/// What was deleted, and what was there and may not be deleted.
pub fn deleted(deleted: &[String], denied: &[String], quiet: bool) -> String {
    let mut document = Document::new("DeleteResult");
    for key in deleted.iter().filter(|_| !quiet) {
        document.open("Deleted");
        document.text("Key", key);
        document.close();
    }
    for key in denied {
        document.open("Error");
        document.text("Key", key);
        document.text("Code", "AccessDenied");
        document.text("Message", "Access Denied");
        document.close();
    }
    document.finish()
}

/// As headers and answers have an `ETag`.
pub fn quoted(etag: &str) -> String {
    format!("\"{}\"", etag.trim_matches('"'))
}

fn copied(root: &'static str, etag: &str, modified_at: &str) -> String {
    let mut document = Document::new(root);
    document.text("ETag", &quoted(etag));
    document.text("LastModified", modified_at);
    document.finish()
}

fn prefixes(document: &mut Document, prefixes: &[String], encoded: bool) {
    for prefix in prefixes {
        document.open("CommonPrefixes");
        document.text("Prefix", &shown(prefix, encoded));
        document.close();
    }
}

fn shown(key: &str, encoded: bool) -> String {
    if encoded { encoding::path(key.as_bytes()) } else { key.to_owned() }
}

#[cfg(test)]
mod tests;
