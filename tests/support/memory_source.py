"""A source in memory that counts what is read of it, and holds, breaks or changes it as told."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import anyio.lowlevel
from attrs import define, field

from prewarmkit.errors import NotFound
from prewarmkit.media import ObjectInfo

__all__ = ["MemoryReader", "MemorySource"]


@define(eq=False)
class MemorySource:
    """Objects by key.

    Attributes:
        objects: What there is; may be changed.
        chunk_bytes: Length of a chunk.
        announced: Sizes that are not the true ones.
        gates: By key: each chunk but the first waits there until the event is set.
        failures: By key: what is raised instead of the chunk with that number; -1: instead of opening.
        opens: How often each key was opened.
        reading: Readers that are open now.
        given: Bytes given.
        versions: ETags to tell instead of the content's digest.
    """

    objects: Mapping[str, bytes]
    chunk_bytes: int = 64 * 1024
    announced: dict[str, int] = field(factory=dict[str, int])
    gates: dict[str, anyio.Event] = field(factory=dict[str, anyio.Event])
    failures: dict[str, tuple[int, Exception]] = field(factory=dict[str, tuple[int, Exception]])
    opens: Counter[str] = field(factory=Counter[str])
    reading: int = 0
    given: int = 0
    versions: dict[str, str | None] = field(factory=dict[str, str | None])

    def open(self, key: str) -> AbstractAsyncContextManager[MemoryReader]:
        """Open an object."""
        return self._open(key)

    @asynccontextmanager
    async def _open(self, key: str) -> AsyncGenerator[MemoryReader, None]:
        await anyio.lowlevel.checkpoint()
        self.opens[key] += 1
        at, failure = self.failures.get(key, (None, None))
        if at == -1 and failure is not None:
            raise failure
        info = await self.head(key)
        self.reading += 1
        try:
            yield MemoryReader(info, self, self.objects[key])
        finally:
            self.reading -= 1

    async def head(self, key: str) -> ObjectInfo:
        """An object's facts."""
        await anyio.lowlevel.checkpoint()
        try:
            content = self.objects[key]
        except KeyError:
            raise NotFound(f"There is no {key!r}: check the key.", code="NoSuchKey") from None
        etag = self.versions.get(key, hashlib.sha256(content).hexdigest())
        size = self.announced.get(key, len(content))
        return ObjectInfo(key, size, etag=etag, content_type="image/png", metadata={"a": "ü"})

    def url(self, key: str, *, version: str | None = None) -> str | None:
        """Some address."""
        return f"https://cdn.example/{key}" + (f"?v={version}" if version else "")


@define(eq=False)
class MemoryReader:
    """An open object."""

    info: ObjectInfo
    _source: MemorySource = field(alias="source")
    _content: bytes = field(alias="content")
    _at: int = 0
    _chunks: int = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Its chunks."""
        return self

    async def __anext__(self) -> bytes:
        key = self.info.key
        await anyio.lowlevel.checkpoint()
        if self._chunks and key in self._source.gates:
            await self._source.gates[key].wait()
        at, failure = self._source.failures.get(key, (None, None))
        if at == self._chunks and failure is not None:
            raise failure
        chunk = self._content[self._at : self._at + self._source.chunk_bytes]
        if not chunk:
            raise StopAsyncIteration
        self._at += len(chunk)
        self._chunks += 1
        self._source.given += len(chunk)
        return chunk

    async def read(self) -> bytes:
        """The rest."""
        return b"".join([chunk async for chunk in self])
