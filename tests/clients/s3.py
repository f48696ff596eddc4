"""Files by S3's protocol, with the clients that people have: boto3, aws-cli and rclone, unmodified.

Needs boto3 (and aws, rclone in the path; what is not there is skipped and named). Its arguments are the steps to take; none are all.
All buckets of the project are removed first. The environment says where: NTIER_URL, S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY, ANON_KEY,
JWT_SECRET; and how much: FILES (1000) go both ways with aws and rclone, and a large one has LARGE_MB (100). The project allows files
of LARGE_MB * 2,000,000 bytes and has policies by which users read and write in the bucket `people` below a folder of their id, and
nothing else.
"""

import base64
import datetime
import filecmp
import hashlib
import hmac
import io
import json
import os
import pathlib
import random
import shutil
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings

import boto3
import botocore.auth
import botocore.config
import botocore.exceptions

URL = os.environ["NTIER_URL"]
ENDPOINT = URL + "/storage/v1/s3"
KEY, SECRET = os.environ["S3_ACCESS_KEY_ID"], os.environ["S3_SECRET_ACCESS_KEY"]
MEGABYTE = 1 << 20
FILES = int(os.environ.get("FILES", "1000"))
LARGE = int(os.environ.get("LARGE_MB", "100")) * MEGABYTE


def client(key=KEY, secret=SECRET, token=None, endpoint=ENDPOINT, verify=None, **config):
    config = botocore.config.Config(
        s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, signature_version="s3v4", **config
    )
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        verify=verify,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=config,
    )


