"""What a `RingQueue` holds and in which order it leaves: keys, lanes, bounded skipping.

Plain synchronous state. Waiting, closing and the rule of one thread are `queue`'s, which
is asked wherever the usual way does not lead on (`_enqueue_slowly`, `_dequeue_slowly`).
Each method takes O(1) steps, amortised; none walks over what is queued.

**Keys.** A dict leads from each key to its entry, and each lane has a deque of entries. A
queue that has neither keys nor lanes is `bare`.

**Room.** The usual way compares nothing with ``maxsize``: it spends ``_room``, places that
`_grant` counted out. None is left while someone waits, when the queue is full or closed,
so all these cases cost the usual way one test.

**Lanes.** An integer has a bit for every lane that holds something; its lowest bit is the
best lane.

**Skipping.** An item of lane ``k`` is due once ``max_skips * k`` items of other lanes have
left before it. Counting that for each waiting item would be a walk, so one clock serves
all: it ticks whenever an item leaves while other lanes wait, and a lane keeps apart the
ticks that were its own. Before ``_alarm`` no head is due, so the usual dequeue compares
two integers and looks no further. Of several lanes that are due the worst goes first, for
then nobody who is due is passed by a better one, and the bound holds for every item.
"""

# RLock._is_owned, on purpose: see owner.py
# pyright: reportPrivateUsage=false
from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import count, islice
from typing import Generic, NoReturn, TypeVar

from prewarmkit.ring.lane import NEVER, Entry, Lane
from prewarmkit.ring.owner import Owner

__all__ = ["Lanes"]

T = TypeVar("T")

_SMALL = 1024


