"""Rate budgets: how many calls still fit into the windows of a chat or a bot.

Pure arithmetic over times that are handed in. A store gives a `Budget` that its
processes share; `MemoryBudget` is the twin for one process.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from attrs import field, frozen

__all__ = ["Budget", "MemoryBudget", "Window"]


def _positive(_instance: object, attribute: object, value: float) -> None:
    if not value > 0:
        raise ValueError(
            f"A window's {getattr(attribute, 'name', 'value')} must be more than 0, not {value!r}."
        )


@frozen
class Window:
    """At most `limit` calls in any closed span of `seconds`.

    Attributes:
        limit: Calls, at least 1.
        seconds: The window's length.
    """

    limit: int = field(validator=_positive)
    seconds: float = field(validator=_positive)


@runtime_checkable
class Budget(Protocol):
    """Calls that may still be made, under names such as ``chat:-1001`` and ``bot``."""

    async def take(self, limits: Mapping[str, Sequence[Window]], *, cost: int = 1) -> float:
        """Spend ``cost`` under every name at once, or under none.

        Args:
            limits: The windows that hold for each name.
            cost: Calls to spend.

        Returns:
            ``0.0``: spent. More: nothing was spent; seconds after which asking again makes sense.
        """
        ...

    async def hold(self, name: str, seconds: float) -> None:
        """Give nothing under ``name`` for that many seconds (a 429 said so)."""
        ...


@frozen
class MemoryBudget:
    """A `Budget` for one process: a log of the calls inside the longest window of each name."""

    clock: Callable[[], float] = time.monotonic
    _calls: dict[str, deque[float]] = field(init=False, factory=dict[str, deque[float]], repr=False)
    _held_until: dict[str, float] = field(init=False, factory=dict[str, float], repr=False)

    async def take(self, limits: Mapping[str, Sequence[Window]], *, cost: int = 1) -> float:
        """See `Budget.take`."""
        now = self.clock()
        wait = max((self._wait(name, windows, cost, now) for name, windows in limits.items()), default=0.0)
        if wait > 0:
            return wait
        for name, windows in limits.items():
            calls = self._calls.setdefault(name, deque())
            calls.extend([now] * cost)
            self._forget(calls, windows, now)
        return 0.0

    async def hold(self, name: str, seconds: float) -> None:
        """See `Budget.hold`."""
        self._held_until[name] = max(self._held_until.get(name, 0.0), self.clock() + seconds)

    def _wait(self, name: str, windows: Sequence[Window], cost: int, now: float) -> float:
        wait = max(0.0, self._held_until.get(name, 0.0) - now)
        calls = self._calls.get(name)
        for window in windows:
            if cost > window.limit:
                raise ValueError(f"A cost of {cost} never fits into {window} of {name!r}.")
            # The call that must have left the window before `cost` more fit in.
            blocking = window.limit - cost
            if calls is not None and len(calls) > blocking:
                wait = max(wait, calls[-1 - blocking] + window.seconds - now)
        # A span is closed: a call exactly `seconds` later would still share it with the first.
        return wait if wait <= 0 else wait + 1e-6

    @staticmethod
    def _forget(calls: deque[float], windows: Sequence[Window], now: float) -> None:
        longest = max((window.seconds for window in windows), default=0.0)
        while calls and calls[0] < now - longest:
            calls.popleft()
