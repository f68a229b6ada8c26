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

from prewarmkit.errors import WarmFailed
from prewarmkit.media import Handle, Media
from prewarmkit.stores.base import Looked, MediaId
from prewarmkit.stores.lifecycle import State
from prewarmkit.stores.rules import is_new_version

__all__ = ["Flight", "Flights"]


@define(eq=False)
class Flight:
    """One row that callers wait for; one of them looks from time to time whether others warmed it."""

    event: anyio.Event = field(factory=anyio.Event)
    result: Handle | Exception | None = None
    media: Media | None = None
    callers: int = 0
    checked_at: float = -math.inf

    def land(self, result: Handle | Exception, media: Media | None) -> None:
        """Give every caller the result."""
        self.result, self.media = result, media
        self.event.set()

    def is_of_another_version(self, asked: Media) -> bool:
        """Whether what landed is other content than what a caller asked for."""
        return self.media is not None and is_new_version(self.media, asked)


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

    @property
    def ids(self) -> list[MediaId]:
        """The rows that somebody waits for."""
        return list(self._by_id)

    def land(self, id_: MediaId, result: Handle | Exception, media: Media | None = None) -> None:
        """End the flight of a row, if there is one; who asks from now on starts another.

        ``media`` is what was warmed: callers who asked for another version of it wait on.
        """
        flight = self._by_id.pop(id_, None)
        if flight is not None:
            flight.land(result, media)

    def land_looked(self, id_: MediaId, looked: Looked | None) -> None:
        """End the flight of a row that others have warmed, or failed, if that is what a look-up shows."""
        if looked is None:
            return
        if looked.state is State.READY and looked.handle is not None and not looked.handle.stale:
            self.land(id_, looked.handle, looked.media)
        elif looked.state is State.FAILED:
            reason = looked.reason or "unknown"
            self.land(id_, WarmFailed(reason, looked.attempts, key=id_.key), looked.media)

    def land_all(self, make: Callable[[MediaId], Exception | None]) -> None:
        """End each flight for which ``make`` gives an error."""
        for id_ in list(self._by_id):
            error = make(id_)
            if error is not None:
                self.land(id_, error)
