"""`RingQueue`: a bounded queue in memory, with keys, lanes and close, O(1) in every operation.

Owns waiting, closing and the rule of one thread; what is queued and in which order it
leaves is `lanes`, who waits is `waiters`. Knows nothing of media, stores, clocks or I/O.

The shape is nowait first: a change of state is synchronous and whole, and each one ends
by setting right who may go on (`_settle`). A task that waited does its own take or put
when it runs again. An item is therefore always either queued or with whoever asked for
it, never on its way, and a cancellation finds nothing to lose.
"""

# RLock._is_owned, on purpose: see owner.py
# pyright: reportPrivateUsage=false
from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NoReturn, Self, TypeVar, cast

import anyio.lowlevel

from prewarmkit.errors import QueueClosed, QueueEmpty, QueueFull
from prewarmkit.ring.checks import check_whole
from prewarmkit.ring.lanes import Lanes
from prewarmkit.ring.owner import CLAIMS, claim, new_owner, running_loop
from prewarmkit.ring.statistics import QueueStatistics
from prewarmkit.ring.waiters import Line

__all__ = ["RingQueue"]

T = TypeVar("T")

_TURNS = 64  # awaited calls that may succeed at once before one lets other tasks run


class _Drained(QueueClosed, QueueEmpty):
    """Closed, and nothing is left: both are true, and a caller may have asked about either."""

    is_retryable = False


