"""When a request is sent again, after how long, and how long anything may take."""

from __future__ import annotations

import email.utils
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import anyio
from attrs import Attribute, field, frozen

from prewarmkit.media import seconds_of

__all__ = ["AttemptEvent", "RetryPolicy", "Timeouts", "retry_after_seconds"]


def _seconds(value: float | timedelta) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def _optional_seconds(value: float | timedelta | None) -> float | None:
    return None if value is None else _seconds(value)


def _not_negative(_instance: object, attribute: Attribute[Any], value: float | None) -> None:
    if value is not None:
        seconds_of(value, attribute.name)


def _at_least_one(_instance: object, _attribute: object, value: int) -> None:
    if value < 1:
        raise ValueError(f"attempts must be at least 1, not {value!r}.")


def _whole_budget(_instance: object, _attribute: object, value: int) -> None:
    if value < 0:
        raise ValueError(f"budget must be at least 0, not {value!r}.")


@frozen(kw_only=True)
class RetryPolicy:
    """How often and how fast a failed request is sent again.

    The n-th wait is a random time between nothing and ``base × 2ⁿ⁻¹``, never over `max_delay`
    ("full jitter"), and never less than what the service asked for by ``Retry-After``.

    Attributes:
        attempts: The first one included; 1: never again.
        base: Bound of the first wait; seconds or a ``timedelta``.
        max_delay: Bound of any wait; seconds or a ``timedelta``.
        max_retry_after: A service that asks for more is not waited for.
        budget: Retries that a client may send in all, a tenth of one earned by every success; a
            service that is down is then not asked ever more.
        sleep: Waits; a test hands in its own.
        random: A number from 0 to 1; a test hands in its own.
    """

    attempts: int = field(default=5, validator=_at_least_one)
    base: float = field(default=0.2, converter=_seconds, validator=_not_negative)
    max_delay: float = field(default=10.0, converter=_seconds, validator=_not_negative)
    max_retry_after: float = field(default=60.0, converter=_seconds, validator=_not_negative)
    budget: int = field(default=100, validator=_whole_budget)
    sleep: Callable[[float], Awaitable[None]] = field(default=anyio.sleep, repr=False)
    random: Callable[[], float] = field(default=random.random, repr=False)

    def delay_seconds(self, attempt: int, retry_after: float | None = None) -> float | None:
        """The wait after attempt number ``attempt``, from 1; ``None``: give up."""
        if attempt >= self.attempts:
            return None
        if retry_after is not None and retry_after > self.max_retry_after:
            return None
        # Beyond 2**63 every bound is reached; the cap keeps the float finite.
        bound = min(self.max_delay, self.base * 2.0 ** min(attempt - 1, 63))
        return max(bound * self.random(), retry_after or 0.0)


@frozen(kw_only=True)
class Timeouts:
    """How long things may take; seconds or a ``timedelta`` each.

    Attributes:
        connect: Opening a connection, and again TLS on it.
        stall: Any single wait for bytes to go out or to come in.
        operation: One call with all its attempts and waits; `R2Client.open`: until the answer's
            head is there. ``None``: no bound but the others.
    """

    connect: float = field(default=10.0, converter=_seconds, validator=_not_negative)
    stall: float = field(default=30.0, converter=_seconds, validator=_not_negative)
    operation: float | None = field(default=None, converter=_optional_seconds, validator=_not_negative)


@frozen(kw_only=True)
class AttemptEvent:
    """One request and what came of it, for `R2Client`'s ``on_attempt``.

    Attributes:
        operation: The operation's name in S3, such as ``GetObject``.
        method: Such as ``GET``.
        bucket: The bucket.
        key: The object's key; ``None`` where it is about the bucket.
        attempt: From 1.
        status: The answer's; ``None`` where none came.
        seconds: From signing until the answer's head, or its whole body where it was read at once.
        waited_seconds: For a connection, and for the key's turn, before it was signed.
        sent_bytes: Of the request's body; ``None``: it has none.
        announced_bytes: Of the answer's body, by its ``Content-Length``; ``None``: it does not say.
        error: What it became; ``None``: good.
    """

    operation: str
    method: str
    bucket: str
    key: str | None
    attempt: int
    status: int | None
    seconds: float
    error: Exception | None
    waited_seconds: float = 0.0
    sent_bytes: int | None = None
    announced_bytes: int | None = None


def retry_after_seconds(value: str | None, *, now: str | None = None) -> float | None:
    """The seconds that a ``Retry-After`` asks for; ``None``: it is missing or makes no sense.

    Args:
        value: Seconds, or an HTTP date.
        now: The answer's own ``Date``, against which a date is read: no clock of ours is asked.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
        base = email.utils.parsedate_to_datetime(now or "")
        return max(0.0, (moment - base).total_seconds())
    except (TypeError, ValueError):
        return None
