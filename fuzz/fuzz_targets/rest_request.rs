//! A whole request of the data API: lines of method, path, query and headers, then the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ntier_protocol::rest::parse::{Parts, request};

fuzz_target!(|text: &str| {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let mut line = || lines.next().unwrap_or_default();
    let (method, path, query) = (line(), line(), line());
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
    if let Err(error) = request(Parts { method, path, query, headers: &headers, body: body.into() }) {
        assert!((400..500).contains(&error.status()) && !error.message().is_empty());
    }
});
