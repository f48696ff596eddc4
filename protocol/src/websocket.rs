//! Frames of a websocket, as a server hears and says them (RFC 6455, without extensions).
//!
//! What comes is put together piece by piece, so nobody has to keep what was read: a connection on which nothing is under way keeps
//! nothing here. That, and not speed, is why this is ours: the crates for it keep a buffer of some kilobytes for each connection.

use bytes::Bytes;

/// What a client said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// UTF-8.
    Text(Bytes),
    Binary(Bytes),
    /// To be answered by the same.
    Ping(Bytes),
    /// It says nothing more. It may have told why.
    Close(Option<u16>),
}

/// Why what a client says is not listened to any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is no websocket's.
    Malformed,
    /// Text that is no UTF-8.
    NotText,
    TooLong,
}

impl Fault {
    /// With which the connection is closed.
    pub fn code(self) -> u16 {
        match self {
            Self::Malformed => 1002,
            Self::NotText => 1007,
            Self::TooLong => 1009,
        }
    }
}

/// The kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Kind {
    fn read(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn code(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

const LAST: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
/// A head from a client, at most.
const HEAD: usize = 14;
/// Room that is made for a frame before its bytes have come.
const TRUSTED: usize = 64 << 10;

/// Puts together what comes from one client.
#[derive(Debug)]
pub struct Reader {
    /// Bytes of a message.
    most: usize,
    head: [u8; HEAD],
    /// Bytes of the head that have come.
    come: usize,
    frame: Option<Frame>,
    message: Vec<u8>,
    /// Of the message that is being put together.
    kind: Option<Kind>,
    /// A control frame may come in the middle of a message.
    control: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    kind: Kind,
    is_last: bool,
    left: usize,
    mask: [u8; 4],
}

impl Reader {
    /// For messages of so many bytes at most.
    pub fn new(most: usize) -> Self {
        Self { most, head: [0; HEAD], come: 0, frame: None, message: Vec::new(), kind: None, control: Vec::new() }
    }

    /// Takes what belongs to the next thing that was said from what has come, and gives it once it is whole.
    pub fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<Heard>, Fault> {
        loop {
            let mut frame = match self.frame {
                Some(frame) => frame,
                None => match self.begin(bytes)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            let piece = take(bytes, frame.left);
            let into = if frame.kind.is_control() { &mut self.control } else { &mut self.message };
            unmask(into, piece, &mut frame.mask);
            frame.left -= piece.len();
            if frame.left > 0 {
                self.frame = Some(frame);
                return Ok(None);
            }
            (self.frame, self.come) = (None, 0);
            if let Some(heard) = self.end(frame)? {
                return Ok(Some(heard));
            }
        }
    }

    /// Reads the head of a frame; `None` while it is not whole.
    fn begin(&mut self, bytes: &mut &[u8]) -> Result<Option<Frame>, Fault> {
        if !self.fill(2, bytes) {
            return Ok(None);
        }
        let kind = Kind::read(self.head[0] & 0x0f).ok_or(Fault::Malformed)?;
        let (is_last, short) = (self.head[0] & LAST != 0, self.head[1] & !MASKED);
        let is_right = self.head[0] & RESERVED == 0
            && self.head[1] & MASKED != 0
            && (!kind.is_control() || is_last && short <= 125)
            && match kind {
                Kind::Continuation => self.kind.is_some(),
                Kind::Text | Kind::Binary => self.kind.is_none(),
                Kind::Close | Kind::Ping | Kind::Pong => true,
            };
        if !is_right {
            return Err(Fault::Malformed);
        }
        let length_bytes = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if !self.fill(6 + length_bytes, bytes) {
            return Ok(None);
        }
        let (length, mask) = self.head[2..].split_at(length_bytes);
        let length = length.iter().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
        let left = match short {
            126 if length > 125 => length,
            127 if length > 0xffff => length,
            126 | 127 => return Err(Fault::Malformed),
            short => short.into(),
        };
        let left = usize::try_from(left).map_err(|_| Fault::TooLong)?;
        let mask = [mask[0], mask[1], mask[2], mask[3]];
        if !kind.is_control() {
            if left > self.most.saturating_sub(self.message.len()) {
                return Err(Fault::TooLong);
            }
            self.message.reserve_exact(left.min(TRUSTED));
            self.kind.get_or_insert(kind);
        }
        Ok(Some(Frame { kind, is_last, left, mask }))
    }

    /// Whether so many bytes of the head are there.
    fn fill(&mut self, wanted: usize, bytes: &mut &[u8]) -> bool {
        let piece = take(bytes, wanted.saturating_sub(self.come));
        self.head[self.come..self.come + piece.len()].copy_from_slice(piece);
        self.come += piece.len();
        self.come >= wanted
    }

    fn end(&mut self, frame: Frame) -> Result<Option<Heard>, Fault> {
        match frame.kind {
            Kind::Ping => Ok(Some(Heard::Ping(std::mem::take(&mut self.control).into()))),
            Kind::Pong => {
                self.control = Vec::new();
                Ok(None)
            }
            Kind::Close => closed(&std::mem::take(&mut self.control)).map(Some),
            Kind::Continuation | Kind::Text | Kind::Binary if !frame.is_last => Ok(None),
            Kind::Continuation | Kind::Text | Kind::Binary => {
                let message = std::mem::take(&mut self.message);
                if self.kind.take() == Some(Kind::Binary) {
                    return Ok(Some(Heard::Binary(message.into())));
                }
                str::from_utf8(&message).map_err(|_| Fault::NotText)?;
                Ok(Some(Heard::Text(message.into())))
            }
        }
    }
}

fn take<'a>(bytes: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (piece, rest) = bytes.split_at(most.min(bytes.len()));
    *bytes = rest;
    piece
}

/// The mask is turned, so that it fits the byte that comes next.
fn unmask(into: &mut Vec<u8>, piece: &[u8], mask: &mut [u8; 4]) {
    let from = into.len();
    into.extend_from_slice(piece);
    let word = u32::from_ne_bytes(*mask);
    let (words, rest) = into[from..].as_chunks_mut::<4>();
    for bytes in words {
        *bytes = (u32::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(*mask) {
        *byte ^= mask;
    }
    mask.rotate_left(piece.len() % 4);
}

fn closed(payload: &[u8]) -> Result<Heard, Fault> {
    let (code, reason) = match payload {
        [] => return Ok(Heard::Close(None)),
        [_] => return Err(Fault::Malformed),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Fault::Malformed);
    }
    str::from_utf8(reason).map_err(|_| Fault::NotText)?;
    Ok(Heard::Close(Some(code)))
}

/// What stands before a message from a server, which is one frame.
#[derive(Debug, Clone, Copy, Default)]
pub struct Head {
    bytes: [u8; 10],
    length: u8,
}

impl Head {
    pub fn new(kind: Kind, length: usize) -> Self {
        let mut head = Self { bytes: [LAST | kind.code(), 0, 0, 0, 0, 0, 0, 0, 0, 0], length: 2 };
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(length @ ..=125), _) => head.bytes[1] = length,
            (_, Ok(length)) => {
                head.bytes[1] = 126;
                head.bytes[2..4].copy_from_slice(&length.to_be_bytes());
                head.length = 4;
            }
            (_, Err(_)) => {
                head.bytes[1] = 127;
                head.bytes[2..].copy_from_slice(&(length as u64).to_be_bytes());
                head.length = 10;
            }
        }
        head
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length.into()]
    }
}

