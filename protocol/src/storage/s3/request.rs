//! What is asked: the operation, from method, path, query and headers.
//!
//! What has no operation here is refused as not implemented. storage-api takes `GET /bucket?acl` for a listing and
//! `PUT /bucket/key?tagging` for an upload; the latter would overwrite an object with its tags.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::encoding;
use super::{Code, Error, Parts};

/// Amazon's number of entries of a page, at most and by default.
pub const PAGE: u32 = 1000;

/// Amazon's highest number of a part.
pub const LAST_PART: u32 = 10_000;

/// Amazon's limit of what `x-amz-meta-` headers come to, names and values.
const METADATA: usize = 8 * 1024;

/// What storage-api keeps where a client makes an empty folder.
const PLACEHOLDER: &str = ".emptyFolderPlaceholder";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    ListBuckets,
    CreateBucket {
        bucket: String,
        public: bool,
    },
    DeleteBucket {
        bucket: String,
    },
    HeadBucket {
        bucket: String,
    },
    GetBucketLocation {
        bucket: String,
    },
    GetBucketVersioning {
        bucket: String,
    },
    ListObjects(List),
    HeadObject(Read),
    GetObject(Read),
    GetObjectTagging(Object),
    PutObject(Put),
    CopyObject(Copy),
    DeleteObject(Object),
    /// Which ones is in the body ([`super::body::delete`]).
    DeleteObjects {
        bucket: String,
        content_md5: Option<[u8; 16]>,
    },
    CreateMultipartUpload(Put),
    UploadPart {
        part: Part,
        content_md5: Option<[u8; 16]>,
    },
    UploadPartCopy {
        part: Part,
        source: Source,
        range: Option<ByteRange>,
    },
    /// Of which parts is in the body ([`super::body::complete`]).
    CompleteMultipartUpload {
        upload: Upload,
        only_new: bool,
    },
    AbortMultipartUpload(Upload),
    ListMultipartUploads(ListUploads),
    ListParts {
        upload: Upload,
        after: u32,
        limit: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub bucket: String,
    pub key: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    pub object: Object,
    pub id: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub upload: Upload,
    /// From 1 to [`LAST_PART`].
    pub number: u32,
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    pub bucket: String,
    pub version: ListVersion,
    pub prefix: String,
    /// Not empty.
    pub delimiter: Option<String>,
    /// At most [`PAGE`]; 0 gives an empty page.
    pub limit: u32,
    /// `start-after`, or `marker` of the first version, or `key-marker` of versions.
    pub after: Option<String>,
    /// Ours, of the page before.
    pub token: Option<String>,
    /// Keys are percent-encoded in the answer.
    pub encoded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListVersion {
    One,
    Two,
    /// Of all versions: each object has one.
    Versions,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListUploads {
    pub bucket: String,
    pub prefix: String,
    pub delimiter: Option<String>,
    pub limit: u32,
    pub key_marker: Option<String>,
    pub upload_marker: Option<String>,
    pub encoded: bool,
}

/// What to read, and how to say it. Range and the conditions of HTTP stay with whoever answers downloads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    pub bucket: String,
    pub key: String,
    pub conditions: Conditions,
    pub range: Option<String>,
    /// Headers of the answer that the client wants otherwise: name and value.
    pub overrides: Vec<(&'static str, String)>,
}

/// As the headers have them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    pub if_match: Option<String>,
    pub if_none_match: Option<String>,
    pub if_modified_since: Option<String>,
    pub if_unmodified_since: Option<String>,
}

/// What to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Put {
    pub bucket: String,
    pub key: String,
    pub headers: Described,
    pub content_md5: Option<[u8; 16]>,
    /// `If-None-Match: *`: not over something that is there.
    pub only_new: bool,
}

/// What a client says of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Described {
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
    /// `x-amz-meta-`, without that.
    pub metadata: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    pub bucket: String,
    pub key: String,
    pub source: Source,
    /// `None` takes the source's.
    pub headers: Option<Described>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub bucket: String,
    pub key: String,
    pub conditions: Conditions,
}

/// Bytes of a source, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    pub first: u64,
    pub last: u64,
}

