"""What S3 answers mean: headers and XML become values.

Pure: takes bytes and headers, knows no HTTP client.
"""

from __future__ import annotations

import email.errors
import email.header
import email.utils
import functools
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import unquote_plus

from attrs import frozen

from prewarmkit.errors import BodyFault
from prewarmkit.media import ObjectInfo
from prewarmkit.r2.xml import Node, RefusedXml, parse

__all__ = [
    "CommonPrefix",
    "DeleteAnswer",
    "DeleteFault",
    "ListedPart",
    "Page",
    "PartsPage",
    "has_plain_etags",
    "parse_completed",
    "parse_content_range",
    "parse_copied",
    "parse_deleted",
    "parse_fields",
    "parse_info",
    "parse_page",
    "parse_parts",
    "parse_upload_id",
    "plain_etag",
    "plain_md5",
]

_MAX_DIGITS = 19  # of a number of 64 bits
_MD5 = re.compile(r"[0-9a-f]{32}")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")
_ENCODED_WORD = re.compile(r"=\?[^?\s]+\?[bBqQ]\?[^?]*\?=")


@frozen
class CommonPrefix:
    """What `R2Client.list` gives for a "folder" when it was given a delimiter.

    Attributes:
        key: The common beginning of keys, delimiter included.
    """

    key: str


@frozen
class Page:
    """One page of a listing.

    Attributes:
        entries: In the order of their keys.
        next_token: Asks for the next page; ``None``: this is the last.
    """

    entries: Sequence[ObjectInfo | CommonPrefix]
    next_token: str | None


@frozen
class ListedPart:
    """A part that stands.

    Attributes:
        number: From 1.
        etag: Of the part.
        size: Bytes.
    """

    number: int
    etag: str
    size: int


@frozen
class PartsPage:
    """One page of an upload's parts.

    Attributes:
        parts: In the order of their numbers.
        next_after: Asks for the next page; ``None``: this is the last.
    """

    parts: Sequence[ListedPart]
    next_after: int | None


@frozen
class DeleteFault:
    """A key that could not be deleted, and why, in the service's words."""

    key: str
    code: str
    message: str


@frozen
class DeleteAnswer:
    """What DeleteObjects says became of its keys.

    Attributes:
        deleted: Keys that are gone, also those that were not there.
        faults: The others.
    """

    deleted: Sequence[str]
    faults: Sequence[DeleteFault]


# ── headers ──────────────────────────────────────────────────────────────────


def plain_etag(etag: str | None) -> str | None:
    """An ETag without its quotes and its mark of weakness."""
    return None if etag is None else etag.strip().removeprefix("W/").strip('"')


def plain_md5(headers: Mapping[str, str]) -> str | None:
    """The ETag where it is the content's MD5; ``None`` where it is something else.

    With a key of the customer's or of a KMS it looks like one and is none.
    """
    etag = (plain_etag(headers.get("etag")) or "").lower()
    return etag if _MD5.fullmatch(etag) and has_plain_etags(headers) else None


def has_plain_etags(headers: Mapping[str, str]) -> bool:
    """Whether what looks like an MD5 in this answer is one."""
    scheme = headers.get("x-amz-server-side-encryption", "AES256")
    return scheme == "AES256" and "x-amz-server-side-encryption-customer-algorithm" not in headers


def parse_content_range(value: str | None) -> tuple[int, int, int] | None:
    """First, last and total of a ``Content-Range``; ``None``: there is none that says all three."""
    found = _CONTENT_RANGE.fullmatch(value or "")
    if found is None:
        return None
    first, last, total = (int(number) for number in found.groups())
    return (first, last, total) if first <= last < total else None


def parse_info(key: str, headers: Mapping[str, str], *, size: int) -> ObjectInfo:
    """An object's facts from the headers of an answer about it."""
    return ObjectInfo(
        key=key,
        size=size,
        etag=plain_etag(headers.get("etag")),
        content_type=headers.get("content-type"),
        last_modified=_http_date(headers.get("last-modified")),
        metadata={
            name.removeprefix("x-amz-meta-"): _decoded(value)
            for name, value in headers.items()
            if name.startswith("x-amz-meta-")
        },
        version=headers.get("x-amz-version-id"),
        storage_class=headers.get("x-amz-storage-class"),
    )


