//! Signatures that others have made: Amazon's documentation, and botocore.

use super::*;

/// Of Amazon's examples ("Examples: Signature Calculations in AWS Signature Version 4").
const AMAZON: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// 2013-05-24T00:00:00Z
const THEN: i64 = 1_369_353_600;

/// 2026-03-01T12:00:00Z, when botocore signed.
const BOTO: i64 = 1_772_366_400;

const NOTHING: (&str, &str) = ("x-amz-content-sha256", EMPTY);
const BUCKET: (&str, &str) = ("host", "examplebucket.s3.amazonaws.com");
const DATE: (&str, &str) = ("x-amz-date", "20130524T000000Z");
const HERE: (&str, &str) = ("host", "localhost:54321");
const BOTO_DATE: (&str, &str) = ("x-amz-date", "20260301T120000Z");

type Headers<'a> = Vec<(&'a str, &'a str)>;

fn by_amazon(method: &str, path: &str, query: &str, headers: &[(&str, &str)], names: &str, signature: &str) {
    let header = format!(
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders={names},Signature={signature}"
    );
    let mut headers = headers.to_vec();
    headers.push(("authorization", &header));
    let parts = Parts { method, path, query, headers: &headers };
    let signed = read(&parts).unwrap();
    assert_eq!((signed.access_key.as_str(), signed.session_token.as_deref()), ("AKIAIOSFODNN7EXAMPLE", None));
    signed.verify(&parts, AMAZON, THEN).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    assert_eq!(signed.verify(&parts, "another", THEN).unwrap_err().code, Code::SignatureDoesNotMatch);
}