/// Reads what is asked; `root` is where S3 begins in the path, without a slash at its end.
pub fn read(parts: &Parts<'_>, root: &str) -> Result<Operation, Error> {
    let path = parts.path.strip_prefix(root).ok_or(Code::InvalidRequest)?;
    let path = path.strip_prefix('/').unwrap_or(path);
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let (bucket, key) = (text(encoding::decoded(bucket))?, text(encoding::decoded(key))?);
    let query = Query::read(parts.query)?;
    // Of tags only the question after them is answered: there are none.
    let tags = query.has("tagging") && (parts.method != "GET" || key.is_empty());
    let versions = query.has("versions") && (parts.method != "GET" || !key.is_empty());
    let other_version = query.filled("versionId").is_some_and(|version| version != "null");
    let odd = [(tags, "tagging"), (versions, "versions"), (other_version, "versionId")];
    let odd = odd.into_iter().find_map(|(is_so, name)| is_so.then_some(name));
    if let Some(name) = query.unsupported().or(odd) {
        return Err(Error::new(Code::NotImplemented, format!("{name} is not implemented")));
    }
    if bucket.is_empty() {
        return match parts.method {
            "GET" if key.is_empty() => Ok(Operation::ListBuckets),
            "GET" | "HEAD" | "PUT" | "POST" | "DELETE" => Err(Code::InvalidBucketName.into()),
            _ => Err(Code::MethodNotAllowed.into()),
        };
    }
    if key.is_empty() { of_bucket(parts, &query, bucket) } else { of_object(parts, &query, bucket, key) }
}

fn of_bucket(parts: &Parts<'_>, query: &Query, bucket: String) -> Result<Operation, Error> {
    Ok(match parts.method {
        "PUT" => Operation::CreateBucket { bucket, public: parts.header("x-amz-acl") == Some("public-read") },
        "DELETE" => Operation::DeleteBucket { bucket },
        "HEAD" => Operation::HeadBucket { bucket },
        "GET" if query.has("location") => Operation::GetBucketLocation { bucket },
        "GET" if query.has("versioning") => Operation::GetBucketVersioning { bucket },
        "GET" if query.has("uploads") => Operation::ListMultipartUploads(list_uploads(query, bucket)?),
        "GET" => Operation::ListObjects(list(query, bucket)?),
        "POST" if query.has("delete") => Operation::DeleteObjects { bucket, content_md5: content_md5(parts)? },
        "POST" => return Err(Code::NotImplemented.into()),
        _ => return Err(Code::MethodNotAllowed.into()),
    })
}

fn of_object(parts: &Parts<'_>, query: &Query, bucket: String, key: String) -> Result<Operation, Error> {
    let upload = query.get("uploadId");
    Ok(match (parts.method, upload) {
        ("PUT", None) if query.has("partNumber") => return Err(missing("uploadId")),
        ("PUT", Some(id)) => part(parts, query, upload_of(bucket, key, id)?)?,
        ("PUT", None) if parts.header("x-amz-copy-source").is_some() => copy(parts, bucket, key)?,
        ("PUT", None) => Operation::PutObject(put(parts, bucket, key)?),
        ("POST", None) if query.has("uploads") => Operation::CreateMultipartUpload(put(parts, bucket, key)?),
        ("POST", Some(id)) => {
            let only_new = only_new(parts)?;
            Operation::CompleteMultipartUpload { upload: upload_of(bucket, key, id)?, only_new }
        }
        ("POST", None) => return Err(Code::NotImplemented.into()),
        ("DELETE", Some(id)) => Operation::AbortMultipartUpload(upload_of(bucket, key, id)?),
        ("DELETE", None) => Operation::DeleteObject(Object { bucket, key }),
        ("GET", Some(id)) => {
            let limit = query.number("max-parts", 1..=PAGE)?.unwrap_or(PAGE);
            let after = query.number("part-number-marker", 0..=u32::MAX)?.unwrap_or(0);
            Operation::ListParts { upload: upload_of(bucket, key, id)?, after, limit }
        }
        ("GET", None) if query.has("tagging") => Operation::GetObjectTagging(Object { bucket, key }),
        ("GET", None) => Operation::GetObject(Read { overrides: overrides(query)?, ..reading(parts, bucket, key) }),
        ("HEAD", _) => Operation::HeadObject(reading(parts, bucket, key)),
        _ => return Err(Code::MethodNotAllowed.into()),
    })
}

fn list(query: &Query, bucket: String) -> Result<List, Error> {
    let version = match query.get("list-type") {
        _ if query.has("versions") => ListVersion::Versions,
        None => ListVersion::One,
        Some("2") => ListVersion::Two,
        Some(_) => return Err(invalid("list-type")),
    };
    let (after, token) = match version {
        ListVersion::Versions => (query.filled("key-marker"), None),
        ListVersion::One => (query.filled("marker"), None),
        ListVersion::Two => (query.filled("start-after"), query.filled("continuation-token")),
    };
    Ok(List {
        bucket,
        version,
        prefix: query.get("prefix").unwrap_or_default().to_owned(),
        delimiter: query.filled("delimiter"),
        limit: query.number("max-keys", 0..=u32::MAX)?.unwrap_or(PAGE).min(PAGE),
        after,
        token,
        encoded: query.encoded()?,
    })
}

