"""A source before another one: what that gave stays on disk for minutes. Owns options, life, figures and the log.

Knows no HTTP and no target; what is read, and by whom, is `flight`'s; files are `shelf`'s.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Self

import anyio
from anyio.to_thread import run_sync

from prewarmkit.errors import ConfigurationError, NotFound
from prewarmkit.media import ObjectInfo
from prewarmkit.sources.base import MediaSource
from prewarmkit.sources.spool.flight import Flight
from prewarmkit.sources.spool.home import Home
from prewarmkit.sources.spool.place import FULL
from prewarmkit.sources.spool.reader import SpooledReader
from prewarmkit.sources.spool.record import Wanted
from prewarmkit.sources.spool.shelf import Shelf
from prewarmkit.sources.spool.stats import Figures, SpoolStats

__all__ = ["SpooledSource"]

_logger = logging.getLogger("prewarmkit.sources")

_MAX_BYTES = 1024**3


class SpooledSource:
    """Keeps what a source gave on this machine's disk for minutes; a `prewarmkit.sources.MediaSource`.

    So several bots, and attempts that are made again, read the source once::

        async with R2Client(...) as r2, SpooledSource(r2, "/var/cache/app/spool") as source:
            async with PrewarmPool(source, bots, store) as pool:
                ...

    Whoever opens a key while it is being read shares that read, however slow, cancelled or failing the others are. A medium that
    is larger than ``max_bytes``, or that finds no room because all that is here is in use, is passed on without
    being kept; so is every medium while the disk is full or fails, and the log says so once. Errors of the
    wrapped source pass unchanged.

    **Age**: bytes are served for up to ``ttl_seconds`` after the source was asked for them, whatever became of the
    object since. Who knows better says so: ``open(key, etag=...)`` reads anew if another version is here, and
    `head`, which always asks the source, drops a file of another version.

    **Files** are written under a temporary name, renamed when whole, summed each time before they are used again, 0600 in a
    directory of 0700. Nothing is fsynced: what a power cut spoils does not match its checksum, and is read anew. Several
    processes may share a directory, by file locks of the operating system (on a local file system, POSIX
    only); each reads a medium at most once. What a killed process left is removed when one enters.

    Args:
        source: The source to spare; whoever made it enters and closes it, and keeps it open for longer than this.
        directory: For this alone; made where it is missing. It stays, and so do the files that are still fresh.
        ttl_seconds: How long bytes are served.
        max_bytes: Of media in the directory, all processes' together; the oldest that nobody reads goes first.
        namespace: What tells the keys of this source from another's that is kept in the same directory.
        clock: The calendar's time in seconds, which all processes share.

    Raises:
        ConfigurationError: While it is entered: the directory cannot be used.
        TypeError, ValueError: An argument is no such thing, or cannot work.
    """

    keeps_copies = True
    """Targets tell `open` which version a medium is of."""

    def __init__(
        self,
        source: MediaSource,
        directory: str | os.PathLike[str],
        ttl_seconds: float = 300,
        max_bytes: int = _MAX_BYTES,
        *,
        namespace: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        _check_options(source, directory, ttl_seconds, max_bytes, namespace)
        self.source = source
        self.space = namespace
        self.figures = Figures()
        self._directory = Path(os.fspath(directory))
        self._ttl_seconds = float(ttl_seconds)
        self._clock = clock
        self._home: Home | None = None
        self._flights: dict[str, Flight] = {}
        self._is_troubled = False
        self.shelf = Shelf(
            self._directory,
            space=namespace,
            ttl_ns=int(ttl_seconds * 1e9),
            max_bytes=max_bytes,
            now_ns=self.now_ns,
        )

    def __repr__(self) -> str:
        return f"SpooledSource({self.source!r}, {os.fspath(self._directory)!r})"

    # ── life ─────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Self:
        if self._home is not None:
            raise RuntimeError("This SpooledSource is entered already.")
        self._home = home = Home()
        try:
            await self._enter_directory()
            await home.open()
            home.start(self._sweep_now_and_then)
        except BaseException:
            self._home = None
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """End the reads that go on, remove what has expired, leave what has not."""
        home = self._home
        if home is not None:
            await home.close()
            self._home = None
            self._flights.clear()
            with anyio.CancelScope(shield=True):
                await self._sweep()

    async def _enter_directory(self) -> None:
        try:
            await run_sync(self.shelf.enter)
        except OSError as error:
            if error.errno not in FULL:
                raise ConfigurationError(
                    f"The spool's directory {os.fspath(self._directory)!r} cannot be used ({_what(error)}): it has to be "
                    "on a local file system with file locks."
                ) from error
            self.trouble(error)

    async def _sweep_now_and_then(self) -> None:
        while True:
            await anyio.sleep(max(1.0, self._ttl_seconds))
            await self._sweep()

    async def _sweep(self) -> None:
        try:
            await run_sync(self.shelf.sweep)
        except OSError as error:
            self.trouble(error)

    # ── MediaSource ──────────────────────────────────────────────────────────

    def open(
        self, key: str, *, etag: str | None = None, size: int | None = None
    ) -> AbstractAsyncContextManager[SpooledReader]:
        """Open a medium for one streaming read.

        Args:
            key: The key.
            etag: The version that it must have, where the caller knows: bytes of another one that are here are not
                served. What the source then gives is given, whatever its version.
            size: As ``etag``.

        Raises:
            ConfigurationError: The spool is not entered.
            BodyFault: While reading: the file, or the source, was changed under the reader.
            Exception: Whatever the wrapped source raises.
        """
        if not isinstance(key, str):
            raise TypeError(f"key must be a str, not {type(key).__name__}.")
        return self._open(key, Wanted(etag and etag.removeprefix("W/").strip('"'), size))

    @asynccontextmanager
    async def _open(self, key: str, wanted: Wanted) -> AsyncGenerator[SpooledReader, None]:
        async def read_past() -> Flight:
            return (await self._board(key, wanted, is_shared=False))[0]

        flight, is_new = await self._board(key, wanted)
        self._count(flight, is_new=is_new)
        assert flight.info is not None
        reader = SpooledReader(flight.info, flight, self.figures, read_past)
        try:
            yield reader
        finally:
            for each in reader.flights:
                await _leave(each, reader.given)

    async def head(self, key: str) -> ObjectInfo:
        """What the wrapped source says now; a spooled file of another version is not served any more."""
        try:
            info = await self.source.head(key)
        except NotFound:
            await self._drop(key, None)
            raise
        await self._drop(key, Wanted(info.etag, info.size))
        return info

    def url(self, key: str, *, version: str | None = None) -> str | None:
        """The wrapped source's."""
        return self.source.url(key, version=version)

    def stats(self) -> SpoolStats:
        """The figures of this process since this was made; reads no disk."""
        figures = self.figures
        return SpoolStats(
            hits=figures.hits,
            joined=figures.joined,
            misses=figures.misses,
            passed=figures.passed,
            damaged=self.shelf.damaged,
            evicted=self.shelf.evicted,
            bytes_read=figures.bytes_read,
            bytes_given=figures.bytes_given,
            bytes_held=self.shelf.held_bytes,
        )

    # ── reads that are shared ────────────────────────────────────────────────

    async def _board(self, key: str, wanted: Wanted, *, is_shared: bool = True) -> tuple[Flight, bool]:
        """Join a read, or begin one (then True), and wait until it is known what it gives."""
        while True:
            flight, is_new = self._join(key, wanted, is_shared=is_shared)
            try:
                await flight.settled.wait()
            except BaseException:
                await _leave(flight, 0)
                raise
            if flight.failure is not None:
                error = flight.failure.again()
                await _leave(flight, 0)
                raise error
            if flight.pipe is not None and flight.is_claimed:
                is_shared = False  # it has its reader: this one asks the source for itself
            elif flight.is_hit and flight.info is not None and not wanted.fits(flight.info):
                self.forget(flight)
            else:
                flight.is_claimed = True
                return flight, is_new
            await _leave(flight, 0)

    def _join(self, key: str, wanted: Wanted, *, is_shared: bool) -> tuple[Flight, bool]:
        home = self._home
        if home is None:
            raise ConfigurationError(f"{self!r} is not entered: use `async with` before anything is read.")
        flight = self._flights.get(key) if is_shared else None
        is_new = flight is None or not flight.may_join(wanted)
        if flight is None or is_new:
            flight = Flight(self, key, wanted, is_shared)
            if is_shared:
                self._flights[key] = flight
            home.start(flight.run)
        flight.join()
        return flight, is_new

    def _count(self, flight: Flight, *, is_new: bool) -> None:
        if flight.pipe is not None:
            self.figures.passed += 1
        elif not is_new:
            self.figures.joined += 1
        elif flight.is_hit:
            self.figures.hits += 1
        else:
            self.figures.misses += 1

    async def _drop(self, key: str, unless: Wanted | None) -> None:
        flight = self._flights.get(key)
        # One that has not told yet what it reads may have found a file that is dropped now.
        if flight is not None and not (unless and flight.info is not None and unless.fits(flight.info)):
            self.forget(flight)
        try:
            await run_sync(lambda: self.shelf.drop(key, unless=unless))
        except OSError as error:
            self.trouble(error)

    # ── what a flight asks ───────────────────────────────────────────────────

    def now_ns(self) -> int:
        """The calendar's time."""
        return int(self._clock() * 1e9)

    def is_current(self, flight: Flight) -> bool:
        """Whether whoever asks for the key now would join this flight."""
        return self._flights.get(flight.key) is flight

    def forget(self, flight: Flight) -> None:
        """Nobody shall join it any more."""
        if self.is_current(flight):
            del self._flights[flight.key]

    def trouble(self, error: OSError) -> None:
        """Say once that the disk fails."""
        if not self._is_troubled:
            self._is_troubled = True
            _logger.warning(
                "The spool %s cannot be used (%s): media are read from their source until it can.",
                self._directory,
                _what(error),
            )

    def works(self) -> None:
        """Say once that the disk works again."""
        if self._is_troubled:
            self._is_troubled = False
            _logger.info("The spool %s works again.", self._directory)


