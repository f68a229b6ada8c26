"""How S3 requests look: where they go, what is in them, which headers are signed.

Pure: a `Draft` is everything about a request but its signature, which is made anew for
each attempt. Knows no HTTP client, no clock, no credentials. Who calls it has the rules of
R2 kept for them: no chunked signing, no trailers, no ``Expect``, no ACLs, no tags.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterable, Callable, Iterable
from urllib.parse import quote
from xml.etree import ElementTree as ET

from attrs import field, frozen

from prewarmkit.errors import ConfigurationError
from prewarmkit.r2.headers import ByteRange, conditions, md5_header, range_header
from prewarmkit.r2.naming import UNRESERVED, encode_key

__all__ = ["Body", "Bucket", "Draft", "carries_in_xml"]

Body = bytes | Callable[[], AsyncIterable[bytes]] | None
"""What can be sent again: bytes, or something that makes the body anew."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_XMLNS = "http://s3.amazonaws.com/doc/2006-03-01/"
_MAX_KEYS = 1000  # of a page of parts
_UNSAFE_IN_XML = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffe\uffff]|\A\s|\s\Z")
_LOCAL_REGIONS = frozenset({"", "auto", "us-east-1"})


@frozen
class Draft:
    """One request, unsigned.

    Attributes:
        operation: Its name in S3, such as ``GetObject``: for events and messages.
        bucket: The bucket's name, for messages.
        key: The object's key; ``None`` for one that is about the bucket.
        signed: Headers that are part of the signature.
        unsigned: Headers that proxies may change: they are sent, not signed.
        body: What can be sent again.
        content_length: Bytes in the body.
        payload_hash: The body's SHA-256; ``None``: not signed.
    """

    operation: str
    method: str
    url: str = field(repr=False)
    bucket: str
    key: str | None = None
    signed: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    unsigned: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: Body = field(default=None, repr=False)
    content_length: int | None = None
    payload_hash: str | None = None