def refused(code, status, call, **arguments):
    try:
        call(**arguments)
    except botocore.exceptions.ClientError as error:
        found = (error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"])
        assert found == (code, status), f"{found} instead of {(code, status)}: {error}"
        return error
    raise AssertionError(f"not refused with {code}")


def fetch(method, url, body=None, headers=None):
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, dict(response.headers), response.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


class TlsProxy:
    """TLS on a port of its own, and behind it the node; with a certificate that nobody trusts."""

    def __enter__(self):
        warnings.filterwarnings("ignore", "Unverified HTTPS request")
        self.folder = tempfile.TemporaryDirectory()
        key, certificate = f"{self.folder.name}/key", f"{self.folder.name}/certificate"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
        subprocess.run([*command, "-subj", "/CN=localhost", "-keyout", key, "-out", certificate], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        node = urllib.parse.urlsplit(URL)

        class Pipe(socketserver.BaseRequestHandler):
            def handle(self):
                with context.wrap_socket(self.request, server_side=True) as client:
                    with socket.create_connection((node.hostname, node.port)) as server:
                        back = threading.Thread(target=pump, args=(server, client), daemon=True)
                        back.start()
                        pump(client, server)
                        back.join()

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Pipe)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"https://localhost:{self.server.server_address[1]}/storage/v1/s3"

    def __exit__(self, *_):
        self.server.shutdown()
        self.folder.cleanup()


def pump(source, sink):
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def user_token(user):
    encode = lambda part: base64.urlsafe_b64encode(part).rstrip(b"=")
    claims = {"role": "authenticated", "aud": "authenticated", "sub": user, "exp": int(time.time()) + 3600}
    said = encode(b'{"alg":"HS256","typ":"JWT"}') + b"." + encode(json.dumps(claims).encode())
    signature = hmac.new(os.environ["JWT_SECRET"].encode(), said, hashlib.sha256).digest()
    return (said + b"." + encode(signature)).decode()


def read(s3, bucket, key, **arguments):
    return s3.get_object(Bucket=bucket, Key=key, **arguments)["Body"].read()


def keys(s3, bucket):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def empty(s3, bucket):
    for upload in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
        s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    while True:
        found = keys(s3, bucket)
        if not found:
            break
        for start in range(0, len(found), 1000):
            entries = [{"Key": key} for key in found[start : start + 1000]]
            assert not s3.delete_objects(Bucket=bucket, Delete={"Objects": entries}).get("Errors")


def buckets(s3):
    s3.create_bucket(Bucket="first")
    assert "first" in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    refused("BucketAlreadyExists", 409, s3.create_bucket, Bucket="first")
    s3.head_bucket(Bucket="first")
    refused("404", 404, s3.head_bucket, Bucket="nowhere")
    assert s3.get_bucket_location(Bucket="first")["LocationConstraint"] is None
    assert s3.get_bucket_versioning(Bucket="first")["Status"] == "Suspended"
    s3.put_object(Bucket="first", Key="a", Body=b"a")
    refused("ResourceNotEmpty", 409, s3.delete_bucket, Bucket="first")
    s3.delete_object(Bucket="first", Key="a")
    s3.delete_object(Bucket="first", Key="a")
    s3.delete_bucket(Bucket="first")
    refused("NoSuchBucket", 404, s3.delete_bucket, Bucket="first")
    refused("NoSuchBucket", 404, s3.list_objects_v2, Bucket="first")
    refused("NoSuchBucket", 404, s3.put_object, Bucket="first", Key="a", Body=b"a")
    refused("NoSuchBucket", 404, s3.delete_object, Bucket="first", Key="a")


def objects(s3):
    body = os.urandom(70_000)
    for key in ["plain", "e\u0301/a b.", "a folder/with (1) 'names' + !*&$@=;:,?.txt", "Größe/日本語.txt"]:
        put = s3.put_object(Bucket="things", Key=key, Body=body, ContentType="text/x", Metadata={"mtime": "1.5"})
        assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
        got = s3.get_object(Bucket="things", Key=key)
        assert got["Body"].read() == body and got["ContentType"] == "text/x" and got["Metadata"] == {"mtime": "1.5"}
        head = s3.head_object(Bucket="things", Key=key)
        assert head["ContentLength"] == 70_000 and head["ETag"] == put["ETag"] and head["Metadata"] == {"mtime": "1.5"}
        assert head["LastModified"] == got["LastModified"]
    s3.put_object(Bucket="things", Key="empty", Body=b"")
    assert read(s3, "things", "empty") == b""
    s3.put_object(Bucket="things", Key="plain", Body=b"again")
    assert read(s3, "things", "plain") == b"again"
    assert s3.get_object_tagging(Bucket="things", Key="plain")["TagSet"] == []
    refused("NoSuchKey", 404, s3.get_object, Bucket="things", Key="none")
    refused("404", 404, s3.head_object, Bucket="things", Key="none")
    refused("InvalidKey", 400, s3.put_object, Bucket="things", Key="a/../b", Body=b"")
    refused("NotImplemented", 501, s3.put_object_tagging, Bucket="things", Key="plain", Tagging={"TagSet": []})
    refused("NotImplemented", 501, s3.get_object_acl, Bucket="things", Key="plain")
    assert read(s3, "things", "plain") == b"again"
    s3.put_object(Bucket="things", Key="new", Body=b"1", IfNoneMatch="*")
    refused("PreconditionFailed", 412, s3.put_object, Bucket="things", Key="new", Body=b"2", IfNoneMatch="*")
    refused("BadDigest", 400, s3.put_object, Bucket="things", Key="x", Body=b"2", ContentMD5="XUFAKrxLKna5cZ2REBfFkg==")
    refused("BadDigest", 400, s3.put_object, Bucket="things", Key="x", Body=b"2", ChecksumCRC32="AAAAAA==")
    for algorithm in ["CRC32", "SHA1", "SHA256", "CRC32C", "CRC64NVME"]:
        try:
            s3.put_object(Bucket="things", Key=algorithm, Body=body, ChecksumAlgorithm=algorithm)
        except botocore.exceptions.MissingDependencyException:
            print(f"  skipped: {algorithm} (boto3 has it with awscrt only)")
            continue
        assert read(s3, "things", algorithm) == body
    refused("404", 404, s3.head_object, Bucket="things", Key="x")


def trailers(s3):
    """What has a checksum behind it in chunks: boto3 sends that by TLS only, so a proxy in between speaks it; and by hand."""
    body = os.urandom(5_000_000)
    with TlsProxy() as endpoint:
        secured = client(endpoint=endpoint, verify=False)
        secured.put_object(Bucket="things", Key="secured", Body=io.BytesIO(body))
        secured.upload_fileobj(io.BytesIO(body * 4), "things", "secured parts")
        assert read(secured, "things", "secured") == body and read(secured, "things", "secured parts") == body * 4
    body = b"".join(b"4\r\nwiki\r\n" for _ in range(1000)) + b"0\r\nx-amz-checksum-sha256:%s\r\n\r\n"
    plain = b"wiki" * 1000
    checksum = base64.b64encode(hashlib.sha256(plain).digest())
    for behind, expected in [(checksum, 200), (base64.b64encode(bytes(32)), 400), (b"?", 400)]:
        headers = {
            "content-encoding": "aws-chunked",
            "x-amz-decoded-content-length": str(len(plain)),
            "x-amz-trailer": "x-amz-checksum-sha256",
            "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        }
        assert signed_put("things/chunked", body % behind, headers) == expected
    assert read(s3, "things", "chunked") == plain


    signed_chunks(s3)
    other = hashlib.sha256(b"other").hexdigest()
    assert signed_put("things/hashed", b"this", {"x-amz-content-sha256": other}) == 400
    refused("404", 404, s3.head_object, Bucket="things", Key="hashed")


def signed_chunks(s3):
    """Amazon's SDKs for Java and .NET sign each chunk; the signature of the one before is part of it."""
    chunks = [os.urandom(65_536), os.urandom(1000), b""]

    def body(request, change=lambda chunk: chunk):
        fields = dict(field.split("=", 1) for field in request.headers["Authorization"].replace(",", "").split()[1:])
        time, scope, previous = request.headers["X-Amz-Date"], fields["Credential"].split("/", 1)[1], fields["Signature"]
        key = ("AWS4" + SECRET).encode()
        for step in scope.split("/"):
            key = hmac.new(key, step.encode(), hashlib.sha256).digest()
        out = b""
        for chunk in chunks:
            hashes = f"{previous}\n{hashlib.sha256().hexdigest()}\n{hashlib.sha256(chunk).hexdigest()}"
            text = f"AWS4-HMAC-SHA256-PAYLOAD\n{time}\n{scope}\n{hashes}"
            previous = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
            out += f"{len(chunk):x};chunk-signature={previous}\r\n".encode() + change(chunk) + b"\r\n"
        return out

    headers = {
        "content-encoding": "aws-chunked",
        "x-amz-decoded-content-length": str(sum(map(len, chunks))),
        "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    }
    assert signed_put("things/signed", body, headers) == 200
    assert read(s3, "things", "signed") == b"".join(chunks)
    flip = lambda chunk: bytes([chunk[0] ^ 1]) + chunk[1:] if len(chunk) == 1000 else chunk
    assert signed_put("things/flipped", lambda request: body(request, flip), headers) == 403
    refused("404", 404, s3.head_object, Bucket="things", Key="flipped")


def signed_put(path, body, headers):
    """A body may hang on the signature."""
    request = botocore.awsrequest.AWSRequest("PUT", f"{ENDPOINT}/{path}", headers=headers)
    request.context["payload_signing_enabled"] = False
    auth = botocore.auth.S3SigV4Auth(botocore.credentials.Credentials(KEY, SECRET), "s3", "us-east-1")
    sha256 = headers["x-amz-content-sha256"]
    auth.payload = lambda request: sha256
    auth.add_auth(request)
    return fetch("PUT", request.url, body(request) if callable(body) else body, dict(request.headers))[0]


def ranges_and_conditions(s3):
    body = bytes(range(256)) * 400
    etag = s3.put_object(Bucket="things", Key="ranges", Body=body)["ETag"]
    for said, expected in [("bytes=0-0", body[:1]), ("bytes=100-", body[100:]), ("bytes=-7", body[-7:])]:
        got = s3.get_object(Bucket="things", Key="ranges", Range=said)
        assert got["Body"].read() == expected and got["ResponseMetadata"]["HTTPStatusCode"] == 206
    refused("InvalidRange", 416, s3.get_object, Bucket="things", Key="ranges", Range="bytes=200000-")
    refused("304", 304, s3.get_object, Bucket="things", Key="ranges", IfNoneMatch=etag)
    refused("PreconditionFailed", 412, s3.get_object, Bucket="things", Key="ranges", IfMatch='"other"')
    assert read(s3, "things", "ranges", IfMatch=etag) == body
    future = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
    refused("304", 304, s3.head_object, Bucket="things", Key="ranges", IfModifiedSince=future)
    got = s3.get_object(
        Bucket="things", Key="ranges", ResponseContentType="text/y", ResponseContentDisposition='attachment; filename="a b"'
    )
    assert (got["ContentType"], got["ContentDisposition"]) == ("text/y", 'attachment; filename="a b"')


def listings(s3):
    s3.create_bucket(Bucket="listed")
    names = [f"{folder}/{number:02}" for folder in "abc" for number in range(12)] + [f"top-{n:02}" for n in range(25)]
    for name in names:
        s3.put_object(Bucket="listed", Key=name, Body=b"x")
    for list_objects, token, version in [("list_objects", "Marker", 1), ("list_objects_v2", "ContinuationToken", 2)]:
        pages = list(s3.get_paginator(list_objects).paginate(Bucket="listed", PaginationConfig={"PageSize": 7}))
        assert [entry["Key"] for page in pages for entry in page.get("Contents", [])] == names and len(pages) == 9
        pages = list(s3.get_paginator(list_objects).paginate(Bucket="listed", Delimiter="/", PaginationConfig={"PageSize": 2}))
        prefixes = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])]
        assert prefixes == ["a/", "b/", "c/"] and len(pages) == 14, (prefixes, len(pages))
        assert [entry["Key"] for page in pages for entry in page.get("Contents", [])] == names[36:]
    pages = list(s3.get_paginator("list_object_versions").paginate(Bucket="listed", PaginationConfig={"PageSize": 7}))
    versions = [(entry["Key"], entry["VersionId"]) for page in pages for entry in page["Versions"]]
    assert versions == [(name, "null") for name in names] and len(pages) == 9
    page = s3.list_objects_v2(Bucket="listed", Prefix="b/0", StartAfter="b/07", MaxKeys=5)
    assert [entry["Key"] for entry in page["Contents"]] == ["b/08", "b/09"] and not page["IsTruncated"]
    page = s3.list_objects_v2(Bucket="listed", Delimiter="/", StartAfter="a/11")
    assert [entry["Prefix"] for entry in page["CommonPrefixes"]] == ["b/", "c/"]
    page = s3.list_objects_v2(Bucket="listed", Delimiter="-", Prefix="t")
    assert [entry["Prefix"] for entry in page["CommonPrefixes"]] == ["top-"]
    assert s3.list_objects_v2(Bucket="listed", MaxKeys=0)["KeyCount"] == 0
    assert s3.list_objects_v2(Bucket="listed", Prefix="nothing")["KeyCount"] == 0
    refused("InvalidParameter", 400, s3.list_objects_v2, Bucket="listed", ContinuationToken="?")


