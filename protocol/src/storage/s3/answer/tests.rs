//! The documents, as clients get them.

use super::*;

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

fn check(document: &str, root: &str, expected: &str) {
    let namespace = "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";
    assert_eq!(document, format!("{HEAD}<{root} {namespace}>{expected}</{root}>"));
}

fn list(version: ListVersion) -> List {
    List {
        bucket: "b".to_owned(),
        version,
        prefix: "a b".to_owned(),
        delimiter: Some("/".to_owned()),
        limit: 2,
        after: Some("a".to_owned()),
        token: None,
        encoded: false,
    }
}

fn page() -> Page {
    let object = Listed {
        key: "a b<&>\u{1}".to_owned(),
        modified_at: "2026-03-01T12:00:00.000Z".to_owned(),
        etag: "\"e\"".to_owned(),
        size_bytes: 5,
    };
    Page { objects: vec![object], prefixes: vec!["a b/".to_owned()], next: Some("next".to_owned()) }
}

const REST: &str = "<LastModified>2026-03-01T12:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag><Size>5</Size>\
                    <StorageClass>STANDARD</StorageClass></Contents>";

#[test]
fn listings_are_written() {
    let expected = format!(
        "<Name>b</Name><Prefix>a b</Prefix><StartAfter>a</StartAfter><NextContinuationToken>next</NextContinuationToken>\
         <KeyCount>2</KeyCount><MaxKeys>2</MaxKeys><Delimiter>/</Delimiter><IsTruncated>true</IsTruncated>\
         <Contents><Key>a b&lt;&amp;&gt;\u{fffd}</Key>{REST}<CommonPrefixes><Prefix>a b/</Prefix></CommonPrefixes>"
    );
    check(&objects(&list(ListVersion::Two), &page()), "ListBucketResult", &expected);
}

#[test]
fn listings_of_the_first_version_go_on_from_a_key() {
    let expected = format!(
        "<Name>b</Name><Prefix>a%20b</Prefix><Marker>a</Marker><NextMarker>next</NextMarker><MaxKeys>2</MaxKeys>\
         <Delimiter>/</Delimiter><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
         <Contents><Key>a%20b%3C%26%3E%01</Key>{REST}<CommonPrefixes><Prefix>a%20b/</Prefix></CommonPrefixes>"
    );
    let encoded = List { encoded: true, ..list(ListVersion::One) };
    check(&objects(&encoded, &page()), "ListBucketResult", &expected);
    let undelimited = List { delimiter: None, ..list(ListVersion::One) };
    let document = objects(&undelimited, &page());
    assert!(document.contains("<IsTruncated>true") && !document.contains("NextMarker"));
}

#[test]
fn each_object_is_its_only_version() {
    let rest = REST.replace("Contents", "Version");
    let expected = format!(
        "<Name>b</Name><Prefix>a b</Prefix><KeyMarker>a</KeyMarker><VersionIdMarker></VersionIdMarker><NextKeyMarker>next</NextKeyMarker>\
         <NextVersionIdMarker>null</NextVersionIdMarker><MaxKeys>2</MaxKeys><Delimiter>/</Delimiter><IsTruncated>true</IsTruncated>\
         <Version><Key>a b&lt;&amp;&gt;\u{fffd}</Key><VersionId>null</VersionId><IsLatest>true</IsLatest>{rest}\
         <CommonPrefixes><Prefix>a b/</Prefix></CommonPrefixes>"
    );
    check(&objects(&list(ListVersion::Versions), &page()), "ListVersionsResult", &expected);
}

#[test]
fn uploads_and_parts_are_written() {
    let object = Object { bucket: "b".to_owned(), key: "k".to_owned() };
    let upload = Upload { object: object.clone(), id: "u".to_owned() };
    check(
        &upload_created(&upload),
        "InitiateMultipartUploadResult",
        "<Bucket>b</Bucket><Key>k</Key><UploadId>u</UploadId>",
    );
    check(
        &upload_completed(&object, "e-2"),
        "CompleteMultipartUploadResult",
        "<Location>b/k</Location><Bucket>b</Bucket><Key>k</Key><ETag>&quot;e-2&quot;</ETag>",
    );
    let part = ListedPart { number: 3, modified_at: "t".to_owned(), etag: "e".to_owned(), size_bytes: 9 };
    check(
        &parts(&upload, 2, 1, &[part], true),
        "ListPartsResult",
        "<Bucket>b</Bucket><Key>k</Key><UploadId>u</UploadId><PartNumberMarker>2</PartNumberMarker>\
         <NextPartNumberMarker>3</NextPartNumberMarker><MaxParts>1</MaxParts><IsTruncated>true</IsTruncated>\
         <Part><PartNumber>3</PartNumber><LastModified>t</LastModified><ETag>&quot;e&quot;</ETag><Size>9</Size></Part>\
         <StorageClass>STANDARD</StorageClass>",
    );
    let listed = ListedUpload { key: "k".to_owned(), id: "u".to_owned(), initiated_at: "t".to_owned() };
    let list = ListUploads {
        bucket: "b".to_owned(),
        prefix: String::new(),
        delimiter: None,
        limit: 1,
        key_marker: None,
        upload_marker: None,
        encoded: false,
    };
    let page = UploadsPage { uploads: vec![listed], prefixes: vec![], next: Some(("k".to_owned(), "u".to_owned())) };
    check(
        &uploads(&list, &page),
        "ListMultipartUploadsResult",
        "<Bucket>b</Bucket><KeyMarker></KeyMarker><UploadIdMarker></UploadIdMarker><NextKeyMarker>k</NextKeyMarker>\
         <NextUploadIdMarker>u</NextUploadIdMarker><Prefix></Prefix><MaxUploads>1</MaxUploads><IsTruncated>true</IsTruncated>\
         <Upload><Key>k</Key><UploadId>u</UploadId><StorageClass>STANDARD</StorageClass><Initiated>t</Initiated></Upload>",
    );
}

#[test]
fn the_small_ones_are_written() {
    let bucket = Bucket { name: "b".to_owned(), created_at: "t".to_owned() };
    check(
        &buckets(&[bucket]),
        "ListAllMyBucketsResult",
        "<Buckets><Bucket><Name>b</Name><CreationDate>t</CreationDate></Bucket></Buckets>",
    );
    check(&location("eu"), "LocationConstraint", "eu");
    check(&versioning(), "VersioningConfiguration", "<Status>Suspended</Status><MfaDelete>Disabled</MfaDelete>");
    check(&tagging(), "Tagging", "<TagSet></TagSet>");
    let (gone, kept) = (vec!["a".to_owned()], vec!["b".to_owned()]);
    let denied = "<Error><Key>b</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
    check(&deleted(&gone, &kept, false), "DeleteResult", &format!("<Deleted><Key>a</Key></Deleted>{denied}"));
    check(&deleted(&gone, &kept, true), "DeleteResult", denied);
    check(&object_copied("e", "t"), "CopyObjectResult", "<ETag>&quot;e&quot;</ETag><LastModified>t</LastModified>");
    check(&part_copied("e", "t"), "CopyPartResult", "<ETag>&quot;e&quot;</ETag><LastModified>t</LastModified>");
}
