"""What `RingQueue` holds, and in which order it leaves: keys, lanes, bounded skipping.

Plain synchronous state, no waiting and no closing: those are `queue`. Each
method takes O(1) steps, amortised; none walks over what is queued.

**Keys.** One dict leads from a key to its entry. An entry that is discarded or moved
stays behind in its old lane, dead, because a deque cannot give up its middle in O(1):
it is dead once the dict leads elsewhere. A lane sheds its dead when they outnumber the
living, so memory follows what is queued.

**Lanes.** An integer has a bit for every lane that holds something; its lowest bit is
the best lane.

**Skipping.** An item of lane ``k`` may see ``max_skips * k`` items of better lanes leave
before it. Counting that for each waiting item would be a walk, so one clock serves all:
it ticks whenever the best lane serves past another, and each lane has an offset which
takes out of that clock what does not count against it, its own items. An entry's ``due``
stands on its lane's clock; ``_alarm`` is a time before which no lane's head is due, so
the usual dequeue compares two integers and looks no further. Several lanes overdue at
once: the worst goes first, for then nobody overdue is passed by a better one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from itertools import islice
from typing import Generic, NoReturn, TypeAlias, TypeVar

__all__ = ["Lanes"]

T = TypeVar("T")

_NEVER = 1 << 62
_SMALL = 1024


class _Lane(Generic[T]):
    """One lane: its entries in order, the dead among them, its share of the clock."""

    __slots__ = ("bit", "bound", "dead", "number", "offset", "queue")

    def __init__(self, number: int, max_skips: int) -> None:
        self.number = number
        self.bit: int = 1 << number
        self.bound = max_skips * number
        self.queue: deque[_Entry[T]] = deque()
        self.dead = 0
        self.offset = 0


_Entry: TypeAlias = tuple[T, Hashable, _Lane[T], int]
"""Item, key, lane, and when on the lane's clock it is due."""