def copies(s3):
    source = {"Bucket": "things", "Key": "a folder/with (1) 'names' + !*&$@=;:,?.txt"}
    s3.put_object(**source, Body=b"copied", ContentType="text/x", Metadata={"a": "1"})
    s3.copy_object(Bucket="listed", Key="copy", CopySource=source)
    head = s3.head_object(Bucket="listed", Key="copy")
    assert (head["ContentType"], head["Metadata"]) == ("text/x", {"a": "1"})
    replace = {"MetadataDirective": "REPLACE", "Metadata": {"b": "2"}, "ContentType": "text/z", "CacheControl": "max-age=9"}
    s3.copy_object(Bucket="listed", Key="copy", CopySource={"Bucket": "listed", "Key": "copy"}, **replace)
    head = s3.head_object(Bucket="listed", Key="copy")
    assert (head["ContentType"], head["Metadata"], head["CacheControl"]) == ("text/z", {"b": "2"}, "max-age=9")
    assert read(s3, "listed", "copy") == b"copied"
    refused("NoSuchKey", 404, s3.copy_object, Bucket="listed", Key="x", CopySource="things/none")
    refused("PreconditionFailed", 412, s3.copy_object, Bucket="listed", Key="x", CopySource=source, CopySourceIfMatch='"x"')