fn list_uploads(query: &Query, bucket: String) -> Result<ListUploads, Error> {
    Ok(ListUploads {
        bucket,
        prefix: query.get("prefix").unwrap_or_default().to_owned(),
        delimiter: query.filled("delimiter"),
        limit: query.number("max-uploads", 1..=PAGE)?.unwrap_or(PAGE),
        key_marker: query.filled("key-marker"),
        upload_marker: query.filled("upload-id-marker"),
        encoded: query.encoded()?,
    })
}

fn reading(parts: &Parts<'_>, bucket: String, key: String) -> Read {
    let range = parts.header("range").map(str::to_owned);
    Read { bucket, key, conditions: conditions(parts, ""), range, overrides: Vec::new() }
}

fn put(parts: &Parts<'_>, bucket: String, mut key: String) -> Result<Put, Error> {
    if key.ends_with('/') && parts.method == "PUT" && size(parts)? == Some(0) {
        key.push_str(PLACEHOLDER);
    }
    Ok(Put { bucket, key, headers: described(parts)?, content_md5: content_md5(parts)?, only_new: only_new(parts)? })
}

fn size(parts: &Parts<'_>) -> Result<Option<u64>, Error> {
    match parts.length("x-amz-decoded-content-length")? {
        None => parts.length("content-length"),
        length => Ok(length),
    }
}

/// Amazon's conditional writes. To write over a certain version alone is not supported, and must not seem to be.
fn only_new(parts: &Parts<'_>) -> Result<bool, Error> {
    match (parts.header("if-match"), parts.header("if-none-match")) {
        (None, None) => Ok(false),
        (None, Some("*")) => Ok(true),
        _ => Err(Error::new(Code::NotImplemented, "of conditional writes only If-None-Match: * is implemented")),
    }
}

fn described(parts: &Parts<'_>) -> Result<Described, Error> {
    let mut metadata = Vec::new();
    let mut size = 0;
    for (name, value) in parts.headers {
        if let Some(name) = name.strip_prefix("x-amz-meta-") {
            size += name.len() + value.len();
            metadata.push((name.to_owned(), (*value).to_owned()));
        }
    }
    if size > METADATA {
        return Err(Error::new(Code::InvalidRequest, "Your metadata headers exceed the maximum allowed metadata size"));
    }
    let header = |name: &str| parts.header(name).filter(|value| !value.is_empty()).map(str::to_owned);
    Ok(Described { content_type: header("content-type"), cache_control: header("cache-control"), metadata })
}

fn content_md5(parts: &Parts<'_>) -> Result<Option<[u8; 16]>, Error> {
    let Some(text) = parts.header("content-md5") else { return Ok(None) };
    let sum = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    sum.map(Some).ok_or_else(|| Code::InvalidDigest.into())
}

fn part(parts: &Parts<'_>, query: &Query, upload: Upload) -> Result<Operation, Error> {
    let number = query.number("partNumber", 1..=LAST_PART)?.ok_or_else(|| missing("partNumber"))?;
    let part = Part { upload, number };
    if parts.header("x-amz-copy-source").is_none() {
        return Ok(Operation::UploadPart { part, content_md5: content_md5(parts)? });
    }
    let range = parts.header("x-amz-copy-source-range").map(byte_range).transpose()?;
    Ok(Operation::UploadPartCopy { part, source: source(parts)?, range })
}

/// `bytes=first-last`, nothing else.
fn byte_range(text: &str) -> Result<ByteRange, Error> {
    let ends = text.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let range = ends.and_then(|(first, last)| Some(ByteRange { first: number(first)?, last: number(last)? }));
    range.filter(|range| range.first <= range.last).ok_or_else(|| invalid("x-amz-copy-source-range"))
}

fn copy(parts: &Parts<'_>, bucket: String, key: String) -> Result<Operation, Error> {
    let headers = match parts.header("x-amz-metadata-directive") {
        None | Some("COPY") => None,
        Some("REPLACE") => Some(described(parts)?),
        Some(_) => return Err(invalid("x-amz-metadata-directive")),
    };
    Ok(Operation::CopyObject(Copy { bucket, key, source: source(parts)?, headers }))
}

