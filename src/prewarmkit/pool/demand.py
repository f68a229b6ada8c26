"""How many rows a pool leases next, and for which targets.

Enough that every worker has one and finds the next, and no more: what a process holds is
what a crash of it costs an attempt. A target that holds its share of that is asked for only
while the others have nothing. Knows nothing of stores, tasks or outcomes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sized

from attrs import define, field

from prewarmkit.pool.core import Core
from prewarmkit.pool.crew import Crew
from prewarmkit.pool.rack import Rack

__all__ = ["Demand"]

# Leases for each worker: one that it has, and others that it finds while the store is asked for more.
_FEWEST_LEASES, _MOST_LEASES = 2, 8
_SOONEST_SECONDS = 0.005
_SHARE_SECONDS = 1.0


@define(eq=False)
class Demand:
    """What the next turn asks for.

    A target that a turn asked for and that gave less than it could is *dry*: it has nothing that
    is due, until a hint, the next due time or the poll.

    Attributes:
        held: All that is leased and not settled.
        outbox: Outcomes on their way; the turn that leases settles them too.
        urgent: Media that somebody waits for, queued since the last turn.
    """

    core: Core
    rack: Rack
    crew: Crew
    held: Sized
    outbox: Sized
    urgent: int = field(init=False, default=0)
    hints: int = field(init=False, default=0)
    _is_probing: bool = field(init=False, default=False)
    _dry: set[str] = field(init=False, factory=set[str])
    _dry_until: float = field(init=False, default=math.inf)
    _soonest: float = field(init=False, default=_SOONEST_SECONDS)
    _leases: int = field(init=False, default=_FEWEST_LEASES)
    _dice: random.Random = field(init=False, factory=random.Random)

    def next(self) -> tuple[int, Collection[str]]:
        """How many rows, and of which targets.

        Of a target that was down one row is asked for, its probe, by itself.
        """
        book, rack = self.core.book, self.rack
        awake = book.awake()
        self._is_probing = False
        if self._dry_until <= self.core.clock():
            self.renew()  # also while nothing is begun: the wait for it is over, and must not be over again
        if self.crew.is_closed:
            return 0, awake
        asked: list[str] = []
        wanting = 0
        for id_ in awake:
            if id_ in self._dry:
                wanting += rack.held(id_) > 0
            elif not book.health(id_).is_half_open:
                asked.append(id_)
            elif not rack.held(id_) and self._room(1) > 0:
                self._is_probing = True
                return 1, [id_]
        share = max(1, self._leases * self.crew.concurrency // max(1, wanting + len(asked)))
        short = [id_ for id_ in asked if rack.held(id_) < share]
        # What others hold, however slow they are, is not taken from a target's share.
        room = self._room(max((share - rack.held(id_) for id_ in short), default=0))
        if not self.urgent:  # whom somebody waits for is not known here: then all are asked
            asked = short or (asked if len(asked) == 1 else [])
        return (room, asked) if asked and room > 0 else (0, awake)

    def take_urgent(self, lease: int) -> int:
        """What is urgent, which the turn for so many rows sees to; one for nothing, or for a probe, does not."""
        if not lease or self._is_probing:
            return 0
        taken, self.urgent = self.urgent, 0
        return taken

    def _room(self, least: int = 0) -> int:
        """How many rows more this pool may hold; ``least``, if a target has fewer than its share."""
        held = len(self.held) - len(self.outbox)
        settings, concurrency = self.core.settings, self.crew.concurrency
        ahead = min(max(self._leases * concurrency - held, least), settings.max_queue - len(self.rack))
        free = self.rack.size - len(self.rack)
        return min(max(ahead, min(self.urgent, concurrency)), free)

    # ── what is learnt ───────────────────────────────────────────────────────

    def hint(self) -> None:
        """Something may have become due."""
        self.hints += 1
        self.renew()

    def renew(self) -> None:
        """Believe of no target that it is dry."""
        self._dry.clear()
        self._dry_until = math.inf

    def wet(self, target: str) -> None:
        """A row of it has just become due."""
        self._dry.discard(target)

    def learn(
        self, asked: Collection[str], *, wanted: int, came: int, hints: int, next_due: float | None
    ) -> None:
        """What a turn found: ``hints`` is how many there had been when it began, for one may have come meanwhile."""
        if came < wanted and hints == self.hints:
            self._dry.update(asked)
        if not self._dry:
            return
        now, poll = self.core.clock(), self.core.settings.poll_interval_seconds
        if self._dry_until == math.inf:
            self._dry_until = now + self._jittered(poll)
        # What is due and does not come is locked by somebody: ask less and less often.
        is_stuck = wanted > 0 and not came and next_due is not None and next_due <= 0
        self._soonest = min(2 * self._soonest, poll) if is_stuck else _SOONEST_SECONDS
        if next_due is not None:
            self._dry_until = min(self._dry_until, now + max(next_due, self._soonest))

    def pace(self, *, is_full: bool) -> None:
        """Lease further ahead while workers run dry during a turn, and no longer."""
        if self.crew.busy >= self.crew.concurrency:
            self._leases = max(self._leases - 1, _FEWEST_LEASES)
        elif is_full and not len(self.rack):
            self._leases = min(self._leases + 1, _MOST_LEASES)

    def patience(self) -> float:
        """Seconds until a turn is worth it though nothing rang."""
        poll = self._jittered(self.core.settings.poll_interval_seconds)
        waits = [poll, max(self._dry_until - self.core.clock(), 0.0)]
        if (awake := self.core.book.next_awake()) is not None:
            waits.append(awake + 0.001)
        if len(self.rack):
            waits.append(_SHARE_SECONDS)  # what lies there may be waiting for a larger share
        return min(waits)

    def _jittered(self, seconds: float) -> float:
        """Pools that were stopped by one thing must not ask in step for ever after."""
        return seconds * self._dice.uniform(0.75, 1.25)
