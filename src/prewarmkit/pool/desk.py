"""What callers ask of a pool: enqueue, look up, wait, refuse.

Works against the store alone; whether this process has workers is not its business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Literal

import anyio
from attrs import define, evolve

from prewarmkit.errors import MediaNotReady, QueueFull, StoreError, WarmFailed, WarmTimeout
from prewarmkit.media import Handle, Media, MediaKind, seconds_of
from prewarmkit.pool.attempts import resting_error
from prewarmkit.pool.core import Core
from prewarmkit.pool.events import MediaEnqueued, MediaInvalidated, MediaRequeued
from prewarmkit.pool.flights import Flight
from prewarmkit.pool.pump import LIVE_ROOM, Pump
from prewarmkit.pool.state import LIVE_PRIORITY
from prewarmkit.stores.base import Enqueued, Job, Looked, MediaId
from prewarmkit.stores.lifecycle import State
from prewarmkit.stores.rules import is_new_version, priority_of
from prewarmkit.targets.base import WarmTarget

__all__ = ["Asked", "Desk"]

_RECHECK_SECONDS = 1.0
_LOWEST_PRIORITY = 9
_GUESSED_SECONDS = 1.0
_NOT_READY: Mapping[State, Literal["pending", "warming", "failed"]] = {
    State.PENDING: "pending",
    State.WARMING: "warming",
    State.FAILED: "failed",
}


@define
class Asked:
    """One medium at one target, as a caller named it."""

    media: Media
    target: WarmTarget

    @property
    def id(self) -> MediaId:
        """The row that it means."""
        return MediaId(self.target.id, self.media.key, self.media.kind)


@define(eq=False)
class Desk:
    """The calls of one pool."""

    core: Core
    pump: Pump

    # ── enqueue ──────────────────────────────────────────────────────────────

    async def asked(
        self, media: Media | str, kind: MediaKind | str | None, target: WarmTarget | str | None
    ) -> Asked:
        """What a call means; every slip in it is found here.

        Raises:
            TypeError: It is neither a key nor a Media.
            ValueError: An unknown kind, or one that contradicts the Media's.
        """
        if isinstance(media, str):
            medium = Media(media, None if kind is None else MediaKind.parse(kind))
        elif isinstance(media, Media):
            medium = media
            if kind is not None and MediaKind.parse(kind) is not media.kind:
                raise ValueError(f"kind={str(kind)!r} contradicts {media!r}: give the kind once.")
        else:
            raise TypeError(f"A medium is a str key or a Media, not {type(media).__name__}.")
        found = await self.core.book.find(target)
        if getattr(found, "ignores_kind", False):
            medium = evolve(medium, kind=MediaKind.DOCUMENT)  # one row a key, whatever it is called
        return Asked(medium, found)

    async def enqueue(
        self,
        asked: Sequence[Asked],
        *,
        priority: int | None = None,
        delay: float | timedelta | None = None,
        retry_failed: bool = False,
    ) -> list[Enqueued]:
        """Put media in, all or none."""
        jobs = _jobs(asked, priority, delay, retry_failed=retry_failed)
        recorder = self.core.recorder
        try:
            answers = await self.core.store.enqueue(
                jobs, limit=self._limit(is_live=priority == LIVE_PRIORITY)
            )
        except QueueFull:
            recorder.count("rejected", len(jobs))
            raise
        finally:
            # Also if the caller was cancelled: the store may have done it.
            for job in jobs:
                self.core.cache.drop(job.id)
            self.pump.hint()
        for job, answer in zip(jobs, answers, strict=True):
            if answer is Enqueued.QUEUED:
                recorder.count("enqueued")
            elif answer is Enqueued.DUPLICATE:
                recorder.count("duplicates")
            if answer is not Enqueued.READY:
                self.pump.demand.urgent += job.priority == LIVE_PRIORITY and job.id not in self.pump.held
            if self.core.events.is_heard:
                self.core.events.emit(MediaEnqueued(job.id, answer))
        if self.pump.demand.urgent:
            self.pump.bell.ring()
        return answers

    def _limit(self, *, is_live: bool) -> int | None:
        """Pending rows that the store may hold: with a store in memory they are what this process holds.

        A backlog must not refuse those who wait: there is room for some of these beyond it.
        """
        settings = self.core.settings
        if self.core.store.is_durable:
            return settings.max_backlog
        return max(0, settings.max_queue - len(self.pump.rack)) + is_live * LIVE_ROOM

    # ── look up ──────────────────────────────────────────────────────────────

    async def lookup(self, asked: Asked, *, allow_stale: bool = True) -> Handle | None:
        """Cache first."""
        looked = await self._look(asked)
        handle = None if looked is None else looked.handle
        return handle if handle is not None and (allow_stale or not handle.stale) else None

    async def _look(self, asked: Asked) -> Looked | None:
        """Look up, counted; a caller that names another version finds the handle stale."""
        looked = self.core.cache.get(asked.id)
        if looked is None:
            with self.core.cache.reading(asked.id) as keep:
                looked = await self._read(asked.id)
                keep(looked)
        if looked is not None and looked.media is not None and is_new_version(looked.media, asked.media):
            handle = None if looked.handle is None else evolve(looked.handle, stale=True)
            looked = evolve(looked, handle=handle, failed_ago=None)  # it was the other one that failed
        is_good = looked is not None and looked.handle is not None and not looked.handle.stale
        self.core.recorder.count("cache_hits" if is_good else "cache_misses")
        return looked

    async def _read(self, id_: MediaId) -> Looked | None:
        return (await self.core.store.lookup_many([id_])).get(id_)

    async def require(self, asked: Asked, *, enqueue: bool = True) -> Handle:
        """The handle, or `MediaNotReady`; a stale one still serves while a newer one is made."""
        looked = await self._look(asked)
        handle = None if looked is None else looked.handle
        if handle is not None and not handle.stale:
            return handle
        state = None if looked is None else looked.state
        if enqueue and await self.enqueue([asked], priority=LIVE_PRIORITY) == [Enqueued.READY]:
            # Warmed meanwhile, or the same content is warm under another key.
            looked = await self._read(asked.id)
            handle = handle if looked is None else looked.handle
        if handle is not None:
            return handle
        raise MediaNotReady(
            _NOT_READY.get(state) if state is not None else None,
            self._retry_after(asked, looked),
            key=asked.media.key,
        )

    def _retry_after(self, asked: Asked, looked: Looked | None) -> float | None:
        """A guess: what the target rests, what the row waits, and as long as warming takes."""
        if looked is not None and looked.state is State.FAILED:
            return None
        rest = self.core.book.resting(asked.target.id)
        waits = max(rest.seconds if rest else 0.0, looked.due_in if looked else 0.0)
        usual = self.core.recorder.warm_latency.quantiles().p50
        return waits + (_GUESSED_SECONDS if usual is None else usual)

    # ── wait ─────────────────────────────────────────────────────────────────

    async def warm(
        self,
        asked: Asked,
        *,
        timeout: float | timedelta | None,
        is_closed: Callable[[MediaId], Exception | None],
    ) -> Handle:
        """Put it in front and wait; see `PrewarmPool.warm`."""
        seconds = None if timeout is None else seconds_of(timeout, "timeout")
        deadline = None if seconds is None else self.core.clock() + seconds
        ready = await self._ready_or_failed(asked)
        if ready is not None:
            return ready
        self._check_rest(asked, deadline)
        while (handle := await self._wait(asked, deadline, is_closed)) is None:
            pass  # what landed was another version of it
        return handle

    async def _wait(
        self, asked: Asked, deadline: float | None, is_closed: Callable[[MediaId], Exception | None]
    ) -> Handle | None:
        """Queue it and wait with everybody else; ``None`` if other content landed than was asked for."""
        # Joined before it is queued, so that no landing can come between.
        with self.core.flights.join(asked.id) as flight:
            answers = await self.enqueue([asked], priority=LIVE_PRIORITY)
            if answers == [Enqueued.FAILED]:
                # It may have failed since it was looked at: then that is the answer for a while, for this caller too.
                ready = await self._ready_or_failed(asked)
                if ready is not None:
                    return ready
                answers = await self.enqueue([asked], priority=LIVE_PRIORITY, retry_failed=True)
            patience = 0.0 if answers == [Enqueued.READY] else _RECHECK_SECONDS
            while True:
                if flight.result is None and (closed := is_closed(asked.id)) is not None:
                    raise closed
                handle = await self._landed(asked, flight, patience, deadline)
                if handle is not None or flight.result is not None:
                    return handle
                patience = _RECHECK_SECONDS

    async def _ready_or_failed(self, asked: Asked) -> Handle | None:
        looked = await self._look(asked)
        handle = None if looked is None else looked.handle
        if handle is not None and not handle.stale:
            return handle
        failed_ago = None if looked is None else looked.failed_ago
        if (
            looked is not None
            and failed_ago is not None
            and failed_ago < self.core.settings.failure_ttl_seconds
        ):
            raise WarmFailed(looked.reason or "unknown", looked.attempts, key=asked.media.key)
        return None

    def _check_rest(self, asked: Asked, deadline: float | None) -> None:
        rest = self.core.book.resting(asked.target.id)
        if rest is not None and (
            rest.is_down or (deadline is not None and self.core.clock() + rest.seconds > deadline)
        ):
            raise resting_error(rest)

    async def _landed(
        self, asked: Asked, flight: Flight, patience: float, deadline: float | None
    ) -> Handle | None:
        """One round of waiting: until it lands, or it is time to look whether another process did it."""
        left = patience if deadline is None else min(patience, deadline - self.core.clock())
        with anyio.move_on_after(max(0.0, left)):
            await flight.event.wait()
        if flight.result is None:
            await self._check(asked.id, flight, is_last=left < _RECHECK_SECONDS)
        if flight.result is not None and flight.is_of_another_version(asked.media):
            return None
        if isinstance(flight.result, Handle):
            return flight.result
        if flight.result is not None:
            raise flight.result.with_traceback(None)  # many callers raise the one error
        self._check_rest(asked, deadline)
        if deadline is not None and self.core.clock() >= deadline:
            raise WarmTimeout(
                f"{asked.media.key!r} was not warm in time; the work goes on: ask again, or use a longer timeout."
            )
        return None

    async def _check(self, id_: MediaId, flight: Flight, *, is_last: bool) -> None:
        """Land a flight that others have ended: one look a second, however many callers wait."""
        now = anyio.current_time()
        if not is_last and now - flight.checked_at < _RECHECK_SECONDS:
            return
        flight.checked_at = now
        try:
            looked = await self._read(id_)
        except StoreError:
            if is_last:
                raise
            return  # the workers sit it out and say so; there is time to look again
        if flight.result is None:
            self.core.flights.land_looked(id_, looked)

    # ── refuse ───────────────────────────────────────────────────────────────

    async def invalidate_handle(self, handle: Handle, *, rewarm: bool) -> bool:
        """Drop this very handle, wherever it stands."""
        # Rows stand under the kind asked for, a handle has the kind delivered: try that one first.
        kinds = [handle.kind, *(other for other in MediaKind if other is not handle.kind)]
        ids = [MediaId(handle.target, handle.key, kind) for kind in kinds]
        rows = await self.core.store.lookup_many(ids)  # of many late refusals all but one end here
        for id_ in ids:
            stored = rows[id_].handle if id_ in rows else None
            if stored is not None and stored.value == handle.value:
                return await self.invalidate(id_, handle.value, rewarm=rewarm)
            self.core.cache.drop(id_)
        return False

    async def invalidate(self, id_: MediaId, value: str | None, *, rewarm: bool) -> bool:
        """Drop the handle of a row, if it still is ``value`` (``None``: whichever it is)."""
        try:
            did = await self.core.store.invalidate(id_, value, rewarm=rewarm)
        finally:
            # Also if the caller was cancelled: the store may have done it.
            self.core.cache.refuse(id_, value)
            self.pump.hint()
        if did:
            self.core.events.emit(MediaInvalidated(id_))
            self.pump.demand.urgent += rewarm
            self.pump.bell.ring()
        return did

    async def requeue(
        self,
        targets: Collection[str],
        *,
        kind: MediaKind | None,
        reason: str | None,
        keys: Collection[str] | None,
        limit: int | None,
    ) -> int:
        """Make failed media of these targets due again; how many."""
        requeued = 0
        for target in targets:  # not those of another pool on the same table
            left = None if limit is None else limit - requeued
            if left is not None and left <= 0:
                break
            requeued += await self.core.store.requeue(
                target=target, kind=kind, reason=reason, keys=keys, limit=left
            )
        if requeued:
            self.core.events.emit(MediaRequeued(requeued))
            self.pump.hint()
        return requeued


def _jobs(
    asked: Sequence[Asked], priority: int | None, delay: float | timedelta | None, *, retry_failed: bool
) -> list[Job]:
    """What the store is asked to queue; every slip in it is found here."""
    if priority is not None and (
        isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= _LOWEST_PRIORITY
    ):
        raise ValueError(f"priority is 0 (most urgent) to 9, not {priority!r}.")
    wait = 0.0 if delay is None else seconds_of(delay, "delay")
    if wait == math.inf:
        raise ValueError("delay must be finite: a medium that is never due need not be queued.")
    return [
        Job(
            each.target.id,
            each.media,
            priority=priority_of(each.media) if priority is None else priority,
            delay=wait,
            retry_failed=retry_failed,
        )
        for each in asked
    ]
