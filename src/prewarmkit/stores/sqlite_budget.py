"""A rate budget that all processes on one SQLite file share, and that survives them.

Each name has a row with the times of its calls, as far back as the longest window that was
asked for. To spend is to read, look and write under the file's one write lock: two processes
never spend the same room. The arithmetic is `prewarmkit.budget`'s, the clock the store's.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Self

from attrs import define, frozen

from prewarmkit.budget import Window, check_cost, counted_from, seconds_to_wait
from prewarmkit.stores.clock import StoreClock
from prewarmkit.stores.sql import load_queries
from prewarmkit.stores.sqlite_db import Database

__all__ = ["SqliteBudget"]

_SQL = load_queries("sqlite")
_SPARE_SECONDS = 1.0  # a row outlives what counts in it: rounding never removes a call that still does
_SWEPT_FOR_EACH = 2  # more than a call can add, so what is over does not pile up


@frozen
class SqliteBudget:
    """A `Budget` in a table."""

    db: Database
    clock: StoreClock
    name: str

    async def take(self, limits: Mapping[str, Sequence[Window]], *, cost: int = 1) -> float:
        """See `Budget.take`."""
        return (await self.take_at(limits, cost=cost))[0]

    async def take_at(self, limits: Mapping[str, Sequence[Window]], *, cost: int = 1) -> tuple[float, float]:
        """See `Budget.take_at`."""
        check_cost(limits, cost)
        if not limits:
            return 0.0, self.clock().now

        def spend(connection: sqlite3.Connection) -> tuple[float, float]:
            return self._take(connection, limits, cost)

        # An fsync for each call would keep all writers of the file waiting. Without it a power cut forgets the
        # calls since the last flushed commit of anybody: of a pool at work those of a fraction of a second.
        return await self.db.write(spend, is_flushed=False)

    async def arrived(self, name: str, at: float, *, cost: int = 1) -> None:
        """See `Budget.arrived`."""

        def arrive(connection: sqlite3.Connection) -> None:
            now = self.clock().now
            log = _Log.read(connection, self.name, name, now)
            log.calls = counted_from(log.calls, at, cost, now)
            log.write(connection, now)

        await self.db.write(arrive, is_flushed=False)

    async def hold(self, name: str, seconds: float) -> None:
        """See `Budget.hold`."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds must be 0 or more and finite, not {seconds!r}.")

        def hold(connection: sqlite3.Connection) -> None:
            now = self.clock().now
            log = _Log.read(connection, self.name, name, now)
            log.held_until = max(log.held_until, now + seconds)
            log.write(connection, now)

        await self.db.write(hold)

    def _take(
        self, connection: sqlite3.Connection, limits: Mapping[str, Sequence[Window]], cost: int
    ) -> tuple[float, float]:
        # Read under the lock: what another process spent before is earlier.
        now = self.clock().now
        wait, changed = 0.0, list[_Log]()
        logs = {name: _Log.read(connection, self.name, name, now) for name in limits}
        for name, log in logs.items():
            windows = limits[name]
            wait = max(wait, seconds_to_wait(log.calls, log.held_until, windows, cost, now))
            if log.look_back(max((window.seconds for window in windows), default=0.0)):
                changed.append(log)
        if wait == 0:
            changed = list(logs.values())
            for log in changed:
                log.spend(cost, now)
        for log in changed:
            log.write(connection, now)
        if changed:
            connection.execute(_SQL["budget_sweep"], {"now": now, "most": _SWEPT_FOR_EACH * len(limits)})
        return wait, now


@define
class _Log:
    """The row of one name.

    Attributes:
        budget: Whose name it is.
        name: The name.
        calls: When calls were made, oldest first.
        longest: The longest window ever asked for: what it still needs must not be forgotten for a shorter one.
        held_until: When a hold ends; ``-inf``: there is none.
    """

    budget: str
    name: str
    calls: list[float]
    longest: float
    held_until: float

    @classmethod
    def read(cls, connection: sqlite3.Connection, budget: str, name: str, now: float) -> Self:
        """The row, or what stands for one that is not there."""
        row = connection.execute(_SQL["budget_read"], {"budget": budget, "name": name}).fetchone()
        if row is None:
            return cls(budget, name, [], 0.0, -math.inf)
        calls, longest, held_until = row
        # Where processes share the calendar only, and somebody sets it back, calls lie in the future:
        # then they count as made now, so that no wait is longer than its window.
        made = [min(call, now) for call in json.loads(calls) if now - call <= longest]
        return cls(budget, name, made, longest, -math.inf if held_until is None else held_until)

    def look_back(self, seconds: float) -> bool:
        """Remember calls for so long from now on; say whether that is longer than before."""
        is_longer = seconds > self.longest
        self.longest = max(self.longest, seconds)
        return is_longer

    def spend(self, cost: int, now: float) -> None:
        """Note calls, and forget those that no window reaches."""
        self.calls = [call for call in self.calls if now - call <= self.longest] + [now] * cost

    def write(self, connection: sqlite3.Connection, now: float) -> None:
        """Put the row back."""
        last = self.calls[-1] + self.longest + _SPARE_SECONDS if self.calls else now
        values = {
            "budget": self.budget,
            "name": self.name,
            "calls": json.dumps(self.calls),
            "longest": self.longest,
            "held_until": None if self.held_until == -math.inf else self.held_until,
            "now": now,
            "over_at": max(last, self.held_until),
        }
        connection.execute(_SQL["budget_write"], values)
