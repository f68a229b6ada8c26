"""What a pool decides, as pure functions: priorities, and what follows from an attempt.

No clock, no randomness, no I/O: times and dice are handed in.
"""

from __future__ import annotations

import math
from typing import Final, Literal

from attrs import define, evolve, frozen

from prewarmkit.errors import NotFound, RateLimited, SourceMissing, TargetDown, TargetFailure, Transient
from prewarmkit.media import Warmed
from prewarmkit.pool.settings import PoolSettings
from prewarmkit.stores.base import Failed, Lease, Outcome, Retry, Succeeded

__all__ = ["LIVE_PRIORITY", "Pause", "Verdict", "judge"]

LIVE_PRIORITY: Final = 0
"""Somebody waits for it now; a default priority is never this good."""

_LONGEST_DOWN_SECONDS = 300.0
_LONGEST_RETRY_SECONDS = 86_400.0
_MOST_DOUBLINGS = 64  # 2 to a larger power may not fit a float, and every bound is below it
_SHORTEST_REST_SECONDS = 0.1
_EAGER_SECONDS: Final = (0.5, 1.0, 2.0)
_SCOPE_RETRY_SECONDS = 1.0
_REASON_LENGTH = 500


@frozen
class Pause:
    """Lease nothing for this target for a while."""

    seconds: float
    reason: str
    is_down: bool


@define
class Verdict:
    """What follows from one attempt.

    Attributes:
        outcome: What the store is told.
        label: Which figure it counts in.
        pause: Whether the target as a whole rests.
        is_bug: Whether the target broke its contract, which the log should show.
        is_targets_fault: Whether it failed for what is no medium's fault: enough of these in a row
            mean that the target is broken.
    """

    outcome: Outcome
    label: Literal["succeeded", "failed", "retried", "deferred"]
    pause: Pause | None = None
    is_bug: bool = False
    is_targets_fault: bool = False