class Lanes(Generic[T]):
    """The order of a `RingQueue`, which is what to read about its methods' meaning."""

    __slots__ = (
        "__weakref__",
        "_alarm",
        "_best",
        "_by_bit",
        "_clock",
        "_dead",
        "_discarded",
        "_duplicates",
        "_granted",
        "_index",
        "_is_keyed",
        "_is_watched",
        "_key",
        "_lanes",
        "_low",
        "_mask",
        "_max_skips",
        "_owner",
        "_room",
        "_scarce",
        "_table",
        "_worst_first",
    )

    def __init__(
        self, *, lanes: int, key: Callable[[T], Hashable] | None, max_skips: int, owner: Owner
    ) -> None:
        self._owner = owner
        self._room = 0
        self._granted = 0  # so `_granted - _room` were taken in
        self._duplicates = 0
        self._discarded = 0
        self._is_watched = False  # the next change must be told to `queue`
        self._is_keyed = key is not None
        # Without a key function each item is its own: a number of its own is its key.
        numbers = count()
        self._key: Callable[[T], Hashable] = key if key is not None else lambda _: next(numbers)
        self._index: dict[Hashable, Entry[T]] = {}
        self._max_skips = max_skips
        self._lanes: dict[int, Lane[T]] = {number: Lane(number, max_skips) for number in range(lanes)}
        self._by_bit: dict[int, Lane[T] | None] = {0: None} | {
            lane.bit: lane for lane in self._lanes.values()
        }
        self._worst_first = tuple(self._lanes.values())[:0:-1]  # lane 0 is never due
        self._mask: int = 0
        self._best: Lane[T] | None = None
        self._clock = 0
        self._alarm = NEVER
        # A dict gives no memory back while it is drained. From `_table` keys on it has grown
        # enough to be watched; below `_low` it is far too large, and made anew. `_scarce` is
        # what a dequeue compares with: `_low`, or more than anything while some are dead.
        self._table = _SMALL
        self._low = self._scarce = -1
        self._dead = 0

    def _enqueue_slowly(self, item: T, lane: int) -> bool:
        raise NotImplementedError

    def _dequeue_slowly(self) -> T:
        raise NotImplementedError

    # ── in and out: the two that must be fast, so they call nothing ──────────

    def enqueue_nowait(self, item: T, lane: int = 0) -> bool:
        """Take an item in, now.

        Returns:
            ``False`` if an item with its key is queued already.

        Raises:
            QueueFull: There is no room, or what room there is has been promised to tasks that wait.
            QueueClosed: The queue was closed.
            ValueError: There is no such lane.
        """
        if not self._owner._is_owned():
            return self._enqueue_slowly(item, lane)
        try:
            place = self._lanes[lane]
        except (KeyError, TypeError):
            self._refuse_lane(lane)
        key = self._key(item)
        room = self._room  # now, since a key function may use the queue itself
        if not room:
            return self._enqueue_slowly(item, lane)
        index = self._index
        try:
            if key in index:
                return self._meet_again(key, place)
        except TypeError as error:
            self._refuse_key(key, error)
        clock = self._clock
        index[key] = entry = (item, key, place, clock - place.own if lane else 0)
        self._room = room - 1
        queue = place.queue
        if queue:
            queue.append(entry)
        else:
            queue.append(entry)  # first, so that nothing finds the lane open and empty
            self._mask |= place.bit
            best = self._best
            if best is None or lane < best.number:
                self._best = place
            if not place.alarm:
                self._set_alarm(place)
        return True

    def dequeue_nowait(self) -> T:
        """Hand out the item whose turn it is, now.

        Raises:
            QueueEmpty: There is none, or each is kept for a task that waited for it. On a
                queue that is closed and drained, this error is a `QueueClosed` as well.
        """
        place = self._best
        if place is None or self._is_watched or not self._owner._is_owned():
            return self._dequeue_slowly()
        if self._mask != place.bit:  # others wait
            clock = self._clock
            if clock >= self._alarm:
                place = self._next_in_turn(place, clock)
            self._clock = clock + 1
            if place.number:
                place.own += 1
        queue = place.queue
        entry = queue.popleft()
        index = self._index
        try:
            del index[entry[1]]
        except BaseException:  # a key that does not know itself any more
            queue.appendleft(entry)
            raise
        if not queue:
            self._mask = mask = self._mask ^ place.bit
            self._best = self._by_bit[mask & -mask]
        if len(index) < self._scarce:
            self._tend(place)
        return entry[0]

    # The same by names that no subclass overrides.
    _put_in = enqueue_nowait
    _take_out = dequeue_nowait

    # ── the rest of the order ────────────────────────────────────────────────

    @property
    def _size(self) -> int:
        return len(self._index)

    def _head(self) -> T:
        """What `dequeue_nowait` would hand out; something must be queued."""
        place = self._best
        assert place is not None
        if self._clock >= self._alarm and self._mask != place.bit:
            place = self._next_in_turn(place, self._clock)
        return place.queue[0][0]

    def _remove(self, key: Hashable) -> bool:
        entry = self._find(key)
        if entry is None:
            return False
        del self._index[key]
        self._discarded += 1
        self._leave_behind(entry[2])
        return True

    def _move(self, key: Hashable, place: Lane[T]) -> bool:
        """Move a queued item to another lane's tail; in its own lane it keeps its place."""
        entry = self._find(key)
        if entry is None:
            return False
        if entry[2] is not place:
            clock = self._clock
            self._index[key] = moved = (entry[0], key, place, clock - place.own)
            if not place.queue:
                self._mask = mask = self._mask | place.bit
                self._best = self._by_bit[mask & -mask]
                if not place.alarm:
                    self._set_alarm(place)
            place.queue.append(moved)
            self._leave_behind(entry[2])
        return True

    def _meet_again(self, key: Hashable, place: Lane[T]) -> bool:
        """An enqueue found its key queued."""
        self._duplicates += 1
        if place.number < self._index[key][2].number:
            self._move(key, place)
        return False

    def _sizes(self) -> tuple[int, ...]:
        return tuple(lane.living for lane in self._lanes.values())

    def _first(self, limit: int) -> list[T]:
        """Up to ``limit`` items in the order in which they would leave now; O(limit) a lane."""
        # The twin drains by the very code that the original will drain by.
        twin: Lanes[T] = Lanes(
            lanes=len(self._lanes), key=self._key, max_skips=self._max_skips, owner=self._owner
        )
        twin._mask, twin._clock, twin._alarm = self._mask, self._clock, self._alarm
        for lane, copy in zip(self._lanes.values(), twin._lanes.values(), strict=True):
            if lane.dead:
                self._bury(lane)
            copy.queue.extend(islice(lane.queue, limit))
            copy.own, copy.alarm = lane.own, lane.alarm
            twin._index.update((entry[1], entry) for entry in copy.queue)
        twin._best = twin._by_bit[twin._mask & -twin._mask]
        return [twin.dequeue_nowait() for _ in range(min(limit, self._size))]

    # ── room ─────────────────────────────────────────────────────────────────

    def _grant(self, limit: int) -> None:
        """Count out room for the usual way, so that no more than ``limit`` are queued."""
        size = self._size
        if size >= self._table:
            self._fit_table()
        room = max(min(limit, self._table) - size, 0)
        self._granted += room - self._room
        self._room = room

    # ── lanes ────────────────────────────────────────────────────────────────

    def _lane(self, number: int) -> Lane[T]:
        try:
            return self._lanes[number]
        except (KeyError, TypeError):
            self._refuse_lane(number)

    def _refuse_lane(self, number: object) -> NoReturn:
        if not isinstance(number, int):
            raise TypeError(f"lane must be a whole number, not {number!r}.") from None
        most = len(self._lanes) - 1
        raise ValueError(f"lane must be from 0 to {most} in this queue, not {number}.") from None

    def _set_alarm(self, place: Lane[T]) -> None:
        """The lane got its first item since its alarm last rang in vain."""
        place.alarm = self._clock + place.bound
        self._alarm = min(self._alarm, place.alarm)

    def _next_in_turn(self, best: Lane[T], clock: int) -> Lane[T]:
        """The worst lane whose head is due, or else the best, with the alarm set anew; a step for each lane."""
        alarm = NEVER
        for place in self._worst_first:
            due = place.alarm
            if due <= clock:  # so it was once; the head may be another by now, or the lane empty
                queue = place.queue
                if not queue:
                    place.alarm = 0
                    continue
                place.alarm = due = queue[0][3] + place.own + place.bound
                if due <= clock:
                    return place
            alarm = min(alarm, due)
        self._alarm = alarm
        return best

    # ── keys, and the dead ───────────────────────────────────────────────────

    def _find(self, key: Hashable) -> Entry[T] | None:
        try:
            return self._index.get(key)
        except TypeError as error:
            self._refuse_key(key, error)

    def _refuse_key(self, key: object, error: TypeError) -> NoReturn:
        try:
            hash(key)
        except TypeError:
            pass
        else:
            raise error  # of the key's own making, when it was compared
        raise TypeError(f"key must be hashable, not {type(key).__name__} ({error}).") from error

    def _leave_behind(self, place: Lane[T]) -> None:
        """One more entry of this lane is dead."""
        self._scarce = NEVER  # first, so that an interruption here is mended at the next dequeue
        place.dead += 1
        self._dead += 1
        self._tend(place)

    def _tend(self, place: Lane[T]) -> None:
        """Clear away what may lie at a lane's head, and memory that is not used any more."""
        dropped: object = None  # lives until all is right again: its finalizers may come back here
        if place.dead:
            gone, dropped = place.shed(self._index)
            self._dead -= gone
            if not place.queue:
                self._mask = mask = self._mask & ~place.bit
                self._best = self._by_bit[mask & -mask]
        if len(self._index) < self._low:
            self._fit_table()
        self._scarce = NEVER if self._dead else self._low
        del dropped

    def _bury(self, place: Lane[T]) -> None:
        """Drop a lane's dead, all of them; its head is alive, and stays."""
        gone, dropped = place.bury(self._index)
        self._dead -= gone
        self._scarce = NEVER if self._dead else self._low
        del dropped

    def _fit_table(self) -> None:
        """Make the dict anew if it holds far fewer keys than it did, and note when to look again."""
        size = len(self._index)
        if size < self._low:
            self._index = dict(self._index)
        self._table = max(_SMALL, size * 2)
        self._low = self._table // 8 if self._table > _SMALL else -1
        self._scarce = NEVER if self._dead else self._low
