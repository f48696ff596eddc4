//! What people write for the address of a database.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = ntier_backing::database::parse_url(text);
});
