"""`RingQueue`: a bounded queue in memory, with keys, lanes and close, O(1) in every operation.

Owns waiting, closing and the rule of one thread; what is queued and in which order it
leaves is `lanes`, who waits is `waiters`. Knows nothing of media, stores, clocks or I/O.

The shape is nowait first: a change of state is synchronous and whole, and each one ends
by setting right who may go on (`_settle`). A task that waited does its own take or put
when it runs again. An item is therefore always either queued or with whoever asked for
it, never on its way, and a cancellation finds nothing to lose.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import get_ident
from typing import Generic, NoReturn, TypeVar

import anyio.lowlevel

from prewarmkit.errors import QueueClosed, QueueEmpty, QueueFull
from prewarmkit.ring.checks import NOBODY, check_whole, claim, running_loop
from prewarmkit.ring.lanes import Lanes
from prewarmkit.ring.statistics import QueueStatistics
from prewarmkit.ring.waiters import Line

__all__ = ["RingQueue"]

T = TypeVar("T")

_TURNS = 64  # awaited calls that may succeed at once before one lets other tasks run


class _Drained(QueueClosed, QueueEmpty):
    """Closed, and nothing is left: both are true, and a caller may have asked about either."""

    is_retryable = False


class RingQueue(Generic[T]):
    """A bounded queue with lanes, in which a key is queued once.

    Lane 0 is served first, and inside a lane the order is that of arrival. Nothing
    starves: an item of lane ``k`` leaves after at most ``max_skips * k`` items of better
    lanes, and of its own lane those before it. This holds for every item, so once the
    oldest part of a worse lane is due, all of that part goes first. A ``max_skips`` of
    ``maxsize`` lets any backlog leave strictly by lane and still bounds the wait of each
    item under an endless flow.

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
    first that uses it. Any other gets a ``RuntimeError``; from there, use
    ``anyio.from_thread.run_sync(queue.enqueue_nowait, item)``. Only ``len(queue)``,
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
        "_is_watched",
        "_items",
        "_limit",
        "_loop",
        "_maxsize",
        "_producers",
        "_rejected",
        "_thread",
        "_turns",
    )

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
        self._maxsize = maxsize
        self._limit = maxsize  # less the places that are kept for producers in line
        self._items: Lanes[T] = Lanes(lanes=lanes, key=key, max_skips=max_skips)
        self._consumers = Line()
        self._producers = Line()
        self._is_closed = False
        self._is_watched = False  # closed, or somebody is in a line: a change must be settled
        self._rejected = 0
        self._turns = _TURNS - 1
        self._loop: object = None
        self._thread = NOBODY if running_loop() is None else get_ident()

    # ── in ───────────────────────────────────────────────────────────────────

    def enqueue_nowait(self, item: T, lane: int = 0) -> bool:
        """Take an item in, now.

        Returns:
            ``False`` if an item with its key is queued already.

        Raises:
            QueueFull: There is no room, or what room there is has been promised to tasks that wait.
            QueueClosed: The queue was closed.
            ValueError: There is no such lane.
        """
        if get_ident() != self._thread:
            self._thread = claim(self._thread)
        if self._is_closed:
            self._refuse()
        added = self._items.push(item, lane, self._limit)
        if added is None:
            self._rejected += 1
            raise QueueFull(f"All {self._maxsize} places are taken: try later, or await enqueue().")
        if self._is_watched:
            self._settle()
        return added

    async def enqueue(self, item: T, lane: int = 0) -> bool:
        """Take an item in, waiting while there is no room.

        Returns:
            ``False`` if an item with its key is queued already, also if it came while this one waited.

        Raises:
            QueueClosed: The queue was closed, before or while this waited; the item was not taken in.
            ValueError: There is no such lane.
        """
        if get_ident() != self._thread:
            self._thread = claim(self._thread)
        self._turns -= 1
        if self._turns < 0:
            await self._give_way()
        if self._is_closed:
            self._refuse()
        # Whoever is in line already comes first, though the place for him may be free by now.
        added = self._items.push(item, lane, 0 if self._producers else self._limit)
        while added is None:
            await self._wait_in(self._producers)
            try:
                if self._is_closed:
                    self._refuse()
                added = self._items.push(item, lane, self._maxsize)
            finally:
                self._settle()
        if self._is_watched:
            self._settle()
        return added

    # ── out ──────────────────────────────────────────────────────────────────

    def dequeue_nowait(self) -> T:
        """Hand out the item whose turn it is, now.

        Raises:
            QueueEmpty: There is none, or each is kept for a task that waited for it. On a
                queue that is closed and drained, this error is a `QueueClosed` as well.
        """
        if get_ident() != self._thread:
            self._thread = claim(self._thread)
        items = self._items
        if self._is_watched:
            self._check_spare()
            item = items.pop()
            self._settle()
            return item
        if not items.size:
            self._refuse_to_give()
        return items.pop()

    async def dequeue(self) -> T:
        """Hand out the item whose turn it is, waiting while there is none.

        Raises:
            QueueClosed: The queue is closed and drained, before or while this waited.
        """
        if get_ident() != self._thread:
            self._thread = claim(self._thread)
        self._turns -= 1
        if self._turns < 0:
            await self._give_way()
        items = self._items
        if not items.size or (self._is_watched and self._consumers):
            if not (self._is_closed and not items.size):
                await self._wait_in(self._consumers)
            if not items.size:  # nothing, after a wait too: only a close calls to that
                self._refuse_to_give()
        item = items.pop()
        if self._is_watched:
            self._settle()
        return item

    def dequeue_batch(self, limit: int) -> list[T]:
        """Hand out up to ``limit`` items, those that are there now; none is an empty list."""
        check_whole("limit", limit, 0)
        if get_ident() != self._thread:
            self._thread = claim(self._thread)
        pop = self._items.pop
        batch = [pop() for _ in range(min(limit, self._spare))]
        if self._is_watched:
            self._settle()
        return batch

    def peek(self) -> T:
        """What `dequeue_nowait` would hand out; it stays.

        Raises:
            QueueEmpty: As `dequeue_nowait` would.
        """
        if get_ident() != self._thread:
            self._thread = claim(self._thread)
        self._check_spare()
        return self._items.peek()

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
        if get_ident() != self._thread:
            self._thread = claim(self._thread)
        self._check_keyed("discard")
        found = self._items.discard(key)
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
        if get_ident() != self._thread:
            self._thread = claim(self._thread)
        self._check_keyed("promote")
        return self._items.promote(key, lane)

    def __contains__(self, key: Hashable) -> bool:
        self._check_keyed("in")
        return key in self._items

    # ── the whole ────────────────────────────────────────────────────────────

    def close(self) -> None:
        """Take in nothing more, wake who waits; what is queued can still be drained. Again: no effect."""
        if get_ident() != self._thread:
            self._thread = claim(self._thread)
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
        return self._items.size

    def snapshot(self, limit: int | None = None) -> list[T]:
        """Up to ``limit`` queued items (all without one) in the order they would leave now; they stay."""
        if limit is not None:
            check_whole("limit", limit, 0)
        if get_ident() != self._thread:
            self._thread = claim(self._thread)
        return self._items.first(self._items.size if limit is None else limit)

    def statistics(self) -> QueueStatistics:
        """Counters and sizes as they are now."""
        items = self._items
        return QueueStatistics(
            size=items.size,
            capacity=self._maxsize,
            lane_sizes=items.sizes(),
            enqueued=items.enqueued,
            dequeued=items.enqueued - items.size - items.discarded,
            discarded=items.discarded,
            duplicates=items.duplicates,
            rejected=self._rejected,
            waiting_producers=len(self._producers),
            waiting_consumers=len(self._consumers),
        )

    def __repr__(self) -> str:
        # No items: they may hold secrets.
        return f"<RingQueue {self._items.size}/{self._maxsize}{' closed' if self._is_closed else ''}>"

    # ── waiting ──────────────────────────────────────────────────────────────

    def _settle(self) -> None:
        """Call as many as there are items and room for, after any change; send home whom a close concerns."""
        items, consumers, producers = self._items, self._consumers, self._producers
        consumers.call(items.size)
        if self._is_closed:
            producers.dismiss()
            if not items.size:
                consumers.dismiss()
        producers.call(self._maxsize - items.size)
        self._limit = self._maxsize - producers.called
        self._is_watched = self._is_closed or bool(consumers) or bool(producers)

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
        self._turns = _TURNS - 1
        line.leave(waiter)

    async def _give_way(self) -> None:
        self._turns = _TURNS - 1
        await anyio.lowlevel.checkpoint()

    @property
    def _spare(self) -> int:
        """Items that are not kept for a task that has been called."""
        return self._items.size - self._consumers.called

    # ── refusals ─────────────────────────────────────────────────────────────

    def _check_spare(self) -> None:
        if self._spare <= 0:
            self._refuse_to_give()

    def _refuse_to_give(self) -> NoReturn:
        if self._is_closed and not self._items.size:
            raise _Drained("The queue was closed and is drained: stop taking from it.")
        raise QueueEmpty("Nothing is queued but for tasks that wait: try again later, or await dequeue().")

    def _refuse(self) -> NoReturn:
        raise QueueClosed("The queue was closed: it takes nothing more. Make a new one to go on.")

    def _check_keyed(self, what: str) -> None:
        if not self._items.keyed:
            raise TypeError(f"{what!r} needs a key: this RingQueue was made without key=.")
