"""One read of one medium, shared by everybody who asks for it meanwhile.

A flight runs in a task of the spool's own, so that no reader's cancellation is another's. It looks for a file first; else
it reads the source into one, and its readers follow the file as it grows: a slow one keeps nobody waiting, and
memory holds a chunk for each. Where nothing may be written, one reader takes the bytes through a pipe instead.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

import anyio
from anyio.from_thread import check_cancelled
from anyio.to_thread import run_sync
from attrs import define, field

from prewarmkit.errors import BodyFault
from prewarmkit.media import ObjectInfo
from prewarmkit.sources.base import MediaReader, MediaSource
from prewarmkit.sources.spool.files import Part, Stamp
from prewarmkit.sources.spool.pipe import Failure, News, Pipe
from prewarmkit.sources.spool.record import Record, Wanted
from prewarmkit.sources.spool.shelf import Shelf
from prewarmkit.sources.spool.stats import Figures

__all__ = ["Flight", "Spool", "cut_short"]

_logger = logging.getLogger("prewarmkit.sources")

_CHUNK_BYTES = 256 * 1024
_IDLE_SECONDS = 10.0  # how long a read that nobody waits for may get no byte before it is given up


class Spool(Protocol):
    """What a flight knows of the spool that it belongs to."""

    source: MediaSource
    shelf: Shelf
    space: str
    figures: Figures

    def now_ns(self) -> int:
        """The calendar's time."""
        ...

    def trouble(self, error: OSError) -> None:
        """The disk could not do it."""
        ...

    def works(self) -> None:
        """The disk could do it."""
        ...

    def is_current(self, flight: Flight) -> bool:
        """Whether whoever asks for the key now would join this flight."""
        ...

    def forget(self, flight: Flight) -> None:
        """Nobody shall join it any more."""
        ...


