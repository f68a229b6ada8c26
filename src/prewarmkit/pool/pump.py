"""The store side of a pool: leases work ahead, settles outcomes, holds leases, gives back.

One task takes turns with the store; nothing else writes to it while the workers run.
Outcomes that came while a turn was under way go with the next one, so the busier the
pool, the more outcomes share a commit. What is leased lies on the rack until a worker of
the crew takes it; how much is leased is the demand's affair.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet

import anyio
from attrs import define, field

from prewarmkit.errors import StoreError, StoreFull
from prewarmkit.pool.attempts import Attempts
from prewarmkit.pool.core import Bell, Core, Tide
from prewarmkit.pool.crew import Crew
from prewarmkit.pool.demand import Demand
from prewarmkit.pool.events import PoolPaused, PoolResized, PoolResumed, StoreTrouble
from prewarmkit.pool.ledger import tell, tell_lost
from prewarmkit.pool.rack import Rack
from prewarmkit.pool.state import Verdict
from prewarmkit.pool.strangers import Strangers
from prewarmkit.stores.base import Lease, MediaId, Outcome, Released, Retry, Succeeded, Turn

__all__ = ["LIVE_ROOM", "Pump", "Settled"]

logger = logging.getLogger("prewarmkit.pool")

LIVE_ROOM = 64
"""Media that somebody waits for, and that are taken in though the queue is full."""

_LONGEST_TROUBLE_SECONDS = 5.0
_LINGER_SECONDS = 0.005
_DEFERRED_SECONDS = 1.0
_LOOK_SECONDS = 0.02
_MOST_LOOKED_AT = 1000

Settled = tuple[Verdict, float]
"""A verdict on its way to the store, and the seconds that the attempt took."""


@define(eq=False)
class Pump:
    """Turns with the store, and the leases between them.

    `rack` has what is leased and not begun, `held` all that is leased and not settled.
    """

    core: Core
    rack: Rack = field(init=False)
    crew: Crew = field(init=False)
    demand: Demand = field(init=False)
    strangers: Strangers = field(init=False)
    bell: Bell = field(init=False, factory=Bell)
    turned: Tide = field(init=False, factory=Tide)
    held: dict[MediaId, Lease] = field(init=False, factory=dict[MediaId, Lease])
    is_stopping: bool = field(init=False, default=False)
    _is_paused: bool = field(init=False, default=False)
    _outbox: list[Settled] = field(init=False, factory=list[Settled])
    _deferred: list[Settled] = field(init=False, factory=list[Settled])
    _deferred_until: float = field(init=False, default=-math.inf)
    _is_pressing: bool = field(init=False, default=False)
    _is_turning: bool = field(init=False, default=False)
    _telling: AbstractSet[MediaId] = field(init=False, factory=frozenset[MediaId])
    _troubles: int = field(init=False, default=0)
    _looked_at: float = field(init=False, default=-math.inf)

    def __attrs_post_init__(self) -> None:
        core = self.core
        # Room for every lease ahead and the few that somebody waits for; turns keep to it.
        self.rack = Rack(core.settings.max_queue + LIVE_ROOM, core.book.health)
        self.crew = Crew(
            self.rack,
            Attempts(core),
            self.settle,
            self._is_eager,
            core.settings.concurrency,
            core.settings.live_workers,
        )
        self.demand = Demand(core, self.rack, self.crew, self.held, self._outbox)
        self.strangers = Strangers(core.book, core.clock, self.hint)

    # ── turns ────────────────────────────────────────────────────────────────

    async def turn(self, lease: int, targets: Collection[str] | None = None) -> int:
        """Settle what waits and lease up to ``lease`` rows onto the rack, or as many as it holds; how many came."""
        core, demand = self.core, self.demand
        # While no target is known, one of nobody's: so the store sweeps, and what a dead process held waits again.
        lease = min(lease, self.rack.size - len(self.rack)) if core.book.ids else 1
        asked, hints = core.book.awake() if targets is None else targets, demand.hints
        if self._deferred and core.clock() >= self._deferred_until:
            self._outbox[:0] = self._deferred
            self._deferred.clear()
        batch, self._is_pressing = self._outbox.copy(), False
        self._outbox.clear()
        try:
            turn = await self._store_turn([verdict.outcome for verdict, _ in batch], lease, asked)
        except BaseException:
            # Nothing was settled, or we cannot know: the fence makes a second telling safe.
            self._outbox[:0] = batch
            raise
        came = len(turn.leased)
        self._troubles = 0
        demand.pace(is_full=bool(batch) and 0 < lease == came)
        demand.learn(asked, wanted=lease, came=came, hints=hints, next_due=turn.next_due)
        self._apply(self._put_aside(batch, turn.deferred), turn.lost)
        self._stock(turn.leased)
        self._share_out()
        self.strangers.note(turn.waiting)
        core.recorder.pending = self._pending(turn)
        self.turned.turn()
        return came

    def _put_aside(self, batch: Sequence[Settled], deferred: Sequence[Outcome]) -> Sequence[Settled]:
        """Keep what the store could not be told, its rows being locked, for a while; the rest of the batch."""
        if not deferred:
            return batch
        tokens = {outcome.lease.token for outcome in deferred}
        self._deferred += [settled for settled in batch if settled[0].outcome.lease.token in tokens]
        self._deferred_until = self.core.clock() + _DEFERRED_SECONDS
        return [settled for settled in batch if settled[0].outcome.lease.token not in tokens]

    async def _store_turn(self, outcomes: list[Outcome], lease: int, targets: Collection[str]) -> Turn:
        # Shielded: a turn that was committed but not heard of would cost each of its
        # rows an attempt. Stores bound the time of their calls.
        self._telling = {outcome.lease.id for outcome in outcomes}
        self._is_turning = True
        try:
            with anyio.CancelScope(shield=True):
                return await self.core.store.turn(outcomes, lease, targets, self.core.settings.lease_seconds)
        finally:
            self._is_turning = False
            self._telling = frozenset()
        raise RuntimeError("unreachable: a shield swallows nothing")  # for type checkers

    def _share_out(self) -> None:
        """Say which share of the workers a target may have. Beside others, one is always left to them."""
        core = self.core
        is_alone = len(core.book.ids) == 1 or core.settings.target_concurrency is not None
        self.rack.reckon(self.crew.concurrency, core.clock(), spare=0 if is_alone else 1)

    def _stock(self, leased: Sequence[Lease]) -> None:
        """Put what was leased on the rack."""
        now, held, rack = self.core.clock(), self.held, self.rack
        for lease in leased:
            if (ours := held.get(lease.id)) is not None:
                self.drop([ours])  # due again under our own hands: its version changed
            held[lease.id] = lease
            rack.put((lease, now)).held += 1
        for target in {lease.id.target for lease in leased}:
            # It was told to rest, or the pool to pause, while the turn was under way.
            if self._is_paused or self.core.book.resting(target) is not None:
                self._give_back(rack.drain(target))
        self.core.recorder.leased(len(leased))

    def _pending(self, turn: Turn) -> int:
        """What waits for any of our targets, those that rest included, whichever of them the turn asked for."""
        if turn.waiting is None:
            return turn.pending  # a store that does not say of which targets
        return sum(turn.waiting.get(id_, 0) for id_ in self.core.book.ids)

    # ── outcomes ─────────────────────────────────────────────────────────────

    def settle(self, verdict: Verdict, seconds: float) -> None:
        """Put a verdict on its way."""
        self._outbox.append((verdict, seconds))
        id_ = verdict.outcome.lease.id
        if verdict.pause is not None:
            self._give_back(self.rack.drain(id_.target))
        if not self._is_pressing and len(self.core.flights):
            self._is_pressing = self.core.flights.is_awaited(id_)
        self.bell.ring()

    def _is_eager(self) -> bool:
        """Whether workers that never wait should let the pump have its turn now."""
        return self._is_turning or len(self._outbox) >= self.crew.concurrency

    def _give_back(self, leases: Sequence[Lease]) -> None:
        for lease in leases:
            self.settle(Verdict(Released(lease), "deferred"), 0.0)

    def _forget(self, lease: Lease) -> bool:
        """Hold a lease no more, if we still do."""
        if self.held.get(lease.id) is not lease:
            return False
        del self.held[lease.id]
        self.rack.shelf(lease.id.target).held -= 1
        return True

    def _apply(self, batch: Sequence[Settled], lost: Sequence[Outcome]) -> None:
        """The store has them."""
        core = self.core
        gone = {outcome.lease for outcome in lost} if lost else frozenset[Lease]()
        warmed: dict[str, int] = {}
        for verdict, seconds in batch:
            outcome = verdict.outcome
            lease = outcome.lease
            self._forget(lease)
            core.cache.drop(lease.id)
            if gone and lease in gone:
                tell_lost(core, lease)
                continue
            tell(core, verdict, seconds)
            target = lease.id.target
            if isinstance(outcome, Succeeded):
                warmed[target] = warmed.get(target, 0) + 1
            elif isinstance(outcome, Released) or (isinstance(outcome, Retry) and outcome.delay <= 0):
                self.demand.wet(target)
            if lease.attempt > 1:
                self.demand.wet(target)  # it may have been a suspect, of which stores give one at a time
        for target, media in warmed.items():
            core.recorder.succeeded(target, media)

    # ── the loop ─────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Take turns and call workers until `is_stopping`."""
        demand = self.demand
        while not self.is_stopping:
            lease, targets = demand.next()
            urgent = demand.take_urgent(lease)  # what becomes urgent meanwhile is for the next turn
            try:
                await self.turn(lease, targets)
            except StoreError as error:
                demand.urgent += urgent
                await self._sit_out(self._note_trouble(error))
                continue
            self.crew.call()
            if not (self._outbox and self._is_pressing) and not demand.next()[0]:
                await self.bell.wait(demand.patience())
            await self._linger()

    async def tell(self) -> None:
        """Settle what comes, and lease nothing, until cancelled."""
        while True:
            await self.bell.wait(math.inf)
            await self._linger()
            try:
                await self.turn(0)
            except StoreError as error:
                await anyio.sleep(self._note_trouble(error))

    async def _linger(self) -> None:
        """Let outcomes gather for some milliseconds, while that keeps neither a caller nor a worker waiting."""
        if not self.core.store.is_durable:
            return
        began = self.core.clock()
        while (left := began + _LINGER_SECONDS - self.core.clock()) > 0 and self._may_linger():
            await self.bell.wait(left)

    def _may_linger(self) -> bool:
        enough = self.crew.concurrency
        return (
            0 < len(self._outbox) < enough
            and not (self._is_pressing or self.demand.urgent or self.is_stopping)
            and (len(self.rack) * 2 >= enough or not self.demand.next()[0])
        )

    def hint(self) -> None:
        """Something may have become due: ask the store again."""
        self.demand.hint()
        self.bell.ring()

    def _note_trouble(self, error: StoreError) -> float:
        """The store could not: keep what we know, and tell; seconds until the next try."""
        self._troubles += 1
        wait = min(0.1 * 2.0 ** (self._troubles - 1), _LONGEST_TROUBLE_SECONDS)
        self.core.events.emit(StoreTrouble(str(error), isinstance(error, StoreFull), wait))
        return wait

    async def _sit_out(self, wait: float) -> None:
        with anyio.move_on_after(wait):
            while not self.is_stopping:
                await self.bell.wait(wait)  # rings of outcomes that cannot be told now

    # ── leases ───────────────────────────────────────────────────────────────

    async def beat(self) -> None:
        """Hold every lease until cancelled; end the attempts whose lease is lost."""
        seconds = self.core.settings.lease_seconds
        while True:
            await anyio.sleep(seconds / 3)
            # Not those that a turn is telling of: what it has settled would seem lost.
            held = [lease for lease in self.held.values() if lease.id not in self._telling]
            if not held:
                continue
            try:
                lost = await self.core.store.heartbeat(held, seconds)
            except StoreError as error:
                logger.error("heartbeat: %s", error)  # noqa: TRY400 - the message says all; the lease may outlive it
                continue
            self.drop([lease for lease in lost if lease.id not in self._telling])

    def drop(self, lost: Sequence[Lease]) -> None:
        """Forget leases that somebody else has now."""
        for lease in lost:
            if self._forget(lease):
                self.rack.discard(lease)
                self.crew.cancel(lease)
                tell_lost(self.core, lease)

    async def hear(self) -> None:
        """Take each hint of the store until cancelled; without hints there is the poll."""
        while True:
            try:
                async with self.core.store.wakeups() as hints:
                    async for hint in hints:
                        if hint is None or hint.is_due:
                            self.hint()
                        if hint is not None:
                            self.core.cache.heed(hint.changed)
                        await self._look_at_others()
            except StoreError as error:
                logger.error("wake-ups: %s", error)  # noqa: TRY400 - the message says all
            await anyio.sleep(_LONGEST_TROUBLE_SECONDS)

    async def _look_at_others(self) -> None:
        """Land what somebody here waits for and another process may just have warmed."""
        core, now = self.core, self.core.clock()
        if not len(core.flights) or now - self._looked_at < _LOOK_SECONDS:
            return
        ids = [id_ for id_ in core.flights.ids if id_ not in self.held][:_MOST_LOOKED_AT]
        if ids:
            self._looked_at = now
            for id_, looked in (await core.store.lookup_many(ids)).items():
                core.flights.land_looked(id_, looked)

    # ── from outside ─────────────────────────────────────────────────────────

    def pause(self) -> None:
        """Begin nothing new and lease nothing more."""
        self._is_paused = True
        self._set_closed()
        self.give_back_unstarted()
        self.core.events.emit(PoolPaused())

    def resume(self) -> None:
        """Go on after `pause`."""
        self._is_paused = False
        self._set_closed()
        self.core.events.emit(PoolResumed())
        self.hint()

    def resized(self) -> None:
        """The crew's concurrency is another one now."""
        self.core.events.emit(PoolResized(self.crew.concurrency))
        self.hint()

    def begin(self) -> None:
        """Workers are about to run."""
        self.is_stopping = False
        self.demand.renew()
        self._set_closed()

    def end(self) -> None:
        """Lease nothing more, begin nothing more."""
        self.is_stopping = True
        self._set_closed()
        self.bell.ring()

    def _set_closed(self) -> None:
        self.crew.is_closed = self._is_paused or self.is_stopping

    # ── the end ──────────────────────────────────────────────────────────────

    @property
    def unsettled(self) -> int:
        """Outcomes that the store does not have yet."""
        return len(self._outbox) + len(self._deferred)

    def give_back_unstarted(self) -> int:
        """Put what nobody began on its way back; how many."""
        leases = self.rack.drain()
        self._give_back(leases)
        return len(leases)

    def give_back_held(self) -> None:
        """Put what was cut off without an outcome on its way back."""
        told = {verdict.outcome.lease.token for verdict, _ in (*self._outbox, *self._deferred)}
        self._give_back([lease for lease in self.held.values() if lease.token not in told])

    async def flush(self, seconds: float) -> None:
        """Settle all that is left, within that time and come what may; `unsettled` says what stayed."""
        wait = 0.1
        with anyio.move_on_after(seconds, shield=True):
            while self.unsettled:
                self._deferred_until = -math.inf
                try:
                    await self.turn(0)
                except StoreError as error:
                    logger.error("last turn: %s; next try in %.3g s", error, wait)  # noqa: TRY400 - the message says all
                if self.unsettled:
                    await anyio.sleep(wait)  # where the time may be over: a turn is shielded
                    wait *= 2
