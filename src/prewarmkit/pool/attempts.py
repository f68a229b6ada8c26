"""One attempt: a lease goes in, an outcome comes out, and the figures know of it."""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections.abc import Callable
from datetime import datetime
from typing import cast

import anyio
from attrs import define, field

from prewarmkit.errors import RateLimited, TargetDown, Transient, WarmTimeout
from prewarmkit.media import Warmed
from prewarmkit.pool.adaptive import AdaptiveLimit
from prewarmkit.pool.core import Core
from prewarmkit.pool.events import MediaStarted, TargetPaused, TargetResumed
from prewarmkit.pool.state import LIVE_PRIORITY, Pause, Verdict, judge
from prewarmkit.stores.base import Failed, Lease, MediaId, Released
from prewarmkit.stores.rules import moment

__all__ = ["Attempts", "Worker", "resting_error"]

logger = logging.getLogger("prewarmkit.pool")


@define(eq=False)
class Worker:
    """A task that makes one attempt after another, and the one that it makes now.

    Attributes:
        scope: What cancels it.
        bell: Wakes it while it is parked.
        lease: What it works on; ``None``: on nothing.
        taken_at: When the store leased that.
        began: When it began with that.
        seconds: What the attempt took.
        is_lost: Whether the lease is somebody else's now, and the outcome nobody's.
        is_overdue: Whether it took longer than an attempt may.
    """

    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    bell: anyio.Event = field(factory=anyio.Event)
    lease: Lease | None = None
    taken_at: float = 0.0
    began: float = 0.0
    seconds: float = 0.0
    is_lost: bool = False
    is_overdue: bool = False


@define(eq=False)
class Attempts:
    """Makes attempts and judges them."""

    core: Core
    _weak_tries: dict[MediaId, int] = field(init=False, factory=dict[MediaId, int])
    _dice: Callable[[], float] = field(init=False, factory=lambda: random.Random().random)  # noqa: S311 - jitter

    def begin(self, worker: Worker) -> None:
        """A worker has a lease: what is counted from here on."""
        worker.is_lost = worker.is_overdue = False
        worker.seconds, worker.began = 0.0, self.core.clock()
        self.core.book.health(_lease(worker).id.target).begin(worker)

    def end(self, worker: Worker) -> None:
        """It has it no more."""
        self.core.book.health(_lease(worker).id.target).end(worker)

    async def run(self, worker: Worker) -> Verdict | None:
        """Make the attempt; ``None`` if the lease was lost meanwhile."""
        core, lease = self.core, _lease(worker)
        if worker.scope.cancel_called:
            return self.cut(worker)
        if lease.attempt > core.settings.max_attempts:
            reason = f"crash: {core.settings.max_attempts} attempts ended without an outcome"
            return Verdict(Failed(lease, reason), "failed")
        core.recorder.queue_wait.add(lease.waited + worker.began - worker.taken_at)
        if core.events.is_heard:
            core.events.emit(MediaStarted(lease.id, lease.attempt, lease.waited))
        result = await self._warm(lease)
        worker.seconds = core.clock() - worker.began
        return None if worker.is_lost else self._judged(worker, lease, result)

    def cut(self, worker: Worker) -> Verdict | None:
        """What becomes of an attempt that was cut off."""
        lease = _lease(worker)
        worker.seconds = self.core.clock() - worker.began
        if worker.is_lost:
            self._weak_tries.pop(lease.id, None)
            return None  # it is not ours to give back
        if worker.is_overdue:
            most = self.core.settings.deadline_seconds
            overdue = Transient(f"It took longer than {most:.3g} s.", outcome_unknown=True)
            return self._judged(worker, lease, overdue)
        return Verdict(Released(lease), "deferred")

    async def _warm(self, lease: Lease) -> Warmed | Exception:
        try:
            warmed = await self.core.book.by_id(lease.id.target).warm(lease.media, self.core.source)
        except anyio.get_cancelled_exc_class():
            if anyio.current_effective_deadline() == -math.inf:
                raise
            return RuntimeError("the target was cancelled from within")
        except Exception as error:  # noqa: BLE001 - judged, logged if it is nobody's TargetFailure, kept in the row
            return _alone(error)
        return warmed if type(warmed) is Warmed and _is_plain(warmed) else _checked(warmed)

    def _judged(self, worker: Worker, lease: Lease, result: Warmed | Exception) -> Verdict:
        core, target = self.core, lease.id.target
        health = core.book.health(target)
        verdict = judge(
            lease,
            result,
            core.settings,
            jitter=self._dice(),
            is_awaited=lease.priority == LIVE_PRIORITY or core.flights.is_awaited(lease.id),
            weak_tries=self._weak_tries.get(lease.id, 0) if self._weak_tries else 0,
            downs=health.downs(),
            failures=health.failures,
            is_probe=health.is_probe(worker),
            expires_in=_expires_in(result),
        )
        if isinstance(result, Warmed):
            core.recorder.warm_latency.add(worker.seconds)
            if health.works():
                core.events.emit(TargetResumed(target))
            if result.weak:
                core.recorder.count("weak", target=target)
        elif verdict.is_targets_fault:
            health.failures += 1
        if health.limit is not None:
            self._adapt(health.limit, worker, lease, result, running=health.running)
        self._note_weak(lease.id, verdict, is_weak=isinstance(result, Warmed) and bool(result.weak))
        if verdict.is_bug and isinstance(result, Exception):
            logger.error("target %s raised for %r", target, lease.id.key, exc_info=result)
        if verdict.pause is not None:
            self._rest(target, verdict.pause)
        return verdict

    def _note_weak(self, id_: MediaId, verdict: Verdict, *, is_weak: bool) -> None:
        if is_weak and verdict.label == "retried":
            self._weak_tries[id_] = self._weak_tries.get(id_, 0) + 1
        elif self._weak_tries:
            self._weak_tries.pop(id_, None)

    @staticmethod
    def _adapt(
        limit: AdaptiveLimit, worker: Worker, lease: Lease, result: Warmed | Exception, *, running: int
    ) -> None:
        ended = worker.began + worker.seconds
        if isinstance(result, Warmed):
            limit.succeeded(began=worker.began, ended=ended, size=lease.media.size, running=running)
        elif isinstance(result, Transient) or _is_of_target(result):
            limit.refused(began=worker.began, ended=ended)

    def _rest(self, target: str, pause: Pause) -> None:
        core = self.core
        core.book.health(target).rest(pause)
        core.events.emit(TargetPaused(target, pause.reason, pause.seconds, pause.is_down))
        if pause.is_down:
            error = TargetDown(pause.reason.partition(": ")[2] or pause.reason)
            core.flights.land_all(lambda id_: error if id_.target == target else None)


def _expires_in(result: Warmed | Exception) -> float | None:
    expires = result.expires_at if isinstance(result, Warmed) else None
    return None if expires is None else expires.timestamp() - time.time()


def _is_of_target(result: Warmed | Exception) -> bool:
    return isinstance(result, RateLimited) and getattr(result, "scope", "target") == "target"


def _lease(worker: Worker) -> Lease:
    assert worker.lease is not None  # asked only between begin and end
    return worker.lease


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


def _is_plain(warmed: Warmed) -> bool:
    """Whether it is the usual one, with nothing that could be wrong."""
    handle: object = warmed.handle
    return (
        type(handle) is str
        and handle.isprintable()
        and handle.isascii()
        and bool(handle)
        and not (warmed.weak or warmed.details or warmed.expires_at or warmed.unique_id)
    )


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
