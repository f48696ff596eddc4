//! Messages as NOTIFY carries them: several in one payload, as text; what is too long for a payload is kept elsewhere and named.
//!
//! A payload is shorter than 8000 bytes (PostgreSQL's documentation, "NOTIFY") and may not have just any byte in it, whatever the server's
//! encoding is; so it is Base64: `1`, the node in 16 hexadecimal digits, the number of the parcel, and `:` and the messages, unless the row with
//! that number has them. The number is also what makes payloads differ: of those that are equal PostgreSQL carries one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::NodeId;

/// Bytes of messages that fit into a payload.
const INLINE: usize = 5900;
/// More than this, and one row is cheaper than many payloads.
const MANY: usize = 8 * INLINE;
/// Bytes in one row, unless one message has more.
const ROW: usize = 1 << 20;

/// Messages that travel together, each with its length before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    pub content: Bytes,
    pub messages: usize,
}

impl Parcel {
    /// Whether it fits into a payload.
    pub fn is_inline(&self) -> bool {
        self.content.len() <= INLINE
    }
}

/// What a payload says.
#[derive(Debug, PartialEq, Eq)]
pub struct Payload {
    pub node: NodeId,
    pub number: i64,
    /// `None` if the row with the number has it.
    pub content: Option<Bytes>,
}

/// Packs messages, in their order.
pub fn pack(messages: &[Bytes]) -> Vec<Parcel> {
    let all: usize = messages.iter().map(|message| 4 + message.len()).sum();
    let most = if all > MANY { ROW } else { INLINE };
    let mut parcels = Vec::new();
    let (mut open, mut count) = (BytesMut::new(), 0);
    for message in messages {
        if count > 0 && open.len() + 4 + message.len() > most {
            parcels.push(Parcel { content: open.split().freeze(), messages: count });
            count = 0;
        }
        // A frame of a client is far shorter.
        open.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
        open.put_slice(message);
        count += 1;
    }
    if count > 0 {
        parcels.push(Parcel { content: open.freeze(), messages: count });
    }
    parcels
}

/// The messages of a parcel; `None` if it is none.
pub fn unpack(mut content: Bytes) -> Option<Vec<Bytes>> {
    let mut messages = Vec::new();
    while !content.is_empty() {
        let length = content.try_get_u32().ok()?;
        let length = usize::try_from(length).ok().filter(|length| *length <= content.len())?;
        messages.push(content.split_to(length));
    }
    Some(messages)
}

impl Payload {
    pub fn text(&self) -> String {
        let Self { node, number, content } = self;
        match content {
            Some(content) => format!("1{node:016x}{number}:{}", text(content)),
            None => format!("1{node:016x}{number}"),
        }
    }

    pub fn read(text: &str) -> Option<Self> {
        let (node, rest) = text.strip_prefix('1')?.split_at_checked(16)?;
        let node = NodeId::from_str_radix(node, 16).ok()?;
        let (number, content) = match rest.split_once(':') {
            Some((number, content)) => (number, Some(bytes(content)?)),
            None => (rest, None),
        };
        Some(Self { node, number: number.parse().ok()?, content })
    }
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes)
}

/// And back.
pub fn bytes(text: &str) -> Option<Bytes> {
    STANDARD_NO_PAD.decode(text).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lengths(messages: &[usize]) -> Vec<(usize, bool)> {
        let messages: Vec<Bytes> = messages.iter().map(|length| Bytes::from(vec![7; *length])).collect();
        pack(&messages).iter().map(|parcel| (parcel.messages, parcel.is_inline())).collect()
    }

    #[test]
    fn small_messages_share_a_payload_and_many_share_a_row() {
        assert_eq!(lengths(&[]), []);
        assert_eq!(lengths(&[10, 10, 10]), [(3, true)]);
        assert_eq!(lengths(&[3000, 3000, 10]), [(1, true), (2, true)]);
        assert_eq!(lengths(&[10, INLINE - 4, INLINE - 3, 10]), [(1, true), (1, true), (1, false), (1, true)]);
        assert_eq!(lengths(&[100; 1000]), [(1000, false)]);
        assert_eq!(lengths(&[100_000, 10, ROW, 10]), [(2, false), (1, false), (1, true)]);
    }

    #[test]
    fn a_payload_is_short_enough() {
        let content = Some(Bytes::from(vec![255; INLINE]));
        assert!(Payload { node: u64::MAX, number: i64::MAX, content }.text().len() < 8000);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn messages_arrive_as_they_were_said(
            said in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..7000), 0..12),
            node in any::<u64>(),
            number in any::<i64>(),
        ) {
            let said: Vec<Bytes> = said.into_iter().map(Bytes::from).collect();
            let mut heard = Vec::new();
            for parcel in pack(&said) {
                let before = heard.len();
                heard.extend(unpack(parcel.content.clone()).unwrap());
                prop_assert_eq!(heard.len() - before, parcel.messages);
                for content in [Some(parcel.content), None] {
                    let payload = Payload { node, number, content };
                    let text = payload.text();
                    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"{},\"\\".contains(&byte));
                    prop_assert!(is_plain, "it stands in an array");
                    prop_assert_eq!(Payload::read(&text), Some(payload));
                }
            }
            prop_assert_eq!(heard, said);
        }

        #[test]
        fn whatever_comes_is_read_or_refused(payload in ".{0,60}", content in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Payload::read(&payload);
            let _ = Payload::read(&format!("10123456789abcdef{payload}"));
            let _ = unpack(content.into());
        }
    }
}