@frozen
class Bucket:
    """A bucket of an endpoint: builds its URLs and requests.

    Attributes:
        name: The bucket.
        base: Scheme, authority and path prefix of the endpoint, without a slash at the end.
        is_virtual: Whether the bucket is part of the host's name.
    """

    name: str
    base: str
    is_virtual: bool = False
    root: str = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if not _BUCKET.fullmatch(self.name):
            raise ConfigurationError(
                f"bucket must be a name of letters, digits, '.', '-' and '_', not {self.name!r}."
            )
        scheme, _, rest = self.base.partition("://")
        root = f"{scheme}://{self.name}.{rest}" if self.is_virtual else f"{self.base}/{self.name}"
        object.__setattr__(self, "root", root)

    @property
    def is_secure(self) -> bool:
        """Whether the endpoint speaks TLS."""
        return self.base.startswith("https://")

    def url(self, key: str, query: Iterable[tuple[str, str]] = ()) -> str:
        """An object's address."""
        return self.with_query(f"{self.root}/{encode_key(key)}", query)

    def own_url(self, query: Iterable[tuple[str, str]] = ()) -> str:
        """The bucket's own address."""
        return self.with_query(f"{self.root}/" if self.is_virtual else self.root, query)

    @staticmethod
    def with_query(url: str, query: Iterable[tuple[str, str]]) -> str:
        """A URL and its query, values percent-encoded."""
        encoded = "&".join([f"{name}={quote(value, safe=UNRESERVED)}" for name, value in query])
        return f"{url}?{encoded}" if encoded else url

    # ── reading ──────────────────────────────────────────────────────────────

    def get(
        self,
        key: str,
        *,
        method: str = "GET",
        byte_range: ByteRange | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> Draft:
        """GetObject, or HeadObject by ``method="HEAD"``."""
        headers = [("accept-encoding", "identity"), *conditions(if_match, if_none_match)]
        if byte_range is not None:
            headers.append(("range", range_header(byte_range)))
        return Draft(
            "GetObject" if method == "GET" else "HeadObject",
            method,
            self.url(key),
            self.name,
            key,
            unsigned=tuple(headers),
        )

    def list_page(
        self, prefix: str, *, delimiter: str | None, start_after: str | None, token: str | None, limit: int
    ) -> Draft:
        """ListObjectsV2, keys url-encoded since XML cannot carry every key."""
        query = [("list-type", "2"), ("encoding-type", "url"), ("max-keys", str(limit))]
        optional = (
            ("prefix", prefix or None),
            ("delimiter", delimiter or None),
            ("start-after", start_after or None),
            ("continuation-token", token),
        )
        query += [(name, value) for name, value in optional if value is not None]
        return Draft("ListObjectsV2", "GET", self.own_url(sorted(query)), self.name)

    # ── writing ──────────────────────────────────────────────────────────────

    def put(
        self,
        key: str,
        body: Body,
        *,
        content_length: int,
        headers: tuple[tuple[str, str], ...] = (),
        if_match: str | None = None,
        if_none_match: str | None = None,
        md5: bytes | None = None,
    ) -> Draft:
        """PutObject."""
        return Draft(
            "PutObject",
            "PUT",
            self.url(key),
            self.name,
            key,
            signed=(*headers, *md5_header(md5)),
            unsigned=conditions(if_match, if_none_match),
            body=body,
            content_length=content_length,
            payload_hash=self._hash_of(body),
        )

    def delete(self, key: str) -> Draft:
        """DeleteObject."""
        return Draft("DeleteObject", "DELETE", self.url(key), self.name, key)

    def start_upload(self, key: str, headers: tuple[tuple[str, str], ...]) -> Draft:
        """CreateMultipartUpload."""
        url = self.url(key, [("uploads", "")])
        return Draft(
            "CreateMultipartUpload", "POST", url, self.name, key, signed=headers, body=b"", content_length=0
        )

    def upload_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        part: bytes | bytearray | memoryview,
        chunks: Callable[[], AsyncIterable[bytes]],
        md5: bytes,
    ) -> Draft:
        """UploadPart.

        Args:
            key: The object's.
            upload_id: The upload's.
            number: From 1.
            part: Its bytes, for hashing.
            chunks: Makes the same bytes as a body, so that no transport copies a whole part.
            md5: Of the part.
        """
        return Draft(
            "UploadPart",
            "PUT",
            self._part_url(key, upload_id, number),
            self.name,
            key,
            signed=md5_header(md5),
            body=chunks,
            content_length=len(part),
            payload_hash=None if self.is_secure else hashlib.sha256(part).hexdigest(),
        )

    def list_parts(self, key: str, upload_id: str, *, after: int = 0) -> Draft:
        """ListParts, those with a number over ``after``."""
        query = [("max-parts", str(_MAX_KEYS)), ("part-number-marker", str(after)), ("uploadId", upload_id)]
        return Draft("ListParts", "GET", self.url(key, query), self.name, key)

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        etags: Iterable[str],
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> Draft:
        """CompleteMultipartUpload."""
        root = ET.Element("CompleteMultipartUpload", {"xmlns": _XMLNS})
        for number, etag in enumerate(etags, start=1):
            part = ET.SubElement(root, "Part")
            ET.SubElement(part, "PartNumber").text = str(number)
            ET.SubElement(part, "ETag").text = f'"{etag}"'
        body = _xml(root)
        return Draft(
            "CompleteMultipartUpload",
            "POST",
            self.url(key, [("uploadId", upload_id)]),
            self.name,
            key,
            signed=(("content-type", "application/xml"),),
            unsigned=conditions(if_match, if_none_match),
            body=body,
            content_length=len(body),
            payload_hash=self._hash_of(body),
        )

    def abort_upload(self, key: str, upload_id: str) -> Draft:
        """AbortMultipartUpload."""
        return Draft(
            "AbortMultipartUpload", "DELETE", self.url(key, [("uploadId", upload_id)]), self.name, key
        )

    def delete_objects(self, keys: Iterable[str]) -> Draft:
        """DeleteObjects: at most 1,000 keys, each of which XML can carry; see `carries_in_xml`."""
        root = ET.Element("Delete", {"xmlns": _XMLNS})
        for key in keys:
            ET.SubElement(ET.SubElement(root, "Object"), "Key").text = key
        body = _xml(root)
        md5 = hashlib.md5(body, usedforsecurity=False).digest()  # S3 insists on it
        return Draft(
            "DeleteObjects",
            "POST",
            self.own_url([("delete", "")]),
            self.name,
            signed=(("content-type", "application/xml"), *md5_header(md5)),
            body=body,
            content_length=len(body),
            payload_hash=self._hash_of(body),
        )

    # ── copying ──────────────────────────────────────────────────────────────

    def source(self, key: str) -> str:
        """An object's name as the source of a copy."""
        return f"{self.name}/{encode_key(key)}"

    def copy(
        self,
        key: str,
        source: str,
        *,
        source_if_match: str | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> Draft:
        """CopyObject, metadata included; conditions on the destination are R2's own."""
        headers = [("x-amz-copy-source", source)]
        headers += [(f"x-amz-copy-source-{name}", tag) for name, tag in conditions(source_if_match, None)]
        own = [(f"cf-copy-destination-{name}", tag) for name, tag in conditions(if_match, if_none_match)]
        return Draft(
            "CopyObject",
            "PUT",
            self.url(key),
            self.name,
            key,
            signed=tuple(headers),
            unsigned=tuple(own),
            body=b"",
            content_length=0,
            payload_hash=self._hash_of(b""),
        )

    def copy_part(self, key: str, upload_id: str, number: int, source: str, byte_range: ByteRange) -> Draft:
        """UploadPartCopy, which on R2 knows no conditions."""
        headers = (("x-amz-copy-source", source), ("x-amz-copy-source-range", range_header(byte_range)))
        return Draft(
            "UploadPartCopy",
            "PUT",
            self._part_url(key, upload_id, number),
            self.name,
            key,
            signed=headers,
            body=b"",
            content_length=0,
            payload_hash=self._hash_of(b""),
        )

    # ── the bucket itself ────────────────────────────────────────────────────

    def create(self, region: str) -> Draft:
        """CreateBucket."""
        body = b""
        if region not in _LOCAL_REGIONS:
            root = ET.Element("CreateBucketConfiguration", {"xmlns": _XMLNS})
            ET.SubElement(root, "LocationConstraint").text = region
            body = _xml(root)
        return Draft(
            "CreateBucket",
            "PUT",
            self.own_url(),
            self.name,
            body=body,
            content_length=len(body),
            payload_hash=self._hash_of(body),
        )

    def head_bucket(self) -> Draft:
        """HeadBucket."""
        return Draft("HeadBucket", "HEAD", self.own_url(), self.name)

    def _part_url(self, key: str, upload_id: str, number: int) -> str:
        return self.url(key, [("partNumber", str(number)), ("uploadId", upload_id)])

    def _hash_of(self, body: Body) -> str | None:
        """Without TLS nothing but the signature protects a body; with it, hashing twice is waste."""
        if self.is_secure or not isinstance(body, bytes):
            return None
        return hashlib.sha256(body).hexdigest()


def carries_in_xml(key: str) -> bool:
    """Whether XML brings a key over as it is.

    Control characters it cannot hold, or holds changed; and not every parser leaves blanks at the ends alone.
    """
    return not _UNSAFE_IN_XML.search(key)


def _xml(root: ET.Element) -> bytes:
    document: bytes = ET.tostring(root, encoding="utf-8")
    return document