class RingQueue(Lanes[T]):
    """A bounded queue with lanes, in which a key is queued once.

    Lane 0 is served first, and inside a lane the order is that of arrival. Nothing
    starves: an item of lane ``k`` leaves after at most ``max_skips * k`` items of better
    lanes, and of its own lane those before it. What has been passed over by that many
    items of other lanes is due, and goes first, the worst lane's ahead of others'. This
    holds for every item, so once the oldest part of a worse lane is due, all of that part
    goes first. A ``max_skips`` of ``maxsize`` lets any backlog leave strictly by lane and
    still bounds the wait of each item under an endless flow.

    A duplicate is found before fullness: with a key that is queued already, an enqueue
    returns ``False``. On a better lane than the queued item's it moves that one there, to
    the tail; the first item stays, the new one is dropped.

    Waiting tasks are served in the order they came. When an item wakes a task, one item is
    kept for it until it has run: that counts as queued, so ``len(queue)`` can be more than
    `dequeue_nowait` would hand out. If the task is cancelled meanwhile, the next in line is
    called, so neither the item nor the turn is lost. Room for producers works alike.

    An awaited call that need not wait does not go through the scheduler, except for each
    64th in a row, which lets other tasks run (and a cancellation arrive) before it touches
    the queue. `enqueue_nowait`, `dequeue_nowait` and `dequeue_batch` never do.

    One thread and one event loop at a time, asyncio or trio, with the GIL or without: the
    queue belongs to the thread whose loop was running when it was made, or else to the
    first that uses it. Each call checks that, and any other thread gets a ``RuntimeError``
    before anything is touched. From there, use
    ``anyio.from_thread.run_sync(queue.enqueue_nowait, item)`` or
    ``loop.call_soon_threadsafe(queue.enqueue_nowait, item)``. Only ``len(queue)``,
    ``key in queue``, the properties and `statistics` may be read from anywhere, and are a
    snapshot there. When the owning thread has ended, the next one to come takes over.

    Args:
        maxsize: How many items it holds.
        lanes: How many lanes, 1 to 64.
        key: What makes two items the same, such as ``operator.attrgetter("id")``. Without
            one, all items differ, and `discard`, `promote` and ``in`` raise `TypeError`.
        max_skips: See above.

    Raises:
        TypeError: An argument is not of its type.
        ValueError: An argument is out of its range.
    """

    __slots__ = (
        "_consumers",
        "_is_closed",
        "_loop",
        "_maxsize",
        "_producers",
        "_rejected",
        "_thread",
        "_turns",
    )

    def __new__(
        cls,
        maxsize: int,  # noqa: ARG004 — `__init__` takes them
        *,
        lanes: int = 1,
        key: Callable[[T], Hashable] | None = None,
        max_skips: int = 8,  # noqa: ARG004
    ) -> Self:
        """A queue without lanes and keys needs little of what is here, and gets its own class."""
        if cls is RingQueue and lanes == 1 and key is None:
            from prewarmkit.ring.bare import BareRingQueue

            return super().__new__(cast("type[Self]", BareRingQueue))
        return super().__new__(cls)

    def __init__(
        self,
        maxsize: int,
        *,
        lanes: int = 1,
        key: Callable[[T], Hashable] | None = None,
        max_skips: int = 8,
    ) -> None:
        check_whole("maxsize", maxsize, 1)
        check_whole("lanes", lanes, 1, 64)
        check_whole("max_skips", max_skips, 1)
        if key is not None and not callable(key):
            raise TypeError(f"key must be a function of one item, or None, not {key!r}.")
        owner, self._thread = new_owner()
        super().__init__(lanes=lanes, key=key, max_skips=max_skips, owner=owner)
        self._maxsize = maxsize
        self._consumers = Line()
        self._producers = Line()
        self._is_closed = False
        self._rejected = 0
        self._turns = _TURNS
        self._loop: object = None

    # ── in; `enqueue_nowait` is `Lanes`' ─────────────────────────────────────

    async def enqueue(self, item: T, lane: int = 0) -> bool:
        """Take an item in, waiting while there is no room.

        Returns:
            ``False`` if an item with its key is queued already, also if it came while this one waited.

        Raises:
            QueueClosed: The queue was closed, before or while this waited; the item was not taken in.
            ValueError: There is no such lane.
        """
        if not self._turns:
            await self._give_way()
        self._turns -= 1
        if self._room:  # and so nobody is in line
            return self._put_in(item, lane)
        self._check_thread()
        # Whoever is in line already comes first, though the place for him may be free by now.
        added = self._add(item, lane, 0 if self._producers else self._limit)
        while added is None:
            await self._wait_in(self._producers)
            added = self._add(item, lane, self._maxsize)
        return added

    def _enqueue_slowly(self, item: T, lane: int) -> bool:
        self._check_thread()
        added = self._add(item, lane, self._limit)
        if added is None:
            self._rejected += 1
            raise QueueFull(f"All {self._maxsize} places are taken: try later, or await enqueue().")
        return added

    def _add(self, item: T, lane: int, limit: int) -> bool | None:
        """Take an item in unless ``limit`` are queued (``None``); a duplicate is found before that."""
        try:
            if self._is_closed:
                raise QueueClosed("The queue was closed: it takes nothing more. Make a new one to go on.")
            place = self._lane(lane)
            self._grant(limit)
            if self._room:
                return self._put_in(item, lane)
            if self._is_keyed and self._find(key := self._key(item)) is not None:
                return self._meet_again(key, place)
            return None
        finally:
            if self._is_watched:
                self._settle()

    # ── out; `dequeue_nowait` is `Lanes`' ────────────────────────────────────

    async def dequeue(self) -> T:
        """Hand out the item whose turn it is, waiting while there is none.

        Raises:
            QueueClosed: The queue is closed and drained, before or while this waited.
        """
        if not self._turns:
            await self._give_way()
        self._turns -= 1
        if self._best is not None and not self._is_watched:
            return self._take_out()
        self._check_thread()
        if (self._consumers or not self._size) and not (self._is_closed and not self._size):
            await self._wait_in(self._consumers)
        if not self._size:  # nothing, after a wait too: only a close calls to that
            self._refuse_to_give()
        return self._take()

    def _dequeue_slowly(self) -> T:
        self._check_thread()
        self._check_spare()
        return self._take()

    def _take(self) -> T:
        return self._drain(1)[0]

    def _drain(self, count: int) -> list[T]:
        """Take out ``count`` items, whoever waits."""
        self._is_watched = False
        try:
            return [self._take_out() for _ in range(count)]
        finally:
            self._settle()

    def dequeue_batch(self, limit: int) -> list[T]:
        """Hand out up to ``limit`` items, those that are there now; none is an empty list."""
        check_whole("limit", limit, 0)
        self._check_thread()
        return self._drain(min(limit, self._spare))

    def peek(self) -> T:
        """What `dequeue_nowait` would hand out; it stays.

        Raises:
            QueueEmpty: As `dequeue_nowait` would.
        """
        self._check_thread()
        self._check_spare()
        return self._head()

    def __aiter__(self) -> RingQueue[T]:
        """``async for item in queue`` dequeues until the queue is closed and drained."""
        return self

    async def __anext__(self) -> T:
        try:
            return await self.dequeue()
        except QueueClosed:
            raise StopAsyncIteration from None

    # ── by key ───────────────────────────────────────────────────────────────

    def discard(self, key: Hashable) -> bool:
        """Remove the queued item with this key.

        Returns:
            ``False`` if none has it.

        Raises:
            TypeError: The queue was made without a key function, or the key is not hashable.
        """
        self._check_thread()
        self._check_keyed("discard")
        found = self._remove(key)
        if found and self._is_watched:
            self._settle()
        return found

    def promote(self, key: Hashable, lane: int = 0) -> bool:
        """Move the queued item with this key to the tail of another lane, better or worse.

        An item that is in that lane already keeps its place.

        Returns:
            ``False`` if no queued item has this key.

        Raises:
            TypeError: The queue was made without a key function, or the key is not hashable.
            ValueError: There is no such lane.
        """
        self._check_thread()
        self._check_keyed("promote")
        return self._move(key, self._lane(lane))

    def __contains__(self, key: Hashable) -> bool:
        self._check_keyed("in")
        return self._find(key) is not None

    # ── the whole ────────────────────────────────────────────────────────────

    def close(self) -> None:
        """Take in nothing more, wake who waits; what is queued can still be drained. Again: no effect."""
        self._check_thread()
        self._is_closed = True
        self._settle()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    @property
    def maxsize(self) -> int:
        """How many items it holds."""
        return self._maxsize

    def __len__(self) -> int:
        return self._size

    def snapshot(self, limit: int | None = None) -> list[T]:
        """Up to ``limit`` queued items (all without one) in the order they would leave now; they stay."""
        if limit is not None:
            check_whole("limit", limit, 0)
        self._check_thread()
        return self._first(self._size if limit is None else min(limit, self._size))

    def statistics(self) -> QueueStatistics:
        """Counters and sizes as they are now."""
        size, enqueued = self._size, self._granted - self._room
        return QueueStatistics(
            size=size,
            capacity=self._maxsize,
            lane_sizes=self._sizes(),
            enqueued=enqueued,
            dequeued=enqueued - size - self._discarded,
            discarded=self._discarded,
            duplicates=self._duplicates,
            rejected=self._rejected,
            waiting_producers=len(self._producers),
            waiting_consumers=len(self._consumers),
        )

    def __repr__(self) -> str:
        # No items: they may hold secrets.
        return f"<RingQueue {self._size}/{self._maxsize}{' closed' if self._is_closed else ''}>"

    # ── waiting ──────────────────────────────────────────────────────────────

    def _settle(self) -> None:
        """Call as many as there are items and room for, after any change; send home whom a close concerns."""
        consumers, producers, size = self._consumers, self._producers, self._size
        consumers.call(size)
        if self._is_closed:
            producers.dismiss()
            if not size:
                consumers.dismiss()
        producers.call(self._maxsize - size)
        self._is_watched = self._is_closed or bool(consumers) or bool(producers)
        self._grant(0)  # what was counted out may be too much now

    @property
    def _limit(self) -> int:
        """How many may be queued, less the places that are kept for producers in line."""
        return self._maxsize - self._producers.called

    async def _wait_in(self, line: Line) -> None:
        """Return once called, or dismissed by a close; the caller uses its right at once, then settles."""
        loop = running_loop()
        if loop != self._loop and self._is_watched and (self._consumers or self._producers):
            raise RuntimeError("Tasks of another event loop wait in this RingQueue: use it from one loop.")
        self._loop = loop
        waiter = line.join()
        self._settle()
        try:
            await line.wait(waiter)
        except BaseException:
            line.leave(waiter)
            self._settle()
            raise
        self._turns = _TURNS
        line.leave(waiter)

    async def _give_way(self) -> None:
        await anyio.lowlevel.checkpoint()
        self._turns = _TURNS  # now, whatever others have used up meanwhile

    @property
    def _spare(self) -> int:
        """Items that are not kept for a task that has been called."""
        return self._size - self._consumers.called

    # ── refusals ─────────────────────────────────────────────────────────────

    def _check_thread(self) -> None:
        if not self._owner._is_owned():
            with CLAIMS:
                self._owner, self._thread = claim(self._owner, self._thread)

    def _check_spare(self) -> None:
        if self._spare <= 0:
            self._refuse_to_give()

    def _refuse_to_give(self) -> NoReturn:
        if self._is_closed and not self._size:
            raise _Drained("The queue was closed and is drained: stop taking from it.")
        raise QueueEmpty("Nothing is queued but for tasks that wait: try again later, or await dequeue().")

    def _check_keyed(self, what: str) -> None:
        if not self._is_keyed:
            raise TypeError(f"{what!r} needs a key: this RingQueue was made without key=.")
