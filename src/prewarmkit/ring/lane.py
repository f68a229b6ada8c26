"""One lane of a `RingQueue`: its entries in order, the dead among them, its own part of the clock.

An entry that is discarded or moved stays behind, dead, because a deque cannot give up its
middle in O(1): it is dead once the dict of keys leads elsewhere. Two things hold between
any two calls: the entry at the head is alive, and the dead do not outnumber the living.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeAlias, TypeVar

__all__ = ["NEVER", "Entry", "Lane"]

T = TypeVar("T")

NEVER = 1 << 62
"""A time that no clock here reaches."""


class Lane(Generic[T]):
    """See the module. Times are `Lanes`' clock; ``own`` is what it ticked for this lane's own items.

    Attributes:
        number: 0 is the best.
        bit: This lane's in a mask of lanes.
        bound: How many items of other lanes may leave before one of this lane.
        queue: The entries, oldest first.
        dead: How many of them are dead.
        own: Ticks that count against other lanes, but not against this one.
        alarm: A time before which its head is not due, often a much earlier one; 0 is none. An
            empty lane may keep its alarm, which holds for what comes in later all the more.
    """

    __slots__ = ("alarm", "bit", "bound", "dead", "number", "own", "queue")

    def __init__(self, number: int, max_skips: int) -> None:
        self.number = number
        self.bit: int = 1 << number
        self.bound = max_skips * number
        self.queue: deque[Entry[T]] = deque()
        self.dead = 0
        self.own = 0
        self.alarm = 0 if number else NEVER

    @property
    def living(self) -> int:
        """How many items it holds."""
        return len(self.queue) - self.dead

    def shed(self, index: dict[Hashable, Entry[T]]) -> tuple[int, object]:
        """Make sure of what must hold; tell how many dead were dropped, and give what held them.

        Each entry is dropped once and the walk over all happens when half of them go, so
        this is O(1) for each entry that ever died. The caller lets go of the dropped once its
        own books are right: an item's finalizer may use the queue.
        """
        before, queue = self.dead, self.queue
        if before * 2 > len(queue):
            return self.bury(index)
        dropped: list[Entry[T]] = []
        while self.dead and index.get(queue[0][1]) is not queue[0]:
            dropped.append(queue.popleft())
            self.dead -= 1
        return before - self.dead, dropped

    def bury(self, index: dict[Hashable, Entry[T]]) -> tuple[int, object]:
        """Drop all the dead; as `shed` tells and gives."""
        before, queue = self.dead, self.queue
        self.queue = deque(entry for entry in queue if index.get(entry[1]) is entry)
        self.dead = 0
        return before, queue


Entry: TypeAlias = tuple[T, Hashable, Lane[T], int]
"""Item, key, lane, and the lane's clock when it came in."""
