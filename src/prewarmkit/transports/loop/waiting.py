"""How a connection is waited for, and when it stops waiting.

Owns one waiter and one timer, which is left running from one wait to the next: that is
cheaper than to set it anew. Knows nothing of what is waited for.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

__all__ = ["StallWatch", "Watched"]


class Watched(Protocol):
    """What is waited for."""

    def unsent(self) -> int:
        """How many bytes wait to go out; that they grow fewer is a movement."""
        ...

    def stall(self) -> None:
        """Nothing has moved for too long."""
        ...


class StallWatch:
    """One task's wait, as long as bytes go out or come in.

    Args:
        seconds: How long nothing may move.
    """

    __slots__ = ("_loop", "_seconds", "_stall_at", "_timer", "_unsent", "_waiter", "_watched")

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._watched: Watched | None = None  # while somebody waits
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stall_at = 0.0
        self._unsent = 0

    @property
    def is_waiting(self) -> bool:
        """Whether a task waits, or was woken and did not come to it yet."""
        return self._waiter is not None

    async def wait(self, watched: Watched) -> None:
        """Until something has changed."""
        if self._waiter is not None:
            raise RuntimeError("Two tasks read the same body: only one can.")
        self._watched = watched
        self._unsent = watched.unsent()
        self.note_life()
        if self._timer is None:
            self._timer = self._loop.call_at(self._stall_at, self._check)
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = self._watched = None

    def wake(self) -> None:
        """Something has changed."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def note_life(self) -> None:
        """Something has moved that nobody waits for."""
        self._stall_at = self._loop.time() + self._seconds

    def stop(self) -> None:
        """No more timer; who waits still needs a `wake`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        watched = self._watched
        if watched is None:
            return
        unsent = watched.unsent()
        if unsent < self._unsent:
            self._unsent = unsent
            self.note_life()
        if self._loop.time() < self._stall_at:
            self._timer = self._loop.call_at(self._stall_at, self._check)
        else:
            watched.stall()
