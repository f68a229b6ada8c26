"""The headers of S3 requests that a caller's arguments become.

Pure. Everything here refuses what could break out of its header.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

__all__ = ["ByteRange", "conditions", "content_type_header", "md5_header", "metadata_headers", "range_header"]

ByteRange = tuple[int | None, int | None]
"""``(first, last)`` inclusive; ``(first, None)``: to the end; ``(None, n)``: the last n bytes."""

_META_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_PLAIN_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


def range_header(byte_range: ByteRange) -> str:
    """The ``Range`` header for a range.

    Raises:
        ValueError: It is empty or upside down.
    """
    first, last = byte_range
    if first is None:
        if last is None or last < 1:
            raise ValueError(f"range=(None, n) is the last n bytes: n must be 1 or more, not {last!r}.")
        return f"bytes=-{last}"
    if first < 0 or (last is not None and last < first):
        raise ValueError(
            f"range must be (first, last), both inclusive and 0 <= first <= last, not {byte_range!r}."
        )
    return f"bytes={first}-{'' if last is None else last}"


def metadata_headers(metadata: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Metadata as headers; what a header cannot carry is encoded by RFC 2047, as R2 does.

    Raises:
        ValueError: A name is no header name, or a value cannot be sent.
    """
    headers: dict[str, str] = {}
    for name, value in metadata.items():
        if not isinstance(name, str):
            raise TypeError(f"metadata: a name must be a str, not {type(name).__name__}.")
        lowered = name.lower()
        if not _META_NAME.fullmatch(lowered):
            raise ValueError(f"metadata: the name {name!r} must be made of letters, digits and '-'.")
        if f"x-amz-meta-{lowered}" in headers:
            raise ValueError(f"metadata: the name {name!r} is there twice; case does not count.")
        headers[f"x-amz-meta-{lowered}"] = _metadata_value(name, value)
    return tuple(headers.items())


def _metadata_value(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"metadata: the value of {name!r} must be a str, not {type(value).__name__}.")
    if not value or (_PLAIN_VALUE.fullmatch(value) and not value.startswith("=?")):
        return value
    try:
        encoded = base64.b64encode(value.encode()).decode("ascii")
    except UnicodeEncodeError:
        raise ValueError(f"metadata: the value of {name!r} is no Unicode text.") from None
    return f"=?utf-8?B?{encoded}?="


def content_type_header(content_type: str | None) -> tuple[tuple[str, str], ...]:
    """The ``Content-Type`` header.

    Raises:
        ValueError: It cannot be one.
    """
    if content_type is None:
        return ()
    if not _PLAIN_VALUE.fullmatch(content_type):
        raise ValueError(f"content_type must be plain ASCII such as image/png, not {content_type!r}.")
    return (("content-type", content_type),)


def conditions(if_match: str | None, if_none_match: str | None) -> tuple[tuple[str, str], ...]:
    """``If-Match`` and ``If-None-Match``.

    Raises:
        ValueError: It is no entity tag.
    """
    pairs = (("if-match", if_match), ("if-none-match", if_none_match))
    return tuple((name, _entity_tag(name, etag)) for name, etag in pairs if etag is not None)


def _entity_tag(name: str, etag: str) -> str:
    """Quoted as HTTP wants it; ``*`` and what is quoted already stay."""
    if not _PLAIN_VALUE.fullmatch(etag):
        raise ValueError(f"{name.replace('-', '_')} must be an ETag or '*', not {etag!r}.")
    return etag if etag == "*" or '"' in etag else f'"{etag}"'


def md5_header(md5: bytes | None) -> tuple[tuple[str, str], ...]:
    """``Content-MD5``, which the service checks."""
    return () if md5 is None else (("content-md5", base64.b64encode(md5).decode("ascii")),)
