//! Requests as clients send them, and what is understood.

use super::*;

fn ask(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Operation, Error> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    read(&Parts { method, path: &format!("/storage/v1/s3{path}"), query, headers }, "/storage/v1/s3")
}

fn object(bucket: &str, key: &str) -> Object {
    Object { bucket: bucket.to_owned(), key: key.to_owned() }
}

fn upload(key: &str) -> Upload {
    Upload { object: object("b", key), id: "u".to_owned() }
}

fn simple(bucket: &str) -> List {
    List {
        bucket: bucket.to_owned(),
        version: ListVersion::Two,
        prefix: String::new(),
        delimiter: None,
        limit: 1000,
        after: None,
        token: None,
        encoded: false,
    }
}

#[test]
fn buckets_are_asked_for() {
    let bucket = || "b".to_owned();
    let cases = [
        ("GET", "", Operation::ListBuckets),
        ("GET", "/?x-id=ListBuckets", Operation::ListBuckets),
        ("PUT", "/b", Operation::CreateBucket { bucket: bucket(), public: false }),
        ("PUT", "/b/", Operation::CreateBucket { bucket: bucket(), public: false }),
        ("DELETE", "/b", Operation::DeleteBucket { bucket: bucket() }),
        ("HEAD", "/b", Operation::HeadBucket { bucket: bucket() }),
        ("GET", "/b?location", Operation::GetBucketLocation { bucket: bucket() }),
        ("GET", "/b?versioning=", Operation::GetBucketVersioning { bucket: bucket() }),
        ("POST", "/b?delete", Operation::DeleteObjects { bucket: bucket(), content_md5: None }),
        ("GET", "/b?list-type=2", Operation::ListObjects(simple("b"))),
        ("GET", "/b", Operation::ListObjects(List { version: ListVersion::One, ..simple("b") })),
    ];
    for (method, target, expected) in cases {
        assert_eq!(ask(method, target, &[]).unwrap(), expected, "{method} {target}");
    }
    let public = ask("PUT", "/b", &[("x-amz-acl", "public-read")]).unwrap();
    assert_eq!(public, Operation::CreateBucket { bucket: bucket(), public: true });
}

#[test]
fn listings_have_pages_prefixes_and_delimiters() {
    let text = |text: &str| Some(text.to_owned());
    let cases = [
        (
            "/b?list-type=2&prefix=a%20b%2F&delimiter=%2F&max-keys=5&start-after=c+d&continuation-token=t&encoding-type=url",
            List {
                prefix: "a b/".to_owned(),
                delimiter: text("/"),
                limit: 5,
                after: text("c d"),
                token: text("t"),
                encoded: true,
                ..simple("b")
            },
        ),
        ("/b?list-type=2&max-keys=5000&delimiter=", simple("b")),
        ("/b?list-type=2&max-keys=0", List { limit: 0, ..simple("b") }),
        ("/b?marker=m", List { version: ListVersion::One, after: text("m"), ..simple("b") }),
        (
            "/b?versions&key-marker=k&version-id-marker=null",
            List { version: ListVersion::Versions, after: text("k"), ..simple("b") },
        ),
    ];
    for (target, expected) in cases {
        assert_eq!(ask("GET", target, &[]).unwrap(), Operation::ListObjects(expected), "{target}");
    }
    let uploads = ask("GET", "/b?uploads&prefix=p&key-marker=k&upload-id-marker=u&max-uploads=3", &[]).unwrap();
    let expected = ListUploads {
        bucket: "b".to_owned(),
        prefix: "p".to_owned(),
        delimiter: None,
        limit: 3,
        key_marker: text("k"),
        upload_marker: text("u"),
        encoded: false,
    };
    assert_eq!(uploads, Operation::ListMultipartUploads(expected));
}

#[test]
fn keys_are_decoded_once_and_otherwise_left_alone() {
    for (path, key) in [
        ("/b/a%20b%2Bc+d/%C3%A4", "a b+c+d/ä"),
        ("/b//a//", "/a//"),
        ("/b/a%2520", "a%20"),
        ("/b/../x", "../x"),
        ("/b/%2e%2e%2fx", "../x"),
        ("/b/.", "."),
    ] {
        assert_eq!(ask("DELETE", path, &[]).unwrap(), Operation::DeleteObject(object("b", key)), "{path}");
    }
    assert_eq!(ask("DELETE", "/b/k?versionId=null", &[]).unwrap(), Operation::DeleteObject(object("b", "k")));
    for method in ["GET", "HEAD", "DELETE"] {
        assert_eq!(ask(method, "/b/k?versionId=7", &[]).unwrap_err().code, Code::NotImplemented, "{method}");
    }
    for path in ["/b/%00", "/%00/k", "/b/%ff", "/b/k?prefix=%00"] {
        assert_eq!(ask("GET", path, &[]).unwrap_err().code, Code::InvalidKey, "{path}");
    }
}

