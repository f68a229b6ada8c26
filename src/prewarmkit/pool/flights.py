"""Who waits for which medium: many callers, one flight a row.

A flight never runs anything. It is landed by whoever settles the row, and a caller that
leaves takes nobody with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager

import anyio
from attrs import define, field

from prewarmkit.media import Handle
from prewarmkit.stores.base import MediaId

__all__ = ["Flight", "Flights"]


@define(eq=False)
class Flight:
    """One row that callers wait for; one of them looks from time to time whether others warmed it."""

    event: anyio.Event = field(factory=anyio.Event)
    result: Handle | Exception | None = None
    callers: int = 0
    checked_at: float = -math.inf

    def land(self, result: Handle | Exception) -> None:
        """Give every caller the result."""
        self.result = result
        self.event.set()


@define(eq=False)
class Flights:
    """The flights of one pool."""

    _by_id: dict[MediaId, Flight] = field(init=False, factory=dict[MediaId, Flight])

    @contextmanager
    def join(self, id_: MediaId) -> Generator[Flight]:
        """Wait with the others; the last one to leave closes the flight."""
        flight = self._by_id.get(id_)
        if flight is None:
            flight = self._by_id[id_] = Flight()
        flight.callers += 1
        try:
            yield flight
        finally:
            flight.callers -= 1
            if not flight.callers and self._by_id.get(id_) is flight:
                del self._by_id[id_]

    def __len__(self) -> int:
        return len(self._by_id)

    def is_awaited(self, id_: MediaId) -> bool:
        """Whether anybody waits for the row."""
        return id_ in self._by_id

    def land(self, id_: MediaId, result: Handle | Exception) -> None:
        """End the flight of a row, if there is one; who asks from now on starts another."""
        flight = self._by_id.pop(id_, None)
        if flight is not None:
            flight.land(result)

    def land_all(self, make: Callable[[MediaId], Exception | None]) -> None:
        """End each flight for which ``make`` gives an error."""
        for id_ in list(self._by_id):
            error = make(id_)
            if error is not None:
                self.land(id_, error)