/// What a closing frame says.
pub fn close(code: u16, reason: &str) -> Bytes {
    let reason = reason.get(..123).unwrap_or(reason);
    [&code.to_be_bytes(), reason.as_bytes()].concat().into()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// As a client sends it.
    fn sent(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut out = Head::new(Kind::Text, payload.len()).bytes().to_vec();
        (out[0], out[1]) = (first, out[1] | MASKED);
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    fn heard(bytes: &[u8]) -> Result<Vec<Heard>, Fault> {
        let (mut reader, mut rest, mut all) = (Reader::new(1000), bytes, Vec::new());
        while let Some(one) = reader.read(&mut rest)? {
            all.push(one);
        }
        assert!(rest.is_empty(), "all is taken");
        Ok(all)
    }

    fn text(text: &'static str) -> Heard {
        Heard::Text(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn the_frames_of_the_rfc_are_read() {
        // RFC 6455, 5.7.
        assert_eq!(heard(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), Ok(vec![text("Hello")]));
        let pieces = [sent(0x01, b"Hel"), sent(0x89, b"hi"), sent(0x8a, b"unasked"), sent(0x80, b"lo")].concat();
        assert_eq!(heard(&pieces), Ok(vec![Heard::Ping(Bytes::from_static(b"hi")), text("Hello")]));
        let closing = [sent(0x82, &[7; 300]), sent(0x88, b"\x03\xe8bye")].concat();
        assert_eq!(heard(&closing), Ok(vec![Heard::Binary(vec![7; 300].into()), Heard::Close(Some(1000))]));
        assert_eq!(heard(&sent(0x88, b"")), Ok(vec![Heard::Close(None)]));
    }

    #[test]
    fn what_is_no_websocket_is_refused() {
        for (bytes, fault) in [
            (b"\x81\x05Hello".to_vec(), Fault::Malformed),
            (sent(0xc1, b"compressed"), Fault::Malformed),
            (sent(0x83, b"kind 3"), Fault::Malformed),
            (sent(0x80, b"of nothing"), Fault::Malformed),
            ([sent(0x01, b"a"), sent(0x81, b"b")].concat(), Fault::Malformed),
            (sent(0x09, b"in pieces"), Fault::Malformed),
            (sent(0x89, &[0; 126]), Fault::Malformed),
            (sent(0x88, b"x"), Fault::Malformed),
            (sent(0x88, b"\x03\xed"), Fault::Malformed),
            (b"\x81\xfe\x00\x05\x00\x00\x00\x00Hello".to_vec(), Fault::Malformed),
            (b"\x82\xff\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00Hello".to_vec(), Fault::Malformed),
            (b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00".to_vec(), Fault::TooLong),
            (sent(0x82, &[0; 1001]), Fault::TooLong),
            ([sent(0x02, &[0; 999]), sent(0x80, b"12")].concat(), Fault::TooLong),
            (sent(0x81, b"\xff"), Fault::NotText),
            ([sent(0x01, b"\xc3"), sent(0x80, b"\xc3")].concat(), Fault::NotText),
            (sent(0x88, b"\x03\xe8\xff"), Fault::NotText),
        ] {
            assert_eq!(heard(&bytes), Err(fault), "{bytes:?}");
        }
        // A letter may be divided between frames.
        assert_eq!(heard(&[sent(0x01, b"\xc3"), sent(0x80, b"\xbc")].concat()), Ok(vec![text("ü")]));
    }

    #[test]
    fn heads_have_three_lengths() {
        for (length, expected) in [
            (125, b"\x81\x7d".as_slice()),
            (126, b"\x81\x7e\x00\x7e"),
            (0xffff, b"\x81\x7e\xff\xff"),
            (0x1_0000, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        ] {
            assert_eq!(Head::new(Kind::Text, length).bytes(), expected);
        }
        assert_eq!(&close(1001, "bye")[..], b"\x03\xe9bye");
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_same_is_heard(
            messages in vec((vec(any::<u8>(), 0..400), any::<bool>()), 0..6), cuts in vec(1_usize..50, 1..40),
        ) {
            let bytes: Vec<u8> = messages
                .iter()
                .flat_map(|(payload, in_pieces)| {
                    let (one, other) = payload.split_at(if *in_pieces { payload.len() / 2 } else { payload.len() });
                    if *in_pieces { [sent(0x02, one), sent(0x80, other)].concat() } else { sent(0x82, one) }
                })
                .collect();
            let (mut reader, mut rest, mut all) = (Reader::new(1000), bytes.as_slice(), Vec::new());
            for cut in cuts.iter().cycle() {
                let (mut piece, behind) = rest.split_at((*cut).min(rest.len()));
                while let Some(one) = reader.read(&mut piece).unwrap() {
                    all.push(one);
                }
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }
            let expected: Vec<_> = messages.into_iter().map(|(payload, _)| Heard::Binary(payload.into())).collect();
            prop_assert_eq!(all, expected);
        }

        #[test]
        fn nothing_breaks_it(bytes in vec(any::<u8>(), 0..200)) {
            let (mut reader, mut rest) = (Reader::new(100), bytes.as_slice());
            while let Ok(Some(_)) = reader.read(&mut rest) {}
        }
    }
}
