"""S3 answers are read for what they say, and refused where they could do harm."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from prewarmkit.errors import (
    AccessDenied,
    BodyFault,
    ConnectionFault,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    R2Error,
    ServiceFault,
    SlowDown,
)
from prewarmkit.media import ObjectInfo
from prewarmkit.r2.faults import fault_of
from prewarmkit.r2.requests import Bucket
from prewarmkit.r2.responses import (
    CommonPrefix,
    ListedPart,
    PartsPage,
    parse_completed,
    parse_content_range,
    parse_fields,
    parse_info,
    parse_page,
    parse_parts,
    parse_upload_id,
    plain_md5,
)

DRAFT = Bucket("media", "https://h").get("a/b.mp4")
NS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def _error(code: str, message: str = "words") -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


@pytest.mark.parametrize(
    ("status", "code", "kind", "is_retryable"),
    [
        (401, "Unauthorized", AccessDenied, False),
        (403, "AccessDenied", AccessDenied, False),
        (403, "SignatureDoesNotMatch", AccessDenied, False),
        (403, "NotEntitled", AccessDenied, False),
        (403, "ObjectLockedByBucketPolicy", AccessDenied, False),
        (400, "ExpiredRequest", AccessDenied, False),
        (400, "InvalidDigest", InvalidRequest, False),
        (400, "BadDigest", BodyFault, True),
        (400, "EntityTooSmall", InvalidRequest, False),
        (400, "EntityTooLarge", InvalidRequest, False),
        (400, "MetadataTooLarge", InvalidRequest, False),
        (400, "IncompleteBody", BodyFault, True),
        (400, "ClientDisconnect", ConnectionFault, True),
        (400, "InvalidArgument", InvalidRequest, False),
        (404, "NoSuchKey", NotFound, False),
        (404, "NoSuchBucket", NotFound, False),
        (404, "NoSuchUpload", NotFound, False),
        (409, "BucketNotEmpty", InvalidRequest, False),
        (409, "BucketConflict", InvalidRequest, False),
        (411, "MissingContentLength", InvalidRequest, False),
        (412, "PreconditionFailed", PreconditionFailed, False),
        (416, "InvalidRange", InvalidRequest, False),
        (429, "TooManyRequests", SlowDown, True),
        (500, "InternalError", ServiceFault, True),
        (501, "NotImplemented", InvalidRequest, False),
        (503, "ServiceUnavailable", ServiceFault, True),
        (503, "SlowDown", SlowDown, True),
        (200, "InternalError", ServiceFault, True),
        (400, "InvalidPart", InvalidRequest, False),
    ],
)
def test_every_row_of_the_error_table_is_one_class(
    status: int, code: str, kind: type[R2Error], is_retryable: bool
) -> None:
    """The table of Cloudflare's docs, r2/api/error-codes; 200 with an error inside is S3's own."""
    error = fault_of(DRAFT, status, {"cf-ray": "8f-AMS"}, _error(code), attempts=3)
    assert type(error) is kind
    assert (error.code, error.status, error.request_id, error.attempts) == (code, status, "8f-AMS", 3)
    assert error.is_retryable is is_retryable
    assert "'a/b.mp4'" in str(error)
    assert "To do: " in str(error)


@pytest.mark.parametrize(
    ("status", "kind", "is_retryable"),
    [
        (301, InvalidRequest, False),
        (304, PreconditionFailed, False),
        (307, InvalidRequest, False),
        (400, InvalidRequest, False),
        (401, AccessDenied, False),
        (403, AccessDenied, False),
        (404, NotFound, False),
        (408, ConnectionFault, True),
        (412, PreconditionFailed, False),
        (413, InvalidRequest, False),
        (416, InvalidRequest, False),
        (429, SlowDown, True),
        (500, ServiceFault, True),
        (502, ServiceFault, True),
        (503, ServiceFault, True),
        (522, ServiceFault, True),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html><body>nginx</body></html>", b"\xff\xfe junk", b"{}"])
def test_a_body_that_says_nothing_leaves_the_status(
    status: int, kind: type[R2Error], is_retryable: bool, body: bytes
) -> None:
    """HEAD has none, gateways send HTML, Cloudflare's edge sends 52x."""
    error = fault_of(DRAFT, status, {"content-type": "text/html"}, body)
    assert type(error) is kind
    assert error.is_retryable is is_retryable
    assert str(status) in str(error)


def test_messages_say_what_to_change() -> None:
    said = str(fault_of(DRAFT, 403, {}, _error("SignatureDoesNotMatch")))
    assert "check the secret access key" in said
    said = str(fault_of(DRAFT, 404, {}, _error("NoSuchBucket")))
    assert "'media'" in said


def test_a_head_that_finds_nothing_says_what_by_what_was_asked() -> None:
    bucket = Bucket("media", "https://h")
    assert fault_of(bucket.get("k", method="HEAD"), 404, {}, b"").code == "NoSuchKey"
    assert fault_of(bucket.head_bucket(), 404, {}, b"").code == "NoSuchBucket"


