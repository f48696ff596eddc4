//! What is particular to blobs in a bucket.

use super::*;
use crate::blobs::Blobs;
use crate::blobs::tests::{bytes, on_s3, read, runtime, write};

#[test]
fn a_bucket_is_found() {
    for (endpoint, path_style, allow_http, expected) in [
        (None, false, false, Some("https://b.s3.eu-1.amazonaws.com")),
        (None, true, false, Some("https://s3.eu-1.amazonaws.com/b")),
        (Some("https://s3.example.com/"), true, false, Some("https://s3.example.com/b")),
        (Some("https://s3.example.com:9000"), false, false, Some("https://b.s3.example.com:9000")),
        (Some("http://127.0.0.1:9000"), true, false, Some("http://127.0.0.1:9000/b")),
        (Some("http://minio:9000"), true, true, Some("http://minio:9000/b")),
        (Some("http://minio:9000"), true, false, None),
        (Some("ftp://minio"), true, true, None),
        (Some("minio:9000"), true, true, None),
        (Some(""), true, true, None),
    ] {
        let settings = settings(endpoint, path_style, allow_http);
        assert_eq!(bucket_url(&settings).ok().as_deref(), expected, "{endpoint:?}");
    }
}

fn settings(endpoint: Option<&str>, path_style: bool, allow_http: bool) -> S3Settings {
    S3Settings {
        endpoint: endpoint.map(ToOwned::to_owned),
        region: "eu-1".to_owned(),
        bucket: "b".to_owned(),
        prefix: String::new(),
        access_key_id: "key".to_owned(),
        secret_access_key: Secret::new("hunter2".to_owned()),
        path_style,
        allow_http,
    }
}

#[test]
fn the_key_is_not_printed() {
    let settings = settings(None, false, false);
    let printed = format!("{settings:?} {:?}", S3::open(&settings).unwrap());
    assert!(!printed.contains("hunter2"), "{printed}");
}

#[test]
fn an_s3_that_is_not_there_is_unreachable() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let blobs = Blobs::S3(S3::open(&settings(Some(&format!("http://{closed}")), true, false)).unwrap());
    let refused = runtime().block_on(blobs.check());
    assert!(matches!(refused, Err(Error::Unreachable { .. })), "{refused:?}");
}

#[test]
fn a_wrong_key_and_a_wrong_bucket_are_refused() {
    on_s3(async |_, server| {
        let wrong_key = S3Settings { secret_access_key: Secret::new("guess".to_owned()), ..server.settings() };
        let wrong_bucket = S3Settings { bucket: "other".to_owned(), ..server.settings() };
        // This server makes a bucket of any name.
        server.say("PUT /other", 404, "<Error><Code>NoSuchBucket</Code></Error>");
        for settings in [wrong_key, wrong_bucket] {
            let refused = Blobs::S3(S3::open(&settings).unwrap()).check().await;
            assert!(matches!(refused, Err(Error::Refused { .. })), "{}: {refused:?}", settings.bucket);
        }
    });
}

#[test]
fn what_stumbles_is_asked_again() {
    on_s3(async |blobs, server| {
        for request in ["PUT /", "GET /", "uploads=", "partNumber=2", "POST /"] {
            server.say(request, 503, "<Error><Code>SlowDown</Code></Error>");
        }
        let id = write(blobs, &bytes(20_000_000), 100_000).await.id;
        assert!(read(blobs, &id, 0..20_000_000).await == bytes(20_000_000));
    });
}

#[test]
fn what_is_given_up_leaves_nothing() {
    on_s3(async |blobs, server| {
        let mut writer = blobs.writer().await.unwrap();
        writer.write(bytes(9_000_000)).await.unwrap();
        server.answered("partNumber=1").await;
        drop(writer);
        server.answered("DELETE").await;
        assert_eq!(server.unfinished(), [""; 0]);
    });
}

