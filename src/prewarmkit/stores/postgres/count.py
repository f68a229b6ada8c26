"""How many rows wait in PostgreSQL, told in each turn without holding one up.

Counting walks an index: nothing for hundreds of rows, milliseconds for a hundred thousand.
While it is cheap it is part of the turn. Once it is not, it goes on beside the turns, a
twentieth of the time at most, and a figure is some seconds old. An enqueue with a bound counts
to that; while it is far from it, a twentieth of the time at most too.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from attrs import define, field

from prewarmkit.errors import PrewarmKitError

__all__ = ["Backlog", "Waiting"]

_CHEAP_SECONDS = 0.001


@define(eq=False)
class Waiting:
    """Rows that wait, by target.

    Attributes:
        count: Asks the database; rows of target, how many, seconds that it took.
    """

    count: Callable[[], Awaitable[Sequence[Sequence[Any]]]]
    is_cheap: bool = field(init=False, default=True)
    _rows: dict[str, int] = field(init=False, factory=dict[str, int])
    _fresh_until: float = field(init=False, default=0.0)
    _task: asyncio.Task[None] | None = field(init=False, default=None)

    def learn(self, rows: Sequence[Sequence[Any]]) -> None:
        """What was counted."""
        took = max((row[2] for row in rows), default=0.0)
        self._rows = {row[0]: row[1] for row in rows}
        self.is_cheap = took < _CHEAP_SECONDS
        self._fresh_until = time.monotonic() + 20 * took

    def of(self, targets: Collection[str] | None) -> int:
        """How many wait; starts to count anew where that is due."""
        is_due = not self.is_cheap and time.monotonic() >= self._fresh_until
        if is_due and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._count_anew())
        if targets is None:
            return sum(self._rows.values())
        return sum(self._rows.get(target, 0) for target in targets)

    @property
    def by_target(self) -> Mapping[str, int]:
        """How many wait, as far as is known."""
        return self._rows

    async def close(self) -> None:
        """Count no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _count_anew(self) -> None:
        try:
            self.learn(await self.count())
        except PrewarmKitError:
            self._fresh_until = time.monotonic() + 1  # the turns meet the same trouble, and say it


@define(eq=False)
class Backlog:
    """How far this process's enqueues are below their bound, where it is costly to count."""

    _rows: int = field(init=False, default=0)
    _fresh_until: float = field(init=False, default=-math.inf)

    def learn(self, rows: int, took: float) -> None:
        """What an enqueue has counted, its own rows included, and the seconds that it took."""
        self._rows = rows
        # A figure that is quickly had is not kept: its bound may be small, and be filled by then.
        self._fresh_until = time.monotonic() + 20 * took if took >= _CHEAP_SECONDS else -math.inf

    def is_far_below(self, limit: int, more: int) -> bool:
        """Whether that many more are well within the bound, whatever others put in since; they count from now on."""
        if time.monotonic() >= self._fresh_until or 2 * (self._rows + more) > limit:
            return False
        self._rows += more
        return True
