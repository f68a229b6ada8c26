"""`UploadBody` gives the whole file, or says why not."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from prewarmkit.errors import BodyFault, SourceChanged, Transient, TransportError
from prewarmkit.media import ObjectInfo
from prewarmkit.targets.telegram.body import UploadBody
from prewarmkit.targets.telegram.multipart import Framing

pytestmark = pytest.mark.anyio

FRAMING = Framing("b", b"<head>", b"<tail>")


class Reader:
    def __init__(self, *chunks: bytes | Exception, size: int | None = None) -> None:
        self.chunks = chunks
        length = sum(len(chunk) for chunk in chunks if isinstance(chunk, bytes))
        self.info = ObjectInfo(key="a.png", size=length if size is None else size)
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            for chunk in self.chunks:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
        finally:
            self.closed = True

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self])


def body(reader: Reader, **options: Any) -> UploadBody:
    return UploadBody(FRAMING, reader, key="a.png", size=reader.info.size, **options)


async def test_head_file_and_tail_come_in_order_and_are_counted() -> None:
    """With the first and the last chunk: a piece by itself costs more than to copy it."""
    assert [chunk async for chunk in body(Reader(b"1", b"2", b"", b"3"))] == [b"<head>1", b"2", b"3<tail>"]
    assert [chunk async for chunk in body(Reader())] == [b"<head><tail>"]
    whole = body(Reader(b"one", b"", b"two"))
    assert b"".join([chunk async for chunk in whole]) == b"<head>onetwo<tail>"
    assert (whole.sent, whole.tail_sent, whole.failure) == (6, True, None)
    assert whole.content_length == len(b"<head>onetwo<tail>")
    assert whole.sha256 is None
    assert [chunk async for chunk in whole] == []


@pytest.mark.parametrize(
    ("reader", "failure"),
    [
        (Reader(b"12345", size=6), SourceChanged),
        (Reader(b"12345", b"67", size=6), SourceChanged),
        (Reader(b"12345", b"6", b"7", size=6), SourceChanged),
        (Reader(b"123", BodyFault("cut short"), size=6), SourceChanged),
        (Reader(b"123456", BodyFault("another MD5"), size=6), SourceChanged),
        (Reader(b"123", TransportError("reset"), size=6), Transient),
        (Reader(b"123", OSError("disk"), size=6), OSError),
    ],
    ids=["short", "long", "long-at-the-end", "body-fault", "wrong-at-the-end", "reset", "foreign"],
)
async def test_a_file_that_is_not_whole_never_gets_its_tail(reader: Reader, failure: type[Exception]) -> None:
    """Without the tail no server takes the upload; and the failure is there for whoever sends."""
    broken = body(reader)
    given: list[bytes] = []

    async def drain() -> None:
        while True:
            given.append(await anext(broken))

    with pytest.raises(failure):
        await drain()
    assert all(b"<tail>" not in piece for piece in given)
    assert sum(map(len, given)) < 6 + len(b"<head>")  # nor its last byte
    assert not broken.tail_sent
    assert type(broken.failure) is failure
    with pytest.raises(failure):
        await anext(broken)


async def test_a_digest_that_was_promised_is_kept() -> None:
    """A row's sha256 lets other keys take its handle over, so a wrong one must never be warm."""
    right = hashlib.sha256(b"data").hexdigest()
    assert [chunk async for chunk in body(Reader(b"data"), sha256=right.upper())] == [b"<head>data<tail>"]
    wrong = body(Reader(b"date"), sha256=right)
    with pytest.raises(SourceChanged, match="SHA-256"):
        _ = [chunk async for chunk in wrong]
    assert not wrong.tail_sent


async def test_closing_half_way_closes_the_source() -> None:
    reader = Reader(b"one", b"two")
    half = body(reader)
    assert await anext(half) == b"<head>one"
    await half.aclose()
    assert reader.closed
    await body(reader).aclose()
