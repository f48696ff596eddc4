//! Amazon's two examples, and what is no such body.

use super::super::Parts;
use super::super::signature;
use super::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// 66,560 letters a, in two chunks.
const LENGTH: u64 = 66_560;

/// The signature of the request, which the first chunk's continues, from "Transferring Payload in Multiple Chunks" and
/// "… with Trailing Headers".
fn chain(payload: &str, extra: &[(&str, &str)], names: &str, seed: &str) -> Chain {
    let header = format!(
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders={names},Signature={seed}"
    );
    let mut headers = vec![
        ("host", "s3.amazonaws.com"),
        ("x-amz-date", "20130524T000000Z"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("x-amz-content-sha256", payload),
        ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", "66560"),
        ("authorization", &header),
    ];
    headers.extend(extra);
    let parts = Parts { method: "PUT", path: "/examplebucket/chunkObject.txt", query: "", headers: &headers };
    signature::read(&parts).unwrap().verify(&parts, SECRET, 1_369_353_600).unwrap()
}

fn plain_chain() -> Chain {
    chain(
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        &[("content-length", "66824")],
        "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class",
        "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
    )
}

fn trailer_chain() -> Chain {
    chain(
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        &[("x-amz-trailer", "x-amz-checksum-crc32c")],
        "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer",
        "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
    )
}

fn chunks(signatures: [&str; 3]) -> String {
    let [first, second, last] = signatures;
    format!(
        "10000;chunk-signature={first}\r\n{}\r\n400;chunk-signature={second}\r\n{}\r\n0;chunk-signature={last}\r\n",
        "a".repeat(65_536),
        "a".repeat(1024)
    )
}

fn plain() -> String {
    let chunks = chunks([
        "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    ]);
    format!("{chunks}\r\n")
}

fn with_trailer(line_end: &str) -> String {
    let chunks = chunks([
        "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
        "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
        "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
    ]);
    format!(
        "{chunks}x-amz-checksum-crc32c:sOO8/Q=={line_end}\
         x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
    )
}

/// Decodes `body`, which comes in pieces of `size` bytes.
fn decode(mut decoder: Decoder, body: &str, size: usize) -> Result<(String, Vec<(String, String)>), Error> {
    let mut found = Vec::new();
    for piece in body.as_bytes().chunks(size) {
        let mut piece = Bytes::copy_from_slice(piece);
        while let Some(data) = decoder.next(&mut piece)? {
            assert!(!data.is_empty());
            found.extend_from_slice(&data);
        }
        assert!(piece.is_empty());
    }
    Ok((String::from_utf8(found).unwrap(), decoder.finish()?))
}

#[test]
fn amazons_signed_chunks_hold_however_they_come() {
    for size in [1, 7, 1000, 65_536, 100_000] {
        let decoder = Decoder::new(LENGTH, false, Some(plain_chain()));
        let (found, trailer) = decode(decoder, &plain(), size).unwrap();
        assert!(found.len() as u64 == LENGTH && found.bytes().all(|byte| byte == b'a') && trailer.is_empty());
    }
}

#[test]
fn amazons_signed_trailer_holds_in_either_form() {
    for (line_end, size) in [("\r\n", 1), ("\n\r\n", 3), ("\n\r\n", 100_000)] {
        let decoder = Decoder::new(LENGTH, true, Some(trailer_chain()));
        let (found, trailer) = decode(decoder, &with_trailer(line_end), size).unwrap();
        assert_eq!(found.len() as u64, LENGTH);
        assert_eq!(trailer, [("x-amz-checksum-crc32c".to_owned(), "sOO8/Q==".to_owned())]);
    }
}

#[test]
fn security_chunks_of_somebody_else_are_refused() {
    let signed = |trailer| if trailer { trailer_chain() } else { plain_chain() };
    let cases = [
        (false, plain().replace("ad80", "ad81")),
        (false, plain().replacen("aaaa", "aaab", 1)),
        (false, plain().replace("b6c6", "b6c7")),
        (true, with_trailer("\r\n").replace("d81f", "d81e")),
        (true, with_trailer("\r\n").replace("sOO8", "sOO9")),
        (true, with_trailer("\r\n").replace("x-amz-checksum-crc32c:sOO8/Q==\r\n", "")),
    ];
    for (trailer, body) in cases {
        let decoder = Decoder::new(LENGTH, trailer, Some(signed(trailer)));
        assert_eq!(decode(decoder, &body, 1000).unwrap_err().code, Code::SignatureDoesNotMatch);
    }
    let unsigned = "10000\r\n".to_owned() + &"a".repeat(65_536);
    let decoder = Decoder::new(LENGTH, false, Some(plain_chain()));
    assert_eq!(decode(decoder, &unsigned, 1000).unwrap_err().code, Code::InvalidRequest);
}

#[test]
fn unsigned_chunks_and_what_is_none() {
    let good: &[(&str, u64, &str)] = &[
        ("5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n", 5, "hello"),
        ("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", 5, "hello"),
        ("0\r\n\r\n", 0, ""),
        ("A;ignored=1\r\n0123456789\r\n0\r\nA: 1\r\nb:2\r\n\r\n", 10, "0123456789"),
    ];
    for (body, length, expected) in good {
        for size in [1, 2, 100] {
            assert_eq!(decode(Decoder::new(*length, true, None), body, size).unwrap().0, *expected, "{body:?}");
        }
    }
    let long = format!("5;{}\r\n", "x".repeat(2000));
    let headers = format!("0\r\n{}", format!("a:{}\r\n", "x".repeat(900)).repeat(10));
    let bad: &[(&str, Code)] = &[
        ("", Code::IncompleteBody),
        ("5\r\nhel", Code::IncompleteBody),
        ("5\r\nhello\r\n", Code::IncompleteBody),
        ("5\r\nhello\r\n0\r\n", Code::IncompleteBody),
        ("5\r\nhello\r\n0\r\na:1\r\n", Code::IncompleteBody),
        ("2\r\nhe\r\n0\r\n\r\n", Code::IncompleteBody),
        ("6\r\nhello!\r\n0\r\n\r\n", Code::IncompleteBody),
        ("ffffffffffffffff\r\n", Code::IncompleteBody),
        ("10000000000000005\r\n", Code::InvalidRequest),
        ("+5\r\nhello\r\n0\r\n\r\n", Code::InvalidRequest),
        ("\r\nhello", Code::InvalidRequest),
        ("5\r\nhello!!\r\n0\r\n\r\n", Code::InvalidRequest),
        ("5\r\nhello\r\n0\r\nno header\r\n\r\n", Code::InvalidRequest),
        ("5\r\nhello\r\n0\r\n\r\nmore", Code::InvalidRequest),
        (&long, Code::InvalidRequest),
        (&headers, Code::InvalidRequest),
    ];
    for (body, code) in bad {
        for size in [1, 100] {
            assert_eq!(decode(Decoder::new(5, true, None), body, size).unwrap_err().code, *code, "{body:?}");
        }
    }
    assert_eq!(decode(Decoder::new(0, true, None), &headers, 10).unwrap_err().code, Code::InvalidRequest);
}
