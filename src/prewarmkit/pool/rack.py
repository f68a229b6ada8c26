"""What a pool has leased and nobody has begun: a shelf for each target, and whose turn it is.

A shelf is a `RingQueue` of two lanes: live media, for which somebody waits now, and all
others. Inside a lane the order is the store's, which knows priorities and ages. Between
targets the one with the fewest workers goes first, and while several want workers none has
more than its share of them: one that is slow would end with all, since a worker that it
has got comes back late.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from operator import itemgetter

from attrs import define, field

from prewarmkit.pool.health import Health
from prewarmkit.pool.state import LIVE_PRIORITY
from prewarmkit.ring import RingQueue
from prewarmkit.stores.base import Lease, MediaId

__all__ = ["Place", "Rack", "Shelf"]

Place = tuple[Lease, float]
"""A lease, and when it came, by the pool's clock."""

_LIVE_IN_A_ROW = 7  # then something else goes, if there is something: live work gets most, never all
_WANTS_SECONDS = 1.0  # so long a target that has just had leases is taken to want more

_lease_of: Callable[[Place], Lease] = itemgetter(0)


def _id_of(place: Place) -> MediaId:
    return place[0].id


@define(eq=False)
class Shelf:
    """One target's leases that nobody has begun.

    Attributes:
        health: Whether it may have more.
        ring: The leases.
        live: How many of them are live.
        held: All leases of this target that are not settled, those included that a worker has.
        served: When it was last chosen, as a count.
        stocked_at: When a lease of it last came.
    """

    health: Health
    ring: RingQueue[Place]
    live: int = 0
    held: int = 0
    served: int = 0
    stocked_at: float = -math.inf

    def put(self, place: Place) -> None:
        """Add one."""
        self.stocked_at = place[1]
        is_live = place[0].priority == LIVE_PRIORITY
        if self.ring.enqueue_nowait(place, 0 if is_live else 1):
            self.live += is_live

    def take(self) -> Place:
        """The next one."""
        place = self.ring.dequeue_nowait()
        self.live -= place[0].priority == LIVE_PRIORITY
        return place

    def drain(self) -> list[Lease]:
        """Take all."""
        self.live = 0
        return list(map(_lease_of, self.ring.dequeue_batch(self.ring.maxsize)))


@define(eq=False)
class Rack:
    """The shelves of one pool.

    Attributes:
        size: Most leases that a shelf may hold; the pump keeps to its bounds well before.
        health_of: How a target is.
        share: Workers that one target may have, while others want some too.
    """

    size: int
    health_of: Callable[[str], Health]
    share: int = field(init=False, default=sys.maxsize)
    shelves: dict[str, Shelf] = field(init=False, factory=dict[str, Shelf])
    _stocked: dict[str, Shelf] = field(init=False, factory=dict[str, Shelf])
    _count: int = field(init=False, default=0)
    _served: int = field(init=False, default=0)
    _live_in_a_row: int = field(init=False, default=0)

    def __len__(self) -> int:
        return self._count

    def shelf(self, target: str) -> Shelf:
        """The target's shelf."""
        shelf = self.shelves.get(target)
        if shelf is None:
            ring = RingQueue[Place](self.size, lanes=2, key=_id_of, max_skips=_LIVE_IN_A_ROW)
            shelf = self.shelves[target] = Shelf(self.health_of(target), ring)
        return shelf

    def held(self, target: str) -> int:
        """Leases of a target that are not settled."""
        shelf = self.shelves.get(target)
        return 0 if shelf is None else shelf.held

    def put(self, place: Place) -> Shelf:
        """Add a lease that has just come; the shelf that has it now."""
        target = place[0].id.target
        shelf = self.shelf(target)
        shelf.put(place)
        self._stocked[target] = shelf
        self._count += 1
        return shelf

    def reckon(self, workers: int, now: float) -> None:
        """Find out anew which share of the workers a target may have."""
        wanting = sum(
            bool(shelf.held or now - shelf.stocked_at < _WANTS_SECONDS) and shelf.health.resting() is None
            for shelf in self.shelves.values()
        )
        self.share = sys.maxsize if wanting < 2 else -(-workers // wanting)  # noqa: PLR2004 - alone, or not

    def take(self, *, only_live: bool = False) -> Place | None:
        """The next lease whose target may have it; ``None``: there is none."""
        stocked = self._stocked
        if not stocked:
            return None
        if len(stocked) == 1:
            [shelf] = stocked.values()
            if not self._may_have(shelf, only_live=only_live):
                return None
        else:
            chosen = self._choose(only_live=only_live)
            if chosen is None:
                return None
            shelf = chosen
        place = shelf.take()
        self._count -= 1
        if not len(shelf.ring):
            del stocked[place[0].id.target]
        return place

    def _may_have(self, shelf: Shelf, *, only_live: bool) -> bool:
        health = shelf.health
        return health.running < self.share and health.room() > 0 and (not only_live or shelf.live > 0)

    def _choose(self, *, only_live: bool) -> Shelf | None:
        """Live work first, but not always; then the target with the fewest workers, then the one that waited longest."""
        is_live_over = self._live_in_a_row >= _LIVE_IN_A_ROW
        best: tuple[bool, int, int] | None = None
        chosen: Shelf | None = None
        for shelf in self._stocked.values():
            if not self._may_have(shelf, only_live=only_live):
                continue
            is_behind = shelf.live == len(shelf.ring) if is_live_over else not shelf.live
            rank = (is_behind, shelf.health.running, shelf.served)
            if best is None or rank < best:
                best, chosen = rank, shelf
        if chosen is not None:
            self._served += 1
            chosen.served = self._served
            self._live_in_a_row = 0 if is_live_over else self._live_in_a_row + (chosen.live > 0)
        return chosen

    def discard(self, lease: Lease) -> None:
        """Remove a lease that is not ours any more, if nobody has begun it."""
        target = lease.id.target
        shelf = self._stocked.get(target)
        if shelf is None or not shelf.ring.discard(lease.id):
            return
        self._count -= 1
        shelf.live -= lease.priority == LIVE_PRIORITY
        if not len(shelf.ring):
            del self._stocked[target]

    def drain(self, target: str | None = None) -> list[Lease]:
        """Take all, of one target or of every."""
        names = list(self._stocked) if target is None else [target]
        leases: list[Lease] = []
        for name in names:
            shelf = self._stocked.pop(name, None)
            if shelf is not None:
                leases += shelf.drain()
        self._count -= len(leases)
        return leases
