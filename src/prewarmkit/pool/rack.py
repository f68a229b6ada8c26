"""What a pool has leased and nobody has begun: a shelf for each target, and whose turn it is.

A shelf has a `RingQueue` of live media, for which somebody waits now, and one of all others.
Inside each the order is the store's, which knows priorities and ages. Live media go first, and
leave one place in eight to the others. Between targets the one with the fewest workers goes
first, and while several want workers none has more than its share of them: one that is slow
would end with all, since a worker that it has got comes back late.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

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


def _id_of(place: Place) -> MediaId:
    return place[0].id


@define(eq=False)
class Shelf:
    """One target's leases that nobody has begun.

    Attributes:
        health: Whether it may have more.
        live: Leases that somebody waits for.
        rest: The others.
        held: All leases of this target that are not settled, those included that a worker has.
        served: When it was last chosen, as a count.
        stocked_at: When a lease of it last came.
    """

    health: Health
    live: RingQueue[Place]
    rest: RingQueue[Place]
    held: int = 0
    served: int = 0
    stocked_at: float = -math.inf

    def __len__(self) -> int:
        return len(self.live) + len(self.rest)

    def ring_of(self, lease: Lease) -> RingQueue[Place]:
        """Where a lease belongs."""
        return self.live if lease.priority == LIVE_PRIORITY else self.rest

    def drain(self) -> list[Lease]:
        """Take all."""
        return [place[0] for ring in (self.live, self.rest) for place in ring.dequeue_batch(ring.maxsize)]


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
    share: int = field(init=False, default=sys.maxsize)  # until the first turn says
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
            live, rest = (RingQueue[Place](self.size, key=_id_of) for _ in range(2))
            shelf = self.shelves[target] = Shelf(self.health_of(target), live, rest)
        return shelf

    def held(self, target: str) -> int:
        """Leases of a target that are not settled."""
        shelf = self.shelves.get(target)
        return 0 if shelf is None else shelf.held

    def put(self, place: Place) -> Shelf:
        """Add a lease that has just come; the shelf that has it now."""
        lease, at = place
        target = lease.id.target
        shelf = self.shelf(target)
        shelf.stocked_at = at
        shelf.ring_of(lease).enqueue_nowait(place)
        self._stocked[target] = shelf
        self._count += 1
        return shelf

    def reckon(self, workers: int, now: float, *, spare: int = 0) -> None:
        """Find out anew which share of the workers a target may have; ``spare`` are left to others in any case."""
        wanting = sum(
            bool(shelf.held or now - shelf.stocked_at < _WANTS_SECONDS) and shelf.health.resting() is None
            for shelf in self.shelves.values()
        )
        self.share = max(1, min(workers - spare, -(-workers // max(1, wanting))))

    def take(self, *, only_live: bool = False) -> Place | None:
        """The next lease whose target may have it; ``None``: there is none."""
        if not self._count:
            return None
        is_live_first = only_live or self._live_in_a_row < _LIVE_IN_A_ROW
        for is_live in (is_live_first, not is_live_first):
            if is_live or not only_live:
                shelf = self._choose(is_live=is_live)
                if shelf is not None:
                    return self._take_from(shelf, is_live=is_live)
        return None

    def _take_from(self, shelf: Shelf, *, is_live: bool) -> Place:
        place = (shelf.live if is_live else shelf.rest).dequeue_nowait()
        self._live_in_a_row = self._live_in_a_row + 1 if is_live else 0
        self._count -= 1
        if not len(shelf):
            del self._stocked[place[0].id.target]
        return place

    def _choose(self, *, is_live: bool) -> Shelf | None:
        """Of the targets that may have one, that with the fewest workers; of equals the one that waited longest."""
        best: tuple[int, int] | None = None
        chosen: Shelf | None = None
        for shelf in self._stocked.values():
            health = shelf.health
            running = health.running
            if not len(shelf.live if is_live else shelf.rest) or running >= self.share or health.room() <= 0:
                continue
            if best is None or (running, shelf.served) < best:
                best, chosen = (running, shelf.served), shelf
        if chosen is not None:
            self._served += 1
            chosen.served = self._served
        return chosen

    def discard(self, lease: Lease) -> None:
        """Remove a lease that is not ours any more, if nobody has begun it."""
        target = lease.id.target
        shelf = self._stocked.get(target)
        if shelf is None or not shelf.ring_of(lease).discard(lease.id):
            return
        self._count -= 1
        if not len(shelf):
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