def deletes(s3):
    names = [f"many/{number}" for number in range(1000)]
    for name in names[:20]:
        s3.put_object(Bucket="things", Key=name, Body=b"")
    done = s3.delete_objects(Bucket="things", Delete={"Objects": [{"Key": name} for name in names]})
    assert len(done["Deleted"]) == 1000 and not done.get("Errors")
    quiet = s3.delete_objects(Bucket="things", Delete={"Objects": [{"Key": "many/1"}], "Quiet": True})
    assert not quiet.get("Deleted") and not quiet.get("Errors")
    assert not s3.list_objects_v2(Bucket="things", Prefix="many/").get("Contents")


def multipart(s3, folder):
    size = LARGE
    file, back = folder / "large", folder / "back"
    with open(file, "wb") as out:
        for _ in range(size // MEGABYTE):
            out.write(os.urandom(MEGABYTE))
    begun = time.monotonic()
    s3.upload_file(str(file), "things", "large", ExtraArgs={"ContentType": "video/x", "Metadata": {"a": "1"}})
    up = time.monotonic() - begun
    head = s3.head_object(Bucket="things", Key="large")
    digests = [hashlib.md5(part).digest() for part in iter(lambda f=open(file, "rb"): f.read(8 * MEGABYTE), b"")]
    assert head["ETag"] == f'"{hashlib.md5(b"".join(digests)).hexdigest()}-{len(digests)}"'
    assert (head["ContentLength"], head["ContentType"], head["Metadata"]) == (size, "video/x", {"a": "1"})
    begun = time.monotonic()
    s3.download_file("things", "large", str(back))
    down = time.monotonic() - begun
    assert filecmp.cmp(file, back, shallow=False)
    print(f"  {size // MEGABYTE} MB in parts: up {size / up / 1e6:.0f} MB/s, down {size / down / 1e6:.0f} MB/s")
    with open(file, "rb") as whole:
        whole.seek(8 * MEGABYTE - 5)
        middle = whole.read(16 * MEGABYTE)
    first = 8 * MEGABYTE - 5
    assert read(s3, "things", "large", Range=f"bytes={first}-{first + len(middle) - 1}") == middle

    place = {"Bucket": "things", "Key": "pieces"}
    upload = s3.create_multipart_upload(**place, ContentType="text/x")["UploadId"]
    this = {**place, "UploadId": upload}
    listed = s3.list_multipart_uploads(Bucket="things")["Uploads"]
    assert [(entry["Key"], entry["UploadId"]) for entry in listed] == [("pieces", upload)]
    etags = {n: s3.upload_part(**this, PartNumber=n, Body=bytes([n]) * 6_000_000)["ETag"] for n in [1, 3, 9]}
    etags[3] = s3.upload_part(**this, PartNumber=3, Body=b"x" * 5_500_000)["ETag"]
    copied = s3.upload_part_copy(**this, PartNumber=10, CopySource="things/large", CopySourceRange="bytes=5-104")
    etags[10] = copied["CopyPartResult"]["ETag"]
    page = s3.list_parts(**this, MaxParts=2)
    assert [part["PartNumber"] for part in page["Parts"]] == [1, 3] and page["IsTruncated"]
    page = s3.list_parts(**this, PartNumberMarker=page["NextPartNumberMarker"])
    assert [(part["PartNumber"], part["Size"]) for part in page["Parts"]] == [(9, 6_000_000), (10, 100)]
    chosen = lambda *numbers: {"Parts": [{"PartNumber": n, "ETag": etags[n]} for n in numbers]}
    wrong = {"Parts": [{"PartNumber": 1, "ETag": etags[3]}]}
    refused("InvalidPart", 400, s3.complete_multipart_upload, **this, MultipartUpload=wrong)
    refused("InvalidPartOrder", 400, s3.complete_multipart_upload, **this, MultipartUpload=chosen(3, 1))
    done = s3.complete_multipart_upload(**this, MultipartUpload=chosen(1, 3, 10))
    again = s3.complete_multipart_upload(**this, MultipartUpload=chosen(1, 3, 10))
    assert done["ETag"] == again["ETag"] and done["ETag"].endswith('-3"')
    with open(file, "rb") as whole:
        expected = b"\1" * 6_000_000 + b"x" * 5_500_000 + whole.read(105)[5:]
    assert read(s3, "things", "pieces") == expected
    refused("NoSuchUpload", 404, s3.upload_part, **this, PartNumber=1, Body=b"")
    upload = s3.create_multipart_upload(**place)["UploadId"]
    s3.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"x")
    s3.abort_multipart_upload(**place, UploadId=upload)
    refused("NoSuchUpload", 404, s3.list_parts, **place, UploadId=upload)
    refused("NoSuchUpload", 404, s3.abort_multipart_upload, **place, UploadId=upload)
    upload = s3.create_multipart_upload(Bucket="things", Key="huge")["UploadId"]
    last = {"Bucket": "things", "Key": "huge", "UploadId": upload, "CopySource": "things/large"}
    s3.upload_part_copy(**last, PartNumber=1)
    refused("EntityTooLarge", 413, s3.upload_part_copy, **last, PartNumber=2, CopySourceRange=f"bytes=0-{size - 1}")
    s3.abort_multipart_upload(Bucket="things", Key="huge", UploadId=upload)


