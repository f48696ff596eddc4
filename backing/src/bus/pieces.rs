//! Messages as NATS carries them: in pieces that its servers allow, put together again by whoever hears them.
//!
//! A piece is `1`, the node (8 bytes), its number in the message (4 bytes), whether it is the last (1 byte), and what it has of the message.

use std::collections::HashMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::NodeId;

const FORMAT: u8 = 1;
const HEAD: usize = 14;
/// A message that is longer is not put together.
const LONGEST: usize = 16 << 20;

/// Cuts a message into pieces of at most so many bytes, which have to be more than [`HEAD`].
pub fn cut(node: NodeId, message: &Bytes, most: usize) -> Vec<Bytes> {
    let most = most.saturating_sub(HEAD).max(1);
    let count = message.len().div_ceil(most).max(1);
    let piece = |number: usize| {
        let part = &message[number * most..message.len().min((number + 1) * most)];
        let mut piece = BytesMut::with_capacity(HEAD + part.len());
        piece.put_u8(FORMAT);
        piece.put_u64(node);
        piece.put_u32(u32::try_from(number).unwrap_or(u32::MAX));
        piece.put_u8(u8::from(number + 1 == count));
        piece.put_slice(part);
        piece.freeze()
    };
    (0..count).map(piece).collect()
}

/// Puts pieces together, node by node.
#[derive(Debug, Default)]
pub struct Assembler {
    open: HashMap<NodeId, Open>,
}

/// A message of which pieces are to come.
#[derive(Debug)]
struct Open {
    next: u32,
    message: BytesMut,
}

/// What a piece brings.
#[derive(Debug, PartialEq, Eq)]
pub enum Brought {
    Message(NodeId, Bytes),
    /// Its message goes on.
    Nothing,
    /// It is of a message whose beginning was missed, or of none.
    Gap,
}

impl Assembler {
    pub fn take(&mut self, mut piece: Bytes) -> Brought {
        if piece.len() < HEAD || piece.get_u8() != FORMAT {
            return Brought::Gap;
        }
        let (node, number, is_last) = (piece.get_u64(), piece.get_u32(), piece.get_u8() == 1);
        let before = self.open.remove(&node);
        let is_whole = match (&before, number) {
            // Another message has begun: the one before has no end.
            (_, 0) => true,
            (Some(open), number) => open.next == number && open.message.len() + piece.len() <= LONGEST,
            (None, _) => false,
        };
        if !is_whole {
            return Brought::Gap;
        }
        if number == 0 && is_last {
            return Brought::Message(node, piece);
        }
        let mut message = before.filter(|_| number > 0).map(|open| open.message).unwrap_or_default();
        message.extend_from_slice(&piece);
        if is_last {
            return Brought::Message(node, message.freeze());
        }
        self.open.insert(node, Open { next: number + 1, message });
        Brought::Nothing
    }

    /// Nothing that is open will be completed.
    pub fn clear(&mut self) {
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_that_lacks_a_piece_is_not_heard() {
        let mut assembler = Assembler::default();
        let said = Bytes::from_static(b"0123456789");
        let pieces = cut(7, &said, HEAD + 4);
        assert_eq!(pieces.len(), 3);
        for piece in [&pieces[0], &pieces[1]] {
            assert_eq!(assembler.take(piece.clone()), Brought::Nothing);
        }
        assert_eq!(assembler.take(pieces[1].clone()), Brought::Gap);
        assert_eq!(assembler.take(pieces[2].clone()), Brought::Gap);
        assert_eq!(assembler.take(pieces[0].clone()), Brought::Nothing);
        assembler.clear();
        assert_eq!(assembler.take(pieces[1].clone()), Brought::Gap);
        assert_eq!(assembler.take(Bytes::from_static(b"1")), Brought::Gap);
        assert_eq!(assembler.take(cut(7, &said, 100).remove(0)), Brought::Message(7, said));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn messages_of_several_nodes_are_put_together(
            said in proptest::collection::vec((0..3u64, proptest::collection::vec(any::<u8>(), 0..100)), 0..20),
            most in HEAD + 1..120,
            order in proptest::collection::vec(any::<proptest::sample::Index>(), 0..400),
        ) {
            // Each node's pieces in their order, mixed with those of others.
            let mut lines = vec![VecDeque::new(); 3];
            for (node, message) in &said {
                lines[usize::try_from(*node).unwrap()].extend(cut(*node, &message.clone().into(), most));
            }
            let mut assembler = Assembler::default();
            let mut heard = Vec::new();
            let mut order = order.into_iter();
            loop {
                let ready: Vec<usize> = (0..3).filter(|line| !lines[*line].is_empty()).collect();
                if ready.is_empty() {
                    break;
                }
                let line = order.next().map_or(ready[0], |index| *index.get(&ready));
                let piece = lines[line].pop_front().unwrap();
                prop_assert!(piece.len() <= most);
                match assembler.take(piece) {
                    Brought::Message(node, message) => heard.push((node, message.to_vec())),
                    Brought::Nothing => {}
                    Brought::Gap => prop_assert!(false, "nothing is missing"),
                }
            }
            for node in 0..3 {
                let of = |all: &[(u64, Vec<u8>)]| -> Vec<Vec<u8>> {
                    all.iter().filter(|(of, _)| *of == node).map(|(_, message)| message.clone()).collect()
                };
                prop_assert_eq!(of(&heard), of(&said));
            }
        }

        #[test]
        fn whatever_comes_is_taken(pieces in proptest::collection::vec(proptest::collection::vec(0..3u8, 0..20), 0..20)) {
            let mut assembler = Assembler::default();
            for piece in pieces {
                let _ = assembler.take(piece.into());
            }
        }
    }
}
