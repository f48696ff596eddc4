//! Where a client stands in what was said: beyond Supabase, where whoever sleeps misses what was said meanwhile.
//!
//! Changes of the database and broadcasts that came through it carry a position. A client that joins with `since` and the last one it
//! saw is sent what came after it, in order, and then what comes. Clients take it as an opaque text.
//!
//! realtime-js as it is passes on what an application writes into its options, so these are the places for `since`: an entry of
//! `postgres_changes` (`channel.on('postgres_changes', { …, since })`) and `config.broadcast`. `config.since` stands for all of them.

use std::fmt;
use std::str::FromStr;

/// A change within a batch; batches are in the order of commits, on every node alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub batch: i64,
    pub id: i64,
}

/// It is not a position that we gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a position")]
pub struct Unreadable;

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}.{}", self.batch, self.id)
    }
}

impl FromStr for Position {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let number = |text: &str| {
            let plain = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| plain).ok_or(Unreadable)
        };
        let (batch, id) = text.split_once('.').ok_or(Unreadable)?;
        Ok(Self { batch: number(batch)?, id: number(id)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_positions_are_positions() {
        for wrong in ["", ".", "1", "1.", ".1", "-1.2", "1.-2", "+1.2", "1.2.3", "1,2", " 1.2", "9223372036854775808.0"]
        {
            assert_eq!(wrong.parse::<Position>(), Err(Unreadable), "{wrong}");
        }
        assert!(Position { batch: 2, id: 1 } > Position { batch: 1, id: 9 });
    }

    proptest! {
        #[test]
        fn a_position_is_read_as_it_was_said(batch in 0..=i64::MAX, id in 0..=i64::MAX) {
            let position = Position { batch, id };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }
    }
}
