"""What `EdgeTarget` is given, checked where it is given: each slip is a `ConfigurationError` that names it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import cast

from prewarmkit.errors import ConfigurationError
from prewarmkit.media import seconds_of
from prewarmkit.targets.edge.places import Place
from prewarmkit.transports.base import Transport

__all__ = [
    "checked_clock",
    "checked_delays",
    "checked_flag",
    "checked_header",
    "checked_id",
    "checked_transport",
    "checked_ttl",
]


def checked_id(given: object, first: Place) -> str:
    """The id that stands in rows."""
    if given is None:
        return f"edge:{first.base.partition('://')[2]}"
    if not isinstance(given, str) or not given.strip() or not given.isprintable():
        raise ConfigurationError(f"id must be a printable str with something in it, or None, not {given!r}.")
    return given


def checked_flag(given: object, name: str) -> bool:
    """A switch."""
    if not isinstance(given, bool):
        raise ConfigurationError(f"{name} must be True or False, not {given!r}.")
    return given


def checked_ttl(given: object) -> float | None:
    """Seconds, or ``None``."""
    if given is None:
        return None
    seconds = _seconds(given, "edge_ttl")
    if seconds == 0:
        raise ConfigurationError(
            "edge_ttl must be more than 0 seconds: a rule that keeps nothing warms nothing."
        )
    return seconds


def checked_delays(given: object) -> tuple[float, ...]:
    """Seconds before each look."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ConfigurationError(f"verify_delays must be a list of seconds, not {given!r}.")
    delays = tuple(_seconds(delay, "verify_delays") for delay in cast("Iterable[object]", given))
    if not delays:
        raise ConfigurationError("verify_delays is empty: set verify=False to look at no fill again.")
    return delays


def _seconds(given: object, name: str) -> float:
    try:
        seconds = seconds_of(cast("float", given), name)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error)) from None
    if math.isinf(seconds):
        raise ConfigurationError(f"{name} must be finite.")
    return seconds


def checked_header(given: object) -> str:
    """A header's name, in lower case."""
    if not isinstance(given, str) or not given.replace("-", "").isalnum() or not given.isascii():
        raise ConfigurationError(f"status_header must be the name of a header, not {given!r}.")
    return given.lower()


def checked_transport(given: object) -> Transport | None:
    """What to send by, if it is one."""
    if given is not None and not isinstance(given, Transport):
        raise ConfigurationError(
            f"transport must be a prewarmkit transport or None, not {type(given).__name__}."
        )
    return given


def checked_clock(given: object) -> Callable[[], float]:
    """What tells the time."""
    if not callable(given):
        raise ConfigurationError(
            f"clock must be a callable that gives POSIX seconds, not {type(given).__name__}."
        )
    return cast("Callable[[], float]", given)
