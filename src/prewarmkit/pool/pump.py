"""The store side of a pool: leases work ahead, settles outcomes, holds leases, gives back.

One task takes turns with the store; nothing else writes to it while the workers run.
Outcomes that came while a turn was under way go with the next one, so the busier the
pool, the more outcomes share a commit.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Sequence

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from attrs import define, field

from prewarmkit.errors import StoreError, StoreFull, WarmFailed
from prewarmkit.pool.attempts import Attempts
from prewarmkit.pool.core import Bell, Core
from prewarmkit.pool.events import (
    LeaseLost,
    MediaDeferred,
    MediaFailed,
    MediaReady,
    MediaRetried,
    PoolEvent,
    StoreTrouble,
)
from prewarmkit.pool.state import Verdict
from prewarmkit.ring import RingQueue
from prewarmkit.stores.base import Failed, Lease, MediaId, Outcome, Released, Retry, Succeeded, Turn
from prewarmkit.stores.lifecycle import State
from prewarmkit.stores.rules import handle_of

__all__ = ["Pump", "Settled"]

logger = logging.getLogger("prewarmkit.pool")

_LANES = 10
_LONGEST_TROUBLE_SECONDS = 5.0
# Leases for each worker: one that it has, and others that it finds while the store is asked for more.
_FEWEST_LEASES, _MOST_LEASES = 2, 4


@define
class Settled:
    """A verdict on its way to the store."""

    verdict: Verdict
    seconds: float


@define(eq=False)
class Pump:
    """Turns with the store, and the leases between them.

    `ring` has what is leased and not begun, `held` all that is leased and not settled.
    """

    core: Core
    attempts: Attempts
    concurrency: int
    bell: Bell = field(init=False, factory=Bell)
    turned: Bell = field(init=False, factory=Bell)
    ring: RingQueue[tuple[Lease, float]] = field(init=False)
    held: dict[MediaId, Lease] = field(init=False, factory=dict[MediaId, Lease])
    is_paused: bool = field(init=False, default=False)
    is_stopping: bool = field(init=False, default=False)
    urgent: int = field(init=False, default=0)
    _next_due: float | None = field(init=False, default=None)
    _at_rest: tuple[float, int] = field(init=False, default=(-math.inf, 0))
    _outbox: list[Settled] = field(init=False, factory=list[Settled])
    _busy: int = field(init=False, default=0)
    _is_turning: bool = field(init=False, default=False)
    _leases: int = field(init=False, default=_FEWEST_LEASES)
    _troubles: int = field(init=False, default=0)
    _dice: random.Random = field(init=False, factory=random.Random)

    def __attrs_post_init__(self) -> None:
        # Room for every lease ahead and the few that somebody waits for; `_room` keeps to it.
        # Nobody is overtaken for long: the store's ageing orders the rows, the lanes only what is ahead.
        size = self.core.settings.max_queue + 64
        self.ring = RingQueue(size, lanes=_LANES, key=lambda place: place[0].id, max_skips=size)

    # ── turns ────────────────────────────────────────────────────────────────

    async def turn(self, lease: int) -> int:
        """Settle what waits and lease up to ``lease`` rows into the ring; how many came."""
        batch, self._outbox = self._outbox, []
        core = self.core
        try:
            turn = await self._store_turn([settled.verdict.outcome for settled in batch], lease)
        except BaseException:
            # Nothing was settled, or we cannot know: the fence makes a second telling safe.
            self._outbox = batch + self._outbox
            raise
        self._troubles = 0
        self._pace(is_full=bool(batch) and 0 < lease == len(turn.leased))
        lost = {outcome.lease for outcome in turn.lost}
        for settled in batch:
            self._apply(settled, is_lost=settled.verdict.outcome.lease in lost)
        now = core.clock()
        for each in turn.leased:
            if (ours := self.held.get(each.id)) is not None:
                self.drop([ours])  # due again under our own hands: its version changed
            self.held[each.id] = each
            self.ring.enqueue_nowait((each, now), lane=min(each.priority, _LANES - 1))
        core.recorder.leased(len(turn.leased))
        self._next_due = turn.next_due
        core.recorder.pending = turn.pending + self._at_rest[1]
        self.turned.ring()
        return len(turn.leased)

    async def _store_turn(self, outcomes: list[Outcome], lease: int) -> Turn:
        # Shielded: a turn that was committed but not heard of would cost each of its
        # rows an attempt. Stores bound the time of their calls.
        settings = self.core.settings
        self._is_turning = True
        try:
            with anyio.CancelScope(shield=True):
                return await self.core.store.turn(
                    outcomes, lease, self.core.book.awake(), settings.lease_seconds
                )
        finally:
            self._is_turning = False
        raise RuntimeError("unreachable: a shield swallows nothing")  # for type checkers

    async def _count_at_rest(self) -> None:
        """Rows of targets that rest: a turn does not count what it may not lease, an operator does."""
        core, now = self.core, self.core.clock()
        resting = set(core.book.ids) - set(core.book.awake())
        if not resting:
            self._at_rest = (-math.inf, 0)
        elif now - self._at_rest[0] >= core.settings.poll_interval_seconds:
            with anyio.CancelScope(shield=True):
                counts = await core.store.counts(resting)
                waiting = sum(rows for (_, _, state), rows in counts.items() if state is State.PENDING)
                self._at_rest = (now, waiting)

    def settle(self, verdict: Verdict, seconds: float) -> None:
        """Put a verdict on its way."""
        self._outbox.append(Settled(verdict, seconds))
        self.bell.ring()

    def _apply(self, settled: Settled, *, is_lost: bool) -> None:
        """The store has it: tell the figures, the events and whoever waits."""
        core, outcome = self.core, settled.verdict.outcome
        lease = outcome.lease
        if self.held.get(lease.id) is lease:
            del self.held[lease.id]
        core.cache.drop(lease.id)
        if is_lost:
            core.recorder.count("lost", target=lease.id.target)
            core.events.emit(LeaseLost(lease.id))
            return
        event = self._record(outcome, settled)
        if event is not None:
            core.events.emit(event)

    def _record(self, outcome: Outcome, settled: Settled) -> PoolEvent | None:
        core, lease, label = self.core, outcome.lease, settled.verdict.label
        target = lease.id.target
        match outcome:
            case Succeeded(_, warmed):
                core.recorder.succeeded(target)
                handle = handle_of(lease.id, warmed, now=time.time())
                core.flights.land(lease.id, handle)
                return MediaReady(lease.id, handle, settled.seconds)
            case Failed(_, reason):
                core.recorder.count("failed", target=target)
                core.flights.land(lease.id, WarmFailed(reason, lease.attempt, key=lease.id.key))
                return MediaFailed(lease.id, lease.attempt, reason)
            case Retry(_, delay, reason, refund):
                core.recorder.count(label, target=target)
                if refund:
                    return MediaDeferred(lease.id, reason, delay)
                return MediaRetried(lease.id, lease.attempt, reason, delay)
            case Released():
                return None

    # ── the loop ─────────────────────────────────────────────────────────────

    async def run(self, group: TaskGroup) -> None:
        """Take turns and start workers until `is_stopping`."""
        while not self.is_stopping:
            room = self._room()
            urgent, self.urgent = self.urgent, 0  # what becomes urgent meanwhile is for the next turn
            try:
                await self._count_at_rest()
                came = await self.turn(room)
            except StoreError as error:
                self.urgent += urgent
                await self._sit_out(error)
                continue
            self._dispatch(group)
            is_dry = came < room
            if not self._outbox and (is_dry or not self._room()):
                await self.bell.wait(self._patience())

    def _room(self) -> int:
        """How many rows to lease: enough for every worker to have one and find the next."""
        if self.is_paused or self.is_stopping:
            return 0
        held = len(self.held) - len(self._outbox)  # the turn that leases also settles
        ahead = min(self._leases * self.concurrency - held, self.core.settings.max_queue - len(self.ring))
        free = self.ring.maxsize - len(self.ring)
        return min(max(ahead, min(self.urgent, self.concurrency)), free)

    def _pace(self, *, is_full: bool) -> None:
        """Lease further ahead while workers run dry during a turn; that costs a crash more attempts, so no longer."""
        if self._busy >= self.concurrency:
            self._leases = max(self._leases - 1, _FEWEST_LEASES)
        elif is_full and not len(self.ring):
            self._leases = min(self._leases + 1, _MOST_LEASES)

    def _patience(self) -> float:
        """Seconds until a turn is worth it though nothing rang."""
        poll = self.core.settings.poll_interval_seconds
        waits = [poll * self._dice.uniform(0.75, 1.25)]
        if self._next_due is not None and self._room():
            waits.append(max(self._next_due, 0.005))
        if (awake := self.core.book.next_awake()) is not None:
            waits.append(awake + 0.001)
        return min(waits)

    def _dispatch(self, group: TaskGroup) -> None:
        """Start workers for what is leased and not begun."""
        while (place := self._next()) is not None:
            self._busy += 1
            group.start_soon(self._work, place)

    def _next(self) -> tuple[Lease, float] | None:
        """What one more worker may begin now."""
        while self._busy < self.concurrency and len(self.ring) and not (self.is_paused or self.is_stopping):
            place = self.ring.dequeue_nowait()
            lease, _ = place
            if self.core.book.resting(lease.id.target) is None:
                return place
            self.settle(Verdict(Released(lease), "deferred"), 0.0)
        return None

    def begin_all(self, group: TaskGroup) -> None:
        """Start a worker for everything that is leased, however many that takes."""
        for place in self.ring.dequeue_batch(self.ring.maxsize):
            self._busy += 1
            group.start_soon(self._work, place)

    async def _work(self, place: tuple[Lease, float] | None) -> None:
        """Make attempts as long as there is something to begin: a task for each would cost as much as the rest."""
        while place is not None:
            try:
                verdict, seconds = await self.attempts.run(*place)
            finally:
                self._busy -= 1
            if verdict is not None:
                self.settle(verdict, seconds)
            if not self._is_turning and len(self._outbox) >= self.concurrency:
                # Work that never waits would settle all that is leased before the store hears of any: let the
                # turn begin, and go on while the store is at it.
                await anyio.lowlevel.checkpoint()
            place = self._next()
            self._busy += place is not None

    async def _sit_out(self, error: StoreError) -> None:
        """The store is in trouble: keep what we know, tell, wait, try again."""
        self._troubles += 1
        wait = min(0.1 * 2 ** (self._troubles - 1), _LONGEST_TROUBLE_SECONDS)
        logger.error("store: %s; next try in %.3g s", error, wait)
        self.core.events.emit(StoreTrouble(str(error), isinstance(error, StoreFull), wait))
        with anyio.move_on_after(wait):
            while not self.is_stopping:
                await self.bell.wait(wait)

    # ── leases ───────────────────────────────────────────────────────────────

    async def beat(self) -> None:
        """Hold every lease until cancelled; end the attempts whose lease is lost."""
        seconds = self.core.settings.lease_seconds
        while True:
            await anyio.sleep(seconds / 3)
            if not self.held:
                continue
            try:
                lost = await self.core.store.heartbeat(list(self.held.values()), seconds)
            except StoreError as error:
                logger.error("heartbeat: %s", error)  # noqa: TRY400 - the message says all; the lease may outlive it
                continue
            self.drop(lost)

    def drop(self, lost: Sequence[Lease]) -> None:
        """Forget leases that somebody else has now."""
        for lease in lost:
            if self.held.get(lease.id) is not lease:
                continue
            del self.held[lease.id]
            self.ring.discard(lease.id)
            self.attempts.cancel(lease, is_lost=True)
            self.core.recorder.count("lost", target=lease.id.target)
            self.core.events.emit(LeaseLost(lease.id))

    async def hear(self) -> None:
        """Ring the bell for each hint of the store until cancelled; without hints there is the poll."""
        while True:
            try:
                async with self.core.store.wakeups() as hints:
                    async for _ in hints:
                        self.bell.ring()
            except StoreError as error:
                logger.error("wake-ups: %s", error)  # noqa: TRY400 - the message says all
            await anyio.sleep(_LONGEST_TROUBLE_SECONDS)

    # ── the end ──────────────────────────────────────────────────────────────

    @property
    def busy(self) -> int:
        """Workers that have a medium."""
        return self._busy

    @property
    def unsettled(self) -> int:
        """Outcomes that the store does not have yet."""
        return len(self._outbox)

    def give_back_unstarted(self) -> int:
        """Put what nobody began on its way back; how many."""
        leases = [lease for lease, _ in self.ring.dequeue_batch(self.ring.maxsize)]
        for lease in leases:
            self.settle(Verdict(Released(lease), "deferred"), 0.0)
        return len(leases)

    def give_back_held(self) -> None:
        """Put what was cut off without an outcome on its way back."""
        told = {settled.verdict.outcome.lease.id for settled in self._outbox}
        for lease in list(self.held.values()):
            if lease.id not in told:
                self.settle(Verdict(Released(lease), "deferred"), 0.0)

    async def flush(self, seconds: float) -> None:
        """Settle all that is left, within that time and come what may; `unsettled` says what stayed."""
        wait = 0.1
        with anyio.move_on_after(seconds, shield=True):
            while self._outbox:
                try:
                    await self.turn(0)
                except StoreError as error:
                    logger.error("last turn: %s; next try in %.3g s", error, wait)  # noqa: TRY400 - the message says all
                    await anyio.sleep(wait)
                    wait *= 2
