"""What a pool decides, as pure functions: priorities, and what follows from an attempt.

No clock, no randomness, no I/O: times and dice are handed in.
"""

from __future__ import annotations

from typing import Final, Literal

from attrs import frozen

from prewarmkit.errors import NotFound, RateLimited, SourceMissing, TargetDown, TargetFailure
from prewarmkit.media import Media, MediaKind, Warmed
from prewarmkit.pool.settings import PoolSettings
from prewarmkit.stores.base import Failed, Lease, Outcome, Retry, Succeeded

__all__ = ["LIVE_PRIORITY", "Pause", "Verdict", "judge", "priority_of"]

LIVE_PRIORITY: Final = 0
"""Somebody waits for it now; a default priority is never this good."""

_MIDDLE = 5
_SIZE_CLASSES: Final = ((100_000, 3), (1_000_000, 4), (10_000_000, 5))
_LARGEST_CLASS = 7
_LONGEST_DOWN_SECONDS = 300.0
_EAGER_SECONDS: Final = (0.5, 1.0, 2.0)
_SCOPE_RETRY_SECONDS = 1.0
_REASON_LENGTH = 500


def priority_of(media: Media) -> int:
    """The priority of a medium that was given none: small ones first, photos ahead of their size.

    Under 100 KB 3, under 1 MB 4, under 10 MB 5, above 7; a photo one better; unknown size 5.
    Age counts in the store: a minute of waiting is worth one step.
    """
    if media.size is None:
        rank = _MIDDLE
    else:
        rank = next((rank for below, rank in _SIZE_CLASSES if media.size < below), _LARGEST_CLASS)
    return rank - 1 if media.kind is MediaKind.PHOTO else rank


@frozen
class Pause:
    """Lease nothing for this target for a while."""

    seconds: float
    reason: str
    is_down: bool


@frozen
class Verdict:
    """What follows from one attempt.

    Attributes:
        outcome: What the store is told.
        label: Which figure it counts in.
        pause: Whether the target as a whole rests.
        is_bug: Whether the target broke its contract, which the log should show.
    """

    outcome: Outcome
    label: Literal["succeeded", "failed", "retried", "deferred"]
    pause: Pause | None = None
    is_bug: bool = False


def judge(
    lease: Lease,
    result: Warmed | Exception,
    settings: PoolSettings,
    *,
    jitter: float = 0.5,
    is_awaited: bool = False,
    weak_tries: int = 0,
    downs: int = 0,
) -> Verdict:
    """Judge one attempt.

    Args:
        lease: The row, its attempt counted.
        result: What the target returned or raised.
        settings: The pool's.
        jitter: 0 to 1, spread over ±10 % of a delay.
        is_awaited: Whether a caller waits for it: the first retries come within seconds.
        weak_tries: Weak results so far, this one not counted.
        downs: Times in a row that the target was found down.
    """
    if isinstance(result, Warmed):
        return _judge_warmed(lease, result, settings, weak_tries)
    if isinstance(result, NotFound):
        result = SourceMissing(str(result))  # a target that did not translate its source's errors
    if not isinstance(result, TargetFailure):
        reason = _short(f"error: {type(result).__name__}: {result}")
        return _retry(lease, reason, settings, jitter, is_awaited=is_awaited, is_bug=True)
    reason = _short(f"{result.reason}: {result}")
    if result.is_final:
        return Verdict(Failed(lease, reason), "failed")
    if result.spends_attempt:
        return _retry(lease, reason, settings, jitter, is_awaited=is_awaited)
    return _defer(lease, result, reason, settings, downs)


def _judge_warmed(lease: Lease, warmed: Warmed, settings: PoolSettings, weak_tries: int) -> Verdict:
    if not warmed.weak:
        return Verdict(Succeeded(lease, warmed), "succeeded")
    reason = _short(f"weak:{','.join(warmed.weak)}")
    may_retry = settings.weak != "reject" and weak_tries < settings.retry_weak_id
    if may_retry and lease.attempt < settings.max_attempts:
        return Verdict(Retry(lease, 0.0, reason), "retried")
    if settings.weak == "store" and warmed.handle:
        return Verdict(Succeeded(lease, warmed), "succeeded")
    return Verdict(Failed(lease, reason), "failed")


def _retry(
    lease: Lease,
    reason: str,
    settings: PoolSettings,
    jitter: float,
    *,
    is_awaited: bool,
    is_bug: bool = False,
) -> Verdict:
    if lease.attempt >= settings.max_attempts:
        return Verdict(Failed(lease, reason), "failed", is_bug=is_bug)
    if is_awaited and lease.attempt <= len(_EAGER_SECONDS):
        delay = _EAGER_SECONDS[lease.attempt - 1]
    else:
        delay = settings.retry_base_seconds * 2 ** (lease.attempt - 1)
    return Verdict(Retry(lease, delay * (0.9 + 0.2 * jitter), reason), "retried", is_bug=is_bug)


def _defer(lease: Lease, failure: TargetFailure, reason: str, settings: PoolSettings, downs: int) -> Verdict:
    """Put off at no attempt's cost; what concerns the target pauses the target, not the job."""
    if isinstance(failure, TargetDown):
        longest = min(settings.down_seconds * 2**downs, _LONGEST_DOWN_SECONDS)
        pause = Pause(failure.retry_after or longest, reason, is_down=True)
        return Verdict(Retry(lease, 0.0, reason, refund=True), "deferred", pause)
    if isinstance(failure, RateLimited) and failure.scope == "target":
        pause = Pause(failure.retry_after, reason, is_down=False)
        return Verdict(Retry(lease, 0.0, reason, refund=True), "deferred", pause)
    # One chat is out: another may be free at once, but a target must not be asked in a tight loop.
    asked = failure.retry_after if isinstance(failure, RateLimited) else _SCOPE_RETRY_SECONDS
    return Verdict(Retry(lease, min(asked, _SCOPE_RETRY_SECONDS), reason, refund=True), "deferred")


def _short(reason: str) -> str:
    """A reason that fits a row of any store: short, and text in any encoding."""
    reason = reason.encode("utf-8", "backslashreplace").decode().replace("\0", "")
    return reason if len(reason) <= _REASON_LENGTH else reason[: _REASON_LENGTH - 1] + "…"
