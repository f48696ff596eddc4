//! Paths and queries that are looked at for attacks, patterns of the firewall, and messages of other processes.
#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use ntier_security::defence::{Defence, Settings};
use ntier_security::firewall::{Pattern, plain};
use ntier_security::intrusion::{is_injection, is_scanner_path};

fuzz_target!(|texts: (&str, &str)| {
    let (text, other) = texts;
    let path = plain(text);
    let _ = (is_scanner_path(&path), is_injection(text));
    if let Ok(pattern) = other.parse::<Pattern>() {
        let _ = pattern.matches(&path);
    }
    let now = Instant::now();
    Defence::new(Settings::default(), now).hear(text, true, now);
});
