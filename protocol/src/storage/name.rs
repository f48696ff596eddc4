//! Names of buckets and of objects. Source: storage-api, `storage/limits.ts`, with two differences: letters of all scripts are
//! names too, and a path that a file system, a browser or WebDAV would read otherwise than it is written is none.

use std::fmt;

use crate::storage::error::{Code, Error};

/// Bytes of an object's name, as S3 has it.
const LONGEST_KEY: usize = 1024;
/// Characters of a bucket's name.
const LONGEST_BUCKET: usize = 100;

/// A bucket's name, which is also its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BucketId(String);

/// An object's name within its bucket: not empty, no traversal, within length.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectKey(String);

impl BucketId {
    pub fn parse(text: &str) -> Result<Self, Error> {
        let fits = !text.is_empty() && text.chars().count() <= LONGEST_BUCKET && text.trim() == text;
        if fits && !text.contains('/') && text.chars().all(is_plain) && !is_step(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::new(Code::InvalidBucketName, "Bucket name invalid"))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ObjectKey {
    pub fn parse(text: &str) -> Result<Self, Error> {
        // A name that ends in a slash stands for a folder, as S3's clients make them.
        let mut steps = text.strip_suffix('/').unwrap_or(text).split('/');
        let fits = !text.is_empty() && text.len() <= LONGEST_KEY;
        if fits && text.chars().all(is_plain) && steps.all(|step| !step.is_empty() && !is_step(step)) {
            Ok(Self(text.to_owned()))
        } else {
            let shown: String = text.chars().take(200).collect();
            Err(Error::new(Code::InvalidKey, format!("Invalid key: {shown}")))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last step of the path.
    pub fn file_name(&self) -> &str {
        let path = self.0.trim_end_matches('/');
        path.rsplit_once('/').map_or(path, |(_, name)| name)
    }
}

impl fmt::Display for BucketId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

fn is_step(text: &str) -> bool {
    matches!(text, "." | "..")
}

/// Of ASCII what storage-api has; beyond it no character that controls, hides or turns the text around it.
fn is_plain(letter: char) -> bool {
    if letter.is_ascii() {
        return letter.is_ascii_alphanumeric() || "_/!.*'() &$=@;:+,?-".contains(letter);
    }
    !matches!(
        letter,
        '\u{80}'..='\u{9f}'
            // Soft hyphen, fillers, zero width and direction, separators, invisible operators, byte order, specials.
            | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}' | '\u{3164}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            // A slash and a dot of another width would be taken for those.
            | '\u{2024}' | '\u{2044}' | '\u{2215}' | '\u{ff0e}' | '\u{ff0f}' | '\u{ff3c}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{ffff}'
            // Private use, tags, and what is no character.
            | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn security_f2_only_plain_paths_are_names() {
        for (text, valid) in [
            ("a", true),
            ("folder/cat.png", true),
            ("folder/", true),
            ("Größe/日本語 (1).txt", true),
            ("a+b=c&d,e;f:g@h!'*$?.txt", true),
            (".hidden/..x/x..", true),
            ("", false),
            ("/", false),
            ("/a", false),
            ("a//b", false),
            ("a//", false),
            (".", false),
            ("..", false),
            ("../a", false),
            ("a/../b", false),
            ("a/./b", false),
            ("a/..", false),
            ("a/../", false),
            ("a\\b", false),
            ("a\0b", false),
            ("a\nb", false),
            ("a%2fb", false),
            ("a#b", false),
            ("<a>", false),
            ("a\u{202e}gpj.exe", false),
            ("a\u{200b}b", false),
            ("．．/a", false),
            ("a\u{2215}b", false),
            ("\u{feff}a", false),
        ] {
            assert_eq!(ObjectKey::parse(text).is_ok(), valid, "{text:?}");
        }
        assert!(ObjectKey::parse(&"a".repeat(1024)).is_ok());
        assert!(ObjectKey::parse(&"a".repeat(1025)).is_err());
    }

    #[test]
    fn buckets_have_no_folders() {
        for (text, valid) in [
            ("avatars", true),
            ("my bucket.2", true),
            ("", false),
            (" a", false),
            ("a ", false),
            ("a/b", false),
            ("..", false),
            ("a\tb", false),
        ] {
            assert_eq!(BucketId::parse(text).is_ok(), valid, "{text:?}");
        }
        assert!(BucketId::parse(&"a".repeat(100)).is_ok());
        assert!(BucketId::parse(&"a".repeat(101)).is_err());
    }

    proptest! {
        #[test]
        fn a_name_never_leaves_its_folder(text in "\\PC{0,40}") {
            if let Ok(key) = ObjectKey::parse(&text) {
                let path = std::path::Path::new(key.as_str());
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
            }
        }
    }
}