def judge(
    lease: Lease,
    result: Warmed | Exception,
    settings: PoolSettings,
    *,
    jitter: float = 0.5,
    is_awaited: bool = False,
    weak_tries: int = 0,
    downs: int = 0,
    failures: int = 0,
    is_probe: bool = False,
    expires_in: float | None = None,
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
        failures: Attempts in a row, before this one, that failed for what is no medium's fault.
        expires_in: Seconds until the handle expires; ``None``: it does not.
        is_probe: Whether this attempt asks if a target that was down works again.
    """
    if isinstance(result, Warmed):
        renew_in = _renew_in(expires_in, settings, jitter)
        return _judge_warmed(lease, result, settings, weak_tries, renew_in)
    if isinstance(result, NotFound):
        result = SourceMissing(_text(result))  # a target that did not translate its source's errors
    is_bug = not isinstance(result, TargetFailure)
    name = result.reason if isinstance(result, TargetFailure) else f"error: {type(result).__name__}"
    reason = _short(f"{name}: {_text(result)}")
    if isinstance(result, TargetFailure):
        if result.is_final:
            return Verdict(Failed(lease, reason), "failed")
        if not result.spends_attempt:
            return _defer(lease, result, reason, settings, downs)
    verdict = _retry(lease, reason, settings, jitter, is_awaited=is_awaited, is_bug=is_bug)
    if is_bug or isinstance(result, Transient):
        return _blame(verdict, reason, settings, downs=downs, failures=failures, is_probe=is_probe)
    return verdict  # this medium's own trouble


def _blame(
    verdict: Verdict, reason: str, settings: PoolSettings, *, downs: int, failures: int, is_probe: bool
) -> Verdict:
    """A failure that may be the target's: the circuit opens after enough of them, and at once after a probe's."""
    if is_probe:
        # It asked for all the others; the next probe may be it again, and must not fail for that.
        pause = Pause(_down_seconds(settings, downs), reason, is_down=True)
        put_off = Retry(verdict.outcome.lease, 0.0, reason, refund=True)
        return evolve(verdict, outcome=put_off, label="deferred", pause=pause)
    if not settings.breaker_failures or failures + 1 < settings.breaker_failures:
        return evolve(verdict, is_targets_fault=True)
    told = _short(f"broken: {failures + 1} attempts in a row failed; the last one: {reason}")
    pause = Pause(_down_seconds(settings, downs), told, is_down=True)
    return evolve(verdict, is_targets_fault=True, pause=pause)


def _down_seconds(settings: PoolSettings, downs: int) -> float:
    return min(settings.down_seconds * 2.0 ** min(downs, _MOST_DOUBLINGS), _LONGEST_DOWN_SECONDS)


def _renew_in(expires_in: float | None, settings: PoolSettings, jitter: float) -> float | None:
    """When a handle that expires is warmed again: in the last third of its life, with a tenth of it to spare.

    Spread, so that what was warmed together is not renewed together.
    """
    if expires_in is None or expires_in <= 0 or not settings.keep_warm:
        return None
    return expires_in * (0.7 + 0.2 * jitter)


def _judge_warmed(
    lease: Lease, warmed: Warmed, settings: PoolSettings, weak_tries: int, renew_in: float | None
) -> Verdict:
    if not warmed.weak:
        return Verdict(Succeeded(lease, warmed, renew_in), "succeeded")
    reason = _short(f"weak:{','.join(warmed.weak)}")
    may_retry = settings.weak != "reject" and weak_tries < settings.retry_weak_id
    # Configuration: another try gives the same, whatever the settings allow.
    heals = not any(getattr(weakness, "is_final", False) for weakness in warmed.weak)
    if may_retry and heals and lease.attempt < settings.max_attempts:
        return Verdict(Retry(lease, 0.0, reason), "retried")
    if settings.weak == "store" and warmed.handle:
        return Verdict(Succeeded(lease, warmed, renew_in), "succeeded")
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
        doubled = settings.retry_base_seconds * 2 ** min(lease.attempt - 1, _MOST_DOUBLINGS)
        delay = min(doubled, max(settings.retry_base_seconds, _LONGEST_RETRY_SECONDS))
    return Verdict(Retry(lease, delay * (0.9 + 0.2 * jitter), reason), "retried", is_bug=is_bug)


def _defer(lease: Lease, failure: TargetFailure, reason: str, settings: PoolSettings, downs: int) -> Verdict:
    """Put off at no attempt's cost; what concerns the target pauses the target, not the job."""
    if isinstance(failure, TargetDown):
        pause = Pause(_asked_seconds(failure, _down_seconds(settings, downs)), reason, is_down=True)
        return Verdict(Retry(lease, 0.0, reason, refund=True), "deferred", pause)
    asked = _asked_seconds(failure, _SCOPE_RETRY_SECONDS)
    if isinstance(failure, RateLimited) and getattr(failure, "scope", "target") == "target":
        pause = Pause(asked, reason, is_down=False)
        return Verdict(Retry(lease, 0.0, reason, refund=True), "deferred", pause)
    # One chat is out: another may be free at once, but a target must not be asked in a tight loop.
    return Verdict(Retry(lease, min(asked, _SCOPE_RETRY_SECONDS), reason, refund=True), "deferred")


def _asked_seconds(failure: TargetFailure, usual: float) -> float:
    """What a failure asks to wait; ``usual`` if it does not say, or says what cannot be.

    A failure may be of a host's own class, filled from a header: a rest that is no span would
    end the pool, and one of nothing would ask the target in a tight loop at no attempt's cost.
    """
    asked = getattr(failure, "retry_after", None)
    if isinstance(asked, bool) or not isinstance(asked, int | float) or not 0 <= asked < math.inf:
        return usual
    return max(float(asked), _SHORTEST_REST_SECONDS)


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - a foreign __str__ must not end the pool; what it raised is told
        return f"(its message cannot be read: {type(broken).__name__})"


def _short(reason: str) -> str:
    """A reason that fits a row of any store: short, and text in any encoding."""
    reason = reason.encode("utf-8", "backslashreplace").decode().replace("\0", "")
    return reason if len(reason) <= _REASON_LENGTH else reason[: _REASON_LENGTH - 1] + "…"
