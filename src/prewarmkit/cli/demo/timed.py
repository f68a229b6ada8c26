"""A source that measures how long the bytes of each medium were on their way.

From the first byte that is asked for until the target has its answer and lets go of the
medium; waiting for a turn in the budget comes before that and is left out.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from attrs import define, field

from prewarmkit import ObjectInfo
from prewarmkit.sources import MediaReader, MediaSource

__all__ = ["TimedSource"]


@define
class TimedSource:
    """A `prewarmkit.sources.MediaSource` around another one.

    Attributes:
        source: The other one.
        moves: Seconds of each medium that went through whole; whoever reads it may empty it.
    """

    source: MediaSource
    moves: list[float] = field(init=False, factory=list[float])

    def open(self, key: str) -> AbstractAsyncContextManager[MediaReader]:
        """See `MediaSource.open`."""
        return self._open(key)

    @asynccontextmanager
    async def _open(self, key: str) -> AsyncGenerator[MediaReader]:
        async with self.source.open(key) as reader:
            timed = _TimedReader(reader)
            yield timed
            if timed.began_at is not None:
                self.moves.append(time.monotonic() - timed.began_at)

    async def head(self, key: str) -> ObjectInfo:
        """See `MediaSource.head`."""
        return await self.source.head(key)

    def url(self, key: str, *, version: str | None = None) -> str | None:
        """See `MediaSource.url`."""
        return self.source.url(key, version=version)


@define
class _TimedReader:
    _reader: MediaReader
    began_at: float | None = field(init=False, default=None)

    @property
    def info(self) -> ObjectInfo:
        return self._reader.info

    def __aiter__(self) -> AsyncIterator[bytes]:
        self.began_at = time.monotonic()
        return aiter(self._reader)

    async def read(self) -> bytes:
        self.began_at = time.monotonic()
        return await self._reader.read()
