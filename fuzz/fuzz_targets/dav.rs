//! What clients of WebDAV say: bodies, and the header `If`. What is kept of a property is read as the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ntier_protocol::storage::dav::answer::{self, Entry};
use ntier_protocol::storage::dav::body::{self, Change};
use ntier_protocol::storage::dav::{Name, condition};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = condition::parse(text);
    }
    let _ = body::lockinfo(bytes);
    if let Ok(asked) = body::propfind(bytes) {
        let _ = answer::properties(&[Entry::default()], &asked);
    }
    let Ok(changes) = body::proppatch(bytes) else { return };
    for change in changes {
        assert_eq!(Name::of_whole(&change.name().whole()).as_ref(), Some(change.name()));
        let Change::Set(property) = change else { continue };
        let again = format!("<D:propertyupdate xmlns:D='DAV:'><D:set><D:prop>{}</D:prop></D:set></D:propertyupdate>", property.element);
        // It may have become longer than what is read.
        if again.len() < 64 << 10 {
            assert_eq!(body::proppatch(again.as_bytes()), Ok(vec![Change::Set(property)]));
        }
    }
});
