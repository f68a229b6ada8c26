"""Start, stop, pause: when the workers of a pool run, and how they end.

The stop ladder, in order: lease nothing more; let the workers finish within the grace;
cancel what still runs; give unstarted and cancelled leases back at no attempt's cost;
flush, bounded; report. It runs in the pool's own task, so a caller of stop that is
cancelled changes nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import anyio
from attrs import define, field, frozen

from prewarmkit.errors import PoolClosed
from prewarmkit.pool.background import Background
from prewarmkit.pool.core import Core
from prewarmkit.pool.events import PoolStarted, PoolStopped
from prewarmkit.pool.pump import Pump

__all__ = ["BatchReport", "Life", "StopReport"]

logger = logging.getLogger("prewarmkit.pool")

_GRACE_SECONDS = 30.0
_CANCEL_SECONDS = 10.0
_FLUSH_SECONDS = 10.0
_LAST_SECONDS = 1.0
_LISTENER_SECONDS = 5.0


@frozen(kw_only=True)
class StopReport:
    """What a stop did.

    Attributes:
        finished: Media that workers ended within the grace.
        cancelled: Media that were cut off and given back.
        released: Media that nobody had begun, given back.
        unsettled: Outcomes that the store could not be told; their leases run out by themselves.
        seconds: How long it took.
    """

    finished: int = 0
    cancelled: int = 0
    released: int = 0
    unsettled: int = 0
    seconds: float = 0.0


@frozen(kw_only=True)
class BatchReport:
    """What one `PrewarmPool.process_batch` did.

    Attributes:
        leased: Media taken.
        succeeded: Media that are warm now.
        failed: Media that failed for good.
        retried: Media that go again, at an attempt's cost or not.
        seconds: How long it took.
    """

    leased: int
    succeeded: int
    failed: int
    retried: int
    seconds: float


@define(eq=False)
class Batch:
    """A batch under way."""

    scope: anyio.CancelScope = field(init=False, factory=anyio.CancelScope)
    done: anyio.Event = field(init=False, factory=anyio.Event)


@define(eq=False)
class Life:
    """The workers' task, and the ladder that ends it."""

    core: Core
    pump: Pump
    _workers: Background = field(init=False, factory=Background)
    _events: Background = field(init=False, factory=Background)
    _deadline: float = field(init=False, default=math.inf)
    _report: StopReport = field(init=False, factory=StopReport)
    _listening: anyio.CancelScope | None = field(init=False, default=None)
    _batch: Batch | None = field(init=False, default=None)

    @property
    def is_running(self) -> bool:
        """Whether the workers run, or are on their way to a stop."""
        return self._workers.is_running

    @property
    def failure(self) -> BaseException | None:
        """What stopped the workers, if it was a bug."""
        return self._workers.failure

    async def open(self) -> None:
        """Make ready to start."""
        await self._workers.open()
        await self._events.open()
        self.core.events.open()
        self._events.start(self._serve_events)

    async def close(self) -> None:
        """Leave; the workers have been stopped.

        Raises:
            PoolClosed: A bug had stopped them.
        """
        # In the order of nurseries: what was opened last is closed first.
        try:
            await self._events.close()
        finally:
            await self._workers.close()
        if self._workers.failure is not None:
            raise self.closed() from self._workers.failure

    async def finish(self, *, drain: bool) -> BaseException | None:
        """Stop, and let the host's callback have what happened; a cancellation that came meanwhile, to be raised.

        Shielded: the ladder is bounded by its grace and its flush, not by the host's cancellation. What
        asyncio's own ``Task.cancel`` brings passes through a shield; it ends the grace, and nothing else.
        """
        cancelled: BaseException | None = None
        with anyio.CancelScope(shield=True):
            while True:
                try:
                    await self.stop(drain=drain and cancelled is None, grace=_GRACE_SECONDS)
                    await self._settle_events()
                except anyio.get_cancelled_exc_class() as error:
                    cancelled = error
                else:
                    break
        return cancelled

    async def _settle_events(self) -> None:
        """Let the host's callback have what happened; one that takes too long is cut off."""
        self.core.events.close()
        with anyio.move_on_after(_LISTENER_SECONDS):
            await self._events.wait()
        if self._listening is not None:
            self._listening.cancel()
        await self._events.wait()
        self.core.events.discard()

    async def _serve_events(self) -> None:
        with anyio.CancelScope() as self._listening:
            await self.core.events.serve()

    def start(self) -> None:
        """Start the workers; nothing happens if they run."""
        if self._workers.is_running and not self.pump.is_stopping:
            return
        if self._workers.is_running:
            raise RuntimeError("The pool is stopping: await stop() before start().")
        self._check_no_batch()
        self.pump.begin()
        self._deadline, self._report = math.inf, StopReport()
        self._workers.start(self._main)

    async def stop(self, *, drain: bool, grace: float) -> StopReport:
        """Stop the workers and wait until they have; a second call joins the first, and may hasten it."""
        if self._batch is not None:
            await self._end_batch(self._batch, grace if drain else 0.0)
        if not self._workers.is_running:
            return self._report
        deadline = self.core.clock() + (grace if drain else 0.0)
        self._deadline = min(self._deadline, deadline)
        self.pump.end()
        await self._workers.wait()
        return self._report

    def closed(self) -> PoolClosed:
        """The error for whoever needs the workers."""
        return self._closed_by(self._workers.failure)

    def _closed_by(self, failure: BaseException | None) -> PoolClosed:
        if failure is None:
            return PoolClosed(f"The pool {self.core.name!r} has stopped; what was queued stays queued.")
        return PoolClosed(f"The pool {self.core.name!r} was stopped by a bug: {failure!r}", cause=failure)

    async def join(self) -> None:
        """Wait until the store has no work for our targets; poll for what others do."""
        turned = self.pump.turned.next()
        while await self._has_work():
            with anyio.move_on_after(self.core.settings.poll_interval_seconds):
                await turned.wait()
            turned = self.pump.turned.next()

    async def _has_work(self) -> bool:
        if self._workers.failure is not None:
            raise self.closed()
        # What this process knows comes first: the store is asked only when it may be over.
        if self.is_running and (self.pump.held or self.core.recorder.pending):
            return True
        return await self.core.store.has_work(self.core.book.ids)

    def _check_no_batch(self) -> None:
        # Both would settle, hold and give back the same leases.
        if self._batch is not None:
            raise RuntimeError("A batch is under way: await process_batch() first.")

    @staticmethod
    async def _end_batch(batch: Batch, grace: float) -> None:
        with anyio.move_on_after(grace):
            await batch.done.wait()
        batch.scope.cancel()
        await batch.done.wait()

    async def batch(self, most: int) -> BatchReport:
        """Lease, warm in parallel, settle, without the workers' task."""
        self._check_no_batch()
        pump, recorder, began = self.pump, self.core.recorder, self.core.clock()
        before, leased = dict(recorder.counts), 0
        batch = self._batch = Batch()
        try:
            with batch.scope:  # a stop may end it
                leased = await pump.turn(most)
                if leased < most and await pump.strangers.meet():
                    leased += await pump.turn(most - leased)
                async with anyio.create_task_group() as group:
                    for keep_going in (pump.beat, pump.tell, pump.crew.watch):
                        group.start_soon(keep_going)
                    await pump.crew.work_off()
                    group.cancel_scope.cancel()
        finally:
            try:
                pump.give_back_unstarted()
                pump.give_back_held()
                await pump.flush(_FLUSH_SECONDS)
            finally:
                self._batch = None
                batch.done.set()

        def grown(*figures: str) -> int:
            return sum(recorder.counts.get(figure, 0) - before.get(figure, 0) for figure in figures)

        return BatchReport(
            leased=leased,
            succeeded=grown("succeeded"),
            failed=grown("failed"),
            retried=grown("retried", "deferred"),
            seconds=self.core.clock() - began,
        )

    # ── in the workers' task ─────────────────────────────────────────────────

    async def _main(self) -> None:
        core, pump = self.core, self.pump
        failure: BaseException | None = None
        core.events.emit(PoolStarted(pump.crew.concurrency))
        try:
            async with anyio.create_task_group() as group:
                for keep_going in (pump.beat, pump.hear, pump.crew.watch, pump.strangers.run):
                    group.start_soon(keep_going)
                pump.crew.open(group)
                await pump.run()
                await self._wind_down()
                group.cancel_scope.cancel()
        except BaseException as error:
            failure = error
            raise
        finally:
            await self._end(failure)

    async def _wind_down(self) -> None:
        """From the last lease to the last worker."""
        core, pump, began = self.core, self.pump, self.core.clock()
        released, had = pump.give_back_unstarted(), pump.crew.busy
        await self._until_idle(lambda: self._deadline)
        cut = pump.crew.busy
        pump.crew.cut_off()
        # What will not be cancelled is waited for longer only when all else is settled.
        given_up = core.clock() + _CANCEL_SECONDS
        await self._until_idle(lambda: given_up)
        await pump.flush(_FLUSH_SECONDS)
        self._report = StopReport(
            finished=had - cut,
            cancelled=cut,
            released=released,
            unsettled=pump.unsettled,
            seconds=core.clock() - began,
        )

    async def _until_idle(self, deadline: Callable[[], float]) -> None:
        """Settle while workers end; the deadline may come nearer meanwhile."""
        core, pump = self.core, self.pump
        while pump.crew.busy and (left := deadline() - core.clock()) > 0:
            if pump.unsettled:
                await pump.flush(min(left, _FLUSH_SECONDS))
            await pump.bell.wait(min(left, core.settings.poll_interval_seconds))

    async def _end(self, failure: BaseException | None) -> None:
        """Whatever happened: nothing stays leased, nobody waits in vain."""
        core, pump = self.core, self.pump
        pump.end()
        try:
            pump.give_back_unstarted()
            pump.give_back_held()
            # A store that did not take the last flush has had its time.
            await pump.flush(_LAST_SECONDS if self._report.unsettled else _FLUSH_SECONDS)
        finally:
            error = self._closed_by(failure if isinstance(failure, Exception) else None)
            core.flights.land_all(lambda _: error)
            core.events.emit(PoolStopped(error.cause))
            logger.debug("pool %s: %r", core.name, self._report)