def test_a_services_words_are_cut_and_hold_no_signature() -> None:
    words = "X-Amz-Signature=deadbeef Token=abc" + "y" * 9000
    said = str(fault_of(DRAFT, 400, {}, _error("InvalidArgument", words)))
    assert "deadbeef" not in said
    assert "abc" not in said
    assert len(said) < 600


def test_the_request_id_is_found_wherever_it_is() -> None:
    assert fault_of(DRAFT, 500, {"x-amz-request-id": "r1"}, b"").request_id == "r1"
    body = b"<Error><Code>InternalError</Code><RequestId>r2</RequestId></Error>"
    assert fault_of(DRAFT, 500, {}, body).request_id == "r2"


@pytest.mark.parametrize(
    "document",
    [
        b'<!DOCTYPE a [<!ENTITY x "y">]><Error><Code>&x;</Code></Error>',
        '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a><Error/>'.encode("utf-16"),
        b"<Error>" * 40 + b"</Error>" * 40,
        b"<Error><Code>x</Code>",
        b"",
    ],
)
def test_dangerous_and_broken_xml_is_not_read(document: bytes) -> None:
    """A doctype ends the reading in every encoding, which a search for its bytes would not."""
    assert parse_fields(document) is None
    with pytest.raises(BodyFault, match="S3 service"):
        parse_page(document)


def test_oversized_xml_is_not_read() -> None:
    with pytest.raises(BodyFault, match="over"):
        parse_page(b"<ListBucketResult>" + b" " * (17 * 1024 * 1024) + b"</ListBucketResult>")


def _page(inner: str, *, encoding: str = "<EncodingType>url</EncodingType>") -> bytes:
    return f"<?xml version='1.0'?><ListBucketResult {NS}>{encoding}{inner}</ListBucketResult>".encode()


def test_a_page_is_read() -> None:
    page = parse_page(
        _page(
            "<IsTruncated>true</IsTruncated><NextContinuationToken>t=/</NextContinuationToken>"
            "<Contents><Key>b%2Fc+d%2B%25%C3%BC%00</Key><Size>7</Size><ETag>&quot;abc&quot;</ETag>"
            "<LastModified>2026-01-02T03:04:05.678Z</LastModified><StorageClass>STANDARD</StorageClass></Contents>"
            "<CommonPrefixes><Prefix>a%2F</Prefix></CommonPrefixes>"
        )
    )
    assert page.next_token == "t=/"
    assert page.entries == [
        CommonPrefix("a/"),
        ObjectInfo(
            key="b/c d+%ü\0",
            size=7,
            etag="abc",
            last_modified=datetime(2026, 1, 2, 3, 4, 5, 678000, UTC),
            storage_class="STANDARD",
        ),
    ]


def test_a_page_that_was_not_encoded_is_not_decoded() -> None:
    page = parse_page(_page("<Contents><Key>a+%20b</Key><Size>1</Size></Contents>", encoding=""))
    assert page.entries == [ObjectInfo(key="a+%20b", size=1)]
    assert page.next_token is None


@pytest.mark.parametrize(
    "inner",
    [
        "<IsTruncated>true</IsTruncated>",
        "<Contents><Key>k</Key></Contents>",
        "<Contents><Key>k</Key><Size>-1</Size></Contents>",
        "<Contents><Size>1</Size></Contents>",
        "<CommonPrefixes/>",
    ],
)
def test_a_page_that_lacks_something_is_a_fault(inner: str) -> None:
    """An entry left out, or an end that is none, would lose objects without a word."""
    with pytest.raises(BodyFault):
        parse_page(_page(inner))


def test_another_document_is_no_empty_listing() -> None:
    with pytest.raises(BodyFault, match="ListBucketResult"):
        parse_page(b"<html/>")


def test_multipart_answers() -> None:
    started = f"<InitiateMultipartUploadResult {NS}><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
    assert parse_upload_id(started.encode()) == "u1"
    with pytest.raises(BodyFault, match="UploadId"):
        parse_upload_id(b"<InitiateMultipartUploadResult/>")
    done = f'<CompleteMultipartUploadResult {NS}><ETag>"abc-2"</ETag></CompleteMultipartUploadResult>'
    assert parse_completed(done.encode()) == "abc-2"


def test_info_from_headers() -> None:
    info = parse_info(
        "k",
        {
            "etag": 'W/"abc"',
            "content-type": "image/png",
            "last-modified": "Wed, 21 Oct 2026 07:28:00 GMT",
            "x-amz-meta-a": "plain",
            "x-amz-meta-b": "=?utf-8?B?w7w=?=",
            "x-amz-meta-c": "=?broken",
            "x-amz-version-id": "v1",
            "x-amz-storage-class": "STANDARD_IA",
        },
        size=3,
    )
    assert info == ObjectInfo(
        key="k",
        size=3,
        etag="abc",
        content_type="image/png",
        last_modified=datetime(2026, 10, 21, 7, 28, tzinfo=UTC),
        metadata={"a": "plain", "b": "ü", "c": "=?broken"},
        version="v1",
        storage_class="STANDARD_IA",
    )
    assert parse_info("k", {"last-modified": "yesterday"}, size=0).last_modified is None