fn source(parts: &Parts<'_>) -> Result<Source, Error> {
    let header = parts.header("x-amz-copy-source").ok_or_else(|| missing("CopySource"))?;
    // Decoded once: a question mark that belongs to the key is encoded.
    let (path, version) = header.split_once('?').unwrap_or((header, ""));
    if version.starts_with("versionId=") && version != "versionId=null" {
        return Err(Error::new(Code::NotImplemented, "versions are not implemented"));
    }
    let path = text(encoding::decoded(path))?;
    let (bucket, key) = path.strip_prefix('/').unwrap_or(&path).split_once('/').ok_or_else(|| missing("CopySource"))?;
    if bucket.is_empty() || key.is_empty() {
        return Err(missing("CopySource"));
    }
    let (bucket, key) = (bucket.to_owned(), key.to_owned());
    Ok(Source { bucket, key, conditions: conditions(parts, "x-amz-copy-source-") })
}

fn conditions(parts: &Parts<'_>, prefix: &str) -> Conditions {
    let header = |name: &str| parts.header(&format!("{prefix}{name}")).map(str::to_owned);
    Conditions {
        if_match: header("if-match"),
        if_none_match: header("if-none-match"),
        if_modified_since: header("if-modified-since"),
        if_unmodified_since: header("if-unmodified-since"),
    }
}

fn overrides(query: &Query) -> Result<Vec<(&'static str, String)>, Error> {
    const NAMES: [(&str, &str); 6] = [
        ("response-content-disposition", "content-disposition"),
        ("response-content-type", "content-type"),
        ("response-cache-control", "cache-control"),
        ("response-content-encoding", "content-encoding"),
        ("response-content-language", "content-language"),
        ("response-expires", "expires"),
    ];
    let mut found = Vec::new();
    for (parameter, header) in NAMES {
        let Some(value) = query.filled(parameter) else { continue };
        if value.chars().any(char::is_control) {
            return Err(invalid(parameter));
        }
        found.push((header, value));
    }
    Ok(found)
}

fn upload_of(bucket: String, key: String, id: &str) -> Result<Upload, Error> {
    if id.is_empty() {
        return Err(Code::NoSuchUpload.into());
    }
    Ok(Upload { object: Object { bucket, key }, id: id.to_owned() })
}

/// The query, decoded. Of several values of a name the first counts.
struct Query(Vec<(String, String)>);

impl Query {
    fn read(query: &str) -> Result<Self, Error> {
        let pairs = encoding::pairs(query).map(|(name, value)| Ok((text(name)?, text(value)?)));
        pairs.collect::<Result<_, Error>>().map(Self)
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// A value that is not empty.
    fn filled(&self, name: &str) -> Option<String> {
        self.get(name).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    fn number(&self, name: &'static str, allowed: std::ops::RangeInclusive<u32>) -> Result<Option<u32>, Error> {
        let Some(text) = self.filled(name) else { return Ok(None) };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits && allowed.contains(number));
        number.map(Some).ok_or_else(|| invalid(name))
    }

    fn encoded(&self) -> Result<bool, Error> {
        match self.get("encoding-type") {
            None | Some("") => Ok(false),
            Some("url") => Ok(true),
            Some(_) => Err(invalid("encoding-type")),
        }
    }

    /// What Amazon's S3 has and this one has not.
    fn unsupported(&self) -> Option<&str> {
        const NAMES: [&str; 27] = [
            "accelerate",
            "acl",
            "analytics",
            "attributes",
            "cors",
            "encryption",
            "intelligent-tiering",
            "inventory",
            "legal-hold",
            "lifecycle",
            "logging",
            "metrics",
            "notification",
            "object-lock",
            "ownershipControls",
            "policy",
            "policyStatus",
            "publicAccessBlock",
            "renameObject",
            "replication",
            "requestPayment",
            "restore",
            "retention",
            "select",
            "session",
            "torrent",
            "website",
        ];
        self.0.iter().map(|(name, _)| name.as_str()).find(|name| NAMES.contains(name))
    }
}

fn text(bytes: Vec<u8>) -> Result<String, Error> {
    let text = String::from_utf8(bytes).map_err(|_| Error::new(Code::InvalidKey, "a name is not UTF-8"))?;
    // PostgreSQL has no text with it.
    if text.contains('\0') { Err(Code::InvalidKey.into()) } else { Ok(text) }
}

fn missing(name: &'static str) -> Error {
    Error::new(Code::MissingParameter, format!("Missing Required Parameter {name}"))
}

fn invalid(name: &'static str) -> Error {
    Error::new(Code::InvalidParameter, format!("Invalid Parameter {name}"))
}

#[cfg(test)]
mod tests;
