//! Resumable uploads: the headers of the TUS protocol 1.0.0 (tus.io), with the metadata that storage-api expects.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::storage::error::{Code, Error};

pub const VERSION: &str = "1.0.0";
pub const EXTENSIONS: &str = "creation,creation-with-upload,creation-defer-length,termination,expiration,checksum";
pub const CHECKSUMS: &str = "sha1,sha256,md5";
/// The body of a `PATCH`.
pub const MEDIA_TYPE: &str = "application/offset+octet-stream";

/// Bytes of `Upload-Metadata`, which headers are short of anyway.
const LONGEST: usize = 16 << 10;

/// What a client says of its file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    pub bucket: String,
    pub object: String,
    pub content_type: Option<String>,
    /// Seconds.
    pub cache_control: Option<u64>,
    /// JSON of the caller's own.
    pub user_metadata: Option<String>,
}

/// Reads `Upload-Metadata`: keys with values in base64, between commas.
pub fn metadata(header: &str) -> Result<Metadata, Error> {
    let wrong = || Error::new(Code::InvalidParameter, "Invalid Upload-Metadata header");
    let mut metadata = Metadata::default();
    if header.len() > LONGEST {
        return Err(wrong());
    }
    for pair in header.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
        let value = STANDARD.decode(value.trim()).map_err(|_| wrong())?;
        let value = String::from_utf8(value).map_err(|_| wrong())?;
        match key {
            "bucketName" => metadata.bucket = value,
            "objectName" => metadata.object = value,
            "contentType" => metadata.content_type = Some(value).filter(|value| !value.is_empty()),
            "cacheControl" => metadata.cache_control = value.parse().ok(),
            "metadata" => metadata.user_metadata = Some(value),
            _ => {}
        }
    }
    Ok(metadata)
}

/// How the bytes of one request are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    pub algorithm: Algorithm,
    pub digest: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Md5,
    Sha1,
    Sha256,
}

/// Reads `Upload-Checksum`.
pub fn checksum(header: &str) -> Result<Checksum, Error> {
    let wrong = || Error::new(Code::InvalidChecksum, "Invalid Upload-Checksum header");
    let (name, digest) = header.trim().split_once(' ').ok_or_else(wrong)?;
    let (algorithm, length) = match name {
        "md5" => (Algorithm::Md5, 16),
        "sha1" => (Algorithm::Sha1, 20),
        "sha256" => (Algorithm::Sha256, 32),
        _ => return Err(Error::new(Code::InvalidChecksum, "the checksum algorithm is not supported")),
    };
    let digest = STANDARD.decode(digest.trim()).ok().filter(|digest| digest.len() == length).ok_or_else(wrong)?;
    Ok(Checksum { algorithm, digest })
}

/// The last step of an upload's URL: where it goes and its id, as storage-api writes them.
pub fn address(bucket: &str, object: &str, id: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{bucket}/{object}/{id}"))
}

/// The id in such a step.
pub fn id(address: &str) -> Option<String> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(address.trim_end_matches('=')).ok()?).ok()?;
    Some(text.rsplit_once('/')?.1.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn metadata_is_read() {
        let encoded = |text: &str| STANDARD.encode(text);
        let header = format!(
            "bucketName {},objectName {}, contentType {},cacheControl {},metadata {},other",
            encoded("avatars"),
            encoded("a/é.png"),
            encoded("image/png"),
            encoded("3600"),
            encoded("{\"a\":1}")
        );
        let expected = Metadata {
            bucket: "avatars".into(),
            object: "a/é.png".into(),
            content_type: Some("image/png".into()),
            cache_control: Some(3600),
            user_metadata: Some("{\"a\":1}".into()),
        };
        assert_eq!(metadata(&header), Ok(expected));
        for wrong in ["bucketName %%%", "objectName /w==", &"a,".repeat(9000)] {
            assert!(metadata(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn checksums_name_their_algorithm() {
        assert_eq!(checksum("sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=").unwrap().algorithm, Algorithm::Sha1);
        for wrong in ["sha1", "sha1 x", "sha1 AAAA", "crc99 AAAA", ""] {
            assert!(checksum(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn an_address_has_the_id(object in "\\PC{0,30}") {
            prop_assert_eq!(id(&address("b", &object, "the-id")), Some("the-id".to_owned()));
        }

        #[test]
        fn nothing_breaks_the_parsers(text in "\\PC{0,60}") {
            let _ = (metadata(&text), checksum(&text), id(&text));
        }
    }
}
