//! What a blob is called.

use std::fmt;

use uuid::Uuid;
use uuid::fmt::Hyphenated;

/// A random UUID, and nothing that anybody chose: so no name of a caller reaches a file system or a bucket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId([u8; Hyphenated::LENGTH]);

impl BlobId {
    pub fn random() -> Self {
        Self::of(Uuid::new_v4())
    }

    /// From what [`BlobId::as_str`] gives, and from no other way of writing a UUID: one blob has one name.
    pub fn parse(text: &str) -> Option<Self> {
        let id = Self::of(Uuid::try_parse(text).ok()?);
        (id.as_str() == text).then_some(id)
    }

    /// 36 lower-case hexadecimal digits and hyphens.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("hexadecimal digits and hyphens are text")
    }

    fn of(uuid: Uuid) -> Self {
        let mut text = [0; Hyphenated::LENGTH];
        uuid.hyphenated().encode_lower(&mut text);
        Self(text)
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_has_one_name() {
        let id = BlobId::random();
        assert_eq!(BlobId::parse(id.as_str()), Some(id));
        assert_ne!(BlobId::random(), id);
        for text in [
            "",
            "../../../../../../../../etc/passwd.....",
            "6f9619ff8b86d011b42d00c04fc964ff",
            "{6f9619ff-8b86-4011-b42d-00c04fc964ff}",
            "urn:uuid:6f9619ff-8b86-4011-b42d-00c04fc964ff",
            "6F9619FF-8B86-4011-B42D-00C04FC964FF",
            "6f9619ff-8b86-4011-b42d-00c04fc964f/",
            "6f9619ff-8b86-4011-b42d-00c04fc964ff\0",
        ] {
            assert_eq!(BlobId::parse(text), None, "{text}");
        }
        assert!(BlobId::parse("6f9619ff-8b86-4011-b42d-00c04fc964ff").is_some());
    }
}
