"""The workers: tasks that take what lies on the rack, one medium at a time, until they are dismissed.

A worker lives on from medium to medium, since a task for each would cost as much as all else
together. One that finds nothing parks. Whoever brings work calls one worker; that one, once
it has taken something and sees more, calls the next. So a burst of work that never waits
wakes one task and not all, and work that waits has every worker within a few turns of the
event loop.

A worker has a cancel scope of its own. To cut an attempt off is to cancel its worker's scope;
the worker goes on in a new one. This file knows no store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from attrs import define, field

from prewarmkit.pool.attempts import Attempts, Worker
from prewarmkit.pool.rack import Place, Rack
from prewarmkit.pool.state import LIVE_PRIORITY, Verdict
from prewarmkit.stores.base import Lease, MediaId

__all__ = ["Crew"]

_UNBROKEN = 16
"""Media that one worker ends in a row, without anybody else running, before it lets others run."""


@define(eq=False)
class Crew:
    """A pool's workers.

    Attributes:
        rack: Where they take from.
        attempts: What they do.
        settle: Gets each verdict and the seconds it took.
        is_eager: Whether the store should be told now: a worker then lets the pump run.
        concurrency: Most media at once.
        live_workers: How many of these are kept for live media.
        is_closed: Nothing new is begun: paused, or stopping.
    """

    rack: Rack
    attempts: Attempts
    settle: Callable[[Verdict, float], None]
    is_eager: Callable[[], bool]
    concurrency: int
    live_workers: int = 0
    is_closed: bool = field(init=False, default=False)
    busy: int = field(init=False, default=0)
    _background: int = field(init=False, default=0)
    _group: TaskGroup | None = field(init=False, default=None)
    _workers: set[Worker] = field(init=False, factory=set[Worker])
    _running: dict[MediaId, Worker] = field(init=False, factory=dict[MediaId, Worker])
    _parked: deque[Worker] = field(init=False, factory=deque[Worker])
    _called: Worker | None = field(init=False, default=None)
    _last: Worker | None = field(init=False, default=None)
    _unbroken: int = field(init=False, default=0)

    def open(self, group: TaskGroup) -> None:
        """Workers live in this group from now on; they come when they are called."""
        self._group = group
        self._workers.clear()
        self._parked.clear()
        self._called = None

    def call(self) -> None:
        """There is something to do: let one worker look, unless one is on its way."""
        if self._called is not None or self.is_closed or self.busy >= self.concurrency:
            return
        if self._parked:
            worker = self._parked.pop()  # the last one to park: the others may be dismissed
            worker.bell.set()
        elif self._group is not None and len(self._workers) < self.concurrency:
            worker = Worker()
            self._workers.add(worker)
            self._group.start_soon(self._live, worker)
        else:
            return
        self._called = worker

    # ── a worker ─────────────────────────────────────────────────────────────

    async def _live(self, worker: Worker) -> None:
        try:
            while worker in self._workers:
                with anyio.CancelScope() as worker.scope:
                    await self._serve(worker)
                if worker.lease is not None:
                    self._ended(worker, self.attempts.cut(worker))
        finally:
            self._workers.discard(worker)
            if self._called is worker:
                self._called = None
            if (
                worker.lease is not None
            ):  # the whole pool is being cancelled; who gives back knows what was held
                self._ended(worker, None)

    async def _serve(self, worker: Worker) -> None:
        """Take and warm until cut off or dismissed."""
        while True:
            place = self._take(worker)
            if place is None:
                if not await self._park(worker):
                    return
                continue
            verdict = await self.attempts.run(worker)
            self._ended(worker, verdict)
            if worker.scope.cancel_called:
                return  # it was meant for what has just ended: the next one must not have it
            await self._give_way(worker)

    def _take(self, worker: Worker) -> Place | None:
        """The next medium for this worker, which has it from now on."""
        if self._called is worker:
            self._called = None
        if self.is_closed or self.busy >= self.concurrency:
            return None
        place = self.rack.take(only_live=self._background >= self.concurrency - self.live_workers)
        if place is not None:
            self._begin(worker, place)
            if len(self.rack):
                self.call()
        return place

    def _begin(self, worker: Worker, place: Place) -> None:
        lease, worker.taken_at = place
        worker.lease = lease
        self.busy += 1
        self._background += lease.priority != LIVE_PRIORITY
        self._running[lease.id] = worker
        self.attempts.begin(worker)

    def _ended(self, worker: Worker, verdict: Verdict | None) -> None:
        lease = worker.lease
        assert lease is not None  # only what has one ends
        self.busy -= 1
        self._background -= lease.priority != LIVE_PRIORITY
        if self._running.get(lease.id) is worker:  # or the row was leased anew meanwhile
            del self._running[lease.id]
        self.attempts.end(worker)
        worker.lease = None
        if verdict is not None:
            self.settle(verdict, worker.seconds)

    async def _park(self, worker: Worker) -> bool:
        """Wait to be called; whether to go on."""
        if len(self._workers) > self.concurrency:
            self._workers.discard(worker)
            return False
        worker.bell = anyio.Event()
        self._parked.append(worker)
        try:
            await worker.bell.wait()
        except BaseException:
            if not worker.bell.is_set():
                self._parked.remove(worker)
            raise
        return True

    async def _give_way(self, worker: Worker) -> None:
        """Let others run, now and then: work that never waits would keep the loop, and the pump from its turn."""
        if worker is not self._last:
            self._last, self._unbroken = worker, 0
        self._unbroken += 1
        if self._unbroken >= _UNBROKEN and self.is_eager():
            self._unbroken = 0
            await anyio.lowlevel.checkpoint()

    # ── from outside ─────────────────────────────────────────────────────────

    async def work_off(self) -> None:
        """Warm what lies on the rack at once, with as many workers as its targets may have; return when it is done."""
        async with anyio.create_task_group() as group:
            self._begin_all(group)

    def _begin_all(self, group: TaskGroup) -> None:
        while (place := self.rack.take()) is not None:
            worker = Worker()
            self._begin(worker, place)
            group.start_soon(self._warm_one, worker, group)

    async def _warm_one(self, worker: Worker, group: TaskGroup) -> None:
        try:
            with worker.scope:
                self._ended(worker, await self.attempts.run(worker))
        finally:
            if worker.lease is not None:
                self._ended(worker, self.attempts.cut(worker))
        self._begin_all(group)  # a target that has one less may have another

    def cancel(self, lease: Lease) -> None:
        """End the attempt of a lease that is lost; its outcome is nobody's any more."""
        worker = self._running.get(lease.id)
        if worker is not None and worker.lease is not None and worker.lease.token == lease.token:
            worker.is_lost = True
            worker.scope.cancel()

    def cut_off(self) -> None:
        """End every attempt."""
        for worker in list(self._running.values()):
            worker.scope.cancel()

    def dismiss(self) -> None:
        """Let parked workers go; busy ones must have ended."""
        self._workers.clear()
        while self._parked:
            self._parked.pop().bell.set()

    async def watch(self) -> None:
        """End attempts that take longer than `PoolSettings.deadline_seconds`, until cancelled."""
        core = self.attempts.core
        seconds = core.settings.deadline_seconds
        while True:
            now, left = core.clock(), seconds
            for worker in list(self._running.values()):
                remaining = worker.began + seconds - now
                if remaining > 0:
                    left = min(left, remaining)
                elif not worker.scope.cancel_called:
                    worker.is_overdue = True
                    worker.scope.cancel()
            await anyio.sleep(left)
