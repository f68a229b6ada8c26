"""Times: what a caller may give, how a signature writes them, and how far off our clock is.

Owns no clock: every moment is handed in.
"""

from __future__ import annotations

import functools
import re
import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from prewarmkit.errors import SigningError
from prewarmkit.sigv4.checks import is_number

__all__ = ["Stamp", "expires_seconds", "http_date", "observed_skew", "posix_time", "stamp"]

_LATEST = 253_402_300_799  # 9999-12-31T23:59:59Z, the last second that the format can write
_MAX_ROUND_TRIP_SECONDS = 900
_MAX_EXPIRES_SECONDS = 604_800
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HTTP_DATE = re.compile(r"[A-Z][a-z]{2}, (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT", re.ASCII)


class Stamp(NamedTuple):
    """One second, as the signature writes it: ``20150830T123600Z`` and ``20150830``."""

    timestamp: str
    date: str


def stamp(second: int) -> Stamp:
    """A POSIX second in the two spellings of the signature."""
    timestamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
    return Stamp(timestamp, timestamp[:8])


def posix_time(value: datetime | float, argument: str) -> float:
    """Seconds since 1970, from an aware datetime or from such seconds."""
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise SigningError(
                f"{argument} is a naive datetime; give it a time zone, such as datetime.now(timezone.utc)."
            )
        seconds = value.timestamp()
    elif is_number(value):
        seconds = value
    else:
        raise SigningError(
            f"{argument} must be an aware datetime or a POSIX time, not {type(value).__name__}."
        )
    if not 0 <= seconds <= _LATEST:  # which nan is not either
        raise SigningError(f"{argument} must be between the years 1970 and 9999.")
    return seconds


@functools.lru_cache(maxsize=16)  # the answers of a second all say the same
def http_date(text: str) -> float | None:
    """The POSIX time of a ``Date`` header; ``None`` if it is not in the form of today's HTTP."""
    match = _HTTP_DATE.fullmatch(text)
    if match is None or match[2] not in _MONTHS:
        return None
    day, _, year, *clock = match.groups()
    hour, minute, second = map(int, clock)
    try:
        parsed = datetime(int(year), _MONTHS.index(match[2]) + 1, int(day), hour, minute, second, tzinfo=UTC)
    except ValueError:  # such as the 30th of February
        return None
    return parsed.timestamp()


def observed_skew(date: str, *, sent_at: float, received_at: float) -> float | None:
    """How far a server's clock is ahead, by the ``Date`` of its answer; ``None``: it does not say.

    The server is taken to have answered in the middle of the exchange. After over 15 minutes
    that is no longer worth anything.
    """
    if not 0 <= received_at - sent_at <= _MAX_ROUND_TRIP_SECONDS:
        return None
    served_at = http_date(date)
    return None if served_at is None else served_at - (sent_at + received_at) / 2


def expires_seconds(expires: float | timedelta) -> int:
    """How long a presigned URL is to live, in the whole seconds that it can say."""
    seconds = expires.total_seconds() if isinstance(expires, timedelta) else expires
    if not is_number(seconds) or not 1 <= seconds <= _MAX_EXPIRES_SECONDS or seconds != int(seconds):
        raise SigningError(
            f"expires must be whole seconds from 1 to {_MAX_EXPIRES_SECONDS} (7 days), or such a timedelta, "
            f"not {expires!r}."
        )
    return int(seconds)
