"""A `RingQueue` without lanes and keys: a deque, with a bound, waiting and close.

It differs from its parent in the order alone, which is the deque's. `_front` is what may be
taken from without a further look: the deque, or nothing while somebody waits.
"""

# RLock._is_owned, on purpose: see owner.py
# pyright: reportPrivateUsage=false
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from itertools import islice
from typing import Any, Final, TypeVar

from prewarmkit.ring.queue import RingQueue

__all__ = ["BareRingQueue"]

T = TypeVar("T")

_NOTHING: Final[deque[Any]] = deque(maxlen=0)


class BareRingQueue(RingQueue[T]):
    """What ``RingQueue(maxsize)`` is."""

    __slots__ = ("_front", "_row")

    def __init__(
        self,
        maxsize: int,
        *,
        lanes: int = 1,
        key: Callable[[T], Hashable] | None = None,
        max_skips: int = 8,
    ) -> None:
        super().__init__(maxsize, lanes=lanes, key=key, max_skips=max_skips)
        self._row: deque[T] = deque()
        self._front = self._row

    def enqueue_nowait(self, item: T, lane: int = 0) -> bool:
        """See `RingQueue.enqueue_nowait`."""
        room = self._room
        if room and lane == 0 and self._owner._is_owned():
            self._room = room - 1
            self._row.append(item)
            return True
        return self._enqueue_slowly(item, lane)

    def dequeue_nowait(self) -> T:
        """See `RingQueue.dequeue_nowait`."""
        front = self._front
        if front and self._owner._is_owned():
            return front.popleft()
        return self._dequeue_slowly()

    async def enqueue(self, item: T, lane: int = 0) -> bool:
        """See `RingQueue.enqueue`."""
        room, turns = self._room, self._turns
        if room and turns and lane == 0 and self._owner._is_owned():
            self._turns = turns - 1
            self._room = room - 1
            self._row.append(item)
            return True
        return await super().enqueue(item, lane)

    async def dequeue(self) -> T:
        """See `RingQueue.dequeue`."""
        front, turns = self._front, self._turns
        if front and turns and self._owner._is_owned():
            self._turns = turns - 1
            return front.popleft()
        return await super().dequeue()

    _put_in = enqueue_nowait

    def _drain(self, count: int) -> list[T]:
        popleft = self._row.popleft
        batch = [popleft() for _ in range(count)]
        if self._is_watched:
            self._settle()
        return batch

    def _settle(self) -> None:
        super()._settle()
        self._front = _NOTHING if self._is_watched else self._row

    @property
    def _size(self) -> int:
        return len(self._row)

    def _head(self) -> T:
        return self._row[0]

    def _sizes(self) -> tuple[int, ...]:
        return (len(self._row),)

    def _first(self, limit: int) -> list[T]:
        return list(islice(self._row, limit))

    def _grant(self, limit: int) -> None:
        room = max(limit - len(self._row), 0)
        self._granted += room - self._room
        self._room = room
