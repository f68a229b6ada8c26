"""A rate budget that all processes on one database share.

Each name has a row with the times of its calls, as far back as the longest window that was
asked for. To spend is to lock the rows of all names, in one order, look, and write: two
processes never spend the same room. The arithmetic is `prewarmkit.budget`'s, the clock the
database's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from attrs import frozen

from prewarmkit.budget import Window, check_cost, seconds_to_wait
from prewarmkit.stores.postgres.link import Link, Session
from prewarmkit.stores.postgres.rows import text_array

__all__ = ["PostgresBudget"]


@frozen
class PostgresBudget:
    """A `Budget` in a table."""

    link: Link
    name: str

    async def take(self, limits: Mapping[str, Sequence[Window]], *, cost: int = 1) -> float:
        """See `Budget.take`."""
        check_cost(limits, cost)
        if not limits:
            return 0.0
        names = sorted(limits)

        async def spend(session: Session) -> float:
            async with session.transaction():
                await session.change("budget_begin", self.name, text_array(names))
                rows = await session.rows("budget_lock", self.name, text_array(names))
                # One reading of the clock, taken when all rows were ours: what is spent later is later.
                [[now]] = await session.rows("budget_now")
                waits = [
                    seconds_to_wait(
                        row[1], -math.inf if row[2] is None else row[2], limits[row[0]], cost, now
                    )
                    for row in rows
                ]
                if (wait := max(waits)) > 0:
                    return wait
                longest = [max((window.seconds for window in limits[name]), default=0.0) for name in names]
                spans = "{" + ",".join(map(repr, longest)) + "}"
                await session.change("budget_spend", self.name, text_array(names), spans, now, cost)
                return 0.0

        return await self.link.call(spend)

    async def hold(self, name: str, seconds: float) -> None:
        """See `Budget.hold`."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds must be 0 or more and finite, not {seconds!r}.")

        async def hold(session: Session) -> None:
            await session.change("budget_hold", self.name, name, seconds)

        await self.link.call(hold)
