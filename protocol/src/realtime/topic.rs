//! Names of topics.

use crate::realtime::limits::TOPIC_BYTES;

const PREFIX: &str = "realtime:";

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic<'a> {
    /// The connection itself, which is asked whether it lives.
    Phoenix,
    /// A channel, by its name without the prefix.
    Channel(&'a str),
    /// `realtime:` and nothing after it.
    Unnamed,
    /// Nothing we have.
    Unmatched,
}

impl<'a> Topic<'a> {
    pub fn read(topic: &'a str) -> Self {
        match topic.strip_prefix(PREFIX) {
            None if topic == "phoenix" => Self::Phoenix,
            Some("") => Self::Unnamed,
            Some(name) if topic.len() <= TOPIC_BYTES => Self::Channel(name),
            _ => Self::Unmatched,
        }
    }
}

/// The topic of a channel.
pub fn of(name: &str) -> String {
    format!("{PREFIX}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_told_apart() {
        let (longest, too_long) = (of(&"a".repeat(TOPIC_BYTES - 9)), of(&"a".repeat(TOPIC_BYTES - 8)));
        for (topic, expected) in [
            ("phoenix", Topic::Phoenix),
            ("realtime:room", Topic::Channel("room")),
            ("realtime::room:1", Topic::Channel(":room:1")),
            ("realtime:", Topic::Unnamed),
            ("realtime", Topic::Unmatched),
            ("REALTIME:room", Topic::Unmatched),
            ("other:room", Topic::Unmatched),
            ("", Topic::Unmatched),
            (&longest, Topic::Channel(&longest[9..])),
            (&too_long, Topic::Unmatched),
        ] {
            assert_eq!(Topic::read(topic), expected, "{topic}");
        }
    }
}