class Lanes(Generic[T]):
    """Items in lanes, found again by their keys.

    Attributes:
        size: Items that are queued.
        enqueued: Items ever taken in.
        duplicates: Pushes that found their key queued.
        discarded: Items removed by key.
        keyed: Whether there is a key function.
    """

    __slots__ = (
        "_alarm",
        "_by_bit",
        "_by_number",
        "_index",
        "_key",
        "_mask",
        "_max_skips",
        "_passes",
        "_scarce",
        "_table",
        "discarded",
        "duplicates",
        "enqueued",
        "keyed",
        "size",
    )

    def __init__(self, *, lanes: int, key: Callable[[T], Hashable] | None, max_skips: int) -> None:
        self.size = 0
        self.enqueued = 0
        self.duplicates = 0
        self.discarded = 0
        self.keyed = key is not None
        self._key = key
        self._index: dict[Hashable, _Entry[T]] = {}
        self._max_skips = max_skips
        self._by_number: dict[int, _Lane[T]] = {n: _Lane(n, max_skips) for n in range(lanes)}
        self._by_bit: dict[int, _Lane[T]] = {lane.bit: lane for lane in self._by_number.values()}
        self._mask: int = 0
        self._passes = 0
        self._alarm = _NEVER
        # A dict gives no memory back while it is drained. Above `_table` keys it has grown
        # enough to be watched; below `_scarce` it is far too large, and made anew.
        self._table = _SMALL if self.keyed else _NEVER
        self._scarce = -1

    def push(self, item: T, number: int, limit: int) -> bool | None:
        """Take an item in at its lane's tail.

        Returns:
            Whether it was taken in; ``False`` if its key is queued already (on a worse lane:
            that one moved here), ``None`` if ``limit`` items or more are queued.
        """
        try:
            lane = self._by_number[number]
        except (KeyError, TypeError):
            self._refuse_lane(number)
        key = None
        if self._key is not None:
            key = self._key(item)
            found = self._find(key)
            if found is not None:
                self.duplicates += 1
                if lane.number < found[2].number:
                    self._move(found, lane)
                return False
        size = self.size
        if size >= limit:
            return None
        if size >= self._table:
            self._fit_table()
        self.size = size + 1
        self.enqueued += 1
        self._append(item, key, lane)
        return True

    def pop(self) -> T:
        """Take out the item whose turn it is; something must be queued."""
        mask = self._mask
        bit = mask & -mask
        lane = self._by_bit[bit]
        if mask != bit:
            if self._passes >= self._alarm and (overdue := self._overdue()) is not None:
                lane = overdue
                self._count_against_worse(lane)
            else:
                self._passes += 1
                lane.offset += 1
        if lane.dead:
            self._bury(lane)
        entry = lane.queue.popleft()
        if self._key is not None:
            del self._index[entry[1]]
        self.size = size = self.size - 1
        if lane.dead:
            self._shed(lane)
        elif not lane.queue:
            self._mask &= ~lane.bit
        if size < self._scarce:
            self._fit_table()
        return entry[0]

    def peek(self) -> T:
        """What `pop` would take out."""
        mask = self._mask
        lane = self._by_bit[mask & -mask]
        if self._passes >= self._alarm:
            lane = self._overdue() or lane
        if lane.dead:
            self._bury(lane)
        return lane.queue[0][0]

    def discard(self, key: Hashable) -> bool:
        """Remove the item with this key."""
        entry = self._find(key)
        if entry is None:
            return False
        del self._index[key]
        self.size -= 1
        self.discarded += 1
        self._leave_behind(entry[2])
        if self.size < self._scarce:
            self._fit_table()
        return True

    def promote(self, key: Hashable, number: int) -> bool:
        """Move the item with this key to the tail of a lane; in its own lane it keeps its place."""
        lane = self._lane(number)
        entry = self._find(key)
        if entry is None:
            return False
        if entry[2] is not lane:
            self._move(entry, lane)
        return True

    def __contains__(self, key: Hashable) -> bool:
        return self._find(key) is not None

    def sizes(self) -> tuple[int, ...]:
        """Items in each lane."""
        return tuple(len(lane.queue) - lane.dead for lane in self._by_number.values())

    @property
    def dead(self) -> int:
        """Entries of items that were discarded or moved and still lie in a lane."""
        return sum(lane.dead for lane in self._by_number.values())

    def first(self, limit: int) -> list[T]:
        """Up to ``limit`` items in the order in which they would leave now; O(limit) a lane."""
        # The twin drains by the very code that the original will drain by.
        twin: Lanes[T] = Lanes(lanes=len(self._by_number), key=None, max_skips=self._max_skips)
        twin._mask = self._mask
        twin._passes = self._passes
        twin._alarm = self._alarm
        for number, lane in self._by_number.items():
            living = (entry for entry in lane.queue if self._is_alive(entry, lane))
            twin._by_number[number].queue.extend(islice(living, limit))
            twin._by_number[number].offset = lane.offset
        return [twin.pop() for _ in range(min(limit, self.size))]

    # ── lanes ────────────────────────────────────────────────────────────────

    def _lane(self, number: int) -> _Lane[T]:
        try:
            return self._by_number[number]
        except (KeyError, TypeError):
            self._refuse_lane(number)

    def _refuse_lane(self, number: object) -> NoReturn:
        if not isinstance(number, int):
            raise TypeError(f"lane must be a whole number, not {number!r}.") from None
        most = len(self._by_number) - 1
        raise ValueError(f"lane must be from 0 to {most} in this queue, not {number}.") from None

    def _append(self, item: T, key: Hashable, lane: _Lane[T]) -> None:
        passes = self._passes
        entry = (item, key, lane, passes - lane.offset + lane.bound)
        if self._key is not None:
            self._index[key] = entry
        if not lane.queue:
            self._mask |= lane.bit
            if lane.number:
                self._alarm = min(self._alarm, passes + lane.bound)
        lane.queue.append(entry)

    def _move(self, entry: _Entry[T], lane: _Lane[T]) -> None:
        self._append(entry[0], entry[1], lane)
        self._leave_behind(entry[2])

    # ── bounded skipping ─────────────────────────────────────────────────────

    def _overdue(self) -> _Lane[T] | None:
        """The worst lane whose head has been passed often enough, or ``None``, with the alarm set anew."""
        alarm = _NEVER
        rest = self._mask & ~1  # nobody is better than lane 0
        while rest:
            bit = 1 << (rest.bit_length() - 1)
            rest ^= bit
            lane = self._by_bit[bit]
            if lane.dead:
                self._bury(lane)
            due = lane.queue[0][3] + lane.offset
            if due <= self._passes:
                return lane
            alarm = min(alarm, due)
        self._alarm = alarm
        return None

    def _count_against_worse(self, served: _Lane[T]) -> None:
        # The clock stands still when an overdue lane is served, since it passed nobody
        # better; for those worse than it, time goes on. The alarm, rung already, stays.
        worse = self._mask & -(served.bit << 1)
        while worse:
            bit = worse & -worse
            worse ^= bit
            self._by_bit[bit].offset -= 1

    # ── keys, and the dead ───────────────────────────────────────────────────

    def _find(self, key: Hashable) -> _Entry[T] | None:
        try:
            return self._index.get(key)
        except TypeError as error:
            raise TypeError(f"key must be hashable, not {type(key).__name__} ({error}).") from error

    def _is_alive(self, entry: _Entry[T], lane: _Lane[T]) -> bool:
        return not lane.dead or self._index.get(entry[1]) is entry

    def _leave_behind(self, lane: _Lane[T]) -> None:
        """One more entry of this lane is dead."""
        lane.dead += 1
        self._shed(lane)

    def _bury(self, lane: _Lane[T]) -> None:
        """Drop the dead from the lane's head; at least one of its entries is alive."""
        queue = lane.queue
        while self._index.get(queue[0][1]) is not queue[0]:
            queue.popleft()
            lane.dead -= 1

    def _shed(self, lane: _Lane[T]) -> None:
        """Drop all the dead once they outnumber the living, and with nobody alive, close the lane."""
        if lane.dead * 2 > len(lane.queue):
            lane.queue = deque(entry for entry in lane.queue if self._index.get(entry[1]) is entry)
            lane.dead = 0
            if not lane.queue:
                self._mask &= ~lane.bit

    def _fit_table(self) -> None:
        """Make the dict anew if it holds far fewer keys than it did, and note when to look again."""
        if self.size < self._scarce:
            self._index = dict(self._index)
        self._table = max(_SMALL, self.size * 2)
        self._scarce = self._table // 8 if self._table > _SMALL else -1