#[test]
fn a_part_that_is_refused_ends_it() {
    on_s3(async |blobs, server| {
        server.say("partNumber=2", 403, "");
        let mut writer = blobs.writer().await.unwrap();
        writer.write(bytes(20_000_000)).await.unwrap();
        let refused = writer.finish().await;
        assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
        server.answered("DELETE").await;
        assert_eq!(blobs.list(None, 10).await.unwrap(), []);
    });
}

#[test]
fn a_large_blob_is_copied_by_parts() {
    on_s3(async |blobs, server| {
        let Blobs::S3(s3) = blobs else { unreachable!() };
        let first = write(blobs, &bytes(12_000_001), 100_000).await.id;
        let second = BlobId::random();
        uploads::copy(&s3.0, &first, &second, 12_000_001, 5 << 20).await.unwrap();
        assert!(read(blobs, &second, 0..12_000_001).await == bytes(12_000_001));
        let parts = server.requests().iter().filter(|request| request.contains("partNumber=")).count();
        assert_eq!(parts, 2 + 3, "two were written, three were copied");
    });
}

#[test]
fn old_uploads_that_nobody_finished_are_removed() {
    on_s3(async |blobs, server| {
        let upload = |key: &str, id: &str, initiated: &str| {
            format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>{initiated}</Initiated></Upload>")
        };
        let key = |id: &BlobId| format!("files/of mine/{id}");
        let (old, young, next, slow) = (BlobId::random(), BlobId::random(), BlobId::random(), BlobId::random());
        let page = format!(
            "<ListMultipartUploadsResult><Bucket>bucket</Bucket><IsTruncated>true</IsTruncated>\
             <NextKeyMarker>{}</NextKeyMarker><NextUploadIdMarker>b&amp;2</NextUploadIdMarker>{}{}{}</ListMultipartUploadsResult>",
            key(&young),
            upload(&key(&old), "a1", "2020-11-10T20:48:33.000Z"),
            upload(&key(&young), "b&amp;2", "9999-11-10T20:48:33.000Z"),
            upload("files/of mine/somebody else's", "c3", "2020-11-10T20:48:33Z"),
        );
        server.say("GET /bucket?prefix=files/of%20mine/&uploads", 200, page);
        let last =
            upload(&key(&slow), "e5", "2020-11-10T20:48:33Z") + &upload(&key(&next), "d4", "2020-11-10T20:48:33Z");
        let last = format!("<ListMultipartUploadsResult>{last}</ListMultipartUploadsResult>");
        server.say("upload-id-marker=b%262", 200, last);
        let part = |at: &str| format!("<Part><PartNumber>1</PartNumber><LastModified>{at}</LastModified></Part>");
        let old_part = part("2020-11-10T20:50:00.000Z");
        server.say(
            "uploadId=a1",
            200,
            format!("<ListPartsResult>{old_part}<IsTruncated>false</IsTruncated></ListPartsResult>"),
        );
        let more = "<IsTruncated>true</IsTruncated><NextPartNumberMarker>1</NextPartNumberMarker>";
        server.say("uploadId=e5", 200, format!("<ListPartsResult>{old_part}{more}</ListPartsResult>"));
        let new_part = part("9999-11-10T20:48:33.000Z");
        server.say("part-number-marker=1", 200, format!("<ListPartsResult>{new_part}</ListPartsResult>"));
        server.say("uploadId=d4", 200, "<ListPartsResult/>");
        server.say("DELETE", 204, "");
        server.say("DELETE", 404, "<Error><Code>NoSuchUpload</Code></Error>");
        assert_eq!(blobs.clean(Duration::from_hours(1)).await.unwrap(), 1);
        let removed: Vec<_> = server.requests().into_iter().filter(|request| request.starts_with("DELETE")).collect();
        assert_eq!(removed.len(), 2, "{removed:?}");
        assert!(removed[0].contains(old.as_str()) && removed[0].contains("uploadId=a1"), "{removed:?}");
        assert!(removed[1].contains(next.as_str()) && removed[1].contains("uploadId=d4"), "{removed:?}");
        assert!(!removed.iter().any(|request| request.contains(slow.as_str())), "a part of it has just come");
    });
}
