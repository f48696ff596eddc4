//! What a client sends on a websocket: the first byte says where it is cut. In pieces and as a whole the same has to be heard.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ntier_protocol::websocket::{Fault, Heard, Reader};

fuzz_target!(|bytes: &[u8]| {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    let whole = heard([bytes].into_iter());
    let pieces = heard(bytes.chunks(usize::from(*cut).max(1)));
    assert_eq!(whole, pieces);
});

fn heard<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Heard>, Option<Fault>) {
    let (mut reader, mut all) = (Reader::new(1 << 16), Vec::new());
    for mut piece in pieces {
        loop {
            match reader.read(&mut piece) {
                Ok(Some(one)) => all.push(one),
                Ok(None) => break,
                Err(fault) => return (all, Some(fault)),
            }
        }
    }
    (all, None)
}
