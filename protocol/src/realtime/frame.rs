//! What a websocket carries, and in which of two manners.

use bytes::Bytes;

/// One message of the websocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// UTF-8, always.
    Text(Bytes),
    Binary(Bytes),
}

impl Frame {
    pub fn len(&self) -> usize {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => bytes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How messages are put into frames. The client chooses it as it connects, by `vsn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// Objects. Bytes cannot be said.
    One,
    /// Arrays, and broadcasts in binary frames.
    Two,
}

impl Version {
    /// Reads `vsn`; nothing is 1.0.0. Phoenix takes any patch of 1.0 and 2.0, and refuses the rest with 403 and an empty body.
    pub fn read(vsn: Option<&str>) -> Option<Self> {
        let vsn = vsn.unwrap_or("1.0.0");
        let (major_minor, patch) = vsn.rsplit_once('.')?;
        if patch.is_empty() || patch.len() > 9 || !patch.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        match major_minor {
            "1.0" => Some(Self::One),
            "2.0" => Some(Self::Two),
            _ => None,
        }
    }
}

/// The first byte of a binary frame. Phoenix has 0, 1 and 2 as well (a push, a reply and a broadcast of bytes), which no client of
/// Supabase's sends or reads.
pub mod kind {
    /// A broadcast from a client: the lengths of join reference, reference, topic, event and metadata, the encoding, and then they.
    pub const PUSH: u8 = 3;
    /// A broadcast to clients: the lengths of topic, event and metadata, the encoding, and then they.
    pub const BROADCAST: u8 = 4;
}

/// How the payload of a binary frame is to be read.
pub mod encoding {
    pub const BINARY: u8 = 0;
    pub const JSON: u8 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_phoenix() {
        for (vsn, expected) in [
            (None, Some(Version::One)),
            (Some("1.0.0"), Some(Version::One)),
            (Some("1.0.7"), Some(Version::One)),
            (Some("2.0.0"), Some(Version::Two)),
            (Some("2.1.0"), None),
            (Some("3.0.0"), None),
            (Some("2.0"), None),
            (Some("2"), None),
            (Some(""), None),
            (Some("2.0.x"), None),
            (Some("2.0."), None),
        ] {
            assert_eq!(Version::read(vsn), expected, "{vsn:?}");
        }
    }
}