@define(eq=False)
class Flight:
    """One read.

    Attributes:
        key: The key.
        wanted: The version that whoever started it asked for.
        is_shared: Whether it may look for a file, and make one.
        info: What is read; ``None`` until it is `settled`.
        is_hit: It was found on the disk.
        pipe: How the bytes come where there is no file.
        is_claimed: Whether the pipe has its reader.
        is_stuck: The disk failed in the middle: what is in the file can be read, and no more comes.
        is_over: Nothing more happens but that the last reader leaves.
        readers: How many are reading, or wait for it to settle.
        settled: Set when it is known what and how to read, or why not.
        closed: Set when everything that it held is free.
    """

    spool: Spool
    key: str
    wanted: Wanted
    is_shared: bool = True
    read_at_ns: int = field(init=False, default=0)
    info: ObjectInfo | None = field(init=False, default=None)
    failure: Failure | None = field(init=False, default=None)
    is_hit: bool = field(init=False, default=False)
    pipe: Pipe | None = field(init=False, default=None)
    is_claimed: bool = field(init=False, default=False)
    is_stuck: bool = field(init=False, default=False)
    is_over: bool = field(init=False, default=False)
    readers: int = field(init=False, default=0)
    settled: anyio.Event = field(init=False, factory=anyio.Event)
    closed: anyio.Event = field(init=False, factory=anyio.Event)
    _descriptor: int = field(init=False, default=-1)
    _stamp: Stamp | None = field(init=False, default=None)
    _written: int = field(init=False, default=0)
    _is_whole: bool = field(init=False, default=False)
    _is_wanted: anyio.Event = field(init=False, factory=anyio.Event)
    _is_free: anyio.Event = field(init=False, factory=anyio.Event)
    _news: News = field(init=False, factory=News)
    _moved_at: float = field(init=False, default=math.inf)
    _scope: anyio.CancelScope = field(init=False, factory=anyio.CancelScope)

    def __attrs_post_init__(self) -> None:
        self.read_at_ns = self.spool.now_ns()  # before the source is asked: never younger than it says

    # ── readers; synchronous, so that nothing can be cancelled half-way ───────

    def may_join(self, wanted: Wanted) -> bool:
        """Whether somebody who asks for that version now may share this read."""
        return (
            self.failure is None
            and self.pipe is None
            and not self.is_stuck
            and not self._scope.cancel_called
            and self.spool.shelf.is_fresh(self.read_at_ns)
            and (self.info is None or wanted.fits(self.info))
        )

    def join(self) -> None:
        """One more reader."""
        self.readers += 1
        self._scope.deadline = math.inf

    def leave(self, given: int) -> None:
        """One reader less, that was given so many bytes.

        A read that somebody had a part of is finished for who tries again; one that nobody wanted a byte of, or that
        gets no bytes, is not.
        """
        self.readers -= 1
        if self.readers:
            return
        if self.is_over or self.failure is not None:
            self.spool.forget(self)
            self._is_free.set()
        elif self.pipe is not None or not given:
            self.spool.forget(self)
            self._scope.cancel()
        else:
            self._scope.deadline = self._moved_at + _IDLE_SECONDS

    @property
    def is_ending(self) -> bool:
        """Whether nobody reads it, and what it holds is free in a moment."""
        is_ended = self.is_over or self.failure is not None
        return not self.readers and (is_ended or self._scope.cancel_called)

    async def read(self, offset: int) -> bytes | None:
        """The bytes from there on, as far as there are some; none at the end; ``None``: none will come from here."""
        self._is_wanted.set()
        if self._descriptor < 0:
            raise cut_short(self.key) if self.failure is None else self.failure.again()
        while offset >= self._written:
            if self.failure is not None:
                raise self.failure.again()
            if self._is_whole:
                await self._check_unchanged()
                return b""
            if self.is_stuck:
                return None
            await self._news.wait()
        return await self._read_at(offset, _CHUNK_BYTES)

    async def matches(self, offset: int, content: bytes) -> bool:
        """Whether these are the bytes that were read before, from there on."""
        return await self._read_at(offset, len(content)) == content

    async def _read_at(self, offset: int, count: int) -> bytes:
        count = min(count, self._written - offset)
        try:
            chunk = await run_sync(os.pread, self._descriptor, count, offset)
        except OSError as error:
            self.spool.trouble(error)
            chunk = b""
        if self._descriptor < 0:  # closed meanwhile, so that these may be another file's bytes
            raise cut_short(self.key)
        if not chunk:
            raise await self._changed()
        return chunk

    async def _check_unchanged(self) -> None:
        if self._descriptor >= 0 and Stamp.of(self._descriptor) != self._stamp:
            raise await self._changed()

    async def _changed(self) -> BodyFault:
        self.spool.forget(self)
        try:
            await run_sync(self.spool.shelf.drop_damaged, self.key, self._descriptor)
        except OSError as error:
            self.spool.trouble(error)
        return BodyFault(
            f"The spooled file of {self.key!r} was changed while it was read: open it again, it is read anew."
        )

    # ── the task ─────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Find it, or read it; then wait for the last reader."""
        try:
            with self._scope:
                try:
                    if not await self._find():
                        await self._fetch()
                except Exception as error:  # noqa: BLE001 - for its readers, each of whom raises it
                    if self.is_stuck:  # but they have gone on without it
                        _logger.warning(
                            "The source of %r could not be closed (%s).", self.key, type(error).__name__
                        )
                    self._end(error)
                self.is_over = True
                self.settled.set()
                self._news.tell()
                if self.readers:
                    await self._is_free.wait()
        finally:
            self._end(cut_short(self.key))
            self.spool.forget(self)
            self.is_over = True
            with anyio.CancelScope(shield=True):
                await self._close()

    def _end(self, error: Exception) -> None:
        if self.failure is None and not self._is_whole and not self.is_stuck:
            self.failure = Failure(error)
        if self.failure is not None:
            self.spool.forget(self)
        if self.pipe is not None:
            self.pipe.end(self.failure)
        self.settled.set()
        self._news.tell()

    async def _close(self) -> None:
        try:
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                await run_sync(os.close, descriptor)
        finally:
            self.closed.set()

    async def _find(self) -> bool:
        if not self.is_shared:
            return False
        try:
            found = await run_sync(partial(self.spool.shelf.find, self.key, self.wanted, check_cancelled))
        except OSError as error:
            self.spool.trouble(error)
            return False
        if found is None:
            return False
        self._descriptor, self._stamp = found.descriptor, found.stamp
        self.info, self.read_at_ns = found.record.info, found.record.read_at_ns
        self._written, self._is_whole, self.is_hit = found.record.info.size, True, True
        self.settled.set()
        return True

    async def _fetch(self) -> None:
        self.read_at_ns = self.spool.now_ns()
        part: Part | None = None
        try:
            async with self.spool.source.open(self.key) as reader:
                info = reader.info
                part = await self._admit(info.size)
                if part is None:
                    self.spool.forget(self)
                    self.pipe = Pipe()
                else:
                    self._descriptor = part.descriptor
                self.info = info
                self.settled.set()
                if self.pipe is not None:
                    await self._pass(self.pipe, reader)
                elif part is not None:
                    await self._is_wanted.wait()
                    await self._fill(part, reader)
            if self.pipe is None and part is not None and not self.is_stuck:
                self._check_size(info, self._written)
                if await self._publish(part, info):
                    part = None
                self._stamp = Stamp.of(self._descriptor)
                self._is_whole = True
            elif self.pipe is not None:
                self.pipe.end()
                self._is_whole = True
        except Exception as error:
            self._end(error)  # before the file goes, so that nobody joins in between
            raise
        finally:
            if part is not None:
                with anyio.CancelScope(shield=True):
                    await self._discard(part)

    async def _admit(self, size: int) -> Part | None:
        if not self.is_shared:
            return None
        try:
            return await run_sync(self.spool.shelf.admit, size)
        except OSError as error:
            self.spool.trouble(error)
            return None

    async def _fill(self, part: Part, reader: MediaReader) -> None:
        self._moved_at = anyio.current_time()
        async with _chunks_of(reader) as chunks:
            await self._write(part, chunks)

    async def _write(self, part: Part, chunks: AsyncIterator[bytes]) -> None:
        async for chunk in chunks:
            self.spool.figures.bytes_read += len(chunk)
            if part.written + len(chunk) > part.size:
                raise _wrong_size(self.key, part.size, f"more than {part.size}")
            try:
                await run_sync(part.write, chunk)
            except OSError as error:
                self.spool.trouble(error)
                self.spool.forget(self)
                self.is_stuck = True
                return
            self._written = part.written
            self._news.tell()
            self._moved_at = anyio.current_time()
            if not self.readers:
                self._scope.deadline = self._moved_at + _IDLE_SECONDS

    async def _pass(self, pipe: Pipe, reader: MediaReader) -> None:
        await pipe.wanted()
        async with _chunks_of(reader) as chunks:
            async for chunk in chunks:
                self.spool.figures.bytes_read += len(chunk)
                await pipe.put(chunk)

    def _check_size(self, info: ObjectInfo, given: int) -> None:
        if given != info.size:
            raise _wrong_size(self.key, info.size, str(given))

    async def _publish(self, part: Part, info: ObjectInfo) -> bool:
        record = Record(self.spool.space, self.key, info, self.read_at_ns, part.sha256())
        # Asked once it has the lock: another read, begun later, is what whoever comes shall have.
        is_current = partial(self.spool.is_current, self)
        try:
            is_published = await run_sync(self.spool.shelf.publish, part, self.key, record, is_current)
        except OSError as error:
            self.spool.trouble(error)
            return False
        self.spool.works()
        return is_published

    async def _discard(self, part: Part) -> None:
        try:
            await run_sync(self.spool.shelf.discard, part)
        except OSError as error:
            self.spool.trouble(error)


@asynccontextmanager
async def _chunks_of(reader: MediaReader) -> AsyncGenerator[AsyncIterator[bytes], None]:
    """A reader's bytes; one that is written as a generator does not close itself when it is left early."""
    chunks = aiter(reader)
    try:
        yield chunks
    finally:
        if isinstance(chunks, AsyncGenerator):
            with anyio.CancelScope(shield=True):
                await chunks.aclose()


def cut_short(key: str) -> BodyFault:
    """For who still reads when the spool is left."""
    return BodyFault(
        f"The read of {key!r} ended because its SpooledSource was left: keep it entered while it is read.",
        is_retryable=False,
    )


def _wrong_size(key: str, size: int, given: str) -> BodyFault:
    return BodyFault(
        f"The source of {key!r} announced {size} bytes and gave {given}: open it again.",
    )