#[test]
fn objects_are_asked_for() {
    let headers = [("range", "bytes=0-1"), ("if-none-match", "\"e\"")];
    let read = Read {
        bucket: "b".to_owned(),
        key: "k".to_owned(),
        conditions: Conditions { if_none_match: Some("\"e\"".to_owned()), ..Conditions::default() },
        range: Some("bytes=0-1".to_owned()),
        overrides: vec![("content-type", "text/x; a=b".to_owned())],
    };
    let target = "/b/k?response-content-type=text/x%3B%20a%3Db&x-id=GetObject";
    assert_eq!(ask("GET", target, &headers).unwrap(), Operation::GetObject(read.clone()));
    assert_eq!(ask("HEAD", "/b/k", &headers).unwrap(), Operation::HeadObject(Read { overrides: vec![], ..read }));
    assert_eq!(ask("GET", "/b/k?tagging", &[]).unwrap(), Operation::GetObjectTagging(object("b", "k")));
    let fault = ask("GET", "/b/k?response-content-type=a%0d%0aset-cookie:x", &[]).unwrap_err();
    assert_eq!(fault.code, Code::InvalidParameter);
}

#[test]
fn objects_are_put() {
    let headers = [
        ("content-type", "text/plain"),
        ("cache-control", ""),
        ("x-amz-meta-a", "1"),
        ("content-md5", "XUFAKrxLKna5cZ2REBfFkg=="),
        ("if-none-match", "*"),
    ];
    let described = Described {
        content_type: Some("text/plain".to_owned()),
        cache_control: None,
        metadata: vec![("a".to_owned(), "1".to_owned())],
    };
    let put = Put {
        bucket: "b".to_owned(),
        key: "k".to_owned(),
        headers: described,
        content_md5: Some([93, 65, 64, 42, 188, 75, 42, 118, 185, 113, 157, 145, 16, 23, 197, 146]),
        only_new: true,
    };
    assert_eq!(ask("PUT", "/b/k?x-id=PutObject", &headers).unwrap(), Operation::PutObject(put.clone()));
    assert_eq!(ask("POST", "/b/k?uploads", &headers).unwrap(), Operation::CreateMultipartUpload(put));
    let folder = |headers: &[(&str, &str)]| match ask("PUT", "/b/folder/", headers).unwrap() {
        Operation::PutObject(put) => put.key,
        other => panic!("{other:?}"),
    };
    assert_eq!(folder(&[("content-length", "0")]), "folder/.emptyFolderPlaceholder");
    assert_eq!(
        folder(&[("content-length", "9"), ("x-amz-decoded-content-length", "0")]),
        "folder/.emptyFolderPlaceholder"
    );
    assert_eq!(folder(&[("content-length", "1")]), "folder/");
    let long = "x".repeat(8192);
    for (headers, code) in [
        (vec![("content-md5", "AAAA")], Code::InvalidDigest),
        (vec![("if-match", "\"e\"")], Code::NotImplemented),
        (vec![("if-none-match", "\"e\"")], Code::NotImplemented),
        (vec![("x-amz-meta-a", long.as_str())], Code::InvalidRequest),
    ] {
        assert_eq!(ask("PUT", "/b/k", &headers).unwrap_err().code, code, "{headers:?}");
    }
}

#[test]
fn copies_name_their_source() {
    let source = |bucket: &str, key: &str| Source {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        conditions: Conditions::default(),
    };
    let copy = |text: &str| ask("PUT", "/b/k", &[("x-amz-copy-source", text)]);
    for (text, bucket, key) in
        [("/a/b/c", "a", "b/c"), ("a/b%20%3Fc", "a", "b ?c"), ("a/b+c?versionId=null", "a", "b+c"), ("a//b", "a", "/b")]
    {
        let expected = Copy { bucket: "b".to_owned(), key: "k".to_owned(), source: source(bucket, key), headers: None };
        assert_eq!(copy(text).unwrap(), Operation::CopyObject(expected), "{text}");
    }
    for (text, code) in [
        ("", Code::MissingParameter),
        ("a", Code::MissingParameter),
        ("/a/", Code::MissingParameter),
        ("a/b?versionId=7", Code::NotImplemented),
        ("a/%00", Code::InvalidKey),
    ] {
        assert_eq!(copy(text).unwrap_err().code, code, "{text}");
    }
    let headers = [
        ("x-amz-copy-source", "a/b"),
        ("x-amz-metadata-directive", "REPLACE"),
        ("x-amz-copy-source-if-match", "\"e\""),
        ("content-type", "x/y"),
    ];
    let Operation::CopyObject(copy) = ask("PUT", "/b/k", &headers).unwrap() else { panic!() };
    assert_eq!(copy.headers.unwrap().content_type.as_deref(), Some("x/y"));
    assert_eq!(copy.source.conditions.if_match.as_deref(), Some("\"e\""));
}

