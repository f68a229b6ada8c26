"""What the head of an answer says of an object, and whether that is what was asked for.

Pure: status and headers in, values or a `BodyFault` out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

from attrs import frozen

from prewarmkit.errors import BodyFault
from prewarmkit.media import ObjectInfo
from prewarmkit.r2.faults import request_id_of
from prewarmkit.r2.headers import ByteRange
from prewarmkit.r2.responses import parse_content_range, parse_info, plain_md5
from prewarmkit.transports.base import Response

__all__ = [
    "Facts",
    "changed",
    "check_rest",
    "expected_bytes",
    "facts_of",
    "headers_of",
    "info_of",
    "strong_etag",
    "wrong_md5",
]

_STRONG = re.compile(r'"[!#-~]+"')


@frozen
class Facts:
    """An object, as the head of an answer tells of it.

    Attributes:
        info: For the reader; its ETag is without quotes, and without the mark of weakness.
        etag: As HTTP writes it, if it is a strong one: the same ETag means the same bytes.
        md5: The content's, where the ETag is it.
    """

    info: ObjectInfo
    etag: str | None = None
    md5: str | None = None


def headers_of(response: Response) -> dict[str, str]:
    """An answer's headers by name; of a name that came twice, the first."""
    headers: dict[str, str] = {}
    for name, value in response.headers:
        headers.setdefault(name, value)
    return headers


def strong_etag(headers: Mapping[str, str]) -> str | None:
    """The ETag in its quotes; ``None``: there is none, or a weak one, or none that could be sent back."""
    etag = headers.get("etag", "").strip()
    quoted = etag if '"' in etag else f'"{etag}"'
    return quoted if _STRONG.fullmatch(quoted) else None


def info_of(key: str, headers: Mapping[str, str], *, size: int | None = None) -> ObjectInfo:
    """An object's facts; its size from ``Content-Length`` unless given.

    Raises:
        BodyFault: The answer does not say how long the object is.
    """
    if size is None:
        text = headers.get("content-length", "")
        if not (text.isascii() and text.isdecimal()):
            raise BodyFault(
                f"The answer about {key!r} has no Content-Length, so that its end could not be told from a cut: "
                "something between here and the service rewrites bodies.",
                request_id=request_id_of(headers),
            )
        size = int(text)
    return parse_info(key, headers, size=size)


def facts_of(key: str, headers: Mapping[str, str], *, size: int | None = None) -> Facts:
    """As `info_of`, and what the ETag is good for."""
    etag = strong_etag(headers)
    # A body that was coded on the way, although `identity` was asked for, may have kept the ETag of what it was.
    is_plain = etag is not None and headers.get("content-encoding", "identity") in {"", "identity"}
    return Facts(info_of(key, headers, size=size), etag, plain_md5(headers) if is_plain else None)


def expected_bytes(
    key: str, status: int, headers: Mapping[str, str], byte_range: ByteRange | None
) -> tuple[Facts, int, int]:
    """The object's facts, and first byte and length of the body at hand, which must be the range asked for.

    Raises:
        BodyFault: The service gave other bytes than were asked for.
    """
    given = parse_content_range(headers.get("content-range"))
    if byte_range is None:
        if given is not None or status == HTTPStatus.PARTIAL_CONTENT:
            raise _wrong_range(key, headers, status)
        facts = facts_of(key, headers)
        return facts, 0, facts.info.size
    wanted_first, wanted_last = byte_range
    if given is None:
        facts = facts_of(key, headers)
        size = facts.info.size
        # A service may take no notice of a range; of one that is the whole object it need not.
        covers = wanted_first == 0 and (wanted_last is None or wanted_last >= size - 1)
        if status == HTTPStatus.PARTIAL_CONTENT or "content-range" in headers or not covers:
            raise _wrong_range(key, headers, status)
        return facts, 0, size
    first, last, total = given
    if wanted_first is None:
        wanted_first, wanted_last = max(0, total - (wanted_last or 0)), total - 1
    end = total - 1 if wanted_last is None else min(wanted_last, total - 1)
    if (first, last) != (wanted_first, end):
        raise _wrong_range(key, headers, status)
    return facts_of(key, headers, size=total), first, last - first + 1


def check_rest(facts: Facts, status: int, headers: Mapping[str, str], first: int, last: int) -> None:
    """Hold an answer to be the bytes from ``first`` to ``last`` of the very same object.

    That ``If-Match`` was sent proves nothing: there are services that take no notice of it.

    Raises:
        BodyFault: It is another object, or other bytes.
    """
    key = facts.info.key
    etag = strong_etag(headers)
    if etag != facts.etag:
        raise changed(key, f"its ETag was {facts.etag} and is {etag}", status=status, headers=headers)
    given = parse_content_range(headers.get("content-range"))
    if given is None or given[:2] != (first, last):
        raise _wrong_range(key, headers, status)
    if given[2] != facts.info.size:
        what = f"it had {facts.info.size} bytes and has {given[2]}, under the same ETag"
        raise changed(key, what, status=status, headers=headers)


def wrong_md5(facts: Facts, found: str, *, status: int | None, headers: Mapping[str, str]) -> BodyFault:
    """All bytes that were announced came, and are not the object's."""
    return BodyFault(
        f"The bytes of {facts.info.key!r} came with the MD5 {found}, but its ETag says {facts.md5}: something "
        "between here and the service cut or changed them. To do: read it again.",
        status=status,
        request_id=request_id_of(headers),
    )


def changed(key: str, what: str, *, status: int | None, headers: Mapping[str, str]) -> BodyFault:
    """Bytes of two objects must never become one; reading the new one from its start is fine."""
    return BodyFault(
        f"The object {key!r} changed while it was read: {what}. To do: read it again from the start.",
        status=status,
        request_id=request_id_of(headers),
    )


def _wrong_range(key: str, headers: Mapping[str, str], status: int) -> BodyFault:
    return BodyFault(
        f"The answer about {key!r} holds {headers.get('content-range', 'the whole object')!r}, which is not the "
        "range that was asked for: this service does not keep to ranges.",
        status=status,
        request_id=request_id_of(headers),
        is_retryable=False,
    )
