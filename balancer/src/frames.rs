//! Where frames of a websocket begin (RFC 6455, 5.2), read along as they pass: between two of them another can be said.

/// Reads along in what a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Frames {
    /// The head of the next frame, as far as it came.
    head: [u8; 14],
    length: usize,
    /// Bytes of the frame that are still to come.
    left: u64,
}

/// A frame that says that the service begins anew, and that one may come back (1012).
pub const RESTARTS: &[u8] = &[0x88, 0x02, 0x03, 0xf4];

impl Frames {
    /// Between two frames.
    pub fn is_between(&self) -> bool {
        self.left == 0 && self.length == 0
    }

    /// How many of these bytes belong to the frame that is under way; all of them are heard where there is no limit. Ends at the first
    /// border, so that whoever wants to say something between two frames can.
    pub fn until_border(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.left > 0 {
                let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.left -= here as u64;
                at += here;
            } else {
                self.head[self.length] = bytes[at];
                self.length += 1;
                at += 1;
                if let Some(length) = payload(&self.head[..self.length]) {
                    (self.left, self.length) = (length, 0);
                }
            }
            if self.is_between() {
                break;
            }
        }
        at
    }

    /// These bytes have passed.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let length = self.until_border(bytes);
            bytes = &bytes[length..];
        }
    }
}

/// How long a frame's payload is, once its head is whole.
fn payload(head: &[u8]) -> Option<u64> {
    let (&second, rest) = head.get(1..)?.split_first()?;
    let is_masked = usize::from(second >> 7) * 4;
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    let (width, length) = match second & 127 {
        126 => (2, rest.get(..2).map(number)?),
        127 => (8, rest.get(..8).map(number)?),
        short => (0, u64::from(short)),
    };
    (rest.len() >= width + is_masked).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 128 } else { 0 };
        let mut frame = vec![0x82];
        match length {
            0..126 => frame.push(mask + u8::try_from(length).unwrap()),
            126..65_536 => {
                frame.push(mask + 126);
                frame.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(mask + 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend(vec![7; length + if masked { 4 } else { 0 }]);
        frame
    }

    #[test]
    fn what_is_said_at_the_end_is_a_frame_itself() {
        let mut frames = Frames::default();
        assert_eq!(frames.until_border(RESTARTS), RESTARTS.len());
        assert!(frames.is_between());
    }

    proptest! {
        #[test]
        fn borders_are_found_however_the_bytes_come(
            lengths in prop::collection::vec((prop_oneof![0usize..200, 60_000usize..70_000], any::<bool>()), 1..6),
            pieces in prop::collection::vec(1usize..3000, 1..20),
        ) {
            // A masked one has its key in the head.
            let frames: Vec<Vec<u8>> = lengths.iter().map(|(length, masked)| frame(*length, *masked)).collect();
            let borders: Vec<usize> = frames.iter().scan(0, |at, frame| { *at += frame.len(); Some(*at) }).collect();
            let text = frames.concat();
            let (mut reader, mut at, mut found) = (Frames::default(), 0, Vec::new());
            let mut pieces = pieces.iter().cycle();
            while at < text.len() {
                let end = (at + pieces.next().unwrap()).min(text.len());
                while at < end {
                    at += reader.until_border(&text[at..end]);
                    if reader.is_between() {
                        found.push(at);
                    }
                }
            }
            prop_assert_eq!(found, borders);
        }
    }
}
