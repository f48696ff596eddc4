//! Bodies as aws-cli, boto3 and rclone send them.

use super::super::signature;
use super::*;

/// Signs nothing: the signature is taken as holding, but with the key of nobody.
fn intake(payload: &str, headers: &[(&str, &str)]) -> Result<Intake, Error> {
    let zeros = "0".repeat(64);
    let header =
        format!("AWS4-HMAC-SHA256 Credential=a/20130524/r/s3/aws4_request,SignedHeaders=host,Signature={zeros}");
    let mut headers = headers.to_vec();
    headers.extend([
        ("x-amz-date", "20130524T000000Z"),
        ("x-amz-content-sha256", payload),
        ("authorization", header.as_str()),
    ]);
    let parts = Parts { method: "PUT", path: "/b/k", query: "", headers: &headers };
    let signed = signature::read(&parts)?;
    Intake::new(&parts, &signed, signed.chain("secret"))
}

fn take(payload: &str, headers: &[(&str, &str)], body: &str) -> Result<(String, Option<Algorithm>), Error> {
    let mut intake = intake(payload, headers)?;
    let mut found = Vec::new();
    for piece in body.as_bytes().chunks(3) {
        let mut piece = Bytes::copy_from_slice(piece);
        while let Some(data) = intake.next(&mut piece)? {
            found.extend_from_slice(&data);
        }
    }
    let checked = intake.finish()?;
    Ok((String::from_utf8(found).unwrap(), checked.map(|(algorithm, _)| algorithm)))
}

const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

type Headers<'a> = &'a [(&'a str, &'a str)];

#[test]
fn bodies_are_taken() {
    let chunked = "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n";
    let crc64 = "5\r\nhello\r\n0\r\nx-amz-checksum-crc64nvme:M3eFcAZSQlc=\r\n\r\n";
    let decoded = ("x-amz-decoded-content-length", "5");
    let cases: &[(&str, Headers<'_>, &str, Option<Algorithm>)] = &[
        (UNSIGNED, &[("content-length", "5")], "hello", None),
        (UNSIGNED, &[], "hello", None),
        (HELLO, &[("content-length", "5")], "hello", None),
        (HELLO, &[("x-amz-checksum-crc32", "NhCmhg==")], "hello", Some(Algorithm::Crc32)),
        (
            HELLO,
            &[("x-amz-checksum-sha256", "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=")],
            "hello",
            Some(Algorithm::Sha256),
        ),
        (TRAILER, &[decoded, ("x-amz-trailer", "x-amz-checksum-crc32")], chunked, Some(Algorithm::Crc32)),
        (TRAILER, &[decoded, ("x-amz-trailer", "x-amz-checksum-crc64nvme")], crc64, Some(Algorithm::Crc64Nvme)),
        (TRAILER, &[decoded], chunked, None),
    ];
    for (payload, headers, body, algorithm) in cases {
        assert_eq!(take(payload, headers, body).unwrap(), ("hello".to_owned(), *algorithm), "{payload} {headers:?}");
    }
}

#[test]
fn bodies_that_are_not_what_was_announced_are_refused() {
    let decoded = ("x-amz-decoded-content-length", "5");
    let crc32 = ("x-amz-trailer", "x-amz-checksum-crc32");
    let cases: &[(&str, Headers<'_>, &str, Code)] = &[
        (HELLO, &[], "hallo", Code::XAmzContentSHA256Mismatch),
        (UNSIGNED, &[("content-length", "6")], "hello", Code::IncompleteBody),
        (UNSIGNED, &[("content-length", "-1")], "hello", Code::InvalidRequest),
        (UNSIGNED, &[("x-amz-checksum-crc32", "NhCmhg==")], "hallo", Code::BadDigest),
        (UNSIGNED, &[("x-amz-checksum-crc32", "NhCmhgA=")], "hello", Code::InvalidRequest),
        (UNSIGNED, &[("x-amz-checksum-crc32", "NhCmhg=="), crc32], "hello", Code::InvalidRequest),
        (TRAILER, &[crc32], "0\r\n\r\n", Code::MissingContentLength),
        (TRAILER, &[decoded, crc32], "5\r\nhello\r\n0\r\n\r\n", Code::InvalidRequest),
        (TRAILER, &[decoded, crc32], "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n", Code::InvalidRequest),
        (TRAILER, &[decoded, crc32], "5\r\nhallo\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n", Code::BadDigest),
    ];
    for (payload, headers, body, code) in cases {
        assert_eq!(take(payload, headers, body).unwrap_err().code, *code, "{payload} {headers:?} {body:?}");
    }
}
