"""The store's own time: spans that a step of the calendar neither stretches nor cuts.

A store needs two times. Delays and leases are spans, measured on a clock that only goes
forward: the boot's, which all processes of the machine share and which counts on while it
sleeps. ``expires_at`` is a date that others wrote, compared with the machine's calendar.
This module reads clocks, and must never know a row.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from attrs import define, frozen

__all__ = ["Moment", "StoreClock", "boot_id", "boot_seconds"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@frozen
class Moment:
    """One reading of both.

    Attributes:
        now: Seconds on the store's clock; they began as POSIX seconds, and are written into rows.
        wall: POSIX seconds of the machine's calendar.
    """

    now: float
    wall: float

    def on_calendar(self, moment: float) -> float:
        """POSIX seconds of a time on the store's clock."""
        return moment + self.wall - self.now


@define
class StoreClock:
    """Reads the time.

    Attributes:
        given: POSIX seconds from a clock that a test moves; it is both times then.
        offset: What to add to the boot's clock; ``None``: the calendar is the store's time too.
    """

    given: Callable[[], float] | None = None
    offset: float | None = None

    def __call__(self) -> Moment:
        """The moment."""
        if self.given is not None:
            seconds = self.given()
            return Moment(seconds, seconds)
        wall = time.time()
        return Moment(wall if self.offset is None else boot_seconds() + self.offset, wall)


def boot_seconds() -> float:
    """Seconds since the machine started, asleep or not; where no such clock is, those of this process alone."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def boot_id() -> str | None:
    """What names this run of the machine; ``None`` where nothing does, and `boot_seconds` cannot be shared."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
