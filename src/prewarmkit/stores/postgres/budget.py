"""A rate budget that all processes on one database share.

Each name has a row with the times of its calls, as far back as the longest window that was
asked for. To spend is to lock the rows of all names, in one order, look, and write: two
processes never spend the same room. The arithmetic is `prewarmkit.budget`'s, the clock the
database's. Names under which nothing counts any more are forgotten, once a minute at most.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

from attrs import define, frozen
from psycopg.rows import TupleRow

from prewarmkit.budget import Window, check_cost, counted_from, seconds_to_wait
from prewarmkit.stores.postgres.link import Link, Session
from prewarmkit.stores.postgres.rows import number_array, text_array

__all__ = ["PostgresBudget", "Sweep"]

_SWEEP_SECONDS = 60.0


@define(eq=False)
class Sweep:
    """When this process last had forgotten names swept out."""

    at: float = -math.inf


@frozen
class PostgresBudget:
    """A `Budget` in a table."""

    link: Link
    name: str
    sweep: Sweep

    async def take(self, limits: Mapping[str, Sequence[Window]], *, cost: int = 1) -> float:
        """See `Budget.take`."""
        return (await self.take_at(limits, cost=cost))[0]

    async def take_at(self, limits: Mapping[str, Sequence[Window]], *, cost: int = 1) -> tuple[float, float]:
        """See `Budget.take_at`."""
        check_cost(limits, cost)
        if not limits:
            return 0.0, 0.0
        names = sorted(limits)
        if time.monotonic() - self.sweep.at > _SWEEP_SECONDS:
            self.sweep.at = time.monotonic()
            await self.link.call(lambda session: session.change("budget_sweep"))

        async def spend(session: Session) -> tuple[float, float]:
            async with session.transaction():
                rows: list[TupleRow] = []
                while len(rows) < len(names):  # some may be swept in between
                    await session.change("budget_begin", self.name, text_array(names))
                    rows = await session.rows("budget_lock", self.name, text_array(names))
                # One reading of the clock, taken when all rows were ours: what is spent later is later.
                [[now]] = await session.rows("budget_now")
                if any(call > now for _, calls, _ in rows for call in calls):
                    # The clock was set back: they count as made now, so that no wait is longer than its window.
                    await session.change("budget_set_back", self.name, text_array(names), now)
                wait = 0.0
                for name, calls, held_until in rows:
                    made = [min(call, now) for call in calls]
                    until = -math.inf if held_until is None else held_until
                    wait = max(wait, seconds_to_wait(made, until, limits[name], cost, now))
                if wait > 0:
                    return wait, now
                longest = [max((window.seconds for window in limits[name]), default=0.0) for name in names]
                spans = number_array(longest)
                await session.change("budget_spend", self.name, text_array(names), spans, now, cost)
                return 0.0, now

        return await self.link.call(spend)

    async def arrived(self, name: str, at: float, *, cost: int = 1) -> None:
        """See `Budget.arrived`."""

        async def arrive(session: Session) -> None:
            async with session.transaction():
                rows = await session.rows("budget_lock", self.name, text_array([name]))
                [[now]] = await session.rows("budget_now")
                for _, calls, _ in rows:  # swept out meanwhile: no window reaches it any more
                    made = counted_from(calls, at, cost, now)
                    await session.change("budget_put", self.name, name, number_array(made))

        await self.link.call(arrive)

    async def hold(self, name: str, seconds: float) -> None:
        """See `Budget.hold`."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds must be 0 or more and finite, not {seconds!r}.")

        async def hold(session: Session) -> None:
            await session.change("budget_hold", self.name, name, seconds)

        await self.link.call(hold)
