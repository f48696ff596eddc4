//! WebDAV's words (RFC 4918): what its clients say in XML and in the header `If`, and what they are told.

pub mod answer;
pub mod body;
pub mod condition;

const DAV: &str = "DAV:";

/// A property's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub space: String,
    pub local: String,
}

impl Name {
    /// In one text: `{namespace}local`.
    pub fn whole(&self) -> String {
        format!("{{{}}}{}", self.space, self.local)
    }

    /// The other way round.
    pub fn of_whole(text: &str) -> Option<Self> {
        let (space, local) = text.strip_prefix('{')?.rsplit_once('}')?;
        Some(Self { space: space.to_owned(), local: local.to_owned() })
    }
}

/// A property that a client has set, as an element that stands for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    pub name: Name,
    pub element: String,
}
