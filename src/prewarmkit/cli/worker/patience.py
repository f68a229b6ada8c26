"""When an ended worker is started again, and when there is no point in it. Pure: no clock, no process."""

from __future__ import annotations

import random

from attrs import define, field

from prewarmkit.cli.worker.exits import CONFIGURATION, TEMPORARY, USAGE

__all__ = ["Patience"]

_NO_USE = frozenset({USAGE, CONFIGURATION})


@define
class Patience:
    """One worker's: grows by each end that nobody asked for, until a life was long enough.

    Attributes:
        first_seconds: The first wait; it doubles.
        most_seconds: The longest.
        good_seconds: How long a worker has to be ready for its past to be forgotten.
        most_failed_starts: So many in a row are enough.
    """

    first_seconds: float = 0.5
    most_seconds: float = 30.0
    good_seconds: float = 60.0
    most_failed_starts: int = 5
    _dice: random.Random = field(factory=random.Random, repr=False)
    _ends: int = field(init=False, default=0)
    _failed_starts: int = field(init=False, default=0)
    _is_useless: bool = field(init=False, default=False)

    @property
    def is_over(self) -> bool:
        """Whether starting again is no use, unless somebody changes something."""
        return self._is_useless or self._failed_starts >= self.most_failed_starts

    def wait_after(self, code: int, *, ready_seconds: float | None) -> float:
        """Take in how a worker ended; the seconds until the next one.

        Args:
            code: Its exit code; below 0: the signal that killed it.
            ready_seconds: How long it was ready; ``None``: it never was.
        """
        if ready_seconds is not None and ready_seconds >= self.good_seconds:
            self._ends = 0
        self._is_useless = ready_seconds is None and code in _NO_USE
        if ready_seconds is not None:
            self._failed_starts = 0
        elif code != TEMPORARY:  # a database that is away is waited for, as a running pool waits for it
            self._failed_starts += 1
        # The power is capped too: a worker that ends for weeks must not make a number of that size.
        longest = min(self.first_seconds * 2.0 ** min(self._ends, 32), self.most_seconds)
        self._ends += 1
        return longest * self._dice.uniform(0.5, 1.0)  # not in step with the others
