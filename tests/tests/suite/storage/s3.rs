//! Files by S3's protocol. Whole clients are tried by `tests/clients/s3.py`; here is what has to hold on every change.

use ntier_tests::ask::Answer;
use ntier_tests::s3::Signer;
use ntier_tests::{Backend, Who, World, on_both};
use serde_json::json;

use super::POLICIES;

on_both!(
    what_is_put_by_s3_is_there_for_everybody,
    listings_go_by_pages_and_folders,
    parts_are_one_file_and_go_with_it,
    an_upload_goes_on_after_a_kill,
    security_s3_signatures_bind_and_expire,
    security_session_tokens_are_users_and_policies_decide,
);

fn service(world: &World) -> Signer {
    world.signer(&Who::Service)
}

fn ask(world: &World, line: &str) -> Answer {
    world.s3(&service(world), line).send()
}

fn put(world: &World, line: &str, bytes: &[u8]) -> Answer {
    world.s3(&service(world), line).body("text/plain", bytes).send()
}

/// What an element of that name says, wherever it stands.
fn said(answer: &Answer, name: &str) -> Vec<String> {
    let (text, tag) = (answer.text(), format!("<{name}>"));
    let pieces = text.split(&tag).skip(1);
    pieces.map(|piece| piece.split('<').next().unwrap_or_default().to_owned()).collect()
}

fn refusal(answer: &Answer) -> (u16, String) {
    (answer.status, said(answer, "Code").concat())
}

pub(super) fn what_is_put_by_s3_is_there_for_everybody(world: &mut World) {
    assert_eq!(ask(world, "PUT /films").status, 200);
    assert_eq!(refusal(&ask(world, "PUT /films")), (409, "BucketAlreadyExists".into()));
    let made = put(world, "PUT /films/a%20folder/%C3%A4.txt", b"hello");
    assert_eq!((made.status, made.header("etag")), (200, Some("\"5d41402abc4b2a76b9719d911017c592\"")));
    let found = world.files(&Who::Service, "GET /object/films/a folder/%C3%A4.txt").send();
    assert_eq!((found.text().as_str(), found.header("etag")), ("hello", made.header("etag")));
    let found = ask(world, "GET /films/a%20folder/%C3%A4.txt?response-content-type=text%2Fx");
    assert_eq!((found.text().as_str(), found.header("content-type")), ("hello", Some("text/x")));
    let head = ask(world, "HEAD /films/a%20folder/%C3%A4.txt");
    assert_eq!((head.header("content-length"), head.header("content-type")), (Some("5"), Some("text/plain")));
    let part = world.s3(&service(world), "GET /films/a%20folder/%C3%A4.txt").header("range", "bytes=1-2").send();
    assert_eq!((part.status, part.text().as_str()), (206, "el"));
    assert_eq!(refusal(&ask(world, "GET /films/none")), (404, "NoSuchKey".into()));
    assert_eq!(refusal(&ask(world, "GET /none/none")), (404, "NoSuchBucket".into()));
    assert_eq!(refusal(&ask(world, "PUT /films/a%20folder/%C3%A4.txt?tagging")), (501, "NotImplemented".into()));
    assert_eq!(refusal(&ask(world, "DELETE /films")), (409, "ResourceNotEmpty".into()));
    assert_eq!(ask(world, "DELETE /films/a%20folder/%C3%A4.txt").status, 204);
    assert_eq!(ask(world, "DELETE /films/a%20folder/%C3%A4.txt").status, 204);
    assert_eq!(ask(world, "DELETE /films").status, 204);
}

fn listings_go_by_pages_and_folders(world: &mut World) {
    assert_eq!(ask(world, "PUT /listed").status, 200);
    for name in ["a/1", "a/2", "b/1", "c", "d"] {
        assert_eq!(put(world, &format!("PUT /listed/{name}"), b"x").status, 200);
    }
    let (mut found, mut query) = (Vec::new(), String::new());
    loop {
        let page = ask(world, &format!("GET /listed?list-type=2&delimiter=%2F&max-keys=1{query}"));
        found.extend(said(&page, "Prefix").into_iter().filter(|prefix| !prefix.is_empty()));
        found.extend(said(&page, "Key"));
        match said(&page, "NextContinuationToken").first() {
            Some(token) => {
                let token = token.replace('=', "%3D").replace('+', "%2B").replace('/', "%2F");
                query = format!("&continuation-token={token}");
            }
            None => break,
        }
    }
    assert_eq!(found, ["a/", "b/", "c", "d"]);
    let page = ask(world, "GET /listed?prefix=a%2F&max-keys=1");
    assert_eq!((said(&page, "Key"), said(&page, "IsTruncated")), (vec!["a/1".to_owned()], vec!["true".to_owned()]));
    assert_eq!(said(&ask(world, "GET /listed?prefix=a%2F&marker=a%2F1"), "Key"), ["a/2"]);
    let all =
        "<Delete><Object><Key>a/1</Key></Object><Object><Key>c</Key></Object><Object><Key>none</Key></Object></Delete>";
    let gone = put(world, "POST /listed?delete", all.as_bytes());
    assert_eq!((gone.status, said(&gone, "Key")), (200, vec!["a/1".into(), "c".into(), "none".into()]));
    assert_eq!(said(&ask(world, "GET /listed?list-type=2"), "Key"), ["a/2", "b/1", "d"]);
}

