"""From a task that reads a source to the one reader that takes its bytes: one chunk at a time, none lost."""

from __future__ import annotations

from types import TracebackType

import anyio
from attrs import define, field

__all__ = ["Failure", "News", "Pipe"]


@define(eq=False)
class News:
    """Wakes whoever waits for the next change."""

    _event: anyio.Event = field(init=False, factory=anyio.Event)

    def tell(self) -> None:
        """Something changed."""
        event, self._event = self._event, anyio.Event()
        event.set()

    async def wait(self) -> None:
        """Wait for the next change; look first whether it has happened."""
        await self._event.wait()


@define(eq=False)
class Failure:
    """An error that several tasks raise, each as it was when it was met."""

    error: Exception
    _traceback: TracebackType | None = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._traceback = self.error.__traceback__

    def again(self) -> Exception:
        """The error itself, without what the last one to raise it added to its trace."""
        return self.error.with_traceback(self._traceback)


@define(eq=False)
class Pipe:
    """Holds no chunk but the one that is handed over; a reader that is cancelled has not taken it."""

    _chunk: bytes = field(init=False, default=b"")
    _is_ended: bool = field(init=False, default=False)
    _failure: Failure | None = field(init=False, default=None)
    _is_wanted: bool = field(init=False, default=False)
    _news: News = field(init=False, factory=News)

    async def wanted(self) -> None:
        """Wait until somebody wants a first chunk."""
        while not self._is_wanted:
            await self._news.wait()

    async def put(self, chunk: bytes) -> None:
        """Hand a chunk over; returns when it was taken."""
        if not chunk:
            return
        self._chunk = chunk
        self._news.tell()
        while self._chunk:
            await self._news.wait()

    def end(self, failure: Failure | None = None) -> None:
        """Nothing more comes."""
        if not self._is_ended:
            self._is_ended, self._failure = True, failure
            self._news.tell()

    async def take(self) -> bytes:
        """The next chunk; none at the end. Raises what the pipe ended with."""
        self._is_wanted = True
        self._news.tell()
        while not self._chunk:
            if self._failure is not None:
                raise self._failure.again()
            if self._is_ended:
                return b""
            await self._news.wait()
        chunk, self._chunk = self._chunk, b""
        self._news.tell()
        return chunk