def test_an_etag_is_an_md5_only_where_it_is_one() -> None:
    md5 = "5d41402abc4b2a76b9719d911017c592"
    assert plain_md5({"etag": f'"{md5}"'}) == md5
    assert plain_md5({"etag": f'"{md5}"', "x-amz-server-side-encryption": "AES256"}) == md5
    for headers in (
        {"etag": f'"{md5}-3"'},
        {},
        {"etag": f'"{md5}"', "x-amz-server-side-encryption": "aws:kms"},
        {"etag": f'"{md5}"', "x-amz-server-side-encryption-customer-algorithm": "AES256"},
    ):
        assert plain_md5(headers) is None


def test_content_ranges() -> None:
    assert parse_content_range("bytes 0-4/10") == (0, 4, 10)
    for bad in (None, "", "bytes */10", "bytes 0-4/*", "bytes 5-4/10", "bytes 0-10/10", "items 0-4/10"):
        assert parse_content_range(bad) is None


# ── what a hostile service could send ────────────────────────────────────────


def test_blanks_may_come_before_a_document() -> None:
    """A Complete may take minutes, in which blanks keep its connection alive."""
    assert parse_completed(
        b" \n" * 99
        + b'<?xml version="1.0"?>\n<CompleteMultipartUploadResult><ETag>"e-1"</ETag></CompleteMultipartUploadResult>\n'
    ) == ("e-1")
    error = fault_of(DRAFT, 200, {}, b"\n \n" + _error("InternalError"))
    assert (type(error), error.code) == (ServiceFault, "InternalError")


def test_documents_in_any_namespace_are_read() -> None:
    assert parse_fields(b'<s:Error xmlns:s="urn:x"><s:Code> A </s:Code></s:Error>') == {"Code": "A"}


def test_a_document_of_too_many_elements_is_not_read() -> None:
    """16 MiB of them would be half a gigabyte in memory."""
    with pytest.raises(BodyFault, match="too many"):
        parse_page(b"<ListBucketResult>" + b"<a/>" * 100_000 + b"</ListBucketResult>")
    entry = "<Contents><Key>k</Key><Size>1</Size>" + "<x/>" * 12 + "</Contents>"
    assert len(parse_page(_page(entry * 1000)).entries) == 1000


def _parts(number: str = "1", size: str = "5", etag: str = "e", tail: str = "") -> bytes:
    part = f"<Part><PartNumber>{number}</PartNumber><Size>{size}</Size><ETag>{etag}</ETag></Part>"
    return f"<ListPartsResult>{part}{tail}</ListPartsResult>".encode()


def test_a_page_of_parts_is_read() -> None:
    assert parse_parts(_parts(etag="&quot;e&quot;")) == PartsPage([ListedPart(1, "e", 5)], None)
    tail = "<IsTruncated>true</IsTruncated><NextPartNumberMarker>7</NextPartNumberMarker>"
    assert parse_parts(_parts(tail=tail)).next_after == 7


BAD_NUMBERS = ["", "-1", "1.5", "1_0", " 1", "0x1", "\u0663", "\u00b2", "9" * 20, "9" * 5000]


@pytest.mark.parametrize("number", BAD_NUMBERS)
def test_a_number_that_no_service_means_is_a_fault(number: str) -> None:
    tail = f"<IsTruncated>true</IsTruncated><NextPartNumberMarker>{number}</NextPartNumberMarker>"
    for document in (_parts(number), _parts(size=number), _parts("0"), _parts(etag=""), _parts(tail=tail)):
        with pytest.raises(BodyFault):
            parse_parts(document)
    with pytest.raises(BodyFault):
        parse_page(_page(f"<Contents><Key>k</Key><Size>{number}</Size></Contents>"))
    assert parse_content_range(f"bytes 0-4/{number}") is None


def test_a_services_code_and_id_are_as_plain_as_its_words() -> None:
    body = b"<Error><Code>Evil\nX-Amz-Signature=deadbeef " + b"y" * 9000 + b"</Code></Error>"
    error = fault_of(DRAFT, 400, {"x-amz-request-id": "i" * 9000}, body)
    assert error.code is not None
    assert error.request_id is not None
    assert (len(error.code), len(error.request_id)) == (100, 200)
    for text in (str(error), error.code, error.request_id):
        assert text.isprintable()
        assert "deadbeef" not in text
        assert len(text) < 400
    assert fault_of(DRAFT, 500, {}, b"<Error><Code> </Code></Error>").code is None