def presigned(s3):
    place = {"Bucket": "things", "Key": "signed by + somebody"}
    put = s3.generate_presigned_url("put_object", Params=place, ExpiresIn=60)
    assert fetch("PUT", put, b"hello")[0] == 200
    get = s3.generate_presigned_url("get_object", Params={**place, "ResponseContentType": "text/q"}, ExpiresIn=60)
    status, headers, body = fetch("GET", get)
    assert (status, headers["content-type"], body) == (200, "text/q", b"hello"), (status, headers, body)
    assert fetch("GET", get, headers={"authorization": "Bearer of something else"})[0] == 200
    for url, headers, expected in [
        (get.replace("text%2Fq", "text%2Fhtml"), {}, b"SignatureDoesNotMatch"),
        (get.replace("Expires=60", "Expires=600"), {}, b"SignatureDoesNotMatch"),
        (get.replace("somebody", "nobody"), {}, b"SignatureDoesNotMatch"),
        (get, {"x-amz-anything": "more"}, b"AccessDenied"),
    ]:
        status, _, body = fetch("GET", url, headers=headers)
        assert status == 403 and expected in body, (status, body)
    status, _, body = fetch("PUT", put, b"", {"x-amz-copy-source": "/people/secret"})
    assert status == 403 and b"AccessDenied" in body, (status, body)
    short = s3.generate_presigned_url("get_object", Params=place, ExpiresIn=1)
    while True:
        status, _, body = fetch("GET", short)
        if status != 200:
            break
        time.sleep(0.2)
    assert status == 400 and b"ExpiredToken" in body, (status, body)
    status, _, body = fetch("GET", f"{ENDPOINT}/things/plain")
    assert status == 403 and b"AccessDenied" in body
    status, _, body = fetch("GET", f"{ENDPOINT}/things/plain", headers={"authorization": "Bearer " + os.environ["ANON_KEY"]})
    assert status == 403 and b"AccessDenied" in body


