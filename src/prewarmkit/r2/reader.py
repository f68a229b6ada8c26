"""An open object: its facts, and its bytes, counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from prewarmkit.errors import BodyFault, R2Error, TransportError
from prewarmkit.media import ObjectInfo
from prewarmkit.r2.faults import request_id_of
from prewarmkit.r2.headers import ByteRange
from prewarmkit.r2.responses import parse_content_range, parse_info
from prewarmkit.transports.base import Response

__all__ = ["ObjectReader", "check_whole", "expected_bytes", "headers_of", "info_of"]


class ObjectReader:
    """What `R2Client.open` gives: readable once, inside its block.

    A body that ends before its length is a `BodyFault`; it never just ends.

    Attributes:
        info: The object's facts; ``size`` is that of the whole object, also under a range.
        length: Bytes that this reader gives.
    """

    def __init__(self, info: ObjectInfo, response: Response, *, length: int, attempts: int) -> None:
        self.info = info
        self.length = length
        self._response = response
        self._attempts = attempts
        self._given = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The bytes as they come, raw."""
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await anext(self._response.body)
        except StopAsyncIteration:
            if self._given != self.length:
                raise self._fault("the connection ended early") from None
            raise
        except TransportError as error:
            if isinstance(error, R2Error):
                raise
            raise self._fault(str(error)) from error
        self._given += len(chunk)
        if self._given > self.length:
            raise self._fault("more came than was announced")
        return chunk

    async def read(self) -> bytes:
        """All bytes that are left, in memory."""
        return b"".join([chunk async for chunk in self])

    def _fault(self, why: str) -> BodyFault:
        return BodyFault(
            f"The body of {self.info.key!r} broke after {self._given} of {self.length} bytes: {why} "
            "To do: open the object again.",
            status=self._response.status,
            request_id=request_id_of(headers_of(self._response)),
            attempts=self._attempts,
        )


def headers_of(response: Response) -> dict[str, str]:
    """An answer's headers by name; of a name that came twice, the first."""
    headers: dict[str, str] = {}
    for name, value in response.headers:
        headers.setdefault(name, value)
    return headers


def info_of(key: str, headers: Mapping[str, str], *, size: int | None = None) -> ObjectInfo:
    """An object's facts; its size from ``Content-Length`` unless given.

    Raises:
        BodyFault: The answer does not say how long the object is.
    """
    if size is None:
        text = headers.get("content-length", "")
        if not text.isdecimal():
            raise BodyFault(
                f"The answer about {key!r} has no Content-Length, so that its end could not be told from a cut: "
                "something between here and the service rewrites bodies.",
                request_id=request_id_of(headers),
            )
        size = int(text)
    return parse_info(key, headers, size=size)


def expected_bytes(
    key: str, status: int, headers: Mapping[str, str], byte_range: ByteRange | None
) -> tuple[ObjectInfo, int]:
    """The object's facts and the length of the body at hand, which must be the range asked for.

    Raises:
        BodyFault: The service gave other bytes than were asked for.
    """
    given = parse_content_range(headers.get("content-range"))
    if byte_range is None or (given is None and byte_range == (0, None)):
        if given is not None:
            raise _wrong_range(key, headers, status)
        info = info_of(key, headers)
        return info, info.size
    if given is None:
        raise _wrong_range(key, headers, status)
    first, last, total = given
    wanted_first, wanted_last = byte_range
    if wanted_first is None:
        wanted_first, wanted_last = max(0, total - (wanted_last or 0)), total - 1
    end = total - 1 if wanted_last is None else min(wanted_last, total - 1)
    if (first, last) != (wanted_first, end):
        raise _wrong_range(key, headers, status)
    return info_of(key, headers, size=total), last - first + 1


def check_whole(
    key: str, status: int, headers: Mapping[str, str], byte_range: ByteRange | None, body: bytes
) -> None:
    """Hold a body that was read at once to what `expected_bytes` says.

    Raises:
        BodyFault: It is another range, or has another length than announced.
    """
    _, length = expected_bytes(key, status, headers, byte_range)
    if len(body) != length:
        raise BodyFault(
            f"The body of {key!r} has {len(body)} bytes where {length} were announced: read it again.",
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