async def _leave(flight: Flight, given: int) -> None:
    flight.leave(given)
    if flight.is_ending:
        with anyio.CancelScope(shield=True):
            await flight.closed.wait()


def _what(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _check_options(
    source: object, directory: object, ttl_seconds: object, max_bytes: object, namespace: object
) -> None:
    if not isinstance(source, MediaSource):
        raise TypeError(f"source is a MediaSource (open, head, url), not {type(source).__name__}.")
    if not isinstance(directory, str | os.PathLike) or not os.fspath(directory):
        raise TypeError(f"directory is a path, not {directory!r}.")
    if isinstance(ttl_seconds, bool) or not isinstance(ttl_seconds, int | float):
        raise TypeError(f"ttl_seconds is a number of seconds, not {ttl_seconds!r}.")
    if not (ttl_seconds > 0 and math.isfinite(ttl_seconds)):
        raise ValueError(f"ttl_seconds must be more than 0 and finite, not {ttl_seconds!r}.")
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int):
        raise TypeError(f"max_bytes is a number of bytes, not {max_bytes!r}.")
    if max_bytes < 1:
        raise ValueError(f"max_bytes must be at least 1, not {max_bytes!r}.")
    if not isinstance(namespace, str):
        raise TypeError(f"namespace is a str, not {namespace!r}.")
