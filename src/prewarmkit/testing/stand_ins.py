"""Stand-ins for a source and a target, to test a pool, or an app with one, without any server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import anyio
from attrs import define, field

from prewarmkit.media import Media, ObjectInfo, Warmed
from prewarmkit.sources.base import MediaReader, MediaSource

__all__ = ["ScriptedTarget", "UnreadSource"]

Script = Callable[[Media, int], Warmed | Exception | None]


class UnreadSource:
    """A source that nobody may read: a pool never does, its targets do."""

    def open(self, key: str) -> AbstractAsyncContextManager[MediaReader]:
        """Refuse."""
        raise AssertionError(f"{key!r} was opened")

    async def head(self, key: str) -> ObjectInfo:
        """Refuse."""
        raise AssertionError(f"{key!r} was asked for")

    def url(self, key: str, *, version: str | None = None) -> str | None:
        """There is none."""
        del key, version
        return None


@define(eq=False)
class ScriptedTarget:
    """Does what it is told: returns a handle, raises, waits at a gate, takes its time.

    Attributes:
        id: The target's id.
        script: Gets the medium and how often it was asked for; ``None`` means a good handle.
        seconds: How long each push takes.
        gate: Where each push waits until it opens.
        act: Does the whole push instead.
        calls: The keys that were pushed, in order.
        running: Pushes under way.
        most_at_once: The most that ever were.
    """

    id: str = "bot"
    script: Script = field(default=lambda _media, _nth: None)
    seconds: float = 0.0
    gate: anyio.Event | None = None
    act: Callable[[Media], Awaitable[Any]] | None = None
    calls: list[str] = field(init=False, factory=list[str])
    running: int = field(init=False, default=0)
    most_at_once: int = field(init=False, default=0)

    async def warm(self, media: Media, source: MediaSource) -> Warmed:
        """Push one medium, as told."""
        del source
        self.calls.append(media.key)
        nth = self.calls.count(media.key)
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            if self.gate is not None:
                await self.gate.wait()
            await anyio.sleep(self.seconds)
            if self.act is not None:
                return cast("Warmed", await self.act(media))  # a test may return nonsense, on purpose
        finally:
            self.running -= 1
        told = self.script(media, nth)
        if isinstance(told, Exception):
            raise told
        return told or Warmed(f"H:{media.key}:{nth}", unique_id=f"U:{media.key}")
