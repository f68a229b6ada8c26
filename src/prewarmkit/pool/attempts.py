"""One attempt: a lease goes in, an outcome comes out, and the figures know of it."""

from __future__ import annotations

import json
import logging
import math
import random
from collections.abc import Callable
from datetime import datetime
from typing import cast

import anyio
from attrs import define, field

from prewarmkit.errors import TargetDown, WarmTimeout
from prewarmkit.media import Warmed
from prewarmkit.pool.core import Core
from prewarmkit.pool.events import MediaStarted, TargetPaused
from prewarmkit.pool.state import Pause, Verdict, judge
from prewarmkit.stores.base import Failed, Lease, MediaId, Released
from prewarmkit.stores.rules import moment

__all__ = ["Attempts", "Running", "resting_error"]

logger = logging.getLogger("prewarmkit.pool")


@define(eq=False)
class Running:
    """A lease that a worker has."""

    lease: Lease
    scope: anyio.CancelScope
    is_lost: bool = False


@define(eq=False)
class Attempts:
    """Runs attempts and judges them; knows which run now."""

    core: Core
    running: dict[MediaId, Running] = field(init=False, factory=dict[MediaId, Running])
    is_cut_off: bool = field(init=False, default=False)
    _weak_tries: dict[MediaId, int] = field(init=False, factory=dict[MediaId, int])
    _dice: Callable[[], float] = field(init=False, factory=lambda: random.Random().random)  # noqa: S311 - jitter

    async def run(self, lease: Lease, taken_at: float) -> tuple[Verdict | None, float]:
        """Make one attempt.

        Args:
            lease: What to warm.
            taken_at: When the store leased it, by the pool's clock.

        Returns:
            The verdict, and the seconds that the target took. ``None`` if the lease was lost meanwhile.
        """
        core, began = self.core, self.core.clock()
        if self.is_cut_off:
            return Verdict(Released(lease), "deferred"), 0.0
        if lease.attempt > core.settings.max_attempts:
            reason = f"crash: {core.settings.max_attempts} attempts ended without an outcome"
            return Verdict(Failed(lease, reason), "failed"), 0.0
        core.recorder.queue_wait.add(lease.waited + began - taken_at)
        core.events.emit(MediaStarted(lease.id, lease.attempt, lease.waited))
        running = self.running[lease.id] = Running(lease, anyio.CancelScope())
        result: Warmed | Exception | None = None
        try:
            with running.scope:
                result = await self._warm(lease)
        finally:
            if self.running.get(lease.id) is running:
                del self.running[lease.id]
        seconds = core.clock() - began
        if result is None:
            # Cancelled by a stop: the work is given back. Cancelled for a lost lease: it is not ours to give.
            return (None if running.is_lost else Verdict(Released(lease), "deferred")), seconds
        return self._judged(lease, result, seconds), seconds

    async def _warm(self, lease: Lease) -> Warmed | Exception:
        try:
            warmed = await self.core.book.by_id(lease.id.target).warm(lease.media, self.core.source)
        except anyio.get_cancelled_exc_class():
            if anyio.current_effective_deadline() == -math.inf:
                raise
            return RuntimeError("the target was cancelled from within")
        except Exception as error:  # noqa: BLE001 - judged, logged if it is nobody's TargetFailure, kept in the row
            return _alone(error)
        return _checked(warmed)

    def _judged(self, lease: Lease, result: Warmed | Exception, seconds: float) -> Verdict:
        core, target = self.core, lease.id.target
        if isinstance(result, Warmed):
            core.recorder.warm_latency.add(seconds)
            core.book.works(target)
            if result.weak:
                core.recorder.count("weak", target=target)
        verdict = judge(
            lease,
            result,
            core.settings,
            jitter=self._dice(),
            is_awaited=core.flights.is_awaited(lease.id),
            weak_tries=self._weak_tries.get(lease.id, 0),
            downs=core.book.downs(target),
        )
        if isinstance(result, Warmed) and result.weak and verdict.label == "retried":
            self._weak_tries[lease.id] = self._weak_tries.get(lease.id, 0) + 1
        else:
            self._weak_tries.pop(lease.id, None)
        if verdict.is_bug and isinstance(result, Exception):
            logger.error("target %s raised for %r", target, lease.id.key, exc_info=result)
        if verdict.pause is not None:
            self._rest(target, verdict.pause)
        return verdict

    def _rest(self, target: str, pause: Pause) -> None:
        core = self.core
        core.book.rest(target, pause)
        core.events.emit(TargetPaused(target, pause.reason, pause.seconds, pause.is_down))
        logger.warning("target %s rests for %.3g s: %s", target, pause.seconds, pause.reason)
        if pause.is_down:
            error = TargetDown(pause.reason.partition(": ")[2] or pause.reason)
            core.flights.land_all(lambda id_: error if id_.target == target else None)

    def cut_off(self) -> None:
        """End every attempt, those included whose worker has not come to begin; `is_cut_off` ends it."""
        self.is_cut_off = True
        for running in self.running.values():
            running.scope.cancel()

    def cancel(self, lease: Lease, *, is_lost: bool) -> None:
        """End an attempt that runs; with ``is_lost`` its outcome is nobody's any more."""
        running = self.running.get(lease.id)
        if running is not None and running.lease.token == lease.token:
            running.is_lost = is_lost
            running.scope.cancel()


def resting_error(pause: Pause) -> TargetDown | WarmTimeout:
    """What a caller of `PrewarmPool.warm` is told of a target that rests longer than it would wait."""
    if pause.is_down:
        return TargetDown(pause.reason.partition(": ")[2] or pause.reason, pause.seconds)
    return WarmTimeout(
        f"The target rests for {pause.seconds:.3g} s more ({pause.reason}): ask again then.",
        retry_after=pause.seconds,
    )


def _alone(error: Exception) -> Exception:
    """The one error of a group of one: a target's task group wraps whatever its only task raised."""
    if isinstance(error, ExceptionGroup):
        group = cast("ExceptionGroup[Exception]", error)
        return _alone(group.exceptions[0]) if len(group.exceptions) == 1 else group
    return error


def _checked(warmed: object) -> Warmed | Exception:
    """A result that any store can keep; a target's slip must not harm the rows that share its turn."""
    if not isinstance(warmed, Warmed):
        return TypeError(f"warm() must return a Warmed, not {type(warmed).__name__}")
    if not isinstance(warmed.handle, str) or not (warmed.handle or warmed.weak):
        return TypeError("Warmed.handle must be a str, and empty only beside reasons in Warmed.weak")
    texts = [warmed.handle, *warmed.weak, *([] if warmed.unique_id is None else [warmed.unique_id])]
    if not all(isinstance(text, str) and "\0" not in text for text in texts):
        return TypeError("Warmed's handle, unique_id and weak must be str, without a NUL character")
    expires = warmed.expires_at
    if expires is not None and (not isinstance(expires, datetime) or expires.tzinfo is None):
        return TypeError("Warmed.expires_at must be an aware datetime")
    try:
        if expires is not None:
            moment(expires.timestamp())  # the very last ones do not come back as they went in
        for text in texts:
            text.encode()
        if warmed.details:
            json.dumps(dict(warmed.details), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, OverflowError, OSError) as error:
        return TypeError(f"Warmed must hold JSON values and a date that can be kept: {error}")
    return warmed