@functools.lru_cache(maxsize=256)
def _http_date(value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _decoded(value: str) -> str:
    """A metadata value, RFC 2047 undone; what only looks encoded stays as it is."""
    if not _ENCODED_WORD.match(value):
        # Services that send raw UTF-8: a header is read as Latin-1.
        try:
            return value.encode("latin-1").decode("utf-8")
        except UnicodeError:
            return value
    try:
        return str(email.header.make_header(email.header.decode_header(value)))
    except (email.errors.HeaderParseError, LookupError, UnicodeError):
        return value


# ── XML ──────────────────────────────────────────────────────────────────────


def _read(document: bytes, *expected: str) -> Node:
    try:
        node = parse(document)
    except RefusedXml as error:
        raise _not_s3(f"The answer should be a {expected[0]} in XML, but {error}") from None
    if node.name not in expected:
        raise _not_s3(f"The answer should be a {expected[0]}, but is a {node.name[:60]!r}")
    return node


def _not_s3(what: str) -> BodyFault:
    return BodyFault(f"{what}: is the endpoint an S3 service?", is_retryable=False)


def parse_fields(document: bytes) -> dict[str, str] | None:
    """The children of an ``<Error>`` document; ``None`` if it is no such thing."""
    try:
        node = parse(document)
    except RefusedXml:
        return None
    if node.name != "Error":
        return None
    return {child.name: child.text.strip() for child in node.children}


def parse_upload_id(document: bytes) -> str:
    """The id from the answer to CreateMultipartUpload.

    Raises:
        BodyFault: It is not that.
    """
    upload_id = _read(
        document,
        "InitiateMultipartUploadResult",
        "InitiateMultipartUpload",  # rclone's
    ).get("UploadId")
    if not upload_id:
        raise _not_s3("The answer to CreateMultipartUpload has no UploadId")
    return upload_id


def parse_completed(document: bytes) -> str | None:
    """The final ETag from the answer to CompleteMultipartUpload.

    Raises:
        BodyFault: It is not that.
    """
    return plain_etag(_read(document, "CompleteMultipartUploadResult").get("ETag"))


def parse_parts(document: bytes) -> PartsPage:
    """A page of ListParts.

    Raises:
        BodyFault: It is not that, or a part lacks what every part has.
    """
    root = _read(document, "ListPartsResult")
    parts: list[ListedPart] = []
    for node in root.all("Part"):
        number, size = _number(node.get("PartNumber")), _number(node.get("Size"))
        etag = plain_etag(node.get("ETag"))
        if not number or size is None or not etag:
            raise _not_s3("A part of the upload lacks its number, size or ETag")
        parts.append(ListedPart(number, etag, size))
    if root.get("IsTruncated") != "true":
        return PartsPage(parts, None)
    after = _number(root.get("NextPartNumberMarker"))
    if after is None:
        raise _not_s3("A page of the parts says that there are more, but not how to ask for them")
    return PartsPage(parts, after)


def _number(text: str | None) -> int | None:
    """A number from 0 that a service can mean; ``None``: it is none."""
    is_one = text is not None and text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
    return int(text) if text is not None and is_one else None


def parse_deleted(document: bytes) -> DeleteAnswer:
    """The answer to DeleteObjects.

    Raises:
        BodyFault: It is not that.
    """
    root = _read(document, "DeleteResult")
    faults = [
        DeleteFault(node.get("Key") or "", (node.get("Code") or "").strip(), node.get("Message") or "")
        for node in root.all("Error")
    ]
    return DeleteAnswer([node.get("Key") or "" for node in root.all("Deleted")], faults)


def parse_copied(document: bytes) -> tuple[str | None, datetime | None]:
    """ETag and time from the answer to CopyObject or UploadPartCopy.

    Raises:
        BodyFault: It is not that.
    """
    root = _read(document, "CopyObjectResult", "CopyPartResult")
    return plain_etag(root.get("ETag")), _iso_date(root.get("LastModified"))


def parse_page(document: bytes) -> Page:
    """A page of ListObjectsV2.

    Raises:
        BodyFault: It is not that, or an entry lacks what every entry has.
    """
    root = _read(document, "ListBucketResult")
    is_encoded = root.get("EncodingType") == "url"
    entries: list[ObjectInfo | CommonPrefix] = [
        _listed(node, is_encoded=is_encoded) for node in root.all("Contents")
    ]
    entries += [
        CommonPrefix(_key(node.get("Prefix"), is_encoded=is_encoded)) for node in root.all("CommonPrefixes")
    ]
    entries.sort(key=lambda entry: entry.key.encode("utf-8", "surrogatepass"))
    if root.get("IsTruncated") != "true":
        return Page(entries, None)
    token = root.get("NextContinuationToken")
    if not token:
        raise _not_s3("A page of the listing says that there are more, but not how to ask for them")
    return Page(entries, token)


def _listed(node: Node, *, is_encoded: bool) -> ObjectInfo:
    size = _number(node.get("Size"))
    if size is None:
        raise _not_s3("An entry of the listing has no Size")
    return ObjectInfo(
        key=_key(node.get("Key"), is_encoded=is_encoded),
        size=size,
        etag=plain_etag(node.get("ETag")),
        last_modified=_iso_date(node.get("LastModified")),
        storage_class=node.get("StorageClass"),
    )


def _iso_date(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None


def _key(text: str | None, *, is_encoded: bool) -> str:
    if text is None:
        raise _not_s3("An entry of the listing has no key")
    return unquote_plus(text, errors="surrogateescape") if is_encoded else text
