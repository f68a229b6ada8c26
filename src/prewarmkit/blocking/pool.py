"""`PrewarmPool`, blocking: the calls of its asynchronous twin, for any thread. Knows no loop and no row."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial
from inspect import isawaitable
from threading import Lock
from types import TracebackType
from typing import Any, Self, TypeVar, TypeVarTuple, cast, overload

from prewarmkit.blocking.loop import LoopThread
from prewarmkit.errors import PoolClosed
from prewarmkit.media import Handle, Media, MediaKind
from prewarmkit.pool.book import TargetResolver, Targets
from prewarmkit.pool.core import OnEvent
from prewarmkit.pool.life import BatchReport, StopReport
from prewarmkit.pool.pool import PrewarmPool as AsyncPool
from prewarmkit.pool.settings import PoolSettings
from prewarmkit.pool.stats import PoolStats
from prewarmkit.sources.base import MediaSource
from prewarmkit.stores.base import Counts, Enqueued, MediaStore, Row
from prewarmkit.targets.base import WarmTarget

__all__ = ["PrewarmPool"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class PrewarmPool:
    """`prewarmkit.PrewarmPool` for hosts without an event loop: the same calls, and each of them waits.

    Enter it with ``with``. That starts a thread with an event loop (asyncio), enters there what was
    given, in the order resources, source, targets, store, and then the pool; leaving closes all of it
    in the other order. So give it components that are *not entered*; one that is no asynchronous
    context manager is used as it is.

    Any thread may call, many at once. Ctrl-C ends a call that waits, and not the pool. The calls run
    in the event loop's thread, and so do targets, ``on_event``, a resolver and `call`: they must not
    block there, nor call the pool's waiting calls. A pool does not survive a fork: make one in each
    worker process. Where the interpreter ends first, it is stopped as by an exception.

    Args:
        source: Where the bytes come from.
        targets: One target, several, or a resolver.
        store: The table; ``None`` is a `MemoryStore` of its own.
        settings: How it works.
        on_event: Gets every event, in the event loop's thread.
        clock: Seconds for spans, never for dates.
        name: Stands in log records, and is the thread's.
        resources: What the components use and do not own, such as a transport that they share or a
            psycopg pool: entered first, closed last.
        backend_options: For `anyio.run` on asyncio, such as ``{"use_uvloop": True}``.

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
        resources: Iterable[AbstractAsyncContextManager[Any]] = (),
        backend_options: dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(targets, WarmTarget | TargetResolver):
            targets = list(targets)
        # Made anew in each thread: what it holds belongs to the loop that it was entered on.
        self._make = partial(
            AsyncPool, source, targets, store, settings=settings, on_event=on_event, clock=clock, name=name
        )
        self._make()  # what cannot be is refused here and now
        given = [*resources, source, *(targets if isinstance(targets, list) else [targets]), store]
        once = {id(each): each for each in given if isinstance(each, AbstractAsyncContextManager)}
        self._components = list(once.values())
        self._name = name
        self._backend_options = backend_options
        self._entry = Lock()  # held from entering to leaving, and never waited for
        self._thread: LoopThread[AsyncPool] | None = None
        self._last_stats: PoolStats | None = None

    def __repr__(self) -> str:
        thread = self._thread
        state = "closed" if thread is None else "of another process" if thread.is_elsewhere else "entered"
        return f"<blocking PrewarmPool {self._name!r} {state}>"

    # ── life ─────────────────────────────────────────────────────────────────

    def __enter__(self) -> Self:
        if self._thread is not None:
            self._thread.check_process()
        if not self._entry.acquire(blocking=False):
            raise RuntimeError("This pool is entered already.")
        try:
            thread = LoopThread(
                self._components,
                self._make,
                hasten=lambda pool: pool.stop(drain=False),
                name=self._name,
                backend_options=self._backend_options,
            )
            thread.start()
        except BaseException:
            self._entry.release()
            raise
        self._thread = thread
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        thread = self._thread
        if thread is None or thread.is_elsewhere:  # after a fork it is the parent's to close
            return None
        thread.check_thread()
        try:
            return thread.leave((exc_type, exc, traceback))
        finally:
            if thread.has_ended:
                self._last_stats = thread.value.stats()
                self._thread = None
                self._entry.release()

    @overload
    def call(self, func: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T: ...
    @overload
    def call(self, func: Callable[[*Ts], T], *args: *Ts) -> T: ...
    def call(self, func: Callable[[*Ts], Awaitable[T] | T], *args: *Ts) -> T:
        """Run a function on the pool's event loop and wait for what it returns or raises.

        For what a component can do beside the pool, such as ``pool.call(bot.send, chat_id, handle)``.
        A plain function is called there too, and must be quick.

        Args:
            func: A coroutine function, or a plain one.
            args: What it is called with; for keywords use `functools.partial`.
        """

        async def make(_: AsyncPool) -> T:
            result = func(*args)
            return cast("T", await result if isawaitable(result) else result)

        return self._run(make)

    def start(self) -> None:
        """See `prewarmkit.PrewarmPool.start`."""
        return self._run(lambda pool: pool.start())

    def stop(self, drain: bool = True, grace: float | timedelta = 30.0) -> StopReport:  # noqa: FBT001, FBT002 - the contract's form
        """See `prewarmkit.PrewarmPool.stop`."""
        return self._run(lambda pool: pool.stop(drain, grace))

    def pause(self) -> None:
        """See `prewarmkit.PrewarmPool.pause`."""
        self._run_now(lambda pool: pool.pause())

    def resume(self) -> None:
        """See `prewarmkit.PrewarmPool.resume`."""
        self._run_now(lambda pool: pool.resume())

    def resize(self, concurrency: int) -> None:
        """See `prewarmkit.PrewarmPool.resize`."""
        self._run_now(lambda pool: pool.resize(concurrency))

    def _run(self, work: Callable[[AsyncPool], Awaitable[T]]) -> T:
        return self._entered().call(work)

    def _run_now(self, work: Callable[[AsyncPool], T]) -> T:
        """What waits for nothing may be asked for in the loop's own thread too, as by ``on_event``."""
        thread = self._entered()
        if thread.is_current:
            return work(thread.value)

        async def do(pool: AsyncPool) -> T:
            return work(pool)

        return thread.call(do)

    def _entered(self) -> LoopThread[AsyncPool]:
        if self._thread is None:
            raise PoolClosed(f"The pool {self._name!r} is not entered: use `with` around it.")
        self._thread.check_process()
        return self._thread

    # ── enqueue ──────────────────────────────────────────────────────────────

    def enqueue(
        self,
        media: Media | str,
        *,
        kind: MediaKind | str | None = None,
        target: WarmTarget | str | None = None,
        priority: int | None = None,
        delay: float | timedelta | None = None,
        retry_failed: bool = False,
    ) -> Enqueued:
        """See `prewarmkit.PrewarmPool.enqueue`."""
        return self._run(
            lambda pool: pool.enqueue(
                media, kind=kind, target=target, priority=priority, delay=delay, retry_failed=retry_failed
            )
        )

    def enqueue_many(
        self,
        media: Iterable[Media | str],
        *,
        kind: MediaKind | str | None = None,
        target: WarmTarget | str | None = None,
        priority: int | None = None,
        delay: float | timedelta | None = None,
        retry_failed: bool = False,
    ) -> list[Enqueued]:
        """See `prewarmkit.PrewarmPool.enqueue_many`."""
        listed = list(media)  # here: it may ask the host's database, by a connection of this thread's
        return self._run(
            lambda pool: pool.enqueue_many(
                listed, kind=kind, target=target, priority=priority, delay=delay, retry_failed=retry_failed
            )
        )

    # ── look up and wait ─────────────────────────────────────────────────────

    def lookup(
        self,
        media: Media | str,
        *,
        kind: MediaKind | str | None = None,
        target: WarmTarget | str | None = None,
        allow_stale: bool = True,
    ) -> Handle | None:
        """See `prewarmkit.PrewarmPool.lookup`."""
        return self._run(lambda pool: pool.lookup(media, kind=kind, target=target, allow_stale=allow_stale))

    def require(
        self,
        media: Media | str,
        *,
        kind: MediaKind | str | None = None,
        target: WarmTarget | str | None = None,
        enqueue: bool = True,
    ) -> Handle:
        """See `prewarmkit.PrewarmPool.require`."""
        return self._run(lambda pool: pool.require(media, kind=kind, target=target, enqueue=enqueue))

    def warm(
        self,
        media: Media | str,
        *,
        kind: MediaKind | str | None = None,
        target: WarmTarget | str | None = None,
        timeout: float | timedelta | None = None,
    ) -> Handle:
        """See `prewarmkit.PrewarmPool.warm`."""
        return self._run(lambda pool: pool.warm(media, kind=kind, target=target, timeout=timeout))

    def invalidate(
        self,
        media: Media | str | Handle,
        rewarm: bool = True,  # noqa: FBT001, FBT002 - the contract's form
        *,
        kind: MediaKind | str | None = None,
        target: WarmTarget | str | None = None,
    ) -> bool:
        """See `prewarmkit.PrewarmPool.invalidate`."""
        return self._run(lambda pool: pool.invalidate(media, rewarm, kind=kind, target=target))

    def join(self, timeout: float | timedelta | None = None) -> None:
        """See `prewarmkit.PrewarmPool.join`."""
        return self._run(lambda pool: pool.join(timeout))

    # ── batches driven by the host ───────────────────────────────────────────

    def process_batch(self, limit: int | None = None) -> BatchReport:
        """See `prewarmkit.PrewarmPool.process_batch`."""
        return self._run(lambda pool: pool.process_batch(limit))

    # ── figures ──────────────────────────────────────────────────────────────

    def stats(self) -> PoolStats:
        """See `prewarmkit.PrewarmPool.stats`; since it was entered, and the last ones once it was left."""
        if self._thread is None and self._last_stats is not None:
            return self._last_stats
        return self._run_now(lambda pool: pool.stats())

    def counts(self) -> Counts:
        """See `prewarmkit.PrewarmPool.counts`."""
        return self._run(lambda pool: pool.counts())

    def queue_items(self, limit: int = 100, *, after: str | None = None) -> list[Row]:
        """See `prewarmkit.PrewarmPool.queue_items`."""
        return self._run(lambda pool: pool.queue_items(limit, after=after))

    def requeue_failed(
        self,
        *,
        target: WarmTarget | str | None = None,
        kind: MediaKind | str | None = None,
        reason: str | None = None,
        keys: Collection[str] | None = None,
        limit: int | None = None,
    ) -> int:
        """See `prewarmkit.PrewarmPool.requeue_failed`."""
        listed = None if keys is None else list(keys)  # as in `enqueue_many`
        return self._run(
            lambda pool: pool.requeue_failed(
                target=target, kind=kind, reason=reason, keys=listed, limit=limit
            )
        )
