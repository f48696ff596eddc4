//! Where something is: the steps of a path behind `/dav`, of the request or of its `Destination`; and the other way round, hrefs.

use http::uri::Uri;
use http::{StatusCode, header};
use ntier_protocol::storage::error::{Code, Error as Wire};
use ntier_protocol::storage::name::{BucketId, ObjectKey};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Fault;
use crate::error::Error;
use crate::upload::PLACEHOLDER;
use crate::visitor::{self, Visitor};

/// Where the tree of buckets begins.
const ROOT: &str = "/storage/v1/dav/";
/// What a step of a path need not encode (RFC 3986, 2.3).
const STEP: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A place in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub bucket: BucketId,
    /// Without slashes at its ends; empty for the bucket itself.
    pub path: String,
    /// It was written as a folder.
    pub with_slash: bool,
}

impl Place {
    /// `None` is the list of buckets.
    pub fn of(steps: &[&str]) -> Result<Option<Self>, Error> {
        let (with_slash, steps) = match steps {
            [steps @ .., ""] => (true, steps),
            steps => (false, steps),
        };
        let Some((bucket, path)) = steps.split_first() else { return Ok(None) };
        let place = Self { bucket: BucketId::parse(bucket)?, path: path.join("/"), with_slash };
        if path.iter().any(|step| step.is_empty()) {
            return Err(Wire::new(Code::InvalidKey, "Invalid key: a folder has a name").into());
        }
        if !path.is_empty() && place.key()?.file_name() == PLACEHOLDER {
            return Err(Wire::no_such_key().into());
        }
        Ok(Some(place))
    }

    /// Where a copy or a move goes to.
    pub fn destination(visitor: &Visitor) -> Result<Self, Fault> {
        let missing = || Wire::new(Code::InvalidRequest, "Destination is missing");
        Self::of_url(visitor, visitor.text("destination").ok_or_else(missing)?)
    }

    /// A place that a header names by its URL.
    pub fn of_url(visitor: &Visitor, text: &str) -> Result<Self, Fault> {
        let wrong = || Wire::new(Code::InvalidRequest, "the URL is no place below /storage/v1/dav/");
        let url: Uri = text.parse().map_err(|_| wrong())?;
        if !is_here(&url, visitor.header(&header::HOST)) {
            return Err(Fault::Status(StatusCode::BAD_GATEWAY));
        }
        let path = url.path().strip_prefix(ROOT).ok_or_else(wrong)?;
        let steps: Result<Vec<String>, Wire> = path.split('/').map(visitor::step).collect();
        let steps = steps?;
        Ok(Self::of(&steps.iter().map(String::as_str).collect::<Vec<_>>())?.ok_or_else(wrong)?)
    }

    pub fn without_slash(&self) -> Self {
        Self { with_slash: false, ..self.clone() }
    }

    pub fn key(&self) -> Result<ObjectKey, Error> {
        Ok(ObjectKey::parse(&self.path)?)
    }

    /// What the names of all objects below begin with.
    pub fn prefix(&self) -> String {
        if self.path.is_empty() { String::new() } else { format!("{}/", self.path) }
    }

    /// The path of the folder in which it is; empty for the bucket.
    pub fn above(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(above, _)| above)
    }

    /// The folder in which it is, if that is one of the bucket's and not the bucket itself.
    pub fn parent(&self) -> Option<Self> {
        let path = self.above().to_owned();
        if path.is_empty() { None } else { Some(Self { bucket: self.bucket.clone(), path, with_slash: true }) }
    }

    /// The object that keeps it as a folder where nothing else does.
    pub fn placeholder(&self) -> Result<ObjectKey, Error> {
        Ok(ObjectKey::parse(&format!("{}{PLACEHOLDER}", self.prefix()))?)
    }

    pub fn is_within(&self, other: &Self) -> bool {
        self.bucket == other.bucket && self.path.starts_with(&other.prefix()) && self.path != other.path
    }

    pub fn href(&self, is_folder: bool) -> String {
        href(Some(&self.bucket), &self.path, is_folder)
    }
}

/// A place as a client asks for it.
pub fn href(bucket: Option<&BucketId>, path: &str, is_folder: bool) -> String {
    let Some(bucket) = bucket else { return ROOT.to_owned() };
    let mut href = format!("{ROOT}{}", utf8_percent_encode(bucket.as_str(), STEP));
    for step in path.split('/').filter(|step| !step.is_empty()) {
        href.push('/');
        href.extend(utf8_percent_encode(step, STEP));
    }
    if is_folder {
        href.push('/');
    }
    href
}

/// Whether the URL is of the host that is asked; a path alone is.
fn is_here(url: &Uri, host: Option<&str>) -> bool {
    let (Some(authority), Some(host)) = (url.authority(), host) else { return true };
    let usual = if url.scheme_str() == Some("https") { ":443" } else { ":80" };
    let bare = |text: &str| text.strip_suffix(usual).unwrap_or(text).to_ascii_lowercase();
    let named = authority.as_str();
    bare(named.rsplit_once('@').map_or(named, |(_, named)| named)) == bare(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_f2_places_stay_in_their_bucket() {
        for (steps, expected) in [
            (&["files", "a", "b"][..], Some(("a/b", false))),
            (&["files", "a", ""], Some(("a", true))),
            (&["files"], Some(("", false))),
            (&["files", ""], Some(("", true))),
            (&["files", "..", "b"], None),
            (&["..", "b"], None),
            (&["files", "", "b"], None),
            (&["files", "", ""], None),
            (&["files", "a", "", ""], None),
            (&["files", "a", ".emptyFolderPlaceholder"], None),
        ] {
            let found = Place::of(steps).ok().flatten();
            let found = found.as_ref().map(|place| (place.path.as_str(), place.with_slash));
            assert_eq!(found, expected, "{steps:?}");
        }
        assert_eq!(Place::of(&[""]).unwrap(), None);
    }

    #[test]
    fn hrefs_are_encoded() {
        let place = Place::of(&["my files", "Größe", "a&b.txt"]).unwrap().unwrap();
        assert_eq!(place.href(false), "/storage/v1/dav/my%20files/Gr%C3%B6%C3%9Fe/a%26b.txt");
        assert_eq!(place.href(true), "/storage/v1/dav/my%20files/Gr%C3%B6%C3%9Fe/a%26b.txt/");
    }

    #[test]
    fn security_a_url_is_of_this_host() {
        for (url, host, expected) in [
            ("/storage/v1/dav/a", "h", true),
            ("http://h/a", "h", true),
            ("http://H:80/a", "h", true),
            ("https://h/a", "h:443", true),
            ("https://me@h/a", "h", true),
            ("http://h:81/a", "h", false),
            ("http://other/a", "h", false),
            ("http://h@other/a", "h", false),
        ] {
            assert_eq!(is_here(&url.parse().unwrap(), Some(host)), expected, "{url} {host}");
        }
    }
}