def signatures(s3):
    refused("SignatureDoesNotMatch", 403, client(secret="wrong").list_buckets)
    refused("InvalidAccessKeyId", 403, client(key="nobody").list_buckets)
    now = botocore.auth.get_current_datetime
    for minutes, expected in [(-16, "RequestTimeTooSkewed"), (16, "RequestTimeTooSkewed"), (-14, None), (14, None)]:
        shift = datetime.timedelta(minutes=minutes)
        botocore.auth.get_current_datetime = lambda *args, **kwargs: now(*args, **kwargs) + shift
        try:
            refused(expected, 403, s3.list_buckets) if expected else s3.list_buckets()
        finally:
            botocore.auth.get_current_datetime = now


def sessions(s3):
    one, other = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
    as_user = lambda user: client("project", os.environ["ANON_KEY"], user_token(user))
    first, second = as_user(one), as_user(other)
    s3.put_object(Bucket="people", Key="everybody", Body=b"not theirs")
    first.put_object(Bucket="people", Key=f"{one}/a", Body=b"mine")
    second.put_object(Bucket="people", Key=f"{other}/b", Body=b"mine too")
    assert read(first, "people", f"{one}/a") == b"mine"
    assert keys(first, "people") == [f"{one}/a"] and keys(second, "people") == [f"{other}/b"]
    assert len(keys(s3, "people")) == 3
    refused("NoSuchKey", 404, first.get_object, Bucket="people", Key=f"{other}/b")
    refused("NoSuchKey", 404, first.get_object, Bucket="people", Key="everybody")
    refused("AccessDenied", 403, first.put_object, Bucket="people", Key=f"{other}/c", Body=b"x")
    refused("AccessDenied", 403, first.create_multipart_upload, Bucket="people", Key=f"{other}/c")
    refused("AccessDenied", 403, first.create_bucket, Bucket="mine")
    refused("NoSuchKey", 404, first.copy_object, Bucket="people", Key=f"{one}/c", CopySource=f"people/{other}/b")
    first.delete_object(Bucket="people", Key=f"{other}/b")
    assert read(second, "people", f"{other}/b") == b"mine too"
    done = first.delete_objects(Bucket="people", Delete={"Objects": [{"Key": f"{one}/a"}, {"Key": f"{other}/b"}]})
    assert [entry["Key"] for entry in done["Deleted"]] == [f"{one}/a"]
    assert [(entry["Key"], entry["Code"]) for entry in done["Errors"]] == [(f"{other}/b", "AccessDenied")]
    upload = second.create_multipart_upload(Bucket="people", Key=f"{other}/parts")["UploadId"]
    place = {"Bucket": "people", "Key": f"{other}/parts", "UploadId": upload}
    refused("AccessDenied", 403, first.upload_part, **place, PartNumber=1, Body=b"x")
    refused("AccessDenied", 403, first.abort_multipart_upload, **place)
    etag = second.upload_part(**place, PartNumber=1, Body=b"x")["ETag"]
    refused("AccessDenied", 403, first.complete_multipart_upload, **place, MultipartUpload={})
    second.complete_multipart_upload(**place, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    url = second.generate_presigned_url("get_object", Params={"Bucket": "people", "Key": f"{other}/parts"})
    assert fetch("GET", url)[2] == b"x"
    refused("AccessDenied", 403, client("project", os.environ["ANON_KEY"], user_token(one)[:-3] + "AAA").list_buckets)
    refused("SignatureDoesNotMatch", 403, client("project", "wrong", user_token(one)).list_buckets)
    refused("SignatureDoesNotMatch", 403, client(KEY, SECRET, user_token(one)).list_buckets)


def tree(folder, count):
    chance = random.Random(5)
    for number in range(count):
        file = folder / f"level {number % 7}" / f"sub-{number % 13}" / f"file {number:04}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(chance.randbytes(chance.choice([0, 10, 1000, 20_000])))


def same(one, other):
    def walk(root):
        return {file.relative_to(root): file.read_bytes() for file in root.rglob("*") if file.is_file()}

    return walk(one) == walk(other)


def timed(what, command, environment):
    # What the machine says to clients of Amazon's is not meant for these.
    mine = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    begun = time.monotonic()
    done = subprocess.run(command, env={**mine, **environment}, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{what}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    took = time.monotonic() - begun
    speed = f", {LARGE / took / 1e6:.0f} MB/s" if "the large" in what else ""
    print(f"  {what}: {took:.1f} s{speed}", flush=True)
    return done.stdout + done.stderr


def aws(s3, folder):
    program = shutil.which("aws")
    if not program:
        return print("  skipped: there is no aws in the path")
    environment = {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(folder / "none"),
        "AWS_MAX_ATTEMPTS": "1",
    }
    run = lambda what, *words: timed(f"aws {what}", [program, "--endpoint-url", ENDPOINT, "s3", *words], environment)
    run("mb", "mb", "s3://synced")
    run(f"sync of {FILES} files up", "sync", str(folder / "tree"), "s3://synced/tree")
    assert len(keys(s3, "synced")) == FILES
    assert "upload:" not in run("sync again", "sync", str(folder / "tree"), "s3://synced/tree")
    run(f"sync of {FILES} files down", "sync", "s3://synced/tree", str(folder / "aws"))
    assert same(folder / "tree", folder / "aws")
    run("cp of the large file", "cp", str(folder / "large"), "s3://synced/large")
    run("mv of the large file", "mv", "s3://synced/large", "s3://synced/moved")
    run("cp of the large file back", "cp", "s3://synced/moved", str(folder / "moved"))
    assert filecmp.cmp(folder / "large", folder / "moved", shallow=False)
    run(f"rm of {FILES + 1} files", "rm", "--recursive", "s3://synced")
    run("rb", "rb", "s3://synced")


def rclone(s3, folder):
    program = shutil.which("rclone")
    if not program:
        return print("  skipped: there is no rclone in the path")
    environment = {
        "RCLONE_CONFIG": str(folder / "rclone.conf"),
        "RCLONE_CONFIG_N_TYPE": "s3",
        "RCLONE_CONFIG_N_PROVIDER": "Other",
        "RCLONE_CONFIG_N_ENDPOINT": ENDPOINT,
        "RCLONE_CONFIG_N_ACCESS_KEY_ID": KEY,
        "RCLONE_CONFIG_N_SECRET_ACCESS_KEY": SECRET,
        "RCLONE_CONFIG_N_REGION": "us-east-1",
        "RCLONE_RETRIES": "1",
        "RCLONE_LOW_LEVEL_RETRIES": "1",
    }
    run = lambda what, *words: timed(f"rclone {what}", [program, *words], environment)
    run("mkdir", "mkdir", "n:cloned")
    run(f"sync of {FILES} files up", "sync", str(folder / "tree"), "n:cloned/tree")
    run(f"sync of {FILES} files down", "sync", "n:cloned/tree", str(folder / "rclone"))
    assert same(folder / "tree", folder / "rclone")
    run("check", "check", str(folder / "tree"), "n:cloned/tree")
    (folder / "tree" / "level 0" / "new").write_text("new")
    run("sync of one change", "sync", str(folder / "tree"), "n:cloned/tree")
    assert read(s3, "cloned", "tree/level 0/new") == b"new" and len(keys(s3, "cloned")) == FILES + 1
    run("copyto of the large file", "copyto", str(folder / "large"), "n:cloned/large")
    run("moveto of the large file", "moveto", "n:cloned/large", "n:cloned/moved")
    run("copyto of the large file back", "copyto", "n:cloned/moved", str(folder / "cloned"))
    assert filecmp.cmp(folder / "large", folder / "cloned", shallow=False)
    run("purge", "purge", "n:cloned")


def main():
    s3 = client()
    for bucket in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        empty(s3, bucket)
        s3.delete_bucket(Bucket=bucket)
    for bucket in ["things", "people"]:
        s3.create_bucket(Bucket=bucket)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        tree(folder / "tree", FILES)
        steps = [buckets, objects, trailers, ranges_and_conditions, listings, copies, deletes]
        steps += [lambda s3: multipart(s3, folder), presigned, signatures, sessions]
        steps += [lambda s3: aws(s3, folder), lambda s3: rclone(s3, folder)]
        names = ["buckets", "objects", "trailers", "ranges and conditions", "listings", "copies", "deletes"]
        names += ["multipart uploads", "presigned URLs", "signatures", "sessions", "aws-cli", "rclone"]
        chosen = sys.argv[1:]
        for step, name in zip(steps, names):
            if not chosen or name in chosen:
                print(name)
                step(s3)
    print("all is well")


main()
