//! What holds for every request and every body, whoever wrote it.

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;

use super::chunked::Decoder;
use super::request::{Object, Operation};
use super::xml::Document;
use super::{Parts, body, request, signature};

/// Chunks of sizes as given, in front of headers.
fn chunked(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\nname:value\r\n\r\n");
    out
}

fn fragments() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        3 => proptest::sample::select(vec![
            "AWS4-HMAC-SHA256 ", "Credential=", "SignedHeaders=", "Signature=", "/", ";", ",", "=", "&", "?", "%", "%2F", "%00", "%zz", "+",
            "aws4_request", "s3", "20130524", "20130524T000000Z", "host", "X-Amz-Credential", "X-Amz-Expires", "uploadId", "partNumber",
            "list-type", "2", "99999999999", "-1", "bytes=", "0-1", "ä", " ", "\t",
        ])
        .prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(fragment, 0..24).prop_map(|fragments| fragments.concat())
}

fn header_names() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "authorization",
        "x-amz-date",
        "x-amz-content-sha256",
        "x-amz-copy-source",
        "x-amz-copy-source-range",
        "x-amz-decoded-content-length",
        "content-length",
        "content-md5",
        "host",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_body_in_chunks_comes_out_whole_however_it_is_cut(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..6),
        cut in 1..300_usize,
    ) {
        let whole = pieces.concat();
        let mut decoder = Decoder::new(whole.len() as u64, true, None);
        let mut found = Vec::new();
        for piece in chunked(&pieces).chunks(cut) {
            let mut piece = Bytes::copy_from_slice(piece);
            while let Some(data) = decoder.next(&mut piece).unwrap() {
                found.extend_from_slice(&data);
            }
        }
        prop_assert_eq!(found, whole);
        prop_assert_eq!(decoder.finish().unwrap(), vec![("name".to_owned(), "value".to_owned())]);
    }

    #[test]
    fn a_body_that_is_no_chunks_gives_no_more_than_was_announced(bytes in proptest::collection::vec(any::<u8>(), 0..300), length in 0..50_u64) {
        let mut decoder = Decoder::new(length, true, None);
        let mut input = Bytes::from(bytes);
        let mut found = 0;
        while let Ok(Some(data)) = decoder.next(&mut input) {
            found += data.len() as u64;
        }
        prop_assert!(found <= length);
    }

    #[test]
    fn every_request_is_read_or_refused(
        method in proptest::sample::select(vec!["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"]),
        path in fragments(),
        query in fragments(),
        headers in proptest::collection::vec((header_names(), fragments()), 0..5),
    ) {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let path = format!("/s3/{path}");
        let parts = Parts { method, path: &path, query: &query, headers: &headers };
        if let Err(error) = request::read(&parts, "/s3") {
            prop_assert!((400..=501).contains(&error.code.status()) && !error.message.is_empty());
        }
        if let Ok(signed) = signature::read(&parts) {
            prop_assert!(signed.verify(&parts, "secret", 1_369_353_600).is_err());
        }
    }

    #[test]
    fn a_key_comes_back_as_it_was_said(key in "[^\0]{1,40}") {
        let path = format!("/s3/b/{}", utf8_percent_encode(&key, NON_ALPHANUMERIC));
        let parts = Parts { method: "DELETE", path: &path, query: "", headers: &[] };
        let expected = Operation::DeleteObject(Object { bucket: "b".to_owned(), key });
        prop_assert_eq!(request::read(&parts, "/s3").unwrap(), expected);
    }

    #[test]
    fn text_that_xml_has_comes_back_from_it(keys in proptest::collection::vec("[ -~\t\r\n\u{80}-\u{d7ff}]{1,30}", 0..5)) {
        let mut document = Document::new("Delete");
        for key in &keys {
            document.open("Object");
            document.text("Key", key);
            document.close();
        }
        prop_assert_eq!(body::delete(document.finish().as_bytes()).unwrap().keys, keys);
    }

    #[test]
    fn any_bytes_are_a_body_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in fragments()) {
        for bytes in [bytes, format!("<Delete><Object><Key>{text}</Key></Object></Delete>").into_bytes()] {
            let _ = body::delete(&bytes);
            let _ = body::complete(&bytes);
        }
    }
}