/// Begins an upload and sends its parts; gives its id, and the body that completes it.
fn begin(world: &World, place: &str, parts: &[&[u8]]) -> (String, String) {
    let id = said(&ask(world, &format!("POST /{place}?uploads")), "UploadId").concat();
    let mut body = String::from("<CompleteMultipartUpload>");
    for (number, bytes) in (1..).zip(parts) {
        let sent = put(world, &format!("PUT /{place}?partNumber={number}&uploadId={id}"), bytes);
        let etag = sent.header("etag").unwrap_or_else(|| panic!("{}", sent.text()));
        body.push_str(&format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"));
    }
    (id, body + "</CompleteMultipartUpload>")
}

pub(super) fn parts_are_one_file_and_go_with_it(world: &mut World) {
    assert_eq!(ask(world, "PUT /films").status, 200);
    let blobs = || json!(world.sql("select count(*) as count from ntier.object_parts")[0]["count"]);
    let (id, body) = begin(world, "films/large", &[b"one", b"two", b"three"]);
    let listed = ask(world, &format!("GET /films/large?uploadId={id}&max-parts=2"));
    assert_eq!(
        (said(&listed, "PartNumber"), said(&listed, "IsTruncated")),
        (vec!["1".into(), "2".into()], vec!["true".into()])
    );
    let wrong = body.replacen("<PartNumber>2", "<PartNumber>9", 1).replacen("<PartNumber>3", "<PartNumber>10", 1);
    let complete = |body: &str| put(world, &format!("POST /films/large?uploadId={id}"), body.as_bytes());
    assert_eq!(refusal(&complete(&wrong)), (400, "InvalidPart".into()));
    let etag = said(&complete(&body), "ETag");
    assert!(etag.concat().contains("-3"), "{etag:?}");
    assert_eq!(said(&complete(&body), "ETag"), etag, "the first answer may have been lost");
    assert_eq!(ask(world, "GET /films/large").text(), "onetwothree");
    let middle = world.files(&Who::Service, "GET /object/films/large").header("range", "bytes=2-6").send();
    assert_eq!(middle.text(), "etwot");
    assert_eq!(blobs(), json!(3));
    assert_eq!(put(world, "PUT /films/large", b"small").status, 200);
    ntier_tests::until("the parts are gone", || blobs() == json!(0));
    let (id, _) = begin(world, "films/never", &[b"one"]);
    assert_eq!(refusal(&ask(world, "DELETE /films")), (409, "ResourceNotEmpty".into()));
    assert_eq!(ask(world, &format!("DELETE /films/never?uploadId={id}")).status, 204);
    assert_eq!(refusal(&ask(world, &format!("DELETE /films/never?uploadId={id}"))), (404, "NoSuchUpload".into()));
    assert_eq!(blobs(), json!(0));
}

pub(super) fn an_upload_goes_on_after_a_kill(world: &mut World) {
    assert_eq!(ask(world, "PUT /films").status, 200);
    let (id, body) = begin(world, "films/large", &[b"one", b"two"]);
    world.restart();
    let done = put(world, &format!("POST /films/large?uploadId={id}"), body.as_bytes());
    assert_eq!(done.status, 200, "{}", done.text());
    world.restart();
    assert_eq!(ask(world, "GET /films/large").text(), "onetwo");
}

fn security_s3_signatures_bind_and_expire(world: &mut World) {
    assert_eq!(ask(world, "PUT /films").status, 200);
    assert_eq!(put(world, "PUT /films/a", b"a").status, 200);
    let get = |signer: &Signer| world.s3(signer, "GET /films/a").send();
    let good = service(world);
    assert_eq!(get(&good).text(), "a");
    let wrong = Signer { secret: "wrong".into(), ..good.clone() };
    assert_eq!(refusal(&get(&wrong)), (403, "SignatureDoesNotMatch".into()));
    let nobody = Signer { access_key: "nobody".into(), ..good.clone() };
    assert_eq!(refusal(&get(&nobody)), (403, "InvalidAccessKeyId".into()));
    let old = Signer { at: good.at - 61, ..good.clone() };
    assert_eq!(refusal(&get(&old)), (400, "ExpiredToken".into()));
    let early = Signer { at: good.at + 1000, ..good.clone() };
    assert_eq!(refusal(&get(&early)), (403, "AccessDenied".into()));
    let more = world.s3(&good, "PUT /films/b").header("x-amz-copy-source", "/films/a").send();
    assert_eq!(refusal(&more), (403, "AccessDenied".into()));
    let elsewhere = world.s3(&good, "GET /films/a").header("host", "other").send();
    assert_eq!(refusal(&elsewhere), (403, "SignatureDoesNotMatch".into()));
    let mut other = world.files(&Who::Service, "GET /s3/films/a").send();
    assert_eq!(refusal(&other), (403, "AccessDenied".into()), "a key of another kind signs nothing");
    other = world.files(&Who::Nobody, "GET /s3").send();
    assert_eq!(refusal(&other), (403, "AccessDenied".into()));
}

fn security_session_tokens_are_users_and_policies_decide(world: &mut World) {
    world.sql(POLICIES);
    assert_eq!(ask(world, "PUT /private").status, 200);
    let (one, two) = (Who::user(1), Who::user(2));
    let folder = |who: &Who| if let Who::User(id) = who { id.clone() } else { String::new() };
    let as_user = |who: &Who, line: &str| {
        let body = if line.starts_with("PUT") { "x" } else { "" };
        world.s3(&world.signer(who), line).body("text/plain", body).send()
    };
    let (own, foreign) = (folder(&one), folder(&two));
    assert_eq!(as_user(&one, &format!("PUT /private/{own}/a")).status, 200);
    assert_eq!(as_user(&two, &format!("PUT /private/{foreign}/a")).status, 200);
    for line in ["PUT /private/{}/b", "POST /private/{}/b?uploads"] {
        let refused = as_user(&one, &line.replace("{}", &foreign));
        assert_eq!(refusal(&refused), (403, "AccessDenied".into()), "{line}");
    }
    let get = |who: &Who, line: &str| world.s3(&world.signer(who), line).send();
    assert_eq!(refusal(&get(&one, &format!("GET /private/{foreign}/a"))), (404, "NoSuchKey".into()));
    assert_eq!(said(&get(&one, "GET /private?list-type=2"), "Key"), [format!("{own}/a")]);
    assert_eq!(get(&one, &format!("DELETE /private/{foreign}/a")).status, 204);
    assert_eq!(get(&two, &format!("GET /private/{foreign}/a")).text(), "x", "it was not theirs to delete");
    let id = said(&as_user(&two, &format!("POST /private/{foreign}/b?uploads")), "UploadId").concat();
    for line in
        ["PUT /private/{}/b?partNumber=1&uploadId=", "POST /private/{}/b?uploadId=", "DELETE /private/{}/b?uploadId="]
    {
        let refused = as_user(&one, &(line.replace("{}", &foreign) + &id));
        assert_eq!(refusal(&refused), (403, "AccessDenied".into()), "{line}");
        let elsewhere = as_user(&one, &(line.replace("{}", &own) + &id));
        assert_eq!(refusal(&elsewhere), (404, "NoSuchUpload".into()), "{line}");
    }
    let forged = Signer { session_token: Some("e30.e30.e30".into()), ..world.signer(&one) };
    assert_eq!(refusal(&world.s3(&forged, "GET /private?list-type=2").send()), (403, "AccessDenied".into()));
    let mixed = Signer { session_token: world.signer(&one).session_token, ..service(world) };
    assert_eq!(refusal(&world.s3(&mixed, "GET /").send()), (403, "SignatureDoesNotMatch".into()));
}

#[test]
fn any_node_completes_what_another_began() {
    let world = World::start(Backend::Server);
    assert_eq!(ask(&world, "PUT /films").status, 200);
    let (id, body) = begin(&world, "films/large", &[b"one", b"two"]);
    let other = world.another();
    let host = other.url.trim_start_matches("http://");
    let target = service(&world).sign(host, &format!("POST /films/large?uploadId={id}"));
    let done = ureq::post(format!("{}{target}", other.url)).send(body.as_bytes()).unwrap();
    assert_eq!(done.status(), 200);
    assert_eq!(ask(&world, "GET /films/large").text(), "onetwo");
}
