"""A clock that a test moves by hand."""

from __future__ import annotations

from attrs import define

__all__ = ["FakeClock"]


@define
class FakeClock:
    """Seconds that pass only when told to; call it for the time.

    Attributes:
        now: POSIX seconds.
    """

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        """The time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let that many seconds pass."""
        self.now += seconds
