"""`PrewarmPool`: the one object that a host holds. It wires the rooms and forwards the calls."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from types import TracebackType
from typing import Self

import anyio
from attrs import evolve

from prewarmkit.errors import PoolClosed
from prewarmkit.media import Handle, Media, MediaKind, seconds_of
from prewarmkit.pool.adaptive import AdaptiveLimit
from prewarmkit.pool.book import TargetBook, Targets
from prewarmkit.pool.cache import HandleCache
from prewarmkit.pool.core import Core, EventSink, OnEvent
from prewarmkit.pool.desk import Asked, Desk
from prewarmkit.pool.figures import figures_of
from prewarmkit.pool.health import Health
from prewarmkit.pool.life import BatchReport, Life, StopReport
from prewarmkit.pool.pump import Pump
from prewarmkit.pool.settings import PoolSettings
from prewarmkit.pool.stats import PoolStats, Recorder
from prewarmkit.sources.base import MediaSource
from prewarmkit.stores.base import Counts, Enqueued, MediaId, MediaStore, Row
from prewarmkit.stores.lifecycle import State
from prewarmkit.stores.memory import MemoryStore
from prewarmkit.targets.base import Services, WarmTarget

__all__ = ["PrewarmPool"]


class PrewarmPool:
    """Warms media ahead of demand, and keeps the handles.

    Enter it with ``async with``; entering starts the workers. It closes nothing that it was
    given, shares nothing with another pool, and installs nothing in the process.

    Args:
        source: Where the bytes come from; targets read it, the pool never does.
        targets: One target, several, or a resolver that finds them by name.
        store: The table; ``None`` is a `MemoryStore` of its own.
        settings: How it works.
        on_event: Gets every event (`prewarmkit.pool.events`); a coroutine function may be slow.
        clock: Seconds for spans, never for dates.
        name: Stands in log records.

    Raises:
        ConfigurationError: No target, or two of one id.
    """

    def __init__(
        self,
        source: MediaSource,
        targets: Targets,
        store: MediaStore | None = None,
        *,
        settings: PoolSettings | None = None,
        on_event: OnEvent | None = None,
        clock: Callable[[], float] = time.monotonic,
        name: str = "prewarm",
    ) -> None:
        settings = PoolSettings() if settings is None else settings
        recorder = Recorder(clock)
        self._core = Core(
            name=name,
            source=source,
            store=MemoryStore() if store is None else store,
            settings=settings,
            clock=clock,
            book=TargetBook(clock, self._bind, self._new_health),
            recorder=recorder,
            events=EventSink(on_event, recorder, name),
            cache=HandleCache(clock, settings.lookup_cache_seconds),
        )
        self._is_entered = False
        self._most = settings.concurrency
        self._core.book.fill(targets)
        self._pump = Pump(self._core)
        self._desk = Desk(self._core, self._pump)
        self._life = Life(self._core, self._pump)

    def __repr__(self) -> str:
        state = "running" if self._life.is_running else "entered" if self._is_entered else "closed"
        return f"<PrewarmPool {self._core.name!r} {state}, targets {self._core.book.ids}>"

    # ── life ─────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Self:
        if self._is_entered:
            raise RuntimeError("This pool is entered already.")
        store = self._core.store
        if isinstance(store, MemoryStore):
            store.claim_for(self)
        try:
            await store.check_schema()
            self._is_entered = True
            for target in self._core.book.known:
                self._bind(target)
            await self._life.open()  # last: nothing after it can fail and leave it open
        except BaseException:
            self._is_entered = False
            self._unclaim()
            raise
        if self._core.settings.autostart:
            self._life.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        cancelled = await self._life.finish(drain=exc_type is None)
        self._is_entered = False
        self._unclaim()
        # Not shielded: a nursery must be left in the scope that it was entered in.
        await self._close(is_quiet=exc is not None)
        if cancelled is not None:
            raise cancelled

    async def _close(self, *, is_quiet: bool) -> None:
        try:
            await self._life.close()
        except PoolClosed:
            if not is_quiet:  # the host's own exception goes first; ours was logged and told to every waiter
                raise

    def _unclaim(self) -> None:
        store = self._core.store
        if isinstance(store, MemoryStore) and store.owner is self:
            store.owner = None

    def _bind(self, target: WarmTarget) -> None:
        """Lend a target its services once the pool is entered."""
        bind: Callable[[Services], None] | None = getattr(target, "bind", None)
        if self._is_entered and bind is not None:
            store = self._core.store
            bind(Services(store.budget(target.id), store.state(target.id), self._core.events.emit))

    def _new_health(self) -> Health:
        settings = self._core.settings
        limit = AdaptiveLimit(self._most) if settings.adaptive else None
        return Health(self._core.clock, limit, settings.target_concurrency or sys.maxsize)

    def _check_entered(self) -> None:
        if not self._is_entered:
            raise PoolClosed(f"The pool {self._core.name!r} is not entered: use `async with` around it.")

    async def start(self) -> None:
        """Start the workers; nothing happens if they run. Works again after `stop`, inside ``async with``."""
        self._check_entered()
        self._life.start()

    async def stop(self, drain: bool = True, grace: float | timedelta = 30.0) -> StopReport:  # noqa: FBT001, FBT002 - the contract's form
        """Stop the workers: lease nothing more, finish what they hold, give the rest back.

        Pending rows are not drained; that is `join`.

        Args:
            drain: Whether workers may finish what they hold; else it is cut off and given back.
            grace: How long they may take, in seconds or as a timedelta.
        """
        return await self._life.stop(drain=drain, grace=seconds_of(grace, "grace"))

    def pause(self) -> None:
        """Begin nothing new; what runs ends, what is leased and not begun goes back for other processes to have."""
        self._pump.pause()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._pump.resume()

    def resize(self, concurrency: int) -> None:
        """Change how many media are warmed at once; running ones are never cut off.

        Raises:
            InvalidSetting: It is below 1.
        """
        self._most = self._pump.crew.concurrency = evolve(
            self._core.settings, concurrency=concurrency
        ).concurrency
        for id_ in self._core.book.ids:
            if (limit := self._core.book.health(id_).limit) is not None:
                limit.most = self._most
        self._pump.resized()

    # ── enqueue ──────────────────────────────────────────────────────────────

    async def enqueue(
        self,
        media: Media | str,
        *,
        kind: MediaKind | str | None = None,
        target: WarmTarget | str | None = None,
        priority: int | None = None,
        delay: float | timedelta | None = None,
        retry_failed: bool = False,
    ) -> Enqueued:
        """Queue one medium; returns at once, workers warm it.

        Args:
            media: A key, or a `Media`.
            kind: What it is asked to be; ``None``: by the key's extension.
            target: An id or a target; may be left out where there is one.
            priority: 0 (most urgent) to 9; ``None``: by size and kind.
            delay: Not before then, in seconds or as a timedelta.
            retry_failed: Whether a medium that failed for good goes again.

        Raises:
            QueueFull: There is no room; nothing was queued.
            TargetRequired: There are several targets and the call named none.
            UnknownTarget: The pool has no such target.
            ValueError: An unknown kind, or a priority or delay that cannot be.
        """
        asked = await self._asked(media, kind, target)
        return (await self._desk.enqueue([asked], priority=priority, delay=delay, retry_failed=retry_failed))[
            0
        ]

    async def enqueue_many(
        self,
        media: Iterable[Media | str],
        *,
        kind: MediaKind | str | None = None,
        target: WarmTarget | str | None = None,
        priority: int | None = None,
        delay: float | timedelta | None = None,
        retry_failed: bool = False,
    ) -> list[Enqueued]:
        """Queue several, all or none; one answer each, in order. See `enqueue`."""
        asked = [await self._asked(each, kind, target) for each in media]
        return await self._desk.enqueue(asked, priority=priority, delay=delay, retry_failed=retry_failed)

    async def _asked(
        self, media: Media | str, kind: MediaKind | str | None, target: WarmTarget | str | None
    ) -> Asked:
        self._check_entered()
        return await self._desk.asked(media, kind, target)

    # ── look up and wait ─────────────────────────────────────────────────────

    async def lookup(
        self,
        media: Media | str,
        *,
        kind: MediaKind | str | None = None,
        target: WarmTarget | str | None = None,
        allow_stale: bool = True,
    ) -> Handle | None:
        """The handle if there is one: cache first, one indexed read, no lock, no work started.

        With ``allow_stale`` also one that is being replaced or has expired, `Handle.stale` set.
        """
        return await self._desk.lookup(await self._asked(media, kind, target), allow_stale=allow_stale)

    async def require(
        self,
        media: Media | str,
        *,
        kind: MediaKind | str | None = None,
        target: WarmTarget | str | None = None,
        enqueue: bool = True,
    ) -> Handle:
        """The handle, now or not at all; a cold medium is put in front unless ``enqueue=False``.

        Raises:
            MediaNotReady: It is cold; `state` and `retry_after` say how cold.
        """
        return await self._desk.require(await self._asked(media, kind, target), enqueue=enqueue)

    async def warm(
        self,
        media: Media | str,
        *,
        kind: MediaKind | str | None = None,
        target: WarmTarget | str | None = None,
        timeout: float | timedelta | None = None,
    ) -> Handle:
        """The handle, waited for: the medium goes in front, and N callers cost one upload.

        Raises:
            WarmFailed: It failed for good, now or within the last ``failure_ttl_seconds``.
            WarmTimeout: The time is over, or the target rests longer than that; the work goes on.
            TargetDown: The target refuses altogether.
            PoolClosed: The pool stopped; the medium stays queued.
        """
        asked = await self._asked(media, kind, target)
        return await self._desk.warm(asked, timeout=timeout, is_closed=self._closed)

    def _closed(self, id_: MediaId) -> Exception | None:
        """Why nobody will warm it here; what is held when a stop begins may be finished in its grace."""
        is_open = self._is_entered and not self._pump.is_stopping
        may_finish = self._life.is_running and id_ in self._pump.held
        return None if is_open or may_finish else self._life.closed()

    async def invalidate(
        self,
        media: Media | str | Handle,
        rewarm: bool = True,  # noqa: FBT001, FBT002 - the contract's form
        *,
        kind: MediaKind | str | None = None,
        target: WarmTarget | str | None = None,
    ) -> bool:
        """Drop a handle that a delivery found refused, and warm anew unless ``rewarm=False``.

        With a `Handle` it acts only if that is still the stored one, so fifty late refusals
        cost one re-warm.

        Returns:
            Whether this call did it.
        """
        if not isinstance(media, Handle):
            asked = await self._asked(media, kind, target)
            return await self._desk.invalidate(asked.id, None, rewarm=rewarm)
        self._check_entered()
        return await self._desk.invalidate_handle(media, rewarm=rewarm)

    async def join(self, timeout: float | timedelta | None = None) -> None:
        """Wait until the store has no pending or warming row for this pool's targets.

        Whoever enqueued them, delayed ones included.

        Raises:
            TimeoutError: The time was over first.
        """
        self._check_entered()
        with anyio.fail_after(None if timeout is None else seconds_of(timeout, "timeout")):
            await self._life.join()

    # ── batches driven by the host ───────────────────────────────────────────

    async def process_batch(self, limit: int | None = None) -> BatchReport:
        """Lease up to ``limit`` media (``None``: as many as workers), warm them in parallel, settle, return.

        Raises:
            RuntimeError: The workers run (use ``PoolSettings(autostart=False)`` or `stop` first), or a batch does.
        """
        self._check_entered()
        if self._life.is_running:
            raise RuntimeError(
                "process_batch is for pools whose workers do not run: stop() first, or autostart=False."
            )
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be 1 or more, not {limit!r}.")
        return await self._life.batch(self._pump.crew.concurrency if limit is None else limit)

    # ── figures ──────────────────────────────────────────────────────────────

    @property
    def failure(self) -> BaseException | None:
        """The bug that stopped the workers; ``None``: none did. Leaving the pool raises it."""
        return self._life.failure

    def stats(self) -> PoolStats:
        """This process's figures since the pool was made; O(1)."""
        return figures_of(self._core, self._pump, running=self._life.is_running)

    async def counts(self) -> Counts:
        """The store's rows for this pool's targets, by target, kind and state."""
        self._check_entered()
        return await self._core.store.counts(self._core.book.ids)

    async def queue_items(self, limit: int = 100, *, after: str | None = None) -> list[Row]:
        """Rows that are pending or warming, page by page: go on after the last one's `Row.cursor`."""
        self._check_entered()
        return await self._core.store.list(
            (State.PENDING, State.WARMING), after=after, limit=limit, targets=self._core.book.ids
        )

    async def requeue_failed(
        self,
        *,
        target: WarmTarget | str | None = None,
        kind: MediaKind | str | None = None,
        reason: str | None = None,
        keys: Collection[str] | None = None,
        limit: int | None = None,
    ) -> int:
        """Make failed media due again with fresh attempts; how many.

        Args:
            target: One target's only; ``None``: any of this pool.
            kind: One kind's only.
            reason: Those whose reason begins with it (``"too_large"``).
            keys: Those keys only.
            limit: That many at most.
        """
        self._check_entered()
        book = self._core.book
        return await self._desk.requeue(
            book.ids if target is None else [(await book.find(target)).id],
            kind=None if kind is None else MediaKind.parse(kind),
            reason=reason,
            keys=keys,
            limit=limit,
        )
