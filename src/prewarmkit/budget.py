"""Rate budgets: how many calls still fit into the windows of a chat or a bot.

Pure arithmetic over times that are handed in. A store gives a `Budget` that its
processes share; `MemoryBudget` is the twin for one process and one event loop.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast, runtime_checkable

from attrs import define, field, frozen

__all__ = ["Budget", "MemoryBudget", "Window", "check_cost", "counted_from", "seconds_to_wait"]

_SWEEP_AT_LEAST = 1024
_ROUNDED = 1e-4
_AFTER = 1e-6  # a window is closed: the same instant at its far end still counts


def _whole(_instance: object, _attribute: object, value: int) -> None:
    if not isinstance(cast("object", value), int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"A window's limit must be a whole number of calls, 1 or more, not {value!r}.")


def _positive(_instance: object, _attribute: object, value: float) -> None:
    if not 0 < value < math.inf:  # also refuses NaN
        raise ValueError(f"A window's seconds must be more than 0 and finite, not {value!r}.")


@frozen
class Window:
    """At most `limit` calls in any closed span of `seconds`.

    Attributes:
        limit: Calls, at least 1.
        seconds: The window's length.
    """

    limit: int = field(validator=_whole)
    seconds: float = field(validator=_positive)


@runtime_checkable
class Budget(Protocol):
    """Calls that may still be made, under names such as ``chat:-1001`` and ``bot``."""

    async def take(self, limits: Mapping[str, Sequence[Window]], *, cost: int = 1) -> float:
        """Spend ``cost`` under every name at once, or under none.

        Args:
            limits: The windows that hold for each name; none at all for a name leaves only what `hold` says.
            cost: Calls to spend, at least 1.

        Returns:
            ``0.0``: spent. More: nothing was spent; seconds after which asking again makes sense.

        Raises:
            ValueError: ``cost`` is less than 1, or more than a window ever lets through.
        """
        ...

    async def take_at(self, limits: Mapping[str, Sequence[Window]], *, cost: int = 1) -> tuple[float, float]:
        """As `take`; and when that was, by the budget's own clock, for `arrived`."""
        ...

    async def arrived(self, name: str, at: float, *, cost: int = 1) -> None:
        """Count from now on what was spent under ``name`` at that time: what was sent has only now arrived.

        Whoever counts where it arrives would else see two messages nearer to each other than they were sent.
        """
        ...

    async def hold(self, name: str, seconds: float) -> None:
        """Give nothing under ``name`` for that many seconds (a 429 said so); never shortens a hold."""
        ...


@define
class _Log:
    """The calls under one name, oldest first, as far back as the longest window ever asked for."""

    calls: deque[float] = field(factory=deque[float])
    longest: float = 0.0
    held_until: float = -math.inf

    def spend(self, cost: int, now: float) -> None:
        self.calls.extend([now] * cost)
        self.forget(now)

    def forget(self, now: float) -> None:
        while self.calls and now - self.calls[0] > self.longest:
            self.calls.popleft()

    def is_idle(self, now: float) -> bool:
        self.forget(now)
        return not self.calls and self.held_until <= now


@define(eq=False)
class MemoryBudget:
    """A `Budget` for one process: a log of the calls inside the longest window of each name."""

    clock: Callable[[], float] = time.monotonic
    _logs: dict[str, _Log] = field(init=False, factory=dict[str, _Log], repr=False)
    _sweep_at: int = field(init=False, default=_SWEEP_AT_LEAST, repr=False)

    async def take(self, limits: Mapping[str, Sequence[Window]], *, cost: int = 1) -> float:
        """See `Budget.take`."""
        return (await self.take_at(limits, cost=cost))[0]

    async def take_at(self, limits: Mapping[str, Sequence[Window]], *, cost: int = 1) -> tuple[float, float]:
        """See `Budget.take_at`."""
        check_cost(limits, cost)
        now = self.clock()
        self._sweep(now)
        logs = {name: self._log(name, windows, now) for name, windows in limits.items()}
        wait = max(
            (
                seconds_to_wait(logs[name].calls, logs[name].held_until, windows, cost, now)
                for name, windows in limits.items()
            ),
            default=0.0,
        )
        if wait > 0:
            return wait, now
        for log in logs.values():
            log.spend(cost, now)
        return 0.0, now

    async def arrived(self, name: str, at: float, *, cost: int = 1) -> None:
        """See `Budget.arrived`."""
        now = self.clock()
        log = self._log(name, (), now)
        log.calls = deque(counted_from(log.calls, at, cost, now))

    async def hold(self, name: str, seconds: float) -> None:
        """See `Budget.hold`."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds must be 0 or more and finite, not {seconds!r}.")
        now = self.clock()
        self._sweep(now)
        log = self._log(name, (), now)
        log.held_until = max(log.held_until, now + seconds)

    def _log(self, name: str, windows: Sequence[Window], now: float) -> _Log:
        log = self._logs.setdefault(name, _Log())
        log.forget(now)
        # What a longer window of another caller still needs must not be forgotten for this one's sake.
        log.longest = max(log.longest, *(window.seconds for window in windows), 0.0)
        return log

    def _sweep(self, now: float) -> None:
        # A bot writes to any number of chats: drop the idle ones each time their number has doubled.
        if len(self._logs) < self._sweep_at:
            return
        for name in [name for name, log in self._logs.items() if log.is_idle(now)]:
            del self._logs[name]
        self._sweep_at = max(_SWEEP_AT_LEAST, 2 * len(self._logs))


def counted_from(calls: Sequence[float], at: float, cost: int, now: float) -> list[float]:
    """Calls, oldest first, of which those that were made ``at`` a time are made now; rounding by a database is no other time."""
    these = sorted((call for call in calls if abs(at - call) < _ROUNDED), key=lambda call: abs(at - call))[
        :cost
    ]
    others = list(calls)
    for call in these:
        others.remove(call)
    return sorted([*others, *[now] * cost])


def check_cost(limits: Mapping[str, Sequence[Window]], cost: int) -> None:
    """Refuse a cost that is none, or that some window never lets through.

    Raises:
        ValueError: As `Budget.take` says.
    """
    if isinstance(cost, bool) or not isinstance(cost, int) or cost < 1:
        raise ValueError(f"cost must be a whole number of calls, 1 or more, not {cost!r}.")
    for window in (window for windows in limits.values() for window in windows):
        if cost > window.limit:
            raise ValueError(f"A cost of {cost} never fits into {window}: ask for less at once.")


def seconds_to_wait(
    calls: Sequence[float], held_until: float, windows: Sequence[Window], cost: int, now: float
) -> float:
    """Seconds until ``cost`` more calls fit under one name; 0: they do now.

    Args:
        calls: When the calls of the longest window were, oldest first.
        held_until: When a hold ends; ``-inf``: there is none.
        windows: What holds for the name.
        cost: Calls to spend.
        now: By the same clock.
    """
    wait = max(0.0, held_until - now)
    for window in windows:
        # The call that must have left the window before `cost` more fit in.
        blocking = window.limit - cost
        if len(calls) > blocking and now - calls[-1 - blocking] <= window.seconds:
            wait = max(wait, calls[-1 - blocking] + window.seconds - now + _AFTER)
    return wait
