"""How one target is: works, rests, is probed; and how many media it may have at once.

A circuit breaker. Closed, it takes what comes. Told to rest (a rate limit, a refusal as a
whole, too many failures in a row) it takes nothing until its time is over. After a rest for
being *down* it is half open: one medium goes, the probe, and what becomes of that decides.
State changes only; what follows from an attempt is decided in `prewarmkit.pool.state`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from attrs import define, field

from prewarmkit.pool.adaptive import AdaptiveLimit
from prewarmkit.pool.state import Pause

__all__ = ["Health"]


@define(eq=False)
class Health:
    """One target's.

    Attributes:
        limit: Its adaptive bound; ``None``: it has none.
        most: Media that it may have at once, whatever else holds.
        running: Media that it has now.
        failures: Attempts in a row that failed for no medium's fault.
    """

    clock: Callable[[], float]
    limit: AdaptiveLimit | None = None
    most: int = sys.maxsize
    running: int = field(init=False, default=0)
    failures: int = field(init=False, default=0)
    _until: float = field(init=False, default=0.0)
    _reason: str = field(init=False, default="")
    _is_down: bool = field(init=False, default=False)
    _downs: int = field(init=False, default=0)
    _probe: object | None = field(init=False, default=None)

    def room(self) -> int:
        """How many media more it may be given now."""
        if self._until:
            if self._until > self.clock():
                return 0
            if self._is_down:
                return 1 if self._probe is None else 0
        return (self.most if self.limit is None else min(self.most, self.limit.whole)) - self.running

    @property
    def is_half_open(self) -> bool:
        """Whether its next medium is a probe."""
        return self._is_down and self._until <= self.clock()

    def begin(self, attempt: object) -> None:
        """It is given a medium."""
        self.running += 1
        if self._is_down and self._probe is None and self._until <= self.clock():
            self._probe = attempt

    def end(self, attempt: object) -> None:
        """It has that medium no more, whatever became of it: a probe that is cut off makes room for another."""
        self.running -= 1
        if self._probe is attempt:
            self._probe = None

    def is_probe(self, attempt: object) -> bool:
        """Whether what becomes of this attempt decides."""
        return self._probe is attempt

    def works(self) -> bool:
        """It just did something: forget that it rested, or was down; whether there was something to forget.

        Not while it rests: what succeeds then had begun before it was told to rest.
        """
        self.failures = 0
        if not self._until or self._until > self.clock():
            return False
        self._until, self._reason, self._is_down, self._downs = 0.0, "", False, 0
        return True

    def rest(self, pause: Pause) -> None:
        """Let it rest; a shorter rest never ends a longer one."""
        if pause.is_down and not (self._is_down and self._until > self.clock()):
            self._downs += 1
            self.failures = 0  # what follows is counted anew
        if (until := self.clock() + pause.seconds) >= self._until:
            if pause.is_down or not (self._is_down and self._until > self.clock()):
                self._reason, self._is_down = pause.reason, pause.is_down
            self._until = until  # a limit that lasts longer than a refusal does not end it

    def downs(self) -> int:
        """Times in a row that it was found down, before now: several workers may find it at once."""
        return self._downs - (self._is_down and self._until > self.clock())

    def resting(self) -> Pause | None:
        """How long, and why, it still rests."""
        if not self._until or self._until <= self.clock():
            return None
        return Pause(self._until - self.clock(), self._reason, self._is_down)
