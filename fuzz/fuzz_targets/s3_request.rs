//! A whole request of S3's protocol: lines of method, path, query and headers, then the body. Its signature is nobody's; what comes
//! after the signature is tried all the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ntier_protocol::storage::s3::intake::Intake;
use ntier_protocol::storage::s3::{Parts, body, request, signature};

fuzz_target!(|bytes: &[u8]| {
    let split = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap_or(bytes.len());
    let (head, rest) = bytes.split_at(split);
    let Ok(head) = std::str::from_utf8(head) else { return };
    let mut lines = head.lines();
    let mut line = || lines.next().unwrap_or_default();
    let (method, path, query) = (line(), format!("/s3/{}", line()), line());
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
    let parts = Parts { method, path: &path, query, headers: &headers };
    let _ = body::complete(rest);
    let _ = body::delete(rest);
    if let Err(error) = request::read(&parts, "/s3") {
        assert!((400..=501).contains(&error.code.status()) && !error.message.is_empty());
    }
    let Ok(signed) = signature::read(&parts) else { return };
    assert!(signed.verify(&parts, "secret", 1_369_353_600).is_err());
    let Ok(mut intake) = Intake::new(&parts, &signed, signed.chain("secret")) else { return };
    let (mut input, length) = (Bytes::copy_from_slice(rest), intake.length);
    let mut taken = 0;
    while let Ok(Some(piece)) = intake.next(&mut input) {
        assert!(!piece.is_empty());
        taken += piece.len() as u64;
    }
    if intake.finish().is_ok() {
        assert!(length.is_none_or(|length| length == taken));
    }
});
