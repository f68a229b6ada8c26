"""What `SpooledSource.open` gives: the medium's facts, and its bytes once, wherever they come from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from attrs import define, field

from prewarmkit.errors import BodyFault
from prewarmkit.media import ObjectInfo
from prewarmkit.sources.spool.flight import Flight
from prewarmkit.sources.spool.stats import Figures

__all__ = ["SpooledReader"]


@define(eq=False)
class SpooledReader:
    """An open medium. A read that is cancelled loses no byte: the next one goes on.

    Attributes:
        info: As the source told it when it was read.
    """

    info: ObjectInfo
    _flight: Flight = field(alias="flight", repr=False)
    _figures: Figures = field(alias="figures", repr=False)
    _read_past: Callable[[], Awaitable[Flight]] = field(alias="read_past", repr=False)
    _rest: Flight | None = field(init=False, default=None, repr=False)
    _broke_at: int = field(init=False, default=0)
    _skipped: int = field(init=False, default=0)
    _held: bytes = field(init=False, default=b"", repr=False)
    _given: int = field(init=False, default=0)
    _is_done: bool = field(init=False, default=False)

    @property
    def given(self) -> int:
        """Bytes given so far."""
        return self._given

    @property
    def flights(self) -> tuple[Flight, ...]:
        """What the reader is to leave."""
        return (self._flight,) if self._rest is None else (self._flight, self._rest)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The bytes, in chunks."""
        return self

    async def __anext__(self) -> bytes:
        if self._is_done:
            raise StopAsyncIteration
        chunk = await self._next()
        if not chunk:
            self._is_done = True
            raise StopAsyncIteration
        self._given += len(chunk)
        self._figures.bytes_given += len(chunk)
        return chunk

    async def read(self) -> bytes:
        """All bytes that are left, in memory."""
        return b"".join([chunk async for chunk in self])

    async def _next(self) -> bytes:
        if self._flight.pipe is not None:
            return await self._flight.pipe.take()
        if self._rest is None:
            chunk = await self._flight.read(self._given)
            if chunk is not None:
                return chunk
            self._broke_at = self._given
            self._rest = await self._read_past()
        return await self._from_source(self._rest)

    async def _from_source(self, rest: Flight) -> bytes:
        """The disk failed in the middle: the bytes from there on, of the same medium as those before."""
        if rest.pipe is None or rest.info is None or not self._is_same(rest.info):
            raise self._changed()
        while True:
            if not self._held:  # kept here until it is given: a cancelled read loses nothing
                self._held = await rest.pipe.take()
            before = self._held[: self._broke_at - self._skipped]
            if before:
                if not await self._flight.matches(self._skipped, before):
                    raise self._changed()
                self._skipped += len(before)
                self._held = self._held[len(before) :]
            elif self._skipped < self._broke_at:
                raise self._changed()
            else:
                chunk, self._held = self._held, b""
                return chunk

    def _is_same(self, info: ObjectInfo) -> bool:
        return (info.etag, info.size) == (self.info.etag, self.info.size)

    def _changed(self) -> BodyFault:
        return BodyFault(
            f"{self.info.key!r} changed at its source after the spool's disk failed at byte {self._broke_at}: "
            "open it again."
        )