#[test]
fn amazons_examples_hold() {
    by_amazon(
        "GET",
        "/test.txt",
        "",
        &[BUCKET, ("range", "bytes=0-9"), NOTHING, DATE],
        "host;range;x-amz-content-sha256;x-amz-date",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    );
    by_amazon(
        "PUT",
        "/test$file.text",
        "",
        &[
            BUCKET,
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            DATE,
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ("x-amz-content-sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"),
        ],
        "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    );
    by_amazon(
        "GET",
        "/",
        "lifecycle",
        &[BUCKET, NOTHING, DATE],
        "host;x-amz-content-sha256;x-amz-date",
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    );
    by_amazon(
        "GET",
        "/",
        "max-keys=2&prefix=J",
        &[BUCKET, NOTHING, DATE],
        "host;x-amz-content-sha256;x-amz-date",
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    );
}

const PRESIGNED: &str = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2F\
aws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&\
X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";

fn presigned(query: &str, headers: &[(&str, &str)], now: i64) -> Result<(), Error> {
    let parts = Parts { method: "GET", path: "/test.txt", query, headers };
    read(&parts)?.verify(&parts, AMAZON, now).map(|_| ())
}

#[test]
fn amazons_presigned_url_holds_until_it_expires() {
    assert_eq!(presigned(PRESIGNED, &[BUCKET], THEN), Ok(()));
    assert_eq!(presigned(PRESIGNED, &[BUCKET], THEN + 86_400), Ok(()));
    assert_eq!(presigned(PRESIGNED, &[BUCKET], THEN + 86_401).unwrap_err().code, Code::ExpiredToken);
    assert_eq!(presigned(PRESIGNED, &[BUCKET], THEN - 901).unwrap_err().code, Code::AccessDenied);
    let bearer = ("authorization", "Bearer something");
    assert_eq!(presigned(PRESIGNED, &[BUCKET, bearer], THEN), Ok(()), "a header of another kind");
}

#[test]
fn security_a_presigned_url_says_no_more_than_was_signed() {
    let cases: &[(String, Headers<'_>, Code)] = &[
        (PRESIGNED.into(), vec![BUCKET, ("x-amz-copy-source", "/other/secret")], Code::AccessDenied),
        (PRESIGNED.into(), vec![("host", "other")], Code::SignatureDoesNotMatch),
        (format!("{PRESIGNED}&response-content-type=text%2Fhtml"), vec![BUCKET], Code::SignatureDoesNotMatch),
        (PRESIGNED.replace("=86400", "=604800"), vec![BUCKET], Code::SignatureDoesNotMatch),
        (PRESIGNED.replace("=86400", "=604801"), vec![BUCKET], Code::InvalidSignature),
        (PRESIGNED.replace("=86400", "=-1"), vec![BUCKET], Code::InvalidSignature),
        (PRESIGNED.replace("X-Amz-Expires=86400&", ""), vec![BUCKET], Code::InvalidSignature),
        (PRESIGNED.replace("SignedHeaders=host", "SignedHeaders="), vec![], Code::AccessDenied),
        (PRESIGNED.replace("%2Fs3%2F", "%2Fiam%2F"), vec![BUCKET], Code::AccessDenied),
        (format!("{PRESIGNED}&X-Amz-Date=20130524T000001Z"), vec![BUCKET], Code::InvalidSignature),
        (PRESIGNED.replace("20130524%2F", "20130523%2F"), vec![BUCKET], Code::InvalidSignature),
        (String::new(), vec![BUCKET], Code::AccessDenied),
        (String::new(), vec![BUCKET, ("authorization", "Bearer something")], Code::AccessDenied),
        (String::new(), vec![BUCKET, ("authorization", "AWS4-HMAC-SHA256 Credential=a")], Code::InvalidSignature),
    ];
    for (query, headers, code) in cases {
        assert_eq!(presigned(query, headers, THEN).unwrap_err().code, *code, "{query} {headers:?}");
    }
}

fn by_botocore(method: &str, path: &str, query: &str, headers: &[(&str, &str)], secret: &str) -> Signed {
    let parts = Parts { method, path, query, headers };
    let signed = read(&parts).unwrap();
    signed.verify(&parts, secret, BOTO).unwrap_or_else(|error| panic!("{method} {path}?{query}: {error}"));
    signed
}

fn authorization(names: &str, signature: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=key/20260301/eu-central-1/s3/aws4_request, SignedHeaders={names}, Signature={signature}"
    )
}

#[test]
fn what_botocore_signs_holds() {
    let plain = "host;x-amz-content-sha256;x-amz-date";
    let cases: &[(&str, &str, &str, Headers<'_>, &str, &str)] = &[
        (
            "GET",
            "/storage/v1/s3/",
            "",
            vec![NOTHING],
            plain,
            "b5bfbc8c299339139216f0c3640b830dc50a3f7bc68432ef017ed03a84c3bdd8",
        ),
        (
            "GET",
            "/storage/v1/s3/photos",
            "list-type=2&prefix=a%20b%2F&delimiter=%2F&encoding-type=url",
            vec![NOTHING],
            plain,
            "b458d50d7d01df6cbf16c5a3836356ee5d880e4ff91dd6953b44a3593d79e831",
        ),
        (
            "PUT",
            "/storage/v1/s3/photos/%C3%A4%20%28%2B%29%20~%27%21%2A%26.txt",
            "",
            vec![
                ("content-type", "text/plain"),
                ("x-amz-meta-words", "a   b "),
                ("x-amz-content-sha256", "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
            ],
            "content-type;host;x-amz-content-sha256;x-amz-date;x-amz-meta-words",
            "acee25174ae32baf05f6bda521330ea3e0dd0fa2a4eaae563ed1d5f25851760b",
        ),
        (
            "POST",
            "/storage/v1/s3/photos",
            "delete",
            vec![
                ("content-md5", "AAAA"),
                ("x-amz-content-sha256", "e2000f6b1fc1db795626ddaf9c13324157e9f56cb7820b40d7c3253a08ee5b91"),
            ],
            "content-md5;host;x-amz-content-sha256;x-amz-date",
            "ff2723a2ae5dd47dbde4e570e0ce88e814ef6219058f579a9f0c2817609255c1",
        ),
    ];
    for (method, path, query, headers, names, signature) in cases {
        let header = authorization(names, signature);
        let mut headers = headers.clone();
        headers.extend([HERE, BOTO_DATE, ("authorization", header.as_str())]);
        by_botocore(method, path, query, &headers, "secret");
    }
}

#[test]
fn session_tokens_are_read_in_both_places() {
    let header = "AWS4-HMAC-SHA256 Credential=project/20260301/eu-central-1/s3/aws4_request, \
                  SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token, \
                  Signature=297879657795925fdc69d5e7886821466becd9a4fc94272a5100a11e0efd84ab";
    let token = ("x-amz-security-token", "jwt.jwt.jwt");
    let headers = [HERE, NOTHING, BOTO_DATE, token, ("authorization", header)];
    let signed = by_botocore("GET", "/storage/v1/s3/photos/cat.png", "", &headers, "anon");
    assert_eq!((signed.access_key.as_str(), signed.session_token.as_deref()), ("project", Some("jwt.jwt.jwt")));
    let parts = Parts { method: "GET", path: "/storage/v1/s3/photos/cat.png", query: "", headers: &headers };
    assert_eq!(signed.verify(&parts, "anon", BOTO - 901).unwrap_err().code, Code::RequestTimeTooSkewed);
    assert_eq!(signed.verify(&parts, "anon", BOTO + 901).unwrap_err().code, Code::RequestTimeTooSkewed);
    let query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=project%2F20260301%2Feu-central-1%2Fs3%2Faws4_request&\
                 X-Amz-Date=20260301T120000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host%3Bx-amz-acl&X-Amz-Security-Token=jwt.jwt.jwt&\
                 X-Amz-Signature=e5575916afb409ee8045838047f340634c55b617846358aabd7cccd446cca21f";
    let headers = [("x-amz-acl", "private"), ("content-length", "0"), HERE];
    let signed = by_botocore("PUT", "/storage/v1/s3/photos/a%2Bb.png", query, &headers, "anon");
    assert_eq!((signed.session_token.as_deref(), signed.payload), (Some("jwt.jwt.jwt"), Payload::Unsigned));
    let query = "response-content-disposition=attachment%3B%20filename%3D%22a%20b%22&X-Amz-Algorithm=AWS4-HMAC-SHA256&\
                 X-Amz-Credential=key%2F20260301%2Feu-central-1%2Fs3%2Faws4_request&X-Amz-Date=20260301T120000Z&X-Amz-Expires=60&\
                 X-Amz-SignedHeaders=host&X-Amz-Security-Token=&\
                 X-Amz-Signature=98074597710ef314493b5686506cf6e3603c8737605969c881e2d4108637f4c9";
    assert_eq!(by_botocore("GET", "/storage/v1/s3/photos/a.png", query, &[HERE], "secret").session_token, None);
}

#[test]
fn a_path_that_was_signed_as_it_was_sent_holds() {
    let chain = |path: &str| {
        let header = authorization("host;x-amz-date", &"0".repeat(64));
        let headers = [HERE, BOTO_DATE, ("authorization", header.as_str())];
        let parts = Parts { method: "GET", path, query: "", headers: &headers };
        read(&parts).unwrap();
        Signed::paths(&parts)
    };
    assert_eq!(chain("/b/a%20b"), ["/b/a%20b"]);
    assert_eq!(chain("/b/a+b%c3%a4(1)"), ["/b/a%2Bb%C3%A4%281%29", "/b/a+b%c3%a4(1)"]);
}

#[test]
fn payloads_are_told_apart() {
    let cases = [
        ("UNSIGNED-PAYLOAD", Some(Payload::Unsigned)),
        ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", Some(Payload::Chunked { signed: true, trailer: false })),
        ("STREAMING-UNSIGNED-PAYLOAD-TRAILER", Some(Payload::Chunked { signed: false, trailer: true })),
        ("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", None),
        ("e3b0", None),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(payload(text).ok(), expected, "{text}");
    }
    assert!(matches!(payload(EMPTY), Ok(Payload::Whole(hash)) if hex(&hash) == EMPTY));
}