#[test]
fn parts_are_put_copied_listed_and_completed() {
    let part = Part { upload: upload("k"), number: 7 };
    let put = Operation::UploadPart { part: part.clone(), content_md5: None };
    assert_eq!(ask("PUT", "/b/k?partNumber=7&uploadId=u", &[]).unwrap(), put);
    let headers = [("x-amz-copy-source", "a/b"), ("x-amz-copy-source-range", "bytes=5-9")];
    let Operation::UploadPartCopy { part: found, range, .. } =
        ask("PUT", "/b/k?partNumber=7&uploadId=u", &headers).unwrap()
    else {
        panic!()
    };
    assert_eq!((found, range), (part, Some(ByteRange { first: 5, last: 9 })));
    let complete = Operation::CompleteMultipartUpload { upload: upload("k"), only_new: false };
    assert_eq!(ask("POST", "/b/k?uploadId=u", &[]).unwrap(), complete);
    assert_eq!(ask("DELETE", "/b/k?uploadId=u", &[]).unwrap(), Operation::AbortMultipartUpload(upload("k")));
    let list = Operation::ListParts { upload: upload("k"), after: 3, limit: 2 };
    assert_eq!(ask("GET", "/b/k?uploadId=u&part-number-marker=3&max-parts=2", &[]).unwrap(), list);
    for range in ["bytes=9-5", "bytes=5-", "bytes=-5", "5-9", "bytes=+5-9", "bytes=5-99999999999999999999"] {
        let headers = [("x-amz-copy-source", "a/b"), ("x-amz-copy-source-range", range)];
        let fault = ask("PUT", "/b/k?partNumber=7&uploadId=u", &headers).unwrap_err();
        assert_eq!(fault.code, Code::InvalidParameter, "{range}");
    }
}

#[test]
fn what_is_not_there_is_not_taken_for_something_else() {
    for (method, target, code) in [
        ("PUT", "/b/k?acl", Code::NotImplemented),
        ("GET", "/b?policy", Code::NotImplemented),
        ("PUT", "/b/k?partNumber=1", Code::MissingParameter),
        ("PUT", "/b/k?uploadId=u", Code::MissingParameter),
        ("PUT", "/b/k?partNumber=0&uploadId=u", Code::InvalidParameter),
        ("PUT", "/b/k?partNumber=10001&uploadId=u", Code::InvalidParameter),
        ("PUT", "/b/k?partNumber=+1&uploadId=u", Code::InvalidParameter),
        ("POST", "/b", Code::NotImplemented),
        ("POST", "/b/k?restore", Code::NotImplemented),
        ("POST", "/b/k?uploadId=", Code::NoSuchUpload),
        ("PATCH", "/b/k", Code::MethodNotAllowed),
        ("PATCH", "/", Code::MethodNotAllowed),
        ("PUT", "/", Code::InvalidBucketName),
        ("GET", "//k", Code::InvalidBucketName),
        ("GET", "/b?list-type=1", Code::InvalidParameter),
        ("GET", "/b?max-keys=-1", Code::InvalidParameter),
        ("GET", "/b?max-keys=x", Code::InvalidParameter),
        ("GET", "/b?encoding-type=base64", Code::InvalidParameter),
        ("GET", "/b?uploads&max-uploads=1001", Code::InvalidParameter),
    ] {
        assert_eq!(ask(method, target, &[]).unwrap_err().code, code, "{method} {target}");
    }
    // Tags are not kept; whoever puts some must hear it.
    for (method, target) in [("PUT", "/b/k?tagging"), ("DELETE", "/b/k?tagging"), ("GET", "/b?tagging")] {
        assert_eq!(ask(method, target, &[]).unwrap_err().code, Code::NotImplemented, "{method} {target}");
    }
}
